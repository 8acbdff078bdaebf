package peer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/twinspan/twinspan/internal/problem"
)

type question struct{ Text string }

func echo(_ context.Context, from Peer, body json.RawMessage) (any, error) {
	var q question
	if err := json.Unmarshal(body, &q); err != nil {
		return nil, err
	}
	return question{Text: from.Name + " says " + q.Text}, nil
}

func TestCallsGoBothWaysOverOneConnection(t *testing.T) {
	a, b := pair(t, func(a, b *agent) { a.Handle("echo", echo); b.Handle("echo", echo) })
	var got question
	check(t, a.Call(background(t), "b", "echo", question{"hi"}, &got))
	if got.Text != "a says hi" {
		t.Errorf("b answered %q", got.Text)
	}
	check(t, b.Call(background(t), "a", "echo", question{"ho"}, &got))
	if got.Text != "b says ho" {
		t.Errorf("a answered %q", got.Text)
	}
	st, _ := b.Status("a")
	if !st.Dialled || st.Product != "test" {
		t.Errorf("status is %+v", st)
	}
	await(t, "a round trip", func() bool { d, ok := a.RoundTrip("b"); return ok && d > 0 })
	if d, ok := a.ClockDifference("b"); !ok || d.Abs() > patience {
		t.Errorf("clocks differ by %v, %v", d, ok)
	}
}

func TestLargeBodies(t *testing.T) {
	a, _ := pair(t, func(a, b *agent) { b.Handle("echo", echo) })
	text := strings.Repeat("x", 9<<20)
	var callers sync.WaitGroup
	for range 2 * largeBodies / MaxBody { // more at once than there is memory for
		callers.Go(func() {
			var got question
			if err := a.Call(background(t), "b", "echo", question{text}, &got); err != nil || got.Text != "a says "+text {
				t.Errorf("got %d bytes, %v", len(got.Text), err)
			}
		})
	}
	callers.Wait()
	err := a.Call(background(t), "b", "echo", question{text + text}, nil)
	if problem.CodeOf(err) != "body_too_large" {
		t.Errorf("got %v", err)
	}
}

func TestErrorsCrossAsTheSameProblem(t *testing.T) {
	sent := problem.Wrap(errors.New("disk full"), problem.Resource, "slots_used_up", "no slot is free").On("server x").WithHint("raise it")
	a, b := pair(t, func(a, b *agent) {
		b.Handle("fails", func(context.Context, Peer, json.RawMessage) (any, error) { return nil, sent })
		b.Handle("panics", func(context.Context, Peer, json.RawMessage) (any, error) { panic("secret detail") })
		b.Handle("large", func(context.Context, Peer, json.RawMessage) (any, error) {
			return question{strings.Repeat("x", MaxBody)}, nil
		})
		b.HandleStream("stream-fails", func(_ context.Context, _ Peer, _ json.RawMessage, s *Stream) error {
			if err := s.WriteFrame(0x10, []byte("before")); err != nil {
				return err
			}
			return sent
		})
		b.HandleStream("ends-then-fails", func(_ context.Context, _ Peer, _ json.RawMessage, s *Stream) error {
			if err := s.CloseWrite(); err != nil {
				return err
			}
			return sent
		})
	})
	same := func(what string, err error) {
		t.Helper()
		p := problem.As(err)
		if p.Kind != sent.Kind || p.Code != sent.Code || p.Subject != sent.Subject || p.Text != "no slot is free: disk full" || p.Hint != sent.Hint {
			t.Errorf("%s: got %+v", what, p)
		}
	}
	same("call", a.Call(background(t), "b", "fails", nil, nil))

	s, err := a.Open(background(t), "b", "stream-fails", nil)
	check(t, err)
	kind, payload, err := s.ReadFrame()
	if err != nil || kind != 0x10 || string(payload) != "before" {
		t.Errorf("got %#x %q %v", kind, payload, err)
	}
	_, _, err = s.ReadFrame()
	same("stream", err)
	_, _, err = s.ReadFrame()
	same("stream, read again", err)
	same("stream, written to", s.WriteFrame(0x10))
	check(t, s.Close())

	s, err = a.Open(background(t), "b", "ends-then-fails", nil)
	check(t, err)
	<-s.Context().Done()
	same("stream that had ended", context.Cause(s.Context()))
	check(t, s.Close())

	for method, code := range map[string]string{"panics": "internal", "nothing": "method_unknown", "stream-fails": "method_unknown", "large": "body_too_large"} {
		err := a.Call(background(t), "b", method, nil, nil)
		if problem.CodeOf(err) != code || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: got %v", method, err)
		}
	}
	await(t, "the panic in the log", func() bool { return strings.Contains(b.logs.String(), "handler panicked") })
	s, err = a.Open(background(t), "b", "nothing", nil)
	check(t, err)
	if _, _, err := s.ReadFrame(); problem.CodeOf(err) != "method_unknown" {
		t.Errorf("unknown stream: got %v", err)
	}
	check(t, s.Close())
}

