package apply

import (
	"context"
	"sync/atomic"

	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/pgoutput"
)

// appointment is what waits for a position.
type appointment struct {
	position lsn.LSN
	keep     func(ctx context.Context)
}

// appointments holds the next one, if there is any.
type appointments struct{ next atomic.Pointer[appointment] }

// At has f called once, in Run's goroutine, when every transaction that committed
// before the position is applied and committed, and none that committed later is
// begun: while f runs, the secondary shows the primary's state at the position.
// Nothing of a later transaction may have been handed over by the source yet.
// Another call replaces an f that was not called; one that Run's end overtakes
// is never called. At may be called by any goroutine while Run runs.
func (a *Applier) At(position lsn.LSN, f func(ctx context.Context)) {
	a.appointments.next.Store(&appointment{position, f})
}

// keep completes everything and calls what waits for this moment.
func (e *engine) keep(ctx context.Context, due *appointment) error {
	if err := e.finish(ctx); err != nil {
		return err
	}
	if e.a.appointments.next.CompareAndSwap(due, nil) {
		due.keep(ctx)
	}
	return ctx.Err()
}

// beginAt is begin, at whose place a position may lie.
func (e *engine) beginAt(ctx context.Context, m pgoutput.Begin) error {
	if due := e.a.appointments.next.Load(); due != nil && !e.open && m.Final >= due.position {
		e.reach(due.position)
		if err := e.keep(ctx, due); err != nil {
			return err
		}
	}
	return e.begin(m)
}

// atPosition looks between items for positions that were reached without a
// transaction behind them. done says that Run is complete.
func (e *engine) atPosition(ctx context.Context) (done bool, err error) {
	if due := e.a.appointments.next.Load(); due != nil && !e.open && max(e.reached, e.current.end.position) >= due.position {
		if err := e.keep(ctx, due); err != nil {
			return false, err
		}
	}
	return e.atUntil(ctx)
}
