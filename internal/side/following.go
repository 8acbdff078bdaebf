package side

import (
	"context"
	"time"

	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/role"
)

// WhileFollowing calls f at once and then again and again, until ctx ends, while the side is a
// secondary that follows.
func (s *Side) WhileFollowing(ctx context.Context, interval time.Duration, f func(r catalog.Link)) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var last time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		r := s.Record()
		follows := r.Seeded && !r.Suspended && !r.Deleting && (role.Phase(r.Phase) == role.CatchingUp || role.Phase(r.Phase) == role.Replicating)
		if follows && time.Since(last) >= interval {
			last = time.Now()
			f(r)
		}
	}
}
