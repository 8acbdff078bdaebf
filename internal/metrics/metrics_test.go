package metrics

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/twinspan/twinspan/api"
)

// fake is an agent that says what it is told to.
type fake struct {
	info          api.Agent
	links         []api.Link
	linksErr      error
	peers         []api.Peer
	backups       *api.Backups
	instance      api.Instance
	verifications map[string]api.Verification
	events        []api.Event
	asked         int
}

func (f *fake) Info(context.Context) (api.Agent, error) { f.asked++; return f.info, nil }

func (f *fake) Links(context.Context) ([]api.Link, error) { return f.links, f.linksErr }

func (f *fake) Peers(context.Context) ([]api.Peer, error) { return f.peers, nil }

func (f *fake) Backups(context.Context) (api.Backups, error) {
	if f.backups == nil {
		return api.Backups{}, errors.New("none are made")
	}
	return *f.backups, nil
}

func (f *fake) Instance(context.Context) (api.Instance, error) { return f.instance, nil }

func (f *fake) Verification(_ context.Context, link string) (api.Verification, error) {
	v, known := f.verifications[link]
	if !known {
		return v, errors.New("never")
	}
	return v, nil
}

// Events pages two at a time.
func (f *fake) Events(_ context.Context, q api.EventQuery) (api.EventPage, error) {
	p := api.EventPage{Next: q.After}
	for _, e := range f.events {
		if e.Number <= q.After || e.At.Before(*q.Since) {
			continue
		}
		if len(p.Events) == 2 {
			p.More = true
			break
		}
		p.Events, p.Next = append(p.Events, e), e.Number
	}
	return p, nil
}

// full is an agent of which everything is known.
func full() *fake {
	at := func(s int64) *time.Time { t := time.Unix(s, 0); return &t }
	return &fake{
		info: api.Agent{Name: "a", StartedAt: time.Unix(100, 0), Expires: time.Unix(900, 0), Postgres: api.Postgres{Connected: true},
			Problems: []api.Problem{{Code: "certificate_expires", Severity: api.Warns}}},
		peers: []api.Peer{{Name: "b", Connected: true, RoundTripSeconds: new(0.002), Expires: time.Unix(800, 0)}},
		links: []api.Link{{Name: "sales", Role: api.Secondary, Phase: api.Replicating, Health: api.Degraded, Epoch: 3, Suspended: false,
			Peer:     api.LinkPeer{Name: "b", Connected: true, HeardAt: at(200)},
			Position: api.Position{Written: "0/30", Sent: "0/20", Received: "0/18", Applied: "0/12", Confirmed: "0/10"},
			Lag:      api.Lag{Bytes: new(int64(30)), Seconds: new(0.25), AsOf: at(199)},
			Rates:    &api.Rates{}, Totals: &api.Totals{Transactions: 5, Changes: 7, Bytes: 900, Retries: 1, Streams: 2},
			Time: &api.TimeShares{Source: 0.5, Applying: 0.5}, SpilledBytes: 4, Retained: &api.Retained{Bytes: 77, LeftBytes: new(int64(33))},
			Sync: &api.LinkSync{State: api.SyncEngaged}, Seeding: api.Progress{BytesTotal: 10, BytesDone: 9, TablesTotal: 3, TablesDone: 2},
			Problems:     []api.Problem{{Code: "wal_retained", Severity: api.Warns}, {Code: "wal_retained", Severity: api.Warns}, {Code: "slot_lost", Severity: api.Blocks}},
			LastFailover: &api.Failover{Type: "planned", At: time.Unix(150, 0), HoldSeconds: 0.4},
			Audit:        &api.Audit{BeganAt: at(10), EndedAt: at(20), EqualSince: at(15), PassSeconds: new(60.0), Differences: 2, LeftOut: 1}}},
		verifications: map[string]api.Verification{"sales": {State: api.Repaired, EndedAt: at(170), Differences: []api.Difference{{Repaired: true}, {}}}},
		instance: api.Instance{Size: &api.InstanceSize{VCores: 8, MemoryBytes: 16}, Storage: &api.InstanceStorage{UsedBytes: 3, LimitBytes: 9, FullAt: at(900)},
			Usage: &api.UsageHour{VCores: 8, Role: "secondary", State: "active", Voids: []api.UsageVoid{{Role: "app"}}}},
		backups: &api.Backups{Known: true, From: at(5), Until: at(300), Repositories: []api.BackupRepository{{Number: 1}, {Number: 2, TestedAt: at(65)}}, Backups: []api.Backup{
			{Type: "full", EndedAt: time.Unix(50, 0), Stored: 5}, {Type: "full", EndedAt: time.Unix(60, 0), Stored: 6}, {Type: "incr", EndedAt: time.Unix(70, 0), Stored: 1}}},
		events: []api.Event{
			{Number: 1, At: time.Unix(99, 0), Kind: api.EventAgent, Action: "stopped"}, // of the process before
			{Number: 2, At: time.Unix(100, 0), Kind: api.EventAgent, Action: "started"},
			{Number: 3, At: time.Unix(101, 0), Kind: api.EventProblem, Action: "began", Link: "sales", Code: "wal_retained"},
			{Number: 4, At: time.Unix(102, 0), Kind: api.EventFailover, Action: "done", Link: "sales", Failover: api.Planned, HoldSeconds: new(0.4)},
			{Number: 5, At: time.Unix(103, 0), Kind: api.EventFailover, Action: "undone", Link: "sales", Failover: api.Planned},
			{Number: 6, At: time.Unix(104, 0), Kind: api.EventFailover, Action: "done", Link: "sales", Failover: api.Forced},
		},
	}
}

