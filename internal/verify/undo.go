package verify

import (
	"slices"
	"strings"

	"github.com/twinspan/twinspan/internal/sqlname"
)

// Table is the table that the object is, or belongs to; empty for those that have none.
func (d *SchemaDifference) Table() sqlname.Table { return d.entry.Table }

// Dropping is the statement that takes an object away from the secondary, with what
// hangs on it; empty where that cannot be, or where nothing is there.
func (d *SchemaDifference) Dropping() string {
	table := d.entry.Table.SQL()
	if d.State == Missing {
		return ""
	}
	switch d.Kind {
	case "table", "view", "materialized view", "sequence", "foreign table", "index", "type", "statistics":
		return "DROP " + strings.ToUpper(d.Kind) + " IF EXISTS " + d.Name + " CASCADE"
	case "composite type":
		return "DROP TYPE IF EXISTS " + d.Name + " CASCADE"
	case "function":
		return "DROP ROUTINE IF EXISTS " + d.Name + " CASCADE"
	case "constraint":
		return "ALTER TABLE IF EXISTS " + table + " DROP CONSTRAINT IF EXISTS " + sqlname.Quote(d.entry.Object) + " CASCADE"
	case "trigger", "rule", "policy":
		return "DROP " + strings.ToUpper(d.Kind) + " IF EXISTS " + sqlname.Quote(d.entry.Object) + " ON " + table
	case "definition of view":
		return "DROP VIEW IF EXISTS " + d.Name + " CASCADE"
	case "comment":
		return uncomment(d.Name)
	}
	switch {
	case d.State != Extra:
	case d.Kind == "schema":
		return "DROP SCHEMA IF EXISTS " + d.Name + " CASCADE"
	case d.Kind == "column":
		return "ALTER TABLE IF EXISTS " + table + " DROP COLUMN IF EXISTS " + lastName(d.Name) + " CASCADE"
	}
	return ""
}

// uncomment removes the comment on an object that is named after its kind, as
// pg_identify_object does.
func uncomment(name string) string {
	for _, kind := range []string{"table column", "materialized view", "table", "view", "sequence", "index", "schema", "type", "function"} {
		if object, ok := strings.CutPrefix(name, kind+" "); ok && !strings.HasPrefix(object, "constraint ") {
			return "COMMENT ON " + strings.ToUpper(strings.TrimPrefix(kind, "table ")) + " " + object + " IS NULL"
		}
	}
	return ""
}

// lastName is the last of names that are joined by dots, as it is written.
func lastName(names string) string {
	start, quoted := 0, false
	for i := range len(names) {
		switch {
		case names[i] == '"': // a quote within quotes is doubled
			quoted = !quoted
		case names[i] == '.' && !quoted:
			start = i + 1
		}
	}
	return names[start:]
}

// Remedies says how a secondary is brought in line with the primary's schema.
type Remedies struct {
	Build    []SchemaDifference // made as the primary has them
	Drop     []SchemaDifference // dropped: the primary does not have them
	Recreate []sqlname.Table    // dropped, made as the primary has them, and copied anew; those that are missing, too
	Leave    []SchemaDifference // what only a person can bring in line
}

// byHand are kinds of objects that are not made or dropped without a person.
var byHand = [...]string{"extension", "event trigger", defaultACL}

// RemediesFor sorts differences. What servers have of extensions is their own, and no
// difference here.
func RemediesFor(list []SchemaDifference) (r Remedies) {
	views := map[sqlname.Table]bool{}
	for _, d := range list {
		if strings.HasSuffix(d.Kind, "view") {
			views[d.entry.Table] = true
		}
	}
	for _, d := range list {
		table := d.entry.Table
		switch {
		case d.Kind == "extension" && d.State == Differs:
		case d.Kind == "column" && views[table]: // as its view is
		case d.Repair != "":
			r.Build = append(r.Build, d)
		case (d.Kind == "table" || d.Kind == "column") && d.State != Extra:
			if !slices.Contains(r.Recreate, table) {
				r.Recreate = append(r.Recreate, table)
			}
		case slices.Contains(byHand[:], d.Kind), d.State != Missing && d.Dropping() == "":
			r.Leave = append(r.Leave, d)
		case d.State == Extra:
			r.Drop = append(r.Drop, d)
		default:
			r.Build = append(r.Build, d)
		}
	}
	return r
}
