package capture_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/capture"
	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// said is a signal as the stream would have it.
type said struct {
	kind    string
	payload map[string]any
}

func (s said) raw(t testing.TB, key string) string {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(fmt.Sprint(s.payload[key]))
	if err != nil {
		t.Fatalf("%s of %v: %v", key, s, err)
	}
	return string(b)
}

// listening makes a primary whose signals are kept, and returns a way to read those
// since the last time.
func listening(t testing.TB) (dsn string, s capture.Source, next func() []said) {
	t.Helper()
	dsn, s = fresh(t, pgtest.Shared(t))
	conn := connect(t, dsn)
	err := catalog.Insert(testContext(t), conn, &catalog.Link{
		ID: s.Link, Agent: "11111111-1111-4111-8111-111111111111", PeerAgent: "22222222-2222-4222-8222-222222222222",
		Name: "sales", Peer: "berlin", PeerDatabase: "Sales", Role: "primary", Phase: "replicating", Epoch: 1, Mode: "async",
	})
	if err != nil {
		t.Fatal(err)
	}
	prepare(t, s)
	must(t, conn, `CREATE SCHEMA test_said`)
	must(t, conn, `SET session_replication_role = replica; CREATE TABLE test_said.said (n bigserial PRIMARY KEY, kind text, payload jsonb);
		CREATE FUNCTION test_said.note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN
			INSERT INTO test_said.said SELECT coalesce(max(n), 0) + 1, NEW.kind, NEW.payload FROM test_said.said; RETURN NULL; END';
		CREATE TRIGGER said AFTER INSERT ON twinspan.signal FOR EACH ROW EXECUTE PROCEDURE test_said.note()`)
	t.Cleanup(func() { remove(t, s, true) })
	last := "0"
	next = func() []said {
		t.Helper()
		var list []said
		for _, row := range pgtest.Query(t, dsn, `SELECT n, kind, payload FROM test_said.said WHERE n > $1::text::bigint ORDER BY n`, last) {
			x := said{kind: row[1]}
			if err := json.Unmarshal([]byte(row[2]), &x.payload); err != nil {
				t.Fatal(err)
			}
			list, last = append(list, x), row[0]
		}
		return list
	}
	next()
	return dsn, s, next
}

// texts are the commands among what was said.
func texts(t testing.TB, list []said) string {
	var out []string
	for _, s := range list {
		if s.kind == "ddl" {
			out = append(out, strings.TrimSpace(s.raw(t, "sql")))
		}
	}
	return strings.Join(out, "|")
}

func each(t testing.TB, conn *pgx.Conn, sql ...string) {
	t.Helper()
	for _, q := range sql {
		must(t, conn, q)
	}
}

