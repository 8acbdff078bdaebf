package cli

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"
)

const demoLong = `Make two PostgreSQL instances with an agent each on this machine, let them become
peers, fill a sample database, shop, on the first, put it under load, and link it to the
second: the copy, its catching up and the lag then are shown as they happen. It prints how
to look at both sides with psql and twinspan while it runs.

At the end the load stops, the twin catches up, and both sides are compared row by row.

It needs the programs of PostgreSQL 14 or newer, a second processor's worth of time and
1 GB of disk. Everything lies in a temporary directory that is removed at the end, or in
--dir, where it is made anew each time and stays. As root the servers run as the user
postgres. An interrupt ends it cleanly at any moment.`

func (a *app) demoCommand() *cobra.Command {
	in := DemoRequest{}
	cmd := &cobra.Command{
		Use:     "demo",
		Short:   "Show a link at work: two instances, a workload, a twin",
		Long:    demoLong,
		GroupID: "other",
		Example: `  twinspan demo
  twinspan demo --no-ui --exit-after 30s
  twinspan demo --dir /tmp/shop`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if in.ExitAfter < 0 || cmd.Flags().Changed("exit-after") && in.ExitAfter == 0 {
				return fmt.Errorf("--exit-after must be more than nothing")
			}
			in.Dir = a.flags.dir // never from TWINSPAN_DIR: an agent may live there
			in.Out = a.out
			return runs(func(cmd *cobra.Command, _ []string) error { return a.deps.Demo(cmd.Context(), in) })(cmd, nil)
		},
	}
	cmd.Flags().BoolVar(&in.Plain, "no-ui", false, "print plain lines, also on a terminal")
	cmd.Flags().DurationVar(&in.ExitAfter, "exit-after", time.Duration(0), "end by itself after this `time`, though not before the twin was seen replicating")
	return cmd
}
