package link

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/gate"
	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/peer"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/role"
	"github.com/twinspan/twinspan/internal/sequence"
	"github.com/twinspan/twinspan/internal/side"
	"github.com/twinspan/twinspan/internal/sqlname"
	"github.com/twinspan/twinspan/internal/wire"
)

const (
	// nearEnough is how much of the primary's log may be left to apply when writers are
	// made to wait.
	nearEnough = 128 << 10
	// nearSoon is how long that is waited for before writers are slowed down, firstBrake
	// by how much they are at first, and brakeTime how long until it is more.
	nearSoon   = 5 * time.Second
	firstBrake = 4 * time.Millisecond
	brakeTime  = 2 * time.Second
	// nearPatience is how long a failover waits for the twin to be so near.
	nearPatience = 40 * time.Second
	// barrierPatience is how long writers wait for the twin to apply the rest.
	barrierPatience = 30 * time.Second
)

// errBarrier ends the stream whose every transaction is applied.
var errBarrier = problem.New(problem.Cancelled, "barrier_applied", "everything was applied")

// errForgotten is why a failover is undone that nobody drives.
var errForgotten = problem.New(problem.Transient, "failover_interrupted", "the agent that drove the failover was interrupted").WithHint("try again")

// begin stores that a failover is under way; the link's work drives it from there.
func (l *Link) begin(ctx context.Context, f *failover) error {
	return l.side.Update(ctx, func(r *catalog.Link) error {
		next, err := role.Step(side.State(*r), role.Begin)
		if err != nil {
			return err
		}
		next.Operation = f.id
		side.Put(next, r)
		r.Problem = nil
		return nil
	})
}

// switchOver drives a planned failover, from the secondary. A failover that it does
// not know was begun before the agent was started: whatever had come of it, it had
// not been decided.
func (l *Link) switchOver(ctx context.Context) error {
	if err := l.side.Ascertain(ctx); err != nil {
		return err
	}
	whole := ctx
	f := l.currentFailover(l.side.Record().Operation)
	err := error(errForgotten)
	if f != nil && !f.driven && l.Role() == role.Secondary {
		f.driven = true
		var stop context.CancelCauseFunc
		ctx, stop = context.WithCancelCause(ctx)
		defer stop(nil)
		defer context.AfterFunc(f.ctx, func() { stop(context.Cause(f.ctx)) })()
		s := &switcher{Link: l, f: f}
		defer s.release(context.WithoutCancel(ctx))
		ctx, late := context.WithTimeoutCause(ctx, l.patience(f), failoverLate)
		defer late()
		err = s.run(ctx)
		if given := context.Cause(f.ctx); given != nil && err != nil {
			err = given
		}
		if errors.Is(context.Cause(ctx), failoverLate) && l.Role() == role.Secondary {
			err = l.lateIn(f, err)
		}
	}
	if unsettled := l.settle(whole, f); unsettled != nil {
		return unsettled // neither decided nor undone until that is known
	}
	ending := context.WithoutCancel(ctx)
	if l.Role() == role.Primary {
		l.completeFailover(ending, f)
		return side.ErrChanged
	}
	undone := l.side.Update(ending, func(now *catalog.Link) error { return stepFrom(now, l.side.Record(), role.Undo) })
	if undone != nil {
		return undone
	}
	refusing, late := context.WithTimeout(ending, refusePatience)
	if err := l.withGateSession(refusing, gate.RefuseNow); err != nil {
		l.log.Warn("new sessions may be read/write by default", "err", err)
	}
	late()
	l.sequences.Release()
	if f != nil {
		l.endFailover(f, err)
	}
	return side.ErrChanged
}

// refusePatience is how long an undone failover waits for whoever is changing the settings of
// the database. Whoever follows then does it again.
const refusePatience = 5 * time.Second

// failoverPatience is how long a planned failover may take beside the time in which
// writers may finish: what is not done then is undone.
const failoverPatience = 50 * time.Second

