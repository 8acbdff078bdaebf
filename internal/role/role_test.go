package role

import (
	"math/rand/v2"
	"testing"

	"github.com/twinspan/twinspan/internal/problem"
)

// Every (role, phase, event) is defined or refused, never half of each.
func TestEveryPairIsDefinedOrRefused(t *testing.T) {
	for diverged, want := range map[bool]int{false: 90, true: 20} {
		if got := definedPairs(t, diverged); got != want {
			t.Errorf("%d transitions are defined, diverged %v, want %d: update the count with the table", got, diverged, want)
		}
	}
}

func definedPairs(t *testing.T, diverged bool) (defined int) {
	t.Helper()
	for _, r := range []Role{Primary, Secondary} {
		for _, p := range Phases() {
			for _, e := range Events() {
				before := State{Role: r, Phase: p, Epoch: 3, Seeded: true, Diverged: diverged}
				after, err := Step(before, e)
				if err != nil {
					if after != before || problem.KindOf(err) != problem.Conflict {
						t.Errorf("%s %s %s: refused, yet %+v, %v", r, p, e, after, err)
					}
					continue
				}
				defined++
				turns := e == Decide || e == Turned || e == Force || e == Superseded
				if !turns && (after.Role != r || after.Epoch != 3) {
					t.Errorf("%s %s %s changed role or epoch: %+v", r, p, e, after)
				}
				if after.Writable() && !before.Writable() && e != Decide && e != Force && e != Unfence {
					t.Errorf("%s %s opens %s to writers: %+v", e, p, r, after)
				}
			}
		}
	}
	return defined
}

func TestNoTransitionIsDefinedTwice(t *testing.T) {
	type key struct {
		r Role
		p Phase
		e Event
	}
	for _, rows := range [][]transition{table, parted} {
		seen := map[key]bool{}
		for _, row := range rows {
			for _, from := range row.from {
				k := key{row.role, from, row.event}
				if seen[k] {
					t.Errorf("%v stands twice in the table", k)
				}
				seen[k] = true
			}
		}
	}
}

func TestResumeGoesWhereTheCopyStands(t *testing.T) {
	for seeded, want := range map[bool]Phase{false: Seeding, true: CatchingUp} {
		got, err := Step(State{Role: Secondary, Phase: Suspended, Seeded: seeded}, Resume)
		if err != nil || got.Phase != want {
			t.Errorf("seeded %v: %s, %v; want %s", seeded, got.Phase, err, want)
		}
	}
}

// A copy that is whole is never seeded again, and nothing follows a copy that is
// not, whatever happens in whatever order.
func TestRandomWalk(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	s := State{Role: Secondary, Phase: Creating, Epoch: 1}
	for range 200_000 {
		e := Events()[rng.IntN(len(Events()))]
		next, err := Step(s, e)
		if err != nil {
			continue
		}
		if s.Seeded && !next.Seeded && e != Emptied && e != PeerEmptied {
			t.Fatalf("%+v forgot its copy by %s", s, e)
		}
		if next.Work() == Follow && !next.Seeded {
			t.Fatalf("%+v follows with half a copy after %s", next, e)
		}
		if next.Work() == Seed && next.Seeded {
			t.Fatalf("%+v seeds over a whole copy after %s", next, e)
		}
		if next.Work() == Mend && !next.Diverged {
			t.Fatalf("%+v repairs what has not parted after %s", next, e)
		}
		if next.Epoch < s.Epoch {
			t.Fatalf("%+v went back from epoch %d by %s", next, s.Epoch, e)
		}
		if s = next; s.Seeded && rng.IntN(50) == 0 {
			s = State{Role: Secondary, Phase: Creating, Epoch: 1}
		}
	}
}
