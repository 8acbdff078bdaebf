package apply

import (
	"bytes"
	"fmt"
	"math/bits"
	"strings"

	"github.com/twinspan/twinspan/internal/group"
	"github.com/twinspan/twinspan/internal/pgoutput"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// Many rows of a table without a key are deleted by one statement that joins them with
// the table, by hash or by an index, whatever the planner finds best for their number.
const (
	joinOn = `SELECT pg_catalog.set_config('plan_cache_mode', 'force_custom_plan', true), pg_catalog.set_config('enable_seqscan', 'on', true),
		pg_catalog.set_config('enable_hashjoin', 'on', true)`
	joinOff = `SELECT pg_catalog.set_config('plan_cache_mode', 'force_generic_plan', true), pg_catalog.set_config('enable_seqscan', 'off', true),
		pg_catalog.set_config('enable_hashjoin', 'off', true)`
)

// writeWholeDeletes deletes rows of a table without a key.
func (e *engine) writeWholeDeletes(r *relation, rows []group.Row, text, mixed bool) {
	null := nullsOf(r, rows)
	if mixed || len(rows) < fewRows || r.only == "" || !r.arrayable(nil, text) {
		e.deleteEach(r, rows)
		return
	}
	e.w.shape = appendColumns(append(e.w.shape[:0], 'Y', bit(text)), null)
	st := r.statement(e.w.shape, func() *statement { return r.wholeDeleteStatement(null, text) })
	e.s.exec(joinOn, opSet, anyCount)
	for len(rows) > 0 {
		var distinct []group.Row
		var counts []int
		n := 0
		for ; n < len(rows); n++ {
			switch {
			case n > 0 && bytes.Equal(rows[n], rows[n-1]):
				counts[len(counts)-1]++
				continue
			case len(distinct) == maxRows:
			default:
				distinct, counts = append(distinct, rows[n]), append(counts, 1)
				continue
			}
			break
		}
		e.w.counted(r, st, distinct, counts, int64(n), text)
		rows = rows[n:]
	}
	e.s.exec(joinOff, opSet, anyCount)
}

// deleteEach deletes rows by a statement for each. Those that are the same in every byte go together, for
// each statement reads the table: as many at a time as a power of two says, so that statements are few.
func (e *engine) deleteEach(r *relation, rows []group.Row) {
	counts := make(map[string]int, len(rows))
	for _, row := range rows {
		counts[string(row)]++
	}
	for _, row := range rows {
		n := counts[string(row)]
		delete(counts, string(row))
		for n > 0 {
			some := 1 << (bits.Len(uint(n)) - 1)
			e.w.deleteSome(r, row, some, opSet)
			n -= some
		}
	}
}

// nullsOf returns the columns that are NULL in any of the rows.
func nullsOf(r *relation, rows []group.Row) group.Columns {
	null := make(group.Columns, (len(r.columns)+63)/64)
	for _, row := range rows {
		b := []byte(row)
		for c := 0; len(b) > 0; c++ {
			if b[0] == pgoutput.Null {
				null[c/64] |= 1 << (c % 64)
			}
			_, b = pgoutput.Next(b)
		}
	}
	return null
}

// joined are the columns by which whole rows can be joined: those with an equality that
// are never NULL.
func (r *relation) joined(null group.Columns) []int {
	var out []int
	for _, c := range r.written {
		if r.columns[c].known() && !null.Has(c) {
			out = append(out, c)
		}
	}
	return out
}

// wholeText is the text of values together, as their types' output functions write them.
func wholeText(values []string) string {
	return "CAST(pg_catalog.record_out(ROW(" + strings.Join(values, ", ") + ")) AS pg_catalog.text)"
}

// wholeDeleteStatement deletes rows of a table without a key, each as often as the last
// parameter says. It finds only rows that are the same in every byte; where there are too
// few of them, the number of deleted rows tells, and they are deleted one by one.
func (r *relation) wholeDeleteStatement(null group.Columns, text bool) *statement {
	arrays, names := make([]string, 0, len(r.written)+1), make([]string, 0, len(r.written)+2)
	var here, there, on []string
	for i, c := range r.written {
		col := r.columns[c]
		array := col.array
		if text {
			array = "pg_catalog._" + col.textFrom
		}
		arrays, names = append(arrays, fmt.Sprintf("$%d::%s", i+1, array)), append(names, fmt.Sprintf("c%d", c))
		here = append(here, "x."+sqlname.Quote(col.name)+"::"+col.typ)
		there = append(there, fmt.Sprintf("v.c%d::%s", c, col.typ))
	}
	for _, c := range r.joined(null) {
		on = append(on, r.equalsElement("x", c, text))
	}
	arrays, names = append(arrays, fmt.Sprintf("$%d::pg_catalog._int4", len(r.written)+1)), append(names, "n", "o")
	if len(on) == 0 { // rows that are the same in every byte have the same text, by which they can be hashed
		on = append(on, wholeText(here)+" OPERATOR(pg_catalog.=) "+wholeText(there))
	}
	on = append(on, "pg_catalog.record_image_eq(ROW("+strings.Join(here, ", ")+"), ROW("+strings.Join(there, ", ")+"))")
	return r.setStatement(r.written, "DELETE FROM "+r.sql()+" AS t WHERE t.ctid OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT f.ctid FROM"+
		" (SELECT x.ctid, v.n, pg_catalog.row_number() OVER (PARTITION BY v.o) AS k FROM "+r.sql()+" AS x JOIN unnest("+strings.Join(arrays, ", ")+
		") WITH ORDINALITY AS v ("+strings.Join(names, ", ")+") ON "+strings.Join(on, " AND ")+") AS f WHERE f.k <= f.n))")
}
