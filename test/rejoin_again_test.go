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

// The sides are made primary by force in turn, and none is mended in between: each of
// them writes what the other never gets. Whoever is left behind in the end is equal
// after a rejoin, and what it lost is told whole, that of earlier turns, too.
func TestForcedToAndFroWithoutARejoin(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{})
	for turns := 2; turns <= 3; turns++ {
		name := fmt.Sprintf("turns%d", turns)
		p.A.Server.CreateDatabase(t, name)
		pgtest.Exec(t, p.A.Server.AppDSN(name), `CREATE TABLE t (id int PRIMARY KEY, a text)`, `INSERT INTO t SELECT i, 'a' FROM generate_series(1, 100) i`,
			`CREATE TABLE bag (a text)`)
		p.Create(t, name, name)
		p.WaitPhase(t, name, api.Replicating)
		p.WaitEqual(t, name, name)
		sides := []*linktest.Side{p.A, p.B}
		var wrote [2][]string
		for turn := range turns {
			old, next := sides[turn%2], sides[(turn+1)%2]
			old.Kill()
			// Each turn changes rows that the other side changes, too, and some of its own.
			mark := fmt.Sprintf("%s%d", old.Name, turn)
			pgtest.Exec(t, old.Server.DSN(name), fmt.Sprintf(`INSERT INTO t VALUES (%d, '%s')`, 1000+turn, mark), fmt.Sprintf(`UPDATE t SET a = '%s' WHERE id = %d OR id = 7`, mark, turn+1),
				fmt.Sprintf(`DELETE FROM t WHERE id = %d`, 50+turn), fmt.Sprintf(`INSERT INTO bag VALUES ('%s')`, mark))
			if turn%2 != (turns-1)%2 { // what the other would lose by it cannot be undone
				pgtest.Exec(t, old.Server.AppDSN(name), fmt.Sprintf(`ALTER TABLE t ADD COLUMN c%d int DEFAULT %d`, turn, turn), fmt.Sprintf(`CREATE TABLE made%d (id int PRIMARY KEY)`, turn))
			}
			wrote[turn%2] = append(wrote[turn%2], mark)
			force(t, next, name)
			old.Start()
			if parting := waitFenced(t, old, name); parting.State != api.PartingRead {
				t.Fatalf("turn %d: %+v", turn, parting)
			}
		}
		primary, _ := primaryOf(t, p, name)
		left := sides[0]
		if primary == p.A {
			left = p.B
		}
		pgtest.Exec(t, primary.Server.DSN(name), `INSERT INTO t VALUES (2000, 'last')`, `UPDATE t SET a = 'last' WHERE id = 8`)
		lost, err := left.Client.Lost(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		for _, parting := range lost.Partings {
			if parting.Agent != left.Name || parting.Mended {
				continue
			}
			var told []string
			for _, c := range lostChanges(t, primary, name, parting.Epoch) {
				if c.Kind == "insert" && c.Table == "public.t" {
					told = append(told, *c.New[1].Value)
				}
			}
			of := 0
			if left == p.B {
				of = 1
			}
			if strings.Join(told, ",") != strings.Join(wrote[of], ",") {
				t.Errorf("%s: lost at epoch %d are said to be %v, and were %v", name, parting.Epoch, told, wrote[of])
			}
		}
		plan, err := left.Client.RejoinPlan(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(plan.Needs, []string{"reseed_tables"}) {
			t.Errorf("%s: it needs %v", name, plan.Needs)
		}
		rejoin(t, p, left, name, plan.Needs...)
		waitEqual(t, p, name, name)
		for _, mark := range wrote[1] {
			if n := pgtest.Query(t, primary.Server.DSN(name), `SELECT count(*) FROM t WHERE a = $1`, mark)[0][0]; (n == "0") != (primary == p.A) {
				t.Errorf("%s: %s has %s rows of %s", name, primary.Name, n, mark)
			}
		}
		if f := failOver(t, left, name, api.FailoverRequest{}); f.State != api.FailoverDone {
			t.Fatalf("failback: %+v", f)
		}
		waitEqual(t, p, name, name)
	}
}

// A side of which a rejoin has begun is no fit primary, and becomes one only if
// somebody insists; the other side then finds its way back by a comparison.
func TestForcedInTheMiddleOfARejoin(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{})
	p.A.Server.CreateDatabase(t, "shapes")
	a, b := p.A.Server.DSN("shapes"), p.B.Server.DSN("shapes")
	pgtest.Exec(t, a, `CREATE TABLE t (id int PRIMARY KEY, a text)`, `INSERT INTO t SELECT i, 'a' FROM generate_series(1, 1000) i`)
	p.Create(t, "shapes", "shapes")
	p.WaitPhase(t, "shapes", api.Replicating)
	p.A.Kill()
	pgtest.Exec(t, a, `UPDATE t SET a = 'lost' WHERE id < 10`)
	force(t, p.B, "shapes")
	pgtest.Exec(t, b, `UPDATE t SET a = 'won' WHERE id BETWEEN 5 AND 20`)
	p.A.Start()
	waitFenced(t, p.A, "shapes")
	// It takes the lost rows away, and then finds nobody whose it could have.
	p.B.Kill()
	if _, err := p.A.Client.Rejoin(t.Context(), "shapes", api.Rejoin{}); err != nil {
		t.Fatal(err)
	}
	pgtest.Eventually(t, linktest.Patience, func() error {
		if n := pgtest.Query(t, a, `SELECT count(*) FROM twinspan.lost WHERE cleared`)[0][0]; n != "1" {
			return fmt.Errorf("%s are cleared", n)
		}
		return nil
	})
	if _, err := p.A.Client.Failover(t.Context(), "shapes", api.FailoverRequest{Type: api.Forced, AcceptDataLoss: true}); code(err) != "rejoin_begun" {
		t.Errorf("a side in the middle of a rejoin: %v", err)
	}
	force(t, p.A, "shapes")
	pgtest.Exec(t, a, `INSERT INTO t VALUES (2000, 'insisted')`)
	p.B.Start()
	if parting := waitFenced(t, p.B, "shapes"); parting.Problem == nil || parting.Problem.Code != "parting_unknown" {
		t.Errorf("%+v", parting)
	}
	plan, err := p.A.Client.RejoinPlan(t.Context(), "shapes")
	if err != nil || !slices.Equal(plan.Needs, []string{"compare_database"}) {
		t.Fatalf("%+v, %v", plan, err)
	}
	rejoin(t, p, p.A, "shapes", plan.Needs...)
	waitEqual(t, p, "shapes", "shapes")
	if n := pgtest.Query(t, b, `SELECT count(*) FROM t WHERE a = 'insisted'`)[0][0]; n != "1" {
		t.Errorf("%s rows came of the new primary", n)
	}
	// What was lost before is settled, too, and can be discarded.
	lost, err := p.A.Client.DiscardLost(t.Context(), "shapes", 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, parting := range lost.Partings {
		if parting.State != api.PartingDiscarded {
			t.Errorf("%+v", parting)
		}
	}
}