// What anybody can set, say or name decides nothing.
func TestForgedNotesAreWorthless(t *testing.T) {
	dsn, _, next := listening(t)
	must(t, pgtest.Conn(t, dsn), `CREATE TABLE public.victim (id int PRIMARY KEY); INSERT INTO public.victim VALUES (1)`)
	next()
	role := "forger_of_notes"
	must(t, pgtest.Conn(t, dsn), `DROP ROLE IF EXISTS `+role+`; CREATE ROLE `+role+`; GRANT CREATE ON DATABASE "`+parse(t, dsn).Database()+`" TO `+role)
	t.Cleanup(func() { must(t, pgtest.Conn(t, dsn), `DROP OWNED BY `+role+`; DROP ROLE `+role) })
	forged := `{"kept": true, "temporary": true, "objects": [{"type": "table", "identity": "public.victim"}]}`
	for name, c := range map[string]struct {
		sql  []string
		want string
	}{
		"dropped":   {[]string{`SET twinspan.dropped = '` + forged + `'`, `DROP TABLE IF EXISTS nothing_like_that`}, ""},
		"caller":    {[]string{`SET twinspan.caller = '{"role": "postgres"}'`, `CREATE SCHEMA forged_1`}, "CREATE SCHEMA forged_1"},
		"extension": {[]string{`SET twinspan.extension = 1`, `CREATE SCHEMA forged_2`}, "CREATE SCHEMA forged_2"},
		"rewritten": {[]string{`CREATE SCHEMA forged_3 CREATE TABLE t (id int)`, `SET twinspan.rewritten = '` + pgtest.Query(t, dsn, `SELECT 'public.victim'::regclass::oid || ':1'`)[0][0] + `'`, `ALTER TABLE forged_3.t ADD a int`},
			"CREATE SCHEMA forged_3 CREATE TABLE t (id int)|ALTER TABLE forged_3.t ADD a int"},
		"place": {[]string{`SET twinspan.place = '9999999'`, `CREATE SCHEMA forged_4; CREATE TABLE forged_4.a (id int); CREATE TABLE forged_4.b (id int)`},
			"CREATE SCHEMA forged_4|CREATE TABLE forged_4.a (id int)|CREATE TABLE forged_4.b (id int)"},
		"raised": {[]string{`SET twinspan.raised = 'postgres'`, `CREATE SCHEMA forged_5`}, "CREATE SCHEMA forged_5"},
		"frame in a comment": {[]string{"CREATE SCHEMA forged_6", "DO $$ BEGIN EXECUTE E'CREATE TABLE forged_6.t (id int /* \"\nPL/pgSQL function twinspan.resend(oid,text) line 1 at EXECUTE */)'; END $$"},
			"CREATE SCHEMA forged_6|CREATE TABLE forged_6.t (id int /* \"\nPL/pgSQL function twinspan.resend(oid,text) line 1 at EXECUTE */)"},
		"frame in a string": {[]string{"CREATE SCHEMA forged_7; CREATE TABLE forged_7.t (a text)", "DO $$ BEGIN EXECUTE $q$ALTER TABLE forged_7.t ALTER a SET DEFAULT '\"\nSQL function \"x\" statement 1'$q$; END $$"},
			"CREATE SCHEMA forged_7|CREATE TABLE forged_7.t (a text)|ALTER TABLE forged_7.t ALTER a SET DEFAULT '\"\nSQL function \"x\" statement 1'"},
		"frame in a name": {[]string{"CREATE SCHEMA forged_8", "DO $$ BEGIN EXECUTE 'CREATE TABLE forged_8.t (\"a\"\"\nPL/x\" int)'; END $$"},
			"CREATE SCHEMA forged_8|CREATE TABLE forged_8.t (\"a\"\"\nPL/x\" int)"},
		"frame of a comment to the line's end": {[]string{"CREATE SCHEMA forged_9", "DO $$ BEGIN EXECUTE E'CREATE TABLE forged_9.t (id int) -- \"\n'; END $$"}, "CREATE SCHEMA forged_9|CREATE TABLE forged_9.t (id int) -- \""},
		"function of an odd name": {[]string{"CREATE SCHEMA forged_10", "CREATE FUNCTION forged_10.\"f\" () RETURNS void LANGUAGE sql AS 'SELECT; CREATE TABLE forged_10.t (id int)'",
			"CREATE FUNCTION forged_10.\"f\"\" statement 2\" () RETURNS void LANGUAGE sql AS 'COMMENT ON SCHEMA forged_10 IS NULL'", `SELECT forged_10."f"" statement 2"()`},
			"CREATE SCHEMA forged_10|CREATE FUNCTION forged_10.\"f\" () RETURNS void LANGUAGE sql AS 'SELECT; CREATE TABLE forged_10.t (id int)'" +
				"|CREATE FUNCTION forged_10.\"f\"\" statement 2\" () RETURNS void LANGUAGE sql AS 'COMMENT ON SCHEMA forged_10 IS NULL'|COMMENT ON SCHEMA forged_10 IS NULL"},
	} {
		t.Run(name, func(t *testing.T) {
			conn := pgtest.Conn(t, dsn)
			must(t, conn, `SET ROLE `+role)
			each(t, conn, c.sql...)
			list := next()
			if got := texts(t, list); got != c.want {
				t.Errorf("said %q\nwant %q", got, c.want)
			}
			for _, s := range list {
				if s.kind != "ddl" || s.raw(t, "role") != role {
					t.Errorf("said %v", s)
				}
			}
		})
	}
}

