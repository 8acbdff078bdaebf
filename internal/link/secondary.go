package link

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/apply"
	"github.com/twinspan/twinspan/internal/capture"
	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/flow"
	"github.com/twinspan/twinspan/internal/lag"
	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/peer"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/role"
	"github.com/twinspan/twinspan/internal/seed"
	"github.com/twinspan/twinspan/internal/side"
	"github.com/twinspan/twinspan/internal/syncrep"
	"github.com/twinspan/twinspan/internal/upstream"
	"github.com/twinspan/twinspan/internal/wire"
)

// secondarySide is what a secondary has at work.
type secondarySide struct {
	applier  *apply.Applier
	receiver *flow.Receiver
	durable  lsn.LSN
	rates    meter
	time     lag.Shares // waiting, committing
	totals   api.Totals // of the streams that have ended
}

// totalsLocked counts what was applied since the agent was started, nil for nothing.
func (s *secondarySide) totalsLocked() *api.Totals {
	t := s.totals
	if s.applier != nil {
		count(&t, s.applier.Status(), s.receiver)
	}
	if t.Streams == 0 {
		return nil
	}
	return &t
}

// count adds what one stream has brought.
func count(t *api.Totals, status apply.Status, in *flow.Receiver) {
	t.Transactions += status.Transactions
	t.Changes += status.Changes
	t.Bytes += in.Bytes()
	t.Retries += status.Retries
	t.Streams++
}

const (
	reportInterval = time.Second
	// freshInterval is the same while the link was made a moment ago: until it hears
	// that the primary is prepared, the secondary has nothing to do.
	freshInterval = 100 * time.Millisecond
	// inStep is the lag up to which a link counts as replicating; fallenBehind the
	// one from which it no longer does. Between them it keeps its name.
	inStep = syncrep.InStep
	// positionPatience is how long a report waits for the position of a side that rests.
	positionPatience = 2 * time.Second
	fallenBehind     = time.Minute
)

// reportLoop tells the primary how this side stands, and learns how it does.
func (l *Link) reportLoop(ctx context.Context) {
	tick := time.NewTimer(0)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := l.report(ctx); err != nil && ctx.Err() == nil && problem.KindOf(err) != problem.Transient && !side.Misplaced(problem.As(err)) && !l.fresh() {
			l.setPeerTrouble(problem.As(err))
		}
		l.side.Session.Rest()
		if l.fresh() {
			tick.Reset(freshInterval)
		} else {
			tick.Reset(reportInterval)
		}
	}
}

// fresh says whether the link was made a moment ago: the primary's agent knows it
// only once this side has answered.
func (l *Link) fresh() bool {
	r := l.side.Record()
	return r.Phase == string(role.Creating) && time.Since(r.CreatedAt) < 30*time.Second
}

func (l *Link) report(ctx context.Context) error {
	ctx, stop := context.WithTimeout(ctx, 10*time.Second)
	defer stop()
	r := l.side.Record()
	if r.Deleting {
		return nil
	}
	l.mu.Lock()
	rests := l.secondary.applier == nil && r.Seeded && r.StartLSN != 0
	l.mu.Unlock()
	if rests {
		// Nothing else tells how far it has come: the agent may have been started since. What
		// is to be reported does not wait for a server that does not answer.
		asking, done := context.WithTimeout(ctx, positionPatience)
		_, _ = l.position(asking)
		done()
	}
	report := l.stand()
	answer, err := side.Call[Answer](ctx, l.side, MethodReport, report)
	if err != nil {
		if side.Misplaced(problem.As(err)) {
			l.side.Suspect()
		}
		return err
	}
	l.setPeerTrouble(nil)
	l.mu.Lock()
	l.heardLocked(answer)
	l.mu.Unlock()
	if err := l.adopt(ctx, answer.Suspended, answer.Change); err != nil {
		return err
	}
	if err := l.takeSettings(ctx, answer.Settings); err != nil {
		return err
	}
	if r.Phase == string(role.Creating) && answer.Phase == string(role.Seeding) {
		return l.side.Happen(ctx, role.Prepared, nil)
	}
	return nil
}

