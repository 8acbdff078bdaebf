package gate_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sync/errgroup"

	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/gate"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

const (
	patience = 2 * time.Minute
	linkID   = "0b9a4b4e-6f7e-4b7e-9f60-2f1c0e8d7a11"
)

func testContext(t testing.TB) context.Context {
	ctx, stop := context.WithTimeout(context.Background(), 3*time.Minute)
	t.Cleanup(stop)
	return ctx
}

// agent opens a session as the agent's.
func agent(t testing.TB, dsn string) *pgx.Conn {
	t.Helper()
	d, err := pg.ParseDSN(dsn)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := d.Connect(testContext(t), pg.Session{Name: "test", Apply: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func must(t testing.TB, conn *pgx.Conn, sql string) {
	t.Helper()
	if _, err := conn.Exec(testContext(t), sql); err != nil {
		t.Fatalf("%v\nin: %s", err, sql)
	}
}

// objects is a schema with everything through which a row can be written.
const objects = `
CREATE SCHEMA "Other S";
CREATE TABLE public.t (id int PRIMARY KEY, v int);
INSERT INTO public.t VALUES (1, 1), (2, 2);
CREATE TABLE "Other S"."T ""x""" (id int, v int);
CREATE TABLE public.parted (id int, v int) PARTITION BY RANGE (id);
CREATE TABLE public.part PARTITION OF public.parted FOR VALUES FROM (0) TO (1000) PARTITION BY RANGE (id);
CREATE TABLE public.leaf PARTITION OF public.part FOR VALUES FROM (0) TO (1000);
CREATE TABLE public.parent (id int, v int);
CREATE TABLE public.child (x int) INHERITS (public.parent);
CREATE UNLOGGED TABLE public.unlogged (id int, v int);
CREATE VIEW public.view AS SELECT id, v FROM public.t;
CREATE VIEW public.joined AS SELECT t.id, t.v FROM public.t JOIN public.parent USING (id);
CREATE FUNCTION public.write() RETURNS void LANGUAGE sql AS 'INSERT INTO public.t VALUES (9, 9)';
CREATE FUNCTION public.instead() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO public.t VALUES (new.id, new.v); RETURN new; END';
CREATE TRIGGER instead INSTEAD OF INSERT ON public.joined FOR EACH ROW EXECUTE FUNCTION public.instead();
CREATE FUNCTION public.definer() RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN UPDATE public.t SET v = 5; END';
CREATE PROCEDURE public.proc() LANGUAGE plpgsql AS 'BEGIN DELETE FROM public.t; COMMIT; END';
CREATE MATERIALIZED VIEW public.mat AS SELECT count(*) FROM public.t;
CREATE SEQUENCE public.seq;
CREATE TABLE public.ref (id int REFERENCES public.t ON DELETE CASCADE ON UPDATE CASCADE);
GRANT ALL ON ALL TABLES IN SCHEMA public TO PUBLIC;
GRANT ALL ON SCHEMA public TO PUBLIC;
`

// writes are statements that must be refused, by whoever.
func writes(major int) []string {
	var list []string
	for _, table := range []string{"public.t", `"Other S"."T ""x"""`, "public.parted", "public.part", "public.leaf", "public.parent", "public.child", "public.unlogged", "public.view", "public.ref"} {
		if table != "public.ref" {
			list = append(list, `INSERT INTO `+table+` VALUES (7, 7)`, `UPDATE `+table+` SET v = 3`, `UPDATE `+table+` SET v = 3 WHERE false`)
		}
		list = append(list, `DELETE FROM `+table)
		if table != "public.view" {
			list = append(list, `TRUNCATE `+table+` CASCADE`)
		}
		if major >= 15 && table != "public.view" && table != "public.ref" {
			list = append(list, `MERGE INTO `+table+` AS t USING (SELECT 1 AS id) s ON t.id = s.id WHEN MATCHED THEN UPDATE SET v = 5 WHEN NOT MATCHED THEN INSERT VALUES (1, 1)`)
		}
	}
	return append(list,
		`INSERT INTO public.joined VALUES (8, 8)`, `SELECT public.write()`, `SELECT public.definer()`, `CALL public.proc()`,
		`WITH w AS (INSERT INTO public.t VALUES (7, 7) RETURNING *) SELECT * FROM w`, `WITH w AS (DELETE FROM public.t RETURNING *) SELECT * FROM w`,
		`DO $$BEGIN EXECUTE 'INSERT INTO public.t VALUES (7, 7)'; END$$`, `EXPLAIN ANALYZE DELETE FROM public.t`,
		`INSERT INTO public.t VALUES (1, 1) ON CONFLICT (id) DO UPDATE SET v = 8`, `PREPARE p AS UPDATE public.t SET v = 1; EXECUTE p`,
		// The schema:
		`CREATE TABLE public.new (id int)`, `CREATE TABLE public.new AS SELECT 1`, `SELECT 1 AS x INTO public.new`, `ALTER TABLE public.t ADD x int`,
		`DROP TABLE public.unlogged`, `CREATE INDEX ON public.t (v)`, `GRANT SELECT ON public.t TO PUBLIC`, `REVOKE SELECT ON public.t FROM PUBLIC`,
		`REFRESH MATERIALIZED VIEW public.mat`, `CREATE SCHEMA new`, `CREATE FUNCTION public.f() RETURNS int LANGUAGE sql AS 'SELECT 1'`,
		`DROP VIEW public.joined`, `ALTER TABLE public.t DISABLE TRIGGER ALL`, `DROP TRIGGER twinspan_gate ON public.t`, `DROP SCHEMA twinspan CASCADE`,
		`COMMENT ON TABLE public.t IS 'x'`, `CREATE TYPE public.e AS ENUM ('x')`, `ALTER SEQUENCE public.seq RESTART`, `DROP OWNED BY gate_reader`,
	)
}

func fresh(t testing.TB, sql string) (dsn string, conn *pgx.Conn) {
	t.Helper()
	server := pgtest.Shared(t)
	dsn = server.DSN(server.Database(t))
	pgtest.Exec(t, dsn, sql)
	return dsn, freshIn(t, dsn)
}

// freshIn records the link in a database.
func freshIn(t testing.TB, dsn string) (conn *pgx.Conn) {
	t.Helper()
	conn = agent(t, dsn)
	ctx := testContext(t)
	err := pg.InTx(ctx, conn, func(tx pgx.Tx) error { return catalog.Install(ctx, tx) })
	if err != nil {
		t.Fatal(err)
	}
	err = catalog.Insert(ctx, conn, &catalog.Link{
		ID: linkID, Agent: "11111111-1111-4111-8111-111111111111", PeerAgent: "22222222-2222-4222-8222-222222222222",
		Name: `sales 100%`, Peer: "berlin", PeerDatabase: "Sales", Role: "secondary", Phase: "replicating", Epoch: 1, Mode: "async", PrimaryAddress: "db.example:6543",
	})
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

func shut(t testing.TB, conn *pgx.Conn) {
	t.Helper()
	if err := gate.Shut(testContext(t), conn); err != nil {
		t.Fatal(err)
	}
	if err := gate.ShutTables(testContext(t), conn); err != nil {
		t.Fatal(err)
	}
}

// open takes the gate away as the link that has it does.
func open(ctx context.Context, conn *pgx.Conn) error { return gate.Open(ctx, conn, linkID) }

// contents is every row of the database, and what the schema consists of.
func contents(t testing.TB, dsn string) string {
	var b strings.Builder
	for _, table := range []string{"public.t", `"Other S"."T ""x"""`, "public.parted", "public.parent", "public.unlogged", "public.ref", "public.mat"} {
		fmt.Fprintf(&b, "%s\n%s", table, pgtest.Table(t, dsn, table))
	}
	fmt.Fprintln(&b, pgtest.Query(t, dsn, `SELECT relname, relacl, relkind FROM pg_class WHERE relnamespace IN ('public'::regnamespace, '"Other S"'::regnamespace) ORDER BY 1`),
		pgtest.Query(t, dsn, `SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' ORDER BY 1`))
	return b.String()
}

func TestEveryWriteIsRefused(t *testing.T) {
	dsn, conn := fresh(t, objects)
	pgtest.Exec(t, dsn, `DROP ROLE IF EXISTS gate_reader; CREATE ROLE gate_reader; GRANT ALL ON SCHEMA "Other S" TO gate_reader; GRANT ALL ON ALL TABLES IN SCHEMA "Other S" TO gate_reader`)
	granted := `SELECT 1`
	if pgtest.Shared(t).Major >= 15 {
		pgtest.Exec(t, dsn, `GRANT SET ON PARAMETER session_replication_role TO gate_reader`)
		t.Cleanup(func() {
			pgtest.Exec(t, pgtest.Shared(t).DSN("postgres"), `REVOKE SET ON PARAMETER session_replication_role FROM gate_reader`)
		})
		granted = `SET session_replication_role = replica`
	}
	early := pgtest.Conn(t, dsn) // read/write, opened before
	must(t, early, `PREPARE before AS INSERT INTO public.t VALUES (77, 7); CREATE TEMP TABLE scratch (id int)`)
	shut(t, conn)
	shut(t, conn) // twice
	before := contents(t, dsn)
	for name, setup := range map[string]string{
		"superuser, by default":           ``,
		"superuser, read/write":           `SET default_transaction_read_only = off`,
		"role, by default":                `SET ROLE gate_reader`,
		"role, read/write":                `SET ROLE gate_reader; SET default_transaction_read_only = off`,
		"superuser, opened before":        `before`,
		"superuser, replica role":         `SET session_replication_role = replica; SET default_transaction_read_only = off`,
		"role, as if it were ours":        `SET ROLE gate_reader; SET twinspan.pass_gate = on; SET default_transaction_read_only = off`,
		"role, by a granted replica role": `SET SESSION AUTHORIZATION gate_reader; ` + granted + `; SET twinspan.pass_gate = on; SET default_transaction_read_only = off`,
	} {
		c := early
		if setup != "before" {
			c = pgtest.Conn(t, dsn)
			must(t, c, setup)
		}
		byDefault, plain := strings.HasSuffix(name, "default"), strings.HasPrefix(name, "role")
		list := writes(pgtest.Shared(t).Major)
		if setup == "before" {
			list = append(list, `EXECUTE before`)
		}
		for _, sql := range list {
			_, err := c.Exec(testContext(t), sql)
			if plain && pg.SQLState(err) == "42501" || strings.HasSuffix(name, "replica role") && strings.Contains(sql, "public.joined") {
				continue // it may not anyway, or the view's own trigger, which writes, does not fire
			}
			if pg.SQLState(err) != "25006" {
				t.Errorf("%s: %s: %v", name, sql, err)
				continue
			}
			whole := err.Error() + hint(err)
			ours := strings.Contains(whole, `link "sales 100%"`) && strings.Contains(whole, "db.example:6543") && strings.Contains(whole, `agent "berlin"`) &&
				strings.Contains(whole, `database "Sales"`)
			if ours == byDefault {
				t.Errorf("%s: %s: %s", name, sql, whole)
			}
		}
		for _, table := range []string{"public.t", "public.parted", "public.leaf", "public.child"} {
			_, err := c.PgConn().CopyFrom(testContext(t), strings.NewReader("70\t1\n"), `COPY `+table+` (id, v) FROM STDIN`)
			if pg.SQLState(err) != "25006" {
				t.Errorf("%s: COPY %s: %v", name, table, err)
			}
		}
	}
	if after := contents(t, dsn); after != before {
		t.Errorf("before\n%s\nafter\n%s", before, after)
	}
	must(t, early, `INSERT INTO scratch VALUES (1); UPDATE scratch SET id = 2; TRUNCATE scratch`)

	// Who may: the agent, and everybody in another database.
	must(t, conn, `INSERT INTO public.t VALUES (50, 5); UPDATE public.leaf SET v = 1; CREATE TABLE public.fresh (id int); ALTER TABLE public.t ADD extra int; TRUNCATE public.unlogged; DROP TABLE public.fresh`)
	server := pgtest.Shared(t)
	pgtest.Exec(t, server.DSN(server.Database(t)), `CREATE TABLE public.free (id int); INSERT INTO public.free VALUES (1)`)
}

// A staged primary's writers take the gate's lock, those in replica role, too; the
// agent's own sessions do not.
func TestReplicaRoleIsHeld(t *testing.T) {
	dsn, conn := fresh(t, objects)
	if _, err := gate.Stage(testContext(t), conn, time.Minute); err != nil {
		t.Fatal(err)
	}
	loader := pgtest.Conn(t, dsn)
	must(t, loader, `SET session_replication_role = replica`)
	for _, c := range []struct {
		conn *pgx.Conn
		want int
	}{{loader, 1}, {conn, 0}} {
		for _, sql := range []string{`INSERT INTO public.t VALUES (80, 8)`, `TRUNCATE public.unlogged`, `CREATE TABLE public.made (id int)`} {
			must(t, c.conn, `BEGIN; `+sql)
			var locks int
			err := c.conn.QueryRow(testContext(t), `SELECT count(*) FROM pg_locks WHERE relation = 'twinspan.gate_pass'::regclass AND mode = 'RowExclusiveLock' AND pid = pg_backend_pid()`).Scan(&locks)
			if err != nil || locks != c.want {
				t.Errorf("%s: %d locks, want %d, %v", sql, locks, c.want, err)
			}
			must(t, c.conn, `ROLLBACK`)
		}
	}
}

func hint(err error) string {
	var e *pgconn.PgError
	errors.As(err, &e)
	return " " + e.Hint
}

func TestReadersAreLetThrough(t *testing.T) {
	dsn, conn := fresh(t, objects)
	shut(t, conn)
	for _, mode := range []string{"on", "off"} {
		c := pgtest.Conn(t, dsn)
		must(t, c, `SET default_transaction_read_only = `+mode)
		for _, sql := range []string{
			`SELECT * FROM public.t`, `EXPLAIN ANALYZE SELECT * FROM public.parted`, `EXPLAIN DELETE FROM public.t`, `TABLE public.view`,
			`BEGIN; DECLARE c CURSOR FOR SELECT * FROM public.t; FETCH ALL FROM c; MOVE BACKWARD ALL FROM c; CLOSE c; COMMIT`,
			`BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE; SELECT count(*) FROM public.t; COMMIT`,
			`COPY public.t TO STDOUT`, `COPY (SELECT * FROM public.leaf) TO STDOUT`, `LISTEN x; UNLISTEN x`, `SET work_mem = '1MB'`, `SHOW work_mem`,
			`PREPARE p AS SELECT * FROM public.t; EXECUTE p; DEALLOCATE p`, `LOCK TABLE public.t IN ACCESS SHARE MODE; SELECT 1`, `DISCARD PLANS`,
		} {
			if _, err := c.PgConn().Exec(testContext(t), sql).ReadAll(); err != nil && !strings.HasPrefix(sql, "LOCK") {
				t.Errorf("read-only %s: %s: %v", mode, sql, err)
			}
		}
	}
	pgtest.Exec(t, dsn, `ANALYZE public.t`)
}

// traces is all that a gate leaves.
func traces(t testing.TB, dsn string) [][]string {
	return pgtest.Query(t, dsn, `SELECT 'trigger ' || tgrelid::regclass FROM pg_trigger WHERE tgname LIKE 'twinspan%'
		UNION ALL SELECT 'event trigger ' || evtname FROM pg_event_trigger
		UNION ALL SELECT 'function ' || proname FROM pg_proc WHERE pronamespace IN (SELECT oid FROM pg_namespace WHERE nspname = 'twinspan') AND proname NOT IN ('copied', 'free')
		UNION ALL SELECT 'setting ' || array_to_string(setconfig, ',') FROM pg_db_role_setting WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())`)
}

func TestOpenLeavesNoTrace(t *testing.T) {
	dsn, conn := fresh(t, objects)
	shut(t, conn)
	if got := len(traces(t, dsn)); got != 9+1+11+1 {
		t.Errorf("%d traces: %v", got, traces(t, dsn))
	}
	for range 2 {
		if err := open(testContext(t), conn); err != nil {
			t.Fatal(err)
		}
		if left := traces(t, dsn); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	}
	c := pgtest.Conn(t, dsn)
	for _, sql := range writes(pgtest.Shared(t).Major) {
		if strings.HasPrefix(sql, "DROP") || strings.HasPrefix(sql, "CALL") {
			continue
		}
		if _, err := c.Exec(testContext(t), `BEGIN; `+sql+`; ROLLBACK`); err != nil {
			t.Errorf("%s: %v", sql, err)
			must(t, c, `ROLLBACK`)
		}
	}
	shut(t, conn) // and again
	if _, err := c.Exec(testContext(t), `DELETE FROM public.t`); pg.SQLState(err) != "25006" {
		t.Errorf("shut again: %v", err)
	}
}

// TestLaterTablesAreShut makes a table as the agent, after the gate was shut.
func TestLaterTablesAreShut(t *testing.T) {
	dsn, conn := fresh(t, objects)
	shut(t, conn)
	must(t, conn, `CREATE TABLE public.later (id int)`)
	if err := gate.ShutTables(testContext(t), conn); err != nil {
		t.Fatal(err)
	}
	c := pgtest.Conn(t, dsn)
	must(t, c, `SET default_transaction_read_only = off`)
	if _, err := c.Exec(testContext(t), `INSERT INTO public.later VALUES (1)`); pg.SQLState(err) != "25006" {
		t.Errorf("got %v", err)
	}
}

// TestOtherTransactionsAreWaitedFor shuts under a writer's transaction and opens
// under a reader's, and lets everybody through meanwhile.
func TestOtherTransactionsAreWaitedFor(t *testing.T) {
	dsn, conn := fresh(t, objects)
	if err := gate.Shut(testContext(t), conn); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		hold      string
		do        func(context.Context, *pgx.Conn) error
		meanwhile string // how many triggers there are while one table is held
	}{
		{`BEGIN READ WRITE; INSERT INTO public.t VALUES (60, 6)`, gate.ShutTables, "8"},
		{`BEGIN; SELECT * FROM public.t`, open, "1"},
	} {
		holder := pgtest.Conn(t, dsn)
		must(t, holder, c.hold)
		done := make(chan error, 1)
		go func() { done <- c.do(testContext(t), conn) }()
		// All the others are done while one is held.
		pgtest.Eventually(t, patience, func() error {
			have := pgtest.Query(t, dsn, `SELECT count(*) FROM pg_trigger WHERE tgname = 'twinspan_gate'`)[0][0]
			if have != c.meanwhile {
				return fmt.Errorf("%s triggers, want %s", have, c.meanwhile)
			}
			return nil
		})
		select {
		case err := <-done:
			t.Fatalf("it did not wait: %v", err)
		default:
		}
		reader := pgtest.Conn(t, dsn)
		must(t, reader, `SET lock_timeout = '10s'; SELECT count(*) FROM public.t`)
		must(t, holder, `COMMIT`)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	if left := traces(t, dsn); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	ctx, stop := context.WithCancel(testContext(t))
	holder := pgtest.Conn(t, dsn)
	must(t, holder, `BEGIN; INSERT INTO public.t VALUES (61, 6)`)
	var group errgroup.Group
	group.Go(func() error { return gate.ShutTables(ctx, conn) })
	stop()
	if err := group.Wait(); err == nil {
		t.Error("a cancelled one went on")
	}
}

func TestTwoThousandTables(t *testing.T) {
	dsn, conn := fresh(t, `DO $$BEGIN FOR i IN 1..2000 LOOP EXECUTE format('CREATE TABLE public.t%s (id int)', i); IF i % 500 = 0 THEN COMMIT; END IF; END LOOP; END$$`)
	shut(t, conn)
	count := `SELECT count(*) FROM pg_trigger WHERE tgname = 'twinspan_gate'`
	if got := pgtest.Query(t, dsn, count)[0][0]; got != "2000" {
		t.Errorf("%s are shut", got)
	}
	if err := open(testContext(t), conn); err != nil {
		t.Fatal(err)
	}
	if got := pgtest.Query(t, dsn, count)[0][0]; got != "0" {
		t.Errorf("%s are still shut", got)
	}
}

// A link opens the gate of a database only when no other one needs it.
func TestOpenLeavesTheGateToOthers(t *testing.T) {
	dsn, conn := fresh(t, `CREATE TABLE public.t (id int)`)
	shut(t, conn)
	ctx := testContext(t)
	set := func(role, phase string, diverged bool) {
		t.Helper()
		must(t, conn, fmt.Sprintf(`UPDATE twinspan.link SET role = '%s', phase = '%s', diverged = %t`, role, phase, diverged))
	}
	whole := traces(t, dsn)
	stays := func(why string) {
		t.Helper()
		if err := gate.Open(ctx, conn, "22222222-2222-4222-8222-222222222222"); err != nil {
			t.Fatal(err)
		}
		if left := traces(t, dsn); fmt.Sprint(left) != fmt.Sprint(whole) {
			t.Errorf("%s: of %v is left %v", why, whole, left)
		}
	}
	stays("another one is secondary")
	for _, phase := range []string{"failing_over", "fenced"} {
		set("primary", phase, false)
		stays("another one is " + phase)
	}
	set("primary", "broken", true)
	stays("another one is diverged")
	set("primary", "replicating", false)
	if err := gate.Keep(ctx, conn, "sales", "b", "sales", "b:5432"); err != nil {
		t.Fatal(err)
	}
	whole = traces(t, dsn)
	stays("a cutover has left it")
	must(t, conn, `SELECT twinspan.release()`)
	if left := traces(t, dsn); len(left) > 0 {
		t.Errorf("after its release: %v", left)
	}
}

// Who builds the gate does not wait for who takes it away, but cuts that off.
func TestOpenGivesWay(t *testing.T) {
	dsn, conn := fresh(t, `CREATE TABLE public.t (id int)`)
	shut(t, conn)
	conn.Close(testContext(t)) // it held the claim
	reader := pgtest.Conn(t, dsn)
	must(t, reader, `BEGIN; SELECT * FROM public.t`) // keeps the trigger from being dropped
	opener := agent(t, dsn)
	done := make(chan error, 1)
	go func() { done <- open(testContext(t), opener) }()
	pgtest.Eventually(t, patience, func() error {
		if got := pgtest.Query(t, dsn, `SELECT count(*) FROM pg_event_trigger`)[0][0]; got != "0" {
			return fmt.Errorf("%s event triggers", got)
		}
		return nil
	})
	second := agent(t, dsn)
	shut(t, second)
	if err := <-done; err == nil {
		t.Error("the gate was taken away while it was built")
	}
	must(t, reader, `COMMIT`)
	if err := gate.Shut(testContext(t), second); err != nil {
		t.Fatal(err)
	}
	if _, err := reader.Exec(testContext(t), `INSERT INTO public.t VALUES (1)`); pg.SQLState(err) != "25006" {
		t.Errorf("got %v", err)
	}
}

// Several links of a database build the gate at once.
func TestStagedAtOnce(t *testing.T) {
	dsn, _ := fresh(t, objects)
	var group errgroup.Group
	for range 4 {
		conn := agent(t, dsn)
		group.Go(func() error {
			_, err := gate.Stage(testContext(t), conn, patience)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	if got := len(traces(t, dsn)); got != 9+1+11 {
		t.Errorf("%d traces: %v", got, traces(t, dsn))
	}
}

// What the gate makes is known to whoever removes the schema.
func TestTextNamesEveryRelation(t *testing.T) {
	dsn, conn := fresh(t, objects)
	before := pgtest.Query(t, dsn, `SELECT relname FROM pg_class WHERE relnamespace = 'twinspan'::regnamespace AND relkind IN ('r', 'S')`)
	shut(t, conn)
	made := pgtest.Query(t, dsn, `SELECT relname FROM pg_class WHERE relnamespace = 'twinspan'::regnamespace AND relkind IN ('r', 'S') ORDER BY 1`)
	if len(made) != len(before)+5 {
		t.Errorf("%v were made beside %v", made, before)
	}
	for _, m := range made {
		old := false
		for _, b := range before {
			old = old || b[0] == m[0]
		}
		if !old && !strings.Contains(gate.Text(), "IF NOT EXISTS twinspan."+m[0]+" ") {
			t.Errorf("the text does not make %s", m[0])
		}
	}
}

// A transaction whose snapshot is older than the link sees no record of it, and is refused all the same.
func TestSnapshotOlderThanTheLink(t *testing.T) {
	server := pgtest.Shared(t)
	dsn := server.DSN(server.Database(t))
	pgtest.Exec(t, dsn, `CREATE TABLE public.t (id int)`)
	old := pgtest.Conn(t, dsn)
	must(t, old, `BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1`)
	shut(t, freshIn(t, dsn))
	for _, sql := range []string{`INSERT INTO public.t VALUES (1)`, `CREATE TABLE public.n (id int)`} {
		must(t, old, `SAVEPOINT here`)
		if _, err := old.Exec(testContext(t), sql); pg.SQLState(err) != "25006" {
			t.Errorf("%s: %v", sql, err)
		}
		must(t, old, `ROLLBACK TO here`)
	}
}

// Somebody changes the settings of the database while the gate does: it does it again.
func TestSettingsOfTheDatabaseChangeMeanwhile(t *testing.T) {
	dsn, conn := fresh(t, objects)
	holder := pgtest.Conn(t, dsn)
	setting := pgtest.Query(t, dsn, `SELECT format('ALTER DATABASE %I SET work_mem = ''5MB''', current_database())`)[0][0]
	must(t, holder, setting) // so that there is a row of settings to wait for
	must(t, holder, `BEGIN; `+setting)
	done := make(chan error, 1)
	go func() { done <- gate.ReadOnly(testContext(t), conn) }()
	pgtest.Eventually(t, patience, func() error {
		if n := pgtest.Query(t, dsn, `SELECT count(*)::text FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'twinspan/test' AND wait_event_type = 'Lock'`)[0][0]; n != "1" {
			return fmt.Errorf("%s sessions wait", n)
		}
		return nil
	})
	must(t, holder, `COMMIT`)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := pgtest.Query(t, dsn, `SELECT setconfig::text FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase WHERE datname = current_database() AND setrole = 0`)[0][0]; got != "{work_mem=5MB,default_transaction_read_only=on}" {
		t.Errorf("the settings are %s", got)
	}
}
