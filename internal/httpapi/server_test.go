package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/client"
	"github.com/twinspan/twinspan/internal/access"
	"github.com/twinspan/twinspan/internal/config"
	"github.com/twinspan/twinspan/internal/httpapi/agenttest"
	"github.com/twinspan/twinspan/internal/leaks"
	"github.com/twinspan/twinspan/internal/problem"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestMain(m *testing.M) { leaks.Main(m) }

// served is a running server with what a test needs of it.
type served struct {
	agent  *agenttest.Agent
	dir    config.Dir
	tokens access.Tokens
	addr   string // of the TCP listener, when there is one
	log    bytes.Buffer
}

// serve runs a server for the length of the test.
func serve(t *testing.T, agent *agenttest.Agent, tcp bool) *served {
	t.Helper()
	s := &served{agent: agent}
	base, err := os.MkdirTemp("", "tw")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(base) })
	if s.dir, err = config.OpenDir(base); err != nil {
		t.Fatal(err)
	}
	if err := s.dir.Create(); err != nil {
		t.Fatal(err)
	}
	server := &Server{Agent: agent, Dir: s.dir, Version: "1.2.3", Log: slog.New(slog.NewTextHandler(&s.log, nil))}
	if tcp {
		if s.tokens, err = access.Create(s.dir.Access(), "127.0.0.1"); err != nil {
			t.Fatal(err)
		}
		s.addr = freeAddress(t)
		server.API.Listen = s.addr
	}
	ready := make(chan struct{})
	server.Listening = func() { close(ready) }
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx) }()
	select {
	case <-ready:
	case err := <-ended:
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the server ended with %v", err)
		}
	})
	return s
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func dial(t *testing.T, d client.Dial) *client.Client {
	t.Helper()
	c, err := client.New(d)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func sample() *agenttest.Agent {
	link := api.Link{Name: "sales", ID: "6f0c", Database: "sales", Role: api.Primary, Phase: api.Replicating, Health: api.Healthy,
		Epoch: 1, Mode: api.Async, Peer: api.LinkPeer{Name: "b", Role: api.Secondary, Connected: true, Database: "sales"},
		Position:     api.Position{Written: "0/5", Sent: "0/4", Received: "0/3", Applied: "0/2", Confirmed: "0/1"},
		Lag:          api.Lag{Bytes: new(int64(3)), Seconds: new(0.25)},
		Problems:     []api.Problem{{Code: "wal_guard", Severity: api.Warns, Title: "much log is kept"}},
		LastFailover: &api.Failover{Type: "planned", At: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), HoldSeconds: 0.412}}
	return &agenttest.Agent{
		Self:     api.Agent{ID: "ida", Name: "a", Version: "1.2.3", Postgres: api.Postgres{Connected: true, Port: 5432}},
		Trusted:  []api.Peer{{Name: "b", Connected: true}},
		Happened: []api.Event{{Number: 1, Kind: api.EventRole}, {Number: 2, At: time.Unix(1, 0), Kind: api.EventProblem, Action: "began", Link: "sales", By: api.Actor{Kind: api.ByAgent}}, {Number: 3, At: time.Unix(2, 0), Kind: api.EventRole, Link: "stock"}},
		Backed: agenttest.Backed{
			State: api.Backups{Policy: api.BackupPolicy{RetentionDays: 7, Repository: "/r", Repositories: []api.RepositoryPlace{{Number: 1, Place: "/r"}}}, Known: true,
				Repositories: []api.BackupRepository{{Number: 1, Place: "/r", Known: true, Problems: []api.Problem{}}},
				Backups:      []api.Backup{{Label: "20261129-235005F", Type: "full", Needs: []string{}}}, Tasks: []api.BackupTask{}, Problems: []api.Problem{}},
			Task: api.BackupTask{Number: 3, Kind: "backup", Type: "full", State: "done"}, Export: api.BackupExport{Key: "k", Repositories: []api.RestoreRepository{{Place: "/r"}}}, Size: api.InstanceSize{Tier: "general-purpose", Benefit: "none"},
			Used:       []api.UsageHour{{VCores: 8, Role: "secondary", State: "passive"}},
			Restorable: []api.RestorableDatabase{{Name: "gone", OID: 7, Dropped: true}},
		},
		Seeded:  api.SeedingTables{Link: "sales", Known: true, More: 7},
		Found:   api.Check{Findings: []api.Finding{{Code: "wal_level_low", Severity: api.Blocks, Object: "wal_level"}}},
		Present: []api.Database{{Name: "sales", Links: []api.DatabaseLink{{Name: "sales", Role: api.Primary, Phase: api.Replicating}}}},
		Deleted: api.DeleteResult{Sides: []api.DeletedSide{{Agent: "a", Database: "sales", Role: api.Primary, State: api.Independent}}},
		Views:   map[string][]api.Link{"sales": {link}},
		Verifications: []api.Verification{{Link: "sales", State: api.Verifying},
			{Link: "sales", State: api.Different, Rows: 7, Differences: []api.Difference{{Kind: "row", Object: "public.t", State: "extra"}}}},
		Copied: []api.DatabaseCopy{{ID: "c1", Database: "sales", Name: "test", State: api.Copying},
			{ID: "c1", Database: "sales", Name: "test", State: api.Copied, Position: "0/16B3748", Exact: true}},
		Together: []api.Failovers{{State: api.FailoverRunning, Links: []api.FailoverProgress{{Link: "sales", Type: api.Planned, State: api.FailoverRunning}}}},
		Changing: []api.FailoverProgress{{Link: "sales", Type: api.Planned, State: api.FailoverRunning},
			{Link: "sales", Type: api.Planned, State: api.FailoverDone, HoldSeconds: 0.5, Steps: []api.FailoverStep{{Name: "deciding"}}}},
		Audited:  api.AuditReport{Link: "sales", Audit: api.Audit{State: api.AuditWaiting}},
		Compared: api.LinkRoles{Link: "sales", Agent: "b", Roles: []api.LinkRole{{Name: "app", State: api.RoleMissing, Password: api.PasswordNone}}, Done: []api.RoleDone{{Name: "app"}}},
		Coming:   api.FailoverPlan{Link: "sales", Type: api.Planned, Blocked: true, Waits: []api.FailoverWaiter{{GID: "p1", Fate: api.FateBlocks}}},
		Plan:     api.RejoinPlan{Link: "sales", Needs: []string{"reseed_tables"}},
		Behind:   api.Lost{Link: "sales", Partings: []api.Parting{{Epoch: 2, State: api.PartingRead, Transactions: 3}}},
		Pages:    []api.LostPage{{Transactions: []api.LostTransaction{{Number: 1, Changes: []api.LostChange{{Kind: "delete", SQL: "DELETE"}}}}}},
		Created:  map[string][]api.Link{"new": {{Name: "new", Phase: api.Creating, Health: api.Healthy, Role: api.Primary, Mode: api.Async, Peer: api.LinkPeer{Name: "b", Role: api.Secondary}}}},
	}
}

