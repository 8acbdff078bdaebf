package sequence

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/twinspan/twinspan/internal/sqlname"
)

// next is nextval as sequence.c has it, one value at a time; false at the end.
func next(d Definition, s State) (State, bool) {
	if !s.IsCalled {
		return State{s.Last, true}, true
	}
	first, bound := d.ends()
	end := d.Increment > 0 && s.Last > bound-d.Increment || d.Increment < 0 && s.Last < bound-d.Increment
	switch {
	case !end:
		return State{s.Last + d.Increment, true}, true
	case d.Cycle:
		return State{first, true}, true
	}
	return s, false
}

// small returns a definition of few values and a state of it.
func small(r *rand.Rand) (Definition, State) {
	d := Definition{Increment: int64(r.IntN(5) + 1), Min: int64(r.IntN(20) - 10), Cache: int64(r.IntN(4) + 1), Cycle: r.IntN(2) == 0}
	d.Max = d.Min + int64(r.IntN(40))
	if r.IntN(2) == 0 {
		d.Increment = -d.Increment
	}
	return d, State{d.Min + r.Int64N(d.Max-d.Min+1), r.IntN(3) > 0}
}

func TestAheadIsManyCallsOfNextval(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		d, s := small(r)
		at, handed := s, uint64(0)
		for n := range uint64(100) {
			if got := d.Ahead(s, n); got != at {
				t.Fatalf("%+v %+v: %d calls lead to %+v, not to %+v", d, s, n, at, got)
			}
			calls, ahead := d.Calls(s, at)
			switch {
			case !d.Cycle && (!ahead || calls != handed):
				t.Fatalf("%+v: from %+v to %+v are %d calls, not %d, %v", d, s, at, handed, calls, ahead)
			case d.Cycle && n <= d.Left(s) && n <= d.round()/2 && s.IsCalled && (!ahead || calls != n):
				t.Fatalf("%+v: from %+v to %+v are %d calls, not %d, %v", d, s, at, n, calls, ahead)
			}
			following, ok := next(d, at)
			if ok {
				handed++
			}
			at = following
		}
		if !d.Cycle {
			if handed > d.Left(s) || handed < min(d.Left(s), 99) {
				t.Fatalf("%+v %+v: %d values are left, not %d", d, s, handed, d.Left(s))
			}
			if before := (State{at.Last, true}); handed > 0 && s.IsCalled {
				if _, ahead := d.Calls(before, s); ahead {
					t.Fatalf("%+v: %+v counts as ahead of %+v", d, s, before)
				}
			}
		}
	}
}

func TestTheEdgesOfIntegersDoNotWrap(t *testing.T) {
	up := Definition{Increment: 1, Min: math.MinInt64, Max: math.MaxInt64, Cache: 1}
	down := Definition{Increment: math.MinInt64, Min: math.MinInt64, Max: math.MaxInt64, Cache: 1}
	for _, c := range []struct {
		d    Definition
		s    State
		n    uint64
		want State
	}{
		{up, State{math.MaxInt64 - 1, true}, 5, State{math.MaxInt64, true}},
		{up, State{math.MinInt64, false}, 1, State{math.MinInt64, true}},
		{up, State{math.MinInt64, true}, math.MaxUint64, State{math.MaxInt64, true}},
		{up, State{-1, true}, 1 << 63, State{math.MaxInt64, true}},
		{down, State{math.MaxInt64, true}, 1, State{-1, true}},
		{down, State{math.MaxInt64, true}, 9, State{-1, true}},
		{down, State{-1, true}, 1, State{-1, true}},
	} {
		if got := c.d.Ahead(c.s, c.n); got != c.want {
			t.Errorf("%+v: %d calls from %+v lead to %+v, want %+v", c.d, c.n, c.s, got, c.want)
		}
	}
	if left := up.Left(State{math.MinInt64, true}); left != math.MaxUint64 {
		t.Errorf("%d values are left of all", left)
	}
	whole := up
	whole.Cycle = true
	if got := whole.Ahead(State{math.MaxInt64, true}, 1); got != (State{math.MinInt64, true}) {
		t.Errorf("a cycle begins anew at %+v", got)
	}
	if _, ahead := whole.Calls(State{math.MaxInt64 - 1, true}, State{math.MinInt64 + 1, true}); !ahead {
		t.Error("behind the turn of a cycle counts as behind")
	}
}

// A twin that keeps every promise and is taken over at any moment hands out
// nothing that the primary did, as long as the rate does not multiply between two
// looks, and has values left where the primary has and is not about to use them.
func TestPromisesHoldUnderAnyLoad(t *testing.T) {
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 3))
		d, s := load(r)
		w := NewWatch()
		now := time.Unix(1e9, 0)
		name := sqlname.Table{Schema: "public", Name: "s"}
		rate := math.Exp(r.Float64() * 14)
		var twin State
		for range 40 {
			promises, _ := w.Observe(now, []Sequence{{name, d, s}})
			for _, p := range promises {
				twin = p.State
			}
			elapsed := time.Duration(200+r.IntN(1300)) * time.Millisecond
			rate = min(rate*(0.9+0.4*r.Float64()), 4e6)
			at := d.Ahead(s, uint64(rate*elapsed.Seconds()))
			if rate*elapsed.Seconds() < smallest/4 && d.Left(s) > 2*smallest || now.After(time.Unix(1e9+3, 0)) {
				if n, ahead := d.Calls(at, twin); !ahead && !d.Cycle {
					t.Fatalf("seed %d: %+v: the primary went from %+v to %+v, the twin stands at %+v (%d)", seed, d, s, at, twin, n)
				}
			}
			if !d.Cycle && d.Left(s) > 1 && d.Left(twin) == 0 && float64(d.Left(s)) > 100*rate {
				t.Fatalf("seed %d: %+v: the twin is at its end, the primary, at %+v, has %d left at %g/s", seed, d, s, d.Left(s), rate)
			}
			if twin.Last > d.Max || twin.Last < d.Min {
				t.Fatalf("seed %d: the twin is past its end: %+v %+v", seed, d, twin)
			}
			s, now = at, now.Add(elapsed)
		}
	}
}

