package walk

import (
	"fmt"
	"testing"
)

// Everything that a walk knows is in a walk that is long enough, and one seed makes one
func TestWalksAreRepeated(t *testing.T) {
	t.Parallel()
	const seed = 7
	seen := map[string]bool{}
	first, second := New(seed, 18, nil), New(seed, 18, nil)
	if fmt.Sprint(first.Setup()) != fmt.Sprint(second.Setup()) {
		t.Fatal("two walks of one seed begin differently")
	}
	for i := range 3000 {
		a, b := first.Next(), second.Next()
		if a.String() != b.String() {
			t.Fatalf("step %d of one seed is\n%s\nand\n%s", i, a, b)
		}
		for _, s := range a.SQL {
			seen[s.Form] = true
		}
		if a.End == Rollback {
			first.Undo()
			second.Undo()
		}
	}
	for _, form := range Forms() {
		if !seen[form] {
			t.Errorf("no step has the form %q", form)
		}
	}
}
