package link

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/flow"
	"github.com/twinspan/twinspan/internal/largeobject"
	"github.com/twinspan/twinspan/internal/peer"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/role"
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
	Reference
	api.LargeObjectsRequest
}

// PlanObjectsRequest, ListObjectsRequest and NamedObjectsRequest ask for what
// largeobject.Remote says.
type (
	PlanObjectsRequest struct {
		Reference
		largeobject.PlanRequest
	}
	ListObjectsRequest struct {
		Reference
		largeobject.ListRequest
	}
	NamedObjectsRequest struct {
		Reference
		OIDs     []uint32 `json:"oids"`
		Compress bool     `json:"compress"` // the byte stream of a copy is one zstd frame
	}
)

func (l *Link) objects() *largeobject.Source { return &largeobject.Source{DSN: l.dsn, Name: l.Name()} }

// HandlePlanObjects begins a pass.
func (l *Link) HandlePlanObjects(ctx context.Context, request PlanObjectsRequest, s *peer.Stream) error {
	return l.answer(ctx, request.Reference, s, func(ctx context.Context) (any, error) { return l.objects().Plan(ctx, request.PlanRequest) })
}

// HandleListObjects lists a range.
func (l *Link) HandleListObjects(ctx context.Context, request ListObjectsRequest, s *peer.Stream) error {
	return l.answer(ctx, request.Reference, s, func(ctx context.Context) (any, error) { return l.objects().List(ctx, request.ListRequest) })
}

// HandleDescribeObjects says what objects are besides their bytes.
func (l *Link) HandleDescribeObjects(ctx context.Context, request NamedObjectsRequest, s *peer.Stream) error {
	return l.answer(ctx, request.Reference, s, func(ctx context.Context) (any, error) { return l.objects().Describe(ctx, request.OIDs) })
}

// HandleCopyObjects sends pages.
func (l *Link) HandleCopyObjects(ctx context.Context, request NamedObjectsRequest, s *peer.Stream) error {
	return l.answerRows(ctx, request.Reference, s, request.Compress, func(ctx context.Context, w io.Writer) (int64, error) {
		return l.objects().Copy(ctx, request.OIDs, w)
	})
}

// remoteObjects is the primary's half, as the secondary reaches it. It implements
// largeobject.Remote.
type remoteObjects struct{ link *Link }

func (m remoteObjects) reference() Reference { return (&remote{link: m.link}).reference() }

// Plan implements largeobject.Remote.
func (m remoteObjects) Plan(ctx context.Context, r largeobject.PlanRequest) (largeobject.Plan, error) {
	return ask[largeobject.Plan](ctx, m.link, MethodPlanObjects, PlanObjectsRequest{m.reference(), r})
}

// List implements largeobject.Remote.
func (m remoteObjects) List(ctx context.Context, r largeobject.ListRequest) ([]largeobject.Entry, error) {
	return ask[[]largeobject.Entry](ctx, m.link, MethodListObjects, ListObjectsRequest{m.reference(), r})
}

// Describe implements largeobject.Remote.
func (m remoteObjects) Describe(ctx context.Context, oids []uint32) ([]largeobject.Object, error) {
	return ask[[]largeobject.Object](ctx, m.link, MethodDescribeObjects, NamedObjectsRequest{Reference: m.reference(), OIDs: oids})
}

// Copy implements largeobject.Remote.
func (m remoteObjects) Copy(ctx context.Context, oids []uint32, w io.Writer) (int64, error) {
	request := NamedObjectsRequest{Reference: m.reference(), OIDs: oids, Compress: !m.link.peerIsLocal()}
	return flow.FetchRows(ctx, m.link.place.Peers, m.link.Peer(), MethodCopyObjects, request, request.Compress, w)
}

// collector is what a secondary knows of its large objects.
type collector struct {
	passing sync.Mutex        // held while a pass is made
	state   largeobject.State // guarded by the link's mutex
	known   bool              // state was read
}

const (
	// objectsTick is how often the collector looks whether a pass is due.
	objectsTick = time.Second
	// lateObjects is how many intervals old the large objects may be before it is a
	// problem, and lateAtLeast what that is at least.
	lateObjects = 3
	lateAtLeast = 15 * time.Minute
	// lastObjects is how long a removal waits for the last pass.
	lastObjects = time.Minute
)

