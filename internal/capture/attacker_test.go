package capture_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/attack"
	"github.com/twinspan/twinspan/internal/pgtest"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// quoted is a name in quotes.
var quoted = regexp.MustCompile(`"([^"]|"")*"`)

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
		a := &attack.Attacker{Random: random, Functions: functions, Tables: tables}
		var c *pgx.Conn
		var last []string
		for range attack.Statements() {
			if c == nil || c.IsClosed() || random.IntN(40) == 0 {
				if c != nil {
					c.Close(context.Background())
				}
				c = pgtest.Conn(t, pgtest.Shared(t).DSNOf(role, pgtest.Password, parse(t, dsn).Database()))
				must(t, c, `SET statement_timeout = '5s'; SET lock_timeout = '300ms'`)
			}
			sql := a.Statement()
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
