package web

import (
	"cmp"
	"net/http"
	"slices"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/problem"
)

func (f *face) routes() {
	f.page("GET {$}", overview)
	f.page("GET links/{name}", showLink)
	f.page("GET links/{name}/history", linkHistory)
	f.page("GET links/{name}/audit", showAudit)
	f.page("GET links/{name}/verify", showVerify)
	f.page("GET links/{name}/settings", showSettings)
	f.page("GET links/{name}/roles", showRoles)
	f.page("GET links/{name}/uncarried", showUncarried)
	f.page("GET links/{name}/lost", showLost)
	f.page("GET links/{name}/delete", confirmDelete)
	f.page("POST links/{name}/delete", deleteLink)
	f.page("POST links/{name}/settings", setLink)
	f.page("POST links/{name}/do", actOnLink)
	f.page("GET links/{name}/failover", failoverWizard)
	f.page("POST links/{name}/failover", failOver)
	f.page("GET links/{name}/failover/steps", failoverSteps)
	f.page("POST links/{name}/failover/cancel", cancelFailover)
	f.page("GET links/{name}/rejoin", rejoinWizard)
	f.page("POST links/{name}/rejoin", rejoin)
	f.page("GET new", createWizard)
	f.page("POST new", createLinks)
	f.page("POST new/pair", pairInWizard)
	f.page("GET new/progress", createProgress)
	f.page("GET migrate", migrateWizard)
	f.page("GET network", networkWizard)
	f.page("GET databases", showDatabases)
	f.page("POST databases", copyDatabase)
	f.page("POST databases/restore", restoreDatabase)
	f.page("POST databases/cancel", cancelCopy)
	f.page("GET backups", showBackups)
	f.page("POST backups", actOnBackups)
	f.page("GET peers", showPeers)
	f.page("POST peers", actOnPeers)
	f.page("GET instance", showInstance)
	f.page("POST instance", actOnInstance)
	f.page("GET members", showMembers)
	f.page("POST members", actOnMembers)
	f.page("GET usage", showUsage)
	f.page("GET problems", showProblems)
	f.page("GET problems/{code}", showProblem)
	f.page("GET events", showEvents)
	f.page("GET ", func(x *exchange) error {
		return &api.Error{Status: http.StatusNotFound, Kind: string(problem.NotFound), Code: "no_such_path", Text: "there is no such page"}
	})
}

// concern is something that needs attention, with the link that it is about.
type concern struct {
	Link string
	api.Problem
}

var heaviness = map[api.Severity]int{api.Blocks: 0, api.Warns: 1, api.Informs: 2}
var urgency = map[api.Health]int{api.Unhealthy: 0, api.Degraded: 1, api.Healthy: 2}

// concerns are the problems of an agent and its links, the heaviest first, each once where
// links of one peer share it.
func concerns(agent *api.Agent, links []api.Link) []concern {
	var list []concern
	if agent != nil {
		for _, p := range agent.Problems {
			list = append(list, concern{"", p})
		}
	}
	for _, l := range links {
		for _, p := range l.Problems {
			list = append(list, concern{l.Name, p})
		}
	}
	slices.SortStableFunc(list, func(a, b concern) int { return cmp.Compare(heaviness[a.Severity], heaviness[b.Severity]) })
	return list
}

func overview(x *exchange) error {
	agent, err := x.agent.Agent(x.ctx())
	if err != nil {
		return err
	}
	d := struct {
		Links    []api.Link
		Concerns []concern
		Peers    []api.Peer
		Trouble  *api.Error // why there are no links
		Counts   map[string]int
	}{Counts: map[string]int{}}
	if d.Links, err = x.agent.Links(x.ctx()); err != nil {
		d.Trouble = x.explained(err)
	}
	if d.Peers, err = x.agent.Peers(x.ctx()); err != nil {
		return err
	}
	slices.SortStableFunc(d.Links, func(a, b api.Link) int {
		return cmp.Or(cmp.Compare(urgency[a.Health], urgency[b.Health]), cmp.Compare(a.Name, b.Name))
	})
	for _, l := range d.Links {
		d.Counts[string(l.Health)]++
	}
	d.Concerns = concerns(&agent, d.Links)
	return x.show("overview", page{Title: "Overview", Nav: "overview", Live: true, Agent: &agent, D: d})
}

func showProblems(x *exchange) error {
	agent, err := x.agent.Agent(x.ctx())
	if err != nil {
		return err
	}
	links, _ := x.agent.Links(x.ctx()) // without them the agent's own problems say why
	return x.show("problems", page{Title: "Problems", Nav: "problems", Live: true, Agent: &agent,
		D: map[string]any{"Now": concerns(&agent, links), "Areas": problem.Catalogue()}})
}

func showProblem(x *exchange) error {
	e, known := problem.Describe(x.r.PathValue("code"))
	if !known {
		return &api.Error{Status: http.StatusNotFound, Kind: string(problem.NotFound), Code: "code_unknown", Text: "there is no problem with this code"}
	}
	agent, err := x.agent.Agent(x.ctx())
	if err != nil { // the explanation is known all the same
		return x.show("problem", page{Title: e.Title, Nav: "problems", D: map[string]any{"Entry": e, "Now": []concern(nil)}})
	}
	links, _ := x.agent.Links(x.ctx()) // without them nothing is said of where it is
	now := slices.DeleteFunc(concerns(&agent, links), func(c concern) bool { return c.Code != e.Code })
	return x.show("problem", page{Title: e.Title, Nav: "problems", Live: true, Agent: &agent, D: map[string]any{"Entry": e, "Now": now}})
}
