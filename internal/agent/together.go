package agent

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/link"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/role"
	"github.com/twinspan/twinspan/internal/side"
	"github.com/twinspan/twinspan/internal/telemetry"
)

// together holds the change of places of several links that this agent drives, or the last
// (docs/design/0027-together.md).
type together struct {
	mu      sync.Mutex
	current *group
}

// group is several links that change places as one. The mutex of together guards its view.
type group struct {
	*Agent
	id     string
	links  []*link.Link // the first leads: in its database here it is decided
	epochs []int64      // of the links when it began
	began  []time.Time  // when each link's part did; zero before
	asked  []bool       // whether it may have begun
	in     api.FailoverRequest
	stop   context.CancelCauseFunc

	view api.Failovers
}

const (
	// togetherTick is how often links that change places together are looked at: their
	// writers wait.
	togetherTick = 20 * time.Millisecond
	// promisePatience is how long all may take to promise, after the last common point.
	promisePatience = 10 * time.Second
	// togetherEnd is how long the end of all is waited for, once it is decided or undone.
	togetherEnd = 90 * time.Second
)

// FailoverTogether implements httpapi.Agent. What stands against one of the links refuses it
// before anything is done with any.
func (a *Agent) FailoverTogether(ctx context.Context, in api.FailoversRequest) (api.Failovers, error) {
	links, err := a.severalLinks(in.Links)
	if err != nil {
		return api.Failovers{}, err
	}
	if running, view, err := a.runningTogether(links); running {
		return view, err
	}
	if err := refusedTogether(ctx, links, in); err != nil {
		return api.Failovers{}, err
	}
	a.together.mu.Lock()
	defer a.together.mu.Unlock()
	if running, view, err := a.runningTogetherLocked(links); running {
		return view, err
	}
	g := &group{Agent: a, id: rand.Text(), links: links, in: api.FailoverRequest{Type: api.Planned, Cutover: in.Cutover, DrainSeconds: in.DrainSeconds}}
	now := time.Now().UTC()
	g.view = api.Failovers{State: api.FailoverRunning, StartedAt: now}
	g.began, g.asked = make([]time.Time, len(links)), make([]bool, len(links))
	for _, l := range links {
		g.epochs = append(g.epochs, l.View().Epoch)
		g.view.Links = append(g.view.Links, api.FailoverProgress{Link: l.Name(), Type: api.Planned, State: api.FailoverRunning, StartedAt: now})
	}
	ctx, stop := context.WithCancelCause(context.Background())
	g.stop = stop
	err = a.links.beside(func(life context.Context) {
		defer context.AfterFunc(life, func() { stop(context.Cause(life)) })()
		defer stop(nil)
		g.run(life, ctx)
	})
	if err != nil {
		return api.Failovers{}, err
	}
	a.together.current = g
	return g.shownLocked(), nil
}

// runningTogether says whether links are changing places together; those asked for are
// described, others are a conflict.
func (a *Agent) runningTogether(links []*link.Link) (running bool, view api.Failovers, err error) {
	a.together.mu.Lock()
	defer a.together.mu.Unlock()
	return a.runningTogetherLocked(links)
}

func (a *Agent) runningTogetherLocked(links []*link.Link) (running bool, view api.Failovers, err error) {
	g := a.together.current
	switch {
	case g == nil || g.view.State != api.FailoverRunning:
		return false, view, nil
	case slices.Equal(g.links, links):
		return true, g.shownLocked(), nil
	}
	return true, view, problem.New(problem.Conflict, "failover_running", "other links are changing places together").On(g.links[0].Name()).
		WithHint("twinspan link failover --all --status shows it, --all --cancel gives it up")
}

// severalLinks finds links by their names; all of them when there are none.
func (a *Agent) severalLinks(names []string) ([]*link.Link, error) {
	links := a.links.all()
	if len(names) > 0 {
		links = nil
	}
	for _, name := range names {
		l, err := a.links.named(name)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(links, l) {
			links = append(links, l)
		}
	}
	if len(links) == 0 {
		if err := a.links.ready(); err != nil {
			return nil, err
		}
		return nil, problem.New(problem.NotFound, "link_unknown", "the agent has no links")
	}
	return links, nil
}

