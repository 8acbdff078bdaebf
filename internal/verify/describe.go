package verify

import (
	"context"
	_ "embed"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/sqlname"
)

//go:embed fingerprint.sql
var fingerprintSQL string

// aclSQL lists grants of an aclexplode named a. MAINTAIN is in the default of
// newer versions alone.
const aclSQL = `coalesce(string_agg(DISTINCT (', ' || CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(a.grantee)::text END || ' may ' || a.privilege_type ||
	CASE WHEN a.is_grantable THEN ' and grant it' ELSE '' END) COLLATE "C", '') FILTER (WHERE a.privilege_type <> 'MAINTAIN'), '')`

// keptModes has the query say of the triggers, rules and event triggers of a twin how
// they are enabled when they are not put aside (gate.PutAside).
var keptModes = strings.NewReplacer(
	"u.tgenabled = t.tgenabled", keptMode("pg_trigger", "u.oid", "u.tgenabled")+" = "+keptMode("pg_trigger", "t.oid", "t.tgenabled"),
	"t.tgenabled::text", keptMode("pg_trigger", "t.oid", "t.tgenabled"),
	"ev_class, ev_enabled, pg_get_ruledef", "ev_class, "+keptMode("pg_rewrite", "pg_rewrite.oid", "ev_enabled")+" AS ev_enabled, pg_get_ruledef",
	"evtfoid::regproc::text, evtenabled", "evtfoid::regproc::text, "+keptMode("pg_event_trigger", "e.oid", "e.evtenabled"))

func keptMode(class, oid, mode string) string {
	return `coalesce((SELECT m.mode FROM twinspan.trigger_mode m WHERE m.class = '` + class + `'::regclass AND m.object = ` + oid + ` AND ` + mode + ` = 'O'), ` + mode + `)::text`
}

// fingerprint completes the query for a server. The schema twinspan may be missing. What was
// dropped while the query ran has no text: the functions that print definitions look
// at the catalogs as they are now, whatever the snapshot.
func fingerprint(version int, identities, kept bool) string {
	was, statistics := "(SELECT NULL::oid AS oid, NULL::text AS was, NULL::name AS was_index WHERE false)", "NULL::text"
	if identities {
		was = "twinspan.identity"
	}
	if version >= 140000 {
		statistics = `'expressions ' || (SELECT string_agg(E'\x01r' || x || E'\x02', ', ' ORDER BY n) FROM unnest(pg_get_statisticsobjdef_expressions(s.oid)) WITH ORDINALITY AS x (x, n))`
	}
	with := []string{"/*acl*/", aclSQL, "/*identity*/", was, "/*statistics*/", statistics}
	for _, of := range []pg.OptionsOf{pg.ColumnOptions, pg.RelationOptions, pg.IndexOptions, pg.OperatorOptions} {
		with = append(with, "/*options of "+string(of)+"*/", "'{"+strings.Join(pg.KnownOptions(of), ",")+"}'::text[]")
	}
	inner := strings.NewReplacer(with...).Replace(fingerprintSQL)
	if kept {
		inner = keptModes.Replace(inner)
	}
	return `SELECT kind, coalesce(name, ''), coalesce(detail, ''), printed, invalid, schema_name, table_name, coalesce(object, ''), coalesce(definition, ''), coalesce(index_definition, ''),
		coalesce(owner, ''), coalesce(reread, ''), name IS NULL OR detail IS NULL
		FROM (` + inner + `) x (kind, name, detail, printed, invalid, schema_name, table_name, object, definition, index_definition, owner, reread)`
}

// tablesSQL lists the tables and materialized views, with why one's rows are not
// compared, and whether they can be nonetheless.
const tablesSQL = `
SELECT c.oid, n.nspname, c.relname, c.relfilenode, pg_relation_size(c.oid) / current_setting('block_size')::int, pg_table_size(c.oid), c.reltuples::bigint,
       CASE WHEN c.relpersistence = 'u' THEN 'unlogged tables are not kept in step'
            WHEN NOT c.relispopulated THEN 'it is not populated'
            WHEN c.relkind = 'm' THEN 'it is a materialized view'
            ELSE '' END,
       CASE WHEN o.rolsuper THEN '' ELSE o.rolname END, c.relrowsecurity AND c.relforcerowsecurity,
       c.relkind = 'm', c.relkind = 'm' AND c.relispopulated AND c.relpersistence = 'p'
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_roles o ON o.oid = c.relowner
 WHERE c.relkind IN ('r', 'm') AND c.relpersistence <> 't' AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'twinspan')
 ORDER BY 2, 3`

