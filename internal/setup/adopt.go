package setup

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/lease"
	"github.com/twinspan/twinspan/internal/peer"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
)

// AnyAgent, as Request.Adopt, is the one agent whose links are found.
const AnyAgent = "any"

// adoption is what is to be taken over, and what is passed by.
type adoption struct {
	agent  string
	links  []lease.Stray
	passed []api.PassedBy
}

// planAdoption finds the links of one agent beside the server, and refuses where it cannot
// be told which, or where somebody works them.
func planAdoption(ctx context.Context, in Request) (adoption, error) {
	var plan adoption
	if in.Managed {
		return plan, problem.New(problem.Invalid, "adopt_managed", "a managed server lies in its agent's directory and goes with it: links are taken over beside a server that runs by itself").
			WithHint("if the old directory's instance is there, run a server on it and name that: init --adopt --postgres DSN; else make the agent without --adopt, and the links anew")
	}
	server, err := pg.ParseDSN(in.DSN)
	if err != nil {
		return plan, err
	}
	found, unread, err := lease.Strays(ctx, server)
	if err != nil {
		return plan, err
	}
	for _, u := range unread {
		p := problem.As(u.Why)
		plan.passed = append(plan.passed, api.PassedBy{Database: u.Database, Why: p.Error(), Hint: p.Hint})
	}
	agents, passed := divide(found)
	plan.passed = append(plan.passed, passed...)
	if in.Adopt != AnyAgent {
		agents = map[string][]lease.Stray{in.Adopt: agents[in.Adopt]}
	}
	for agent, links := range agents {
		plan.agent, plan.links = agent, links
	}
	switch {
	case len(agents) > 1:
		return plan, problem.New(problem.Conflict, "adopt_several", "links of %d agents are beside this server: %s", len(agents), listed(agents)).
			WithHint("say whose are taken over: --adopt=AGENT-ID")
	case len(plan.links) == 0:
		p := problem.New(problem.NotFound, "adopt_nothing", "no link is beside this server that could be taken over%s", reasons(plan.passed)).
			WithHint("see that --postgres leads to the server on which the links stand; leave --adopt out to make an agent without links")
		for _, u := range unread {
			if problem.CodeOf(u.Why) == "adopt_rights" {
				return plan, u.Why
			}
		}
		return plan, p
	}
	for _, s := range plan.links {
		if s.Served() {
			where := ""
			if s.Holder != nil {
				where = s.Holder.Place
			}
			return plan, lease.Alive(where)
		}
	}
	return plan, nil
}

// divide sorts the links that were found by their agents, and passes by those of which
// nothing shows that they are no copies.
func divide(found []lease.Stray) (agents map[string][]lease.Stray, passed []api.PassedBy) {
	agents = map[string][]lease.Stray{}
	for _, s := range found {
		doubt := s.Doubt
		if doubt == "" && slices.ContainsFunc(found, func(o lease.Stray) bool { return o.ID == s.ID && o.Database != s.Database && o.Doubt == "" }) {
			doubt = "another database holds the same link, and nothing tells the copy from it"
		}
		if doubt != "" {
			passed = append(passed, api.PassedBy{Database: s.Database, Link: s.Name, Why: doubt,
				Hint: "a copy needs nothing of the link: SELECT twinspan.free() in it, as a superuser, or DROP SCHEMA twinspan CASCADE"})
			continue
		}
		agents[s.Agent] = append(agents[s.Agent], s)
	}
	return agents, passed
}

func listed(agents map[string][]lease.Stray) string {
	var list []string
	for _, id := range slices.Sorted(maps.Keys(agents)) {
		var names []string
		for _, s := range agents[id] {
			names = append(names, s.Name)
		}
		list = append(list, fmt.Sprintf("%s (%s)", id, strings.Join(names, ", ")))
	}
	return strings.Join(list, "; ")
}

func reasons(passed []api.PassedBy) string {
	var list []string
	for _, p := range passed {
		list = append(list, p.Database+": "+p.Why)
	}
	if len(list) == 0 {
		return ""
	}
	return " (" + strings.Join(list, "; ") + ")"
}

// adopt takes the links of the plan over: the peers as the databases know them, and then the
// records. It can be repeated in the same directory.
func adopt(ctx context.Context, in Request, plan adoption) (*api.Adoption, error) {
	key, err := catalog.OpenKey(in.Dir.Identity())
	if err != nil {
		return nil, err
	}
	peers, err := knownPeers(in, plan)
	if err != nil {
		return nil, err
	}
	server, err := pg.ParseDSN(in.DSN)
	if err != nil {
		return nil, err
	}
	holder := lease.New(server, plan.agent, "twinspan init --adopt in "+in.Dir.Path(), slog.New(slog.DiscardHandler))
	keeping, stop := context.WithCancel(ctx)
	kept := make(chan error)
	go func() { kept <- holder.Keep(keeping) }()
	defer func() {
		stop()
		<-kept
	}()
	out := &api.Adoption{Links: []api.AdoptedLink{}, Peers: peers, Passed: plan.passed}
	if out.Passed == nil {
		out.Passed = []api.PassedBy{}
	}
	databases := map[string][]*catalog.Link{}
	for _, s := range plan.links {
		databases[s.Database] = append(databases[s.Database], s.Link)
		out.Links = append(out.Links, api.AdoptedLink{Name: s.Name, Database: s.Database, Role: api.Role(s.Role), Peer: s.Peer})
	}
	for _, database := range slices.Sorted(maps.Keys(databases)) {
		if err := holder.Adopt(ctx, database, databases[database], key); err != nil {
			return nil, problem.As(fmt.Errorf("take over the links of database %q: %w", database, err))
		}
	}
	return out, nil
}

// knownPeers pins the peers of the links by the keys that the databases have of them, and
// lets each do what its links need.
func knownPeers(in Request, plan adoption) ([]api.AdoptedPeer, error) {
	book, err := peer.OpenBook(in.Dir.Path())
	if err != nil {
		return nil, err
	}
	list := []api.AdoptedPeer{}
	for _, s := range plan.links {
		i := slices.IndexFunc(list, func(p api.AdoptedPeer) bool { return p.Name == s.Peer })
		if i < 0 {
			i = len(list)
			list = append(list, api.AdoptedPeer{Name: s.Peer})
		}
		if s.Contact == nil {
			continue
		}
		known := peer.Peer{Name: s.Peer, AgentID: s.PeerAgent, Endpoint: s.Contact.Endpoint, Fingerprints: s.Contact.Fingerprints,
			Grants: peer.LinkGrants(s.Database, s.ID)}
		if err := book.Add(known); err != nil {
			return nil, err
		}
		list[i].Known, list[i].Endpoint = true, s.Contact.Endpoint
	}
	return list, nil
}
