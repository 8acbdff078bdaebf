package test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// trap is a function of eve's that is called by a schema change. On the twin it does
// what it is given, and makes a role superuser when it can.
func trap(name, on string) string {
	return fmt.Sprintf(`CREATE FUNCTION eve.%[1]s_boom() RETURNS int LANGUAGE plpgsql AS $b$ BEGIN
	IF (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user) THEN EXECUTE 'ALTER ROLE mark SUPERUSER'; END IF; RETURN 1; END $b$;
CREATE FUNCTION eve.%[1]s_fire() RETURNS trigger LANGUAGE plpgsql AS $b$ BEGIN
	PERFORM eve.%[1]s_boom(); IF pg_trigger_depth() < 2 THEN SET CONSTRAINTS ALL DEFERRED; INSERT INTO pg_temp.%[1]s_queue VALUES (1); END IF; RETURN NULL; END $b$;
CREATE FUNCTION eve.%[1]s_do() RETURNS void LANGUAGE plpgsql AS $f$ BEGIN
	PERFORM eve.%[1]s_boom();
	IF current_setting('session_replication_role') = 'replica' THEN BEGIN %[2]s END; PERFORM eve.%[1]s_boom(); END IF; END $f$;
CREATE FUNCTION eve.%[1]s(i int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $f$ BEGIN PERFORM eve.%[1]s_do(); RETURN i; END $f$`, name, on)
}

// attacks are what eve's code does within a schema change on the twin.
var attacks = []struct{ name, on string }{
	{"nothing", "NULL;"},
	{"reset_role", "EXECUTE 'RESET ROLE'; EXCEPTION WHEN OTHERS THEN NULL;"},
	{"session_role", "EXECUTE 'SET SESSION AUTHORIZATION DEFAULT'; EXCEPTION WHEN OTHERS THEN NULL;"},
	{"replica", "EXECUTE 'SET session_replication_role = origin'; EXCEPTION WHEN OTHERS THEN NULL;"},
	{"held_cursor", "EXECUTE 'DECLARE held CURSOR WITH HOLD FOR SELECT eve.held_cursor_boom()'; EXCEPTION WHEN OTHERS THEN NULL;"},
	{"prepared", `DEALLOCATE ALL; FOR n IN 1 .. 200 LOOP EXECUTE format('PREPARE a%s AS SELECT eve.prepared_boom()', n); END LOOP; EXCEPTION WHEN OTHERS THEN NULL;`},
	{"settings", "EXECUTE 'SET search_path = eve'; EXECUTE 'SET twinspan.pass_gate = off'; EXECUTE 'SET statement_timeout = 1';"},
	{"shadows", `CREATE DOMAIN pg_temp.timestamptz AS pg_catalog.timestamptz CHECK (eve.shadows_boom() = 1); CREATE DOMAIN pg_temp.oid AS pg_catalog.oid CHECK (eve.shadows_boom() = 1);
		CREATE VIEW pg_temp.pg_class AS SELECT *, eve.shadows_boom() FROM pg_catalog.pg_class; EXCEPTION WHEN OTHERS THEN NULL;`},
	{"own_fence", `EXECUTE (SELECT format('ALTER FUNCTION %s SECURITY INVOKER', oid::regprocedure) FROM pg_proc WHERE proname LIKE 'twinspan\_change%' LIMIT 1); EXECUTE 'RESET ROLE'; EXCEPTION WHEN OTHERS THEN NULL;`},
}

// queueLate puts off a trigger to the commit, again from within when it is forced: the
// twin refuses the command, for it cannot run it.
var queueLate = struct{ name, on string }{"queue_late", `CREATE TEMP TABLE queue_late_queue (i int); CREATE CONSTRAINT TRIGGER q AFTER INSERT ON pg_temp.queue_late_queue DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION eve.queue_late_fire();
		ALTER TABLE pg_temp.queue_late_queue ENABLE ALWAYS TRIGGER q; SET CONSTRAINTS ALL DEFERRED; INSERT INTO pg_temp.queue_late_queue VALUES (1); EXCEPTION WHEN OTHERS THEN NULL;`}

