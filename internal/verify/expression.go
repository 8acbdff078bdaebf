package verify

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// longest is the length in bytes up to which a value stands in its row's text
// itself. A row's text must stay below 1 GB, whatever its columns hold.
const longest = 64 << 10

// The seeds of the hashes: the one that divides a table into blocks, and two that
// are added up.
const (
	seedBlock = 0
	seed1     = 0x7477696e
	seed2     = 0x7370616e
)

// output is the expression of the text that a value's output function writes. For types
// that users made it is not a cast to text, for that may be a function of theirs, nor for
// xml, whose cast keeps a declaration that is never sent (xml.c, xml_out_internal), nor for
// bpchar, whose cast drops blanks: format calls the output function (varlena.c,
// text_format), and num_nulls tells a NULL from a composite value whose fields are NULL.
func output(c Column) string {
	name := "t." + sqlname.Quote(c.Name)
	if c.Made {
		return "CASE pg_catalog.num_nulls(" + name + ") WHEN 0 THEN pg_catalog.format('%s', " + name + ") END"
	}
	return name + "::text"
}

// text is the expression of a column's value as text, the same on both servers.
func (m Method) text(c Column) string {
	name := "t." + sqlname.Quote(c.Name)
	switch {
	case c.Family == Bytes:
		return fmt.Sprintf("CASE WHEN octet_length(%[1]s) > %[2]d THEN md5(%[1]s) ELSE %[1]s::text END", name, longest)
	case c.Family == Long && m.Convert:
		return fmt.Sprintf("CASE WHEN length(%[1]s) > %[2]d THEN md5(convert_to(%[1]s, 'UTF8')) ELSE %[1]s END", output(c), longest)
	case c.Family == Long:
		return fmt.Sprintf("CASE WHEN octet_length(%[1]s) > %[2]d THEN md5(%[1]s) ELSE %[1]s END", output(c), longest)
	case c.Family == Float && m.OldText:
		// The bits; but there are many NaN, all equal.
		send := "float8send"
		if c.Type == "real" {
			send = "float4send"
		}
		return fmt.Sprintf("CASE WHEN %[1]s = 'NaN' THEN 'NaN' ELSE encode(%[2]s(%[1]s), 'hex') END", name, send)
	}
	return output(c)
}

// hash is the expression of a text's hash, a bigint.
func (m Method) hash(text string, seed int64) string {
	if !m.MD5 {
		return fmt.Sprintf(`hashtextextended(%s COLLATE "C", %d)`, text, seed)
	}
	if m.Convert {
		text = "convert_to(" + text + ", 'UTF8')"
	}
	// The two halves of one MD5; a third hash, where it decides on blocks alone, may
	// be the same as one of them.
	at := 1
	if seed == seed2 {
		at = 17
	}
	return fmt.Sprintf("('x' || substr(md5(%s), %d, 16))::bit(64)::bigint", text, at)
}

// largeObjectsSQL shows large objects as a table with the columns loid and data.
const largeObjectsSQL = `(SELECT m.oid AS loid, coalesce((SELECT md5(string_agg(md5(l.pageno::text || encode(l.data, 'hex')), '' ORDER BY l.pageno))
	FROM pg_catalog.pg_largeobject l WHERE l.loid = m.oid), '') AS data FROM pg_catalog.pg_largeobject_metadata m)`

// from is the FROM item of a subject, named t.
func (s *Subject) from() string {
	if IsLargeObjects(s.Table) {
		return largeObjectsSQL + " AS t"
	}
	return "ONLY " + s.Table.SQL() + " AS t"
}

// place is the expression of where a row lies.
func (s *Subject) place() string {
	if IsLargeObjects(s.Table) {
		return "''"
	}
	return "t.ctid::text"
}

// row is the expression of the text of a whole row.
func (s *Subject) row() string {
	parts := make([]string, len(s.Columns))
	for i, c := range s.Columns {
		parts[i] = s.Method.text(c)
	}
	return "ROW(" + strings.Join(parts, ", ") + ")::text"
}

// keyTexts are the expressions of the key's values. They are what a lookup by
// the key reads back.
func (s *Subject) keyTexts() []string {
	parts := make([]string, len(s.Key))
	for i, k := range s.Key {
		parts[i] = output(s.column(k))
	}
	return parts
}

// column is the column of a name.
func (s *Subject) column(name string) Column {
	for _, c := range s.Columns {
		if c.Name == name {
			return c
		}
	}
	return Column{Name: name}
}

