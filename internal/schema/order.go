package schema

import (
	"slices"

	"github.com/twinspan/twinspan/internal/sqlname"
)

// stage is when an entry of post-data is built: all of one before any of the
// next.
type stage int

const (
	stageIdentity   stage = iota // the identities of tables, and what they need
	stageIndex                   // all other indexes, keys and exclusions
	stageAttach                  // indexes of partitions to those of their parents
	stageForeignKey              // when every key is there
	stageOther                   // triggers, rules, policies, comments, ...
	stageRefresh                 // materialized views
	stageLast                    // event triggers, which would see all the rest
)

func (s stage) String() string {
	return [...]string{"identity", "indexes", "indexes", "foreign keys", "triggers", "materialized views", "triggers"}[s]
}

func stageOf(kind string) stage {
	switch kind {
	case kindIndex, kindConstraint:
		return stageIndex
	case kindAttach:
		return stageAttach
	case kindForeignKey:
		return stageForeignKey
	case kindRefresh:
		return stageRefresh
	case kindEvent:
		return stageLast
	}
	return stageOther
}

// stages gives each entry its stage: that of its kind, the first for what an
// identity needs, and never one before that of an entry it needs itself (a view
// can need a primary key, and an index such a view).
func stages(entries []stored) []stage {
	at := map[int]int{}
	for i, e := range entries {
		at[e.ID] = i
	}
	result := make([]stage, len(entries))
	for i, e := range entries {
		result[i] = stageOf(e.Kind)
	}
	for _, i := range closure(entries, func(e *stored) bool { return e.Identity }) {
		result[i] = stageIdentity
	}
	for i, e := range entries {
		for _, need := range e.Needs {
			if j, ok := at[need]; ok && j < i {
				result[i] = max(result[i], result[j])
			}
		}
	}
	return result
}

// closure returns the places of the wanted entries and of all that they need.
// Entries come after what they need, so that one pass from the end finds all.
func closure(entries []stored, wanted func(e *stored) bool) []int {
	needed := map[int]bool{}
	var places []int
	for i := len(entries) - 1; i >= 0; i-- {
		e := &entries[i]
		if !needed[e.ID] && !wanted(e) {
			continue
		}
		places = append(places, i)
		for _, n := range e.Needs {
			needed[n] = true
		}
	}
	slices.Reverse(places)
	return places
}

// lock is a table that an entry keeps others from while it is built.
type lock struct {
	table     string
	exclusive bool
}

// locks says what an entry locks (manual, "Table-Level Locks"). Two that lock
// the same are not built at once: they would wait for each other in a worker
// that could do something else, or, with two tables, deadlock. root maps a table
// to the top of its tree, for foreign keys reach every partition.
func locks(e *Entry, root func(sqlname.Table) sqlname.Table) []lock {
	switch e.Kind {
	case kindIndex:
		return []lock{{e.Table.SQL(), false}}
	case kindConstraint:
		return []lock{{e.Table.SQL(), true}}
	case kindForeignKey:
		own := lock{root(e.Table).SQL(), true}
		other := lock{root(e.Refers).SQL(), true}
		if own == other {
			return []lock{own}
		}
		return []lock{own, other}
	case kindRefresh:
		return nil
	}
	// All the rest is quick and touches who knows what: one at a time.
	return []lock{{"", true}}
}

// queue hands out the entries of one stage. It is not safe for concurrent use.
type queue struct {
	waiting []task // in the order of preference
	pending map[int]bool
	held    map[string]int // -1 exclusive, else the number of sharers
}

type task struct {
	entry stored
	locks []lock
}

func newQueue(tasks []task) *queue {
	q := &queue{waiting: tasks, pending: map[int]bool{}, held: map[string]int{}}
	for _, t := range tasks {
		q.pending[t.entry.ID] = true
	}
	return q
}

// next takes a task that can be done now. Without one it says whether there will
// be one when others are finished.
func (q *queue) next() (t task, ok, more bool) {
	for i, t := range q.waiting {
		if !q.possible(t) {
			continue
		}
		q.waiting = slices.Delete(q.waiting, i, i+1)
		for _, l := range t.locks {
			if l.exclusive {
				q.held[l.table] = -1
			} else {
				q.held[l.table]++
			}
		}
		return t, true, true
	}
	return task{}, false, len(q.waiting) > 0
}

func (q *queue) possible(t task) bool {
	for _, n := range t.entry.Needs {
		if n != t.entry.ID && q.pending[n] {
			return false
		}
	}
	for _, l := range t.locks {
		if held := q.held[l.table]; held < 0 || l.exclusive && held > 0 {
			return false
		}
	}
	return true
}

// finish says that a task is done.
func (q *queue) finish(t task) {
	delete(q.pending, t.entry.ID)
	for _, l := range t.locks {
		if l.exclusive || q.held[l.table] == 1 {
			delete(q.held, l.table)
		} else {
			q.held[l.table]--
		}
	}
}
