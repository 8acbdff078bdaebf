package group

import (
	"hash/maphash"

	"github.com/twinspan/twinspan/internal/pgoutput"
)

// Planner collects changes and plans their writing. Changes are appended as they
// arrive; Seal makes those appended so far part of the plan; Steps is the plan.
// It reuses its memory from plan to plan. The zero value is not ready: use New.
type Planner struct {
	log    []Change
	sealed int // changes before are in the plan
	bytes  int // of the log
	merged int // bytes of rows that folding had to build

	seed    maphash.Seed
	folds   map[*Table]*fold
	last    *fold   // of the change before, for runs of one table
	strict  *fold   // rows of all strict tables
	touched []*fold // folds with changes since the last barrier, in order of their first
	steps   []Step

	// Memory that plans share. Growing it moves it, which earlier slices survive.
	keys    []byte
	rows    []Row
	numbers []int
	scratch []byte
	columns Columns
}

// New returns an empty planner.
func New() *Planner {
	return &Planner{seed: maphash.MakeSeed(), folds: map[*Table]*fold{}, strict: &fold{}}
}

// Append adds a change behind all others.
func (p *Planner) Append(c Change) {
	p.log = append(p.log, c)
	p.bytes += c.size()
}

// Seal takes every change appended so far into the plan.
func (p *Planner) Seal() {
	for ; p.sealed < len(p.log); p.sealed++ {
		p.plan(p.sealed, &p.log[p.sealed])
	}
}

// Sealed says how many changes are in the plan.
func (p *Planner) Sealed() int { return p.sealed }

// Open says how many changes are appended but not sealed.
func (p *Planner) Open() int { return len(p.log) - p.sealed }

// Changes returns all appended changes in order, valid until Reset.
func (p *Planner) Changes() []Change { return p.log }

// Bytes estimates the memory that the planner and the tuples it refers to take.
func (p *Planner) Bytes() int { return p.bytes + p.merged }

// MoveOpen moves the changes that are not sealed to another planner.
func (p *Planner) MoveOpen(to *Planner) {
	for i := p.sealed; i < len(p.log); i++ {
		to.Append(p.log[i])
		p.bytes -= p.log[i].size()
	}
	clear(p.log[p.sealed:])
	p.log = p.log[:p.sealed]
}

// Steps ends the plan and returns it. Until Reset, nothing may be sealed after.
func (p *Planner) Steps() []Step {
	p.barrier()
	return p.steps
}

// Reset forgets everything and lets go of the stream's memory.
func (p *Planner) Reset() {
	p.barrier()
	clear(p.log)
	clear(p.rows)
	clear(p.steps)
	p.log, p.rows, p.steps = p.log[:0], p.rows[:0], p.steps[:0]
	p.keys, p.numbers = p.keys[:0], p.numbers[:0]
	p.sealed, p.bytes, p.merged = 0, 0, 0
	if len(p.folds) > manyFolds {
		clear(p.folds)
		p.last = nil
	}
}

// manyFolds is how many tables' memory is kept for the next plan.
const manyFolds = 4096

// barrier ends what is being folded in every table: what follows is executed
// after everything before.
func (p *Planner) barrier() {
	for _, f := range p.touched {
		p.cut(f)
		p.steps = append(p.steps, f.steps...)
		clear(f.steps)
		f.steps = f.steps[:0]
		f.touched = false
	}
	p.touched = p.touched[:0]
}

func (p *Planner) plan(index int, c *Change) {
	switch c.Op {
	case Truncate:
		p.barrier()
		p.steps = append(p.steps, Step{Truncate: index})
		return
	case Barrier:
		p.barrier()
		return
	}
	if c.Table.Order == Strict {
		p.row(p.touch(p.strict), index)
		return
	}
	f := p.foldOf(c.Table)
	switch {
	case c.Repair:
		p.row(f, index)
	case c.Table.Order == Fold && len(c.Table.Key) > 0:
		p.fold(f, index, c)
	case c.Table.Order == Fold && (c.Op != Insert || len(f.entries) > 0):
		p.foldWhole(f, index, c)
	case c.Op == Insert:
		p.insert(f, c)
	default:
		p.row(f, index)
	}
}

func (p *Planner) foldOf(t *Table) *fold {
	if p.last == nil || p.last.table != t {
		f := p.folds[t]
		if f == nil {
			f = &fold{table: t}
			p.folds[t] = f
		}
		p.last = f
	}
	return p.touch(p.last)
}

func (p *Planner) touch(f *fold) *fold {
	if !f.touched {
		f.touched = true
		p.touched = append(p.touched, f)
	}
	return f
}

// row plans one change to be executed by itself, after the table's changes before.
func (p *Planner) row(f *fold, index int) {
	if len(f.entries) > 0 || len(f.inserts) > 0 {
		p.cut(f)
	}
	f.run = append(f.run, index)
}

