package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/client"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/terminal"
)

const linkLostLong = `Show the transactions that forced failovers have left behind: what a former primary
had committed and its twin never got. The agent beside the former primary reads them
from the log once it is back, and keeps them in the database until somebody discards
them; they are shown from either side.

The table names each transaction's changes by their tables and keys. --format json, or
-o json, has the old and the new rows as far as the log tells them: of an update mostly
the new row, of a deletion the key. --format sql writes statements that do the changes
again, in their order, to be looked through before they are run on the new primary,
where others may have changed the same rows since.

--discard forgets them, and so does deleting the link. While the former primary has not
rejoined they are needed.`

func (a *app) linkLost() *cobra.Command {
	format := "table"
	var discard bool
	var epoch int64
	cmd := &cobra.Command{
		Use:   "lost NAME",
		Short: "Show what forced failovers have left behind",
		Long:  linkLostLong,
		Example: `  twinspan link lost sales
  twinspan link lost sales --format sql > redo.sql
  twinspan link lost sales --discard`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeLinks,
		PreRunE: func(*cobra.Command, []string) error {
			switch format {
			case "table", "json", "sql":
				return nil
			}
			return fmt.Errorf("there is no format %q: choose table, json or sql", format)
		},
		RunE: a.asks(func(ctx context.Context, c *client.Client, args []string) error {
			if discard {
				l, err := c.DiscardLost(ctx, args[0], epoch)
				if err != nil {
					return err
				}
				return a.answer(l, func(w io.Writer) { fmt.Fprintf(w, "what link %s had lost is discarded\n", l.Link) })
			}
			return a.showLost(ctx, c, args[0], format, epoch)
		}),
	}
	flags := cmd.Flags()
	flags.StringVar(&format, "format", "table", "how to show it, the `format`: table, json or sql")
	flags.BoolVar(&discard, "discard", false, "forget it")
	flags.Int64Var(&epoch, "epoch", 0, "only what the failover that began this `epoch` left behind")
	a.completeFlag(cmd, "format", cobra.FixedCompletions([]string{"table", "json", "sql"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (a *app) showLost(ctx context.Context, c *client.Client, name, format string, epoch int64) error {
	l, err := c.Lost(ctx, name)
	if err != nil {
		return err
	}
	if epoch != 0 {
		l.Partings = only(l.Partings, epoch)
		if len(l.Partings) == 0 {
			return problem.New(problem.NotFound, "lost_unknown", "nothing was lost at epoch %d", epoch).On(name)
		}
	}
	if a.flags.output == "json" {
		format = "json"
	}
	switch format {
	case "json":
		return a.lostJSON(ctx, c, l)
	case "sql":
		return a.lostSQL(ctx, c, l)
	}
	return a.lostTable(ctx, c, l)
}

func only(list []api.Parting, epoch int64) (out []api.Parting) {
	for _, p := range list {
		if p.Epoch == epoch {
			out = append(out, p)
		}
	}
	return out
}

// eachPage hands over the pages of what was lost at a parting.
func eachPage(ctx context.Context, c *client.Client, link string, p api.Parting, sql bool, take func(api.LostPage) error) error {
	if p.State != api.PartingRead && p.State != api.PartingReading {
		return nil
	}
	for after, more := int64(0), true; more; {
		page, err := c.LostPage(ctx, link, p.Epoch, after, sql)
		if err != nil {
			return err
		}
		if err := take(page); err != nil {
			return err
		}
		after, more = page.Next, page.More
	}
	return nil
}

// lostJSON prints one object with every transaction, as they come.
func (a *app) lostJSON(ctx context.Context, c *client.Client, l api.Lost) error {
	head, err := json.Marshal(l)
	if err != nil {
		return problem.Wrap(err, problem.Internal, "internal", "print the answer")
	}
	a.answered = true
	fmt.Fprintf(a.out, "%s,\"transactions\":[", strings.TrimSuffix(string(head), "}"))
	between := "\n"
	for _, p := range l.Partings {
		var last *lostTransaction
		print := func() error {
			if last == nil {
				return nil
			}
			text, err := json.Marshal(last)
			if err == nil {
				_, err = fmt.Fprintf(a.out, "%s%s", between, text)
			}
			between = ",\n"
			return err
		}
		err := eachPage(ctx, c, l.Link, p, false, func(page api.LostPage) error {
			for _, t := range page.Transactions {
				if last != nil && last.Number == t.Number {
					last.Changes = append(last.Changes, t.Changes...)
					continue
				}
				if err := print(); err != nil {
					return err
				}
				last = &lostTransaction{Epoch: p.Epoch, LostTransaction: t}
			}
			return nil
		})
		if err == nil {
			err = print()
		}
		if err != nil {
			return err
		}
	}
	fmt.Fprint(a.out, "]}\n")
	return nil
}

// lostTransaction is a transaction with the parting that it belongs to.
type lostTransaction struct {
	Epoch int64 `json:"epoch"`
	api.LostTransaction
}

// lostSQL prints a script.
func (a *app) lostSQL(ctx context.Context, c *client.Client, l api.Lost) error {
	fmt.Fprintf(a.out, "-- What link %s lost, to be done again. Look through it before it is run.\n%s", l.Link, lostPreamble)
	for _, p := range l.Partings {
		fmt.Fprintf(a.out, "\n-- %s\n", lostHeadline(p))
		open := int64(0)
		err := eachPage(ctx, c, l.Link, p, true, func(page api.LostPage) error {
			for _, t := range page.Transactions {
				if t.Number != open {
					if open != 0 {
						fmt.Fprint(a.out, "COMMIT;\n")
					}
					open = t.Number
					fmt.Fprintf(a.out, "\n-- transaction %d, committed at %s\nBEGIN;\n", t.XID, t.CommittedAt.Format("2006-01-02 15:04:05.000000 UTC"))
				}
				for _, change := range t.Changes {
					end := ";"
					if last := change.SQL[strings.LastIndexByte(change.SQL, '\n')+1:]; strings.HasPrefix(last, "-- ") {
						end = ""
					}
					fmt.Fprintf(a.out, "%s%s\n", change.SQL, end)
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		if open != 0 {
			fmt.Fprint(a.out, "COMMIT;\n")
		}
	}
	return nil
}

// lostPreamble makes the session read the statements as they were written.
const lostPreamble = `SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SET search_path = '';
SET DateStyle = 'ISO, YMD';
SET IntervalStyle = 'postgres';
SET TimeZone = 'UTC';
SET xmloption = content;
`

// lostTable prints what people want to know first.
func (a *app) lostTable(ctx context.Context, c *client.Client, l api.Lost) error {
	if len(l.Partings) == 0 {
		fmt.Fprintf(a.out, "%s: no forced failover has left anything behind\n", l.Link)
		return nil
	}
	for i, p := range l.Partings {
		if i > 0 {
			fmt.Fprintln(a.out)
		}
		showParting(a.out, l.Link, p)
		said := int64(0)
		err := eachPage(ctx, c, l.Link, p, false, func(page api.LostPage) error {
			for _, t := range page.Transactions {
				if t.Number != said {
					said = t.Number
					fmt.Fprintf(a.out, "\n%s  transaction %d, %s\n", when(t.CommittedAt), t.XID, terminal.Plural(int(t.Total), "change"))
				}
				for _, change := range t.Changes {
					fmt.Fprintf(a.out, "  %-8s %s\n", change.Kind, lostChange(change))
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func lostHeadline(p api.Parting) string {
	switch p.State {
	case api.PartingUnreadable:
		return fmt.Sprintf("epoch %d: what database %s at agent %s had committed alone cannot be read", p.Epoch, p.Database, p.Agent)
	case api.PartingDiscarded:
		return fmt.Sprintf("epoch %d: what database %s at agent %s had committed alone was discarded", p.Epoch, p.Database, p.Agent)
	}
	so := ""
	if p.State == api.PartingReading {
		so = " so far"
	}
	return fmt.Sprintf("epoch %d: %s that database %s at agent %s had committed alone%s", p.Epoch, terminal.Plural(int(p.Transactions), "transaction"), p.Database, p.Agent, so)
}

func showParting(w io.Writer, link string, p api.Parting) {
	fmt.Fprintf(w, "%s, %s\n", link, lostHeadline(p))
	fmt.Fprintf(w, "  positions   %s to %s\n", p.Parted, p.ReadTo)
	if p.First != nil {
		fmt.Fprintf(w, "  committed   %s to %s\n", when(*p.First), when(*p.Last))
	}
	fmt.Fprintf(w, "  mended      %s\n", yes(p.Mended))
	if p.Problem != nil {
		fmt.Fprintf(w, "  problem     [%s] %s\n", p.Problem.Code, p.Problem.Title)
	}
	if len(p.Tables) == 0 {
		return
	}
	var rows [][]string
	for _, t := range p.Tables {
		rows = append(rows, []string{t.Table, fmt.Sprint(t.Inserts), fmt.Sprint(t.Updates), fmt.Sprint(t.Deletes), fmt.Sprint(t.Truncates + t.Rewrites)})
	}
	fmt.Fprintln(w)
	terminal.Table(w, []string{"TABLE", "INSERTED", "UPDATED", "DELETED", "EMPTIED OR REWRITTEN"}, rows)
}

// lostChange names a change in a line.
func lostChange(c api.LostChange) string {
	text := c.Table
	if c.Text != "" {
		text += "  " + line(c.Text)
	}
	row := c.Old
	if len(row) == 0 {
		row = c.New
	}
	const most, longest = 4, 40
	shown := 0
	for _, v := range row {
		if len(c.Key) > 0 && !slices.Contains(c.Key, v.Column) {
			continue
		}
		if shown++; shown > most && len(c.Key) == 0 {
			return text + " ..."
		}
		value := "NULL"
		if v.Value != nil {
			value = terminal.Cut(line(*v.Value), longest)
		}
		text += " " + v.Column + "=" + value
	}
	return text
}
