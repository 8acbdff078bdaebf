package agent

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/config"
	"github.com/twinspan/twinspan/internal/events"
	"github.com/twinspan/twinspan/internal/hooks"
	"github.com/twinspan/twinspan/internal/link"
	"github.com/twinspan/twinspan/internal/peer"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/side"
	"github.com/twinspan/twinspan/internal/telemetry"
)

const (
	// lookForEvents is between two looks at what changes without a word.
	lookForEvents = time.Second
	// mostUnwritten is how many events wait in memory for a disk that takes none.
	mostUnwritten = 4096
	// heardLately is how long what a peer said counts as news.
	heardLately = 5 * time.Second
	// mostWait bounds how long a reader waits for an event.
	mostWait = time.Minute
)

// record is the agent's record of events, and what is given to hooks. Its zero value keeps
// events in memory until it is open.
type record struct {
	dir   string
	log   *slog.Logger
	hooks *hooks.Runner
	watch *events.Watch // of the goroutine that looks
	pace  pacer

	mu        sync.Mutex
	kept      *events.Log // nil while it could not be opened
	queue     []api.Event
	missed    int64
	trouble   *problem.Error
	standing  map[string]events.Standing      // of links as last told, by id
	failovers map[string]api.FailoverProgress // the same of changes of places
	gone      []string                        // ids of links that were removed since the last look
	wake      chan struct{}                   // holds one
	grown     chan struct{}                   // closed when the record is opened late
}

// open reads the record of before. One that cannot be read keeps nothing from working.
func (r *record) open(dir config.Dir, c config.Config, log *slog.Logger) {
	r.dir, r.log, r.watch = dir.Events(), log, events.NewWatch()
	r.hooks = &hooks.Runner{Agent: c.Name, Log: log, Note: r.note}
	for _, h := range c.Hooks {
		r.hooks.Hooks = append(r.hooks.Hooks, hooks.Hook(h))
	}
	r.wake, r.grown = make(chan struct{}, 1), make(chan struct{})
	r.standing, r.failovers = map[string]events.Standing{}, map[string]api.FailoverProgress{}
	kept, err := events.Open(r.dir)
	now, unfinished := time.Now(), false
	if err == nil {
		err = kept.Each(func(e api.Event) bool {
			r.watch.Recall(e, now)
			if s, tells := events.StandingOf(e); tells {
				r.standing[e.LinkID] = s
			}
			unfinished = e.Kind != api.EventAgent || e.Action != "stopped"
			return true
		})
	}
	r.kept = kept
	r.troubled(err)
	text := "the agent was started"
	if unfinished {
		text += "; the one before had not been stopped: it was killed, or its machine ended"
	}
	r.note(api.Event{Kind: api.EventAgent, Action: "started", Text: text})
}

func (r *record) troubled(err error) {
	p := problem.As(err)
	r.mu.Lock()
	before := r.trouble
	r.trouble = p
	r.mu.Unlock()
	switch {
	case p != nil && (before == nil || before.Code != p.Code):
		r.log.Warn("events are not kept", telemetry.Failure(err))
	case p == nil && before != nil:
		r.log.Info("events are kept again")
	}
}

