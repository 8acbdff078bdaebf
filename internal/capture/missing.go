package capture

import (
	"context"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/pg"
)

// Standing lists what of that which Prepare makes on a primary is there and works: event
// triggers and the publication, in words for people. An earlier version made others, and
// a role that is no superuser makes no event triggers.
func (s *Source) Standing(ctx context.Context, conn *pgx.Conn) ([]string, error) {
	var names []string
	for _, t := range slices.Concat(eventTriggers[:], schemaTriggers[:]) {
		names = append(names, t.name)
	}
	var there []string
	err := conn.QueryRow(ctx, `SELECT coalesce(array_agg(what ORDER BY what), '{}') FROM (
		SELECT 'the event trigger ' || evtname::text AS what FROM pg_catalog.pg_event_trigger WHERE evtname::text = ANY ($1) AND evtenabled = 'A'
		UNION ALL SELECT 'the publication ' || pubname::text FROM pg_catalog.pg_publication WHERE pubname::text = $2) x`, names, s.Object()).Scan(&there)
	return there, pg.Classify(err, "look at what captures")
}
