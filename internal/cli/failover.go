package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/client"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/terminal"
)

const linkFailoverLong = `Let the two sides of a link change places.

planned, the default, loses nothing and can be asked for on either side. Writing
transactions that run finish, new ones wait at the primary; the twin applies what is
left, becomes the primary, and the old primary follows it at once as its twin. Readers
never notice. Writers wait for about as long as the last transactions take, and then are
refused on the old side with an error that names the new one. Whatever fails before the
sides have changed places lets the writers go on where they were.

--drain-timeout says how long running transactions may hold it up before they are
ended. --cutover removes the link afterwards: the new primary is independent, the old
one stays read-only until a superuser there runs
BEGIN READ WRITE; SELECT twinspan.release(); COMMIT.

--plan changes nothing and says what the failover would meet now: what stands against
it on both sides, which transactions would be waited for or ended, about how long writers
would wait, and with --type forced what would be left behind. The exit status is 1 when
something stands against it.

Several links, or --all of the agent, change places as one: all, or none. The agent drives
them, also when the command is lost: given again for the same links it shows how far they
are, and --status or --cancel go with the names, or --all, as well. An interrupt (Ctrl-C)
gives a failover up that is not decided. All are prepared before
the first one's writers are held, and everything of all is applied before the one commit
that decides for all. Whatever stops one before that undoes all; what is interrupted after
it goes through when its agent is back.

forced is for a primary that is lost, and is given at the secondary's agent. What the
secondary does not have is left behind: the command says how much that is as far as
known, and has the link's name typed, or wants --accept-data-loss. When the old primary
is back it refuses writes, and keeps what was left behind: "twinspan link lost" shows
it, "twinspan link rejoin" makes it the twin. With the primary there and well it takes
--insist. On a primary that is fenced since a failover whose outcome it cannot learn,
forced lets writers in again.`

