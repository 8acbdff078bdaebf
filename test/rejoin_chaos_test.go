package test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// The moments of a rejoin, from its beginning to when the link replicates: of one that
// goes by the keys of lost rows, and of one that compares. Former is the side that
// rejoins.
var (
	rejoinMoments = []moment{
		{true, `from=fenced to=seeding`},
		{true, `msg="lost rows are taken away"`},
		{false, `msg="stream begins"`},
		{true, `msg="lost rows are overwritten"`},
		{true, `msg="large objects brought"`},
		{true, `from=seeding to=catching_up`},
		{true, `from=catching_up to=replicating`},
	}
	comparisonMoments = []moment{
		{true, `from=fenced to=seeding`},
		{false, `msg="slot made anew"`},
		{false, `msg="verification holds a snapshot"`},
		{true, `msg="stream renewed"`},
		{true, `msg="large objects brought"`},
		{true, `from=seeding to=catching_up`},
		{true, `from=catching_up to=replicating`},
	}
)

// While a former primary rejoins, an agent or a server is killed, or the network cut,
// at a random step. The rejoin goes on by itself, or when the command is repeated, and
// ends with equal sides, one of which accepts writes.
func TestRejoinsUnderKills(t *testing.T) {
	t.Parallel()
	options, network := proxied(t)
	p := linktest.New(t, options)
	p.A.Server.CreateDatabase(t, "shapes")
	pgtest.Exec(t, p.A.Server.AppDSN("shapes"), `CREATE TABLE many (id int PRIMARY KEY, a text)`, `INSERT INTO many SELECT i, 'a' FROM generate_series(1, 20000) i`,
		`CREATE TABLE bag (a int)`, `SELECT lo_from_bytea(0, 'large')`)
	p.Create(t, "shapes", "shapes")
	p.WaitPhase(t, "shapes", api.Replicating)
	seed := pgtest.Seed()
	t.Logf("%s=%d", pgtest.SeedEnv, seed)
	rng := rand.New(rand.NewPCG(seed, 4))
	v := victims{t, p, network}
	for round := range rounds("TWINSPAN_REJOIN_KILLS", 4) {
		waitSettled(t, p, "shapes")
		old, next := primaryOf(t, p, "shapes")
		old.Kill()
		moments := rejoinMoments
		if round%2 == 1 {
			moments = comparisonMoments
			dropSlot(t, old, "shapes")
			pgtest.Exec(t, old.Server.DSN("shapes"), fmt.Sprintf(`ALTER TABLE many ADD COLUMN lost%d int DEFAULT 1`, round))
		}
		pgtest.Exec(t, old.Server.DSN("shapes"), fmt.Sprintf(`UPDATE many SET a = 'lost%d' WHERE id %% 3 = %d`, round, round%3), `INSERT INTO bag SELECT generate_series(1, 10)`,
			`DELETE FROM many WHERE id < 10`)
		force(t, next, "shapes")
		pgtest.Exec(t, next.Server.DSN("shapes"), fmt.Sprintf(`UPDATE many SET a = 'won%d' WHERE id %% 4 = %d`, round, round%4), `INSERT INTO bag VALUES (1)`,
			fmt.Sprintf(`CREATE TABLE made%d (id int PRIMARY KEY)`, round), fmt.Sprintf(`INSERT INTO made%d SELECT generate_series(1, 1000)`, round))
		old.Start()
		waitFenced(t, old, "shapes")
		plan, err := old.Client.RejoinPlan(t.Context(), "shapes")
		if err != nil {
			t.Fatal(err)
		}
		what, _ := v.strike(rng, moments, 200*time.Millisecond, old, next, func() {
			if _, err := old.Client.Rejoin(t.Context(), "shapes", api.Rejoin{Accept: plan.Needs}); err != nil {
				t.Fatal(err)
			}
		}, "")
		t.Logf("round %d: %s", round, what)
		waitRejoinedOrRepeat(t, old, plan)
		primary := waitSettled(t, p, "shapes")
		if primary != next {
			t.Errorf("round %d: the primary is %s", round, primary.Name)
		}
		waitEqual(t, p, "shapes", "shapes")
		if _, err := pgtest.Try(t.Context(), stubborn(old, "shapes")(), `DELETE FROM bag`); !refused(err) {
			t.Errorf("round %d: the twin takes a write: %v", round, err)
		}
		pgtest.Exec(t, next.Server.DSN("shapes"), `UPDATE many SET a = 'after' WHERE id % 100 = 0`)
		waitEqual(t, p, "shapes", "shapes")
	}
}

// waitRejoinedOrRepeat waits until a link replicates, and lets the former primary
// rejoin again when a rejoin has ended with a problem.
func waitRejoinedOrRepeat(t *testing.T, old *linktest.Side, plan api.RejoinPlan) {
	t.Helper()
	pgtest.Eventually(t, linktest.Patience, func() error {
		l, err := old.Client.Link(t.Context(), plan.Link)
		switch {
		case err != nil:
			return err
		case l.Phase == api.Replicating:
			return nil
		case l.Phase == api.Fenced:
			t.Logf("the rejoin ended with %+v", l.Problems)
			_, err = old.Client.Rejoin(t.Context(), plan.Link, api.Rejoin{Accept: plan.Needs})
			return errors.Join(errors.New("begun again"), err)
		}
		return fmt.Errorf("%s, %+v", l.Phase, l.Problems)
	})
}
