package apply

import (
	"fmt"
	"slices"
	"strings"

	"github.com/twinspan/twinspan/internal/group"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// param is where a parameter's value comes from: a column of the old or of the
// new tuple. Old ones come first, then new ones, each by column, so that a large
// message is passed through once from front to back.
type param struct {
	old    bool
	column int
}

// builder writes a statement for single changes.
type builder struct {
	r      *relation
	params []param
}

// param returns the placeholder of a value.
func (b *builder) param(old bool, column int) string {
	p := param{old, column}
	at := slices.Index(b.params, p)
	if at < 0 {
		at = len(b.params)
		b.params = append(b.params, p)
	}
	return fmt.Sprintf("$%d", at+1)
}

func (b *builder) statement(sql string) *statement { return &statement{sql: sql, params: b.params} }

func (r *relation) sql() string { return r.only + r.name.SQL() }

func (r *relation) names(columns []int) string {
	names := make([]string, len(columns))
	for i, c := range columns {
		names[i] = r.columns[c].name
	}
	return sqlname.Join(names)
}

func (r *relation) isKey(column int) bool {
	return slices.ContainsFunc(r.Key, func(k group.KeyColumn) bool { return k.Column == column })
}

// insertStatement inserts one row.
func (r *relation) insertStatement() *statement {
	b := builder{r: r}
	if len(r.written) == 0 {
		return b.statement("INSERT INTO " + r.name.SQL() + " DEFAULT VALUES")
	}
	values := make([]string, len(r.written))
	for i, c := range r.written {
		values[i] = b.param(false, c)
	}
	return b.statement("INSERT INTO " + r.name.SQL() + " (" + r.names(r.written) + ") OVERRIDING SYSTEM VALUE VALUES (" + strings.Join(values, ", ") + ")")
}

// deleteStatement deletes the row of the key in the old tuple, or in the new one.
func (r *relation) deleteStatement(keyInOld bool) *statement {
	b := builder{r: r}
	return b.statement("DELETE FROM " + r.sql() + " AS t WHERE " + b.key(keyInOld))
}

// key compares the key's columns with the old tuple's, or the new one's.
func (b *builder) key(old bool) string {
	columns := make([]int, len(b.r.Key))
	for i, k := range b.r.Key {
		columns[i] = k.Column
	}
	slices.Sort(columns)
	terms := make([]string, len(columns))
	for i, c := range columns {
		terms[i] = b.equals("t", old, c)
	}
	return strings.Join(terms, " AND ")
}

// equals compares a column of a row with the value of a tuple. The parameter gets the
// column's type, so that the type's input function reads it, whatever the operator takes.
func (b *builder) equals(row string, old bool, column int) string {
	col := &b.r.columns[column]
	return col.compare(row+"."+sqlname.Quote(col.name), b.param(old, column)+"::"+col.typ)
}

// updateStatement updates the row of the key. With keyInOld the key is looked for
// with the old tuple's values and may change. identity says that values of
// columns GENERATED ALWAYS AS IDENTITY are written; otherwise they must be what
// they are, for PostgreSQL refuses to set them.
func (r *relation) updateStatement(unchanged group.Columns, keyInOld, identity bool) *statement {
	b := builder{r: r}
	where := []string{}
	if keyInOld {
		where = append(where, b.key(true))
	}
	var set []string
	for c, col := range r.columns {
		switch {
		case unchanged.Has(c):
		case r.isKey(c) && !keyInOld:
			where = append(where, b.equals("t", false, c))
		case col.generated:
		case col.always && !identity:
			where = append(where, b.equals("t", false, c))
		default:
			set = append(set, sqlname.Quote(col.name)+" = "+b.param(false, c))
		}
	}
	return b.statement(updateSQL(r, set, "", where))
}

// updateSQL writes an UPDATE; one that sets nothing still has to find its rows.
func updateSQL(r *relation, set []string, from string, where []string) string {
	on := strings.Join(where, " AND ")
	if len(set) == 0 {
		if from != "" {
			from = from + ", "
		}
		return "SELECT FROM " + from + r.sql() + " AS t WHERE " + on
	}
	if from != "" {
		from = " FROM " + from
	}
	return "UPDATE " + r.sql() + " AS t SET " + strings.Join(set, ", ") + from + " WHERE " + on
}

// oneRow finds exactly one row that equals the old tuple, the values in null
// excepted, which are NULL. Rows that equal it only by their types' equality
// (1.0 and 1.00) come after one that is the same in every byte. Types without an
// equality are compared by what their output function writes, which format calls and a
// cast to text need not.
func (b *builder) oneRow(null group.Columns) string { return b.someRows(null, 1) }

// someRows finds exactly so many.
func (b *builder) someRows(null group.Columns, some int) string {
	var where, columns, params []string
	for _, c := range b.r.written {
		col := b.r.columns[c]
		name := "x." + sqlname.Quote(col.name)
		if null.Has(c) {
			where = append(where, name+" IS NULL")
			continue
		}
		p := b.param(true, c) + "::" + col.typ
		// Domains are stripped, for record_image_eq wants the same types.
		columns, params = append(columns, name+"::"+col.typ), append(params, p)
		if col.known() {
			where = append(where, b.equals("x", true, c))
		} else {
			where = append(where, output(name)+" OPERATOR(pg_catalog.=) "+output(p))
		}
	}
	if len(where) == 0 {
		where = []string{"true"}
	}
	order := ""
	if len(columns) > 0 {
		order = " ORDER BY pg_catalog.record_image_eq(ROW(" + strings.Join(columns, ", ") + "), ROW(" + strings.Join(params, ", ") + ")) DESC"
	}
	found := fmt.Sprintf(" FROM %s AS x WHERE %s%s LIMIT %d)", b.r.sql(), strings.Join(where, " AND "), order, some)
	if some > 1 && b.r.only == "" {
		return "(t.tableoid, t.ctid) IN (SELECT x.tableoid, x.ctid" + found
	} else if some > 1 {
		return "t.ctid OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT x.ctid" + found + ")"
	}
	if b.r.only == "" { // every partition has its own row of a ctid
		return "(t.tableoid, t.ctid) OPERATOR(pg_catalog.=) (SELECT x.tableoid, x.ctid" + found
	}
	return "t.ctid OPERATOR(pg_catalog.=) (SELECT x.ctid" + found
}

// output is the text that a value's output function writes; the value is not NULL.
func output(sql string) string { return "pg_catalog.format('%s', " + sql + ")" }

// deleteSomeStatement deletes so many rows of a table without a key.
func (r *relation) deleteSomeStatement(null group.Columns, some int) *statement {
	b := builder{r: r}
	return b.statement("DELETE FROM " + r.sql() + " AS t WHERE " + b.someRows(null, some))
}

// updateOneStatement updates one row of a table without a key.
func (r *relation) updateOneStatement(unchanged, null group.Columns, identity bool) *statement {
	b := builder{r: r}
	where := b.oneRow(null)
	var set []string
	for _, c := range r.written {
		col := r.columns[c]
		switch {
		case unchanged.Has(c) || col.always && !identity:
		default:
			set = append(set, sqlname.Quote(col.name)+" = "+b.param(false, c))
		}
	}
	return b.statement(updateSQL(r, set, "", []string{where}))
}

// setUpdateStatement updates many rows by their keys; a parameter is the array of
// a column's values. In text mode elements are text and cast one by one.
func (r *relation) setUpdateStatement(unchanged group.Columns, text bool) *statement {
	var set, where []string
	var columns []int
	for c, col := range r.columns {
		if unchanged.Has(c) || col.generated && !r.isKey(c) {
			continue
		}
		columns = append(columns, c)
		if r.isKey(c) || col.always {
			where = append(where, r.equalsElement("t", c, text))
		} else {
			set = append(set, sqlname.Quote(col.name)+" = "+r.element(c, text))
		}
	}
	return r.setStatement(columns, updateSQL(r, set, r.unnest(columns, text), where))
}

// setDeleteStatement deletes many rows by their keys.
func (r *relation) setDeleteStatement(text bool) *statement {
	columns := make([]int, len(r.Key))
	for i, k := range r.Key {
		columns[i] = k.Column
	}
	if c := columns[0]; len(columns) == 1 && r.columns[c].anyOf(text) {
		cast := "$1::" + r.columns[c].array
		if text {
			cast = "$1::pg_catalog._text::" + r.columns[c].array
		}
		left := r.columns[c].operand("t." + sqlname.Quote(r.columns[c].name))
		return r.setStatement(columns, "DELETE FROM "+r.sql()+" AS t WHERE "+left+" "+r.columns[c].operator+" ANY ("+cast+")")
	}
	where := make([]string, len(columns))
	for i, c := range columns {
		where[i] = r.equalsElement("t", c, text)
	}
	return r.setStatement(columns, "DELETE FROM "+r.sql()+" AS t USING "+r.unnest(columns, text)+" WHERE "+strings.Join(where, " AND "))
}

func (r *relation) setStatement(columns []int, sql string) *statement {
	st := &statement{sql: sql}
	for _, c := range columns {
		st.params = append(st.params, param{column: c})
	}
	return st
}

// anyOf says whether the rows of many values can be found by = ANY of their array, to
// whose elements' type the server coerces them.
func (c *column) anyOf(text bool) bool {
	return c.array != "" && c.collate == "" && (!text || c.textFrom == "text")
}

// equalsElement compares a column of a row with its value in a row of unnest.
func (r *relation) equalsElement(row string, column int, text bool) string {
	col := &r.columns[column]
	return col.compare(row+"."+sqlname.Quote(col.name), r.element(column, text))
}

// textable says whether the columns' values in text form can be elements of arrays: of
// strings, from which each type's input function reads them.
func (r *relation) textable(has func(column int) bool) bool {
	for i := range r.columns {
		if r.columns[i].textFrom == "" && has(i) {
			return false
		}
	}
	return true
}

// element is a column's value in a row of unnest.
func (r *relation) element(column int, text bool) string {
	if text {
		return fmt.Sprintf("v.c%d::%s", column, r.columns[column].typ)
	}
	return fmt.Sprintf("v.c%d", column)
}

func (r *relation) unnest(columns []int, text bool) string {
	arrays, names := make([]string, len(columns)), make([]string, len(columns))
	for i, c := range columns {
		arrays[i] = fmt.Sprintf("$%d::%s", i+1, r.columns[c].array)
		if text {
			arrays[i] = fmt.Sprintf("$%d::pg_catalog._%s", i+1, r.columns[c].textFrom)
		}
		names[i] = fmt.Sprintf("c%d", c)
	}
	return "unnest(" + strings.Join(arrays, ", ") + ") AS v (" + strings.Join(names, ", ") + ")"
}

// arrayable says whether every column that a set-based statement needs can be an
// element of an array. In binary arrays cannot, unnest would flatten them.
func (r *relation) arrayable(unchanged group.Columns, text bool) bool {
	needed := func(i int) bool { return !unchanged.Has(i) && (!r.columns[i].generated || r.isKey(i)) }
	if text {
		return r.textable(needed)
	}
	for i := range r.columns {
		if r.columns[i].array == "" && needed(i) {
			return false
		}
	}
	return true
}

// keyArrayable is arrayable for deletes.
func (r *relation) keyArrayable(text bool) bool {
	if text {
		return r.textable(r.isKey)
	}
	return !slices.ContainsFunc(r.Key, func(k group.KeyColumn) bool { return r.columns[k.Column].array == "" })
}

// copySQL takes rows in bulk.
func (r *relation) copySQL(text bool) string {
	format := "binary"
	if text {
		format = "text"
	}
	return "COPY " + r.name.SQL() + " (" + r.names(r.written) + ") FROM STDIN (FORMAT " + format + ")"
}

// truncateSQL empties tables together; with are further ones, quoted.
func truncateSQL(tables []*relation, with []string, cascade, restart bool) string {
	names := make([]string, len(tables))
	for i, r := range tables {
		names[i] = r.sql()
	}
	names = append(names, with...)
	sql := "TRUNCATE " + strings.Join(names, ", ")
	if restart {
		sql += " RESTART IDENTITY"
	}
	if cascade {
		sql += " CASCADE"
	}
	return sql
}

// emptySQL empties one table and leaves every other alone, also those that refer
// to it; restartSQL sets its own sequences back as TRUNCATE RESTART IDENTITY does.
func (r *relation) emptySQL() string { return "DELETE FROM " + r.sql() }

func (r *relation) restartSQL() string {
	return "SELECT pg_catalog.setval(s.seqrelid::pg_catalog.regclass, s.seqstart, false) FROM pg_catalog.pg_sequence s" +
		" JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = s.seqrelid AND d.deptype IN ('a', 'i')" +
		" WHERE d.refobjid = " + sqlname.Literal(r.name.SQL()) + "::pg_catalog.regclass"
}

// identitySQL lets the values of a relation's generated identities be written, or
// not any more.
func (r *relation) identitySQL(allow bool) string {
	how := "ALWAYS"
	if allow {
		how = "BY DEFAULT"
	}
	parts := make([]string, len(r.always))
	for i, c := range r.always {
		parts[i] = "ALTER COLUMN " + sqlname.Quote(r.columns[c].name) + " SET GENERATED " + how
	}
	return "ALTER TABLE " + r.root.SQL() + " " + strings.Join(parts, ", ")
}