// divider is the expression of the text whose hash divides the table.
func (s *Subject) divider() string {
	if len(s.Key) == 0 {
		return s.row()
	}
	return "ROW(" + strings.Join(s.keyTexts(), ", ") + ")::text"
}

// block is the expression of the number of a row's block, from its hash h.
func block(bits int) string {
	if bits == 0 {
		return "0::bigint"
	}
	return fmt.Sprintf("h >> %d", 64-bits)
}

// within is the condition that a row, by its hash h, is in one of the blocks.
func (b Blocks) within() string {
	if b.Bits == 0 {
		return "true"
	}
	numbers := make([]string, len(b.Numbers))
	for i, n := range b.Numbers {
		numbers[i] = strconv.FormatInt(n, 10)
	}
	return fmt.Sprintf("%s = ANY ('{%s}'::bigint[])", block(b.Bits), strings.Join(numbers, ","))
}

// named is an expression and the name of its column.
type named struct{ expression, name string }

// spanTypes are the types of key columns by which spans are read, all of them the
// server's own, with their names in SQL: those whose order is that of an index on them.
var spanTypes = map[string]string{
	"smallint": "int2", "integer": "int4", "bigint": "int8", "oid": "oid", "numeric": "numeric", "text": "text", "character varying": "varchar", "character": "bpchar",
	"uuid": "uuid", "date": "date", "timestamp without time zone": "timestamp", "timestamp with time zone": "timestamptz",
}

// spanType is the type by which a column bounds spans, empty where it cannot.
func spanType(c Column) string {
	if c.Made {
		return ""
	}
	name := c.Type
	if open := strings.IndexByte(name, '('); open >= 0 { // a length or a precision
		_, rest, _ := strings.Cut(name[open:], ")")
		name = name[:open] + rest
	}
	return spanTypes[name]
}

// Spanned says whether spans of the table can be read.
func (s *Subject) Spanned() bool {
	for _, k := range s.Key {
		if spanType(s.column(k)) == "" {
			return false
		}
	}
	return len(s.Key) > 0
}

// bound is the condition that a row's key stands in a relation to a key. One that is
// shorter than the key of this side is never asked for.
func (s *Subject) bound(operator string, key []string) string {
	left, right := make([]string, len(key)), make([]string, len(key))
	for i, value := range key {
		c := s.column(s.Key[i])
		left[i], right[i] = "t."+sqlname.Quote(c.Name), sqlname.Literal(value)+"::pg_catalog."+spanType(c)
	}
	return "(" + strings.Join(left, ", ") + ") " + operator + " (" + strings.Join(right, ", ") + ")"
}

// in is a condition, and that a row is in the span.
func (s *Subject) in(where string) string {
	if s.Span == nil {
		return where
	}
	if len(s.Span.After) > 0 {
		where += " AND " + s.bound(">", s.Span.After)
	}
	if len(s.Span.Upto) > 0 {
		where += " AND " + s.bound("<=", s.Span.Upto)
	}
	return where
}

// boundSQL reads the key of the row that is the last of so many in the span, in the
// shape of listed rows.
func (s *Subject) boundSQL(rows int64) string {
	order := make([]string, len(s.Key))
	for i, k := range s.Key {
		order[i] = "t." + sqlname.Quote(k)
	}
	return fmt.Sprintf("SELECT ''::text, ARRAY[%s], 0::bigint, 0::bigint FROM %s WHERE %s ORDER BY %s OFFSET %d LIMIT 1",
		strings.Join(s.keyTexts(), ", "), s.from(), s.in("true"), strings.Join(order, ", "), max(0, rows-1))
}

// hashedSQL shows the rows of a range with their hashes: h, h1, h2 and whatever
// extra columns are asked for. OFFSET 0 keeps the texts from being made anew for
// each use.
func (s *Subject) hashedSQL(where string, extra ...named) string {
	var inner, outer strings.Builder
	for _, e := range extra {
		inner.WriteString(", " + e.expression + " AS " + e.name)
		outer.WriteString(", " + e.name)
	}
	return fmt.Sprintf(`SELECT %s AS h, %s AS h1, %s AS h2%s FROM (SELECT %s AS k, %s AS r%s FROM %s WHERE %s OFFSET 0) AS x OFFSET 0`,
		s.Method.hash("k", seedBlock), s.Method.hash("r", seed1), s.Method.hash("r", seed2), outer.String(),
		s.divider(), s.row(), inner.String(), s.from(), s.in(where))
}

