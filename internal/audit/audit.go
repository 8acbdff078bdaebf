// Package audit decides how a link compares itself with its primary in the background:
// what comes next, how fast it is read, how long a pass over everything takes and what
// was not compared for too long. It is pure; docs/design/0026-audit.md says why it is so.
package audit

import (
	"cmp"
	"slices"
	"time"
)

const (
	// DefaultRate is how many bytes of tables each side reads in a second if nobody says
	// otherwise.
	DefaultRate = 8 << 20
	// Settled is how long a link has to have replicated without a break before a pass
	// begins by itself: what was begun a moment ago has better things to do, and what comes
	// and goes would never end one.
	Settled = 10 * time.Minute
	// Every is the least time between the beginnings of two passes: a small database is
	// not read all day long.
	Every = time.Hour
	// Sitting is for how long of reading one position is kept, and LastCall when everything
	// that reads at it is ended. No snapshot lives for a minute.
	Sitting  = 20 * time.Second
	LastCall = 50 * time.Second
	// Overdue is how long something may not have been compared before it is a problem.
	Overdue = 7 * 24 * time.Hour
	// PieceBytes is about how much is read at once: a moment's work for a server.
	PieceBytes = 1 << 20
	// Linger is the longest that what was received waits for a position to be known.
	Linger = 8 * time.Millisecond
)

// Kind is what an item is.
type Kind string

// The kinds.
const (
	Table     Kind = "table"
	View      Kind = "materialized view"
	Objects   Kind = "large objects"
	Sequences Kind = "sequences"
	Schema    Kind = "schema"
)

// Item is something that is compared by itself, and how that stands.
type Item struct {
	Kind  Kind
	Name  string
	Bytes int64 // that reading it reads
	// Divided says that it is read span by span, each at a position of its own if need be.
	Divided  bool
	Skipped  string    // why it is left out, empty where it is not
	Compared time.Time // when the last comparison of all of it ended
	Equal    time.Time // when it was last found equal
	Position string    // at which that was begun
	// Upto is how far the comparison under way has come, Begun when it began, Start at which
	// position, and Odd whether something of it differed.
	Upto  []string
	Begun time.Time
	Start string
	Odd   bool
	// Again says that it is to be compared whatever the pass has seen of it, and before others.
	Again bool
}

// Fits says whether an item can be compared at one position at the rate. What is
// divided always can.
func (i *Item) Fits(rate int64) bool {
	return i.Divided || Takes(i.Bytes, rate) <= Sitting
}

// Takes is how long reading so much takes.
func Takes(bytes, rate int64) time.Duration {
	if rate <= 0 {
		return 0
	}
	return time.Duration(float64(bytes) / float64(rate) * float64(time.Second))
}

// Length is how long a pass over the items takes.
func Length(items []Item, rate int64) time.Duration {
	var sum int64
	for i := range items {
		if items[i].Skipped == "" {
			sum += items[i].Bytes
		}
	}
	return Takes(sum, rate)
}

// Next chooses what is compared next in a pass: what was begun, then what is to be looked
// at again, then what was never compared, then what was compared longest ago. There is
// nothing when all that is not left out was compared since the pass began.
func Next(items []Item, began time.Time) (next int, found bool) {
	best := -1
	for i := range items {
		it := &items[i]
		if it.Skipped != "" || !it.Again && !it.Compared.Before(began) {
			continue
		}
		if best < 0 || before(it, &items[best]) {
			best = i
		}
	}
	return best, best >= 0
}

func before(a, b *Item) bool {
	if begun := len(a.Upto) > 0; begun != (len(b.Upto) > 0) {
		return begun
	}
	if a.Again != b.Again {
		return a.Again
	}
	return cmp.Or(a.Compared.Compare(b.Compared), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name)) < 0
}

// Late lists the items that were not compared for too long, the oldest first. What was
// never compared counts from since, when the link could first have done it. What is
// left out by its nature is not late.
func Late(items []Item, since, now time.Time) []Item {
	var late []Item
	last := func(i Item) time.Time {
		if i.Compared.IsZero() {
			return since
		}
		return i.Compared
	}
	for _, i := range items {
		if i.Skipped == "" && now.Sub(last(i)) > Overdue {
			late = append(late, i)
		}
	}
	slices.SortFunc(late, func(a, b Item) int { return cmp.Or(last(a).Compare(last(b)), cmp.Compare(a.Name, b.Name)) })
	return late
}

// Rows is how many rows of a table are about a piece, one at least.
func Rows(rows, bytes int64) int64 {
	if rows <= 0 {
		rows = bytes / 100
	}
	if bytes <= PieceBytes {
		return max(1, 2*rows, PieceBytes/100) // what there is, and some that came
	}
	return max(1, int64(float64(rows)*PieceBytes/float64(bytes)))
}
