package web

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"html"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/client"
	"github.com/twinspan/twinspan/internal/config"
	"github.com/twinspan/twinspan/internal/httpapi"
	"github.com/twinspan/twinspan/internal/httpapi/agenttest"
	"github.com/twinspan/twinspan/internal/leaks"
)

func TestMain(m *testing.M) { leaks.Main(m) }

// gate is an Entrance with one token for each role.
type gate struct {
	client *client.Client

	mu    sync.Mutex
	ended map[string]bool
}

func (g *gate) Enter(secret string) (Visitor, bool) {
	return g.Again(strings.TrimPrefix(secret, "token-of-"))
}

func (g *gate) Again(key string) (Visitor, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return Visitor{Key: key, Name: key, Operator: key == "operator"}, (key == "operator" || key == "reader") && !g.ended[key]
}

func (g *gate) end(key string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ended[key] = true
}

func (g *gate) Client(Visitor, string) (*client.Client, error) { return g.client, nil }
func (g *gate) Serves(host string) bool                        { return strings.HasPrefix(host, "127.0.0.1") }
func (g *gate) Welcome(*http.Request)                          {}

// site is a face with a browser of little understanding.
type site struct {
	*httptest.Server
	gate    *gate
	agent   *agenttest.Agent
	browser *http.Client
}

