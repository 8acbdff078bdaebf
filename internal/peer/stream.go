package peer

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/hashicorp/yamux"
	"github.com/twinspan/twinspan/internal/problem"
)

const (
	// chunk is how much of a stream is handed to the multiplexer at once. Small
	// enough that streams share the connection fairly, large enough to cost nothing; less
	// the multiplexer's own header, so that both fill four TLS records.
	chunk = 64<<10 - muxHeader
	// readAhead saves system work for streams of small frames.
	readAhead = 16 << 10
	// resetGrace is how long a broken stream waits to be told why.
	resetGrace = 2 * time.Second
)

// Stream is a conversation of frames with a peer, both ways at once. One goroutine may
// read while others write.
//
// The side that opened a stream must Close it. A handler need not: what it returns ends
// the stream. The stream dies with the context it was opened with, with its handler's
// return, and with the connection.
type Stream struct {
	session *session
	mux     *yamux.Stream
	id      uint32
	method  string
	ctx     context.Context
	cancel  context.CancelCauseFunc

	// The reading side, one goroutine's.
	in      *bufio.Reader
	payload []byte
	outcome error // how reading ended
	// admit is asked before memory is taken for a frame; nil where this side opened the stream.
	admit func(length int) error

	writing sync.Mutex // held while a frame is written
	out     []byte     // gathers small writes
	ended   bool       // the last frame of this side is written

	mu      sync.Mutex
	failure error // the whole stream is dead
	stopped error // the other side reads no more
	heard   bool  // the other side's last frame was read
	told    bool  // this side's last frame was written
	closed  bool
	unhook  []func() bool // unties the stream from the contexts it depends on
}

func newStream(ctx context.Context, s *session, mux *yamux.Stream) *Stream {
	st := &Stream{session: s, mux: mux, id: mux.StreamID(), in: bufio.NewReaderSize(counted{mux, s.link.unread}, readAhead)}
	st.ctx, st.cancel = context.WithCancelCause(ctx)
	return st
}

// hook lets the stream end with its session and with the context of who opened it: for one
// that the peer opened, both are the session.
func (s *Stream) hook(caller context.Context) {
	hooks := []func() bool{
		context.AfterFunc(s.session.ctx, func() { s.fail(s.session.lost()) }),
	}
	if caller != s.session.ctx {
		hooks = append(hooks, context.AfterFunc(caller, func() { s.giveUp(problem.As(context.Cause(caller))) }))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.unhook = hooks
		return
	}
	for _, unhook := range hooks {
		unhook()
	}
}

// Context ends when the stream does, or when either side gives it up; its cause
// says why.
func (s *Stream) Context() context.Context { return s.ctx }

// WriteFrame sends one frame. The parts are concatenated; they may be reused when it
// returns. It blocks while the other side does not read. Kinds below FirstFreeKind and
// payloads longer than MaxFrame are refused.
//
// When the other side has stopped reading, the error is its problem, or one of kind
// Cancelled if it ended well; ReadFrame goes on delivering what it sent.
func (s *Stream) WriteFrame(kind byte, payload ...[]byte) error {
	if kind < FirstFreeKind {
		return problem.New(problem.Internal, "internal", "frame kind %#x is reserved", kind)
	}
	return s.write(kind, payload...)
}

// ReadFrame receives one frame. The payload is valid until the next ReadFrame. The error
// is io.EOF after the other side ended well, and a problem after it, or the
// connection, failed.
func (s *Stream) ReadFrame() (kind byte, payload []byte, err error) {
	kind, payload, err = s.read()
	if err == nil && kind < FirstFreeKind {
		return 0, nil, s.broken(protocolError("unexpected frame kind %#x in a stream", kind))
	}
	return kind, payload, err
}

// CloseWrite says that this side sends no more. The other side's ReadFrame returns io.EOF
// after the last frame. Reading goes on.
func (s *Stream) CloseWrite() error {
	s.mu.Lock()
	stopped := s.stopped != nil || s.told
	s.mu.Unlock()
	if stopped {
		return nil
	}
	return s.write(frameEnd)
}

// Close ends the stream. When the conversation is not over (either side has frames to
// send), the other side is told that it was given up. Close may be called more than once
// and from any goroutine.
func (s *Stream) Close() error {
	s.giveUp(problem.New(problem.Cancelled, "cancelled", "the stream was closed"))
	return nil
}

// giveUp ends the stream for a reason. If the other side may still be at work it hears
// of it on the control stream: the stream itself may be full.
func (s *Stream) giveUp(why *problem.Error) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return
	}
	s.closed = true
	over := s.heard && s.told || s.failure != nil
	hooks := s.unhook
	s.mu.Unlock()
	for _, unhook := range hooks {
		unhook()
	}
	s.fail(why)
	if !over {
		s.session.tell(frameReset, s.id, encodeFault(why))
	}
	s.session.forget(s)
	s.session.link.unread.closed(s.id)
	s.mux.Close()
}

// fail makes the stream dead: who waits in it returns err.
func (s *Stream) fail(err error) {
	s.mu.Lock()
	if s.failure == nil {
		s.failure = err
	}
	err = s.failure
	s.mu.Unlock()
	s.cancel(err)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mux.SetDeadline(time.Unix(1, 0))
}

// stop notes that the other side reads no more.
func (s *Stream) stop(err error) {
	s.mu.Lock()
	if s.stopped == nil {
		s.stopped = err
	}
	s.mu.Unlock()
	s.mux.SetWriteDeadline(time.Unix(1, 0))
}

// writable returns why nothing can be written, nil if it can.
func (s *Stream) writable() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failure != nil {
		return s.failure
	}
	return s.stopped
}

