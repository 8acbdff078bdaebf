package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/client"
	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/terminal"
)

// patience is how long an agent may be away while a command waits for a link: it
// may be restarting.
const patience = 30 * time.Second

// standstill is how long a link may come no further while a command waits for it, before
// the command says what is in the way and ends. The link goes on.
const standstill = 2 * time.Minute

// wait looks at a link until it is in one of the phases, and shows its progress.
// It returns the last view. It is an error when the link stops on its way, and
// when the waiting is interrupted; that ends the waiting only, never the link.
func (a *app) wait(ctx context.Context, c *client.Client, first api.Link, until ...api.Phase) (api.Link, error) {
	return a.waitFor(ctx, c, first, func(l api.Link) error { return stopped(l, until) })
}

// waitApplied is wait until the link replicates and has applied all that the primary had
// written when the waiting began. It is also an error when the link stands still.
func (a *app) waitApplied(ctx context.Context, c *client.Client, first api.Link) (api.Link, error) {
	patience := a.deps.Standstill
	if patience == 0 {
		patience = standstill
	}
	w := applied{patience: patience, say: func(at lsn.LSN) { a.say("waiting until %s of the primary's log is applied", at) }}
	return a.waitFor(ctx, c, first, func(l api.Link) error { return w.look(l, time.Now()) })
}

// applied waits for what was written at first.
type applied struct {
	patience time.Duration
	say      func(lsn.LSN)

	until lsn.LSN   // where the primary's log ended when that was first known; 0 before
	moved time.Time // when the link last came further
	how   string    // how far it was then
}

func (w *applied) look(l api.Link, now time.Time) error {
	if err := stopped(l, nil); !errors.Is(err, errGoOn) {
		return err
	}
	if written, err := lsn.Parse(l.Position.Written); err == nil && w.until == 0 {
		w.until = written
		if l.Phase != api.Creating && l.Phase != api.Seeding {
			w.say(written)
		}
	}
	if at, err := lsn.Parse(l.Position.Applied); err == nil && l.Phase == api.Replicating && w.until != 0 && at >= w.until {
		return nil
	}
	how := fmt.Sprint(l.Phase, l.Position.Received, l.Position.Applied, l.Step, l.Seeding.Step, l.Seeding.TablesDone, l.Seeding.BytesDone)
	streams := l.Rates != nil && (l.Rates.ChangesPerSecond > 0 || l.Rates.BytesPerSecond > 0)
	builds := (l.Phase == api.Seeding || l.Seeding.Step != "") && l.Peer.Connected && len(l.Problems) == 0 // an index may take hours
	if how != w.how || streams || builds {
		w.how, w.moved = how, now
	}
	if now.Sub(w.moved) < w.patience {
		return errGoOn
	}
	if len(l.Problems) > 0 {
		p := l.Problems[0]
		p.Title = fmt.Sprintf("link %s stands still: %s", l.Name, p.Title)
		return errorOf(problem.Transient, p)
	}
	return problem.New(problem.Transient, "wait_stalled", "link %s is %s and has not come further for %s: it has applied %s of %s", l.Name, phrase(l.Phase), w.patience,
		dash(l.Position.Applied), w.until).On(l.Name).WithHint("the link goes on; twinspan link show %s says what waits where", l.Name)
}

// waitFor looks at a link until over returns something else than errGoOn.
func (a *app) waitFor(ctx context.Context, c *client.Client, first api.Link, over func(api.Link) error) (api.Link, error) {
	show := a.shower()
	l, away := first, time.Time{}
	show(l)
	tick := time.NewTicker(a.deps.Poll)
	defer tick.Stop()
	for {
		if err := over(l); !errors.Is(err, errGoOn) {
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
				return errorOf(problem.Internal, p)
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
