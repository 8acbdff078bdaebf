package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/client"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/terminal"
)

const linkRejoinLong = `Make a former primary, which a forced failover left behind, the twin of the new one.

What it had committed alone is taken away (it stays in "twinspan link lost"): the rows
that the lost transactions touched are overwritten with the new primary's, and all that
the new primary has written since is applied. That takes as long as there are such rows
and changes, whatever the size of the database.

Some of it takes more than that, and is told first (--plan tells it and does nothing):
tables that a lost transaction truncated or rewrote, or whose rows cannot be told apart,
are copied anew (reseed_tables); what lost commands created is dropped (drop_objects);
lost grants and comments stay (keep_schema). Other lost commands cannot be undone; then,
or when the log no longer tells what was lost, the database is compared with the new
primary's (compare_database): the schema is brought in line, every table is read on both
sides, and rows that differ are overwritten. Where not even that can be done, or where it
is preferred, the whole database is copied anew (copy_database). --accept names what may
be done; on a terminal it is asked for.

The command waits until the link replicates, and then compares the tables that were
mended, or with --verify the whole database. A planned failover then brings the roles
home.`

func (a *app) linkRejoin() *cobra.Command {
	in := api.Rejoin{}
	var plan, sure, whole bool
	cmd := &cobra.Command{
		Use:   "rejoin NAME",
		Short: "Make a former primary the twin again",
		Long:  linkRejoinLong,
		Example: `  twinspan link rejoin sales --plan
  twinspan link rejoin sales
  twinspan link rejoin sales --accept reseed_tables,drop_objects`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeLinks,
		RunE: a.asks(func(ctx context.Context, c *client.Client, args []string) error {
			p, err := c.RejoinPlan(ctx, args[0])
			if err != nil {
				return err
			}
			if plan {
				return a.answer(p, func(w io.Writer) { showRejoinPlan(w, p) })
			}
			if p.Phase != api.Seeding {
				if in.Accept, err = a.acceptRejoin(p, in.Accept, sure); err != nil {
					return err
				}
				if _, err := c.Rejoin(ctx, args[0], in); err != nil {
					return err
				}
			}
			return a.rejoined(ctx, c, p, whole)
		}),
	}
	flags := cmd.Flags()
	flags.BoolVar(&plan, "plan", false, "say what it takes, and do nothing")
	flags.StringSliceVar(&in.Accept, "accept", nil, "`codes` of what may be done besides overwriting rows")
	flags.BoolVar(&sure, "yes", false, "accept all that is needed")
	flags.BoolVar(&whole, "verify", false, "compare the whole database in the end")
	a.completeFlag(cmd, "accept", cobra.FixedCompletions([]string{"reseed_tables", "drop_objects", "keep_schema", "compare_database", "copy_database"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// acceptRejoin returns what is accepted of the plan: what was given, all of it when
// somebody is sure, or what a person at a terminal says yes to.
func (a *app) acceptRejoin(p api.RejoinPlan, given []string, sure bool) ([]string, error) {
	if len(p.Needs) == 0 || len(given) > 0 {
		return given, nil
	}
	if sure {
		return p.Needs, nil
	}
	if terminal.Of(a.in) == nil {
		return nil, nil // the agent says what is missing
	}
	showRejoinPlan(a.errs, p)
	if err := a.typed(p.Link); err != nil {
		return nil, err
	}
	return p.Needs, nil
}

// rejoined waits for the end and compares what was mended.
func (a *app) rejoined(ctx context.Context, c *client.Client, p api.RejoinPlan, whole bool) error {
	if a.flags.noWait {
		l, err := c.Link(ctx, p.Link)
		if err != nil {
			return err
		}
		return a.linkIs(l)
	}
	if err := a.waitMended(ctx, c, p.Link); err != nil {
		return err
	}
	l, err := c.Link(ctx, p.Link)
	if err == nil {
		l, err = a.waitApplied(ctx, c, l)
	}
	if err != nil {
		return err
	}
	in := api.Verify{}
	for _, t := range p.Tables {
		in.Tables = append(in.Tables, t.Table)
	}
	for _, t := range p.Reseed {
		in.Tables = append(in.Tables, t.Table)
	}
	if len(in.Tables) == 0 && !whole {
		return a.linkIs(l)
	}
	if whole {
		in.Tables = nil
	}
	v, err := c.Verify(ctx, p.Link, in)
	if err == nil {
		v, err = a.waitVerified(ctx, c, v)
	}
	if err != nil {
		return err
	}
	if v.State == api.Equal {
		return a.answer(l, func(w io.Writer) {
			fmt.Fprintf(w, "link %s is %s; %s compared, equal\n", l.Name, phrase(l.Phase), terminal.Plural(v.TablesDone, "table"))
		})
	}
	showVerification(a.errs, v)
	return verdictError(v)
}

// waitMended waits until the two sides have one history again.
func (a *app) waitMended(ctx context.Context, c *client.Client, name string) error {
	tick := time.NewTicker(a.deps.Poll)
	defer tick.Stop()
	last, away := "", time.Time{}
	for {
		p, err := c.RejoinPlan(ctx, name)
		var sent *api.Error
		switch {
		case errors.As(err, &sent) && sent.Code == "not_parted":
			return nil
		case errors.As(err, &sent) && (sent.Kind == string(problem.Transient) || sent.Code == "not_fenced"):
			// An agent that restarts, or a new primary that has yet to hear of the end.
			if away.IsZero() {
				away = time.Now()
			}
			if time.Since(away) > patience {
				return err
			}
		case err != nil:
			return err
		case p.Phase == api.Fenced && p.Problem != nil:
			return errorOf(problem.Internal, *p.Problem)
		default:
			if away = (time.Time{}); p.Step != last && p.Step != "" {
				last = p.Step
				a.say("%s: %s", name, p.Step)
			}
		}
		select {
		case <-ctx.Done():
			return problem.New(problem.Cancelled, "interrupted", "stopped watching; the rejoin of link %s goes on", name).
				WithHint("twinspan link watch %s shows it again", name)
		case <-tick.C:
		}
	}
}

func showRejoinPlan(w io.Writer, p api.RejoinPlan) {
	fmt.Fprintf(w, "%s: database %s at agent %s rejoins\n", p.Link, p.Database, p.Agent)
	switch {
	case p.Cleared:
		fmt.Fprintln(w, "  goes on where it was stopped")
	case p.Unreadable == "log_not_held":
		fmt.Fprintln(w, "  the new primary holds no log for it, for it had no replication slot")
	case p.Unreadable != "":
		fmt.Fprintf(w, "  what it has lost is not known (%s)\n", p.Unreadable)
	}
	for _, t := range p.Tables {
		fmt.Fprintf(w, "  overwrite   rows of %s, %s\n", t.Table, terminal.Plural(int(t.Changes), "lost change"))
	}
	for _, t := range p.Reseed {
		fmt.Fprintf(w, "  copy anew   %s, %s: %s\n", t.Table, terminal.Size(t.Bytes), t.Why)
	}
	for _, d := range p.Drop {
		fmt.Fprintf(w, "  drop        %s\n", d)
	}
	for _, k := range p.Keep {
		fmt.Fprintf(w, "  keep        %s\n", terminal.Cut(line(k), longestCommand))
	}
	for _, k := range p.Irreversible {
		fmt.Fprintf(w, "  cannot undo %s\n", terminal.Cut(line(k), longestCommand))
	}
	for _, b := range p.Build {
		fmt.Fprintf(w, "  build       %s\n", b)
	}
	for _, s := range p.Stays {
		fmt.Fprintf(w, "  differs     %s, which cannot be brought in line\n", s)
	}
	switch {
	case slices.Contains(p.Needs, "compare_database"):
		fmt.Fprintln(w, "  compare     all tables with the new primary's, and overwrite rows that differ")
	case slices.Contains(p.Needs, "copy_database"):
		fmt.Fprintln(w, "  so the whole database is copied anew")
	}
	if len(p.Needs) > 0 {
		fmt.Fprintf(w, "  needs       --accept %s\n", strings.Join(p.Needs, ","))
	}
	if slices.Contains(p.Needs, "compare_database") {
		fmt.Fprintln(w, "  or else     --accept copy_database, to copy the whole database anew")
	}
}

// longestCommand is how much of a command is shown.
const longestCommand = 100
