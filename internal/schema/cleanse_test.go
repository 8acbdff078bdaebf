package schema

import (
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

func TestOptionsOfTheServersOwnStayBehind(t *testing.T) {
	for _, c := range [][3]string{
		{"TABLE", "CREATE TABLE public.t (a integer) WITH (fillfactor='70');\nALTER TABLE ONLY public.t ALTER COLUMN a SET (pg_attver=22158952);\n",
			"CREATE TABLE public.t (a integer) WITH (fillfactor='70');"},
		{"TABLE", "ALTER TABLE ONLY public.t ALTER COLUMN a SET (pg_attver=1);ALTER TABLE ONLY public.t ALTER COLUMN b SET (pg_attver=1);X", "X"},
		{"TABLE", "ALTER TABLE ONLY public.t ALTER COLUMN a SET (pg_attver=22158952, n_distinct=5);", "ALTER TABLE ONLY public.t ALTER COLUMN a SET (n_distinct=5);"},
		{"TABLE", `ALTER TABLE ONLY public.t ALTER COLUMN "a (b" SET (n_distinct='-0.5', "x y"='1,2)');`, `ALTER TABLE ONLY public.t ALTER COLUMN "a (b" SET (n_distinct='-0.5');`},
		{"TABLE", "CREATE TABLE public.t (a integer DEFAULT '; ALTER COLUMN a SET (pg_attver=1);');", "CREATE TABLE public.t (a integer DEFAULT '; ALTER COLUMN a SET (pg_attver=1);');"},
		{"FOREIGN TABLE", "ALTER FOREIGN TABLE ONLY public.f ALTER COLUMN a SET (pg_attver=1);\nALTER FOREIGN TABLE ONLY public.f ALTER COLUMN a OPTIONS (x 'y');",
			"ALTER FOREIGN TABLE ONLY public.f ALTER COLUMN a OPTIONS (x 'y');"},
		{"FUNCTION", "CREATE FUNCTION f() AS $$ ALTER TABLE ONLY t ALTER COLUMN a SET (pg_attver=1); $$;", "CREATE FUNCTION f() AS $$ ALTER TABLE ONLY t ALTER COLUMN a SET (pg_attver=1); $$;"},
	} {
		if got := trim(string(cleansed(Entry{Kind: c[0], SQL: Text(c[1])}))); got != c[2] {
			t.Errorf("%s\n%q becomes\n%q, not\n%q", c[0], c[1], got, c[2])
		}
	}
}

func trim(s string) string {
	for len(s) > 0 && (s[0] == '\n' || s[0] == ' ') {
		s = s[1:]
	}
	for len(s) > 0 && s[len(s)-1] == '\n' {
		s = s[:len(s)-1]
	}
	return s
}

// What only tunes can stay behind; what decides on who sees what cannot.
func TestUnknownOptionsThatTuneStayBehind(t *testing.T) {
	refused := func(message string) error {
		return &pgconn.PgError{Code: "22023", Routine: "parseRelOptionsInternal", Message: message}
	}
	table := Entry{Kind: "TABLE", SQL: "CREATE TABLE t (a int) WITH (fillfactor='70', toast.vacuum_new='1', vacuum_other='2');"}
	got, left := withoutUnknown(table, refused("unbekannter Parameter „vacuum_new“"))
	if left != "vacuum_new" || got.SQL != "CREATE TABLE t (a int) WITH (fillfactor='70', vacuum_other='2');" {
		t.Errorf("left out %q: %s", left, got.SQL)
	}
	index := Entry{Kind: "INDEX", SQL: "CREATE INDEX i ON t USING gist (a ops (new_one='1')) WITH (newer='2') WHERE (a > 0);"}
	if got, _ := withoutUnknown(index, refused(`unrecognized parameter "newer"`)); got.SQL != "CREATE INDEX i ON t USING gist (a ops (new_one='1'))  WHERE (a > 0);" {
		t.Errorf("left: %s", got.SQL)
	}
	view := Entry{Kind: "VIEW", SQL: "CREATE VIEW v WITH (security_invoker='true') AS SELECT 1;"}
	if _, left := withoutUnknown(view, refused(`unrecognized parameter "security_invoker"`)); left != "" {
		t.Error("security_invoker was left out")
	}
	for _, err := range []error{nil, &pgconn.PgError{Code: "22023", Message: "vacuum_new"}, refused("fill")} {
		if _, left := withoutUnknown(table, err); left != "" {
			t.Errorf("%v: %s was left out", err, left)
		}
	}
}
