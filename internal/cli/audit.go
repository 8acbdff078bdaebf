package cli

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/client"
	"github.com/twinspan/twinspan/internal/terminal"
)

const auditRateUsage = "the audit reads no faster than this `size` per second (default 8MB); 0 is off"

const linkAuditLong = `Show how a link compares itself with its primary in the background: of each table when
it was last found equal, and what differs.

A pass over everything begins once the link has replicated for ten minutes, and then an
hour after the last one began, or when that ended if it took longer. It reads tables at
--audit-rate on each side (see "link set"), parts of them at one position each, and rests
while the link is behind, does not replicate or is verified. Materialized views, large
objects, sequences and the schema are compared too. A row that differs is looked at again
at another position before it is said.

A difference is the problem audit_difference until it is found equal again. "link verify
--repair" brings it in line.

--now has a pass begin at once, and does not wait for it.`

func (a *app) linkAudit() *cobra.Command {
	var now bool
	cmd := &cobra.Command{
		Use:   "audit NAME",
		Short: "Show when each table was last found equal, and what differs",
		Long:  linkAuditLong,
		Example: `  twinspan link audit sales
  twinspan link audit sales --now`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeLinks,
	}
	cmd.RunE = a.asks(func(ctx context.Context, c *client.Client, args []string) error {
		ask := c.Audit
		if now {
			ask = c.BeginAudit
		}
		v, err := ask(ctx, args[0])
		if err != nil {
			return err
		}
		return a.answer(v, func(w io.Writer) { showAudit(w, v) })
	})
	cmd.Flags().BoolVar(&now, "now", false, "have a pass begin at once")
	return cmd
}

// auditText says in a line how an audit stands.
func auditText(v api.Audit) string {
	text := ""
	switch v.State {
	case api.AuditOff:
		return "off: nothing is compared in the background"
	case api.AuditResting:
		text = "rests, as " + v.Why
	case api.AuditRunning:
		text = fmt.Sprintf("%d of %d compared", v.Done, v.Items)
	default:
		text = "waits for its time"
		if v.EndedAt != nil {
			text = "last pass ended " + when(*v.EndedAt)
		}
	}
	text += ", at " + rateText(v.RateBytesPerSecond)
	if v.PassSeconds != nil {
		text += ", a pass takes " + terminal.Duration(*v.PassSeconds)
	}
	if v.Differences > 0 {
		text += fmt.Sprintf("; %s in %d of them", terminal.Plural(v.Differences, "difference"), v.Differing)
	}
	return text
}

// rateText is a rate for people.
func rateText(bytes int64) string {
	if bytes == 0 {
		return "0: off"
	}
	return terminal.Size(bytes) + " a second"
}

// showAudit prints what is compared, what is left out, and what differs.
func showAudit(w io.Writer, v api.AuditReport) {
	fmt.Fprintf(w, "%s: %s\n", v.Link, auditText(v.Audit))
	if len(v.Compared) > 0 {
		fmt.Fprintln(w)
	}
	of := api.Verification{}
	for _, i := range v.Compared {
		name := i.Name
		if i.Kind != "table" {
			name = i.Kind
			if i.Name != "" {
				name += " " + i.Name
			}
		}
		fmt.Fprintf(w, "  %-40s %s\n", name, itemText(i))
		of.Differences = append(of.Differences, i.Differences...)
		if i.More {
			of.MoreRows = append(of.MoreRows, i.Name)
		}
	}
	showDifferences(w, of)
}

// itemText says in a line how an item stands.
func itemText(i api.AuditItem) string {
	switch {
	case i.Skipped != "":
		return "left out: " + i.Skipped
	case len(i.Differences) > 0:
		text := "DIFFERENT, never found equal"
		if i.EqualAt != nil {
			text = "DIFFERENT, last found equal " + when(*i.EqualAt)
		}
		return text
	case i.EqualAt != nil:
		return "equal " + when(*i.EqualAt) + " at " + i.Position
	case i.ComparedAt != nil:
		return "could not be read while it was its turn"
	}
	return "not compared yet"
}

// auditRate is the flag --audit-rate.
type auditRate struct{ bytes *int64 }

func (r *auditRate) Set(s string) error {
	var bytes int64
	if s != "0" && s != "off" {
		var err error
		if bytes, err = parseSize(s); err != nil {
			return err
		}
		if bytes == 0 {
			return errors.New(`say "0" or a size`)
		}
	}
	r.bytes = &bytes
	return nil
}

func (r *auditRate) String() string {
	if r.bytes == nil {
		return ""
	}
	return terminal.Size(*r.bytes)
}

func (*auditRate) Type() string { return "size" }
