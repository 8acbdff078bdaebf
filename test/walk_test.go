package test

import (
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"

	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/pgtest"
	"github.com/twinspan/twinspan/internal/walk"
)

// leftOut are the forms that are known to fail, with the reason. TWINSPAN_WALK_ALL takes
// them as well.
var leftOut []walk.Exclusion

// between are steps between two comparisons.
const between = 25

func number(t *testing.T, variable string, otherwise uint64) uint64 {
	t.Helper()
	v := os.Getenv(variable)
	if v == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(v, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// events says what happens before which steps: the link is made, agents are killed, and the sides
// change places there and back.
func events(rng *rand.Rand, steps int) map[int][]string {
	list := map[int][]string{}
	add := func(at int, do ...string) { list[at] = append(list[at], do...) }
	add(min(steps/4, 60), walk.Link)
	rest := func() int { return min(steps/4, 60) + 1 + rng.IntN(steps-min(steps/4, 60)-1) }
	for range 1 + steps/80 {
		add(rest(), walk.KillA)
		add(rest(), walk.KillB)
	}
	for range 1 + steps/200 {
		add(rest(), walk.Compare, walk.FailOver)
		add(rest(), walk.Compare, walk.FailOver)
	}
	for i := between; i < steps; i += between {
		add(i, walk.Compare)
	}
	return list
}

// short are walks that everybody takes: how long they are, and the seeds of those that end well. One that is drawn may find a fault
// that nobody knows, for which nobody's change is to be stopped.
var short = struct {
	steps int
	seeds []uint64
}{30, []uint64{9214, 9403}}

// A random walk through schemas, settings, roles, rows, schema changes, failovers and kills ends equal, and
// the primary takes and refuses what a database without a link does. TWINSPAN_WALK is its length, without which
// short ones are taken, and TWINSPAN_WALK_SEED makes it again. One that fails is made smaller, and what is left of it printed as SQL.
func TestWalk(t *testing.T) {
	t.Parallel()
	if steps := int(number(t, "TWINSPAN_WALK", 0)); steps != 0 {
		if steps < 20 {
			t.Fatal("a walk has 20 steps at least")
		}
		takeWalk(t, number(t, "TWINSPAN_WALK_SEED", pgtest.Seed()), steps)
		return
	}
	for _, seed := range short.seeds {
		takeWalk(t, seed, short.steps)
	}
}

func takeWalk(t *testing.T, seed uint64, steps int) {
	t.Helper()
	t.Logf("TWINSPAN_WALK=%d TWINSPAN_WALK_SEED=%d", steps, seed)
	exclusions := leftOut
	if os.Getenv("TWINSPAN_WALK_ALL") != "" {
		exclusions = nil
	}
	pair := linktest.New(t, linktest.Options{Before: func(name string, server *pgtest.Server) {
		if err := walkRoles(name, server); err != nil {
			t.Fatal(err)
		}
	}})
	maker := walk.New(seed, pair.A.Server.Major, exclusions)
	all := &walks{pair: pair, setup: maker.Setup()}
	w := all.begin(t, all.setup)
	due := events(rand.New(rand.NewPCG(seed, 2)), steps)
	var taken []walk.Action
	var failed *mishap
	take := func(a walk.Action) (alike bool) {
		taken = append(taken, a)
		alike, failed = w.take(t, a, linktest.Patience)
		return alike
	}
	for i := 0; i < steps && failed == nil; i++ {
		for _, do := range due[i] {
			if failed == nil {
				take(walk.Action{Do: do})
			}
		}
		if failed != nil {
			break
		}
		if a := maker.Next(); take(a) || a.End == walk.Rollback || a.End == walk.Withdraw {
			maker.Undo()
		}
	}
	if failed == nil {
		take(walk.Action{Do: walk.Compare})
	}
	if failed == nil {
		failed = w.agreed(t, linktest.Patience)
	}
	t.Logf("%d steps, %d strings, of which no database takes %d", len(taken), w.sent, w.refused)
	left := maker.Left()
	for _, form := range slices.Sorted(maps.Keys(left)) {
		i := slices.IndexFunc(exclusions, func(e walk.Exclusion) bool { return e.Form == form })
		t.Logf("left out %d times: %s (%s)", left[form], form, exclusions[i].Reason)
	}
	if failed != nil {
		t.Errorf("seed %d, after %d steps: %v", seed, len(taken), failed)
		t.Log(all.reduce(t, taken, failed))
	}
}