// insert plans one more of a run of inserts.
func (p *Planner) insert(f *fold, c *Change) {
	if len(f.entries) > 0 || len(f.run) > 0 {
		p.cut(f)
	}
	f.inserts = append(f.inserts, c.New.Bytes)
	f.kinds |= c.New.Kinds
}

// fold plans a change by its net effect with those before of the same key.
func (p *Planner) fold(f *fold, index int, c *Change) {
	if len(f.inserts) > 0 || len(f.run) > 0 {
		p.cut(f)
	}
	row := c.New
	keyed := row
	if c.Op == Delete {
		keyed = c.Old
	}
	if c.Op == Update && c.OldKind != pgoutput.OldNone {
		if KeyChanged(f.table.Key, c.Old, c.New) {
			p.row(f, index)
			return
		}
		keyed = c.Old
		row = p.withKey(f.table.Key, c.Old, c.New)
	}
	key, ok := appendKey(p.scratch[:0], f.table.Key, keyed)
	p.scratch = key
	if !ok {
		p.row(f, index)
		return
	}
	hash := maphash.Bytes(p.seed, key)
	if e := f.find(hash, key, p.keys); e != nil {
		if p.apply(e, c.Op, row, c.Old) {
			return
		}
		// No stream that fits the tables holds this. In a new segment the
		// statements fail on the row instead of hiding it.
		p.cut(f)
	}
	at := len(p.keys)
	p.keys = append(p.keys, key...)
	e := entry{hash: hash, keyAt: at, keyLen: len(key), row: row}
	switch c.Op {
	case Insert:
		e.state = inserted
	case Update:
		e.state = updated
	case Delete:
		e.state, e.old, e.row = deleted, c.Old.Bytes, pgoutput.Tuple{}
	}
	f.add(e)
}

// apply folds a change into what is already known of its key; false when the
// two do not follow one another.
func (p *Planner) apply(e *entry, op Op, row, old pgoutput.Tuple) bool {
	switch {
	case op == Insert && e.state == nothing:
		e.state = inserted
	case op == Insert && e.state == deleted:
		e.state = replaced
	case op == Update && (e.state == inserted || e.state == updated || e.state == replaced):
		row = p.merge(e.row, row)
	case op == Delete && e.state == inserted:
		e.state = nothing
	case op == Delete && (e.state == updated || e.state == replaced):
		if e.state == updated {
			e.old = old.Bytes
		}
		e.state = deleted
	default:
		return false
	}
	e.row = row
	return true
}

// merge returns a row with the values it leaves unchanged taken from the one
// before, where that has them.
func (p *Planner) merge(before, row pgoutput.Tuple) pgoutput.Tuple {
	if row.Kinds&pgoutput.HasUnchanged == 0 {
		return row
	}
	return p.compose(before, row, nil)
}

// withKey returns a row with the values of its key that it leaves unchanged (a
// key's column may lie in TOAST, too) taken from the old row.
func (p *Planner) withKey(key []KeyColumn, old, row pgoutput.Tuple) pgoutput.Tuple {
	if row.Kinds&pgoutput.HasUnchanged == 0 {
		return row
	}
	p.columns = p.columns[:0]
	for _, k := range key {
		for len(p.columns) <= k.Column/64 {
			p.columns = append(p.columns, 0)
		}
		p.columns[k.Column/64] |= 1 << (k.Column % 64)
	}
	return p.compose(old, row, p.columns)
}

// compose is composed, with the memory counted.
func (p *Planner) compose(before, row pgoutput.Tuple, only Columns) pgoutput.Tuple {
	built := composed(before, row, only)
	p.merged += cap(built.Bytes)
	return built
}

// Filled returns row with the values it leaves unchanged taken from the whole row
// before.
func Filled(before, row pgoutput.Tuple) pgoutput.Tuple {
	if row.Kinds&pgoutput.HasUnchanged == 0 {
		return row
	}
	return composed(before, row, nil)
}

// composed builds row with its unchanged values taken from before; only those of
// the given columns, if any are given.
func composed(before, row pgoutput.Tuple, only Columns) pgoutput.Tuple {
	built := make([]byte, 0, len(before.Bytes)+len(row.Bytes))
	b, r := before.Bytes, row.Bytes
	for i := 0; len(r) > 0 && len(b) > 0; i++ {
		_, afterB := pgoutput.Next(b)
		_, afterR := pgoutput.Next(r)
		if r[0] == pgoutput.Unchanged && (only == nil || only.Has(i)) {
			built = append(built, b[:len(b)-len(afterB)]...)
		} else {
			built = append(built, r[:len(r)-len(afterR)]...)
		}
		b, r = afterB, afterR
	}
	return pgoutput.Tuple{Bytes: built, Len: row.Len, Kinds: pgoutput.KindsOf(built)}
}
