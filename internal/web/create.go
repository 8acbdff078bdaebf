package web

import (
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/twinspan/twinspan/api"
)

// The steps of the wizard that makes links, in order.
var createSteps = []struct{ Key, Title string }{
	{"databases", "Databases"}, {"peer", "Peer"}, {"check", "Requirements"}, {"options", "Options"}, {"summary", "Summary"},
}

// createView is a page of the wizard. All that was chosen stands in the address.
type createView struct {
	Step       string
	Query      url.Values // what was chosen
	Chosen     []string   // databases
	Databases  []api.Database
	Peers      []api.Peer
	Invitation *api.Invitation
	Checks     []checked
	Blocked    bool
	Warned     []string // codes of warnings that are not accepted
	Links      []api.CreateLink
	Script     script
}

// checked is what was found of a database.
type checked struct {
	Database string
	Check    api.Check
	Error    *api.Error
	Counts   map[api.Severity]int
}

// Steps are the steps, for templates.
func (v createView) Steps() []struct{ Key, Title string } { return createSteps }

// At says whether a step is the present one; Past whether it is behind.
func (v createView) At(step string) bool { return v.Step == step }

// Past says whether a step is behind the present one.
func (v createView) Past(step string) bool {
	return placeOf(step) < placeOf(v.Step)
}

func placeOf(step string) int {
	return slices.IndexFunc(createSteps, func(s struct{ Key, Title string }) bool { return s.Key == step })
}

// To is the address of a step with what was chosen.
func (v createView) To(step string) string {
	q := url.Values{}
	for k, values := range v.Query {
		q[k] = values
	}
	q.Set("step", step)
	return Base + "new?" + q.Encode()
}

// hidden is a field that carries a choice on.
type hidden struct{ Name, Value string }

