//go:generate go test . -count=1 -run "TestOpenAPIIsAsWritten|TestTheReferenceIsWritten" -update

package httpapi

import (
	"context"
	"net/http"
	"reflect"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/problem"
)

// The shapes of requests: a name in the path, a body, or both.
type (
	none  struct{}
	named struct {
		Name string `path:"name" minLength:"1" maxLength:"63" doc:"Name of the link or the peer"`
	}
	with[T any] struct{ Body T }

	namedWith[T any] struct {
		Name string `path:"name" minLength:"1" maxLength:"63" doc:"Name of the link or the peer"`
		Body T
	}
	remove struct {
		Name  string `path:"name" minLength:"1" maxLength:"63" doc:"Name of the link"`
		Force bool   `query:"force" doc:"Do not ask the peer: remove what this side has"`
	}
	removePeer struct {
		Name  string `path:"name" minLength:"1" maxLength:"63" doc:"Name of the peer"`
		Force bool   `query:"force" doc:"End the trust at once, also when links depend on it"`
	}
	invited struct {
		ID string `path:"id" minLength:"1" maxLength:"64" doc:"Identifier of the invitation"`
	}
	copyNamed struct {
		ID string `path:"id" minLength:"1" maxLength:"64" doc:"Identifier of the copy"`
	}
	verify struct {
		Name string `path:"name" minLength:"1" maxLength:"63" doc:"Name of the link"`
		Body api.Verify
	}
	discard struct {
		Name  string `path:"name" minLength:"1" maxLength:"63" doc:"Name of the link"`
		Epoch int64  `query:"epoch" minimum:"0" doc:"The failover's epoch; 0 for all of them"`
	}
	planned struct {
		Name         string  `path:"name" minLength:"1" maxLength:"63" doc:"Name of the link"`
		Type         string  `query:"type" enum:"planned,forced" default:"planned" doc:"Of which failover"`
		Cutover      bool    `query:"cutover" doc:"Planned: the link is removed afterwards"`
		DrainSeconds float64 `query:"drainSeconds" minimum:"0" maximum:"86400" doc:"Planned: how long writing transactions may go on before they are ended; 0 for the default"`
	}
	lately struct {
		Name    string  `path:"name" minLength:"1" maxLength:"63" doc:"Name of the link"`
		Seconds float64 `query:"seconds" minimum:"0" maximum:"7200" doc:"How far back; 0 for all that is kept, two hours"`
	}
	lostPage struct {
		Name  string `path:"name" minLength:"1" maxLength:"63" doc:"Name of the link"`
		Epoch int64  `path:"epoch" minimum:"1" doc:"The failover's epoch"`
		After int64  `query:"after" minimum:"0" doc:"The next of the page before; 0 for the first page"`
		Limit int    `query:"limit" minimum:"0" maximum:"10000" doc:"The most changes of a page; 0 for a default"`
		SQL   bool   `query:"sql" doc:"Statements that do the changes again, instead of their values"`
	}
	answer[T any] struct {
		Body T `nullable:"false"`
	}
	nothing struct{}
)

// routes are the operations of the interface, in the order of the documentation.
type routes struct {
	api   huma.API
	agent Agent
	// failed is told of every error that is a defect, to log it.
	failed func(ctx context.Context, operation string, err error)
}

// apiVersion is the version of the interface, which strangers may know; that of the program
// is in GET /v1/agent.
const apiVersion = "1"

// newAPI puts the operations on a mux and returns their description.
func newAPI(mux *http.ServeMux, agent Agent, failed func(context.Context, string, error)) huma.API {
	c := huma.DefaultConfig("Twinspan agent", apiVersion)
	c.Info.Description = "What an agent of Twinspan answers: its links, its peers and its instance. Errors have one shape, Failure."
	c.DocsPath, c.SchemasPath, c.OpenAPIPath = "", "", "" // served by Server, without a page from elsewhere
	c.CreateHooks = nil                                   // no $schema in answers: they are the types of package api
	c.Transformers = []huma.Transformer{oneShape}
	c.Tags = []*huma.Tag{{Name: "agent"}, {Name: "peers"}, {Name: "links"}, {Name: "databases"}, {Name: "members"}, {Name: "backups"}, {Name: "events"}}
	c.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		"token": {Type: "http", Scheme: "bearer", Description: "Over TCP. A reader may GET, but sees no values of rows; an operator may do everything. The Unix socket needs none."},
	}
	c.Security = []map[string][]string{{"token": {}}}
	r := &routes{api: humago.New(mux, c), agent: agent, failed: failed}
	r.agents()
	r.peers()
	r.members()
	r.backups()
	r.links()
	r.events()
	for _, unused := range []string{"ErrorModel", "ErrorDetail"} { // oneShape lets none out
		delete(r.api.OpenAPI().Components.Schemas.Map(), unused)
	}
	sayNull(r.api.OpenAPI().Components.Schemas)
	return r.api
}

