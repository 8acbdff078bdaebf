package link

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/lost"
	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/rejoin"
	"github.com/twinspan/twinspan/internal/role"
	"github.com/twinspan/twinspan/internal/seed"
	"github.com/twinspan/twinspan/internal/side"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// mend makes a former primary a twin again (docs/design/0015-rejoin.md). Every step
// is known to be done from the commit on that did it, so it is simply begun again
// after any interruption.
func (l *Link) mend(ctx context.Context) error {
	if err := l.refit(ctx); err != nil {
		return err
	}
	p := l.former.Parting()
	conn, err := l.dsn.Connect(ctx, pg.Session{Name: l.Name() + "/rejoin", Apply: true, Fenced: true, Settings: lost.FewRows()})
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	m, err := lost.Look(ctx, conn, p.Link, p.Epoch)
	if err != nil {
		return err
	}
	if slices.Contains(m.Accepted, lost.AcceptCopy) {
		return l.former.Empty(ctx, conn, p)
	}
	switch {
	case m.Settled:
	case slices.Contains(m.Accepted, lost.AcceptCompare):
		err = l.compareAnew(ctx, conn, p, m.Accepted)
	default:
		err = l.mendByKeys(ctx, conn, p, m)
	}
	if err != nil {
		return err
	}
	if err := l.copyTables(ctx, conn, p); err != nil {
		return err
	}
	if err := l.bringBeside(ctx); err != nil {
		return err
	}
	if err := l.shutTables(ctx); err != nil {
		return err
	}
	l.step("")
	if err := lost.MarkMended(ctx, conn, p.Link, p.Epoch); err != nil {
		return err
	}
	return l.side.Happen(ctx, role.Rejoined, nil)
}

// mendByKeys overwrites the rows that were lost, and what else was.
func (l *Link) mendByKeys(ctx context.Context, conn *pgx.Conn, p lost.Parting, m lost.Mending) error {
	if !m.Cleared {
		l.step("taking away what was lost")
		if err := l.former.Clear(ctx, conn, p, m); err != nil {
			return err
		}
	}
	l.step("following the new primary")
	err := l.settleLost(ctx, conn, p)
	if p := problem.As(err); p != nil && p.Kind == problem.Diverged {
		p.Hint = fmt.Sprintf("compare the two databases instead: twinspan link rejoin %s --accept %s", l.Name(), lost.AcceptCompare)
	}
	return err
}

// compareAnew makes a former primary a twin again without knowing what it lost.
func (l *Link) compareAnew(ctx context.Context, conn *pgx.Conn, p lost.Parting, accepted []string) error {
	if err := rejoin.RefusePrepared(ctx, conn); err != nil {
		return err
	}
	return l.resync.Compare(ctx, accepted, func(ctx context.Context, tx pgx.Tx) error {
		return lost.MarkCompared(ctx, tx, p.Link, p.Epoch)
	})
}

// forever is a position that no log reaches.
const forever = lsn.LSN(math.MaxUint64)

// errSettled ends a stream in which the rows at the keys are settled.
var errSettled = problem.New(problem.Cancelled, "lost_settled", "the rows are as the new primary has them")