// ways are the schema changes that call a function of eve's.
var ways = []struct{ name, sql string }{
	{"using", `ALTER TABLE eve.%[1]s_t ALTER COLUMN x TYPE bigint USING eve.%[1]s(x)`},
	{"check", `ALTER TABLE eve.%[1]s_t ADD CONSTRAINT c CHECK (eve.%[1]s(i) > 0)`},
	{"view", `CREATE MATERIALIZED VIEW eve.%[1]s_m AS SELECT eve.%[1]s(i) FROM eve.%[1]s_t`},
	{"domain", `ALTER DOMAIN eve.%[1]s_d ADD CHECK (eve.%[1]s(VALUE) > 0)`},
	{"filled", `ALTER TABLE eve.%[1]s_t ADD COLUMN at timestamptz DEFAULT now(), ADD CONSTRAINT f CHECK (eve.%[1]s(i) < 100)`},
	{"index", `CREATE INDEX ON eve.%[1]s_t (eve.%[1]s(i)) WHERE eve.%[1]s(i) > 0`},
}

// Code of a table's owner that a schema change calls never has more rights on the twin
// than the owner, whatever it leaves behind in the session there.
func TestSchemaChangesRunWithTheRightsOfWhoMadeThem(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{})
	p.A.Server.CreateDatabase(t, "fenced")
	a, b := p.A.Server.DSN("fenced"), p.B.Server.DSN("fenced")
	pgtest.Exec(t, a, `CREATE ROLE eve LOGIN; CREATE SCHEMA eve AUTHORIZATION eve`)
	pgtest.Exec(t, b[:strings.LastIndex(b, "/")]+"/postgres?sslmode=prefer", `CREATE ROLE mark`)
	pgtest.Exec(t, a, `CREATE ROLE mark`)
	for _, f := range attacks { // before the copy: rows of theirs come with it
		pgtest.Exec(t, a, `SET SESSION AUTHORIZATION eve`, trap(f.name, f.on),
			fmt.Sprintf(`CREATE DOMAIN eve.%[1]s_d AS int; CREATE TABLE eve.%[1]s_t (i int PRIMARY KEY, x int, d eve.%[1]s_d); INSERT INTO eve.%[1]s_t VALUES (1, 1, 1)`, f.name))
	}
	p.Create(t, "fenced", "fenced")
	p.WaitPhase(t, "fenced", api.Replicating)
	powers := func() string {
		return fmt.Sprint(pgtest.Query(t, b, `SELECT rolname, rolsuper, rolcreaterole, rolreplication FROM pg_roles WHERE rolname NOT LIKE 'pg\_%' ORDER BY 1`),
			pgtest.Query(t, b, `SELECT count(*) FROM pg_auth_members`))
	}
	before := powers()
	for _, f := range attacks {
		for _, w := range ways {
			pgtest.Exec(t, a, `SET SESSION AUTHORIZATION eve`, fmt.Sprintf(w.sql, f.name))
		}
		arrived(t, p, "fenced", "fenced")
		if now := powers(); now != before {
			t.Fatalf("after %s the roles of the twin's server are\n%s\nand were\n%s", f.name, now, before)
		}
	}
	sameStructure(t, p, "fenced", "fenced")
	pgtest.Exec(t, a, `SET SESSION AUTHORIZATION eve`, trap(queueLate.name, queueLate.on), `CREATE TABLE eve.queue_late_t (i int PRIMARY KEY, x int); INSERT INTO eve.queue_late_t VALUES (1, 1)`,
		fmt.Sprintf(ways[1].sql, queueLate.name)) // over a table that is not emptied before
	p.WaitPhase(t, "fenced", api.Broken)
	if l, err := p.B.Client.Link(t.Context(), "fenced"); err != nil || len(l.Problems) == 0 || l.Problems[0].Code != "schema_change_failed" || !strings.Contains(l.Problems[0].Title, "pending trigger events") {
		t.Errorf("the link shows %+v, %v", l.Problems, err)
	}
	if now := powers(); now != before {
		t.Errorf("after a late trigger the roles of the twin's server are\n%s\nand were\n%s", now, before)
	}
}

