package verify

import (
	"slices"
	"testing"

	"github.com/twinspan/twinspan/internal/pgtest"
)

// Whatever runs when the rows of a table are read runs as the table's owner, on both
// sides: functions that are folded when a query is planned.
func TestReadingRunsCodeAsItsOwner(t *testing.T) {
	pgtest.Exec(t, pgtest.Shared(t).DSN("postgres"), `DO $$ BEGIN CREATE ROLE verify_eve; EXCEPTION WHEN duplicate_object THEN NULL; END $$`)
	a, b := two(t, `CREATE SCHEMA eve AUTHORIZATION verify_eve`, `SET ROLE verify_eve`,
		`CREATE FUNCTION eve.f(int) RETURNS bool LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN
			IF current_user <> 'verify_eve' OR pg_catalog.current_setting('is_superuser') = 'on' AND pg_catalog.current_setting('role') <> 'none' THEN RAISE 'it ran as %', current_user; END IF;
			BEGIN SET ROLE NONE; EXCEPTION WHEN OTHERS THEN RETURN true; END;
			IF current_user <> 'verify_eve' THEN RAISE 'it got away'; END IF;
			RETURN true; END $$`,
		`CREATE TABLE eve.keyed (i int PRIMARY KEY, v text)`, `CREATE INDEX ON eve.keyed (v) WHERE eve.f(1)`,
		`CREATE TABLE eve.keyless (i int, v text)`, `CREATE INDEX ON eve.keyless ((eve.f(2)), v)`,
		`CREATE TABLE eve.statistics (i int PRIMARY KEY, v text)`, `CREATE STATISTICS eve.s ON i, (eve.f(3) AND i > 0) FROM eve.statistics`,
		`CREATE TABLE eve.hidden (i int PRIMARY KEY, v text); ALTER TABLE eve.hidden ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY; CREATE POLICY p ON eve.hidden USING (i > 5)`,
		`CREATE TABLE eve.left_out (i int PRIMARY KEY, v text); CREATE INDEX ON eve.left_out (i) WHERE eve.f(4); ALTER TABLE eve.left_out ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY`,
		`CREATE TABLE eve.unreadable (i int PRIMARY KEY); REVOKE SELECT ON eve.unreadable FROM verify_eve`,
		`RESET ROLE`, `INSERT INTO eve.hidden SELECT i, 'v' FROM generate_series(1, 10) i`,
		`SET ROLE verify_eve`, `INSERT INTO eve.keyed SELECT i, 'v' FROM generate_series(1, 50) i`, `INSERT INTO eve.keyless SELECT i, 'v' FROM generate_series(1, 50) i`, `INSERT INTO eve.statistics SELECT i, 'v' FROM generate_series(1, 50) i`)
	f := compare(t, a, b, Comparison{Workers: 2})
	var out []string
	for _, s := range f.Skipped {
		out = append(out, s.Name)
	}
	if want := []string{"eve.left_out", "eve.unreadable"}; !slices.Equal(out, want) {
		t.Errorf("left out: %v", f.Skipped)
	}
	if len(f.Tables) > 0 || len(f.Schema) > 0 {
		t.Errorf("equal databases are not equal: %s", told(f))
	}
	pgtest.Exec(t, b, `DROP INDEX eve.keyed_v_idx`, `UPDATE eve.hidden SET v = 'w' WHERE i = 2`, `DELETE FROM eve.hidden WHERE i = 3`, `SET ROLE verify_eve`, `UPDATE eve.keyed SET v = 'w' WHERE i = 7`, `DELETE FROM eve.keyed WHERE i = 8`,
		`INSERT INTO eve.keyless VALUES (1, 'x')`, `DELETE FROM eve.keyless WHERE i = 9`, `UPDATE eve.statistics SET v = 'w' WHERE i = 1`, `RESET ROLE`, `CREATE INDEX keyed_v_idx ON eve.keyed (v) WHERE eve.f(1)`)
	if f := compare(t, a, b, Comparison{}); len(f.Tables) != 4 {
		t.Errorf("found %s", told(f))
	}
}

// What a table's owner puts there behind the snapshot does not run with the agent's rights either: queries at the
// snapshot do not see it, and the planner does.
func TestReadingAtAnOldSnapshotRunsNothing(t *testing.T) {
	pgtest.Exec(t, pgtest.Shared(t).DSN("postgres"), `DO $$ BEGIN CREATE ROLE verify_eve; EXCEPTION WHEN duplicate_object THEN NULL; END $$`)
	a, b := two(t, `CREATE SCHEMA eve AUTHORIZATION verify_eve`, `SET ROLE verify_eve`,
		`CREATE FUNCTION eve.f(int) RETURNS bool LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN
			IF current_user <> 'verify_eve' THEN RAISE 'it ran as %', current_user; END IF; RETURN true; END $$`,
		`CREATE TABLE eve.hidden (i int PRIMARY KEY, v text); ALTER TABLE eve.hidden ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY`,
		`CREATE TABLE eve.renamed (i int PRIMARY KEY, v text); ALTER TABLE eve.renamed ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY`)
	atA, atB := snapshot(t, a), snapshot(t, b)
	pgtest.Exec(t, a, `SET ROLE verify_eve`, `CREATE INDEX ON eve.hidden (i) WHERE eve.f(1)`,
		`ALTER TABLE eve.renamed RENAME TO former`, `CREATE TABLE eve.renamed (i int PRIMARY KEY, v text); CREATE INDEX ON eve.renamed (i) WHERE eve.f(2)`)
	f, err := (&Comparison{Most: 100}).Compare(t.Context(), atA, atB)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, s := range f.Skipped {
		out = append(out, s.Name)
	}
	if want := []string{"eve.hidden", "eve.renamed"}; !slices.Equal(out, want) || len(f.Tables) > 0 {
		t.Errorf("left out: %+v, different: %s", f.Skipped, told(f))
	}
}