// stand describes this side.
func (l *Link) stand() Report {
	changing := l.changing()
	l.mu.Lock()
	defer l.mu.Unlock()
	r, step := l.side.Record(), l.ownDoingLocked(changing)
	report := Report{
		Format:    capture.Format,
		Reference: side.ReferenceOf(r),
		Phase:     r.Phase, Seeded: r.Seeded, Diverged: r.Diverged, Suspended: r.Suspended, Change: r.Change,
		Step: step.Text, StepSeconds: step.Seconds(), Seeding: l.live.seeding, Durable: l.secondary.durable, Problems: l.ownProblemsLocked(),
		LargeObjects: l.largeObjectsLocked(), Audit: l.auditLocked(), SchemaChanges: l.schema.Changes(), Settings: l.settings(r),
	}
	report.Applied, report.Received = report.Durable, report.Durable
	if s := &l.secondary; s.applier != nil {
		status := s.applier.Status()
		report.Applied = max(report.Applied, status.Applied)
		report.Received = max(s.receiver.Received(), report.Applied)
		rates := s.rates.per(time.Now(), status.Transactions, status.Changes, s.receiver.Bytes())
		report.Rates = &rates
		spent := s.time.Per(time.Now(), status.Waiting, status.Committing)
		report.Time = lag.TimeShares(spent[0], spent[1], l.live.answer.Handing)
		report.Spilled = s.receiver.Spilled()
		report.Lag = l.lagSecondsLocked(status)
	} else {
		report.Lag = l.lagSecondsLocked(apply.Status{})
	}
	l.live.report = report
	return report
}

// lagSecondsLocked is the lag as a report has it.
func (l *Link) lagSecondsLocked(status apply.Status) *float64 {
	age, known := l.behindLocked(status)
	if !known || !l.side.Record().Seeded {
		return nil
	}
	seconds := age.Seconds()
	return &seconds
}

// position is what the secondary's server durably holds of the primary's log. The
// call writes its own log out first (origin.c, replorigin_get_progress with flush).
func (l *Link) position(ctx context.Context) (lsn.LSN, error) {
	position, _, err := l.positionBy(ctx, l.side.Session)
	return position, err
}

// positionBy is position through a given session, with the server's setting
// synchronous_standby_names.
func (l *Link) positionBy(ctx context.Context, c *side.Session) (position lsn.LSN, standbys string, err error) {
	err = c.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		err := conn.QueryRow(ctx, `SELECT coalesce((SELECT pg_replication_origin_progress(roname, true)::text
			FROM pg_replication_origin WHERE roname = $1), '0/0'), current_setting('synchronous_standby_names')`, catalog.ObjectName(l.ID())).Scan(&position, &standbys)
		return pg.Classify(err, "read the applied position")
	})
	if err != nil {
		return 0, "", err
	}
	l.mu.Lock()
	l.secondary.durable = max(l.secondary.durable, position)
	l.mu.Unlock()
	return position, standbys, nil
}

// standsAt notes where the twin stands durably; 0 where that is to be read.
func (l *Link) standsAt(position lsn.LSN) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.secondary.durable = position
}

// appliedPosition is up to where the primary's log is applied, as far as known.
func (l *Link) appliedPosition() lsn.LSN {
	l.mu.Lock()
	defer l.mu.Unlock()
	position := l.secondary.durable
	if l.secondary.applier != nil {
		position = max(position, l.secondary.applier.Status().Applied)
	}
	return position
}

// follow applies the primary's changes until something ends it.
func (l *Link) follow(ctx context.Context) error {
	// Tables that were copied later than others pass over, for a while, what their
	// copy has already.
	if err := l.refit(ctx); err != nil {
		return err
	}
	r := l.side.Record()
	if r.Renewing {
		if err := l.renew(ctx); err != nil {
			return err
		}
	}
	copied, err := (&seed.Target{DSN: l.dsn, Link: r.ID, Name: r.Name}).Result(ctx)
	if err != nil {
		return err
	}
	return l.stream(ctx, copied, 0)
}

// stream applies changes from the durable position on; up to a position when
// until is set, then it returns nil.
func (l *Link) stream(ctx context.Context, seeded seed.Result, until lsn.LSN) error {
	return l.streamMending(ctx, seeded, until, mending{})
}

// mending is what a stream does other than usual while a former primary rejoins; see
// apply.Applier.
type mending struct {
	skip, repair map[uint32]lsn.LSN
	unsettled    func(ctx context.Context, table uint32, columns []int16, key []string) error
}

