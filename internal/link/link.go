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

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/apply"
	"github.com/twinspan/twinspan/internal/assess"
	"github.com/twinspan/twinspan/internal/auditor"
	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/dbroles"
	"github.com/twinspan/twinspan/internal/flow"
	"github.com/twinspan/twinspan/internal/lag"
	"github.com/twinspan/twinspan/internal/meet"
	"github.com/twinspan/twinspan/internal/outofband"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/rejoin"
	"github.com/twinspan/twinspan/internal/replay"
	"github.com/twinspan/twinspan/internal/resync"
	"github.com/twinspan/twinspan/internal/role"
	"github.com/twinspan/twinspan/internal/schema"
	"github.com/twinspan/twinspan/internal/schemawatch"
	"github.com/twinspan/twinspan/internal/seed"
	"github.com/twinspan/twinspan/internal/side"
	"github.com/twinspan/twinspan/internal/syncmode"
	"github.com/twinspan/twinspan/internal/syncrep"
	"github.com/twinspan/twinspan/internal/turns"
	"github.com/twinspan/twinspan/internal/uncarried"
	"github.com/twinspan/twinspan/internal/upstream"
	"github.com/twinspan/twinspan/internal/verification"
)

// Peers is how a link reaches the other side's agent.
type Peers = side.Peers

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
	// PassOn stores with every link that takes part in a failover of several that it is decided.
	PassOn func(ctx context.Context, failover string) error
	// MayChange says why the other side's agent may not have a link's sides change places; nil
	// where it may.
	MayChange func(*Link) error
	// Storage is what is left of the instance's storage, where that is bounded; nil where it is not.
	Storage func() *assess.Storage
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
	side     *side.Side
	database string
	dsn      *pg.DSN
	log      *slog.Logger

	mu      sync.Mutex      // before the side's own
	era     context.Context // ends with the role, or with Run
	quieted bool            // the link rests, whatever its state calls for
	live    live

	removed chan struct{} // closed when this side's objects are gone

	secondary secondarySide

	failovers failovers
	furniture sync.Mutex      // held while what only one role needs is made or removed
	atWork    sync.Mutex      // held while work is done that is not Rest
	life      context.Context // of Run; set before anything else works
	endLoops  func()          // ends what goes on beside the work, and waits for it; set by runAs, called by the work
	asides    sync.WaitGroup  // what goes on beside the work, beyond a change of role
	emptied   atomic.Int64    // the epoch in which everybody's session was ended, for this side was fenced

	// Over the side, each with its own state.
	service       *side.Service // what a primary does for its secondary
	upstream      *upstream.Primary
	snapshots     *meet.Primary   // held for the secondary
	meets         *meet.Secondary // positions at which both sides are read
	verifications *verification.Verifications
	audit         *auditor.Auditor
	schema        *schemawatch.Watch
	sequences     *outofband.Sequences
	objects       *outofband.LargeObjects
	roles         *dbroles.Keeper
	uncarried     *uncarried.Keeper
	mode          *syncmode.Mode
	replay        *replay.Replayer
	renewals      *resync.Primary   // what makes a slot anew for the secondary
	resync        *resync.Secondary // what brings the twin back in step by comparing
	losses        *rejoin.Losses
	former        *rejoin.Former
}

// live is what is known now and stored nowhere.
type live struct {
	seeding  api.Progress
	tables   func() []seed.TableProgress // how far each table of the first copy is; nil before and behind it
	report   Report                      // the secondary's: its own, or the last one received
	answer   Answer                      // the primary's: its own, or the last one received
	met      time.Time                   // when the other side last said how it stands
	heard    time.Time
	own      measure   // of a primary's server
	track    lag.Track // a secondary's, of what the primary has written
	textOnly bool      // a value refused to cross in binary form
	// wholeUntil is until when transactions come at their commit, for there was no room for
	// those that are not finished.
	wholeUntil time.Time

	peerTrouble *problem.Error // what the other side says against this link
	retained    *problem.Error // of the log that is held back, on a primary
	kept        api.Retained   // the same in bytes; its time is zero before it was asked for
	asOf        time.Time      // everything that was committed before is applied; zero for not known
}

