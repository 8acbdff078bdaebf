package link

import (
	"testing"

	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/role"
)

// A secondary is shown as broken when its primary says that it is, by an answer of now and
// no other.
func TestStoppedAtPrimary(t *testing.T) {
	r := catalog.Link{Role: string(role.Secondary), Phase: string(role.Replicating), Epoch: 3, Change: 5, Seeded: true}
	broken := Answer{Phase: string(role.Broken), Epoch: 3, Change: 5}
	if !stoppedAtPrimary(r, broken) {
		t.Error("a link replicates whose primary is broken")
	}
	for name, change := range map[string]func(r *catalog.Link, a *Answer){
		"the primary goes on":         func(_ *catalog.Link, a *Answer) { a.Phase = string(role.Replicating) },
		"resumed since":               func(r *catalog.Link, _ *Answer) { r.Change++ },
		"of an earlier epoch":         func(_ *catalog.Link, a *Answer) { a.Epoch-- },
		"suspended":                   func(r *catalog.Link, _ *Answer) { r.Phase = string(role.Suspended) },
		"changing places":             func(r *catalog.Link, _ *Answer) { r.Phase = string(role.FailingOver) },
		"a former primary that mends": func(r *catalog.Link, _ *Answer) { r.Phase, r.Diverged = string(role.Seeding), true },
		"the primary itself":          func(r *catalog.Link, _ *Answer) { r.Role = string(role.Primary) },
	} {
		r, a := r, broken
		change(&r, &a)
		if stoppedAtPrimary(r, a) {
			t.Errorf("%s: it is called broken", name)
		}
	}
}