// A command that lacks a right on the twin waits for it, says which, and goes on.
func TestSchemaChangeWaitsForARight(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{})
	p.A.Server.CreateDatabase(t, "waits")
	a, b := p.A.Server.DSN("waits"), p.B.Server.DSN("waits")
	on := func(dsn string, sql ...string) { pgtest.Exec(t, dsn, sql...) }
	// Both are on the twin's server before: what they are there is its operator's.
	for _, s := range []*linktest.Side{p.A, p.B} {
		on(s.Server.DSN("postgres"), `CREATE ROLE family; CREATE ROLE app LOGIN; CREATE ROLE dba`)
	}
	on(a, `GRANT family TO app; ALTER ROLE dba SUPERUSER; CREATE SCHEMA s AUTHORIZATION family; SET ROLE family; CREATE TABLE s.t (id int PRIMARY KEY)`)
	p.Create(t, "waits", "waits")
	p.WaitPhase(t, "waits", api.Replicating)
	waits := func(parts ...string) {
		t.Helper()
		pgtest.Eventually(t, linktest.Patience, func() error {
			l, err := p.A.Client.Link(t.Context(), "waits")
			if err != nil {
				return err
			}
			for _, problem := range l.Problems {
				if problem.Code != parts[0] {
					continue
				}
				for _, part := range parts[1:] {
					if !strings.Contains(problem.Title+" "+problem.Hint, part) {
						return fmt.Errorf("the problem lacks %q: %+v", part, problem)
					}
				}
				return nil
			}
			return fmt.Errorf("phase %s, problems %+v", l.Phase, l.Problems)
		})
	}
	waits("role_lacks", "app", "membership in family", `GRANT "family" TO "app"`)
	on(a, `SET SESSION AUTHORIZATION app`, `ALTER TABLE s.t ADD v int DEFAULT 7`, `INSERT INTO s.t VALUES (1, 8)`)
	waits("right_missing", "ALTER TABLE", "s.t", `"app"`, `GRANT "family" TO "app"`, "--skip-change")
	on(b, `SET default_transaction_read_only = off`, `GRANT family TO app`)
	sameStructure(t, p, "waits", "waits")

	// So it does with what its role has for a migration alone, where the link made the roles.
	on(a, `BEGIN; CREATE ROLE owns; CREATE ROLE migrates; GRANT owns TO migrates; GRANT CREATE ON DATABASE waits TO migrates; SET LOCAL ROLE migrates;
		CREATE SCHEMA m AUTHORIZATION owns; RESET ROLE; REVOKE owns FROM migrates; REVOKE CREATE ON DATABASE waits FROM migrates; COMMIT`)
	sameStructure(t, p, "waits", "waits")
	// It does not stay so afterwards.
	pgtest.Eventually(t, linktest.Patience, func() error {
		rows := pgtest.Query(t, b, `SELECT pg_has_role('migrates', 'owns', 'MEMBER'), has_database_privilege('migrates', 'waits', 'CREATE'), pg_has_role('app', 'family', 'MEMBER')`)
		if fmt.Sprint(rows) != "[[f f t]]" {
			return fmt.Errorf("migrates is in owns, creates, and app is in family: %v", rows)
		}
		return nil
	})

	// A superuser of the primary who is none here, within a transaction that had begun.
	on(a, `SET SESSION AUTHORIZATION dba`, `BEGIN; CREATE TABLE public.first (id int PRIMARY KEY); INSERT INTO public.first VALUES (1); CREATE TABLE s.second (id serial PRIMARY KEY); COMMIT`)
	waits("right_missing", "dba", "--accept superuser_commands")
	if _, err := p.A.Client.SetLink(t.Context(), "waits", api.SetLink{Accept: []string{"superuser_commands"}}); err == nil {
		t.Error("the primary's operator gave the twin's rights away")
	}
	if _, err := p.B.Client.SetLink(t.Context(), "waits", api.SetLink{Accept: []string{"superuser_commands"}}); err != nil {
		t.Fatal(err)
	}
	sameStructure(t, p, "waits", "waits")
	on(a, `SET SESSION AUTHORIZATION dba`, `CREATE TYPE s.mood AS ENUM ('a'); CREATE FUNCTION s.f() RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE SCHEMA made CREATE VIEW v AS SELECT 1 AS x`,
		`CREATE MATERIALIZED VIEW made.m AS SELECT count(*) FROM s.t`, `INSERT INTO s.t VALUES (3, 3)`, `REFRESH MATERIALIZED VIEW made.m`)
	sameStructure(t, p, "waits", "waits")
	// What the role was then counts: it need not be a superuser when its change arrives.
	if _, err := p.A.Client.Suspend(t.Context(), "waits"); err != nil {
		t.Fatal(err)
	}
	on(a, `SET SESSION AUTHORIZATION dba`, `CREATE SCHEMA AUTHORIZATION CURRENT_USER CREATE TABLE dba.t (id int PRIMARY KEY)`, `RESET SESSION AUTHORIZATION`, `ALTER ROLE dba NOSUPERUSER`)
	if _, err := p.A.Client.Resume(t.Context(), "waits"); err != nil {
		t.Fatal(err)
	}
	sameStructure(t, p, "waits", "waits")
	on(a, `ALTER ROLE dba SUPERUSER`)
	if _, err := p.B.Client.SetLink(t.Context(), "waits", api.SetLink{Withdraw: []string{"superuser_commands"}}); err != nil {
		t.Fatal(err)
	}

	// What can never be made is left out, once.
	on(a, `SET SESSION AUTHORIZATION dba`, `COMMENT ON TABLE s.t IS 'never'`)
	waits("right_missing", "COMMENT")
	if _, err := p.A.Client.ResumeSkipping(t.Context(), "waits"); err != nil {
		t.Fatal(err)
	}
	on(a, `COMMENT ON TABLE s.t IS NULL`)
	sameStructure(t, p, "waits", "waits")
	if _, err := p.A.Client.ResumeSkipping(t.Context(), "waits"); err == nil {
		t.Error("a change was left out at which the link did not stand")
	}
}