func (l *Link) patience(f *failover) time.Duration {
	return f.drain() + cmp.Or(l.place.FailoverPatience, failoverPatience)
}

// drain is how long writers that run may go on.
func (f *failover) drain() time.Duration {
	return time.Duration(f.request.DrainSeconds * float64(time.Second))
}

var failoverLate = problem.New(problem.Transient, "failover_late", "the change of places was not done in time").WithHint("try again")

// lateIn says in which step a failover was when its time was up, and whom that waited for as
// far as err tells.
func (l *Link) lateIn(f *failover, err error) error {
	l.failovers.mu.Lock()
	defer l.failovers.mu.Unlock()
	step := "beginning"
	if n := len(f.view.Steps); n > 0 {
		step = f.view.Steps[n-1].Name
	}
	if p := problem.As(err); p != nil && (p.Code == "lock_not_available" || p.Code == "transaction_prepared") {
		return problem.New(problem.Transient, "failover_late", "the change of places was not done within %s; it was %s: %v", l.patience(f), step, p).On(l.Name()).WithHint("%s", p.Hint)
	}
	return problem.New(problem.Transient, "failover_late", "the change of places was not done within %s; it was %s", l.patience(f), step).On(l.Name()).
		WithHint("see what that step waits for on both sides: twinspan link show %s; then try again", l.Name())
}

// release lets those go on, or be refused, who came before it was decided.
func (s *switcher) release(ctx context.Context) {
	if s.early != nil {
		s.early.Release(ctx)
	}
}

// letIn lets new sessions connect to this side as to a primary, so that at no moment
// both sides send away those that look for one; their writes wait until it is decided.
// What they draw from sequences meanwhile is seen by comparing with what those were.
func (s *switcher) letIn(ctx context.Context) (err error) {
	if s.before, err = s.sequences.Leave(ctx); err != nil {
		return err
	}
	s.early, err = gate.Await(ctx, s.dsn, s.Name())
	return err
}

// switcher drives one failover.
type switcher struct {
	*Link
	f       *failover
	applied chan error      // the end of the stream that is applied meanwhile
	whole   context.Context // of all steps
	hold    *peer.Stream
	early   *gate.Hold // of writers that come to this side before it is primary
	before  map[sqlname.Table]sequence.State
	objects bool // the fenced primary has large objects
}

// run goes through the steps up to the deciding commit. Whether that was made when
// run returns is said by the record alone.
func (s *switcher) run(ctx context.Context) error {
	streaming, stop := context.WithCancelCause(ctx)
	s.whole, s.applied = ctx, make(chan error, 1)
	go func() { s.applied <- s.follow(streaming) }()
	ended := false
	defer func() {
		stop(errBarrier)
		if !ended {
			<-s.applied
		}
		if s.hold != nil {
			s.hold.Close()
		}
	}()
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"looking for what stands against it", s.assess},
		{"preparing both sides", s.stage},
		{"bringing large objects", s.largeObjects},
		{"waiting for the twin to be near", s.near},
		{"waiting for the other links", s.point(api.PointHold)},
		{"waiting for running writers, holding new ones", s.holdWriters},
		{"applying the rest", s.awaitBarrier},
		{"ending the stream", func(ctx context.Context) error {
			stop(errBarrier)
			<-s.applied // however it ended: everything before the barrier is committed
			ended = true
			return context.Cause(ctx)
		}},
		{"letting connections in", s.letIn},
		{"fencing the old primary", s.fence},
		{"bringing the last large objects", s.changedObjects},
		{"setting sequences", s.exactSequences},
		{"giving triggers their modes back", s.putBack},
		{"waiting for the other links", s.point(api.PointPromise)},
		{"promising to do as the other links", s.ifTogether(s.promise)},
		{"waiting for what is decided", s.ifTogether(s.verdict)},
		{"deciding", func(ctx context.Context) error { return s.decide(ctx, s.f.id, s.f.held) }},
	} {
		if step.do == nil {
			continue
		}
		s.failoverStep(s.f, step.name)
		if err := s.during(ctx, step.do); err != nil {
			return err
		}
	}
	return nil
}

