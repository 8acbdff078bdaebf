// Package agenttest is test support: an agent without PostgreSQL that answers
// what it was told to, for tests of the faces (httpapi, client, cli). What such a
// test proves is how requests and answers cross, never how links work.
package agenttest

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/events"
	"github.com/twinspan/twinspan/internal/problem"
)

// Agent answers from its fields. They are set before the first call; a call
// changes what it would change on a real agent, as far as a face can see it.
type Agent struct {
	Self     api.Agent             `json:"self"`
	Trusted  []api.Peer            `json:"peers"`
	Found    api.Check             `json:"check"`
	Present  []api.Database        `json:"databases"`
	Deleted  api.DeleteResult      `json:"deleted"`
	Views    map[string][]api.Link `json:"links"`    // by name: one answer after the other, the last one for ever
	Refusals map[string]api.Error  `json:"refusals"` // by method
	Created  map[string][]api.Link `json:"created"`  // what the views of a link become when it is created
	// Verifications are what a verification of any link looks like, one after the
	// other, the last one for ever.
	Verifications []api.Verification `json:"verifications"`
	// Copied are the same for a copy of any database.
	Copied []api.DatabaseCopy `json:"copied"`
	// Changing are the same for a failover of any link.
	Changing []api.FailoverProgress `json:"changing"`
	// Together are the same for several links as one.
	Together []api.Failovers `json:"together"`
	// Audited is how the audit of every link stands.
	Audited api.AuditReport `json:"audited"`
	// Compared is how the roles of every link stand.
	Compared api.LinkRoles `json:"compared"`
	// Coming is the plan of every failover.
	Coming api.FailoverPlan `json:"coming"`

	// Apart is what is not carried of any link.
	Apart api.Uncarried `json:"uncarried"`

	// Seeded is how far the tables of a first copy are.
	Seeded api.SeedingTables `json:"seeded"`

	// Behind is what any link has lost, and Pages the transactions of all partings.
	Behind api.Lost       `json:"lost"`
	Pages  []api.LostPage `json:"lostPages"`
	// Plan is what a rejoin of any link takes.
	Plan api.RejoinPlan `json:"rejoinPlan"`

	// Joined are the members of the instance.
	Joined api.Members `json:"members"`

	// Backed is how the backups stand.
	Backed Backed `json:"backed"`

	// Lately is the history of every link.
	Lately []api.HistorySample `json:"history"`

	// Happened are the events of the agent, by number.
	Happened []api.Event `json:"events"`

	mu    sync.Mutex
	calls []string
	did   []api.Event
}

// Load reads an agent's answers from a JSON file.
func Load(path string) (*Agent, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	a := &Agent{}
	if err := json.Unmarshal(text, a); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return a, nil
}

// Calls returns what was asked so far, method and arguments.
func (a *Agent) Calls() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.calls)
}

// enter notes a call, and refuses it if that was asked for.
func (a *Agent) enter(method string, args ...any) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.calls = append(a.calls, fmt.Sprintf("%s%+v", method, args))
	r, refused := a.Refusals[method]
	if !refused {
		return nil
	}
	p := problem.New(problem.Kind(r.Kind), r.Code, "%s", r.Text).On(r.Subject)
	p.Hint = r.Hint
	return p
}

// Events answers those of Happened that fit. Where there are none it waits for ever.
func (a *Agent) Events(ctx context.Context, q api.EventQuery) (api.EventPage, error) {
	p := api.EventPage{}
	for _, e := range a.Happened {
		p.First, p.Last = cmp.Or(p.First, e.Number), e.Number
		if e.Number > q.After && events.Fits(q, e) {
			p.Events = append(p.Events, e)
		}
	}
	p.Next = max(q.After, p.Last)
	if len(p.Events) == 0 && q.Wait > 0 {
		<-ctx.Done()
	}
	return p, a.enter("Events", q.Link, q.Kinds, q.Newest, q.Limit, q.Since != nil, q.Wait)
}

// History answers Lately.
func (a *Agent) History(_ context.Context, name string, seconds float64) (api.History, error) {
	return api.History{Link: name, EverySeconds: 5, Samples: a.Lately}, a.enter("History", name, seconds)
}

// Uncarried answers Apart.
func (a *Agent) Uncarried(_ context.Context, name string) (api.Uncarried, error) {
	return a.Apart, a.enter("Uncarried", name)
}

// Did keeps the event for a test to look at.
func (a *Agent) Did(e api.Event) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.did = append(a.did, e)
}

// Noted returns what Did was called with.
func (a *Agent) Noted() []api.Event {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.did)
}

// Info answers Self.
func (a *Agent) Info(context.Context) (api.Agent, error) { return a.Self, a.enter("Info") }

