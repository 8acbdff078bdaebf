package capture_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/pgtest"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// quoted is a name in quotes.
var quoted = regexp.MustCompile(`"([^"]|"")*"`)

// attacks is how many statements each attacker gives; TWINSPAN_ATTACKS asks for more.
func attacks() int {
	if n, err := strconv.Atoi(os.Getenv("TWINSPAN_ATTACKS")); err == nil {
		return n
	}
	return 250
}

// Two roles without rights, of which one owns a schema, give random statements on a linked
// primary: they call what the links have there, forge its settings and messages, take what
// locks they get, and give commands with odd names and comments. Neither gets a right, nothing of the links or of others
// changes, and no signal says that somebody else gave a command, or is about what is not theirs.
func TestRandomAttackers(t *testing.T) {
	dsn, _, next := listening(t)
	seed := uint64(pgtest.Seed())
	random := rand.New(rand.NewPCG(seed, 11))
	roles := []string{"attacker_connects", `attacker "o'wner`}
	admin := pgtest.Conn(t, dsn)
	for _, role := range roles {
		must(t, admin, `DO $$ BEGIN CREATE ROLE `+sqlname.Quote(role)+` LOGIN PASSWORD `+sqlname.Literal(pgtest.Password)+`; EXCEPTION WHEN duplicate_object THEN NULL; END $$`)
	}
	must(t, admin, `CREATE TABLE public.victim (id int PRIMARY KEY); INSERT INTO public.victim VALUES (1), (2); REVOKE CREATE ON SCHEMA public FROM PUBLIC; CREATE SCHEMA own AUTHORIZATION `+sqlname.Quote(roles[1]))
	t.Cleanup(func() {
		for _, role := range roles {
			must(t, pgtest.Conn(t, dsn), `DROP OWNED BY `+sqlname.Quote(role)+`; DROP ROLE `+sqlname.Quote(role))
		}
	})
	next()
	functions := pgtest.Query(t, dsn, `SELECT p.proname, coalesce((SELECT string_agg(format_type(a, NULL), ',') FROM unnest(p.proargtypes) a), '') FROM pg_proc p WHERE p.pronamespace = 'twinspan'::regnamespace ORDER BY 1, 2`)
	tables := pgtest.Query(t, dsn, `SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'twinspan'::regnamespace AND c.relkind IN ('r', 'S') ORDER BY 1`)
	if len(functions) < 20 || len(tables) < 5 {
		t.Fatalf("there is little to attack: %v, %v", functions, tables)
	}
	state := func() string {
		said := fmt.Sprint(pgtest.Query(t, dsn, `SELECT rolname, rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls, rolcanlogin, rolconfig FROM pg_roles WHERE rolname LIKE 'attacker%' ORDER BY 1`),
			pgtest.Query(t, dsn, `SELECT count(*) FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.member WHERE r.rolname LIKE 'attacker%'`),
			pgtest.Query(t, dsn, `SELECT p.proname, md5(p.prosrc), p.proacl FROM pg_proc p WHERE p.pronamespace = 'twinspan'::regnamespace AND p.proname !~ '^reader_' ORDER BY 1, 2`),
			pgtest.Query(t, dsn, `SELECT evtname, evtenabled FROM pg_event_trigger ORDER BY 1`), pgtest.Query(t, dsn, `SELECT nspname, nspowner, nspacl FROM pg_namespace WHERE nspname IN ('twinspan', 'public')`))
		for _, table := range []string{"public.victim", "twinspan.link", "twinspan.twin_format", "twinspan.version"} {
			said += "\n" + table + "\n" + pgtest.Table(t, dsn, table)
		}
		return said
	}
	before := state()
	for _, role := range roles {
		a := &attacker{random: random, functions: functions, tables: tables}
		var c *pgx.Conn
		var last []string
		for range attacks() {
			if c == nil || c.IsClosed() || random.IntN(40) == 0 {
				if c != nil {
					c.Close(context.Background())
				}
				c = pgtest.Conn(t, pgtest.Shared(t).DSNOf(role, pgtest.Password, parse(t, dsn).Database()))
				must(t, c, `SET statement_timeout = '5s'; SET lock_timeout = '300ms'`)
			}
			sql := a.statement()
			last = append(last, sql)
			_, _ = c.Exec(testContext(t), sql, pgx.QueryExecModeSimpleProtocol)
		}
		c.Close(context.Background())
		if after := state(); after != before {
			t.Fatalf("seed %d: after the statements of %s\n%s\nwas\n%s\nthe last ones:\n%s", seed, role, after, before, strings.Join(last[max(0, len(last)-20):], ";\n"))
		}
		said := 0
		for _, s := range next() {
			if s.kind != "ddl" {
				if s.kind != "rows_begin" && s.kind != "rows" && s.kind != "rows_end" {
					t.Errorf("seed %d: %s made a signal %s: %v", seed, role, s.kind, s.payload)
				}
				continue
			}
			said++
			if got := s.raw(t, "role"); got != role {
				t.Errorf("seed %d: %s gave a command as %q: %s", seed, role, got, s.raw(t, "sql"))
			}
			if sql := quoted.ReplaceAllString(s.raw(t, "sql"), `"..."`); strings.HasPrefix(sql, "DROP") && (strings.Contains(sql, "victim") || strings.Contains(sql, "twinspan.")) {
				t.Errorf("seed %d: %s drops on the twin: %s", seed, role, sql)
			}
		}
		if role == roles[1] && said == 0 {
			t.Errorf("seed %d: %d commands of %s were said", seed, said, role)
		}
	}
	// The primary works as before.
	must(t, pgtest.Conn(t, dsn), `CREATE TABLE public.afterwards (id int)`)
	if list := next(); len(list) != 1 || list[0].raw(t, "sql") != `CREATE TABLE public.afterwards (id int)` {
		t.Errorf("seed %d: afterwards was said %v", seed, list)
	}
}

