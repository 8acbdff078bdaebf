package seed

import (
	"context"
	"fmt"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/rights"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// tablesSQL lists ordinary tables and partitions, those of extensions
// too: the stream brings changes of all their rows, whoever wrote these. Catalogs are
// read like any table, at the snapshot: relfilenode is the file of then. The argument is
// the kinds of persistence that count.
const tablesSQL = `
SELECT c.oid, n.nspname, c.relname, c.relfilenode,
       coalesce(pg_relation_size(c.oid) / current_setting('block_size')::int, 0),
       coalesce(pg_table_size(c.oid), 0),
       EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.objsubid = 0
                  AND d.refclassid = 'pg_catalog.pg_extension'::regclass AND d.deptype = 'e')
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind = 'r' AND c.relpersistence = ANY ($1::text[]::"char"[]) AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'twinspan')
 ORDER BY n.nspname, c.relname`

// columnsSQL lists columns that can be written. Of the types that users and
// extensions made only these are binary: enums, whose binary form is the label,
// domains over these and over built-in types, and ranges of built-in types. Which
// of the others are not is in pg.UnportableTypes. The argument is the condition that leaves
// generated columns out.
const columnsSQL = `
SELECT a.attrelid, n.nspname, c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.atttypid,
       coalesce(t.oid < 16384 OR t.typtype = 'e' OR t.typtype = 'd' AND (b.oid < 16384 OR b.typtype = 'e') OR t.typtype = 'r' AND r.rngsubtype < 16384, false)
  FROM pg_catalog.pg_attribute a
  JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
  LEFT JOIN pg_catalog.pg_type b ON b.oid = t.typbasetype
  LEFT JOIN pg_catalog.pg_range r ON r.rngtypid = t.oid
 WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'twinspan')
   AND a.attnum > 0 AND NOT a.attisdropped %s
 ORDER BY a.attrelid, a.attnum`

// hashedSQL finds partitioned tables that spread rows by the hash of an enum. It
// is computed from oids (hashenum), so that the same row belongs to different
// partitions on different servers.
const hashedSQL = `
SELECT n.nspname, c.relname
  FROM pg_catalog.pg_partitioned_table p
  JOIN pg_catalog.pg_class c ON c.oid = p.partrelid
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY (p.partattrs::int2[])
  JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
  LEFT JOIN pg_catalog.pg_type b ON b.oid IN (t.typbasetype, t.typelem)
 WHERE p.partstrat = 'h' AND 'e' IN (t.typtype, b.typtype)
 ORDER BY 1, 2 LIMIT 1`

// Plan lists the tables to copy as they are at the snapshot. It is read once for
// a session.
func (s *Session) Plan(ctx context.Context) ([]Table, error) {
	conn, err := s.dsn.Connect(ctx, pg.Session{Name: s.name + "/plan", Settings: map[string]string{"client_encoding": "UTF8"}})
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if _, err := conn.Exec(ctx, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"); err != nil {
		return nil, pg.Classify(err, "begin to plan")
	}
	if _, err := conn.Exec(ctx, "SET TRANSACTION SNAPSHOT "+sqlname.Literal(s.Snapshot)); err != nil {
		return nil, snapshotError(err)
	}
	if err := refuseHashedEnums(ctx, conn, s.ServerVersion); err != nil {
		return nil, err
	}
	list, err := readTables(ctx, conn, s.ServerVersion, s.Unlogged, s.Unguarded)
	if err != nil {
		return nil, pg.Classify(err, "list the tables")
	}
	tables := make([]Table, len(list))
	plan := make(map[uint32]*Table, len(list))
	for i, t := range list {
		tables[i] = *t
		plan[t.OID] = t
	}
	s.mu.Lock()
	s.plan = plan
	s.mu.Unlock()
	return tables, nil
}

func refuseHashedEnums(ctx context.Context, conn *pgx.Conn, version int) error {
	if version < 110000 {
		return nil // there was no partitioning by hash
	}
	var name sqlname.Table
	switch err := conn.QueryRow(ctx, hashedSQL).Scan(&name.Schema, &name.Name); err {
	case pgx.ErrNoRows:
		return nil
	case nil:
		return problem.New(problem.Incompatible, "partitioned_by_hash_of_enum",
			"%s is partitioned by the hash of an enum, which is another one on every server", name).On(name.String()).
			WithHint("partition it by list, or by the hash of a text or number")
	default:
		return pg.Classify(err, "look at partitioned tables")
	}
}

func readTables(ctx context.Context, conn *pgx.Conn, version int, unlogged, unguarded bool) ([]*Table, error) {
	persistence := []string{"p"}
	if unlogged {
		persistence = append(persistence, "u")
	}
	rows, err := conn.Query(ctx, tablesSQL, persistence)
	if err != nil {
		return nil, err
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (*Table, error) {
		t := &Table{}
		return t, row.Scan(&t.OID, &t.Name.Schema, &t.Name.Name, &t.Filenode, &t.Blocks, &t.Bytes, &t.Extended)
	})
	if err != nil {
		return nil, err
	}
	columns, err := readColumns(ctx, conn, version, nil)
	if err != nil {
		return nil, err
	}
	identities, err := pg.Identities(ctx, conn, version/10000)
	if err != nil {
		return nil, err
	}
	oids := make([]uint32, len(list))
	for i, t := range list {
		oids[i] = t.OID
	}
	code, err := rights.Of(ctx, conn, oids)
	if err != nil {
		return nil, err
	}
	supers, err := superusers(ctx, conn)
	if err != nil {
		return nil, err
	}
	for _, t := range list {
		t.Columns = columns[t.Name]
		// Ranges of ctid are scanned as ranges from 14 on (nodeTidrangescan.c).
		t.Ranges = version >= 140000 && !t.Extended
		if id, ok := identities[t.OID]; ok && id.Exact {
			for i := range id.Columns {
				t.Key = append(t.Key, KeyColumn{Name: id.Columns[i], Equal: id.Equal[i].Operator, Cast: id.Equal[i].Cast})
			}
		}
		if code[t.OID].Code || unguarded && !supers[code[t.OID].Owner] {
			// To plan any query on it runs code of users, or may by the time it is planned. COPY
			// of all of it plans none, so it is copied as a whole, and again so when the snapshot is lost.
			t.Ranges, t.Key = false, nil
		}
		if !utf8.ValidString(t.Name.Schema + t.Name.Name) {
			return nil, problem.New(problem.Incompatible, "name_encoding", "a table's name is no valid UTF-8").On(fmt.Sprint(t.OID))
		}
	}
	return list, nil
}

func superusers(ctx context.Context, conn *pgx.Conn) (map[string]bool, error) {
	rows, err := conn.Query(ctx, `SELECT rolname::text FROM pg_catalog.pg_roles WHERE rolsuper`)
	if err != nil {
		return nil, err
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	all := map[string]bool{}
	for _, n := range names {
		all[n] = true
	}
	return all, err
}

// readColumns lists the columns to copy of every table of a database, in order. Values
// that hold one of the types in asText must cross as text besides those that always must.
func readColumns(ctx context.Context, conn *pgx.Conn, version int, asText []uint32) (map[sqlname.Table][]Column, error) {
	unportable, err := pg.UnportableTypes(ctx, conn, asText...)
	if err != nil {
		return nil, err
	}
	generated := ""
	if version >= 120000 {
		generated = "AND a.attgenerated = ''"
	}
	rows, err := conn.Query(ctx, fmt.Sprintf(columnsSQL, generated))
	if err != nil {
		return nil, err
	}
	columns := map[sqlname.Table][]Column{}
	var oid, typ uint32
	var name sqlname.Table
	var c Column
	_, err = pgx.ForEachRow(rows, []any{&oid, &name.Schema, &name.Name, &c.Name, &c.Type, &typ, &c.Binary}, func() error {
		c.Binary = c.Binary && !unportable[typ]
		columns[name] = append(columns[name], c)
		return nil
	})
	return columns, err
}
