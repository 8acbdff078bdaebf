package gate

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
)

const (
	// endPatience is how long Take waits for transactions that it has ended.
	endPatience = 5 * time.Second
	// lookEvery is how often Take looks for what it has to wait for besides the lock.
	lookEvery = 20 * time.Millisecond
)

// Hold keeps writers waiting at the gate. It lives as long as the session that has the
// gate's lock: whatever ends that lets the writers go on.
type Hold struct {
	lock *pgx.Conn // in a transaction, which has the lock
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
	h, err := newHold(ctx, dsn, link)
	if err != nil {
		return nil, err
	}
	if err := h.take(ctx, dsn, link, drain); err != nil {
		h.Release(context.WithoutCancel(ctx))
		return nil, err
	}
	return h, nil
}

// Await has writers of a secondary wait at its gate, which is to be opened or goes on
// refusing when the hold is released: they come early to a side that is about to be the
// primary. New sessions are read/write by default from then on.
func Await(ctx context.Context, dsn *pg.DSN, link string) (*Hold, error) {
	h, err := newHold(ctx, dsn, link)
	if err != nil {
		return nil, err
	}
	_, err = h.lock.Exec(ctx, `SET LOCAL lock_timeout = `+milliseconds(endPatience)+`; LOCK TABLE twinspan.gate_pass IN EXCLUSIVE MODE`)
	if err == nil {
		err = set(ctx, h.conn, await)
	}
	if err == nil {
		err = ReadWrite(ctx, h.conn)
	}
	if err != nil {
		_ = set(context.WithoutCancel(ctx), h.conn, refuse) // which it does in any case
		h.Release(context.WithoutCancel(ctx))
		return nil, pg.Classify(err, "have writers wait for the change of places")
	}
	return h, nil
}

func newHold(ctx context.Context, dsn *pg.DSN, link string) (*Hold, error) {
	// It never is the one that a deadlock is resolved by: queues are rearranged in
	// favour of the others (deadlock.c).
	patience := fmt.Sprint(endPatience.Milliseconds()) // behind it, whoever has a lock of ours is named
	lock, err := dsn.Connect(ctx, pg.Session{Name: link + "/hold", Apply: true, Settings: map[string]string{"deadlock_timeout": "1h", "lock_timeout": patience}})
	if err != nil {
		return nil, err
	}
	h := &Hold{lock: lock, Since: time.Now()}
	if h.conn, err = dsn.Connect(ctx, pg.Session{Name: link + "/held", Apply: true, Settings: map[string]string{"lock_timeout": patience}}); err == nil {
		_, err = lock.Exec(ctx, `BEGIN`)
	}
	if err != nil {
		h.Release(context.WithoutCancel(ctx))
		return nil, pg.Classify(err, "hold writers")
	}
	return h, nil
}

func (h *Hold) take(ctx context.Context, dsn *pg.DSN, link string, drain time.Duration) error {
	ctx, stop := context.WithTimeoutCause(ctx, drain+2*endPatience, problem.New(problem.Transient, "drain_failed", "writing transactions did not end"))
	defer stop()
	end := ender{dsn: dsn, link: link, after: drain}
	err := end.during(ctx, h, holders, func() error {
		_, err := h.lock.Exec(ctx, `SET LOCAL lock_timeout = `+milliseconds(drain+endPatience)+`; LOCK TABLE twinspan.gate_pass IN EXCLUSIVE MODE`)
		return err
	})
	if err != nil {
		return end.unfinished(ctx, pg.Classify(err, "wait for writing transactions to finish"))
	}
	// Tables that were made since the gate was: whoever writes to one has not passed it.
	err = end.during(ctx, h, blockers, func() error {
		return pg.InTx(ctx, h.conn, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, `SET LOCAL lock_timeout = `+milliseconds(drain+endPatience)+`; `+EnsureSQL)
			return err
		})
	})
	if err != nil {
		return end.unfinished(ctx, pg.Classify(err, "shut the gate of new tables"))
	}
	return h.settleBesides(ctx, end)
}

