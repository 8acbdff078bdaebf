package peer

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"math/bits"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/yamux"
	"github.com/twinspan/twinspan/internal/problem"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

const (
	// muxHeader is the size of the multiplexer's frame header.
	muxHeader = 12
	// maxServed is how many streams of a session are served at once; more are refused.
	maxServed = 512
	// minWindow and maxWindow bound what may lie unread of one stream, in bytes.
	minWindow = 1 << 20
	maxWindow = 8 << 20
	// windowRate is the rate, in bytes per second, that a window should allow one stream.
	windowRate = 128 << 20
	// mostUnsent is how much the system takes of what is to be sent, beyond what is under
	// way. All streams wait behind it, so it is little; streams take turns only before it.
	mostUnsent = 128 << 10
)

// session is one live connection with a peer. Streams go both ways over it, whoever dialled.
type session struct {
	endpoint    *Endpoint
	peer        string // its name here
	entry       uint64 // of the book, by which the peer was let in
	dialled     bool   // this side opened the connection
	theirs      hello
	conn        *tls.Conn
	link        *link
	mux         *yamux.Session
	ctx         context.Context // ends with the session
	end         context.CancelCauseFunc
	log         *slog.Logger
	established time.Time

	control control
	clock   clock
	slots   chan struct{} // one for each stream being served

	opening sync.Mutex // keeps the order of stream ids on the wire

	mu          sync.Mutex
	fingerprint string // the key that the peer has proved last
	streams     map[uint32]*Stream
	accepted    uint32                    // highest id of the streams that the peer opened
	early       map[uint32]*problem.Error // resets that overtook their streams
	order       order                     // when it was adopted, zero before
	retiring    bool                      // another session took its place
	retired     bool                      // and the peer knows: no new streams will come
	left        bool                      // this side opens no more streams here
}

// order tells which of a peer's sessions was adopted last.
type order struct {
	boot int64  // of the process that decides
	seq  uint64 // its count
}

func (o order) after(p order) bool {
	return o.boot > p.boot || o.boot == p.boot && o.seq > p.seq
}

// windowFor chooses how much of a stream may be in flight or unread, from how long the
// handshake took: about one round trip. The window is a power of two.
func windowFor(handshake time.Duration) uint32 {
	want := uint64(handshake.Seconds() * windowRate)
	if want <= minWindow {
		return minWindow
	}
	if want >= maxWindow {
		return maxWindow
	}
	return 1 << bits.Len64(want-1)
}

func muxConfig(handshake time.Duration) *yamux.Config {
	c := yamux.DefaultConfig()
	// Death is found by the session's own heartbeat, which a busy connection cannot
	// delay. A write may take as long as the network needs for what is queued before it.
	c.EnableKeepAlive = false
	c.ConnectionWriteTimeout = 5 * time.Minute
	c.StreamOpenTimeout = 0
	// A stream whose other side still reads may take any time to close.
	c.StreamCloseTimeout = 0
	c.AcceptBacklog = maxServed
	c.MaxStreamWindowSize = windowFor(handshake)
	c.LogOutput = io.Discard // what it says is in the errors too
	return c
}

// newSession sets up the multiplexer on an authenticated connection, after the hellos.
func newSession(ctx context.Context, e *Endpoint, conn *tls.Conn, p Peer, fingerprint string, theirs hello, dialled bool, handshake time.Duration) (*session, error) {
	s := &session{
		endpoint: e, peer: p.Name, entry: p.entry, fingerprint: fingerprint, dialled: dialled, theirs: theirs, conn: conn,
		established: time.Now(), streams: map[uint32]*Stream{}, early: map[uint32]*problem.Error{}, slots: make(chan struct{}, maxServed),
		log: e.logger().With("peer", p.Name),
	}
	s.ctx, s.end = context.WithCancelCause(ctx)
	s.link = newLink(conn, dialled, s.end)
	limitUnsent(conn.NetConn())
	s.clock.start(theirs.Clock)
	config, make := muxConfig(handshake), yamux.Server
	if dialled {
		make = yamux.Client
	}
	mux, err := make(s.link, config)
	if err != nil {
		s.end(err)
		return nil, err
	}
	s.mux = mux
	return s, nil
}

// run works the session until the connection or the context ends, and returns why. Handlers
// may still be returning then: the endpoint waits for them, a new connection need not.
func (s *session) run() error {
	g, ctx := errgroup.WithContext(s.ctx)
	defer context.AfterFunc(ctx, func() {
		s.end(context.Cause(ctx))
		s.mux.Close()
	})()
	if err := s.openControl(); err != nil {
		s.end(err)
		s.mux.Close()
		return err
	}
	if err := s.endpoint.admit(s); err != nil {
		s.end(err)
		s.mux.Close()
		return err
	}
	defer s.endpoint.depart(s)
	g.Go(s.accept)
	g.Go(s.listen)
	g.Go(func() error { return s.heartbeat(ctx) })
	g.Go(func() error { return s.watch(ctx) })
	err := g.Wait()
	s.end(err)
	s.mux.Close()
	return context.Cause(s.ctx)
}

