package role

import (
	"math/rand/v2"
	"testing"

	"github.com/twinspan/twinspan/internal/problem"
)

// Every (role, phase, event) is defined or refused, never half of each.
func TestEveryPairIsDefinedOrRefused(t *testing.T) {
	defined := 0
	for _, r := range []Role{Primary, Secondary} {
		for _, p := range Phases() {
			for _, e := range Events() {
				before := State{Role: r, Phase: p, Epoch: 3, Seeded: true}
				after, err := Step(before, e)
				if err != nil {
					if after != before || problem.KindOf(err) != problem.Conflict {
						t.Errorf("%s %s %s: refused, yet %+v, %v", r, p, e, after, err)
					}
					continue
				}
				defined++
				if after.Role != r || after.Epoch != 3 {
					t.Errorf("%s %s %s changed role or epoch: %+v", r, p, e, after)
				}
			}
		}
	}
	if want := 54; defined != want {
		t.Errorf("%d transitions are defined, want %d: update the count with the table", defined, want)
	}
}

func TestNoTransitionIsDefinedTwice(t *testing.T) {
	type key struct {
		r Role
		p Phase
		e Event
	}
	seen := map[key]bool{}
	for _, row := range table {
		for _, from := range row.from {
			k := key{row.role, from, row.event}
			if seen[k] {
				t.Errorf("%v stands twice in the table", k)
			}
			seen[k] = true
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
		if s.Seeded && !next.Seeded {
			t.Fatalf("%+v forgot its copy by %s", s, e)
		}
		if next.Work() == Follow && !next.Seeded {
			t.Fatalf("%+v follows with half a copy after %s", next, e)
		}
		if next.Work() == Seed && next.Seeded {
			t.Fatalf("%+v seeds over a whole copy after %s", next, e)
		}
		if s = next; s.Seeded && rng.IntN(50) == 0 {
			s = State{Role: Secondary, Phase: Creating, Epoch: 1}
		}
	}
}