// Failovers implements httpapi.Agent.
func (a *Agent) Failovers(context.Context) (api.Failovers, error) {
	a.together.mu.Lock()
	defer a.together.mu.Unlock()
	if a.together.current == nil {
		return api.Failovers{}, problem.New(problem.NotFound, "failover_unknown", "no links have changed places together since the agent was started").
			WithHint("twinspan link failover NAME NAME... does it")
	}
	return a.together.current.shownLocked(), nil
}

// CancelFailovers implements httpapi.Agent.
func (a *Agent) CancelFailovers(context.Context) (api.Failovers, error) {
	a.together.mu.Lock()
	defer a.together.mu.Unlock()
	g := a.together.current
	if g == nil || g.view.State != api.FailoverRunning || g.view.Decided {
		return api.Failovers{}, problem.New(problem.Conflict, "failover_unknown", "no links are changing places together, or it is decided already")
	}
	g.stop(problem.New(problem.Cancelled, "failover_cancelled", "the failover was given up"))
	return g.shownLocked(), nil
}

// outcome answers a link that has promised to do what is decided for all. What is not decided
// when nothing drives them any more is undone.
func (a *Agent) outcome(ctx context.Context, asking *link.Link, t link.Together) (link.Outcome, error) {
	a.together.mu.Lock()
	g := a.together.current
	running := g != nil && g.id == t.Failover && g.view.State == api.FailoverRunning && !g.view.Decided && g.view.Problem == nil
	a.together.mu.Unlock()
	if running {
		return link.Pending, nil
	}
	leader, err := a.links.get(t.Leader)
	if problem.CodeOf(err) == "link_unknown" { // removed since: the others have what it decided
		leader, err = asking, a.troubles.hiding(t.Leader)
	}
	if err != nil {
		return "", err
	}
	decided, err := leader.SettleTogether(ctx, t.Failover, false)
	switch {
	case err != nil:
		return "", err
	case !decided:
		return link.Undone, nil
	case asking.ID() == t.Leader: // which may be removed as soon as it knows
		a.spreadSoon(ctx, t.Failover, a.links.all())
	}
	return link.Decided, nil
}

const (
	// spreadPatience is how long the leader of several links waits until what was decided is
	// stored with the others too. It is shorter than the time that an answer may take.
	spreadPatience = 3 * time.Second
	// passPatience is the same before the leader is removed. It is longer than a link may wait for a lock
	// in the session through which it is stored.
	passPatience = 20 * time.Second
)

// spread stores with each of several links what was decided, so that those that were not told
// learn it also when the leader has been removed. It fails where one of them has to learn it.
func (a *Agent) spread(ctx context.Context, failover string, links []*link.Link) error {
	var all errgroup.Group
	for _, l := range links {
		all.Go(func() error {
			_, err := l.SettleTogether(ctx, failover, true)
			if err == nil {
				return nil
			}
			a.Log.Warn("what was decided is not stored with a link", "link", l.Name(), telemetry.Failure(err))
			if phase := l.State().Phase; phase != role.FailingOver && phase != role.Fenced {
				return nil // nothing is to be decided there any more
			}
			return onLinkNamed(l, err)
		})
	}
	return all.Wait()
}

// spreadSoon is spread for who waits for an answer: whoever was not told asks again.
func (a *Agent) spreadSoon(ctx context.Context, failover string, links []*link.Link) {
	ctx, stop := context.WithTimeout(ctx, spreadPatience)
	defer stop()
	_ = a.spread(ctx, failover, links)
}

// passOn stores with all links what one of them, which is to be removed, has decided.
func (a *Agent) passOn(ctx context.Context, failover string) error {
	if err := a.troubles.hiding(""); err != nil { // a link that was not found yet may be one of them
		return err
	}
	ctx, stop := context.WithTimeout(ctx, passPatience)
	defer stop()
	return a.spread(ctx, failover, a.links.all())
}

