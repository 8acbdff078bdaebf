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
	"github.com/twinspan/twinspan/internal/role"
	"github.com/twinspan/twinspan/internal/seed"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// parting names the forced failover that left this side behind.
func (l *Link) parting() lost.Parting {
	r := l.snapshot()
	return lost.Parting{Link: r.ID, Epoch: r.Epoch, Parted: r.Parted}
}

// mend makes a former primary a twin again (docs/design/0015-rejoin.md). Every step
// is known to be done from the commit on that did it, so it is simply begun again
// after any interruption.
func (l *Link) mend(ctx context.Context) error {
	if err := l.refit(ctx); err != nil {
		return err
	}
	p := l.parting()
	conn, err := l.dsn.Connect(ctx, pg.Session{Name: l.Name() + "/rejoin", Apply: true, Fenced: true, Settings: lost.FewRows()})
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	m, err := lost.Look(ctx, conn, p.Link, p.Epoch)
	if err != nil {
		return err
	}
	if slices.Contains(m.Accepted, acceptCopy) {
		return l.copyAnew(ctx, conn, p)
	}
	switch {
	case m.Settled:
	case slices.Contains(m.Accepted, acceptCompare):
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
	return l.happen(ctx, role.Rejoined, nil)
}

// mendByKeys overwrites the rows that were lost, and what else was.
func (l *Link) mendByKeys(ctx context.Context, conn *pgx.Conn, p lost.Parting, m lost.Mending) error {
	if !m.Cleared {
		l.step("taking away what was lost")
		if err := l.clearLost(ctx, conn, p, m); err != nil {
			return err
		}
	}
	l.step("following the new primary")
	err := l.settleLost(ctx, conn, p)
	if p := problem.As(err); p != nil && p.Kind == problem.Diverged {
		p.Hint = fmt.Sprintf("compare the two databases instead: twinspan link rejoin %s --accept %s", l.Name(), acceptCompare)
	}
	return err
}

// clearLost takes away whatever the lost transactions have left, and lets the origin
// stand where the new primary's log begins to differ, in one transaction.
func (l *Link) clearLost(ctx context.Context, conn *pgx.Conn, p lost.Parting, m lost.Mending) error {
	if err := refusePrepared(ctx, conn); err != nil {
		return err
	}
	// Somebody may have committed what had been prepared.
	if err := l.collectLost(ctx, p); err != nil {
		return err
	}
	plan, err := lost.MakePlan(ctx, conn, p.Link, p.Epoch)
	if err != nil {
		return err
	}
	if err := consent(l.Name(), needs(plan), m.Accepted); err != nil {
		return err
	}
	r := l.snapshot()
	name := catalog.ObjectName(r.ID)
	_, err = conn.Exec(ctx, `SELECT CASE WHEN NOT EXISTS (SELECT FROM pg_replication_origin WHERE roname = $1) THEN pg_replication_origin_create($1) END`, name)
	if err != nil {
		return pg.Classify(err, "create the replication origin")
	}
	if _, err := conn.Exec(ctx, `SELECT pg_replication_origin_session_setup($1)`, name); err != nil {
		return pg.Classify(err, "take the replication origin")
	}
	err = pg.InTx(ctx, conn, func(tx pgx.Tx) error {
		// The commit record holds the origin's position, wherever it stood before.
		if _, err := tx.Exec(ctx, `SELECT pg_replication_origin_xact_setup($1::text::pg_lsn, now())`, r.StartLSN.String()); err != nil {
			return pg.Classify(err, "set the replication origin")
		}
		return lost.Clear(ctx, l.writer(tx), p.Link, p.Epoch, plan)
	})
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, `SELECT pg_replication_origin_session_reset()`)
	l.mu.Lock()
	l.secondary.durable = 0
	l.mu.Unlock()
	l.log.Info("lost rows are taken away", "lsn", r.StartLSN, "tables", len(plan.Touched), "anew", len(plan.Anew))
	return pg.Classify(err, "give the replication origin back")
}

