package pg

import (
	"net"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sys/unix"
)

// connected returns both ends of a connection.
func connected(t testing.TB, network string) (near, far net.Conn) {
	t.Helper()
	address := "127.0.0.1:0"
	if network == "unix" {
		address = t.TempDir() + "/s"
	}
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if near, err = net.Dial(network, l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close() })
	if far, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { far.Close() })
	return near, far
}

// TestGatherLeavesTheSocketAsItWas: afterwards a single message is enough to end a
// read, also one that waits, and the socket waits for no more than one byte.
func TestGatherLeavesTheSocketAsItWas(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			near, far := connected(t, network)
			r := newRaw(&pgconn.HijackedConn{Conn: newSocket(near)})
			r.socket.pause()
			read := make(chan error, 1)
			go func() { // it waits before anything is there
				_, _, err := r.Next()
				read <- err
			}()
			if _, err := far.Write([]byte{'Z', 0, 0, 0, 4}); err != nil {
				t.Fatal(err)
			}
			select {
			case err := <-read:
				if err != nil {
					t.Fatal(err)
				}
			case <-time.After(time.Minute):
				t.Fatal("five bytes do not end a read")
			}
			raw, err := near.(syscall.Conn).SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			if err := raw.Control(func(fd uintptr) {
				if n, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVLOWAT); err != nil || n != 1 {
					t.Errorf("the socket waits for %d bytes, %v", n, err)
				}
			}); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestGatherBringsSmallMessagesTogether: what is written one by one while a reader waits
// comes with one read. On a busy machine the writer may be the slower, so one of some
// attempts is enough.
func TestGatherBringsSmallMessagesTogether(t *testing.T) {
	const messages = 50
	best := 0
	for attempt := 0; attempt < 100 && best < messages*5; attempt++ {
		near, far := connected(t, "tcp")
		r := newRaw(&pgconn.HijackedConn{Conn: newSocket(near)})
		r.Gather(true)
		read := make(chan error, 1)
		go func() {
			_, _, err := r.Next()
			read <- err
		}()
		for range messages {
			if _, err := far.Write([]byte{'Z', 0, 0, 0, 4}); err != nil {
				t.Fatal(err)
			}
			runtime.Gosched() // or the reader is not even woken by the first
		}
		if err := <-read; err != nil {
			t.Fatal(err)
		}
		best = max(best, r.socket.last)
	}
	if best != messages*5 {
		t.Errorf("the best read got %d bytes of %d", best, messages*5)
	}
}

// TestReplicationSessionsOfOneMachineHaveANarrowWindow: and no others, for over a way
// of some length they would be slow.
func TestReplicationSessionsOfOneMachineHaveANarrowWindow(t *testing.T) {
	size := func(c net.Conn) (bytes int) {
		raw, err := c.(syscall.Conn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		if err := raw.Control(func(fd uintptr) { bytes, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF) }); err != nil {
			t.Fatal(err)
		}
		return bytes
	}
	for _, network := range []string{"tcp", "unix"} {
		near, _ := connected(t, network)
		before := size(near)
		narrow(near)
		want := before
		if network == "tcp" {
			want = 2 * windowBytes // the kernel doubles it (socket(7))
		}
		if got := size(near); got != want {
			t.Errorf("%s: %d bytes, before %d", network, got, before)
		}
	}
}
