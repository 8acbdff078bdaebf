package peer

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/Shopify/toxiproxy/v2/toxics"
	"github.com/rs/zerolog"
	"github.com/twinspan/twinspan/internal/problem"
)

// proxy stands between two agents and can be cut or made bad.
func proxy(t *testing.T, upstream string) *toxiproxy.Proxy {
	t.Helper()
	p := toxiproxy.NewProxy(toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop()), "link", "127.0.0.1:0", upstream)
	check(t, p.Start())
	t.Cleanup(p.Stop)
	return p
}

// far starts two agents with a proxy between them; b dials.
func far(t *testing.T, register func(a, b *agent)) (a, b *agent, p *toxiproxy.Proxy) {
	t.Helper()
	a, b = newAgent(t, "a"), newAgent(t, "b")
	if register != nil {
		register(a, b)
	}
	a.know(t, b, "")
	a.start(t)
	p = proxy(t, a.Addr().String())
	b.know(t, a, p.Listen)
	b.Listen = ""
	b.start(t)
	together(t, a, b)
	return a, b, p
}

func sessions(a *agent, peer string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	if c := a.contacts[peer]; c != nil {
		return len(c.sessions)
	}
	return 0
}

func TestEitherSideMayBeTheOneThatDials(t *testing.T) {
	for _, dialler := range []string{"a", "b", "both"} {
		t.Run(dialler, func(t *testing.T) {
			a, b := newAgent(t, "a"), newAgent(t, "b")
			a.Handle("echo", echo)
			b.Handle("echo", echo)
			if dialler == "a" {
				a.Listen = ""
			}
			if dialler == "b" {
				b.Listen = ""
			}
			a.start(t)
			b.start(t)
			a.know(t, b, "")
			b.know(t, a, "")
			if dialler != "b" {
				check(t, a.Book.SetEndpoint("b", b.Addr().String()))
			}
			if dialler != "a" {
				check(t, b.Book.SetEndpoint("a", a.Addr().String()))
			}
			together(t, a, b)
			check(t, a.Call(background(t), "b", "echo", question{"x"}, nil))
			check(t, b.Call(background(t), "a", "echo", question{"x"}, nil))
			await(t, "one session to be left", func() bool { return sessions(a, "b") == 1 && sessions(b, "a") == 1 })
		})
	}
}

func TestSecondConnectionTakesOverWithoutBreakingTheFirstsStreams(t *testing.T) {
	finish := make(chan struct{})
	register := func(a, b *agent) {
		for _, x := range []*agent{a, b} {
			x.Handle("echo", echo)
			x.HandleStream("long", func(_ context.Context, _ Peer, _ json.RawMessage, s *Stream) error {
				<-finish
				return s.WriteFrame(0x10, []byte("whole"))
			})
		}
	}
	a, b := pair(t, register)
	fromA, err := a.Open(background(t), "b", "long", nil)
	check(t, err)
	defer fromA.Close()
	fromB, err := b.Open(background(t), "a", "long", nil)
	check(t, err)
	defer fromB.Close()
	current := func(x *agent, peer string) *session {
		s, err := x.sessionOf(peer)
		check(t, err)
		return s
	}
	oldA, oldB := current(a, "b"), current(b, "a")

	p, _ := a.Book.Get("b")
	ctx, cancel := context.WithCancel(background(t))
	done := make(chan error, 1)
	p.Endpoint = b.Addr().String()
	go func() { done <- a.dial(ctx, p) }()
	defer func() { cancel(); receive(t, done) }()
	await(t, "both sides to use the new connection", func() bool { return current(a, "b") != oldA && current(b, "a") != oldB })
	check(t, a.Call(background(t), "b", "echo", question{}, nil))
	check(t, b.Call(background(t), "a", "echo", question{}, nil))
	if sessions(a, "b") != 2 || sessions(b, "a") != 2 {
		t.Errorf("%d and %d sessions while the first has streams", sessions(a, "b"), sessions(b, "a"))
	}
	close(finish)
	for _, s := range []*Stream{fromA, fromB} {
		if _, payload, err := s.ReadFrame(); err != nil || string(payload) != "whole" {
			t.Errorf("got %q %v", payload, err)
		}
		if _, _, err := s.ReadFrame(); err != io.EOF {
			t.Errorf("got %v", err)
		}
		check(t, s.Close())
	}
	await(t, "the first connection to end", func() bool { return sessions(a, "b") == 1 && sessions(b, "a") == 1 })
	check(t, a.Call(background(t), "b", "echo", question{}, nil))
	for _, x := range []*agent{a, b} {
		if strings.Contains(x.logs.String(), "peer disconnected") {
			t.Error("the change was told as a disconnection")
		}
	}
}