// serveSite serves the pages of an agent for the length of the test.
func serveSite(t *testing.T, agent *agenttest.Agent) *site {
	t.Helper()
	base, err := os.MkdirTemp("", "tw")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(base) })
	dir := config.Dir(base)
	if err := dir.Create(); err != nil {
		t.Fatal(err)
	}
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	ready := make(chan struct{})
	server := &httpapi.Server{Agent: agent, Dir: dir, Version: "1.2.3", Log: quiet, Listening: func() { close(ready) }}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx) }()
	<-ready
	c, err := client.New(client.Dial{Socket: dir.Socket()})
	if err != nil {
		t.Fatal(err)
	}
	s := &site{gate: &gate{client: c, ended: map[string]bool{}}, agent: agent}
	face, err := New(Config{Entrance: s.gate, Version: "1.2.3", Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Cookie: "twinspan-test", Sessions: filepath.Join(base, "sessions")})
	if err != nil {
		t.Fatal(err)
	}
	s.Server = httptest.NewServer(face)
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	s.browser = &http.Client{Jar: jar}
	t.Cleanup(func() {
		s.Close()
		s.browser.CloseIdleConnections()
		c.Close()
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return s
}

// ask asks for a path and returns status, text and where it led.
func (s *site) ask(t *testing.T, method, path string, form url.Values) (status int, text, led string) {
	t.Helper()
	r, err := http.NewRequest(method, s.URL+path, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Sec-Fetch-Site", "same-origin")
	}
	answer, err := s.browser.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(body), answer.Request.URL.RequestURI()
}

func (s *site) signIn(t *testing.T, as string) {
	t.Helper()
	if status, text, led := s.ask(t, "POST", "/ui/sign-in", url.Values{"secret": {"token-of-" + as}}); status != http.StatusOK || led != Base {
		t.Fatalf("%d at %s: %s", status, led, text)
	}
}

const oddName = `<b>"x"&`

func at(minutes int) time.Time {
	return time.Date(2026, 11, 30, 10, 0, 0, 0, time.UTC).Add(time.Duration(minutes) * time.Minute)
}

func known[T any](v T) *T { return &v }

// linkIn is a link in a phase, with everything that a view can hold.
func linkIn(phase api.Phase, role api.Role) api.Link {
	since := at(1)
	l := api.Link{Name: "sales", ID: "3f8b1f6e-0000-4000-8000-000000000001", Database: oddName, Role: role, Phase: phase, Health: api.Healthy, Epoch: 3, Mode: api.Sync,
		Peer:       api.LinkPeer{Name: "b", Role: api.Secondary, Connected: phase != api.Broken, HeardAt: &since, Database: strings.Repeat("ä", 31)},
		PhaseSince: &since, Seeding: api.Progress{Step: "copying tables", TablesTotal: 10, TablesDone: 4, BytesTotal: 1 << 30, BytesDone: 1 << 28, BytesPerSecond: 1 << 20, EtaSeconds: 90},
		Position: api.Position{Written: "0/3000000", Sent: "0/2000000", Received: "0/2000000", Applied: "0/1000000"},
		Lag:      api.Lag{Bytes: known(int64(33554432)), Seconds: known(1.5)}, Rates: &api.Rates{TransactionsPerSecond: 123, ChangesPerSecond: 456, BytesPerSecond: 7890},
		Time: &api.TimeShares{Source: 0.5, Network: 0.1, Applying: 0.3, Committing: 0.1}, SpilledBytes: 5000,
		Problems:     []api.Problem{{Code: "peer_unreachable", Severity: api.Warns, Title: "title " + oddName, Subject: oddName, Hint: "hint " + oddName}},
		Notices:      []api.Notice{{At: since, Code: "role_created", Subject: oddName, Text: "was created"}},
		LastFailover: &api.Failover{Type: "planned", At: since, HoldSeconds: 0.07}, CreatedAt: since, SchemaChanges: api.Followed, Sync: &api.LinkSync{State: api.SyncEngaged, TimeoutSeconds: 10},
		LargeObjects: &api.LargeObjects{Objects: 3, AsOf: &since}, Audit: &api.Audit{State: api.AuditWaiting, RateBytesPerSecond: 8 << 20, Items: 5, Done: 4, EqualSince: &since}}
	if phase == api.FailingOver {
		l.Step, l.StepSince = "holding writers", &since
	}
	return l
}

// everything is an agent of which every page has something to show.
func everything(links ...api.Link) *agenttest.Agent {
	since := at(2)
	a := &agenttest.Agent{
		Self: api.Agent{ID: "ida", Name: "a", Version: "1.2.3", Fingerprint: "SHA256:aa", Endpoint: "a:5022", StartedAt: since, Postgres: api.Postgres{Connected: true, Version: "15.18", Host: "/run/pg", Port: 5432, User: "postgres", SystemID: "7"},
			Links: 1, Peers: 1, Problems: []api.Problem{{Code: "certificate_expires", Severity: api.Warns, Title: "it ends " + oddName}}},
		Trusted: []api.Peer{{Name: "b", ID: "idb", Endpoint: "b:5022", Fingerprint: "SHA256:bb", Connected: true, ConnectedAt: &since, Links: 1,
			Grants:   []api.Grant{{Database: "*", Direction: "to-here", Operations: []string{"link", "roles"}}},
			Requests: []api.PeerRequest{{Database: oddName, Direction: "from-here", Operation: "link", At: since, Command: "twinspan peer grant b"}}}},
		Present: []api.Database{{Name: oddName, Owner: "o", Bytes: 1 << 30, Links: []api.DatabaseLink{{Name: "sales", Role: api.Primary, Phase: api.Replicating}}}, {Name: "other"}},
		Views:   map[string][]api.Link{},
		Lately: []api.HistorySample{{At: at(-2), Phase: api.Replicating, LagSeconds: known(0.5)}, {At: at(0), Phase: api.Replicating, LagSeconds: known(1.0), LagBytes: known(int64(5000)), TransactionsPerSecond: known(9.0)},
			{At: at(6), Phase: api.Replicating}},
		Found: api.Check{Database: oddName, Peer: "b", Findings: []api.Finding{{Code: "network_measured", Severity: api.Informs, Object: "b", Why: "the round trip takes 1 ms"},
			{Code: "sequences_behind", Severity: api.Warns, Object: oddName, Why: "why " + oddName, Remedy: "do " + oddName}}},
		Coming: api.FailoverPlan{Link: "sales", Type: api.Planned, Primary: "b", Problems: []api.Problem{{Code: "peer_unreachable", Severity: api.Informs, Title: oddName}}, DrainSeconds: 10, HoldSeconds: known(0.05), MostSeconds: known(10.0),
			Waits:     []api.FailoverWaiter{{Agent: "a", PID: 7, Role: oddName, Database: oddName, Since: &since, Fate: api.FateEnded}, {Agent: "a", GID: oddName, Fate: api.FateBlocks}},
			Loss:      &api.Loss{Written: "0/3", Applied: "0/2", Bytes: known(int64(4096)), HeardAt: &since, PrimarySeen: true},
			Uncarried: &api.UncarriedSide{Agent: "b", Objects: []api.UncarriedObject{{Kind: "job", Name: oddName, Text: "so", Remedy: "do"}}}},
		Changing: []api.FailoverProgress{{Link: "sales", Type: api.Planned, State: api.FailoverDone, Steps: []api.FailoverStep{{Name: "holding writers", Seconds: 0.1, Done: true}}, StartedAt: since, HoldSeconds: 0.06, Ended: 1, Primary: "b"}},
		Plan: api.RejoinPlan{Link: "sales", Agent: "a", Database: oddName, Phase: api.Fenced, Needs: []string{"reseed_tables"}, Tables: []api.RejoinTable{{Table: oddName, Changes: 3}}, Reseed: []api.ReseedTable{{Table: oddName, Why: "keyless", Bytes: 9}},
			Drop: []string{oddName}, Build: []string{oddName}, Stays: []string{oddName}, Keep: []string{oddName}, Irreversible: []string{oddName}, Unreadable: "slot_lost"},
		Joined: api.Members{Tier: "business-critical", Self: "member1", Leader: "member1", Serves: "member1", Durability: "strict", Strict: true, Problems: []api.Problem{{Code: "peer_unreachable", Severity: api.Warns, Title: oddName}},
			Members: []api.Member{{Name: "member1", Place: oddName, Address: "h:5432", Role: "leader", State: "running", Answers: true, Votes: true}, {Name: "member2", Role: "replica", Lag: known(int64(4096))}, {Name: "member3", Role: "unknown"}}},
		Backed: agenttest.Backed{Size: api.InstanceSize{Tier: "general-purpose", VCores: 2, MemoryBytes: 8 << 30, StorageBytes: 100 << 30, Benefit: "passive-dr"},
			Storage: &api.InstanceStorage{UsedBytes: 75 << 30, LimitBytes: 100 << 30, FreeBytes: 25 << 30, MeasuredAt: since, FullAt: &since, Rate: known(5.0)},
			Used: []api.UsageHour{{Start: since, Tier: "general-purpose", VCores: 2, Role: "secondary", State: "active", Why: oddName, Declared: true, Voids: []api.UsageVoid{{Role: oddName, Database: oddName, Application: oddName, Client: "[local]", FirstAt: since}}},
				{Start: since, State: "unknown", Open: true}}},
		Happened: []api.Event{{Number: 1, At: since, Kind: api.EventLink, Action: "made", Link: "sales", By: api.Actor{Kind: api.ByOperator, Name: oddName, Via: "token", Address: "10.0.0.1"}, Text: "the link was made", Code: "peer_unreachable", Severity: api.Warns, Subject: oddName}},
		Seeded:   api.SeedingTables{Link: "sales", Known: true, Tables: []api.SeedingTable{{Table: oddName, State: api.TableCopying, BytesTotal: 100, BytesDone: 50}, {Table: "t", State: api.TableCopied}}},
		Apart:    api.Uncarried{Link: "sales", Sides: []api.UncarriedSide{{Agent: "b", Role: api.Secondary, From: "a", AsOf: &since, Objects: []api.UncarriedObject{{Kind: "subscription", Name: oddName, Text: "so", Remedy: "do"}}}}},
		Copied:   []api.DatabaseCopy{{ID: "1", Database: oddName, Name: "copy", State: api.Copying, Step: "copying tables", StartedAt: since, TablesTotal: 3, TablesDone: 1, BytesTotal: 100, BytesDone: 50, Left: []string{"x"}}},
		Audited: api.AuditReport{Link: "sales", Audit: api.Audit{State: api.AuditRunning, RateBytesPerSecond: 1000, PassSeconds: known(9.0), Items: 1},
			Compared: []api.AuditItem{{Kind: "table", Name: oddName, Bytes: 100, EqualAt: &since, Differences: []api.Difference{{Kind: "row", Object: oddName, State: "differs", Key: []api.Value{{Column: "id", Value: oddName}}, Columns: []string{"v"}, Values: []api.Pair{{Column: "v", Primary: known(oddName)}}, Repair: "UPDATE"}}}}},
		Compared:      api.LinkRoles{Link: "sales", Agent: "b", Roles: []api.LinkRole{{Name: oddName, State: api.RoleDiffers, Lacks: []string{"CREATEDB"}, Password: api.PasswordSame, UsedAt: &since, Refused: "no"}}},
		Verifications: []api.Verification{{Link: "sales", State: api.Different, StartedAt: since, TablesTotal: 3, Differences: []api.Difference{{Kind: "index", Object: oddName, State: "missing", Primary: "CREATE INDEX"}}, Sequences: []api.SequenceDifference{{Name: oddName, State: "behind"}}, Skipped: []api.SkippedTable{{Table: oddName, Why: "why"}}, MoreRows: []string{"t"}}},
		Behind:        api.Lost{Link: "sales", Partings: []api.Parting{{Epoch: 2, Agent: "b", Database: oddName, State: api.PartingRead, Parted: "0/1", ReadTo: "0/2", Transactions: 1, Changes: 1, First: &since, Last: &since, Tables: []api.LostTable{{Table: oddName, Inserts: 1}}}}},
		Pages:         []api.LostPage{{Transactions: []api.LostTransaction{{Number: 1, Position: "0/2", CommittedAt: since, Total: 1, Changes: []api.LostChange{{Number: 1, Kind: "update", Table: oddName, Old: []api.LostValue{{Column: "id", Value: known(oddName), State: "value"}}, New: []api.LostValue{{Column: "v", State: "null"}, {Column: "w", State: "unchanged"}, {Column: "x", State: "long", Value: known("beg"), Bytes: 9999}}}}}}}},
	}
	for _, l := range links {
		a.Views[l.Name] = []api.Link{l}
	}
	return a
}

// pages are the paths that show something.
var pages = []string{"", "links/sales", "links/sales/audit", "links/sales/verify", "links/sales/roles", "links/sales/uncarried", "links/sales/lost", "links/sales/lost?sql=yes",
	"links/sales/settings", "links/sales/delete", "databases", "peers", "instance", "members", "usage", "usage?month=2026-01", "backups", "problems", "problems/peer_unreachable", "events",
	"links/sales/failover", "links/sales/failover?step=plan&type=planned&cutover=yes&drain=5", "links/sales/failover?step=confirm&type=planned", "links/sales/failover?step=confirm&type=forced",
	"links/sales/failover/steps", "links/sales/rejoin", "new", "new?step=peer&database=" + url.QueryEscape(oddName), "new?step=check&peer=b&database=other&database=" + url.QueryEscape(oddName),
	"new?step=options&peer=b&database=" + url.QueryEscape(oddName), "new?step=summary&peer=b&mode=sync&timeout=0&rate=5&roles=yes&database=" + url.QueryEscape(oddName), "new/progress?link=sales",
	"migrate", "migrate?link=sales", "migrate?link=none", "network", "network?peer=b&database=" + url.QueryEscape(oddName)}

// leftOver finds what a template left of a value that it could not write.
// An address with %3d has a parameter's name escaped with its value.
var leftOver = regexp.MustCompile(`ZgotmplZ|<nil>|%!|\(MISSING\)|0x[0-9a-f]{8}|\?[a-z]+%3d`)

// Every page is whole in every phase, on both sides, and writes odd names as text.
func TestEveryPageInEveryPhase(t *testing.T) {
	for _, phase := range []api.Phase{api.Creating, api.Seeding, api.CatchingUp, api.Replicating, api.Suspended, api.FailingOver, api.Fenced, api.Broken} {
		for _, role := range []api.Role{api.Primary, api.Secondary} {
			t.Run(fmt.Sprintf("%s/%s", phase, role), func(t *testing.T) {
				s := serveSite(t, everything(linkIn(phase, role)))
				s.signIn(t, "operator")
				for _, path := range pages {
					status, text, _ := s.ask(t, "GET", Base+path, nil)
					if status != http.StatusOK || !strings.Contains(text, "</html>") {
						t.Errorf("%s: %d, %.300s", path, status, text)
					}
					if found := leftOver.FindString(text); found != "" {
						t.Errorf("%s has %q", path, found)
					}
					if strings.Contains(text, "<b>") || strings.Contains(text, " style=") || strings.Contains(text, " onclick=") {
						t.Errorf("%s: a name is read as HTML, or something is inline", path)
					}
				}
			})
		}
	}
}

// What is not known is written so, and nothing is made up: a link of which a view says as
// little as it may.
func TestUnknownIsShownAsUnknown(t *testing.T) {
	a := everything(api.Link{Name: "sales", Role: api.Secondary, Phase: api.Replicating, Health: api.Unhealthy, Peer: api.LinkPeer{Name: "b"}})
	a.Lately = nil
	s := serveSite(t, a)
	s.signIn(t, "reader")
	_, text, _ := s.ask(t, "GET", Base+"links/sales", nil)
	for _, want := range []string{`<span class="figure">unknown</span>`, "has not been heard since this agent was started", `<span class="muted">unknown</span>`} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in the page", want)
		}
	}
	if strings.Contains(text, "0 s") || strings.Contains(text, "0/0") {
		t.Error("something unknown is shown as 0")
	}
}

