package pg

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// shortestLocked is the lock_timeout below which nobody is named: such waits are repeated, by
// code that looks for itself.
const shortestLocked = 500 * time.Millisecond

// latestLook is how long a statement waits at most until it is looked who is in the way: a
// transaction may have a shorter lock_timeout than its session.
const latestLook = 2 * time.Second

// lockedLook is how long the look at who is in the way may take.
const lockedLook = 3 * time.Second

// lockTracer names, in the error of a statement that gave up waiting for a lock, who holds that.
// They are looked for while the statement waits, for afterwards nobody knows.
type lockTracer struct{ after time.Duration }

// tracerOf returns the tracer of a session with these settings; nil when it has no lock_timeout
// that is worth it.
func tracerOf(settings map[string]string) pgx.QueryTracer {
	timeout, err := time.ParseDuration(settings["lock_timeout"])
	if err != nil {
		n, _ := strconv.Atoi(settings["lock_timeout"])
		timeout = time.Duration(n) * time.Millisecond
	}
	if timeout < shortestLocked {
		return nil
	}
	return &lockTracer{after: min(timeout/2, latestLook)}
}

type lockedKey struct{}

// locked is the wait of one statement.
type locked struct {
	timer *time.Timer
	mu    sync.Mutex // held during the look
	by    []Holder
}

// TraceQueryStart implements pgx.QueryTracer.
func (t *lockTracer) TraceQueryStart(ctx context.Context, conn *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	w := &locked{}
	pid := conn.PgConn().PID()
	w.timer = time.AfterFunc(t.after, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.by = blockersOf(context.WithoutCancel(ctx), conn.Config(), pid)
	})
	return context.WithValue(ctx, lockedKey{}, w)
}

// TraceQueryEnd implements pgx.QueryTracer.
func (t *lockTracer) TraceQueryEnd(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryEndData) {
	w, ok := ctx.Value(lockedKey{}).(*locked)
	if !ok {
		return
	}
	w.timer.Stop()
	var e *pgconn.PgError
	if !errors.As(data.Err, &e) || e.Code != "55P03" {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if p := Waited(e.Message, w.by); p != nil {
		e.Message, e.Hint = p.Text, p.Hint
	}
}

// blockersOf lists, as a session of its own sees it, for whom another one waits; nothing where
// it cannot look.
func blockersOf(ctx context.Context, config *pgx.ConnConfig, pid uint32) []Holder {
	ctx, stop := context.WithTimeout(ctx, lockedLook)
	defer stop()
	config.Tracer = nil
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil
	}
	defer conn.Close(context.WithoutCancel(ctx))
	// Whoever waits in front for the same lock is as much in the way as who has it.
	list, err := holders(ctx, conn, `SELECT DISTINCT `+holderColumns+` FROM pg_catalog.pg_locks w
		JOIN pg_catalog.pg_locks l ON l.locktype = w.locktype AND l.database IS NOT DISTINCT FROM w.database AND l.relation IS NOT DISTINCT FROM w.relation
			AND l.page IS NOT DISTINCT FROM w.page AND l.tuple IS NOT DISTINCT FROM w.tuple AND l.virtualxid IS NOT DISTINCT FROM w.virtualxid
			AND l.transactionid IS NOT DISTINCT FROM w.transactionid AND l.classid IS NOT DISTINCT FROM w.classid AND l.objid IS NOT DISTINCT FROM w.objid
			AND l.objsubid IS NOT DISTINCT FROM w.objsubid `+holderJoins+`
		WHERE NOT w.granted AND w.pid::text = $1::text AND (l.pid = ANY (pg_catalog.pg_blocking_pids(w.pid)) OR l.pid IS NULL AND 0 = ANY (pg_catalog.pg_blocking_pids(w.pid)))
		ORDER BY 5, 1`, strconv.FormatUint(uint64(pid), 10))
	if err != nil {
		return nil
	}
	return list
}
