package link

import (
	"context"
	"fmt"
	"time"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/gate"
	"github.com/twinspan/twinspan/internal/problem"
)

// MethodCutover tells a former primary that its side of the link goes, and its gate
// stays shut.
const MethodCutover = "failover.cutover"

const (
	// cutoverPatience is how long a cutover waits for the old side, and cutoverPause is
	// between two attempts.
	cutoverPatience = time.Minute
	cutoverPause    = time.Second
)

// CutoverRequest says how the failover went, for whoever asks on that side: the link
// is gone from there before the failover is over.
type CutoverRequest struct {
	Reference
	Progress api.FailoverProgress `json:"progress"`
}

// HandleCutover removes this side, and leaves the database read-only.
func (l *Link) HandleCutover(ctx context.Context, r CutoverRequest) (api.DeletedSide, error) {
	if err := l.secondaryAt(r.Reference); err != nil {
		return api.DeletedSide{}, err
	}
	now := time.Now().UTC()
	r.Progress.State, r.Progress.EndedAt = api.FailoverDone, &now
	r.Progress.Text = fmt.Sprintf("the link is removed; database %s of agent %s is %s", l.database, l.place.AgentName, leftShut)
	l.failovers.mu.Lock()
	l.failovers.current = &failover{stop: func(error) {}, view: r.Progress}
	l.failovers.mu.Unlock()
	return l.remove(ctx, "", catalog.SetCutover)
}

const leftShut = "read-only, as it was when writers were held; to open it, as a superuser: " + gate.Release

// cutOver removes the link after a failover, from the new primary: first the old
// side, so that an interruption leaves a link that works.
func (l *Link) cutOver(ctx context.Context, f *failover) {
	l.failoverStep(f, "removing the link")
	view, _ := l.ownFailover()
	old, err := l.cutOverPeer(ctx, view)
	if err == nil {
		_, err = l.remove(ctx, "", catalogDeleting)
	}
	l.showFailover(f, func(view *api.FailoverProgress) {
		if err != nil {
			view.Text = fmt.Sprintf("the link could not be removed and goes on: %v; remove it with: twinspan link delete %s", err, f.view.Link)
			return
		}
		view.Text = fmt.Sprintf("the link is removed; database %s of agent %s is %s", old.Database, old.Agent, leftShut)
	})
	l.endFailover(f, nil)
}

func (l *Link) cutOverPeer(ctx context.Context, view api.FailoverProgress) (old api.DeletedSide, err error) {
	ctx, stop := context.WithTimeout(ctx, cutoverPatience)
	defer stop()
	for {
		r := l.snapshot()
		err = l.place.Peers.Call(ctx, r.Peer, MethodCutover, CutoverRequest{Reference{ID: r.ID, Epoch: r.Epoch}, view}, &old)
		if err == nil || ctx.Err() != nil || !problem.Retry(err) && !misplaced(problem.As(err)) {
			return old, err
		}
		select {
		case <-ctx.Done():
			return old, err
		case <-time.After(cutoverPause):
		}
	}
}