// sayNull has the description say which objects may be null: the framework leaves that out
// of references.
func sayNull(schemas huma.Registry) {
	for name, s := range schemas.Map() {
		t := schemas.TypeFromRef("#/components/schemas/" + name)
		if t == nil || t.Kind() != reflect.Struct {
			continue
		}
		for _, field := range reflect.VisibleFields(t) {
			of := field.Type
			if of.Kind() != reflect.Pointer || of.Elem().Kind() != reflect.Struct {
				continue
			}
			tag, rest, _ := strings.Cut(field.Tag.Get("json"), ",")
			if p := s.Properties[tag]; p != nil && p.Ref != "" && !strings.Contains(rest, "omit") {
				s.Properties[tag] = &huma.Schema{AnyOf: []*huma.Schema{{Ref: p.Ref}, {Type: "null"}}, Description: p.Description}
			}
		}
	}
}

func (r *routes) agents() {
	add(r, "agent", http.MethodGet, "/v1/agent", "getAgent", "Describe the agent and its instance",
		func(ctx context.Context, _ *none) (api.Agent, error) { return r.info(r.agent.Info(ctx)) })
	add(r, "agent", http.MethodGet, "/v1/agent/export", "exportPeer", "What another agent needs to add this one by hand",
		func(ctx context.Context, _ *none) (api.PeerExport, error) { return r.agent.ExportPeer(ctx) })
	add(r, "agent", http.MethodPost, "/v1/agent/rotate", "rotateKey", "Make a new key; the old one stays valid until every peer has the new one",
		func(ctx context.Context, _ *none) (api.Agent, error) { return r.info(r.agent.RotateKey(ctx)) })
	addList(r, "databases", "/v1/databases", "listDatabases", "List the databases of the instance", func(d api.Database) string { return d.Name },
		func(ctx context.Context) ([]api.Database, error) {
			all, err := r.agent.Databases(ctx)
			for i := range all {
				all[i].Links = list(all[i].Links)
			}
			return list(all), err
		})
	copied := func(do func(context.Context, string) (api.DatabaseCopy, error)) func(context.Context, *copyNamed) (api.DatabaseCopy, error) {
		return func(ctx context.Context, in *copyNamed) (api.DatabaseCopy, error) { return listed(do(ctx, in.ID)) }
	}
	add(r, "databases", http.MethodPost, "/v1/copies", "copyDatabase", "Begin to make an independent copy of a database",
		func(ctx context.Context, in *with[api.CopyDatabase]) (api.DatabaseCopy, error) {
			return listed(r.agent.CopyDatabase(ctx, in.Body))
		})
	add(r, "databases", http.MethodPost, "/v1/restores", "restoreDatabase", "Begin to restore a database to a moment, under a new name; it is shown as a copy",
		func(ctx context.Context, in *with[api.RestoreDatabase]) (api.DatabaseCopy, error) {
			return listed(r.agent.RestoreDatabase(ctx, in.Body))
		})
	addList(r, "databases", "/v1/copies", "listCopies", "List the copies of databases since the agent was started, the newest first", func(c api.DatabaseCopy) string { return c.ID },
		func(ctx context.Context) ([]api.DatabaseCopy, error) {
			all, err := r.agent.Copies(ctx)
			for i := range all {
				all[i], _ = listed(all[i], nil)
			}
			return list(all), err
		})
	add(r, "databases", http.MethodGet, "/v1/copies/{id}", "getCopy", "Describe a copy of a database", copied(r.agent.Copy))
	add(r, "databases", http.MethodDelete, "/v1/copies/{id}", "cancelCopy", "End a copy of a database; nothing of it is left", copied(r.agent.CancelCopy))
	add(r, "databases", http.MethodPost, "/v1/check", "check", "Say what stands in the way of linking a database",
		func(ctx context.Context, in *with[api.CheckRequest]) (api.Check, error) {
			c, err := r.agent.Check(ctx, in.Body)
			c.Findings = list(c.Findings)
			return c, err
		})
}

