package lost

import (
	"fmt"
	"strings"

	"github.com/twinspan/twinspan/internal/ddl"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// Redo returns SQL, without a semicolon at its end, that does what the change did in
// a session with the settings of pg.DataSettings.
// An update writes every column that was told, for it is not known which of them it
// changed. complete is false when the change was not told whole: a value was left
// in TOAST, which the statement leaves as it is there, or is too long, which a
// comment then says.
func (c *Change) Redo() (sql string, complete bool) {
	switch c.Kind {
	case Insert:
		return c.insert()
	case Update:
		return c.update()
	case Delete:
		return c.delete()
	case Truncate:
		return strings.TrimRight("TRUNCATE "+c.Table.SQL()+" "+c.Detail, " "), true
	case Schema:
		return schemaSQL(c.Detail)
	}
	return "-- every row of " + sqlname.Table.String(c.Table) + " got new values by the schema change before", false
}

// literal writes a value as a constant of unknown type, which takes the type of the
// column that it is assigned to or compared with.
func (v *Value) literal() string {
	switch {
	case v.State == Null:
		return "NULL"
	case v.Hex:
		return "convert_from('\\x" + v.Text + "', 'SQL_ASCII')"
	}
	return strings.TrimPrefix(sqlname.Literal(v.Text), " ")
}

// whole says whether a statement can hold the value.
func (v *Value) whole() bool {
	return v.State == Known || v.State == Null || v.State == Long && int64(len(v.Text)) >= v.Bytes
}

func (c *Change) insert() (string, bool) {
	var names, texts []string
	missing := ""
	for i := range c.New {
		v := &c.New[i]
		if c.generated[v.Column] {
			continue
		}
		if !v.whole() {
			missing += leftOut(v)
			continue
		}
		names, texts = append(names, v.Column), append(texts, v.literal())
	}
	if len(names) == 0 {
		return missing + "INSERT INTO " + c.Table.SQL() + " DEFAULT VALUES", missing == ""
	}
	return missing + "INSERT INTO " + c.Table.SQL() + " (" + sqlname.Join(names) + ") OVERRIDING SYSTEM VALUE VALUES (" + strings.Join(texts, ", ") + ")", missing == ""
}

func leftOut(v *Value) string {
	if v.State == Unchanged {
		return ""
	}
	return fmt.Sprintf("-- column %s is left out: its value has %d bytes, and lies in twinspan.lost_value\n", sqlname.Quote(v.Column), v.Bytes)
}

func (c *Change) update() (string, bool) {
	old := map[string]*Value{}
	for i := range c.Old {
		old[c.Old[i].Column] = &c.Old[i]
	}
	var set []string
	missing, complete := "", true
	for i := range c.New {
		v := &c.New[i]
		if v.State == Unchanged || c.generated[v.Column] {
			continue
		}
		if before := old[v.Column]; before != nil && before.whole() && v.whole() && before.State == v.State && before.Text == v.Text {
			continue
		}
		switch {
		case !v.whole():
			missing += leftOut(v)
			complete = false
		case c.always[v.Column] && old[v.Column] == nil:
			// It cannot be set but to DEFAULT, and has hardly changed.
		default:
			set = append(set, sqlname.Quote(v.Column)+" = "+v.literal())
		}
	}
	where, ok := c.where(c.before())
	switch {
	case !ok:
		return missing + "-- an update of " + c.Table.String() + " whose row cannot be told", false
	case len(set) == 0:
		return missing + "-- an update of " + c.Table.String() + " that changed nothing", complete
	}
	return missing + "UPDATE ONLY " + c.Table.SQL() + " SET " + strings.Join(set, ", ") + where, complete
}

// before are the values by which the row is found: the old ones as far as they are
// told, else the new ones, whose key is the same then.
func (c *Change) before() []Value {
	if len(c.Old) > 0 {
		return c.Old
	}
	return c.New
}

func (c *Change) delete() (string, bool) {
	where, ok := c.where(c.Old)
	if !ok {
		return "-- a row of " + c.Table.String() + " was deleted that cannot be told", false
	}
	return "DELETE FROM ONLY " + c.Table.SQL() + where, true
}

// where finds the row: by its key, or one of those that are equal in everything.
func (c *Change) where(row []Value) (string, bool) {
	byName := map[string]*Value{}
	for i := range row {
		byName[row[i].Column] = &row[i]
	}
	var conditions []string
	if len(c.Key) > 0 {
		for _, name := range c.Key {
			v := byName[name]
			if v == nil || !v.whole() {
				return "", false
			}
			conditions = append(conditions, c.equal(v))
		}
		return " WHERE " + strings.Join(conditions, " AND "), true
	}
	for i := range row {
		v := &row[i]
		switch {
		case v.State == Unchanged:
			return "", false
		case v.whole():
			conditions = append(conditions, c.equal(v))
		}
	}
	if len(conditions) == 0 {
		return "", false
	}
	return " WHERE ctid = (SELECT ctid FROM ONLY " + c.Table.SQL() + " WHERE " + strings.Join(conditions, " AND ") + " LIMIT 1)", true
}

func (c *Change) equal(v *Value) string {
	name := sqlname.Quote(v.Column)
	switch {
	case v.State == Null:
		return name + " IS NULL"
	case c.asText[v.Column]:
		return name + "::text = " + v.literal()
	}
	return name + " = " + v.literal()
}

// schemaSQL writes a schema change out of its signal, with the context it had.
func schemaSQL(payload string) (string, bool) {
	change, err := ddl.Parse([]byte(payload))
	if err != nil {
		return "-- a schema change that cannot be read", false
	}
	set := ""
	if path, ok := change.Settings["search_path"]; ok {
		set = "SELECT pg_catalog.set_config('search_path', " + strings.TrimSpace(sqlname.Literal(string(path))) + ", true);\n"
	}
	return set + strings.TrimRight(string(change.SQL), "; \t\r\n") + ";\nSET LOCAL search_path = ''", true
}

// SchemaChange returns the tag, the subject and the text of a schema change.
func (c *Change) SchemaChange() (tag, subject, text string) {
	change, err := ddl.Parse([]byte(c.Detail))
	if err != nil {
		return "", "", ""
	}
	return change.Tag, change.Subject(), string(change.SQL)
}