// Kept are the choices but for those that the form of a step makes itself.
func (v createView) Kept(but ...string) []hidden {
	var list []hidden
	for k, values := range v.Query {
		if k == "step" || slices.Contains(but, k) {
			continue
		}
		for _, value := range values {
			list = append(list, hidden{k, value})
		}
	}
	slices.SortStableFunc(list, func(a, b hidden) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// Value is a choice.
func (v createView) Value(name string) string { return v.Query.Get(name) }

// Accepted says whether a warning is accepted.
func (v createView) Accepted(code string) bool { return slices.Contains(v.Query["accept"], code) }

// NameOf is the name of a link that was chosen, or what it is called otherwise.
func (v createView) NameOf(i int) string {
	if names := v.Query["name"]; i < len(names) && strings.TrimSpace(names[i]) != "" {
		return strings.TrimSpace(names[i])
	}
	return nameFor(v.Chosen[i])
}

// TwinOf is the twin's database of a chosen one.
func (v createView) TwinOf(i int) string {
	if twins := v.Query["twin"]; i < len(twins) && twins[i] != "" {
		return twins[i]
	}
	return v.Chosen[i]
}

var notInNames = regexp.MustCompile(`[^A-Za-z0-9._-]+`)

// nameFor is a name for the link of a database.
func nameFor(database string) string {
	name := strings.TrimLeft(notInNames.ReplaceAllString(database, "-"), "._-")
	if name = strings.TrimRight(name, "-"); name == "" {
		return "link"
	}
	return name
}

// requests are the links that are asked for.
func (v createView) requests() ([]api.CreateLink, error) {
	var list []api.CreateLink
	for i, database := range v.Chosen {
		in := api.CreateLink{Name: v.NameOf(i), Database: database, Peer: v.Value("peer"), PeerDatabase: v.TwinOf(i), Mode: api.Async, Accept: v.Query["accept"],
			FromPeer: v.Value("from") == "peer", CreateRoles: v.Value("roles") != "", WithPasswords: v.Value("roles") != "" && v.Value("passwords") != ""}
		if v.Value("mode") == string(api.Sync) {
			in.Mode = api.Sync
			var err error
			if in.SyncTimeoutSeconds, err = number(v.Query, "timeout"); err != nil {
				return nil, err
			}
		}
		rate, err := megabytes(v.Query, "rate")
		if err != nil {
			return nil, err
		}
		if rate != nil {
			in.MaxRate = *rate
		}
		list = append(list, in)
	}
	return list, nil
}

func createWizard(x *exchange) error { return createWith(x, x.r.URL.Query(), nil) }

func createWith(x *exchange, q url.Values, made *api.Invitation) (err error) {
	v := createView{Step: q.Get("step"), Query: q, Chosen: q["database"], Invitation: made}
	q.Del("step")
	q.Del("said")
	if placeOf(v.Step) < 0 || len(v.Chosen) == 0 {
		v.Step = "databases"
	}
	if v.Value("peer") == "" && placeOf(v.Step) > placeOf("peer") {
		v.Step = "peer"
	}
	live := false
	switch v.Step {
	case "databases":
		v.Databases, err = x.agent.Databases(x.ctx())
	case "peer":
		v.Peers, err = x.agent.Peers(x.ctx())
	case "check", "summary":
		if err = v.check(x); err == nil && v.Step == "summary" {
			if v.Links, err = v.requests(); err == nil {
				v.Script, err = ofCreation(v.Links)
			}
		}
	}
	if err != nil {
		return err
	}
	return x.show("create", page{Title: "New link", Nav: "links", Live: live, D: v})
}

// check looks at every database that was chosen. One on the peer is looked at by the peer's
// agent when the link is made.
func (v *createView) check(x *exchange) error {
	for i, database := range v.Chosen {
		c := checked{Database: database, Counts: map[api.Severity]int{}}
		found, err := x.agent.Check(x.ctx(), api.CheckRequest{Database: database, Peer: v.Value("peer"), PeerDatabase: v.TwinOf(i)})
		if err != nil {
			c.Error = x.explained(err)
			v.Blocked = true
		}
		c.Check = found
		for _, f := range found.Findings {
			c.Counts[f.Severity]++
			switch {
			case f.Severity == api.Blocks:
				v.Blocked = true
			case f.Severity == api.Warns && !v.Accepted(f.Code) && !slices.Contains(v.Warned, f.Code):
				v.Warned = append(v.Warned, f.Code)
			}
		}
		v.Checks = append(v.Checks, c)
	}
	return nil
}

// pairInWizard makes an invitation, or joins by one, and goes on with the wizard.
func pairInWizard(x *exchange) error {
	form := x.r.PostForm
	q := url.Values{}
	for k, values := range form {
		if k != "act" && k != "token" {
			q[k] = values
		}
	}
	q.Set("step", "peer")
	switch form.Get("act") {
	case "invite":
		made, err := x.agent.Invite(x.ctx(), 0)
		if err != nil {
			return err
		}
		return createWith(x, q, &made)
	case "join":
		p, err := x.agent.Join(x.ctx(), api.JoinRequest{Token: strings.TrimSpace(form.Get("token"))})
		if err != nil {
			return err
		}
		q.Set("peer", p.Name)
		return x.done(Base+"new?"+q.Encode(), "joined")
	}
	return errNothingToDo
}

// made is a link that was asked for, and why it is not made.
type made struct {
	Name  string
	Error *api.Error
}

// createLinks makes the links, one after the other. One that cannot be made keeps the others
// from nothing.
func createLinks(x *exchange) error {
	v := createView{Query: x.r.PostForm, Chosen: x.r.PostForm["database"]}
	list, err := v.requests()
	if err != nil {
		return err
	}
	q, failed := url.Values{}, []made{}
	for _, in := range list {
		if _, err := x.agent.CreateLink(x.ctx(), in); err != nil {
			failed = append(failed, made{in.Name, x.explained(err)})
			continue
		}
		q.Add("link", in.Name)
	}
	to := Base + "new/progress?" + q.Encode()
	if len(failed) == 0 && len(list) > 0 {
		return x.done(to, "created")
	}
	x.status = http.StatusConflict
	return x.show("create_failed", page{Title: "Not every link is made", Nav: "links", D: map[string]any{"Failed": failed, "Made": q["link"], "To": to, "Back": v.To("options")}})
}

// createProgress follows the links that were made until they are in step.
func createProgress(x *exchange) error {
	var list []api.Link
	all, err := x.agent.Links(x.ctx())
	if err != nil {
		return err
	}
	done := true
	for _, name := range x.r.URL.Query()["link"] {
		if i := slices.IndexFunc(all, func(l api.Link) bool { return l.Name == name }); i >= 0 {
			list = append(list, all[i])
			done = done && all[i].Phase == api.Replicating
		}
	}
	return x.show("create_progress", page{Title: "New link: progress", Nav: "links", Live: true, D: map[string]any{"Links": list, "Done": done && len(list) > 0}})
}
