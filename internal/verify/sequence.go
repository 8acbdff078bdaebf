package verify

import (
	"slices"
	"strings"

	"github.com/twinspan/twinspan/internal/sqlname"
)

// Sequence is the state of a sequence.
type Sequence struct {
	Name     sqlname.Table
	Last     int64
	IsCalled bool // whether Last has been handed out
}

// SequenceDifference is a sequence that stands elsewhere on the secondary.
type SequenceDifference struct {
	Name               sqlname.Table
	Primary, Secondary int64 // the value that comes next
	// Behind says that the secondary's will hand out values again that the primary's
	// has handed out, if nobody sets it before: so the link keeps sequences until
	// they are needed. One that is ahead was moved by somebody else.
	Behind bool
}

// Sequences compares the values of sequences. The secondary's must have been read
// first: then the primary's can only have gone on. descending names those that
// count down; a sequence that the other side lacks is the schema's business.
func Sequences(primary, secondary []Sequence, descending map[sqlname.Table]bool) []SequenceDifference {
	there := make(map[sqlname.Table]Sequence, len(secondary))
	for _, s := range secondary {
		there[s.Name] = s
	}
	var list []SequenceDifference
	for _, a := range primary {
		b, have := there[a.Name]
		if !have || a == b {
			continue
		}
		down := descending[a.Name]
		x, y := next(a, down), next(b, down)
		if x == y {
			continue
		}
		list = append(list, SequenceDifference{Name: a.Name, Primary: x, Secondary: y, Behind: (y < x) != down})
	}
	slices.SortFunc(list, func(a, b SequenceDifference) int { return strings.Compare(a.Name.String(), b.Name.String()) })
	return list
}

// next is about the value that comes next: the exact step does not matter to which
// is ahead.
func next(s Sequence, down bool) int64 {
	switch {
	case !s.IsCalled:
		return s.Last
	case down:
		return s.Last - 1
	}
	return s.Last + 1
}

// Descending finds the sequences that count down, in what the schema says.
func Descending(d *Database) map[sqlname.Table]bool {
	down := map[sqlname.Table]bool{}
	for _, e := range d.Entries {
		if e.Kind == "sequence" && strings.Contains(e.Detail, " increment -") {
			down[e.Table] = true
		}
	}
	return down
}
