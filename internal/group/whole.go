package group

import (
	"bytes"
	"hash/maphash"

	"github.com/twinspan/twinspan/internal/pgoutput"
)

// foldWhole folds a change of a table without a key. Rows that are the same in every
// byte are one another's equals, so what counts is how many are deleted and inserted; an
// UPDATE is one of each. A deletion takes back an insertion before it; an insertion after
// a deletion does not take that back, so that the row is looked for.
func (p *Planner) foldWhole(f *fold, index int, c *Change) {
	if len(f.inserts) > 0 || len(f.run) > 0 {
		p.cut(f)
	}
	if c.New.Kinds&pgoutput.HasUnchanged != 0 || c.Op != Insert && (c.OldKind != pgoutput.OldFull || c.Old.Kinds&pgoutput.HasUnchanged != 0) {
		p.row(f, index)
		return
	}
	if c.Op != Insert {
		if e := p.whole(f, c.Old); e.inserts > 0 {
			e.inserts--
		} else {
			e.deletes++
		}
	}
	if c.Op != Delete {
		p.whole(f, c.New).inserts++
	}
}

// whole returns the entry of a row, which is made when it is new.
func (p *Planner) whole(f *fold, row pgoutput.Tuple) *entry {
	hash := maphash.Bytes(p.seed, row.Bytes)
	if len(f.entries) > 0 {
		mask := uint64(len(f.slots) - 1)
		for i := hash & mask; f.slots[i] != 0; i = (i + 1) & mask {
			if e := &f.entries[f.slots[i]-1]; e.hash == hash && bytes.Equal(e.row.Bytes, row.Bytes) {
				return e
			}
		}
	}
	f.add(entry{hash: hash, row: row})
	return &f.entries[len(f.entries)-1]
}

// gatherWhole is gather for a table without a key: a row occurs in a list as often as it
// is deleted or inserted, one after the other.
func (p *Planner) gatherWhole(f *fold) Step {
	s := Step{Table: f.table, Truncate: -1}
	at := len(p.rows)
	for i := range f.entries {
		for range f.entries[i].deletes {
			p.rows = append(p.rows, f.entries[i].row.Bytes)
			s.Kinds |= f.entries[i].row.Kinds
		}
	}
	s.Deletes = p.taken(at)
	at = len(p.rows)
	for i := range f.entries {
		for range f.entries[i].inserts {
			p.rows = append(p.rows, f.entries[i].row.Bytes)
			s.Kinds |= f.entries[i].row.Kinds
		}
	}
	s.Inserts = p.taken(at)
	s.Kinds &= valueKinds
	return s
}