// objectsLoop brings large objects by schedule for as long as the link exists. A
// pass that was interrupted is gone on with, whatever the schedule says.
func (l *Link) objectsLoop(ctx context.Context) {
	pause := objectsTick
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		pause = objectsTick
		if !follows(l.snapshot()) {
			continue
		}
		state, err := l.objectsState(ctx)
		if err == nil && (state.Running || state.Every > 0 && time.Since(state.AsOf) >= state.Every) {
			_, err = l.BringLargeObjects(ctx, false)
		}
		if err != nil {
			pause = lastPause
		}
		l.noteObjects(err)
	}
}

// noteObjects makes a problem of large objects that are late, or cannot be brought.
func (l *Link) noteObjects(err error) {
	l.mu.Lock()
	state := l.beside.collector.state
	l.mu.Unlock()
	late := state.Every > 0 && !state.AsOf.IsZero() && time.Since(state.AsOf) > max(lateObjects*state.Every, lateAtLeast)
	if err != nil && lasting(problem.As(err)) {
		l.log.Warn("large objects not brought", "err", err)
		late = true
	}
	if !late {
		l.setAside("large_objects_behind", nil)
		return
	}
	p := problem.New(problem.Transient, "large_objects_behind", "the large objects of the twin are as of %s", state.AsOf.UTC().Format(time.DateTime))
	if err != nil {
		p = problem.Wrap(err, problem.Transient, "large_objects_behind", "the large objects of the twin are as of %s", state.AsOf.UTC().Format(time.DateTime))
	}
	l.setAside("large_objects_behind", p.WithHint("it is tried again by itself; twinspan link large-objects %s tries now and says why not", l.Name()))
}

// objectsState is how the large objects stand, from memory once it was read.
func (l *Link) objectsState(ctx context.Context) (largeobject.State, error) {
	l.mu.Lock()
	state, known := l.beside.collector.state, l.beside.collector.known
	l.mu.Unlock()
	if known {
		return state, nil
	}
	return l.readObjectsState(ctx)
}

func (l *Link) readObjectsState(ctx context.Context) (state largeobject.State, err error) {
	err = l.control.do(ctx, func(ctx context.Context, conn *pgx.Conn) (err error) {
		state, err = largeobject.Load(ctx, conn, l.ID())
		return err
	})
	if err == nil {
		l.mu.Lock()
		l.beside.collector.state, l.beside.collector.known = state, true
		l.mu.Unlock()
	}
	return state, err
}

// BringLargeObjects brings the twin's large objects in step with the primary's as
// they are now, or goes on with the pass that was interrupted and then makes
// another. With force everything is looked at, whatever the primary's server has
// counted: so it is right before a failover, while nothing writes on the primary.
func (l *Link) BringLargeObjects(ctx context.Context, force bool) (sum largeobject.Result, err error) {
	c := &l.beside.collector
	c.passing.Lock()
	defer c.passing.Unlock()
	state, err := l.readObjectsState(ctx)
	if err != nil {
		return sum, err
	}
	target := l.objectsTarget()
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
	_, err = l.readObjectsState(ctx)
	return sum, err
}

// objectsTarget is the twin's half of bringing large objects.
func (l *Link) objectsTarget() *largeobject.Target {
	r := l.snapshot()
	return &largeobject.Target{
		DSN: l.dsn, Link: r.ID, Name: r.Name, Remote: remoteObjects{l}, Workers: l.place.Workers, Log: l.place.Log,
		Roles: l.noteRoles,
		Progress: func(done, total int64) {
			if !l.snapshot().Seeded {
				l.step(fmt.Sprintf("copying large objects, %d of %d", done, total))
			}
		},
	}
}

// bringAnew brings large objects that differ, by their numbers.
func (l *Link) bringAnew(ctx context.Context, numbers []string) error {
	oids := make([]uint32, len(numbers))
	for i, n := range numbers {
		oid, err := strconv.ParseUint(n, 10, 32)
		if err != nil {
			return problem.Wrap(err, problem.Internal, "", "read the number of a large object")
		}
		oids[i] = uint32(oid)
	}
	c := &l.beside.collector
	c.passing.Lock()
	defer c.passing.Unlock()
	return l.objectsTarget().Anew(ctx, oids)
}

