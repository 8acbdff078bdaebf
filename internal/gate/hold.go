package gate

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
)

// lock is the advisory lock of gate.sql.
const lock int64 = 0x7477696e67617465

const (
	// endPatience is how long Take waits for transactions that it has ended.
	endPatience = 5 * time.Second
	// lookEvery is how often Take looks for what it has to wait for besides the lock.
	lookEvery = 20 * time.Millisecond
)

// Hold keeps a primary's writers waiting at the gate. It lives as long as its
// session: whatever ends that lets the writers go on.
type Hold struct {
	conn *pgx.Conn
	// Ended is how many transactions did not finish in time and were ended.
	Ended int
	// Since is when writers began to wait.
	Since time.Time
}

// Take lets writing transactions finish, and none begin, on a primary whose gate is
// staged. When it returns, no transaction that has written is open. Those that are
// not finished after drain are ended; with prepared ones, which cannot be, Take
// fails. A failed Take lets the writers go on.
func Take(ctx context.Context, dsn *pg.DSN, link string, drain time.Duration) (*Hold, error) {
	conn, err := dsn.Connect(ctx, pg.Session{Name: link + "/hold", Apply: true, Settings: map[string]string{
		// It never is the one that a deadlock is resolved by: queues are rearranged in
		// favour of the others (deadlock.c).
		"deadlock_timeout": "1h",
		"lock_timeout":     fmt.Sprint((drain + endPatience).Milliseconds()),
	}})
	if err != nil {
		return nil, err
	}
	h := &Hold{conn: conn, Since: time.Now()}
	if err := h.take(ctx, dsn, link, drain); err != nil {
		conn.Close(context.WithoutCancel(ctx))
		return nil, err
	}
	return h, nil
}

func (h *Hold) take(ctx context.Context, dsn *pg.DSN, link string, drain time.Duration) error {
	ctx, stop := context.WithTimeoutCause(ctx, 2*(drain+endPatience), problem.New(problem.Transient, "drain_failed", "writing transactions did not end"))
	defer stop()
	end := ender{dsn: dsn, link: link, after: drain}
	err := end.during(ctx, h, holders, func() error {
		_, err := h.conn.Exec(ctx, `SELECT pg_advisory_lock($1)`, lock)
		return err
	})
	if err != nil {
		if p := end.prepared(ctx); p != nil {
			return p
		}
		return pg.Classify(err, "wait for writing transactions to finish")
	}
	// Tables that were made since the gate was: whoever writes to one has not passed it.
	if _, err := h.conn.Exec(ctx, EnsureSQL); err != nil {
		return pg.Classify(err, "shut the gate of new tables")
	}
	return h.settleBesides(ctx, end)
}

// Settle lets transactions finish that change large objects and began while writers
// were held: none waits at the gate, as no trigger sees them. Those that are not
// finished after drain are ended.
func (h *Hold) Settle(ctx context.Context, dsn *pg.DSN, link string, drain time.Duration) error {
	ctx, stop := context.WithTimeoutCause(ctx, drain+endPatience, problem.New(problem.Transient, "drain_failed", "writing transactions did not end"))
	defer stop()
	return h.settleBesides(ctx, ender{dsn: dsn, link: link, after: drain})
}

func (h *Hold) settleBesides(ctx context.Context, end ender) error {
	return end.during(ctx, h, besides, func() error { return h.settle(ctx) })
}

// settle waits until nothing is busy besides.
func (h *Hold) settle(ctx context.Context) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		var busy int
		err := h.conn.QueryRow(ctx, `SELECT count(*) FROM (`+besides+`) x`, h.conn.PgConn().PID(), lock).Scan(&busy)
		if err != nil || busy == 0 {
			return pg.Classify(err, "look for transactions that write")
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// holders are the sessions that have passed the gate and not finished.
const holders = `SELECT pid FROM pg_locks WHERE granted AND pid <> $1 AND pid <> pg_backend_pid() AND ` + advisory + `$2`

// advisory is the condition of pg_locks for an advisory lock of this database whose
// number follows.
const advisory = `locktype = 'advisory' AND objsubid = 1 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
	AND (classid::bigint << 32 | objid::bigint) = `

// besides are the sessions that change what no trigger guards: large objects, and
// indexes that are built in several transactions. One that waits at the gate
// changes nothing. Who writes a large object keeps its catalog locked (inv_api.c,
// open_lo_relation), who removes one or comments on it the object; who has only made
// an empty one keeps nothing.
const besides = `SELECT a.pid FROM pg_stat_activity a WHERE a.datname = current_database() AND a.pid <> $1 AND a.pid <> pg_backend_pid() AND a.backend_type = 'client backend'
	AND NOT EXISTS (SELECT FROM pg_locks l WHERE l.pid = a.pid AND l.locktype = 'advisory' AND NOT l.granted AND (l.classid::bigint << 32 | l.objid::bigint) = $2)
	AND (a.query ILIKE '%concurrently%' AND a.state = 'active'
	     OR a.backend_xid IS NOT NULL AND EXISTS (SELECT FROM pg_locks l WHERE l.pid = a.pid
	        AND (l.relation = 'pg_largeobject'::regclass AND l.mode = 'RowExclusiveLock' OR l.locktype = 'object' AND l.classid = 'pg_largeobject'::regclass)))`

// Conn is the session that holds: as long as that lives, nobody has written. It is
// the hold's to close.
func (h *Hold) Conn() *pgx.Conn { return h.conn }

// Release lets the writers go on, or be refused, as the gate's state says.
func (h *Hold) Release(ctx context.Context) { h.conn.Close(ctx) }

// ender ends the sessions that are waited for, from a session of its own: the other
// waits.
type ender struct {
	dsn   *pg.DSN
	link  string
	after time.Duration
}

// during runs f, and ends the sessions that a query names when it takes too long.
func (e ender) during(ctx context.Context, h *Hold, who string, f func() error) error {
	done, ended := make(chan struct{}), make(chan int, 1)
	go func() { ended <- e.end(ctx, done, h.conn.PgConn().PID(), who) }()
	err := f()
	close(done)
	h.Ended += <-ended
	return err
}

func (e ender) end(ctx context.Context, done <-chan struct{}, spared uint32, who string) (ended int) {
	for wait := e.after; ; wait = time.Second {
		select {
		case <-done:
			return ended
		case <-ctx.Done():
			return ended
		case <-time.After(wait):
		}
		var n int
		err := e.with(ctx, func(conn *pgx.Conn) error {
			return conn.QueryRow(ctx, `SELECT count(pg_terminate_backend(pid)) FROM (`+who+`) x`, spared, lock).Scan(&n)
		})
		if err == nil {
			ended += n
		}
	}
}

func (e ender) with(ctx context.Context, f func(conn *pgx.Conn) error) error {
	conn, err := e.dsn.Connect(ctx, pg.Session{Name: e.link + "/drain"})
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	return f(conn)
}

// prepared says which prepared transaction stands in the way, if one does.
func (e ender) prepared(ctx context.Context) error {
	var gid string
	err := e.with(context.WithoutCancel(ctx), func(conn *pgx.Conn) error {
		return conn.QueryRow(ctx, `SELECT gid FROM pg_prepared_xacts WHERE database = current_database() ORDER BY prepared LIMIT 1`).Scan(&gid)
	})
	if err != nil {
		return nil
	}
	return problem.New(problem.Conflict, "transaction_prepared", "the prepared transaction %q is not finished", gid).On(gid).
		WithHint("finish it: COMMIT PREPARED or ROLLBACK PREPARED")
}
