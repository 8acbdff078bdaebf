package gate

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/pg"
)

// claim is the advisory lock under which the gate is built, shared, and taken away,
// alone. Links of the same database each see to it.
const claim = lock + 1

// building is the advisory lock of whoever makes the gate's functions.
const building = lock + 2

// claimPause is between two attempts to get the claim from whoever takes the gate away.
const claimPause = 20 * time.Millisecond

// holdClaim keeps everybody from taking the gate away as long as the session lives: until
// what calls for the gate is stored. Who is about to take it away is cut off, for
// whoever builds it is in a hurry.
func holdClaim(ctx context.Context, conn *pgx.Conn) error {
	tick := time.NewTicker(claimPause)
	defer tick.Stop()
	for {
		var mine bool
		err := conn.QueryRow(ctx, `SELECT pg_try_advisory_lock_shared($1)`, claim).Scan(&mine)
		if err != nil || mine {
			return pg.Classify(err, "claim the gate")
		}
		_, err = conn.Exec(ctx, `SELECT pg_terminate_backend(pid) FROM pg_locks WHERE mode = 'ExclusiveLock' AND `+advisory+`$1`, claim)
		if err != nil {
			return pg.Classify(err, "cut off who takes the gate away")
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// Needed says whether a link of the database other than one, or a cutover, calls for
// the gate: one that is secondary, or changes places.
func Needed(ctx context.Context, conn *pgx.Conn, besides string) (needed bool, err error) {
	err = conn.QueryRow(ctx, `SELECT to_regprocedure('twinspan.release()') IS NOT NULL OR EXISTS (SELECT FROM twinspan.link
		WHERE (role = 'secondary' OR phase IN ('failing_over', 'fenced') OR diverged) AND id::text <> $1)`, besides).Scan(&needed)
	return needed, pg.Classify(err, "look who needs the gate")
}
