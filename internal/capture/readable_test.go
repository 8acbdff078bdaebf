package capture_test

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/instance"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/pgtest"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// The owner of a linked database can dump it, as long as nothing that was lost is to be
// read there, and can do nothing else with the schema of the link.
func TestOwnersCanDump(t *testing.T) {
	for _, major := range []int{10, 15, 18} {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			server := pgtest.Shared(t)
			if major != 15 {
				server = pgtest.Start(t, pgtest.WithMajor(major))
			}
			dsn, s := fresh(t, server)
			name := pgtest.Query(t, dsn, `SELECT current_database()`)[0][0]
			for _, role := range []string{"_owner", "_next"} {
				pgtest.Exec(t, server.DSN("postgres"), `CREATE ROLE `+name+role+` LOGIN PASSWORD 'secret'`)
			}
			t.Cleanup(func() {
				pgtest.Exec(t, dsn, `ALTER DATABASE `+name+` OWNER TO CURRENT_USER; DROP OWNED BY `+name+`_owner, `+name+`_next`)
				pgtest.Exec(t, server.DSN("postgres"), `DROP ROLE `+name+`_owner, `+name+`_next`)
			})
			pgtest.Exec(t, dsn, `ALTER DATABASE `+name+` OWNER TO `+name+`_owner`)
			conn := connectApply(t, dsn)
			err := catalog.Insert(testContext(t), conn, &catalog.Link{
				ID: s.Link, Agent: "11111111-1111-4111-8111-111111111111", PeerAgent: "22222222-2222-4222-8222-222222222222",
				Name: "sales", Peer: "b", PeerDatabase: "sales", Role: "primary", Phase: "replicating", Epoch: 1, Mode: "async",
			})
			if err != nil {
				t.Fatal(err)
			}
			prepare(t, s)
			readable := func() {
				t.Helper()
				if err := catalog.Readable(testContext(t), conn); err != nil {
					t.Fatal(err)
				}
			}
			dump := func(role string) error {
				t.Helper()
				as := as(t, dsn, name+role)
				defer as.Close(context.Background())
				return locksAll(t, as)
			}
			pgtest.Exec(t, dsn, `CREATE TABLE said (what text); CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.said VALUES (new.kind || new.payload::text); RETURN NULL; END $$; CREATE TRIGGER tell AFTER INSERT ON twinspan.signal FOR EACH ROW EXECUTE PROCEDURE tell(); ALTER TABLE twinspan.signal ENABLE ALWAYS TRIGGER tell; DELETE FROM said`)
			if err := dump("_owner"); pg.SQLState(err) != "42501" {
				t.Errorf("before: %v", err)
			}
			readable()
			if err := dump("_owner"); err != nil {
				t.Errorf("the owner: %v", err)
			}
			if err := dump("_next"); pg.SQLState(err) != "42501" {
				t.Errorf("somebody else: %v", err)
			}
			if major == 15 {
				program, _, err := instance.FindClient("pg_dump", 0)
				if err != nil {
					t.Fatal(err)
				}
				out, err := exec.Command(program, "--role="+name+"_owner", "--table=twinspan.*", "--dbname="+dsn).CombinedOutput()
				if err != nil || !strings.Contains(string(out), "COPY twinspan.link ") {
					t.Errorf("pg_dump: %v\n%s", err, out)
				}
			}
			// Nothing that anybody can call, nothing that can be written.
			if open := pgtest.Query(t, dsn, `SELECT p.oid::regprocedure FROM pg_proc p WHERE pronamespace = 'twinspan'::regnamespace AND has_function_privilege($1, p.oid, 'EXECUTE')`, name+"_owner"); len(open) > 0 {
				t.Errorf("the owner can call %v", open)
			}
			if open := pgtest.Query(t, dsn, `SELECT relname FROM pg_class WHERE relnamespace = 'twinspan'::regnamespace AND relkind = 'r' AND has_table_privilege($1, oid, 'INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')
				UNION ALL SELECT 'the schema' WHERE has_schema_privilege($1, 'twinspan', 'CREATE')`, name+"_owner"); len(open) > 0 {
				t.Errorf("the owner can write %v", open)
			}
			owner := as(t, dsn, name+"_owner")
			if _, err := owner.Exec(testContext(t), `SELECT twinspan.run_own('CREATE ROLE boss SUPERUSER')`); pg.SQLState(err) != "42501" {
				t.Errorf("run_own: %v", err)
			}
			// Event triggers and triggers fire all the same.
			must(t, owner, `CREATE SCHEMA own; CREATE TABLE own.t (id int); INSERT INTO own.t VALUES (1); UPDATE own.t SET id = 2; DELETE FROM own.t; DROP TABLE own.t`)
			owner.Close(context.Background())
			for _, row := range pgtest.Query(t, dsn, `SELECT what FROM said`) {
				if strings.Contains(row[0], "REVOKE") || strings.Contains(row[0], "GRANT") {
					t.Errorf("a right became a schema change: %s", row[0])
				}
			}
			// What was lost is not for him.
			pgtest.Exec(t, dsn, `INSERT INTO twinspan.lost (link, epoch, parted, read_to) SELECT id, 2, '0/1', '0/1' FROM twinspan.link`)
			readable()
			if err := dump("_owner"); pg.SQLState(err) != "42501" {
				t.Errorf("while something lost is there: %v", err)
			}
			pgtest.Exec(t, dsn, `DELETE FROM twinspan.lost`)
			readable()
			if err := dump("_owner"); err != nil {
				t.Errorf("afterwards: %v", err)
			}
			pgtest.Exec(t, dsn, `ALTER DATABASE `+name+` OWNER TO `+name+`_next`)
			readable()
			if err := dump("_owner"); pg.SQLState(err) != "42501" {
				t.Errorf("the former owner: %v", err)
			}
			if err := dump("_next"); err != nil {
				t.Errorf("the new owner: %v", err)
			}
		})
	}
}

