package peer

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twinspan/twinspan/internal/problem"
)

// knock dials an endpoint with any TLS configuration and returns what the server did: nil if
// it let the connection be for a read, else the failure.
func knock(t *testing.T, a *agent, config *tls.Config) error {
	t.Helper()
	raw, err := net.Dial("tcp", a.Addr().String())
	check(t, err)
	defer raw.Close()
	check(t, raw.SetDeadline(time.Now().Add(patience)))
	config.InsecureSkipVerify = true
	conn := tls.Client(raw, config)
	if err := conn.Handshake(); err != nil {
		return err
	}
	_, err = io.ReadFull(conn, make([]byte, 1))
	return err
}

func TestStrangersAreRefusedAtTheHandshake(t *testing.T) {
	a, b := pair(t, nil)
	stranger := newAgent(t, "c")
	// b's certificate is public; without its key it must be worth nothing.
	_, otherKey, err := ed25519.GenerateKey(rand.Reader)
	check(t, err)
	copied := tls.Certificate{Certificate: b.Identity.certificate().Certificate, PrivateKey: otherKey}
	session := []string{sessionProtocol}
	own := []tls.Certificate{*b.Identity.certificate()}
	for name, c := range map[string]*tls.Config{
		"unknown key":             {NextProtos: session, Certificates: []tls.Certificate{*stranger.Identity.certificate()}},
		"no certificate":          {NextProtos: session},
		"certificate copied":      {NextProtos: session, Certificates: []tls.Certificate{copied}},
		"TLS 1.2":                 {NextProtos: session, Certificates: own, MaxVersion: tls.VersionTLS12},
		"no protocol":             {Certificates: own},
		"foreign protocol":        {NextProtos: []string{"h2"}, Certificates: own},
		"unknown key, both named": {NextProtos: []string{pairProtocol, sessionProtocol}, Certificates: []tls.Certificate{*stranger.Identity.certificate()}},
	} {
		err := knock(t, a, c)
		if err == nil || !strings.Contains(err.Error(), "remote error: tls: ") {
			t.Errorf("%s: got %v, want a TLS alert", name, err)
		}
	}
	if err := knock(t, a, &tls.Config{NextProtos: session, Certificates: own}); err != nil {
		t.Errorf("the true key was refused: %v", err)
	}
}

func TestPairingConnectionCanDoNothingElse(t *testing.T) {
	a, b := pair(t, func(a, _ *agent) { a.Handle("echo", echo) })
	for _, first := range [][]byte{
		appendFrame(nil, frameHello, []byte(`{"min":1,"max":1,"agent":"`+b.Identity.AgentID()+`","name":"b"}`)),
		appendFrame(nil, framePair, []byte(`{}`)),
		appendFrame(nil, framePair, []byte(`garbage`)),
		appendFrame(nil, frameOpen, []byte("\x01echo")),
	} {
		conn, err := tls.Dial("tcp", a.Addr().String(), b.clientTLS(pairProtocol, func(string) bool { return true }))
		check(t, err)
		check(t, conn.SetDeadline(time.Now().Add(patience)))
		_, err = conn.Write(first)
		check(t, err)
		kind, payload, err := readFrame(conn, nil, maxFault, nil)
		if err != nil || kind != frameError || decodeFault(payload).Code != "peer_protocol" {
			t.Errorf("%q: got %#x %s %v", first, kind, payload, err)
		}
		if _, err := conn.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("the connection went on: %v", err)
		}
		conn.Close()
	}
}

func TestDiallerRefusesAnotherKnownPeer(t *testing.T) {
	// c knows a and b, and dials b where it believes a to be: a key is good for one peer only.
	a, b := pair(t, nil)
	c := newAgent(t, "c")
	b.know(t, c, "")
	c.know(t, a, b.Addr().String())
	c.know(t, b, "")
	c.start(t)
	await(t, "c to see the wrong key", func() bool {
		s, _ := c.Status("a")
		return problem.CodeOf(s.Problem) == "peer_key_unknown"
	})
	err := c.Call(background(t), "a", "x", nil, nil)
	if problem.CodeOf(err) != "peer_unreachable" || !strings.Contains(err.Error(), "not pinned") {
		t.Errorf("got %v", err)
	}
}

func TestRefusedKeyIsToldApart(t *testing.T) {
	a, b := newAgent(t, "a"), newAgent(t, "b")
	a.start(t)
	b.know(t, a, a.Addr().String())
	b.start(t)
	await(t, "b to be refused", func() bool {
		s, _ := b.Status("a")
		return problem.CodeOf(s.Problem) == "peer_refused"
	})
	a.know(t, b, "") // added by hand while b keeps trying
	together(t, a, b)
}

