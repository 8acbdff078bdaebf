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

const linkLargeObjectsLong = `Bring the large objects of a link in step now, and wait for it.

PostgreSQL does not tell changes of large objects to those who read its log. So they
do not come with the stream, but in passes: every five minutes, unless --every says
otherwise, and before a failover. A pass that finds nothing counted as changed costs
nothing; one that does reads the primary's large objects once. "link show" says how
old the twin's are.

--every alone sets the time between passes; 0 leaves them to this command.`

func (a *app) linkLargeObjects() *cobra.Command {
	var every time.Duration
	cmd := &cobra.Command{
		Use:   "large-objects NAME",
		Short: "Bring large objects now, or set how often",
		Long:  linkLargeObjectsLong,
		Example: `  twinspan link large-objects sales
  twinspan link large-objects sales --every 1h`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeLinks,
	}
	cmd.RunE = a.asks(func(ctx context.Context, c *client.Client, args []string) error {
		in := api.LargeObjectsRequest{Now: true}
		if cmd.Flags().Changed("every") {
			seconds := int64((every + time.Second - 1) / time.Second)
			in = api.LargeObjectsRequest{EverySeconds: &seconds}
		}
		out, err := c.LargeObjects(ctx, args[0], in)
		if err != nil {
			return err
		}
		return a.answer(out, func(w io.Writer) {
			if in.Now {
				fmt.Fprintf(w, "%d large objects brought, %d removed, %s\n", out.Copied, out.Removed, terminal.Size(out.Bytes))
			}
			fmt.Fprintln(w, largeObjects(out.LargeObjects))
		})
	})
	cmd.Flags().DurationVar(&every, "every", 0, "bring them this often from now on, a `duration` like 10m; 0 is never by itself")
	return cmd
}

// largeObjects says in a line how large objects stand.
func largeObjects(o api.LargeObjects) string {
	text := fmt.Sprintf("%d", o.Objects)
	if o.AsOf != nil {
		text += ", as of " + when(*o.AsOf)
	}
	switch {
	case o.Running:
		text += ", being brought"
	case o.EverySeconds == 0:
		text += ", brought on request alone"
	default:
		text += ", brought every " + (time.Duration(o.EverySeconds) * time.Second).String()
	}
	return text
}
