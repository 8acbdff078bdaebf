package web

import (
	"slices"
	"strings"

	"github.com/twinspan/twinspan/api"
)

// migration is a link on its way to become a database that moved. Its state is the link's:
// whoever looks, from wherever, sees how far it is.
type migration struct {
	Link           api.Link
	Primary, Twin  place
	Copied, InStep bool
	Rehearsals     []api.DatabaseCopy
	Compared       *api.Verification
	Equal          bool
}

func migrateWizard(x *exchange) error {
	agent, err := x.agent.Agent(x.ctx())
	if err != nil {
		return err
	}
	all, err := x.agent.Links(x.ctx())
	if err != nil {
		return err
	}
	name := x.r.URL.Query().Get("link")
	d := map[string]any{"Links": all, "Name": name}
	i := slices.IndexFunc(all, func(l api.Link) bool { return l.Name == name })
	switch {
	case i >= 0:
		m := migration{Link: all[i], InStep: all[i].Phase == api.Replicating, Copied: slices.Contains([]api.Phase{api.CatchingUp, api.Replicating, api.FailingOver}, all[i].Phase)}
		m.Primary, m.Twin = sides(all[i], agent.Name)
		if v, err := x.agent.Verification(x.ctx(), name); err == nil {
			m.Compared, m.Equal = &v, v.State == api.Equal || v.State == api.Repaired
		}
		if copies, err := x.agent.Copies(x.ctx()); err == nil {
			m.Rehearsals = slices.DeleteFunc(copies, func(c api.DatabaseCopy) bool { return c.Link != name && c.Database != m.Link.Database })
		}
		d["M"] = m
	case name != "":
		// After the cutover the link is gone; the agent knows how that ended.
		if p, err := x.agent.FailoverProgress(x.ctx(), name); err == nil && p.State == api.FailoverDone {
			d["Gone"] = p
		}
	}
	return x.show("migrate", page{Title: "Migrate", Nav: "migrate", Live: name != "", Agent: &agent, D: d})
}

// aboutTheWay are the findings of a check that are about the network and the two agents.
func aboutTheWay(code string) bool {
	return strings.HasPrefix(code, "network_") || strings.HasPrefix(code, "peer_") || strings.HasPrefix(code, "seeding_") || code == "clock_differs" || strings.HasPrefix(code, "certificate_")
}

func networkWizard(x *exchange) error {
	q := x.r.URL.Query()
	peers, err := x.agent.Peers(x.ctx())
	if err != nil {
		return err
	}
	databases, err := x.agent.Databases(x.ctx())
	if err != nil {
		return err
	}
	agent, err := x.agent.Agent(x.ctx())
	if err != nil {
		return err
	}
	d := map[string]any{"Peers": peers, "Databases": databases, "Peer": q.Get("peer"), "Database": q.Get("database")}
	var trouble *api.Error
	if i := slices.IndexFunc(peers, func(p api.Peer) bool { return p.Name == q.Get("peer") }); i >= 0 && q.Get("database") != "" {
		d["Of"] = peers[i]
		c, err := x.agent.Check(x.ctx(), api.CheckRequest{Database: q.Get("database"), Peer: q.Get("peer")})
		if err != nil {
			trouble = x.explained(err)
		} else {
			d["Tested"] = true
			d["Found"] = slices.DeleteFunc(c.Findings, func(f api.Finding) bool { return !aboutTheWay(f.Code) })
		}
		s := script{}
		s.command("check", flag("database", q.Get("database")), flag("peer", q.Get("peer")))
		if err := s.request("POST", "/v1/check", api.CheckRequest{Database: q.Get("database"), Peer: q.Get("peer")}); err != nil {
			return err
		}
		d["Script"] = s
	}
	return x.show("network", page{Title: "Network test", Nav: "network", Error: trouble, Agent: &agent, D: d})
}
