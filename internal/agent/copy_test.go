package agent

import (
	"fmt"
	"testing"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/problem"
)

// Of copies that are under way there are so many; those that are over do not count, and a second request for one is the same.
func TestCopiesAtOnce(t *testing.T) {
	var c copies
	job := func(i int) *copyJob {
		return &copyJob{view: api.DatabaseCopy{ID: fmt.Sprint(i), Name: fmt.Sprint("copy ", i), State: api.Copying}}
	}
	for i := range mostCopies {
		if _, err := c.add(job(i)); err != nil {
			t.Fatal(err)
		}
	}
	if again, err := c.add(job(0)); err != nil || again != c.jobs[0] {
		t.Errorf("the first again: %v", err)
	}
	if _, err := c.add(job(mostCopies)); problem.CodeOf(err) != "copies_at_limit" {
		t.Errorf("one more: %v", err)
	}
	c.jobs[3].show(func(v *api.DatabaseCopy) { v.State = api.Copied })
	if _, err := c.add(job(mostCopies)); err != nil {
		t.Errorf("after one is over: %v", err)
	}
}
