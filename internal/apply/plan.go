package apply

import (
	"bytes"

	"github.com/twinspan/twinspan/internal/group"
	"github.com/twinspan/twinspan/internal/pgoutput"
)

// writePlan sends the statements of a plan.
func (e *engine) writePlan(p *group.Planner) {
	for _, step := range p.Steps() {
		switch {
		case step.Truncate >= 0:
			e.writeTruncate(p.Changes()[step.Truncate].Truncate, step.Truncate)
		case step.Rows != nil:
			for _, i := range step.Rows {
				e.writeChange(&p.Changes()[i], i)
			}
		default:
			e.writeSet(e.byTable[step.Table], step)
		}
	}
}

// writeEach sends every change by itself, in the order of the stream.
func (e *engine) writeEach(p *group.Planner) {
	for i := range p.Changes()[:p.Sealed()] {
		switch c := &p.Changes()[i]; c.Op {
		case group.Barrier:
		case group.Truncate:
			e.writeTruncate(c.Truncate, i)
		default:
			e.writeChange(c, i)
		}
	}
}

func (e *engine) writeSet(r *relation, step group.Step) {
	const both = pgoutput.HasText | pgoutput.HasBinary
	text := step.Kinds&pgoutput.HasText != 0
	mixed := step.Kinds&both == both
	e.refreshPlans(r, step)
	if r.keyless() {
		e.writeWholeDeletes(r, step.Deletes, text, mixed)
	} else if mixed || len(step.Deletes) < fewRows || !r.keyArrayable(text) {
		for _, row := range step.Deletes {
			e.w.delete(r, row, opSet, 1)
		}
	} else {
		st := r.statement(append(e.w.shape[:0], 'X', bit(text)), func() *statement { return r.setDeleteStatement(text) })
		e.writeInParts(r, st, step.Deletes, text)
	}
	for _, set := range step.Updates {
		if mixed || len(set.Rows) < fewRows || !r.arrayable(set.Unchanged, text) {
			for _, row := range set.Rows {
				e.w.update(r, nil, row, opSet, 1, false)
			}
			continue
		}
		e.w.shape = appendColumns(append(e.w.shape[:0], 'S', bit(text)), set.Unchanged)
		st := r.statement(e.w.shape, func() *statement { return r.setUpdateStatement(set.Unchanged, text) })
		e.writeInParts(r, st, set.Rows, text)
	}
	if mixed || len(step.Inserts) < fewRows || len(r.written) == 0 {
		for _, row := range step.Inserts {
			e.w.insert(r, row, opSet)
		}
	} else {
		e.w.copy(r, step.Inserts, text)
	}
}

func (e *engine) writeInParts(r *relation, st *statement, rows []group.Row, text bool) {
	for len(rows) > 0 {
		n := min(maxRows, len(rows))
		e.w.set(r, st, rows[:n], text)
		rows = rows[n:]
	}
}

// refreshPlans gives up the plans of a relation's set-based statements when it may
// have grown much since they were made: for a table of a page or two, scanning
// all of it in the inner loop looks cheap, and a cached plan stays.
func (e *engine) refreshPlans(r *relation, step group.Step) {
	const first, last, factor = 1000, 4_000_000, 4
	if r.setLimit == 0 {
		r.setLimit = first
	}
	if r.setSince > r.setLimit && r.setLimit <= last {
		r.setLimit *= factor
		for shape, st := range r.statements {
			if shape[0] == 'X' || shape[0] == 'S' || shape[0] == 'U' || shape[0] == 'D' {
				e.s.discard(st)
				if st.checked != nil {
					e.s.discard(st.checked)
				}
			}
		}
	}
	r.setSince += len(step.Inserts)
	for _, set := range step.Updates {
		r.setSince += len(set.Rows)
	}
}

