package peer

import (
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/twinspan/twinspan/internal/problem"
)

// crowd keeps many silent connections to an endpoint, and comes back when one is ended,
// until the test ends.
func crowd(t *testing.T, address string, size int) {
	t.Helper()
	var members sync.WaitGroup
	stop := make(chan struct{})
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	for range size {
		members.Go(func() {
			for {
				conn, err := net.Dial("tcp", address)
				mu.Lock()
				select {
				case <-stop:
					mu.Unlock()
					if err == nil {
						conn.Close()
					}
					return
				default:
				}
				if err == nil {
					open[conn] = true
				}
				mu.Unlock()
				if err == nil {
					conn.Read(make([]byte, 1))
					conn.Close()
					mu.Lock()
					delete(open, conn)
					mu.Unlock()
				}
			}
		})
	}
	t.Cleanup(func() {
		mu.Lock()
		close(stop)
		for conn := range open {
			conn.Close()
		}
		mu.Unlock()
		members.Wait()
	})
}

// Idle connections from the very address of a peer keep neither it nor one that is yet to
// be introduced out, however long each may be silent.
func TestCrowdDoesNotKeepPeersApart(t *testing.T) {
	a, b, c := newAgent(t, "a"), newAgent(t, "b"), newAgent(t, "c")
	a.tempo.handshake = patience
	a.know(t, b, "")
	a.start(t)
	crowd(t, a.Addr().String(), maxLobby+maxOfHost+keptPlaces)
	await(t, "the crowd to be turned away", func() bool { return a.Refused() > 0 })
	b.know(t, a, a.Addr().String())
	b.start(t)
	together(t, a, b)
	c.start(t)
	ctx, text := background(t), invite(t, a)
	await(t, "c to be introduced", func() bool { // it may be turned out before its first bytes are there
		_, err := c.Join(ctx, text, JoinOptions{})
		if err != nil && !problem.Retry(err) {
			t.Fatal(err)
		}
		return err == nil
	})
	together(t, a, c)
	await(t, "the log to tell of the crowd", func() bool { return strings.Contains(a.logs.String(), "strangers crowd the endpoint") })
	if n := a.lobby.Inside(); n > maxLobby+keptPlaces {
		t.Errorf("%d connections are in the lobby", n)
	}
}

func TestMeetingsAreBounded(t *testing.T) {
	var m meetings
	for i := range 2 * maxMet {
		m.add(netip4(byte(i>>8), byte(i)))
	}
	if len(m.hosts) != maxMet || m.has(netip4(0, 0)) || !m.has(netip4(1, 255)) {
		t.Errorf("%d addresses are remembered, the first %v, the last %v", len(m.hosts), m.has(netip4(0, 0)), m.has(netip4(1, 255)))
	}
	m.add(netip4(1, 0))
	m.add(netip4(9, 9))
	if !m.has(netip4(1, 0)) || len(m.hosts) != maxMet {
		t.Error("an address that was met again was forgotten")
	}
}

func netip4(x, y byte) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, x, y}) }
