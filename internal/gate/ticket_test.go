package gate_test

import (
	"context"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/pgtest"
	"github.com/twinspan/twinspan/internal/rights"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// fencedAgent is a session in which an agent runs code of users.
func fencedAgent(t testing.TB, dsn string) *pgx.Conn {
	t.Helper()
	d, err := pg.ParseDSN(dsn)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := d.Connect(testContext(t), pg.Session{Name: "sales/apply", Apply: true, Fenced: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

// ticketed runs SQL as a role in a fence, with a ticket for each of the tables.
func ticketed(t testing.TB, conn *pgx.Conn, role, sql string, tables ...sqlname.Table) error {
	t.Helper()
	ctx := testContext(t)
	tx, err := conn.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(ctx)
	r := rights.NewRunner(role, nil)
	for _, s := range append(r.Make(), r.Run(sql, tables...)...) {
		if _, err := tx.Exec(ctx, s); err != nil {
			return err
		}
	}
	return tx.Commit(ctx)
}

// What an agent writes in a fence passes the gate, and nothing that code of users does
// which is called by it.
func TestTickets(t *testing.T) {
	dsn, conn := fresh(t, `CREATE ROLE ticket_owner; CREATE SCHEMA own AUTHORIZATION ticket_owner; SET ROLE ticket_owner;
		CREATE TABLE own.other (id int); CREATE TABLE own.tried (how text);
		CREATE FUNCTION own.attempt(how text, sql text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
			IF how = 'plainly' THEN EXECUTE sql; RETURN true; END IF;
			BEGIN EXECUTE sql; EXCEPTION WHEN read_only_sql_transaction OR insufficient_privilege THEN NULL; END;
			RETURN true; END $$;
		CREATE TABLE own.t (id int, how text, sql text, CHECK (sql IS NULL OR own.attempt(how, sql)))`)
	t.Cleanup(func() {
		must(t, conn, `SET twinspan.pass_gate = on; DROP OWNED BY ticket_owner; DROP ROLE ticket_owner`)
	})
	shut(t, conn)
	fenced := fencedAgent(t, dsn)
	table, other := sqlname.Table{Schema: "own", Name: "t"}, sqlname.Table{Schema: "own", Name: "other"}
	for _, c := range []struct {
		what, sql string
		tickets   []sqlname.Table
		refused   bool
	}{
		{"a statement without one", `INSERT INTO own.t VALUES (1)`, nil, true},
		{"its statement", `INSERT INTO own.t VALUES (1), (2)`, []sqlname.Table{table}, false},
		{"an update", `UPDATE own.t SET id = 7 WHERE id = 1`, []sqlname.Table{table}, false},
		{"a second one", `INSERT INTO own.t VALUES (1); INSERT INTO own.t VALUES (1)`, []sqlname.Table{table}, true},
		{"two for two", `INSERT INTO own.t VALUES (1); DELETE FROM own.t WHERE id = 1`, []sqlname.Table{table, table}, false},
		{"two tables", `INSERT INTO own.other VALUES (1); INSERT INTO own.t VALUES (1)`, []sqlname.Table{table, other}, false},
		{"another table's", `INSERT INTO own.other VALUES (1)`, []sqlname.Table{table}, true},
		{"a change of the schema", `CREATE TABLE own.made ()`, []sqlname.Table{table}, true},
		{"what the agent empties", `TRUNCATE own.other`, []sqlname.Table{other}, false},
	} {
		if err := ticketed(t, fenced, "ticket_owner", c.sql, c.tickets...); (pg.SQLState(err) == "25006") != c.refused || err != nil && !c.refused {
			t.Errorf("%s: %v", c.what, err)
		}
	}
	before := contentsOf(t, dsn)
	// What code tries that is called by the agent's statement: it may try to get a pass, too.
	passes := []string{``, `SET twinspan.pass_gate = on; `, `RESET ALL; `, `RESET backtrace_functions; `, `SET backtrace_functions = twinspan_pass; `, `SET LOCAL backtrace_functions = twinspan_pass; `,
		`SELECT set_config('backtrace_functions', 'twinspan_ticket_' || 'own.other'::regclass::oid, true); `, `SET session_replication_role = origin; `, `DISCARD ALL; `,
		`CREATE FUNCTION pg_temp.p() RETURNS int LANGUAGE sql SET backtrace_functions = 'twinspan_pass' AS 'INSERT INTO own.other VALUES (66) RETURNING 1'; SELECT pg_temp.p(); `,
		`SELECT twinspan.ticket('twinspan_pass', 0); `, `ALTER ROLE ticket_owner SET backtrace_functions = twinspan_pass; `, `RESET SESSION AUTHORIZATION; `}
	writes := []string{`INSERT INTO own.other VALUES (66)`, `INSERT INTO own.t VALUES (66)`, `DELETE FROM own.other`, `TRUNCATE own.other`, `CREATE TABLE own.made ()`, `ALTER TABLE own.other ADD COLUMN c int`, `COMMENT ON TABLE own.other IS 'x'`}
	for _, pass := range passes {
		for _, write := range writes {
			for _, how := range []string{"caught", "plainly"} {
				sql := `INSERT INTO own.t VALUES (100, ` + sqlname.Literal(how) + `, ` + sqlname.Literal(pass+write) + `)`
				err := ticketed(t, fenced, "ticket_owner", sql, table)
				if how == "plainly" && err == nil {
					t.Errorf("%s: it may write: %s", pass, write)
				}
				if p := rights.Problem(err, "ticket_owner", "own.t"); how == "plainly" && pass == "" && (p == nil || p.Code != "code_writes_on_twin") {
					t.Errorf("%s: %v", write, err)
				}
				if err == nil {
					must(t, fenced, `DELETE FROM own.t WHERE id = 100`)
				}
			}
		}
	}
	if after := contentsOf(t, dsn); after != before {
		t.Errorf("before\n%s\nafter\n%s", before, after)
	}
	// A function that is folded runs before the statement begins: its ticket is there then.
	must(t, conn, `SET twinspan.pass_gate = on; SET ROLE ticket_owner; CREATE FUNCTION own.write() RETURNS void LANGUAGE plpgsql AS $$ BEGIN
		IF current_setting('own.attack', true) = 'on' THEN INSERT INTO own.t VALUES (66); END IF; END $$;
		CREATE FUNCTION own.early(i int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN PERFORM own.write(); RETURN i; END $$;
		CREATE INDEX ON own.t (id) WHERE id > own.early(3); RESET ROLE`)
	err := ticketed(t, fenced, "ticket_owner", `SET own.attack = 'on'; UPDATE own.t SET how = 'x' WHERE id > 3`, table)
	if pg.SQLState(err) != "25006" {
		t.Errorf("the ticket was there twice: %v", err)
	}
	if after := contentsOf(t, dsn); !strings.HasPrefix(after, strings.SplitN(before, "own.other", 2)[0]) {
		t.Errorf("before\n%s\nafter\n%s", before, after)
	}
	// The agent itself passes, before and afterwards.
	must(t, fenced, `INSERT INTO own.other VALUES (5); CREATE TABLE own.made_by_agent (); DROP TABLE own.made_by_agent; RESET ALL; `+pg.SettleSQL+`; INSERT INTO own.other VALUES (6)`)
}

// contentsOf is every row of the tables of TestTickets, and what its schema consists of.
func contentsOf(t testing.TB, dsn string) string {
	t.Helper()
	return pgtest.Table(t, dsn, "own.t") + "own.other\n" + pgtest.Table(t, dsn, "own.other") +
		pgtest.Query(t, dsn, `SELECT string_agg(concat_ws(' ', c.relname, c.relkind, obj_description(c.oid), (SELECT count(*) FROM pg_attribute a WHERE a.attrelid = c.oid)), E'\n' ORDER BY c.relname)
			FROM pg_class c WHERE relnamespace = 'own'::regnamespace`)[0][0]
}
