package pg

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
)

// commandPatience is the longest that AwaitCommands waits. A command that has chosen its
// triggers runs them in milliseconds; only one that was at work for other reasons, such as
// a report, takes longer.
const commandPatience = 3 * time.Second

// AwaitCommands waits until the commands have ended that run in the database at this
// moment, for three seconds at most. Call it between dropping an event trigger and
// dropping what the trigger needs: a command chooses its event triggers and then runs them
// (event_trigger.c, EventTriggerCommonSetup) and locks neither them nor their functions,
// so that it would fail for want of what was dropped meanwhile.
//
// Sessions that wait for a lock of the schema twinspan, which may be the caller's, are not
// waited for.
// Whether a session of another role is idle in its transaction is told to superusers and
// members of pg_read_all_stats only; for others it counts as a command.
func AwaitCommands(ctx context.Context, conn *pgx.Conn) error {
	// A session's transaction and the time of its command tell the command.
	const running = `SELECT coalesce(array_agg(l.virtualtransaction || coalesce(a.query_start::text, '')), '{}')
		FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
		WHERE l.locktype = 'virtualxid' AND l.mode = 'ExclusiveLock' AND l.granted AND l.pid <> pg_catalog.pg_backend_pid()
		AND a.datname = pg_catalog.current_database() AND coalesce(a.state, '') NOT LIKE 'idle%'
		AND a.backend_type IS DISTINCT FROM 'autovacuum worker' AND NOT EXISTS (SELECT FROM pg_catalog.pg_locks w WHERE w.pid = l.pid AND NOT w.granted
		AND w.relation IN (SELECT oid FROM pg_catalog.pg_class WHERE relnamespace = pg_catalog.to_regnamespace('twinspan')))`
	const among = `SELECT coalesce(array_agg(c), '{}') FROM unnest((` + running + `)) c WHERE c = ANY ($1)`
	end := time.Now().Add(commandPatience)
	var left []string
	err := conn.QueryRow(ctx, running).Scan(&left)
	for pause := time.Millisecond; err == nil && len(left) > 0 && time.Now().Before(end); pause = min(2*pause, 50*time.Millisecond) {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pause):
		}
		err = conn.QueryRow(ctx, among, left).Scan(&left)
	}
	return Classify(err, "wait for running commands")
}