// during runs a step, unless the stream that is applied meanwhile breaks.
func (s *switcher) during(ctx context.Context, do func(context.Context) error) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	done := make(chan error, 1)
	go func() { done <- do(ctx) }()
	if s.hold != nil { // nothing is applied any more, or the step sees to it
		return <-done
	}
	select {
	case err := <-done:
		return err
	case err := <-s.applied:
		s.applied <- err
		stop(err)
		<-done
		return err
	}
}

func (s *switcher) reference() Reference {
	r := s.side.Record()
	return side.ReferenceOf(r)
}

// assess looks on both sides for what stands against the failover.
func (s *switcher) assess(ctx context.Context) error {
	if s.verifications.Running() {
		return verificationRunning(s.Name())
	}
	list, err := s.unfit(ctx)
	if err != nil {
		return err
	}
	list = blocking(list)
	waits, err := s.waiters(ctx, true)
	if err != nil {
		return err
	}
	for _, w := range waits {
		if w.Fate == api.FateBlocks {
			p := holdsUpSlot(w)
			list = append(list, against(p.Code, p.Subject, p.Text, p.Hint))
		}
	}
	request := AssessRequest{Reference: s.reference(), Cutover: s.f.request.Cutover}
	others, err := side.Call[[]api.Problem](ctx, s.side, MethodFailoverAssess, request)
	if err != nil {
		return err
	}
	return blockers(append(list, others...))
}

func verificationRunning(name string) error {
	return problem.New(problem.Conflict, "verification_running", "a verification of the link is under way").On(name).
		WithHint("wait for it, or end it: twinspan link verify %s --cancel", name)
}

// stage prepares both sides: the gate of the primary, which lets everybody through
// for now, and here what a primary needs, the slot included.
func (s *switcher) stage(ctx context.Context) error {
	staged := make(chan error, 1)
	go func() {
		answer, err := side.Call[HoldAnswer](ctx, s.side, MethodFailoverStage, s.holdRequest())
		s.ended(answer)
		staged <- err
	}()
	// The gate's functions may be those of an earlier version.
	err := s.withGateSession(ctx, gate.Shut)
	if err == nil {
		err = s.furnish(ctx)
	}
	return errors.Join(err, <-staged)
}

