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

// noCommitTime is the time of an origin's commit that holds a position alone: no transaction of the primary committed
// then, and a restore of the twin's backups must not take it for one. 0 would be replaced by the present
// (src/backend/access/transam/xact.c, RecordTransactionCommit).
const noCommitTime pgoutput.Timestamp = 1

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
	e.sendCommit(&commit{position: c.position, time: noCommitTime}, opCommit)
	e.s.sync()
	return e.awaitCommit(ctx, x, c)
}
