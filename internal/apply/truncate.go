package apply

import (
	"context"
	"strconv"
	"strings"

	"github.com/twinspan/twinspan/internal/group"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// parentsSQL lists the partitioned tables all of whose partitions are among those of $1,
// an array of oids written as text: emptying them empties nothing else.
const parentsSQL = `
WITH RECURSIVE given AS (
    SELECT g AS oid FROM pg_catalog.unnest($1::pg_catalog._oid) g
), up AS (
    SELECT g.oid FROM given g
    UNION SELECT i.inhparent FROM up u JOIN pg_catalog.pg_class c ON c.oid = u.oid AND c.relispartition JOIN pg_catalog.pg_inherits i ON i.inhrelid = c.oid
), down AS (
    SELECT u.oid AS parent, u.oid FROM up u JOIN pg_catalog.pg_class c ON c.oid = u.oid AND c.relkind = 'p'
    UNION SELECT d.parent, i.inhrelid FROM down d JOIN pg_catalog.pg_inherits i ON i.inhparent = d.oid
)
SELECT n.nspname, c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.oid IN (SELECT d.parent FROM down d JOIN pg_catalog.pg_class x ON x.oid = d.oid
                  GROUP BY d.parent HAVING pg_catalog.bool_and(x.relkind = 'p' OR x.oid IN (SELECT g.oid FROM given g)))
   AND c.oid NOT IN (SELECT g.oid FROM given g)
 ORDER BY c.oid`

// mayTruncate says whether a TRUNCATE that the server refused may succeed in another
// form, and gives it that form. The stream names partitions and never the partitioned
// table that another one refers to, or that refers to it, and whose TRUNCATE is what the
// primary let pass (heap.c, heap_truncate_check_FKs). So the tables are emptied together
// with the partitioned ones that hold no other rows; where that is refused, too, rows
// are deleted, which no reference hinders in replica role.
func (e *engine) mayTruncate(ctx context.Context, b *batch, f *failure) (bool, error) {
	if f.op < 0 || f.err == nil || f.err.Code != "0A000" {
		return false, nil
	}
	c := &b.plan.Changes()[f.op]
	if c.Op != group.Truncate || c.Truncate.Alone {
		return false, nil
	}
	set := c.Truncate
	if len(set.With) == 0 {
		list := make([]string, len(set.Tables))
		for i, t := range set.Tables {
			list[i] = strconv.FormatUint(uint64(e.byTable[t].oid), 10)
		}
		rows, err := e.ask(ctx, parentsSQL, "{"+strings.Join(list, ",")+"}")
		if err != nil {
			return false, err
		}
		for _, r := range rows {
			set.With = append(set.With, sqlname.Table{Schema: string(r[0]), Name: string(r[1])}.SQL())
		}
	} else {
		set.With = nil
	}
	set.Alone = len(set.With) == 0
	return true, nil
}

// truncateWith runs a TRUNCATE. It builds the indexes anew, with the rights of their
// table's owner (index.c, reindex_index); where they call functions of users it is to
// have the settings, too.
func (e *engine) truncateWith(tables []*relation, sql string, op int) {
	for _, r := range tables {
		if r.fence != nil {
			e.w.fenced(e.fences.own, nil, []byte(sql), op, anyCount)
			return
		}
	}
	e.s.exec(sql, op, anyCount)
}
