package audit

import "time"

const (
	// share is the part of its time for which a session of each side works at the default
	// rate, most the part at any: what rows cost depends on how narrow they are, and a
	// server is not there for the audit. A higher rate gives it more.
	share = 0.025
	most  = 0.5
)

// Pace spreads reading over time.
type Pace struct {
	Rate int64 // bytes in a second

	free  time.Time // when the next piece may begin
	bytes int64     // that were read
	spent time.Duration
}

// Took notes that a piece was read that took a time, and says how long to wait before the
// next: as long as its bytes take at the rate, and so long that the session has worked for
// no more than its share.
func (p *Pace) Took(now time.Time, bytes int64, worked time.Duration) time.Duration {
	if p.free.Before(now.Add(-worked)) {
		p.free = now.Add(-worked)
	}
	p.free = p.free.Add(Takes(bytes, p.Rate))
	part := min(most, share*float64(p.Rate)/DefaultRate)
	wait := max(p.free.Sub(now), time.Duration(float64(worked)*(1/part-1)))
	p.bytes += bytes
	p.spent += worked + wait
	return wait
}

// Speed is how fast it reads in fact, bytes a second; 0 while too little was read to say.
func (p *Pace) Speed() int64 {
	if p.bytes < 2*PieceBytes || p.spent <= 0 {
		return 0
	}
	return int64(float64(p.bytes) / p.spent.Seconds())
}