func TestWhoMayDoWhat(t *testing.T) {
	s := serveSite(t, everything(linkIn(api.Replicating, api.Primary)))
	if status, _, led := s.ask(t, "GET", Base+"links/sales", nil); status != http.StatusOK || led != Base+"sign-in?next=%2Fui%2Flinks%2Fsales" {
		t.Errorf("a stranger: %d, %s", status, led)
	}
	if status, _, _ := s.ask(t, "POST", Base+"sign-in", url.Values{"secret": {"wrong"}}); status != http.StatusForbidden {
		t.Errorf("a wrong token: %d", status)
	}
	s.signIn(t, "reader")
	_, text, _ := s.ask(t, "GET", Base+"links/sales", nil)
	if strings.Contains(text, "Suspend") {
		t.Error("a reader is shown what he may not do")
	}
	if status, text, _ := s.ask(t, "POST", Base+"links/sales/do", url.Values{"act": {"suspend"}}); status != http.StatusForbidden || !strings.Contains(text, "token_reader") {
		t.Errorf("a reader acts: %d", status)
	}
	if _, text, _ := s.ask(t, "GET", Base+"links/sales/lost", nil); strings.Contains(text, "Row by row") || !strings.Contains(text, "shown to operators alone") {
		t.Error("a reader sees rows")
	}
	if strings.Contains(strings.Join(s.agent.Calls(), " "), "Suspend") {
		t.Error("the agent was asked all the same")
	}

	s.signIn(t, "operator")
	if status, text, led := s.ask(t, "POST", Base+"links/sales/do", url.Values{"act": {"suspend"}}); status != http.StatusOK || led != Base+"links/sales?said=suspended" || !strings.Contains(text, "The link is suspended.") {
		t.Errorf("%d, %s", status, led)
	}
	if !strings.Contains(strings.Join(s.agent.Calls(), " "), "Suspend[sales]") {
		t.Errorf("%v", s.agent.Calls())
	}
	s.gate.end("operator") // in the middle
	if _, _, led := s.ask(t, "POST", Base+"links/sales/do", url.Values{"act": {"resume"}}); led != Base+"sign-in" {
		t.Errorf("a token that was revoked acts: %s", led)
	}
	if strings.Contains(strings.Join(s.agent.Calls(), " "), "Resume") {
		t.Error("the agent was asked all the same")
	}
}