func (r *routes) peers() {
	addList(r, "peers", "/v1/peers", "listPeers", "List the agents that this one trusts", func(p api.Peer) string { return p.Name },
		func(ctx context.Context) ([]api.Peer, error) {
			all, err := r.agent.Peers(ctx)
			for i := range all {
				all[i], _ = trusted(all[i], nil)
			}
			return list(all), err
		})
	add(r, "peers", http.MethodPost, "/v1/peers", "addPeer", "Trust another agent by its certificate",
		func(ctx context.Context, in *with[api.AddPeer]) (api.Peer, error) {
			return trusted(r.agent.AddPeer(ctx, in.Body))
		})
	add(r, "peers", http.MethodPost, "/v1/invitations", "invite", "Make a token with which one other agent can become a peer",
		func(ctx context.Context, in *with[api.Invite]) (api.Invitation, error) {
			i, err := r.agent.Invite(ctx, in.Body)
			i.Grants = list(i.Grants)
			return i, err
		})
	addList(r, "peers", "/v1/invitations", "listInvitations", "List the invitations that nobody has used yet", func(i api.OpenInvitation) string { return i.ID },
		func(ctx context.Context) ([]api.OpenInvitation, error) {
			all, err := r.agent.Invitations(ctx)
			for i := range all {
				all[i].Grants = list(all[i].Grants)
			}
			return list(all), err
		})
	add(r, "peers", http.MethodDelete, "/v1/invitations/{id}", "uninvite", "Take back an invitation that nobody has used",
		func(ctx context.Context, in *invited) (*nothing, error) { return nil, r.agent.Uninvite(ctx, in.ID) })
	add(r, "peers", http.MethodPost, "/v1/peers/join", "join", "Become a peer of the agent that made a token",
		func(ctx context.Context, in *with[api.JoinRequest]) (api.Peer, error) {
			return trusted(r.agent.Join(ctx, in.Body))
		})
	add(r, "peers", http.MethodDelete, "/v1/peers/{name}", "removePeer", "End the trust in a peer",
		func(ctx context.Context, in *removePeer) (*nothing, error) {
			return nil, r.agent.RemovePeer(ctx, in.Name, in.Force)
		})
	add(r, "peers", http.MethodPatch, "/v1/peers/{name}", "setPeer", "Trust another key of a peer whose agent was made anew, or dial it elsewhere",
		func(ctx context.Context, in *namedWith[api.SetPeer]) (api.Peer, error) {
			return trusted(r.agent.SetPeer(ctx, in.Name, in.Body))
		})
	add(r, "peers", http.MethodPost, "/v1/peers/{name}/grants", "grantPeer", "Let a peer ask for more",
		func(ctx context.Context, in *namedWith[api.PeerGrants]) (api.Peer, error) {
			return trusted(r.agent.GrantPeer(ctx, in.Name, in.Body))
		})
	add(r, "peers", http.MethodPost, "/v1/peers/{name}/revoke", "revokePeer", "Let a peer ask for less, from its next request on",
		func(ctx context.Context, in *namedWith[api.PeerGrants]) (api.Peer, error) {
			return trusted(r.agent.RevokePeer(ctx, in.Name, in.Body))
		})
}

