package agent

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/config"
	"github.com/twinspan/twinspan/internal/events"
	"github.com/twinspan/twinspan/internal/link"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
)

func newRecord(t *testing.T, dir string, c config.Config) *record {
	t.Helper()
	r := &record{}
	r.open(config.Dir(dir), c, slog.New(slog.DiscardHandler))
	return r
}

// kept are the events of a directory, as kind.action text.
func kept(t *testing.T, dir string) (list []string) {
	t.Helper()
	l, err := events.Open(config.Dir(dir).Events())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := l.Each(func(e api.Event) bool {
		list = append(list, fmt.Sprintf("%s.%s %s", e.Kind, e.Action, e.Text))
		return true
	}); err != nil {
		t.Fatal(err)
	}
	return list
}

func wantKept(t *testing.T, dir string, want ...string) {
	t.Helper()
	got := kept(t, dir)
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func of(phase string, epoch int64) catalog.Link {
	return catalog.Link{ID: "i", Name: "sales", Peer: "b", Role: "primary", Phase: phase, Epoch: epoch}
}

const started, unfinished, stopped = "agent.started the agent was started", "; the one before had not been stopped: it was killed, or its machine ended", "agent.stopped the agent was stopped"

// What was stored and not told before the agent was killed is told at its next start.
func TestChangesThatWereNotToldAreFound(t *testing.T) {
	dir := t.TempDir()
	r := newRecord(t, dir, config.Config{})
	end := r.begin()
	r.turned("db", of("creating", 1), of("replicating", 1))
	broken := of("broken", 2)
	broken.Problem = problem.New(problem.Diverged, "row_missing", "UPDATE finds no row").On("public.t (id) = (5)")
	r.turned("db", of("replicating", 1), broken)
	end()
	told := []string{started, "role.changed replicating, was creating", "role.changed broken, was replicating; epoch 2, was 1: UPDATE finds no row", stopped}
	wantKept(t, dir, told...)
	text, err := os.ReadFile(filepath.Join(dir, "events", "0000000000000000001.jsonl"))
	if err != nil || strings.Contains(string(text), "(5)") || !strings.Contains(string(text), `"subject":"public.t"`) || !strings.Contains(string(text), `"database":"db"`) {
		t.Errorf("%s, %v", text, err)
	}

	server, err := pg.ParseDSN("host=/nowhere")
	if err != nil {
		t.Fatal(err)
	}
	quiet := link.Place{Server: server, Log: slog.New(slog.DiscardHandler)}
	r = newRecord(t, dir, config.Config{})
	r.found(link.New(quiet, "db", of("broken", 2))) // as it was told
	other := of("creating", 1)
	other.ID, other.Name = "j", "stock"
	r.found(link.New(quiet, "db2", other)) // of which nothing was told
	r.write()
	r.kept.Close() // it is killed
	r = newRecord(t, dir, config.Config{})
	r.found(link.New(quiet, "db", of("fenced", 3)))
	r.found(link.New(quiet, "db2", other))
	end = r.begin()
	end()
	wantKept(t, dir, append(told, started, "role.found found at the start: primary, creating, epoch 1",
		started+unfinished, "role.found found at the start to have changed meanwhile: fenced, was broken; epoch 3, was 2", stopped)...)
}

// Events wait for a disk that takes none, in order; what does not fit is counted.
func TestEventsWaitForTheDisk(t *testing.T) {
	dir := t.TempDir()
	blocked := filepath.Join(dir, "events")
	if err := os.WriteFile(blocked, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r := newRecord(t, dir, config.Config{})
	if list := r.problems(); len(list) != 1 || list[0].Code != "events_unwritten" || list[0].Severity != api.Warns || list[0].Hint == "" {
		t.Errorf("%+v", list)
	}
	if _, err := r.read(t.Context(), api.EventQuery{}); problem.CodeOf(err) != "events_unwritten" {
		t.Errorf("%v", err)
	}
	for n := range mostUnwritten + 2 {
		r.note(api.Event{Kind: api.EventLease, Action: "taken", Text: fmt.Sprint(n)})
	}
	waiting := make(chan api.EventPage, 1)
	go func() {
		page, err := r.read(t.Context(), api.EventQuery{Wait: 60, Kinds: []string{"agent.missed"}})
		if err != nil {
			t.Error(err)
		}
		waiting <- page
	}()
	r.write()
	if err := os.Remove(blocked); err != nil {
		t.Fatal(err)
	}
	end := r.begin()
	if page := <-waiting; len(page.Events) != 1 || !strings.HasSuffix(page.Events[0].Text, ": 3 were lost") {
		t.Errorf("%+v", page)
	}
	end()
	if len(r.problems()) != 0 {
		t.Errorf("%+v", r.problems())
	}
	list := kept(t, dir)
	if len(list) != mostUnwritten+2 || list[0] != started || list[1] != "lease.taken 0" || list[mostUnwritten-1] != fmt.Sprintf("lease.taken %d", mostUnwritten-2) {
		t.Errorf("%d: %q ... %q", len(list), list[:3], list[len(list)-3:])
	}
}

// Whoever waits for an event is answered as soon as there is one that fits, or with an empty
// page from which to go on.
func TestReaderWaits(t *testing.T) {
	r := newRecord(t, t.TempDir(), config.Config{})
	defer r.begin()()
	got := make(chan api.EventPage, 1)
	read := func(ctx context.Context, q api.EventQuery) {
		page, err := r.read(ctx, q)
		if err != nil {
			t.Error(err)
		}
		got <- page
	}
	go read(t.Context(), api.EventQuery{Link: "sales", Wait: 60})
	r.note(api.Event{Kind: api.EventLink, Action: "made", Link: "stock"})
	r.note(api.Event{Kind: api.EventLink, Action: "made", Link: "sales"})
	page := <-got
	if len(page.Events) != 1 || page.Events[0].Link != "sales" {
		t.Errorf("%+v", page)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go read(ctx, api.EventQuery{Link: "sales", Wait: 60, After: page.Next})
	cancel()
	if page = <-got; len(page.Events) != 0 || page.Next != 3 {
		t.Errorf("%+v", page)
	}
}

// awaitLines waits until a file has so many lines.
func awaitLines(t *testing.T, path string, lines int) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(time.Minute); ; <-tick.C {
		if text, _ := os.ReadFile(path); strings.Count(string(text), "\n") >= lines {
			return
		} else if time.Now().After(end) {
			t.Fatalf("%s has %q", path, text)
		}
	}
}

// Hooks are told of everything, the start and the end included, in order.
func TestHooksAreToldOfTheRecord(t *testing.T) {
	dir := t.TempDir()
	out := filepath.Join(dir, "out")
	r := newRecord(t, dir, config.Config{Name: "a", Hooks: []config.Hook{
		{Command: []string{"/bin/sh", "-c", `echo "$TWINSPAN_EVENT_NUMBER $TWINSPAN_EVENT_KIND.$TWINSPAN_EVENT_ACTION" >> "$0"`, out}},
		{On: []string{"agent.stopped"}, Command: []string{"/bin/false"}, Timeout: time.Minute},
	}})
	end := r.begin()
	r.turned("db", of("creating", 1), of("replicating", 1))
	awaitLines(t, out, 2)
	end()
	text, err := os.ReadFile(out)
	if want := "1 agent.started\n2 role.changed\n3 agent.stopped\n"; err != nil || string(text) != want {
		t.Errorf("%q, %v", text, err)
	}
	if list := r.ofHooks(); len(list) != 1 || list[0].Code != "hook_failed" || list[0].Severity != api.Warns {
		t.Errorf("%+v", list)
	}
}

// Who may not be trusted cannot push the past out of the record.
func TestAskersAreHeldBack(t *testing.T) {
	var p pacer
	now := time.Date(2026, 11, 30, 5, 0, 0, 0, time.UTC)
	taken := 0
	for range 1000 {
		if ok, _ := p.allow("peer b", now); ok {
			taken++
		}
	}
	if taken != askedAtOnce {
		t.Errorf("%d were taken", taken)
	}
	if ok, skipped := p.allow("peer c", now); !ok || skipped != 0 {
		t.Errorf("another: %v, %d", ok, skipped)
	}
	if ok, skipped := p.allow("peer b", now.Add(2*time.Second)); !ok || skipped != 1000-askedAtOnce {
		t.Errorf("later: %v, %d", ok, skipped)
	}
}

// Every request that is said to change something is one that peers may make.
func TestChangesOfPeersAreRequests(t *testing.T) {
	for method := range changes {
		if _, known := needs(method); !known {
			t.Errorf("%s is no request", method)
		}
	}
	for method, q := range ofLinks {
		if (q.Answer == nil) == (q.Answers == nil) || q.Decode == nil {
			t.Errorf("%s is not answered in one way", method)
		}
	}
}
