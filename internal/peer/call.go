package peer

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime/debug"
	"strings"
	"time"

	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/wire"
)

const (
	// MaxBody bounds the JSON body of a request and of a response, in bytes.
	MaxBody = 16 << 20
	// maxMethod bounds the name of a method.
	maxMethod = 200
	// openTimeout is how long a stream may take to say what it wants.
	openTimeout = 30 * time.Second
	// bodyTimeout is how long each frame of a request may take.
	bodyTimeout = 2 * time.Minute
	// smallFrame is the longest frame of a request that everybody may send at any time; whoever sends a longer one
	// takes one of the places for large requests.
	smallFrame = 64 << 10
)

// The modes of a call, the first byte of an open frame.
const (
	modeCall   byte = 1
	modeStream byte = 2
)

// reservedPrefix begins the names of the methods of this package.
const reservedPrefix = "peer."

// Handler answers a call. The body is the request's JSON and may be kept. The result is
// sent as JSON; an error crosses as the problem it is. The context ends when the caller
// gives up or the connection breaks.
type Handler func(ctx context.Context, from Peer, body json.RawMessage) (any, error)

// StreamHandler serves a stream. When it returns, the stream ends: with nil the other side
// reads io.EOF after the last frame, with an error that problem.
type StreamHandler func(ctx context.Context, from Peer, body json.RawMessage, s *Stream) error

// method is what serves one name.
type method struct {
	mode  byte
	serve func(st *Stream, from Peer, body json.RawMessage) error
}

// Handle registers a method that answers with one value. Registering a name twice
// panics: it is a mistake in the program.
func (e *Endpoint) Handle(name string, h Handler) {
	e.register(name, method{mode: modeCall, serve: func(st *Stream, from Peer, body json.RawMessage) error {
		result, err := h(st.ctx, from, body)
		if err != nil {
			return err
		}
		answer, err := encodeBody(result)
		if err == nil {
			err = st.writeBody(answer)
		}
		if err == nil {
			st.finished()
		}
		return err
	}})
}

// HandleStream registers a method that serves a stream.
func (e *Endpoint) HandleStream(name string, h StreamHandler) {
	e.register(name, method{mode: modeStream, serve: func(st *Stream, from Peer, body json.RawMessage) error {
		return h(st.ctx, from, body, st)
	}})
}

func (e *Endpoint) register(name string, m method) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, ok := e.methods[name]; ok || name == "" || len(name) > maxMethod || strings.HasPrefix(name, reservedPrefix) {
		panic(fmt.Sprintf("peer: method %q is registered twice or not a name", name))
	}
	e.prepareLocked()
	e.methods[name] = m
}

// Call asks a peer and waits for its answer, which is decoded into response unless that
// is nil. Without a session it fails at once, with code peer_unreachable and kind
// Transient; a connection that breaks meanwhile gives peer_lost, Transient too: whether
// the peer did the work is then unknown. The peer's own error comes back as the same problem.
func (e *Endpoint) Call(ctx context.Context, peer, method string, request, response any) error {
	st, err := e.open(ctx, peer, method, modeCall, request)
	if err != nil {
		return err
	}
	return st.take(response)
}

// take reads the answer of a call and closes its stream.
func (s *Stream) take(response any) error {
	defer s.Close()
	answer, err := s.readBody(func() error { return nil }, 0)
	if err != nil {
		return err
	}
	s.finished()
	if response == nil {
		return nil
	}
	if err := wire.Decode(answer, response, wire.Room(len(answer))); err != nil {
		return problem.Wrap(err, problem.Incompatible, "peer_protocol", "the answer to %s cannot be understood", s.method).On(s.session.peer)
	}
	return nil
}

// Open begins a stream with a peer. The context governs the stream until it is closed. It
// does not wait for the peer: a method that the peer refuses shows at the first ReadFrame.
func (e *Endpoint) Open(ctx context.Context, peer, method string, request any) (*Stream, error) {
	return e.open(ctx, peer, method, modeStream, request)
}

func (e *Endpoint) open(ctx context.Context, peer, method string, mode byte, request any) (*Stream, error) {
	body, err := encodeBody(request)
	if err != nil {
		return nil, err
	}
	for {
		if ctx.Err() != nil {
			return nil, problem.As(context.Cause(ctx))
		}
		s, err := e.sessionOf(peer)
		if err != nil {
			return nil, err
		}
		st, err := s.begin(ctx, method, mode, body)
		if err != errReplaced { // or else there is a newer session by now
			return st, err
		}
	}
}

