package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/terminal"
)

// mostShown is how many differences of one object people are shown; -o json has
// them all.
const mostShown = 20

// showVerification prints what a verification found, the verdict first.
func showVerification(w io.Writer, v api.Verification) {
	fmt.Fprintf(w, "%s: %s\n", v.Link, verdictText(v))
	field := func(name, format string, args ...any) {
		fmt.Fprintf(w, "  %-11s %s\n", name, fmt.Sprintf(format, args...))
	}
	if v.Step != "" {
		field("step", "%s", v.Step)
	}
	if v.Position != "" {
		at := v.Position
		if v.ConfirmedAt != "" {
			at += ", what differed again at " + v.ConfirmedAt
		}
		field("position", "%s", at)
		field("paused", "%s, while both sides' snapshots were taken", terminal.Duration(v.PauseSeconds))
	}
	if v.State == api.Verifying && v.BytesTotal > 0 {
		field("progress", "%s %s", terminal.Bar(v.BytesDone, v.BytesTotal, 20), verified(v).soFar())
	}
	if v.EndedAt != nil {
		field("compared", "%s, %s in %s, %s", terminal.Plural(v.TablesDone, "table"), terminal.Plural(int(v.Rows), "row"),
			terminal.Plural(int(v.Blocks), "block"), terminal.Duration(v.EndedAt.Sub(v.StartedAt).Seconds()))
	}
	if v.BlocksFetched > 0 {
		field("looked into", "%s, %s fetched", terminal.Plural(int(v.BlocksFetched), "block"), terminal.Plural(int(v.RowsFetched), "row"))
	}
	for _, s := range v.Skipped {
		field("left out", "%s: %s", s.Table, s.Why)
	}
	showDifferences(w, v)
	showSequences(w, v.Sequences)
	if p := v.Problem; p != nil {
		fmt.Fprintf(w, "\nProblem: [%s] %s\n", p.Code, p.Title)
		if p.Hint != "" {
			fmt.Fprintf(w, "  hint: %s\n", p.Hint)
		}
	}
}

func verdictText(v api.Verification) string {
	switch v.State {
	case api.Equal:
		return "equal"
	case api.Different:
		n := 0
		for _, d := range v.Differences {
			if !d.Repaired {
				n++
			}
		}
		more := ""
		if len(v.MoreRows) > 0 {
			more = " or more"
		}
		return fmt.Sprintf("DIFFERENT, %s%s", terminal.Plural(n, "difference"), more)
	case api.Repaired:
		return fmt.Sprintf("repaired and equal, %s and %s brought in line", terminal.Plural(v.RepairedRows, "row"), terminal.Plural(v.RepairedObjects, "object"))
	}
	return phrase(v.State)
}

// showDifferences prints the objects of the schema, then the rows by their tables.
func showDifferences(w io.Writer, v api.Verification) {
	heading, shown := "", 0
	for _, d := range v.Differences {
		title := "Schema"
		if d.Kind == "row" {
			title = "Rows of " + d.Object
		}
		if title != heading {
			hidden(w, shown)
			heading, shown = title, 0
			fmt.Fprintf(w, "\n%s:\n", title)
		}
		if shown++; shown > mostShown {
			continue
		}
		if d.Kind == "row" {
			showRowDifference(w, d)
		} else {
			showObjectDifference(w, d)
		}
	}
	hidden(w, shown)
	for _, table := range v.MoreRows {
		fmt.Fprintf(w, "\nMore rows of %s differ than are listed.\n", table)
	}
}

func hidden(w io.Writer, shown int) {
	if shown > mostShown {
		fmt.Fprintf(w, "  and %d more; -o json lists them\n", shown-mostShown)
	}
}

func showObjectDifference(w io.Writer, d api.Difference) {
	fmt.Fprintf(w, "  %-8s %s %s%s\n", d.State, d.Kind, d.Object, repairedMark(d.Repaired))
	if d.State == "differs" {
		fmt.Fprintf(w, "           primary:   %s\n           secondary: %s\n", line(d.Primary), line(d.Secondary))
	}
	if d.Repair != "" && !d.Repaired {
		fmt.Fprintf(w, "           repair: %s\n", d.Repair)
	}
}

func showRowDifference(w io.Writer, d api.Difference) {
	var key []string
	for _, k := range d.Key {
		key = append(key, k.Column+"="+k.Value)
	}
	what := strings.Join(key, " ")
	if d.Hash != "" {
		what = fmt.Sprintf("hash %.16s, %s on the primary, %s on the secondary", d.Hash, d.Primary, d.Secondary)
	} else if len(d.Columns) > 0 {
		what += "  in " + strings.Join(d.Columns, ", ")
	}
	fmt.Fprintf(w, "  %-8s %s%s\n", d.State, what, repairedMark(d.Repaired))
	for _, p := range d.Values {
		fmt.Fprintf(w, "           %s: %s on the primary, %s on the secondary\n", p.Column, shownValue(p.Primary), shownValue(p.Secondary))
	}
	if d.Repair != "" && !d.Repaired && !strings.HasPrefix(d.Repair, "twinspan ") {
		fmt.Fprintf(w, "           repair: %s\n", d.Repair)
	}
}

func repairedMark(repaired bool) string {
	if repaired {
		return "  (repaired)"
	}
	return ""
}

func shownValue(v *string) string {
	if v == nil {
		return "NULL"
	}
	const longest = 60
	return terminal.Cut(line(*v), longest)
}

func showSequences(w io.Writer, list []api.SequenceDifference) {
	if len(list) == 0 {
		return
	}
	fmt.Fprintf(w, "\nSequences:\n")
	for _, s := range list {
		fmt.Fprintf(w, "  %-8s %s: %d on the primary, %d on the secondary%s\n", s.State, s.Name, s.Primary, s.Secondary, repairedMark(s.Repaired))
	}
}
