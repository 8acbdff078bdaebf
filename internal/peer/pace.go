package peer

import (
	"sync"
	"time"
)

const (
	paceBurst = 10          // this many at once,
	paceEvery = time.Second // then one in this time
)

// pace lets few of many through: a token bucket. Its zero value is ready.
type pace struct {
	mu   sync.Mutex
	used float64 // tokens taken and not yet grown again
	last time.Time
}

func (p *pace) allow(now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if passed := now.Sub(p.last); passed > 0 {
		p.used = max(0, p.used-float64(passed)/float64(paceEvery))
		p.last = now
	}
	if p.used > paceBurst-1 {
		return false
	}
	p.used++
	return true
}