// columnsSQL lists the columns of those tables. A type below a domain decides on
// the family.
const columnsSQL = `
WITH RECURSIVE base AS (
    SELECT oid, oid AS base, typbasetype, typlen FROM pg_type
    UNION ALL
    SELECT b.oid, t.oid, t.typbasetype, t.typlen FROM base b JOIN pg_type t ON t.oid = b.typbasetype WHERE b.typbasetype <> 0
)
SELECT a.attrelid, a.attname, format_type(a.atttypid, a.atttypmod),
       CASE WHEN b.base = 17 THEN 'bytes' WHEN b.base IN (700, 701) THEN 'float'
            WHEN b.typlen <> -1 OR b.base IN (650, 869, 1700) THEN 'plain' ELSE 'long' END,
       coalesce(to_jsonb(a)->>'attgenerated', '') <> '', b.base >= 16384 OR b.base = 142 OR b.base = 1042 AND a.atttypmod = -1
  FROM pg_attribute a
  JOIN pg_class c ON c.oid = a.attrelid AND c.relkind IN ('r', 'm') AND c.relpersistence = 'p'
  JOIN base b ON b.oid = a.atttypid AND b.typbasetype = 0
  JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE a.attnum > 0 AND NOT a.attisdropped AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'twinspan')
 ORDER BY a.attrelid, a.attnum`

// known is a table as this side knows it.
type known struct {
	Table
	oid, filenode uint32
	blocks        int64
	key           []keyColumn
	owner         string // unless that is a superuser, who runs what he likes
	forced        bool   // policies would hide rows from the owner
}

// Describe implements Side.
func (s *Snapshot) Describe(ctx context.Context) (*Database, error) { return s.describe(ctx, true) }

// Contents is Describe without the objects of the schema, which take longest to read.
func (s *Snapshot) Contents(ctx context.Context) (*Database, error) { return s.describe(ctx, false) }

func (s *Snapshot) describe(ctx context.Context, objects bool) (*Database, error) {
	d := &Database{Format: Format, Spans: true}
	err := s.piece(ctx, nil, false, func(r *reader) error {
		conn := r.conn
		var identities bool
		err := conn.QueryRow(ctx, `SELECT current_setting('server_version_num')::int, current_setting('server_encoding'),
			to_regclass('twinspan.identity') IS NOT NULL, (SELECT count(*) FROM pg_largeobject_metadata), pg_table_size('pg_largeobject')`).
			Scan(&d.ServerVersion, &d.Encoding, &identities, &d.LargeObjects, &d.LargeObjectBytes)
		if err != nil {
			return err
		}
		if d.ServerVersion >= 110000 {
			if err := conn.QueryRow(ctx, `SELECT hashtextextended('Twinspan'::text COLLATE "C", 42)::text`).Scan(&d.Probe); err != nil {
				return err
			}
		}
		if objects {
			if d.Entries, _, err = readEntries(ctx, conn, d.ServerVersion, identities); err != nil {
				return err
			}
		}
		tables, err := readTables(ctx, conn, d.ServerVersion)
		if err != nil {
			return err
		}
		s.learn(d.ServerVersion, tables)
		for _, t := range tables {
			d.Tables = append(d.Tables, t.Table)
		}
		return nil
	})
	return d, err
}

