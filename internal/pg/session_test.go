package pg_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/pgtest"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// TestSettingsReachTheSession sets the opposite of every setting as the
// database's and the role's default, which a session must not take.
func TestSettingsReachTheSession(t *testing.T) {
	s := pgtest.Shared(t)
	name := s.Database(t)
	hostile := map[string]string{
		"DateStyle": "SQL, DMY", "IntervalStyle": "iso_8601", "TimeZone": "Asia/Kolkata", "extra_float_digits": "-5",
		"bytea_output": "escape", "xmloption": "document", "array_nulls": "off", "search_path": "public",
		"standard_conforming_strings": "off", "row_security": "on", "synchronize_seqscans": "on",
		"default_transaction_read_only": "on", "default_transaction_isolation": "serializable",
		"statement_timeout": "7s", "lock_timeout": "7s", "idle_in_transaction_session_timeout": "7s",
		"client_encoding": "LATIN1", "lc_monetary": "POSIX", "synchronous_commit": "off", "quote_all_identifiers": "on", "transform_null_equals": "on", "exit_on_error": "on",
	}
	want := pg.DataSettings()
	for k, v := range pg.PlannerSettings() {
		if want[k] = v; v == "on" {
			hostile[k] = "off"
		} else {
			hostile[k] = "1"
		}
	}
	for k := range want {
		if hostile[k] == "" {
			t.Fatalf("%s is not tried", k)
		}
	}
	admin := connect(t, s.DSN(name), pg.Session{Name: "admin"})
	if s.Major >= 14 {
		hostile["idle_session_timeout"] = "7s"
	}
	if s.Major >= 17 {
		hostile["transaction_timeout"] = "7s"
	}
	for k, v := range hostile {
		exec(t, admin, `ALTER DATABASE `+sqlname.Quote(name)+` SET `+k+` = `+sqlname.Literal(v))
	}
	exec(t, admin, `ALTER DATABASE `+sqlname.Quote(name)+` SET DateStyle = 'SQL, DMY'`)
	want["client_encoding"] = "UTF8"
	want["application_name"] = "twinspan/sales/apply"
	if s.Major >= 14 {
		want["idle_session_timeout"] = "0"
	}
	if s.Major >= 17 {
		want["transaction_timeout"] = "0"
	}
	d := parse(t, s.DSN(name))
	check := func(what string, want map[string]string, read func(sql string) string) {
		t.Helper()
		for _, k := range slices.Sorted(maps.Keys(want)) {
			if got := read(`SELECT current_setting('` + k + `')`); got != want[k] {
				t.Errorf("%s: %s is %q, want %q", what, k, got, want[k])
			}
		}
	}
	conn := connect(t, s.DSN(name), pg.Session{Name: "sales/apply", Apply: true, Settings: map[string]string{"lock_timeout": "5s"}})
	applied := maps.Clone(want)
	applied["session_replication_role"], applied["lock_timeout"], applied[pg.PassGate] = "replica", "5s", "on"
	check("session", applied, func(sql string) string { return value(t, conn, sql) })
	exec(t, conn, `CREATE TABLE public.t (); DROP TABLE public.t`) // not read-only

	raw, err := d.ConnectReplication(testContext(t), pg.Session{Name: "sales/apply", Settings: map[string]string{"client_encoding": "LATIN1"}})
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close(testContext(t))
	want["client_encoding"], want["session_replication_role"] = "LATIN1", "origin"
	check("replication", want, func(sql string) string {
		results, err := raw.Exec(testContext(t), sql).ReadAll()
		if err != nil {
			t.Fatal(err)
		}
		return string(results[0].Rows[0][0])
	})
	if _, err := raw.Exec(testContext(t), "IDENTIFY_SYSTEM").ReadAll(); err != nil {
		t.Errorf("not a replication session: %v", err)
	}
}

