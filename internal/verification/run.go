package verification

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/meet"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/sequence"
	"github.com/twinspan/twinspan/internal/side"
	"github.com/twinspan/twinspan/internal/verify"
)

const (
	// mostRounds bounds how often what is left is repaired.
	mostRounds = 10
)

// verifier does one verification, at the secondary.
type verifier struct {
	*Verifications
	request   api.Verify
	reference side.Reference
}

func (v *verifier) step(text string) { v.show(func(view *api.Verification) { view.Step = text }) }

// run compares, looks again at what differs, and repairs it if that is asked for.
func (v *verifier) run(ctx context.Context) error {
	c := v.comparison(v.request.Tables)
	c.Progress = func(p verify.Progress) {
		v.show(func(view *api.Verification) {
			view.TablesTotal, view.TablesDone, view.BytesTotal = p.TablesTotal, p.TablesDone, p.BytesTotal
		})
	}
	found, err := v.first(ctx, &c)
	if err != nil {
		return err
	}
	if !found.Equal() {
		if err := v.second(ctx, &c, found); err != nil {
			return err
		}
	}
	if len(v.request.Tables) > 0 {
		return nil
	}
	return v.sequences(ctx)
}

func (v *verifier) comparison(tables []string) verify.Comparison {
	return verify.Comparison{Tables: tables, Schema: len(v.request.Tables) == 0, Values: v.request.Values, Most: v.request.Limit, Workers: v.request.Workers, Reader: v.meets.Reader(),
		Stored: v.request.Repair}
}

func (v *verifier) snapshotRequest() meet.SnapshotRequest {
	return meet.SnapshotRequest{Reference: v.reference, Rate: v.request.BytesPerSecond, Workers: v.request.Workers}
}

// open makes both sides readable, and notes how long the secondary was held.
func (v *verifier) open(ctx context.Context, read func(int64)) (*meet.Sides, error) {
	x, err := v.meets.Open(ctx, v.snapshotRequest(), read)
	if err == nil {
		v.paused(x.Pause)
	}
	return x, err
}

func (v *verifier) paused(pause time.Duration) {
	v.show(func(view *api.Verification) { view.PauseSeconds = max(view.PauseSeconds, pause.Seconds()) })
}

// first compares everything.
func (v *verifier) first(ctx context.Context, c *verify.Comparison) (*verify.Findings, error) {
	x, err := v.open(ctx, func(bytes int64) { v.show(func(view *api.Verification) { view.BytesDone += bytes }) })
	if err != nil {
		return nil, err
	}
	defer x.Close(context.WithoutCancel(ctx))
	v.show(func(view *api.Verification) { view.Step, view.Position = "comparing", x.Position.String() })
	found, err := c.Compare(ctx, x.Primary, x.Secondary)
	if err == nil {
		v.count(found)
		v.show(func(view *api.Verification) { view.Skipped = showSkipped(found) })
	}
	return found, err
}

func (v *verifier) count(f *verify.Findings) {
	v.show(func(view *api.Verification) {
		view.Rows, view.Blocks = f.Count.Rows, f.Count.Blocks
		view.BlocksFetched, view.RowsFetched = f.Count.BlocksFetched, f.Count.RowsFetched
	})
}

// second looks again at what differs, and repairs it while its rows can be had.
func (v *verifier) second(ctx context.Context, c *verify.Comparison, found *verify.Findings) error {
	v.step("waiting for a position, to look again at what differs")
	x, err := v.open(ctx, nil)
	if err != nil {
		return err
	}
	closed := false
	closeSides := func() {
		if !closed {
			closed = true
			x.Close(context.WithoutCancel(ctx))
		}
	}
	defer closeSides()
	v.show(func(view *api.Verification) {
		view.Step, view.ConfirmedAt = "looking again at what differs", x.Position.String()
	})
	if err := c.Confirm(ctx, x.Primary, x.Secondary, found); err != nil {
		return err
	}
	v.count(found)
	v.show(func(view *api.Verification) {
		view.Differences, view.MoreRows, view.Skipped = verify.Shown(view.Link, found), showMore(found), showSkipped(found)
	})
	if !v.request.Repair {
		return nil
	}
	for round := 1; !found.Equal(); round++ {
		failed := v.repair(ctx, x, closeSides, found)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		left, again, err := v.again(ctx, found)
		if err != nil {
			return err
		}
		over := round == mostRounds || failed != nil || !verify.Progresses(found, left)
		if over && failed == nil {
			failed = left.StaleView()
		}
		v.settle(found, left, failed)
		if over {
			if again != nil {
				again.Close(context.WithoutCancel(ctx))
			}
			return nil
		}
		found, x, closed = left, again, again == nil
	}
	return nil
}

