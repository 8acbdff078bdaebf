package link

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/role"
)

// The policies for a primary that has lost its twin.
const (
	serves = "serve"
	fences = "fence"
)

const (
	fenceDefault = 30 * time.Second
	fenceLeast   = 5 * time.Second
)

// ParseIsolation reads a policy for a primary that has lost its twin: serve, fence, or
// fence=AFTER. It returns it in full. Nothing is serve.
func ParseIsolation(text string) (policy string, err error) {
	how, after, given := strings.Cut(text, "=")
	d := fenceDefault
	if given {
		if d, err = time.ParseDuration(after); err != nil || d < fenceLeast {
			how = ""
		}
	}
	switch {
	case how == serves && !given, text == "":
		return serves, nil
	case how == fences:
		return fences + "=" + d.String(), nil
	}
	return "", problem.New(problem.Invalid, "isolation_policy_invalid", "%q says not what a primary does that has lost its twin", text).
		WithHint("serve, fence, or fence=AFTER with a duration of %s or more", fenceLeast)
}

// isolate fences a primary whose policy that is, when it has not heard of its twin for
// long. began is since when it could have.
func (l *Link) isolate(ctx context.Context, began time.Time) error {
	r := l.side.Record()
	_, after, fenced := strings.Cut(r.OnIsolation, "=")
	patience, err := time.ParseDuration(after)
	live := []role.Phase{role.CatchingUp, role.Replicating, role.Broken}
	if !fenced || err != nil || role.Role(r.Role) != role.Primary || !r.Seeded || r.Diverged || r.Deleting || !slices.Contains(live, role.Phase(r.Phase)) {
		return nil
	}
	l.mu.Lock()
	heard := slices.MaxFunc([]time.Time{began, l.live.heard, l.live.met}, time.Time.Compare)
	l.mu.Unlock()
	if time.Since(heard) < patience {
		return nil
	}
	l.log.Warn("twin not heard of, writes are refused", "since", heard.UTC())
	return l.shutAtOnce(ctx, func(now *catalog.Link) error {
		if err := stepFrom(now, r, role.Isolated); err != nil {
			return err
		}
		now.Problem = problem.New(problem.Transient, "primary_isolated", "the twin was not heard of for %s: writes are refused until it is, for it may have been made primary", patience).
			WithHint("bring agent %[2]s or the network back; if the twin is gone for good: twinspan link failover %[1]s --type forced", r.Name, r.Peer)
		return nil
	})
}
