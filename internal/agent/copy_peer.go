package agent

import (
	"context"
	"encoding/json"
	"io"
	"time"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/dbcopy"
	"github.com/twinspan/twinspan/internal/flow"
	"github.com/twinspan/twinspan/internal/largeobject"
	"github.com/twinspan/twinspan/internal/peer"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/schema"
	"github.com/twinspan/twinspan/internal/seed"
	"github.com/twinspan/twinspan/internal/sequence"
)

// The methods by which a copy goes to a peer (docs/format/peer.md). The first three are
// asked of the agent that makes the database, the others, by that one, of the agent that
// holds the moment: they name a copy whose number only the two know.
const (
	methodCopyCreate    = "copy.create"    // make a database of this
	methodCopyShow      = "copy.show"      // how far is it?
	methodCopyCancel    = "copy.cancel"    // end it
	methodCopyTables    = "copy.tables"    // what has rows
	methodCopySchema    = "copy.schema"    // the structure, a byte stream
	methodCopyRows      = "copy.rows"      // rows of a table, a byte stream
	methodCopySequences = "copy.sequences" // values of sequences now
	methodCopyPlan      = "copy.plan"      // which large objects
	methodCopyList      = "copy.list"      // those of a range
	methodCopyDescribe  = "copy.describe"  // whose are these, and who may read them?
	methodCopyPages     = "copy.pages"     // the pages of these, a byte stream
)

// copyRequest asks a peer to make a database. It can be repeated.
type copyRequest struct {
	ID      string        `json:"id"`
	Name    string        `json:"name"`
	Origin  dbcopy.Origin `json:"origin"`
	Link    string        `json:"link,omitempty"`
	MaxRate int64         `json:"maxRate,omitempty"` // bytes a second
}

// Requests about a copy.
type (
	copyReference struct {
		ID string `json:"id"`
	}
	copyRowsRequest struct {
		copyReference
		seed.CopyRequest
		Compress bool `json:"compress"` // the byte stream is one zstd frame
	}
	copyPlanRequest struct {
		copyReference
		largeobject.PlanRequest
	}
	copyListRequest struct {
		copyReference
		largeobject.ListRequest
	}
	copyObjectsRequest struct {
		copyReference
		OIDs     []uint32 `json:"oids"`
		Compress bool     `json:"compress"`
	}
)

// copyID is the number of the copy that a request is about.
func (r copyReference) copyID() string { return r.ID }

// lent is a source that a peer reads.
type lent struct {
	agent  string // the peer's id
	source dbcopy.Source
}

func (c *copies) lend(id string, l lent) (end func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lent == nil {
		c.lent = map[string]lent{}
	}
	c.lent[id] = l
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.lent, id)
	}
}

// source is what a peer may read, by the number that it was told.
func (c *copies) source(from peer.Peer, id string) (dbcopy.Source, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if l, ok := c.lent[id]; ok && l.agent == from.AgentID {
		return l.source, nil
	}
	return nil, copyUnknown(id)
}

const (
	// copyPoll is between two looks at a copy that a peer makes.
	copyPoll = 500 * time.Millisecond
	// copyUnheard is how long the peer may not be heard of. It gives up sooner by itself.
	copyUnheard = 5 * time.Minute
	// copyEnding is how long a peer's end of a cancelled copy is waited for.
	copyEnding = 30 * time.Second
)

// copyToPeer has a peer make a copy of a source, and shows how far it is.
func (a *Agent) copyToPeer(ctx context.Context, job *copyJob, source dbcopy.Source) error {
	to, err := a.peerNamed(job.view.Peer)
	if err != nil {
		return err
	}
	id := newID()
	defer a.copies.lend(id, lent{to.AgentID, source})()
	job.show(func(v *api.DatabaseCopy) { v.Step = "asking the peer" })
	request := copyRequest{ID: id, Name: job.view.Name, Origin: source.Origin(), Link: job.look().Link, MaxRate: job.rate}
	made, err := a.awaitPeer(ctx, to.Name, methodCopyCreate, request)
	for err == nil && made.State == api.Copying {
		job.show(func(v *api.DatabaseCopy) { showPeers(v, made) })
		select {
		case <-ctx.Done():
			err = context.Cause(ctx)
		case <-time.After(copyPoll):
			made, err = a.awaitPeer(ctx, to.Name, methodCopyShow, copyReference{id})
		}
	}
	if err != nil && problem.CodeOf(err) != "copy_unknown" {
		ending, stop := context.WithTimeout(context.WithoutCancel(ctx), copyEnding)
		defer stop()
		if failed := a.endpoint.Call(ending, to.Name, methodCopyCancel, copyReference{id}, nil); failed != nil && problem.CodeOf(failed) != "copy_unknown" {
			a.Log.Warn("the peer did not say that the copy is ended; it ends by itself", "name", job.view.Name, "peer", to.Name, "err", failed)
		}
		return err
	}
	if err != nil {
		return problem.New(problem.Transient, "copy_lost", "the peer's agent was started anew and has forgotten the copy").On(job.view.Name).
			WithHint("look whether the peer's instance has the database; if not, copy again")
	}
	job.show(func(v *api.DatabaseCopy) { showPeers(v, made) })
	if p := made.Problem; p != nil {
		kind := problem.Transient
		if made.State == api.CopyCancelled {
			kind = problem.Cancelled
		}
		return problem.New(kind, p.Code, "on %s: %s", to.Name, p.Title).On(p.Subject).WithHint("%s", p.Hint)
	}
	return nil
}