// What a form of the instance and its members asks for reaches the agent as it was written,
// and nothing does that is not confirmed.
func TestInstanceIsChanged(t *testing.T) {
	s := serveSite(t, everything(linkIn(api.Replicating, api.Secondary)))
	s.signIn(t, "operator")
	if status, text, _ := s.ask(t, "POST", Base+"instance", url.Values{"act": {"size"}, "vcores": {"4"}, "memory": {"x"}}); status != http.StatusBadRequest || !strings.Contains(text, "memory is not a whole number") {
		t.Errorf("memory that is no number: %d", status)
	}
	if status, _, _ := s.ask(t, "POST", Base+"instance", url.Values{"act": {"size"}, "storage": {"9999999999999"}}); status != http.StatusBadRequest {
		t.Errorf("storage beyond all bounds: %d", status)
	}
	if status, _, _ := s.ask(t, "POST", Base+"members", url.Values{"act": {"remove"}, "member": {"member2"}, "confirm": {"member3"}}); status != http.StatusBadRequest {
		t.Errorf("another name: %d", status)
	}
	for _, never := range []string{"SetInstance", "RemoveMember"} {
		if strings.Contains(s.calls(), never) {
			t.Errorf("the agent was asked all the same: %s", s.calls())
		}
	}
	for _, c := range []struct {
		page string
		form url.Values
		said string
		call string
	}{
		{"instance", url.Values{"act": {"size"}, "vcores": {"4"}, "memory": {""}, "restart": {"yes"}}, "the server was restarted", "SetInstance[4 true]"},
		{"instance", url.Values{"act": {"rotate"}}, "There is a new key", "RotateKey"},
		{"members", url.Values{"act": {"durability"}, "durability": {"available"}}, "The durability is changed", "SetMembers[{Durability:available}]"},
		{"members", url.Values{"act": {"remove"}, "member": {"member2"}, "confirm": {"member2"}}, "The member is removed", "RemoveMember[member2]"},
		{"members", url.Values{"act": {"invite"}}, "twinspan1:member", "InviteMember"},
	} {
		if status, text, _ := s.ask(t, "POST", Base+c.page, c.form); status != http.StatusOK || !strings.Contains(text, c.said) || !strings.Contains(s.calls(), c.call) {
			t.Errorf("%v: %d, %s", c.form, status, s.calls())
		}
	}
	_, text, _ := s.ask(t, "GET", Base+"usage?month=2026-01", nil)
	if !strings.Contains(text, "usage --month=2026-01 --output=csv") || !strings.Contains(s.calls(), "Usage[2026-01]") || !strings.Contains(text, `month=2026-02`) || !strings.Contains(text, `month=2025-12`) {
		t.Error("the hours of another month are not shown")
	}
	if status, _, _ := s.ask(t, "GET", Base+"usage?month=nope", nil); status != http.StatusBadRequest {
		t.Errorf("a month that is none: %d", status)
	}
}

