package verify

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/twinspan/twinspan/internal/instance"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// restored makes in b what pg_dump writes of a: a twin has read everything once more.
func restored(t *testing.T, a, b string) {
	t.Helper()
	program, _, err := instance.FindClient("pg_dump", pgtest.Shared(t).Major)
	if err != nil {
		t.Fatal(err)
	}
	dump := exec.Command(program, "--schema-only", "--no-publications", "--exclude-schema=twinspan", "--dbname="+a)
	text, err := dump.Output()
	if err != nil {
		t.Fatal(err)
	}
	load := exec.Command(filepath.Join(filepath.Dir(program), "psql"), "-Xq", "--dbname="+b)
	// A newer program sets what the server does not know; whatever else fails is found missing.
	load.Stdin = bytes.NewReader(text)
	if out, err := load.CombinedOutput(); err != nil {
		t.Fatalf("restore: %v: %s", err, out)
	}
}

// wording are definitions that a server prints otherwise when it has read its own text.
var wording = []string{
	`CREATE TABLE c (r int, country int); CREATE TABLE u (r int)`,
	`CREATE VIEW null_in_union AS SELECT r, country FROM (SELECT r, country FROM c UNION ALL SELECT r, NULL FROM u) q`,
	`CREATE VIEW extracted AS SELECT extract('YEAR' FROM now()) AS y`,
	`CREATE TABLE t (id int PRIMARY KEY, d date DEFAULT '2020-01-01', s varchar(10), n numeric(5,2), a int[], e text,
		CHECK (extract('Month' FROM d) > 0), CHECK (s IN ('a', 'b')), CHECK (s NOT LIKE ALL (ARRAY['x', 'y'])), CHECK (n BETWEEN SYMMETRIC 3 AND 1))`,
	`CREATE INDEX ON t (extract('DOW' FROM d), (s || 'x')) WHERE s IN ('a', 'b')`,
	`CREATE INDEX ON t USING gin (to_tsvector('english', e)); CREATE UNIQUE INDEX ON t (lower(s) text_pattern_ops DESC, id) INCLUDE (n) WITH (fillfactor = 70)`,
	`CREATE STATISTICS st ON (extract('HOUR' FROM d::timestamp)), (lower(s)) FROM t`,
	`ALTER TABLE t ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON t USING (s IN ('a', 'b') AND extract('YEAR' FROM d) > 1 AND EXISTS (SELECT FROM c WHERE c.r = t.id)) WITH CHECK (s = ANY ('{a,b}'))`,
	`CREATE FUNCTION tf() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'`,
	`CREATE TRIGGER tr BEFORE UPDATE ON t FOR EACH ROW WHEN (OLD.* IS DISTINCT FROM NEW.* AND NEW.s IN ('a', 'b') AND extract('YEAR' FROM NEW.d) > 2000) EXECUTE FUNCTION tf()`,
	`CREATE RULE ru AS ON INSERT TO c WHERE NEW.r IN (1, 2) DO ALSO INSERT INTO u VALUES (extract('YEAR' FROM now())::int), (NULL)`,
	`CREATE FUNCTION fd(x numeric DEFAULT extract('YEAR' FROM now()), y varchar DEFAULT upper('a'), OUT z int) LANGUAGE sql AS 'SELECT 1'`,
	`CREATE FUNCTION atomic(x int) RETURNS SETOF int LANGUAGE sql BEGIN ATOMIC SELECT r FROM (SELECT r, country FROM c UNION ALL SELECT r, NULL FROM u) q WHERE extract('YEAR' FROM now()) > x; END`,
	`CREATE PROCEDURE proc(x int) LANGUAGE sql BEGIN ATOMIC INSERT INTO u SELECT extract('YEAR' FROM now())::int; END`,
	`CREATE DOMAIN dom AS varchar(5) DEFAULT lower('A') CHECK (VALUE IN ('a', 'b')) CHECK (length(VALUE) > 0)`,
	`CREATE TABLE part (d timestamp, s varchar) PARTITION BY RANGE ((extract('YEAR' FROM d)), s)`,
	`CREATE TABLE part1 PARTITION OF part FOR VALUES FROM (2020, 'a') TO (2021, 'b')`,
	`CREATE MATERIALIZED VIEW mv AS SELECT CASE WHEN s IN ('a', 'b') THEN NULL END AS x, extract('YEAR' FROM d) AS y FROM t UNION SELECT NULL, NULL WITH NO DATA`,
	`CREATE VIEW joined AS SELECT * FROM t JOIN c USING (id_) WHERE false`,
	`CREATE VIEW windows AS SELECT r, sum(country) OVER w FROM c WINDOW w AS (PARTITION BY r ORDER BY country ROWS BETWEEN 1 PRECEDING AND CURRENT ROW)`,
	`CREATE VIEW rec AS WITH RECURSIVE x(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM x WHERE n < 5) SELECT n, NULL AS nothing FROM x`,
	`CREATE TABLE g (a int, b varchar GENERATED ALWAYS AS (CASE WHEN a IN (1, 2) THEN 'x' END) STORED, EXCLUDE USING btree ((a + 1) WITH =) WHERE (a IN (1, 2)))`,
}

