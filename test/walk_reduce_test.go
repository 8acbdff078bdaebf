package test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twinspan/twinspan/internal/walk"
)

// What making a failed walk smaller may cost.
const (
	reduceTries    = 80
	reducePatience = 30 * time.Second // of one try
	reduceTime     = 10 * time.Minute // of all
)

// aboutLast reduces a walk to what its last step depends on: from its end on, what is
// about the same tables, and about those that these were made of or changed with.
func aboutLast(list []walk.Action) []walk.Action {
	tables := map[int]bool{}
	for _, s := range list[len(list)-1].SQL {
		maps.Copy(tables, s.About)
	}
	var kept []walk.Action
	for _, a := range slices.Backward(list) {
		var sql []walk.Statement
		for _, s := range slices.Backward(a.SQL) {
			if !slices.ContainsFunc(slices.Collect(maps.Keys(s.About)), func(n int) bool { return tables[n] }) {
				continue
			}
			maps.Copy(tables, s.About)
			maps.Copy(tables, s.Of)
			sql = append(sql, s)
		}
		if slices.Reverse(sql); len(sql) > 0 || a.Do != "" {
			a.SQL = sql
			kept = append(kept, a)
		}
	}
	slices.Reverse(kept)
	return kept
}

// again takes a walk once more, on databases of its own, and says whether it fails in a way, and with which of
// its steps: those that no database takes, for they need what was left out, are none.
func (r *walks) again(t *testing.T, list []walk.Action, like *mishap) (kept []walk.Action, fails bool) {
	t.Helper()
	w := r.begin(t, r.setup)
	defer w.end(t)
	for _, a := range list {
		switch alike, m := w.take(t, a, reducePatience); {
		case m != nil && m.kind == like.kind:
			return append(kept, a), true
		case m != nil: // fails otherwise, and would go on so
			return kept, false
		case !alike:
			kept = append(kept, a)
		}
	}
	m := w.compare(t, reducePatience)
	return kept, m != nil && m.kind == like.kind
}

// reducing is a walk that failed while it is made smaller.
type reducing struct {
	*walks
	like  *mishap
	end   time.Time // when it is enough
	tries int
}

func (r *reducing) try(t *testing.T, list []walk.Action) ([]walk.Action, bool) {
	t.Helper()
	if r.tries >= reduceTries || time.Now().After(r.end) {
		return nil, false
	}
	r.tries++
	return r.again(t, list, r.like)
}

// reduce makes a walk that failed smaller: kills first, then what comes after the step
// that matters and what else is in its transaction, other tables, other steps, and at
// last what is in other transactions. It returns a report
// that reproduces the failure.
func (r *walks) reduce(t *testing.T, taken []walk.Action, like *mishap) string {
	t.Helper()
	x := &reducing{walks: r, like: like, end: time.Now().Add(reduceTime)}
	// Who is stopped by the deadline of all tests reports nothing.
	if deadline, ok := t.Deadline(); ok && deadline.Add(-time.Minute).Before(x.end) {
		x.end = deadline.Add(-time.Minute)
	}
	calm := slices.DeleteFunc(slices.Clone(taken), func(a walk.Action) bool { return a.Do == walk.KillA || a.Do == walk.KillB })
	list, fails := x.try(t, calm)
	if !fails {
		if list, fails = x.try(t, taken); !fails && time.Now().After(x.end) {
			return "no time is left to make it smaller; the whole walk:\n" + script(r.setup, taken)
		} else if !fails {
			return "it does not fail so again; the whole walk:\n" + script(r.setup, taken)
		}
	}
	list = x.withoutTail(t, list)
	list = x.withoutParts(t, list, len(list)-1)
	if kept, fails := x.try(t, aboutLast(list)); fails {
		list = kept
	}
	list = shrink(list, reduceTries, func(part []walk.Action) ([]walk.Action, bool) { return x.try(t, part) })
	for i := range list {
		list = x.withoutParts(t, list, i)
	}
	return fmt.Sprintf("%d of its %d steps are enough, found in %d tries; on new databases, behind the setup:\n%s", len(list), len(taken), x.tries, script(r.setup, list))
}

// withoutTail halves its way to the shortest beginning that fails.
func (r *reducing) withoutTail(t *testing.T, list []walk.Action) []walk.Action {
	t.Helper()
	for enough, few := len(list), 0; few < enough-1; {
		middle := (few + enough) / 2
		if kept, fails := r.try(t, list[:middle]); fails {
			list, enough = kept, len(kept)
		} else {
			few = middle
		}
	}
	return list
}

// withoutParts takes statements out of a transaction, and the transaction away.
func (r *reducing) withoutParts(t *testing.T, list []walk.Action, i int) []walk.Action {
	t.Helper()
	with := func(inner []walk.Statement, end string) []walk.Action {
		changed := slices.Clone(list)
		changed[i].SQL, changed[i].End = inner, end
		return changed
	}
	end := list[i].End
	if len(list[i].SQL) > 1 {
		list = with(shrink(list[i].SQL, reduceTries, func(part []walk.Statement) ([]walk.Statement, bool) {
			kept, fails := r.try(t, with(part, end))
			return part, fails && len(kept) == len(list)
		}), end)
	}
	if end != "" {
		if kept, fails := r.try(t, with(list[i].SQL, "")); fails && len(kept) == len(list) {
			return kept
		}
	}
	return list
}

// script is a walk behind its setup, for people.
func script(setup, list []walk.Action) string {
	var lines []string
	for _, a := range slices.Concat(setup, list) {
		lines = append(lines, a.String())
	}
	return strings.Join(lines, "\n")
}