// attacker makes statements.
type attacker struct {
	random            *rand.Rand
	functions, tables [][]string
	made              int
}

func (a *attacker) of(list ...string) string { return list[a.random.IntN(len(list))] }

// value is an argument for a parameter of some type.
func (a *attacker) value() string {
	return a.of(`NULL`, `1`, `0`, `'public.victim'`, `'public.victim'::regclass`, `'{"role": "postgres"}'`, `'own'`, `'extension'`, `true`, `'DROP TABLE public.victim'`, `ARRAY['public.victim']`, `16384`)
}

// name is a name that is awkward to paste.
func (a *attacker) name() string {
	a.made++
	return a.of(fmt.Sprintf("t%d", a.made), fmt.Sprintf(`"T ""%d"`, a.made), fmt.Sprintf("\"a; DROP TABLE public.victim; --%d\"", a.made), fmt.Sprintf("\"x\nPL/pgSQL function twinspan.run_own(text) %d\"", a.made),
		fmt.Sprintf(`"$$%d"`, a.made), fmt.Sprintf(`"é'\%d"`, a.made), fmt.Sprintf(`"twinspan.t%d"`, a.made))
}

func (a *attacker) setting() string {
	return a.of("twinspan.caller", "twinspan.dropped", "twinspan.rewritten", "twinspan.filled", "twinspan.extension", "twinspan.raised", "twinspan.place", "twinspan.pass_gate", "backtrace_functions", "session_replication_role", "event_triggers",
		"search_path", "role", "standard_conforming_strings", "quote_all_identifiers", "lc_messages", "bytea_output", "DateStyle", "array_nulls")
}

