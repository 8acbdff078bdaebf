package verify

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/pgtest"
	"github.com/twinspan/twinspan/internal/problem"
)

// rich is a schema with something of each kind.
var rich = []string{
	`CREATE EXTENSION citext`, `CREATE EXTENSION hstore`,
	`CREATE SCHEMA "Odd ""one"`, `CREATE TYPE mood AS ENUM ('a', 'b')`, `CREATE DOMAIN pos AS int CHECK (VALUE > 0)`, `CREATE TYPE pair AS (a int, b text)`,
	`CREATE TABLE keyed (id int PRIMARY KEY, name citext UNIQUE, m mood, d pos, p pair, f float8, r real, b bytea, j jsonb, n numeric, g int GENERATED ALWAYS AS (id * 2) STORED)`,
	`CREATE TABLE "Odd ""one"."K ey" ("a B" text, c timestamptz, v text, PRIMARY KEY ("a B", c))`,
	`CREATE TABLE keyless (a int, b text, c point)`, `CREATE TABLE empty ()`,
	`CREATE TABLE part (id int, k int, PRIMARY KEY (id, k)) PARTITION BY LIST (k)`, `CREATE TABLE part1 PARTITION OF part FOR VALUES IN (1)`,
	`CREATE INDEX keyed_n ON keyed (n) WHERE n > 0`, `CREATE INDEX part_k ON part (k)`,
	`CREATE VIEW v AS SELECT id, name FROM keyed`, `CREATE MATERIALIZED VIEW mv AS SELECT 1 AS one`,
	`CREATE SEQUENCE down INCREMENT -1`, `CREATE FUNCTION f(int) RETURNS int LANGUAGE sql AS 'SELECT $1'`,
	`CREATE FUNCTION tf() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'`, `CREATE TRIGGER tr BEFORE INSERT ON keyed FOR EACH ROW EXECUTE FUNCTION tf()`,
	`ALTER TABLE keyed ENABLE ROW LEVEL SECURITY`, `CREATE POLICY pol ON keyed USING (id > 0)`, `CREATE RULE ru AS ON DELETE TO keyless DO ALSO NOTHING`,
	`CREATE STATISTICS st ON a, b FROM keyless`, `CREATE UNLOGGED TABLE ul (i int)`, `COMMENT ON COLUMN keyed.n IS 'a number'`,
	`CREATE AGGREGATE total (int) (SFUNC = int4pl, STYPE = int)`, `CREATE COLLATION co (LOCALE = 'C')`,
	`INSERT INTO keyed SELECT i, 'N' || i, 'a'::mood, i, ROW(i, 'x'::text)::pair, i / 3.0, i / 7.0, decode(md5(i::text), 'hex'), jsonb_build_object('i', i), i / 9.0 FROM generate_series(1, 5000) i`,
	`INSERT INTO "Odd ""one"."K ey" SELECT 'k' || i, '2020-01-01Z'::timestamptz + i * interval '1 h', NULLIF('v' || i % 3, 'v0') FROM generate_series(1, 300) i`,
	`INSERT INTO keyless SELECT i % 5, 'b' || i % 7, point(i % 2, 1) FROM generate_series(1, 400) i`,
	`INSERT INTO part SELECT i, 1 FROM generate_series(1, 10) i`,
	`SELECT lo_from_bytea(70001, '\x0102')`,
}

func TestEqualDatabasesAreEqual(t *testing.T) {
	a, b := two(t, rich...)
	// The same rows, elsewhere in the file.
	pgtest.Exec(t, b, `UPDATE keyed SET id = id`, `UPDATE keyless SET a = a WHERE a = 3`, `VACUUM keyed`)
	f := compare(t, a, b, Comparison{Workers: 2})
	if !f.Equal() {
		t.Errorf("%+v", f)
	}
	if f.Count.Tables != 6 || f.Count.Rows != 5000+300+400+10+1 || f.Count.RowsFetched != 0 {
		t.Errorf("counted %+v", f.Count)
	}
	if len(f.Skipped) != 1 || f.Skipped[0].Name != "public.ul" {
		t.Errorf("skipped %v", f.Skipped)
	}
}