// refusePrepared refuses to begin while transactions of the former primary are
// prepared: they hold locks, and would be lost without a record.
func refusePrepared(ctx context.Context, conn *pgx.Conn) error {
	var gid string
	err := conn.QueryRow(ctx, `SELECT gid FROM pg_prepared_xacts WHERE database = current_database() ORDER BY prepared LIMIT 1`).Scan(&gid)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil
	case err != nil:
		return pg.Classify(err, "look for prepared transactions")
	}
	return problem.New(problem.Conflict, "rejoin_prepared", "the transaction %q is prepared in the database", gid).On(gid).
		WithHint("COMMIT PREPARED, which counts it among what is lost, or ROLLBACK PREPARED; then rejoin again")
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
		if err := l.settleAtPosition(inner, conn, p, func() { stop(errSettled) }); err != nil {
			return err
		}
		return errSettled
	})
	if err := group.Wait(); !errors.Is(err, errSettled) {
		return err
	}
	return ctx.Err()
}

// settleAtPosition waits until the stream is near the new primary's end, and settles
// the rows where both sides stand at one position.
func (l *Link) settleAtPosition(ctx context.Context, conn *pgx.Conn, p lost.Parting, settled func()) error {
	if err := l.awaitNear(ctx); err != nil {
		return err
	}
	l.step("overwriting rows with the new primary's")
	var rows int64
	request := SnapshotRequest{Reference: Reference{ID: p.Link, Epoch: p.Epoch}, Workers: 1}
	m, err := l.meet(ctx, request, func(ctx context.Context, m *meeting) (err error) {
		if rows, err = l.overwrite(ctx, conn, p, m); err != nil {
			return err
		}
		// What follows is not to be applied in repair.
		settled()
		return nil
	})
	if err != nil {
		return err
	}
	l.log.Info("lost rows are overwritten", "lsn", m.position, "rows", rows, "dur", m.pause)
	m.stream.Close()
	return nil
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
	r := l.snapshot()
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

// copyAnew empties the database and has it copied as a new twin's is.
func (l *Link) copyAnew(ctx context.Context, conn *pgx.Conn, p lost.Parting) error {
	l.step("emptying the database")
	var other string
	err := conn.QueryRow(ctx, `SELECT coalesce(min(name), '') FROM twinspan.link WHERE id <> $1::text::uuid AND NOT deleting`, p.Link).Scan(&other)
	if err != nil {
		return pg.Classify(err, "look for other links of the database")
	}
	if other != "" {
		return problem.New(problem.Conflict, "rejoin_other_link", "the database cannot be copied anew, for link %s has it, too", other).On(other).
			WithHint("delete link %s first, and create it again afterwards", other)
	}
	if err := refusePrepared(ctx, conn); err != nil {
		return err
	}
	if err := clear(ctx, conn); err != nil {
		return err
	}
	err = pg.InTx(ctx, conn, func(tx pgx.Tx) error {
		for _, table := range []string{"seed_chunk", "seed_table", "seed_entry", "seed_session", "large_object_range", "large_object"} {
			if _, err := tx.Exec(ctx, `DELETE FROM twinspan.`+table+` WHERE link = $1::text::uuid`, p.Link); err != nil {
				return pg.Classify(err, "forget how the copy was made")
			}
		}
		if err := lost.MarkMended(ctx, tx, p.Link, p.Epoch); err != nil {
			return err
		}
		r := l.snapshot()
		return catalog.SetStart(ctx, tx, &r, 0, "")
	})
	if err != nil {
		return err
	}
	if err := l.control.do(ctx, func(ctx context.Context, conn *pgx.Conn) error { return dropOrigin(ctx, conn, p.Link) }); err != nil {
		return err
	}
	l.mu.Lock()
	l.record.StartLSN, l.record.SystemID, l.secondary.durable = 0, "", 0
	l.mu.Unlock()
	l.step("")
	return l.happen(ctx, role.Emptied, nil)
}
