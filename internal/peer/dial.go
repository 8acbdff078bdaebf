package peer

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/twinspan/twinspan/internal/door"
	"github.com/twinspan/twinspan/internal/problem"
)

// dialAll keeps one dialler for each peer of the book, and ends the sessions of peers
// that were removed.
func (e *Endpoint) dialAll(ctx context.Context) error {
	var diallers sync.WaitGroup
	defer diallers.Wait()
	stops := map[string]context.CancelFunc{}
	for {
		changed := e.Book.Changed()
		known := map[string]bool{}
		for _, p := range e.Book.List() {
			known[p.Name] = true
			if stops[p.Name] == nil {
				peer, stop := context.WithCancel(ctx)
				stops[p.Name] = stop
				diallers.Go(func() { e.keepDialling(peer, p.Name) })
			}
		}
		for name, stop := range stops {
			if !known[name] {
				stop()
				delete(stops, name)
			}
		}
		e.endStrangers()
		e.wakeRotation()
		select {
		case <-ctx.Done():
			for _, stop := range stops {
				stop()
			}
			return ctx.Err()
		case <-changed:
		}
	}
}

// endStrangers ends the sessions of peers that are no longer trusted: removed, or
// removed and added again with another key.
func (e *Endpoint) endStrangers() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for name, c := range e.contacts {
		p, ok := e.Book.Get(name)
		for _, s := range c.sessions {
			if !ok || p.entry != s.entry {
				s.end(problem.New(problem.Unauthorised, "peer_removed", "the peer was removed").On(name))
			}
		}
		if !ok && len(c.sessions) == 0 {
			delete(e.contacts, name)
		}
	}
}

// keepDialling dials the peer whenever there is no session with it and an endpoint to dial.
// The pause between attempts doubles, with jitter so that agents that were cut off
// together do not come back together; it is cut short when the peer's entry changes.
func (e *Endpoint) keepDialling(ctx context.Context, name string) {
	wait := e.times().retryMin
	for ctx.Err() == nil {
		p, changed := e.await(ctx, name)
		if ctx.Err() != nil {
			return
		}
		began := time.Now()
		if err := e.dial(ctx, p); err != nil {
			e.note(ctx, name, err)
		} else if time.Since(began) > e.times().dead {
			wait = e.times().retryMin
		}
		timer := time.NewTimer(wait/2 + rand.N(wait))
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-changed:
			if q, ok := e.Book.Get(name); ok && q.Endpoint == p.Endpoint {
				pause(ctx, wait/2)
			}
		}
		timer.Stop()
		wait = min(2*wait, e.times().retryMax)
	}
}

// await returns the peer once it should be dialled, and a channel that is closed when the
// book changes after.
func (e *Endpoint) await(ctx context.Context, name string) (Peer, <-chan struct{}) {
	for {
		changed := e.Book.Changed()
		e.mu.Lock()
		c, stirred := e.contacts[name], e.stirred
		idle := c == nil || len(c.sessions) == 0
		e.mu.Unlock()
		if p, ok := e.Book.Get(name); ok && idle && len(p.addresses()) > 0 {
			return p, changed
		}
		select {
		case <-ctx.Done():
			return Peer{}, changed
		case <-changed:
		case <-stirred:
		}
	}
}

// dial opens a connection and works the session on it until it ends. It returns an error
// only if no session came about.
func (e *Endpoint) dial(ctx context.Context, p Peer) error {
	var first error
	for _, address := range p.addresses() {
		err := e.dialAt(ctx, p, address)
		if err == nil || ctx.Err() != nil {
			return err
		}
		if first == nil {
			first = err
		}
	}
	return first
}

// dialAt is dial at one of the peer's addresses.
func (e *Endpoint) dialAt(ctx context.Context, p Peer, address string) error {
	conn, took, err := e.connect(ctx, address, e.clientTLS(sessionProtocol, p.trusts))
	if err != nil {
		return e.whyNot(err, p, address)
	}
	stop := context.AfterFunc(ctx, func() { conn.NetConn().Close() })
	fingerprint := Fingerprint(conn.ConnectionState().PeerCertificates[0])
	s, err := e.establish(ctx, conn, p, fingerprint, true, took)
	stop()
	if err != nil {
		conn.NetConn().Close()
		return e.whyNot(err, p, address)
	}
	e.met.add(door.HostOf(conn.RemoteAddr()))
	err = s.run()
	if (s.adoption().seq == 0 || problem.CodeOf(err) == "agent_twice") && ctx.Err() == nil && !errors.Is(err, errReplaced) {
		return e.whyNot(err, p, address)
	}
	return nil
}

// whyNot says what a failed attempt to open a session with a peer means, and, where the peer
// does not trust this agent's key, what its operator does about it.
func (e *Endpoint) whyNot(err error, p Peer, address string) error {
	why := connectProblem(err, p.Name, address)
	if why.Code == "peer_refused" {
		why.Hint = fmt.Sprintf("its operator agrees to this agent's key there, under the name that this agent has there: twinspan peer trust %s --key %s; or pair the two again", e.name(), e.Identity.Fingerprint())
	}
	return why
}

// connect dials and shakes hands. The connection has a deadline for what follows.
func (e *Endpoint) connect(ctx context.Context, address string, config *tls.Config) (*tls.Conn, time.Duration, error) {
	deadline := time.Now().Add(e.times().handshake)
	d := net.Dialer{Deadline: deadline, KeepAliveConfig: keepAlive()}
	raw, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, 0, err
	}
	conn := tls.Client(raw, config)
	took, err := handshake(ctx, conn, deadline)
	if err != nil {
		raw.Close()
		return nil, 0, err
	}
	return conn, took, nil
}

// note keeps why a peer could not be dialled, and logs it when it is something new.
func (e *Endpoint) note(ctx context.Context, name string, err error) {
	if ctx.Err() != nil {
		return
	}
	e.mu.Lock()
	c := e.contactLocked(name)
	news := c.problem == nil || c.problem.Error() != err.Error()
	c.problem = err
	e.mu.Unlock()
	level := slog.LevelDebug
	if news {
		level = slog.LevelWarn
	}
	e.logger().Log(ctx, level, "peer not reached", "peer", name, "code", problem.CodeOf(err), "err", err)
}