// New returns the side that a record describes, not yet at work.
func New(place Place, database string, record catalog.Link) *Link {
	l := &Link{
		place:    place,
		database: database,
		dsn:      place.Server.WithDatabase(database),
		log:      place.Log.With("link", record.Name),
		era:      context.Background(),
		removed:  make(chan struct{}),
	}
	if place.Fence != nil {
		l.dsn = place.Fence(l.dsn)
	}
	l.side = side.New(l.dsn, database, place.Peers, l.log, record)
	l.side.Turned = l.turned
	l.service = side.NewService(l.side)
	l.upstream = upstream.New(l.side, l.service, upstream.With{Source: l.source, Spool: place.Spool, Log: place.Log})
	l.snapshots = meet.NewPrimary(l.side, l.service, l.upstream.Dump)
	l.meets = meet.NewSecondary(l.side, l.applying)
	l.roles = dbroles.New(l.side, dbroles.Instance{Agent: place.AgentName, Server: place.Server, Lock: place.Roles, Linked: place.Linked})
	l.objects = outofband.NewLargeObjects(l.side, l.service, outofband.Bringing{Workers: place.Workers, Roles: l.roles.NoteMade, Step: l.step, Log: place.Log})
	l.sequences = outofband.NewSequences(l.side, l.service, l.appliedPosition)
	l.meets.Objects = l.objects.AsOf
	l.replay = replay.New(l.side, l.service, l.meets, l.roles, l.Resume)
	l.schema = schemawatch.New(l.side, l.service, l.meets, schemawatch.Twin{Applied: l.appliedPosition, MayOwn: l.roles.MayOwn, Make: l.replay.Make})
	l.audit = auditor.New(l.side, l.meets, auditor.Twin{Busy: l.busy, Bring: l.objects.Bring, Counts: l.schema.Counts})
	l.renewals = resync.NewPrimary(l.side, l.service, l.snapshots, l.source)
	l.resync = resync.NewSecondary(l.side, l.meets, resync.Twin{Step: l.step, Shut: l.shutTables, Watched: l.schema.State, Stands: l.standsAt,
		Fill: func(ctx context.Context, dump *schema.Dump, section schema.Section) (refused, err error) {
			return l.structure().Fill(ctx, dump, section)
		}})
	l.losses = rejoin.NewLosses(l.side, rejoin.With{Agent: place.AgentName, Source: l.source, Spool: place.Spool, Log: place.Log})
	l.former = rejoin.NewFormer(l.side, l.meets, l.losses, rejoin.Twin{Step: l.step, Doing: l.seedingStep, Stands: l.standsAt, Empty: clear, Compare: l.resync.Plan, Unheld: l.nothingHeld})
	l.verifications = verification.New(l.side, l.meets, l.objects.Anew, func() { l.audit.Again() })
	l.uncarried = uncarried.New(l.side, place.AgentName, place.Server)
	l.mode = syncmode.New(l.side, &syncrep.Server{DSN: place.Server, Link: record.Name, Member: syncrep.Member(catalog.ObjectName(record.ID)),
		Database: database, Log: place.Log}, l.upstream.Confirmed)
	return l
}

// Verifications returns the link's verifications.
func (l *Link) Verifications() *verification.Verifications { return l.verifications }

// Roles returns what compares the database roles of both servers.
func (l *Link) Roles() *dbroles.Keeper { return l.roles }

// Uncarried returns what keeps what the link does not carry.
func (l *Link) Uncarried() *uncarried.Keeper { return l.uncarried }

// Renewals returns what makes the link's slot anew for its secondary.
func (l *Link) Renewals() *resync.Primary { return l.renewals }

// Schema returns what compares the schemas.
func (l *Link) Schema() *schemawatch.Watch { return l.schema }

// Losses returns what forced failovers have left behind on this side.
func (l *Link) Losses() *rejoin.Losses { return l.losses }

// Former returns the former primary that this side is or may become.
func (l *Link) Former() *rejoin.Former { return l.former }

// Upstream returns what the link gives its secondary.
func (l *Link) Upstream() *upstream.Primary { return l.upstream }

// Replayer returns what makes the primary's schema changes.
func (l *Link) Replayer() *replay.Replayer { return l.replay }

// Sequences returns what keeps the twin's sequences ahead.
func (l *Link) Sequences() *outofband.Sequences { return l.sequences }

