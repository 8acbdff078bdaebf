package outofband

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/flow"
	"github.com/twinspan/twinspan/internal/largeobject"
	"github.com/twinspan/twinspan/internal/peer"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/side"
)

// The methods that carry large objects (docs/design/0011-large-objects.md). The
// first is asked by either side of the secondary's, the others by the secondary of
// the primary.
const (
	MethodLargeObjects    = "link.large_objects"    // make a pass now, or another time
	MethodPlanObjects     = "largeobjects.plan"     // what has a pass to look at?
	MethodListObjects     = "largeobjects.list"     // what of this range has changed?
	MethodDescribeObjects = "largeobjects.describe" // whose are these, and who may read them?
	MethodCopyObjects     = "largeobjects.copy"     // the pages of these, a byte stream
)

// LargeObjectsRequest is what an operator asks of the secondary.
type LargeObjectsRequest struct {
	side.Reference
	api.LargeObjectsRequest
}

// PlanObjectsRequest, ListObjectsRequest and NamedObjectsRequest ask for what
// largeobject.Remote says.
type (
	PlanObjectsRequest struct {
		side.Reference
		largeobject.PlanRequest
	}
	ListObjectsRequest struct {
		side.Reference
		largeobject.ListRequest
	}
	NamedObjectsRequest struct {
		side.Reference
		OIDs     []uint32 `json:"oids"`
		Compress bool     `json:"compress"` // the byte stream of a copy is one zstd frame
	}
)

// Bringing says how large objects are brought.
type Bringing struct {
	Workers int                                            // 0 lets the engine choose
	Roles   func(ctx context.Context, made []string) error // is told which roles were made
	Step    func(text string)                              // is told how far a first copy is
	Log     *slog.Logger
}

// LargeObjects brings the large objects of a twin in step with the primary's: the secondary
// asks, the primary answers.
type LargeObjects struct {
	side    *side.Side
	service *side.Service
	with    Bringing
	passing sync.Mutex // held while a pass is made, before the session

	mu    sync.Mutex // guards what follows
	state largeobject.State
	known bool // state was read
}

// NewLargeObjects returns what brings a side's large objects.
func NewLargeObjects(s *side.Side, service *side.Service, with Bringing) *LargeObjects {
	return &LargeObjects{side: s, service: service, with: with}
}

// Forget has the state read again, for the side has another role now.
func (o *LargeObjects) Forget() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.known = false
}

func (o *LargeObjects) source() *largeobject.Source {
	return &largeobject.Source{DSN: o.side.DSN, Name: o.side.Name()}
}

// HandlePlan begins a pass.
func (o *LargeObjects) HandlePlan(ctx context.Context, request PlanObjectsRequest, s *peer.Stream) error {
	return o.service.Answer(ctx, request.Reference, s, func(ctx context.Context) (any, error) { return o.source().Plan(ctx, request.PlanRequest) })
}

// HandleList lists a range.
func (o *LargeObjects) HandleList(ctx context.Context, request ListObjectsRequest, s *peer.Stream) error {
	return o.service.Answer(ctx, request.Reference, s, func(ctx context.Context) (any, error) { return o.source().List(ctx, request.ListRequest) })
}

// HandleDescribe says what objects are besides their bytes.
func (o *LargeObjects) HandleDescribe(ctx context.Context, request NamedObjectsRequest, s *peer.Stream) error {
	return o.service.Answer(ctx, request.Reference, s, func(ctx context.Context) (any, error) { return o.source().Describe(ctx, request.OIDs) })
}

// HandleCopy sends pages.
func (o *LargeObjects) HandleCopy(ctx context.Context, request NamedObjectsRequest, s *peer.Stream) error {
	return o.service.AnswerRows(ctx, request.Reference, s, request.Compress, func(ctx context.Context, w io.Writer) (int64, error) {
		return o.source().Copy(ctx, request.OIDs, w)
	})
}

// remoteObjects is the primary's half, as the secondary reaches it. It implements
// largeobject.Remote.
type remoteObjects struct{ side *side.Side }

// Plan implements largeobject.Remote.
func (m remoteObjects) Plan(ctx context.Context, r largeobject.PlanRequest) (largeobject.Plan, error) {
	return side.Ask[largeobject.Plan](ctx, m.side, MethodPlanObjects, PlanObjectsRequest{m.side.Reference(), r})
}

// List implements largeobject.Remote.
func (m remoteObjects) List(ctx context.Context, r largeobject.ListRequest) ([]largeobject.Entry, error) {
	return side.Ask[[]largeobject.Entry](ctx, m.side, MethodListObjects, ListObjectsRequest{m.side.Reference(), r})
}

