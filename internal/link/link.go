// Package link supervises one side of one link: events go in, work comes out. It
// joins the engines (capture, seed, schema, apply, gate), which do not know each
// other, and speaks with the other side's agent.
package link

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/flow"
	"github.com/twinspan/twinspan/internal/lag"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/role"
	"github.com/twinspan/twinspan/internal/turns"
)

// Peers is how a link reaches the other side's agent.
type Peers interface {
	Call(ctx context.Context, peer, method string, request, response any) error
	flow.Peers
}

// Place is what all links of an agent share. It is not changed after the start.
type Place struct {
	Agent     string      // the agent's id
	AgentName string      //
	Key       catalog.Key // proves that a record is the agent's
	Server    *pg.DSN     // the instance, through its maintenance database
	Address   string      // of the instance, for people who are to write to it
	Peers     Peers
	Spool     *flow.Spool // for values too large for memory
	Workers   int         // chunks copied at once; 0 lets the link choose
	Seeders   *turns.Pool // what the workers of all first copies share
	Links     func() int  // how many links there are, which share the memory
	Roles     *sync.Mutex // held while roles of the instance are made or given something
	// Linked lists the databases of this instance that links with the peer of the
	// agent's id have.
	Linked func(agent string) []string
	// Fence makes the connection string of a linked database one that refuses sessions once
	// another process works the agent's links.
	Fence func(*pg.DSN) *pg.DSN
	// Outcome tells a link what was decided for all of which this agent drives together.
	Outcome func(context.Context, *Link, Together) (Outcome, error)
	// MayChange says why the other side's agent may not have a link's sides change places; nil
	// where it may.
	MayChange func(*Link) error
	// FailoverPatience is how long a planned failover may take beside the time in which running
	// writers may finish; failoverPatience when it is zero.
	FailoverPatience time.Duration
	// Turned is told of every change of a side's role, phase or epoch, in order, as soon as
	// it is known to be stored; nil for nobody. It does not wait, nor ask the link anything.
	Turned func(database string, before, after catalog.Link)
	// Failing is told how a change of places stands that this side drives, whenever that has
	// changed; nil for nobody. It does not wait.
	Failing func(l *Link, now api.FailoverProgress)
	Log     *slog.Logger
}

// Link is one side of a link at work.
type Link struct {
	place    Place
	database string
	dsn      *pg.DSN
	control  control
	log      *slog.Logger

	mu      sync.Mutex
	record  catalog.Link    // as stored
	unsure  bool            // record may be older than what is stored
	changed chan struct{}   // closed and replaced when record changes
	era     context.Context // ends with the role, or with Run
	quieted bool            // the link rests, whatever its state calls for
	trouble *problem.Error
	live    live
	phased  time.Time // when the phase began; zero where that was before the agent's start
	doing   doing     // of this side; see does

	removed chan struct{} // closed when this side's objects are gone

	primary   primarySide
	secondary secondarySide

	verifications verifications
	failovers     failovers
	furniture     sync.Mutex      // held while what only one role needs is made or removed
	atWork        sync.Mutex      // held while work is done that is not Rest
	life          context.Context // of Run; set before anything else works
	asides        sync.WaitGroup  // what goes on beside the work, beyond a change of role
	beside        beside
	schema        schemaWatch
	audit         auditor
	emptied       atomic.Int64  // the epoch in which everybody's session was ended, for this side was fenced
	meeting       chan struct{} // has an element while the sides are brought to one position
	sync          synchrony
	roles         roleBook
	textual       atomic.Bool // values of a type without a binary form were met: they cross as text
}

// live is what is known now and stored nowhere.
type live struct {
	seeding  api.Progress
	report   Report    // the secondary's: its own, or the last one received
	answer   Answer    // the primary's: its own, or the last one received
	stale    bool      // the other side may have another epoch
	met      time.Time // when the other side last said how it stands
	heard    time.Time
	own      measure   // of a primary's server
	track    lag.Track // a secondary's, of what the primary has written
	textOnly bool      // a value refused to cross in binary form
	// wholeUntil is until when transactions come at their commit, for there was no room for
	// those that are not finished.
	wholeUntil time.Time

	peerTrouble *problem.Error // what the other side says against this link
	retained    *problem.Error // of the log that is held back, on a primary
}

// New returns the side that a record describes, not yet at work.
func New(place Place, database string, record catalog.Link) *Link {
	l := &Link{
		place:    place,
		database: database,
		dsn:      place.Server.WithDatabase(database),
		log:      place.Log.With("link", record.Name),
		record:   record,
		changed:  make(chan struct{}),
		era:      context.Background(),
		removed:  make(chan struct{}),
		meeting:  make(chan struct{}, 1),
	}
	if place.Fence != nil {
		l.dsn = place.Fence(l.dsn)
	}
	l.control = control{dsn: l.dsn, name: record.Name}
	return l
}

// ID returns the link's id, the same on both sides.
func (l *Link) ID() string { return l.snapshot().ID }

// Name returns the link's name, the same on both sides.
func (l *Link) Name() string { return l.snapshot().Name }

