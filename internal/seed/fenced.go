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
	types := map[string]string{}
	for _, column := range c.columns[t.Name] {
		types[column.Name] = column.Type
		if column.Type == "money" {
			kept = []string{"lc_monetary"} // its input function goes by it
		}
	}
	columns, values := make([]string, len(r.Columns)), make([]string, len(r.Columns))
	for i, name := range r.Columns {
		columns[i] = sqlname.Quote(name) + " pg_catalog.text"
		values[i] = "s." + sqlname.Quote(name) + "::" + types[name]
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
	after := runner.Run("INSERT INTO "+t.Name.SQL()+names+" SELECT "+strings.Join(values, ", ")+" FROM "+staging+" AS s", t.Name)
	if owner.Forced { // his policies would bind him
		after = rights.Unforced("ONLY "+t.Name.SQL(), after)
	}
	for _, sql := range append(after, rights.Check) {
		if err := c.exec(ctx, sql); err != nil {
			return c.refused(t.Name, owner, err)
		}
	}
	return rows, nil
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
