package link

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/gate"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/role"
	"github.com/twinspan/twinspan/internal/side"
)

// MethodCutover tells a former primary that its side of the link goes, and its gate
// stays shut.
const MethodCutover = "failover.cutover"

const (
	// cutoverPatience is how long a cutover waits for the old side before it is shown as
	// over, and cutoverPause is between the first attempts.
	cutoverPatience = time.Minute
	cutoverPause    = time.Second
)

// CutoverRequest says how the failover went, for whoever asks on that side: the link
// is gone from there before the failover is over.
type CutoverRequest struct {
	Reference
	Progress api.FailoverProgress `json:"progress"`
}

// handleCutover removes this side, and leaves the database read-only.
func (l *Link) handleCutover(ctx context.Context, r CutoverRequest) (api.DeletedSide, error) {
	if err := l.side.SecondaryAt(r.Reference); err != nil {
		return api.DeletedSide{}, err
	}
	if err := l.passOn(ctx); err != nil {
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

// removalMark begins the operation of a failover that removes the link afterwards. It is
// stored from the failover's beginning on, so whoever decides or completes that knows of it,
// also an agent that was started meanwhile.
const removalMark = "cutover "

// cutoverDue says whether a side is the new primary of a cutover: it goes as soon as the old
// side has gone.
func cutoverDue(r catalog.Link) bool {
	f := r.LastFailover
	return role.Role(r.Role) == role.Primary && f != nil && f.Type == planned && strings.HasPrefix(f.Operation, removalMark)
}

// cutoverPending is why the sides of a link cannot change places again.
func cutoverPending(r catalog.Link) *problem.Error {
	return problem.New(problem.Conflict, "cutover_pending", "the link is being removed by a cutover, which is decided").On(r.Name).
		WithHint("it goes on by itself as soon as agent %s answers; where that is lost for good: twinspan link delete %s --force, at this agent", r.Peer, r.Name)
}

// cutOver removes the link after a failover, from the new primary: first the old
// side, so that an interruption leaves a link that works. It goes on until that is done;
// the failover is shown as over before, where the old side does not answer.
func (l *Link) cutOver(ctx context.Context) {
	f := l.cutoverShown()
	l.failoverStep(f, "removing the link")
	late := time.AfterFunc(cutoverPatience, func() {
		l.showFailover(f, func(view *api.FailoverProgress) {
			view.Text = fmt.Sprintf("the link is not removed yet; twinspan link show %s says why; it is tried again", view.Link)
		})
		l.endFailover(f, nil)
	})
	defer late.Stop()
	for pause := cutoverPause; ; pause = min(2*pause, cutoverPatience) {
		r := l.side.Record()
		if !cutoverDue(r) || r.Deleting {
			l.side.Warn("cutover", nil)
			l.endFailover(f, nil)
			return
		}
		var text string
		err := l.passOn(ctx)
		if err == nil {
			text, err = l.cutOverPeer(ctx, r)
		}
		if err == nil {
			_, err = l.remove(ctx, "", catalogDeleting)
		}
		if err == nil || l.isRemoved() {
			l.showFailover(f, func(view *api.FailoverProgress) { view.Text = text })
			l.endFailover(f, nil)
			return
		}
		p := cutoverPending(r)
		p.Text += fmt.Sprintf("; it has not been possible yet: %v", err)
		l.side.Warn("cutover", p)
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

func (l *Link) isRemoved() bool {
	select {
	case <-l.removed:
		return true
	default:
		return false
	}
}

// cutoverShown returns the failover whose link is to be removed, for who drives it to show how far
// that is: begun anew where this process has not begun it.
func (l *Link) cutoverShown() *failover {
	l.failovers.mu.Lock()
	defer l.failovers.mu.Unlock()
	if c := l.failovers.current; c != nil && c.request.Cutover && c.view.State == api.FailoverRunning {
		return c
	}
	r := l.side.Record()
	f := newFailover(r.Name, api.FailoverRequest{Type: api.Planned, Cutover: true})
	f.view.Primary, f.view.Epoch, f.view.HoldSeconds = l.place.AgentName, r.Epoch, r.LastFailover.HoldSeconds
	l.failovers.current = f
	return f
}

// cutOverPeer removes the old side, and says in words how both are then.
func (l *Link) cutOverPeer(ctx context.Context, r catalog.Link) (text string, err error) {
	ctx, stop := context.WithTimeout(ctx, cutoverPatience)
	defer stop()
	view, _ := l.ownFailover()
	old, err := side.Call[api.DeletedSide](ctx, l.side, MethodCutover, CutoverRequest{side.ReferenceOf(r), view})
	if problem.CodeOf(err) == "link_unknown" {
		return fmt.Sprintf("the link is removed; agent %s does not know it any more: database %s there is %s", r.Peer, r.PeerDatabase, leftShut), nil
	}
	return fmt.Sprintf("the link is removed; database %s of agent %s is %s", old.Database, old.Agent, leftShut), err
}