func TestBothDialAtOnceUnderCalls(t *testing.T) {
	a, b := newAgent(t, "a"), newAgent(t, "b")
	for _, x := range []*agent{a, b} {
		x.Handle("echo", echo)
		x.start(t)
	}
	a.know(t, b, "")
	b.know(t, a, "")
	check(t, a.Book.SetEndpoint("b", b.Addr().String()))
	check(t, b.Book.SetEndpoint("a", a.Addr().String()))
	together(t, a, b)
	// Whatever becomes of the two connections, no call fails.
	for range 200 {
		check(t, a.Call(background(t), "b", "echo", question{"x"}, nil))
		check(t, b.Call(background(t), "a", "echo", question{"x"}, nil))
	}
	await(t, "one session to be left", func() bool { return sessions(a, "b") == 1 && sessions(b, "a") == 1 })
}

func TestCutConnectionEndsStreamsAndComesBack(t *testing.T) {
	ended := make(chan error, 1)
	a, b, p := far(t, func(a, b *agent) {
		b.Handle("echo", echo)
		a.HandleStream("wait", func(ctx context.Context, _ Peer, _ json.RawMessage, s *Stream) error {
			err := s.WriteFrame(0x10) // may arrive and yet meet the cut
			<-ctx.Done()
			ended <- context.Cause(ctx)
			return err
		})
	})
	ctx, cancel := context.WithCancel(background(t))
	events := a.Watch(ctx)
	if e := receive(t, events); e.Peer != "b" || !e.Connected {
		t.Errorf("first event is %+v", e)
	}
	for range 3 {
		s, err := b.Open(background(t), "a", "wait", nil)
		check(t, err)
		_, _, err = s.ReadFrame()
		check(t, err)
		p.Stop()
		if _, _, err := s.ReadFrame(); problem.CodeOf(err) != "peer_lost" || !problem.Retry(err) {
			t.Errorf("the caller got %v", err)
		}
		if err := s.WriteFrame(0x10); problem.CodeOf(err) != "peer_lost" {
			t.Errorf("writing gave %v", err)
		}
		check(t, s.Close())
		if err := receive(t, ended); problem.CodeOf(err) != "peer_lost" {
			t.Errorf("the handler's context ended with %v", err)
		}
		if e := receive(t, events); e.Connected {
			t.Errorf("event is %+v", e)
		}
		if err := a.Call(background(t), "b", "echo", question{}, nil); problem.CodeOf(err) != "peer_unreachable" {
			t.Errorf("a call met %v", err)
		}
		check(t, p.Start())
		if e := receive(t, events); !e.Connected {
			t.Errorf("event is %+v", e)
		}
		together(t, a, b)
		check(t, a.Call(background(t), "b", "echo", question{"again"}, nil))
	}
	cancel()
	await(t, "the events to end", func() bool { _, open := <-events; return !open })
}

func TestSilentConnectionIsFoundDead(t *testing.T) {
	a, b, p := far(t, func(a, b *agent) {
		b.Handle("echo", echo)
		a.tempo.dead, b.tempo.dead = 3*time.Second, 3*time.Second
	})
	// Bytes vanish, the connection stays: what a firewall that forgot it does.
	for _, direction := range []string{"upstream", "downstream"} {
		_, err := p.Toxics.AddToxicJson(strings.NewReader(`{"name":"hole-` + direction + `","type":"timeout","stream":"` + direction + `","attributes":{"timeout":0}}`))
		check(t, err)
	}
	await(t, "both sides to notice", func() bool { return !a.Connected("b") && !b.Connected("a") })
	if !strings.Contains(a.logs.String()+b.logs.String(), "nothing came from peer") {
		t.Error("they noticed by other means") // the first to notice closes, which the other may see
	}
	p.Toxics.ResetToxics(context.Background())
	together(t, a, b)
	check(t, a.Call(background(t), "b", "echo", question{}, nil))
}

func TestSlowNetworkIsNotADeadOne(t *testing.T) {
	a, b, p := far(t, func(a, b *agent) {
		b.HandleStream("sink", sink)
		a.tempo.dead, b.tempo.dead = 4*time.Second, 4*time.Second
	})
	check(t, addToxic(p, &toxics.BandwidthToxic{Rate: 300}, "bandwidth", "downstream")) // KB/s
	s, err := a.Open(background(t), "b", "sink", nil)
	check(t, err)
	defer s.Close()
	frame := make([]byte, MaxFrame)
	for range 4 { // takes several times longer than silence is allowed to
		check(t, s.WriteFrame(0x10, frame))
	}
	check(t, s.CloseWrite())
	_, payload, err := s.ReadFrame()
	check(t, err)
	if string(payload) != "4194304" {
		t.Errorf("%s bytes arrived", payload)
	}
	if strings.Contains(a.logs.String()+b.logs.String(), "peer disconnected") {
		t.Error("the connection was given up")
	}
}

