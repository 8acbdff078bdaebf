package peer

import (
	"sync"
	"time"
)

// clockSamples is how many heartbeats the clock's difference is chosen from.
const clockSamples = 16

// clock measures round trip and clock difference of a session with its heartbeats.
type clock struct {
	mu         sync.Mutex
	seq        uint64
	sent       time.Time // of the ping with number seq, zero when it was answered
	roundTrip  time.Duration
	difference time.Duration
	samples    []clockSample // the latest, oldest first
}

type clockSample struct{ roundTrip, difference time.Duration }

// start takes the first estimate from the hello: right but for the way here.
func (c *clock) start(theirs int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.difference = time.Until(time.Unix(0, theirs))
}

// ping returns the number of the next ping. While one is unanswered it is repeated, and
// the time of the first counts.
func (c *clock) ping() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sent.IsZero() {
		c.seq++
		c.sent = time.Now()
	}
	return c.seq
}

// pong takes an answer. The difference comes from the quickest of the latest answers,
// as NTP does it (RFC 5905, 10): the less time on the way, the less of it can be uneven.
func (c *clock) pong(seq uint64, theirs int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if seq != c.seq || c.sent.IsZero() {
		return
	}
	now := time.Now()
	s := clockSample{roundTrip: now.Sub(c.sent)}
	s.difference = time.Unix(0, theirs).Sub(now) + s.roundTrip/2
	c.sent = time.Time{}
	if c.roundTrip == 0 {
		c.roundTrip = s.roundTrip
	}
	c.roundTrip += (s.roundTrip - c.roundTrip) / 8
	if len(c.samples) == clockSamples {
		c.samples = append(c.samples[:0], c.samples[1:]...)
	}
	c.samples = append(c.samples, s)
	best := c.samples[0]
	for _, other := range c.samples[1:] {
		if other.roundTrip <= best.roundTrip {
			best = other
		}
	}
	c.difference = best.difference
}

func (c *clock) read() (roundTrip, difference time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.roundTrip, c.difference
}
