package agent

import (
	"context"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/httpapi"
	"github.com/twinspan/twinspan/internal/link"
	"github.com/twinspan/twinspan/internal/peer"
	"github.com/twinspan/twinspan/internal/problem"
)

var _ httpapi.Agent = (*Agent)(nil)

// Info implements httpapi.Agent.
func (a *Agent) Info(ctx context.Context) (api.Agent, error) {
	out := api.Agent{
		ID: a.identity.AgentID(), Name: a.config.Name, Version: a.Version, Fingerprint: a.identity.Fingerprint(), Expires: a.identity.Expires().UTC(),
		Endpoint: a.config.Endpoint.Advertise, StartedAt: a.started.UTC(), Links: len(a.links.all()), Problems: []api.Problem{},
	}
	peers := a.book.List()
	out.Peers = len(peers)
	host, port, err := net.SplitHostPort(a.server.Address())
	if err != nil {
		return out, problem.Wrap(err, problem.Internal, "internal", "read the instance's address")
	}
	out.Postgres = api.Postgres{Managed: a.managed != nil, Host: host, User: a.server.User()}
	out.Postgres.Port, _ = strconv.Atoi(port)
	out.Postgres.DSN = "host=" + quoteDSN(host) + " port=" + port + " user=" + quoteDSN(a.server.User())
	if a.managed != nil {
		out.Postgres.DataDir = a.managed.DataDir()
		if filepath.IsAbs(host) {
			out.Postgres.SocketDir = host
		}
	}
	if f := a.facts.Load(); f != nil {
		out.Postgres.Version, out.Postgres.SystemID = f.Version, f.SystemID
		out.Postgres.Connected = problem.CodeOf(a.links.ready()) != "agent_starting"
	}
	if err := a.links.readyHere(); err != nil {
		p := problem.As(err)
		out.Problems = append(out.Problems, api.Problem{Code: p.Code, Severity: severityOf(p, api.Blocks), Title: p.Error(), Hint: p.Hint})
	}
	out.Problems = append(out.Problems, a.memberProblems()...)
	out.Problems = append(out.Problems, a.troubles.view()...)
	out.Problems = append(out.Problems, a.instanceProblems()...)
	out.Problems = append(out.Problems, a.backupProblems()...)
	out.Problems = append(out.Problems, a.expiries(peers)...)
	out.Problems = append(out.Problems, a.record.problems()...)
	return out, nil
}

// expiryWarning is how long before its end a certificate is spoken of.
const expiryWarning = 60 * 24 * time.Hour

// expiries warns of certificates that end soon. The keys are pinned, so an expired
// one still lets its owner in; it is time to rotate all the same.
func (a *Agent) expiries(peers []peer.Peer) []api.Problem {
	list := []api.Problem{}
	warn := func(subject string, end time.Time, hint string) {
		if !end.IsZero() && time.Until(end) < expiryWarning {
			list = append(list, api.Problem{Code: "certificate_expires", Severity: api.Warns, Subject: subject,
				Title: "the certificate of " + subject + " ends on " + end.UTC().Format(time.DateOnly), Hint: hint})
		}
	}
	warn(a.config.Name, a.identity.Expires(), "twinspan peer rotate makes a new one, without interruption")
	for _, p := range peers {
		warn(p.Name, p.Expires(), "run twinspan peer rotate at that agent")
	}
	return list
}

