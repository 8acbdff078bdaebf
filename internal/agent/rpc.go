package agent

import (
	"context"
	"encoding/json"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/assess"
	"github.com/twinspan/twinspan/internal/dbroles"
	"github.com/twinspan/twinspan/internal/link"
	"github.com/twinspan/twinspan/internal/peer"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/side"
	"github.com/twinspan/twinspan/internal/wire"
)

// handle registers what other agents may ask. A link answers its own peer only.
func (a *Agent) handle() {
	unary(a, link.MethodCheck, func(ctx context.Context, from peer.Peer, r link.CheckRequest) (any, error) {
		found, err := assess.Secondary(ctx, a.server, assess.Target{Source: r.Source, Needs: r.Needs, Database: r.Database, Storage: a.storage()})
		if refused := a.permit(from, link.MethodCreate, r.Database); refused != nil && err == nil {
			found = append(found, notGranted(refused))
		}
		return link.CheckResponse{Findings: found}, err
	})
	unary(a, dbroles.MethodMake, func(ctx context.Context, from peer.Peer, r dbroles.MakeRequest) (any, error) {
		if err := a.permit(from, dbroles.MethodMake, r.Database); err != nil {
			return nil, err
		}
		return dbroles.Make(ctx, a.server, r)
	})
	a.endpoint.HandleStream(link.MethodProbe, func(ctx context.Context, from peer.Peer, body json.RawMessage, s *peer.Stream) error {
		return link.TakeProbe(s)
	})
	unary(a, link.MethodCreate, func(ctx context.Context, from peer.Peer, r link.CreateRequest) (any, error) {
		if err := a.permit(from, link.MethodCreate, r.Database); err != nil {
			return nil, err
		}
		return nil, a.makeTwin(ctx, from, r)
	})
	unary(a, link.MethodInvert, func(ctx context.Context, from peer.Peer, r api.CreateLink) (any, error) {
		if err := a.permit(from, link.MethodInvert, r.Database); err != nil {
			return nil, err
		}
		r.Peer, r.FromPeer = from.Name, false
		return a.createFor(ctx, r)
	})
	for _, q := range link.Requests() {
		a.answer(q)
	}
	a.handleCopies()
}

func unary[R any](a *Agent, method string, f func(ctx context.Context, from peer.Peer, r R) (any, error)) {
	a.endpoint.Handle(method, func(ctx context.Context, from peer.Peer, body json.RawMessage) (any, error) {
		var r R
		if err := decode(body, &r); err != nil {
			return nil, err
		}
		out, err := f(ctx, from, r)
		a.byPeer(from, method, nil, err)
		return out, err
	})
}

// answer registers a request that other agents may make of a link.
func (a *Agent) answer(q link.Request) {
	if q.Answers != nil {
		a.endpoint.HandleStream(q.Method, func(ctx context.Context, from peer.Peer, body json.RawMessage, s *peer.Stream) error {
			r, err := q.Decode(body)
			if err != nil {
				return err
			}
			l, err := a.linkFor(from, q, r)
			if err != nil {
				return err
			}
			return q.Answers(ctx, l, r, s)
		})
		return
	}
	a.endpoint.Handle(q.Method, func(ctx context.Context, from peer.Peer, body json.RawMessage) (answer any, err error) {
		r, err := q.Decode(body)
		if err != nil {
			return nil, err
		}
		l, err := a.linkFor(from, q, r)
		if err == nil {
			answer, err = q.Answer(ctx, l, r)
		}
		a.byPeer(from, q.Method, l, err)
		return answer, err
	})
}

// linkFor finds the link that a request is made of, and refuses one that is not granted: the link
// is there all the same.
func (a *Agent) linkFor(from peer.Peer, q link.Request, r side.Request) (*link.Link, error) {
	l, err := a.linkWith(from, r.LinkID())
	if err != nil {
		return nil, err
	}
	return l, a.permit(from, q.Method, l.Database())
}

func decode(body json.RawMessage, into any) error {
	if err := wire.Decode(body, into, wire.Room(len(body))); err != nil {
		return problem.Wrap(err, problem.Invalid, "request_invalid", "read the peer's request")
	}
	return nil
}

// linkWith finds a link that the asking agent is the other side of. To anybody
// else it does not exist.
func (a *Agent) linkWith(from peer.Peer, id string) (*link.Link, error) {
	l, err := a.links.get(id)
	if err != nil {
		// To be unknown is for good, to the other side.
		if hidden := a.troubles.hiding(id); hidden != nil {
			return nil, hidden
		}
		return nil, err
	}
	if l.PeerAgent() != from.AgentID {
		return nil, problem.New(problem.NotFound, "link_unknown", "this agent has no such link with you").On(id)
	}
	return l, nil
}

// makeTwin makes this side of a link of which the peer has the primary.
func (a *Agent) makeTwin(ctx context.Context, from peer.Peer, r link.CreateRequest) error {
	a.links.making.Lock()
	defer a.links.making.Unlock()
	if err := a.links.ready(); err != nil {
		return err
	}
	if _, err := a.linkWith(from, r.ID); err == nil {
		return nil
	}
	if err := a.nameFree(r.Name); err != nil {
		return err
	}
	l, err := link.MakeTwin(ctx, a.place(), from.Name, from.AgentID, r)
	if err != nil {
		return err
	}
	a.Log.Info("link made", "link", r.Name, "role", "secondary", "database", r.Database, "peer", from.Name)
	a.record.made(l)
	// What lies in the twin is the peer's own: with it comes what its link needs.
	if err := a.book.Grant(from.Name, peer.LinkGrants(r.Database, r.ID)); err != nil {
		return err
	}
	return a.links.add(l)
}

func (a *Agent) nameFree(name string) error {
	for _, l := range a.links.all() {
		if l.Name() == name {
			return problem.New(problem.Conflict, "link_exists", "agent %s has a link %q already", a.config.Name, name).On(name).
				WithHint("choose another name, or delete that link first")
		}
	}
	return nil
}