func TestUnreachable(t *testing.T) {
	a, b := newAgent(t, "a"), newAgent(t, "b")
	a.know(t, b, "")
	err := a.Call(background(t), "b", "echo", nil, nil)
	if problem.CodeOf(err) != "peer_unreachable" || !problem.Retry(err) {
		t.Errorf("got %v", err)
	}
	_, err = a.Open(background(t), "c", "echo", nil)
	if problem.CodeOf(err) != "peer_unknown" {
		t.Errorf("got %v", err)
	}
}

func TestStreamBothWaysKeepsFramesWhole(t *testing.T) {
	a, _ := pair(t, func(a, b *agent) {
		b.HandleStream("reverse", func(_ context.Context, _ Peer, body json.RawMessage, s *Stream) error {
			if string(body) != `"start"` {
				return fmt.Errorf("body is %s", body)
			}
			for {
				kind, payload, err := s.ReadFrame()
				if err == io.EOF {
					return s.WriteFrame(0xff, []byte("all"))
				}
				if err != nil {
					return err
				}
				if err := s.WriteFrame(kind+1, payload, []byte("!")); err != nil {
					return err
				}
			}
		})
	})
	s, err := a.Open(background(t), "b", "reverse", "start")
	check(t, err)
	defer s.Close()
	sizes := []int{0, 1, 5, chunk - frameHeader - 1, chunk - frameHeader, chunk, chunk + 1, 3 * chunk, MaxFrame - 1}
	go func() {
		for i, n := range sizes {
			// In three parts, so that chunks begin and end within them.
			p := bytes.Repeat([]byte{byte(i)}, n)
			if err := s.WriteFrame(0x10+byte(i), p[:n/3], p[n/3:n/2], p[n/2:]); err != nil {
				t.Error(err)
			}
		}
		if err := s.CloseWrite(); err != nil {
			t.Error(err)
		}
	}()
	for i, n := range sizes {
		kind, payload, err := s.ReadFrame()
		want := append(bytes.Repeat([]byte{byte(i)}, n), '!')
		if err != nil || kind != 0x11+byte(i) || !bytes.Equal(payload, want) {
			t.Fatalf("frame %d of %d bytes came as %#x, %d bytes, %v", i, n, kind, len(payload), err)
		}
	}
	kind, payload, err := s.ReadFrame()
	if err != nil || kind != 0xff || string(payload) != "all" {
		t.Errorf("got %#x %q %v", kind, payload, err)
	}
	for range 2 {
		if _, _, err := s.ReadFrame(); err != io.EOF {
			t.Errorf("after the end: %v", err)
		}
	}
	if err := s.WriteFrame(0x10); err == nil {
		t.Error("wrote after CloseWrite")
	}
	if err := s.WriteFrame(0x0f); err == nil {
		t.Error("wrote a reserved kind")
	}
	if err := s.WriteFrame(0x10, make([]byte, MaxFrame+1)); err == nil {
		t.Error("wrote a frame that is too long")
	}
}