// What names or belongs to roles that the twin's server lacks, or where they are less: a
// value that names one and a materialized view whose owner may not read hold the first copy
// up, each with what is missing, and the copy goes on once it is there; event triggers and
// foreign-data wrappers of superusers belong to the agent's role.
func TestRolesThatTheTwinLacks(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{})
	there := p.B.Server.DSN("postgres")
	pgtest.Exec(t, p.A.Server.DSN("postgres"), `CREATE DATABASE shop`, `CREATE ROLE adm SUPERUSER; CREATE ROLE only_here; CREATE ROLE later`)
	a, b := p.A.Server.DSN("shop"), p.B.Server.DSN("shop")
	pgtest.Exec(t, a, `CREATE TABLE base (id int PRIMARY KEY); INSERT INTO base VALUES (1), (2); ALTER TABLE base OWNER TO shop;
		CREATE MATERIALIZED VIEW mv AS SELECT count(*) AS n FROM base; ALTER MATERIALIZED VIEW mv OWNER TO adm`,
		`CREATE TABLE named (id int PRIMARY KEY, r regrole); INSERT INTO named VALUES (1, 'only_here')`,
		`CREATE FUNCTION public.f() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'; CREATE EVENT TRIGGER et ON sql_drop EXECUTE FUNCTION public.f();
		ALTER EVENT TRIGGER et OWNER TO adm; CREATE FOREIGN DATA WRAPPER fw; ALTER FOREIGN DATA WRAPPER fw OWNER TO adm`)
	if _, err := p.A.Client.CreateLink(t.Context(), api.CreateLink{Name: "shop", Database: "shop", Peer: "b", CreateRoles: true}); err != nil {
		t.Fatal(err)
	}
	waits := func(code, subject, names, remedy string) {
		t.Helper()
		pgtest.Eventually(t, linktest.Patience, func() error {
			l, err := p.A.Client.Link(t.Context(), "shop")
			if q := problemOf(l.Problems, code); err != nil || !strings.HasPrefix(q.Subject, subject) || !strings.Contains(q.Title, names) || !strings.Contains(q.Hint, remedy) {
				return fmt.Errorf("phase %s, %+v, %v", l.Phase, l.Problems, err)
			}
			return nil
		})
	}
	waits("object_missing", "public.named", "only_here", "CREATE ROLE")
	pgtest.Exec(t, there, `CREATE ROLE only_here`)
	waits("right_missing", "public.mv", "base", "pg_read_all_data")
	pgtest.Exec(t, there, `GRANT pg_read_all_data TO adm`)
	p.WaitPhase(t, "shop", api.Replicating)
	pgtest.Exec(t, a, `INSERT INTO named VALUES (2, 'later')`)
	waits("object_missing", "public.named (id) = (2)", "later", "CREATE ROLE")
	pgtest.Exec(t, there, `CREATE ROLE later`)
	p.WaitEqual(t, "shop", "shop")
	if got := pgtest.Table(t, b, "mv"); got != "(2)\n" {
		t.Errorf("the view holds %s", got)
	}
	if got := pgtest.Query(t, b, `SELECT evtname FROM pg_event_trigger WHERE evtname = 'et' UNION ALL SELECT fdwname FROM pg_foreign_data_wrapper`); len(got) != 2 {
		t.Errorf("the twin has %v", got)
	}
	pgtest.Eventually(t, linktest.Patience, func() error { // the primary hears of it a moment later
		l, err := p.A.Client.Link(t.Context(), "shop")
		if err == nil && (l.Phase != api.Replicating || problemOf(l.Problems, "object_missing").Code != "") {
			err = fmt.Errorf("phase %s, %+v", l.Phase, l.Problems)
		}
		return err
	})
}
