package lost

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/ddl"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// Plan is what a rejoin has to do about what was lost. All tables are named as
// they are now.
type Plan struct {
	Touched []TouchedTable
	Anew    []AnewTable
	Drop    []DropObject
	Keep    []string // commands that change no rows and stay: grants, comments
	Whole   []string // commands that cannot be undone: the database must be copied anew
}

// TouchedTable is a table of which rows have to be overwritten by their keys.
type TouchedTable struct {
	OID     uint32
	Name    sqlname.Table
	Key     []string
	Equal   []pg.Equality // the key's, for each column
	Changes int64
}

// AnewTable is a table that has to be copied anew.
type AnewTable struct {
	OID   uint32
	Name  sqlname.Table
	Why   Reason
	Bytes int64 // as it is on this side
}

// Reason says why a table has to be copied anew.
type Reason string

// The reasons.
const (
	Truncated Reason = "truncated" // a lost TRUNCATE emptied it
	Rewritten Reason = "rewritten" // a lost schema change gave every row new values
	Keyless   Reason = "keyless"   // its rows cannot be told apart
)

// DropObject is something that a lost command created.
type DropObject struct {
	Kind string // TABLE, INDEX, ...
	Name string // quoted, with its schema

	oid uint32
}

// SQL returns the statement that removes it. What depends on it is as new as it is.
func (d DropObject) SQL() string { return "DROP " + d.Kind + " IF EXISTS " + d.Name + " CASCADE" }

// creating are the commands that drop what they have made, if they are undone.
var creating = []string{"CREATE TABLE", "CREATE TABLE AS", "SELECT INTO", "CREATE INDEX", "CREATE VIEW", "CREATE MATERIALIZED VIEW", "CREATE SEQUENCE", "CREATE SCHEMA"}

// harmless are the commands that change neither rows nor what the stream writes to.
var harmless = []string{"GRANT", "REVOKE", "COMMENT", "ALTER DEFAULT PRIVILEGES", "SECURITY LABEL", "REFRESH MATERIALIZED VIEW"}

// MakePlan works out what a rejoin has to do about a parting whose transactions are
// all recorded.
func MakePlan(ctx context.Context, q catalog.Querier, link string, epoch int64) (*Plan, error) {
	p := &Plan{}
	if err := p.schema(ctx, q, link, epoch); err != nil {
		return nil, err
	}
	if len(p.Whole) > 0 {
		return p, nil
	}
	return p, p.tables(ctx, q, link, epoch)
}

// schema sorts the lost schema changes.
func (p *Plan) schema(ctx context.Context, q catalog.Querier, link string, epoch int64) error {
	rows, err := q.Query(ctx, `SELECT detail FROM twinspan.lost_change WHERE link = $1::text::uuid AND epoch = $2 AND kind = 'schema' ORDER BY number DESC`, link, epoch)
	if err != nil {
		return pg.Classify(err, "read lost schema changes")
	}
	details, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return pg.Classify(err, "read lost schema changes")
	}
	for _, detail := range details {
		change, err := ddl.Parse([]byte(detail))
		if err != nil {
			return err
		}
		text := strings.Join(strings.Fields(string(change.SQL)), " ")
		switch {
		case slices.Contains(harmless, change.Tag):
			p.Keep = append(p.Keep, text)
		case slices.Contains(creating, change.Tag) && !replaces(text):
			if err := p.drop(ctx, q, change); err != nil {
				return err
			}
		default:
			p.Whole = append(p.Whole, text)
		}
	}
	return nil
}

// replaces says whether a command may have changed something that was there.
func replaces(text string) bool {
	return slices.Contains(strings.Fields(strings.ToUpper(text[:min(len(text), len("CREATE OR REPLACE")+1)])), "REPLACE")
}

// droppedSQL finds an object by its identity, as event triggers name it.
const droppedSQL = `
SELECT CASE c.relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'S' THEN 'SEQUENCE' WHEN 'i' THEN 'INDEX' WHEN 'I' THEN 'INDEX' ELSE 'TABLE' END, c.oid
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE $2::text <> 'CREATE SCHEMA' AND c.relkind IN ('r', 'p', 'v', 'm', 'S', 'i', 'I') AND format('%I.%I', n.nspname, c.relname) = $1::text
UNION ALL
SELECT 'SCHEMA', oid FROM pg_catalog.pg_namespace WHERE $2::text = 'CREATE SCHEMA' AND quote_ident(nspname) = $1::text`