// LargeObjects returns what brings large objects.
func (l *Link) LargeObjects() *outofband.LargeObjects { return l.objects }

// Auditor returns the link's audit.
func (l *Link) Auditor() *auditor.Auditor { return l.audit }

// Snapshots returns what is held for the link's secondary.
func (l *Link) Snapshots() *meet.Primary { return l.snapshots }

// Moments returns where moments of the twin are taken.
func (l *Link) Moments() *meet.Secondary { return l.meets }

// applying returns what applies the primary's changes now, and nil while nothing does.
func (l *Link) applying() (*apply.Applier, *flow.Receiver) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.secondary.applier, l.secondary.receiver
}

// ID returns the link's id, the same on both sides.
func (l *Link) ID() string { return l.side.ID() }

// Name returns the link's name, the same on both sides.
func (l *Link) Name() string { return l.side.Name() }

// PeerAgent returns the id of the other side's agent.
func (l *Link) PeerAgent() string { return l.side.Record().PeerAgent }

// Peer returns the name of the other side's agent.
func (l *Link) Peer() string { return l.side.Peer() }

// Database returns the name of the database on this side.
func (l *Link) Database() string { return l.database }

// Role returns what this side is.
func (l *Link) Role() role.Role { return l.side.Role() }

// State returns how this side stands.
func (l *Link) State() role.State { return side.State(l.side.Record()) }

// work is what this side should do now. A link that is being removed rests.
func work(r catalog.Link) role.Work {
	if r.Deleting {
		return role.Rest
	}
	return side.State(r).Work()
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

const (
	firstPause = 200 * time.Millisecond
	lastPause  = 5 * time.Second
	settled    = 30 * time.Second // work that ran this long failed anew
)

// Run does what the state calls for until ctx ends. It returns nil when the link
// was removed, and else the reason of ctx.
func (l *Link) Run(ctx context.Context) error {
	defer l.side.Session.Close()
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

// runAs is Run for as long as the link's role lasts: it lives the role. Its work is what the
// record's state calls for (perform); beside it go the loops of the role.
func (l *Link) runAs(ctx context.Context, r role.Role) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	beside, end := context.WithCancel(ctx)
	var loops sync.WaitGroup
	l.endLoops = func() { end(); loops.Wait() }
	defer l.endLoops()
	l.mu.Lock()
	l.era = ctx
	l.mu.Unlock()
	for _, loop := range l.loopsOf(r) {
		loops.Go(func() { loop(beside) })
	}
	if cutoverDue(l.side.Record()) {
		l.asides.Go(func() { l.cutOver(l.life) })
	}
	return l.workAs(ctx, r)
}

// loopsOf lists what goes on beside the work of a role, each until its context ends.
func (l *Link) loopsOf(r role.Role) []func(context.Context) {
	both := []func(context.Context){
		l.verifications.Run, // does the verifications that are asked for
		l.mode.Run,          // lets commits wait for the twin, or lets them go
		l.contactLoop,       // learns of changes of places that this side has missed; fences one that is cut off
		l.tidyLoop,          // removes what the former role has left, and keeps the gate as the record says
		l.standLoop,         // sees that what the link stands on was not taken away
		l.audit.LearnRate,   // learns the rate of the audit
	}
	if r == role.Primary {
		return append(both,
			l.guard,               // says when too much log is held back
			l.measureLoop,         // notes what is written, and confirmed
			l.roles.RememberUsers, // remembers who uses the database
		)
	}
	return append(both,
		l.reportLoop,    // tells the primary how this side stands, and hears how it does
		l.sequences.Run, // keeps sequences ahead of the primary's
		l.objects.Run,   // brings large objects
		l.schema.Run,    // compares schemas
		l.audit.Run,     // compares everything, slowly
		l.roles.Run,     // compares roles
		l.uncarried.Run, // looks what the primary has that is not carried
		l.fitnessLoop,   // looks whether this server could be the primary
	)
}

// longestPause is how long a link that was interrupted rests at most before it tries
// again; shorter where somebody waits.
func (l *Link) longestPause() time.Duration {
	if l.promptly() {
		return lastPause / 10
	}
	return lastPause
}

// workAs does the work of a role until that is another's, and again and again where it fails.
func (l *Link) workAs(ctx context.Context, r role.Role) error {
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
		case err == nil || errors.Is(err, side.ErrChanged):
			l.side.SetTrouble(nil)
			pause = firstPause
			continue
		}
		if time.Since(began) > settled {
			pause = firstPause
		}
		trouble := problem.As(err)
		if side.Misplaced(trouble) {
			l.side.Suspect()
		}
		if !side.Lasting(trouble) {
			l.side.SetTrouble(trouble)
		} else if failed := l.side.Happen(ctx, role.Failed, trouble); failed != nil {
			l.side.SetTrouble(trouble)
			l.log.Warn("cannot store the problem", "err", failed)
		} else {
			l.side.SetTrouble(nil)
			l.log.Error("link stopped", "code", trouble.Code, "subject", trouble.Subject, "err", trouble)
			if !l.side.Record().Deleting { // which goes on in every phase
				continue
			}
		}
		l.side.Wait(ctx, pause+rand.N(pause/4))
		pause = min(2*pause, l.longestPause())
	}
	return context.Cause(ctx)
}

