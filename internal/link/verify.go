package link

import (
	"context"
	"sync"
	"time"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/role"
)

const (
	// verifyWorkers are the sessions that read at once on each side.
	verifyWorkers = 2
	// verifyRows is how many rows of a table are reported, and repaired at once.
	verifyRows = 1000
)

// verifications holds a secondary's verification: the one under way, or the last.
type verifications struct {
	mu      sync.Mutex
	waiting chan struct{} // has one element when current waits to be begun
	current *verification
}

// verification is one verification. Its view is guarded by the mutex of
// verifications.
type verification struct {
	request api.Verify
	stop    context.CancelCauseFunc
	ctx     context.Context
	done    chan struct{}

	view api.Verification
}

// Verify begins a verification and returns at once.
func (l *Link) Verify(ctx context.Context, request api.Verify) (api.Verification, error) {
	r := l.snapshot()
	if role.Role(r.Role) == role.Primary {
		var answer api.Verification
		err := l.place.Peers.Call(ctx, r.Peer, MethodVerifyStart, VerifyRequest{Reference{ID: r.ID, Epoch: r.Epoch}, request}, &answer)
		return answer, err
	}
	if phase := role.Phase(r.Phase); phase != role.Replicating {
		return api.Verification{}, notComparable(r.Name, phase)
	}
	if request.Workers <= 0 {
		request.Workers = verifyWorkers
	}
	if request.Limit <= 0 {
		request.Limit = verifyRows
	}
	v := &l.verifications
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.current != nil && v.current.view.State == api.Verifying {
		return api.Verification{}, problem.New(problem.Conflict, "verification_running", "a verification of the link is under way").On(r.Name).
			WithHint("twinspan link verify %s --status shows it, --cancel ends it", r.Name)
	}
	next := &verification{request: request, done: make(chan struct{})}
	next.ctx, next.stop = context.WithCancelCause(context.Background())
	next.view = api.Verification{Link: r.Name, State: api.Verifying, Step: "waiting for a position", StartedAt: time.Now().UTC()}
	v.current = next
	v.wakeLocked()
	return completed(next.view), nil
}

// notComparable says why a link cannot be verified now.
func notComparable(name string, phase role.Phase) error {
	p := problem.New(problem.Conflict, "not_replicating", "link %s is %s: its twin is compared when it is in step", name, phase).On(name)
	switch phase {
	case role.Suspended:
		return p.WithHint("let it go on first: twinspan link resume %s", name)
	case role.CatchingUp, role.Seeding, role.Creating:
		return p.WithHint("wait until it replicates: twinspan link watch %s", name)
	}
	return p.WithHint("twinspan link show %s says what is wrong", name)
}

// running says whether a verification is under way.
func (v *verifications) running() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.current != nil && v.current.view.State == api.Verifying
}

// wakeLocked tells the loop that there is something to do.
func (v *verifications) wakeLocked() {
	if v.waiting == nil {
		v.waiting = make(chan struct{}, 1)
	}
	select {
	case v.waiting <- struct{}{}:
	default:
	}
}

// wakes returns the channel that wakeLocked writes to.
func (v *verifications) wakes() <-chan struct{} {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.waiting == nil {
		v.waiting = make(chan struct{}, 1)
	}
	return v.waiting
}

// Verification returns the verification under way or the last one since the
// agent beside the secondary was started.
func (l *Link) Verification(ctx context.Context) (api.Verification, error) {
	return l.askVerification(ctx, MethodVerifyShow, func(v *verification) {})
}

// CancelVerification ends the verification under way and returns when nothing
// of it is left.
func (l *Link) CancelVerification(ctx context.Context) (api.Verification, error) {
	var done chan struct{}
	view, err := l.askVerification(ctx, MethodVerifyCancel, func(v *verification) {
		v.stop(errVerificationCancelled)
		done = v.done
	})
	if err != nil || done == nil {
		return view, err
	}
	select {
	case <-done:
		return l.Verification(ctx)
	case <-ctx.Done():
		return view, context.Cause(ctx)
	}
}

var errVerificationCancelled = problem.New(problem.Cancelled, "verification_cancelled", "the verification was cancelled")

// askVerification answers for the secondary, or asks it.
func (l *Link) askVerification(ctx context.Context, method string, do func(v *verification)) (api.Verification, error) {
	r := l.snapshot()
	if role.Role(r.Role) == role.Primary {
		var answer api.Verification
		err := l.place.Peers.Call(ctx, r.Peer, method, Reference{ID: r.ID, Epoch: r.Epoch}, &answer)
		return answer, err
	}
	v := &l.verifications
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.current == nil {
		return api.Verification{}, problem.New(problem.NotFound, "verification_unknown", "the link was not verified since the agent beside its secondary was started").
			On(r.Name).WithHint("twinspan link verify %s does it", r.Name)
	}
	do(v.current)
	return completed(v.current.view), nil
}