// calls are what the agent was asked, on one line.
func (s *site) calls() string { return strings.Join(s.agent.Calls(), " ") }

// The wizard that fails over asks for nothing before it is confirmed, and a forced one wants
// the name.
func TestFailoverIsConfirmed(t *testing.T) {
	s := serveSite(t, everything(linkIn(api.Replicating, api.Secondary)))
	s.signIn(t, "operator")
	at := Base + "links/sales/failover"
	_, text, _ := s.ask(t, "GET", at+"?step=plan&type=forced", nil)
	for _, want := range []string{"4.0 kB of log", "twinspan link failover sales --type=forced --accept-data-loss", "POST /v1/links/sales/failover", "What becomes of it"} {
		if !strings.Contains(text, want) {
			t.Errorf("the plan does not say %q", want)
		}
	}
	if _, text, _ := s.ask(t, "GET", at+"?step=confirm&type=forced", nil); !strings.Contains(text, `name="insist"`) || !strings.Contains(text, `name="confirm"`) {
		t.Error("a forced failover with the primary there wants no more than a button")
	}
	if status, _, _ := s.ask(t, "POST", at, url.Values{"type": {"forced"}, "confirm": {"sale"}}); status != http.StatusBadRequest {
		t.Errorf("with another name: %d", status)
	}
	if strings.Contains(s.calls(), "Failover[") {
		t.Fatalf("the agent was asked: %s", s.calls())
	}
	if _, _, led := s.ask(t, "POST", at, url.Values{"type": {"forced"}, "confirm": {"sales"}}); led != at+"/steps" {
		t.Errorf("it leads to %s", led)
	}
	s.ask(t, "POST", at, url.Values{"type": {"planned"}, "cutover": {"yes"}, "drain": {"2.5"}})
	for _, want := range []string{"Failover[sales {Type:forced Cutover:false DrainSeconds:0 AcceptDataLoss:true Insist:false}]", "Failover[sales {Type:planned Cutover:true DrainSeconds:2.5 AcceptDataLoss:false Insist:false}]"} {
		if !strings.Contains(s.calls(), want) {
			t.Errorf("the agent was not asked for %s", want)
		}
	}
	if status, _, _ := s.ask(t, "POST", at, url.Values{"drain": {"soon"}}); status != http.StatusBadRequest {
		t.Errorf("a time that is none: %d", status)
	}
}