func (g *group) shownLocked() api.Failovers {
	v := g.view
	v.Links = slices.Clone(v.Links)
	return v
}

func (g *group) show(change func(v *api.Failovers)) {
	g.together.mu.Lock()
	defer g.together.mu.Unlock()
	change(&g.view)
}

// run drives the links until all have changed places, or none. life ends with the agent's
// work, ctx also when it is given up.
func (g *group) run(life, ctx context.Context) {
	err := g.decide(life, ctx)
	if life.Err() != nil {
		return // each link finds out what was decided
	}
	if err != nil {
		g.undo(life, err)
		return
	}
	g.show(func(v *api.Failovers) { v.Decided = true })
	// Who is not told asks. The leader is told when the others have what it decided, for a
	// cutover removes it.
	_ = g.proceed(life, g.links[1:], api.PointDecision)
	g.spreadSoon(life, g.id, g.links[1:])
	_ = g.proceed(life, g.links[:1], api.PointDecision)
	g.finish(life, api.FailoverDone)
}

// proceed lets links go on from a point, all at once: the writers of each may be waiting.
func (g *group) proceed(ctx context.Context, links []*link.Link, point api.FailoverPoint) error {
	ctx, stop := context.WithTimeoutCause(ctx, proceedPatience, errNotTold)
	defer stop()
	all, ctx := errgroup.WithContext(ctx)
	for _, l := range links {
		all.Go(func() error { return onLinkNamed(l, l.ProceedFailover(ctx, point)) })
	}
	return all.Wait()
}

// proceedPatience is how long the agent of a link's secondary may take to hear that the link
// may go on.
const proceedPatience = 5 * time.Second

var errNotTold = problem.New(problem.Transient, "peer_lost", "the agent that drives the link's failover did not answer within %s", proceedPatience).WithHint("try again")

// decide brings all links to where each has promised, and stores the decision.
func (g *group) decide(life, ctx context.Context) error {
	leader := g.links[0]
	for _, l := range g.links {
		if err := l.BeginTogether(ctx, g.id); err != nil {
			return onLinkNamed(l, err)
		}
	}
	t := &link.Together{Failover: g.id, Leader: leader.ID(), Agent: g.identity.AgentID()}
	for i, l := range g.links {
		p, err := l.Failover(ctx, g.in, t)
		g.asked[i] = err == nil || problem.Retry(err)
		if err != nil {
			return onLinkNamed(l, err)
		}
		g.began[i] = p.StartedAt
		g.show(func(v *api.Failovers) { v.Links[i] = p })
	}
	for _, point := range []api.FailoverPoint{api.PointHold, api.PointPromise} {
		if err := g.gather(ctx, point); err != nil {
			return err
		}
		if err := g.proceed(ctx, g.links, point); err != nil {
			return err
		}
	}
	promising, stop := context.WithTimeoutCause(ctx, promisePatience, problem.New(problem.Transient, "others_late",
		"not every link has promised within %s to do as the others", promisePatience).WithHint("try again"))
	defer stop()
	if err := g.gather(promising, api.PointDecision); err != nil {
		return err
	}
	decided, err := leader.SettleTogether(life, g.id, true)
	for err != nil && life.Err() == nil { // it may be stored all the same
		g.Log.Warn("it is not known whether the links change places", telemetry.Failure(err))
		pause(life, time.Second)
		decided, err = leader.SettleTogether(life, g.id, false)
	}
	if err == nil && !decided {
		err = problem.New(problem.Transient, "failover_interrupted", "the decision could not be stored in the database of link %s", leader.Name()).On(leader.Name()).WithHint("try again")
	}
	return err
}

