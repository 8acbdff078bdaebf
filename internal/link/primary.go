package link

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/assess"
	"github.com/twinspan/twinspan/internal/capture"
	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/role"
	"github.com/twinspan/twinspan/internal/side"
)

func (l *Link) source() capture.Source {
	r := l.side.Record()
	return capture.Source{DSN: l.dsn, Link: r.ID, Name: r.Name, Log: l.place.Log,
		Waits: func(err error) { l.side.SetTrouble(problem.As(err)) }}
}

// MakePrimary records a link in its primary database and asks the peer for the
// other side. A refusal leaves nothing behind; when the peer is lost in the middle,
// the link exists and goes on by itself.
func MakePrimary(ctx context.Context, place Place, database string, record catalog.Link) (*Link, error) {
	l := New(place, database, record)
	err := l.side.Keep(ctx, func(ctx context.Context, conn *pgx.Conn, r *catalog.Link) error {
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
				*r = *stored
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
	err := l.side.Session.Do(ctx, func(ctx context.Context, conn *pgx.Conn) (err error) {
		source, err = assess.Describe(ctx, conn)
		return err
	})
	if err != nil {
		return err
	}
	r := l.side.Record()
	return side.Tell(ctx, l.side, MethodCreate, CreateRequest{
		ID: r.ID, Name: r.Name, Epoch: r.Epoch, Mode: r.Mode, SyncTimeout: r.SyncTimeout, OnConflict: r.OnConflict, MaxRate: r.MaxRate, Database: r.PeerDatabase,
		Source: source, PrimaryAddress: r.PrimaryAddress, Notices: r.Notices,
	})
}

// prepare brings the other side into being and makes this one ready to publish.
func (l *Link) prepare(ctx context.Context) error {
	l.side.Does("asking " + l.Peer() + " for its side")
	if err := l.Introduce(ctx); err != nil {
		return err
	}
	source := l.source()
	source.Step = l.side.Does
	if err := source.Prepare(ctx); err != nil {
		return err
	}
	err := l.side.Session.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		l.letOwnerRead(ctx, conn)
		return nil
	})
	if err != nil {
		return err
	}
	return l.side.Happen(ctx, role.Prepared, nil)
}

// serve answers the secondary until the state calls for something else, and then
// lets go of what it held for it: the snapshot and the stream.
func (l *Link) serve(ctx context.Context) error {
	// Whatever kept it from serving is over. What goes wrong with a request is told to
	// the secondary, which has it as its own trouble for as long as it lasts.
	l.side.SetTrouble(nil)
	l.service.Serve(ctx)
	l.upstream.Close()
	return context.Cause(ctx)
}

// handleReport takes the secondary's report and answers with the primary's state.
func (l *Link) handleReport(ctx context.Context, report Report) (Answer, error) {
	if l.Role() != role.Primary {
		return Answer{}, problem.New(problem.Conflict, "not_primary", "this side is not the primary of the link").On(l.Name())
	}
	if err := l.side.SameEpoch(report.Reference); err != nil {
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
	r := l.side.Record()
	answer := Answer{Step: step.Text, StepSeconds: step.Seconds(), Phase: r.Phase, Epoch: r.Epoch, Suspended: r.Suspended, Change: r.Change, Deleting: r.Deleting, Sent: l.upstream.Sent(), Problems: l.ownProblems(),
		Settings: l.settings(r), Sync: l.syncView(), Handing: l.upstream.Handing(), Format: capture.Format}
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
	if l.side.Record().Diverged && !report.Diverged {
		if !report.Seeded {
			return l.side.Happen(ctx, role.PeerEmptied, nil)
		}
		return l.side.Happen(ctx, role.PeerRejoined, nil)
	}
	e, ok := events[role.Phase(report.Phase)]
	if !ok {
		return nil
	}
	return l.side.Update(ctx, func(r *catalog.Link) error {
		if report.Change < r.Change {
			return nil // how it stood before it learned of the last suspension, or of its end
		}
		r.Seeded = report.Seeded
		next, err := role.Step(side.State(*r), e)
		if err != nil || next.Phase == role.Phase(r.Phase) {
			return nil // a phase of our own that the report does not touch
		}
		r.Phase = string(next.Phase)
		return nil
	})
}

// handleChange takes a suspension or its end from the other side.
func (l *Link) handleChange(ctx context.Context, request ChangeRequest) error {
	return l.adopt(ctx, request.Suspended, request.Change)
}
