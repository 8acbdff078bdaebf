package agent

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/assess"
	"github.com/twinspan/twinspan/internal/dbroles"
	"github.com/twinspan/twinspan/internal/link"
	"github.com/twinspan/twinspan/internal/peer"
	"github.com/twinspan/twinspan/internal/problem"
)

// need is what a request of a peer needs to be granted.
type need link.Right

// ofLinks are the requests that are made of a link, by method.
var ofLinks = func() map[string]link.Request {
	all := map[string]link.Request{}
	for _, q := range link.Requests() {
		all[q.Method] = q
	}
	return all
}()

// needs lists every request, so that none is let through for having been forgotten: those of a
// link say it themselves.
func needs(method string) (need, bool) {
	if q, known := ofLinks[method]; known {
		return need(q.Needs), true
	}
	switch method {
	case link.MethodProbe, link.MethodCheck,
		// About a copy whose number only the two agents know: each looks who asks.
		methodCopyShow, methodCopyCancel, methodCopyTables, methodCopySchema, methodCopyRows, methodCopySequences, methodCopyPlan, methodCopyList, methodCopyDescribe, methodCopyPages:
		return need{}, true
	case link.MethodInvert:
		return need{peer.OpLink, peer.FromHere}, true
	case link.MethodCreate, methodCopyCreate:
		return need{peer.OpLink, peer.ToHere}, true
	case dbroles.MethodMake:
		return need{peer.OpRoles, peer.ToHere}, true
	}
	return need{}, false
}

// permit refuses what the peer was not granted, with the command that grants it. The
// request is remembered, for this side's operator to see.
func (a *Agent) permit(from peer.Peer, method, database string) error {
	n, known := needs(method)
	if !known {
		return problem.New(problem.Internal, "internal", "the request %s has no place in the table of rights", method)
	}
	if n.Operation == "" {
		return nil
	}
	// As the book has it now: a request may have begun before something was revoked.
	now, ok := a.book.Get(from.Name)
	if ok && now.AgentID == from.AgentID && now.Allows(database, n.Direction, n.Operation) {
		return nil
	}
	if a.asked.note(from.Name, asking{database, n.Direction, n.Operation}, time.Now()) {
		a.Log.Warn("request of a peer refused: not granted", "peer", from.Name, "method", method, "database", database, "direction", string(n.Direction), "operation", string(n.Operation))
	}
	return problem.New(problem.Unauthorised, "peer_not_granted", "agent %s does not let its peer %s do this with database %q: %s", a.config.Name, from.Name, database, n.words()).
		On(database).WithHint("its operator allows it there with: %s", grantCommand(from.Name, database, n))
}

// mayChange says why the peer of a link may not ask to have its sides change places.
func (a *Agent) mayChange(l *link.Link) error {
	return a.permit(peer.Peer{Name: l.Peer(), AgentID: l.PeerAgent()}, link.MethodFailover, l.Database())
}

// words says what is asked for, from the side of the agent that is asked.
func (n need) words() string {
	switch {
	case n.Operation == peer.OpRoles:
		return "make roles on its server"
	case n.Operation == peer.OpFailover:
		return "have the sides change places"
	case n.Operation == peer.OpDelete:
		return "remove a link"
	case n.Direction == peer.FromHere:
		return "copy and follow it, from there to here"
	case n.Direction == peer.ToHere:
		return "make it a twin, from here to there"
	}
	return "work on a link of it"
}

func grantCommand(name, database string, n need) string {
	direction := string(n.Direction)
	if direction == "" {
		direction = "both"
	}
	return fmt.Sprintf("twinspan peer grant %s --database %s --direction %s --operations %s", name, shellQuoted(database), direction, n.Operation)
}