// scrape asks a handler of its own, which has nothing kept.
func scrape(t *testing.T, f *fake) string {
	t.Helper()
	answer := httptest.NewRecorder()
	Handler(f, "1.2.3").ServeHTTP(answer, httptest.NewRequest("GET", "/metrics", nil))
	if answer.Code != 200 {
		t.Fatalf("%d: %s", answer.Code, answer.Body)
	}
	return answer.Body.String()
}

func TestEverythingThatIsKnownIsShown(t *testing.T) {
	text := scrape(t, full())
	for _, line := range []string{
		`twinspan_agent_working 1`,
		`twinspan_certificate_expiry_timestamp_seconds{agent="a"} 900`,
		`twinspan_certificate_expiry_timestamp_seconds{agent="b"} 800`,
		`twinspan_peer_round_trip_seconds{peer="b"} 0.002`,
		`twinspan_problem{code="certificate_expires",link="",severity="warns"} 1`,
		`twinspan_problem{code="wal_retained",link="sales",severity="warns"} 1`,
		`twinspan_link_problems{link="sales",role="secondary",severity="warns"} 2`,
		`twinspan_link_position_bytes{link="sales",position="applied",role="secondary"} 18`,
		`twinspan_link_lag_seconds{link="sales",role="secondary"} 0.25`,
		`twinspan_link_applied_until_timestamp_seconds{link="sales",role="secondary"} 199`,
		`twinspan_link_applied_transactions_total{link="sales",role="secondary"} 5`,
		`twinspan_link_applied_streams_total{link="sales",role="secondary"} 2`,
		`twinspan_link_retained_wal_left_bytes{link="sales",role="secondary"} 33`,
		`twinspan_link_sync_engaged{link="sales",role="secondary"} 1`,
		`twinspan_link_last_failover_hold_seconds{link="sales",role="secondary"} 0.4`,
		`twinspan_link_last_verified_timestamp_seconds{link="sales",role="secondary"} 170`,
		`twinspan_link_verification_differences{link="sales",role="secondary"} 1`,
		`twinspan_backup_last_success_timestamp_seconds{type="full"} 60`,
		`twinspan_backup_last_test_timestamp_seconds{repository="2"} 65`,
		`twinspan_backup_repository_bytes 12`,
		`twinspan_instance_vcores 8`,
		`twinspan_instance_storage_used_bytes 3`,
		`twinspan_instance_storage_limit_bytes 9`,
		`twinspan_instance_storage_full_timestamp_seconds 900`,
		`twinspan_usage_hour_vcores{role="secondary",state="active"} 8`,
		`twinspan_usage_hour_voids 1`,
		`twinspan_restorable_until_timestamp_seconds 300`,
		`twinspan_events_total{action="started",kind="agent"} 1`,
		`twinspan_problems_begun_total{code="wal_retained",link="sales"} 1`,
		`twinspan_failovers_total{link="sales",outcome="done",type="forced"} 1`,
		`twinspan_failovers_total{link="sales",outcome="undone",type="planned"} 1`,
		`twinspan_failover_hold_seconds_count 1`,
		`twinspan_failover_hold_seconds_bucket{le="0.5"} 1`,
	} {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("no %s", line)
		}
	}
	if strings.Contains(text, `action="stopped"`) {
		t.Error("an event of before the start is counted")
	}
	for _, f := range append(families(), tallied...) {
		if !strings.Contains(text, "\n# TYPE "+f.name+" ") {
			t.Errorf("%s is not shown where everything is known", f.name)
		}
	}
}

// Prometheus' own rules for names and helps.
func TestMetricsKeepToTheConventions(t *testing.T) {
	problems, err := promlint.New(strings.NewReader(scrape(t, full()))).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "twinspan_") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
}

