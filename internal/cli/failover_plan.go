package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/client"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/terminal"
)

// failoverPlan shows what a failover would meet, and fails when it would not come about.
func (a *app) failoverPlan(ctx context.Context, c *client.Client, name string, in api.FailoverRequest) error {
	p, err := c.FailoverPlan(ctx, name, api.FailoverPlanRequest{Type: in.Type, Cutover: in.Cutover, DrainSeconds: in.DrainSeconds})
	if err != nil {
		return err
	}
	if err := a.answer(p, func(w io.Writer) { showFailoverPlan(w, p) }); err != nil || !p.Blocked {
		return err
	}
	first := p.Problems[0]
	return errorOf(problem.Conflict, first)
}

func showFailoverPlan(w io.Writer, p api.FailoverPlan) {
	if p.Blocked {
		fmt.Fprintf(w, "%s: a %s failover to agent %s would not come about now\n", p.Link, p.Type, p.Primary)
	} else {
		fmt.Fprintf(w, "%s: nothing stands against a %s failover to agent %s\n", p.Link, p.Type, p.Primary)
	}
	for _, q := range p.Problems {
		fmt.Fprintf(w, "  %s [%s] %s\n", q.Severity, q.Code, q.Title)
		if q.Hint != "" {
			fmt.Fprintf(w, "      %s\n", q.Hint)
		}
	}
	for _, t := range p.Waits {
		fmt.Fprintf(w, "  %s\n", waiterText(t, p.DrainSeconds))
	}
	if p.Type == api.Planned {
		switch {
		case p.HoldSeconds == nil:
			fmt.Fprintln(w, "  it is not known how long writers would wait")
		case *p.MostSeconds > *p.HoldSeconds:
			fmt.Fprintf(w, "  writers would wait about %s, and up to %s when those that write now do not finish\n", terminal.Duration(*p.HoldSeconds), terminal.Duration(*p.MostSeconds))
		default:
			fmt.Fprintf(w, "  writers would wait about %s\n", terminal.Duration(*p.HoldSeconds))
		}
	}
	if u := p.Uncarried; u != nil {
		fmt.Fprintf(w, "  %s\n", uncarriedTitle(*u))
		showUncarried(w, *u, "    ")
	}
	if l := p.Loss; l != nil {
		if l.HeardAt == nil {
			fmt.Fprintf(w, "  would be left behind: it is not known how much; applied %s, the primary was not heard of since the agent was started\n", dash(l.Applied))
		} else {
			fmt.Fprintf(w, "  would be left behind: applied %s of %s as last heard of, %s, and what was written since\n", dash(l.Applied), dash(l.Written), terminal.Known(l.Bytes, terminal.Size))
		}
	}
}

// waiterText says who is in the way and what becomes of it.
func waiterText(t api.FailoverWaiter, drain float64) string {
	who := fmt.Sprintf("server process %d", t.PID)
	if t.GID != "" {
		who = fmt.Sprintf("the prepared transaction %q", t.GID)
	}
	if t.Role != "" {
		who += " of role " + t.Role
	}
	who += fmt.Sprintf(" in database %s at agent %s", t.Database, t.Agent)
	if t.Since != nil {
		who += ", since " + when(*t.Since)
	}
	switch t.Fate {
	case api.FateEnded:
		return fmt.Sprintf("may finish within %s, then is ended: %s", terminal.Duration(drain), who)
	case api.FateBlocks:
		return "has to be finished by somebody: " + who
	}
	return "is waited for: " + who
}
