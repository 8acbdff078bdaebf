package pg

import (
	"context"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// gatherTime is how long messages gather in a TCP connection. The walsender makes
	// one write of each message and spends two to three times as much where each of
	// them wakes a reader; below 5 ms that is the case again and again.
	gatherTime = 10 * time.Millisecond
	// gatherUnixTime is the same for a Unix socket, which holds some hundred messages
	// and then makes the walsender wait.
	gatherUnixTime = 200 * time.Microsecond
	// gatherBytes is what a read must have got for the next to follow at once: so much
	// that more is likely to be there.
	gatherBytes = 8 << 10
	// gatherAwake is what must arrive in a pause before the system says that there is
	// something to read: more than does.
	gatherAwake = 128 << 10
	// windowBytes is the receive buffer of a replication session with a server on the
	// same machine. Linux sends each of the walsender's writes as a segment of its own
	// while the receiver has room for it, and adds it to what waits when not, which costs
	// a third as much; so there must be little room while nobody reads. The window that
	// the kernel finds by itself lets up to some thousand through in each pause.
	windowBytes = 32 << 10
	// recordsBuffer is how much of a TLS connection is read from its socket at once.
	// crypto/tls itself reads one record, or half a kilobyte more than its head.
	recordsBuffer = 128 << 10
)

// errNothingRead is what a socket that shall not wait answers when nothing is left of
// what was read. crypto/tls takes it for the end of a deadline: it keeps the part of a
// record that it has, and goes on at the next read.
var errNothingRead = os.ErrDeadlineExceeded

// socket is a session's connection to its server below TLS, if there is TLS. Reads can
// gather here, where what comes is bytes: above, each read gives one record, and the
// server makes a record of each message. Reads are for one goroutine at a time.
type socket struct {
	net.Conn

	gather bool   // reads wait for more to arrive
	last   int    // bytes that the last read got
	pause  func() // lets messages gather
	stays  bool   // reads take what was read before, and do not wait for more
	buf    []byte // of a TLS connection: what was read
	unread [2]int // the part of buf that was not taken

	dialled time.Time
	// answered is set once the server has said something, and then forgotten; nil for nobody who asks.
	answered *atomic.Bool
	closed   func() // is told that the connection was closed; nil for nobody
}

// dialSocket makes a connection function's connections sockets.
func dialSocket(dial func(ctx context.Context, network, address string) (net.Conn, error)) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return newSocket(conn), nil
	}
}

func newSocket(conn net.Conn) *socket {
	s := &socket{Conn: conn, dialled: time.Now()}
	s.pause = s.wait
	return s
}

// Close implements net.Conn.
func (s *socket) Close() error {
	if s.closed != nil {
		s.closed()
	}
	return s.Conn.Close()
}

// Read implements net.Conn.
func (s *socket) Read(p []byte) (int, error) {
	if n := s.take(p); n > 0 {
		return n, nil
	}
	if s.stays {
		return 0, errNothingRead
	}
	if s.gather && s.last < gatherBytes {
		s.pause()
	}
	if s.buf == nil {
		n, err := s.Conn.Read(p)
		s.last = n
		if s.answered != nil && n > 0 {
			s.answered.Store(true)
			s.answered = nil
		}
		return n, err
	}
	n, err := s.Conn.Read(s.buf)
	s.last, s.unread = n, [2]int{0, n}
	if n > 0 {
		// An error comes again with the next read.
		return s.take(p), nil
	}
	return 0, err
}

// take gives what was read before.
func (s *socket) take(p []byte) int {
	n := copy(p, s.buf[s.unread[0]:s.unread[1]])
	s.unread[0] += n
	return n
}

// wait lets messages gather. The runtime's poller, which everything that arrives would
// wake though nobody reads, is left alone meanwhile where the system can do that
// (SO_RCVLOWAT, on TCP).
func (s *socket) wait() {
	c, ok := s.Conn.(syscall.Conn)
	switch network := s.LocalAddr().Network(); {
	case network == "unix":
		// The runtime's timers are no finer than a millisecond where a processor idles.
		pause := unix.NsecToTimespec(int64(gatherUnixTime))
		_ = unix.Nanosleep(&pause, nil) // a signal may shorten it
	case network == "tcp" && ok:
		awake(c, gatherAwake)
		time.Sleep(gatherTime)
		awake(c, 1)
	default:
		time.Sleep(gatherTime)
	}
}

// narrow gives a connection with a server on the same machine a small receive buffer.
// Elsewhere the window has to cover the way there and back.
func narrow(c net.Conn) {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return
	}
	local, remote := tcp.LocalAddr().(*net.TCPAddr), tcp.RemoteAddr().(*net.TCPAddr)
	if local.IP.Equal(remote.IP) {
		_ = tcp.SetReadBuffer(windowBytes) // it is only dearer without
	}
}

// awake sets the number of bytes from which on a socket is ready to be read.
func awake(c syscall.Conn, bytes int) {
	raw, err := c.SyscallConn()
	if err != nil {
		return // the connection is gone, and the next read says so
	}
	_ = raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVLOWAT, bytes) })
}