// useEverything calls every operation once and checks what arrives.
func useEverything(t *testing.T, c *client.Client) {
	t.Helper()
	ctx := t.Context()
	check := func(what string, ok bool, err error) {
		t.Helper()
		if err != nil || !ok {
			t.Errorf("%s: %v, %v", what, ok, err)
		}
	}
	self, err := c.Agent(ctx)
	check("agent", self.Name == "a" && self.Postgres.Port == 5432 && self.Problems != nil, err)
	happened, err := c.Events(ctx, api.EventQuery{After: 1, Newest: true, Limit: 5, Link: "sales", Kinds: []string{"role", "problem.began"}, Since: new(time.Unix(1, 0)), Wait: 3})
	check("events", len(happened.Events) == 1 && happened.Events[0].Number == 2 && happened.Next == 3 && happened.First == 1, err)
	apart, err := c.Uncarried(ctx, "sales")
	check("uncarried", apart.Sides != nil, err)
	seeded, err := c.SeedingTables(ctx, "sales")
	check("seeding", seeded.Known && seeded.Tables != nil && seeded.More == 7, err)
	_, err = c.RotateKey(ctx)
	check("rotate", true, err)
	export, err := c.ExportPeer(ctx)
	check("export", strings.HasPrefix(export.Certificate, "-----BEGIN"), err)
	peers, err := c.Peers(ctx)
	check("peers", len(peers) == 1 && peers[0].Connected, err)
	invitation, err := c.Invite(ctx, 90*time.Minute)
	check("invite", invitation.Token == "tok-a", err)
	open, err := c.Invitations(ctx)
	check("invitations", len(open) == 1 && open[0].Attempts == 1 && open[0].Grants != nil, err)
	check("uninvite", true, c.Uninvite(ctx, "0a"))
	joined, err := c.Join(ctx, api.JoinRequest{Token: "tok-b"})
	check("join", joined.Name == "b", err)
	added, err := c.AddPeer(ctx, api.AddPeer{Name: "c", Endpoint: "c:5022", Certificate: "PEM"})
	check("add", added.Name == "c" && added.Endpoint == "c:5022", err)
	granted, err := c.GrantPeer(ctx, "c", api.Grant{Database: "d", Direction: "to-here", Operations: []string{"link"}})
	check("grant", len(granted.Grants) == 1 && granted.Requests != nil, err)
	granted, err = c.RevokePeer(ctx, "c", api.Grant{Database: "d", Direction: "to-here", Operations: []string{"link"}})
	check("revoke", granted.Grants != nil, err)
	rekeyed, err := c.SetPeer(ctx, "c", api.SetPeer{Fingerprint: "SHA256:y"})
	check("set peer", rekeyed.Fingerprint == "SHA256:y" && rekeyed.Grants != nil, err)
	check("remove", true, c.RemovePeer(ctx, "c", true))
	found, err := c.Check(ctx, api.CheckRequest{Database: "sales", Peer: "b"})
	check("check", found.Peer == "b" && len(found.Findings) == 1 && found.Findings[0].Severity == api.Blocks, err)
	databases, err := c.Databases(ctx)
	check("databases", len(databases) == 1 && databases[0].Links[0].Name == "sales", err)
	members, err := c.Members(ctx)
	check("members", members.Members != nil, err)
	members, err = c.SetMembers(ctx, api.SetMembers{Durability: "available"})
	check("set members", members.Durability == "available", err)
	memberToken, err := c.InviteMember(ctx, api.InviteMember{})
	check("invite member", memberToken.Token == "twinspan1:member", err)
	_, err = c.RemoveMember(ctx, "member2")
	check("remove member", true, err)
	machine, err := c.Instance(ctx)
	check("instance", machine.Backups != nil && machine.Backups.Policy.RetentionDays == 7 && machine.Enforcement.Pending != nil, err)
	cores := 4
	resized, err := c.SetInstance(ctx, api.SetInstance{VCores: &cores, Restart: true})
	check("set instance", resized.Size.VCores == 4 && resized.Restarted && resized.Pending != nil, err)
	updated, err := c.UpdateInstance(ctx)
	check("update instance", updated.Release == "15.20" && len(updated.Servers) == 1 && updated.Servers[0].From == "15.18" && updated.Servers[0].Led, err)
	used, err := c.Usage(ctx, "2026-11")
	check("usage", used.Month == "2026-11" && used.Hours[0].VCores == 8 && used.Hours[0].Voids != nil && used.Totals != nil, err)
	backups, err := c.Backups(ctx)
	check("backups", len(backups.Backups) == 1 && backups.Backups[0].Label == "20261129-235005F", err)
	task, err := c.BackupNow(ctx, api.BackupRequest{Type: "full"})
	check("backup now", task.Number == 3, err)
	task, err = c.BackupTask(ctx, 3)
	check("backup task", task.State == "done", err)
	_, err = c.VerifyBackups(ctx)
	check("backup verify", true, err)
	_, err = c.TestBackups(ctx)
	check("backup verify", true, err)
	policy, err := c.BackupPolicy(ctx)
	check("backup policy", policy.Repository == "/r", err)
	days := 9
	policy, err = c.SetBackupPolicy(ctx, api.SetBackupPolicy{RetentionDays: &days})
	check("set backup policy", policy.RetentionDays == 9 && policy.Repository == "/r", err)
	keys, err := c.ExportBackups(ctx)
	check("export of the backups", keys.Key == "k", err)
	restorable, err := c.RestorableDatabases(ctx)
	check("restorable", len(restorable) == 1 && restorable[0].Dropped, err)
	links, err := c.Links(ctx)
	check("links", len(links) == 1 && *links[0].Lag.Seconds == 0.25, err)
	link, err := c.Link(ctx, "sales")
	check("link", link.Position.Applied == "0/2" && link.LastFailover.HoldSeconds == 0.412 && link.Notices != nil, err)
	created, err := c.CreateLink(ctx, api.CreateLink{Name: "new", Database: "d", Peer: "b", Accept: []string{"x"}})
	check("create", created.Phase == api.Creating, err)
	set, err := c.SetLink(ctx, "sales", api.SetLink{Mode: api.Sync, SyncTimeoutSeconds: new(int64)})
	check("set", set.Name == "sales", err)
	lately, err := c.History(ctx, "sales", 60)
	check("history", lately.Link == "sales" && lately.EverySeconds == 5 && lately.Samples != nil, err)
	_, err = c.Suspend(ctx, "sales")
	check("suspend", true, err)
	_, err = c.Resume(ctx, "sales")
	check("resume", true, err)
	_, err = c.ResumeWithRepair(ctx, "sales")
	check("resume with repair", true, err)
	_, err = c.ResumeSkipping(ctx, "sales")
	check("resume without a change", true, err)
	copied, err := c.CopyDatabase(ctx, api.CopyDatabase{Database: "sales", Name: "test", Peer: "b", BytesPerSecond: 9})
	check("copy database", copied.State == api.Copying && copied.Roles != nil && copied.Left != nil, err)
	copied, err = c.Copy(ctx, "c/1")
	check("copy", copied.State == api.Copied && copied.Position == "0/16B3748", err)
	copied, err = c.CancelCopy(ctx, "c/1")
	check("cancel copy", copied.Left != nil, err)
	copied, err = c.RestoreDatabase(ctx, api.RestoreDatabase{Database: "sales", Name: "back", Deleted: true})
	check("restore database", copied.Left != nil, err)
	copies, err := c.Copies(ctx)
	check("copies", len(copies) == 1 && copies[0].Roles != nil, err)
	verification, err := c.Verify(ctx, "sales", api.Verify{Repair: true, Tables: []string{"t"}, BytesPerSecond: 5})
	check("verify", verification.State == api.Verifying && verification.Differences != nil, err)
	verification, err = c.Verification(ctx, "sales")
	check("verification", verification.Rows == 7 && verification.Differences[0].Object == "public.t" && verification.Differences[0].Key != nil, err)
	_, err = c.CancelVerification(ctx, "sales")
	check("cancel verification", true, err)
	failover, err := c.Failover(ctx, "sales", api.FailoverRequest{Type: api.Forced, AcceptDataLoss: true})
	check("failover", failover.State == api.FailoverRunning && failover.Steps != nil, err)
	failover, err = c.FailoverProgress(ctx, "sales")
	check("failover progress", failover.HoldSeconds == 0.5 && failover.Steps[0].Name == "deciding", err)
	coming, err := c.FailoverPlan(ctx, "sales", api.FailoverPlanRequest{Type: api.Planned, DrainSeconds: 2.5})
	check("failover plan", coming.Blocked && coming.Waits[0].GID == "p1" && coming.Problems != nil, err)
	_, err = c.CancelFailover(ctx, "sales")
	check("cancel failover", true, err)
	several, err := c.FailoverTogether(ctx, api.FailoversRequest{Links: []string{"sales", "stock"}, Cutover: true})
	check("failover of several links", several.Links[0].Steps != nil, err)
	_, err = c.Failovers(ctx)
	check("failovers", true, err)
	_, err = c.CancelFailovers(ctx)
	check("cancel failovers", true, err)
	audit, err := c.Audit(ctx, "sales")
	check("audit", audit.Compared != nil, err)
	_, err = c.BeginAudit(ctx, "sales")
	check("begin audit", true, err)
	behind, err := c.Lost(ctx, "sales")
	check("lost", len(behind.Partings) == 1 && behind.Partings[0].Transactions == 3 && behind.Partings[0].Tables != nil, err)
	page, err := c.LostPage(ctx, "sales", 2, 0, true)
	check("lost page", len(page.Transactions) == 1 && page.Transactions[0].Changes[0].SQL == "DELETE" && page.Transactions[0].Changes[0].Old != nil, err)
	behind, err = c.DiscardLost(ctx, "sales", 2)
	check("discard lost", behind.Partings[0].State == api.PartingDiscarded, err)
	plan, err := c.RejoinPlan(ctx, "sales")
	check("rejoin plan", len(plan.Needs) == 1 && plan.Drop != nil, err)
	_, err = c.Rejoin(ctx, "sales", api.Rejoin{Accept: []string{"reseed_tables"}})
	check("rejoin", true, err)
	roles, err := c.LinkRoles(ctx, "sales")
	check("roles", len(roles.Roles) == 1 && roles.Roles[0].Lacks != nil && roles.Done != nil && len(roles.Done) == 0, err)
	roles, err = c.BringRoles(ctx, "sales", api.BringRoles{WithPasswords: true})
	check("bring roles", len(roles.Done) == 1, err)
	every := int64(60)
	objects, err := c.LargeObjects(ctx, "sales", api.LargeObjectsRequest{Now: true, EverySeconds: &every})
	check("large objects", objects.Copied == 2 && objects.EverySeconds == 60 && objects.AsOf != nil, err)
	deleted, err := c.DeleteLink(ctx, "sales", true)
	check("delete", deleted.Forced && deleted.Sides[0].State == api.Independent && deleted.Sides[0].Left != nil, err)
}

