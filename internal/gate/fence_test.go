package gate_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/gate"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/pgtest"
	"github.com/twinspan/twinspan/internal/problem"
)

// Whatever a user's trigger, rule or event trigger is called and however it is enabled,
// it does not fire at what an agent writes to a secondary, and is as it was when the side
// takes writes.
func TestUsersTriggersArePutAside(t *testing.T) {
	dsn, conn := fresh(t, `CREATE TABLE public.t (id int PRIMARY KEY, v int); CREATE TABLE public.ref (id int REFERENCES public.t ON DELETE CASCADE); CREATE TABLE public.fired (what text);
		CREATE TABLE public.parted (id int) PARTITION BY RANGE (id); CREATE TABLE public.part PARTITION OF public.parted FOR VALUES FROM (0) TO (10);
		CREATE FUNCTION public.note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO public.fired VALUES (tg_name); RETURN new; END';
		CREATE FUNCTION public.note_ddl() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO public.fired VALUES (tg_tag); END';
		CREATE TRIGGER always BEFORE INSERT ON public.t FOR EACH ROW EXECUTE FUNCTION public.note(); ALTER TABLE public.t ENABLE ALWAYS TRIGGER always;
		CREATE TRIGGER twinspan_gate_of_mine AFTER INSERT ON public.t FOR EACH STATEMENT EXECUTE FUNCTION public.note(); ALTER TABLE public.t ENABLE REPLICA TRIGGER twinspan_gate_of_mine;
		CREATE TRIGGER ordinary AFTER INSERT ON public.t FOR EACH ROW EXECUTE FUNCTION public.note();
		CREATE TRIGGER disabled AFTER INSERT ON public.t FOR EACH ROW EXECUTE FUNCTION public.note(); ALTER TABLE public.t DISABLE TRIGGER disabled;
		CREATE CONSTRAINT TRIGGER deferred AFTER INSERT ON public.t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.note(); ALTER TABLE public.t ENABLE ALWAYS TRIGGER deferred;
		CREATE TRIGGER cloned AFTER INSERT ON public.parted FOR EACH ROW EXECUTE FUNCTION public.note(); ALTER TABLE public.part ENABLE ALWAYS TRIGGER cloned;
		CREATE RULE doubled AS ON UPDATE TO public.t DO ALSO INSERT INTO public.fired VALUES ('rule'); ALTER TABLE public.t ENABLE ALWAYS RULE doubled;
		DO $$DECLARE r record; BEGIN FOR r IN SELECT tgname, tgrelid::regclass AS t FROM pg_trigger WHERE tgisinternal LOOP EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', r.t, r.tgname); END LOOP; END$$;
		CREATE EVENT TRIGGER always_ddl ON ddl_command_end EXECUTE FUNCTION public.note_ddl(); ALTER EVENT TRIGGER always_ddl ENABLE ALWAYS`)
	const modes = `SELECT tgrelid::regclass || ' ' || CASE WHEN tgisinternal THEN 'internal' ELSE tgname END, tgenabled::text FROM pg_trigger WHERE tgfoid NOT IN (SELECT oid FROM pg_proc WHERE pronamespace = 'twinspan'::regnamespace)
		UNION ALL SELECT rulename, ev_enabled::text FROM pg_rewrite WHERE rulename = 'doubled' UNION ALL SELECT evtname, evtenabled::text FROM pg_event_trigger WHERE evtname LIKE 'always%' ORDER BY 1, 2`
	before := fmt.Sprint(pgtest.Query(t, dsn, modes))
	if !strings.Contains(before, "A") || !strings.Contains(before, "R") || !strings.Contains(before, "D") {
		t.Fatalf("not every mode is tried: %s", before)
	}
	shut(t, conn)
	must(t, conn, gate.AsideSQL)
	must(t, conn, gate.AsideSQL+`; TRUNCATE public.fired`)
	must(t, conn, `INSERT INTO public.t VALUES (1, 1), (2, 2); INSERT INTO public.ref VALUES (1), (7); UPDATE public.t SET v = 5; INSERT INTO public.parted VALUES (3); DELETE FROM public.t WHERE id = 1;
		CREATE TABLE public.made (id int); DROP TABLE public.made`)
	if fired := pgtest.Query(t, dsn, `SELECT * FROM public.fired`); len(fired) > 0 {
		t.Errorf("fired: %v", fired)
	}
	if left := fmt.Sprint(pgtest.Query(t, dsn, `SELECT id FROM public.ref ORDER BY 1`)); left != "[[1] [7]]" {
		t.Errorf("a cascade fired: %s", left)
	}
	// Schema changes change what they are to change, also to what is put aside already.
	for _, c := range []struct{ sql, mode string }{
		{`ALTER TABLE public.t ENABLE TRIGGER always`, "O"}, {`ALTER TABLE public.t DISABLE TRIGGER always`, "D"}, {`ALTER TABLE public.t ENABLE REPLICA TRIGGER always`, "R"}, {`ALTER TABLE public.t ENABLE ALWAYS TRIGGER always`, "A"},
	} {
		must(t, conn, `BEGIN; `+gate.BackSQL+`; `+c.sql+`; `+gate.AsideSQL+`; COMMIT`)
		is := pgtest.Query(t, dsn, `SELECT coalesce(m.mode, t.tgenabled)::text FROM pg_trigger t LEFT JOIN twinspan.trigger_mode m ON m.object = t.oid WHERE tgname = 'always'`)[0][0]
		if is != c.mode {
			t.Errorf("after %s it is kept as %s", c.sql, is)
		}
	}
	if err := gate.PutBack(testContext(t), conn); err != nil {
		t.Fatal(err)
	}
	if after := fmt.Sprint(pgtest.Query(t, dsn, modes)); after != before {
		t.Errorf("before\n%s\nafter\n%s", before, after)
	}
	must(t, conn, gate.AsideSQL)
	if err := open(testContext(t), conn); err != nil {
		t.Fatal(err)
	}
	if after := fmt.Sprint(pgtest.Query(t, dsn, modes)); after != before {
		t.Errorf("before\n%s\nafter its opening\n%s", before, after)
	}
}

