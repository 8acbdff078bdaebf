package verify

import (
	"slices"
	"testing"

	"github.com/twinspan/twinspan/internal/pgtest"
)

// Definitions that a server prints otherwise when it has read its own text again.
var reread = []string{
	`CREATE TABLE t (id int PRIMARY KEY, s varchar(10) CHECK (s IN ('a', 'b')), d timestamp without time zone DEFAULT now() CHECK (d > '2020-01-01'))`,
	`CREATE INDEX i ON t (lower(s)) WHERE s IN ('a', 'b')`,
	`CREATE VIEW v AS SELECT * FROM t WHERE s IN ('a', 'b')`,
	`CREATE POLICY p ON t USING (s IN ('a', 'b'))`,
}

// again makes in b what the catalogs of a say.
func again(t *testing.T, a, b string) {
	t.Helper()
	pgtest.Exec(t, b, `CREATE TABLE t (id int PRIMARY KEY, s varchar(10), d timestamp without time zone DEFAULT now())`)
	for _, sql := range []string{
		`SELECT format('ALTER TABLE t ADD CONSTRAINT %I %s', conname, pg_get_constraintdef(oid)) FROM pg_constraint WHERE conrelid = 't'::regclass AND contype = 'c'`,
		`SELECT pg_get_indexdef('i'::regclass)`,
		`SELECT 'CREATE VIEW v AS ' || pg_get_viewdef('v')`,
		`SELECT 'CREATE POLICY p ON t USING ' || pg_get_expr(polqual, polrelid) FROM pg_policy`,
	} {
		for _, row := range pgtest.Query(t, a, sql) {
			pgtest.Exec(t, b, row[0])
		}
	}
}

func read(t *testing.T, dsn string) *Schema {
	t.Helper()
	s, err := ReadSchema(t.Context(), pgtest.Conn(t, dsn))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestCopiedDefinitionsAreEqual(t *testing.T) {
	a, b := two(t)
	pgtest.Exec(t, a, reread...)
	again(t, a, b)
	if list := CompareSchemas(read(t, a), read(t, b)); len(list) > 0 {
		t.Errorf("differences: %+v", list)
	}
	if !read(t, a).Digest().Equal(read(t, b).Digest()) {
		t.Error("the digests differ")
	}
	pgtest.Exec(t, b, `ALTER TABLE t DROP CONSTRAINT t_s_check, ADD CONSTRAINT t_s_check CHECK (s IN ('a', 'c'))`)
	if list := CompareSchemas(read(t, a), read(t, b)); len(list) != 1 || list[0].Name != "public.t: t_s_check" {
		t.Errorf("differences: %+v", list)
	}
	if read(t, a).Digest().Equal(read(t, b).Digest()) {
		t.Error("the digests are equal")
	}
}

func TestDigestIsOfEverything(t *testing.T) {
	a, b := two(t, `CREATE TABLE t (id int PRIMARY KEY, n int)`, `CREATE TABLE u (id int PRIMARY KEY)`)
	whole := read(t, a).Digest()
	if !whole.Equal(read(t, b).Digest()) {
		t.Fatal("equal databases have different digests")
	}
	for _, sql := range []string{`ALTER TABLE t ALTER n SET DEFAULT 3`, `COMMENT ON TABLE u IS 'x'`, `CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'`, `GRANT SELECT ON t TO PUBLIC`} {
		before := read(t, b).Digest()
		pgtest.Exec(t, b, sql)
		if read(t, b).Digest().Equal(before) {
			t.Errorf("%s does not change the digest", sql)
		}
	}
	other := whole
	other.Major++
	if other.All = "another"; !other.Equal(whole) {
		t.Error("versions differ in more than what they print alike")
	}
}

// A partition that is being detached has its constraint before it is detached.
func TestUnfinishedIsNotCompared(t *testing.T) {
	a, b := two(t, `CREATE TABLE p (id int) PARTITION BY RANGE (id)`, `CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (1) TO (10)`)
	reader := pgtest.Conn(t, a)
	if _, err := reader.Exec(t.Context(), `BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT * FROM p`); err != nil {
		t.Fatal(err)
	}
	conn := pgtest.Conn(t, a)
	if _, err := conn.Exec(t.Context(), `SET lock_timeout = '200ms'; SET statement_timeout = '1s'`); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), `ALTER TABLE p DETACH PARTITION p1 CONCURRENTLY`); err == nil {
		t.Fatal("the partition was detached")
	}
	pgtest.Exec(t, a, `INSERT INTO p1 VALUES (1), (1)`)
	if _, err := pgtest.Try(t.Context(), a, `CREATE UNIQUE INDEX CONCURRENTLY broken ON p1 (id)`); err == nil {
		t.Fatal("the index was made")
	}
	if !slices.ContainsFunc(read(t, a).Entries, func(e Entry) bool { return e.Kind == "constraint" && e.Invalid }) {
		t.Error("the partition has no constraint of its detaching")
	}
	if list := CompareSchemas(read(t, a), read(t, b)); len(list) > 0 {
		t.Errorf("differences: %+v", list)
	}
	reader.Close(t.Context())
	pgtest.Exec(t, a, `ALTER TABLE p DETACH PARTITION p1 FINALIZE`, `DROP INDEX IF EXISTS broken`)
	if list := CompareSchemas(read(t, a), read(t, b)); len(list) == 0 {
		t.Error("a detached partition is no difference")
	}
}