func TestEverythingOverTheSocket(t *testing.T) {
	s := serve(t, sample(), false)
	useEverything(t, dial(t, client.Dial{Socket: s.dir.Socket()}))
	want := []string{"Info[]", "Events[sales [role problem.began] true 5 true 3]", "Uncarried[sales]", "SeedingTables[sales]", "RotateKey[]", "ExportPeer[]", "Peers[]", "Invite[1h30m0s []]", "Invitations[]", "Uninvite[0a]", "Join[tok-b]",
		"AddPeer[{Name:c Endpoint:c:5022 Certificate:PEM Grants:[]}]", "GrantPeer[c [{Database:d Direction:to-here Operations:[link] Link:}]]", "RevokePeer[c [{Database:d Direction:to-here Operations:[link] Link:}]]", "SetPeer[c SHA256:y ]", "RemovePeer[c true]", "Check[{Database:sales Peer:b PeerDatabase:}]", "Databases[]",
		"Members[]", "SetMembers[{Durability:available}]", "InviteMember[{TTLSeconds:0}]", "RemoveMember[member2]",
		"Instance[]", "SetInstance[4 true]", "UpdateInstance[]", "Usage[2026-11]", "Backups[]", "BackupNow[{Type:full}]", "BackupTask[3]", "VerifyBackups[]", "TestBackups[]", "BackupPolicy[]", "SetBackupPolicy[9 /r]", "ExportBackups[]", "RestorableDatabases[]",
		"Links[]", "Link[sales]",
		"CreateLink[{Name:new Database:d Peer:b PeerDatabase:d Mode:async SyncTimeoutSeconds:<nil> Accept:[x] OnConflict: OnIsolation: MaxRate:0 AuditRate:<nil> FromPeer:false CreateRoles:false WithPasswords:false}]",
		"SetLink[sales sync]", "History[sales 60]", "Suspend[sales]", "Resume[sales]", "ResumeWithRepair[sales]", "ResumeSkipping[sales]", "CopyDatabase[{Database:sales Name:test Peer:b BytesPerSecond:9}]", "Copy[c/1]", "CancelCopy[c/1]", "RestoreDatabase[sales back true]", "Copies[]", "Verify[sales {Repair:true Values:false Tables:[t] BytesPerSecond:5 Workers:0 Limit:0}]", "Verification[sales]", "CancelVerification[sales]",
		"Failover[sales {Type:forced Cutover:false DrainSeconds:0 AcceptDataLoss:true Insist:false}]", "FailoverProgress[sales]", "FailoverPlan[sales {Type:planned Cutover:false DrainSeconds:2.5}]", "CancelFailover[sales]", "FailoverTogether[{Links:[sales stock] Cutover:true DrainSeconds:0}]", "Failovers[]", "CancelFailovers[]", "Audit[sales]", "BeginAudit[sales]", "Lost[sales]", "LostPage[sales 2 0 0 true]", "DiscardLost[sales 2]", "RejoinPlan[sales]", "Rejoin[sales [reseed_tables]]", "LinkRoles[sales]", "BringRoles[sales {WithPasswords:true}]", "LargeObjects[sales true]", "DeleteLink[sales true]"}
	if got := s.agent.Calls(); !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	info, err := os.Stat(s.dir.Socket())
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode of the socket: %v, %v", info.Mode(), err)
	}
}