func onLinkNamed(l *link.Link, err error) error {
	if err == nil {
		return nil
	}
	p := *problem.As(err)
	p.Text = fmt.Sprintf("link %s: %s", l.Name(), p.Text)
	return &p
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// gather waits until all links wait at a point. It fails when one of them cannot, or is not
// to be seen.
func (g *group) gather(ctx context.Context, point api.FailoverPoint) error {
	return g.watch(ctx, func() (bool, error) {
		there := 0
		for i, l := range g.links {
			p, err := l.FailoverProgress(ctx)
			if err == nil && !p.StartedAt.Equal(g.began[i]) {
				err = problem.New(problem.Transient, "failover_interrupted", "the agent that drove the failover was interrupted").WithHint("try again")
			}
			if err != nil {
				return false, onLinkNamed(l, err)
			}
			g.show(func(v *api.Failovers) { v.Links[i] = p })
			switch {
			case p.State == api.FailoverUndone && p.Problem != nil:
				return false, onLinkNamed(l, problem.New(problem.Transient, p.Problem.Code, "%s", p.Problem.Title).On(p.Problem.Subject).WithHint("%s", p.Problem.Hint))
			case p.State == api.FailoverRunning && p.Waiting == point:
				there++
			}
		}
		return there == len(g.links), nil
	})
}

func (g *group) watch(ctx context.Context, look func() (over bool, err error)) error {
	tick := time.NewTicker(togetherTick)
	defer tick.Stop()
	for {
		if over, err := look(); over || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// undo gives up what was not decided.
func (g *group) undo(life context.Context, why error) {
	p := problem.As(why)
	g.Log.Warn("links do not change places together", "code", p.Code, "err", p)
	g.show(func(v *api.Failovers) {
		v.Problem = side.ProblemOf(p, api.Blocks)
	})
	for i, l := range g.links {
		if g.asked[i] { // else another agent may have it change places
			_, _ = l.CancelFailover(life) // who cannot be told gives up by itself, for want of others
		}
	}
	g.finish(life, api.FailoverUndone)
}

// finish waits until the failover of each link is over, as far as that comes to be known in
// time. Then nobody will ask any more what was decided.
func (g *group) finish(life context.Context, state api.FailoverState) {
	ctx, stop := context.WithTimeoutCause(life, togetherEnd, problem.New(problem.Transient, "failover_interrupted", "not every link's agent answers").
		WithHint("what is decided is done when they are back: twinspan link list"))
	defer stop()
	err := g.watch(ctx, func() (bool, error) {
		over := 0
		for i, l := range g.links {
			if p, err := l.FailoverProgress(ctx); err == nil && p.StartedAt.Equal(g.began[i]) {
				g.show(func(v *api.Failovers) { v.Links[i] = p })
			} else if now := l.View(); now.Phase != api.FailingOver && now.Phase != api.Fenced {
				g.show(func(v *api.Failovers) { v.Links[i] = g.asRecorded(i, now) })
			}
			if g.view.Links[i].State != api.FailoverRunning {
				over++
			}
		}
		return over == len(g.links), nil
	})
	if life.Err() != nil {
		return
	}
	if err == nil {
		for _, l := range g.links {
			_ = l.EndTogether(life, g.id) // after a cutover there is nothing to forget
		}
	}
	now := time.Now().UTC()
	g.show(func(v *api.Failovers) {
		v.State, v.EndedAt = state, &now
		if p := problem.As(err); p != nil && v.Problem == nil {
			v.Problem = side.ProblemOf(p, api.Warns)
		}
	})
}

// asRecorded describes the part of a link that did not begin, or of which the driver has been
// started anew since.
func (g *group) asRecorded(i int, l api.Link) api.FailoverProgress {
	now := time.Now().UTC()
	p := g.view.Links[i]
	p.EndedAt, p.State, p.Waiting = &now, api.FailoverUndone, ""
	if g.began[i].IsZero() {
		return p
	}
	p.Text = "the agent that drove it was interrupted"
	if l.Epoch > g.epochs[i] {
		p.State, p.Epoch = api.FailoverDone, l.Epoch
		if l.LastFailover != nil {
			p.HoldSeconds = l.LastFailover.HoldSeconds
		}
	}
	return p
}