// LargeObjectsLag says how old the twin's large objects may be, and how many the
// primary had when it was last looked; ok is false while that is not known. It is
// right on both sides of a link, as far as they have heard of each other.
func (l *Link) LargeObjectsLag() (lag time.Duration, objects int64, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	v := l.largeObjectsLocked()
	if v == nil || v.AsOf == nil {
		return 0, 0, false
	}
	return time.Since(*v.AsOf), v.Objects, true
}

// largeObjectsLocked is what link show says of large objects; nil while nothing is
// known. The secondary knows, and reports it.
func (l *Link) largeObjectsLocked() *api.LargeObjects {
	c := &l.beside.collector
	if role.Role(l.record.Role) == role.Primary {
		return l.live.report.LargeObjects
	}
	if !c.known {
		return nil
	}
	v := &api.LargeObjects{Objects: c.state.Objects, EverySeconds: int64(c.state.Every / time.Second), Running: c.state.Running}
	if !c.state.AsOf.IsZero() {
		asOf := c.state.AsOf.UTC()
		v.AsOf = &asOf
	}
	return v
}

// LargeObjects brings large objects now, or sets how often that is done. Either
// side may be asked; the secondary does it.
func (l *Link) LargeObjects(ctx context.Context, in api.LargeObjectsRequest) (api.LargeObjectsResult, error) {
	r := l.snapshot()
	if role.Role(r.Role) == role.Primary {
		var out api.LargeObjectsResult
		err := l.place.Peers.Call(ctx, r.Peer, MethodLargeObjects, LargeObjectsRequest{Reference{ID: r.ID, Epoch: r.Epoch}, in}, &out)
		return out, err
	}
	return l.HandleLargeObjects(ctx, LargeObjectsRequest{Reference{ID: r.ID, Epoch: r.Epoch}, in})
}

// HandleLargeObjects is LargeObjects on the secondary.
func (l *Link) HandleLargeObjects(ctx context.Context, request LargeObjectsRequest) (api.LargeObjectsResult, error) {
	var out api.LargeObjectsResult
	if err := l.sameEpoch(request.Reference); err != nil {
		return out, err
	}
	if r := l.snapshot(); !follows(r) {
		return out, problem.New(problem.Conflict, "phase_refuses", "a link in phase %s does not bring large objects", r.Phase).On(r.Name)
	}
	if request.EverySeconds != nil {
		every := time.Duration(*request.EverySeconds) * time.Second
		err := l.control.do(ctx, func(ctx context.Context, conn *pgx.Conn) error { return largeobject.SetEvery(ctx, conn, l.ID(), every) })
		if err == nil {
			_, err = l.readObjectsState(ctx)
		}
		if err != nil {
			return out, err
		}
	}
	if request.Now {
		done, err := l.BringLargeObjects(ctx, true)
		l.noteObjects(err)
		if err != nil {
			return out, err
		}
		out.Copied, out.Removed, out.Bytes = done.Copied, done.Removed, done.Bytes
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if v := l.largeObjectsLocked(); v != nil {
		out.LargeObjects = *v
	}
	return out, nil
}

// lastLargeObjects makes a last pass before a removal, and says in words how that went.
func (l *Link) lastLargeObjects(ctx context.Context) string {
	ctx, stop := context.WithTimeout(ctx, lastObjects)
	defer stop()
	done, err := l.BringLargeObjects(ctx, true)
	if err == nil && done.Objects == 0 {
		return ""
	}
	if err == nil {
		return ", large objects included"
	}
	l.log.Warn("large objects stay as they were", "err", err)
	state, err := l.objectsState(context.WithoutCancel(ctx))
	if err != nil || state.AsOf.IsZero() {
		return ", large objects not included"
	}
	if state.Objects == 0 {
		return ""
	}
	return ", large objects as of " + state.AsOf.UTC().Format(time.DateTime)
}
