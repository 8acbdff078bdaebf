package cli

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/client"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/terminal"
)

func (a *app) checkCommand() *cobra.Command {
	in := api.CheckRequest{}
	cmd := &cobra.Command{
		Use:     "check --database DB",
		Short:   "Say what stands in the way of linking a database",
		GroupID: "links",
		Long: `Look at a database and its instance, and with --peer at the peer's instance and the
network between too, for what a link needs. Rights are tried, in transactions that are
rolled back and with a temporary slot: nothing is changed. Each finding names the object,
why it matters and the remedy: one that "blocks" stops a link; one that "warns" can be
accepted with "twinspan link create --accept CODE"; one that "informs" is worth knowing.
docs/problems.md explains every code.

The exit status is 1 when something blocks.`,
		Example: `  twinspan check --database sales --peer b`,
		Args:    cobra.NoArgs,
		RunE: a.asks(func(ctx context.Context, c *client.Client, _ []string) error {
			found, err := c.Check(ctx, in)
			if err != nil {
				return err
			}
			if err := a.answer(found, func(w io.Writer) { showCheck(w, found) }); err != nil {
				return err
			}
			blocking := 0
			for _, f := range found.Findings {
				if f.Severity == api.Blocks {
					blocking++
				}
			}
			if blocking > 0 {
				return problem.New(problem.Incompatible, "check_blocks", "%s cannot be linked yet: %s in the way", in.Database, terminal.Plural(blocking, "finding")).
					WithHint("solve what blocks and check again")
			}
			return nil
		}),
	}
	cmd.Flags().StringVar(&in.Database, "database", "", "the `database` on this agent's instance")
	cmd.Flags().StringVar(&in.Peer, "peer", "", "look at the instance of this `peer` too, and at the network between")
	cmd.Flags().StringVar(&in.PeerDatabase, "peer-database", "", "the `database` on the peer's instance, when its name is another")
	cmd.MarkFlagRequired("database")
	a.completeFlag(cmd, "peer", a.completePeers)
	a.completeFlag(cmd, "database", a.completeDatabases)
	return cmd
}

func showCheck(w io.Writer, c api.Check) {
	if len(c.Findings) == 0 {
		fmt.Fprintf(w, "%s can be linked: nothing found\n", c.Database)
		return
	}
	var rows [][]string
	for _, f := range c.Findings {
		rows = append(rows, []string{string(f.Severity), f.Code, f.Object})
	}
	terminal.Table(w, []string{"SEVERITY", "CODE", "OBJECT"}, rows)
	said := map[string]bool{}
	for _, f := range c.Findings {
		// Many objects with the same fault have one text, but for the names in the remedy.
		if said[f.Code+f.Why] {
			fmt.Fprintf(w, "    %s\n", strings.TrimSuffix("also "+f.Object+": "+f.Remedy, ": "))
			continue
		}
		said[f.Code+f.Why] = true
		fmt.Fprintf(w, "\n%s [%s]", f.Severity, f.Code)
		if f.Object != "" {
			fmt.Fprintf(w, " %s", f.Object)
		}
		fmt.Fprintf(w, "\n    %s\n", f.Why)
		if f.Remedy != "" {
			fmt.Fprintf(w, "    remedy: %s\n", f.Remedy)
		}
	}
}