// drop finds out what of the objects that a command has made is still there.
func (p *Plan) drop(ctx context.Context, q catalog.Querier, change *ddl.Change) error {
	for _, o := range change.Objects {
		var d DropObject
		err := q.QueryRow(ctx, droppedSQL, string(o), change.Tag).Scan(&d.Kind, &d.oid)
		switch {
		case errors.Is(err, pgx.ErrNoRows):
			continue
		case err != nil:
			return pg.Classify(err, "look for what a lost command has made")
		}
		d.Name = string(o)
		p.Drop = append(p.Drop, d)
	}
	return nil
}

// changedTable is what was lost of a table that is still there.
type changedTable struct {
	oid       uint32
	schema    uint32
	name      sqlname.Table
	bytes     int64
	changes   int64
	truncated bool
	rewritten bool
	columns   []string // those of the key that every change names
}

const changedSQL = `
SELECT c.oid, n.oid, n.nspname, c.relname, pg_catalog.pg_table_size(c.oid), x.changes, x.truncated, x.rewritten,
       ARRAY(SELECT k FROM unnest(x.first_key) AS k WHERE NOT x.differing)
  FROM (SELECT t.oid, sum(w.changes) AS changes, bool_or(w.truncated) AS truncated, bool_or(w.rewritten) AS rewritten,
               min(k.key) FILTER (WHERE w.changes > 0) AS first_key, count(DISTINCT k.key) FILTER (WHERE w.changes > 0) > 1 AS differing
          FROM twinspan.lost_table t
          JOIN (SELECT table_number, count(*) FILTER (WHERE kind IN ('insert', 'update', 'delete')) AS changes,
                       bool_or(kind = 'truncate') AS truncated, bool_or(kind = 'rewrite') AS rewritten
                  FROM twinspan.lost_change WHERE link = $1::text::uuid AND epoch = $2 GROUP BY table_number) w ON w.table_number = t.number
         CROSS JOIN LATERAL (SELECT ARRAY(SELECT t.columns[i + 1] FROM unnest(t.key_columns) AS i) AS key) k
         WHERE t.link = $1::text::uuid AND t.epoch = $2 GROUP BY t.oid) x
  JOIN pg_catalog.pg_class c ON c.oid = x.oid AND c.relkind IN ('r', 'p')
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 ORDER BY n.nspname, c.relname`

// tables decides for each table how it is mended.
func (p *Plan) tables(ctx context.Context, q catalog.Querier, link string, epoch int64) error {
	rows, err := q.Query(ctx, changedSQL, link, epoch)
	if err != nil {
		return pg.Classify(err, "list the tables of lost rows")
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (t changedTable, err error) {
		return t, row.Scan(&t.oid, &t.schema, &t.name.Schema, &t.name.Name, &t.bytes, &t.changes, &t.truncated, &t.rewritten, &t.columns)
	})
	if err != nil {
		return pg.Classify(err, "list the tables of lost rows")
	}
	var major int
	if err := q.QueryRow(ctx, `SELECT current_setting('server_version_num')::int / 10000`).Scan(&major); err != nil {
		return pg.Classify(err, "read the version")
	}
	identities, err := pg.Identities(ctx, q, major)
	if err != nil {
		return err
	}
	for _, t := range list {
		if slices.ContainsFunc(p.Drop, func(d DropObject) bool {
			return d.Kind == "TABLE" && d.oid == t.oid || d.Kind == "SCHEMA" && d.oid == t.schema
		}) {
			continue
		}
		id := identities[t.oid]
		anew := AnewTable{OID: t.oid, Name: t.name, Bytes: t.bytes}
		switch {
		case t.truncated:
			anew.Why = Truncated
		case t.rewritten:
			anew.Why = Rewritten
		case len(id.Columns) == 0 || !id.Exact || !sameSet(id.Columns, t.columns):
			anew.Why = Keyless
		default:
			p.Touched = append(p.Touched, TouchedTable{OID: t.oid, Name: t.name, Key: id.Columns, Equal: id.Equal, Changes: t.changes})
			continue
		}
		p.Anew = append(p.Anew, anew)
	}
	return nil
}

func sameSet(a, b []string) bool {
	a, b = slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b))
	return slices.Equal(a, b)
}
