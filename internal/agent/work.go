package agent

import (
	"context"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/link"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/telemetry"
)

// work works the links and speaks with the peers until ctx ends. While another process with
// the agent's identity does, this one stands by and says so.
func (a *Agent) work(ctx context.Context) error {
	for {
		err := a.beActive(ctx)
		if problem.CodeOf(err) != "agent_twice" || ctx.Err() != nil {
			return err
		}
		a.links.rest(err)
		a.Log.Error("this agent stands by", "code", "agent_twice", "err", err)
		a.record.note(api.Event{Kind: api.EventLease, Action: "lost", Code: "agent_twice", Text: "another process works the links; this one stands by: " + problem.As(err).Error()})
		if err := a.lease.Await(ctx); err != nil {
			return nil // ctx ended
		}
		a.Log.Info("the other agent is gone, this one takes over")
	}
}

// beActive is work until the links are another process's.
func (a *Agent) beActive(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	decided := make(chan struct{})
	group.Go(func() error {
		// Two that speak in one name would take the connections of the peers from each other.
		select {
		case <-decided:
			return a.endpoint.Run(ctx)
		case <-ctx.Done():
			return nil
		}
	})
	lost := a.lease.Lost()
	group.Go(func() error {
		select {
		case <-lost:
			return a.lease.Twice()
		case <-ctx.Done():
			return nil
		}
	})
	group.Go(func() error { return a.runLinks(ctx, sync.OnceFunc(func() { close(decided) })) })
	return group.Wait()
}

// takeAll makes this process the one that works the links that were found. A database that
// does not answer is left to hold.
func (a *Agent) takeAll(ctx context.Context, found []*link.Link) error {
	var names []string
	for _, l := range found {
		if !slices.Contains(names, l.Database()) {
			names = append(names, l.Database())
		}
	}
	var group errgroup.Group
	group.SetLimit(lookers)
	for _, name := range names {
		group.Go(func() error {
			other, err := a.lease.Take(ctx, name)
			if err != nil {
				a.Log.Warn("it is not known yet whether another agent works the links", "database", name, telemetry.Failure(err))
			}
			if other != nil {
				return a.lease.Twice()
			}
			return nil
		})
	}
	return group.Wait()
}

// hold makes this process the one that works the links of a link's database, and says
// whether it is.
func (a *Agent) hold(ctx context.Context, l *link.Link) bool {
	for wait := firstLook / 4; !a.lease.Holds(l.Database()); wait = min(2*wait, lastLook/6) {
		other, err := a.lease.Take(ctx, l.Database())
		switch {
		case other != nil:
			return false
		case err == nil:
			continue
		case pg.IsUnknownDatabase(err):
			return true // dropped meanwhile, which the link says
		default:
			l.Hinder(problem.As(err))
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(wait):
		}
	}
	l.Hinder(nil)
	return true
}