// statement draws one.
func (a *attacker) statement() string {
	switch a.random.IntN(13) {
	case 0, 1:
		f := a.functions[a.random.IntN(len(a.functions))]
		var args []string
		if f[1] != "" {
			for range strings.Split(f[1], ",") {
				args = append(args, a.value())
			}
		}
		return `SELECT twinspan.` + sqlname.Quote(f[0]) + `(` + strings.Join(args, ", ") + `)`
	case 2:
		return `SET ` + a.of("", "LOCAL ") + a.setting() + ` = ` + a.of(`'on'`, `'off'`, `'postgres'`, `'twinspan_pass'`, `'{"kept": true, "temporary": true, "objects": [{"identity": "public.victim"}]}'`, `'replica'`, `''`, `'twinspan'`)
	case 3:
		return `SELECT pg_logical_emit_message(` + a.of("true", "false") + `, ` + a.of(`'twinspan'`, `'ddl'`, `'twinspan.signal'`, `''`) + `, ` + a.of(`'{"sql": "DROP TABLE public.victim"}'`, `'x'`, `repeat('y', 10000)`) + `)`
	case 4:
		table := a.tables[a.random.IntN(len(a.tables))][0]
		return fmt.Sprintf(a.of(`LOCK TABLE twinspan.%s`, `BEGIN; LOCK TABLE twinspan.%s IN ROW SHARE MODE; COMMIT`, `TABLE twinspan.%s`, `DELETE FROM twinspan.%s`, `INSERT INTO twinspan.%s DEFAULT VALUES`, `DROP TABLE twinspan.%s`, `ALTER TABLE twinspan.%s ADD x int`,
			`CREATE TRIGGER x AFTER INSERT ON twinspan.%s FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()`, `SELECT setval('twinspan.%s', 1)`, `COMMENT ON TABLE twinspan.%s IS 'x'`, `GRANT ALL ON twinspan.%s TO PUBLIC`), table)
	case 5:
		return a.of(`SET ROLE postgres`, `SET ROLE linkagent`, `RESET ROLE`, `SET LOCAL ROLE NONE`, `GRANT postgres TO CURRENT_USER`, `ALTER ROLE CURRENT_USER SUPERUSER`, `CREATE ROLE attacker_more SUPERUSER`, `ALTER EVENT TRIGGER twinspan_ddl_end DISABLE`,
			`CREATE EVENT TRIGGER x ON ddl_command_end EXECUTE FUNCTION twinspan.on_ddl_end()`, `DROP SCHEMA twinspan CASCADE`, `ALTER SCHEMA twinspan RENAME TO mine`, `DROP OWNED BY CURRENT_USER`, `CREATE SCHEMA twinspan_x`, `SELECT pg_advisory_lock(8392292353529967719)`,
			`DROP TABLE IF EXISTS nothing_like_that`, `DROP TABLE IF EXISTS public.victim`, `TRUNCATE public.victim`, `REINDEX TABLE public.victim`, `DISCARD ALL`, `RESET ALL`, `NOTIFY twinspan, 'x'`)
	case 6:
		return `CREATE TABLE own.` + a.name() + ` (id int` + a.of(``, ` PRIMARY KEY`, ` DEFAULT 7 /* "`+"\n"+`PL/pgSQL function twinspan.resend(oid,text) line 1 */`) + `, v text)` + a.of(``, ` -- "`+"\n", `; SET twinspan.caller = '{}'`)
	case 7:
		return `DO $$ DECLARE t text; BEGIN SELECT format('%I.%I', schemaname, tablename) INTO t FROM pg_tables WHERE schemaname = 'own' LIMIT 1; ` +
			a.of(`EXECUTE 'ALTER TABLE ' || t || ' ADD COLUMN c' || (random() * 1000000)::int || ' int'`, `EXECUTE 'DROP TABLE ' || t`, `EXECUTE 'COMMENT ON TABLE ' || t || ' IS ''DROP TABLE public.victim'''`, `EXECUTE 'ALTER TABLE ' || t || ' ADD COLUMN u' || (random() * 1000000)::int || ' float DEFAULT random()'`,
				`EXECUTE 'CREATE INDEX ON ' || t || ' (v)'`, `PERFORM set_config('twinspan.caller', '{"role":"postgres"}', true); EXECUTE 'ALTER TABLE ' || t || ' ALTER v SET DEFAULT ''x'''`) + `; END $$`
	case 8:
		return `CREATE FUNCTION own.` + a.name() + `() RETURNS ` + a.of(`void LANGUAGE sql AS 'SELECT; DROP TABLE public.victim'`, `event_trigger LANGUAGE plpgsql AS 'BEGIN END'`, `trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = twinspan AS 'BEGIN RETURN NULL; END'`)
	case 9:
		return `CREATE SCHEMA own; CREATE TABLE own.` + a.name() + ` (); DROP TABLE IF EXISTS public.victim, own.none`
	case 10:
		return `CREATE TEMPORARY TABLE ` + a.of("note", "link", "signal", "pg_class", `"t 1"`) + ` (pid int, kind text)`
	case 11:
		return a.of(`BEGIN`, `COMMIT`, `ROLLBACK`, `SAVEPOINT s`, `ROLLBACK TO s`)
	}
	return `ALTER DEFAULT PRIVILEGES IN SCHEMA own GRANT SELECT ON TABLES TO ` + a.of(`PUBLIC`, `attacker_connects`)
}
