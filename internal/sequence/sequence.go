// Package sequence carries sequences from the primary to its twin. They know no
// transactions and are not decoded from the log, so their state is read again and
// again, and the twin's are kept so far ahead that what was handed out since the
// last look is not handed out again. docs/design/0010-sequences.md says why.
//
// The arithmetic and the deciding are pure (sequence.go, watch.go); read.go,
// set.go and columns.go speak to servers.
package sequence

import (
	"math"

	"github.com/twinspan/twinspan/internal/sqlname"
)

// Definition is what a sequence may hand out (catalog pg_sequence).
type Definition struct {
	Increment int64 `json:"increment"` // not 0; negative for a descending one
	Min       int64 `json:"min"`
	Max       int64 `json:"max"`
	Cache     int64 `json:"cache"` // values that a session takes at once, at least 1
	Cycle     bool  `json:"cycle"`
}

// State is where a sequence stands, as setval takes it.
type State struct {
	Last     int64 `json:"last"`
	IsCalled bool  `json:"isCalled"` // whether Last has been handed out
}

// Sequence is a sequence at a moment.
type Sequence struct {
	Name sqlname.Table `json:"name"`
	Definition
	State
}

// step is the size of the increment.
func (d Definition) step() uint64 {
	if d.Increment < 0 {
		return -uint64(d.Increment)
	}
	return uint64(d.Increment)
}

// between is how far b lies behind a in the direction of the increment, 0 when it
// does not. The distance of any two values fits into 64 bits without a sign.
func (d Definition) between(a, b int64) uint64 {
	if d.Increment < 0 {
		a, b = b, a
	}
	if b <= a {
		return 0
	}
	return uint64(b) - uint64(a)
}

// ends returns the first value of a full cycle and the bound at which it ends.
func (d Definition) ends() (first, bound int64) {
	if d.Increment < 0 {
		return d.Max, d.Min
	}
	return d.Min, d.Max
}

// Left is how many values the sequence hands out before it ends or begins anew.
func (d Definition) Left(s State) uint64 {
	_, bound := d.ends()
	left := d.between(s.Last, bound) / d.step()
	if !s.IsCalled && left < 1<<64-1 {
		left++ // Last itself (sequence.c, nextval_internal)
	}
	return left
}

// round is how many values a cycle has, one less where it would not fit.
func (d Definition) round() uint64 {
	first, bound := d.ends()
	n := d.between(first, bound) / d.step()
	if n < 1<<64-1 {
		n++
	}
	return n
}

// Ahead returns the state after n calls of nextval. One that does not cycle stops
// at its last value.
func (d Definition) Ahead(s State, n uint64) State {
	if n == 0 {
		return s
	}
	left := d.Left(s)
	if n > left && d.Cycle {
		first, _ := d.ends()
		return d.move(first, (n-left-1)%d.round())
	}
	n = min(n, left)
	if n == 0 {
		return s
	}
	if !s.IsCalled {
		n--
	}
	return d.move(s.Last, n)
}

// move returns the state whose last value lies n steps behind a value. The sum is
// taken without a sign, where it wraps to the right value.
func (d Definition) move(from int64, n uint64) State {
	return State{Last: int64(uint64(from) + n*uint64(d.Increment)), IsCalled: true}
}

// Calls is how many calls of nextval lead from one state to another, rounded up;
// false when none do: the other is behind. Of one that cycles everything is
// ahead, and what is more than half a round away counts as behind.
func (d Definition) Calls(from, to State) (uint64, bool) {
	if from == to {
		return 0, true
	}
	if n, ok := d.straight(from, to); ok {
		return n, !d.Cycle || n <= d.round()/2
	}
	if !d.Cycle {
		return 0, false
	}
	first, _ := d.ends()
	rest, ok := d.straight(State{Last: first}, to)
	n := d.Left(from) + rest
	if !ok || n < rest {
		return 0, false
	}
	return n, n <= d.round()/2
}

// straight is Calls without beginning anew.
func (d Definition) straight(from, to State) (uint64, bool) {
	forward := d.between(from.Last, to.Last)
	if forward == 0 && to.Last != from.Last {
		return 0, false
	}
	n := forward / d.step()
	if forward%d.step() != 0 {
		n++ // setval has left the grid
	}
	switch {
	case !from.IsCalled && to.IsCalled && n < 1<<64-1:
		n++
	case from.IsCalled && !to.IsCalled:
		// The value is to be handed out (again).
		if n == 0 {
			return 0, false
		}
		n--
	}
	return n, true
}

// smallest is the least number of values that a twin is kept ahead, for what
// nobody could foresee: a load that begins at full speed right after a look. Some
// clients that draw one value after the other get at tens of thousands a second.
const smallest = 100_000

// logged is how many values the server takes from its log at once and so forgets
// at a crash itself (sequence.c, SEQ_LOG_VALS).
const logged = 32

// Lead is how many values the twin of a sequence is kept ahead: what the fastest
// rate seen lately (values in a second) hands out in the given time, but never
// less than a floor. Near its end a sequence that does not cycle keeps half of
// what is left, unless the rate would use that up; at its end it is 0. One that
// cycles is kept no more than half a round ahead.
func (d Definition) Lead(s State, rate, seconds float64) uint64 {
	used := whole(rate * seconds)
	want := max(min(smallest, d.round()/1000), logged+uint64(max(d.Cache, 1)), used)
	if d.Cycle {
		return min(want, d.round()/2)
	}
	left := d.Left(s)
	return min(want, max(left/2, min(used, left)))
}

// whole rounds a number of values up.
func whole(f float64) uint64 {
	if !(f > 0) {
		return 0
	}
	if f >= 1<<62 {
		return 1 << 62
	}
	return uint64(math.Ceil(f))
}