// The wizard that makes links goes on with what blocks nothing and is accepted alone, and
// makes each link with what was chosen.
func TestLinksAreMadeAsChosen(t *testing.T) {
	agent := everything(linkIn(api.Replicating, api.Primary))
	agent.Created = map[string][]api.Link{"first": {{Name: "first", Phase: api.Creating}}, "b-x": {{Name: "b-x", Phase: api.Creating}}}
	s := serveSite(t, agent)
	s.signIn(t, "operator")
	chosen := "peer=b&database=other&database=" + url.QueryEscape(oddName)
	if _, text, _ := s.ask(t, "GET", Base+"new?step=summary&"+chosen, nil); !strings.Contains(text, "Not accepted yet: sequences_behind") || !strings.Contains(text, "disabled") {
		t.Error("a warning that nobody accepted is passed over")
	}
	_, text, _ := s.ask(t, "GET", Base+"new?step=summary&accept=sequences_behind&"+chosen, nil)
	for _, want := range []string{"Make 2 links", html.EscapeString(`twinspan link create b-x --database='<b>"x"&' --peer=b --accept=sequences_behind`)} {
		if !strings.Contains(text, want) {
			t.Errorf("the summary does not say %q", want)
		}
	}
	_, _, led := s.ask(t, "POST", Base+"new", url.Values{"database": {"other", oddName}, "name": {"first", ""}, "twin": {"", "elsewhere"}, "peer": {"b"}, "mode": {"sync"}, "timeout": {"0"}, "rate": {"5"}, "roles": {"yes"}})
	if led != Base+"new/progress?link=first&link=b-x&said=created" {
		t.Errorf("it leads to %s", led)
	}
	for _, want := range []string{"CreateLink[{Name:first Database:other Peer:b PeerDatabase:other Mode:sync", "CreateLink[{Name:b-x Database:" + oddName + " Peer:b PeerDatabase:elsewhere Mode:sync", "MaxRate:5242880", "CreateRoles:true WithPasswords:false"} {
		if !strings.Contains(s.calls(), want) {
			t.Errorf("the agent was not asked for %s: %s", want, s.calls())
		}
	}
	// What stops one is shown, and what was made is followed.
	s.agent.Refusals = map[string]api.Error{"CreateLink": {Kind: "conflict", Code: "link_exists", Text: "there is one"}}
	if status, text, _ := s.ask(t, "POST", Base+"new", url.Values{"database": {"other"}, "peer": {"b"}}); status != http.StatusConflict || !strings.Contains(text, "there is one") {
		t.Errorf("%d", status)
	}
	// Pairing inside the wizard comes back to it, with what was chosen.
	if _, _, led := s.ask(t, "POST", Base+"new/pair", url.Values{"act": {"join"}, "token": {" tok "}, "database": {"other"}}); led != Base+"new?database=other&peer=b&said=joined&step=peer" {
		t.Errorf("it leads to %s", led)
	}
	if _, text, _ := s.ask(t, "POST", Base+"new/pair", url.Values{"act": {"invite"}, "database": {"other"}}); !strings.Contains(text, "tok-a") || !strings.Contains(text, `value="other"`) {
		t.Error("the invitation is not shown, or the choice is lost")
	}
	for database, want := range map[string]string{"sales": "sales", oddName: "b-x", "Weird \"Name\"": "Weird-Name", "äöü": "link", "_x": "x", "a b": "a-b"} {
		if got := nameFor(database); got != want {
			t.Errorf("%s is called %s", database, got)
		}
	}
}

