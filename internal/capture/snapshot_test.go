package capture_test

import (
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
		pgtest.Exec(t, dsn, `SET SESSION AUTHORIZATION app; CREATE INDEX late ON t (id) WHERE spy(1) = 1`)
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
