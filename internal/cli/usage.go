package cli

import (
	"context"
	"encoding/csv"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/client"
	"github.com/twinspan/twinspan/internal/terminal"
)

const usageLong = `Tell the hours of a managed instance in a month, by vCores, role and state. Hours and months
are those of UTC. A change within an hour counts for all of it: the most vCores, the role that asks
most.

An hour is passive when all of it the instance was a secondary, declared to be passive ("twinspan
instance set --benefit passive-dr"), and nobody worked on it. Its own agent, backups, members of pg_monitor,
and superusers in the maintenance database are nobody. Whoever else logs in, or works in a session that is
there, voids the hour, and is named. An hour that was not seen whole is unknown, and counted in full.

Two sums are given. Paid as it goes, the vCore hours of passive hours are a discount. With licences of
one's own, they go back to the pool for those hours.

-o csv prints one line for each hour, and one more for each further client that voided it.`

func (a *app) usageCommand() *cobra.Command {
	var month string
	cmd := &cobra.Command{
		Use:     "usage [--month YYYY-MM]",
		GroupID: "agent",
		Short:   "Tell the hours of a managed instance, by vCores and role",
		Long:    usageLong,
		Example: `  twinspan usage
  twinspan usage --month 2026-11 -o csv`,
		Args: cobra.NoArgs,
		RunE: a.asks(func(ctx context.Context, c *client.Client, _ []string) error {
			u, err := c.Usage(ctx, month)
			if err != nil {
				return err
			}
			if a.flags.output == "csv" {
				return usageCSV(a.out, u)
			}
			return a.answer(u, func(w io.Writer) { usageText(w, u) })
		}),
	}
	cmd.Flags().StringVar(&month, "month", "", "`month` (UTC) such as 2026-11, in place of the present one")
	return cmd
}

func usageText(w io.Writer, u api.Usage) {
	var rows [][]string
	for _, t := range u.Totals {
		rows = append(rows, []string{dash(t.Role), t.State, coresText(t.VCores), strconv.Itoa(t.Hours), strconv.Itoa(t.VCoreHours)})
	}
	terminal.Table(w, []string{"ROLE", "STATE", "VCORES", "HOURS", "VCORE HOURS"}, rows)
	p, l := u.PayAsYouGo, u.OwnLicences
	fmt.Fprintf(w, "\nmonth          %s (UTC)\npay as you go  %d vCore hours, %d discounted, %d billed\nown licences   %d vCore hours taken, %d given back; now %d taken, %d given back\n",
		u.Month, p.VCoreHours, p.Discount, p.Billed, l.Taken, l.GivenBack, l.Now, l.BackNow)
	if u.UnknownHours > 0 {
		fmt.Fprintf(w, "unknown        %s, counted in full\n", terminal.Plural(u.UnknownHours, "hour"))
	}
	for _, h := range u.Hours {
		for _, v := range h.Voids {
			fmt.Fprintf(w, "voided         %s by %s in %s, %s from %s, first at %s\n", h.Start.UTC().Format("2006-01-02 15:04Z"), v.Role, v.Database, dash(v.Application), v.Client, v.FirstAt.UTC().Format("15:04:05Z"))
		}
	}
}

func coresText(n int) string {
	if n == 0 {
		return "not declared"
	}
	return strconv.Itoa(n)
}

// usageCSV writes an hour a line, and a further line for each further client that voided it.
func usageCSV(out io.Writer, u api.Usage) error {
	w := csv.NewWriter(out)
	// An error stays, and Flush's is looked at.
	_ = w.Write([]string{"hour", "tier", "vcores", "storage_bytes", "role", "state", "declared_passive", "open", "why", "void_role", "void_database", "void_application", "void_client", "void_first_at"})
	for _, h := range u.Hours {
		line := []string{h.Start.UTC().Format(time.RFC3339), h.Tier, strconv.Itoa(h.VCores), strconv.FormatInt(h.StorageBytes, 10), h.Role, h.State,
			strconv.FormatBool(h.Declared), strconv.FormatBool(h.Open), h.Why}
		if len(h.Voids) == 0 {
			_ = w.Write(append(line, "", "", "", "", ""))
		}
		for _, v := range h.Voids {
			_ = w.Write(append(line[:len(line):len(line)], v.Role, v.Database, v.Application, v.Client, v.FirstAt.UTC().Format(time.RFC3339)))
		}
	}
	w.Flush()
	return w.Error()
}