// quoteDSN writes a value of a connection string (manual, "Keyword/Value
// Connection Strings"), bare where it may be.
func quoteDSN(s string) string {
	if s != "" && !strings.ContainsAny(s, ` '\`) {
		return s
	}
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
}

// Peers implements httpapi.Agent.
func (a *Agent) Peers(ctx context.Context) ([]api.Peer, error) {
	list := []api.Peer{}
	for _, p := range a.book.List() {
		list = append(list, a.describe(p))
	}
	return list, nil
}

func (a *Agent) describe(p peer.Peer) api.Peer {
	out := api.Peer{Name: p.Name, ID: p.AgentID, Endpoint: p.Endpoint, Expires: p.Expires(), Fingerprint: p.Fingerprints[len(p.Fingerprints)-1]}
	status, _ := a.endpoint.Status(p.Name)
	out.Connected, out.Version = status.Connected, status.Product
	if status.Connected {
		since := status.Since.UTC()
		out.ConnectedAt = &since
		if status.RoundTrip > 0 {
			trip := status.RoundTrip.Seconds()
			out.RoundTripSeconds = &trip
		}
	} else if status.Problem != nil {
		out.Error = status.Problem.Error()
	}
	names := map[string]string{}
	for _, l := range a.links.all() {
		if l.Peer() == p.Name {
			out.Links++
			names[l.ID()] = l.Name()
		}
	}
	out.Grants = describeGrants(p.Grants, func(id string) string {
		if name := names[id]; name != "" {
			return name
		}
		return id
	})
	out.Requests = a.asked.open(p)
	return out
}

// Invite implements httpapi.Agent.
func (a *Agent) Invite(ctx context.Context, in api.Invite) (api.Invitation, error) {
	ttl := time.Duration(in.TTLSeconds) * time.Second
	grants, err := grantsOf(in.Grants)
	if err != nil {
		return api.Invitation{}, err
	}
	if ttl == 0 {
		ttl = peer.DefaultInvitation
	}
	expires := time.Now().Add(ttl)
	token, err := a.endpoint.Invite(ttl, grants...)
	if err != nil {
		return api.Invitation{}, err
	}
	return api.Invitation{Grants: describeGrants(grants, func(string) string { return "" }), Token: token, Endpoint: a.config.Endpoint.Advertise, Fingerprint: a.identity.Fingerprint(), Expires: expires.UTC()}, nil
}

// Invitations implements httpapi.Agent.
func (a *Agent) Invitations(context.Context) ([]api.OpenInvitation, error) {
	open, err := a.endpoint.Invitations()
	var list []api.OpenInvitation
	for _, i := range open {
		list = append(list, api.OpenInvitation{ID: i.ID, Created: i.Created, Expires: i.Expires, Attempts: i.Attempts,
			Grants: describeGrants(i.Grants, func(string) string { return "" })})
	}
	return list, err
}

// Uninvite implements httpapi.Agent.
func (a *Agent) Uninvite(_ context.Context, id string) error { return a.endpoint.Uninvite(id) }

// Join implements httpapi.Agent.
func (a *Agent) Join(ctx context.Context, in api.JoinRequest) (api.Peer, error) {
	grants, err := grantsOf(in.Grants)
	if err != nil {
		return api.Peer{}, err
	}
	if len(grants) == 0 && !in.GrantNothing {
		grants = peer.JoinedGrants()
	}
	p, err := a.endpoint.Join(ctx, in.Token, peer.JoinOptions{Grants: grants})
	if err != nil {
		return api.Peer{}, err
	}
	return a.describe(p), nil
}

// ExportPeer implements httpapi.Agent.
func (a *Agent) ExportPeer(ctx context.Context) (api.PeerExport, error) {
	certificate, endpoint := a.endpoint.Export()
	return api.PeerExport{Name: a.config.Name, ID: a.identity.AgentID(), Endpoint: endpoint, Fingerprint: a.identity.Fingerprint(), Certificate: string(certificate)}, nil
}

// AddPeer implements httpapi.Agent.
func (a *Agent) AddPeer(ctx context.Context, in api.AddPeer) (api.Peer, error) {
	p, err := peer.NewPeer(in.Name, in.Endpoint, []byte(in.Certificate))
	if err == nil {
		p.Grants, err = grantsOf(in.Grants)
	}
	if err != nil {
		return api.Peer{}, err
	}
	if err := a.book.Add(p); err != nil {
		return api.Peer{}, err
	}
	return a.describe(p), nil
}

// SetPeer implements httpapi.Agent.
func (a *Agent) SetPeer(ctx context.Context, name string, in api.SetPeer) (api.Peer, error) {
	if in.Fingerprint == "" && in.Endpoint == nil {
		return api.Peer{}, problem.New(problem.Invalid, "request_invalid", "neither a key nor an address of the peer is given").On(name)
	}
	if in.Endpoint != nil {
		if err := a.book.SetEndpoint(name, *in.Endpoint); err != nil {
			return api.Peer{}, err
		}
		a.Log.Info("address of a peer changed", "peer", name, "endpoint", *in.Endpoint)
	}
	if in.Fingerprint != "" {
		if err := a.endpoint.Trust(name, in.Fingerprint); err != nil {
			return api.Peer{}, err
		}
		a.Log.Info("another key of a peer is trusted", "peer", name, "fingerprint", in.Fingerprint)
	}
	p, err := a.peerNamed(name)
	if err != nil {
		return api.Peer{}, err
	}
	return a.describe(p), nil
}

// RemovePeer implements httpapi.Agent. Without force the links of the peer keep it; with
// force the trust ends at once, and the links stand still until they are deleted or the
// peer is trusted again.
func (a *Agent) RemovePeer(ctx context.Context, name string, force bool) error {
	for _, l := range a.links.all() {
		if l.Peer() == name && !force {
			return problem.New(problem.Conflict, "peer_in_use", "peer %q has the link %q", name, l.Name()).On(name).
				WithHint("delete its links first, or end the trust at once with --force: its links stand still then")
		}
	}
	if err := a.endpoint.Remove(name); err != nil {
		return err
	}
	a.asked.forget(name)
	a.Log.Info("peer removed", "peer", name, "forced", force)
	return nil
}

// view describes a link, with what only the agent knows of it.
func (a *Agent) view(l *link.Link) api.Link {
	v, _ := a.trusted(l, l.View())
	v.Problems = append(v.Problems, a.record.ofHooks()...) // which say nothing of the link's health
	return v
}

// trusted adds to the view of a link what is wrong with the trust in its peer, and returns
// that by itself, too.
func (a *Agent) trusted(l *link.Link, v api.Link) (whole api.Link, added []api.Problem) {
	before := len(v.Problems)
	if p, ok := a.book.Get(l.Peer()); !ok || p.AgentID != l.PeerAgent() {
		v.Problems = append(v.Problems, api.Problem{Code: "peer_removed", Severity: api.Blocks, Subject: l.Peer(),
			Title: "the other side's agent, peer " + l.Peer() + ", is not trusted any more: the link stands still",
			Hint:  "trust it again under that name, with peer invite and join or peer add; or remove this side of the link with link delete --force"})
		v.Health = api.Unhealthy
		return v, v.Problems[before:]
	}
	// What only an operator's word mends is shown by itself, not as the reason of a problem
	// that passes.
	status, _ := a.endpoint.Status(l.Peer())
	switch p := problem.As(status.Problem); problem.CodeOf(status.Problem) {
	case "peer_key_unknown", "peer_refused", "peer_agent", "agent_twice":
		v.Problems = append(v.Problems, api.Problem{Code: p.Code, Severity: api.Blocks, Subject: l.Peer(), Title: p.Error(), Hint: p.Hint})
		v.Health = api.Unhealthy
	}
	return v, v.Problems[before:]
}

// RotateKey implements httpapi.Agent.
func (a *Agent) RotateKey(ctx context.Context) (api.Agent, error) {
	if _, err := a.endpoint.Rotate(); err != nil {
		return api.Agent{}, err
	}
	return a.Info(ctx)
}

// Links implements httpapi.Agent.
func (a *Agent) Links(ctx context.Context) ([]api.Link, error) {
	if err := a.links.readyHere(); err != nil {
		return nil, err
	}
	list := []api.Link{}
	for _, l := range a.links.all() {
		list = append(list, a.view(l))
	}
	return list, nil
}

// Link implements httpapi.Agent.
func (a *Agent) Link(ctx context.Context, name string) (api.Link, error) {
	l, err := a.links.named(name)
	if err != nil {
		return api.Link{}, err
	}
	return a.view(l), nil
}

// LargeObjects implements httpapi.Agent.
func (a *Agent) LargeObjects(ctx context.Context, name string, in api.LargeObjectsRequest) (api.LargeObjectsResult, error) {
	l, err := a.links.named(name)
	if err != nil {
		return api.LargeObjectsResult{}, err
	}
	return l.LargeObjects().Request(ctx, in)
}

// SetLink implements httpapi.Agent.
func (a *Agent) SetLink(ctx context.Context, name string, in api.SetLink) (api.Link, error) {
	l, err := a.links.named(name)
	if err != nil {
		return api.Link{}, err
	}
	if err := l.Set(ctx, in); err != nil {
		return api.Link{}, err
	}
	return a.view(l), nil
}

// Suspend implements httpapi.Agent.
func (a *Agent) Suspend(ctx context.Context, name string) (api.Link, error) {
	l, err := a.links.named(name)
	if err != nil {
		return api.Link{}, err
	}
	if err := l.Suspend(ctx); err != nil {
		return api.Link{}, err
	}
	return a.view(l), nil
}

// Resume implements httpapi.Agent.
func (a *Agent) Resume(ctx context.Context, name string) (api.Link, error) {
	l, err := a.links.named(name)
	if err != nil {
		return api.Link{}, err
	}
	if err := l.Resume(ctx); err != nil {
		return api.Link{}, err
	}
	return a.view(l), nil
}

// ResumeWithRepair implements httpapi.Agent.
func (a *Agent) ResumeWithRepair(ctx context.Context, name string) (api.Link, error) {
	l, err := a.links.named(name)
	if err != nil {
		return api.Link{}, err
	}
	if err := l.ResumeWithRepair(ctx); err != nil {
		return api.Link{}, err
	}
	return a.view(l), nil
}

// ResumeSkipping implements httpapi.Agent.
func (a *Agent) ResumeSkipping(ctx context.Context, name string) (api.Link, error) {
	l, err := a.links.named(name)
	if err != nil {
		return api.Link{}, err
	}
	if err := l.Replayer().Skip(ctx); err != nil {
		return api.Link{}, err
	}
	return a.view(l), nil
}

// DeleteLink implements httpapi.Agent.
func (a *Agent) DeleteLink(ctx context.Context, name string, force bool) (api.DeleteResult, error) {
	l, err := a.links.named(name)
	if err != nil {
		return api.DeleteResult{}, err
	}
	return l.Delete(ctx, force)
}
