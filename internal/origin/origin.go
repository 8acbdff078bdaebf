// Package origin keeps the replication origin of a link on its secondary, whose position is what
// of the primary's log is applied there (PostgreSQL, origin.c).
package origin

import (
	"context"

	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/pg"
)

// Make makes the origin of a link where it is missing.
func Make(ctx context.Context, q catalog.Querier, link string) error {
	_, err := q.Exec(ctx, `SELECT pg_replication_origin_create($1) WHERE NOT EXISTS (SELECT FROM pg_replication_origin WHERE roname = $1)`, catalog.ObjectName(link))
	return pg.Classify(err, "create the replication origin")
}

// Place lets the origin of a link, which is made where it is missing, stand at a position,
// whatever it stood at: backwards too, where that is one of another log (replorigin_advance). That
// is not undone with the transaction.
func Place(ctx context.Context, q catalog.Querier, link string, position lsn.LSN) error {
	if err := Make(ctx, q, link); err != nil {
		return err
	}
	_, err := q.Exec(ctx, `SELECT pg_replication_origin_advance($1, $2::text::pg_lsn)`, catalog.ObjectName(link), position.String())
	return pg.Classify(err, "set the replication origin")
}

// Drop drops the origin of a link if it is there.
func Drop(ctx context.Context, q catalog.Querier, link string) error {
	_, err := q.Exec(ctx, `SELECT pg_replication_origin_drop(roname) FROM pg_replication_origin WHERE roname = $1`, catalog.ObjectName(link))
	return pg.Classify(err, "drop the replication origin")
}
