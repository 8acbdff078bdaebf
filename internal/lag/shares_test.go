package lag

import (
	"math"
	"testing"
	"time"

	"github.com/twinspan/twinspan/api"
)

func TestSharesAreOfTheLastSeconds(t *testing.T) {
	var s Shares
	now := time.Unix(1000, 0)
	var spent [2]time.Duration
	step := func(a, b float64) [2]float64 {
		now = now.Add(time.Second)
		spent[0] += time.Duration(a * float64(time.Second))
		spent[1] += time.Duration(b * float64(time.Second))
		return s.Per(now, spent[:]...)
	}
	step(0, 0)
	for range 20 {
		step(0.9, 0)
	}
	var got [2]float64
	for range 10 {
		got = step(0.25, 0.5)
	}
	if math.Abs(got[0]-0.25) > 0.01 || math.Abs(got[1]-0.5) > 0.01 {
		t.Errorf("got %v of 0.25 and 0.5", got)
	}
	spent = [2]time.Duration{}
	step(0, 0)
	if got = step(1, 0); got[0] != 1 || got[1] != 0 {
		t.Errorf("a new stream's Shares are %v", got)
	}
}

func TestTimeGoesToWhoIsWaitedFor(t *testing.T) {
	for _, c := range []struct {
		name                         string
		waiting, committing, handing float64
		want                         api.TimeShares
	}{
		{"nothing to do", 1, 0, 0, api.TimeShares{Source: 1}},
		{"a slow network", 0.75, 0, 0.9, api.TimeShares{Network: 0.75, Applying: 0.25}},
		{"a slow secondary holds the primary up", 0, 0.25, 1, api.TimeShares{Applying: 0.75, Committing: 0.25}},
		{"decoding is the limit", 0.5, 0, 0.125, api.TimeShares{Source: 0.375, Network: 0.125, Applying: 0.5}},
		{"clocks that do not fit", 0.75, 0.5, 0, api.TimeShares{Source: 0.75, Committing: 0.25}},
	} {
		if got := *TimeShares(c.waiting, c.committing, c.handing); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}