var (
	errRemoved = errors.New("the link was removed")
	errTurned  = errors.New("the sides have changed places")
)

// workOnce runs the work that the state of a side in a role calls for until it ends or the
// state calls for other work.
func (l *Link) workOnce(ctx context.Context, as role.Role) error {
	l.atWork.Lock()
	record := l.side.Record()
	if role.Role(record.Role) != as { // a forced failover had made it quiet
		l.atWork.Unlock()
		return side.ErrChanged
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
			r, changed := l.side.Watch()
			if l.due(r) != now || r.Deleting != record.Deleting || r.Epoch != record.Epoch {
				stop(side.ErrChanged)
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
	l.side.SetTrouble(nil)
	<-ctx.Done()
	return context.Cause(ctx)
}

// Hinder shows why the link does not run yet; nil for nothing.
func (l *Link) Hinder(p *problem.Error) { l.side.SetTrouble(p) }

// Suspend makes the link rest on both sides; the other learns of it now or at the
// next contact. The primary keeps its log meanwhile.
func (l *Link) Suspend(ctx context.Context) error { return l.change(ctx, role.Suspend) }

// Resume ends a suspension, and lets a broken link try again.
func (l *Link) Resume(ctx context.Context) error { return l.change(ctx, role.Resume) }

func (l *Link) change(ctx context.Context, e role.Event) error {
	suspended := e == role.Suspend
	var request ChangeRequest
	err := l.side.Update(ctx, func(r *catalog.Link) error {
		next, err := role.Step(side.State(*r), e)
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
	if err := side.Tell(ctx, l.side, MethodChange, request); err != nil {
		l.log.Info("the peer learns of the change later", "err", err)
	}
	return nil
}

// adopt takes over a suspension or its end from the other side, if it is newer
// than what is known here.
func (l *Link) adopt(ctx context.Context, suspended bool, change int64) error {
	if change <= l.side.Record().Change {
		return nil
	}
	return l.side.Update(ctx, func(r *catalog.Link) error {
		if change <= r.Change {
			return nil
		}
		e := role.Resume
		if suspended {
			e = role.Suspend
		}
		r.Change = change
		next, err := role.Step(side.State(*r), e)
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

// turned is told by the side of every change of role, phase or epoch.
func (l *Link) turned(before, after catalog.Link) {
	if before.Role != after.Role {
		l.mu.Lock()
		l.live, l.secondary.durable = live{}, 0 // all of another log
		l.mu.Unlock()
	}
	if l.place.Turned != nil {
		l.place.Turned(l.database, before, after)
	}
}

// forget drops what was known as long as the role was another. Nothing works on it.
func (l *Link) forget() {
	l.sequences.Forget()
	l.objects.Forget()
	l.roles.Forget()
	l.schema.Forget()
	l.audit.Forget()
	l.side.Forget()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.live, l.secondary.durable = live{}, 0
}

// NoteContact keeps in the database how the peer is known.
func (l *Link) NoteContact(ctx context.Context, c catalog.Contact) error {
	if l.side.Record().Deleting {
		return nil
	}
	return l.side.Session.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error { return catalog.SetContact(ctx, conn, l.ID(), c) })
}