// Holds fails unless the hold has lasted to this moment: whoever has made the gate
// refuse before it knows then that nobody has passed.
func (h *Hold) Holds(ctx context.Context, q Querier) error {
	var holds bool
	err := q.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_locks WHERE pid = $1 AND granted AND mode = 'ExclusiveLock' AND `+pass+`)`, h.lock.PgConn().PID()).Scan(&holds)
	if err == nil && !holds {
		return problem.New(problem.Transient, "drain_failed", "the session that held the writers was lost").WithHint("try again")
	}
	return pg.Classify(err, "see that writers are held")
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
		err := h.conn.QueryRow(ctx, `SELECT count(*) FROM (`+besides+`) x`, h.conn.PgConn().PID()).Scan(&busy)
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

// pass is the condition of pg_locks for the gate's lock.
const pass = `locktype = 'relation' AND relation = to_regclass('twinspan.gate_pass')
	AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`

// holders are the sessions that have passed the gate and not finished.
const holders = `SELECT pid FROM pg_locks WHERE granted AND pid <> $1 AND pid <> pg_backend_pid() AND mode <> 'ExclusiveLock' AND ` + pass

// blockers are the sessions that a session waits for.
const blockers = `SELECT pid FROM unnest(pg_blocking_pids($1::int)) pid WHERE pid > 0`

// besides are the sessions that change what no trigger guards: large objects, and
// indexes that are built in several transactions. One that waits at the gate
// changes nothing. Who writes a large object keeps its catalog locked (inv_api.c,
// open_lo_relation), who removes one or comments on it the object; who has only made
// an empty one keeps nothing. Who has drawn from a sequence keeps that locked. Those that
// have passed a gate of an earlier version have an advisory lock in place of the gate's.
const besides = `SELECT a.pid FROM pg_stat_activity a WHERE a.datname = current_database() AND a.pid <> $1 AND a.pid <> pg_backend_pid() AND a.backend_type = 'client backend'
	AND NOT ` + ours + ` AND NOT EXISTS (SELECT FROM pg_locks l WHERE l.pid = a.pid AND NOT l.granted AND ` + pass + `)
	AND (a.query ILIKE '%concurrently%' AND a.state = 'active'
	     OR a.backend_xid IS NOT NULL AND EXISTS (SELECT FROM pg_locks l WHERE l.pid = a.pid
	        AND (l.relation = 'pg_largeobject'::regclass AND l.mode = 'RowExclusiveLock' OR l.locktype = 'object' AND l.classid = 'pg_largeobject'::regclass
	             OR l.locktype = 'advisory' AND l.classid = 1953982830 AND l.objid = 1734440037
	             OR l.locktype = 'relation' AND l.relation IN (SELECT seqrelid FROM pg_sequence))))`

// ours is the condition of pg_stat_activity for the sessions of agents: what a session
// calls itself counts only with the agent's own role.
const ours = `(a.application_name LIKE 'twinspan/%' AND a.usename = session_user)`

// Conn is a session for what is to be done during the hold; it is the hold's to close.
func (h *Hold) Conn() *pgx.Conn { return h.conn }

// Release lets the writers go on, or be refused, as the gate's state says.
func (h *Hold) Release(ctx context.Context) {
	h.lock.Close(ctx)
	if h.conn != nil {
		h.conn.Close(ctx)
	}
}

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
	go func() { ended <- e.end(ctx, done, h.waits(who), who) }()
	err := f()
	close(done)
	h.Ended += <-ended
	return err
}

// waits is the session that waits for those that a query names.
func (h *Hold) waits(who string) uint32 {
	if who == holders {
		return h.lock.PgConn().PID()
	}
	return h.conn.PgConn().PID()
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
			return conn.QueryRow(ctx, `SELECT count(pg_terminate_backend(pid)) FROM (`+who+`) x`, spared).Scan(&n)
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

// unfinished says which transaction did not finish, if it is known, in place of err.
func (e ender) unfinished(ctx context.Context, err error) error {
	looked := e.with(context.WithoutCancel(ctx), func(conn *pgx.Conn) error {
		list, failed := pg.Prepared(ctx, conn, e.dsn.Database())
		if failed == nil && len(list) == 0 {
			list, failed = pg.Holders(ctx, conn, "twinspan.gate_pass")
		}
		if p := pg.Waited("writers cannot be held", list); p != nil {
			err = p
		}
		return failed
	})
	_ = looked // then err says what is known
	return err
}