// PeerAgent returns the id of the other side's agent.
func (l *Link) PeerAgent() string { return l.snapshot().PeerAgent }

// Peer returns the name of the other side's agent.
func (l *Link) Peer() string { return l.snapshot().Peer }

// Database returns the name of the database on this side.
func (l *Link) Database() string { return l.database }

// Role returns what this side is.
func (l *Link) Role() role.Role { return role.Role(l.snapshot().Role) }

// State returns how this side stands.
func (l *Link) State() role.State { return state(l.snapshot()) }

func (l *Link) snapshot() catalog.Link {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.record
}

func state(r catalog.Link) role.State {
	return role.State{Role: role.Role(r.Role), Phase: role.Phase(r.Phase), Epoch: r.Epoch, Seeded: r.Seeded, Diverged: r.Diverged, Operation: r.Operation}
}

// put writes a state into a record.
func put(s role.State, r *catalog.Link) {
	r.Role, r.Phase, r.Epoch, r.Seeded, r.Diverged, r.Operation = string(s.Role), string(s.Phase), s.Epoch, s.Seeded, s.Diverged, s.Operation
}

// work is what this side should do now. A link that is being removed rests.
func work(r catalog.Link) role.Work {
	if r.Deleting {
		return role.Rest
	}
	return state(r).Work()
}

// due is what this side should do now, but for a moment in which it has to rest.
func (l *Link) due(r catalog.Link) role.Work {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.quieted {
		return role.Rest
	}
	return work(r)
}

// watch returns the record and a channel that is closed when it changes.
func (l *Link) watch() (catalog.Link, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.record, l.changed
}

const (
	firstPause = 200 * time.Millisecond
	lastPause  = 5 * time.Second
	settled    = 30 * time.Second // work that ran this long failed anew
)

// Run does what the state calls for until ctx ends. It returns nil when the link
// was removed, and else the reason of ctx.
func (l *Link) Run(ctx context.Context) error {
	defer l.control.close()
	ctx, stop := context.WithCancel(ctx)
	l.life = ctx
	defer l.asides.Wait()
	defer stop()
	for {
		if err := l.runAs(ctx, l.Role()); err != errTurned {
			return err
		}
		l.forget()
	}
}

// runAs is Run for as long as the link's role lasts.
func (l *Link) runAs(ctx context.Context, r role.Role) error {
	ctx, cancel := context.WithCancel(ctx)
	var loops sync.WaitGroup
	defer loops.Wait()
	defer cancel()
	l.mu.Lock()
	l.era = ctx
	l.mu.Unlock()
	loops.Go(func() { l.verifyLoop(ctx) })
	loops.Go(func() { l.modeLoop(ctx) })
	loops.Go(func() { l.contactLoop(ctx) })
	loops.Go(func() { l.tidyLoop(ctx) })
	loops.Go(func() { l.standLoop(ctx) })
	loops.Go(func() { l.auditRateLoop(ctx) })
	if r == role.Secondary {
		loops.Go(func() { l.reportLoop(ctx) })
		loops.Go(func() { l.sequenceLoop(ctx) })
		loops.Go(func() { l.objectsLoop(ctx) })
		loops.Go(func() { l.schemaLoop(ctx) })
		loops.Go(func() { l.auditLoop(ctx) })
		loops.Go(func() { l.rolesLoop(ctx) })
		loops.Go(func() { l.inventoryLoop(ctx) })
		loops.Go(func() { l.fitnessLoop(ctx) })
	} else {
		loops.Go(func() { l.guard(ctx) })
		loops.Go(func() { l.measureLoop(ctx) })
		loops.Go(func() { l.usersLoop(ctx) })
	}
	pause := firstPause
	for ctx.Err() == nil {
		if l.Role() != r {
			return errTurned
		}
		began := time.Now()
		err := l.workOnce(ctx, r)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, errRemoved):
			return nil
		case err == nil || errors.Is(err, errChanged):
			l.setTrouble(nil)
			pause = firstPause
			continue
		}
		if time.Since(began) > settled {
			pause = firstPause
		}
		trouble := problem.As(err)
		if misplaced(trouble) {
			l.suspectEpoch()
		}
		if !lasting(trouble) {
			l.setTrouble(trouble)
		} else if failed := l.happen(ctx, role.Failed, trouble); failed != nil {
			l.setTrouble(trouble)
			l.log.Warn("cannot store the problem", "err", failed)
		} else {
			l.setTrouble(nil)
			l.log.Error("link stopped", "code", trouble.Code, "subject", trouble.Subject, "err", trouble)
			if !l.snapshot().Deleting { // which goes on in every phase
				continue
			}
		}
		l.wait(ctx, pause+rand.N(pause/4))
		pause = min(2*pause, l.longestPause())
	}
	return context.Cause(ctx)
}

var (
	errChanged = errors.New("the link's state calls for other work")
	errRemoved = errors.New("the link was removed")
	errTurned  = errors.New("the sides have changed places")
)

