// Package group plans how the changes of consecutive transactions are written
// together. Changes of a table that has a key are folded to their net effect
// for each key, so that one set-based statement can write many; where folding
// could be wrong, changes keep their order.
//
// It is pure: it computes a plan from decoded changes and knows nothing of SQL.
// The plan's effect on the tables equals that of the changes one after another,
// seen after the last of them.
package group

import "github.com/twinspan/twinspan/internal/pgoutput"

// Order says how far the changes of a table may be rearranged.
type Order uint8

const (
	// Fold: to net effects by key, or without a key by the whole row, of which then
	// every UPDATE and DELETE has the old one (another is executed by itself).
	Fold Order = iota
	// Rows: the table's changes keep their order among themselves. For tables
	// with exclusion constraints, or where folding failed lately.
	Rows
	// Strict: also in order among all strict tables, and never many at once. For
	// tables whose triggers fire on a secondary, for triggers see each row.
	Strict
)

// Canon says when two values of a key's column are the same key although their
// bytes differ. A type whose equality is none of these must not be folded.
type Canon uint8

const (
	// Exact: values are equal when their bytes are.
	Exact Canon = iota
	// Numeric: 1.0 equals 1.00.
	Numeric
	// Float4 and Float8: -0 equals 0, and every NaN every other.
	Float4
	Float8
	// Blank: trailing blanks do not count (bpchar).
	Blank
)

// KeyColumn is a column of a table's key, by its place in the tuple.
type KeyColumn struct {
	Column int
	Canon  Canon
}

// Table is what planning has to know of a table. The caller keeps one for as
// long as it uses it in changes; Order may change between changes.
type Table struct {
	Key   []KeyColumn
	Order Order
}

// Op is what a change does.
type Op uint8

// The operations.
const (
	Insert Op = iota + 1
	Update
	Delete
	Truncate
	// Barrier does nothing; what follows is executed after everything before. For
	// a table that goes on under another Table.
	Barrier
)

// Change is one change of a stream. Tuples refer to the stream's memory and must
// stay unchanged until the planner was reset.
type Change struct {
	Table    *Table
	Op       Op
	OldKind  byte // of Old: pgoutput.OldNone, OldKey or OldFull
	Repair   bool // must be written by itself: what it finds may lie ahead of it
	Old, New pgoutput.Tuple
	Truncate *TruncateSet // of Truncate, where Table is nil
}

// TruncateSet is what one TRUNCATE emptied.
type TruncateSet struct {
	Tables          []*Table
	Cascade         bool
	RestartIdentity bool
	// Alone: no other table may be touched, for one of those that were emptied
	// together is not to be.
	Alone bool
	// With are further tables to empty with them, as SQL names them.
	With []string
}

// overhead is the memory that a change takes beside its tuples: its entry in the
// log and in the fold, with the key.
const overhead = 250

// size is what the change adds to Planner.Bytes.
func (c *Change) size() int { return len(c.Old.Bytes) + len(c.New.Bytes) + overhead }

// Step is one step of a plan; steps are executed in order. Either one of Rows or
// Truncate is set, or any of Deletes, Updates and Inserts, executed in that
// order. Slices are valid until the planner is reset.
type Step struct {
	// Table is nil for Rows of several strict tables and for Truncate.
	Table *Table

	Deletes []Row // tuples that hold at least the key; without a key whole rows, equal ones side by side
	Updates []UpdateSet
	Inserts []Row
	// Kinds has HasText or HasBinary when a value of the step is of that kind.
	Kinds pgoutput.Kinds

	Rows     []int // changes to execute one by one, as indexes into Planner.Changes
	Truncate int   // index of the truncating change, -1 for none
}

// Row is a whole row or, in Step.Deletes, a key: a tuple's bytes.
type Row []byte

// UpdateSet is rows whose update leaves the same columns alone.
type UpdateSet struct {
	Unchanged Columns // columns to leave out
	Rows      []Row   // the new rows, which hold the key
}

// Columns is a set of columns, by their place in the tuple. nil is empty. A table
// has up to 1600 columns.
type Columns []uint64

// Has says whether a column is in the set.
func (c Columns) Has(column int) bool {
	return column/64 < len(c) && c[column/64]&(1<<(column%64)) != 0
}

// UnchangedOf returns the columns that a tuple leaves unchanged, in dst's memory.
func UnchangedOf(dst Columns, t pgoutput.Tuple) Columns {
	dst = dst[:0]
	if t.Kinds&pgoutput.HasUnchanged == 0 {
		return dst
	}
	b := t.Bytes
	for i := 0; len(b) > 0; i++ {
		if i%64 == 0 {
			dst = append(dst, 0)
		}
		if b[0] == pgoutput.Unchanged {
			dst[i/64] |= 1 << (i % 64)
		}
		_, b = pgoutput.Next(b)
	}
	return dst
}
