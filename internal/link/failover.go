package link

import (
	"context"
	"crypto/rand"
	"sync"
	"time"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/capture"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/role"
	"github.com/twinspan/twinspan/internal/side"
)

// The methods of a failover (docs/design/0012-changing-places.md). The first three
// are asked by either side of the secondary's agent, which drives; the others by
// that of the primary.
const (
	MethodFailover       = "failover.start"  // change places
	MethodFailoverShow   = "failover.show"   // how far is it?
	MethodFailoverCancel = "failover.cancel" // give it up, unless it is decided

	MethodFailoverPlan   = "failover.plan"   // what would it meet on your side?
	MethodFailoverAssess = "failover.assess" // what stands against it on your side?
	MethodFailoverStage  = "failover.stage"  // build the gate
	MethodFailoverHold   = "failover.hold"   // keep writers waiting while this stream lives
)

// The types of a failover, as the catalogue has them.
const (
	planned = string(api.Planned)
	forced  = string(api.Forced)
)

// FailoverRequest asks the secondary's agent.
type FailoverRequest struct {
	Reference
	api.FailoverRequest
	Together *Together `json:"together,omitempty"` // what it is part of
}

// defaultDrain is how long writing transactions may go on.
const defaultDrain = 10 * time.Second

// failovers holds a side's failover: the one under way, or the last that it drove.
type failovers struct {
	mu      sync.Mutex
	current *failover
}

// failover is one change of places. Its view is guarded by the mutex of failovers.
type failover struct {
	id      string
	request api.FailoverRequest
	stop    context.CancelCauseFunc
	// together is the failover of several links that it is part of, promised whether it
	// may not be given up any more. The mutex of failovers guards promised.
	together *Together
	promised bool
	ctx      context.Context
	barrier  chan struct{}                       // closed when everything before the barrier is committed
	met      sync.Once                           // closes it
	points   map[api.FailoverPoint]chan struct{} // closed when it may go on
	driven   bool                                // by the link's work; its goroutine alone uses this
	began    time.Time                           // of the step under way
	held     time.Time                           // when writers began to wait

	view api.FailoverProgress
}

// Failover begins a change of places and returns at once; with together it is part of one of
// several links.
func (l *Link) Failover(ctx context.Context, request api.FailoverRequest, together *Together) (api.FailoverProgress, error) {
	r := l.side.Record()
	if request.Type == "" {
		request.Type = api.Planned
	}
	if request.Type == api.Forced {
		return l.force(ctx, request)
	}
	if cutoverDue(r) {
		view, have := l.ownFailover()
		if !request.Cutover || !have || together != nil {
			return api.FailoverProgress{}, cutoverPending(r)
		}
		return view, nil
	}
	if role.Role(r.Role) == role.Primary {
		if err := l.sameAgents(ctx); err != nil {
			return api.FailoverProgress{}, noPlanned(err, r.Name)
		}
		answer, err := side.Call[api.FailoverProgress](ctx, l.side, MethodFailover, FailoverRequest{side.ReferenceOf(r), request, together})
		return answer, noPlanned(err, r.Name)
	}
	if phase := role.Phase(r.Phase); phase != role.Replicating {
		return api.FailoverProgress{}, notInStep(r.Name, phase)
	}
	if err := l.sameAgents(ctx); err != nil {
		return api.FailoverProgress{}, noPlanned(err, r.Name)
	}
	if request.DrainSeconds == 0 {
		request.DrainSeconds = defaultDrain.Seconds()
	}
	next := newFailover(r.Name, request)
	next.together = together
	l.failovers.mu.Lock()
	if c := l.failovers.current; c != nil && c.view.State == api.FailoverRunning {
		l.failovers.mu.Unlock()
		return api.FailoverProgress{}, problem.New(problem.Conflict, "failover_running", "a failover of the link is under way").On(r.Name).
			WithHint("twinspan link failover %s --status shows it, --cancel gives it up", r.Name)
	}
	l.failovers.current = next
	view := shown(next)
	l.failovers.mu.Unlock()
	if err := l.begin(ctx, next); err != nil {
		l.endFailover(next, err)
		return api.FailoverProgress{}, err
	}
	return view, nil
}

// hearPatience is how long a change of places waits for a first word of the peer's agent.
const hearPatience = 10 * time.Second