// settleLost follows the new primary from where the histories part until it is near,
// and there overwrites the rows at the keys with those of the new primary, at one
// exact position.
func (l *Link) settleLost(ctx context.Context, conn *pgx.Conn, p lost.Parting) error {
	touched, anew, err := lost.TablesNow(ctx, conn, p.Link, p.Epoch)
	if err != nil {
		return err
	}
	how := mending{skip: map[uint32]lsn.LSN{}, repair: map[uint32]lsn.LSN{}}
	for _, t := range touched {
		how.repair[t.OID] = forever
	}
	for _, t := range anew {
		how.skip[t.OID] = forever
	}
	keeper, err := l.dsn.Connect(ctx, pg.Session{Name: l.Name() + "/keys", Apply: true})
	if err != nil {
		return err
	}
	defer keeper.Close(context.WithoutCancel(ctx))
	how.unsettled = func(ctx context.Context, table uint32, columns []int16, key []string) error {
		return lost.NoteKey(ctx, keeper, p.Link, p.Epoch, table, columns, key)
	}
	group, inner := errgroup.WithContext(ctx)
	inner, stop := context.WithCancelCause(inner)
	defer stop(nil)
	group.Go(func() error {
		err := l.streamMending(inner, seed.Result{}, 0, how)
		if inner.Err() != nil {
			err = context.Cause(inner)
		}
		return err
	})
	group.Go(func() error {
		if err := l.awaitNear(inner); err != nil {
			return err
		}
		// What follows is not to be applied in repair.
		if err := l.former.Settle(inner, conn, p, func() { stop(errSettled) }); err != nil {
			return err
		}
		return errSettled
	})
	if err := group.Wait(); !errors.Is(err, errSettled) {
		return err
	}
	return ctx.Err()
}

// awaitNear waits until little of the new primary's log is left to be applied: while
// both sides are brought to one position, its snapshot is held.
func (l *Link) awaitNear(ctx context.Context) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		l.mu.Lock()
		a := l.secondary.applier
		near := false
		if a != nil {
			age, known := l.behindLocked(a.Status())
			near = known && age <= inStep
		}
		l.mu.Unlock()
		if near {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// copyTables copies the tables anew that cannot be mended by their keys, and follows
// the new primary to where the copy stands.
func (l *Link) copyTables(ctx context.Context, conn *pgx.Conn, p lost.Parting) error {
	_, anew, err := lost.TablesNow(ctx, conn, p.Link, p.Epoch)
	if err != nil || len(anew) == 0 {
		return err
	}
	only := map[sqlname.Table]bool{}
	for _, t := range anew {
		only[t.Name] = true
	}
	l.step(fmt.Sprintf("copying %d tables", len(anew)))
	r := l.side.Record()
	none := func(context.Context, []sqlname.Table) error { return nil }
	target := &seed.Target{
		DSN: l.dsn, Link: r.ID, Name: r.Name, Remote: someTables{&remote{link: l}, only}, Workers: l.place.Workers, Places: l.place.Seeders, Log: l.place.Log,
		Prepare:  func(context.Context, string) error { return nil }, // the tables are there, with their keys
		Identity: none,
		Progress: l.progress,
	}
	result, err := target.Copy(ctx)
	if err != nil {
		return err
	}
	if result.SkipBefore == nil {
		result.SkipBefore = map[sqlname.Table]lsn.LSN{}
	}
	until := max(result.Start, result.RepairUntil)
	for name := range only {
		result.SkipBefore[name] = max(result.SkipBefore[name], result.Start)
		until = max(until, result.SkipBefore[name])
	}
	l.step("following the new primary")
	if position, err := l.position(ctx); err != nil || position >= until {
		return err
	}
	return l.stream(ctx, result, until)
}

// someTables is the new primary's half of a seeding of some tables. It implements
// seed.Remote.
type someTables struct {
	*remote
	only map[sqlname.Table]bool
}

// Tables implements seed.Remote.
func (s someTables) Tables(ctx context.Context, token string) ([]seed.Table, error) {
	list, err := s.remote.Tables(ctx, token)
	return slices.DeleteFunc(list, func(t seed.Table) bool { return !s.only[t.Name] }), err
}

var _ seed.Remote = someTables{}

// nothingHeld says whether the new primary holds no log for this side: it was made
// primary on a server that could not make a slot. While it is away that is not known,
// and nothing can be begun.
func (l *Link) nothingHeld(ctx context.Context, r catalog.Link) bool {
	ctx, stop := context.WithTimeout(ctx, contactPatience)
	defer stop()
	other, err := side.Call[Standing](ctx, l.side, MethodState, side.ReferenceOf(r))
	return err == nil && other.NoSlot
}