// awaitPeer asks a peer about a copy, again while it is not reached.
func (a *Agent) awaitPeer(ctx context.Context, name, method string, request any) (made api.DatabaseCopy, err error) {
	for end := time.Now().Add(copyUnheard); ; {
		err = a.endpoint.Call(ctx, name, method, request, &made)
		if err == nil || ctx.Err() != nil || !problem.Retry(err) || time.Now().After(end) {
			return made, err
		}
		select {
		case <-ctx.Done():
			return made, context.Cause(ctx)
		case <-time.After(copyPoll):
		}
	}
}

// showPeers takes over what the peer says of its half.
func showPeers(v *api.DatabaseCopy, made api.DatabaseCopy) {
	v.Step, v.TablesTotal, v.TablesDone, v.BytesTotal, v.BytesDone, v.BytesPerSecond = made.Step, made.TablesTotal, made.TablesDone, made.BytesTotal, made.BytesDone, made.BytesPerSecond
	v.Roles, v.Left, v.LargeObjects = made.Roles, made.Left, made.LargeObjects
	if made.State == api.Copied && made.LargeObjects == 0 {
		v.ObjectsAsOf = nil
	}
}

// handleCopies registers what peers may ask about copies.
func (a *Agent) handleCopies() {
	unary(a, methodCopyCreate, func(ctx context.Context, from peer.Peer, r copyRequest) (any, error) {
		if err := a.permit(from, methodCopyCreate, r.Name); err != nil {
			return nil, err
		}
		if err := dbcopy.CheckName(r.Name); err != nil {
			return nil, err
		}
		job := &copyJob{rate: r.MaxRate, agent: from.AgentID, view: api.DatabaseCopy{
			ID: r.ID, Database: r.Origin.Database, Name: r.Name, Peer: from.Name, Incoming: true, Link: r.Link, Attempt: 1}}
		showMoment(&job.view, r.Origin.Moment)
		return a.begin(job, func(ctx context.Context) error {
			return a.copyHere(ctx, job, r.ID, &remoteSource{agent: a, peer: from.Name, id: r.ID, origin: r.Origin})
		})
	})
	about := func(method string, do func(context.Context, *copyJob) (api.DatabaseCopy, error)) {
		unary(a, method, func(ctx context.Context, from peer.Peer, r copyReference) (any, error) {
			job, err := a.copies.get(r.ID)
			if err == nil && job.agent != from.AgentID {
				err = copyUnknown(r.ID)
			}
			if err != nil {
				return nil, err
			}
			return do(ctx, job)
		})
	}
	about(methodCopyShow, func(_ context.Context, job *copyJob) (api.DatabaseCopy, error) { return job.look(), nil })
	about(methodCopyCancel, func(ctx context.Context, job *copyJob) (api.DatabaseCopy, error) { return job.cancel(ctx) })
	lentStream(a, methodCopyTables, func(ctx context.Context, source dbcopy.Source, _ copyReference, s *peer.Stream) error {
		return replyWith(s, func() (any, error) { return source.Tables(ctx) })
	})
	lentStream(a, methodCopySchema, func(ctx context.Context, source dbcopy.Source, _ copyReference, s *peer.Stream) error {
		return replyWith(s, func() (any, error) { return source.Schema(ctx) })
	})
	lentStream(a, methodCopySequences, func(ctx context.Context, source dbcopy.Source, _ copyReference, s *peer.Stream) error {
		return replyWith(s, func() (any, error) { return source.Sequences(ctx) })
	})
	lentStream(a, methodCopyRows, func(ctx context.Context, source dbcopy.Source, r copyRowsRequest, s *peer.Stream) error {
		return flow.ReplyRows(ctx, s, r.Compress, func(ctx context.Context, w io.Writer) (int64, error) { return source.Copy(ctx, r.CopyRequest, w) })
	})
	lentStream(a, methodCopyPlan, func(ctx context.Context, source dbcopy.Source, r copyPlanRequest, s *peer.Stream) error {
		return replyWith(s, func() (any, error) { return source.Objects().Plan(ctx, r.PlanRequest) })
	})
	lentStream(a, methodCopyList, func(ctx context.Context, source dbcopy.Source, r copyListRequest, s *peer.Stream) error {
		return replyWith(s, func() (any, error) { return source.Objects().List(ctx, r.ListRequest) })
	})
	lentStream(a, methodCopyDescribe, func(ctx context.Context, source dbcopy.Source, r copyObjectsRequest, s *peer.Stream) error {
		return replyWith(s, func() (any, error) { return source.Objects().Describe(ctx, r.OIDs) })
	})
	lentStream(a, methodCopyPages, func(ctx context.Context, source dbcopy.Source, r copyObjectsRequest, s *peer.Stream) error {
		return flow.ReplyRows(ctx, s, r.Compress, func(ctx context.Context, w io.Writer) (int64, error) { return source.Objects().Copy(ctx, r.OIDs, w) })
	})
}

