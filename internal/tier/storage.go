package tier

import "time"

// sample is how much storage was used at a moment.
type sample struct {
	at   time.Time
	used int64
}

// series keeps samples at least some time apart, for some time.
type series struct {
	apart, keep time.Duration
	samples     []sample
}

func (s *series) add(now time.Time, used int64) {
	if n := len(s.samples); n > 0 && now.Sub(s.samples[n-1].at) < s.apart {
		return
	}
	s.samples = append(s.samples, sample{now, used})
	for len(s.samples) > 1 && now.Sub(s.samples[1].at) >= s.keep {
		s.samples = s.samples[1:]
	}
}

// History is how the use of storage went: every half minute for six hours, every quarter of an hour for two weeks,
// some two thousand samples at most. Its zero value is ready. It is not safe for concurrent use.
type History struct{ fine, coarse series }

const (
	fineKeep   = 6 * time.Hour
	coarseKeep = 14 * 24 * time.Hour
)

// Add adds a measurement. Times must not go back; after a clock was set back the history begins anew.
func (h *History) Add(now time.Time, used int64) {
	if n := len(h.fine.samples); n > 0 && now.Before(h.fine.samples[n-1].at) {
		*h = History{}
	}
	h.fine.apart, h.fine.keep = 30*time.Second, fineKeep
	h.coarse.apart, h.coarse.keep = 15*time.Minute, coarseKeep
	h.fine.add(now, used)
	h.coarse.add(now, used)
}

// Forecast is when storage is used up.
type Forecast struct {
	Full   time.Time     // zero where nothing says that it will be soon
	Rate   float64       // bytes a second, over Window; may be negative
	Window time.Duration // 0: too little was seen to say anything
}

// reach is how many times as far as it looks back a forecast looks ahead: ten minutes of a restore say something of the next hour, and
// nothing of next week.
const reach = 4

// Forecast says when what is free is used up, by the straight line through what was seen in several windows, from ten minutes to two
// weeks. The earliest end counts that a window can see. Where none sees one, the rate is that of the longest window.
func (h *History) Forecast(now time.Time, free int64) Forecast {
	var best, longest Forecast
	for _, window := range []time.Duration{10 * time.Minute, time.Hour, fineKeep, 24 * time.Hour, 7 * 24 * time.Hour, coarseKeep} {
		from := h.fine.samples
		if window > fineKeep {
			from = h.coarse.samples
		}
		rate, seen := slope(from, now.Add(-window))
		if seen < window*9/10 {
			continue
		}
		f := Forecast{Rate: rate, Window: window}
		longest = f
		if rate <= 0 {
			continue
		}
		left := time.Duration(min(float64(max(free, 0))/rate, float64(reach*coarseKeep/time.Second)) * float64(time.Second))
		if left > reach*window {
			continue
		}
		if f.Full = now.Add(left); best.Full.IsZero() || f.Full.Before(best.Full) {
			best = f
		}
	}
	if !best.Full.IsZero() {
		return best
	}
	return longest
}

// slope is that of the straight line of least squares through the samples since a moment, and the time between the first and the
// last of them.
func slope(samples []sample, since time.Time) (perSecond float64, seen time.Duration) {
	for len(samples) > 0 && samples[0].at.Before(since) {
		samples = samples[1:]
	}
	if len(samples) < 3 {
		return 0, 0
	}
	first := samples[0]
	var n, x, y, xx, xy float64
	for _, s := range samples {
		dx, dy := s.at.Sub(first.at).Seconds(), float64(s.used-first.used)
		n, x, y, xx, xy = n+1, x+dx, y+dy, xx+dx*dx, xy+dx*dy
	}
	if d := n*xx - x*x; d > 0 {
		perSecond = (n*xy - x*y) / d
	}
	return perSecond, samples[len(samples)-1].at.Sub(first.at)
}