// tampering is one statement on the second database, and how it is told.
var tampering = []struct{ sql, want string }{
	{`UPDATE keyed SET b = b || '\x00' WHERE id = 17`, "row public.keyed 17 differs [b]"},
	{`UPDATE keyed SET f = f + 1e-12, r = NULL WHERE id = 4000`, "row public.keyed 4000 differs [f r]"},
	{`DELETE FROM keyed WHERE id = 5`, "row public.keyed 5 missing []"},
	{`INSERT INTO keyed (id) VALUES (-1)`, "row public.keyed -1 extra []"},
	{`UPDATE "Odd ""one"."K ey" SET v = '' WHERE "a B" = 'k3'`, `row "Odd ""one"."K ey" k3|2020-01-01 03:00:00+00 differs [v]`},
	{`INSERT INTO keyless SELECT * FROM keyless WHERE a = 1 AND b = 'b1' LIMIT 1`, "row public.keyless 6>7 extra []"},
	{`DELETE FROM keyless WHERE ctid IN (SELECT ctid FROM keyless WHERE a = 2 AND b = 'b2' AND c ~= '(0,1)' LIMIT 2)`, "row public.keyless 6>4 missing []"},
	{`INSERT INTO part1 VALUES (11, 1)`, "row public.part1 11|1 extra []"},
	{`SELECT lo_put(70001, 0, '\x03')`, "row pg_catalog.pg_largeobject 70001 differs [data]"},
	{`ALTER SEQUENCE down CYCLE`, "schema sequence public.down differs"},
	{`DROP INDEX keyed_n`, "schema index public.keyed_n missing"},
	{`DROP INDEX part_k`, "schema index public.part1_k_idx missing; schema index public.part_k missing"},
	{`ALTER TABLE keyed DROP CONSTRAINT keyed_name_key`, "schema constraint public.keyed: keyed_name_key missing; schema index public.keyed_name_key missing"},
	{`UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'keyed_n'::regclass`, "schema index public.keyed_n differs"},
	{`ALTER TABLE keyed ALTER n SET DEFAULT 1`, "schema column public.keyed.n differs"},
	{`ALTER TABLE keyed ALTER n TYPE numeric(30,20)`, "schema column public.keyed.n differs; skipped public.keyed: its columns differ"},
	{`DROP TRIGGER tr ON keyed`, "schema trigger public.keyed: tr missing"},
	{`ALTER TABLE keyed DISABLE TRIGGER tr`, "schema trigger public.keyed: tr differs"},
	{`CREATE OR REPLACE FUNCTION f(int) RETURNS int LANGUAGE sql AS 'SELECT $1 + 1'`, "schema function public.f(integer) differs"},
	{`CREATE OR REPLACE VIEW v AS SELECT id, name FROM keyed WHERE id > 1`, "schema definition of view public.v differs"},
	{`ALTER TYPE mood ADD VALUE 'c'`, "schema type public.mood differs"},
	{`DROP TABLE part1`, "schema table public.part1 missing; skipped public.part1: the secondary does not have it"},
	{`DROP POLICY pol ON keyed`, "schema policy public.keyed: pol missing"},
	{`DROP RULE ru ON keyless`, "schema rule public.keyless: ru missing"},
	{`DROP STATISTICS st`, "schema statistics public.st missing"},
	{`GRANT SELECT ON keyed TO PUBLIC`, "schema table public.keyed differs"},
	{`ALTER TABLE keyed REPLICA IDENTITY FULL`, "schema table public.keyed differs"},
	{`COMMENT ON COLUMN keyed.n IS 'other'`, "schema comment table column public.keyed.n differs"},
	{`DROP COLLATION co`, "schema collation public.co missing"},
	{`DROP AGGREGATE total (int)`, "schema function public.total(integer) missing"},
}

// told puts findings into words.
func told(f *Findings) string {
	var list []string
	for _, d := range f.Schema {
		list = append(list, fmt.Sprintf("schema %s %s %s", d.Kind, d.Name, d.State))
	}
	for _, table := range f.Tables {
		for _, d := range table.Rows {
			key := strings.Join(d.Key, "|")
			if len(d.Key) == 0 {
				key = fmt.Sprintf("%d>%d", d.Primary, d.Secondary)
			}
			list = append(list, fmt.Sprintf("row %s %s %s %v", table.Table, key, d.State, d.Columns))
		}
	}
	for _, s := range f.Skipped {
		if s.Name != "public.ul" {
			list = append(list, fmt.Sprintf("skipped %s: %s", s.Name, s.Why))
		}
	}
	return strings.Join(list, "; ")
}

