package link

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/sequence"
	"github.com/twinspan/twinspan/internal/verify"
)

const (
	// mostRounds bounds how often what is left is repaired.
	mostRounds = 10
	// sequencePatience is how long a sequence may be behind before it is said: what
	// was handed out a moment ago is on its way.
	sequencePatience = 5 * time.Second
)

// verifier does one verification, at the secondary.
type verifier struct {
	link      *Link
	request   api.Verify
	reference Reference
	show      func(f func(view *api.Verification))
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
	return verify.Comparison{Tables: tables, Schema: len(v.request.Tables) == 0, Values: v.request.Values, Most: v.request.Limit, Workers: v.request.Workers, Reader: v.link.reader(),
		Stored: v.request.Repair}
}

func (v *verifier) snapshotRequest() SnapshotRequest {
	return SnapshotRequest{Reference: v.reference, Rate: v.request.BytesPerSecond, Workers: v.request.Workers}
}

// open makes both sides readable, and notes how long the secondary was held.
func (v *verifier) open(ctx context.Context, read func(int64)) (*sides, error) {
	x, err := v.link.openSides(ctx, v.snapshotRequest(), read)
	if err == nil {
		v.paused(x.pause)
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
	defer x.close(context.WithoutCancel(ctx))
	v.show(func(view *api.Verification) { view.Step, view.Position = "comparing", x.position.String() })
	found, err := c.Compare(ctx, x.primary, x.secondary)
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
			x.close(context.WithoutCancel(ctx))
		}
	}
	defer closeSides()
	v.show(func(view *api.Verification) {
		view.Step, view.ConfirmedAt = "looking again at what differs", x.position.String()
	})
	if err := c.Confirm(ctx, x.primary, x.secondary, found); err != nil {
		return err
	}
	v.count(found)
	v.show(func(view *api.Verification) {
		view.Differences, view.MoreRows, view.Skipped = showFindings(view.Link, found), showMore(found), showSkipped(found)
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
		over := round == mostRounds || failed != nil || !progress(found, left)
		if over && failed == nil {
			failed = left.StaleView()
		}
		v.settle(found, left, failed)
		if over {
			if again != nil {
				again.close(context.WithoutCancel(ctx))
			}
			return nil
		}
		found, x, closed = left, again, again == nil
	}
	return nil
}

// progress says whether a further round can do more.
func progress(before, left *verify.Findings) bool {
	rows := func(f *verify.Findings) (n int, more bool) {
		for _, t := range f.Tables {
			n += len(t.Rows)
			more = more || t.More && !t.View // a refresh fills all of it
		}
		return n, more
	}
	a, more := rows(before)
	b, _ := rows(left)
	return b > 0 && (b < a || more)
}

// repair brings the secondary in line. Both sides are given up before indexes are
// built and views refreshed: that waits for older snapshots, and for whoever reads the view.
func (v *verifier) repair(ctx context.Context, x *sides, closeSides func(), found *verify.Findings) error {
	conn, err := v.link.repairSession(ctx)
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
		failed = errors.Join(failed, v.link.bringAnew(ctx, objects))
	}
	if len(found.Schema) > 0 && ctx.Err() == nil {
		v.step("repairing indexes, constraints and sequences")
		failed = errors.Join(failed, verify.RepairSchema(ctx, conn, v.link.dsn, v.link.Name(), found.Schema))
	}
	if ctx.Err() == nil {
		v.step("refreshing materialized views")
		failed = errors.Join(failed, verify.RefreshViews(ctx, conn, v.link.dsn, v.link.Name(), found))
	}
	return failed
}

// repairRows writes while the applier stands at a position of which the primary's
// rows can be had.
func (v *verifier) repairRows(ctx context.Context, conn *pgx.Conn, x *sides, found *verify.Findings) error {
	m, err := v.link.meet(ctx, v.snapshotRequest(), func(ctx context.Context, m *meeting) error {
		return verify.RepairRows(ctx, conn, found, x.secondary, m.primary, x.primary)
	})
	if err != nil {
		return err
	}
	v.paused(m.pause)
	v.link.log.Info("rows repaired", "lsn", m.position, "tables", len(found.Tables))
	return m.stream.Close()
}

