package tier

import (
	"math"
	"testing"
	"time"
)

// grown is a history of so long, measured every 20 s, of what use says.
func grown(d time.Duration, use func(seconds float64) float64) (*History, time.Time) {
	var h History
	start := time.Date(2026, 11, 30, 0, 0, 0, 0, time.UTC)
	for at := time.Duration(0); at <= d; at += 20 * time.Second {
		h.Add(start.Add(at), int64(use(at.Seconds())))
	}
	return &h, start.Add(d)
}

func TestForecast(t *testing.T) {
	steady := func(rate float64) func(float64) float64 { return func(s float64) float64 { return 10*gB + rate*s } }
	for name, c := range map[string]struct {
		seen time.Duration
		use  func(float64) float64
		free int64
		want time.Duration // 0: not in sight
		rate float64
		back time.Duration // the window; 0: nothing is known
	}{
		"too little seen":               {5 * time.Minute, steady(mB), gB, 0, 0, 0},
		"constant rate":                 {time.Hour, steady(mB), 10 * gB, 10240 * time.Second, mB, time.Hour},
		"a rate seen for ten minutes":   {11 * time.Minute, steady(mB), gB, 1024 * time.Second, mB, 10 * time.Minute},
		"further than it was seen":      {11 * time.Minute, steady(mB), 100 * gB, 0, mB, 10 * time.Minute},
		"nothing grows":                 {2 * time.Hour, steady(0), gB, 0, 0, time.Hour},
		"it shrinks":                    {2 * time.Hour, steady(-1000), gB, 0, -1000, time.Hour},
		"nothing is free":               {time.Hour, steady(mB), 0, 0, mB, 10 * time.Minute},
		"less than nothing is free":     {time.Hour, steady(mB), -5, 0, mB, 10 * time.Minute},
		"slow over days":                {8 * 24 * time.Hour, steady(1000), 1000 * 86400 * 20, 20 * 24 * time.Hour, 1000, 7 * 24 * time.Hour},
		"a burst after days of quiet":   {48 * time.Hour, func(s float64) float64 { return math.Max(0, s-47*3600) * mB }, 3600 * mB, time.Hour, mB, time.Hour},
		"a sawtooth, as of checkpoints": {6 * time.Hour, func(s float64) float64 { return 10*gB + math.Mod(s, 300)*mB }, 100 * gB, 0, 0, 6 * time.Hour},
	} {
		h, now := grown(c.seen, c.use)
		f := h.Forecast(now, c.free)
		left := time.Duration(0)
		if !f.Full.IsZero() {
			left = f.Full.Sub(now)
		}
		if off := (left - c.want).Abs(); off > c.want/20 || f.Window != c.back || math.Abs(f.Rate-c.rate) > math.Max(math.Abs(c.rate)/20, 6000) {
			t.Errorf("%s: full in %s at %.0f bytes a second over %s; want %s, %.0f, %s", name, left, f.Rate, f.Window, c.want, c.rate, c.back)
		}
	}
}

func TestHistoryIsBounded(t *testing.T) {
	h, now := grown(40*24*time.Hour, func(s float64) float64 { return s })
	if n := len(h.fine.samples) + len(h.coarse.samples); n > 2200 {
		t.Errorf("%d samples", n)
	}
	h.Add(now.Add(-time.Hour), 5)
	if f := h.Forecast(now, 1); f.Window != 0 || len(h.fine.samples) != 1 {
		t.Errorf("after the clock went back: %+v", f)
	}
}