// RotateKey answers Self.
func (a *Agent) RotateKey(context.Context) (api.Agent, error) { return a.Self, a.enter("RotateKey") }

// Peers answers Trusted.
func (a *Agent) Peers(context.Context) ([]api.Peer, error) { return a.Trusted, a.enter("Peers") }

// Invite answers a token made of the name, without looking at ttl.
func (a *Agent) Invite(_ context.Context, in api.Invite) (api.Invitation, error) {
	return api.Invitation{Token: "tok-" + a.Self.Name, Endpoint: a.Self.Endpoint, Fingerprint: a.Self.Fingerprint,
		Expires: time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)}, a.enter("Invite", time.Duration(in.TTLSeconds)*time.Second, in.Grants)
}

// Invitations answers one that was tried once.
func (a *Agent) Invitations(context.Context) ([]api.OpenInvitation, error) {
	return []api.OpenInvitation{{ID: "0a", Attempts: 1}}, a.enter("Invitations")
}

// Uninvite answers nothing.
func (a *Agent) Uninvite(_ context.Context, id string) error { return a.enter("Uninvite", id) }

// Join answers a peer named b.
func (a *Agent) Join(_ context.Context, in api.JoinRequest) (api.Peer, error) {
	return api.Peer{Name: "b", ID: "idb", Endpoint: "b:5022", Fingerprint: "SHA256:b", Connected: true}, a.enter("Join", in.Token)
}

// ExportPeer answers from Self.
func (a *Agent) ExportPeer(context.Context) (api.PeerExport, error) {
	return api.PeerExport{Name: a.Self.Name, ID: a.Self.ID, Endpoint: a.Self.Endpoint, Fingerprint: a.Self.Fingerprint,
		Certificate: "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"}, a.enter("ExportPeer")
}

// AddPeer answers what it was given.
func (a *Agent) AddPeer(_ context.Context, in api.AddPeer) (api.Peer, error) {
	return api.Peer{Name: in.Name, Endpoint: in.Endpoint, Fingerprint: "SHA256:x"}, a.enter("AddPeer", in)
}

// SetPeer answers a peer with the key.
func (a *Agent) SetPeer(_ context.Context, name string, in api.SetPeer) (api.Peer, error) {
	p := api.Peer{Name: name, Fingerprint: in.Fingerprint}
	if in.Endpoint != nil {
		p.Endpoint = *in.Endpoint
	}
	return p, a.enter("SetPeer", name, p.Fingerprint, p.Endpoint)
}

// RemovePeer only notes the call.
func (a *Agent) RemovePeer(_ context.Context, name string, force bool) error {
	return a.enter("RemovePeer", name, force)
}

// GrantPeer answers a peer with the grants.
func (a *Agent) GrantPeer(_ context.Context, name string, in api.PeerGrants) (api.Peer, error) {
	return api.Peer{Name: name, Grants: in.Grants}, a.enter("GrantPeer", name, in.Grants)
}

// RevokePeer answers a peer without grants.
func (a *Agent) RevokePeer(_ context.Context, name string, in api.PeerGrants) (api.Peer, error) {
	return api.Peer{Name: name}, a.enter("RevokePeer", name, in.Grants)
}

// Check answers Found.
func (a *Agent) Check(_ context.Context, in api.CheckRequest) (api.Check, error) {
	c := a.Found
	c.Database, c.Peer = in.Database, in.Peer
	return c, a.enter("Check", in)
}

// Databases answers Present.
func (a *Agent) Databases(context.Context) ([]api.Database, error) {
	return a.Present, a.enter("Databases")
}

// Links answers the next view of each link, by name.
func (a *Agent) Links(context.Context) ([]api.Link, error) {
	if err := a.enter("Links"); err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	var all []api.Link
	for name := range a.Views {
		l, _ := a.nextLocked(name)
		all = append(all, l)
	}
	slices.SortFunc(all, func(x, y api.Link) int { return strings.Compare(x.Name, y.Name) })
	return all, nil
}

// Link answers the link's next view.
func (a *Agent) Link(_ context.Context, name string) (api.Link, error) {
	return a.view("Link", name)
}