// accept takes the streams that the peer opens.
func (s *session) accept() error {
	for {
		mux, err := s.mux.AcceptStream()
		if err != nil {
			return connectionBroke(err)
		}
		st := newStream(s.ctx, s, mux)
		st.hook(s.ctx)
		s.enter(st)
		s.endpoint.running.Go(func() {
			select {
			case s.slots <- struct{}{}:
				defer func() { <-s.slots }()
				s.serve(st)
			default:
				st.finish(problem.New(problem.Transient, "peer_busy", "agent %s serves %d calls of this peer already", s.endpoint.name(), maxServed))
			}
		})
	}
}

// enter registers a stream that the peer opened. A reset may have come before it, for the
// two travel on different streams.
func (s *session) enter(st *Stream) {
	s.mu.Lock()
	s.streams[st.id] = st
	s.accepted = max(s.accepted, st.id)
	early := s.early[st.id]
	delete(s.early, st.id)
	s.mu.Unlock()
	if early != nil {
		st.fail(early)
	}
}

// open begins a stream. Ids appear on the wire in ascending order, which lets the other
// side know those that are over from those it has not met yet.
func (s *session) open(ctx context.Context, method string) (*Stream, error) {
	s.opening.Lock()
	defer s.opening.Unlock()
	if s.abandoned() {
		return nil, errReplaced
	}
	mux, err := s.mux.OpenStream()
	if err != nil {
		if s.ctx.Err() != nil || errors.Is(err, yamux.ErrSessionShutdown) {
			return nil, s.lost()
		}
		return nil, problem.Wrap(err, problem.Transient, "peer_lost", "no stream to peer %s", s.peer).On(s.peer)
	}
	s.link.unread.opened(mux.StreamID())
	st := newStream(ctx, s, mux)
	st.method = method
	s.mu.Lock()
	s.streams[st.id] = st
	s.mu.Unlock()
	st.hook(ctx)
	return st, nil
}

func (s *session) abandoned() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.left
}

// forget drops a stream that is over.
func (s *session) forget(st *Stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.streams, st.id)
}

// key returns the fingerprint that the peer has proved last.
func (s *session) key() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fingerprint
}

// lost is what streams meet when the session is over.
func (s *session) lost() *problem.Error {
	return problem.New(problem.Transient, "peer_lost", "the connection to peer %s broke", s.peer).On(s.peer)
}

func connectionBroke(err error) error {
	return problem.Wrap(err, problem.Transient, "peer_lost", "the connection ended")
}

// link is the connection below the multiplexer. It notes when bytes arrived last, and joins
// the multiplexer's header with the body that follows, which it writes one after the
// other, so that TLS makes one write of both.
type link struct {
	net.Conn
	heard  atomic.Int64 // ns since start
	start  time.Time
	header []byte // a data header whose body is to come; the one writer's
	joined []byte
	unread *unread
	end    context.CancelCauseFunc // of the session
}

func newLink(conn net.Conn, dialled bool, end context.CancelCauseFunc) *link {
	return &link{Conn: conn, end: end, start: time.Now(), joined: make([]byte, 0, muxHeader+chunk), unread: &unread{dialled: dialled, streams: map[uint32]*unreadStream{}}}
}

func (l *link) Read(b []byte) (int, error) {
	n, err := l.Conn.Read(b)
	if n > 0 {
		l.heard.Store(int64(time.Since(l.start)))
		if err := l.unread.arrived(b[:n]); err != nil {
			l.end(err)
			return n, err
		}
	}
	return n, err
}

func (l *link) Write(b []byte) (int, error) {
	if l.header == nil && isDataHeader(b) {
		l.header = append(l.joined[:0], b...)
		return len(b), nil
	}
	if l.header == nil {
		return l.Conn.Write(b)
	}
	whole := append(l.header, b...)
	l.header = nil
	n, err := l.Conn.Write(whole)
	return max(0, n-muxHeader), err
}

// limitUnsent keeps what a stream has written from filling the system's buffer, megabytes
// on a slow way, in front of what other streams write a moment later (tcp(7) of Linux
// calls it TCP_NOTSENT_LOWAT).
func limitUnsent(conn net.Conn) {
	c, ok := conn.(syscall.Conn)
	if !ok {
		return
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return // the connection is gone, and the next write says so
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, mostUnsent)
	})
}

// isDataHeader recognises a yamux header of type data with a body (spec.md of yamux:
// version, type, flags, stream id, length).
func isDataHeader(b []byte) bool {
	return len(b) == muxHeader && b[0] == 0 && b[1] == 0 && b[8]|b[9]|b[10]|b[11] != 0
}

// silence is how long nothing has arrived.
func (l *link) silence() time.Duration {
	return time.Since(l.start) - time.Duration(l.heard.Load())
}
