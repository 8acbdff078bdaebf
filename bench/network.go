package main

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	slowDelay = 20 * time.Millisecond // each way
	slowRate  = 50_000_000 / 8        // bytes a second, each way
)

// network is a slow way to an address: it delays and limits what passes, and counts it.
type network struct {
	listener net.Listener
	to       string
	forth    direction
	back     direction
	done     sync.WaitGroup

	mu    sync.Mutex
	open  []net.Conn
	ended bool
}

// direction is one way of a network, shared by all connections.
type direction struct {
	bytes atomic.Int64

	mu   sync.Mutex
	free time.Time // when what was taken will have been sent
}

// newNetwork listens on a host for connections to an address.
func newNetwork(host, to string) (*network, error) {
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return nil, err
	}
	n := &network{listener: l, to: to}
	n.done.Go(n.accept)
	return n, nil
}

func (n *network) address() string { return n.listener.Addr().String() }

// passed is how many bytes went either way until now.
func (n *network) passed() int64 { return n.forth.bytes.Load() + n.back.bytes.Load() }

// close ends every connection.
func (n *network) close() {
	n.listener.Close()
	n.mu.Lock()
	n.ended = true
	for _, c := range n.open {
		c.Close()
	}
	n.mu.Unlock()
	n.done.Wait()
}

// keep notes a connection, to be closed with the network.
func (n *network) keep(c net.Conn) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ended {
		c.Close()
		return false
	}
	n.open = append(n.open, c)
	return true
}

func (n *network) accept() {
	for {
		near, err := n.listener.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", n.to)
		if err != nil {
			near.Close()
			continue
		}
		if !n.keep(near) || !n.keep(far) {
			return
		}
		n.done.Go(func() { n.forth.carry(far, near) })
		n.done.Go(func() { n.back.carry(near, far) })
	}
}

// parcel is what was read at once, and when it arrives.
type parcel struct {
	bytes []byte
	due   time.Time
}

// carry moves what one end sends to the other until either is gone.
func (d *direction) carry(to, from net.Conn) {
	defer to.Close()
	defer from.Close()
	parcels := make(chan parcel, 64) // a megabyte under way at most
	arrived := make(chan struct{})
	go func() {
		defer close(arrived)
		for p := range parcels {
			time.Sleep(time.Until(p.due))
			if _, err := to.Write(p.bytes); err != nil {
				from.Close()
			}
		}
	}()
	for {
		b := make([]byte, 16<<10)
		k, err := from.Read(b)
		if k > 0 {
			parcels <- parcel{b[:k], d.send(k).Add(slowDelay)}
		}
		if err != nil {
			break
		}
	}
	close(parcels)
	<-arrived
}

// send takes the time that bytes need and returns when they will have been sent.
func (d *direction) send(bytes int) time.Time {
	d.bytes.Add(int64(bytes))
	d.mu.Lock()
	defer d.mu.Unlock()
	if now := time.Now(); d.free.Before(now) {
		d.free = now
	}
	d.free = d.free.Add(time.Duration(bytes) * time.Second / slowRate)
	return d.free
}

// outside is an address of this machine that is not the loopback's: agents do not
// compress what stays on a machine.
func outside() (string, error) {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return "", err
	}
	for _, a := range list {
		if ip, ok := a.(*net.IPNet); ok && ip.IP.To4() != nil && !ip.IP.IsLoopback() {
			return ip.IP.String(), nil
		}
	}
	return "", errors.New("the machine has no address besides the loopback's")
}
