package gate_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/twinspan/twinspan/internal/gate"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/pgtest"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// A copy of a secondary is an ordinary database; what may be the secondary itself is shut,
// and says how a superuser opens it.
func TestCopiesAreFree(t *testing.T) {
	dsn, conn := fresh(t, objects)
	shut(t, conn)
	conn.Close(context.Background())
	server := pgtest.Shared(t)
	name := pgtest.Query(t, dsn, `SELECT current_database()`)[0][0]
	role := sqlname.Quote(name + " plain")
	pgtest.Exec(t, server.DSN("postgres"), `CREATE ROLE `+role)
	t.Cleanup(func() { pgtest.Exec(t, server.DSN("postgres"), `DROP ROLE `+role) })
	copies := 0
	copyOf := func(t *testing.T, sql string) string {
		t.Helper()
		copies++
		copied := fmt.Sprintf("%s_c%d", name, copies)
		pgtest.Exec(t, server.DSN("postgres"), `CREATE DATABASE `+copied+` TEMPLATE `+name)
		t.Cleanup(func() { pgtest.Exec(t, server.DSN("postgres"), `DROP DATABASE `+copied+` WITH (FORCE)`) })
		pgtest.Exec(t, server.DSN(copied), "SET session_replication_role = replica; SET twinspan.pass_gate = on; "+sql)
		return server.DSN(copied)
	}
	// What pg_dump leaves of the table: other oids, and rows as they were.
	const restored = `ALTER TABLE twinspan.home RENAME TO was; CREATE TABLE twinspan.home (LIKE twinspan.was INCLUDING ALL); INSERT INTO twinspan.home SELECT * FROM twinspan.was; DROP TABLE twinspan.was; `
	for what, c := range map[string]struct {
		sql  string
		free bool
	}{
		"beside it":                            {restored, true},
		"made with TEMPLATE":                   {"SELECT 1", true},
		"on another server":                    {restored + "UPDATE twinspan.home SET server = '1'", true},
		"on another server, by chance like it": {restored + "UPDATE twinspan.home SET server = '1', database = (SELECT oid::bigint FROM pg_database WHERE datname = current_database())", true},
		"upgraded":                             {"UPDATE twinspan.home SET server = '1'", false},
		"copied with its server":               {"UPDATE twinspan.home SET database = (SELECT oid::bigint FROM pg_database WHERE datname = current_database())", false},
		"of an older agent":                    {"DELETE FROM twinspan.home", false},
	} {
		t.Run(what, func(t *testing.T) {
			copied := copyOf(t, c.sql)
			session := pgtest.Conn(t, copied)
			for _, sql := range []string{`INSERT INTO public.t VALUES (77, 7)`, `CREATE TABLE public.made (id int)`, `TRUNCATE public.parted`, `ALTER TABLE public.t ADD COLUMN z int`} {
				_, err := session.Exec(testContext(t), `BEGIN READ WRITE; `+sql+`; COMMIT`)
				switch {
				case c.free && err != nil:
					t.Errorf("%s: %v", sql, err)
				case !c.free && (pg.SQLState(err) != "25006" || !strings.Contains(hint(err), `BEGIN READ WRITE; SELECT twinspan.free(); COMMIT`)):
					t.Errorf("%s: %v %s", sql, err, hint(err))
				}
				_, _ = session.Exec(testContext(t), `ROLLBACK`)
			}
			if c.free {
				return
			}
			watcher := agent(t, copied)
			if _, err := session.Exec(testContext(t), `BEGIN READ WRITE; SELECT twinspan.free(); COMMIT`); err == nil || !strings.Contains(err.Error(), "it is no copy") {
				t.Errorf("beside an agent: %v", err)
			}
			_, _ = session.Exec(testContext(t), `ROLLBACK`)
			watcher.Close(context.Background())
			pgtest.Exec(t, copied, `DO $$ BEGIN WHILE EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'twinspan/%') LOOP PERFORM pg_stat_clear_snapshot(); END LOOP; END $$`)
			if _, err := session.Exec(testContext(t), `BEGIN READ WRITE; SET LOCAL ROLE `+role+`; SELECT twinspan.free(); COMMIT`); pg.SQLState(err) != "42501" {
				t.Errorf("as an ordinary role: %v", err)
			}
			_, _ = session.Exec(testContext(t), `ROLLBACK`)
			if _, err := session.Exec(testContext(t), `BEGIN READ WRITE; SELECT twinspan.free(); COMMIT`); err != nil {
				t.Fatal(err)
			}
			if left := pgtest.Query(t, copied, `SELECT evtname FROM pg_event_trigger UNION ALL SELECT tgname FROM pg_trigger WHERE tgname = 'twinspan_gate' UNION ALL SELECT nspname FROM pg_namespace WHERE nspname = 'twinspan'`); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
			pgtest.Exec(t, copied, `INSERT INTO public.t VALUES (77, 7)`)
		})
	}
	// The secondary itself is shut as before.
	itself := pgtest.Conn(t, dsn)
	_, err := itself.Exec(testContext(t), `BEGIN READ WRITE; DELETE FROM public.t; COMMIT`)
	itself.Close(context.Background())
	if pg.SQLState(err) != "25006" {
		t.Errorf("the secondary: %v", err)
	}

	// What a cutover leaves is free in a copy as well, and only there.
	conn = agent(t, dsn)
	if err := gate.Keep(testContext(t), conn, "sales", "berlin", "Sales", "db.example:6543"); err != nil {
		t.Fatal(err)
	}
	conn.Close(context.Background())
	if _, err := pgtest.Conn(t, copyOf(t, restored)).Exec(testContext(t), `DELETE FROM public.t`); err != nil {
		t.Errorf("a copy of what a cutover left: %v", err)
	}
}