// lasting says whether a problem stays until a person acts.
func lasting(p *problem.Error) bool {
	switch p.Kind {
	case problem.Transient, problem.Cancelled:
		return false
	case problem.Unauthorised:
		// A password that is being changed; what the other side's operator may grant.
		return p.Code != "login_refused" && p.Code != "peer_not_granted"
	case problem.NotFound:
		return p.Code != "peer_unknown" // it was removed, and may be trusted again
	}
	return !misplaced(p)
}

// misplaced says that one of the sides has not heard yet that they have changed
// places.
func misplaced(p *problem.Error) bool {
	return p.Code == "epoch_differs" || p.Code == "not_primary" || p.Code == "not_secondary"
}

// workOnce runs the work that the state of a side in a role calls for until it ends or the
// state calls for other work.
func (l *Link) workOnce(ctx context.Context, as role.Role) error {
	l.atWork.Lock()
	record := l.snapshot()
	if role.Role(record.Role) != as { // a forced failover had made it quiet
		l.atWork.Unlock()
		return errChanged
	}
	now := l.due(record)
	if now == role.Rest {
		l.atWork.Unlock()
	} else {
		defer l.atWork.Unlock()
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	watcher := make(chan struct{})
	go func() {
		defer close(watcher)
		for {
			r, changed := l.watch()
			if l.due(r) != now || r.Deleting != record.Deleting || r.Epoch != record.Epoch {
				stop(errChanged)
				return
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	}()
	err := l.perform(ctx, now, record)
	if cause := context.Cause(ctx); cause != nil && err != nil {
		err = cause
	}
	stop(nil)
	<-watcher
	return err
}

func (l *Link) perform(ctx context.Context, w role.Work, r catalog.Link) error {
	if r.Deleting {
		return l.removeHere(ctx)
	}
	switch w {
	case role.Prepare:
		return l.prepare(ctx)
	case role.Serve:
		return l.serve(ctx)
	case role.Seed:
		return l.seed(ctx)
	case role.Follow:
		return l.follow(ctx)
	case role.Switch:
		return l.switchOver(ctx)
	case role.Salvage:
		return l.salvage(ctx)
	case role.Mend:
		return l.mend(ctx)
	}
	// Nothing is at work that could be interrupted. What ended it, as the other side rested
	// first, is no trouble.
	l.setTrouble(nil)
	<-ctx.Done()
	return context.Cause(ctx)
}

// wait pauses, but not beyond a change of state.
func (l *Link) wait(ctx context.Context, pause time.Duration) {
	_, changed := l.watch()
	select {
	case <-ctx.Done():
	case <-changed:
	case <-time.After(pause):
	}
}

func (l *Link) setTrouble(p *problem.Error) {
	l.mu.Lock()
	before := l.trouble
	l.trouble = p
	l.mu.Unlock()
	switch {
	case p != nil && (before == nil || before.Code != p.Code):
		l.log.Warn("link interrupted", "code", p.Code, "subject", p.Subject, "err", p)
	case p == nil && before != nil:
		l.log.Info("link goes on", "after", before.Code)
	}
}

// Hinder shows why the link does not run yet; nil for nothing.
func (l *Link) Hinder(p *problem.Error) { l.setTrouble(p) }

// Suspend makes the link rest on both sides; the other learns of it now or at the
// next contact. The primary keeps its log meanwhile.
func (l *Link) Suspend(ctx context.Context) error { return l.change(ctx, role.Suspend) }

// Resume ends a suspension, and lets a broken link try again.
func (l *Link) Resume(ctx context.Context) error { return l.change(ctx, role.Resume) }

func (l *Link) change(ctx context.Context, e role.Event) error {
	suspended := e == role.Suspend
	var request ChangeRequest
	err := l.update(ctx, func(r *catalog.Link) error {
		next, err := role.Step(state(*r), e)
		if err != nil {
			return err
		}
		r.Phase, r.Suspended, r.Problem = string(next.Phase), suspended, nil
		r.Change++
		request = ChangeRequest{ID: r.ID, Suspended: suspended, Change: r.Change}
		return nil
	})
	if err != nil {
		return err
	}
	if err := l.place.Peers.Call(ctx, l.snapshot().Peer, MethodChange, request, nil); err != nil {
		l.log.Info("the peer learns of the change later", "err", err)
	}
	return nil
}

// adopt takes over a suspension or its end from the other side, if it is newer
// than what is known here.
func (l *Link) adopt(ctx context.Context, suspended bool, change int64) error {
	if change <= l.snapshot().Change {
		return nil
	}
	return l.update(ctx, func(r *catalog.Link) error {
		if change <= r.Change {
			return nil
		}
		e := role.Resume
		if suspended {
			e = role.Suspend
		}
		r.Change = change
		next, err := role.Step(state(*r), e)
		if err != nil {
			// The phase does not allow it, for instance a suspension of a broken side:
			// the wish is noted, the phase stays.
			r.Suspended = suspended
			return nil
		}
		r.Phase, r.Suspended, r.Problem = string(next.Phase), suspended, nil
		return nil
	})
}