func TestRejoinIsConfirmed(t *testing.T) {
	s := serveSite(t, everything(linkIn(api.Fenced, api.Secondary)))
	s.signIn(t, "operator")
	if status, _, _ := s.ask(t, "POST", Base+"links/sales/rejoin", url.Values{"accept": {"reseed_tables"}}); status != http.StatusBadRequest || strings.Contains(s.calls(), "Rejoin[") {
		t.Errorf("without the name: %d", status)
	}
	s.ask(t, "POST", Base+"links/sales/rejoin", url.Values{"accept": {"reseed_tables"}, "confirm": {"sales"}})
	if !strings.Contains(s.calls(), "Rejoin[sales [reseed_tables]]") {
		t.Errorf("%s", s.calls())
	}
}

func TestSigningOutEndsTheSession(t *testing.T) {
	s := serveSite(t, everything())
	s.signIn(t, "operator")
	u, _ := url.Parse(s.URL)
	kept := s.browser.Jar.Cookies(u)
	s.ask(t, "POST", Base+"sign-out", nil)
	s.browser.Jar.SetCookies(u, kept) // somebody else had kept it
	if _, _, led := s.ask(t, "GET", Base+"events", nil); !strings.HasPrefix(led, Base+"sign-in") {
		t.Errorf("the session goes on: %s", led)
	}
}

// A page elsewhere can neither have a browser act, nor have its own name lead here.
func TestPagesElsewhere(t *testing.T) {
	s := serveSite(t, everything(linkIn(api.Replicating, api.Primary)))
	s.signIn(t, "operator")
	for name, change := range map[string]func(*http.Request){
		"cross-site":     func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") },
		"same-site":      func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "same-site") },
		"other origin":   func(r *http.Request) { r.Header.Set("Origin", "https://elsewhere.example") },
		"another's name": func(r *http.Request) { r.Host = "elsewhere.example" },
	} {
		r, err := http.NewRequest("POST", s.URL+Base+"links/sales/do", strings.NewReader("act=suspend"))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		change(r)
		answer, err := s.browser.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if answer.StatusCode != http.StatusForbidden && answer.StatusCode != http.StatusMisdirectedRequest {
			t.Errorf("%s: %d", name, answer.StatusCode)
		}
	}
	if strings.Contains(strings.Join(s.agent.Calls(), " "), "Suspend") {
		t.Error("the agent was asked")
	}
	for _, next := range []string{"https://elsewhere.example/ui/", "//elsewhere.example/ui/", "/v1/agent", "/ui/../v1/agent", `/ui/\elsewhere`, "/ui/sign-out", "javascript:alert(1)"} {
		if got := inside(next); !strings.HasPrefix(got, Base) || strings.Contains(got, "..") || strings.HasPrefix(got, Base+"sign-") {
			t.Errorf("%s leads to %s", next, got)
		}
	}
}

func TestHeadersAndFiles(t *testing.T) {
	s := serveSite(t, everything())
	answer, err := s.browser.Get(s.URL + Base + "sign-in")
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(answer.Body)
	answer.Body.Close()
	for name, want := range map[string]string{"Content-Security-Policy": "default-src 'none'", "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store", "Referrer-Policy": "same-origin"} {
		if got := answer.Header.Get(name); !strings.Contains(got, want) {
			t.Errorf("%s: %q", name, got)
		}
	}
	if strings.Contains(answer.Header.Get("Content-Security-Policy"), "unsafe") {
		t.Error("the policy lets something unsafe through")
	}
	files := regexp.MustCompile(`/ui/static/[^"]+`).FindAllString(string(body), -1)
	if len(files) < 3 {
		t.Fatalf("%v", files)
	}
	for _, f := range files {
		answer, err := s.browser.Get(s.URL + f)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if answer.StatusCode != http.StatusOK || !strings.Contains(answer.Header.Get("Cache-Control"), "immutable") {
			t.Errorf("%s: %d, %s", f, answer.StatusCode, answer.Header.Get("Cache-Control"))
		}
	}
}

