package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/client"
	"github.com/twinspan/twinspan/internal/problem"
)

// failoverTogether lets several links, or all, change places as one, which the agent drives.
func (a *app) failoverTogether(ctx context.Context, c *client.Client, names []string, in api.FailoverRequest, status, cancel bool) error {
	var f api.Failovers
	var err error
	switch {
	case status:
		f, err = c.Failovers(ctx)
	case cancel:
		f, err = c.CancelFailovers(ctx)
	default:
		f, err = c.FailoverTogether(ctx, api.FailoversRequest{Links: names, Cutover: in.Cutover, DrainSeconds: in.DrainSeconds})
		if err == nil && !a.flags.noWait {
			f, err = a.waitTogether(ctx, c, f)
		}
	}
	if err != nil {
		return err
	}
	if err := a.answer(f, func(w io.Writer) { showTogether(w, f) }); err != nil || status || cancel {
		return err
	}
	if f.State == api.FailoverUndone && f.Problem != nil {
		return errorOf(problem.Transient, *f.Problem)
	}
	return nil
}

// waitTogether shows the steps of all links until they are over. An interrupt gives them up,
// unless it is decided.
func (a *app) waitTogether(ctx context.Context, c *client.Client, f api.Failovers) (api.Failovers, error) {
	shown := map[string]int{}
	tick := time.NewTicker(min(a.deps.Poll, 200*time.Millisecond))
	defer tick.Stop()
	away := time.Time{}
	for {
		for _, p := range f.Links {
			for ; shown[p.Link] < len(p.Steps); shown[p.Link]++ {
				fmt.Fprintf(a.errs, "%s: %s\n", p.Link, p.Steps[shown[p.Link]].Name)
			}
		}
		if f.State != api.FailoverRunning {
			return f, nil
		}
		select {
		case <-ctx.Done():
			return f, a.giveUpTogether(ctx, c)
		case <-tick.C:
		}
		now, err := c.Failovers(ctx)
		var sent *api.Error
		switch {
		case err == nil && now.StartedAt.Equal(f.StartedAt):
			f, away = now, time.Time{}
		case ctx.Err() != nil:
		case err == nil || errors.As(err, &sent) && sent.Code == "failover_unknown":
			return f, interruptedTogether()
		case away.IsZero():
			away = time.Now()
			a.say("waiting for the agent: %v", err)
		case time.Since(away) > patience:
			return f, interruptedTogether()
		}
	}
}

func interruptedTogether() error {
	return problem.New(problem.Transient, "failover_interrupted", "the agent that drives the failover was interrupted").
		WithHint("what it had decided is done when it is back, the rest is undone: twinspan link list")
}

// giveUpTogether is what an interrupt does.
func (a *app) giveUpTogether(ctx context.Context, c *client.Client) error {
	ending, stop := context.WithTimeout(context.WithoutCancel(ctx), cancelPatience)
	defer stop()
	if _, err := c.CancelFailovers(ending); err != nil {
		return err
	}
	return problem.New(problem.Cancelled, "interrupted", "the failover was given up, unless it was decided already").
		WithHint("twinspan link failover --all --status says which")
}

// showTogether tells how a failover of several links stands or ended.
func showTogether(w io.Writer, f api.Failovers) {
	for _, p := range f.Links {
		showFailover(w, p)
	}
	if f.Problem != nil {
		fmt.Fprintf(w, "%s [%s] %s\n", f.Problem.Severity, f.Problem.Code, f.Problem.Title)
	}
}
