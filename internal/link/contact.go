package link

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/gate"
	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/origin"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/role"
	"github.com/twinspan/twinspan/internal/side"
)

// MethodState is asked by either side of the other: how do you stand? The answer is
// what is stored, not what is remembered.
const MethodState = "link.state"

// Standing is the stored state of a side, with what the other needs in order to
// follow it.
type Standing struct {
	State   role.State `json:"state"`
	Decided string     `json:"decided,omitempty"` // the planned failover by which it became primary
	// Of a primary: where its log begins to hold what the other lacks, which server's
	// it is, up to where it has the other's log, and where writers should go.
	Start    lsn.LSN `json:"start,omitempty"`
	SystemID string  `json:"systemId,omitempty"`
	Parted   lsn.LSN `json:"parted,omitempty"`
	Address  string  `json:"address,omitempty"`
	// Last is the last change of places that the side knows of.
	Last *catalog.Failover `json:"last,omitempty"`
	// NoSlot says of a primary that nothing holds its log for the other: the two have to
	// be compared.
	NoSlot bool `json:"noSlot,omitempty"`
}

const (
	// contactInterval is how often a side that has to asks the other how it stands.
	contactInterval = time.Second
	// contactPatience is how long it waits for the answer.
	contactPatience = 5 * time.Second
	// unheardOf is how long a primary goes without a report before it asks.
	unheardOf = 3 * time.Second
)