func TestEverythingOverTCPWithTheOperatorsToken(t *testing.T) {
	s := serve(t, sample(), true)
	useEverything(t, dial(t, client.Dial{URL: "https://" + s.addr, Token: s.tokens.Operator}))
}

func TestReaderMayLookOnly(t *testing.T) {
	s := serve(t, sample(), true)
	c := dial(t, client.Dial{URL: "https://" + s.addr, Token: s.tokens.Reader})
	if _, err := c.Links(t.Context()); err != nil {
		t.Error(err)
	}
	_, err := c.Suspend(t.Context(), "sales")
	wantError(t, err, http.StatusForbidden, "token_reader")
	_, err = c.ExportBackups(t.Context()) // a secret
	wantError(t, err, http.StatusForbidden, "token_reader")
	_, err = c.DeleteLink(t.Context(), "sales", true)
	wantError(t, err, http.StatusForbidden, "token_reader")
	if got := s.agent.Calls(); !slices.Equal(got, []string{"Links[]"}) {
		t.Errorf("the agent was asked %q", got)
	}
}

func TestUnknownTokenIsRefused(t *testing.T) {
	s := serve(t, sample(), true)
	parts := strings.Split(s.tokens.Operator, ".")
	parts[1] = strings.Repeat("A", len(parts[1]))
	_, err := dial(t, client.Dial{URL: "https://" + s.addr, Token: strings.Join(parts, ".")}).Links(t.Context())
	wantError(t, err, http.StatusUnauthorized, "token_unknown")
	if len(s.agent.Calls()) != 0 {
		t.Errorf("the agent was asked %q", s.agent.Calls())
	}
}

