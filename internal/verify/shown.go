package verify

import (
	"fmt"
	"strings"

	"github.com/twinspan/twinspan/api"
)

// RowKind is the kind of a difference that is a row.
const RowKind = "row"

// Shown describes differences as the API shows them.
func Shown(link string, f *Findings) []api.Difference {
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

func showRow(link string, t *TableFinding, r *RowDifference) api.Difference {
	d := api.Difference{
		Kind: RowKind, Object: t.Table.String(), State: string(r.State), Key: []api.Value{}, Hash: r.Hash,
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
		differs := r.State != Differs
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

// Identity tells differences apart.
func Identity(d *api.Difference) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\x00%s\x00%s", d.Kind, d.Object, d.Hash)
	for _, k := range d.Key {
		fmt.Fprintf(&b, "\x00%d:%s", len(k.Value), k.Value)
	}
	return b.String()
}

// Progresses says whether a further round of repair can do more: what is left is less than before,
// or was not all known.
func Progresses(before, left *Findings) bool {
	rows := func(f *Findings) (n int, more bool) {
		for _, t := range f.Tables {
			n += len(t.Rows)
			more = more || t.More && !t.View // a refresh fills all of it
		}
		return n, more
	}
	a, more := rows(before)
	b, _ := rows(left)
	return b > 0 && (b < a || more)
}
