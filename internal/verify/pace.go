package verify

import (
	"sync"
	"time"
)

// pace spreads reading over time. A rate of 0 is no limit.
type pace struct {
	rate int64 // bytes in a second

	mu   sync.Mutex
	free time.Time // when the next piece may begin
}

// reserve says how long to wait, from now, before a piece of so many bytes is
// read. Pieces reserved by several goroutines follow each other.
func (p *pace) reserve(now time.Time, bytes int64) time.Duration {
	if p.rate <= 0 {
		return 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.free.Before(now) {
		p.free = now
	}
	wait := p.free.Sub(now)
	p.free = p.free.Add(time.Duration(float64(bytes) / float64(p.rate) * float64(time.Second)))
	return wait
}