// repair brings the secondary in line. Both sides are given up before indexes are
// built and views refreshed: that waits for older snapshots, and for whoever reads the view.
func (v *verifier) repair(ctx context.Context, x *meet.Sides, closeSides func(), found *verify.Findings) error {
	conn, err := v.meets.RepairSession(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var failed error
	if found.WithRows() {
		v.step("repairing rows")
		failed = v.repairRows(ctx, conn, x, found)
	}
	closeSides()
	if objects := found.Objects(); len(objects) > 0 && ctx.Err() == nil {
		v.step("bringing large objects")
		failed = errors.Join(failed, v.objects(ctx, objects))
	}
	if len(found.Schema) > 0 && ctx.Err() == nil {
		v.step("repairing indexes, constraints and sequences")
		failed = errors.Join(failed, verify.RepairSchema(ctx, conn, v.side.DSN, v.side.Name(), found.Schema))
	}
	if ctx.Err() == nil {
		v.step("refreshing materialized views")
		failed = errors.Join(failed, verify.RefreshViews(ctx, conn, v.side.DSN, v.side.Name(), found))
	}
	return failed
}

// repairRows writes while the applier stands at a position of which the primary's
// rows can be had.
func (v *verifier) repairRows(ctx context.Context, conn *pgx.Conn, x *meet.Sides, found *verify.Findings) error {
	m, err := v.meets.Meet(ctx, v.snapshotRequest(), func(ctx context.Context, m *meet.Meeting) error {
		return verify.RepairRows(ctx, conn, found, x.Secondary, m.Primary, x.Primary)
	})
	if err != nil {
		return err
	}
	v.paused(m.Pause)
	v.side.Log.Info("rows repaired", "lsn", m.Position, "tables", len(found.Tables))
	return m.Stream.Close()
}

// again compares what was repaired. Both sides are left open when there is
// something to repair in them.
func (v *verifier) again(ctx context.Context, found *verify.Findings) (*verify.Findings, *meet.Sides, error) {
	v.step("comparing what was repaired")
	var tables []string
	for _, t := range found.Tables {
		tables = append(tables, t.Table.SQL())
	}
	c := v.comparison(tables)
	c.NoRows = len(tables) == 0
	x, err := v.open(ctx, nil)
	if err != nil {
		return nil, nil, err
	}
	left, err := c.Compare(ctx, x.Primary, x.Secondary)
	if err != nil || left.Equal() {
		x.Close(context.WithoutCancel(ctx))
		return left, nil, err
	}
	return left, x, nil
}

// settle notes what of the findings is left after a repair.
func (v *verifier) settle(found, left *verify.Findings, failed error) {
	v.show(func(view *api.Verification) {
		remain := map[string]bool{}
		for _, d := range verify.Shown(view.Link, left) {
			remain[verify.Identity(&d)] = true
		}
		known := map[string]bool{}
		for i := range view.Differences {
			d := &view.Differences[i]
			known[verify.Identity(d)] = true
			if d.Repaired || remain[verify.Identity(d)] {
				continue
			}
			d.Repaired = true
			if d.Kind == verify.RowKind {
				view.RepairedRows++
			} else {
				view.RepairedObjects++
			}
		}
		for _, d := range verify.Shown(view.Link, left) {
			if !known[verify.Identity(&d)] {
				view.Differences = append(view.Differences, d)
			}
		}
		view.MoreRows = showMore(left)
		view.Problem = nil
		if p := problem.As(failed); p != nil {
			view.Problem = side.ProblemOf(p, api.Warns)
		}
	})
}

// sequences compares the sequences, which the link keeps ahead of the primary's.
func (v *verifier) sequences(ctx context.Context) error {
	v.step("comparing sequences")
	list, behind, err := v.meets.SequencesApart(ctx, v.reference)
	if err != nil {
		return err
	}
	if v.request.Repair && len(behind) > 0 {
		if err := v.repairSequences(ctx, behind); err != nil {
			return err
		}
		for i := range list {
			list[i].Repaired = list[i].State == meet.SequenceBehind
		}
	}
	v.show(func(view *api.Verification) {
		view.Sequences = list
		if v.request.Repair {
			view.RepairedObjects += len(behind)
		}
	})
	return nil
}

func (v *verifier) repairSequences(ctx context.Context, behind []sequence.Sequence) error {
	conn, err := v.meets.RepairSession(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	_, err = sequence.Set(ctx, conn, behind)
	return err
}
