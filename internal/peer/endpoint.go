// Package peer lets agents meet, trust each other and talk. An Identity is what an agent
// proves itself with, a Book holds the peers it trusts, pinned by public key, and an
// Endpoint keeps one session with each of them: a TLS 1.3 connection that either side may
// have dialled, on which both open calls and streams.
//
// docs/format/peer.md describes the bytes, docs/design/0004-peers.md the reasons.
package peer

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/twinspan/twinspan/internal/door"
	"github.com/twinspan/twinspan/internal/problem"
	"golang.org/x/sync/errgroup"
)

// Endpoint is where an agent meets its peers. Set the fields and register the methods, then
// Run it. All methods may be used from any goroutine, before, while and after it runs; without
// sessions, calls fail with code peer_unreachable.
type Endpoint struct {
	Identity  *Identity // required
	Book      *Book     // required
	Listen    string    // host:port to listen on; "" to only dial
	Advertise string    // host:port that others are told to dial; "" derives it from Listen for invitations
	// Others, when set, returns where else peers may dial this agent: the members of its instance, at most eight.
	Others func() []string
	// Admit, when set, decides on a request to become a member of this agent's instance, whose invitation was right. What both say is not this package's.
	Admit   func(ctx context.Context, request []byte) (answer []byte, err error)
	Name    string       // what this agent is called; the identity's name if ""
	Product string       // the release, shown to the other side
	Log     *slog.Logger // nothing is logged if nil

	tempo *times // other than the defaults; for tests

	mu        sync.Mutex
	methods   map[string]method
	contacts  map[string]*contact // by peer's name
	watchers  map[*watcher]struct{}
	stirred   chan struct{} // closed and replaced when a contact changes
	listening chan struct{} // closed when address is known
	address   net.Addr
	adoptions uint64
	active    bool
	prepared  bool
	pairPace  pace       // of attempts to pair
	doorPace  pace       // of log lines about strangers
	crowdPace pace       // of log lines about their number
	met       meetings   // where peers were met
	guests    sync.Mutex // held while an invitation is read and changed

	boot    time.Time
	bodies  places         // for large requests
	lobby   *door.Door     // of connections that have not proved themselves
	rotate  chan struct{}  // wakes the rotation; holds one
	running sync.WaitGroup // sessions and connections
}

// times are the durations that govern connections.
type times struct {
	handshake time.Duration // from connecting to the end of the hellos
	ping      time.Duration // between heartbeats
	dead      time.Duration // of silence
	retryMin  time.Duration // before dialling again, doubled at each failure
	retryMax  time.Duration
}

func (e *Endpoint) times() times {
	if e.tempo != nil {
		return *e.tempo
	}
	return times{handshake: 10 * time.Second, ping: 2500 * time.Millisecond, dead: 10 * time.Second, retryMin: 200 * time.Millisecond, retryMax: 10 * time.Second}
}

// Run listens, if there is an address for it, and keeps a session with every peer of the
// book, until the context ends; then it returns nil. When it returns, all connections are
// closed and all handlers have returned. An Endpoint runs once at a time.
func (e *Endpoint) Run(ctx context.Context) error {
	if err := e.begin(); err != nil {
		return err
	}
	defer e.finish()
	g, ctx := errgroup.WithContext(ctx)
	defer e.running.Wait()
	if e.Listen != "" {
		l, err := e.listen(ctx)
		if err != nil {
			return err
		}
		g.Go(func() error { return e.acceptAll(ctx, l) })
	}
	g.Go(func() error { return e.dialAll(ctx) })
	g.Go(func() error { return e.rotateAll(ctx) })
	if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

func (e *Endpoint) begin() error {
	if e.Identity == nil || e.Book == nil {
		return problem.New(problem.Internal, "internal", "an endpoint needs an identity and a book")
	}
	if err := checkEndpoint(e.Advertise); err != nil {
		return err
	}
	if err := checkName(e.name()); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.active {
		return problem.New(problem.Internal, "internal", "the endpoint runs already")
	}
	e.prepareLocked()
	e.active = true
	e.boot = time.Now()
	return nil
}

func (e *Endpoint) finish() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.active = false
	e.address = nil
	e.listening = make(chan struct{})
}

// prepareLocked makes what the zero value lacks.
func (e *Endpoint) prepareLocked() {
	if e.prepared {
		return
	}
	e.prepared = true
	e.contacts = map[string]*contact{}
	e.watchers = map[*watcher]struct{}{}
	e.stirred = make(chan struct{})
	e.listening = make(chan struct{})
	e.bodies.patience = largePatience
	e.lobby = &door.Door{Places: maxLobby, PerHost: maxOfHost, Kept: keptPlaces, Grace: stayedFor, Known: e.atHome}
	e.rotate = make(chan struct{}, 1)
	if e.methods == nil {
		e.methods = map[string]method{}
	}
	e.registerRotation()
}

// Addr returns the address that the endpoint listens on, nil while it does not.
func (e *Endpoint) Addr() net.Addr {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.address
}

// WaitListening waits until the endpoint listens and returns its address.
func (e *Endpoint) WaitListening(ctx context.Context) (net.Addr, error) {
	e.mu.Lock()
	e.prepareLocked()
	listening := e.listening
	e.mu.Unlock()
	select {
	case <-listening:
		return e.Addr(), nil
	case <-ctx.Done():
		return nil, problem.As(context.Cause(ctx))
	}
}

// Connected says whether there is a session with the peer.
func (e *Endpoint) Connected(peer string) bool {
	s, _ := e.Status(peer)
	return s.Connected
}

// RoundTrip returns the smoothed time to the peer and back; false without a session.
func (e *Endpoint) RoundTrip(peer string) (time.Duration, bool) {
	s, _ := e.Status(peer)
	return s.RoundTrip, s.Connected
}

// ClockDifference returns how far the peer's clock is ahead of this one; false without
// a session. Its error is less than half the round trip.
func (e *Endpoint) ClockDifference(peer string) (time.Duration, bool) {
	s, _ := e.Status(peer)
	return s.ClockDifference, s.Connected
}

// Status is what the endpoint has with one peer.
type Status struct {
	Connected       bool
	Since           time.Time     // of the connection
	Dialled         bool          // this side opened it
	Address         string        // of the other side
	Product         string        // its release
	RoundTrip       time.Duration // smoothed; 0 until it is measured
	ClockDifference time.Duration // the peer's clock minus this one
	Problem         error         // without a connection: why the last attempt to dial failed; nil if none was made
}

// Status tells what the endpoint has with a peer; false when no such peer is known.
func (e *Endpoint) Status(peer string) (Status, bool) {
	if _, ok := e.Book.Get(peer); !ok {
		return Status{}, false
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	c := e.contacts[peer]
	if c == nil {
		return Status{}, true
	}
	s := c.current
	if s == nil {
		return Status{Problem: c.why()}, true
	}
	st := Status{Connected: true, Since: c.since, Dialled: s.dialled, Address: s.conn.RemoteAddr().String(), Product: s.theirs.Product}
	st.RoundTrip, st.ClockDifference = s.clock.read()
	return st, true
}

func (e *Endpoint) name() string {
	if e.Name != "" {
		return e.Name
	}
	return e.Identity.Name()
}

func (e *Endpoint) logger() *slog.Logger {
	if e.Log != nil {
		return e.Log
	}
	return slog.New(slog.DiscardHandler)
}