func (r *routes) links() {
	addList(r, "links", "/v1/links", "listLinks", "List the links", func(l api.Link) string { return l.Name },
		func(ctx context.Context) ([]api.Link, error) {
			all, err := r.agent.Links(ctx)
			for i := range all {
				all[i] = complete(all[i])
			}
			return list(all), err
		})
	add(r, "links", http.MethodPost, "/v1/links", "createLink", "Create a link; it is seeded afterwards",
		func(ctx context.Context, in *with[api.CreateLink]) (api.Link, error) {
			if in.Body.Mode == "" {
				in.Body.Mode = api.Async
			}
			if in.Body.PeerDatabase == "" {
				in.Body.PeerDatabase = in.Body.Database
			}
			l, err := r.agent.CreateLink(ctx, in.Body)
			return complete(l), err
		})
	one := func(do func(context.Context, string) (api.Link, error)) func(context.Context, *named) (api.Link, error) {
		return func(ctx context.Context, in *named) (api.Link, error) {
			l, err := do(ctx, in.Name)
			return complete(l), err
		}
	}
	add(r, "links", http.MethodGet, "/v1/links/{name}", "getLink", "Describe one link as this side sees it", one(r.agent.Link))
	add(r, "links", http.MethodGet, "/v1/links/{name}/history", "getHistory", "Describe what a link did lately, as this side saw it",
		func(ctx context.Context, in *lately) (api.History, error) {
			h, err := r.agent.History(ctx, in.Name, in.Seconds)
			h.Samples = list(h.Samples)
			return h, err
		})
	add(r, "links", http.MethodPost, "/v1/links/{name}/suspend", "suspendLink", "Stop a link until it is resumed", one(r.agent.Suspend))
	add(r, "links", http.MethodPost, "/v1/links/{name}/resume", "resumeLink", "Let a link go on that was suspended or stopped by a problem", one(r.agent.Resume))
	add(r, "links", http.MethodPost, "/v1/links/{name}/repair", "repairLink",
		"Let a broken link go on whose stream cannot: compare, copy the rows that differ, begin the stream anew", one(r.agent.ResumeWithRepair))
	add(r, "links", http.MethodPost, "/v1/links/{name}/skip", "skipChange", "Let a link go on without the schema change at which it stands", one(r.agent.ResumeSkipping))
	verification := func(do func(context.Context, string) (api.Verification, error)) func(context.Context, *named) (api.Verification, error) {
		return func(ctx context.Context, in *named) (api.Verification, error) {
			v, err := do(ctx, in.Name)
			if !mayReadRows(ctx) {
				v = withoutRows(v)
			}
			return verified(v, err)
		}
	}
	add(r, "links", http.MethodPost, "/v1/links/{name}/verification", "verifyLink", "Begin to compare both sides of a link at one position",
		func(ctx context.Context, in *verify) (api.Verification, error) {
			return verified(r.agent.Verify(ctx, in.Name, in.Body))
		})
	add(r, "links", http.MethodGet, "/v1/links/{name}/verification", "getVerification", "Describe the verification under way, or the last", verification(r.agent.Verification))
	add(r, "links", http.MethodDelete, "/v1/links/{name}/verification", "cancelVerification", "End the verification under way", verification(r.agent.CancelVerification))
	audit := func(do func(context.Context, string) (api.AuditReport, error)) func(context.Context, *named) (api.AuditReport, error) {
		return func(ctx context.Context, in *named) (api.AuditReport, error) { return audited(ctx, in.Name, do) }
	}
	add(r, "links", http.MethodGet, "/v1/links/{name}/audit", "getAudit", "Describe the audit of a link, which compares both sides in the background", audit(r.agent.Audit))
	add(r, "links", http.MethodPost, "/v1/links/{name}/audit", "beginAudit", "Have a pass of the audit begin at once", audit(r.agent.BeginAudit))
	r.lost()
	failover := func(do func(context.Context, string) (api.FailoverProgress, error)) func(context.Context, *named) (api.FailoverProgress, error) {
		return func(ctx context.Context, in *named) (api.FailoverProgress, error) { return stepped(do(ctx, in.Name)) }
	}
	add(r, "links", http.MethodPost, "/v1/links/{name}/failover", "failOver", "Begin a change of places: planned, or, done when it answers, forced",
		func(ctx context.Context, in *namedWith[api.FailoverRequest]) (api.FailoverProgress, error) {
			return stepped(r.agent.Failover(ctx, in.Name, in.Body))
		})
	add(r, "links", http.MethodGet, "/v1/links/{name}/failover/plan", "planFailover", "Say what a change of places would meet now, and change nothing",
		func(ctx context.Context, in *planned) (api.FailoverPlan, error) {
			p, err := r.agent.FailoverPlan(ctx, in.Name, api.FailoverPlanRequest{Type: api.FailoverType(in.Type), Cutover: in.Cutover, DrainSeconds: in.DrainSeconds})
			p.Problems, p.Waits = list(p.Problems), list(p.Waits)
			if u := p.Uncarried; u != nil {
				u.Objects = list(u.Objects)
			}
			return p, err
		})
	add(r, "links", http.MethodGet, "/v1/links/{name}/seeding", "listSeedingTables", "Tell how far each table of the first copy is",
		func(ctx context.Context, in *named) (api.SeedingTables, error) {
			s, err := r.agent.SeedingTables(ctx, in.Name)
			s.Tables = list(s.Tables)
			return s, err
		})
	add(r, "links", http.MethodGet, "/v1/links/{name}/uncarried", "listUncarried", "List what neither PostgreSQL nor the link carries, to be set up again on a new primary",
		func(ctx context.Context, in *named) (api.Uncarried, error) {
			u, err := r.agent.Uncarried(ctx, in.Name)
			u.Sides = list(u.Sides)
			for i := range u.Sides {
				u.Sides[i].Objects = list(u.Sides[i].Objects)
			}
			return u, err
		})
	add(r, "links", http.MethodGet, "/v1/links/{name}/failover", "getFailover", "Describe the change of places under way, or the last", failover(r.agent.FailoverProgress))
	add(r, "links", http.MethodDelete, "/v1/links/{name}/failover", "cancelFailover", "Give up the change of places under way, unless it is decided", failover(r.agent.CancelFailover))
	several := func(do func(context.Context) (api.Failovers, error)) func(context.Context, *none) (api.Failovers, error) {
		return func(ctx context.Context, _ *none) (api.Failovers, error) { return allStepped(do(ctx)) }
	}
	add(r, "links", http.MethodPost, "/v1/failovers", "failOverTogether", "Begin a planned change of places of several links as one",
		func(ctx context.Context, in *with[api.FailoversRequest]) (api.Failovers, error) {
			return allStepped(r.agent.FailoverTogether(ctx, in.Body))
		})
	add(r, "links", http.MethodGet, "/v1/failovers", "getFailovers", "Describe the change of places of several links that this agent drives, or the last", several(r.agent.Failovers))
	add(r, "links", http.MethodDelete, "/v1/failovers", "cancelFailovers", "Give up the change of places of several links under way, unless it is decided", several(r.agent.CancelFailovers))
	add(r, "links", http.MethodGet, "/v1/links/{name}/roles", "getLinkRoles", "Compare the roles of both instances that a link's database needs",
		func(ctx context.Context, in *named) (api.LinkRoles, error) {
			return compared(r.agent.LinkRoles(ctx, in.Name))
		})
	add(r, "links", http.MethodPost, "/v1/links/{name}/roles", "bringLinkRoles", "Give roles on the secondary what they have on the primary",
		func(ctx context.Context, in *namedWith[api.BringRoles]) (api.LinkRoles, error) {
			return compared(r.agent.BringRoles(ctx, in.Name, in.Body))
		})
	add(r, "links", http.MethodPost, "/v1/links/{name}/large-objects", "bringLargeObjects", "Bring the large objects of a link, or set how often that is done",
		func(ctx context.Context, in *namedWith[api.LargeObjectsRequest]) (api.LargeObjectsResult, error) {
			return r.agent.LargeObjects(ctx, in.Name, in.Body)
		})
	add(r, "links", http.MethodPatch, "/v1/links/{name}", "setLink", "Change settings of a link, on both sides",
		func(ctx context.Context, in *namedWith[api.SetLink]) (api.Link, error) {
			l, err := r.agent.SetLink(ctx, in.Name, in.Body)
			return complete(l), err
		})
	add(r, "links", http.MethodDelete, "/v1/links/{name}", "deleteLink", "Remove a link from both sides",
		func(ctx context.Context, in *remove) (api.DeleteResult, error) {
			d, err := r.agent.DeleteLink(ctx, in.Name, in.Force)
			d.Sides = list(d.Sides)
			for i := range d.Sides {
				d.Sides[i].Left = list(d.Sides[i].Left)
			}
			return d, err
		})
}