func TestStringsOfOtherEncodings(t *testing.T) {
	s := pgtest.Shared(t)
	exec(t, connect(t, s.DSN("postgres"), pg.Session{Name: "test"}), `CREATE DATABASE latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0`)
	t.Cleanup(func() {
		exec(t, connect(t, s.DSN("postgres"), pg.Session{Name: "test"}), `DROP DATABASE latin`)
	})
	conn := connect(t, s.DSN("latin"), pg.Session{Name: "test"})
	exec(t, conn, `CREATE TABLE public."Größe" (ü text)`)
	if _, err := conn.Exec(testContext(t), `INSERT INTO public."Größe" VALUES ($1)`, "müde"); err != nil {
		t.Fatal(err)
	}
	if got := value(t, conn, `SELECT relname || ' ' || (SELECT ü || length(ü) FROM public."Größe") FROM pg_class WHERE relname LIKE 'Gr%'`); got != "Größe müde4" {
		t.Errorf("got %q", got)
	}
}

// TestUnportableTypes makes a column of each type and compares what is said of it.
func TestUnportableTypes(t *testing.T) {
	s := pgtest.Shared(t)
	conn := connect(t, s.DSN(s.Database(t)), pg.Session{Name: "test", Settings: map[string]string{"search_path": "public"}})
	exec(t, conn, `
		CREATE TYPE mood AS ENUM ('sad', 'ok');
		CREATE TYPE pair AS (a int, b text);
		CREATE TYPE nested AS (p pair, m mood[]);
		CREATE DOMAIN posint AS int CHECK (value > 0);
		CREATE DOMAIN dmood AS mood;
		CREATE DOMAIN dmoods AS mood[];
		CREATE DOMAIN dpair_of_array AS int[];
		CREATE DOMAIN ddmoods AS dmoods;
		CREATE DOMAIN dreg AS regclass;
		CREATE TYPE moodrange AS RANGE (subtype = mood);
		CREATE TYPE posrange AS RANGE (subtype = posint);
		CREATE TYPE pairrange AS RANGE (subtype = pair);
		CREATE TYPE regrange AS RANGE (subtype = regclass);
		CREATE DOMAIN dposrange AS posrange;
		CREATE TABLE other (id int);`)
	portable := []string{
		"int", "text", "varchar(10)", "numeric(10,2)", "float8", "money", "timestamptz", "interval", "uuid", "json", "jsonb", "bytea",
		"inet", "bit(3)", "varbit", "point", "tsvector", "tsquery", "xml", "oid", "xid", "tid", "name", `"char"`, "pg_lsn", "oidvector",
		"int[]", "text[][]", "int4range", "int4range[]", "tstzrange", "mood", "posint", "dmood", "moodrange", "posrange", "dposrange",
	}
	unportable := []string{
		"mood[]", "pair", "pair[]", "nested", "dmoods", "ddmoods", "moodrange[]", "posrange[]",
		"pairrange", "pairrange[]", "regrange", "dreg", "regclass", "regproc", "regprocedure", "regoper", "regoperator", "regtype", "regrole",
		"regnamespace", "regconfig", "regdictionary", "regclass[]", "aclitem", "aclitem[]", "other", "other[]",
		"pg_catalog.pg_class",
	}
	if s.Major >= 11 {
		exec(t, conn, `CREATE DOMAIN dpair AS pair`)
		unportable = append(unportable, "dpair", "posint[]", "dmood[]", "dmoods[]")
	}
	portable = append(portable, "dpair_of_array")
	if s.Major >= 13 {
		unportable = append(unportable, "regcollation")
		portable = append(portable, "xid8")
	}
	if s.Major >= 14 {
		portable = append(portable, "int4multirange", "moodmultirange", "posmultirange", "int4multirange[]")
		unportable = append(unportable, "pairmultirange", "pairmultirange[]", "regmultirange", "moodmultirange[]")
	}
	if s.Major >= 14 {
		for _, e := range []string{"hstore", "citext", "ltree", "cube"} {
			if value(t, conn, `SELECT count(*)::text FROM pg_available_extensions WHERE name = '`+e+`'`) == "1" {
				exec(t, conn, `CREATE EXTENSION `+e)
				portable, unportable = append(portable, e), append(unportable, e+"[]")
			}
		}
	}
	want := map[string]bool{}
	for i, name := range append(slices.Clone(portable), unportable...) {
		exec(t, conn, fmt.Sprintf(`CREATE TABLE t%d (c %s)`, i, name))
		if i >= len(portable) {
			want[name] = true
		}
	}
	// None of these counts: no column, a dropped one, a temporary or foreign place.
	exec(t, conn, `CREATE TYPE unused AS ENUM ('x'); CREATE TABLE dropped (c unused[]); ALTER TABLE dropped DROP COLUMN c;
		CREATE TYPE unused2 AS ENUM ('x'); CREATE TEMP TABLE temporary (c unused2[]); CREATE VIEW seen AS SELECT NULL::unused[] AS c;
		CREATE SCHEMA twinspan; CREATE TABLE twinspan.t (c unused[]); CREATE UNLOGGED TABLE unlogged (c unused[])`)
	types, err := pg.UnportableTypes(testContext(t), conn)
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range append(slices.Clone(portable), unportable...) {
		var oid uint32
		if err := conn.QueryRow(testContext(t), `SELECT atttypid FROM pg_attribute WHERE attrelid = $1::text::regclass AND attname = 'c'`, fmt.Sprintf("t%d", i)).Scan(&oid); err != nil {
			t.Fatal(err)
		}
		if types[oid] != want[name] {
			t.Errorf("%s: said to be unportable: %v", name, types[oid])
		}
	}
	if len(types) != len(want) {
		var names []string
		for oid := range types {
			names = append(names, value(t, conn, fmt.Sprintf(`SELECT format_type(%d, NULL)`, oid)))
		}
		t.Errorf("%d types, want %d: %s", len(types), len(want), strings.Join(names, ", "))
	}
}

