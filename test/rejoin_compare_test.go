package test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// dropSlot takes away what tells of lost transactions. A slot of an audit, which a killed agent may
// have left for a moment, is not that.
func dropSlot(t *testing.T, s *linktest.Side, database string) {
	t.Helper()
	dsn := s.Server.DSN(database)
	slot := pgtest.Query(t, dsn, `SELECT slot_name FROM pg_replication_slots WHERE database = current_database() AND NOT temporary`)[0][0]
	pgtest.Eventually(t, linktest.Patience, func() error {
		_, err := pgtest.Try(t.Context(), dsn, `SELECT pg_drop_replication_slot($1)`, slot)
		return err
	})
}

// changed is what both sides change alone, but for the objects' names.
var (
	shapesBefore = []string{
		`CREATE TABLE kept (id int PRIMARY KEY, a text, b int)`, `INSERT INTO kept SELECT i, 'a', i FROM generate_series(1, 3000) i`,
		`CREATE TABLE parents (id int PRIMARY KEY)`, `INSERT INTO parents SELECT generate_series(1, 100)`,
		`CREATE TABLE children (id int PRIMARY KEY, parent int REFERENCES parents)`, `INSERT INTO children SELECT i, 1 + i % 100 FROM generate_series(1, 1000) i`,
		`CREATE TABLE emptied (id int PRIMARY KEY, a text)`, `INSERT INTO emptied SELECT i, repeat('x', 20) FROM generate_series(1, 30000) i`,
		`CREATE TABLE narrowed (id int PRIMARY KEY, a text)`, `INSERT INTO narrowed SELECT i, 'n' FROM generate_series(1, 100) i`,
		`CREATE TYPE mood AS ENUM ('good')`, `CREATE TABLE moods (id int PRIMARY KEY, m mood)`, `INSERT INTO moods VALUES (1, 'good')`,
		`CREATE VIEW seen AS SELECT id FROM kept`, `CREATE FUNCTION f(i int) RETURNS int LANGUAGE sql AS 'SELECT i'`,
		`CREATE INDEX kept_a ON kept (a)`, `CREATE SEQUENCE s`, `SELECT lo_from_bytea(4711, 'large')`, `CREATE TABLE bag (a int)`, `INSERT INTO bag SELECT i % 7 FROM generate_series(1, 500) i`,
		`CREATE TABLE "Odd ""x""" (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, d int GENERATED ALWAYS AS (1 + 1) STORED)`, `INSERT INTO "Odd ""x""" DEFAULT VALUES`,
	}
	shapesLost = []string{
		`UPDATE kept SET a = 'lost' WHERE id < 100`, `INSERT INTO kept VALUES (-1, 'lost', 1)`, `DELETE FROM kept WHERE id > 2990`,
		`CREATE TABLE lost_table (id int PRIMARY KEY REFERENCES kept)`, `ALTER TABLE kept ADD COLUMN lost_column int DEFAULT 7`, `DROP INDEX kept_a`, `CREATE INDEX lost_index ON kept (b)`,
		`TRUNCATE emptied`, `DROP TABLE moods`, `DROP TYPE mood`, `CREATE OR REPLACE VIEW seen AS SELECT id, a FROM kept`,
		`CREATE OR REPLACE FUNCTION f(i int) RETURNS int LANGUAGE sql AS 'SELECT -i'`, `INSERT INTO bag SELECT 99 FROM generate_series(1, 10)`,
		`ALTER TABLE children DROP CONSTRAINT children_parent_fkey`, `INSERT INTO children VALUES (-1, -1)`, `ALTER TABLE "Odd ""x""" ADD COLUMN "Lost ""." int`,
		`CREATE SCHEMA lost_schema`, `CREATE TABLE lost_schema.t (i int)`, `COMMENT ON TABLE kept IS 'lost'`, `SELECT lo_put(4711, 0, 'lost')`,
		`CREATE TABLE unmoved (id int PRIMARY KEY)`,
	}
	shapesWon = []string{
		`UPDATE kept SET a = 'won' WHERE id BETWEEN 50 AND 150`, `INSERT INTO kept VALUES (-1, 'won', 2)`, `CREATE INDEX won_index ON kept (b, a)`,
		`CREATE TABLE won_table (id int PRIMARY KEY, k int REFERENCES kept)`, `INSERT INTO won_table SELECT i, i FROM generate_series(1, 2000) i`,
		`ALTER TABLE narrowed DROP COLUMN a`, `ALTER TABLE narrowed ADD COLUMN b numeric DEFAULT 1`, `INSERT INTO narrowed VALUES (1000, 3)`,
		`ALTER TYPE mood ADD VALUE 'bad'`, `INSERT INTO moods VALUES (2, 'bad')`, `DELETE FROM bag WHERE a = 3`, `SELECT nextval('s')`,
		`CREATE TABLE unmoved (id bigint PRIMARY KEY, a text)`, `INSERT INTO unmoved VALUES (1, 'won')`,
	}
)

