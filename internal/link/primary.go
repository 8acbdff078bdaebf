package link

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/assess"
	"github.com/twinspan/twinspan/internal/capture"
	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/role"
	"github.com/twinspan/twinspan/internal/seed"
)

// primarySide is what a primary holds for its secondary while it serves.
type primarySide struct {
	mu      sync.Mutex
	serving context.Context // nil while the link does not serve
	stream  *running        // the stream that is being sent
	active  sync.WaitGroup  // requests that hold something of the server

	seeds *seed.Source // holds the snapshot of a seeding; nil before the first was asked for

	snapshots snapshots // held for verifications
}

// running is a stream in progress.
type running struct {
	stop   context.CancelCauseFunc
	done   chan struct{}
	stream *capture.Stream

	handing shares // how long it was held up in sending
}

func (l *Link) source() capture.Source {
	r := l.snapshot()
	return capture.Source{DSN: l.dsn, Link: r.ID, Name: r.Name, Log: l.place.Log,
		Waits: func(err error) { l.setTrouble(problem.As(err)) }}
}

// MakePrimary records a link in its primary database and asks the peer for the
// other side. A refusal leaves nothing behind; when the peer is lost in the middle,
// the link exists and goes on by itself.
func MakePrimary(ctx context.Context, place Place, database string, record catalog.Link) (*Link, error) {
	l := New(place, database, record)
	err := l.control.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		return pg.InTx(ctx, conn, func(tx pgx.Tx) error {
			if err := catalog.Install(ctx, tx); err != nil {
				return err
			}
			if err := catalog.Insert(ctx, tx, &record); err != nil {
				return err
			}
			if err := catalog.Prove(ctx, tx, &record, place.Key); err != nil {
				return err
			}
			if err := catalog.AddNotices(ctx, tx, &record, record.Notices); err != nil {
				return err
			}
			stored, err := catalog.Get(ctx, tx, record.ID)
			if err == nil {
				l.record = *stored
			}
			return err
		})
	})
	if err != nil {
		return nil, err
	}
	if err := l.Introduce(ctx); err != nil && !problem.Retry(err) {
		undo := l.removePrimary(context.WithoutCancel(ctx), record)
		return nil, errors.Join(err, undo)
	}
	return l, nil
}

// Introduce asks the peer for its side of the link. It can be repeated.
func (l *Link) Introduce(ctx context.Context) error {
	var source assess.Source
	err := l.control.do(ctx, func(ctx context.Context, conn *pgx.Conn) (err error) {
		source, err = assess.Describe(ctx, conn)
		return err
	})
	if err != nil {
		return err
	}
	r := l.snapshot()
	return l.place.Peers.Call(ctx, r.Peer, MethodCreate, CreateRequest{
		ID: r.ID, Name: r.Name, Epoch: r.Epoch, Mode: r.Mode, SyncTimeout: r.SyncTimeout, OnConflict: r.OnConflict, MaxRate: r.MaxRate, Database: r.PeerDatabase,
		Source: source, PrimaryAddress: r.PrimaryAddress, Notices: r.Notices,
	}, nil)
}

// prepare brings the other side into being and makes this one ready to publish.
func (l *Link) prepare(ctx context.Context) error {
	l.does("asking " + l.Peer() + " for its side")
	if err := l.Introduce(ctx); err != nil {
		return err
	}
	source := l.source()
	source.Step = l.does
	if err := source.Prepare(ctx); err != nil {
		return err
	}
	err := l.control.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		l.letOwnerRead(ctx, conn)
		return nil
	})
	if err != nil {
		return err
	}
	return l.happen(ctx, role.Prepared, nil)
}

// serve answers the secondary until the state calls for something else, and then
// lets go of what it held for it: the snapshot and the stream.
func (l *Link) serve(ctx context.Context) error {
	p := &l.primary
	p.mu.Lock()
	p.serving = ctx
	p.mu.Unlock()
	// Whatever kept it from serving is over. What goes wrong with a request is told to
	// the secondary, which has it as its own trouble for as long as it lasts.
	l.setTrouble(nil)
	<-ctx.Done()
	p.mu.Lock()
	p.serving = nil
	p.mu.Unlock()
	p.active.Wait()
	l.closeSeeds()
	return context.Cause(ctx)
}

// enter begins a request of the secondary: it gives a context that ends when
// either the request or the serving does, and a function to call at the end.
func (l *Link) enter(ctx context.Context, ref Reference) (context.Context, func(), error) {
	if err := l.sameEpoch(ref); err != nil {
		return nil, nil, err
	}
	p := &l.primary
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.serving == nil {
		return nil, nil, problem.New(problem.Transient, "not_serving", "the primary's side of the link is in phase %s", l.snapshot().Phase)
	}
	p.active.Add(1)
	ctx, stop := context.WithCancelCause(ctx)
	end := context.AfterFunc(p.serving, func() { stop(errChanged) })
	return ctx, func() {
		end()
		stop(nil)
		p.active.Done()
	}, nil
}