func TestPrintedOtherwiseIsNoDifference(t *testing.T) {
	a, b := two(t)
	for _, sql := range wording {
		pgtest.Exec(t, a, strings.Replace(sql, "USING (id_)", "ON c.r = t.id", 1))
	}
	restored(t, a, b)
	list := CompareSchemas(read(t, a), read(t, b))
	if len(list) < 5 || slices.ContainsFunc(list, func(d SchemaDifference) bool { return !d.words }) {
		t.Fatalf("the server prints little otherwise: %+v", list)
	}
	r := rereader(t, b)
	left, err := r.Settle(t.Context(), list)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range left {
		t.Errorf("%s %s differs: %s; %s", d.Kind, d.Name, d.Primary, d.Secondary)
	}
	if tables := pgtest.Query(t, b, `SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'twinspan%'`); tables[0][0] != "0" {
		t.Error("reading has left something behind")
	}
	// What was found is remembered: a server that is away is not asked again.
	r.DSN = rereader(t, strings.Replace(b, "dbname=", "dbname=gone_", 1)).DSN
	if left, err := r.Settle(t.Context(), list); err != nil || len(left) > 0 {
		t.Errorf("asked another time: %v, %d differences", err, len(left))
	}
}

// Parentheses, casts and names have a meaning.
func TestOtherMeaningsAreDifferences(t *testing.T) {
	a, b := two(t, `CREATE TABLE t (id int PRIMARY KEY, x int, y int, s varchar)`, `CREATE TABLE u (id int, s varchar)`)
	pairs := [][2]string{
		{`ALTER TABLE t ADD CONSTRAINT c1 CHECK ((x + y) * id > 0)`, `ALTER TABLE t ADD CONSTRAINT c1 CHECK (x + (y * id) > 0)`},
		{`ALTER TABLE t ADD CONSTRAINT c2 CHECK (s::text > 'a')`, `ALTER TABLE t ADD CONSTRAINT c2 CHECK (s::bpchar > 'a')`},
		{`CREATE VIEW v1 AS SELECT x FROM t UNION ALL SELECT NULL`, `CREATE VIEW v1 AS SELECT x FROM t UNION SELECT NULL`},
		{`CREATE VIEW v2 AS SELECT extract('YEAR' FROM now()) AS y`, `CREATE VIEW v2 AS SELECT extract('MONTH' FROM now()) AS y`},
		{`CREATE INDEX i1 ON t ((x + y), (y - x))`, `CREATE INDEX i1 ON t ((y - x), (x + y))`},
		{`CREATE INDEX i2 ON t (lower(s)) WHERE x > 1`, `CREATE INDEX i2 ON t (lower(s)) WHERE x > 2`},
		{`CREATE INDEX i3 ON t (s)`, `CREATE INDEX i3 ON t (s varchar_pattern_ops)`}, {`CREATE INDEX i4 ON t (x)`, `CREATE INDEX i4 ON t (x DESC)`},
		{`CREATE INDEX i5 ON t (x) INCLUDE (y)`, `CREATE INDEX i5 ON t (x, y)`}, {`CREATE INDEX i6 ON t (x) WITH (fillfactor = 70)`, `CREATE INDEX i6 ON t (x)`},
		{`CREATE INDEX i7 ON t (s COLLATE "C")`, `CREATE INDEX i7 ON t (s)`}, {`CREATE UNIQUE INDEX i8 ON t (x)`, `CREATE INDEX i8 ON t (x)`},
		{`CREATE DOMAIN d AS int CHECK (VALUE > 1)`, `CREATE DOMAIN d AS int CHECK (VALUE > 2)`}, {`CREATE FUNCTION f(x int DEFAULT 1) RETURNS int LANGUAGE sql AS 'SELECT 1'`, `CREATE FUNCTION f(x int DEFAULT 2) RETURNS int LANGUAGE sql AS 'SELECT 1'`},
		{`CREATE RULE r AS ON INSERT TO u DO ALSO DELETE FROM t`, `CREATE RULE r AS ON INSERT TO u DO INSTEAD DELETE FROM t`},
		{`CREATE TABLE p (a int, b int) PARTITION BY RANGE ((a + b))`, `CREATE TABLE p (a int, b int) PARTITION BY RANGE ((a - b))`},
		{`CREATE TABLE ord (a int, b int)`, `CREATE TABLE ord (b int, a int)`},
	}
	for _, pair := range pairs {
		pgtest.Exec(t, a, pair[0])
		pgtest.Exec(t, b, pair[1])
	}
	list := compareSchemas(t, a, b)
	if len(list) != len(pairs) || slices.ContainsFunc(list, func(d SchemaDifference) bool { return d.Undecided || d.Worded }) {
		t.Errorf("%d differences of %d: %+v", len(list), len(pairs), list)
	}
}

