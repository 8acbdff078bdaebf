package verify

import (
	"cmp"
	"slices"
	"strings"

	"github.com/twinspan/twinspan/internal/sqlname"
)

// SchemaDifference is an object that differs.
type SchemaDifference struct {
	Kind      string
	Name      string
	State     State
	Primary   string // its definition there
	Secondary string
	Repair    string // the statement that builds it on the secondary; empty when there is none
	// Worded says that it differs in nothing but what each server has printed from a parse
	// tree, and that the servers are of two versions or cannot tell whether it means the same.
	Worded bool
	// Undecided says that nobody can tell whether it means the same: it is no reason to stop.
	Undecided bool

	words  bool      // it differs in what was printed from a parse tree alone
	marked [2]string // the details as they were read, the primary's first
	here   Entry     // the secondary's

	entry Entry // the primary's; of an object that it lacks the secondary's table and name
}

// invalid is what the secondary has of an index that cannot be used.
const invalid = "INVALID "

// schemaDifferences compares the objects of two databases, those first that
// others hang on.
func schemaDifferences(primary, secondary *Schema) []SchemaDifference {
	sameVersion := primary.ServerVersion/10000 == secondary.ServerVersion/10000
	type pair struct{ a, b *Entry }
	pairs := map[[2]string]*pair{}
	of := func(e *Entry) *pair {
		id := [2]string{e.Kind, e.Name}
		if pairs[id] == nil {
			pairs[id] = &pair{}
		}
		return pairs[id]
	}
	for i := range primary.Entries {
		of(&primary.Entries[i]).a = &primary.Entries[i]
	}
	for i := range secondary.Entries {
		of(&secondary.Entries[i]).b = &secondary.Entries[i]
	}
	var list []SchemaDifference
	for _, p := range pairs {
		if d, differs := compareEntries(p.a, p.b, sameVersion); differs {
			list = append(list, d)
		}
	}
	list = withoutParts(list)
	slices.SortFunc(list, func(a, b SchemaDifference) int {
		return cmp.Or(cmp.Compare(rank(a.Kind), rank(b.Kind)), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name))
	})
	return list
}

// compareEntries compares one object. An index that is invalid on the primary is
// not carried, and so not compared; nor is what was dropped while it was read.
func compareEntries(a, b *Entry, sameVersion bool) (d SchemaDifference, differs bool) {
	switch {
	case a != nil && (a.Invalid || a.Unsettled), b != nil && b.Unsettled:
		return d, false
	case b == nil:
		d = SchemaDifference{Kind: a.Kind, Name: a.Name, State: Missing, Primary: a.Detail, entry: *a}
	case a == nil:
		d = SchemaDifference{Kind: b.Kind, Name: b.Name, State: Extra, Secondary: unmarked(b.Detail), entry: Entry{Table: b.Table, Object: b.Object}}
		if b.Kind == defaultACL {
			d.here = *b
			d.Repair = strings.Join(d.statements(), "; ")
		}
		return d, true
	case b.Invalid:
		d = SchemaDifference{Kind: a.Kind, Name: a.Name, State: Differs, Primary: a.Detail, Secondary: invalid + b.Detail, entry: *a}
	case a.Kind == columnOrder && !sameColumns(a.Detail, b.Detail): // said of the columns themselves
		return d, false
	case (sameVersion || !a.Printed) && a.Detail != b.Detail:
		d = SchemaDifference{Kind: a.Kind, Name: a.Name, State: Differs, Primary: a.Detail, Secondary: b.Detail, entry: *a,
			words: frame(a.Detail) == frame(b.Detail), marked: [2]string{a.Detail, b.Detail}, here: *b}
		d.Worded = d.words && !sameVersion
	default:
		return d, false
	}
	d.Primary, d.Secondary = unmarked(d.Primary), unmarked(d.Secondary)
	d.Repair = strings.Join(d.statements(), "; ")
	return d, true
}

// columnOrder is the kind of an entry that lists a table's columns.
const columnOrder = "column order"

func sameColumns(a, b string) bool {
	x, y := strings.Split(a, ", "), strings.Split(b, ", ")
	slices.Sort(x)
	slices.Sort(y)
	return slices.Equal(x, y)
}