func addToxic(p *toxiproxy.Proxy, toxic any, kind, direction string) error {
	attributes, err := json.Marshal(toxic)
	if err != nil {
		return err
	}
	_, err = p.Toxics.AddToxicJson(strings.NewReader(`{"type":"` + kind + `","stream":"` + direction + `","attributes":` + string(attributes) + `}`))
	return err
}

func TestRestartedPeerIsNotRefused(t *testing.T) {
	// The connection of the process before still stands, as it does after a crash of its host.
	a, b, p := far(t, func(a, _ *agent) { a.Handle("echo", echo) })
	old, err := a.sessionOf("b")
	check(t, err)
	check(t, b.Book.SetEndpoint("a", "")) // it shall not come back itself
	for _, direction := range []string{"upstream", "downstream"} {
		check(t, addToxic(p, map[string]any{"timeout": 0}, "timeout", direction))
	}
	again := anotherProcess(t, a, b)
	await(t, "the new one to be let in", func() bool { return again.Call(background(t), "a", "echo", question{}, nil) == nil })
	receive(t, old.ctx.Done())
	if cause := context.Cause(old.ctx); cause != errReplaced {
		t.Errorf("the old session ended with %v", cause)
	}
	await(t, "one session to be left", func() bool { return sessions(a, "b") == 1 })
}

// anotherProcess starts an agent with the directory of another one.
func anotherProcess(t *testing.T, a, b *agent) *agent {
	t.Helper()
	again := &agent{dir: b.dir, logs: b.logs}
	id, err := LoadIdentity(b.dir)
	check(t, err)
	again.open(t, id)
	again.Listen = ""
	check(t, again.Book.SetEndpoint("a", a.Addr().String()))
	return again.start(t)
}

// Of two processes with one identity the one that is connected stays; the other is told so, and
// let in when the first is gone.
func TestSecondProcessIsNotLetIn(t *testing.T) {
	a, b := pair(t, func(a, _ *agent) {
		a.tempo.ping = patience // the first was heard of lately, however late a busy machine lets it say something
		a.Handle("echo", echo)
	})
	first, err := a.sessionOf("b")
	check(t, err)
	again := anotherProcess(t, a, b)
	await(t, "the second to be told", func() bool {
		s, _ := again.Status("a")
		return problem.CodeOf(s.Problem) == "agent_twice" && problem.As(s.Problem).Hint != ""
	})
	check(t, b.Call(background(t), "a", "echo", question{}, nil))
	if s, err := a.sessionOf("b"); err != nil || s != first {
		t.Errorf("the connection of the first was replaced: %v", err)
	}
	b.stop()
	await(t, "the second to be let in", func() bool { return again.Call(background(t), "a", "echo", question{}, nil) == nil })
}

func TestSlowHandlerDoesNotKeepTheConnectionAway(t *testing.T) {
	entered, finish := make(chan struct{}), make(chan struct{})
	_, b, p := far(t, func(a, b *agent) {
		a.Handle("echo", echo)
		b.Handle("slow", func(context.Context, Peer, json.RawMessage) (any, error) {
			close(entered)
			<-finish // deaf to its context
			return nil, nil
		})
		a.HandleStream("callback", func(ctx context.Context, from Peer, _ json.RawMessage, _ *Stream) error {
			return a.Call(ctx, from.Name, "slow", nil, nil)
		})
	})
	defer close(finish)
	s, err := b.Open(background(t), "a", "callback", nil)
	check(t, err)
	defer s.Close()
	receive(t, entered)
	p.Stop()
	await(t, "b to notice", func() bool { return !b.Connected("a") })
	check(t, p.Start())
	await(t, "b to be back", func() bool { return b.Connected("a") })
	check(t, b.Call(background(t), "a", "echo", question{}, nil))
}

func TestHandlersReturnBeforeRun(t *testing.T) {
	var inside atomic.Int32
	register := func(a, b *agent) {
		a.HandleStream("wait", func(ctx context.Context, _ Peer, _ json.RawMessage, s *Stream) error {
			inside.Add(1)
			defer inside.Add(-1)
			<-ctx.Done()
			return ctx.Err()
		})
	}
	a, b := pair(t, register)
	s, err := b.Open(background(t), "a", "wait", nil)
	check(t, err)
	defer s.Close()
	await(t, "the handler", func() bool { return inside.Load() == 1 })
	a.stop()
	if inside.Load() != 0 {
		t.Error("a handler outlived Run")
	}
	// The end of the peer is not the end of the request: it may be tried again.
	if _, _, err := s.ReadFrame(); problem.KindOf(err) != problem.Transient {
		t.Errorf("got %v", err)
	}
	if !errors.Is(a.Run(canceled()), nil) {
		t.Error("a second run failed")
	}
}

func canceled() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}
