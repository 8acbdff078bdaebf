// Package meet comes to positions at which both sides of a link can be read. The secondary
// holds its applier, the primary takes a snapshot whose position is known, and the secondary
// goes on to stand exactly there: docs/design/0008-verify.md. It also takes moments of a twin
// alone.
package meet

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/apply"
	"github.com/twinspan/twinspan/internal/flow"
	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/peer"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/role"
	"github.com/twinspan/twinspan/internal/side"
	"github.com/twinspan/twinspan/internal/verify"
	"github.com/twinspan/twinspan/internal/wire"
)

// TwinLockTimeout is the longest that a verification's statement on the secondary
// waits for a lock.
const TwinLockTimeout = 5 * time.Second

// streamPatience is how long a verification waits for the link's stream.
const streamPatience = 30 * time.Second

// Secondary is where a secondary comes to positions. Its applier keeps one appointment at a time.
type Secondary struct {
	// Objects says as of when the large objects of the twin are; set before it is used.
	Objects func() time.Time

	side        *side.Side
	stream      func() (*apply.Applier, *flow.Receiver)
	appointment chan struct{} // has an element while one is kept
	reader      *verify.Reader
}

// NewSecondary returns a secondary's half; stream returns what applies the primary's changes
// now, or nil.
func NewSecondary(s *side.Side, stream func() (*apply.Applier, *flow.Receiver)) *Secondary {
	return &Secondary{side: s, stream: stream, appointment: make(chan struct{}, 1), reader: &verify.Reader{DSN: s.DSN, Link: s.Name()}}
}

// Reader tells what differs in words alone.
func (m *Secondary) Reader() *verify.Reader { return m.reader }

// RepairSession opens a session that writes on the secondary for a repair: code of users may
// run in it, within fences, and nobody waits longer than a moment for a lock.
func (m *Secondary) RepairSession(ctx context.Context) (*pgx.Conn, error) {
	return m.side.DSN.Connect(ctx, pg.Session{Name: m.side.Name() + "/repair", Apply: true, Fenced: true,
		Settings: map[string]string{"lock_timeout": "5s", "client_min_messages": "warning"}})
}

// Meeting is a position at which both sides are known: the primary's by a
// snapshot that its agent holds while the stream lives.
type Meeting struct {
	Position lsn.LSN
	Pause    time.Duration // for which the secondary applied nothing
	Primary  *Remote
	Stream   *peer.Stream
}

// Meet has f called while the secondary stands exactly where the primary's
// snapshot is: everything that committed before its position is applied, nothing
// else. The snapshot is given up by closing the stream.
func (m *Secondary) Meet(ctx context.Context, request SnapshotRequest, f func(ctx context.Context, m *Meeting) error) (*Meeting, error) {
	if err := m.awaitStream(ctx); err != nil {
		return nil, err
	}
	s, err := m.side.Peers.Open(ctx, m.side.Peer(), MethodSnapshot, request)
	if err != nil {
		return nil, err
	}
	met := &Meeting{Stream: s}
	for {
		if _, err = ReadAnswer(s); err == nil { // it is ready
			err = m.tryMeet(ctx, met, request, f)
		}
		if err == nil {
			return met, nil
		}
		if err != errMeetAgain {
			s.Close()
			return nil, err
		}
	}
}