// The table of what others have written says what is there.
func TestFilesOfOthersAreAsTheyCame(t *testing.T) {
	table, err := os.ReadFile("static/vendor/README.md")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("static/vendor/*")
	if err != nil || len(files) < 2 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		row := regexp.MustCompile(`(?m)^\| ` + regexp.QuoteMeta(filepath.Base(f)) + ` \|.*\| (\w+) \|$`).FindSubmatch(table)
		if sum := sha256.Sum256(text); filepath.Base(f) != "README.md" && (row == nil || string(row[1]) != hex.EncodeToString(sum[:])) {
			t.Errorf("%s is not as the table has it", f)
		}
	}
}

func TestNobodyTriesWithoutEnd(t *testing.T) {
	s := serveSite(t, everything())
	status := 0
	for range 100 * triesAtOnce {
		if status, _, _ = s.ask(t, "POST", Base+"sign-in", url.Values{"secret": {"wrong"}}); status != http.StatusForbidden {
			break
		}
	}
	if status != http.StatusTooManyRequests {
		t.Errorf("the last of many tries: %d", status)
	}
}

// A page that is open is sent what changes, and told when nobody may see it any more.
func TestLivePages(t *testing.T) {
	s := serveSite(t, everything(linkIn(api.Replicating, api.Primary)))
	s.signIn(t, "operator")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+Base+"live?page="+url.QueryEscape("/ui/links/sales"), nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := s.browser.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	read := func() string {
		var text strings.Builder
		one := make([]byte, 1)
		for !strings.HasSuffix(text.String(), "\n\n") {
			if n, err := io.ReadFull(answer.Body, one); n == 0 {
				t.Fatalf("after %q: %v", text.String(), err)
			}
			text.Write(one)
		}
		return text.String()
	}
	first := read()
	if !strings.HasPrefix(first, "event: part\ndata: \"") || !strings.Contains(first, "stations") || strings.Contains(first, "doctype") {
		t.Errorf("%.300s", first)
	}
	s.gate.end("operator")
	for {
		if next := read(); strings.HasPrefix(next, "event: leave") {
			break
		}
	}
}

func TestErrorsAreExplained(t *testing.T) {
	a := everything(linkIn(api.Replicating, api.Primary))
	a.Refusals = map[string]api.Error{"Suspend": {Kind: "conflict", Code: "peer_unreachable", Text: "the peer " + oddName + " is away", Hint: "see to it"}}
	s := serveSite(t, a)
	s.signIn(t, "operator")
	status, text, _ := s.ask(t, "POST", Base+"links/sales/do", url.Values{"act": {"suspend"}})
	if status != http.StatusConflict || !strings.Contains(text, `href="/ui/problems/peer_unreachable"`) || !strings.Contains(text, "see to it") || strings.Contains(text, "<b>") {
		t.Errorf("%d, %s", status, text)
	}
	if status, text, _ := s.ask(t, "GET", Base+"links/none", nil); status != http.StatusNotFound || !strings.Contains(text, "</html>") {
		t.Errorf("%d", status)
	}
	if status, _, _ := s.ask(t, "GET", Base+"nowhere/at/all", nil); status != http.StatusNotFound {
		t.Errorf("%d", status)
	}
}

func TestSessionsEndAndOutliveARestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sessions")
	s, err := openSessions(path)
	if err != nil {
		t.Fatal(err)
	}
	now := at(0)
	s.now = func() time.Time { return now }
	secret, err := s.begin("k")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil || strings.Contains(string(text), secret) {
		t.Fatalf("the file has the secret, or is not there: %v", err)
	}
	again, err := openSessions(path)
	if err != nil {
		t.Fatal(err)
	}
	again.now = s.now
	if key, has := again.find(secret, true); !has || key != "k" {
		t.Error("a restart ended the session")
	}
	now = now.Add(idle - time.Second)
	if _, has := again.find(secret, false); !has {
		t.Error("it ended too early")
	}
	now = now.Add(2 * time.Second) // looking without using did not prolong it
	if _, has := again.find(secret, true); has {
		t.Error("an idle session goes on")
	}
	secret, _ = again.begin("k")
	for end := now.Add(lasting); now.Before(end); now = now.Add(idle / 2) {
		again.find(secret, true)
	}
	now = now.Add(time.Second)
	if _, has := again.find(secret, true); has {
		t.Error("a session goes on for ever")
	}
	for range mostSessions + 10 {
		if _, err := (&sessions{now: s.now, known: again.known}).begin("k"); err != nil {
			t.Fatal(err)
		}
	}
	if len(again.known) > mostSessions {
		t.Errorf("%d sessions", len(again.known))
	}
	if err := os.WriteFile(path, []byte("{nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	if broken, err := openSessions(path); err != nil || len(broken.known) != 0 {
		t.Errorf("%v", err)
	}
}