// writeChange sends one change by itself; op is its index.
func (e *engine) writeChange(c *group.Change, op int) {
	r := e.byTable[c.Table]
	switch {
	case c.Op == group.Insert && c.Repair:
		e.w.delete(r, c.New.Bytes, op, anyCount)
		e.w.insert(r, c.New.Bytes, op)
	case c.Op == group.Insert:
		e.w.insert(r, c.New.Bytes, op)
	case c.Op == group.Delete && c.Repair:
		e.w.delete(r, c.Old.Bytes, op, atMostOne)
	case c.Op == group.Delete && r.keyless():
		e.w.deleteOne(r, c.Old.Bytes, op)
	case c.Op == group.Delete:
		e.w.delete(r, c.Old.Bytes, op, 1)
	case c.Repair:
		e.writeRepair(r, c, op)
	default:
		e.writeUpdate(r, c, op, 1)
	}
}

// writeUpdate sends one UPDATE. Where it changes the value of a column GENERATED
// ALWAYS AS IDENTITY, which no statement may set, the column is BY DEFAULT for its
// moment; the lock that this takes is the price.
func (e *engine) writeUpdate(r *relation, c *group.Change, op int, want int64) {
	identity := e.writeIdentity[r] || changesIdentity(r, c)
	if identity {
		e.s.exec(r.identitySQL(true), op, anyCount)
	}
	if r.keyless() {
		e.w.updateOne(r, c.Old.Bytes, c.New.Bytes, op, identity)
	} else {
		e.w.update(r, c.Old.Bytes, c.New.Bytes, op, want, identity)
	}
	if identity {
		e.s.exec(r.identitySQL(false), op, anyCount)
	}
}

// changesIdentity says whether an update surely changes, or in repair perhaps
// changes, a generated identity's value. Elsewhere the statement makes sure that it
// does not, by looking for the value.
func changesIdentity(r *relation, c *group.Change) bool {
	for _, i := range r.always {
		now := c.New.Column(i)
		if now.Kind == pgoutput.Unchanged {
			continue
		}
		if c.OldKind != pgoutput.OldNone {
			if was := c.Old.Column(i); was.Kind != pgoutput.Null {
				if !bytes.Equal(was.Value, now.Value) {
					return true
				}
				continue
			}
		}
		if c.Repair && !r.isKey(i) {
			return true
		}
	}
	return false
}

// writeRepair sends an UPDATE of a table of which parts may lie ahead of the
// stream (docs/design/0002-apply.md, "Repair").
func (e *engine) writeRepair(r *relation, c *group.Change, op int) {
	if c.OldKind == pgoutput.OldNone || !group.KeyChanged(r.Key, c.Old, c.New) {
		e.writeUpdate(r, c, op, atMostOne)
		return
	}
	row := c.New
	if c.OldKind == pgoutput.OldFull {
		row = group.Filled(c.Old, c.New)
	}
	e.w.delete(r, c.Old.Bytes, op, anyCount)
	if row.Kinds&pgoutput.HasUnchanged != 0 {
		// The values that are missing are in the row if that was copied under its new
		// key already, and nowhere else for certain.
		want := int64(1)
		if e.a.Unsettled != nil {
			want = atMostOne
		}
		e.w.update(r, nil, row.Bytes, op, want, false)
		return
	}
	e.w.delete(r, row.Bytes, op, anyCount)
	e.w.insert(r, row.Bytes, op)
}

// writeTruncate empties tables as one TRUNCATE did.
func (e *engine) writeTruncate(set *group.TruncateSet, op int) {
	tables := make([]*relation, len(set.Tables))
	for i, t := range set.Tables {
		tables[i] = e.byTable[t]
	}
	whole := len(set.With) == 0 && !set.Alone
	if !set.Alone {
		e.truncateWith(tables, truncateSQL(tables, set.With, set.Cascade, set.RestartIdentity && whole), op)
	}
	for _, r := range tables {
		if set.Alone {
			e.plain(r, r.emptySQL(), op)
		}
		if set.RestartIdentity && !whole {
			e.s.exec(r.restartSQL(), op, anyCount)
		}
	}
}