// note has an event kept, and returns at once. Events are kept in the order in which they
// are noted.
func (r *record) note(e api.Event) {
	if e.At.IsZero() {
		e.At = time.Now()
	}
	if e.By.Kind == "" {
		e.By.Kind = api.ByAgent
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if s, tells := events.StandingOf(e); tells && r.standing != nil {
		r.standing[e.LinkID] = s
	}
	if len(r.queue) >= mostUnwritten {
		r.missed++
		return
	}
	r.queue = append(r.queue, e)
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// keep writes events until ctx ends, and then those that wait.
func (r *record) keep(ctx context.Context) {
	retry := time.NewTicker(lookForEvents)
	defer retry.Stop()
	for ctx.Err() == nil {
		select {
		case <-r.wake:
		case <-ctx.Done():
		case <-retry.C: // for what could not be written
		}
		r.write()
	}
	r.write()
	if r.kept != nil {
		r.kept.Close()
	}
}

// write writes what waits. It is called by one goroutine.
func (r *record) write() {
	if r.kept == nil {
		kept, err := events.Open(r.dir)
		r.troubled(err)
		if err != nil {
			return
		}
		r.mu.Lock()
		r.kept = kept
		close(r.grown)
		r.mu.Unlock()
	}
	for n := 0; ; n++ {
		r.mu.Lock()
		if len(r.queue) == 0 && r.missed > 0 {
			r.queue = append(r.queue, api.Event{At: time.Now(), Kind: api.EventAgent, Action: "missed", By: api.Actor{Kind: api.ByAgent}, Code: "events_unwritten",
				Text: fmt.Sprintf("events could not be written, and too many waited: %d were lost", r.missed)})
			r.missed = 0
		}
		if len(r.queue) == 0 {
			r.mu.Unlock()
			if n > 0 {
				r.troubled(r.kept.Sync())
			}
			return
		}
		next := r.queue[0]
		r.mu.Unlock()
		done, err := r.kept.Append(next)
		if err != nil {
			r.troubled(err)
			return
		}
		r.mu.Lock()
		r.queue = r.queue[1:]
		r.mu.Unlock()
		r.hooks.Offer(done)
	}
}

// problems is what is wrong with the record and with hooks.
func (r *record) problems() []api.Problem {
	r.mu.Lock()
	trouble := r.trouble
	r.mu.Unlock()
	list := []api.Problem{}
	if trouble != nil {
		list = append(list, *side.ProblemOf(trouble, api.Warns))
	}
	return append(list, r.ofHooks()...)
}

// ofHooks is what is wrong with hooks.
func (r *record) ofHooks() []api.Problem {
	list := []api.Problem{}
	if r.hooks == nil {
		return list
	}
	for _, p := range r.hooks.Problems() {
		list = append(list, *side.ProblemOf(p, api.Warns))
	}
	return list
}

// read returns a page, and waits for it as long as the query says.
func (r *record) read(ctx context.Context, q api.EventQuery) (api.EventPage, error) {
	ctx, stop := context.WithTimeout(ctx, min(time.Duration(q.Wait)*time.Second, mostWait))
	defer stop()
	for {
		r.mu.Lock()
		kept, grown := r.kept, (<-chan struct{})(r.grown)
		trouble := r.trouble
		r.mu.Unlock()
		var page api.EventPage
		if kept == nil {
			if q.Wait == 0 || ctx.Err() != nil {
				return page, trouble
			}
		} else {
			grown = kept.Grown()
			var err error
			if page, err = kept.Read(q); err != nil || len(page.Events) > 0 || q.Wait == 0 {
				return page, err
			}
			if !q.Newest {
				q.After = page.Next // what was looked at is not looked at again
			}
		}
		select {
		case <-grown:
		case <-ctx.Done():
			if kept == nil {
				return page, trouble
			}
			return page, nil
		}
	}
}

// begin has events kept and hooks run until the function that it returns is called.
func (r *record) begin() (end func()) {
	keeping, stopKeeping := context.WithCancel(context.Background())
	running, stopRunning := context.WithCancel(context.Background())
	var keeper, runner sync.WaitGroup
	keeper.Go(func() { r.keep(keeping) })
	runner.Go(func() { r.hooks.Run(running) })
	return func() {
		r.note(api.Event{Kind: api.EventAgent, Action: "stopped", Text: "the agent was stopped"})
		stopKeeping()
		keeper.Wait()
		stopRunning() // which gives what was kept last to hooks
		runner.Wait()
	}
}

// turned keeps a change of a side's role, phase or epoch.
func (r *record) turned(database string, before, after catalog.Link) {
	var why *problem.Error
	if p := after.Problem; p != nil && (before.Problem == nil || before.Problem.Code != p.Code) {
		why = p
	}
	e := events.Turn(standing(before), standing(after), why)
	e.Link, e.LinkID, e.Database, e.Peer = after.Name, after.ID, database, after.Peer
	r.note(e)
}

func standing(l catalog.Link) events.Standing {
	return events.Standing{Role: api.Role(l.Role), Phase: api.Phase(l.Phase), Epoch: l.Epoch}
}

// found keeps that a link which is put to work stands otherwise than it was last told.
func (r *record) found(l *link.Link) {
	s := l.State()
	now := events.Standing{Role: api.Role(s.Role), Phase: api.Phase(s.Phase), Epoch: s.Epoch}
	id := l.ID() // a link that is held tells of its changes: nothing is asked of it under this lock
	r.mu.Lock()
	var last *events.Standing
	if s, known := r.standing[id]; known {
		last = &s
	}
	r.mu.Unlock()
	if last != nil && *last == now {
		return
	}
	r.note(about(l, events.Found(last, now)))
}

// failing keeps what has happened of a change of places.
func (r *record) failing(l *link.Link, now api.FailoverProgress) {
	id := l.ID()
	r.mu.Lock()
	before := r.failovers[id]
	r.failovers[id] = now
	r.mu.Unlock()
	for _, e := range events.Failover(before, now) {
		r.note(about(l, e))
	}
}

// about adds to an event of which link it is.
func about(l *link.Link, e api.Event) api.Event {
	e.Link, e.LinkID, e.Database, e.Peer = l.Name(), l.ID(), l.Database(), l.Peer()
	return e
}

// made keeps that a link was made, removed that it was removed.
func (r *record) made(l *link.Link) {
	e := about(l, api.Event{Kind: api.EventLink, Action: "made", Text: "the link was made"})
	s := l.State()
	e.Role, e.Phase, e.Epoch = api.Role(s.Role), api.Phase(s.Phase), s.Epoch
	r.note(e)
}

func (r *record) removed(l *link.Link) {
	e := about(l, api.Event{Kind: api.EventLink, Action: "removed", Text: "the link was removed from this side"})
	r.note(e)
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.standing, e.LinkID)
	delete(r.failovers, e.LinkID)
	r.gone = append(r.gone, e.LinkID)
}

// look keeps what has happened since the last look.
func (r *record) look(s events.Sight) {
	r.mu.Lock()
	gone := r.gone
	r.gone = nil
	r.mu.Unlock()
	for _, e := range r.watch.Look(time.Now(), s) {
		r.note(e)
	}
	for _, id := range gone {
		r.watch.Forget(id)
	}
}

// watchForEvents looks at what changes without a word, until ctx ends.
func (a *Agent) watchForEvents(ctx context.Context) {
	contacts := a.endpoint.Watch(ctx)
	tick := time.NewTicker(lookForEvents)
	defer tick.Stop()
	for {
		changed := a.book.Changed()
		a.record.look(a.sight(ctx))
		select {
		case e, open := <-contacts:
			if !open {
				return // ctx ended
			}
			a.record.note(contact(e))
		case <-changed:
		case <-tick.C:
		}
	}
}

func contact(e peer.Event) api.Event {
	out := api.Event{At: e.At, Kind: api.EventPeer, Action: "connected", Peer: e.Peer, Text: "the agents are connected"}
	if !e.Connected {
		out.Action, out.Text = "lost", "the agents are not connected any more"
	}
	return out
}

// sight is how everything stands now.
func (a *Agent) sight(ctx context.Context) events.Sight {
	var s events.Sight
	if info, err := a.Info(ctx); err == nil {
		s.Problems = info.Problems
	}
	for _, l := range a.links.all() {
		v, added := a.trusted(l, l.View())
		heard := v.Peer.Connected && v.Peer.HeardAt != nil && time.Since(*v.Peer.HeardAt) < heardLately
		own := append(append(l.OwnProblems(), added...), api.Problem{Code: "peer_unreachable"})
		s.Links = append(s.Links, events.LinkSight{View: v, Own: own, Heard: heard})
	}
	for _, p := range a.book.List() {
		s.Peers = append(s.Peers, api.Peer{Name: p.Name, ID: p.AgentID, Fingerprint: p.Fingerprints[len(p.Fingerprints)-1]})
	}
	if k := a.keeping(); k != nil {
		for _, t := range k.State().Tasks {
			s.Tasks = append(s.Tasks, describeTask(t, k.Policy()))
		}
	}
	s.Copies, _ = a.Copies(ctx) // which has no error
	return s
}

// Events implements httpapi.Agent.
func (a *Agent) Events(ctx context.Context, q api.EventQuery) (api.EventPage, error) {
	return a.record.read(ctx, q)
}

// Did implements httpapi.Agent.
func (a *Agent) Did(e api.Event) {
	if e.Link != "" {
		if l, err := a.links.named(e.Link); err == nil {
			e = about(l, e)
		}
	}
	if e.By.Role == "reader" {
		a.record.asked("reader "+e.By.Name, e)
		return
	}
	a.record.note(e)
}
