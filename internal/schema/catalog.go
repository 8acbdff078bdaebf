package schema

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// catalog is what pg_dump's text does not say, or not for certain, read from the
// primary's catalogs at the same snapshot.
type catalog struct {
	version    int
	encoding   string
	hasPublic  bool
	own        map[object]bool // what belongs to links and stays behind
	marks      map[object]mark
	populated  map[uint32]sqlname.Table // materialized views with rows, by oid
	reads      map[uint32][]uint32      // views that a view reads
	roles      []string
	extensions []Extension
	children   map[uint32]*child // tables whose columns stand otherwise than pg_dump puts them, by oid
	props      []Entry
	propRoles  []string // that the properties name
	former     former
}

// object is a row of a system catalog.
type object struct{ class, oid uint32 }

// mark says which tables an index or a constraint is about.
type mark struct {
	table, refers sqlname.Table
	identity      bool
}

func readCatalog(ctx context.Context, conn *pgx.Conn, snapshot string, before bool) (*catalog, error) {
	if _, err := conn.Exec(ctx, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"); err != nil {
		return nil, pg.Classify(err, "begin to read the catalogs")
	}
	defer rollback(ctx, conn)
	if _, err := conn.Exec(ctx, "SET TRANSACTION SNAPSHOT "+sqlname.Literal(snapshot)); err != nil {
		if state := pg.SQLState(err); state == "22023" || state == "55000" || state == "42704" {
			return nil, problem.Wrap(pg.Classify(err, "import"), problem.Transient, "session_lost", "the snapshot is gone")
		}
		return nil, pg.Classify(err, "import the snapshot")
	}
	c := &catalog{own: map[object]bool{}, marks: map[object]mark{}, populated: map[uint32]sqlname.Table{}, reads: map[uint32][]uint32{}}
	if before {
		if err := c.former.read(ctx, conn); err != nil {
			return nil, err
		}
	}
	for _, read := range []func(context.Context, *pgx.Conn) error{
		c.readDatabase, c.readOwn, c.readMarks, c.readViews, c.readChildren, c.readRoles, c.readExtensions, c.readProperties,
	} {
		if err := read(ctx, conn); err != nil {
			return nil, pg.Classify(err, "read the catalogs")
		}
	}
	return c, nil
}

func (c *catalog) readDatabase(ctx context.Context, conn *pgx.Conn) error {
	err := conn.QueryRow(ctx, `SELECT current_setting('server_version_num')::int, current_setting('server_encoding'),
		EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = 'public')`).Scan(&c.version, &c.encoding, &c.hasPublic)
	// The text crosses as JSON. These two know no conversion to UTF-8.
	if c.encoding != "SQL_ASCII" && c.encoding != "MULE_INTERNAL" {
		c.encoding = "UTF8"
	}
	return err
}

// readOwn finds the triggers that links have put on tables, and their event
// triggers. Their publications and their schema pg_dump leaves out by itself.
func (c *catalog) readOwn(ctx context.Context, conn *pgx.Conn) error {
	rows, err := conn.Query(ctx, `
		SELECT t.tableoid, t.oid
		  FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
		 WHERE t.tgname LIKE 'twinspan\_%' OR n.nspname = 'twinspan'
		UNION ALL
		SELECT e.tableoid, e.oid
		  FROM pg_catalog.pg_event_trigger e JOIN pg_catalog.pg_proc p ON p.oid = e.evtfoid JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
		 WHERE e.evtname LIKE 'twinspan\_%' OR n.nspname = 'twinspan'`)
	if err != nil {
		return err
	}
	var o object
	_, err = pgx.ForEachRow(rows, []any{&o.class, &o.oid}, func() error {
		c.own[o] = true
		return nil
	})
	return err
}