// Describe implements largeobject.Remote.
func (m remoteObjects) Describe(ctx context.Context, oids []uint32) ([]largeobject.Object, error) {
	return side.Ask[[]largeobject.Object](ctx, m.side, MethodDescribeObjects, NamedObjectsRequest{Reference: m.side.Reference(), OIDs: oids})
}

// Copy implements largeobject.Remote.
func (m remoteObjects) Copy(ctx context.Context, oids []uint32, w io.Writer) (int64, error) {
	request := NamedObjectsRequest{Reference: m.side.Reference(), OIDs: oids, Compress: !flow.IsLocal(m.side.Peers, m.side.Peer())}
	return flow.FetchRows(ctx, m.side.Peers, m.side.Peer(), MethodCopyObjects, request, request.Compress, w)
}

const (
	// objectsTick is how often it is looked whether a pass is due, failedPause how long it is
	// waited behind one that failed.
	objectsTick = time.Second
	failedPause = 5 * time.Second
	// lateObjects is how many intervals old the large objects may be before it is a
	// problem, and lateAtLeast what that is at least.
	lateObjects = 3
	lateAtLeast = 15 * time.Minute
	// lastObjects is how long a removal waits for the last pass.
	lastObjects = time.Minute
)

// Run brings large objects by schedule for as long as the link exists. A
// pass that was interrupted is gone on with, whatever the schedule says.
func (o *LargeObjects) Run(ctx context.Context) {
	pause := objectsTick
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		pause = objectsTick
		if !side.Follows(o.side.Record()) {
			continue
		}
		state, err := o.current(ctx)
		if err == nil && due(state, time.Now()) {
			_, err = o.Bring(ctx, false)
		}
		if err != nil {
			pause = failedPause
		}
		o.note(err)
	}
}

// due says whether a pass is to be made, or gone on with.
func due(s largeobject.State, now time.Time) bool {
	return s.Running || s.Every > 0 && now.Sub(s.AsOf) >= s.Every
}

// late says whether large objects are so old that it is a problem.
func late(s largeobject.State, now time.Time) bool {
	return s.Every > 0 && !s.AsOf.IsZero() && now.Sub(s.AsOf) > max(lateObjects*s.Every, lateAtLeast)
}

// note makes a problem of large objects that are late, or cannot be brought.
func (o *LargeObjects) note(err error) {
	o.mu.Lock()
	state := o.state
	o.mu.Unlock()
	behind := late(state, time.Now())
	if err != nil && side.Lasting(problem.As(err)) {
		o.side.Log.Warn("large objects not brought", "err", err)
		behind = true
	}
	if !behind {
		o.side.Warn("large_objects_behind", nil)
		return
	}
	p := problem.New(problem.Transient, "large_objects_behind", "the large objects of the twin are as of %s", state.AsOf.UTC().Format(time.DateTime))
	if err != nil {
		p = problem.Wrap(err, problem.Transient, "large_objects_behind", "the large objects of the twin are as of %s", state.AsOf.UTC().Format(time.DateTime))
	}
	o.side.Warn("large_objects_behind", p.WithHint("it is tried again by itself; twinspan link large-objects %s tries now and says why not", o.side.Name()))
}

// current is how the large objects stand, from memory once it was read.
func (o *LargeObjects) current(ctx context.Context) (largeobject.State, error) {
	o.mu.Lock()
	state, known := o.state, o.known
	o.mu.Unlock()
	if known {
		return state, nil
	}
	return o.read(ctx)
}

func (o *LargeObjects) read(ctx context.Context) (state largeobject.State, err error) {
	err = o.side.Session.Do(ctx, func(ctx context.Context, conn *pgx.Conn) (err error) {
		state, err = largeobject.Load(ctx, conn, o.side.ID())
		return err
	})
	if err == nil {
		o.mu.Lock()
		o.state, o.known = state, true
		o.mu.Unlock()
	}
	return state, err
}

// Bring brings the twin's large objects in step with the primary's as they are now, or goes on
// with the pass that was interrupted and then makes another. With force everything is looked at,
// whatever the primary's server has counted: so it is right before a failover, while nothing
// writes on the primary.
func (o *LargeObjects) Bring(ctx context.Context, force bool) (sum largeobject.Result, err error) {
	o.passing.Lock()
	defer o.passing.Unlock()
	state, err := o.read(ctx)
	if err != nil {
		return sum, err
	}
	target := o.target()
	passes := 1
	if force && state.Running {
		passes = 2 // the one under way began before now
	}
	for range passes {
		done, err := target.Pass(ctx, force)
		if err != nil {
			return sum, err
		}
		sum.Objects = done.Objects
		sum.Copied, sum.Removed, sum.Bytes = sum.Copied+done.Copied, sum.Removed+done.Removed, sum.Bytes+done.Bytes
	}
	_, err = o.read(ctx)
	return sum, err
}

