package schema_test

import (
	"testing"

	"github.com/twinspan/twinspan/internal/pgtest"
)

// Inherited tables keep the order of their columns, and what they have of their parents
// alone goes when it goes there.
func TestChildrenKeepTheOrderOfTheirColumns(t *testing.T) {
	s := pgtest.Shared(t)
	from := s.DSN(s.Database(t))
	pgtest.Exec(t, from,
		`CREATE TABLE par (a int NOT NULL DEFAULT 7, CONSTRAINT positive CHECK (a > 0)); CREATE TABLE ch (b int, a int NOT NULL DEFAULT 7, CONSTRAINT positive CHECK (a > 0)); ALTER TABLE ch INHERIT par`,
		`CREATE TABLE g1 (x int); CREATE TABLE g2 (y int DEFAULT 3 CHECK (y < 9)) INHERITS (g1); ALTER TABLE g1 ADD z text COLLATE "C" NOT NULL DEFAULT 'a,(b', ADD CONSTRAINT zs CHECK (z <> ')'), ADD gen int GENERATED ALWAYS AS (x + 1) STORED`,
		`CREATE TABLE "G 3" ("w, (" int, PRIMARY KEY ("w, (")) INHERITS (g2) WITH (fillfactor = 70); ALTER TABLE g1 ADD late int; ALTER TABLE g2 ADD later date DEFAULT now()`,
		`CREATE TABLE two (q int, a int NOT NULL, x int, CONSTRAINT positive CHECK (a > 0), CONSTRAINT zs CHECK (z <> ')'), z text COLLATE "C" NOT NULL, gen int GENERATED ALWAYS AS (x + 1) STORED, late int); ALTER TABLE two INHERIT par; ALTER TABLE two INHERIT g1`,
		`CREATE TABLE plain (p int) INHERITS (par); CREATE TABLE gone (x int, n int); ALTER TABLE gone DROP n; CREATE TABLE gonechild (v int) INHERITS (gone); ALTER TABLE gone ADD n text`,
		`CREATE TABLE base (id int, n int); CREATE TABLE keyed (v text) INHERITS (base); ALTER TABLE keyed ADD PRIMARY KEY (id)`)
	dump, err := source(t, from).Dump(t.Context(), export(t, from))
	if err != nil {
		t.Fatal(err)
	}
	tgt, to := target(t, s)
	if _, err := tgt.Prepare(t.Context(), fetch(through(t, dump))); err != nil {
		t.Fatal(err)
	}
	if err := tgt.BuildRest(t.Context()); err != nil {
		t.Fatal(err)
	}
	const columns = `SELECT attrelid::regclass::text, attname::text, format_type(atttypid, atttypmod), attnotnull, attislocal, attinhcount, attcollation::regcollation::text, attgenerated::text,
		(SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef WHERE adrelid = attrelid AND adnum = attnum)
		FROM pg_attribute JOIN pg_class c ON c.oid = attrelid WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND attnum > 0 AND NOT attisdropped ORDER BY 1, attnum`
	const conditions = `SELECT conrelid::regclass::text, conname::text, pg_get_constraintdef(oid), conislocal, coninhcount FROM pg_constraint WHERE connamespace = 'public'::regnamespace ORDER BY 1, 2`
	for _, sql := range []string{columns, conditions, `SELECT inhrelid::regclass::text, inhparent::regclass::text, inhseqno FROM pg_inherits ORDER BY 1, 3`, `SELECT relname::text, reloptions::text FROM pg_class WHERE relnamespace = 'public'::regnamespace ORDER BY 1`} {
		a, b := pgtest.Query(t, from, sql), pgtest.Query(t, to, sql)
		for i := range max(len(a), len(b)) {
			if i >= len(a) || i >= len(b) || !equalRow(a[i], b[i]) {
				t.Errorf("%s\n%v\n%v", sql[:40], a, b)
				break
			}
		}
	}
	for _, dsn := range []string{from, to} {
		pgtest.Exec(t, dsn, `ALTER TABLE g1 DROP COLUMN z CASCADE, DROP COLUMN late`, `INSERT INTO g2 VALUES (1, 2, DEFAULT)`)
	}
	if a, b := pgtest.Table(t, from, "g2"), pgtest.Table(t, to, "g2"); a != b {
		t.Errorf("after a column was dropped above: %s and %s", a, b)
	}
}

func equalRow(a, b []string) bool {
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return len(a) == len(b)
}
