package verify

import (
	"testing"

	"github.com/twinspan/twinspan/internal/pgtest"
)

// Whatever runs when rows or constraints are repaired runs as the table's owner, under the
// settings of an ordinary session, and the rows arrive as they are on the primary.
func TestRepairRunsCodeAsTheOwner(t *testing.T) {
	pgtest.Exec(t, pgtest.Shared(t).DSN("postgres"), `DO $$ BEGIN CREATE ROLE repair_eve; EXCEPTION WHEN duplicate_object THEN NULL; END $$`)
	const noted = `IF current_user <> 'repair_eve' THEN RAISE 'it ran as %', current_user; END IF;
		BEGIN EXECUTE 'SET ROLE NONE'; EXCEPTION WHEN OTHERS THEN NULL; END;
		IF current_user <> 'repair_eve' THEN RAISE 'it got away'; END IF;`
	a, b := two(t, `CREATE SCHEMA eve AUTHORIZATION repair_eve`, `SET ROLE repair_eve`,
		`CREATE SEQUENCE eve.ran`,
		`CREATE FUNCTION eve.f(x anyelement) RETURNS bool LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN `+noted+` PERFORM eve.count(); RETURN true; END $$`,
		`CREATE FUNCTION eve.count() RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM nextval('eve.ran'); END $$`,
		`CREATE TYPE eve.c AS (x int, y text)`,
		`CREATE DOMAIN eve.d AS text CHECK (eve.f(VALUE))`,
		`CREATE TABLE eve.keyed (i int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text, c eve.c, d eve.d, g bool GENERATED ALWAYS AS (eve.f(v)) STORED, m money, ts timestamptz, b bytea, CHECK (eve.f(v)))`,
		`CREATE INDEX ON eve.keyed (v) WHERE eve.f(1)`,
		`CREATE TABLE eve.keyless (v text, f float8, ts timestamptz, CHECK (eve.f(f)))`, `CREATE INDEX ON eve.keyless ((eve.f(v)))`,
		`CREATE TABLE eve.checked (i int PRIMARY KEY, CONSTRAINT late CHECK (eve.f(i)))`,
		`INSERT INTO eve.keyed (v, c, d, m, ts, b) SELECT E'tab\t nl\n \\ '' "' || i, ROW(i, E'a\tb\\')::eve.c, E'\\N', '12.50', 'epoch', '\x00ff5c0a' FROM generate_series(1, 30) i`, `INSERT INTO eve.keyed (v) VALUES (NULL), (''), ('\N')`,
		`INSERT INTO eve.keyless SELECT 'v' || i % 10, 1.0 / (i % 10 + 3), 'epoch' FROM generate_series(1, 40) i`,
		`INSERT INTO eve.checked VALUES (1), (2)`,
		`CREATE FUNCTION eve.to_c(text) RETURNS eve.c LANGUAGE plpgsql AS $$ BEGIN RAISE 'a cast was called'; END $$`, `CREATE CAST (text AS eve.c) WITH FUNCTION eve.to_c(text) AS ASSIGNMENT`)
	for _, dsn := range []string{a, b} {
		pgtest.Exec(t, dsn, `DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET DateStyle = German', current_database()); EXECUTE format('ALTER DATABASE %I SET TimeZone = ''Asia/Tokyo''', current_database());
			EXECUTE format('ALTER DATABASE %I SET search_path = eve', current_database()); END $$`)
	}
	pgtest.Exec(t, b, `SET ROLE repair_eve`, `DELETE FROM eve.keyed WHERE i % 2 = 0`, `UPDATE eve.keyed SET v = 'other', m = 1 WHERE i % 3 = 0`, `INSERT INTO eve.keyless SELECT * FROM eve.keyless LIMIT 3`,
		`DELETE FROM eve.keyless WHERE ctid IN (SELECT ctid FROM eve.keyless OFFSET 20 LIMIT 4)`, `ALTER TABLE eve.checked DROP CONSTRAINT late`, `SELECT setval('eve.ran', 1)`)
	f, conn := repairRows(t, a, b)
	if err := RepairSchema(t.Context(), conn, parsed(t, b), "test", f.Schema); err != nil {
		t.Fatal(err)
	}
	if ran := pgtest.Query(t, b, `SELECT last_value > 20 FROM eve.ran`)[0][0]; ran != "true" && ran != "t" {
		t.Error("the functions did not run, so nothing was tried")
	}
	f = compare(t, a, b, Comparison{})
	if got := told(f); got != "" {
		t.Errorf("left: %s", got)
	}
	for _, table := range []string{"eve.keyed", "eve.keyless"} {
		const asEve = "&options=-c%20role%3Drepair_eve"
		if x, y := pgtest.Table(t, a+asEve, table), pgtest.Table(t, b+asEve, table); x != y {
			t.Errorf("%s is\n%s\nand on the secondary\n%s", table, x, y)
		}
	}
}