// readEntries reads the objects of the schema. The query looks so expensive to the
// server that it would compile it, which takes longer than all the rest.
func readEntries(ctx context.Context, q querier, version int, identities bool) (list []Entry, unknown []Unknown, err error) {
	var off int
	if err := q.QueryRow(ctx, `SELECT count(set_config(name, 'off', true)) FROM pg_settings WHERE name = 'jit'`).Scan(&off); err != nil {
		return nil, nil, err
	}
	var kept bool
	if err := q.QueryRow(ctx, `SELECT to_regclass('twinspan.trigger_mode') IS NOT NULL`).Scan(&kept); err != nil {
		return nil, nil, err
	}
	rows, err := q.Query(ctx, fingerprint(version, identities, kept))
	if err != nil {
		return nil, nil, err
	}
	var e Entry
	_, err = pgx.ForEachRow(rows, []any{&e.Kind, &e.Name, &e.Detail, &e.Printed, &e.Invalid, &e.Table.Schema, &e.Table.Name, &e.Object, &e.Definition, &e.Index,
		&e.Owner, &e.Reread, &e.Unsettled}, func() error {
		if e.Kind == "unknown option" {
			unknown = append(unknown, Unknown{Name: e.Name, Of: e.Detail})
		} else {
			list = append(list, e)
		}
		return nil
	})
	return list, unknown, err
}

// readTables reads the tables with their columns and keys.
func readTables(ctx context.Context, conn *pgx.Conn, version int) ([]*known, error) {
	identities, err := pg.Identities(ctx, conn, version/10000)
	if err != nil {
		return nil, err
	}
	rows, err := conn.Query(ctx, tablesSQL)
	if err != nil {
		return nil, err
	}
	byOID := map[uint32]*known{}
	tables, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (*known, error) {
		t := &known{}
		err := row.Scan(&t.oid, &t.Name.Schema, &t.Name.Name, &t.filenode, &t.blocks, &t.Bytes, &t.Rows, &t.Skip, &t.owner, &t.forced, &t.View, &t.Stored)
		byOID[t.oid] = t
		return t, err
	})
	if err != nil {
		return nil, err
	}
	if rows, err = conn.Query(ctx, columnsSQL); err != nil {
		return nil, err
	}
	var oid uint32
	var c Column
	_, err = pgx.ForEachRow(rows, []any{&oid, &c.Name, &c.Type, &c.Family, &c.Generated, &c.Made}, func() error {
		if t := byOID[oid]; t != nil {
			t.Columns = append(t.Columns, c)
		}
		return nil
	})
	for _, t := range tables {
		id, have := identities[t.oid]
		if !have {
			continue
		}
		for i, name := range id.Columns {
			t.Key = append(t.Key, name)
			t.key = append(t.key, keyColumn{name: name, equal: id.Equal[i]})
		}
	}
	return tables, err
}

// keyOf returns how this side finds rows by a key that the other side chose, which
// need not be a key here.
func (t *known) keyOf(names []string) []keyColumn {
	list := make([]keyColumn, len(names))
	for i, name := range names {
		list[i] = keyColumn{name: name}
		for _, k := range t.key {
			if k.name == name {
				list[i] = k
			}
		}
	}
	return list
}

// largeObjectsKnown stands for the large objects among the tables.
func largeObjectsKnown() *known {
	loid := Column{Name: "loid", Type: "oid", Family: Plain}
	return &known{
		Table: Table{Name: largeObjects, Columns: []Column{loid, {Name: "data", Type: "text", Family: Plain}}, Key: []string{"loid"}},
		key:   []keyColumn{{name: "loid", equal: pg.EqualityOf("oid")}},
	}
}

// tableOf returns a table of this side.
func (s *Snapshot) tableOf(ctx context.Context, name sqlname.Table) (*known, error) {
	if IsLargeObjects(name) {
		return largeObjectsKnown(), nil
	}
	if err := s.know(ctx); err != nil {
		return nil, err
	}
	s.mu.Lock()
	t := s.tables[name]
	s.mu.Unlock()
	if t == nil {
		return nil, changed(name)
	}
	return t, nil
}

// know reads the tables unless that was done.
func (s *Snapshot) know(ctx context.Context) error {
	s.mu.Lock()
	have := s.tables != nil
	s.mu.Unlock()
	if have {
		return nil
	}
	return s.piece(ctx, nil, false, func(r *reader) error {
		conn := r.conn
		var version int
		if err := conn.QueryRow(ctx, `SELECT current_setting('server_version_num')::int`).Scan(&version); err != nil {
			return err
		}
		tables, err := readTables(ctx, conn, version)
		if err == nil {
			s.learn(version, tables)
		}
		return err
	})
}