// CreateLink turns Created into the link's views and answers the first.
func (a *Agent) CreateLink(_ context.Context, in api.CreateLink) (api.Link, error) {
	if err := a.enter("CreateLink", in); err != nil {
		return api.Link{}, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, exists := a.Views[in.Name]; exists {
		return api.Link{}, problem.New(problem.Conflict, "link_exists", "there is a link %s already", in.Name).On(in.Name)
	}
	if a.Views == nil {
		a.Views = map[string][]api.Link{}
	}
	a.Views[in.Name] = a.Created[in.Name]
	return a.nextLocked(in.Name)
}

// SetLink answers the link's next view.
func (a *Agent) SetLink(_ context.Context, name string, in api.SetLink) (api.Link, error) {
	if err := a.enter("SetLink", name, in.Mode); err != nil {
		return api.Link{}, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.nextLocked(name)
}

// Suspend answers the link's next view.
func (a *Agent) Suspend(_ context.Context, name string) (api.Link, error) {
	return a.view("Suspend", name)
}

// Resume answers the link's next view.
func (a *Agent) Resume(_ context.Context, name string) (api.Link, error) {
	return a.view("Resume", name)
}

// ResumeSkipping answers the link's next view.
func (a *Agent) ResumeSkipping(_ context.Context, name string) (api.Link, error) {
	return a.view("ResumeSkipping", name)
}

// ResumeWithRepair answers the link's next view.
func (a *Agent) ResumeWithRepair(_ context.Context, name string) (api.Link, error) {
	return a.view("ResumeWithRepair", name)
}

// CopyDatabase answers the next of Copied.
func (a *Agent) CopyDatabase(_ context.Context, in api.CopyDatabase) (api.DatabaseCopy, error) {
	return a.copy("CopyDatabase", in)
}

// RestoreDatabase answers the next of Copied.
func (a *Agent) RestoreDatabase(_ context.Context, in api.RestoreDatabase) (api.DatabaseCopy, error) {
	return a.copy("RestoreDatabase", in.Database, in.Name, in.Deleted)
}

// Copies answers all of Copied.
func (a *Agent) Copies(context.Context) ([]api.DatabaseCopy, error) {
	return slices.Clone(a.Copied), a.enter("Copies")
}

// Copy answers the next of Copied.
func (a *Agent) Copy(_ context.Context, id string) (api.DatabaseCopy, error) {
	return a.copy("Copy", id)
}

// CancelCopy answers the next of Copied.
func (a *Agent) CancelCopy(_ context.Context, id string) (api.DatabaseCopy, error) {
	return a.copy("CancelCopy", id)
}

func (a *Agent) copy(method string, args ...any) (api.DatabaseCopy, error) {
	return next(a, &a.Copied, problem.New(problem.NotFound, "copy_unknown", "there is no such copy"), method, args...)
}

// Verify answers the next of Verifications.
func (a *Agent) Verify(_ context.Context, name string, in api.Verify) (api.Verification, error) {
	return a.verification("Verify", name, in)
}

// Verification answers the next of Verifications.
func (a *Agent) Verification(_ context.Context, name string) (api.Verification, error) {
	return a.verification("Verification", name)
}

// CancelVerification answers the next of Verifications.
func (a *Agent) CancelVerification(_ context.Context, name string) (api.Verification, error) {
	return a.verification("CancelVerification", name)
}

// Audit answers Audited.
func (a *Agent) Audit(_ context.Context, name string) (api.AuditReport, error) {
	return a.Audited, a.enter("Audit", name)
}

// BeginAudit answers Audited.
func (a *Agent) BeginAudit(_ context.Context, name string) (api.AuditReport, error) {
	return a.Audited, a.enter("BeginAudit", name)
}

func (a *Agent) verification(method string, args ...any) (api.Verification, error) {
	return next(a, &a.Verifications, problem.New(problem.NotFound, "verification_unknown", "the link was not verified"), method, args...)
}

// Failover answers the next of Changing.
func (a *Agent) Failover(_ context.Context, name string, in api.FailoverRequest) (api.FailoverProgress, error) {
	return a.failover("Failover", name, in)
}

// SeedingTables answers Seeded.
func (a *Agent) SeedingTables(_ context.Context, name string) (api.SeedingTables, error) {
	return a.Seeded, a.enter("SeedingTables", name)
}

// LinkRoles answers Compared, without what was brought.
func (a *Agent) LinkRoles(_ context.Context, name string) (api.LinkRoles, error) {
	all := a.Compared
	all.Done = nil
	return all, a.enter("LinkRoles", name)
}

// BringRoles answers Compared.
func (a *Agent) BringRoles(_ context.Context, name string, in api.BringRoles) (api.LinkRoles, error) {
	return a.Compared, a.enter("BringRoles", name, in)
}

// FailoverPlan answers Coming.
func (a *Agent) FailoverPlan(_ context.Context, name string, in api.FailoverPlanRequest) (api.FailoverPlan, error) {
	return a.Coming, a.enter("FailoverPlan", name, in)
}

// FailoverProgress answers the next of Changing.
func (a *Agent) FailoverProgress(_ context.Context, name string) (api.FailoverProgress, error) {
	return a.failover("FailoverProgress", name)
}

// CancelFailover answers the next of Changing.
func (a *Agent) CancelFailover(_ context.Context, name string) (api.FailoverProgress, error) {
	return a.failover("CancelFailover", name)
}

// FailoverTogether answers the next of Together.
func (a *Agent) FailoverTogether(_ context.Context, in api.FailoversRequest) (api.Failovers, error) {
	return a.together("FailoverTogether", in)
}

// Failovers answers the next of Together.
func (a *Agent) Failovers(context.Context) (api.Failovers, error) {
	return a.together("Failovers")
}

// CancelFailovers answers the next of Together.
func (a *Agent) CancelFailovers(context.Context) (api.Failovers, error) {
	return a.together("CancelFailovers")
}

func (a *Agent) together(method string, args ...any) (api.Failovers, error) {
	return next(a, &a.Together, problem.New(problem.NotFound, "failover_unknown", "no links have changed places together"), method, args...)
}

func (a *Agent) failover(method string, args ...any) (api.FailoverProgress, error) {
	return next(a, &a.Changing, problem.New(problem.NotFound, "failover_unknown", "the link has not changed places"), method, args...)
}

// next answers a call with the next of a list, the last one for ever.
func next[T any](a *Agent, list *[]T, none error, method string, args ...any) (T, error) {
	var zero T
	if err := a.enter(method, args...); err != nil {
		return zero, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(*list) == 0 {
		return zero, none
	}
	v := (*list)[0]
	if len(*list) > 1 {
		*list = (*list)[1:]
	}
	return v, nil
}

// LargeObjects answers what is asked for, as done.
func (a *Agent) LargeObjects(_ context.Context, name string, in api.LargeObjectsRequest) (api.LargeObjectsResult, error) {
	if err := a.enter("LargeObjects", name, in.Now); err != nil {
		return api.LargeObjectsResult{}, err
	}
	out := api.LargeObjectsResult{LargeObjects: api.LargeObjects{Objects: 7, EverySeconds: 300}}
	if in.EverySeconds != nil {
		out.EverySeconds = *in.EverySeconds
	}
	if in.Now {
		asOf := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
		out.AsOf, out.Copied, out.Removed, out.Bytes = &asOf, 2, 1, 4096
	}
	return out, nil
}

// Lost answers Behind.
func (a *Agent) Lost(_ context.Context, name string) (api.Lost, error) {
	return a.Behind, a.enter("Lost", name)
}

// LostPage answers the page whose number, from 0, is after, which is so what a page
// gives as the next.
func (a *Agent) LostPage(_ context.Context, name string, epoch, after int64, limit int, sql bool) (api.LostPage, error) {
	if err := a.enter("LostPage", name, epoch, after, limit, sql); err != nil {
		return api.LostPage{}, err
	}
	if after >= int64(len(a.Pages)) {
		return api.LostPage{}, nil
	}
	return a.Pages[after], nil
}

// DiscardLost answers Behind as it is then.
func (a *Agent) DiscardLost(_ context.Context, name string, epoch int64) (api.Lost, error) {
	out := a.Behind
	out.Partings = slices.Clone(out.Partings)
	for i := range out.Partings {
		out.Partings[i].State = api.PartingDiscarded
	}
	return out, a.enter("DiscardLost", name, epoch)
}

// RejoinPlan answers Plan.
func (a *Agent) RejoinPlan(_ context.Context, name string) (api.RejoinPlan, error) {
	return a.Plan, a.enter("RejoinPlan", name)
}

// Rejoin answers the link's next view.
func (a *Agent) Rejoin(ctx context.Context, name string, in api.Rejoin) (api.Link, error) {
	if err := a.enter("Rejoin", name, in.Accept); err != nil {
		return api.Link{}, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.nextLocked(name)
}

// DeleteLink forgets the link and answers Deleted.
func (a *Agent) DeleteLink(_ context.Context, name string, force bool) (api.DeleteResult, error) {
	if err := a.enter("DeleteLink", name, force); err != nil {
		return api.DeleteResult{}, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, err := a.nextLocked(name); err != nil {
		return api.DeleteResult{}, err
	}
	delete(a.Views, name)
	d := a.Deleted
	d.Name, d.Forced = name, force
	return d, nil
}

func (a *Agent) view(method, name string) (api.Link, error) {
	if err := a.enter(method, name); err != nil {
		return api.Link{}, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.nextLocked(name)
}

func (a *Agent) nextLocked(name string) (api.Link, error) {
	views := a.Views[name]
	if len(views) == 0 {
		return api.Link{}, problem.New(problem.NotFound, "link_missing", "there is no link %s", name).On(name).
			WithHint("twinspan link list shows the links")
	}
	if len(views) > 1 {
		a.Views[name] = views[1:]
	}
	return views[0], nil
}
