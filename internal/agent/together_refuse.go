package agent

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/link"
	"github.com/twinspan/twinspan/internal/problem"
)

const (
	// refusePatience is how long it may take to learn what stands against several links.
	refusePatience = 30 * time.Second
	// refuseAtOnce is how many links are looked at at a time.
	refuseAtOnce = 8
)

// refusedTogether says why links cannot change places together, having done nothing with
// any of them: the first problem of the first link that has one.
func refusedTogether(ctx context.Context, links []*link.Link, in api.FailoversRequest) error {
	views := make([]api.Link, len(links))
	for i, l := range links {
		views[i] = l.View()
	}
	if err := sharedDatabase(views); err != nil {
		return err
	}
	ctx, stop := context.WithTimeoutCause(ctx, refusePatience, problem.New(problem.Transient, "failover_late",
		"it was not learned within %s what stands against the links", refusePatience).WithHint("see which agent or server does not answer: twinspan link list"))
	defer stop()
	found := make([]error, len(links))
	var looking errgroup.Group
	looking.SetLimit(refuseAtOnce)
	for i, l := range links {
		looking.Go(func() error {
			plan, err := l.FailoverPlan(ctx, api.FailoverPlanRequest{Type: api.Planned, Cutover: in.Cutover, DrainSeconds: in.DrainSeconds})
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			if err == nil && plan.Blocked {
				p := plan.Problems[0]
				err = problem.New(problem.Conflict, p.Code, "%s", p.Title).On(p.Subject).WithHint("%s", p.Hint)
			}
			found[i] = onLinkNamed(l, err)
			return nil
		})
	}
	_ = looking.Wait()
	for _, err := range found {
		if err != nil {
			return err
		}
	}
	return nil
}

// sharedDatabase refuses links of which two have the same database on a side: it would be
// the secondary of two primaries, or become one before it could be the primary of the other.
func sharedDatabase(links []api.Link) error {
	type place struct{ agent, database string }
	taken := map[place]string{}
	for _, l := range links {
		for _, p := range []place{{"", l.Database}, {l.Peer.Name, l.Peer.Database}} {
			other, have := taken[p]
			if !have {
				taken[p] = l.Name
				continue
			}
			at := "here"
			if p.agent != "" {
				at = "at agent " + p.agent
			}
			return problem.New(problem.Conflict, "database_shared",
				"links %s and %s both have database %s %s, which can change places with one of them only", other, l.Name, p.database, at).
				On(p.database).WithHint("leave one of the two out; it is made anew afterwards, from the new primary")
		}
	}
	return nil
}
