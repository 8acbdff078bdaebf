package apply

// writeAndClose sends a batch's changes. Where nothing else is pending and they are few,
// the commit follows in the same exchange, which spares a round trip: the statements are
// then such that each fails by itself unless it hits exactly one row, and behind an error
// the server passes over the commit as over everything else.
func (e *engine) writeAndClose(b *batch) {
	e.w.checked = e.closing && b.ends && b.plan.Sealed() < fewRows
	e.w.unchecked = false
	e.writePlan(b.plan)
	if e.w.checked && !e.w.unchecked {
		end := b.end
		end.position = max(end.position, e.reached)
		end.changes += e.pieces
		b.closed = &end
		e.sendCommit(b.closed, opClose)
		e.inTarget = false
	}
	e.w.checked = false
}

// reopen takes note that a batch failed, and so was not committed with its changes.
func (e *engine) reopen(b *batch) {
	if b.closed != nil {
		b.closed, e.inTarget = nil, true
	}
}

// checkedStatement returns the form of a statement for one row that fails where it would
// change none, or several; nil when it is no statement that changes rows.
func checkedStatement(st *statement) *statement {
	switch st.sql[:min(6, len(st.sql))] {
	case "INSERT", "UPDATE", "DELETE":
		return &statement{sql: "WITH x AS (" + st.sql + " RETURNING 1) SELECT 1 / (pg_catalog.count(*) = 1)::pg_catalog.int4 FROM x", params: st.params}
	}
	return nil
}