func TestNoCommonVersion(t *testing.T) {
	a, b := newAgent(t, "a"), newAgent(t, "b")
	a.know(t, b, "")
	a.start(t)
	conn, err := tls.Dial("tcp", a.Addr().String(), b.clientTLS(sessionProtocol, func(string) bool { return true }))
	check(t, err)
	defer conn.Close()
	check(t, conn.SetDeadline(time.Now().Add(patience)))
	h := hello{Min: 7, Max: 9, Agent: b.Identity.AgentID(), Name: "b", Product: "future"}
	theirs, err := exchangeHello(conn, h)
	check(t, err)
	if _, err := commonVersion(theirs, h); problem.CodeOf(err) != "peer_version" || problem.KindOf(err) != problem.Incompatible {
		t.Errorf("got %v", err)
	}
	if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a went on: %v", err)
	}
	await(t, "a to say why", func() bool { return strings.Contains(a.logs.String(), "no common protocol version") })
}

func TestSilentConnectionsMakeRoom(t *testing.T) {
	a, b := newAgent(t, "a"), newAgent(t, "b")
	a.tempo.handshake = 300 * time.Millisecond
	a.know(t, b, "")
	a.start(t)
	for range maxLobby + 5 { // who says nothing is sent away in time
		c, err := net.Dial("tcp", a.Addr().String())
		check(t, err)
		defer c.Close()
	}
	b.know(t, a, a.Addr().String())
	b.start(t)
	together(t, a, b)
}

func TestRemovedPeerIsCutOff(t *testing.T) {
	entered, gone := make(chan struct{}), make(chan error, 1)
	a, b := pair(t, func(a, _ *agent) {
		a.HandleStream("wait", func(ctx context.Context, _ Peer, _ json.RawMessage, _ *Stream) error {
			close(entered)
			<-ctx.Done()
			gone <- context.Cause(ctx)
			return nil
		})
	})
	s, err := b.Open(background(t), "a", "wait", nil)
	check(t, err)
	defer s.Close()
	receive(t, entered)
	check(t, a.Book.Remove("b"))
	receive(t, gone)
	if _, _, err := s.ReadFrame(); problem.CodeOf(err) != "peer_lost" {
		t.Errorf("got %v", err)
	}
	await(t, "b to be refused", func() bool {
		st, _ := b.Status("a")
		return !st.Connected && problem.CodeOf(st.Problem) == "peer_refused"
	})
	for _, suffix := range []string{".toml", ".pem"} {
		if _, err := os.Stat(filepath.Join(a.dir, "peers", "b"+suffix)); !os.IsNotExist(err) {
			t.Errorf("b%s is still there", suffix)
		}
	}
}

func TestCopiedDirectoryIsNoPeer(t *testing.T) {
	a := newAgent(t, "a")
	p, err := NewPeer("b", "", a.Identity.CertificatePEM())
	check(t, err)
	check(t, a.Book.Add(p))
	a.start(t)
	check(t, a.Book.SetEndpoint("b", a.Addr().String()))
	await(t, "the agent to notice that it talks to itself", func() bool {
		st, _ := a.Status("b")
		return problem.CodeOf(st.Problem) == "peer_agent"
	})
}

// An agent that was made anew has its id and another key. Each side says so, with the key that
// was shown; nothing is trusted before somebody agrees, and then the key of before is refused.
func TestKeyOfAnAgentThatWasMadeAnew(t *testing.T) {
	a, b := pair(t, func(a, _ *agent) { a.Handle("echo", echo) })
	b.stop()
	anew := newAgent(t, "b")
	id, err := AdoptIdentity(t.TempDir(), "b", b.Identity.AgentID())
	check(t, err)
	anew.open(t, id)
	anew.know(t, a, a.Addr().String())
	anew.start(t)
	await(t, "both sides to say so", func() bool {
		there, _ := a.Status("b")
		here, _ := anew.Status("a")
		return problem.CodeOf(there.Problem) == "peer_key_unknown" && strings.Contains(problem.As(there.Problem).Hint, "peer trust b --key "+id.Fingerprint()) &&
			problem.CodeOf(here.Problem) == "peer_refused" && strings.Contains(problem.As(here.Problem).Hint, id.Fingerprint())
	})
	for what, f := range map[string]string{"no key": "SHA256:x", "the agent's own": a.Identity.Fingerprint()} {
		if err := a.Trust("b", f); problem.CodeOf(err) != "peer_fingerprint" {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := a.Trust("c", id.Fingerprint()); problem.CodeOf(err) != "peer_unknown" {
		t.Errorf("another peer: %v", err)
	}
	check(t, a.Book.Grant("b", LinkGrants("d", "0b9a4b4e-6f7e-4b7e-9f60-2f1c0e8d7a11")))
	check(t, a.Trust("b", id.Fingerprint()))
	together(t, a, anew)
	p, _ := a.Book.Get("b")
	if len(p.Fingerprints) != 1 || p.Fingerprints[0] != id.Fingerprint() || len(p.Grants) != 2 || p.Certificate == "" {
		t.Errorf("the peer is %+v", p)
	}
	if err := knock(t, a, &tls.Config{NextProtos: []string{sessionProtocol}, Certificates: []tls.Certificate{*b.Identity.certificate()}}); err == nil {
		t.Error("the key of before is let in")
	}
	reopened, err := OpenBook(a.dir)
	check(t, err)
	if q, _ := reopened.Get("b"); q.Certificate != p.Certificate || q.Fingerprints[0] != id.Fingerprint() {
		t.Errorf("stored: %+v", q)
	}
}
