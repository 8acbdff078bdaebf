package agent

import (
	"slices"
	"testing"
	"time"

	"github.com/twinspan/twinspan/internal/instance"
	"github.com/twinspan/twinspan/internal/problem"
)

// A newer release beside the server is told, an older one and an unknown one are not.
func TestUpdatePendingIsTold(t *testing.T) {
	told := func(s *sizing) bool {
		return slices.ContainsFunc(s.problems(time.Now(), "data"), func(p *problem.Error) bool { return p.Code == "instance_update_pending" })
	}
	older, newer := instance.Release{Major: 15, Minor: 18}, instance.Release{Major: 15, Minor: 20}
	for _, c := range []struct {
		runs, has instance.Release
		want      bool
	}{{older, newer, true}, {newer, older, false}, {newer, newer, false}, {instance.Release{}, newer, false}, {older, instance.Release{}, false}} {
		if got := told(&sizing{running: c.runs, installed: c.has}); got != c.want {
			t.Errorf("runs %v, has %v: %v", c.runs, c.has, got)
		}
	}
}