func TestTokenIsNotSentToAnotherAgent(t *testing.T) {
	s := serve(t, sample(), true)
	other, err := access.Create(filepath.Join(t.TempDir(), "api"), "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	for name, token := range map[string]string{"pin of another": other.Operator, "without pin": "secret"} {
		_, err := dial(t, client.Dial{URL: "https://" + s.addr, Token: token}).Links(t.Context())
		t.Log(name, err)
		wantError(t, err, 0, "api_not_trusted")
	}
}

func TestNoAgentIsOneClearError(t *testing.T) {
	_, err := dial(t, client.Dial{Socket: filepath.Join(t.TempDir(), "none.sock")}).Links(t.Context())
	wantError(t, err, 0, "agent_unreachable")
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("changed my mind")
	cancel(why)
	if _, err := dial(t, client.Dial{Socket: "x"}).Links(ctx); !errors.Is(err, why) {
		t.Errorf("%v", err)
	}
}

func TestEveryKindHasItsStatusAndArrivesWhole(t *testing.T) {
	for kind, status := range map[problem.Kind]int{
		problem.Invalid: 400, problem.NotFound: 404, problem.Conflict: 409, problem.Unauthorised: 403, problem.Incompatible: 422,
		problem.Transient: 503, problem.Resource: 507, problem.Diverged: 409, problem.Cancelled: 503, problem.Internal: 500,
	} {
		agent := sample()
		sent := api.Error{Kind: string(kind), Code: "the_code", Subject: "public.t", Text: "it is so", Hint: "do this"}
		agent.Refusals = map[string]api.Error{"Link": sent}
		s := serve(t, agent, false)
		_, err := dial(t, client.Dial{Socket: s.dir.Socket()}).Link(t.Context(), "sales")
		var got *api.Error
		if !errors.As(err, &got) {
			t.Fatalf("%s: %v", kind, err)
		}
		sent.Status = status
		if *got != sent {
			t.Errorf("got %+v, want %+v", *got, sent)
		}
		if logged := strings.Contains(s.log.String(), "the_code"); logged != (kind == problem.Internal) {
			t.Errorf("%s: logged %v", kind, logged)
		}
	}
}