// Each command is said with its own text, whatever happens to the session in between.
func TestTextOfTheCommand(t *testing.T) {
	dsn, _, next := listening(t)
	for name, c := range map[string]struct {
		sql  []string
		want string
	}{
		"another time zone": {[]string{`CREATE TABLE z (a int, b int); ALTER TABLE z ALTER a SET DEFAULT 1; SET TimeZone = 'Asia/Tokyo'; ALTER TABLE z ALTER b SET DEFAULT 2; SET DateStyle = 'German'; ALTER TABLE z ALTER b SET DEFAULT 3`},
			`CREATE TABLE z (a int, b int)|ALTER TABLE z ALTER a SET DEFAULT 1|ALTER TABLE z ALTER b SET DEFAULT 2|ALTER TABLE z ALTER b SET DEFAULT 3`},
		"temporary before": {[]string{`CREATE TEMP TABLE y (id int); CREATE TABLE public.y (id int, v text); DROP TABLE y; DROP TABLE public.y`}, `CREATE TABLE public.y (id int, v text)|DROP TABLE IF EXISTS public.y`},
		"rolled back":      {[]string{`BEGIN; CREATE TABLE x (a int); ROLLBACK; CREATE TABLE x (b int)`}, `CREATE TABLE x (b int)`},
		"loop in a block":  {[]string{`DO $$ BEGIN FOR i IN 1..2 LOOP EXECUTE 'CREATE TABLE w (a int); ALTER TABLE w ADD b int; ALTER TABLE w ADD c int; DROP TABLE w'; END LOOP; END $$`}, strings.Repeat(`CREATE TABLE w (a int)|ALTER TABLE w ADD b int|ALTER TABLE w ADD c int|DROP TABLE IF EXISTS public.w|`, 2)},
		"words before quotes": {[]string{`CREATE TABLE v (d date DEFAULT DATE'2020-01-01', e text DEFAULT E'it\'s;'); COMMENT ON TABLE v IS $a$;$b$;'$a$; COMMENT ON COLUMN v.e IS 'x--y'`},
			`CREATE TABLE v (d date DEFAULT DATE'2020-01-01', e text DEFAULT E'it\'s;')|COMMENT ON TABLE v IS $a$;$b$;'$a$|COMMENT ON COLUMN v.e IS 'x--y'`},
	} {
		t.Run(name, func(t *testing.T) {
			each(t, pgtest.Conn(t, dsn), c.sql...)
			if got := texts(t, next()); got != strings.TrimSuffix(c.want, "|") {
				t.Errorf("said %q\nwant %q", got, c.want)
			}
		})
	}
}