// target is the twin's half of bringing large objects.
func (o *LargeObjects) target() *largeobject.Target {
	r := o.side.Record()
	return &largeobject.Target{
		DSN: o.side.DSN, Link: r.ID, Name: r.Name, Remote: remoteObjects{o.side}, Workers: o.with.Workers, Log: o.with.Log,
		Roles: o.with.Roles,
		Progress: func(done, total int64) {
			if !o.side.Record().Seeded {
				o.with.Step(fmt.Sprintf("copying large objects, %d of %d", done, total))
			}
		},
	}
}

// AsOf is as of when the twin's large objects are.
func (o *LargeObjects) AsOf() time.Time {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.state.AsOf
}

// Anew brings large objects that differ, by their numbers.
func (o *LargeObjects) Anew(ctx context.Context, numbers []string) error {
	oids := make([]uint32, len(numbers))
	for i, n := range numbers {
		oid, err := strconv.ParseUint(n, 10, 32)
		if err != nil {
			return problem.Wrap(err, problem.Internal, "", "read the number of a large object")
		}
		oids[i] = uint32(oid)
	}
	o.passing.Lock()
	defer o.passing.Unlock()
	return o.target().Anew(ctx, oids)
}

// View is what link show says of a secondary's large objects; nil while nothing is known.
func (o *LargeObjects) View() *api.LargeObjects {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.known {
		return nil
	}
	v := &api.LargeObjects{Objects: o.state.Objects, EverySeconds: int64(o.state.Every / time.Second), Running: o.state.Running}
	if !o.state.AsOf.IsZero() {
		asOf := o.state.AsOf.UTC()
		v.AsOf = &asOf
	}
	return v
}

// Request brings large objects now, or sets how often that is done. Either side may be asked;
// the secondary does it.
func (o *LargeObjects) Request(ctx context.Context, in api.LargeObjectsRequest) (api.LargeObjectsResult, error) {
	request := LargeObjectsRequest{o.side.Reference(), in}
	return side.OnSecondary(ctx, o.side, MethodLargeObjects, request, func(ctx context.Context) (api.LargeObjectsResult, error) {
		return o.HandleRequest(ctx, request)
	})
}

// HandleRequest is Request on the secondary.
func (o *LargeObjects) HandleRequest(ctx context.Context, request LargeObjectsRequest) (api.LargeObjectsResult, error) {
	var out api.LargeObjectsResult
	if err := o.side.SameEpoch(request.Reference); err != nil {
		return out, err
	}
	if r := o.side.Record(); !side.Follows(r) {
		return out, problem.New(problem.Conflict, "phase_refuses", "a link in phase %s does not bring large objects", r.Phase).On(r.Name)
	}
	if request.EverySeconds != nil {
		every := time.Duration(*request.EverySeconds) * time.Second
		err := o.side.Session.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
			return largeobject.SetEvery(ctx, conn, o.side.ID(), every)
		})
		if err == nil {
			_, err = o.read(ctx)
		}
		if err != nil {
			return out, err
		}
	}
	if request.Now {
		done, err := o.Bring(ctx, true)
		o.note(err)
		if err != nil {
			return out, err
		}
		out.Copied, out.Removed, out.Bytes = done.Copied, done.Removed, done.Bytes
	}
	if v := o.View(); v != nil {
		out.LargeObjects = *v
	}
	return out, nil
}

// Last makes a last pass before a removal, and says in words how that went.
func (o *LargeObjects) Last(ctx context.Context) string {
	ctx, stop := context.WithTimeout(ctx, lastObjects)
	defer stop()
	done, err := o.Bring(ctx, true)
	if err == nil && done.Objects == 0 {
		return ""
	}
	if err == nil {
		return ", large objects included"
	}
	o.side.Log.Warn("large objects stay as they were", "err", err)
	state, err := o.current(context.WithoutCancel(ctx))
	if err != nil || state.AsOf.IsZero() {
		return ", large objects not included"
	}
	if state.Objects == 0 {
		return ""
	}
	return ", large objects as of " + state.AsOf.UTC().Format(time.DateTime)
}