func wantError(t *testing.T, err error, status int, code string) {
	t.Helper()
	var e *api.Error
	if !errors.As(err, &e) {
		t.Errorf("not an *api.Error: %v", err)
		return
	}
	if e.Status != status || e.Code != code || e.Hint == "" || e.Text == "" {
		t.Errorf("got %+v, want %d %s with text and hint", *e, status, code)
	}
}

// raw sends a request as no client of ours would.
func raw(t *testing.T, s *served, method, path, body string) (int, string, string) {
	t.Helper()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", s.dir.Socket())
	}}
	defer transport.CloseIdleConnections()
	r, err := http.NewRequestWithContext(t.Context(), method, "http://agent"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	answer, err := (&http.Client{Transport: transport}).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, answer.Header.Get("Content-Type"), string(text)
}

func TestBadRequestsHaveTheOneShapeAndReachNoAgent(t *testing.T) {
	s := serve(t, sample(), false)
	for _, r := range []struct {
		method, path, body string
		status             int
		code               string
	}{
		{"POST", "/v1/links", `{`, 400, "request_invalid"},
		{"POST", "/v1/links", `{"name":"a","database":"d"}`, 422, "request_invalid"},
		{"POST", "/v1/links", `{"name":"a b","database":"d","peer":"p"}`, 422, "request_invalid"},
		{"POST", "/v1/links", `{"name":"a","database":"d","peer":"p","mode":"never"}`, 422, "request_invalid"},
		{"POST", "/v1/links", `{"name":"a","database":"d","peer":"p","colour":"red"}`, 422, "request_invalid"},
		{"POST", "/v1/links", ``, 400, "request_invalid"},
		{"POST", "/v1/peers/join", `{"token":7,"secret":"hunter2"}`, 422, "request_invalid"},
		{"POST", "/v1/invitations", `{"ttlSeconds":-1}`, 422, "request_invalid"},
		{"POST", "/v1/peers", `{"certificate":"` + strings.Repeat("x", 2<<20) + `"}`, 413, "request_invalid"},
		{"DELETE", "/v1/links/sales?force=maybe", ``, 422, "request_invalid"},
		{"GET", "/v2/links", ``, 404, "no_such_path"},
		{"PUT", "/v1/links", ``, 404, "no_such_path"},
		{"GET", "/", ``, 404, "no_such_path"},
	} {
		status, contentType, text := raw(t, s, r.method, r.path, r.body)
		var e api.Error
		if err := json.Unmarshal([]byte(text), &e); err != nil {
			t.Errorf("%s %s: %v: %s", r.method, r.path, err, text)
			continue
		}
		if status != r.status || e.Code != r.code || e.Kind == "" || contentType != "application/problem+json" {
			t.Errorf("%s %s %.40s: %d %s %s", r.method, r.path, r.body, status, contentType, text)
		}
		if strings.Contains(text, "hunter2") {
			t.Errorf("the error repeats a value: %s", text)
		}
	}
	if calls := s.agent.Calls(); len(calls) != 0 {
		t.Errorf("the agent was asked %q", calls)
	}
}