func load(r *rand.Rand) (Definition, State) {
	d := Definition{Increment: int64(r.IntN(10) + 1), Min: 1, Max: math.MaxInt32, Cache: int64(1 + r.IntN(2)*r.IntN(100)), Cycle: r.IntN(4) == 0}
	if r.IntN(2) == 0 {
		d.Max = math.MaxInt64
	}
	s := State{d.Min, false}
	if r.IntN(2) == 0 {
		d.Increment, d.Min, d.Max = -d.Increment, -d.Max, -1
		s.Last = d.Max
	}
	if r.IntN(3) == 0 {
		first, bound := d.ends()
		s = d.Ahead(State{first, true}, d.between(first, bound)/d.step()-uint64(r.IntN(1_000_000)))
	}
	return d, s
}

func TestEndsAreExact(t *testing.T) {
	d := Definition{Increment: 1, Min: 1, Max: 10, Cache: 1}
	for last, want := range map[int64]int64{10: 10, 9: 9, 8: 9, 6: 8} {
		s := State{last, true}
		if got := d.Ahead(s, d.Lead(s, 0, 5)); got.Last != want {
			t.Errorf("a twin of one at %d of 10 is set to %d, want %d", last, got.Last, want)
		}
	}
	// One that is being used up is promised whole: better no value than the same one.
	if s := (State{4, true}); d.Ahead(s, d.Lead(s, 3, 5)).Last != 10 {
		t.Error("a sequence that ends within the horizon leaves values that were handed out")
	}
}

func TestWatchSendsWhatChangedAlone(t *testing.T) {
	d := Definition{Increment: 1, Min: 1, Max: math.MaxInt64, Cache: 1}
	name := sqlname.Table{Schema: "public", Name: "s"}
	w := NewWatch()
	now := time.Unix(1e9, 0)
	look := func(s State) []Promise {
		now = now.Add(time.Second)
		p, _ := w.Observe(now, []Sequence{{name, d, s}})
		return p
	}
	if p := look(State{1, false}); len(p) != 1 || p[0].Last != smallest {
		t.Fatalf("a new sequence: %+v", p)
	}
	sent := 0
	for i := range int64(100) {
		sent += len(look(State{10 * i, true}))
	}
	if sent != 0 {
		t.Errorf("%d promises for a thousand values", sent)
	}
	if p := look(State{5, true}); len(p) != 0 {
		t.Errorf("a little back within the lead: %+v", p)
	}
	if p := look(State{1_000_000_000, true}); len(p) != 1 || p[0].Last < 1_000_000_000+smallest || p[0].Last > 1_000_000_000+2*smallest {
		t.Errorf("a setval far ahead: %+v", p)
	}
	if p := look(State{1, false}); len(p) != 1 || p[0].Last != smallest {
		t.Errorf("a restart: %+v", p)
	}
	look(State{1_000_000, true})
	if p := w.All()[0]; p.Last < 1_000_000+3_000_000 {
		t.Errorf("a million a second is promised as %+v", p)
	}
	for range 1200 {
		look(State{1_000_000, true})
	}
	if p := w.All()[0]; p.Last > 1_000_000+5*smallest {
		t.Errorf("twenty quiet minutes later the promise is still %+v", p)
	}
	d.Increment = -1
	if p := look(State{1_000_000, true}); len(p) != 1 || p[0].Last != 1_000_000-smallest {
		t.Errorf("the direction was changed: %+v", p)
	}
}

// One that stood at its end and was set back has values again on both sides.
func TestAnEndThatIsLeftIsLeftByTheTwin(t *testing.T) {
	s := Sequence{Definition: Definition{Increment: 1, Min: 1, Max: 10, Cache: 1}, State: State{10, true}}
	w, now := NewWatch(), time.Unix(1e9, 0)
	w.Observe(now, []Sequence{s})
	s.Last = 2
	if p, _ := w.Observe(now.Add(time.Second), []Sequence{s}); len(p) != 1 || p[0].Last != 6 {
		t.Errorf("promised is %+v", p)
	}
}

func TestExtendKeepsHalf(t *testing.T) {
	d := Definition{Increment: 1, Min: 1, Max: 1000, Cache: 1}
	p := Promise{Sequence{Definition: d, State: State{100, true}}, 10}
	if got := p.Extend(time.Minute).Last; got != 100+450 {
		t.Errorf("extended to %d", got)
	}
	if got := p.Extend(time.Second).Last; got != 110 {
		t.Errorf("extended to %d", got)
	}
}