// shellQuoted writes a name for a shell, bare where it may be.
func shellQuoted(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_-.", r)
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// notGranted makes a finding of a refusal.
func notGranted(err error) assess.Finding {
	p := problem.As(err)
	return assess.Finding{Code: p.Code, Severity: problem.Blocks, Object: p.Subject, Why: p.Text, Remedy: p.Hint}
}

// asking is a request that was refused for want of a grant.
type asking struct {
	database  string
	direction peer.Direction
	op        peer.Operation
}

// maxAsked bounds what is remembered of one peer.
const maxAsked = 20

// requests are what peers asked for and were not granted, the latest of each. They are
// lost when the agent ends; who still wants it asks again.
type requests struct {
	mu sync.Mutex
	of map[string]map[asking]time.Time // by the peer's name
}

// note remembers a request and says whether it is a new one.
func (r *requests) note(name string, what asking, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.of == nil {
		r.of = map[string]map[asking]time.Time{}
	}
	list := r.of[name]
	if list == nil {
		list = map[asking]time.Time{}
		r.of[name] = list
	}
	_, old := list[what]
	if !old && len(list) >= maxAsked {
		return false
	}
	list[what] = now
	return !old
}

// open lists the requests of a peer that are still not granted, by database.
func (r *requests) open(p peer.Peer) []api.PeerRequest {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := []api.PeerRequest{}
	for what, at := range r.of[p.Name] {
		if p.Allows(what.database, what.direction, what.op) {
			delete(r.of[p.Name], what)
			continue
		}
		list = append(list, api.PeerRequest{Database: what.database, Direction: string(what.direction), Operation: string(what.op), At: at.UTC(),
			Command: grantCommand(p.Name, what.database, need{what.op, what.direction})})
	}
	slices.SortFunc(list, func(x, y api.PeerRequest) int {
		return strings.Compare(x.Database+"\x00"+x.Direction+x.Operation, y.Database+"\x00"+y.Direction+y.Operation)
	})
	return list
}

func (r *requests) forget(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.of, name)
}

// endLinkGrants takes away what came with a link.
func (a *Agent) endLinkGrants(id string) error {
	return a.book.EndLinkGrants(func(link string) bool { return link != id })
}

// tidyGrants takes away what came with links that are gone: an agent may have been killed
// between the two. Where a database could not be read its links may still be there.
func (a *Agent) tidyGrants() {
	if len(a.troubles.databases()) > 0 {
		return
	}
	there := map[string]bool{}
	for _, l := range a.links.all() {
		there[l.ID()] = true
	}
	if err := a.book.EndLinkGrants(func(link string) bool { return there[link] }); err != nil {
		a.Log.Warn("what came with links that are gone is still granted", "err", err)
	}
}

// GrantPeer implements httpapi.Agent.
func (a *Agent) GrantPeer(ctx context.Context, name string, in api.PeerGrants) (api.Peer, error) {
	return a.changeGrants(name, in, a.book.Grant)
}

// RevokePeer implements httpapi.Agent.
func (a *Agent) RevokePeer(ctx context.Context, name string, in api.PeerGrants) (api.Peer, error) {
	return a.changeGrants(name, in, a.book.Revoke)
}

func (a *Agent) changeGrants(name string, in api.PeerGrants, change func(string, []peer.Grant) error) (api.Peer, error) {
	list, err := grantsOf(in.Grants)
	if err == nil {
		err = change(name, list)
	}
	if err != nil {
		return api.Peer{}, err
	}
	p, err := a.peerNamed(name)
	if err != nil {
		return api.Peer{}, err
	}
	a.Log.Info("what a peer may ask for was changed", "peer", name, "grants", len(p.Grants))
	return a.describe(p), nil
}

// grantsOf reads grants of the API.
func grantsOf(list []api.Grant) ([]peer.Grant, error) {
	out := make([]peer.Grant, 0, len(list))
	for _, g := range list {
		made := peer.Grant{Database: g.Database, Direction: peer.Direction(g.Direction)}
		for _, op := range g.Operations {
			made.Operations = append(made.Operations, peer.Operation(op))
		}
		if err := made.Check(); err != nil {
			return nil, err
		}
		out = append(out, made)
	}
	return out, nil
}

func describeGrants(list []peer.Grant, named func(id string) string) []api.Grant {
	out := []api.Grant{}
	for _, g := range list {
		made := api.Grant{Database: g.Database, Direction: string(g.Direction), Link: named(g.Link)}
		for _, op := range g.Operations {
			made.Operations = append(made.Operations, string(op))
		}
		out = append(out, made)
	}
	return out
}