// An event trigger of a role runs its function with the rights of whoever gives a command. What an agent does to a
// primary, in its own sessions and in those of applications, is not for it: where it is enabled as ALWAYS, from 17 on.
func TestEventTriggersOfRolesDoNotSeeAgents(t *testing.T) {
	for _, major := range []int{15, 18} {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			server := pgtest.Shared(t)
			if major != 15 {
				server = pgtest.Start(t, pgtest.WithMajor(major))
			}
			dsn, s := fresh(t, server)
			eve := pgtest.Query(t, dsn, `SELECT current_database()`)[0][0] + "_eve"
			pgtest.Exec(t, dsn, `CREATE ROLE `+eve, `CREATE SCHEMA own AUTHORIZATION `+eve, `CREATE TABLE public.seen (n serial PRIMARY KEY, which text, who text, tag text)`, `GRANT ALL ON public.seen, public.seen_n_seq TO PUBLIC`)
			t.Cleanup(func() {
				pgtest.Exec(t, dsn, `DROP EVENT TRIGGER IF EXISTS ordinary`, `DROP EVENT TRIGGER IF EXISTS always`, `DROP OWNED BY `+eve+` CASCADE`, `DROP ROLE `+eve)
			})
			for _, which := range []string{"ordinary", "always"} {
				pgtest.Exec(t, dsn, `CREATE FUNCTION own.`+which+`() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO public.seen (which, who, tag) VALUES (''`+which+`'', current_user, tg_tag); END'`,
					`ALTER FUNCTION own.`+which+`() OWNER TO `+eve, `CREATE EVENT TRIGGER `+which+` ON ddl_command_end EXECUTE PROCEDURE own.`+which+`()`)
			}
			pgtest.Exec(t, dsn, `ALTER EVENT TRIGGER always ENABLE ALWAYS`, `CREATE TABLE public.keyless (i int)`, `TRUNCATE public.seen`)
			err := catalog.Insert(testContext(t), connectApply(t, dsn), &catalog.Link{
				ID: s.Link, Agent: "11111111-1111-4111-8111-111111111111", PeerAgent: "22222222-2222-4222-8222-222222222222",
				Name: "sales", Peer: "b", PeerDatabase: "sales", Role: "primary", Phase: "replicating", Epoch: 1, Mode: "async",
			})
			if err != nil {
				t.Fatal(err)
			}
			prepare(t, s)
			session := as(t, dsn, eve)
			must(t, session, `CREATE TABLE own.t (i int); INSERT INTO own.t VALUES (1), (2); ALTER TABLE own.t ADD COLUMN more float DEFAULT random(); CREATE INDEX ON own.t (i); DROP TABLE own.t`)
			session.Close(context.Background())
			remove(t, s, true)
			rows := pgtest.Query(t, dsn, `SELECT which, who, tag FROM public.seen ORDER BY n`)
			own := 0
			for _, row := range rows {
				switch {
				case row[1] == eve:
					own++
				case row[0] == "ordinary" || major >= 17:
					t.Errorf("the %s trigger ran as %s at %s", row[0], row[1], row[2])
				}
			}
			if own < 8 {
				t.Errorf("seen are %v", rows)
			}
		})
	}
}

func connectApply(t testing.TB, dsn string) *pgx.Conn {
	t.Helper()
	conn, err := parse(t, dsn).Connect(testContext(t), pg.Session{Name: "test", Apply: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

// as opens a session and becomes a role in it.
func as(t testing.TB, dsn, role string) *pgx.Conn {
	t.Helper()
	conn := connect(t, dsn)
	must(t, conn, `SET SESSION AUTHORIZATION `+sqlname.Quote(role))
	return conn
}

// locksAll does with the tables and sequences of the schema twinspan what pg_dump does.
func locksAll(t testing.TB, conn *pgx.Conn) error {
	t.Helper()
	rows, err := conn.Query(testContext(t), `SELECT c.relname::text, c.relkind::text FROM pg_class c WHERE relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = 'twinspan') AND relkind IN ('r', 'S') ORDER BY 1`)
	if err != nil {
		return err
	}
	type relation struct{ Name, Kind string }
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[relation])
	if err != nil {
		return err
	}
	if len(list) < 20 {
		t.Fatalf("only %v", list)
	}
	for _, r := range list {
		sql := `BEGIN; LOCK TABLE twinspan.` + r.Name + ` IN ACCESS SHARE MODE; COPY twinspan.` + r.Name + ` TO STDOUT; COMMIT`
		if r.Kind == "S" {
			sql = `SELECT last_value, is_called FROM twinspan.` + r.Name
		}
		if _, err := conn.Exec(testContext(t), strings.ReplaceAll(sql, "COPY twinspan."+r.Name+" TO STDOUT", "SELECT count(*) FROM twinspan."+r.Name)); err != nil {
			_, _ = conn.Exec(testContext(t), `ROLLBACK`)
			return err
		}
	}
	return nil
}
