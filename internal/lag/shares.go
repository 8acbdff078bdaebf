package lag

import (
	"time"

	"github.com/twinspan/twinspan/api"
)

// sharesSpan is of how many seconds the parts are.
const sharesSpan = 5 * time.Second

// Shares turns durations that grow into their parts of the last seconds.
type Shares struct {
	points []sharePoint
}

type sharePoint struct {
	at    time.Time
	spent [2]time.Duration
}

// Per takes the durations of now and returns the part of each, from 0 to 1. Durations
// that fell (a new stream) start anew.
func (s *Shares) Per(now time.Time, spent ...time.Duration) (parts [2]float64) {
	p := sharePoint{at: now}
	copy(p.spent[:], spent)
	n := len(s.points)
	if n > 0 && (p.spent[0] < s.points[n-1].spent[0] || p.spent[1] < s.points[n-1].spent[1]) {
		s.points, n = nil, 0
	}
	if n == 0 || now.Sub(s.points[n-1].at) >= 500*time.Millisecond {
		s.points = append(s.points, p)
	}
	for len(s.points) > 1 && now.Sub(s.points[1].at) >= sharesSpan {
		s.points = s.points[1:]
	}
	first := s.points[0]
	span := now.Sub(first.at).Seconds()
	if span <= 0 {
		return parts
	}
	for i := range parts {
		parts[i] = min(1, (p.spent[i]-first.spent[i]).Seconds()/span)
	}
	return parts
}

// TimeShares says where a stream's time goes: waiting and committing are the applier's
// parts, handing is how much of its time the primary's agent was held up by the way to
// the secondary. While the applier waits for an agent that is held up, it waits for the
// network; the rest of its waiting is for the primary.
func TimeShares(waiting, committing, handing float64) *api.TimeShares {
	network := min(waiting, handing)
	return &api.TimeShares{
		Source: waiting - network, Network: network, Committing: min(committing, 1-waiting), Applying: max(0, 1-waiting-committing),
	}
}