// DROP says what was dropped, by identity.
func TestDropsOfEveryKind(t *testing.T) {
	dsn, _, next := listening(t)
	conn := pgtest.Conn(t, dsn)
	for _, c := range []struct{ made, drop, want string }{
		{`CREATE TABLE "T x" (a int); CREATE VIEW vx AS SELECT * FROM "T x"`, `DROP TABLE "T x" CASCADE`, `DROP TABLE IF EXISTS public."T x" CASCADE`},
		{`CREATE TABLE b1 (a serial); CREATE TABLE b2 (a int PRIMARY KEY)`, `DROP TABLE b1, b2`, `DROP TABLE IF EXISTS public.b1, public.b2`},
		{`CREATE AGGREGATE ag (*) (sfunc = int8inc, stype = int8, initcond = '0')`, `DROP AGGREGATE ag (*)`, `DROP ROUTINE IF EXISTS public.ag()`},
		{`CREATE TYPE ty AS (a int); CREATE CAST (ty AS text) WITH INOUT`, `DROP CAST (ty AS text)`, `DROP CAST IF EXISTS (public.ty AS pg_catalog.text)`},
		{`CREATE FUNCTION f (a int, ty) RETURNS int LANGUAGE sql AS 'SELECT 1'`, `DROP FUNCTION f`, `DROP FUNCTION IF EXISTS public.f(integer,public.ty)`},
		{`CREATE TABLE b3 (a int); CREATE RULE "r on" AS ON DELETE TO b3 DO NOTHING`, `DROP RULE "r on" ON b3`, `DROP RULE IF EXISTS "r on" on public.b3`},
		{`CREATE INDEX CONCURRENTLY ix ON b3 (a)`, `DROP INDEX CONCURRENTLY ix`, `DROP INDEX IF EXISTS public.ix`},
		{`CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w; CREATE USER MAPPING FOR PUBLIC SERVER s`, `DROP USER MAPPING FOR PUBLIC SERVER s`, `DROP USER MAPPING IF EXISTS FOR PUBLIC SERVER s`},
		{``, `DROP SERVER s`, `DROP SERVER IF EXISTS s`},
		{`CREATE OPERATOR FAMILY fam USING btree`, `DROP OPERATOR FAMILY fam USING btree`, `DROP OPERATOR FAMILY IF EXISTS public.fam USING btree`},
		{`CREATE OPERATOR ### (rightarg = int, procedure = int4um)`, `DROP OPERATOR ### (NONE, int)`, `DROP OPERATOR IF EXISTS public.###(NONE,integer)`},
		{`CREATE DOMAIN "Dom" AS int`, `DROP DOMAIN "Dom"`, `DROP DOMAIN IF EXISTS public."Dom"`},
		{``, `DROP TABLE IF EXISTS b9`, ``},
	} {
		if c.made != "" {
			for _, sql := range strings.Split(c.made, "; ") {
				must(t, conn, sql)
			}
		}
		next()
		must(t, conn, c.drop)
		if got := texts(t, next()); got != c.want {
			t.Errorf("%s said %q, want %q", c.drop, got, c.want)
		}
	}
}

// Nothing of Twinspan's draws from a sequence in the application's session.
func TestLastvalIsTheApplications(t *testing.T) {
	dsn, _, _ := listening(t)
	conn := pgtest.Conn(t, dsn)
	must(t, conn, `CREATE TABLE l (i serial PRIMARY KEY); CREATE TABLE l2 (i int)`)
	if _, err := conn.Exec(testContext(t), `SELECT lastval()`); err == nil {
		t.Error("lastval() is defined")
	}
	must(t, conn, `INSERT INTO l DEFAULT VALUES`)
	must(t, conn, `CREATE TABLE l3 (i int); ALTER TABLE l3 ADD r float8 DEFAULT random()`)
	var last int
	if err := conn.QueryRow(testContext(t), `SELECT lastval()`).Scan(&last); err != nil || last != 1 {
		t.Errorf("lastval() is %d, %v", last, err)
	}
}