// Nobody but agents can have what agents wait for.
func TestNobodyCanLockWhatAgentsLock(t *testing.T) {
	dsn, conn := fresh(t, `CREATE TABLE public.t (id int)`)
	server := pgtest.Shared(t)
	database := pgtest.Query(t, dsn, `SELECT quote_ident(current_database())`)[0][0]
	pgtest.Exec(t, dsn, `CREATE ROLE lock_owner LOGIN; ALTER DATABASE `+database+` OWNER TO lock_owner; CREATE ROLE lock_nobody LOGIN`)
	shut(t, conn)
	t.Cleanup(func() {
		pgtest.Exec(t, server.DSN("postgres"), `ALTER DATABASE `+database+` OWNER TO CURRENT_USER`)
		pgtest.Exec(t, server.DSN("postgres"), `DROP ROLE lock_owner, lock_nobody`)
	})
	for _, role := range []string{"lock_owner", "lock_nobody"} {
		c := pgtest.Conn(t, dsn)
		must(t, c, `SET default_transaction_read_only = off; SET ROLE `+role)
		for _, table := range []string{"twinspan.gate_pass", "twinspan.gate_claim", "twinspan.version", "twinspan.link", "pg_catalog.pg_shseclabel"} {
			for _, mode := range []string{"ROW SHARE", "ROW EXCLUSIVE", "SHARE UPDATE EXCLUSIVE", "SHARE", "SHARE ROW EXCLUSIVE", "EXCLUSIVE", "ACCESS EXCLUSIVE"} {
				if _, err := c.Exec(testContext(t), `BEGIN; LOCK TABLE `+table+` IN `+mode+` MODE`); pg.SQLState(err) != "42501" {
					t.Errorf("%s locks %s in %s: %v", role, table, mode, err)
				}
				must(t, c, `ROLLBACK`)
			}
		}
		// The locks of earlier versions, which anybody can have, keep nobody waiting.
		for lock := int64(0x7477696e67617465); lock < 0x7477696e67617465+3; lock++ {
			must(t, c, fmt.Sprintf(`SELECT pg_advisory_lock_shared(%d)`, lock))
		}
	}
	shut(t, agent(t, dsn))
	if err := open(testContext(t), agent(t, dsn)); err == nil {
		t.Error("the gate was taken away while two sessions claim it")
	}
}

// A database's owner who is changing its settings does not keep it from being shut.
func TestOwnersTransactionDoesNotKeepTheGateOpen(t *testing.T) {
	dsn, conn := fresh(t, objects)
	database := pgtest.Query(t, dsn, `SELECT quote_ident(current_database())`)[0][0]
	owner := pgtest.Conn(t, dsn)
	pgtest.Exec(t, dsn, `ALTER DATABASE `+database+` SET work_mem = '5MB'`)
	must(t, owner, `BEGIN; ALTER DATABASE `+database+` SET work_mem = '6MB'`)
	if err := gate.Shut(testContext(t), conn); err != nil {
		t.Fatal(err)
	}
	if err := gate.ReadOnlyNow(testContext(t), conn); err != nil {
		t.Fatal(err)
	}
	if _, err := owner.Exec(testContext(t), `COMMIT`); err == nil {
		t.Error("whoever kept the setting was not ended")
	}
	if set := fmt.Sprint(pgtest.Query(t, dsn, `SELECT setconfig FROM pg_db_role_setting WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())`)); !strings.Contains(set, "default_transaction_read_only=on") {
		t.Errorf("settings: %s", set)
	}
}

