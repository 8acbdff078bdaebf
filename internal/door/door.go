// Package door decides which connections of strangers are let in when there are
// more of them than places: one address cannot take all, those who have said
// nothing make room for those who come, and some places are kept for addresses of
// known peers.
package door

import (
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Door counts visitors: connections that have not proved yet who they are. Set the
// fields before the first call of Admit; its methods are safe for concurrent use.
type Door struct {
	Places  int // for all visitors together
	PerHost int // for those of one host
	// Kept places are for hosts that Known says true of, beyond the two limits.
	Kept  int
	Known func(host netip.Addr) bool
	// Grace is how long a visitor that has said something is not turned out.
	Grace time.Duration

	mu      sync.Mutex
	in      []*Visitor // oldest first
	refused uint64
}

// Visitor is one connection behind the door.
type Visitor struct {
	door    *Door
	host    netip.Addr
	known   bool
	since   time.Time
	spoke   bool // guarded by door.mu
	speaks  func() bool
	turnOut func()
}

// HostOf returns the host of a connection's other side, as the door counts it: an
// IPv4 address, or the /64 network of an IPv6 one, which is what one machine has.
// Addresses that are none of these are one host.
func HostOf(address net.Addr) netip.Addr {
	tcp, ok := address.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	return host(tcp.AddrPort().Addr())
}

func host(ip netip.Addr) netip.Addr {
	ip = ip.Unmap().WithZone("")
	if ip.Is6() {
		if network, err := ip.Prefix(64); err == nil {
			return network.Addr()
		}
	}
	return ip
}

// Admit lets a visitor in, or not. Where there is no place, the oldest visitor that
// has said nothing is turned out for it (of the same host where that has too many),
// or the oldest of all that is older than Grace. speaks, which may be nil, is asked
// before a visitor that has said nothing is turned out, and says whether it has after
// all; turnOut must end its connection. Both must return at once.
func (d *Door) Admit(address netip.Addr, now time.Time, speaks func() bool, turnOut func()) (*Visitor, bool) {
	v := &Visitor{door: d, host: host(address), since: now, speaks: speaks, turnOut: turnOut}
	v.known = d.Known != nil && d.Known(v.host)
	d.mu.Lock()
	out, ok := d.makeRoomLocked(v, now)
	if ok {
		d.in = append(d.in, v)
	} else {
		d.refused++
	}
	d.mu.Unlock()
	if out != nil {
		out.turnOut()
	}
	return v, ok
}

// makeRoomLocked turns out one visitor at most: the limits held before.
func (d *Door) makeRoomLocked(v *Visitor, now time.Time) (out *Visitor, ok bool) {
	ofHost, strangers := 0, 0
	for _, other := range d.in {
		if other.host == v.host {
			ofHost++
		}
		if !other.known {
			strangers++
		}
	}
	most := d.PerHost
	if v.known {
		most += d.Kept
	}
	var candidate func(*Visitor) bool
	switch {
	case ofHost >= most:
		candidate = func(other *Visitor) bool { return other.host == v.host }
	case len(d.in) >= d.Places+d.Kept, !v.known && strangers >= d.Places:
		candidate = func(other *Visitor) bool { return v.known || !other.known }
	default:
		return nil, true
	}
	victim := -1
	for i, other := range d.in {
		if !candidate(other) {
			continue
		}
		if !other.spoke && other.speaks != nil && other.speaks() {
			other.spoke = true
		}
		if !other.spoke {
			victim = i
			break
		}
		if victim < 0 && now.Sub(other.since) > d.Grace {
			victim = i
		}
	}
	if victim < 0 {
		return nil, false
	}
	out = d.in[victim]
	d.in = append(d.in[:victim], d.in[victim+1:]...)
	d.refused++
	return out, true
}

// Refused returns how many visitors were refused or turned out.
func (d *Door) Refused() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.refused
}

// Inside returns how many visitors there are.
func (d *Door) Inside() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.in)
}

// Spoke notes that the visitor has said something.
func (v *Visitor) Spoke() {
	v.door.mu.Lock()
	defer v.door.mu.Unlock()
	v.spoke = true
}

// Leave gives the place back: the visitor is gone, or has proved who it is. It may be
// called more than once.
func (v *Visitor) Leave() {
	v.door.mu.Lock()
	defer v.door.mu.Unlock()
	for i, other := range v.door.in {
		if other == v {
			v.door.in = append(v.door.in[:i], v.door.in[i+1:]...)
			return
		}
	}
}

// Conn is a connection that tells its visitor when the other side has spoken, and
// that its place is free when it is closed.
type Conn struct {
	*net.TCPConn
	Visitor *Visitor
	once    sync.Once
}

// Conn asks for a place for a connection, which is closed when there is none
// and when it is turned out.
func (d *Door) Conn(raw *net.TCPConn, now time.Time) (*Conn, bool) {
	c := &Conn{TCPConn: raw}
	v, ok := d.Admit(HostOf(raw.RemoteAddr()), now, c.speaks, func() { raw.Close() })
	if !ok {
		raw.Close()
		return nil, false
	}
	c.Visitor = v
	return c, true
}

// speaks says whether bytes have come that nobody has read yet.
func (c *Conn) speaks() bool {
	raw, err := c.TCPConn.SyscallConn()
	if err != nil {
		return false
	}
	come := false
	err = raw.Control(func(fd uintptr) {
		n, _, err := unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
		come = err == nil && n > 0
	})
	return err == nil && come
}

// Read implements net.Conn.
func (c *Conn) Read(b []byte) (int, error) {
	n, err := c.TCPConn.Read(b)
	if n > 0 {
		c.once.Do(c.Visitor.Spoke)
	}
	return n, err
}

// Close implements net.Conn.
func (c *Conn) Close() error {
	c.Visitor.Leave()
	return c.TCPConn.Close()
}