func TestWhatIsNotKnownHasNoSeries(t *testing.T) {
	quiet := &fake{info: api.Agent{Name: "a"}, links: []api.Link{{Name: "sales", Role: api.Primary, Phase: api.Creating, Health: api.Degraded}}}
	text := scrape(t, quiet)
	for _, series := range []string{"link_lag", "link_applied", "link_time", "link_spilled", "link_seeding", "link_peer_heard", "link_position", "link_retained", "link_sync", "link_audit", "link_last",
		"link_verification", "backup_", "restorable_", "instance_", "usage_", "peer_round_trip", "certificate_"} {
		if strings.Contains(text, "\ntwinspan_"+series) {
			t.Errorf("a series twinspan_%s is there, and nothing is known", series)
		}
	}
	if !strings.Contains(text, `twinspan_link_epoch{link="sales",role="primary"} 0`) {
		t.Errorf("what is known is missing:\n%s", text)
	}
	// An agent that stands by for another process has no links.
	quiet.links, quiet.linksErr = nil, errors.New("another process has the lease")
	if text := scrape(t, quiet); !strings.Contains(text, "\ntwinspan_agent_working 0\n") || strings.Contains(text, "\ntwinspan_link_") {
		t.Errorf("an agent that stands by shows\n%s", text)
	}
}

// The lag of a link whose sides do not hear each other grows; it does not stay, or vanish.
func TestTheLagOfADeadLinkGrows(t *testing.T) {
	f := full()
	f.links[0].Lag = api.Lag{AsOf: new(time.Now().Add(-time.Hour))}
	text := scrape(t, f)
	_, after, found := strings.Cut(text, "\ntwinspan_link_lag_seconds{link=\"sales\",role=\"secondary\"} ")
	var v float64
	if _, err := fmt.Sscan(after, &v); !found || err != nil || v < 3600 || v > 3700 {
		t.Errorf("an hour is shown as %v, %v", v, err)
	}
	if strings.Contains(text, "\ntwinspan_link_lag_bytes{") {
		t.Error("the bytes are shown")
	}
}

func TestManyScrapesAskOnce(t *testing.T) {
	f := full()
	h := Handler(f, "1")
	for range 20 {
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/metrics", nil))
	}
	if f.asked > 3 { // more than one on a machine that takes seconds for it
		t.Errorf("20 scrapes asked the agent %d times", f.asked)
	}
}

// What was counted is not counted again, and what comes later is.
func TestEventsAreCountedOnce(t *testing.T) {
	f := full()
	c := newTally()
	for range 3 {
		c.count(t.Context(), f, f.info.StartedAt)
	}
	f.events = append(f.events, api.Event{Number: 7, At: time.Unix(105, 0), Kind: api.EventAgent, Action: "started"})
	c.count(t.Context(), f, f.info.StartedAt)
	if c.after != 7 {
		t.Errorf("counted up to %d", c.after)
	}
	if got := testutil.ToFloat64(c.events.WithLabelValues("agent", "started")); got != 2 {
		t.Errorf("two starts are %v", got)
	}
}

// TestMetricsAreDocumented compares docs/metrics.md with the table.
func TestMetricsAreDocumented(t *testing.T) {
	file := filepath.Join("..", "..", "docs", "metrics.md")
	if os.Getenv("TWINSPAN_GENERATE") != "" {
		if err := os.WriteFile(file, page(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(text, page()) {
		t.Error("docs/metrics.md is stale: run make generated")
	}
}

// page is docs/metrics.md.
func page() []byte {
	var b bytes.Buffer
	fmt.Fprintln(&b, `# Metrics

<!-- written by make generated from internal/metrics/families.go -->

`+"`GET /metrics`"+` of the REST interface answers in Prometheus' format: over the Unix socket in the agent's directory to its owner, over TCP with the token of a reader. A scrape asks nothing of the PostgreSQL server; those within a second of each other
are answered with the same figures. docs/monitoring.md says how to set Prometheus up, and what to watch.

What is not known has no series: alert on its absence where that matters. The metrics of a link come from both of its agents, each with the role of its own side; after a change of places a series goes on under the other role. Counters begin
at 0 with the agent's process. The process' own metrics (`+"`go_*`, `process_*`"+`) are there, too.

| Metric | Type | Labels | Meaning | No series |
|---|---|---|---|---|
| `+"`twinspan_build_info` | gauge | `version`"+` | 1, with the version of the program. | |`)
	for _, f := range append(families(), tallied...) {
		kind := map[prometheus.ValueType]string{gauge: "gauge", counter: "counter"}[f.kind]
		if f.kind == 0 {
			kind = "counter"
			if len(f.labels) == 0 {
				kind = "histogram"
			}
		}
		labels := ""
		if len(f.labels) > 0 {
			labels = "`" + strings.Join(f.labels, "`, `") + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", f.name, kind, labels, f.help, f.missing)
	}
	return b.Bytes()
}
