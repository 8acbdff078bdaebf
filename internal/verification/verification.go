// Package verification compares both sides of a link when an operator asks for it, at the
// secondary, says how far that is and what was found, and repairs the twin if that is asked
// for: docs/design/0008-verify.md.
package verification

import (
	"context"
	"sync"
	"time"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/meet"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/role"
	"github.com/twinspan/twinspan/internal/side"
)

// The methods by which the primary's agent, at whose side an operator may be, asks the secondary's.
const (
	MethodStart  = "verify.start"
	MethodShow   = "verify.show"
	MethodCancel = "verify.cancel"
)

// mostRows is how many rows of a table are reported, and repaired at once.
const mostRows = 1000

// Request asks for a verification.
type Request struct {
	side.Reference
	api.Verify
}

// Verifications has the verification of a link that is under way, or the last since the agent
// was started. The secondary does them; the primary passes its operator's requests on.
type Verifications struct {
	side    *side.Side
	meets   *meet.Secondary
	objects func(ctx context.Context, numbers []string) error
	equal   func()
	waiting chan struct{} // has one element when current waits to be begun

	mu      sync.Mutex // guards what follows
	current *verification
}

// New returns the verifications of a side. objects brings large objects that differ, by their
// numbers; equal is told when a verification has found both sides equal or made them so.
func New(s *side.Side, meets *meet.Secondary, objects func(ctx context.Context, numbers []string) error, equal func()) *Verifications {
	return &Verifications{side: s, meets: meets, objects: objects, equal: equal, waiting: make(chan struct{}, 1)}
}

// verification is one verification. Its view is guarded by the mutex of
// Verifications.
type verification struct {
	request api.Verify
	stop    context.CancelCauseFunc
	ctx     context.Context
	done    chan struct{}

	view api.Verification
}

// Begin begins a verification and returns at once.
func (v *Verifications) Begin(ctx context.Context, request api.Verify) (api.Verification, error) {
	asked := Request{v.side.Reference(), request}
	return side.OnSecondary(ctx, v.side, MethodStart, asked, func(context.Context) (api.Verification, error) { return v.begin(request) })
}

// begin is Begin on the secondary.
func (v *Verifications) begin(request api.Verify) (api.Verification, error) {
	r := v.side.Record()
	if phase := role.Phase(r.Phase); phase != role.Replicating {
		return api.Verification{}, meet.NotComparable(r.Name, phase)
	}
	if request.Workers <= 0 {
		request.Workers = meet.Workers
	}
	if request.Limit <= 0 {
		request.Limit = mostRows
	}
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
	select {
	case v.waiting <- struct{}{}:
	default:
	}
	return completed(next.view), nil
}

// EqualSince says whether a verification that was begun after t has found both sides
// equal, or has made them so.
func (v *Verifications) EqualSince(t time.Time) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.current != nil && v.current.view.StartedAt.After(t) && (v.current.view.State == api.Equal || v.current.view.State == api.Repaired)
}

// Running says whether a verification is under way.
func (v *Verifications) Running() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.current != nil && v.current.view.State == api.Verifying
}

// Show returns the verification under way or the last one since the
// agent beside the secondary was started.
func (v *Verifications) Show(ctx context.Context) (api.Verification, error) {
	return v.ask(ctx, MethodShow, func(*verification) {})
}

// Cancel ends the verification under way and returns when nothing
// of it is left.
func (v *Verifications) Cancel(ctx context.Context) (api.Verification, error) {
	var done chan struct{}
	view, err := v.ask(ctx, MethodCancel, func(c *verification) {
		c.stop(errCancelled)
		done = c.done
	})
	if err != nil || done == nil {
		return view, err
	}
	select {
	case <-done:
		return v.Show(ctx)
	case <-ctx.Done():
		return view, context.Cause(ctx)
	}
}

var errCancelled = problem.New(problem.Cancelled, "verification_cancelled", "the verification was cancelled")

// ask answers for the secondary, or asks it.
func (v *Verifications) ask(ctx context.Context, method string, do func(c *verification)) (api.Verification, error) {
	return side.OnSecondary(ctx, v.side, method, v.side.Reference(), func(context.Context) (api.Verification, error) {
		v.mu.Lock()
		defer v.mu.Unlock()
		if v.current == nil {
			name := v.side.Name()
			return api.Verification{}, problem.New(problem.NotFound, "verification_unknown", "the link was not verified since the agent beside its secondary was started").
				On(name).WithHint("twinspan link verify %s does it", name)
		}
		do(v.current)
		return completed(v.current.view), nil
	})
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

// HandleStart begins a verification for the primary's operator.
func (v *Verifications) HandleStart(ctx context.Context, r Request) (api.Verification, error) {
	if err := v.side.SecondaryAt(r.Reference); err != nil {
		return api.Verification{}, err
	}
	return v.Begin(ctx, r.Verify)
}

// HandleShow shows it.
func (v *Verifications) HandleShow(ctx context.Context, r side.Reference) (api.Verification, error) {
	if err := v.side.SecondaryAt(r); err != nil {
		return api.Verification{}, err
	}
	return v.Show(ctx)
}

// HandleCancel ends it.
func (v *Verifications) HandleCancel(ctx context.Context, r side.Reference) (api.Verification, error) {
	if err := v.side.SecondaryAt(r); err != nil {
		return api.Verification{}, err
	}
	return v.Cancel(ctx)
}

// Run does the verifications that are asked for until ctx ends.
func (v *Verifications) Run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			v.end(context.Cause(ctx))
			return
		case <-v.waiting:
		}
		v.mu.Lock()
		current, due := v.current, v.current.view.State == api.Verifying
		v.mu.Unlock()
		if !due {
			continue
		}
		inner, stop := context.WithCancelCause(current.ctx)
		unhook := context.AfterFunc(ctx, func() { stop(context.Cause(ctx)) })
		err := (&verifier{Verifications: v, request: current.request, reference: v.side.Reference()}).run(inner)
		if inner.Err() != nil {
			err = context.Cause(inner)
		}
		unhook()
		stop(nil)
		v.end(err)
	}
}

// show changes what is shown of the verification under way.
func (v *Verifications) show(f func(view *api.Verification)) {
	v.mu.Lock()
	defer v.mu.Unlock()
	f(&v.current.view)
}

// end closes the verification under way, if there is one.
func (v *Verifications) end(err error) {
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
		c.view.Problem = side.ProblemOf(p, api.Warns)
	}
	c.stop(nil)
	close(c.done)
	if c.view.State == api.Repaired || c.view.State == api.Equal {
		v.equal()
	}
	v.side.Log.Info("verification ended", "state", string(c.view.State), "rows", c.view.Rows, "differences", len(c.view.Differences),
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
		if s.State == meet.SequenceBehind {
			worse(s.Repaired)
		}
	}
	if len(v.MoreRows) > 0 {
		worse(false)
	}
	return state
}
