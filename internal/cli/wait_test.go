package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/config"
	"github.com/twinspan/twinspan/internal/httpapi"
	"github.com/twinspan/twinspan/internal/httpapi/agenttest"
	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/problem"
)

// output collects what a command prints and tells when a text was printed.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
	seen chan struct{} // closed when want was printed
	want string
}

func expecting(want string) *output { return &output{want: want, seen: make(chan struct{})} }

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	before := strings.Contains(o.text.String(), o.want)
	o.text.Write(p)
	if !before && strings.Contains(o.text.String(), o.want) {
		close(o.seen)
	}
	return len(p), nil
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// running serves an agent in a directory until the returned function is called.
func running(t *testing.T, dir config.Dir, agent *agenttest.Agent) (stop func()) {
	t.Helper()
	ready := make(chan struct{})
	server := &httpapi.Server{Agent: agent, Dir: dir, Version: "1", Log: slog.New(slog.DiscardHandler), Listening: func() { close(ready) }}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx) }()
	<-ready
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(stop)
	return stop
}

// directory is an initialised one, for an agent named a.
func directory(t *testing.T) config.Dir {
	t.Helper()
	base, err := os.MkdirTemp("", "tw")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(base) })
	d, err := config.OpenDir(base)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Create(); err != nil {
		t.Fatal(err)
	}
	c := config.Config{Name: "a", Postgres: config.Postgres{Managed: true}, Endpoint: config.Endpoint{Listen: ":1", Advertise: "a:1"}}
	if err := config.WriteNew(d.File(), config.Render(c)); err != nil {
		t.Fatal(err)
	}
	return d
}

func view(phase api.Phase) api.Link {
	return api.Link{Name: "sales", Phase: phase, Health: api.Healthy, Peer: api.LinkPeer{Name: "b", Connected: true}}
}

// inStep is a view of a link whose twin has all.
func inStep() api.Link {
	l := view(api.Replicating)
	l.Position = api.Position{Written: "0/5", Applied: "0/5"}
	l.Lag, l.Rates = api.Lag{Bytes: new(int64(0)), Seconds: new(0.0)}, &api.Rates{}
	return l
}

func TestInterruptEndsTheWatchingNotTheLink(t *testing.T) {
	dir := directory(t)
	agent := &agenttest.Agent{Created: map[string][]api.Link{"sales": {view(api.Creating), view(api.Seeding)}}}
	running(t, dir, agent)
	ctx, cancel := context.WithCancel(t.Context())
	errs := expecting("sales: seeding")
	ended := make(chan int, 1)
	go func() {
		ended <- Run(ctx, deps(), []string{"--dir", dir.Path(), "link", "create", "sales", "--database", "d", "--peer", "b"}, nil, &bytes.Buffer{}, errs)
	}()
	<-errs.seen
	cancel()
	if code := <-ended; code != exitFailed {
		t.Errorf("exit %d", code)
	}
	want := "error: [interrupted] stopped watching; link sales goes on\nhint: twinspan link watch sales shows it again\n"
	if !strings.HasSuffix(errs.String(), want) {
		t.Errorf("%s", errs)
	}
	for _, call := range agent.Calls() {
		if strings.HasPrefix(call, "Suspend") || strings.HasPrefix(call, "Delete") {
			t.Errorf("the link was touched: %s", call)
		}
	}
}

func TestWaitingOutlivesARestartOfTheAgent(t *testing.T) {
	dir := directory(t)
	agent := &agenttest.Agent{Views: map[string][]api.Link{"sales": {view(api.CatchingUp)}}}
	stop := running(t, dir, agent)
	errs := expecting("waiting for the agent: ")
	var out bytes.Buffer
	ended := make(chan int, 1)
	first := expecting("catching up")
	go func() {
		ended <- Run(t.Context(), deps(), []string{"--dir", dir.Path(), "link", "resume", "sales"}, nil, &out, both{errs, first})
	}()
	<-first.seen
	stop()
	<-errs.seen
	running(t, dir, &agenttest.Agent{Views: map[string][]api.Link{"sales": {inStep()}}})
	if code := <-ended; code != exitDone || out.String() != "link sales is replicating\n" {
		t.Errorf("exit %d, %s%s", code, out.String(), errs)
	}
}

type both [2]*output

func (b both) Write(p []byte) (int, error) {
	b[0].Write(p)
	return b[1].Write(p)
}

func TestWatchPrintsChangesAndEndsWithTheLink(t *testing.T) {
	dir := directory(t)
	agent := &agenttest.Agent{Views: map[string][]api.Link{"sales": {view(api.Seeding), view(api.CatchingUp), view(api.CatchingUp), view(api.Replicating)}}}
	running(t, dir, agent)
	out, errs := expecting("sales: replicating"), expecting("link sales is deleted")
	ended := make(chan int, 1)
	go func() {
		ended <- Run(t.Context(), deps(), []string{"--dir", dir.Path(), "link", "watch", "sales"}, nil, out, errs)
	}()
	<-out.seen
	if code := Run(t.Context(), deps(), []string{"--dir", dir.Path(), "link", "delete", "sales"}, nil, &bytes.Buffer{}, &bytes.Buffer{}); code != exitDone {
		t.Fatalf("delete: exit %d", code)
	}
	if code := <-ended; code != exitDone {
		t.Errorf("exit %d: %s", code, errs)
	}
	<-errs.seen
	if lines := strings.Count(out.String(), "\n"); lines != 3 {
		t.Errorf("%d lines, want one for each phase:\n%s", lines, out)
	}
}