// The slot that tells what was lost is gone, and rows and schema of both sides have
// changed since: the two are compared, what differs is named before and brought in
// line, and nothing else is copied.
func TestRejoinComparesWhenTheSlotIsLost(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{})
	p.A.Server.CreateDatabase(t, "shapes")
	a, b := p.A.Server.DSN("shapes"), p.B.Server.DSN("shapes")
	pgtest.Exec(t, a, shapesBefore...)
	p.Create(t, "shapes", "shapes")
	p.WaitPhase(t, "shapes", api.Replicating)
	p.WaitEqual(t, "shapes", "shapes")
	p.A.Kill()
	dropSlot(t, p.A, "shapes")
	pgtest.Exec(t, a, shapesLost...)
	force(t, p.B, "shapes")
	pgtest.Exec(t, b, shapesWon...)
	unchanged := pgtest.Query(t, a, `SELECT oid, relfilenode FROM pg_class WHERE relname IN ('kept', 'children', 'bag', 'parents') ORDER BY 1`)
	p.A.Start()
	if parting := waitFenced(t, p.A, "shapes"); parting.State != api.PartingUnreadable || !strings.Contains(parting.Problem.Hint, "rejoin") {
		t.Errorf("%+v", parting)
	}
	plan, err := p.B.Client.RejoinPlan(t.Context(), "shapes")
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"compare_database", "drop_objects", "reseed_tables"}; !slices.Equal(plan.Needs, want) {
		t.Errorf("it needs %v; %+v", plan.Needs, plan)
	}
	var anew []string
	for _, r := range plan.Reseed {
		anew = append(anew, r.Table+" "+r.Why)
	}
	slices.Sort(anew)
	if want := []string{"public.moods missing", "public.narrowed differs", "public.unmoved differs", "public.won_table missing"}; !slices.Equal(anew, want) {
		t.Errorf("copied anew are %v, want %v", anew, want)
	}
	for _, want := range []string{"table public.lost_table", "schema lost_schema", "index public.lost_index", "column public.kept.lost_column", `column public."Odd ""x"""."Lost ""."`} {
		if !slices.Contains(plan.Drop, want) {
			t.Errorf("%s is not among what is dropped: %q", want, plan.Drop)
		}
	}
	if !slices.Contains(plan.Build, "index public.kept_a") || !slices.Contains(plan.Build, "definition of view public.seen") {
		t.Errorf("built are %q", plan.Build)
	}
	if _, err := p.A.Client.Rejoin(t.Context(), "shapes", api.Rejoin{Accept: []string{"compare_database"}}); code(err) != "rejoin_not_accepted" {
		t.Errorf("it is done without consent: %v", err)
	}
	rejoin(t, p, p.A, "shapes", plan.Needs...)
	waitEqual(t, p, "shapes", "shapes")
	if now := pgtest.Query(t, a, `SELECT oid, relfilenode FROM pg_class WHERE relname IN ('kept', 'children', 'bag', 'parents') ORDER BY 1`); fmt.Sprint(now) != fmt.Sprint(unchanged) {
		t.Error("a table was made anew of which rows alone differ")
	}
	for _, sql := range []string{`INSERT INTO kept VALUES (-5, 'x', 1)`, `INSERT INTO moods VALUES (9, 'good')`, `CREATE TABLE late (id int)`} {
		if _, err := pgtest.Try(t.Context(), p.A.Server.DSN("shapes")+"&default_transaction_read_only=off", sql); !refused(err) {
			t.Errorf("%s: the twin takes it: %v", sql, err)
		}
	}
	pgtest.Exec(t, b, `UPDATE won_table SET k = k + 1`, `INSERT INTO narrowed VALUES (1001, 4)`, `ALTER TABLE kept ADD COLUMN later int DEFAULT 3`)
	waitEqual(t, p, "shapes", "shapes")
	if f := failOver(t, p.A, "shapes", api.FailoverRequest{}); f.State != api.FailoverDone {
		t.Fatalf("failback: %+v", f)
	}
	waitEqual(t, p, "shapes", "shapes")
}
