package door

import (
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"
	"time"
)

var (
	start   = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	crowd   = netip.MustParseAddr("198.51.100.7")
	friend  = netip.MustParseAddr("192.0.2.1")
	another = netip.MustParseAddr("203.0.113.9")
)

func newDoor() *Door {
	return &Door{Places: 8, PerHost: 4, Kept: 2, Grace: 3 * time.Second, Known: func(a netip.Addr) bool { return a == friend }}
}

// enter admits a visitor that must be let in, or must not.
func enter(t *testing.T, d *Door, from netip.Addr, now time.Time, want bool) (v *Visitor, out *bool) {
	t.Helper()
	out = new(bool)
	v, ok := d.Admit(from, now, nil, func() { *out = true })
	if ok != want {
		t.Fatalf("%s: let in: %v, want %v", from, ok, want)
	}
	return v, out
}

func TestOneHostCannotTakeAllPlaces(t *testing.T) {
	d := newDoor()
	var first *bool
	for i := range 4 {
		v, out := enter(t, d, crowd, start, true)
		v.Spoke()
		if i == 0 {
			first = out
		}
	}
	enter(t, d, crowd, start.Add(time.Second), false)
	enter(t, d, another, start, true)
	if d.Refused() != 1 || d.Inside() != 5 || *first {
		t.Errorf("refused %d, inside %d, first turned out %v", d.Refused(), d.Inside(), *first)
	}
	// Beyond their grace they make room, the oldest first.
	enter(t, d, crowd, start.Add(4*time.Second), true)
	if !*first || d.Inside() != 5 || d.Refused() != 2 {
		t.Errorf("refused %d, inside %d, first turned out %v", d.Refused(), d.Inside(), *first)
	}
}

func TestWhoSaysNothingMakesRoom(t *testing.T) {
	d := newDoor()
	talker, talked := enter(t, d, crowd, start, true)
	talker.Spoke()
	_, silent := enter(t, d, crowd, start, true)
	for range 6 {
		enter(t, d, crowd, start, true)
	}
	if *talked || !*silent {
		t.Errorf("turned out: the talker %v, the silent one %v", *talked, *silent)
	}
	if d.Inside() != 4 {
		t.Errorf("%d inside", d.Inside())
	}
}

func TestPlacesAreKeptForKnownHosts(t *testing.T) {
	d := newDoor()
	for i := range 20 {
		from := netip.AddrFrom4([4]byte{198, 51, 100, byte(i)})
		v, ok := d.Admit(from, start, nil, func() {})
		if ok != (i < 8) {
			t.Fatalf("stranger %d: let in: %v", i, ok)
		}
		if ok {
			v.Spoke()
		}
	}
	enter(t, d, another, start, false)
	for range 2 {
		v, _ := enter(t, d, friend, start, true)
		v.Spoke()
	}
	if d.Inside() != 10 {
		t.Errorf("%d inside", d.Inside())
	}
}

func TestLeavingGivesThePlaceBack(t *testing.T) {
	d := newDoor()
	v, _ := enter(t, d, crowd, start, true)
	v.Leave()
	v.Leave()
	if d.Inside() != 0 {
		t.Errorf("%d inside", d.Inside())
	}
}

func TestHostOf(t *testing.T) {
	for text, want := range map[string]string{
		"192.0.2.1:80": "192.0.2.1", "[::ffff:192.0.2.1]:80": "192.0.2.1", "[2001:db8:1:2:3:4:5:6]:80": "2001:db8:1:2::", "[fe80::1%lo]:80": "fe80::",
	} {
		a := netip.MustParseAddrPort(text)
		if got := HostOf(net.TCPAddrFromAddrPort(a)); got.String() != want {
			t.Errorf("%s is %s, want %s", text, got, want)
		}
	}
	if HostOf(&net.UnixAddr{}) != (netip.Addr{}) {
		t.Error("a socket has a host")
	}
}

// The limits hold whatever comes and goes, and a known host that says something is
// always let in while strangers alone crowd the door.
func TestLimitsHold(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	d := newDoor()
	now := start
	type inside struct {
		v    *Visitor
		host netip.Addr
		out  *bool
	}
	var list []inside
	for step := range 20_000 {
		now = now.Add(time.Duration(r.IntN(500)) * time.Millisecond)
		switch r.IntN(4) {
		case 0, 1:
			host := netip.AddrFrom4([4]byte{10, 0, 0, byte(r.IntN(12))})
			if r.IntN(8) == 0 {
				host = friend
			}
			out := new(bool)
			if v, ok := d.Admit(host, now, nil, func() { *out = true }); ok {
				list = append(list, inside{v, host, out})
			}
		case 2:
			if len(list) > 0 {
				list[r.IntN(len(list))].v.Spoke()
			}
		case 3:
			if len(list) > 0 {
				list[r.IntN(len(list))].v.Leave()
			}
		}
		hosts, strangers := map[netip.Addr]int{}, 0
		for _, v := range d.in {
			hosts[v.host]++
			if !v.known {
				strangers++
			}
		}
		for host, n := range hosts {
			most := 4
			if host == friend {
				most = 6
			}
			if n > most {
				t.Fatalf("step %d: %d of %s", step, n, host)
			}
		}
		if strangers > 8 || len(d.in) > 10 {
			t.Fatalf("step %d: %d strangers, %d in all", step, strangers, len(d.in))
		}
	}
}