// awaitStream waits for a stream that is about to come back: an agent that was
// started anew finds its link in step before it is.
func (m *Secondary) awaitStream(ctx context.Context) error {
	end := time.Now().Add(streamPatience)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if applier, _ := m.stream(); applier != nil {
			return nil
		}
		if time.Now().After(end) {
			return interrupted()
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// errMeetAgain says that the primary took too long.
var errMeetAgain = problem.New(problem.Transient, "snapshot_slow", "the primary's snapshot took too long")

// ErrMissed says that the position was behind what was handed over when it was known: it
// was not waited for long enough.
var ErrMissed = problem.New(problem.Transient, "position_missed", "the position was passed before it was known")

func (m *Secondary) tryMeet(ctx context.Context, met *Meeting, request SnapshotRequest, f func(ctx context.Context, m *Meeting) error) error {
	// The applier keeps one appointment at a time.
	select {
	case m.appointment <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-m.appointment }()
	applier, in := m.stream()
	if applier == nil {
		return interrupted()
	}
	began := time.Now()
	hold := in.Hold
	if request.Linger > 0 {
		hold = func() func() { return in.Linger(request.Linger) }
	}
	goOn := hold()
	defer goOn()
	// A primary that does not answer must not keep the applier from working.
	guard := time.AfterFunc(2*holdLimit, func() { met.Stream.Close() })
	defer guard.Stop()
	if err := met.Stream.WriteFrame(wire.FrameData, []byte{1}); err != nil {
		return err
	}
	answer, err := ReadAnswer(met.Stream)
	if err != nil {
		return err
	}
	if answer.State != snapshotBegun {
		return errMeetAgain
	}
	if !guard.Stop() {
		return interrupted()
	}
	met.Position = answer.Begun.LSN
	met.Primary = NewRemote(m.side, request.Reference, answer.Begun.Token)
	visit := &visit{done: make(chan struct{})}
	var inside time.Duration
	came := in.Before(met.Position, func() {
		applier.At(met.Position, func(applying context.Context) {
			start := time.Now()
			visit.run(ctx, applying, func(ctx context.Context) error {
				defer func() { inside = time.Since(start) }()
				return f(ctx, met)
			})
		})
	})
	if !came {
		return ErrMissed
	}
	held := time.Since(began)
	if request.Linger > 0 {
		held = min(held, request.Linger)
	}
	goOn()
	// What was done counts, also when f itself has ended the stream.
	came, err = visit.await(ctx, in)
	if came {
		met.Pause = held + inside
	}
	return err
}

func interrupted() error {
	return problem.New(problem.Transient, "link_interrupted", "the stream of the link is interrupted").
		WithHint("verify again when the link replicates: twinspan link show says why it does not")
}

// visit is a call of the applier that may come too late.
type visit struct {
	mu    sync.Mutex
	ended bool // nobody waits for it any more
	came  bool
	err   error
	done  chan struct{} // closed after the call
}

// run calls f unless it is too late. f's context ends with either of the two.
func (v *visit) run(ctx, applying context.Context, f func(context.Context) error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.ended {
		return
	}
	defer close(v.done)
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	defer context.AfterFunc(applying, func() { stop(context.Cause(applying)) })()
	v.came, v.err = true, f(ctx)
}

// await waits for the call, until the stream or ctx ends, and makes sure that none comes after it. It
// returns whether one came, and how it ended, or why none did.
func (v *visit) await(ctx context.Context, in *flow.Receiver) (came bool, err error) {
	missed := interrupted()
	select {
	case <-v.done:
	case <-in.Ended():
	case <-ctx.Done():
		missed = context.Cause(ctx)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.ended = true
	if !v.came {
		return false, missed
	}
	return true, v.err
}

// ReadAnswer reads one frame of the primary's answer.
func ReadAnswer(s *peer.Stream) (answer SnapshotAnswer, err error) {
	kind, payload, err := s.ReadFrame()
	if err != nil {
		return answer, err
	}
	if kind != wire.FrameResult {
		return answer, problem.New(problem.Internal, "stream_corrupt", "the primary answers a verification with a frame of kind %#x", kind)
	}
	if err := wire.Decode(payload, &answer, wire.Room(len(payload))); err != nil {
		return answer, problem.Wrap(err, problem.Internal, "stream_corrupt", "read the primary's snapshot")
	}
	return answer, nil
}

// Sides is a meeting of which both sides can be read for as long as needed.
type Sides struct {
	*Meeting
	Secondary *verify.Snapshot
	holder    *pgx.Conn // exports the secondary's snapshot
}

// Open makes both sides readable at one position.
func (m *Secondary) Open(ctx context.Context, request SnapshotRequest, read func(bytes int64)) (*Sides, error) {
	// Before the applier is held: connecting takes longer than anything else there.
	holder, err := m.side.DSN.Connect(ctx, pg.Session{Name: m.side.Name() + "/verify"})
	if err != nil {
		return nil, err
	}
	// So does a session's first run of the query: it is planned, and the catalogs are read for it.
	if _, err := exported(ctx, holder); err != nil {
		holder.Close(context.WithoutCancel(ctx))
		return nil, err
	}
	// The transaction sees nothing before its first query.
	if _, err := holder.Exec(ctx, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"); err != nil {
		holder.Close(context.WithoutCancel(ctx))
		return nil, pg.Classify(err, "take the secondary's snapshot")
	}
	x := &Sides{holder: holder}
	x.Meeting, err = m.Meet(ctx, request, func(ctx context.Context, _ *Meeting) error {
		id, err := exported(ctx, holder)
		if err != nil {
			return err
		}
		x.Secondary = &verify.Snapshot{DSN: m.side.DSN, Link: m.side.Name(), ID: id, Workers: request.Workers, Rate: request.Rate, Piece: request.Piece, LockTimeout: TwinLockTimeout, Read: read}
		return nil
	})
	if err != nil {
		holder.Close(context.WithoutCancel(ctx))
		return nil, err
	}
	level := slog.LevelInfo
	if request.Linger > 0 { // the audit's, again and again
		level = slog.LevelDebug
	}
	m.side.Log.Log(ctx, level, "verification at a position", "lsn", x.Position, "dur", x.Pause)
	return x, nil
}

// exported exports a session's snapshot.
func exported(ctx context.Context, conn *pgx.Conn) (id string, err error) {
	err = conn.QueryRow(ctx, "SELECT pg_export_snapshot()").Scan(&id)
	return id, pg.Classify(err, "take the secondary's snapshot")
}

// Close gives both snapshots up.
func (x *Sides) Close(ctx context.Context) {
	x.Secondary.Close(ctx)
	x.Stream.Close()
	x.holder.Close(ctx)
}

// NotComparable says why a link cannot be verified now.
func NotComparable(name string, phase role.Phase) error {
	p := problem.New(problem.Conflict, "not_replicating", "link %s is %s: its twin is compared when it is in step", name, phase).On(name)
	switch phase {
	case role.Suspended:
		return p.WithHint("let it go on first: twinspan link resume %s", name)
	case role.CatchingUp, role.Seeding, role.Creating:
		return p.WithHint("wait until it replicates: twinspan link watch %s", name)
	}
	return p.WithHint("twinspan link show %s says what is wrong", name)
}
