package apply

import (
	"context"
	"time"

	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/pgoutput"
)

const (
	// reachedInterval is how long a position without changes may wait to be stored.
	reachedInterval = time.Second
	// promptInterval is the same where commits on the primary wait for it. Not 0: two
	// links in opposite directions would answer each other's positions without end.
	promptInterval = 5 * time.Millisecond
)

// interval is how long a position may wait now.
func (e *engine) interval() time.Duration {
	if e.a.Prompt != nil && e.a.Prompt() {
		return promptInterval
	}
	return reachedInterval
}

// reach notes that everything before a position was handed over.
func (e *engine) reach(position lsn.LSN) {
	e.reached = max(e.reached, position)
	e.a.status.received.Store(max(e.a.status.received.Load(), uint64(position)))
}

// storeReached stores a position that has no changes of its own.
func (e *engine) storeReached(ctx context.Context) error {
	c := &commit{position: e.reached}
	x := e.s.begin()
	e.s.exec("BEGIN", opControl, anyCount)
	// Only a transaction with a number writes a commit record that holds an origin.
	e.s.exec("SELECT pg_catalog.txid_current()", opControl, anyCount)
	e.sendCommit(&commit{position: c.position, time: pgoutput.TimestampOf(time.Now())}, opCommit)
	e.s.sync()
	return e.awaitCommit(ctx, x, c)
}