// lockFurniture waits, no longer than ctx allows, for whoever makes or removes what only
// one role needs.
func (l *Link) lockFurniture(ctx context.Context) error {
	for !l.furniture.TryLock() {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}

// furnish makes what a primary needs.
func (l *Link) furnish(ctx context.Context) error {
	if err := l.lockFurniture(ctx); err != nil {
		return err
	}
	defer l.furniture.Unlock()
	source := l.source()
	if err := source.Prepare(ctx); err != nil {
		return err
	}
	return source.MakeSlot(ctx)
}

func (s *switcher) largeObjects(ctx context.Context) error {
	_, err := s.Link.objects.Bring(ctx, true)
	return err
}

// near waits until little is left to apply. Where the primary writes faster than the
// twin applies, writers are slowed down: otherwise they would wait the longer later.
func (s *switcher) near(ctx context.Context) error {
	ctx, stop := context.WithTimeoutCause(ctx, nearPatience,
		problem.New(problem.Transient, "twin_too_far", "the twin is too far behind: it did not come near within %s", nearPatience).
			WithHint("lighten the load on the primary, or see what slows the twin: twinspan link show %s", s.Name()))
	defer stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	brake, next := firstBrake, time.Now().Add(nearSoon)
	for {
		if err := s.report(ctx); err != nil { // and so learn where the primary is
			return err
		}
		s.mu.Lock()
		a, written := s.secondary.applier, s.live.answer.Written
		s.mu.Unlock()
		if a != nil && a.Status().Applied.Behind(written) <= nearEnough {
			return nil
		}
		if time.Now().After(next) {
			if err := side.Tell(ctx, s.side, MethodFailoverBrake, BrakeRequest{OperationRequest{s.reference(), s.f.id}, brake}); err != nil {
				return err
			}
			s.log.Info("writers slowed down, so that the twin comes near", "delay", brake)
			brake, next = 2*brake, time.Now().Add(brakeTime)
		}
		select {
		case <-ctx.Done():
			return s.inTheWay(context.Cause(ctx))
		case <-tick.C:
		}
	}
}

// inTheWay adds to why the twin did not come further whose lock its applying waits for,
// where that is so.
func (s *switcher) inTheWay(err error) error {
	s.mu.Lock()
	a := s.secondary.applier
	s.mu.Unlock()
	p := problem.As(err)
	if a == nil || p == nil {
		return err
	}
	blocked := a.Status().Blocked
	if blocked == nil {
		return err
	}
	return problem.New(p.Kind, p.Code, "%s: %v", p.Text, blocked).On(blocked.Subject).WithHint("%s", blocked.Hint)
}

// holdWriters has the primary's agent let running writers finish and new ones wait,
// for as long as the stream lives.
func (s *switcher) holdWriters(ctx context.Context) (err error) {
	s.f.held = time.Now()
	if s.hold, err = s.place.Peers.Open(s.whole, s.Peer(), MethodFailoverHold, s.holdRequest()); err != nil {
		return err
	}
	answer, err := s.order(ctx, nil)
	s.ended(answer)
	return err
}

func (s *switcher) holdRequest() HoldRequest {
	return HoldRequest{OperationRequest{s.reference(), s.f.id}, s.f.request.DrainSeconds}
}

// ended counts transactions that did not finish in time.
func (s *switcher) ended(answer HoldAnswer) {
	s.showFailover(s.f, func(view *api.FailoverProgress) { view.Ended += answer.Ended })
}

// order sends the primary's agent an order and waits for its answer.
func (s *switcher) order(ctx context.Context, order *HoldOrder) (answer HoldAnswer, err error) {
	defer context.AfterFunc(ctx, func() { s.hold.Close() })()
	if order != nil {
		body, err := json.Marshal(order)
		if err != nil {
			return answer, err
		}
		if err := s.hold.WriteFrame(wire.FrameData, body); err != nil {
			return answer, err
		}
	}
	kind, body, err := s.hold.ReadFrame()
	switch {
	case ctx.Err() != nil:
		return answer, context.Cause(ctx)
	case err != nil:
		return answer, err
	case kind != wire.FrameResult:
		return answer, problem.New(problem.Internal, "stream_corrupt", "the primary answers a failover with a frame of kind %#x", kind)
	}
	if err := wire.Decode(body, &answer, wire.Room(len(body))); err != nil {
		return answer, problem.Wrap(err, problem.Internal, "stream_corrupt", "read the primary's answer")
	}
	return answer, nil
}

// awaitBarrier waits until the barrier comes out of the stream: then everything that
// was committed before it is applied.
func (s *switcher) awaitBarrier(ctx context.Context) error {
	ctx, stop := context.WithTimeoutCause(ctx, barrierPatience,
		problem.New(problem.Transient, "barrier_late", "the twin did not apply the rest within %s", barrierPatience).
			WithHint("see what slows the twin: twinspan link show %s; then try again", s.Name()))
	defer stop()
	select {
	case <-s.f.barrier:
		return nil
	case err := <-s.applied:
		s.applied <- err
		return err
	case <-ctx.Done():
		return s.inTheWay(context.Cause(ctx))
	}
}

func (s *switcher) fence(ctx context.Context) error {
	answer, err := s.order(ctx, &HoldOrder{Do: orderFence})
	s.ended(answer)
	s.objects = answer.LargeObjects
	return err
}

// changedObjects brings what was changed since large objects were brought. It is left
// out where there are none, for writers wait.
func (s *switcher) changedObjects(ctx context.Context) error {
	some := s.objects
	if !some {
		err := s.side.Session.Do(ctx, func(ctx context.Context, conn *pgx.Conn) (err error) {
			some, err = anyLargeObjects(ctx, conn)
			return err
		})
		if err != nil || !some {
			return err
		}
	}
	return s.largeObjects(ctx)
}

func (s *switcher) exactSequences(ctx context.Context) error {
	missing, err := s.sequences.Bring(ctx, s.before)
	if err == nil && len(missing) > 0 {
		err = problem.New(problem.Diverged, "sequence_missing", "the twin lacks the sequence %s", missing[0]).On(missing[0].String()).
			WithHint("twinspan link verify %s --repair", s.Name())
	}
	return err
}

// decide makes this side the primary, in one commit.
func (l *Link) decide(ctx context.Context, operation string, held time.Time) error {
	mine := l.side.Record()
	start, system, err := l.endOfOwnLog(ctx)
	if err != nil {
		return err
	}
	return l.side.Turn(ctx, func(r *catalog.Link) error {
		if r.Operation != operation {
			return errMovedOn
		}
		if err := stepFrom(r, mine, role.Decide); err != nil {
			return err
		}
		now := time.Now()
		r.StartLSN, r.SystemID, r.Parted, r.PrimaryAddress = start, system, 0, l.place.Address
		r.LastFailover = &catalog.Failover{Type: planned, At: now.UTC(), Operation: operation}
		if !held.IsZero() {
			r.LastFailover.HoldSeconds = now.Sub(held).Seconds()
		}
		return nil
	}, l.writableByDefault)
}

// writableByDefault makes new sessions read/write. The gate follows when this is
// committed.
func (l *Link) writableByDefault(ctx context.Context, tx pgx.Tx) error {
	_, err := tx.Exec(ctx, `ALTER DATABASE `+sqlname.Quote(l.database)+` RESET default_transaction_read_only`)
	return pg.Classify(err, "make the database read/write by default")
}

// endOfOwnLog is where this server's log stands, and which server it is.
func (l *Link) endOfOwnLog(ctx context.Context) (end lsn.LSN, system string, err error) {
	err = l.side.Session.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		err := conn.QueryRow(ctx, `SELECT pg_current_wal_insert_lsn()::text, (SELECT system_identifier::text FROM pg_control_system())`).Scan(&end, &system)
		return pg.Classify(err, "read the end of the log")
	})
	return end, system, err
}

