package agent

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/link"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/telemetry"
)

// registry holds the links at work.
type registry struct {
	mu       sync.Mutex
	byID     map[string]*link.Link
	run      func(*link.Link)                // starts a link's supervisor; nil until the links were found
	aside    func(func(context.Context))     // starts what is done beside the links
	late     error                           // why the server could not be asked yet; nil once it was
	rests    error                           // why there is none, other than that the agent starts
	cutovers map[string]api.FailoverProgress // the last failover of links that are gone, by name
	making   sync.Mutex                      // held while a link is made, so that two of a name cannot be
}

func (r *registry) add(l *link.Link) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.run == nil {
		return r.whyNot()
	}
	if r.byID[l.ID()] == nil {
		r.byID[l.ID()] = l
		r.run(l)
	}
	return nil
}

// beside has something done beside the links, as long as they are at work.
func (r *registry) beside(f func(context.Context)) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.run == nil {
		return r.whyNot()
	}
	r.aside(f)
	return nil
}

func (r *registry) remove(l *link.Link) {
	last, err := l.LastFailover()
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.byID, l.ID())
	if err == nil {
		if r.cutovers == nil {
			r.cutovers = map[string]api.FailoverProgress{}
		}
		r.cutovers[l.Name()] = last
	}
}

// count says how many links are at work.
func (r *registry) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.byID)
}

// databasesWith lists the databases here of links with a peer.
func (r *registry) databasesWith(agent string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := []string{}
	for _, l := range r.byID {
		if l.PeerAgent() == agent {
			list = append(list, l.Database())
		}
	}
	return list
}

// cutover returns the last failover of a link that is gone.
func (r *registry) cutover(name string) (last api.FailoverProgress, have bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	last, have = r.cutovers[name]
	return last, have
}

func (r *registry) ready() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.run == nil {
		return r.whyNot()
	}
	return nil
}

// readyHere is ready for the agent's own operator, who may know why the server does not
// answer: the reason names it.
func (r *registry) readyHere() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.run != nil:
		return nil
	case r.rests == nil && r.late != nil:
		return problem.Wrap(r.late, errNotReady.Kind, errNotReady.Code, "%s", errNotReady.Text).WithHint("%s", errNotReady.Hint)
	}
	return r.whyNot()
}

// waits notes why the server cannot be asked; nil when it was.
func (r *registry) waits(why error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.late = why
}

func (r *registry) all() []*link.Link {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := make([]*link.Link, 0, len(r.byID))
	for _, l := range r.byID {
		list = append(list, l)
	}
	slices.SortFunc(list, func(a, b *link.Link) int { return strings.Compare(a.Name(), b.Name()) })
	return list
}

// get finds a link by its id.
func (r *registry) get(id string) (*link.Link, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if l := r.byID[id]; l != nil {
		return l, nil
	}
	if r.run == nil {
		return nil, r.whyNot()
	}
	return nil, problem.New(problem.NotFound, "link_unknown", "this agent has no such link").On(id)
}

// named finds a link by its name.
func (r *registry) named(name string) (*link.Link, error) {
	for _, l := range r.all() {
		if l.Name() == name {
			return l, nil
		}
	}
	if err := r.readyHere(); err != nil {
		return nil, err
	}
	return nil, problem.New(problem.NotFound, "link_unknown", "there is no link %q", name).On(name).WithHint("twinspan link list shows the links of this agent")
}

var errNotReady = problem.New(problem.Transient, "agent_starting", "the agent has not read its instance yet").
	WithHint("see that the server runs and that the agent's connection string, in twinspan.toml, is right; the agent tries again by itself")

func (r *registry) whyNot() error {
	if r.rests != nil {
		return r.rests
	}
	return errNotReady
}

// rest lets no links be known, and says why.
func (r *registry) rest(why error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rests, r.run, r.byID = why, nil, nil
}

// runLinks finds the links that the instance's databases know of, and keeps them
// and those that are made later at work until ctx ends, or another process with the
// agent's identity is found to work them. decided is called once it is known that none does,
// or cannot be known for now.
func (a *Agent) runLinks(ctx context.Context, decided func()) error {
	var running sync.WaitGroup
	defer running.Wait()
	if a.managed != nil {
		decided() // the server is this process's own
		if err := a.managed.WaitReady(ctx); err != nil {
			return nil // ctx ended, or the server did, which ends the agent
		}
	}
	found, err := a.findPatiently(ctx, decided)
	if err != nil {
		return nil // ctx ended
	}
	if err := a.takeAll(ctx, found); err != nil {
		return err
	}
	decided()
	a.record.note(api.Event{Kind: api.EventLease, Action: "taken", Text: fmt.Sprintf("this process works the links: %d were found", len(found))})
	a.links.mu.Lock()
	a.links.rests, a.links.byID = nil, map[string]*link.Link{}
	a.links.run = func(l *link.Link) {
		a.record.found(l)
		running.Go(func() {
			if !a.hold(ctx, l) {
				return
			}
			if err := l.Run(ctx); err == nil {
				a.links.remove(l)
				a.record.removed(l)
				if err := a.histories.forget(a.Dir.History(), l.ID()); err != nil {
					a.Log.Warn("what charts showed of the link is left", "link", l.Name(), telemetry.Failure(err))
				}
				if !slices.ContainsFunc(a.links.all(), func(other *link.Link) bool { return other.Database() == l.Database() }) {
					a.lease.Release(l.Database())
				}
				if err := a.endLinkGrants(l.ID()); err != nil {
					a.Log.Warn("what came with the link is still granted", "link", l.Name(), telemetry.Failure(err))
				}
			}
		})
	}
	a.links.aside = func(f func(context.Context)) { running.Go(func() { f(ctx) }) }
	a.links.mu.Unlock()
	for _, l := range found {
		if err := a.links.add(l); err != nil {
			return err
		}
	}
	a.Log.Info("links found", "links", len(found))
	a.tidyGrants()
	running.Go(func() { a.noteContacts(ctx) })
	running.Go(func() { a.sweepCopies(ctx) })
	a.lookAgain(ctx)
	<-ctx.Done()
	a.links.mu.Lock()
	a.links.run = nil // none is started while the others end
	a.links.mu.Unlock()
	return nil
}

// findPatiently looks for links until the server has answered; failed is called when it
// does not.
func (a *Agent) findPatiently(ctx context.Context, failed func()) ([]*link.Link, error) {
	var last string
	for pause := 200 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
		found, err := a.find(ctx)
		a.links.waits(err)
		if err == nil {
			return found, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		failed()
		if text := err.Error(); text != last {
			last = text
			a.Log.Warn("waiting for the server", telemetry.Failure(err))
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(pause):
		}
	}
}
