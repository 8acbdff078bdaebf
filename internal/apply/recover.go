package apply

import (
	"context"
	"log/slog"
	"time"

	"github.com/twinspan/twinspan/internal/group"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/rights"
)

const (
	firstBackoff = 50 * time.Millisecond
	mostBackoff  = 5 * time.Second
)

// settle waits until the batch in flight is applied, whatever that takes.
func (e *engine) settle(ctx context.Context) error {
	b := e.inflight
	if b == nil {
		return nil
	}
	defer since(&e.a.status.applying, time.Now())
	e.inflight = nil
	f, err := e.s.wait(ctx, b.exchange)
	if err != nil {
		return err
	}
	if f != nil && f.op == opCommit {
		return e.commitProblem(f, b.carried)
	}
	if b.carried != nil {
		e.committedNow(b.carried)
		b.carried = nil
	}
	if f != nil && f.op == opClose {
		return e.commitProblem(f, b.closed)
	}
	if f != nil {
		e.reopen(b)
		if err := e.recover(ctx, b, f); err != nil {
			return err
		}
	}
	e.applied(b)
	return nil
}

// awaitCommit waits for an exchange that ends with a commit.
func (e *engine) awaitCommit(ctx context.Context, x *exchange, c *commit) error {
	f, err := e.s.wait(ctx, x)
	if err != nil {
		return err
	}
	if f != nil {
		return e.commitProblem(f, c)
	}
	e.committedNow(c)
	return nil
}

// applied notes that a batch is in the target transaction.
func (e *engine) applied(b *batch) {
	e.pieces += b.end.changes
	if b.ends {
		end := b.end
		end.changes, e.pieces = e.pieces, 0
		e.due = &end
	}
	if b.closed != nil {
		e.committedNow(b.closed)
		e.due = nil
	}
	e.recycle(b)
}

// recover applies a batch that failed: again, when a lock was in the way, else
// change by change. It returns nil when the batch is in the target transaction.
func (e *engine) recover(ctx context.Context, b *batch, f *failure) error {
	backoff := firstBackoff
	each := false
	began := time.Now()
	defer e.a.status.blocked.Store(nil)
	var stopClearing func()
	for {
		if err := e.undo(ctx, b); err != nil {
			return err
		}
		if rights.GaveUp(f.err) {
			e.s.giveUp() // giving up statements is not undone
		}
		switch {
		case passing(f):
			if stopClearing == nil {
				stopClearing = e.clearing(ctx, began)
				defer stopClearing()
			}
			if time.Since(began) > blockedAfter {
				e.a.status.blocked.Store(problem.New(problem.Transient, "changes_wait", "changes of rows wait for a lock that somebody holds on the secondary").
					WithHint("%s", e.conflictHint("end the transaction on the secondary that locks a table")))
			}
			level := slog.LevelDebug
			if backoff == mostBackoff {
				level = slog.LevelWarn // for a while now: a session on the secondary holds it
			}
			e.a.Log.Log(ctx, level, "group waits for a lock", "code", f.state(), "dur", backoff)
			e.a.status.retries.Add(1)
			if err := pause(ctx, backoff); err != nil {
				return err
			}
			backoff = min(backoff*2, mostBackoff)
		case hopeless(f):
			return serverProblem(f.err, "apply changes")
		case !each:
			each = true
			e.blame(f)
			e.a.status.fallbacks.Add(1)
			e.a.Log.InfoContext(ctx, "group is replayed change by change", "code", f.state(), "rows", b.plan.Sealed())
		default:
			may, err := e.mayTruncate(ctx, b, f)
			if err != nil {
				return err
			}
			if !may && !e.mayWriteIdentity(b, f) {
				return e.changeProblem(b, f)
			}
		}
		var err error
		if f, err = e.again(ctx, b, each); err != nil {
			return err
		}
		if f == nil {
			e.writeIdentity = nil
			return nil
		}
	}
}

// undo takes back what a failed batch did, and only that.
func (e *engine) undo(ctx context.Context, b *batch) error {
	e.fences.undone()
	x := e.s.begin()
	if b.savepoint {
		e.s.exec("ROLLBACK TO SAVEPOINT piece", opControl, anyCount)
	} else {
		e.s.exec("ROLLBACK", opControl, anyCount)
		e.inTarget = false
	}
	e.s.sync()
	f, err := e.s.wait(ctx, x)
	if err == nil && f != nil {
		err = serverProblem(f.err, "undo a group")
	}
	return err
}

// again writes a batch once more.
func (e *engine) again(ctx context.Context, b *batch, each bool) (*failure, error) {
	x := e.s.begin()
	if !b.savepoint {
		e.enter(b)
	}
	if each {
		e.writeEach(b.plan)
	} else {
		e.writePlan(b.plan)
	}
	e.checkFences()
	e.s.sync()
	return e.s.wait(ctx, x)
}

// passing says that the same may succeed in a moment: somebody held a lock, or
// cancelled the statement.
func passing(f *failure) bool {
	switch f.state() {
	case "55P03", "40P01", "40001", "57014":
		return true
	}
	return false
}

// hopeless says that neither order nor repetition helps: space, memory, the
// server's end.
func hopeless(f *failure) bool {
	if f.err == nil {
		return false
	}
	switch f.err.Code[:min(2, len(f.err.Code))] {
	case "08", "53", "57", "58":
		return true
	}
	return f.err.Code == "25006" // the server became a standby
}

// blame keeps the table whose unique values collided from being folded for a while.
func (e *engine) blame(f *failure) {
	if f.err == nil || f.err.Code != "23505" && f.err.Code != "23P01" {
		return
	}
	for _, r := range e.byTable {
		if r.name.Schema == f.err.SchemaName && r.name.Name == f.err.TableName {
			r.penalise(time.Now())
			e.penalised[r] = true
		}
	}
}

// mayWriteIdentity says whether an update may have found no row because it changes
// a generated identity that is not part of the key: then the next replay writes it.
func (e *engine) mayWriteIdentity(b *batch, f *failure) bool {
	if f.op < 0 || f.err != nil || f.got != 0 {
		return false
	}
	c := &b.plan.Changes()[f.op]
	if c.Op != group.Update {
		return false
	}
	r := e.byTable[c.Table]
	if len(r.always) == 0 || e.writeIdentity[r] {
		return false
	}
	if e.writeIdentity == nil {
		e.writeIdentity = map[*relation]bool{}
	}
	e.writeIdentity[r] = true
	return true
}

// pause waits.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}