func TestWatchAsJSONPrintsAnObjectALook(t *testing.T) {
	dir := directory(t)
	running(t, dir, &agenttest.Agent{Views: map[string][]api.Link{"sales": {view(api.Seeding), view(api.Replicating)}}})
	ctx, cancel := context.WithCancel(t.Context())
	out := expecting(`"phase":"replicating"`)
	ended := make(chan int, 1)
	go func() {
		ended <- Run(ctx, deps(), []string{"--dir", dir.Path(), "link", "watch", "-o", "json"}, nil, out, &bytes.Buffer{})
	}()
	<-out.seen
	cancel()
	if code := <-ended; code != exitDone {
		t.Errorf("exit %d", code)
	}
	for _, l := range strings.Split(strings.TrimSpace(out.String()), "\n") {
		var got api.Link
		if err := json.Unmarshal([]byte(l), &got); err != nil || got.Name != "sales" {
			t.Errorf("%v: %s", err, l)
		}
	}
}

func TestBlocksFitTheirTerminal(t *testing.T) {
	l := view(api.Seeding)
	l.Seeding = api.Progress{Step: "copying tables", TablesTotal: 10, TablesDone: 3, BytesTotal: 1 << 30, BytesDone: 1 << 28, BytesPerSecond: 1 << 26, EtaSeconds: 12}
	l.Problems = []api.Problem{{Code: "wal_retained", Severity: api.Warns, Title: "much log is kept", Hint: "look"}}
	got := strings.Join(watchBlock([]api.Link{l, inStep(), view(api.Replicating)}, time.Date(2026, 1, 1, 12, 30, 0, 0, time.UTC)), "\n")
	want := `NAME   DATABASE  ROLE  PEER  PHASE        HEALTH   LAG      BYTES    TX/S
sales                  b     seeding 25%  healthy  -        -        -
sales                  b     replicating  healthy  0 s      0 B      0
sales                  b     replicating  healthy  unknown  unknown  unknown

sales: seeding, copying tables
  [##########..............................]  25%
  3/10 tables, 256 MB of 1.0 GB (25%), 64.0 MB/s, 12 s left
  [wal_retained] much log is kept

12:30:00  (Ctrl-C ends the watching)`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestPercentIsNeverMoreThanAllOfIt(t *testing.T) {
	if got := fmt.Sprint(percent(api.Progress{BytesTotal: 10, BytesDone: 12}), percent(api.Progress{BytesDone: 3})); got != "100 0" {
		t.Error(got)
	}
}

// TestWaitingForWhatWasWritten: a command that lets a link go on ends when what had been
// written at its start is applied, not when the phase says that all is well.
func TestWaitingForWhatWasWritten(t *testing.T) {
	at := func(phase api.Phase, written, applied string) api.Link {
		l := view(phase)
		l.Position = api.Position{Written: written, Applied: applied}
		return l
	}
	blocked := at(api.CatchingUp, "0/90", "0/20")
	blocked.Problems = []api.Problem{{Code: "lock_held", Title: "a session is in the way", Hint: "end it"}}
	broken := at(api.Broken, "0/90", "0/20")
	broken.Problems = []api.Problem{{Code: "row_missing", Severity: api.Blocks, Title: "a row is missing"}}
	streaming := at(api.CatchingUp, "0/90", "0/20")
	streaming.Rates = &api.Rates{BytesPerSecond: 1}
	building := view(api.Seeding)
	building.Seeding.Step = "building indexes"
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		views []api.Link // one each minute
		code  string     // "" for done, "on" for waiting still
	}{
		"it has all":                 {[]api.Link{at(api.Replicating, "0/50", "0/50")}, ""},
		"not what was written first": {[]api.Link{at(api.Replicating, "0/50", "0/20"), at(api.Replicating, "0/60", "0/4F")}, "on"},
		"what was written first":     {[]api.Link{at(api.Replicating, "0/50", "0/20"), at(api.Replicating, "0/90", "0/50")}, ""},
		"it is catching up":          {[]api.Link{at(api.CatchingUp, "0/50", "0/20"), at(api.CatchingUp, "0/90", "0/60")}, "on"},
		"nobody knows the end":       {[]api.Link{at(api.Replicating, "", "0/20"), at(api.Replicating, "", "0/20")}, "on"},
		"nobody ever does":           {[]api.Link{at(api.Replicating, "", "0/20"), at(api.Replicating, "", "0/20"), at(api.Replicating, "", "0/20")}, "wait_stalled"},
		"it stands still":            {[]api.Link{at(api.CatchingUp, "0/50", "0/20"), at(api.CatchingUp, "0/60", "0/20"), at(api.CatchingUp, "0/70", "0/20")}, "wait_stalled"},
		"it comes on":                {[]api.Link{at(api.CatchingUp, "0/50", "0/20"), at(api.CatchingUp, "0/60", "0/20"), at(api.CatchingUp, "0/70", "0/21")}, "on"},
		"one large transaction":      {[]api.Link{streaming, streaming, streaming, streaming}, "on"},
		"one large index":            {[]api.Link{building, building, building, building}, "on"},
		"it is held up":              {[]api.Link{blocked, blocked, blocked}, "lock_held"},
		"it breaks":                  {[]api.Link{at(api.CatchingUp, "0/50", "0/20"), broken}, "row_missing"},
	} {
		w := applied{patience: 2 * time.Minute, say: func(lsn.LSN) {}}
		var err error
		for i, l := range c.views {
			if err = w.look(l, start.Add(time.Duration(i)*time.Minute)); !errors.Is(err, errGoOn) {
				break
			}
		}
		code := problem.CodeOf(err)
		var sent *api.Error
		switch {
		case errors.Is(err, errGoOn):
			code = "on"
		case errors.As(err, &sent):
			code = sent.Code
		}
		if code != c.code {
			t.Errorf("%s: %q, %v", name, code, err)
		}
	}
}
