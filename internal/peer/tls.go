package peer

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"github.com/twinspan/twinspan/internal/problem"
)

// What a connection is for is announced by ALPN (RFC 7301), so that a key is judged
// within the handshake.
const (
	sessionProtocol = "twinspan/1"
	pairProtocol    = "twinspan-pair/1"
	memberProtocol  = "twinspan-member/1"
)

// errUntrusted ends a handshake with a key that is not pinned.
var errUntrusted = errors.New("the key is not one of a known peer")

// otherKey is the key that was shown in the place of a pinned one.
type otherKey struct{ fingerprint string }

func (o otherKey) Error() string { return errUntrusted.Error() + ": " + o.fingerprint }
func (o otherKey) Unwrap() error { return errUntrusted }

// baseTLS is what both sides of every connection have in common.
func (e *Endpoint) baseTLS() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		// The chain of a self-signed certificate proves nothing: VerifyConnection decides,
		// by the key, which the handshake has proved that the other side holds.
		InsecureSkipVerify:          true,
		ClientAuth:                  tls.RequireAnyClientCert,
		SessionTicketsDisabled:      true,
		DynamicRecordSizingDisabled: true, // bulk: full records from the start
		GetCertificate:              func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return e.Identity.certificate(), nil },
		GetClientCertificate:        func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return e.Identity.certificate(), nil },
	}
}

// serverTLS accepts known keys, and any key on a connection that announces pairing: the
// invitation is its proof, and it can do nothing else.
func (e *Endpoint) serverTLS() *tls.Config {
	c := e.baseTLS()
	c.NextProtos = []string{sessionProtocol, pairProtocol, memberProtocol}
	c.VerifyConnection = func(state tls.ConnectionState) error {
		leaf, err := leafOf(state)
		if err != nil {
			return err
		}
		switch state.NegotiatedProtocol {
		case pairProtocol, memberProtocol:
			return checkCertificate(leaf)
		case sessionProtocol:
			if _, ok := e.Book.ByFingerprint(Fingerprint(leaf)); ok {
				return nil
			}
			e.knocked(leaf)
		}
		return errUntrusted
	}
	return c
}

// clientTLS accepts the one peer that is dialled: trusts says whether it may show a key.
func (e *Endpoint) clientTLS(protocol string, trusts func(fingerprint string) bool) *tls.Config {
	c := e.baseTLS()
	c.NextProtos = []string{protocol}
	c.VerifyConnection = func(state tls.ConnectionState) error {
		leaf, err := leafOf(state)
		if err != nil {
			return err
		}
		if state.NegotiatedProtocol != protocol {
			return errUntrusted
		}
		if f := Fingerprint(leaf); !trusts(f) {
			return otherKey{f}
		}
		return nil
	}
	return c
}

// knocked notes, for people, that somebody who says that he is a peer has shown a key that
// is not that peer's. Anybody can say so: nothing but a line to read follows from it.
func (e *Endpoint) knocked(leaf *x509.Certificate) {
	agent, err := certificateAgent(leaf)
	if err != nil {
		return
	}
	for _, p := range e.Book.List() {
		if p.AgentID != agent {
			continue
		}
		e.mu.Lock()
		if c := e.contactLocked(p.Name); c.current == nil {
			c.knock, c.knocked = changedKey(p.Name, "an agent that says that it is peer "+p.Name+" dials", Fingerprint(leaf)), time.Now()
		}
		e.mu.Unlock()
	}
}

// changedKey is the problem of a peer that shows another key than the pinned one.
func changedKey(peer, who, fingerprint string) *problem.Error {
	return problem.New(problem.Unauthorised, "peer_key_unknown", "%s with a key that is not pinned: %s", who, fingerprint).On(peer).
		WithHint("where its operator says that the agent was made anew, and reads out the same fingerprint: twinspan peer trust %s --key %s; else see who is at that address", peer, fingerprint)
}

func leafOf(state tls.ConnectionState) (*x509.Certificate, error) {
	if len(state.PeerCertificates) != 1 {
		return nil, fmt.Errorf("%d certificates where an agent shows one", len(state.PeerCertificates))
	}
	return state.PeerCertificates[0], nil
}

// keepAlive finds connections whose other end is gone while nothing else is said.
func keepAlive() net.KeepAliveConfig {
	return net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: 2 * time.Second, Count: 3}
}

// handshake runs TLS on a connection that ctx and deadline bound, and measures it. The
// deadline stays in place for what follows.
func handshake(ctx context.Context, conn *tls.Conn, deadline time.Time) (time.Duration, error) {
	if err := conn.SetDeadline(deadline); err != nil {
		return 0, err
	}
	began := time.Now()
	if err := conn.HandshakeContext(ctx); err != nil {
		return 0, err
	}
	return time.Since(began), nil
}

// connectProblem says what a failed attempt to connect means.
func connectProblem(err error, peer, address string) *problem.Error {
	var known *problem.Error
	var alert tls.AlertError
	var shown otherKey
	switch {
	case errors.As(err, &known):
		copied := *problem.As(err)
		return copied.On(peer)
	case errors.As(err, &shown):
		return changedKey(peer, "the agent at "+address+" answers", shown.fingerprint)
	case errors.Is(err, errUntrusted):
		return problem.New(problem.Unauthorised, "peer_key_unknown", "the agent at %s shows no key of peer %s", address, peer).On(peer).
			WithHint("check the address; if the peer was made anew: twinspan peer trust %s --key FINGERPRINT", peer)
	case errors.As(err, &alert) || strings.Contains(err.Error(), "remote error: tls:"):
		// The server judges the client after the client's handshake is done, so this may
		// come with the first read.
		return problem.New(problem.Unauthorised, "peer_refused", "the agent at %s refused this agent's key", address).On(peer).
			WithHint("pair the two agents again, or add this agent's certificate there with 'twinspan peer add'")
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return problem.New(problem.Transient, "peer_unreachable", "the agent at %s did not answer in time", address).On(peer).
			WithHint("check that its agent runs and that no firewall drops the connection")
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return problem.New(problem.Transient, "peer_unreachable", "the agent at %s closed the connection", address).On(peer)
	}
	return problem.Wrap(err, problem.Transient, "peer_unreachable", "no connection with the agent at %s", address).On(peer).
		WithHint("check the address and that its agent runs")
}