func (s *Stream) write(kind byte, parts ...[]byte) error {
	length := 0
	for _, part := range parts {
		length += len(part)
	}
	if length > MaxFrame {
		return problem.New(problem.Internal, "internal", "a frame of %d bytes is longer than the limit of %d", length, MaxFrame)
	}
	s.writing.Lock()
	defer s.writing.Unlock()
	if s.ended {
		return problem.New(problem.Internal, "internal", "write to a stream after its end")
	}
	var header [frameHeader]byte
	putFrameHeader(header[:], kind, length)
	s.out = append(s.out[:0], header[:]...)
	for _, part := range parts {
		if err := s.gather(part); err != nil {
			return err
		}
	}
	if err := s.send(s.out); err != nil {
		return err
	}
	if kind == frameEnd || kind == frameError {
		s.ended = true
		s.mu.Lock()
		s.told = true
		s.mu.Unlock()
	}
	return nil
}

// gather fills the buffer chunk by chunk. A long part is copied once only to complete the
// chunk that was begun; the rest goes to the multiplexer from where it is.
func (s *Stream) gather(part []byte) error {
	for len(part) > 0 {
		if len(s.out) == 0 && len(part) >= chunk {
			if err := s.send(part[:chunk]); err != nil {
				return err
			}
			part = part[chunk:]
			continue
		}
		n := min(len(part), chunk-len(s.out))
		s.out = append(s.out, part[:n]...)
		part = part[n:]
		if len(s.out) == chunk {
			if err := s.send(s.out); err != nil {
				return err
			}
			s.out = s.out[:0]
		}
	}
	return nil
}

func (s *Stream) send(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	if err := s.writable(); err != nil {
		return err
	}
	if _, err := s.mux.Write(b); err != nil {
		if why := s.writable(); why != nil {
			return why
		}
		// A frame is cut: nothing sensible can follow it.
		return s.broken(err)
	}
	return nil
}

// read receives one frame of any kind but the two that end a stream.
func (s *Stream) read() (byte, []byte, error) {
	if s.outcome != nil {
		return 0, nil, s.outcome
	}
	s.mu.Lock()
	failure := s.failure
	s.mu.Unlock()
	if failure != nil {
		return 0, nil, failure
	}
	kind, payload, err := readFrame(s.in, s.payload, MaxFrame, s.admit)
	s.payload = payload
	if err != nil {
		return 0, nil, s.broken(err)
	}
	switch kind {
	case frameEnd:
		s.outcome = io.EOF
	case frameError:
		s.outcome = decodeFault(payload)
		s.mu.Lock()
		s.told = true // after an error nobody listens
		s.mu.Unlock()
		s.stop(s.outcome)
	default:
		return kind, payload, nil
	}
	s.mu.Lock()
	s.heard = true
	s.mu.Unlock()
	return 0, nil, s.outcome
}

// finished notes that a call is complete: its one answer was read.
func (s *Stream) finished() {
	s.mu.Lock()
	s.heard, s.told = true, true
	s.mu.Unlock()
}

// broken finds out why reading or writing failed and kills the stream with it.
func (s *Stream) broken(err error) error {
	s.mu.Lock()
	failure := s.failure
	s.mu.Unlock()
	if failure != nil {
		return failure
	}
	var known *problem.Error
	if errors.As(err, &known) {
		s.giveUp(known)
		return known
	}
	// The stream ended in the middle. The reason is on its way already, on the control
	// stream or as the end of the session.
	timer := time.NewTimer(resetGrace)
	defer timer.Stop()
	select {
	case <-s.ctx.Done():
	case <-timer.C:
		s.giveUp(problem.New(problem.Transient, "peer_lost", "the stream with peer %s broke", s.session.peer).On(s.session.peer))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failure == nil { // the context it was opened with ended just now
		return problem.As(context.Cause(s.ctx))
	}
	return s.failure
}

// writeBody sends JSON in as many frames as it takes.
func (s *Stream) writeBody(body []byte) error {
	for len(body) > MaxFrame {
		if err := s.write(framePart, body[:MaxFrame]); err != nil {
			return err
		}
		body = body[MaxFrame:]
	}
	return s.write(frameLast, body)
}

// readBody receives what writeBody sent. large is called before more than one frame's worth of memory is taken.
// Each frame has to come within patience, unless that is 0.
func (s *Stream) readBody(large func() error, patience time.Duration) (json.RawMessage, error) {
	var body []byte
	for first := true; ; first = false {
		if patience > 0 {
			s.deadline(time.Now().Add(patience))
		}
		kind, payload, err := s.read()
		if err == io.EOF {
			err = s.broken(protocolError("the peer ended a call in the middle of its body"))
		}
		if err != nil {
			return nil, err
		}
		if kind != framePart && kind != frameLast {
			return nil, s.broken(protocolError("unexpected frame kind %#x in a body", kind))
		}
		if len(body)+len(payload) > MaxBody {
			return nil, s.broken(problem.New(problem.Invalid, "body_too_large", "a body is longer than %d bytes", MaxBody))
		}
		if first && kind == framePart {
			if err := large(); err != nil {
				return nil, err
			}
		}
		body = append(body, payload...)
		if kind == frameLast {
			if patience > 0 {
				s.deadline(time.Time{})
			}
			if cap(s.payload) > smallFrame {
				s.payload = nil
			}
			return body, nil
		}
	}
}

// deadline has readers give up at t, unless the stream is dead, of which its own deadline tells them.
func (s *Stream) deadline(t time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failure == nil {
		s.mux.SetReadDeadline(t)
	}
}

func encodeBody(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode body: %w", err)
	}
	if len(b) > MaxBody {
		return nil, problem.New(problem.Invalid, "body_too_large", "a body of %d bytes is longer than the limit of %d", len(b), MaxBody)
	}
	return b, nil
}
