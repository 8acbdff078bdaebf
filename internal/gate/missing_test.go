package gate_test

import (
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/gate"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// missing is what of a gate is not as it was made.
func missing(t testing.TB, conn *pgx.Conn) []string {
	t.Helper()
	gone, changed, err := gate.Missing(testContext(t), conn)
	if err != nil {
		t.Fatal(err)
	}
	return append(gone, changed...)
}

// However a gate is opened, or a part of it is replaced by one that does nothing, it is seen, and shut again by
// what shuts it.
func TestEveryWayToOpenAGateIsSeen(t *testing.T) {
	dsn, conn := fresh(t, `CREATE TABLE public.t (id int PRIMARY KEY, v int); CREATE TABLE public.u (id int PRIMARY KEY); CREATE FUNCTION public.nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'`)
	shut(t, conn)
	if list := missing(t, conn); len(list) > 0 {
		t.Fatalf("of a whole gate is missing: %v", list)
	}
	const replaced = `DROP TRIGGER twinspan_gate ON public.t; CREATE TRIGGER twinspan_gate BEFORE `
	for _, way := range []string{
		`ALTER TABLE public.t DISABLE TRIGGER ALL`, `ALTER TABLE public.t DISABLE TRIGGER USER`, `ALTER TABLE public.t ENABLE TRIGGER twinspan_gate`, `ALTER TABLE public.t ENABLE REPLICA TRIGGER twinspan_gate`,
		`DROP TRIGGER twinspan_gate ON public.t`, `UPDATE pg_trigger SET tgenabled = 'D' WHERE tgname = 'twinspan_gate'`,
		replaced + `INSERT OR UPDATE OR DELETE OR TRUNCATE ON public.t FOR EACH STATEMENT WHEN (false) EXECUTE PROCEDURE twinspan.gate(); ALTER TABLE public.t ENABLE ALWAYS TRIGGER twinspan_gate`,
		replaced + `DELETE OR TRUNCATE ON public.t FOR EACH STATEMENT EXECUTE PROCEDURE twinspan.gate(); ALTER TABLE public.t ENABLE ALWAYS TRIGGER twinspan_gate`,
		replaced + `INSERT OR UPDATE OF v OR DELETE OR TRUNCATE ON public.t FOR EACH STATEMENT EXECUTE PROCEDURE twinspan.gate(); ALTER TABLE public.t ENABLE ALWAYS TRIGGER twinspan_gate`,
		replaced + `INSERT OR UPDATE OR DELETE OR TRUNCATE ON public.t FOR EACH STATEMENT EXECUTE PROCEDURE public.nothing(); ALTER TABLE public.t ENABLE ALWAYS TRIGGER twinspan_gate`,
		`CREATE OR REPLACE FUNCTION twinspan.gate() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN RETURN NULL; END'`,
		`CREATE OR REPLACE FUNCTION twinspan.gate_ddl() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN END'`,
		`CREATE OR REPLACE FUNCTION twinspan.refuse(what text) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS 'BEGIN END'`,
		`CREATE OR REPLACE FUNCTION twinspan.ticket(pass text, what oid) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RETURN true; END'`,
		`CREATE OR REPLACE FUNCTION twinspan.copied() RETURNS boolean LANGUAGE sql AS 'SELECT true'`,
		`ALTER FUNCTION twinspan.refuse(text) SET search_path = public`, `ALTER FUNCTION twinspan.refuse(text) SECURITY INVOKER`, `ALTER FUNCTION twinspan.refuse(text) RENAME TO other`, `DROP FUNCTION twinspan.gate() CASCADE`,
		`ALTER EVENT TRIGGER twinspan_gate DISABLE`, `ALTER EVENT TRIGGER twinspan_gate ENABLE`, `ALTER EVENT TRIGGER twinspan_gate RENAME TO other`, `DROP EVENT TRIGGER twinspan_gate`,
		`DROP EVENT TRIGGER twinspan_gate; CREATE EVENT TRIGGER twinspan_gate ON ddl_command_start WHEN TAG IN ('COMMENT') EXECUTE PROCEDURE twinspan.gate_ddl(); ALTER EVENT TRIGGER twinspan_gate ENABLE ALWAYS`,
		`SELECT setval('twinspan.gate_state', 1)`, `DROP SEQUENCE twinspan.gate_state`,
	} {
		must(t, conn, way)
		if len(missing(t, conn)) == 0 {
			t.Errorf("nothing is seen of %s", way)
		}
		shut(t, conn)
		if list := missing(t, conn); len(list) > 0 {
			t.Errorf("after %s it is shut again, and missing is %v", way, list)
		}
		for _, sql := range []string{`INSERT INTO public.t VALUES (1)`, `UPDATE public.t SET id = 1`, `TRUNCATE public.t`, `CREATE TABLE public.made ()`} {
			if _, err := pgtest.Try(testContext(t), dsn+"&default_transaction_read_only=off", sql); pg.SQLState(err) != "25006" {
				t.Errorf("after %s: %s: %v", way, sql, err)
			}
		}
	}
}

// The owner of a table can have a trigger of the gate's name, which does nothing. The table is shut all the same, and the
// owner's trigger is there when it is open again.
func TestTriggerOfTheGatesNameShutsNothing(t *testing.T) {
	dsn, conn := fresh(t, `CREATE TABLE public.t (id int PRIMARY KEY); CREATE FUNCTION public.nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
		CREATE TRIGGER twinspan_gate BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON public.t FOR EACH STATEMENT EXECUTE PROCEDURE public.nothing(); ALTER TABLE public.t ENABLE ALWAYS TRIGGER twinspan_gate;
		CREATE TABLE public.parted (id int) PARTITION BY RANGE (id); CREATE TABLE public.part PARTITION OF public.parted FOR VALUES FROM (0) TO (10);
		CREATE TRIGGER twinspan_gate AFTER INSERT ON public.parted FOR EACH ROW EXECUTE PROCEDURE public.nothing()`)
	triggers := func() string {
		return fmt.Sprint(pgtest.Query(t, dsn, `SELECT tgrelid::regclass, tgname, tgfoid::regproc, tgenabled FROM pg_trigger WHERE NOT tgisinternal OR tgname = 'twinspan_gate' ORDER BY tgrelid::regclass::text, tgname`))
	}
	before := triggers()
	shut(t, conn)
	if list := missing(t, conn); len(list) > 0 {
		t.Errorf("missing is %v", list)
	}
	for _, sql := range []string{`INSERT INTO public.t VALUES (1)`, `TRUNCATE public.t`, `INSERT INTO public.part VALUES (1)`, `INSERT INTO public.parted VALUES (1)`} {
		if _, err := pgtest.Try(testContext(t), dsn+"&default_transaction_read_only=off", sql); pg.SQLState(err) != "25006" {
			t.Errorf("%s: %v", sql, err)
		}
	}
	if err := open(testContext(t), conn); err != nil {
		t.Fatal(err)
	}
	if after := triggers(); after != before {
		t.Errorf("triggers are %s, and were %s", after, before)
	}
}
