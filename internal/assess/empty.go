package assess

import (
	"context"

	"github.com/twinspan/twinspan/internal/pg"
)

// emptySQL counts what a database holds that a new one does not, and says whether it looks like a side of a link. Objects of users
// have OIDs from 16384 (FirstNormalObjectId) on; the schema public may have been
// dropped and made again.
const emptySQL = `WITH own AS (
	SELECT oid FROM pg_namespace WHERE nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
	   AND nspname NOT LIKE 'pg\_temp\_%' AND nspname NOT LIKE 'pg\_toast\_temp\_%')
SELECT (SELECT count(*) FROM pg_class WHERE relnamespace IN (SELECT oid FROM own))
	+ (SELECT count(*) FROM pg_proc WHERE pronamespace IN (SELECT oid FROM own))
	+ (SELECT count(*) FROM pg_type WHERE typnamespace IN (SELECT oid FROM own))
	+ (SELECT count(*) FROM pg_operator WHERE oprnamespace IN (SELECT oid FROM own))
	+ (SELECT count(*) FROM pg_collation WHERE collnamespace IN (SELECT oid FROM own))
	+ (SELECT count(*) FROM pg_conversion WHERE connamespace IN (SELECT oid FROM own))
	+ (SELECT count(*) FROM pg_ts_config WHERE cfgnamespace IN (SELECT oid FROM own))
	+ (SELECT count(*) FROM pg_ts_dict WHERE dictnamespace IN (SELECT oid FROM own))
	+ (SELECT count(*) FROM own JOIN pg_namespace n USING (oid) WHERE n.nspname <> 'public')
	+ (SELECT count(*) FROM pg_cast WHERE oid >= 16384)
	+ (SELECT count(*) FROM pg_foreign_data_wrapper) + (SELECT count(*) FROM pg_foreign_server)
	+ (SELECT count(*) FROM pg_default_acl)
	+ (SELECT count(*) FROM pg_extension WHERE extname <> 'plpgsql')
	+ (SELECT count(*) FROM (SELECT FROM pg_largeobject_metadata LIMIT 1) x)
	+ (SELECT count(*) FROM pg_event_trigger) + (SELECT count(*) FROM pg_publication),
	EXISTS (SELECT FROM pg_class WHERE relnamespace = to_regnamespace('twinspan') AND relname = 'link')`

// Empty says whether a database holds nothing that a user made.
func Empty(ctx context.Context, dsn *pg.DSN) (bool, error) {
	empty, _, err := contents(ctx, dsn)
	return empty, err
}

// contents says whether a database holds nothing that a user made, and whether it looks like a side of a link.
func contents(ctx context.Context, dsn *pg.DSN) (empty, linked bool, err error) {
	conn, err := dsn.Connect(ctx, pg.Session{Name: "check"})
	if err != nil {
		return false, false, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var things int
	err = conn.QueryRow(ctx, emptySQL).Scan(&things, &linked)
	return things == 0, linked, pg.Classify(err, "look whether the database is empty")
}
