package gate

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
)

// slamPause is between two attempts to shut a table that is written to.
const slamPause = 50 * time.Millisecond

// Slam shuts the gate of a database that is written to, and ends every transaction
// that has written: what they have done must not be committed here any more. It
// can be repeated. The gate has to be there and to refuse (Shut).
func Slam(ctx context.Context, conn *pgx.Conn) error {
	for {
		// Those that have locked something for writing, and those that wait for it.
		_, err := conn.Exec(ctx, `SELECT pg_terminate_backend(a.pid) FROM pg_stat_activity a
			WHERE a.datname = current_database() AND a.pid <> pg_backend_pid() AND a.backend_type = 'client backend' AND a.application_name NOT LIKE 'twinspan/%'
			  AND (a.backend_xid IS NOT NULL OR EXISTS (SELECT FROM pg_locks l WHERE l.pid = a.pid AND l.locktype = 'relation' AND l.relation >= 16384
			       AND l.mode IN ('RowExclusiveLock', 'ShareUpdateExclusiveLock', 'ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')))`)
		if err != nil {
			return pg.Classify(err, "end transactions that write")
		}
		_, err = conn.Exec(ctx, `SET lock_timeout = '500ms'`)
		if err == nil {
			_, err = conn.Exec(ctx, EnsureSQL)
		}
		err = pg.Classify(err, "shut the gate of every table")
		if code := problem.CodeOf(err); err == nil || code != "lock_not_available" && code != "serialization_failure" {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(slamPause):
		}
	}
}