func TestHealthReadinessAndMetrics(t *testing.T) {
	agent := sample()
	s := serve(t, agent, false)
	if status, _, text := raw(t, s, "GET", "/healthz", ""); status != 200 || text != "ok\n" {
		t.Errorf("%d %s", status, text)
	}
	if status, _, text := raw(t, s, "GET", "/readyz", ""); status != 200 || text != "ok\n" {
		t.Errorf("%d %s", status, text)
	}
	if status, _, _ := raw(t, s, "GET", "/debug/pprof/", ""); status != 200 {
		t.Errorf("pprof on the socket: %d", status)
	}
	_, _, text := raw(t, s, "GET", "/metrics", "")
	for _, line := range []string{
		`twinspan_link_lag_bytes{link="sales",role="primary"} 3`,
		`twinspan_link_lag_seconds{link="sales",role="primary"} 0.25`,
		`twinspan_link_phase{link="sales",phase="replicating",role="primary"} 1`,
		`twinspan_link_phase{link="sales",phase="broken",role="primary"} 0`,
		`twinspan_link_problems{link="sales",role="primary",severity="warns"} 1`,
		`twinspan_link_peer_connected{link="sales",peer="b",role="primary"} 1`,
		`twinspan_postgres_up 1`,
		`twinspan_build_info{version="1.2.3"} 1`,
	} {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("no %s", line)
		}
	}
	// What is not known has no series, and nobody's alarm takes it for 0.
	quiet := sample()
	link := &quiet.Views["sales"][0]
	link.Lag, link.Rates, link.Time, link.Peer.HeardAt = api.Lag{}, nil, nil, nil
	_, _, text = raw(t, serve(t, quiet, false), "GET", "/metrics", "")
	for _, series := range []string{"lag_", "applied_", "time_", "spilled_", "seeding_", "peer_heard"} {
		if strings.Contains(text, "\ntwinspan_link_"+series) {
			t.Errorf("a series twinspan_link_%s is there, and nothing is known", series)
		}
	}
	if !strings.Contains(text, `twinspan_link_epoch{link="sales",role="primary"} 1`) {
		t.Errorf("what is known is missing:\n%s", text)
	}
	away := sample()
	away.Self.Postgres.Connected = false
	s = serve(t, away, false)
	if status, _, text := raw(t, s, "GET", "/readyz", ""); status != 503 || !strings.Contains(text, "postgres_away") {
		t.Errorf("%d %s", status, text)
	}
}