func replyWith(s *peer.Stream, f func() (any, error)) error {
	value, err := f()
	if err != nil {
		return err
	}
	return flow.Reply(s, value)
}

// lentStream registers a request for something of a source that is lent.
func lentStream[R interface{ copyID() string }](a *Agent, method string, f func(ctx context.Context, source dbcopy.Source, r R, s *peer.Stream) error) {
	a.endpoint.HandleStream(method, func(ctx context.Context, from peer.Peer, body json.RawMessage, s *peer.Stream) error {
		var r R
		if err := decode(body, &r); err != nil {
			return err
		}
		source, err := a.copies.source(from, r.copyID())
		if err != nil {
			return err
		}
		return f(ctx, source, r, s)
	})
}

// remoteSource is a source that a peer has lent. It implements dbcopy.Source.
type remoteSource struct {
	agent  *Agent
	peer   string
	id     string
	origin dbcopy.Origin
}

func (r *remoteSource) reference() copyReference { return copyReference{r.id} }

func (r *remoteSource) compress() bool { return !flow.IsLocal(r.agent.endpoint, r.peer) }

// Origin implements dbcopy.Source.
func (r *remoteSource) Origin() dbcopy.Origin { return r.origin }

// Schema implements dbcopy.Source.
func (r *remoteSource) Schema(ctx context.Context) (*schema.Dump, error) {
	return flow.Ask[*schema.Dump](ctx, r.agent.endpoint, r.peer, methodCopySchema, r.reference())
}

// Tables implements dbcopy.Source.
func (r *remoteSource) Tables(ctx context.Context) ([]seed.Table, error) {
	return flow.Ask[[]seed.Table](ctx, r.agent.endpoint, r.peer, methodCopyTables, r.reference())
}

// Copy implements dbcopy.Source.
func (r *remoteSource) Copy(ctx context.Context, c seed.CopyRequest, w io.Writer) (int64, error) {
	request := copyRowsRequest{r.reference(), c, r.compress()}
	return flow.FetchRows(ctx, r.agent.endpoint, r.peer, methodCopyRows, request, request.Compress, w)
}

// Sequences implements dbcopy.Source.
func (r *remoteSource) Sequences(ctx context.Context) ([]sequence.Sequence, error) {
	return flow.Ask[[]sequence.Sequence](ctx, r.agent.endpoint, r.peer, methodCopySequences, r.reference())
}

// Objects implements dbcopy.Source.
func (r *remoteSource) Objects() largeobject.Remote { return lentObjects{r} }

// Close implements dbcopy.Source. The peer lets its moment go when it learns of the end.
func (r *remoteSource) Close() {}

// lentObjects are the large objects of a source that a peer has lent.
type lentObjects struct{ *remoteSource }

// Plan implements largeobject.Remote.
func (r lentObjects) Plan(ctx context.Context, p largeobject.PlanRequest) (largeobject.Plan, error) {
	return flow.Ask[largeobject.Plan](ctx, r.agent.endpoint, r.peer, methodCopyPlan, copyPlanRequest{r.reference(), p})
}

// List implements largeobject.Remote.
func (r lentObjects) List(ctx context.Context, l largeobject.ListRequest) ([]largeobject.Entry, error) {
	return flow.Ask[[]largeobject.Entry](ctx, r.agent.endpoint, r.peer, methodCopyList, copyListRequest{r.reference(), l})
}

// Describe implements largeobject.Remote.
func (r lentObjects) Describe(ctx context.Context, oids []uint32) ([]largeobject.Object, error) {
	return flow.Ask[[]largeobject.Object](ctx, r.agent.endpoint, r.peer, methodCopyDescribe, copyObjectsRequest{copyReference: r.reference(), OIDs: oids})
}

// Copy implements largeobject.Remote.
func (r lentObjects) Copy(ctx context.Context, oids []uint32, w io.Writer) (int64, error) {
	request := copyObjectsRequest{r.reference(), oids, r.compress()}
	return flow.FetchRows(ctx, r.agent.endpoint, r.peer, methodCopyPages, request, request.Compress, w)
}
