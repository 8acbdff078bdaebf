package audit

import "time"

// Pace spreads reading over time. Its Rate may be changed at any time.
type Pace struct {
	Rate int64 // bytes in a second

	free time.Time // when the next piece may begin
}

// Took notes that a piece was read that took a time, and says how long to wait before the
// next: so long as its bytes take at the rate. A side that is itself slower than that is
// left in peace for as long as it worked: the work is not what its server is there for.
func (p *Pace) Took(now time.Time, bytes int64, worked time.Duration) time.Duration {
	if p.free.Before(now.Add(-worked)) {
		p.free = now.Add(-worked)
	}
	p.free = p.free.Add(Takes(bytes, p.Rate))
	return max(p.free.Sub(now), worked)
}
