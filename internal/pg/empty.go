package pg

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Emptier is what it takes of a session or transaction to look at a table and empty it.
type Emptier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// Referred says whether other tables refer to a table, whose name is quoted: the server
// truncates such only together with them (heap.c, heap_truncate_check_FKs).
func Referred(ctx context.Context, q Emptier, table string) (referred bool, err error) {
	err = q.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_catalog.pg_constraint WHERE contype = 'f' AND confrelid = $1::text::pg_catalog.regclass AND conrelid <> confrelid)`, table).Scan(&referred)
	return referred, Classify(err, "look for foreign keys to "+table)
}