// isTable says whether a kind has parts.
func isTable(kind string) bool {
	switch kind {
	case "table", "view", "materialized view", "foreign table", "composite type":
		return true
	}
	return false
}

// withoutParts leaves out what is missing or too much only because its table is.
func withoutParts(list []SchemaDifference) []SchemaDifference {
	gone := map[sqlname.Table]bool{}
	for _, d := range list {
		if isTable(d.Kind) && d.State != Differs {
			gone[d.entry.Table] = true
		}
	}
	return slices.DeleteFunc(list, func(d SchemaDifference) bool { return !isTable(d.Kind) && gone[d.entry.Table] })
}

// rank orders kinds by what hangs on what.
func rank(kind string) int {
	order := []string{"schema", "extension", "type", "composite type", "sequence", "function", "table", "column", "constraint", "index"}
	if i := slices.Index(order, kind); i >= 0 {
		return i
	}
	return len(order)
}

// statements are those that make an index, a constraint, a sequence or an owner as
// the primary has it. Nothing else can be made from a line of text.
func (d *SchemaDifference) statements() []string {
	e := &d.entry
	if owner := d.owner(); owner != "" {
		return []string{owner}
	}
	switch {
	case d.Kind == defaultACL:
		return d.privileges()
	case d.Kind == "sequence" && d.State == Differs:
		return []string{"ALTER SEQUENCE " + e.Table.SQL() + " " + e.Definition}
	case d.Kind == "index" && strings.HasPrefix(d.Secondary, invalid):
		return []string{"REINDEX INDEX CONCURRENTLY " + sqlname.Table{Schema: e.Table.Schema, Name: e.Object}.SQL()}
	case d.State != Missing || e.Definition == "":
		return nil
	case d.Kind == "index" && e.Index == "I":
		// On a partitioned table it is built for the partitions, too.
		return []string{strings.Replace(e.Definition, " ON ONLY ", " ON ", 1)}
	case d.Kind == "index":
		return []string{concurrently(e.Definition)}
	case d.Kind != "constraint":
		return nil
	}
	add := "ALTER TABLE " + e.Table.SQL() + " ADD CONSTRAINT " + sqlname.Quote(e.Object) + " "
	if e.Index == "" {
		return []string{add + e.Definition}
	}
	how, _, _ := strings.Cut(e.Definition, " (")
	if _, late, found := strings.Cut(e.Definition, " DEFERRABLE"); found {
		late = " DEFERRABLE" + late
		return []string{concurrently(e.Index), add + how + " USING INDEX " + sqlname.Quote(e.Object) + late}
	}
	return []string{concurrently(e.Index), add + how + " USING INDEX " + sqlname.Quote(e.Object)}
}

// owner is the statement that gives an object the primary's owner, where it differs
// in nothing else.
func (d *SchemaDifference) owner() string {
	a, rest, ok := strings.Cut(strings.TrimPrefix(d.Primary, "owner "), ", ")
	b, same, both := strings.Cut(strings.TrimPrefix(d.Secondary, "owner "), ", ")
	if d.State != Differs || !strings.HasPrefix(d.Primary, "owner ") || ok != both || rest != same || a == b {
		return ""
	}
	kind := strings.ToUpper(d.Kind)
	switch d.Kind {
	case "function":
		kind = "ROUTINE"
	case "composite type":
		kind = "TYPE"
	case "foreign-data wrapper":
		kind = "FOREIGN DATA WRAPPER"
	}
	return "ALTER " + kind + " " + d.Name + " OWNER TO " + sqlname.Quote(a)
}

// concurrently makes a CREATE INDEX of pg_get_indexdef one that lets others write
// and that can be repeated.
func concurrently(definition string) string {
	head, tail, _ := strings.Cut(definition, " INDEX ")
	return head + " INDEX CONCURRENTLY IF NOT EXISTS " + tail
}

// bothSchemas keeps of the second list what is in the first, too.
func bothSchemas(first, second []SchemaDifference) []SchemaDifference {
	return slices.DeleteFunc(second, func(d SchemaDifference) bool {
		return !slices.ContainsFunc(first, func(f SchemaDifference) bool { return f.Kind == d.Kind && f.Name == d.Name })
	})
}
