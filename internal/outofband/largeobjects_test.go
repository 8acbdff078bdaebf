package outofband

import (
	"testing"
	"time"

	"github.com/twinspan/twinspan/internal/largeobject"
)

func TestPassesAreDueByScheduleAndWhereOneWasInterrupted(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		what      string
		state     largeobject.State
		due, late bool
	}{
		{"never by itself", largeobject.State{AsOf: now.Add(-24 * time.Hour)}, false, false},
		{"interrupted", largeobject.State{Running: true, AsOf: now}, true, false},
		{"before the first", largeobject.State{Every: time.Minute}, true, false},
		{"just made", largeobject.State{Every: time.Minute, AsOf: now.Add(-59 * time.Second)}, false, false},
		{"a minute ago", largeobject.State{Every: time.Minute, AsOf: now.Add(-time.Minute)}, true, false},
		{"three intervals ago", largeobject.State{Every: time.Minute, AsOf: now.Add(-4 * time.Minute)}, true, false},
		{"long ago", largeobject.State{Every: time.Minute, AsOf: now.Add(-lateAtLeast - time.Second)}, true, true},
		{"two long intervals ago", largeobject.State{Every: time.Hour, AsOf: now.Add(-2 * time.Hour)}, true, false},
		{"four long intervals ago", largeobject.State{Every: time.Hour, AsOf: now.Add(-4 * time.Hour)}, true, true},
	} {
		if got := due(c.state, now); got != c.due {
			t.Errorf("%s: a pass is due: %v", c.what, got)
		}
		if got := late(c.state, now); got != c.late {
			t.Errorf("%s: it is a problem: %v", c.what, got)
		}
	}
}