// handleState answers the other side.
func (l *Link) handleState(ctx context.Context, _ Reference) (Standing, error) {
	var stored *catalog.Link
	var slot bool
	err := l.side.Session.Do(ctx, func(ctx context.Context, conn *pgx.Conn) (err error) {
		if stored, err = catalog.Get(ctx, conn, l.ID()); err != nil {
			return err
		}
		err = conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_catalog.pg_replication_slots WHERE slot_name = $1)`, catalog.ObjectName(l.ID())).Scan(&slot)
		return pg.Classify(err, "look for the replication slot")
	})
	if err != nil {
		return Standing{}, err
	}
	s := l.standing(*stored)
	s.NoSlot = s.State.Role == role.Primary && s.State.Diverged && !slot
	return s, nil
}

func (l *Link) standing(r catalog.Link) Standing {
	s := Standing{State: side.State(r), Last: r.LastFailover}
	if s.State.Role == role.Primary {
		s.Start, s.SystemID, s.Parted, s.Address = r.StartLSN, r.SystemID, r.Parted, l.place.Address
		if f := r.LastFailover; f != nil && f.Type == planned {
			s.Decided = f.Operation
		}
	}
	return s
}

// contactLoop learns of changes of places that this side has missed: at its start,
// and whenever it has reason to think that there was one.
func (l *Link) contactLoop(ctx context.Context) {
	tick := time.NewTicker(contactInterval)
	defer tick.Stop()
	began := time.Now()
	for first := true; ; first = false {
		if first || l.needsContact() {
			if err := l.contact(ctx); err != nil && ctx.Err() == nil {
				l.log.Debug("the other side does not say how it stands", "err", err)
			}
		}
		if err := l.isolate(ctx, began); err != nil && ctx.Err() == nil {
			l.log.Warn("a primary that has lost its twin is not fenced yet", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// needsContact says whether the other side's state may matter now.
func (l *Link) needsContact() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := side.State(l.side.Record())
	if s.Role == role.Primary {
		return s.Phase == role.Fenced || s.Phase == role.FailingOver || l.side.Suspected() || time.Since(l.live.heard) > unheardOf
	}
	return l.side.Suspected()
}

// contact asks the other side how it stands, and does what follows from it.
func (l *Link) contact(ctx context.Context) error {
	if err := l.side.Ascertain(ctx); err != nil {
		return err
	}
	mine := l.side.Record()
	if mine.Deleting {
		return nil
	}
	asking, stop := context.WithTimeout(ctx, contactPatience)
	defer stop()
	other, err := side.Call[Standing](asking, l.side, MethodState, side.ReferenceOf(mine))
	if err != nil {
		return err
	}
	l.side.Trust()
	l.mu.Lock()
	l.live.met = time.Now()
	l.mu.Unlock()
	return l.learn(ctx, mine, other)
}

// learn does what follows from the other side's state, which was asked for when
// this one was mine. A state that has changed since is left to the next contact.
func (l *Link) learn(ctx context.Context, mine catalog.Link, other Standing) error {
	switch e := role.Meet(side.State(mine), role.Other{State: other.State, Decided: other.Decided}); e {
	case "":
		return nil
	case role.Turned:
		return l.takeTurn(ctx, mine, other)
	case role.Superseded:
		return l.yield(ctx, mine, other)
	case role.Adopt:
		return l.follower(ctx, mine, other)
	case role.Unfence:
		return l.unfence(ctx, mine)
	default:
		return l.side.Update(ctx, func(r *catalog.Link) error { return stepFrom(r, mine, e) })
	}
}

// stepFrom is a step that is made only from the state that was looked at.
func stepFrom(r *catalog.Link, from catalog.Link, e role.Event) error {
	if side.State(*r) != side.State(from) {
		return errMovedOn
	}
	next, err := role.Step(side.State(*r), e)
	if err == nil {
		side.Put(next, r)
	}
	return err
}

func learnFrom(r *catalog.Link, from catalog.Link, e role.Event, other Standing) error {
	if side.State(*r) != side.State(from) {
		return errMovedOn
	}
	next, err := role.Learn(side.State(*r), e, other.State.Epoch)
	if err != nil {
		return err
	}
	side.Put(next, r)
	r.StartLSN, r.SystemID, r.Parted, r.PrimaryAddress = other.Start, other.SystemID, other.Parted, other.Address
	return nil
}

var errMovedOn = problem.New(problem.Conflict, "link_moved_on", "the link's state has changed meanwhile")

// takeTurn makes this side, which is fenced for a planned failover that the other
// has decided, the secondary that follows it.
func (l *Link) takeTurn(ctx context.Context, mine catalog.Link, other Standing) error {
	return l.side.Turn(ctx, func(r *catalog.Link) error {
		r.LastFailover = other.Last
		return learnFrom(r, mine, role.Turned, other)
	}, func(ctx context.Context, tx pgx.Tx) error { return origin.Place(ctx, tx, mine.ID, other.Start) })
}

// yield fences this side, which was primary and finds the other one to be it with a
// higher epoch: nobody writes here any more, and what was written since the two
// have parted waits for a rejoin.
func (l *Link) yield(ctx context.Context, mine catalog.Link, other Standing) error {
	l.log.Warn("the peer is primary with a higher epoch", "epoch", mine.Epoch, "peer_epoch", other.State.Epoch)
	return l.shutAtOnce(ctx, func(r *catalog.Link) error {
		r.LastFailover, r.Suspended = other.Last, false
		r.Problem = problem.New(problem.Diverged, "twin_diverged", "the other side was made primary by force; transactions that it does not have may lie here").
			WithHint("twinspan link lost %[1]s shows them, twinspan link rejoin %[1]s makes this side its twin again", l.Name())
		return learnFrom(r, mine, role.Superseded, other)
	})
}

const (
	// firstShut is how long a fence that is stored is not told of, so that whoever hears of
	// it finds the gate shut, unless that takes longer.
	firstShut = 10 * time.Second
	// shutPatience is how long whoever fences a side goes on shutting its gate; then the
	// side's work or its watch does.
	shutPatience = 20 * time.Second
)

// shutAtOnce fences a database that is written to. That it is fenced is stored, and a gate
// that is there refuses, before anything is waited for; then the gate is built, everybody's
// session is ended, and the gate shut table by table.
func (l *Link) shutAtOnce(ctx context.Context, f func(r *catalog.Link) error) error {
	shut := false
	err := l.side.Write(ctx, f, func(ctx context.Context, conn *pgx.Conn, before, next *catalog.Link) error {
		if err := gate.Bar(ctx, conn); err != nil {
			return err
		}
		if err := side.StoreTurn(ctx, conn, before, next, nil); err != nil {
			return err
		}
		l.emptied.Store(0) // of an earlier fence in this epoch
		shut = l.shut(ctx, next.Epoch, firstShut)
		return nil
	})
	if err != nil {
		if undone := l.side.Session.Do(context.WithoutCancel(ctx), l.agree); undone != nil {
			l.log.Warn("the gate may refuse writers for now", "err", undone)
		}
		return err
	}
	if r := l.side.Record(); !shut && !r.Diverged { // where it is the work of the phase to shut it
		l.shut(context.WithoutCancel(ctx), r.Epoch, shutPatience)
	}
	return nil
}

// shut shuts the gate of a side that is fenced in an epoch, and says whether that was done
// in time.
func (l *Link) shut(ctx context.Context, epoch int64, patience time.Duration) bool {
	ctx, stop := context.WithTimeout(ctx, patience)
	defer stop()
	err := l.slam(ctx, epoch)
	if err != nil {
		l.log.Warn("the gate is not shut yet, it is tried again", "err", err)
	}
	return err == nil
}

// slam sees that nobody writes any more to a side that is fenced in an epoch, and shows
// what is in the way. Everybody's session is ended once: who comes in later finds the gate.
func (l *Link) slam(ctx context.Context, epoch int64) error {
	return l.withGateSession(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		if err := gate.Shut(ctx, conn); err != nil {
			return err
		}
		if err := l.quietSubscriptions(ctx, conn); err != nil {
			return err
		}
		if l.emptied.Load() != epoch {
			ended, err := gate.EndSessions(ctx, conn)
			if err != nil {
				return err
			}
			l.emptied.Store(epoch)
			l.log.Info("writes are refused", "sessions_ended", ended)
		}
		return gate.Slam(ctx, conn, func(p *problem.Error) { l.side.Warn("gate", p) })
	})
}

// follower goes on with a primary whose epoch has grown without a change of places.
func (l *Link) follower(ctx context.Context, mine catalog.Link, other Standing) error {
	return l.side.Turn(ctx, func(r *catalog.Link) error {
		start, system := r.StartLSN, r.SystemID
		err := learnFrom(r, mine, role.Adopt, other)
		r.StartLSN, r.SystemID = start, system // it is the log that was followed before
		return err
	}, nil)
}

// unfence lets writers pass again, for the other side has not become primary and
// will not by the failover that this one was fenced for.
func (l *Link) unfence(ctx context.Context, mine catalog.Link) error {
	err := l.side.Update(ctx, func(r *catalog.Link) error {
		r.Problem = nil
		return stepFrom(r, mine, role.Unfence)
	})
	if err != nil {
		return err
	}
	return l.side.Session.Do(ctx, l.agree)
}

// salvage, on a former primary that the other side has left behind, sees that nobody
// writes any more, records what the other side does not have, and rests.
func (l *Link) salvage(ctx context.Context) error {
	for {
		l.side.Does("refusing writes, ending transactions")
		err := l.slam(ctx, l.side.Record().Epoch)
		if err == nil {
			l.side.Does("recording what was committed here alone")
			err = l.losses.Collect(ctx, l.former.Parting())
		}
		if err == nil {
			break
		}
		if ctx.Err() != nil || !side.Lasting(problem.As(err)) {
			return err
		}
		// The phase has no other to go to: it is shown, and tried again.
		l.side.SetTrouble(problem.As(err))
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(salvagePause):
		}
	}
	l.side.SetTrouble(nil)
	l.side.Does("waiting for somebody to make it the twin again: twinspan link rejoin " + l.Name())
	<-ctx.Done()
	return context.Cause(ctx)
}

// salvagePause is between two attempts to read what was lost, when only a person can
// remove what is in the way.
const salvagePause = 30 * time.Second