// Where a prepared transaction keeps a table's gate from being shut, nobody is let in but
// superusers, it is said which one it is, and all is as before when it is finished.
func TestSlamKeepsEverybodyOutBesideAPreparedTransaction(t *testing.T) {
	server := pgtest.Start(t, pgtest.WithSetting("max_prepared_transactions", "5"))
	dsn := server.DSN(server.Database(t))
	pgtest.Exec(t, dsn, objects)
	conn := freshIn(t, dsn)
	database := pgtest.Query(t, dsn, `SELECT quote_ident(current_database())`)[0][0]
	pgtest.Exec(t, dsn, `ALTER DATABASE `+database+` CONNECTION LIMIT 17; CREATE ROLE plain LOGIN`)
	writer := pgtest.Conn(t, dsn)
	must(t, writer, `BEGIN; INSERT INTO public.t VALUES (60, 6); PREPARE TRANSACTION 'mine'`)
	if err := gate.Shut(testContext(t), conn); err != nil {
		t.Fatal(err)
	}
	told := make(chan *problem.Error, 1000)
	done := make(chan error, 1)
	go func() { done <- gate.Slam(testContext(t), conn, func(p *problem.Error) { told <- p }) }()
	limit := func() string {
		return pgtest.Query(t, server.DSN("postgres"), `SELECT datconnlimit FROM pg_database WHERE quote_ident(datname) = '`+database+`'`)[0][0]
	}
	pgtest.Eventually(t, patience, func() error {
		if l := limit(); l != "0" {
			return fmt.Errorf("limit of connections %s", l)
		}
		return nil
	})
	if p := <-told; p == nil || p.Code != "transaction_prepared" || p.Subject != "mine" || !strings.Contains(p.Error(), `"mine"`) {
		t.Errorf("told: %v", p)
	}
	pgtest.Eventually(t, patience, func() error {
		if _, err := writer.Exec(testContext(t), `SELECT 1`); err == nil {
			return errors.New("a session goes on beside a gate that cannot be shut")
		}
		return nil
	})
	pgtest.Exec(t, dsn, `ROLLBACK PREPARED 'mine'`)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if l := limit(); l != "17" {
		t.Errorf("limit of connections %s afterwards", l)
	}
	c := pgtest.Conn(t, dsn)
	must(t, c, `SET default_transaction_read_only = off`)
	if _, err := c.Exec(testContext(t), `INSERT INTO public.t VALUES (61, 6)`); pg.SQLState(err) != "25006" {
		t.Errorf("got %v", err)
	}
}

// Writers that come early to a side that is to be the primary wait, and pass or are
// refused as it is decided.
func TestEarlyWritersWait(t *testing.T) {
	dsn, conn := fresh(t, objects)
	shut(t, conn)
	d, err := pg.ParseDSN(dsn)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		decide func(context.Context, *pgx.Conn) error
		state  string
	}{
		{gate.RefuseNow, "25006"},
		{func(ctx context.Context, conn *pgx.Conn) error { return nil }, "25006"}, // the agent was lost
		{func(ctx context.Context, conn *pgx.Conn) error { return gate.LetThrough(ctx, conn) }, ""},
	} {
		hold, err := gate.Await(testContext(t), d, "test")
		if err != nil {
			t.Fatal(err)
		}
		writer := pgtest.Conn(t, dsn) // read/write by default
		done := make(chan error, 1)
		go func() {
			_, err := writer.Exec(testContext(t), `INSERT INTO public.t VALUES (70, 7)`)
			done <- err
		}()
		pgtest.Eventually(t, patience, func() error {
			if n := pgtest.Query(t, dsn, `SELECT count(*) FROM pg_locks WHERE relation = 'twinspan.gate_pass'::regclass AND NOT granted`)[0][0]; n != "1" {
				return fmt.Errorf("%s wait", n)
			}
			return nil
		})
		must(t, conn, `INSERT INTO public.leaf VALUES (5, 5)`) // the agent does not
		if err := c.decide(testContext(t), conn); err != nil {
			t.Fatal(err)
		}
		hold.Release(testContext(t))
		if err := <-done; pg.SQLState(err) != c.state {
			t.Errorf("got %v, want %q", err, c.state)
		}
	}
}
