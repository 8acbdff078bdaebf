package schema

import (
	"context"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/rights"
)

// there are the SQLSTATEs of statements that make what is there: duplicate_table,
// duplicate_object, duplicate_function, duplicate_schema, duplicate_column,
// invalid_table_definition (a second primary key), wrong_object_type (a partition
// already), object_not_in_prerequisite_state (an identity column already).
var there = [...]string{"42P07", "42710", "42723", "42P06", "42701", "42P16", "42809", "55000"}

// Fill makes those objects of a section of the dump that the database lacks, and
// missing roles before the first, and leaves what is there. It can be repeated. What
// cannot be made is passed over; the first such failure is returned as refused, for
// whoever compares the schemas afterwards and finds something missing.
func (t *Target) Fill(ctx context.Context, dump *Dump, section Section) (refused, err error) {
	var ordinary []rights.Setting
	if section == PostData {
		if ordinary, err = t.ordinary(ctx); err != nil {
			return nil, err
		}
	}
	conn, err := t.connect(ctx, ordinary...)
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if section == PreData {
		err := pg.InTx(ctx, conn, func(tx pgx.Tx) error {
			_, err := createRoles(ctx, tx, dump.Roles)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	adapt, err := adapted(ctx, conn)
	if err != nil {
		return nil, err
	}
	for _, e := range dump.Entries {
		if e.Section != section {
			continue
		}
		e.SQL = adapt(e)
		err := conn.PgConn().Exec(ctx, rights.Hushed(string(e.SQL))).Close()
		for again, left := withoutUnknown(e, err); left != ""; again, left = withoutUnknown(e, err) {
			e = again
			err = conn.PgConn().Exec(ctx, rights.Hushed(string(e.SQL))).Close()
		}
		if err == nil || slices.Contains(there[:], pg.SQLState(err)) {
			continue
		}
		err = entryError(err, e)
		if problem.Retry(err) || problem.KindOf(err) == problem.Cancelled {
			return nil, err
		}
		if refused == nil {
			refused = err
		}
	}
	return refused, nil
}
