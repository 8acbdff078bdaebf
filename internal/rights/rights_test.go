package rights_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/pgtest"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/rights"
	"github.com/twinspan/twinspan/internal/sqlname"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func testContext(t testing.TB) context.Context {
	ctx, stop := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(stop)
	return ctx
}

// world is a database of eve's, who is no superuser, and a session of an agent there.
type world struct {
	dsn  string
	conn *pgx.Conn
}

func newWorld(t *testing.T) world {
	t.Helper()
	s := pgtest.Shared(t)
	dsn := s.DSN(s.Database(t))
	pgtest.Exec(t, dsn, `DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'eve "x') THEN CREATE ROLE "eve ""x" LOGIN; END IF; END $$`,
		`CREATE SCHEMA s AUTHORIZATION "eve ""x"`,
		`CREATE TABLE s.ran (what text, who name, session name, PRIMARY KEY (what, who))`, `ALTER TABLE s.ran OWNER TO "eve ""x"`,
		`CREATE FUNCTION s.note(what text) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN
			IF (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN RAISE EXCEPTION 'code ran as %', current_user USING ERRCODE = 'XX999'; END IF;
			RETURN true; END $$`)
	return world{dsn, connect(t, dsn)}
}

func connect(t *testing.T, dsn string) *pgx.Conn {
	t.Helper()
	d, err := pg.ParseDSN(dsn)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := d.Connect(testContext(t), pg.Session{Name: "test", Apply: true, Fenced: true, Settings: map[string]string{"lock_timeout": "3s"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

const eve = `eve "x`

// run runs SQL through the fence in a transaction of its own, as an engine does, and
// returns the number of rows that it touched.
func (w world) run(t *testing.T, r *rights.Runner, sql ...string) (int64, error) {
	t.Helper()
	ctx := testContext(t)
	tx, err := w.conn.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(ctx)
	for _, s := range r.Make() {
		if _, err := tx.Exec(ctx, s); err != nil {
			t.Fatal(err)
		}
	}
	var rows int64
	for _, s := range sql {
		if _, err := tx.Exec(ctx, r.Prove(), pg.Ticket()); err != nil {
			return 0, err
		}
		tag, err := tx.Exec(ctx, r.Call(), s)
		if err != nil {
			return 0, err
		}
		rows = tag.RowsAffected()
		for _, s := range rights.Leave() {
			if _, err := tx.Exec(ctx, s); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := tx.Exec(ctx, rights.Check); err != nil {
		return 0, err
	}
	return rows, tx.Commit(ctx)
}

func (w world) value(t *testing.T, sql string) string {
	t.Helper()
	var v string
	if err := w.conn.QueryRow(testContext(t), sql).Scan(&v); err != nil {
		t.Fatalf("%v in: %s", err, sql)
	}
	return v
}

func state(err error) string {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

func TestRunsAsTheRoleAndCounts(t *testing.T) {
	w := newWorld(t)
	r := rights.NewRunner(eve, nil)
	n, err := w.run(t, r, `INSERT INTO s.ran SELECT g::text, current_user, session_user FROM generate_series(1, 3) g`)
	if err != nil || n != 3 {
		t.Fatalf("%d rows, %v", n, err)
	}
	if got := w.value(t, `SELECT string_agg(DISTINCT who || ' of ' || session, ',') FROM s.ran`); got != `eve "x of postgres` {
		t.Errorf("ran as %s", got)
	}
	if n, err = w.run(t, r, `UPDATE s.ran SET what = 'x' WHERE what = 'none'`); err != nil || n != 0 {
		t.Errorf("%d rows, %v", n, err)
	}
	if _, err := w.run(t, r, `CREATE TABLE public.other (); ALTER ROLE "eve ""x" SUPERUSER`); state(err) != "42501" {
		t.Errorf("more rights than its own: %v", err)
	}
	if got := w.value(t, `WITH x AS MATERIALIZED (SELECT current_user AS u) SELECT u || ' ' || current_setting('lock_timeout') FROM x`); got != "postgres 3s" {
		t.Errorf("the session is %q afterwards", got)
	}
}

// TestRunForScripts runs what has no parameter, with strings of every kind in it.
func TestRunForScripts(t *testing.T) {
	w := newWorld(t)
	for _, off := range []string{"on", "off"} {
		r := rights.NewRunner(eve, []rights.Setting{{Name: "standard_conforming_strings", Value: off}})
		ctx := testContext(t)
		tx, _ := w.conn.Begin(ctx)
		for _, s := range append(r.Make(), r.Run(`TRUNCATE s.ran; INSERT INTO s.ran VALUES (E'it''s \\ $$ ', current_user, 'x')`)...) {
			if _, err := tx.Exec(ctx, s); err != nil {
				t.Fatal(err)
			}
		}
		if err := tx.Commit(ctx); err != nil {
			t.Fatal(err)
		}
		if got := w.value(t, `SELECT what || who FROM s.ran`); got != `it's \ $$ eve "x` {
			t.Errorf("got %q", got)
		}
	}
}

// The session in which code of one role runs has a function that runs SQL with the rights of another.
func TestNobodyElseCallsTheFence(t *testing.T) {
	w := newWorld(t)
	pgtest.Exec(t, w.dsn, `DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'mallory_of_rights') THEN CREATE ROLE mallory_of_rights; END IF; END $$`,
		`ALTER DEFAULT PRIVILEGES GRANT EXECUTE ON FUNCTIONS TO mallory_of_rights`)
	t.Cleanup(func() { pgtest.Exec(t, w.dsn, `DROP OWNED BY mallory_of_rights`) })
	if _, err := w.run(t, rights.NewRunner(eve, nil), `INSERT INTO s.ran SELECT 'own', current_user, session_user`); err != nil {
		t.Fatal(err)
	}
	_, err := w.run(t, rights.NewRunner("mallory_of_rights", nil), `DO $$ DECLARE f text; BEGIN
		SELECT format('pg_temp.%I', proname) INTO STRICT f FROM pg_proc WHERE pronamespace = pg_my_temp_schema() AND pg_get_userbyid(proowner) = 'eve "x';
		EXECUTE 'SELECT ' || f || '(''INSERT INTO s.ran SELECT other, current_user, session_user'')'; END $$`)
	if state(err) != "42501" {
		t.Errorf("somebody else called it: %v", err)
	}
	if got := w.value(t, `SELECT string_agg(what, ',') FROM s.ran`); got != "own" {
		t.Errorf("done was %s", got)
	}
}

// TestNoWayBack tries the ways from which code could reach the session's own role.
func TestNoWayBack(t *testing.T) {
	w := newWorld(t)
	for name, sql := range map[string]string{
		"reset role":             `RESET ROLE`,
		"set role":               `SET ROLE postgres`,
		"set local role":         `SET LOCAL ROLE NONE`,
		"session authorization":  `SET SESSION AUTHORIZATION DEFAULT`,
		"reset authorization":    `RESET SESSION AUTHORIZATION`,
		"set_config":             `SELECT set_config('role', 'postgres', false)`,
		"set_config none":        `SELECT set_config('role', 'none', true)`,
		"pg_settings":            `UPDATE pg_settings SET setting = 'postgres' WHERE name = 'role'`,
		"function that sets":     `CREATE FUNCTION s.f() RETURNS int LANGUAGE sql SET role = 'postgres' AS 'SELECT 1'; SELECT s.f()`,
		"replication role":       `SET session_replication_role = origin`,
		"replication role reset": `RESET session_replication_role`,
		"in a block":             `DO $$ BEGIN RESET ROLE; END $$`,
		"commit":                 `DO $$ BEGIN COMMIT; END $$`,
		"a program":              `COPY s.ran TO PROGRAM 'true'`,
	} {
		if _, err := w.run(t, rights.NewRunner(eve, nil), sql+`; SELECT s.note('after')`); err == nil || state(err) == "XX999" {
			t.Errorf("%s: %v", name, err)
		}
	}
	// What is caught by the code itself must have changed nothing.
	_, err := w.run(t, rights.NewRunner(eve, nil), `DO $$ BEGIN
		BEGIN RESET ROLE; EXCEPTION WHEN OTHERS THEN NULL; END;
		BEGIN SET SESSION AUTHORIZATION DEFAULT; EXCEPTION WHEN OTHERS THEN NULL; END;
		RESET ALL; SET LOCAL search_path = s; PERFORM s.note('x'); END $$`)
	if err != nil {
		t.Errorf("refusals that are caught: %v", err)
	}
}

// TestChangedFromInside lets code change the function that fences it: what follows must
// not run with other rights.
func TestChangedFromInside(t *testing.T) {
	w := newWorld(t)
	r := rights.NewRunner(eve, nil)
	function := r.Make()[2][len("ALTER FUNCTION "):strings.Index(r.Make()[2], " OWNER")]
	name := function[:strings.Index(function, "(")]
	for what, sql := range map[string]string{
		"invoker":    `ALTER FUNCTION ` + function + ` SECURITY INVOKER`,
		"replaced":   `CREATE OR REPLACE FUNCTION ` + name + `(twinspan_sql text) RETURNS int8 LANGUAGE plpgsql AS 'BEGIN PERFORM s.note(''x''); RETURN 1; END'`,
		"other body": `CREATE OR REPLACE FUNCTION ` + name + `(twinspan_sql text) RETURNS int8 LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN RETURN 1; END'`,
		"in sql":     `CREATE OR REPLACE FUNCTION ` + name + `(twinspan_sql text) RETURNS int8 LANGUAGE sql SECURITY DEFINER AS 'SELECT s.note(''x'')::int::int8'`,
		"dropped":    `DROP FUNCTION ` + function,
		"temp gone":  `DISCARD TEMP`,
		"renamed":    `ALTER FUNCTION ` + function + ` RENAME TO other`,
		"immutable":  `ALTER FUNCTION ` + function + ` IMMUTABLE`,
		"folded":     `CREATE OR REPLACE FUNCTION ` + name + `(twinspan_sql text) RETURNS int8 LANGUAGE plpgsql IMMUTABLE AS 'BEGIN PERFORM s.note(''x''); RETURN 1; END'`,
		"inlined": `CREATE FUNCTION s.evil() RETURNS int8 LANGUAGE plpgsql IMMUTABLE AS 'BEGIN PERFORM s.note(''x''); RETURN 1; END';
			CREATE OR REPLACE FUNCTION ` + name + `(twinspan_sql text) RETURNS int8 LANGUAGE sql AS 'SELECT s.evil()'`,
		"another one": `DROP FUNCTION ` + function + `; CREATE FUNCTION ` + name + `(twinspan_sql varchar) RETURNS int8 LANGUAGE plpgsql AS 'BEGIN PERFORM s.note(''x''); RETURN 1; END'`,
		"own owner":   `ALTER FUNCTION ` + function + ` OWNER TO "eve ""x"; ALTER FUNCTION ` + function + ` SECURITY INVOKER`,
	} {
		_, err := w.run(t, r, sql, `SELECT s.note('after')`)
		p := rights.Problem(err, eve, "s.t")
		if s := state(err); s != "22P02" && s != "42883" || s == "22P02" && problem.CodeOf(p) != "code_leaves_fence" {
			t.Errorf("%s: %v", what, err)
		}
		// It is made anew for the next transaction.
		if _, err := w.run(t, r, `SELECT s.note('x')`); err != nil {
			t.Errorf("after %s: %v", what, err)
		}
	}
}

// TestNothingIsLeft lets code leave behind what outlives its call.
func TestNothingIsLeft(t *testing.T) {
	w := newWorld(t)
	ctx := testContext(t)
	const settings = `SELECT string_agg(name || '=' || setting, E'\n' ORDER BY name) FROM pg_settings WHERE name !~ '^(transaction|tcp)_|[.]'`
	before := strings.Split(w.value(t, settings), "\n")
	if _, err := w.conn.Prepare(ctx, "ours", "SELECT 'ours'::pg_catalog.text"); err != nil {
		t.Fatal(err)
	}
	_, err := w.run(t, rights.NewRunner(eve, []rights.Setting{{Name: "search_path", Value: "s, public"}, {Name: "app.tenant", Value: "T'1"}}),
		`SET search_path = s; SET standard_conforming_strings = off; SET client_encoding = 'LATIN1'; SET twinspan.pass_gate = 'off';
		 SET statement_timeout = 1; SET LOCAL lock_timeout = 7; SET default_transaction_read_only = on; SET enable_indexscan = off; SET DateStyle = 'German'`,
		`LISTEN x; DECLARE c CURSOR WITH HOLD FOR SELECT s.note('cursor'); PREPARE mine AS SELECT s.note('x');
		 CREATE TEMPORARY TABLE pg_class (x int); CREATE TEMPORARY TABLE text (x int);
		 CREATE FUNCTION pg_temp.count() RETURNS bigint LANGUAGE plpgsql AS 'BEGIN PERFORM s.note(''x''); RETURN 1; END'`)
	if err != nil {
		t.Fatal(err)
	}
	for i, got := range strings.Split(w.value(t, settings), "\n") {
		if got != before[i] {
			t.Errorf("left: %s, not %s", got, before[i])
		}
	}
	if got := w.value(t, `SELECT count(*) || ' ' || (SELECT string_agg(name, ',') FROM pg_prepared_statements WHERE from_sql OR name = 'ours') FROM pg_cursors WHERE is_holdable`); got != "0 ours" {
		t.Errorf("left: %s", got)
	}
	if got := w.value(t, `SELECT current_setting('twinspan.pass_gate') || ' ' || coalesce(nullif(current_setting('app.tenant', true), ''), 'none')`); got != "on none" {
		t.Errorf("left: %s", got)
	}
}

// TestPreparedUnderOurName lets code put a statement of its own in the place of one that
// the session has prepared.
func TestPreparedUnderOurName(t *testing.T) {
	w := newWorld(t)
	ctx := testContext(t)
	if _, err := w.conn.PgConn().Prepare(ctx, "ours", "SELECT 'ours'::pg_catalog.text", nil); err != nil {
		t.Fatal(err)
	}
	_, err := w.run(t, rights.NewRunner(eve, nil), `DEALLOCATE ALL; PREPARE ours AS SELECT s.note('x')::text`)
	if p := rights.Problem(err, eve, "s.t"); problem.CodeOf(p) != "code_leaves_fence" {
		t.Errorf("got %v", err)
	}
	if r := w.conn.PgConn().ExecPrepared(ctx, "ours", nil, nil, nil).Read(); state(r.Err) != "26000" {
		t.Errorf("the statement ran: %v", r.Err)
	}
}

// TestNothingRunsAtCommit queues code for the end of the transaction.
func TestNothingRunsAtCommit(t *testing.T) {
	w := newWorld(t)
	const trigger = `CREATE TEMPORARY TABLE q (i int); CREATE FUNCTION pg_temp.z() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM s.note('x'); %s RETURN NULL; END $$;
		CREATE CONSTRAINT TRIGGER z AFTER INSERT ON q DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION pg_temp.z(); ALTER TABLE q ENABLE ALWAYS TRIGGER z; INSERT INTO q VALUES (1)`
	for name, sql := range map[string]string{
		"plain":    strings.ReplaceAll(trigger, "%s", ""),
		"again":    strings.ReplaceAll(trigger, "%s", `SET CONSTRAINTS ALL DEFERRED; IF (SELECT count(*) FROM pg_temp.q) < 5 THEN INSERT INTO pg_temp.q VALUES (2); END IF;`),
		"for ever": strings.ReplaceAll(trigger, "%s", `SET CONSTRAINTS ALL DEFERRED; INSERT INTO pg_temp.q VALUES (2);`),
	} {
		ctx, stop := context.WithTimeout(testContext(t), 20*time.Second)
		_, err := w.run(t, rights.NewRunner(eve, nil), sql)
		if p := rights.Problem(err, eve, "s.t"); problem.CodeOf(p) != "deferred_trigger_fires" {
			t.Errorf("%s: %v", name, err)
		}
		stop()
		_ = ctx
	}
	// A table of its own, whose trigger is put off and then made to look harmless.
	pgtest.Exec(t, w.dsn, `CREATE TABLE s.q (i int)`, `CREATE FUNCTION s.z() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM s.note('x'); SET CONSTRAINTS ALL DEFERRED; INSERT INTO s.q VALUES (1); RETURN NULL; END $$`,
		`CREATE CONSTRAINT TRIGGER z AFTER INSERT ON s.q DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION s.z()`, `ALTER TABLE s.q ENABLE ALWAYS TRIGGER z`, `ALTER TABLE s.q OWNER TO "eve ""x"`)
	for _, sql := range []string{`ALTER TABLE s.q DISABLE TRIGGER z`, `DROP TRIGGER z ON s.q`, `DROP TABLE s.q`, `ALTER TABLE s.q ENABLE TRIGGER z`} {
		// Events of a trigger that is dropped fire nothing; else it cannot be changed.
		if _, err := w.run(t, rights.NewRunner(eve, nil), `INSERT INTO s.q VALUES (1)`, sql); state(err) == "XX999" || err == nil && !strings.HasPrefix(sql, "DROP") {
			t.Errorf("%s: %v", sql, err)
		}
	}
}

func TestReadOnlyIsNamed(t *testing.T) {
	w := newWorld(t)
	_, err := w.run(t, rights.NewRunner(eve, nil), `SET TRANSACTION READ ONLY`)
	if p := rights.Problem(err, eve, "s.t"); problem.CodeOf(p) != "code_leaves_fence" {
		t.Errorf("got %v", err)
	}
}

// TestPlanningRunsInside has functions that are folded when a query is planned.
func TestPlanningRunsInside(t *testing.T) {
	w := newWorld(t)
	pgtest.Exec(t, w.dsn, `CREATE FUNCTION s.fold(x int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN PERFORM s.note('fold'); RETURN x; END $$`,
		`CREATE TABLE s.t (i int PRIMARY KEY, x int)`, `ALTER TABLE s.t OWNER TO "eve ""x"`)
	pgtest.Exec(t, w.dsn, `SET ROLE "eve ""x"; CREATE INDEX ON s.t (x) WHERE i > s.fold(3); RESET ROLE`)
	if _, err := w.conn.Exec(testContext(t), `SELECT FROM s.t WHERE x = 1 AND i > 3`); state(err) != "XX999" {
		t.Fatalf("planning runs nothing any more: %v", err)
	}
	if n, err := w.run(t, rights.NewRunner(eve, nil), `INSERT INTO s.t VALUES (1, 1), (5, 5)`, `UPDATE s.t SET x = 7 WHERE i = 5`); err != nil || n != 1 {
		t.Errorf("%d, %v", n, err)
	}
}

func TestSettingsAreAnOrdinarySessions(t *testing.T) {
	w := newWorld(t)
	d, _ := pg.ParseDSN(w.dsn)
	name := sqlname.Quote(d.Database())
	for _, s := range []string{`search_path = "$user", "S 1", public`, `TimeZone = 'Asia/Tokyo'`, `DateStyle = 'German, DMY'`, `app.tenant = 'T1'`, `extra_float_digits = 0`,
		`log_min_duration_statement = 0`, `default_text_search_config = 'pg_catalog.german'`, `array_nulls = off`, `statement_timeout = '7s'`} {
		pgtest.Exec(t, w.dsn, `ALTER DATABASE `+name+` SET `+s)
	}
	sign := w.value(t, rights.SignSQL)
	list, err := rights.Ordinary(testContext(t), d, "test")
	if err != nil {
		t.Fatal(err)
	}
	own, err := pg.ParseDSN(w.dsn + "&search_path=pg_catalog&IntervalStyle=iso_8601&TimeZone=UTC")
	if err != nil {
		t.Fatal(err)
	}
	if same, err := rights.Ordinary(testContext(t), own, "test"); err != nil || !slices.Equal(same, list) {
		t.Errorf("with settings in the connection string %v, without %v, %v", same, list, err)
	}
	r := rights.NewRunner(eve, list)
	if _, err := w.run(t, r, `INSERT INTO s.ran VALUES (concat_ws('|', current_setting('search_path'), current_setting('TimeZone'), current_setting('DateStyle'), current_setting('app.tenant'),
		current_setting('extra_float_digits'), current_setting('default_text_search_config'), current_setting('array_nulls'), current_setting('row_security'), current_setting('statement_timeout')), '', '')`); err != nil {
		t.Fatal(err)
	}
	if got := w.value(t, `SELECT what FROM s.ran`); got != `"$user", "S 1", public|Asia/Tokyo|German, DMY|T1|0|pg_catalog.german|on|on|0` {
		t.Errorf("got %s", got)
	}
	pgtest.Exec(t, w.dsn, `ALTER DATABASE `+name+` SET app.tenant = 'T2'`)
	if w.value(t, rights.SignSQL) == sign {
		t.Error("a change is not seen")
	}
}
