package peer

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/twinspan/twinspan/internal/door"
	"github.com/twinspan/twinspan/internal/problem"
)

const (
	// maxLobby bounds the connections that have not proved a known key, or are pairing;
	// maxOfHost those of one address; keptPlaces are for addresses of known peers beyond
	// both. Who has said something may take stayedFor before others need the place.
	maxLobby   = 64
	maxOfHost  = 16
	keptPlaces = 16
	stayedFor  = 3 * time.Second
	// acceptRetry is the pause after a failure to accept, when descriptors are used up.
	acceptRetry = 100 * time.Millisecond
)

func (e *Endpoint) listen(ctx context.Context) (net.Listener, error) {
	lc := net.ListenConfig{KeepAliveConfig: keepAlive()}
	l, err := lc.Listen(ctx, "tcp", e.Listen)
	if err != nil {
		return nil, problem.Wrap(err, problem.Invalid, "endpoint_listen", "the endpoint cannot listen on %s", e.Listen).On(e.Listen).
			WithHint("choose an address of this host and a port that is free")
	}
	e.mu.Lock()
	e.address = l.Addr()
	close(e.listening)
	e.mu.Unlock()
	e.logger().Info("endpoint listens", "address", l.Addr().String())
	return l, nil
}

// acceptAll takes connections until the context ends.
func (e *Endpoint) acceptAll(ctx context.Context, l net.Listener) error {
	defer context.AfterFunc(ctx, func() { l.Close() })()
	defer l.Close()
	config := e.serverTLS()
	told := e.lobby.Refused()
	for {
		conn, err := l.Accept()
		if ctx.Err() != nil {
			if err == nil {
				conn.Close()
			}
			return ctx.Err()
		}
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return problem.Wrap(err, problem.Internal, "internal", "the endpoint's listener closed")
			}
			e.logger().Warn("connection not accepted", "err", err)
			pause(ctx, acceptRetry)
			continue
		}
		raw, ok := e.lobby.Conn(conn.(*net.TCPConn), time.Now())
		if e.lobby.Refused() > told {
			told = e.lobby.Refused()
			e.tellCrowd(conn.RemoteAddr())
		}
		if !ok {
			continue
		}
		e.running.Go(func() { e.receive(ctx, tls.Server(raw, config), raw.Visitor.Leave) })
	}
}

// tellCrowd says that connections are turned away. Anybody can cause it, so only some of
// many lines are written.
func (e *Endpoint) tellCrowd(address net.Addr) {
	if e.crowdPace.allow(time.Now()) {
		e.logger().Warn("connections turned away: strangers crowd the endpoint", "address", address.String(), "so_far", e.lobby.Refused())
	}
}

// Refused returns how many connections were turned away because strangers crowded the
// endpoint, since the endpoint was made.
func (e *Endpoint) Refused() uint64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.prepareLocked()
	return e.lobby.Refused()
}

// atHome says whether a peer is dialled at this address, or was met there.
func (e *Endpoint) atHome(host netip.Addr) bool {
	if e.met.has(host) {
		return true
	}
	for _, p := range e.Book.List() {
		for _, address := range p.addresses() {
			name, _, err := net.SplitHostPort(address)
			if err != nil {
				continue
			}
			if ip, err := netip.ParseAddr(name); err == nil && door.HostOf(net.TCPAddrFromAddrPort(netip.AddrPortFrom(ip, 1))) == host {
				return true
			}
		}
	}
	return false
}

// receive serves one connection that another agent opened. It holds a place in the lobby
// until it knows who is there.
func (e *Endpoint) receive(ctx context.Context, conn *tls.Conn, leave func()) {
	defer leave()
	defer conn.Close()
	// The handshake's deadline does not end it when the agent stops.
	defer context.AfterFunc(ctx, func() { conn.NetConn().Close() })()
	err := e.welcome(ctx, conn, leave)
	if err == nil || ctx.Err() != nil {
		return
	}
	// Anybody can cause this line, so only some of many are written.
	if e.doorPace.allow(time.Now()) {
		e.logger().Info("connection refused", "address", conn.RemoteAddr().String(), "err", problem.As(err))
	}
}

func (e *Endpoint) welcome(ctx context.Context, conn *tls.Conn, leave func()) error {
	took, err := handshake(ctx, conn, time.Now().Add(e.times().handshake))
	if err != nil {
		return problem.Wrap(err, problem.Unauthorised, "handshake_failed", "no handshake")
	}
	state := conn.ConnectionState()
	switch state.NegotiatedProtocol {
	case pairProtocol:
		return e.servePairing(conn, state.PeerCertificates[0])
	case memberProtocol:
		return e.serveMember(ctx, conn, state.PeerCertificates[0])
	}
	fingerprint := Fingerprint(state.PeerCertificates[0])
	p, ok := e.Book.ByFingerprint(fingerprint)
	if !ok {
		return errUntrusted
	}
	s, err := e.establish(ctx, conn, p, fingerprint, false, took)
	if err != nil {
		return err
	}
	leave()
	e.met.add(door.HostOf(conn.RemoteAddr()))
	s.run() // how it ends is told where the peer is known to be gone
	return nil
}

// establish says hello on an authenticated connection and makes a session of it.
func (e *Endpoint) establish(ctx context.Context, conn *tls.Conn, p Peer, fingerprint string, dialled bool, took time.Duration) (*session, error) {
	mine := e.hello()
	theirs, err := exchangeHello(conn, mine)
	if err != nil {
		return nil, err
	}
	if _, err := commonVersion(mine, theirs); err != nil {
		return nil, problem.As(err).On(p.Name)
	}
	if theirs.Agent != p.AgentID || theirs.Agent == mine.Agent {
		return nil, problem.New(problem.Unauthorised, "peer_agent", "the agent with the key of peer %s is not the one that was added", p.Name).On(p.Name).
			WithHint("it is another agent: where it was to take the place of the one before, it has to be made with 'twinspan init --adopt'; else remove the peer and pair again")
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return nil, err
	}
	if dropped, err := e.Book.settle(p.Name, fingerprint); err != nil {
		return nil, err
	} else if dropped {
		e.logger().Info("old key of peer dropped", "peer", p.Name)
	}
	if len(theirs.Others) > 0 {
		if err := e.Book.noteOthers(p.Name, theirs.Others); err != nil {
			return nil, err
		}
	}
	if p.Certificate == "" {
		if err := e.Book.learn(p.Name, conn.ConnectionState().PeerCertificates[0]); err != nil {
			return nil, err
		}
	}
	return newSession(ctx, e, conn, p, fingerprint, theirs, dialled, took)
}

// pause waits, or less when the context ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// maxMet bounds the addresses at which peers were met.
const maxMet = 256

// meetings are addresses at which peers have proved their keys, also those of names that
// are dialled. Its zero value is ready.
type meetings struct {
	mu    sync.Mutex
	hosts []netip.Addr // the latest last
}

func (m *meetings) add(host netip.Addr) {
	if !host.IsValid() {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.hosts = append(slices.DeleteFunc(m.hosts, func(h netip.Addr) bool { return h == host }), host)
	if len(m.hosts) > maxMet {
		m.hosts = slices.Clone(m.hosts[1:])
	}
}

func (m *meetings) has(host netip.Addr) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Contains(m.hosts, host)
}
