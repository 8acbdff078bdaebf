package link

import (
	"fmt"
	"strings"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/verify"
)

// rowKind is the kind of a difference that is a row.
const rowKind = "row"

// showFindings describes differences as the API shows them.
func showFindings(link string, f *verify.Findings) []api.Difference {
	list := []api.Difference{}
	for _, d := range f.Schema {
		list = append(list, api.Difference{
			Kind: d.Kind, Object: d.Name, State: string(d.State), Key: []api.Value{}, Columns: []string{}, Values: []api.Pair{},
			Primary: d.Primary, Secondary: d.Secondary, Repair: d.Repair,
		})
	}
	for i := range f.Tables {
		t := &f.Tables[i]
		for j := range t.Rows {
			list = append(list, showRow(link, t, &t.Rows[j]))
		}
	}
	return list
}

func showRow(link string, t *verify.TableFinding, r *verify.RowDifference) api.Difference {
	d := api.Difference{
		Kind: rowKind, Object: t.Table.String(), State: string(r.State), Key: []api.Value{}, Hash: r.Hash,
		Columns: append([]string{}, r.Columns...), Values: []api.Pair{},
		Primary: fmt.Sprint(r.Primary), Secondary: fmt.Sprint(r.Secondary), Repair: t.Statement(r),
	}
	for i, k := range t.Key {
		d.Key = append(d.Key, api.Value{Column: k, Value: r.Key[i]})
	}
	for i, c := range t.Columns {
		p := api.Pair{Column: c.Name}
		if i < len(r.OnPrimary) {
			p.Primary = r.OnPrimary[i]
		}
		if i < len(r.OnSecondary) {
			p.Secondary = r.OnSecondary[i]
		}
		differs := r.State != verify.Differs
		for _, name := range r.Columns {
			differs = differs || name == c.Name
		}
		if differs && (p.Primary != nil || p.Secondary != nil) {
			d.Values = append(d.Values, p)
		}
	}
	if d.Repair == "" {
		d.Repair = "twinspan link verify " + link + " --repair"
	}
	return d
}

// identity tells differences apart.
func identity(d *api.Difference) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\x00%s\x00%s", d.Kind, d.Object, d.Hash)
	for _, k := range d.Key {
		fmt.Fprintf(&b, "\x00%d:%s", len(k.Value), k.Value)
	}
	return b.String()
}

func showMore(f *verify.Findings) []string {
	list := []string{}
	for _, t := range f.Tables {
		if t.More {
			list = append(list, t.Table.String())
		}
	}
	return list
}

func showSkipped(f *verify.Findings) []api.SkippedTable {
	list := []api.SkippedTable{}
	for _, d := range f.Undecided {
		list = append(list, api.SkippedTable{Table: d.Kind + " " + d.Name, Why: "the servers print it in other words, and the secondary cannot tell whether it means the same"})
	}
	for _, s := range f.Skipped {
		list = append(list, api.SkippedTable{Table: s.Name, Why: s.Why})
	}
	return list
}