// readMarks finds the tables of indexes and constraints.
func (c *catalog) readMarks(ctx context.Context, conn *pgx.Conn) error {
	identities, err := pg.Identities(ctx, conn, c.version/10000)
	if err != nil {
		return err
	}
	rows, err := conn.Query(ctx, `
		SELECT k.tableoid, k.oid, k.conindid, t.oid, n.nspname, t.relname, coalesce(fn.nspname, ''), coalesce(f.relname, '')
		  FROM pg_catalog.pg_constraint k
		  JOIN pg_catalog.pg_class t ON t.oid = k.conrelid JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace
		  LEFT JOIN pg_catalog.pg_class f ON f.oid = k.confrelid AND k.contype = 'f' LEFT JOIN pg_catalog.pg_namespace fn ON fn.oid = f.relnamespace
		 WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'twinspan')
		UNION ALL
		SELECT 'pg_catalog.pg_class'::regclass, i.indexrelid, i.indexrelid, t.oid, n.nspname, t.relname, '', ''
		  FROM pg_catalog.pg_index i
		  JOIN pg_catalog.pg_class t ON t.oid = i.indrelid JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace
		 WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'twinspan')`)
	if err != nil {
		return err
	}
	var o object
	var index, table uint32
	var m mark
	_, err = pgx.ForEachRow(rows, []any{&o.class, &o.oid, &index, &table, &m.table.Schema, &m.table.Name, &m.refers.Schema, &m.refers.Name}, func() error {
		identity, ok := identities[table]
		// A foreign key's conindid is the index that it refers to.
		m.identity = ok && identity.Index == index && m.refers.Name == ""
		c.marks[o] = m
		return nil
	})
	return err
}

// readViews finds what has to be refreshed, and in which order.
func (c *catalog) readViews(ctx context.Context, conn *pgx.Conn) error {
	rows, err := conn.Query(ctx, `
		SELECT c.oid, n.nspname, c.relname
		  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		 WHERE c.relkind = 'm' AND c.relispopulated AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'twinspan')`)
	if err != nil {
		return err
	}
	var view, read uint32
	var name sqlname.Table
	if _, err = pgx.ForEachRow(rows, []any{&view, &name.Schema, &name.Name}, func() error {
		c.populated[view] = name
		return nil
	}); err != nil {
		return err
	}
	rows, err = conn.Query(ctx, `
		SELECT DISTINCT r.ev_class, d.refobjid
		  FROM pg_catalog.pg_rewrite r
		  JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::regclass AND d.objid = r.oid
		                             AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid <> r.ev_class
		  JOIN pg_catalog.pg_class c ON c.oid = d.refobjid AND c.relkind IN ('v', 'm')
		 WHERE r.oid >= 16384
		 ORDER BY 1, 2`)
	if err != nil {
		return err
	}
	_, err = pgx.ForEachRow(rows, []any{&view, &read}, func() error {
		c.reads[view] = append(c.reads[view], read)
		return nil
	})
	return err
}

// readRoles finds every role that something in the database depends on. The one
// that initdb made is in no dependency (pg_shdepend records no pinned objects).
func (c *catalog) readRoles(ctx context.Context, conn *pgx.Conn) error {
	rows, err := conn.Query(ctx, `
		SELECT r.rolname::text
		  FROM pg_catalog.pg_roles r
		 WHERE r.rolname NOT LIKE 'pg\_%'
		   AND (r.oid = 10 OR r.oid IN (SELECT d.refobjid FROM pg_catalog.pg_shdepend d
		         WHERE d.refclassid = 'pg_catalog.pg_authid'::regclass
		           AND d.dbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())))
		 ORDER BY 1`)
	if err != nil {
		return err
	}
	c.roles, err = pgx.CollectRows(rows, pgx.RowTo[string])
	return err
}

func (c *catalog) readExtensions(ctx context.Context, conn *pgx.Conn) error {
	rows, err := conn.Query(ctx, `SELECT e.extname::text, e.extversion, n.nspname::text
		FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace ORDER BY 1`)
	if err != nil {
		return err
	}
	c.extensions, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Extension])
	return err
}