// completeFailover lets writers in on the new primary, tells the old one, and closes
// the failover.
func (l *Link) completeFailover(ctx context.Context, f *failover) {
	l.openGate(ctx)
	if f == nil {
		return
	}
	held := time.Since(f.held)
	r := l.side.Record()
	l.showFailover(f, func(view *api.FailoverProgress) {
		view.HoldSeconds, view.Primary, view.Epoch = held.Seconds(), l.place.AgentName, r.Epoch
		view.Text = fmt.Sprintf("agent %s has the secondary now", r.Peer)
	})
	l.failoverStep(f, "telling the old primary")
	if err := l.tellTurn(ctx, r); err != nil {
		l.log.Warn("the old primary learns later that the sides have changed places", "err", err)
		l.showFailover(f, func(view *api.FailoverProgress) {
			view.Text = fmt.Sprintf("agent %s did not answer; its side is fenced and follows when it is back", r.Peer)
		})
	}
	if f.request.Cutover {
		return // which the primary's life goes on with
	}
	l.endFailover(f, nil)
}

// openGate lets writers pass here. It is repeated by the tidying until it is done.
func (l *Link) openGate(ctx context.Context) {
	if err := l.side.Session.Do(ctx, l.agree); err != nil {
		l.log.Warn("the gate is not open yet", "err", err)
	}
}

// tellTurn tells the old primary that it is the secondary now.
func (l *Link) tellTurn(ctx context.Context, r catalog.Link) error {
	ctx, stop := context.WithTimeout(ctx, contactPatience)
	defer stop()
	return side.Tell(ctx, l.side, MethodFailoverTurn, TurnRequest{ID: r.ID, Standing: l.standing(r)})
}