// sameAgents refuses a change of places while the peer is away, or its agent older than this one: each
// would have to read what only the other knows. Of which age it is comes with its first
// report or answer.
func (l *Link) sameAgents(ctx context.Context) error {
	ctx, stop := context.WithTimeout(ctx, hearPatience)
	defer stop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		l.mu.Lock()
		r, format := l.side.Record(), l.live.answer.Format
		if role.Role(r.Role) == role.Primary {
			format = l.live.report.Format
		}
		heard, peer := l.live.heard, r.Peer
		l.mu.Unlock()
		status, _ := l.place.Peers.Status(peer)
		switch {
		case !status.Connected:
			return problem.New(problem.Transient, "peer_unreachable", "agent %s is not connected", peer).On(peer)
		case heard.IsZero():
		case format >= capture.Format:
			return nil
		default:
			return problem.New(problem.Conflict, "agent_older", "agent %s runs an older twinspan than this one", peer).On(peer).
				WithHint("replace the program of agent %s as well, then try again; the link goes on meanwhile", peer)
		}
		select {
		case <-ctx.Done():
			return problem.New(problem.Transient, "peer_unreachable", "agent %s has not told how it stands since this agent was started", peer).On(peer)
		case <-tick.C:
		}
	}
}

func newFailover(name string, request api.FailoverRequest) *failover {
	now := time.Now()
	id := rand.Text()
	if request.Cutover {
		id = removalMark + id
	}
	f := &failover{id: id, request: request, barrier: make(chan struct{}), began: now,
		points: map[api.FailoverPoint]chan struct{}{api.PointHold: make(chan struct{}), api.PointPromise: make(chan struct{}), api.PointDecision: make(chan struct{})}}
	f.ctx, f.stop = context.WithCancelCause(context.Background())
	f.view = api.FailoverProgress{Link: name, Type: request.Type, State: api.FailoverRunning, StartedAt: now.UTC()}
	return f
}

// noPlanned adds to a failure to reach the other side what is left to do.
func noPlanned(err error, name string) error {
	if problem.CodeOf(err) != "peer_unreachable" {
		return err
	}
	return problem.As(err).WithHint("a planned failover needs both sides; if the primary is lost for good: twinspan link failover %s --type forced, at the secondary's agent", name)
}

// notInStep says why a link cannot change places now.
func notInStep(name string, phase role.Phase) error {
	p := problem.New(problem.Conflict, "not_replicating", "link %s is %s: the sides change places when the twin is in step", name, phase).On(name)
	switch phase {
	case role.Suspended:
		return p.WithHint("let it go on first: twinspan link resume %s", name)
	case role.CatchingUp, role.Seeding, role.Creating:
		return p.WithHint("wait until it replicates: twinspan link watch %s", name)
	case role.FailingOver:
		return p.WithHint("wait for the failover that is under way: twinspan link failover %s --status", name)
	}
	return p.WithHint("twinspan link show %s says what is wrong", name)
}

// failoverStep ends the step of a failover that is under way, and begins another.
func (l *Link) failoverStep(f *failover, name string) {
	l.failovers.mu.Lock()
	defer l.failovers.mu.Unlock()
	f.closeStep()
	f.began = time.Now()
	f.view.Steps = append(f.view.Steps, api.FailoverStep{Name: name})
	l.log.Info("failover", "step", name)
	l.tellFailing(f)
}

// tellFailing tells whoever wants to know how a failover stands. The mutex of failovers is
// held.
func (l *Link) tellFailing(f *failover) {
	if l.place.Failing != nil {
		l.place.Failing(l, shown(f))
	}
}

func (f *failover) closeStep() {
	if n := len(f.view.Steps); n > 0 && !f.view.Steps[n-1].Done {
		f.view.Steps[n-1].Done, f.view.Steps[n-1].Seconds = true, time.Since(f.began).Seconds()
	}
}

// showFailover changes what is shown of a failover.
func (l *Link) showFailover(f *failover, change func(view *api.FailoverProgress)) {
	l.failovers.mu.Lock()
	defer l.failovers.mu.Unlock()
	change(&f.view)
}

// endFailover closes a failover; with an error it did not come about.
func (l *Link) endFailover(f *failover, err error) {
	l.failovers.mu.Lock()
	defer l.failovers.mu.Unlock()
	if f.view.State != api.FailoverRunning {
		return
	}
	now := time.Now().UTC()
	f.view.EndedAt, f.view.State, f.view.Waiting = &now, api.FailoverDone, ""
	if p := problem.As(err); p != nil {
		if n := len(f.view.Steps); n > 0 {
			f.view.Steps[n-1].Seconds = time.Since(f.began).Seconds()
		}
		f.view.State = api.FailoverUndone
		f.view.Problem = side.ProblemOf(p, api.Blocks)
		l.log.Warn("failover did not come about", "code", p.Code, "err", p)
	} else {
		f.closeStep()
		l.log.Info("failover done", "type", f.view.Type, "epoch", f.view.Epoch, "hold", f.view.HoldSeconds, "dur", now.Sub(f.view.StartedAt))
	}
	l.tellFailing(f)
	f.stop(nil)
}

