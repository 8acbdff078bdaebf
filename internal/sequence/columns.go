package sequence

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// window is how far beyond a sequence a column's values are believed to come from
// it: rows with made-up keys, like the largest integer, must not end it.
const window = 1_000_000_000

// feed is a column that takes its values from a sequence.
type feed struct {
	Column string
	Table  sqlname.Table
	Sequence
}

// BehindColumns returns, for each sequence that owns a column or is its default,
// whose column holds values that the sequence has not handed out yet, the state
// behind them: rows arrived that the last look at the primary's sequence did not
// know of. Only columns that an index leads to are looked at, others cost a scan.
func BehindColumns(ctx context.Context, conn *pgx.Conn, sequences []Sequence) ([]Sequence, error) {
	feeds, err := feeds(ctx, conn, sequences)
	if err != nil {
		return nil, pg.Classify(err, "look for columns that sequences feed")
	}
	furthest := map[sqlname.Table]Sequence{}
	for part := range slices.Chunk(feeds, atOnce) {
		batch := &pgx.Batch{}
		for _, f := range part {
			batch.Queue(f.sql())
		}
		results := conn.SendBatch(ctx, batch)
		for _, f := range part {
			var value *int64
			if err := results.QueryRow().Scan(&value); err != nil {
				results.Close()
				return nil, pg.Classify(err, "read the last value of a column")
			}
			if value == nil {
				continue
			}
			best, known := furthest[f.Name]
			if !known {
				best = f.Sequence
			}
			to := State{Last: *value, IsCalled: true}
			if _, ahead := f.Calls(best.State, to); ahead && to != best.State {
				best.State = to
				furthest[f.Name] = best
			}
		}
		if err := results.Close(); err != nil {
			return nil, pg.Classify(err, "read the last value of a column")
		}
	}
	behind := make([]Sequence, 0, len(furthest))
	for _, s := range furthest {
		behind = append(behind, s)
	}
	return behind, nil
}

// sql asks for the furthest value of the column that the sequence may have given.
func (f feed) sql() string {
	left := f.Left(f.State)
	bound := f.Ahead(f.State, min(left, max(left/16, smallest), window)).Last
	column := sqlname.Quote(f.Column)
	if f.Increment > 0 {
		return fmt.Sprintf("SELECT max(%[1]s)::bigint FROM %[2]s WHERE %[1]s >= %[3]d AND %[1]s <= %[4]d", column, f.Table.SQL(), f.Last, bound)
	}
	return fmt.Sprintf("SELECT min(%[1]s)::bigint FROM %[2]s WHERE %[1]s <= %[3]d AND %[1]s >= %[4]d", column, f.Table.SQL(), f.Last, bound)
}

// feeds lists the integer columns that take values from the sequences, by owning
// them or by their default, and that are first in an index.
func feeds(ctx context.Context, conn *pgx.Conn, sequences []Sequence) ([]feed, error) {
	known := map[sqlname.Table]Sequence{}
	for _, s := range sequences {
		if !s.Cycle {
			known[s.Name] = s
		}
	}
	rows, err := conn.Query(ctx, `
		WITH f AS (
			SELECT d.objid AS seq, d.refobjid AS rel, d.refobjsubid AS num FROM pg_catalog.pg_depend d
			 WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjsubid > 0 AND d.deptype IN ('a', 'i')
			UNION
			SELECT d.refobjid, a.adrelid, a.adnum FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_attrdef a ON a.oid = d.objid
			 WHERE d.classid = 'pg_catalog.pg_attrdef'::regclass AND d.refclassid = 'pg_catalog.pg_class'::regclass
		)
		SELECT DISTINCT sn.nspname, s.relname, a.attname, tn.nspname, t.relname
		  FROM f JOIN pg_catalog.pg_class s ON s.oid = f.seq AND s.relkind = 'S' JOIN pg_catalog.pg_namespace sn ON sn.oid = s.relnamespace
		  JOIN pg_catalog.pg_class t ON t.oid = f.rel AND t.relkind IN ('r', 'p') JOIN pg_catalog.pg_namespace tn ON tn.oid = t.relnamespace
		  JOIN pg_catalog.pg_attribute a ON a.attrelid = t.oid AND a.attnum = f.num AND a.atttypid IN (20, 21, 23)
		 WHERE EXISTS (SELECT FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid JOIN pg_catalog.pg_am m ON m.oid = x.relam AND m.amname = 'btree'
		               WHERE i.indrelid = t.oid AND i.indkey[0] = f.num AND i.indisvalid AND i.indpred IS NULL)`)
	if err != nil {
		return nil, err
	}
	var all []feed
	var name sqlname.Table
	var f feed
	_, err = pgx.ForEachRow(rows, []any{&name.Schema, &name.Name, &f.Column, &f.Table.Schema, &f.Table.Name}, func() error {
		if s, ok := known[name]; ok {
			f.Sequence = s
			all = append(all, f)
		}
		return nil
	})
	return all, err
}
