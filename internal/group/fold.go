package group

import (
	"bytes"
	"slices"

	"github.com/twinspan/twinspan/internal/pgoutput"
)

// state is the net effect of a key's changes so far.
type state uint8

const (
	nothing  state = iota // inserted and deleted again
	inserted              // a row is to be inserted
	updated               // a row that exists is to be updated
	deleted               // a row that exists is to be deleted
	replaced              // a row that exists is to be deleted, then one inserted: an UPDATE
	// would be another thing for generated identities and unchanged values
)

// entry is the net effect of one key.
type entry struct {
	hash          uint64
	keyAt, keyLen int // in Planner.keys
	state         state
	old           []byte         // of deleted and replaced: the tuple with the key
	row           pgoutput.Tuple // of inserted, updated and replaced

	deletes, inserts int // of a table without a key: how often old is deleted, and inserted after
}

// fold is what is being planned for one table since the last cut: one of entries
// (net effects by key), inserts (a run of them) and run (changes by themselves).
type fold struct {
	table   *Table
	touched bool
	entries []entry
	slots   []int32 // hash table: 1 + index of entries, 0 for free
	inserts []Row
	kinds   pgoutput.Kinds // of inserts
	run     []int
	steps   []Step // what was cut off
}

// find returns the entry of a key, or nil.
func (f *fold) find(hash uint64, key, keys []byte) *entry {
	if len(f.entries) == 0 {
		return nil
	}
	mask := uint64(len(f.slots) - 1)
	for i := hash & mask; f.slots[i] != 0; i = (i + 1) & mask {
		e := &f.entries[f.slots[i]-1]
		if e.hash == hash && bytes.Equal(keys[e.keyAt:e.keyAt+e.keyLen], key) {
			return e
		}
	}
	return nil
}

// add adds the entry of a key that has none.
func (f *fold) add(e entry) {
	f.entries = append(f.entries, e)
	if len(f.entries)*2 > len(f.slots) {
		f.slots = make([]int32, max(16, len(f.slots)*2))
		for i := range f.entries {
			f.place(i)
		}
		return
	}
	f.place(len(f.entries) - 1)
}

func (f *fold) place(index int) {
	mask := uint64(len(f.slots) - 1)
	i := f.entries[index].hash & mask
	for f.slots[i] != 0 {
		i = (i + 1) & mask
	}
	f.slots[i] = int32(index + 1)
}

// forget empties the entries; a table that had many once gives the memory back.
func (f *fold) forget() {
	if len(f.slots) > 1024 && len(f.entries)*16 < len(f.slots) {
		f.entries, f.slots = nil, nil
		return
	}
	clear(f.entries)
	clear(f.slots)
	f.entries = f.entries[:0]
}

// cut ends what is being planned for a table and makes a step of it.
func (p *Planner) cut(f *fold) {
	switch {
	case len(f.run) > 0:
		at := len(p.numbers)
		p.numbers = append(p.numbers, f.run...)
		f.steps = append(f.steps, Step{Table: f.table, Rows: p.numbers[at:len(p.numbers):len(p.numbers)], Truncate: -1})
		f.run = f.run[:0]
	case len(f.inserts) > 0:
		at := len(p.rows)
		p.rows = append(p.rows, f.inserts...)
		f.steps = append(f.steps, Step{Table: f.table, Inserts: p.rows[at:len(p.rows):len(p.rows)], Kinds: f.kinds & valueKinds, Truncate: -1})
		clear(f.inserts)
		f.inserts, f.kinds = f.inserts[:0], 0
	case len(f.entries) > 0:
		gather := p.gather
		if len(f.table.Key) == 0 {
			gather = p.gatherWhole
		}
		if step := gather(f); step.Deletes != nil || step.Updates != nil || step.Inserts != nil {
			f.steps = append(f.steps, step)
		}
		f.forget()
	}
}

const valueKinds = pgoutput.HasText | pgoutput.HasBinary

// gather sorts a table's net effects by what statement will write them.
func (p *Planner) gather(f *fold) Step {
	s := Step{Table: f.table, Truncate: -1}
	at := len(p.rows)
	for i := range f.entries {
		if e := &f.entries[i]; e.state == deleted || e.state == replaced {
			p.rows = append(p.rows, e.old)
			s.Kinds |= pgoutput.KindsOf(e.old)
		}
	}
	s.Deletes = p.taken(at)
	at = len(p.rows)
	partial := false
	for i := range f.entries {
		e := &f.entries[i]
		if e.state != updated {
			continue
		}
		s.Kinds |= e.row.Kinds
		if e.row.Kinds&pgoutput.HasUnchanged != 0 {
			partial = true
			continue
		}
		p.rows = append(p.rows, e.row.Bytes)
	}
	if rows := p.taken(at); rows != nil {
		s.Updates = append(s.Updates, UpdateSet{Rows: rows})
	}
	if partial {
		s.Updates = p.gatherPartial(f, s.Updates)
	}
	at = len(p.rows)
	for i := range f.entries {
		if e := &f.entries[i]; e.state == inserted || e.state == replaced {
			p.rows = append(p.rows, e.row.Bytes)
			s.Kinds |= e.row.Kinds
		}
	}
	s.Inserts = p.taken(at)
	s.Kinds &= valueKinds
	return s
}

// taken returns the shared rows from a place on, nil when there are none.
func (p *Planner) taken(at int) []Row {
	if at == len(p.rows) {
		return nil
	}
	return p.rows[at:len(p.rows):len(p.rows)]
}

// gatherPartial groups the updates that leave columns alone by which they leave.
func (p *Planner) gatherPartial(f *fold, sets []UpdateSet) []UpdateSet {
	first := len(sets)
	for i := range f.entries {
		e := &f.entries[i]
		if e.state != updated || e.row.Kinds&pgoutput.HasUnchanged == 0 {
			continue
		}
		p.columns = UnchangedOf(p.columns, e.row)
		at := slices.IndexFunc(sets[first:], func(s UpdateSet) bool { return slices.Equal(s.Unchanged, p.columns) })
		if at < 0 {
			at = len(sets) - first
			sets = append(sets, UpdateSet{Unchanged: slices.Clone(p.columns)})
		}
		set := &sets[first+at]
		set.Rows = append(set.Rows, e.row.Bytes)
	}
	return sets
}