// begin opens a stream and says what for.
func (s *session) begin(ctx context.Context, method string, mode byte, body []byte) (*Stream, error) {
	st, err := s.open(ctx, method)
	if err != nil {
		return nil, err
	}
	err = st.write(frameOpen, []byte{mode}, []byte(method))
	if err == nil {
		err = st.writeBody(body)
	}
	if err != nil && !st.refused() {
		st.Close()
		return nil, err
	}
	return st, nil
}

// refused says whether the other side stopped reading but has more to say: the caller
// finds the reason by reading.
func (s *Stream) refused() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failure == nil && s.stopped != nil
}

// serve answers one stream that the peer opened.
func (s *session) serve(st *Stream) {
	err := s.answer(st)
	if s.ctx.Err() != nil {
		// The agent stops or the connection is gone. Whatever the handler returned because
		// of that is not the caller's: it sees the connection break.
		st.giveUp(s.lost())
		return
	}
	st.finish(err)
}

func (s *session) answer(st *Stream) (err error) {
	defer func() {
		if v := recover(); v != nil {
			s.log.Error("handler panicked", "method", st.method, "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
			err = problem.New(problem.Internal, "internal", "a defect stopped %s", st.method).
				WithHint("the agent's log on %s has the details", s.endpoint.name())
		}
	}()
	var held *place
	slow := func() {
		st.fail(problem.New(problem.Transient, "request_slow", "a large request came too slowly while requests of other peers waited").
			WithHint("it is tried again; look at the network between the agents"))
	}
	large := func() (err error) {
		if held == nil {
			held, err = s.endpoint.bodies.take(st.ctx, s.peer, slow)
		}
		return err
	}
	defer func() {
		if held != nil {
			s.endpoint.bodies.release(held)
		}
	}()
	st.admit = func(length int) error {
		if length <= smallFrame {
			return nil
		}
		return large()
	}
	m, err := s.readOpen(st)
	if err != nil {
		return err
	}
	body, err := st.readBody(large, bodyTimeout)
	if err != nil {
		return err
	}
	slow = nil
	s.endpoint.bodies.received(held)
	if m.mode == modeCall {
		st.heardAll()
	}
	from, ok := s.endpoint.Book.Get(s.peer)
	if !ok {
		return unknownPeer(s.peer)
	}
	return m.serve(st, from, body)
}

// readOpen learns what the peer wants.
func (s *session) readOpen(st *Stream) (method, error) {
	st.mux.SetReadDeadline(time.Now().Add(openTimeout))
	kind, payload, err := st.read()
	if err != nil {
		return method{}, err
	}
	if kind != frameOpen || len(payload) < 2 || len(payload) > 1+maxMethod {
		return method{}, protocolError("a stream began with frame kind %#x, not by naming a method", kind)
	}
	st.mux.SetReadDeadline(time.Time{})
	if st.ctx.Err() != nil { // or else the deadline that woke readers would be lost
		return method{}, context.Cause(st.ctx)
	}
	st.method = line(string(payload[1:]))
	s.endpoint.mu.Lock()
	m, ok := s.endpoint.methods[st.method]
	s.endpoint.mu.Unlock()
	if !ok || m.mode != payload[0] {
		return method{}, problem.New(problem.Incompatible, "method_unknown", "agent %s does not know the call %s", s.endpoint.name(), st.method).
			WithHint("run the same release of twinspan on both sides")
	}
	return m, nil
}

// heardAll notes that the caller has nothing more to send.
func (s *Stream) heardAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.heard = true
}

// finish ends a stream that was served: the other side stops writing, and reads how
// it went.
func (s *Stream) finish(err error) {
	s.mu.Lock()
	dead, heard, told := s.failure, s.heard, s.told
	s.mu.Unlock()
	over := problem.New(problem.Cancelled, "stream_ended", "the peer has ended the stream")
	switch {
	case dead != nil:
		s.giveUp(problem.As(dead))
		return
	case err != nil && told:
		// It had said that all was well and written; only a reset can take that back.
		s.giveUp(problem.As(err))
		return
	case err != nil && !heard:
		s.session.tell(frameStop, s.id, encodeFault(err))
	case !heard:
		s.session.tell(frameStop, s.id, encodeFault(over))
	}
	var last error
	if err != nil {
		last = s.write(frameError, encodeFault(err))
	} else {
		last = s.CloseWrite()
	}
	if last != nil {
		s.session.log.Debug("stream not ended", "method", s.method, "err", last)
	}
	s.finished()
	s.giveUp(over)
}
