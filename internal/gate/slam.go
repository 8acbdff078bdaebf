package gate

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/sqlname"
)

const (
	// slamPause is between two attempts to shut a table that is written to.
	slamPause = 50 * time.Millisecond
	// slamPatience is how long a gate may take to be shut before everybody is kept out.
	slamPatience = 10 * time.Second
	// lookPatience is how often it is told what keeps a gate from being shut.
	lookPatience = time.Second
)

// writing are the sessions that have written, or have locked something for writing, or
// wait for that; everybody are all that are not agents'.
const (
	everybody = `SELECT a.pid FROM pg_stat_activity a WHERE a.datname = current_database() AND a.pid <> pg_backend_pid() AND a.backend_type = 'client backend' AND NOT ` + ours
	writing   = everybody + ` AND (a.backend_xid IS NOT NULL OR EXISTS (SELECT FROM pg_locks l WHERE l.pid = a.pid AND l.locktype = 'relation' AND l.relation >= 16384
		AND l.mode IN ('RowExclusiveLock', 'ShareUpdateExclusiveLock', 'ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')))`
)

// EndSessions ends the sessions of the database that are not agents', and returns how
// many. Those of before the gate was shut are read/write by default: they could draw
// numbers from sequences, which no trigger sees.
func EndSessions(ctx context.Context, q Querier) (ended int, err error) {
	err = q.QueryRow(ctx, `SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM (`+everybody+`) x`).Scan(&ended)
	return ended, pg.Classify(err, "end the sessions of the database")
}

// Slam shuts the gate of every table of a database that is written to, and ends every
// transaction that has written: what they have done must not be committed here any
// more. The gate has to be there and to refuse (Shut). It can be repeated, and goes on
// until it has done that or ctx ends. note is told what is in the way, and nil when
// nothing is any more.
//
// A prepared transaction cannot be ended. While it, or anything else, keeps a table open
// for longer than ten seconds, the database takes no connections but those of
// superusers, and all others are ended.
func Slam(ctx context.Context, conn *pgx.Conn, note func(*problem.Error)) error {
	if _, err := conn.Exec(ctx, `SET lock_timeout = '500ms'`); err != nil {
		return pg.Classify(err, "shut the gate of every table")
	}
	began, told, restricted := time.Now(), time.Time{}, false
	for {
		who := writing
		if time.Since(began) > slamPatience && !restricted {
			if err := restrict(ctx, conn); err != nil {
				return err
			}
			// Once: a superuser has to come in and finish what is in the way.
			who, restricted = everybody, true
		}
		if _, err := conn.Exec(ctx, `SELECT pg_terminate_backend(pid) FROM (`+who+`) x`); err != nil {
			return pg.Classify(err, "end transactions that write")
		}
		err := shutEach(ctx, conn)
		if code := problem.CodeOf(err); err != nil && code != "lock_not_available" && code != "serialization_failure" {
			return err
		}
		var prepared []pg.Holder
		if err == nil || time.Since(told) > lookPatience {
			var looked error
			if prepared, looked = pg.Prepared(ctx, conn, conn.Config().Database); looked != nil {
				return looked
			}
		}
		if err == nil && len(prepared) == 0 {
			note(nil)
			return lift(ctx, conn)
		}
		if time.Since(told) > lookPatience {
			told = time.Now()
			note(unshut(conn, err, prepared, restricted))
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(slamPause):
		}
	}
}

// shutEach shuts the gate of each table that lacks it, so that those that can be shut are,
// whatever becomes of the others. It returns what the last of these failed with.
func shutEach(ctx context.Context, conn *pgx.Conn) error {
	rows, err := conn.Query(ctx, `SELECT c.oid`+openTables)
	if err != nil {
		return pg.Classify(err, "list tables")
	}
	tables, err := pgx.CollectRows(rows, pgx.RowTo[uint32])
	if err != nil {
		return pg.Classify(err, "list tables")
	}
	for _, t := range tables {
		_, failed := conn.Exec(ctx, `SELECT pg_terminate_backend(pid) FROM (`+writing+`) x`)
		if failed == nil {
			_, failed = conn.Exec(ctx, `SELECT twinspan.shut_gate($1)`, t)
		}
		if failed != nil && !settled(failed) {
			err = pg.Classify(failed, "shut the gate of every table")
			if problem.CodeOf(err) != "lock_not_available" {
				return err
			}
		}
	}
	return err
}

// unshut says what keeps the gate from being shut.
func unshut(conn *pgx.Conn, err error, prepared []pg.Holder, restricted bool) *problem.Error {
	what := "writes may still come in"
	if restricted {
		what += fmt.Sprintf(", and database %q takes no connections but superusers'", conn.Config().Database)
	}
	if p := pg.Waited(what, prepared); p != nil {
		return p
	}
	if err == nil {
		return nil
	}
	return problem.Wrap(err, problem.Transient, "gate_not_shut", "%s: the gate of some table cannot be shut", what).On(conn.Config().Database).
		WithHint("it is tried until it is shut; see pg_locks for who keeps a table locked")
}

// restrict lets nobody connect but superusers. What the limit was is kept.
func restrict(ctx context.Context, conn *pgx.Conn) error {
	return pg.Insist(ctx, conn, lookPatience, func() error {
		return limit(ctx, conn, `INSERT INTO twinspan.gate_limit (id, was) SELECT 1, datconnlimit FROM pg_database
			WHERE datname = current_database() ON CONFLICT DO NOTHING`, 0)
	})
}

// lift takes back what restrict did.
func lift(ctx context.Context, conn *pgx.Conn) error {
	var was *int
	err := conn.QueryRow(ctx, `SELECT max(was) FROM twinspan.gate_limit`).Scan(&was)
	if err != nil || was == nil {
		return pg.Classify(err, "look for the limit of connections")
	}
	return pg.Insist(ctx, conn, lookPatience, func() error { return limit(ctx, conn, `DELETE FROM twinspan.gate_limit`, *was) })
}

func limit(ctx context.Context, conn *pgx.Conn, note string, connections int) error {
	return pg.InTx(ctx, conn, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `SET LOCAL lock_timeout = '10s'; `+note)
		if err == nil {
			_, err = tx.Exec(ctx, fmt.Sprintf(`ALTER DATABASE %s CONNECTION LIMIT %d`, sqlname.Quote(conn.Config().Database), connections))
		}
		return pg.Classify(err, "limit the connections to the database")
	})
}
