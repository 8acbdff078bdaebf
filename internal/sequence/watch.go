package sequence

import (
	"math"
	"time"

	"github.com/twinspan/twinspan/internal/sqlname"
)

const (
	// horizon is the time for which a lead suffices at the fastest rate seen lately:
	// a look, the way to the secondary and the setting, all of them late.
	horizon = 5 * time.Second
	// halfLife is the time in which a rate that is not reached again counts half.
	halfLife = time.Minute
	// impossible is a rate, in values a second, that no server hands out: it is a
	// setval. One session takes a few million.
	impossible = 5e6
	// forgotten is how long a sequence that is not seen any more is remembered. One
	// that is locked is not seen for a while.
	forgotten = 10 * time.Minute
)

// Promise is what a twin's sequence has to hold so that it does not hand out what
// the primary's has handed out.
type Promise struct {
	Sequence
	Rate float64 `json:"rate"` // the fastest lately, in values a second
}

// Watch decides how far ahead the twin's sequences have to be. It has no clock and
// does no I/O; it is for one goroutine at a time.
type Watch struct {
	seen map[sqlname.Table]*watched
}

type watched struct {
	now     Sequence
	at      time.Time
	rate    float64
	promise State
}

// NewWatch returns one that has seen nothing.
func NewWatch() *Watch { return &Watch{seen: map[sqlname.Table]*watched{}} }

// Idle says that nothing has to be read while the server has logged nothing since:
// a server hands out no more than a few dozen values without a word in its log,
// and every promise is further ahead than that.
func (w *Watch) Idle() bool {
	for _, k := range w.seen {
		have, ahead := k.now.Calls(k.now.State, k.promise)
		if left := k.now.Left(k.now.State); left > 0 && (!ahead || have < logged+uint64(k.now.Cache)) {
			return false
		}
	}
	return true
}

// Observe takes what all sequences were at a moment and returns the promises that
// are new: few, for a promise stays until half of its lead is used, or it is far
// too much, or the primary's sequence was set back. Hurried says that some
// sequence used up so much of its lead that the next look should come soon.
func (w *Watch) Observe(now time.Time, list []Sequence) (changed []Promise, hurried bool) {
	for _, s := range list {
		known := w.seen[s.Name]
		if known == nil {
			known = &watched{now: s, at: now}
			w.seen[s.Name] = known
			known.promise = s.Ahead(s.State, s.Lead(s.State, 0, 0))
			changed = append(changed, known.out())
			continue
		}
		renewed, fast := known.observe(now, s)
		hurried = hurried || fast
		if renewed {
			changed = append(changed, known.out())
		}
	}
	for name, known := range w.seen {
		if now.Sub(known.at) > forgotten {
			delete(w.seen, name)
		}
	}
	return changed, hurried
}

// All returns every promise as it stands.
func (w *Watch) All() []Promise {
	all := make([]Promise, 0, len(w.seen))
	for _, known := range w.seen {
		all = append(all, known.out())
	}
	return all
}

func (k *watched) out() Promise {
	p := Promise{Sequence: k.now, Rate: k.rate}
	p.State = k.promise
	return p
}

// observe takes the sequence's next state. renewed says that the promise changed.
func (k *watched) observe(now time.Time, s Sequence) (renewed, hurried bool) {
	elapsed := now.Sub(k.at).Seconds()
	calls, forward := k.now.Calls(k.now.State, s.State)
	same := k.now.Definition == s.Definition
	if elapsed > 0 {
		k.rate *= math.Exp2(-elapsed / halfLife.Seconds())
		if rate := float64(calls) / elapsed; forward && same && rate < impossible {
			k.rate = max(k.rate, rate)
		}
	}
	k.now, k.at = s, now
	seconds := max(horizon.Seconds(), 5*elapsed)
	want := s.Lead(s.State, k.rate, seconds)
	have, ahead := s.Calls(s.State, k.promise)
	hurried = forward && same && calls > want/4
	// Half of what the rate calls for, also where the end leaves less than all of it.
	least := max((want+1)/2, min(want, whole(k.rate*seconds/2)))
	little, much := have < least, have/4 > want || want == 0 && have > 0
	if left := s.Left(s.State); !s.Cycle && s.Left(k.promise) < (left-want)/2 {
		much = true // the end is near, and it was not so near before
	}
	if same && ahead && !little && !much {
		return false, hurried
	}
	before := k.promise
	k.promise = s.Ahead(s.State, want)
	return k.promise != before || !same, hurried
}

// Extend returns the promise for a primary of which nothing was heard for a while:
// it may have gone on at its rate. Half of what is left stays.
func (p Promise) Extend(unheard time.Duration) State {
	n := whole(p.Rate * unheard.Seconds())
	if p.Cycle {
		return p.Ahead(p.State, min(n, p.round()/2))
	}
	return p.Ahead(p.State, min(n, p.Left(p.State)/2))
}
