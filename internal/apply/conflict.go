package apply

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/pg"
)

const (
	// conflictPause is the time between two looks at who holds a lock.
	conflictPause = 250 * time.Millisecond
	// conflictPatience is how long a session may go on after it was asked to cancel.
	conflictPatience = 5 * time.Second
)

// SetConflict says what becomes of sessions on the secondary whose locks stand in
// the way: with cancel, those that hold one when the applier has waited for it
// this long are cancelled, or ended where they are idle in a transaction; without,
// the applier waits, which is the default. It may be called at any time.
func (a *Applier) SetConflict(cancel bool, after time.Duration) {
	if cancel {
		a.cancelAfter.Store(int64(max(after, 1)))
	} else {
		a.cancelAfter.Store(0)
	}
}

// conflictHint says what becomes of a wait for a lock, and what a person can do.
func (e *engine) conflictHint(do string) string {
	if after := time.Duration(e.a.cancelAfter.Load()); after > 0 {
		return fmt.Sprintf("whoever holds it is cancelled after %s, as the link's policy says; it applies nothing meanwhile", after)
	}
	return fmt.Sprintf("%s; the link tries again by itself and applies nothing meanwhile. It can cancel such readers: twinspan link set %s --on-conflict cancel", do, e.a.Link)
}

// clearing ends, until stop is called, whoever keeps the applier's session waiting
// since began, as far as SetConflict allows.
func (e *engine) clearing(ctx context.Context, began time.Time) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		c := conflict{a: e.a, waiter: e.s.raw.PID(), asked: map[int32]time.Time{}}
		defer c.close()
		tick := time.NewTicker(conflictPause)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			after := time.Duration(e.a.cancelAfter.Load())
			if after == 0 || time.Since(began) < after {
				continue
			}
			if err := c.look(ctx); err != nil && ctx.Err() == nil {
				e.a.Log.WarnContext(ctx, "cannot cancel who holds a lock", "err", err)
				c.close()
			}
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

// conflict is one wait for a lock.
type conflict struct {
	a      *Applier
	waiter uint32 // the applier's process
	conn   *pgx.Conn
	asked  map[int32]time.Time // sessions that were asked to cancel
}

func (c *conflict) close() {
	if c.conn != nil {
		c.conn.Close(context.Background())
		c.conn = nil
	}
}

// holdersSQL lists the sessions that hold what a process waits for. The agents' own
// hold locks for moments.
const holdersSQL = `
SELECT a.pid, a.state LIKE 'idle in transaction%', a.state IN ('active', 'fastpath function call')
  FROM pg_catalog.pg_stat_activity a
 WHERE a.pid = ANY (pg_catalog.pg_blocking_pids($1)) AND a.backend_type = 'client backend' AND a.application_name NOT LIKE 'twinspan/%'
   AND EXISTS (SELECT FROM pg_catalog.pg_locks h JOIN pg_catalog.pg_locks w ON w.pid = $1 AND NOT w.granted
                WHERE h.pid = a.pid AND h.granted AND (h.locktype, h.database, h.relation, h.classid, h.objid, h.transactionid, h.virtualxid)
                      IS NOT DISTINCT FROM (w.locktype, w.database, w.relation, w.classid, w.objid, w.transactionid, w.virtualxid))`

// look finds who holds the lock now, and ends what they do.
func (c *conflict) look(ctx context.Context) error {
	if c.conn == nil {
		conn, err := c.a.DSN.Connect(ctx, pg.Session{Name: c.a.Link + "/conflict"})
		if err != nil {
			return err
		}
		c.conn = conn
	}
	type holder struct {
		PID          int32
		Idle, Active bool
	}
	rows, err := c.conn.Query(ctx, holdersSQL, int32(c.waiter))
	if err != nil {
		return pg.Classify(err, "look who holds a lock")
	}
	holders, err := pgx.CollectRows(rows, pgx.RowToStructByPos[holder])
	if err != nil {
		return pg.Classify(err, "look who holds a lock")
	}
	for _, h := range holders {
		asked, was := c.asked[h.PID]
		call := ""
		switch {
		case h.Idle, was && time.Since(asked) >= conflictPatience:
			call = "pg_terminate_backend"
		case h.Active && !was:
			call = "pg_cancel_backend"
			c.asked[h.PID] = time.Now()
		default:
			continue
		}
		if _, err := c.conn.Exec(ctx, "SELECT pg_catalog."+call+"($1)", h.PID); err != nil {
			return pg.Classify(err, "end who holds a lock")
		}
		c.a.Log.InfoContext(ctx, "session in the way ended", "pid", h.PID, "op", call)
	}
	return nil
}
