package cli

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/client"
	"github.com/twinspan/twinspan/internal/terminal"
)

// uncarriedPatience bounds how long a failover waits to know what is not carried.
const uncarriedPatience = 10 * time.Second

const linkUncarriedLong = `List what neither PostgreSQL nor the link carries to the other side, and somebody has to
set up again where the primary is, or will be: subscriptions, publications that others
read, logical and physical replication slots of others, jobs of pg_cron and pgAgent,
foreign servers and user mappings, roles that could not log in or have no password,
prepared transactions, settings of the server and of the database that differ.

Of the secondary it is what it would lack as the primary. Of a primary it is what it lacks
of what the other side had when it was the primary: the secondary looks once a minute, so
that it is known also when the other side is lost. What has been set up is not listed
any more. No secrets are shown: no connection strings, passwords, values of options or
commands of jobs, and no setting whose value could be one.`

func (a *app) linkUncarried() *cobra.Command {
	return &cobra.Command{
		Use:               "uncarried NAME",
		Short:             "List what is to be set up again on a new primary",
		Long:              linkUncarriedLong,
		Example:           `  twinspan link uncarried sales`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeLinks,
		RunE: a.asks(func(ctx context.Context, c *client.Client, args []string) error {
			u, err := c.Uncarried(ctx, args[0])
			if err != nil {
				return err
			}
			return a.answer(u, func(w io.Writer) {
				for _, side := range u.Sides {
					fmt.Fprintln(w, uncarriedTitle(side))
					showUncarried(w, side, "  ")
				}
			})
		}),
	}
}

// uncarriedTitle says of which side a list is.
func uncarriedTitle(s api.UncarriedSide) string {
	lacks := "would lack as the primary"
	if s.Role == api.Primary {
		lacks = "lacks as the primary"
	}
	what := "nothing"
	switch n := len(s.Objects); {
	case s.AsOf == nil:
		return fmt.Sprintf("it is not known what agent %s's side %s", s.Agent, lacks)
	case n > 0:
		what = terminal.Plural(n, "object")
	}
	return fmt.Sprintf("agent %s's side %s %s of what agent %s's had at %s", s.Agent, lacks, what, s.From, when(*s.AsOf))
}

func showUncarried(w io.Writer, s api.UncarriedSide, indent string) {
	if p := s.Problem; p != nil {
		fmt.Fprintf(w, "%s[%s] %s\n", indent, p.Code, p.Title)
	}
	for _, o := range s.Objects {
		fmt.Fprintf(w, "%s%s %s: %s\n%s    %s\n", indent, phrase(o.Kind), o.Name, o.Text, indent, o.Remedy)
	}
}

// sayUncarried says, behind the answer, what is to be set up again after a change of places.
// It was looked at before, when the side that is primary now was the secondary.
func (a *app) sayUncarried(p api.FailoverProgress, apart api.Uncarried) {
	if p.State != api.FailoverDone {
		return
	}
	for _, s := range apart.Sides {
		if s.Agent != p.Primary || s.Role != api.Secondary || len(s.Objects) == 0 {
			continue
		}
		a.say("Set up again there, for neither PostgreSQL nor the link carries it (twinspan link uncarried %s):", p.Link)
		showUncarried(a.errs, s, "  ")
	}
}