// again compares what was repaired. Both sides are left open when there is
// something to repair in them.
func (v *verifier) again(ctx context.Context, found *verify.Findings) (*verify.Findings, *sides, error) {
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
	left, err := c.Compare(ctx, x.primary, x.secondary)
	if err != nil || left.Equal() {
		x.close(context.WithoutCancel(ctx))
		return left, nil, err
	}
	return left, x, nil
}

// settle notes what of the findings is left after a repair.
func (v *verifier) settle(found, left *verify.Findings, failed error) {
	v.show(func(view *api.Verification) {
		remain := map[string]bool{}
		for _, d := range showFindings(view.Link, left) {
			remain[identity(&d)] = true
		}
		known := map[string]bool{}
		for i := range view.Differences {
			d := &view.Differences[i]
			known[identity(d)] = true
			if d.Repaired || remain[identity(d)] {
				continue
			}
			d.Repaired = true
			if d.Kind == rowKind {
				view.RepairedRows++
			} else {
				view.RepairedObjects++
			}
		}
		for _, d := range showFindings(view.Link, left) {
			if !known[identity(&d)] {
				view.Differences = append(view.Differences, d)
			}
		}
		view.MoreRows = showMore(left)
		view.Problem = nil
		if p := problem.As(failed); p != nil {
			view.Problem = ProblemOf(p, api.Warns)
		}
	})
}

// The states of a sequence.
const (
	sequenceBehind = "behind"
	sequenceAhead  = "ahead"
)

// tooFarAhead is how many times the lead a sequence is kept by may be exceeded
// before it is said to be ahead: the lead follows rates that are over.
const tooFarAhead = 16

// sequences compares the sequences, which the link keeps ahead of the primary's.
func (v *verifier) sequences(ctx context.Context) error {
	v.step("comparing sequences")
	list, behind, err := v.link.sequencesApart(ctx, v.reference)
	if err != nil {
		return err
	}
	if v.request.Repair && len(behind) > 0 {
		if err := v.repairSequences(ctx, behind); err != nil {
			return err
		}
		for i := range list {
			list[i].Repaired = list[i].State == sequenceBehind
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

// sequencesApart compares the sequences as they are now, for a while where some are
// behind: what was handed out a moment ago is on its way.
func (l *Link) sequencesApart(ctx context.Context, reference Reference) (list []api.SequenceDifference, behind []sequence.Sequence, err error) {
	for end := time.Now().Add(sequencePatience); ; {
		// The secondary's first: then the primary's can only have gone on.
		there, err := l.readSequences(ctx)
		if err != nil {
			return nil, nil, err
		}
		here, err := readAt[[]sequence.Sequence](ctx, &remoteSide{link: l, held: SessionReference{Reference: reference}}, VerifyRead{Sequences: true})
		if err != nil {
			return nil, nil, err
		}
		list, behind = compareSequences(here, there)
		if len(behind) == 0 || time.Now().After(end) {
			return list, behind, nil
		}
		select {
		case <-ctx.Done():
			return nil, nil, context.Cause(ctx)
		case <-time.After(lookAgain):
		}
	}
}

// lookAgain is the pause between two looks at sequences.
const lookAgain = 250 * time.Millisecond

// compareSequences finds those that stand where they should not, and what the
// ones that are behind should be. One that a side lacks is the schema's business.
func compareSequences(primary, secondary []sequence.Sequence) (list []api.SequenceDifference, behind []sequence.Sequence) {
	there := map[string]sequence.Sequence{}
	for _, s := range secondary {
		there[s.Name.SQL()] = s
	}
	for _, a := range primary {
		b, have := there[a.Name.SQL()]
		if !have || a.Left(a.State) == 0 {
			continue
		}
		lead := a.Lead(a.State, 0, 0)
		n, ahead := a.Calls(a.State, b.State)
		d := api.SequenceDifference{Name: a.Name.String(), Primary: a.Last, Secondary: b.Last}
		switch {
		case !ahead:
			d.State = sequenceBehind
			b.State = a.Ahead(a.State, lead)
			behind = append(behind, b)
		case n/tooFarAhead > max(lead, 1<<16):
			d.State = sequenceAhead
		default:
			continue
		}
		list = append(list, d)
	}
	return list, behind
}

func (v *verifier) repairSequences(ctx context.Context, behind []sequence.Sequence) error {
	conn, err := v.link.repairSession(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	_, err = sequence.Set(ctx, conn, behind)
	return err
}
