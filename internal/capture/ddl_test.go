package capture

import (
	"context"
	"strings"
	"testing"

	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// functions makes a database with the functions that capture schema changes.
func functions(t *testing.T) string {
	t.Helper()
	s := pgtest.Shared(t)
	dsn := s.DSN(s.Database(t))
	conn := pgtest.Conn(t, dsn)
	if err := catalog.Install(context.Background(), conn); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(context.Background(), notesSQL+staleSQL); err != nil {
		t.Fatal(err)
	}
	if err := captureSchema(context.Background(), conn); err != nil {
		t.Fatal(err)
	}
	return dsn
}

func TestStringsAreSplitIntoStatements(t *testing.T) {
	dsn := functions(t)
	for _, c := range []struct {
		text       string
		conforming bool
		want       []string
	}{
		{`SELECT 1`, true, []string{`SELECT 1`}},
		{" ; SELECT 1;; SELECT 2 ; \n", true, []string{`SELECT 1`, `SELECT 2`}},
		{`SELECT 'a;''b'; SELECT ";" FROM x`, true, []string{`SELECT 'a;''b'`, `SELECT ";" FROM x`}},
		{`SELECT 'a\'; SELECT 2`, true, []string{`SELECT 'a\'`, `SELECT 2`}},
		{`SELECT 'a\'; SELECT 2'`, false, []string{`SELECT 'a\'; SELECT 2'`}},
		{`SELECT E'a\'; b'; SELECT 2`, true, []string{`SELECT E'a\'; b'`, `SELECT 2`}},
		{"SELECT 1 -- ; '\n; SELECT 2", true, []string{"SELECT 1 -- ; '", `SELECT 2`}},
		{`SELECT 1 /* ; /* ' */ ; */; SELECT 2 / 3 - 4`, true, []string{`SELECT 1 /* ; /* ' */ ; */`, `SELECT 2 / 3 - 4`}},
		{`DO $$ BEGIN; 'x END $$; DO $a$ ; $$ ; $a$`, true, []string{`DO $$ BEGIN; 'x END $$`, `DO $a$ ; $$ ; $a$`}},
		{`SELECT a$b$ FROM x; SELECT $1; SELECT 2`, true, []string{`SELECT a$b$ FROM x`, `SELECT $1`, `SELECT 2`}},
		{`CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2); SELECT 3`, true, []string{`CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2)`, `SELECT 3`}},
		{`CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT CASE WHEN true THEN 2 END; END; BEGIN; SELECT 1; END`, true,
			[]string{`CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT CASE WHEN true THEN 2 END; END`, `BEGIN`, `SELECT 1`, `END`}},
		{`SELECT 'é;ü'; SELECT "ß"`, true, []string{`SELECT 'é;ü'`, `SELECT "ß"`}},
		{`SELECT 'never closed; SELECT 2`, true, []string{`SELECT 'never closed; SELECT 2`}},
		{``, true, nil},
	} {
		rows := pgtest.Query(t, dsn, `SELECT twinspan.part($1, first, size) FROM twinspan.split($1, $2) ORDER BY first`, c.text, c.conforming)
		var got []string
		for _, r := range rows {
			got = append(got, strings.TrimSpace(r[0]))
		}
		if strings.Join(got, "|") != strings.Join(c.want, "|") {
			t.Errorf("%q is\n%q, want\n%q", c.text, got, c.want)
		}
	}
}

func TestStatementsFitTags(t *testing.T) {
	dsn := functions(t)
	for _, c := range []struct {
		sql, tag string
		want     bool
	}{
		{`create table a (b int)`, "CREATE TABLE", true},
		{`create temp table a (b int)`, "CREATE TABLE", true},
		{`create foreign table a (b int)`, "CREATE TABLE", false},
		{`create tables`, "CREATE TABLE", false},
		{`create unique index on a (b)`, "CREATE INDEX", true},
		{`create or replace recursive view a`, "CREATE VIEW", true},
		{`create materialized view a`, "CREATE VIEW", false},
		{`create table a as select 1`, "CREATE TABLE AS", true},
		{`with x as (select 1) select * into y from x`, "SELECT INTO", true},
		{`select 1`, "SELECT INTO", false},
		{`grant select on t to r`, "GRANT", true},
		{`grant r to s`, "GRANT", false},
		{`grant connect on database d to r`, "GRANT", false},
		{`comment on database d is x`, "COMMENT", false},
		{`comment on role d is x`, "COMMENT", false},
		{`comment on table d is x`, "COMMENT", true},
		{`alter default privileges grant select on tables to r`, "ALTER DEFAULT PRIVILEGES", true},
		{`create text  search configuration c`, "CREATE TEXT SEARCH CONFIGURATION", true},
		{`drop index concurrently a`, "DROP INDEX", true},
		{`refresh materialized view a`, "REFRESH MATERIALIZED VIEW", true},
	} {
		if got := pgtest.Query(t, dsn, `SELECT twinspan.fits($1, $2)`, c.sql, c.tag)[0][0]; (got == "t" || got == "true") != c.want {
			t.Errorf("%q fits %q: %s", c.sql, c.tag, got)
		}
	}
}

// What is not sure to be the same on another server is not taken for immutable.
func TestVolatileExpressionsAreKnown(t *testing.T) {
	dsn := functions(t)
	pgtest.Exec(t, dsn, `CREATE TABLE t (a int DEFAULT 1 + 2, b timestamptz DEFAULT now(), c date DEFAULT current_date, d float8 DEFAULT random(), e serial, f text DEFAULT 'x' || 1::text,
		g name DEFAULT current_user, h text DEFAULT upper('x'), i timestamptz DEFAULT '2020-01-01 00:00+00'::timestamptz)`)
	got := pgtest.Query(t, dsn, `SELECT string_agg(a.attname, '' ORDER BY a.attnum) FROM pg_attrdef d JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
		WHERE d.adrelid = 't'::regclass AND twinspan.immutable(d.adbin)`)[0][0]
	if got != "ah" {
		t.Errorf("immutable are %s", got)
	}
}