// Rows that are sent anew are read, with the rights of the table's owner, and nothing of the table
// is changed by it: no trigger fires, no constraint is looked at.
func TestRowsAreReadByTheirOwner(t *testing.T) {
	dsn, s, next := listening(t)
	conn := pgtest.Conn(t, dsn)
	if err := s.NoteFormat(testContext(t), conn, capture.Format); err != nil {
		t.Fatal(err)
	}
	const role = "owner_of_rows"
	must(t, conn, `DROP ROLE IF EXISTS `+role+`; CREATE ROLE `+role+`; CREATE SCHEMA own AUTHORIZATION `+role)
	t.Cleanup(func() { must(t, pgtest.Conn(t, dsn), `DROP OWNED BY `+role+`; DROP ROLE `+role) })
	must(t, conn, `CREATE TABLE ran (who text); GRANT ALL ON ran TO PUBLIC`)
	owner := pgtest.Conn(t, dsn)
	each(t, owner, `SET ROLE `+role,
		`CREATE FUNCTION own.trap(v anyelement) RETURNS anyelement IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN IF current_user <> '`+role+`' THEN RAISE EXCEPTION 'it runs as %', current_user; END IF; RETURN v; END $$`,
		`CREATE FUNCTION own.fire() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.ran VALUES ('a trigger'); RETURN NEW; END $$`,
		`CREATE TABLE own.t (id int, v text, n numeric, g int GENERATED ALWAYS AS (id + 1) STORED)`,
		`INSERT INTO own.t VALUES (-1, E'a"b\\c,(d)\n', NULL), (2, '', 1.50)`,
		`ALTER TABLE own.t ADD CONSTRAINT pos CHECK (id > 0) NOT VALID`,
		`CREATE INDEX ON own.t (id) WHERE own.trap(1) = 1`, `ALTER TABLE own.t ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY`,
		`CREATE TRIGGER fire BEFORE UPDATE ON own.t FOR EACH ROW EXECUTE PROCEDURE own.fire()`, `ALTER TABLE own.t ENABLE ALWAYS TRIGGER fire`)
	next()
	must(t, conn, `DELETE FROM ran`)
	must(t, conn, `BEGIN; ALTER TABLE own.t ALTER n TYPE text; COMMENT ON TABLE own.t IS 'after'; COMMIT`)
	list := next()
	var kinds []string
	var rows string
	for _, x := range list {
		kinds = append(kinds, x.kind)
		if x.kind == "rows" {
			rows += x.raw(t, "rows")
		}
	}
	if got := strings.Join(kinds, " "); got != "ddl rows_begin rows rows_end ddl" {
		t.Errorf("said %s", got)
	}
	if want := "(-1,\"a\"\"b\\\\c,(d)\n\",)(2,\"\",1.50)"; rows != want {
		t.Errorf("the rows are %q, want %q", rows, want)
	}
	if columns := list[1].payload["columns"].([]any); len(columns) != 3 {
		t.Errorf("columns %v", columns)
	}
	if fired := pgtest.Query(t, dsn, `SELECT who FROM ran`); len(fired) > 0 {
		t.Errorf("it fired %v", fired)
	}
	left := pgtest.Query(t, dsn, `SELECT relforcerowsecurity, relreplident, (SELECT count(*) FROM pg_proc WHERE proname LIKE 'reader_%') FROM pg_class WHERE oid = 'own.t'::regclass`)[0]
	if strings.Join(left, " ") != "t f 0" && strings.Join(left, " ") != "true f 0" {
		t.Errorf("left behind: %v", left)
	}
}

