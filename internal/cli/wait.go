package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/client"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/terminal"
)

// patience is how long an agent may be away while a command waits for a link: it
// may be restarting.
const patience = 30 * time.Second

// wait looks at a link until it is in one of the phases, and shows its progress.
// It returns the last view. It is an error when the link stops on its way, and
// when the waiting is interrupted; that ends the waiting only, never the link.
func (a *app) wait(ctx context.Context, c *client.Client, first api.Link, until ...api.Phase) (api.Link, error) {
	show := a.shower()
	l, away := first, time.Time{}
	show(l)
	tick := time.NewTicker(a.deps.Poll)
	defer tick.Stop()
	for {
		if err := stopped(l, until); !errors.Is(err, errGoOn) {
			return l, err
		}
		select {
		case <-ctx.Done():
			return l, problem.New(problem.Cancelled, "interrupted", "stopped watching; link %s goes on", l.Name).
				WithHint("twinspan link watch %s shows it again", l.Name)
		case <-tick.C:
		}
		now, err := c.Link(ctx, first.Name)
		var sent *api.Error
		switch {
		case err == nil:
			l, away = now, time.Time{}
			show(l)
		case ctx.Err() != nil:
		case errors.As(err, &sent) && sent.Kind == string(problem.Transient):
			if away.IsZero() {
				away = time.Now()
				a.say("waiting for the agent: %v", err)
			}
			if time.Since(away) > patience {
				return l, err
			}
		default:
			return l, err
		}
	}
}

// errGoOn says that a link is still on its way.
var errGoOn = errors.New("go on")

// stopped says whether there is something left to wait for.
func stopped(l api.Link, until []api.Phase) error {
	for _, p := range until {
		if l.Phase == p {
			return nil
		}
	}
	switch l.Phase {
	case api.Broken, api.Fenced:
		for _, p := range l.Problems {
			if p.Severity == api.Blocks {
				return &api.Error{Kind: string(problem.Internal), Code: p.Code, Subject: p.Subject, Text: p.Title, Hint: p.Hint}
			}
		}
		return problem.New(problem.Internal, "link_"+string(l.Phase), "link %s is %s", l.Name, l.Phase).
			WithHint("twinspan link show %s says why", l.Name)
	case api.Suspended:
		if !l.Suspended { // resumed: it is about to leave the phase
			return errGoOn
		}
		return problem.New(problem.Conflict, "link_suspended", "link %s is suspended", l.Name).
			WithHint("twinspan link resume %s lets it go on", l.Name)
	}
	return errGoOn
}

// shower returns what shows a link's progress: a block that is redrawn on a
// terminal, lines elsewhere.
func (a *app) shower() func(api.Link) {
	if s := terminal.Of(a.errs); s != nil {
		return func(l api.Link) { s.Draw(progressBlock(l)) }
	}
	var last *api.Link
	return func(l api.Link) {
		if last == nil || changed(*last, l) {
			fmt.Fprintln(a.errs, progressLine(l))
		}
		last = &l
	}
}
