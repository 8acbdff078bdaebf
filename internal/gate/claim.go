package gate

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
)

// A claim is a row that says that a session builds the gate, or takes it away. Several
// may build; who takes away is alone. A claim ends with its session. The table's lock,
// which nobody but agents can have, keeps claims apart for a moment.
const (
	claims     = `twinspan.gate_claim`
	makeClaims = `CREATE UNLOGGED TABLE IF NOT EXISTS twinspan.gate_claim (pid int NOT NULL, began timestamptz NOT NULL, takes boolean NOT NULL)`
)

const (
	// claimWait is the longest that agents keep each other waiting for the lock of claims.
	claimWait = 5 * time.Second
	// claimPatience is how long who takes the gate away waits for those that build it, and
	// who builds it for the end of a session that it has cut off.
	claimPatience = 30 * time.Second
	claimPause    = 20 * time.Millisecond
)

// live is the condition of claims whose session lives.
const live = `EXISTS (SELECT FROM pg_catalog.pg_stat_activity a WHERE a.pid = c.pid AND a.backend_start = c.began)`

// inClaims runs f in a transaction that alone looks at claims.
func inClaims(ctx context.Context, conn *pgx.Conn, f func(tx pgx.Tx) error) error {
	var have bool
	if err := conn.QueryRow(ctx, `SELECT pg_catalog.to_regclass('`+claims+`') IS NOT NULL`).Scan(&have); err != nil {
		return pg.Classify(err, "look for claims of the gate")
	}
	if !have {
		_, err := conn.Exec(ctx, makeClaims+catalog.PrivateSQL)
		// Another link of the database may be making it.
		if state := pg.SQLState(err); err != nil && state != "23505" && state != "42P07" {
			return pg.Classify(err, "make the table of claims")
		}
	}
	return pg.InTx(ctx, conn, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `SET LOCAL lock_timeout = `+milliseconds(claimWait)+`; LOCK TABLE `+claims+` IN SHARE ROW EXCLUSIVE MODE;
			DELETE FROM `+claims+` c WHERE NOT `+live)
		if err != nil {
			return pg.Classify(err, "claim the gate")
		}
		return f(tx)
	})
}

func claim(ctx context.Context, tx pgx.Tx, takes bool) error {
	_, err := tx.Exec(ctx, `DELETE FROM `+claims+` WHERE pid = pg_catalog.pg_backend_pid();
		INSERT INTO `+claims+` SELECT pid, backend_start, `+map[bool]string{false: "false", true: "true"}[takes]+`
		FROM pg_catalog.pg_stat_activity WHERE pid = pg_catalog.pg_backend_pid()`)
	return pg.Classify(err, "claim the gate")
}

// whileBuilding keeps everybody from taking the gate away as long as the session lives:
// until what calls for the gate is stored. f runs while nobody else builds. Who is about
// to take the gate away is cut off, for whoever builds it is in a hurry.
func whileBuilding(ctx context.Context, conn *pgx.Conn, f func(tx pgx.Tx) error) error {
	return untilFree(ctx, problem.New(problem.Transient, "gate_in_use", "the gate is being taken away, by a session that does not end"), func() (free bool, err error) {
		err = inClaims(ctx, conn, func(tx pgx.Tx) error {
			var takers int
			err := tx.QueryRow(ctx, `SELECT count(pg_catalog.pg_terminate_backend(c.pid)) FROM `+claims+` c WHERE c.takes AND c.pid <> pg_catalog.pg_backend_pid()`).Scan(&takers)
			if err != nil || takers > 0 {
				return pg.Classify(err, "cut off who takes the gate away")
			}
			if err := claim(ctx, tx, false); err != nil {
				return err
			}
			free = true
			return f(tx)
		})
		return free, err
	})
}

// claimAlone claims to take the gate away, and waits for those that build it.
func claimAlone(ctx context.Context, conn *pgx.Conn) error {
	return untilFree(ctx, problem.New(problem.Transient, "gate_in_use", "the gate is being built for another link of the database"), func() (free bool, err error) {
		err = inClaims(ctx, conn, func(tx pgx.Tx) error {
			var others int
			err := tx.QueryRow(ctx, `SELECT count(*) FROM `+claims+` WHERE pid <> pg_catalog.pg_backend_pid()`).Scan(&others)
			if err != nil || others > 0 {
				return pg.Classify(err, "look who builds the gate")
			}
			free = true
			return claim(ctx, tx, true)
		})
		return free, err
	})
}

// untilFree repeats try until it is free, fails, or has taken too long.
func untilFree(ctx context.Context, late *problem.Error, try func() (free bool, err error)) error {
	end := time.Now().Add(claimPatience)
	for {
		free, err := try()
		if err != nil || free {
			return err
		}
		if time.Now().After(end) {
			return late
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(claimPause):
		}
	}
}

// Needed says whether a link of the database other than one, or a cutover, calls for
// the gate: one that is secondary, or changes places.
func Needed(ctx context.Context, q Querier, besides string) (needed bool, err error) {
	err = q.QueryRow(ctx, `SELECT to_regprocedure('twinspan.release()') IS NOT NULL OR EXISTS (SELECT FROM twinspan.link
		WHERE (role = 'secondary' OR phase IN ('failing_over', 'fenced') OR diverged) AND id::text <> $1)`, besides).Scan(&needed)
	return needed, pg.Classify(err, "look who needs the gate")
}