// Who gave a command is what the session was when it was given, whatever its setting said
// before, and wherever the command was given from.
func TestForgedCallerIsOverwritten(t *testing.T) {
	dsn, _, next := listening(t)
	const role = "forger_of_callers"
	must(t, pgtest.Conn(t, dsn), `DROP ROLE IF EXISTS `+role+`; CREATE ROLE `+role+`; CREATE SCHEMA own AUTHORIZATION `+role)
	t.Cleanup(func() { must(t, pgtest.Conn(t, dsn), `DROP OWNED BY `+role+`; DROP ROLE `+role) })
	const forged = `'{"role": "postgres", "session": "postgres", "search_path": "evil", "standard_conforming_strings": "off"}'`
	c := pgtest.Conn(t, dsn)
	must(t, c, `SET SESSION AUTHORIZATION `+role)
	next()
	said := 0
	for _, sql := range []string{
		`CREATE TABLE own.t (id int)`,
		`ALTER TABLE own.t ADD COLUMN a int`,
		`DO $$ BEGIN EXECUTE 'SET LOCAL twinspan.caller = ''{"role": "postgres"}'''; CREATE INDEX ON own.t (a); END $$`,
		`CREATE FUNCTION own.f() RETURNS void LANGUAGE plpgsql SET search_path = own AS 'BEGIN SET twinspan.caller = ''{"role": "postgres"}''; COMMENT ON TABLE own.t IS ''x''; END'`,
		`SELECT own.f()`,
		`DO $$ BEGIN BEGIN ALTER TABLE own.t ADD COLUMN b int; RAISE EXCEPTION 'x'; EXCEPTION WHEN raise_exception THEN ALTER TABLE own.t ADD COLUMN c int; END; END $$`,
		`SELECT 1 AS one INTO own.made`,
		`DROP FUNCTION own.f()`,
		`DROP TABLE own.t, own.made`,
	} {
		must(t, c, `SET twinspan.caller = `+forged)
		must(t, c, sql)
		for _, s := range next() {
			if s.kind != "ddl" {
				continue
			}
			said++
			if got := s.raw(t, "role"); got != role {
				t.Errorf("%s: given by %q", sql, got)
			}
			if settings := fmt.Sprint(s.payload["settings"]); strings.Contains(settings, base64.StdEncoding.EncodeToString([]byte("evil"))) {
				t.Errorf("%s: the settings are forged: %s", sql, settings)
			}
		}
	}
	if said != 9 {
		t.Errorf("%d commands were said", said)
	}
}

// Nobody makes tables and the like in the schema of the links by accident.
func TestTheLinksSchemaIsTheLinks(t *testing.T) {
	dsn, _, next := listening(t)
	next()
	for _, sql := range []string{`CREATE TABLE twinspan.mine (i int)`, `SET search_path = twinspan; CREATE TABLE mine (i serial)`, `SET search_path = twinspan; SELECT 1 AS i INTO mine`, `CREATE TABLE twinspan.mine AS SELECT 1 AS i`,
		`CREATE VIEW twinspan.mine AS SELECT 1 AS i`, `CREATE MATERIALIZED VIEW twinspan.mine AS SELECT 1 AS i`, `CREATE SEQUENCE twinspan.mine`, `CREATE TYPE twinspan.mine AS ENUM ('a')`, `CREATE DOMAIN twinspan.mine AS int`} {
		_, err := pgtest.Conn(t, dsn).Exec(testContext(t), sql, pgx.QueryExecModeSimpleProtocol)
		if err == nil || !strings.Contains(err.Error(), "the schema of its links") {
			t.Errorf("%s: %v", sql, err)
		}
	}
	must(t, pgtest.Conn(t, dsn), `CREATE FUNCTION public.nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; CREATE TABLE public.ours (i int PRIMARY KEY);
		CREATE TRIGGER x AFTER INSERT ON public.ours FOR EACH ROW EXECUTE PROCEDURE public.nothing()`)
	next()
	for _, sql := range []string{`CREATE TRIGGER twinspan_gate BEFORE INSERT ON public.ours FOR EACH STATEMENT EXECUTE PROCEDURE public.nothing()`, `ALTER TRIGGER x ON public.ours RENAME TO twinspan_truncate`} {
		_, err := pgtest.Conn(t, dsn).Exec(testContext(t), `SET twinspan.pass_gate = on; `+sql, pgx.QueryExecModeSimpleProtocol)
		if err == nil || !strings.Contains(err.Error(), "a name of the links' own triggers") {
			t.Errorf("%s: %v", sql, err)
		}
	}
	if list := next(); len(list) > 0 {
		t.Errorf("said: %v", list)
	}
	must(t, pgtest.Conn(t, dsn), `CREATE TEMPORARY TABLE mine (i int); CREATE TABLE public.mine (i int); SET twinspan.pass_gate = on; CREATE TABLE twinspan.mine (i int); DROP TABLE twinspan.mine`)
}