// What its owner may not read stays open: it is no difference, and not equal.
func TestWhatCannotBeReadIsUndecided(t *testing.T) {
	a, b := two(t)
	role := "reread_" + strconv.Itoa(len(b)) + strings.ToLower(t.Name())
	pgtest.Exec(t, pgtest.Shared(t).DSN("postgres"), `DO $$ BEGIN CREATE ROLE `+role+`; EXCEPTION WHEN duplicate_object THEN NULL; END $$`)
	pgtest.Exec(t, a, `CREATE SCHEMA hidden`, `CREATE FUNCTION hidden.f(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1'`, `CREATE TABLE t (d date)`,
		`CREATE VIEW v AS SELECT extract('YEAR' FROM d) AS y, hidden.f(1) AS f FROM t`, `ALTER VIEW v OWNER TO `+role)
	restored(t, a, b)
	list := compareSchemas(t, a, b)
	if len(list) != 1 || !list[0].Undecided || list[0].Name != "public.v" {
		t.Errorf("differences: %+v", list)
	}
	pgtest.Exec(t, b, `GRANT USAGE ON SCHEMA hidden TO `+role)
	pgtest.Exec(t, a, `GRANT USAGE ON SCHEMA hidden TO `+role)
	if list := compareSchemas(t, a, b); len(list) > 0 {
		t.Errorf("differences: %+v", list)
	}
}

// Reading a literal may run what a role has written: with its rights alone, and for
// once.
func TestReadingRunsWithTheOwnersRights(t *testing.T) {
	a, b := two(t)
	role := strings.ToLower(t.Name())
	pgtest.Exec(t, pgtest.Shared(t).DSN("postgres"), `DO $$ BEGIN CREATE ROLE `+role+`; EXCEPTION WHEN duplicate_object THEN NULL; END $$`)
	for _, dsn := range []string{a, b} {
		pgtest.Exec(t, dsn, `CREATE SCHEMA app AUTHORIZATION `+role, `GRANT CREATE ON SCHEMA public TO `+role)
		pgtest.Exec(t, dsn, `SET SESSION AUTHORIZATION `+role+`;
			CREATE FUNCTION app.evil(int) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN
				BEGIN RESET ROLE; EXCEPTION WHEN OTHERS THEN NULL; END;
				BEGIN EXECUTE 'ALTER ROLE `+role+` CREATEROLE'; EXCEPTION WHEN OTHERS THEN NULL; END;
				BEGIN EXECUTE 'CREATE TABLE app.was_' || current_user || ' ()'; EXCEPTION WHEN OTHERS THEN NULL; END;
				PERFORM set_config('application_name', current_user || ' ' || session_user, false);
				RAISE WARNING 'reading as %', current_user;
				RETURN current_user = '`+role+`'; END $$;
			CREATE DOMAIN app.d AS int CHECK (app.evil(VALUE)); CREATE TYPE app.row AS (x app.d);
			CREATE TABLE app.t (d date)`)
	}
	pgtest.Exec(t, a, `SET SESSION AUTHORIZATION `+role+`; CREATE VIEW app.v AS SELECT extract('YEAR' FROM d) AS y, '(1)'::app.row AS r FROM app.t`)
	pgtest.Exec(t, b, `SET SESSION AUTHORIZATION `+role+`; CREATE VIEW app.v AS SELECT extract(year FROM d) AS y, '(1)'::app.row AS r FROM app.t`)
	// A check that fails for any other role than the owner would leave it undecided.
	if list := compareSchemas(t, a, b); len(list) > 0 {
		t.Errorf("differences: %+v", list)
	}
	if got := pgtest.Query(t, b, `SELECT rolcreaterole FROM pg_roles WHERE rolname = '`+role+`'`); got[0][0] == "t" || got[0][0] == "true" {
		t.Error("the role has become more than it was")
	}
}