// completed keeps the promise that lists are never null, in a copy that its
// reader may keep.
func completed(v api.Verification) api.Verification {
	v.Differences = append([]api.Difference{}, v.Differences...)
	v.MoreRows = append([]string{}, v.MoreRows...)
	v.Sequences = append([]api.SequenceDifference{}, v.Sequences...)
	v.Skipped = append([]api.SkippedTable{}, v.Skipped...)
	return v
}

// HandleVerify begins a verification for the primary's operator.
func (l *Link) HandleVerify(ctx context.Context, r VerifyRequest) (api.Verification, error) {
	if err := l.secondaryAt(r.Reference); err != nil {
		return api.Verification{}, err
	}
	return l.Verify(ctx, r.Verify)
}

// HandleVerifyShow shows it.
func (l *Link) HandleVerifyShow(ctx context.Context, r Reference) (api.Verification, error) {
	if err := l.secondaryAt(r); err != nil {
		return api.Verification{}, err
	}
	return l.Verification(ctx)
}

// HandleVerifyCancel ends it.
func (l *Link) HandleVerifyCancel(ctx context.Context, r Reference) (api.Verification, error) {
	if err := l.secondaryAt(r); err != nil {
		return api.Verification{}, err
	}
	return l.CancelVerification(ctx)
}

// secondaryAt refuses what is asked of a secondary elsewhere: two sides that both
// took themselves for the primary would ask each other for ever.
func (l *Link) secondaryAt(r Reference) error {
	if err := l.sameEpoch(r); err != nil {
		return err
	}
	if l.Role() != role.Secondary {
		return problem.New(problem.Conflict, "not_secondary", "this side is not the secondary of the link").On(l.Name())
	}
	return nil
}

// verifyLoop does the verifications that are asked for until ctx ends.
func (l *Link) verifyLoop(ctx context.Context) {
	v := &l.verifications
	wakes := v.wakes()
	for {
		select {
		case <-ctx.Done():
			l.endVerification(context.Cause(ctx))
			return
		case <-wakes:
		}
		v.mu.Lock()
		current, due := v.current, v.current.view.State == api.Verifying
		v.mu.Unlock()
		if !due {
			continue
		}
		inner, stop := context.WithCancelCause(current.ctx)
		unhook := context.AfterFunc(ctx, func() { stop(context.Cause(ctx)) })
		err := (&verifier{link: l, request: current.request, reference: Reference{ID: l.ID(), Epoch: l.snapshot().Epoch}, show: l.showVerification}).run(inner)
		if inner.Err() != nil {
			err = context.Cause(inner)
		}
		unhook()
		stop(nil)
		l.endVerification(err)
	}
}

// showVerification changes what is shown of the verification under way.
func (l *Link) showVerification(f func(view *api.Verification)) {
	v := &l.verifications
	v.mu.Lock()
	defer v.mu.Unlock()
	f(&v.current.view)
}

// endVerification closes the verification under way, if there is one.
func (l *Link) endVerification(err error) {
	v := &l.verifications
	v.mu.Lock()
	defer v.mu.Unlock()
	c := v.current
	if c == nil || c.view.State != api.Verifying {
		return
	}
	now := time.Now().UTC()
	c.view.EndedAt, c.view.Step = &now, ""
	c.view.State = verdict(&c.view)
	if p := problem.As(err); p != nil {
		c.view.State = api.Failed
		if p.Kind == problem.Cancelled {
			c.view.State = api.Cancelled
		}
		c.view.Problem = ProblemOf(p, api.Warns)
	}
	c.stop(nil)
	close(c.done)
	if c.view.State == api.Repaired || c.view.State == api.Equal {
		l.audit.anew.Store(true)
	}
	l.log.Info("verification ended", "state", string(c.view.State), "rows", c.view.Rows, "differences", len(c.view.Differences),
		"dur", now.Sub(c.view.StartedAt), "pause", time.Duration(c.view.PauseSeconds*float64(time.Second)))
}

// verdict sums up what was found.
func verdict(v *api.Verification) api.VerificationState {
	state := api.Equal
	worse := func(repaired bool) {
		switch {
		case !repaired:
			state = api.Different
		case state == api.Equal:
			state = api.Repaired
		}
	}
	for _, d := range v.Differences {
		worse(d.Repaired)
	}
	for _, s := range v.Sequences {
		if s.State == sequenceBehind {
			worse(s.Repaired)
		}
	}
	if len(v.MoreRows) > 0 {
		worse(false)
	}
	return state
}
