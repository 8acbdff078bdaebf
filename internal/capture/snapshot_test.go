package capture_test

import (
	"context"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// oldSnapshot begins a transaction of a role that sees what there is now, and nothing that comes.
func oldSnapshot(t *testing.T, dsn, role string) *pgx.Conn {
	t.Helper()
	conn := as(t, dsn, role)
	must(t, conn, `SET search_path = public`)
	must(t, conn, `BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1`)
	return conn
}

// A schema change under a snapshot that is older than the link, or than what it does now, is refused as a conflict:
// triggers could not see the link, and would let it pass unsaid.
func TestSchemaChangeUnderAnOldSnapshot(t *testing.T) {
	for _, major := range []int{10, 15, 18} {
		server := pgtest.Start(t, pgtest.WithMajor(major))
		dsn, s := fresh(t, server)
		pgtest.Exec(t, dsn, `CREATE ROLE app LOGIN; GRANT CREATE ON SCHEMA public TO app; SET ROLE app; CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE d (id int)`)
		conflicts := func(conn *pgx.Conn, sql string) {
			t.Helper()
			must(t, conn, `SAVEPOINT here`)
			if _, err := conn.Exec(testContext(t), sql); pg.SQLState(err) != "40001" {
				t.Errorf("%d: %s: %v", major, sql, err)
			}
			must(t, conn, `ROLLBACK TO here`)
		}
		before := oldSnapshot(t, dsn, "app")
		prepare(t, s)
		for _, sql := range []string{`ALTER TABLE t ADD COLUMN a int`, `CREATE TABLE n (id int)`, `CREATE INDEX ON t (id)`, `DROP TABLE d`, `COMMENT ON TABLE t IS 'x'`, `GRANT SELECT ON t TO PUBLIC`} {
			conflicts(before, sql)
		}
		must(t, before, `CREATE TEMPORARY TABLE mine (id int); DROP TABLE mine; COMMIT; ALTER TABLE t ADD COLUMN b int`)

		linked := oldSnapshot(t, dsn, "app")
		conn := connect(t, dsn)
		l := &catalog.Link{ID: s.Link, Agent: idOf(1), PeerAgent: idOf(2), Name: "sales", Peer: "berlin", PeerDatabase: "sales", Role: "primary", Phase: "seeding", Epoch: 1, Mode: "async"}
		if err := catalog.Insert(testContext(t), conn, l); err != nil {
			t.Fatal(err)
		}
		conflicts(linked, `ALTER TABLE t ADD COLUMN a int`)
		must(t, linked, `ROLLBACK`)

		// What is undone is no change, and neither is what triggers do not ask for.
		seeding := oldSnapshot(t, dsn, "app")
		must(t, conn, `BEGIN; UPDATE twinspan.link SET phase = 'replicating'; ROLLBACK`)
		must(t, seeding, `COMMENT ON TABLE t IS 'y'; ROLLBACK; BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1`)
		must(t, conn, `UPDATE twinspan.link SET notices = '[]'`)
		must(t, seeding, `COMMENT ON TABLE t IS 'z'`)
		must(t, conn, `SET session_replication_role = replica; UPDATE twinspan.link SET phase = 'replicating'`)
		conflicts(seeding, `CREATE INDEX ON t (id)`)
		must(t, seeding, `ROLLBACK; BEGIN ISOLATION LEVEL SERIALIZABLE; CREATE INDEX ON t (id); COMMIT`)
		remove(t, s, true)
		if left := pgtest.Query(t, dsn, `SELECT tgname FROM pg_trigger WHERE NOT tgisinternal UNION ALL SELECT proname FROM pg_proc WHERE proname IN ('refuse_stale', 'on_link_change')`); len(left) > 0 {
			t.Errorf("%d: left behind: %v", major, left)
		}
	}
}

// The planner sees what has been put at a table since the snapshot, and queries do not: it runs with the owner's rights.
func TestTryingUnderAnOldSnapshot(t *testing.T) {
	for _, major := range []int{12, 15, 18} {
		server := pgtest.Start(t, pgtest.WithMajor(major))
		dsn, s := fresh(t, server)
		pgtest.Exec(t, dsn, `CREATE ROLE app LOGIN; GRANT CREATE ON SCHEMA public TO app; SET ROLE app;
			CREATE FUNCTION spy(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN
				IF (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN ALTER ROLE app SUPERUSER; END IF; RETURN 1; END $$;
			CREATE TABLE t (id int PRIMARY KEY, v int)`)
		prepare(t, s)
		conn := oldSnapshot(t, dsn, "app")
		pgtest.Exec(t, dsn, `SET SESSION AUTHORIZATION app; CREATE INDEX late ON t (id) WHERE spy(1) = 1; RESET SESSION AUTHORIZATION; DELETE FROM twinspan.touched`)
		must(t, conn, `ALTER TABLE t ADD COLUMN w int; ALTER TABLE t ALTER COLUMN w SET DEFAULT 1; COMMIT`)
		if rows := pgtest.Query(t, dsn, `SELECT rolsuper FROM pg_roles WHERE rolname = 'app'`); rows[0][0] != "f" {
			t.Errorf("%d: app is superuser", major)
		}
	}
}

// Whether a default gives the same everywhere is not told from a function as it was at an old snapshot.
func TestVolatileSinceAnOldSnapshot(t *testing.T) {
	dsn, s, next := listening(t)
	pgtest.Exec(t, dsn, `CREATE FUNCTION public.f() RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN 1000000 * random(); END'`,
		`CREATE TABLE public.filled (id int PRIMARY KEY); INSERT INTO public.filled VALUES (1), (2)`, `INSERT INTO twinspan.twin_format VALUES ('`+s.Link+`', 2) ON CONFLICT DO NOTHING`)
	next()
	conn := connect(t, dsn)
	must(t, conn, `BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1`)
	// As ALTER FUNCTION would, but without a signal.
	pgtest.Exec(t, dsn, `UPDATE pg_proc SET provolatile = 'v' WHERE proname = 'f'`)
	must(t, conn, `ALTER TABLE public.filled ADD COLUMN v int DEFAULT public.f(); COMMIT`)
	var sent int
	for _, m := range next() {
		if m.kind == "rows_begin" {
			sent++
		}
	}
	if sent != 1 {
		t.Errorf("the rows of %d tables were sent", sent)
	}
}

// What a command changes, or what belongs to it, has changed behind the snapshot: partitions that are not seen would get
// other rows on the twin, a former owner's rights would be used, a key that is gone be relied on. It is a conflict. What
// has nothing to do with it is none.
func TestTablesChangedBehindTheSnapshot(t *testing.T) {
	const tables = `DROP SCHEMA IF EXISTS s, s2, n CASCADE; CREATE SCHEMA s AUTHORIZATION app; SET SESSION AUTHORIZATION app; SET search_path = s;
		CREATE TABLE p (id int, v int) PARTITION BY RANGE (id); CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10) PARTITION BY RANGE (id);
		CREATE TABLE p11 PARTITION OF p1 FOR VALUES FROM (0) TO (5); CREATE TABLE q (id int, v int) PARTITION BY RANGE (id);
		CREATE TABLE i (id int); CREATE TABLE i1 () INHERITS (i); CREATE TABLE free (id int, v int); CREATE TABLE t (id int, v int); CREATE TABLE other (id int);
		CREATE TABLE keyed (id int CONSTRAINT keyed_key PRIMARY KEY); CREATE DOMAIN d AS float DEFAULT 1; CREATE TYPE c AS (a int); CREATE TABLE typed OF c;
		INSERT INTO p VALUES (1); INSERT INTO t VALUES (1), (2); INSERT INTO i VALUES (1); RESET SESSION AUTHORIZATION; `
	const fill = ` ADD COLUMN r float DEFAULT random()`
	cases := map[string]struct{ behind, command string }{
		"partition made":                       {`CREATE TABLE s.p12 PARTITION OF s.p1 FOR VALUES FROM (5) TO (10); INSERT INTO s.p VALUES (7)`, `ALTER TABLE s.p` + fill},
		"partition attached":                   {`ALTER TABLE s.p ATTACH PARTITION s.free FOR VALUES FROM (10) TO (20)`, `ALTER TABLE s.free ALTER COLUMN v SET DEFAULT 1`},
		"attached to the parent":               {`ALTER TABLE s.p1 ATTACH PARTITION s.free FOR VALUES FROM (5) TO (10)`, `ALTER TABLE s.p` + fill},
		"partition detached":                   {`ALTER TABLE s.p1 DETACH PARTITION s.p11`, `ALTER TABLE s.p` + fill},
		"child made":                           {`CREATE TABLE s.i2 () INHERITS (s.i); INSERT INTO s.i2 VALUES (7)`, `ALTER TABLE s.i` + fill},
		"child changed":                        {`ALTER TABLE s.i1 ADD COLUMN more int`, `ALTER TABLE s.i` + fill},
		"parent changed":                       {`ALTER TABLE s.i ADD COLUMN more int`, `ALTER TABLE s.i1` + fill},
		"column added":                         {`ALTER TABLE s.t ADD COLUMN more int DEFAULT 7`, `ALTER TABLE s.t` + fill},
		"column dropped":                       {`ALTER TABLE s.t DROP COLUMN v`, `ALTER TABLE s.t` + fill},
		"other type":                           {`ALTER TABLE s.t ALTER COLUMN v TYPE text`, `ALTER TABLE s.t` + fill},
		"owner":                                {`ALTER TABLE s.t OWNER TO postgres`, `COMMENT ON TABLE s.t IS 'x'; ALTER TABLE s.t ALTER COLUMN v SET DEFAULT 1`},
		"owner, by a command that is not seen": {`REASSIGN OWNED BY app TO postgres`, `ALTER TABLE s.t ALTER COLUMN v SET DEFAULT 1`},
		"key added":                            {`ALTER TABLE s.t ADD CONSTRAINT key PRIMARY KEY (id)`, `ALTER TABLE s.t DROP CONSTRAINT key`},
		"key dropped":                          {`ALTER TABLE s.keyed DROP CONSTRAINT keyed_key`, `ALTER TABLE s.keyed ADD COLUMN more int`},
		"index made":                           {`CREATE UNIQUE INDEX late ON s.t (id)`, `DROP INDEX s.late`},
		"statistics made":                      {`CREATE STATISTICS s.late ON id, v FROM s.t`, `ALTER TABLE s.t` + fill},
		"schema renamed":                       {`ALTER SCHEMA s RENAME TO s2; CREATE SCHEMA s; CREATE TABLE s.t (id int, v int)`, `ALTER TABLE s2.t` + fill},
		"schema made":                          {`CREATE SCHEMA n`, `CREATE TABLE n.t (id int)`},
		"domain changed":                       {`ALTER DOMAIN s.d SET DEFAULT random()`, `ALTER TABLE s.t ADD COLUMN r s.d`},
		"type made":                            {`CREATE TYPE s.e AS ENUM ('a')`, `CREATE TABLE s.made AS SELECT 'a'::s.e AS e, '{a}'::s.e[] AS l`},
		"table of the type made":               {`CREATE TABLE s.typed2 OF s.c`, `ALTER TYPE s.c ADD ATTRIBUTE b int CASCADE`},
		"table made":                           {`CREATE TABLE s.late (id int PRIMARY KEY)`, `ALTER TABLE s.late DROP CONSTRAINT late_pkey`},

		"-other table":                 {`ALTER TABLE s.other ADD COLUMN more int; CREATE TABLE s.new (id int); CREATE INDEX ON s.other (id); DROP TABLE s.free; ANALYZE s.t`, `ALTER TABLE s.t` + fill},
		"-other tree":                  {`CREATE TABLE s.q1 PARTITION OF s.q FOR VALUES FROM (0) TO (10); ALTER TABLE s.q ADD COLUMN more int`, `ALTER TABLE s.p` + fill},
		"-sibling":                     {`ALTER TABLE s.p11 ALTER COLUMN v SET DEFAULT 1`, `CREATE TABLE s.p2 PARTITION OF s.p FOR VALUES FROM (20) TO (30)`},
		"-undone":                      {`BEGIN; CREATE TABLE s.p12 PARTITION OF s.p1 FOR VALUES FROM (5) TO (10); ROLLBACK`, `ALTER TABLE s.p` + fill},
		"-rows, and what is temporary": {`INSERT INTO s.p VALUES (2); CREATE TEMPORARY TABLE x (LIKE s.t); DROP TABLE x`, `ALTER TABLE s.p` + fill},
	}
	// One version of three in each run: every case makes its tables anew.
	for _, major := range []int{10, 15, 18}[uint64(pgtest.Seed())%3:][:1] {
		server := pgtest.Start(t, pgtest.WithMajor(major))
		dsn, source := fresh(t, server)
		pgtest.Exec(t, dsn, `CREATE ROLE app LOGIN`)
		l := &catalog.Link{ID: source.Link, Agent: idOf(1), PeerAgent: idOf(2), Name: "sales", Peer: "berlin", PeerDatabase: "sales", Role: "primary", Phase: "replicating", Epoch: 1, Mode: "async"}
		if err := catalog.Insert(testContext(t), connect(t, dsn), l); err != nil {
			t.Fatal(err)
		}
		prepare(t, source)
		for name, c := range cases {
			pgtest.Exec(t, dsn, tables)
			conn := oldSnapshot(t, dsn, "postgres")
			pgtest.Exec(t, dsn, c.behind)
			_, err := conn.Exec(testContext(t), c.command)
			if err == nil {
				_, err = conn.Exec(testContext(t), `COMMIT`)
			}
			if conflict := name[0] != '-'; conflict && pg.SQLState(err) != "40001" || !conflict && err != nil {
				t.Errorf("%d: %s: %v", major, name, err)
			}
			conn.Close(context.Background())
		}
	}
}

// A superuser that is none any more does not pass for one because the transaction is older: the twin would run its
// commands with the agent's rights, where that was agreed to.
func TestFormerSuperuserUnderAnOldSnapshot(t *testing.T) {
	dsn, _, next := listening(t)
	pgtest.Exec(t, dsn, `CREATE ROLE former SUPERUSER LOGIN`)
	t.Cleanup(func() { pgtest.Exec(t, dsn, `DROP OWNED BY former; DROP ROLE former`) })
	for _, sql := range []string{`CREATE TABLE public.x (id int)`, `DROP TABLE public.x`} {
		pgtest.Exec(t, dsn, `ALTER ROLE former SUPERUSER; CREATE SCHEMA IF NOT EXISTS theirs AUTHORIZATION former; DROP TABLE IF EXISTS public.x; GRANT CREATE ON SCHEMA public TO former`)
		if strings.HasPrefix(sql, "DROP") {
			pgtest.Exec(t, dsn, `CREATE TABLE public.x (id int); ALTER TABLE public.x OWNER TO former`)
		}
		next()
		conn := oldSnapshot(t, dsn, "former")
		must(t, conn, `CREATE VIEW theirs.v`+sql[:1]+` AS SELECT 1`)
		pgtest.Exec(t, dsn, `ALTER ROLE former NOSUPERUSER`)
		if _, err := conn.Exec(testContext(t), sql); pg.SQLState(err) != "40001" {
			t.Errorf("%s: %v", sql, err)
		}
		must(t, conn, `ROLLBACK; BEGIN ISOLATION LEVEL REPEATABLE READ; `+sql+`; COMMIT`)
		for _, s := range next() {
			if s.kind == "ddl" && s.payload["superuser"] != false {
				t.Errorf("it is said that a superuser gave %s: %v", s.raw(t, "sql"), s.payload["superuser"])
			}
		}
	}
}