// operation describes one operation; every one fails alike.
func (r *routes) operation(tag, method, path, id, summary string) huma.Operation {
	return huma.Operation{
		OperationID: id, Method: method, Path: path, Summary: summary, Tags: []string{tag},
		Responses: map[string]*huma.Response{"default": {
			Description: "What went wrong",
			Content: map[string]*huma.MediaType{problemType: {
				Schema: r.api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[api.Failure](), true, ""),
			}},
		}},
	}
}

// add registers one operation. An answer of *nothing becomes status 204.
func add[In, Out any](r *routes, tag, method, path, id, summary string, do func(context.Context, *In) (Out, error)) {
	op := r.operation(tag, method, path, id, summary)
	run := func(ctx context.Context, in *In) (Out, error) {
		out, err := do(ctx, in)
		noteOperation(ctx, id, in, err)
		if err == nil {
			return out, nil
		}
		if problem.KindOf(err) == problem.Internal {
			r.failed(ctx, id, err)
		}
		return out, failed(err)
	}
	var out Out
	if _, empty := any(out).(*nothing); empty {
		huma.Register(r.api, op, func(ctx context.Context, in *In) (*nothing, error) {
			_, err := run(ctx, in)
			return nil, err
		})
		return
	}
	huma.Register(r.api, op, func(ctx context.Context, in *In) (*answer[Out], error) {
		out, err := run(ctx, in)
		if err != nil {
			return nil, err
		}
		return &answer[Out]{Body: out}, nil
	})
}

