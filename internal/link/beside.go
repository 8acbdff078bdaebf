package link

import (
	"context"
	"fmt"
	"time"

	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/role"
)

// beside is what a link carries beside the stream: what is not in the primary's
// log, or not in a form that is decoded.
type beside struct {
	lookout   lookout                   // the primary's
	keeper    keeper                    // the secondary's
	collector collector                 // the secondary's
	troubles  map[string]*problem.Error // by code; guarded by the link's mutex
}

// setAside notes, or with nil takes back, a problem that does not stop the stream.
func (l *Link) setAside(code string, p *problem.Error) {
	l.mu.Lock()
	before := l.beside.troubles[code]
	if p == nil {
		delete(l.beside.troubles, code)
	} else {
		if l.beside.troubles == nil {
			l.beside.troubles = map[string]*problem.Error{}
		}
		l.beside.troubles[code] = p
	}
	l.mu.Unlock()
	switch {
	case p != nil && before == nil:
		l.log.Warn("link falls behind", "code", p.Code, "subject", p.Subject, "err", p)
	case p == nil && before != nil:
		l.log.Info("link has caught up", "after", before.Code)
	}
}

// lastChanges brings a whole copy up to date in what does not come with the stream,
// before the link is removed, and says in words how that went.
func (l *Link) lastChanges(ctx context.Context, r catalog.Link) string {
	if role.Role(r.Role) == role.Primary || !r.Seeded {
		return ""
	}
	return l.lastLargeObjects(ctx) + l.lastSequences(ctx)
}

func (l *Link) lastSequences(ctx context.Context) string {
	missing, err := l.BringSequences(ctx)
	switch {
	case err == nil && len(missing) == 0:
		return ", sequences included"
	case err == nil:
		return fmt.Sprintf(", sequences included but for %d that it does not have, first %s", len(missing), missing[0])
	}
	l.log.Warn("primary does not tell its sequences", "err", err)
	if err := l.AdvanceSequences(ctx); err != nil {
		l.log.Warn("sequences stay as they were", "err", err)
		return "; its sequences are ahead of the primary's as last seen, for the primary did not answer"
	}
	return "; its sequences are ahead of what the primary is known to have handed out, for it did not answer"
}

// whileFollowing calls f at once and then again and again, until ctx ends, while the side is a
// secondary that follows.
func (l *Link) whileFollowing(ctx context.Context, interval time.Duration, f func(r catalog.Link)) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var last time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		r := l.snapshot()
		follows := r.Seeded && !r.Suspended && !r.Deleting && (role.Phase(r.Phase) == role.CatchingUp || role.Phase(r.Phase) == role.Replicating)
		if follows && time.Since(last) >= interval {
			last = time.Now()
			f(r)
		}
	}
}