func TestEachTamperingIsNamed(t *testing.T) {
	a, b := two(t, rich...)
	server := pgtest.Shared(t)
	parsed, err := pg.ParseDSN(b)
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range tampering {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			name := server.Database(t)
			pgtest.Exec(t, server.DSN("postgres"), `DROP DATABASE "`+name+`"`, `CREATE DATABASE "`+name+`" TEMPLATE "`+parsed.Database()+`"`)
			pgtest.Exec(t, server.DSN(name), c.sql)
			if got := told(compare(t, a, server.DSN(name), Comparison{Workers: 2})); got != c.want {
				t.Errorf("%s\n is told as %s\n      want %s", c.sql, got, c.want)
			}
		})
	}
}

// Everything that a comparison found and that can be repaired is repaired, and
// the comparison afterwards finds nothing.
func TestRepairMakesEqual(t *testing.T) {
	a, b := two(t, rich...)
	for _, c := range tampering[:14] {
		if !strings.Contains(c.sql, "lo_put") && !strings.HasPrefix(c.sql, "UPDATE pg_index") {
			pgtest.Exec(t, b, c.sql)
		}
	}
	pgtest.Exec(t, b, `CREATE INDEX keyed_n ON keyed (n) WHERE n > 0`, `UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'keyed_n'::regclass`)
	f, conn := repairRows(t, a, b)
	if f.Equal() {
		t.Fatal("nothing was found")
	}
	// An index that is built while others write waits for older snapshots.
	pgtest.Exec(t, b, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND backend_xmin IS NOT NULL AND pid <> pg_backend_pid()`)
	if err := RepairSchema(t.Context(), conn, parsed(t, b), "test", f.Schema); err != nil {
		t.Fatal(err)
	}
	if got := told(compare(t, a, b, Comparison{})); got != "" {
		t.Errorf("left: %s", got)
	}
}

// repairRows compares two databases and repairs the rows of b. The session is that of
// the repair.
func repairRows(t *testing.T, a, b string) (*Findings, *pgx.Conn) {
	t.Helper()
	primary, secondary := snapshot(t, a), snapshot(t, b)
	f, err := (&Comparison{Most: 100, Workers: 2, Schema: true}).Compare(t.Context(), primary, secondary)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := parsed(t, b).Connect(t.Context(), pg.Session{Name: "test/repair", Apply: true, Fenced: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	if err := RepairRows(t.Context(), conn, f, secondary, primary, primary); err != nil {
		t.Fatal(err)
	}
	return f, conn
}

func parsed(t *testing.T, text string) *pg.DSN {
	t.Helper()
	dsn, err := pg.ParseDSN(text)
	if err != nil {
		t.Fatal(err)
	}
	return dsn
}

func TestTableTruncatedMeanwhileIsNotCalledDifferent(t *testing.T) {
	a, b := two(t, `CREATE TABLE t (id int PRIMARY KEY)`, `INSERT INTO t SELECT generate_series(1, 100)`)
	primary, secondary := snapshot(t, a), snapshot(t, b)
	if _, err := primary.Describe(t.Context()); err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, a, `TRUNCATE t`)
	c := Comparison{Most: 10}
	f, err := c.Compare(t.Context(), primary, secondary)
	if err != nil || !f.Equal() || len(f.Skipped) != 1 {
		t.Errorf("%+v, %v", f, err)
	}
}

func TestLostSnapshotIsAProblemToTryAgain(t *testing.T) {
	a, _ := two(t)
	s := snapshot(t, a)
	s.ID = "00000003-0000001B-1"
	if _, err := s.Describe(t.Context()); problem.CodeOf(err) != "snapshot_lost" {
		t.Errorf("%v", err)
	}
}

// A user's cast to text says nothing of what a value is, and is not called.
func TestCastsOfUsersCompareNothing(t *testing.T) {
	types := []string{"en", "c", "r", "en[]"}
	ddl := []string{`CREATE TYPE en AS ENUM ('a', 'b'); CREATE TYPE c AS (x int, y text); CREATE TYPE r AS RANGE (subtype = int8); CREATE DOMAIN d AS en`}
	for i, typ := range types {
		for j, text := range []string{"text", "varchar"} {
			ddl = append(ddl, fmt.Sprintf(`CREATE FUNCTION cast%d_%d(%s) RETURNS %s LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RAISE 'a cast was called'; END $$`, i, j, typ, text),
				fmt.Sprintf(`CREATE CAST (%s AS %s) WITH FUNCTION cast%d_%d(%s) AS ASSIGNMENT`, typ, text, i, j, typ),
				fmt.Sprintf(`CREATE FUNCTION back%d_%d(%s) RETURNS %s LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RAISE 'a cast was called'; END $$`, i, j, text, typ),
				fmt.Sprintf(`CREATE CAST (%s AS %s) WITH FUNCTION back%d_%d(%s) AS ASSIGNMENT`, text, typ, i, j, text))
		}
	}
	ddl = append(ddl,
		`CREATE TABLE keyed (i int PRIMARY KEY, e en, c c, r r, a en[], d d)`, `CREATE TABLE by_enum (e en PRIMARY KEY, v int)`, `CREATE TABLE by_composite (c c PRIMARY KEY, v int)`,
		`CREATE TABLE by_domain (d d PRIMARY KEY, v int)`, `CREATE TABLE keyless (e en, c c, d d)`,
		`INSERT INTO keyed SELECT i, 'a', ROW(i, 'y')::c, r(i, i + 2), '{a,b}', 'a' FROM generate_series(1, 20) i`, `INSERT INTO by_enum VALUES ('a', 1), ('b', 2)`,
		`INSERT INTO by_composite VALUES (ROW(1, 'x'), 1), (ROW(NULL, NULL), 2)`, `INSERT INTO by_domain VALUES ('a', 1), ('b', 2)`, `INSERT INTO keyless VALUES ('a', ROW(1, 'x'), 'a'), ('a', ROW(NULL, NULL), NULL), ('a', NULL, NULL)`)
	a, b := two(t, ddl...)
	if f := compare(t, a, b, Comparison{}); !f.Equal() {
		t.Fatalf("equal databases are not equal: %s", told(f))
	}
	for _, tampering := range []string{`UPDATE keyed SET e = 'b' WHERE i = 1`, `UPDATE keyed SET c = ROW(1, 'z') WHERE i = 1`, `UPDATE keyed SET c = NULL WHERE i = 1`, `UPDATE keyed SET c = ROW(NULL, NULL) WHERE i = 1`,
		`UPDATE keyed SET r = r(5, 6) WHERE i = 1`, `UPDATE keyed SET a = '{b,a}' WHERE i = 1`, `UPDATE keyed SET d = 'b' WHERE i = 1`, `UPDATE by_enum SET v = 3 WHERE v = 1`, `UPDATE by_composite SET v = 3 WHERE v = 2`,
		`UPDATE by_domain SET v = 3 WHERE v = 1`, `UPDATE keyless SET e = 'b' WHERE c = ROW(1, 'x')::c`, `UPDATE keyless SET c = NULL`, `DELETE FROM by_composite WHERE v = 2`} {
		t.Run(tampering, func(t *testing.T) {
			pgtest.Exec(t, b, tampering)
			if f, _ := repairRows(t, a, b); f.Equal() {
				t.Fatal("not seen")
			}
			if f := compare(t, a, b, Comparison{}); !f.Equal() {
				t.Errorf("after a repair: %s", told(f))
			}
			pgtest.Equal(t, a, b)
		})
	}
}

// Values are compared as they are sent: a declaration of XML, which is never sent, is no
// difference; blanks at the end, which a cast to text drops, are one.
func TestValuesAreComparedAsSent(t *testing.T) {
	a, b := two(t, `CREATE DOMAIN page AS xml; CREATE TABLE t (id int PRIMARY KEY, x xml, p page, c bpchar)`)
	pgtest.Exec(t, a, `INSERT INTO t VALUES (1, '<?xml version="1.0"?><a/>', '<?xml version="1.0"?><b/>', 'c'), (2, NULL, NULL, 'd ')`)
	pgtest.Exec(t, b, `INSERT INTO t VALUES (1, '<a/>', '<b/>', 'c'), (2, NULL, NULL, 'd')`)
	f := compare(t, a, b, Comparison{})
	if len(f.Tables) != 1 || len(f.Tables[0].Rows) != 1 || len(f.Schema) > 0 {
		t.Errorf("found %+v", f)
	}
}
