package peer

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/twinspan/twinspan/internal/leaks"
	"github.com/twinspan/twinspan/internal/transcript"
)

func TestMain(m *testing.M) {
	// A proxy whose slow connection is cut leaves both ends of it blocked: the
	// one that passes on, and the reader that has nobody to hand bytes to.
	leaks.Main(m, goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2/toxics.(*ToxicStub).Run"),
		goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2.(*ToxicLink).read"))
}

// patience bounds what a test waits for; nothing is expected to take that long.
const patience = time.Minute

// quick makes connections come back and die fast enough for tests.
var quick = times{handshake: 5 * time.Second, ping: 50 * time.Millisecond, dead: 10 * time.Second, retryMin: 10 * time.Millisecond, retryMax: 100 * time.Millisecond}

// agent is an endpoint with a directory of its own.
type agent struct {
	*Endpoint
	dir  string
	logs *transcript.Buffer
	stop func()
}

func newAgent(t testing.TB, name string) *agent {
	t.Helper()
	a := &agent{dir: t.TempDir(), logs: &transcript.Buffer{}}
	id, err := CreateIdentity(a.dir, name)
	check(t, err)
	a.open(t, id)
	return a
}

// open makes the endpoint anew from the agent's directory.
func (a *agent) open(t testing.TB, id *Identity) {
	t.Helper()
	book, err := OpenBook(a.dir)
	check(t, err)
	tempo := quick
	log := slog.New(slog.NewTextHandler(a.logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
	a.Endpoint = &Endpoint{Identity: id, Book: book, Listen: "127.0.0.1:0", Product: "test", Log: log, tempo: &tempo}
}

// start runs the endpoint until the test or stop ends it.
func (a *agent) start(t testing.TB) *agent {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	var once sync.Once
	a.stop = func() {
		once.Do(func() {
			cancel()
			select {
			case err := <-done:
				if err != nil {
					t.Errorf("%s: Run returned %v", a.name(), err)
				}
			case <-time.After(patience):
				t.Errorf("%s: Run did not return", a.name())
			}
		})
	}
	t.Cleanup(a.stop)
	if a.Listen != "" {
		wait, stop := context.WithTimeout(context.Background(), patience)
		defer stop()
		_, err := a.WaitListening(wait)
		check(t, err)
	}
	return a
}

// know adds other to the book of a, at the endpoint ("" to wait for it).
func (a *agent) know(t testing.TB, other *agent, endpoint string) {
	t.Helper()
	p, err := NewPeer(other.Identity.Name(), endpoint, other.Identity.CertificatePEM())
	check(t, err)
	check(t, a.Book.Add(p))
}

// pair starts two agents, b dialling a, and waits until they are connected.
func pair(t testing.TB, register func(a, b *agent)) (a, b *agent) {
	t.Helper()
	a, b = newAgent(t, "a"), newAgent(t, "b")
	if register != nil {
		register(a, b)
	}
	a.know(t, b, "")
	a.start(t)
	b.know(t, a, a.Addr().String())
	b.start(t)
	together(t, a, b)
	return a, b
}

func together(t testing.TB, a, b *agent) {
	t.Helper()
	await(t, "the agents to connect", func() bool { return a.Connected(b.Identity.Name()) && b.Connected(a.Identity.Name()) })
}

// await polls for a condition.
func await(t testing.TB, what string, condition func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-limit.C:
			t.Fatalf("gave up waiting for %s", what)
		}
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func background(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	t.Cleanup(cancel)
	return ctx
}

// receive takes one value that must come.
func receive[T any](t testing.TB, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatal("nothing came")
		panic("unreachable")
	}
}