// streamMending is stream for a former primary that rejoins.
func (l *Link) streamMending(ctx context.Context, seeded seed.Result, until lsn.LSN, how mending) error {
	start, err := l.position(ctx)
	if err != nil {
		return err
	}
	r := l.side.Record()
	if start < r.StartLSN {
		return problem.New(problem.Diverged, "position_lost", "the replication origin stands at %s, before the copy's position %s", start, r.StartLSN).
			WithHint("the secondary's server was restored from a backup: twinspan link resume %s --repair", r.Name)
	}
	streamed := l.wantsBlocks()
	l.mu.Lock()
	text := l.live.textOnly || how.unsettled != nil
	l.mu.Unlock()
	extensions, err := l.twinExtensions(ctx)
	if err != nil {
		return err
	}
	request := upstream.StreamRequest{Reference: side.ReferenceOf(r), Position: start, Timeline: r.Timeline, Text: text, Compress: !l.peerIsLocal(), Streamed: streamed, Extensions: extensions, Format: capture.Format}
	s, err := l.place.Peers.Open(ctx, r.Peer, upstream.MethodStream, request)
	if err != nil {
		return err
	}
	defer s.Close()
	defer context.AfterFunc(ctx, func() { s.Close() })()
	kind, payload, err := s.ReadFrame()
	if err != nil {
		return err
	}
	var header upstream.StreamHeader
	if kind != wire.FrameResult {
		return problem.New(problem.Internal, "stream_corrupt", "the stream begins with a frame of kind %#x", kind)
	}
	if err := wire.Decode(payload, &header, wire.Room(len(payload))); err != nil {
		return problem.Wrap(err, problem.Internal, "stream_corrupt", "read the stream's header")
	}
	if err := l.followTimeline(ctx, header.Timeline); err != nil {
		return err
	}
	l.roles.ForgetOrdinary()
	ahead, bytes := flow.Room(l.place.Links())
	in := flow.NewReceiver(s, request.Compress, streamed, l.place.Spool, ahead)
	applier := &apply.Applier{
		DSN: l.dsn, Link: r.Name, Origin: catalog.ObjectName(r.ID), Start: start, Until: until,
		SourceMajor: header.Major, SkipBefore: seeded.SkipBefore, Repair: seeded.Repair, Encoding: header.Encoding, Log: l.log,
		OnSignal: l.signal, OnUnseen: l.replay.Unseen, SpoolDir: l.place.Spool.Dir(),
		OnCommit: in.Committed, Prompt: l.promptly, Limits: apply.Limits{Bytes: bytes},
	}
	applier.SkipTables, applier.RepairTables, applier.Unsettled = how.skip, how.repair, how.unsettled
	applyConflict(applier, r.OnConflict)
	l.mu.Lock()
	l.secondary.applier, l.secondary.receiver = applier, in
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		count(&l.secondary.totals, applier.Status(), in)
		l.secondary.applier, l.secondary.receiver = nil, nil
		l.mu.Unlock()
		in.End()
	}()
	return l.pump(ctx, s, in, applier)
}

// followTimeline notes, before anything of it is applied, on which timeline what comes
// now lies.
func (l *Link) followTimeline(ctx context.Context, timeline int64) error {
	r := l.side.Record()
	if timeline == 0 || timeline == r.Timeline {
		return nil
	}
	return l.side.Keep(ctx, func(ctx context.Context, conn *pgx.Conn, r *catalog.Link) error {
		r.Timeline = timeline
		return catalog.SetTimeline(ctx, conn, r, timeline)
	})
}

// peerIsLocal says whether the bytes stay on this machine, where compressing them
// would cost more than it saves.
func (l *Link) peerIsLocal() bool { return flow.IsLocal(l.place.Peers, l.side.Record().Peer) }

// pump runs the three parts of a stream: receive, apply, confirm.
func (l *Link) pump(ctx context.Context, s *peer.Stream, in *flow.Receiver, applier *apply.Applier) error {
	group, ctx := errgroup.WithContext(ctx)
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var result error
	group.Go(func() error { return in.Run(ctx) })
	group.Go(func() error {
		result = applier.Run(ctx, in)
		in.Drop()
		if problem.CodeOf(result) == "stream_needs_text" {
			l.mu.Lock()
			l.live.textOnly = true
			l.mu.Unlock()
		}
		if result == nil {
			stop(errDone)
			return errDone
		}
		return result
	})
	group.Go(func() error { return l.confirmLoop(ctx, s, in, applier) })
	err := group.Wait()
	if err == errDone {
		return nil
	}
	if result != nil && problem.KindOf(result) == problem.Diverged {
		err = result // rather than the cut stream that followed from it
	}
	return l.withoutBlocks(in, applier.Status().Applied, err)
}

var errDone = problem.New(problem.Cancelled, "stream_done", "the position was reached")

// judge turns lag into the phase that operators see. What is not known changes none.
func (l *Link) judge(ctx context.Context, status apply.Status) error {
	l.mu.Lock()
	age, known := l.behindLocked(status)
	phase := role.Phase(l.side.Record().Phase)
	l.mu.Unlock()
	switch {
	case !known:
		return nil
	case phase == role.CatchingUp && age <= inStep:
		return l.side.Happen(ctx, role.CaughtUp, nil)
	case phase == role.Replicating && age > fallenBehind:
		return l.side.Happen(ctx, role.FellBehind, nil)
	}
	return nil
}

func (l *Link) setPeerTrouble(p *problem.Error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.live.peerTrouble = p
}
