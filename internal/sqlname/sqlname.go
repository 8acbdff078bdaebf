// Package sqlname turns names and values into SQL text. It is the only place
// that does, so that a name such as "Weird ""Name" is right everywhere.
package sqlname

import "strings"

// Quote returns an identifier in double quotes, safe in any statement.
func Quote(name string) string {
	return `"` + strings.ReplaceAll(name, `"`, `""`) + `"`
}

// Join quotes each name and puts a comma between.
func Join(names []string) string {
	quoted := make([]string, len(names))
	for i, n := range names {
		quoted[i] = Quote(n)
	}
	return strings.Join(quoted, ", ")
}

// Table is the name of a relation with its schema.
type Table struct {
	Schema string `json:"schema"`
	Name   string `json:"name"`
}

// SQL returns the quoted, schema-qualified name.
func (t Table) SQL() string { return Quote(t.Schema) + "." + Quote(t.Name) }

// String returns the name as a person reads it: quoted only where PostgreSQL
// would not read it back bare.
func (t Table) String() string { return bare(t.Schema) + "." + bare(t.Name) }

func bare(name string) string {
	for i, r := range name {
		if r == '_' || r >= 'a' && r <= 'z' || i > 0 && r >= '0' && r <= '9' {
			continue
		}
		return Quote(name)
	}
	if name == "" {
		return `""`
	}
	return name
}

// Literal returns a string constant that means the same whatever
// standard_conforming_strings says (manual, "String Constants With C-Style
// Escapes").
func Literal(s string) string {
	quoted := "'" + strings.ReplaceAll(s, "'", "''") + "'"
	if strings.Contains(s, `\`) {
		return " E" + strings.ReplaceAll(quoted, `\`, `\\`)
	}
	return quoted
}