// sameEpoch refuses a side whose epoch is not ours: one of the two has missed a
// change of roles and must not act before it learned of it.
func (l *Link) sameEpoch(ref Reference) error {
	if mine := l.snapshot().Epoch; ref.Epoch != mine {
		if ref.Epoch > mine {
			l.suspectEpoch()
		}
		return problem.New(problem.Conflict, "epoch_differs", "the request has epoch %d, the link is at %d", ref.Epoch, mine)
	}
	return nil
}

// HandleReport takes the secondary's report and answers with the primary's state.
func (l *Link) HandleReport(ctx context.Context, report Report) (Answer, error) {
	if l.Role() != role.Primary {
		return Answer{}, problem.New(problem.Conflict, "not_primary", "this side is not the primary of the link").On(l.Name())
	}
	if err := l.sameEpoch(report.Reference); err != nil {
		return Answer{}, err
	}
	if err := l.adopt(ctx, report.Suspended, report.Change); err != nil {
		return Answer{}, err
	}
	if err := l.takeSettings(ctx, report.Settings); err != nil {
		return Answer{}, err
	}
	l.mu.Lock()
	l.live.report, l.live.heard = report, time.Now()
	l.mu.Unlock()
	if err := l.mirror(ctx, report); err != nil {
		return Answer{}, err
	}
	changing := l.changing()
	l.mu.Lock()
	step := l.ownDoingLocked(changing)
	l.mu.Unlock()
	r := l.snapshot()
	answer := Answer{Step: step.text, StepSeconds: step.seconds(), Phase: r.Phase, Epoch: r.Epoch, Suspended: r.Suspended, Change: r.Change, Deleting: r.Deleting, Sent: l.sent(), Problems: l.ownProblems(),
		Settings: l.settings(r), Sync: l.syncView(), Handing: l.handing(), Format: capture.Format}
	m, err := l.measure(ctx)
	if err != nil {
		return Answer{}, err
	}
	answer.Written, answer.Now = m.written, m.now
	return answer, nil
}

// mirror follows the secondary's phase, which leads.
func (l *Link) mirror(ctx context.Context, report Report) error {
	events := map[role.Phase]role.Event{
		role.Seeding:     role.PeerSeeding,
		role.CatchingUp:  role.PeerCatchingUp,
		role.Replicating: role.PeerReplicating,
		role.Broken:      role.PeerBroken,
	}
	if l.snapshot().Diverged && !report.Diverged {
		if !report.Seeded {
			return l.happen(ctx, role.PeerEmptied, nil)
		}
		return l.happen(ctx, role.PeerRejoined, nil)
	}
	e, ok := events[role.Phase(report.Phase)]
	if !ok {
		return nil
	}
	return l.update(ctx, func(r *catalog.Link) error {
		r.Seeded = report.Seeded
		next, err := role.Step(state(*r), e)
		if err != nil || next.Phase == role.Phase(r.Phase) {
			return nil // a phase of our own that the report does not touch
		}
		r.Phase = string(next.Phase)
		return nil
	})
}

// handing is the part of the last seconds that the stream was held up in sending.
func (l *Link) handing() float64 {
	p := &l.primary
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stream == nil {
		return 0
	}
	return p.stream.handing.per(time.Now(), p.stream.stream.Handing())[0]
}

func (l *Link) sent() lsn.LSN {
	p := &l.primary
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stream == nil {
		return 0
	}
	return p.stream.stream.Sent()
}

// HandleChange takes a suspension or its end from the other side.
func (l *Link) HandleChange(ctx context.Context, request ChangeRequest) error {
	return l.adopt(ctx, request.Suspended, request.Change)
}

// takeStream makes the caller's stream the only one of the link: an earlier one,
// whose secondary is gone or has come back, is ended first.
func (l *Link) takeStream(ctx context.Context, next *running) error {
	p := &l.primary
	for {
		p.mu.Lock()
		old := p.stream
		if old == nil {
			p.stream = next
			p.mu.Unlock()
			return nil
		}
		p.mu.Unlock()
		old.stop(errReplaced)
		select {
		case <-old.done:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (l *Link) releaseStream(r *running) {
	p := &l.primary
	p.mu.Lock()
	if p.stream == r {
		p.stream = nil
	}
	p.mu.Unlock()
	close(r.done)
}