func TestOnlyHealthIsOpenOverTCP(t *testing.T) {
	s := serve(t, sample(), true)
	c := dial(t, client.Dial{URL: "https://" + s.addr, Token: s.tokens.Reader})
	insecure := &http.Transport{TLSClientConfig: client.Trust(s.tokens.Reader, "127.0.0.1")}
	defer insecure.CloseIdleConnections()
	for path, want := range map[string]int{"/healthz": 200, "/readyz": 401, "/metrics": 401, "/openapi.json": 200, "/docs": 200, "/docs/": 401, "/v1/agent": 401, "/debug/pprof/": 401} {
		answer, err := (&http.Client{Transport: insecure}).Get("https://" + s.addr + path)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if answer.StatusCode != want {
			t.Errorf("%s: %d, want %d", path, answer.StatusCode, want)
		}
	}
	if _, err := c.Agent(t.Context()); err != nil {
		t.Error(err)
	}
	plain, err := http.Get("http://" + s.addr + "/healthz")
	if err == nil {
		plain.Body.Close()
		if plain.StatusCode == 200 {
			t.Error("answers without TLS")
		}
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestOldSocketOfAKilledAgentIsReplaced(t *testing.T) {
	s := serve(t, sample(), false)
	second := &Server{Agent: s.agent, Dir: s.dir, Version: "2", Log: slog.New(slog.DiscardHandler)}
	ctx, cancel := context.WithCancel(t.Context())
	ready := make(chan struct{})
	second.Listening = func() { close(ready) }
	ended := make(chan error, 1)
	go func() { ended <- second.Run(ctx) }()
	<-ready
	if _, err := dial(t, client.Dial{Socket: s.dir.Socket()}).Agent(t.Context()); err != nil {
		t.Error(err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// operations returns "METHOD path" of all operations of the description.
func operations(t *testing.T, text []byte) []string {
	t.Helper()
	var described struct {
		Paths map[string]map[string]json.RawMessage `json:"paths"`
	}
	if err := json.Unmarshal(text, &described); err != nil {
		t.Fatal(err)
	}
	var all []string
	for path, methods := range described.Paths {
		for method := range methods {
			all = append(all, strings.ToUpper(method)+" "+path)
		}
	}
	slices.Sort(all)
	return all
}

func TestOpenAPIIsAsWritten(t *testing.T) {
	golden := filepath.Join("..", "..", "api", "openapi.json")
	s := serve(t, sample(), false)
	_, contentType, text := raw(t, s, "GET", "/openapi.json", "")
	if contentType != "application/json" {
		t.Errorf("type %s", contentType)
	}
	var b bytes.Buffer
	if err := json.Indent(&b, []byte(text), "", "  "); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(golden, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(want, b.Bytes()) {
		t.Errorf("%s is not what the server describes; run make generated and review the difference", golden)
	}
	if strings.Contains(text, "ErrorModel") {
		t.Error("the framework's own error is described")
	}
}

func TestClientReachesEveryOperation(t *testing.T) {
	mux := http.NewServeMux()
	described := newAPI(mux, sample(), func(context.Context, string, error) {})
	text, err := json.Marshal(described.OpenAPI())
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	s := sample()
	inner := http.NewServeMux()
	newAPI(inner, s, func(context.Context, string, error) {})
	socket := filepath.Join(shortDir(t), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, pattern := inner.Handler(r)
		answer := httptest.NewRecorder()
		inner.ServeHTTP(answer, r)
		if r.URL.Path != "/healthz" { // which is no operation: a client asks it first
			seen[pattern] = true // one request at a time
			fits(t, described.OpenAPI(), pattern, answer)
		}
		maps.Copy(w.Header(), answer.Header())
		w.WriteHeader(answer.Code)
		w.Write(answer.Body.Bytes())
	})}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	useEverything(t, dial(t, client.Dial{Socket: socket}))
	if err := server.Close(); err != nil {
		t.Error(err)
	}
	<-ended
	got := slices.Sorted(maps.Keys(seen))
	if want := operations(t, text); !slices.Equal(got, want) {
		t.Errorf("reached  %s\ndescribed %s", fmt.Sprint(got), fmt.Sprint(want))
	}
}

func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "tw")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}
