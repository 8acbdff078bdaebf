package seed

import (
	"context"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/rights"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// fenced are the twin's tables at which code of users runs when a row is written
// (docs/design/0017-rights.md).
type fenced struct {
	owners   map[sqlname.Table]rights.Table
	settings []rights.Setting
}

// readFenced looks which tables of the twin have to be written with their owner's rights.
func (t *Target) readFenced(ctx context.Context, conn *pgx.Conn, list []job) (*fenced, error) {
	f := &fenced{owners: map[sqlname.Table]rights.Table{}}
	rows, err := conn.Query(ctx, `SELECT c.oid, n.nspname, c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relkind = 'r' AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'twinspan')`)
	if err != nil {
		return nil, pg.Classify(err, "list the twin's tables")
	}
	wanted := map[sqlname.Table]bool{}
	for _, j := range list {
		wanted[j.table.Name] = true
	}
	names := map[uint32]sqlname.Table{}
	var oids []uint32
	var oid uint32
	var name sqlname.Table
	_, err = pgx.ForEachRow(rows, []any{&oid, &name.Schema, &name.Name}, func() error {
		if wanted[name] {
			names[oid], oids = name, append(oids, oid)
		}
		return nil
	})
	if err != nil {
		return nil, pg.Classify(err, "list the twin's tables")
	}
	code, err := rights.Of(ctx, conn, oids)
	if err != nil {
		return nil, err
	}
	for oid, table := range code {
		if table.Code {
			f.owners[names[oid]] = table
		}
	}
	if len(f.owners) > 0 {
		f.settings, err = rights.Ordinary(ctx, t.DSN, t.Name)
	}
	return f, err
}

// jobs are those of tables at which code of users runs, or of all others.
func (f *fenced) jobs(list []job, code bool) []job {
	return slices.DeleteFunc(slices.Clone(list), func(j job) bool {
		_, is := f.owners[j.table.Name]
		return is != code
	})
}

// appendFenced copies a table over a temporary one, whose columns are strings as the rows
// come, and from there with the rights of the table's owner, inside of whose fence the
// types' input functions read them.
func (c *copying) appendFenced(ctx context.Context, t *table, owner rights.Table, r CopyRequest, moved *atomic.Int64) (int64, error) {
	fail := func(err error, what string) (int64, error) {
		if p := rights.Problem(err, owner.Owner, t.Name.String()); p != nil {
			return 0, p
		}
		return 0, pg.Classify(err, what+" "+t.Name.String())
	}
	kept := []string(nil)
	for _, column := range c.columns[t.Name] {
		if column.Type == "money" {
			kept = []string{"lc_monetary"} // its input function goes by it
		}
	}
	read, err := c.readings(ctx, t.Name)
	if err != nil {
		return fail(err, "look at the types of")
	}
	columns, values := make([]string, len(r.Columns)), make([]string, len(r.Columns))
	for i, name := range r.Columns {
		columns[i] = sqlname.Quote(name) + " pg_catalog." + read[name].from
		values[i] = read[name].value("s." + sqlname.Quote(name))
	}
	r.Binary = false
	runner := rights.NewRunner(owner.Owner, rights.Without(c.fenced.settings, kept...))
	before := append(runner.Make(), "CREATE TEMPORARY TABLE twinspan_seed ("+strings.Join(columns, ", ")+") ON COMMIT DROP",
		"GRANT SELECT ON "+staging+" TO "+sqlname.Quote(owner.Owner))
	for _, sql := range before {
		if err := c.exec(ctx, sql); err != nil {
			return fail(err, "prepare the copy of")
		}
	}
	rows, err := c.stream(ctx, staging, t.Name, r, "", moved)
	if err != nil {
		return rows, err
	}
	names := ""
	if len(r.Columns) > 0 {
		names = " (" + sqlname.Join(r.Columns) + ") OVERRIDING SYSTEM VALUE"
	}
	after := owner.Around("ONLY "+t.Name.SQL(), runner.Run("INSERT INTO "+t.Name.SQL()+names+" SELECT "+strings.Join(values, ", ")+" FROM "+staging+" AS s", t.Name))
	for _, sql := range append(after, rights.Check) {
		if err := c.exec(ctx, sql); err != nil {
			return c.refused(t.Name, owner, err)
		}
	}
	return rows, nil
}

// reading is how a column's text is read by its type's input function, whatever casts from strings somebody has made.
type reading struct {
	from string // the string type that it is cast from
	to   string // the type that it is cast to
	item bool   // of which it is the only item: there are casts from all string types
}

// value is the value of a column of strings.
func (r reading) value(column string) string {
	if !r.item {
		return column + "::" + r.to
	}
	return "CASE WHEN " + column + " IS NOT NULL THEN (pg_catalog.concat('{\"', pg_catalog.replace(pg_catalog.replace(" + column + `, E'\\', E'\\\\'), '"', E'\\"'), '"}')::` + r.to + ")[1] END"
}

// readingsSQL says how the columns of a table are read. A cast from a string type is one by the type's input function (manual,
// CREATE CAST, "I/O conversion casts") unless there is one with a function for just that string type. Those of the server's own read as input does.
const readingsSQL = `WITH RECURSIVE base AS (
	SELECT a.attname, a.atttypid AS declared, a.atttypmod AS modifier, a.atttypid AS type FROM pg_catalog.pg_attribute a WHERE a.attrelid = $1::text::pg_catalog.regclass AND a.attnum > 0 AND NOT a.attisdropped
	UNION ALL SELECT b.attname, b.declared, b.modifier, t.typbasetype FROM base b JOIN pg_catalog.pg_type t ON t.oid = b.type WHERE t.typtype = 'd'),
 chosen AS (
	SELECT b.attname, b.declared, b.modifier, t.typarray, (SELECT s.name FROM (VALUES (1, 25, 'text'), (2, 1043, 'varchar'), (3, 1042, 'bpchar')) s (number, type, name)
		WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_cast x WHERE x.castsource = s.type::oid AND x.casttarget = t.oid AND x.castmethod = 'f' AND x.oid >= 16384) ORDER BY s.number LIMIT 1) AS name
	  FROM base b JOIN pg_catalog.pg_type t ON t.oid = b.type WHERE t.typtype <> 'd')
SELECT attname::text, coalesce(name, 'text'), CASE WHEN name IS NULL AND typarray <> 0 THEN pg_catalog.format_type(typarray, NULL) ELSE pg_catalog.format_type(declared, modifier) END, name IS NULL AND typarray <> 0 FROM chosen`

// readings looks how the columns of a table are read.
func (c *copying) readings(ctx context.Context, name sqlname.Table) (map[string]reading, error) {
	rows, err := c.conn.Query(ctx, readingsSQL, name.SQL())
	if err != nil {
		return nil, err
	}
	list := map[string]reading{}
	var column string
	var r reading
	_, err = pgx.ForEachRow(rows, []any{&column, &r.from, &r.to, &r.item}, func() error {
		list[column] = r
		return nil
	})
	return list, err
}

// refused sorts an error of rows that were written inside of a fence.
func (c *copying) refused(name sqlname.Table, owner rights.Table, err error) (int64, error) {
	if p := rights.Problem(err, owner.Owner, name.String()); p != nil {
		return 0, p
	}
	if pg.SQLState(err) == "42501" {
		return 0, problem.Wrap(pg.Classify(err, "the server refuses"), problem.Incompatible, "owner_lacks_right", "rows of %s with the rights of role %s, who owns the table", name, owner.Owner).
			On(name.String()).WithHint("functions of users run when a row of this table is written, so rows are written with its owner's rights: on the secondary, GRANT role %s the right that the server names, as on the primary, then resume the link", owner.Owner)
	}
	return 0, targetError(name, err)
}
