package pg

import (
	"net"
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
)

// Gather says whether reads of the socket wait a while first, so that messages gather,
// unless the read before got so many that more are there surely. It is for a reader that
// is behind: all that it delays is found by the read (docs/design/0007-speed.md). The
// runtime's poller, which everything that arrives would wake though nobody reads, is left
// alone meanwhile where the system can do that (SO_RCVLOWAT, on TCP). Only the reader may
// call it.
func (r *Raw) Gather(on bool) { r.gather = on }

// pause lets messages gather.
func (r *Raw) pause() {
	c, ok := r.conn.(syscall.Conn)
	switch network := r.conn.LocalAddr().Network(); {
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