func (a *app) linkFailover() *cobra.Command {
	in := api.FailoverRequest{}
	kind := ""
	var drain time.Duration
	var status, cancel, all, plan bool
	cmd := &cobra.Command{
		Use:   "failover NAME... | --all",
		Short: "Let the two sides change places",
		Long:  linkFailoverLong,
		Example: `  twinspan link failover sales
  twinspan link failover sales --plan
  twinspan link failover sales --cutover
  twinspan link failover sales stock
  twinspan link failover sales stock --status
  twinspan link failover sales --type forced --accept-data-loss`,
		ValidArgsFunction: a.completeLinks,
		PreRunE: func(_ *cobra.Command, args []string) error {
			if all != (len(args) == 0) {
				return errors.New("name the links, or give --all")
			}
			switch in.Type = api.FailoverType(kind); {
			case in.Type != api.Planned && in.Type != api.Forced:
				return fmt.Errorf("there is no failover of type %q: it is planned or forced", kind)
			case in.Type == api.Forced && (in.Cutover || drain != 0):
				return errors.New("--cutover and --drain-timeout are for a planned failover")
			case in.Type == api.Planned && (in.AcceptDataLoss || in.Insist):
				return errors.New("--accept-data-loss and --insist are for a forced failover: --type forced")
			case plan && (in.AcceptDataLoss || in.Insist):
				return errors.New("--plan changes nothing: --accept-data-loss and --insist are for the failover itself")
			case (all || len(args) > 1) && (in.Type == api.Forced || plan):
				return errors.New("several links change places together only as planned; each by itself otherwise")
			case drain < 0:
				return errors.New("--drain-timeout is not negative")
			}
			in.DrainSeconds = drain.Seconds()
			return nil
		},
		RunE: a.asks(func(ctx context.Context, c *client.Client, args []string) error {
			if all || len(args) > 1 {
				return a.failoverTogether(ctx, c, args, in, status, cancel)
			}
			if plan {
				return a.failoverPlan(ctx, c, args[0], in)
			}
			var apart api.Uncarried
			if !status && !cancel {
				// Before: a cutover removes the link, and a forced failover is for when the other
				// side does not answer. Where it is not known nothing is said of it.
				looking, stop := context.WithTimeout(ctx, uncarriedPatience)
				apart, _ = c.Uncarried(looking, args[0])
				stop()
			}
			p, err := a.failover(ctx, c, args[0], in, status, cancel)
			if err != nil {
				return err
			}
			if err := a.answer(p, func(w io.Writer) { showFailover(w, p) }); err != nil || status || cancel {
				return err
			}
			a.sayUncarried(p, apart)
			return failoverError(p)
		}),
	}
	flags := cmd.Flags()
	flags.StringVar(&kind, "type", string(api.Planned), "the `type`: planned or forced")
	flags.BoolVar(&all, "all", false, "all links of the agent, together")
	flags.BoolVar(&in.Cutover, "cutover", false, "remove the link afterwards; the old primary stays read-only")
	flags.DurationVar(&drain, "drain-timeout", 0, "end writing transactions that run longer than this `duration` (default 10s)")
	flags.BoolVar(&in.AcceptDataLoss, "accept-data-loss", false, "forced: do not ask")
	flags.BoolVar(&in.Insist, "insist", false, "forced: although the primary is there and works")
	flags.BoolVar(&plan, "plan", false, "change nothing: say what stands against it, who would be waited for, and for how long")
	flags.BoolVar(&status, "status", false, "show the failover under way, or the last")
	flags.BoolVar(&cancel, "cancel", false, "give up the failover under way, unless it is decided")
	cmd.MarkFlagsMutuallyExclusive("status", "cancel", "cutover")
	cmd.MarkFlagsMutuallyExclusive("status", "cancel", "plan")
	a.completeFlag(cmd, "type", cobra.FixedCompletions([]string{"planned", "forced"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// failover does what the flags ask for.
func (a *app) failover(ctx context.Context, c *client.Client, name string, in api.FailoverRequest, status, cancel bool) (api.FailoverProgress, error) {
	switch {
	case status:
		return c.FailoverProgress(ctx, name)
	case cancel:
		return c.CancelFailover(ctx, name)
	}
	before, err := c.Link(ctx, name)
	if err != nil {
		return api.FailoverProgress{}, err
	}
	p, err := c.Failover(ctx, name, in)
	var sent *api.Error
	if errors.As(err, &sent) && sent.Code == "data_loss_not_accepted" && terminal.Of(a.in) != nil {
		if err := a.confirmLoss(name, sent); err != nil {
			return p, err
		}
		in.AcceptDataLoss = true
		p, err = c.Failover(ctx, name, in)
	}
	if err != nil || a.flags.noWait {
		return p, err
	}
	p, err = a.waitFailover(ctx, c, p, before, in.Cutover)
	if err == nil && p.State == api.FailoverDone && p.Type == api.Planned && !in.Cutover {
		a.waitFollowed(ctx, c, name)
	}
	return p, err
}

// followPatience is how long the command waits for the old primary to follow: it has
// only to connect.
const followPatience = 10 * time.Second

// waitFollowed waits until the link replicates the other way, but not for long: the
// failover is done.
func (a *app) waitFollowed(ctx context.Context, c *client.Client, name string) {
	ctx, stop := context.WithTimeout(ctx, followPatience)
	defer stop()
	tick := time.NewTicker(a.deps.Poll)
	defer tick.Stop()
	for {
		if l, err := c.Link(ctx, name); err == nil && l.Phase == api.Replicating {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// confirmLoss has a person accept what a forced failover leaves behind.
func (a *app) confirmLoss(name string, loss *api.Error) error {
	fmt.Fprintf(a.errs, "%s.\n", capital(loss.Text))
	return a.typed(name)
}

func capital(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

// waitFailover shows a failover's steps until it is over. An interrupt gives it up,
// unless it is decided. One that removes the link is over when that is done.
func (a *app) waitFailover(ctx context.Context, c *client.Client, p api.FailoverProgress, before api.Link, removes bool) (api.FailoverProgress, error) {
	shown := 0
	show := func() {
		for ; shown < len(p.Steps); shown++ {
			fmt.Fprintf(a.errs, "%s: %s\n", p.Link, p.Steps[shown].Name)
		}
	}
	tick := time.NewTicker(min(a.deps.Poll, 200*time.Millisecond))
	defer tick.Stop()
	away := time.Time{}
	for {
		show()
		if p.State != api.FailoverRunning {
			return p, nil
		}
		select {
		case <-ctx.Done():
			return a.giveUpFailover(ctx, c, p)
		case <-tick.C:
		}
		now, err := c.FailoverProgress(ctx, p.Link)
		switch {
		case err == nil:
			p, away = now, time.Time{}
		case ctx.Err() != nil:
		case away.IsZero():
			away = time.Now()
			a.say("waiting for the agents: %v", err)
		case time.Since(away) > patience:
			return p, unknownOutcome(p.Link)
		}
		if err != nil && ctx.Err() == nil {
			l, err := c.Link(ctx, p.Link)
			var sent *api.Error
			switch {
			case err == nil && l.Epoch > before.Epoch && !removes:
				return outcome(p, l), nil
			case removes && errors.As(err, &sent) && sent.Code == "link_unknown":
				return a.removedMeanwhile(ctx, c, p, before), nil
			}
		}
	}
}

// outcome describes a failover that was decided, and whose driver has been started
// anew since.
func outcome(p api.FailoverProgress, l api.Link) api.FailoverProgress {
	p.State, p.Epoch = api.FailoverDone, l.Epoch
	if l.LastFailover != nil {
		p.HoldSeconds = l.LastFailover.HoldSeconds
	}
	if l.Role == api.Secondary {
		p.Primary = l.Peer.Name
	}
	p.Text = "the agent that drove it was interrupted after it was decided"
	return p
}

// removedMeanwhile describes a cutover whose driver was started anew, and has removed the link since.
func (a *app) removedMeanwhile(ctx context.Context, c *client.Client, p api.FailoverProgress, before api.Link) api.FailoverProgress {
	p.State, p.Epoch, p.HoldSeconds, p.Primary = api.FailoverDone, before.Epoch+1, 0, before.Peer.Name
	if before.Role == api.Secondary {
		me, _ := c.Agent(ctx) // no name is shown where that fails
		p.Primary = me.Name
	}
	p.Text = "the link is removed; the agent that drove it was interrupted after it was decided"
	return p
}

func unknownOutcome(name string) error {
	return problem.New(problem.Transient, "failover_interrupted", "the agent that drives the failover of link %s does not answer", name).
		WithHint("it is decided or undone when that agent is back: twinspan link show %s", name)
}

// giveUpFailover is what an interrupt does.
func (a *app) giveUpFailover(ctx context.Context, c *client.Client, p api.FailoverProgress) (api.FailoverProgress, error) {
	ending, stop := context.WithTimeout(context.WithoutCancel(ctx), cancelPatience)
	defer stop()
	if _, err := c.CancelFailover(ending, p.Link); err != nil {
		return p, err
	}
	return p, problem.New(problem.Cancelled, "interrupted", "the failover of link %s was given up, unless it was decided already", p.Link).
		WithHint("twinspan link failover %s --status says which", p.Link)
}

// failoverError makes the exit status.
func failoverError(p api.FailoverProgress) error {
	if p.State == api.FailoverUndone && p.Problem != nil {
		return errorOf(problem.Transient, *p.Problem)
	}
	return nil
}

// showFailover tells how a failover stands or ended.
func showFailover(w io.Writer, p api.FailoverProgress) {
	switch p.State {
	case api.FailoverRunning:
		fmt.Fprintf(w, "%s: a %s failover is under way\n", p.Link, p.Type)
	case api.FailoverUndone:
		fmt.Fprintf(w, "%s: the failover did not come about; everything is as before\n", p.Link)
	default:
		primary := "the other side"
		if p.Primary != "" {
			primary = "agent " + p.Primary
		}
		fmt.Fprintf(w, "%s: %s has the primary now, at epoch %d\n", p.Link, primary, p.Epoch)
	}
	for _, s := range p.Steps {
		mark := ""
		if !s.Done {
			mark = ", not over"
		}
		fmt.Fprintf(w, "  %-46s %s%s\n", s.Name, terminal.Duration(s.Seconds), mark)
	}
	if p.State == api.FailoverDone && p.Type == api.Planned && p.HoldSeconds > 0 { // else it is not known
		fmt.Fprintf(w, "  writers waited %s", terminal.Duration(p.HoldSeconds))
		if p.Ended > 0 {
			fmt.Fprintf(w, "; %d transactions that did not finish in time were ended", p.Ended)
		}
		fmt.Fprintln(w)
	}
	if l := p.Loss; l != nil {
		if l.HeardAt == nil {
			fmt.Fprintf(w, "  left behind: it is not known how much; applied %s, the primary was not heard of since the agent was started\n", dash(l.Applied))
		} else {
			fmt.Fprintf(w, "  left behind: applied %s of %s as last heard of, %s\n", dash(l.Applied), dash(l.Written), terminal.Known(l.Bytes, terminal.Size))
		}
	}
	if p.Text != "" {
		fmt.Fprintf(w, "  %s\n", p.Text)
	}
}
