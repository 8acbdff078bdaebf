package door

import (
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// hostsKept is how many hosts a Pace remembers.
const hostsKept = 1024

// Pace bounds how often each host may ask. It is safe for concurrent use.
type Pace struct {
	PerSecond float64 // how often in the long run
	AtOnce    int     // how often at once

	mu    sync.Mutex
	hosts map[netip.Addr]*rate.Limiter
}

// Allow says whether the host of an address, HOST:PORT, may ask at a moment. Hosts whose
// address cannot be read count as one.
func (p *Pace) Allow(address string, now time.Time) bool {
	var host netip.Addr
	if tcp, err := net.ResolveTCPAddr("tcp", address); err == nil {
		host = HostOf(tcp)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	l, known := p.hosts[host]
	if !known {
		if p.hosts == nil || len(p.hosts) >= hostsKept {
			p.hosts = map[netip.Addr]*rate.Limiter{} // forgetting gives everybody a little more
		}
		l = rate.NewLimiter(rate.Limit(p.PerSecond), p.AtOnce)
		p.hosts[host] = l
	}
	return l.AllowN(now, 1)
}