// digestSQL adds up the blocks among the rows of a range.
func (r *DigestRequest) digestSQL(where string) string {
	return fmt.Sprintf(`SELECT %s, count(*), sum(h1)::text, sum(h2)::text FROM (%s) AS y WHERE %s GROUP BY 1`,
		block(r.Bits), r.hashedSQL(where), r.Within.within())
}

// listSQL lists the rows of blocks among the rows of a range.
func (r *ListRequest) listSQL(where string) string {
	key := "NULL::text[]"
	if len(r.Key) > 0 {
		key = "ARRAY[" + strings.Join(r.keyTexts(), ", ") + "]"
	}
	return fmt.Sprintf(`SELECT place, keys, h1, h2 FROM (%s) AS y WHERE %s LIMIT %d`,
		r.hashedSQL(where, named{r.place(), "place"}, named{key, "keys"}), r.Blocks.within(), r.Most+1)
}

// keyColumn is a column of a key as this side knows it.
type keyColumn struct {
	name  string
	equal pg.Equality // without an operator where the column is no key here
}

// lookup is a FROM item of keys, and the condition that a row has one of them. A
// column whose equality is not known is compared as text, which is exact but needs
// every row to be looked at.
func lookup(columns []keyColumn, keys [][]string) (item, condition string) {
	var arrays, names, conditions []string
	for i, c := range columns {
		values := make([]string, len(keys))
		for j, k := range keys {
			values[j] = sqlname.Literal(k[i])
		}
		name := "k" + strconv.Itoa(i)
		arrays = append(arrays, "ARRAY["+strings.Join(values, ",")+"]::text[]")
		names = append(names, name)
		conditions = append(conditions, c.equal.OfText("t."+sqlname.Quote(c.name), "w."+name))
	}
	return fmt.Sprintf("unnest(%s) AS w(%s)", strings.Join(arrays, ", "), strings.Join(names, ", ")), strings.Join(conditions, " AND ")
}

// longMark begins what stands for a value that is too long to report.
const longMark = "(long value, MD5 "

// shown is the expression of a value for people.
func shown(c Column) string {
	name := "t." + sqlname.Quote(c.Name)
	switch c.Family {
	case Bytes:
		return fmt.Sprintf("CASE WHEN octet_length(%[1]s) > %[2]d THEN '%[3]s' || md5(%[1]s) || ')' ELSE %[1]s::text END", name, longest, longMark)
	case Long:
		return fmt.Sprintf("CASE WHEN octet_length(%[1]s) > %[2]d THEN '%[3]s' || md5(%[1]s) || ')' ELSE %[1]s END", output(c), longest, longMark)
	}
	return output(c)
}

// valuesSQL reads the values of rows by their keys.
func (r *ValuesRequest) valuesSQL(columns []keyColumn) string {
	parts := make([]string, len(r.Columns))
	for i, c := range r.Columns {
		text := r.Method.text(c)
		switch {
		case !r.Hashed:
			text = shown(c)
		case r.Method.Convert:
			text = "md5(convert_to(" + text + ", 'UTF8'))"
		default:
			text = "md5(" + text + ")"
		}
		parts[i] = text
	}
	item, condition := lookup(columns, r.Keys)
	return fmt.Sprintf("SELECT ARRAY[%s], ARRAY[%s] FROM %s JOIN %s ON %s",
		strings.Join(r.keyTexts(), ", "), strings.Join(parts, ", "), r.from(), item, condition)
}

// written are the columns that a COPY carries.
func written(columns []Column) []string {
	var names []string
	for _, c := range columns {
		if !c.Generated {
			names = append(names, c.Name)
		}
	}
	return names
}

// rowsSQL reads whole rows.
func (r *CopyRequest) rowsSQL(columns []keyColumn) string {
	names := written(r.Columns)
	for i, n := range names {
		names[i] = "t." + sqlname.Quote(n)
	}
	list, from := strings.Join(names, ", "), r.from()
	switch {
	case len(r.Keys) > 0:
		item, condition := lookup(columns, r.Keys)
		return fmt.Sprintf("SELECT %s FROM %s JOIN %s ON %s", list, from, item, condition)
	case r.All:
		return fmt.Sprintf("SELECT %s FROM %s", list, from)
	}
	return fmt.Sprintf("SELECT %s FROM %s WHERE %s", list, from, at(r.Places))
}

// at is the condition that a row lies at one of the places.
func at(places []string) string {
	quoted := make([]string, len(places))
	for i, p := range places {
		quoted[i] = sqlname.Literal(p)
	}
	return "t.ctid = ANY (ARRAY[" + strings.Join(quoted, ",") + "]::text[]::tid[])"
}
