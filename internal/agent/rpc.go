package agent

import (
	"context"
	"encoding/json"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/assess"
	"github.com/twinspan/twinspan/internal/link"
	"github.com/twinspan/twinspan/internal/peer"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/wire"
)

// handle registers what other agents may ask. A link answers its own peer only.
func (a *Agent) handle() {
	unary(a, link.MethodCheck, func(ctx context.Context, from peer.Peer, r link.CheckRequest) (any, error) {
		found, err := assess.Secondary(ctx, a.server, assess.Target{Source: r.Source, Needs: r.Needs, Database: r.Database})
		if refused := a.permit(from, link.MethodCreate, r.Database); refused != nil && err == nil {
			found = append(found, notGranted(refused))
		}
		return link.CheckResponse{Findings: found}, err
	})
	unary(a, link.MethodRoles, func(ctx context.Context, from peer.Peer, r link.RolesRequest) (any, error) {
		if err := a.permit(from, link.MethodRoles, r.Database); err != nil {
			return nil, err
		}
		return link.MakeRoles(ctx, a.server, r)
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
	onLink(a, link.MethodChange, func(ctx context.Context, l *link.Link, r link.ChangeRequest) (any, error) {
		return nil, l.HandleChange(ctx, r)
	}, func(r link.ChangeRequest) string { return r.ID })
	onLink(a, link.MethodSet, func(ctx context.Context, l *link.Link, r link.SettingsRequest) (any, error) {
		return nil, l.HandleSet(ctx, r)
	}, func(r link.SettingsRequest) string { return r.ID })
	onLink(a, link.MethodRepair, func(ctx context.Context, l *link.Link, r link.Reference) (any, error) {
		return nil, l.HandleRepair(ctx, r)
	}, func(r link.Reference) string { return r.ID })
	onLink(a, link.MethodSkip, func(ctx context.Context, l *link.Link, r link.Reference) (any, error) {
		return nil, l.HandleSkip(ctx, r)
	}, func(r link.Reference) string { return r.ID })
	onLink(a, link.MethodRights, func(ctx context.Context, l *link.Link, r link.RightsRequest) (any, error) {
		return l.HandleRights(ctx, r)
	}, func(r link.RightsRequest) string { return r.ID })
	onLink(a, link.MethodRolesShow, func(ctx context.Context, l *link.Link, r link.Reference) (any, error) {
		return l.HandleRolesShow(ctx, r)
	}, func(r link.Reference) string { return r.ID })
	onLink(a, link.MethodInventory, func(ctx context.Context, l *link.Link, r link.Reference) (any, error) {
		return l.HandleInventory(ctx, r)
	}, func(r link.Reference) string { return r.ID })
	onLink(a, link.MethodUncarried, func(ctx context.Context, l *link.Link, r link.Reference) (any, error) {
		return l.HandleUncarried(ctx, r)
	}, func(r link.Reference) string { return r.ID })
	onLink(a, link.MethodRolesBring, func(ctx context.Context, l *link.Link, r link.BringRequest) (any, error) {
		return l.HandleRolesBring(ctx, r)
	}, func(r link.BringRequest) string { return r.ID })
	onLinkStream(a, link.MethodRenew, (*link.Link).HandleRenew, func(r link.SnapshotRequest) string { return r.ID })
	onLink(a, link.MethodDelete, func(ctx context.Context, l *link.Link, r link.Reference) (any, error) {
		return l.DeleteHere(ctx)
	}, func(r link.Reference) string { return r.ID })
	onLink(a, link.MethodReport, func(ctx context.Context, l *link.Link, r link.Report) (any, error) {
		return l.HandleReport(ctx, r)
	}, func(r link.Report) string { return r.ID })
	onLink(a, link.MethodBegin, func(ctx context.Context, l *link.Link, r link.BeginRequest) (any, error) {
		return l.HandleBegin(ctx, r)
	}, func(r link.BeginRequest) string { return r.ID })
	onLink(a, link.MethodEnd, func(ctx context.Context, l *link.Link, r link.SessionReference) (any, error) {
		return nil, l.HandleEnd(ctx, r)
	}, func(r link.SessionReference) string { return r.ID })
	onLink(a, link.MethodVerifyStart, func(ctx context.Context, l *link.Link, r link.VerifyRequest) (any, error) {
		return l.HandleVerify(ctx, r)
	}, func(r link.VerifyRequest) string { return r.ID })
	onLink(a, link.MethodVerifyShow, func(ctx context.Context, l *link.Link, r link.Reference) (any, error) {
		return l.HandleVerifyShow(ctx, r)
	}, func(r link.Reference) string { return r.ID })
	onLink(a, link.MethodVerifyCancel, func(ctx context.Context, l *link.Link, r link.Reference) (any, error) {
		return l.HandleVerifyCancel(ctx, r)
	}, func(r link.Reference) string { return r.ID })
	onLink(a, link.MethodAuditShow, func(ctx context.Context, l *link.Link, r link.Reference) (any, error) {
		return l.HandleAuditShow(ctx, r)
	}, func(r link.Reference) string { return r.ID })
	onLink(a, link.MethodAuditStart, func(ctx context.Context, l *link.Link, r link.Reference) (any, error) {
		return l.HandleAuditStart(ctx, r)
	}, func(r link.Reference) string { return r.ID })
	onLink(a, link.MethodLost, func(ctx context.Context, l *link.Link, r link.LostRequest) (any, error) {
		return l.HandleLost(ctx, r)
	}, func(r link.LostRequest) string { return r.ID })
	onLink(a, link.MethodRejoinPlan, func(ctx context.Context, l *link.Link, r link.RejoinRequest) (any, error) {
		return l.HandleRejoinPlan(ctx, r)
	}, func(r link.RejoinRequest) string { return r.ID })
	onLink(a, link.MethodRejoin, func(ctx context.Context, l *link.Link, r link.RejoinRequest) (any, error) {
		return nil, l.HandleRejoin(ctx, r)
	}, func(r link.RejoinRequest) string { return r.ID })
	onLink(a, link.MethodLostDiscard, func(ctx context.Context, l *link.Link, r link.LostRequest) (any, error) {
		return nil, l.HandleLostDiscard(ctx, r)
	}, func(r link.LostRequest) string { return r.ID })
	onLinkStream(a, link.MethodLostPage, (*link.Link).HandleLostPage, func(r link.LostPageRequest) string { return r.ID })
	a.handleFailover()
	a.handleCopies()
	onLinkStream(a, link.MethodVerifySnapshot, (*link.Link).HandleVerifySnapshot, func(r link.SnapshotRequest) string { return r.ID })
	onLinkStream(a, link.MethodVerifyRead, (*link.Link).HandleVerifyRead, func(r link.VerifyRead) string { return r.ID })
	onLinkStream(a, link.MethodTables, (*link.Link).HandleTables, func(r link.SessionReference) string { return r.ID })
	onLinkStream(a, link.MethodSchema, (*link.Link).HandleSchema, func(r link.SessionReference) string { return r.ID })
	onLinkStream(a, link.MethodSequences, (*link.Link).HandleSequences, func(r link.SessionReference) string { return r.ID })
	onLink(a, link.MethodLargeObjects, func(ctx context.Context, l *link.Link, r link.LargeObjectsRequest) (any, error) {
		return l.HandleLargeObjects(ctx, r)
	}, func(r link.LargeObjectsRequest) string { return r.ID })
	onLinkStream(a, link.MethodPlanObjects, (*link.Link).HandlePlanObjects, func(r link.PlanObjectsRequest) string { return r.ID })
	onLinkStream(a, link.MethodListObjects, (*link.Link).HandleListObjects, func(r link.ListObjectsRequest) string { return r.ID })
	onLinkStream(a, link.MethodDescribeObjects, (*link.Link).HandleDescribeObjects, func(r link.NamedObjectsRequest) string { return r.ID })
	onLinkStream(a, link.MethodCopyObjects, (*link.Link).HandleCopyObjects, func(r link.NamedObjectsRequest) string { return r.ID })
	onLinkStream(a, link.MethodPromises, (*link.Link).HandlePromises, func(r link.PromisesRequest) string { return r.ID })
	onLink(a, link.MethodAccept, func(ctx context.Context, l *link.Link, r link.AcceptRequest) (any, error) {
		return nil, l.HandleAccept(ctx, r)
	}, func(r link.AcceptRequest) string { return r.ID })
	onLinkStream(a, link.MethodSchemaSign, (*link.Link).HandleSchemaSign, func(r link.Reference) string { return r.ID })
	onLinkStream(a, link.MethodSchemaRead, (*link.Link).HandleSchemaRead, func(r link.SchemaReadRequest) string { return r.ID })
	onLinkStream(a, link.MethodUnseen, (*link.Link).HandleUnseen, func(r link.UnseenRequest) string { return r.ID })
	onLinkStream(a, link.MethodCopy, (*link.Link).HandleCopy, func(r link.CopyRequest) string { return r.ID })
	onLinkStream(a, link.MethodStream, (*link.Link).HandleStream, func(r link.StreamRequest) string { return r.ID })
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

func onLink[R any](a *Agent, method string, f func(ctx context.Context, l *link.Link, r R) (any, error), id func(R) string) {
	a.endpoint.Handle(method, func(ctx context.Context, from peer.Peer, body json.RawMessage) (any, error) {
		var r R
		if err := decode(body, &r); err != nil {
			return nil, err
		}
		l, err := a.linkWith(from, id(r))
		if err != nil {
			a.byPeer(from, method, nil, err)
			return nil, err
		}
		var out any
		if err = a.permit(from, method, l.Database()); err == nil {
			out, err = f(ctx, l, r)
		}
		a.byPeer(from, method, l, err)
		return out, err
	})
}

func onLinkStream[R any](a *Agent, method string, f func(l *link.Link, ctx context.Context, r R, s *peer.Stream) error, id func(R) string) {
	a.endpoint.HandleStream(method, func(ctx context.Context, from peer.Peer, body json.RawMessage, s *peer.Stream) error {
		var r R
		if err := decode(body, &r); err != nil {
			return err
		}
		l, err := a.linkWith(from, id(r))
		if err == nil {
			err = a.permit(from, method, l.Database())
		}
		if err != nil {
			return err
		}
		return f(l, ctx, r, s)
	})
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
