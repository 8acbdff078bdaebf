package agent

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/assess"
	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/dbcopy"
	"github.com/twinspan/twinspan/internal/link"
	"github.com/twinspan/twinspan/internal/peer"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/role"
)

// CreateLink implements httpapi.Agent. With it this side's operator lets the peer do what
// the link needs.
func (a *Agent) CreateLink(ctx context.Context, in api.CreateLink) (api.Link, error) {
	return a.create(ctx, in, true)
}

// createFor makes a link that a peer asked for: it comes with no right beyond those that
// let it ask.
func (a *Agent) createFor(ctx context.Context, in api.CreateLink) (api.Link, error) {
	return a.create(ctx, in, false)
}

func (a *Agent) create(ctx context.Context, in api.CreateLink, own bool) (api.Link, error) {
	ready := a.links.ready
	if own {
		ready = a.links.readyHere
	}
	if err := ready(); err != nil {
		return api.Link{}, err
	}
	if in.PeerDatabase == "" {
		in.PeerDatabase = in.Database
	}
	if in.Mode == "" {
		in.Mode = api.Async
	}
	if in.WithPasswords && !in.CreateRoles {
		return api.Link{}, problem.New(problem.Invalid, "roles_not_asked", "passwords are brought with the roles that are created").On(in.Name).
			WithHint("add --create-roles")
	}
	var err error
	if in.OnConflict, err = link.ParseConflict(in.OnConflict); err != nil {
		return api.Link{}, err
	}
	if _, err := link.ParseIsolation(in.OnIsolation); err != nil {
		return api.Link{}, err
	}
	other, err := a.peerNamed(in.Peer)
	if err != nil {
		return api.Link{}, err
	}
	if in.FromPeer {
		return a.createFromPeer(ctx, in)
	}
	a.links.making.Lock()
	l, err := a.createHere(ctx, in, other, own)
	a.links.making.Unlock()
	if err != nil {
		return api.Link{}, err
	}
	return l.View(), nil
}

func (a *Agent) peerNamed(name string) (peer.Peer, error) {
	p, ok := a.book.Get(name)
	if !ok {
		return p, problem.New(problem.NotFound, "peer_unknown", "there is no peer %q", name).On(name).
			WithHint("twinspan peer list shows the peers; twinspan peer invite and join make new ones")
	}
	return p, nil
}

// createFromPeer has the peer create the link, with its database as the primary.
func (a *Agent) createFromPeer(ctx context.Context, in api.CreateLink) (api.Link, error) {
	there := in
	there.Database, there.PeerDatabase = in.PeerDatabase, in.Database
	// The peer asks back for this side's half, and whoever asked for the link lets it.
	lets := peer.Grant{Database: in.Database, Direction: peer.ToHere, Operations: []peer.Operation{peer.OpLink}, Link: newID()}
	if in.CreateRoles {
		lets.Operations = append(lets.Operations, peer.OpRoles)
	}
	if err := a.book.Grant(in.Peer, []peer.Grant{lets}); err != nil {
		return api.Link{}, err
	}
	defer a.endLinkGrants(lets.Link)
	var answer api.Link
	if err := a.endpoint.Call(ctx, in.Peer, link.MethodInvert, there, &answer); err != nil {
		return api.Link{}, err
	}
	l, err := a.links.get(answer.ID)
	if err != nil {
		return api.Link{}, err
	}
	return l.View(), nil
}

// createHere makes the link with this side's database as the primary. What
// refuses it leaves nothing behind.
func (a *Agent) createHere(ctx context.Context, in api.CreateLink, other peer.Peer, own bool) (*link.Link, error) {
	if err := a.nameFree(in.Name); err != nil {
		return nil, err
	}
	report, err := a.assess(ctx, in.Database, in.Peer, in.PeerDatabase)
	if err != nil {
		return nil, err
	}
	if err := assess.Verdict(report.Findings, in.Accept); err != nil {
		return nil, err
	}
	notices, err := a.createRoles(ctx, in)
	if err != nil {
		return nil, err
	}
	record := catalog.Link{
		ID: newID(), Name: in.Name, Agent: a.identity.AgentID(), Peer: other.Name, PeerAgent: other.AgentID, PeerDatabase: in.PeerDatabase,
		Role: string(role.Primary), Phase: string(role.Creating), Epoch: 1, Mode: string(in.Mode), PrimaryAddress: a.primaryAddress(),
		Notices: notices, SyncTimeout: syncTimeout(in), OnConflict: in.OnConflict, MaxRate: in.MaxRate,
	}
	if own {
		if err := a.book.Grant(other.Name, peer.LinkGrants(in.Database, record.ID)); err != nil {
			return nil, err
		}
	}
	l, err := link.MakePrimary(ctx, a.place(), in.Database, record)
	if err != nil {
		return nil, errors.Join(err, a.endLinkGrants(record.ID))
	}
	a.Log.Info("link made", "link", in.Name, "role", "primary", "database", in.Database, "peer", other.Name)
	a.record.made(l)
	if err := a.links.add(l); err != nil {
		return l, err
	}
	if err := l.AgreeToEventTriggers(ctx); err != nil { // which check has named, or else there is none
		return l, err
	}
	if in.OnIsolation == "" && in.AuditRate == nil {
		return l, nil
	}
	return l, l.Set(ctx, api.SetLink{OnIsolation: in.OnIsolation, AuditRate: in.AuditRate})
}

func syncTimeout(in api.CreateLink) int {
	if in.SyncTimeoutSeconds == nil {
		return api.SyncTimeoutDefault
	}
	return int(*in.SyncTimeoutSeconds)
}

// newID returns a random UUID, version 4.
func newID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:16])
}

// primaryAddress is where this instance is reached, for people to read: an
// address of this machine alone is given with the machine's name.
func (a *Agent) primaryAddress() string {
	host, port, err := net.SplitHostPort(a.server.Address())
	if err != nil {
		return a.server.Address()
	}
	ip := net.ParseIP(host)
	if host == "localhost" || host == "" || host[0] == '/' || ip != nil && ip.IsLoopback() {
		if name, err := os.Hostname(); err == nil {
			return net.JoinHostPort(name, port)
		}
	}
	return net.JoinHostPort(host, port)
}

// Databases implements httpapi.Agent.
func (a *Agent) Databases(ctx context.Context) ([]api.Database, error) {
	_, databases, err := a.server.Describe(ctx, true)
	if err != nil {
		return nil, err
	}
	list := []api.Database{}
	for _, d := range databases {
		if dbcopy.IsDraft(d.Name) {
			continue // no database yet: database copies shows it
		}
		list = append(list, api.Database{Name: d.Name, Owner: d.Owner, Bytes: d.Bytes, Links: []api.DatabaseLink{}})
	}
	for _, l := range a.links.all() {
		v := l.View()
		for i := range list {
			if list[i].Name == v.Database {
				list[i].Links = append(list[i].Links, api.DatabaseLink{Name: v.Name, Role: v.Role, Phase: v.Phase})
			}
		}
	}
	return list, nil
}