// shown is a copy of the view for others to keep.
func shown(f *failover) api.FailoverProgress {
	v := f.view
	v.Steps = append([]api.FailoverStep{}, v.Steps...)
	if n := len(v.Steps); n > 0 && !v.Steps[n-1].Done && v.EndedAt == nil {
		v.Steps[n-1].Seconds = time.Since(f.began).Seconds()
	}
	return v
}

// FailoverProgress describes the failover under way, or the last one that this
// side or the other drove, whichever began later.
func (l *Link) FailoverProgress(ctx context.Context) (api.FailoverProgress, error) {
	mine, have := l.ownFailover()
	if have && mine.State == api.FailoverRunning {
		return mine, nil
	}
	r := l.side.Record()
	other, err := side.Call[api.FailoverProgress](ctx, l.side, MethodFailoverShow, side.ReferenceOf(r))
	switch {
	case err == nil && (!have || other.StartedAt.After(mine.StartedAt)):
		return other, nil
	case have:
		return mine, nil
	}
	return other, err
}

// changing is the step of the failover that this side drives; empty without one.
func (l *Link) changing() side.Doing {
	l.failovers.mu.Lock()
	defer l.failovers.mu.Unlock()
	f := l.failovers.current
	if f == nil || f.view.State != api.FailoverRunning || len(f.view.Steps) == 0 {
		return side.Doing{}
	}
	return side.Doing{Text: f.view.Steps[len(f.view.Steps)-1].Name, Since: f.began}
}

func (l *Link) ownFailover() (view api.FailoverProgress, have bool) {
	l.failovers.mu.Lock()
	defer l.failovers.mu.Unlock()
	if l.failovers.current == nil {
		return view, false
	}
	return shown(l.failovers.current), true
}

func (l *Link) handleFailoverShow(context.Context, Reference) (api.FailoverProgress, error) {
	return l.LastFailover()
}

// LastFailover describes the failover that this side drives or drove.
func (l *Link) LastFailover() (api.FailoverProgress, error) {
	mine, have := l.ownFailover()
	if !have {
		return mine, problem.New(problem.NotFound, "failover_unknown", "the link has not changed places since its agents were started").On(l.Name()).
			WithHint("twinspan link failover %s does it", l.Name())
	}
	return mine, nil
}

// CancelFailover gives up the failover under way, unless it is decided.
func (l *Link) CancelFailover(ctx context.Context) (api.FailoverProgress, error) {
	if _, have := l.ownFailover(); have {
		if view, err := l.giveUpFailover(); err == nil {
			return view, nil
		}
	}
	return side.Call[api.FailoverProgress](ctx, l.side, MethodFailoverCancel, l.side.Reference())
}

func (l *Link) handleFailoverCancel(context.Context, Reference) (api.FailoverProgress, error) {
	return l.giveUpFailover()
}

// giveUpFailover gives up what this side drives.
func (l *Link) giveUpFailover() (api.FailoverProgress, error) {
	l.failovers.mu.Lock()
	defer l.failovers.mu.Unlock()
	c := l.failovers.current
	if c == nil || c.view.State != api.FailoverRunning {
		return api.FailoverProgress{}, problem.New(problem.Conflict, "failover_unknown", "no failover of the link is under way").On(l.side.Record().Name)
	}
	if c.promised {
		return api.FailoverProgress{}, problem.New(problem.Conflict, "failover_promised", "the link has promised to do as the others that change places with it").On(l.side.Record().Name).
			WithHint("twinspan link failover --all --status shows what they do")
	}
	c.stop(problem.New(problem.Cancelled, "failover_cancelled", "the failover was given up"))
	return shown(c), nil
}

// handleFailover begins a failover for the primary's operator.
func (l *Link) handleFailover(ctx context.Context, r FailoverRequest) (api.FailoverProgress, error) {
	if err := l.side.SecondaryAt(r.Reference); err != nil {
		return api.FailoverProgress{}, err
	}
	return l.Failover(ctx, r.FailoverRequest, r.Together)
}

// currentFailover returns the failover under way that the stored operation names.
func (l *Link) currentFailover(operation string) *failover {
	l.failovers.mu.Lock()
	defer l.failovers.mu.Unlock()
	if c := l.failovers.current; c != nil && c.id == operation && c.view.State == api.FailoverRunning {
		return c
	}
	return nil
}

// blockers makes one problem of what stands against a failover: the first, with the
// others named.
func blockers(list []api.Problem) error {
	if len(list) == 0 {
		return nil
	}
	first := list[0]
	text := first.Title
	for _, p := range list[1:] {
		text += "; " + p.Title
	}
	return problem.New(problem.Conflict, first.Code, "%s", text).On(first.Subject).WithHint("%s", first.Hint)
}
