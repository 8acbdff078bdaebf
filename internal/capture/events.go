package capture

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/pg"
)

// Follows says whether schema changes are put into the stream: the event triggers
// are there and fire for everybody. Servers since 17 have a setting event_triggers
// that keeps all of them from firing.
func Follows(ctx context.Context, conn *pgx.Conn) (bool, error) {
	var names []string
	for _, t := range schemaTriggers {
		names = append(names, t.name)
	}
	var follows bool
	// Agents switch them off for themselves: what counts is what other sessions begin with.
	err := conn.QueryRow(ctx, `SELECT count(*) = $2 AND coalesce((SELECT reset_val FROM pg_catalog.pg_settings WHERE name = 'event_triggers'), 'on') = 'on'
		FROM pg_catalog.pg_event_trigger WHERE evtname = ANY ($1) AND evtenabled = 'A'`, names, len(names)).Scan(&follows)
	return follows, pg.Classify(err, "look for the event triggers")
}