// From version 17 on, event triggers can fire where a session begins. Those in the ordinary mode run in no session of an
// agent's that is a superuser, but for the first one with a server.
func TestEventTriggersAtTheLogin(t *testing.T) {
	s := pgtest.Start(t, pgtest.WithMajor(18))
	name := s.Database(t)
	dsn := parse(t, s.AgentDSN()).WithDatabase(name)
	open := func(d *pg.DSN, session pg.Session) *pgx.Conn {
		t.Helper()
		conn, err := d.Connect(testContext(t), session)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close(context.Background()) })
		return conn
	}
	first := open(dsn, pg.Session{Name: "first"})
	exec(t, first, `CREATE TABLE public.logins (who text); CREATE FUNCTION public.login() RETURNS event_trigger LANGUAGE plpgsql AS
		$$ BEGIN INSERT INTO public.logins VALUES (session_user || ' ' || current_setting('application_name')); END $$;
		CREATE ROLE plain LOGIN PASSWORD `+sqlname.Literal(pgtest.Password)+`; GRANT INSERT ON public.logins TO plain; CREATE EVENT TRIGGER login ON login EXECUTE FUNCTION public.login()`)
	for _, session := range []pg.Session{{Name: "reading"}, {Name: "applying", Apply: true}, {Name: "unseen", Apply: true, Unseen: true}, {Name: "fenced", Apply: true, Fenced: true}} {
		conn := open(dsn, session)
		want := "origin"
		if session.Apply {
			want = "replica"
		}
		if got := value(t, conn, `SHOW session_replication_role`); got != want {
			t.Errorf("%s: session_replication_role is %s", session.Name, got)
		}
	}
	raw, err := dsn.ConnectReplication(testContext(t), pg.Session{Name: "slot"})
	if err != nil {
		t.Fatal(err)
	}
	raw.Close(testContext(t))
	// Who may not send it does without, also one who could before.
	for range 2 {
		connect(t, s.DSNOf("plain", pgtest.Password, name), pg.Session{Name: "plain"})
	}
	exec(t, first, `ALTER ROLE linkagent NOSUPERUSER; GRANT INSERT ON public.logins TO linkagent`)
	for range 2 {
		open(dsn, pg.Session{Name: "former"})
	}
	exec(t, connect(t, s.DSN(name), pg.Session{Name: "admin", Ordinary: true}), `ALTER ROLE linkagent SUPERUSER`)
	if got := value(t, first, `SELECT string_agg(who, ', ' ORDER BY who COLLATE "C") FROM public.logins`); got !=
		"linkagent twinspan/former, linkagent twinspan/former, plain twinspan/plain, plain twinspan/plain, postgres twinspan/admin" {
		t.Errorf("it fired for %s", got)
	}
}