func (r *routes) info(a api.Agent, err error) (api.Agent, error) {
	a.Problems = list(a.Problems)
	return a, err
}

// complete keeps the promise that lists are never null.
func complete(l api.Link) api.Link {
	l.Problems = list(l.Problems)
	l.Notices = list(l.Notices)
	return l
}

// trusted is complete for a peer.
func trusted(p api.Peer, err error) (api.Peer, error) {
	p.Grants, p.Requests = list(p.Grants), list(p.Requests)
	return p, err
}

// stepped is complete for a failover.
func stepped(p api.FailoverProgress, err error) (api.FailoverProgress, error) {
	p.Steps = list(p.Steps)
	return p, err
}

// allStepped is complete for a failover of several links.
func allStepped(f api.Failovers, err error) (api.Failovers, error) {
	f.Links = list(f.Links)
	for i := range f.Links {
		f.Links[i], _ = stepped(f.Links[i], nil)
	}
	return f, err
}

// compared is complete for roles.
func compared(l api.LinkRoles, err error) (api.LinkRoles, error) {
	l.Roles, l.Done = list(l.Roles), list(l.Done)
	for i := range l.Roles {
		l.Roles[i].Lacks = list(l.Roles[i].Lacks)
	}
	return l, err
}

// listed is complete for a copy of a database.
func listed(c api.DatabaseCopy, err error) (api.DatabaseCopy, error) {
	c.Roles, c.Left = list(c.Roles), list(c.Left)
	return c, err
}

// verified is complete for a verification.
func verified(v api.Verification, err error) (api.Verification, error) {
	v.Differences, v.MoreRows, v.Sequences, v.Skipped = list(v.Differences), list(v.MoreRows), list(v.Sequences), list(v.Skipped)
	for i := range v.Differences {
		d := &v.Differences[i]
		d.Key, d.Columns, d.Values = list(d.Key), list(d.Columns), list(d.Values)
	}
	return v, err
}

// audited is complete for an audit, and keeps from a reader's token what it may not see.
func audited(ctx context.Context, name string, do func(context.Context, string) (api.AuditReport, error)) (api.AuditReport, error) {
	v, err := do(ctx, name)
	v.Compared = list(v.Compared)
	for i := range v.Compared {
		of := api.Verification{Differences: v.Compared[i].Differences}
		if !mayReadRows(ctx) {
			of = withoutRows(of)
		}
		of, _ = verified(of, nil)
		v.Compared[i].Differences = of.Differences
	}
	return v, err
}

func list[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}
