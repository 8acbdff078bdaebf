// Package resync brings a twin back in step that its stream alone cannot bring there: the slot is
// gone, or what lies between slot and twin is, or nobody knows what a former primary has lost.
// The primary makes its slot anew and holds its first snapshot; the twin compares schema and rows
// with that, repairs what differs, and stands at the snapshot's position from then on
// (docs/design/0015-rejoin.md).
package resync

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/drift"
	"github.com/twinspan/twinspan/internal/lost"
	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/meet"
	"github.com/twinspan/twinspan/internal/origin"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/schema"
	"github.com/twinspan/twinspan/internal/seed"
	"github.com/twinspan/twinspan/internal/side"
	"github.com/twinspan/twinspan/internal/sqlname"
	"github.com/twinspan/twinspan/internal/verify"
)

// Twin is what a resync needs of the link whose twin it brings back in step.
type Twin struct {
	Step    func(text string) // is told what is done
	Fill    func(ctx context.Context, dump *schema.Dump, section schema.Section) (refused, err error)
	Shut    func(ctx context.Context) error                  // gives every table its gate
	Watched func(ctx context.Context) (catalog.Watch, error) // which differences of the schemas are known
	Stands  func(at lsn.LSN)                                 // is told where the twin stands
}

// Secondary is the twin's half.
type Secondary struct {
	side  *side.Side
	meets *meet.Secondary
	twin  Twin
}

// NewSecondary returns a twin's half.
func NewSecondary(s *side.Side, meets *meet.Secondary, twin Twin) *Secondary {
	return &Secondary{side: s, meets: meets, twin: twin}
}

// Repair brings the twin of a link whose stream cannot go on to the state of a new slot's
// snapshot. It begins from the start when it was interrupted: what was repaired by then is
// found equal. Large objects are left to a pass behind it.
func (q *Secondary) Repair(ctx context.Context) error {
	return q.renewBy(ctx, (*renewal).run, func(context.Context, pgx.Tx) error { return nil })
}

// Compare makes a former primary a twin again without knowing what it lost: at the snapshot of
// a new slot of the new primary, the schema is brought in line as far as that is accepted, and
// every row that differs is replaced. Until that is done it begins again from the start; what
// was repaired by then is found equal. also is part of the commit that ends it.
func (q *Secondary) Compare(ctx context.Context, accepted []string, also func(ctx context.Context, tx pgx.Tx) error) error {
	return q.renewBy(ctx, func(n *renewal, ctx context.Context) error { return n.rejoin(ctx, accepted) }, also)
}

// mostRepaired is how many rows of a table one round of a renewal repairs.
const mostRepaired = 20_000

// renewBy has the primary make its slot anew and the twin repaired at its snapshot;
// also is part of the commit from which on the twin stands there.
func (q *Secondary) renewBy(ctx context.Context, repair func(*renewal, context.Context) error, also func(context.Context, pgx.Tx) error) error {
	q.twin.Step("waiting for a new position")
	r := q.side.Record()
	request := meet.SnapshotRequest{Reference: side.ReferenceOf(r), Workers: meet.Workers}
	s, err := q.side.Peers.Open(ctx, r.Peer, MethodRenew, request)
	if err != nil {
		return err
	}
	defer s.Close()
	answer, err := meet.ReadAnswer(s)
	if err != nil {
		return err
	}
	primary := meet.NewRemote(q.side, request.Reference, answer.Begun.Token)
	n := &renewal{Secondary: q, primary: primary}
	if err := repair(n, ctx); err != nil {
		return err
	}
	if err := q.renewed(ctx, answer.Begun, also); err != nil {
		return err
	}
	q.side.Log.Info("stream renewed", "lsn", answer.Begun.LSN, "rows", n.rows, "rounds", n.rounds)
	return nil
}

// renewed makes the snapshot's position the twin's, rows and origin being one from
// here on.
func (q *Secondary) renewed(ctx context.Context, begun seed.Begun, also func(context.Context, pgx.Tx) error) error {
	err := q.side.Keep(ctx, func(ctx context.Context, conn *pgx.Conn, r *catalog.Link) error {
		err := pg.InTx(ctx, conn, func(tx pgx.Tx) error {
			// Not transactional, so before the commit: where that fails all is done again.
			if err := origin.Place(ctx, tx, r.ID, begun.LSN); err != nil {
				return err
			}
			if err := also(ctx, tx); err != nil {
				return err
			}
			return catalog.SetRenewed(ctx, tx, r, begun.LSN, begun.Timeline, begun.SystemID)
		})
		r.StartLSN, r.SystemID, r.Renewing, r.Timeline = begun.LSN, begun.SystemID, false, begun.Timeline
		return err
	})
	if err == nil {
		q.twin.Stands(begun.LSN)
	}
	return err
}

// repairByHand is what is left where a repair cannot do it.
const repairByHand = "bring it in line on the secondary by hand and try again, or delete the link and create it again"

// renewal compares and repairs while nothing is applied.
type renewal struct {
	*Secondary
	primary *meet.Remote
	rows    int
	rounds  int
	// left, when set, says which differences of schema are not the renewal's business.
	left    func(verify.SchemaDifference) bool
	dropped []verify.SchemaDifference // what the primary does not have
}

// run brings schema and rows to what they are at the snapshot: tables that the primary
// has got meanwhile are made and copied, those that it has otherwise are copied anew, and
// what it has no more is dropped, for which somebody has to ask.
func (n *renewal) run(ctx context.Context) error {
	watch, err := n.twin.Watched(ctx)
	if err != nil {
		return err
	}
	drop, err := n.side.Agreed(ctx, lost.AcceptDrop)
	if err != nil {
		return err
	}
	// What is accepted stays; what only a person makes is for the comparison that follows.
	n.left = func(d verify.SchemaDifference) bool {
		return drift.Weigh(d, watch) == drift.Known || drift.Weigh(d, watch) == drift.Warned || drift.Weigh(d, watch) == drift.Unclear || d.Kind == "extension"
	}
	accepted := []string{lost.AcceptCompare, lost.AcceptTables}
	if drop {
		accepted = append(accepted, lost.AcceptDrop)
	}
	err = n.rejoin(ctx, accepted)
	if problem.CodeOf(err) == "rejoin_not_accepted" {
		names := make([]string, 0, len(n.dropped))
		for _, d := range n.dropped {
			names = append(names, d.Kind+" "+d.Name)
		}
		return problem.New(problem.Conflict, "repair_drops_objects", "the primary does not have any more what the twin has: %s", drift.Cut(strings.Join(names, ", "), drift.MostWords)).On(n.dropped[0].Name).
			WithHint("to have it dropped on the twin: twinspan link set %[1]s --accept %[2]s; then: twinspan link resume %[1]s --repair", n.side.Name(), lost.AcceptDrop)
	}
	if err == nil && drop { // it was for this repair
		err = n.side.Consent(ctx, lost.AcceptDrop, false)
	}
	return err
}

// repair repairs rows until nothing differs. Tables of which more differs
// than one round repairs are compared again and again.
func (n *renewal) repair(ctx context.Context) error {
	c := verify.Comparison{Most: mostRepaired, Workers: meet.Workers}
	c.Progress = func(p verify.Progress) {
		n.twin.Step(fmt.Sprintf("comparing with the primary, %d of %d tables", p.TablesDone, p.TablesTotal))
	}
	var before *verify.Findings
	for {
		found, err := n.round(ctx, &c)
		if err != nil || found.Equal() {
			return err
		}
		if before != nil && !verify.Progresses(before, found) {
			return n.incomplete(found)
		}
		before = found
		n.rounds++
		c.Tables = nil
		for _, t := range found.Tables {
			c.Tables = append(c.Tables, t.Table.SQL())
		}
	}
}

// round compares once and repairs what it finds.
func (n *renewal) round(ctx context.Context, c *verify.Comparison) (*verify.Findings, error) {
	holder, err := n.side.DSN.Connect(ctx, pg.Session{Name: n.side.Name() + "/verify"})
	if err != nil {
		return nil, err
	}
	defer holder.Close(context.WithoutCancel(ctx))
	var id string
	if _, err = holder.Exec(ctx, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"); err == nil {
		err = holder.QueryRow(ctx, "SELECT pg_export_snapshot()").Scan(&id)
	}
	if err != nil {
		return nil, pg.Classify(err, "take the secondary's snapshot")
	}
	secondary := &verify.Snapshot{DSN: n.side.DSN, Link: n.side.Name(), ID: id, Workers: meet.Workers, LockTimeout: meet.TwinLockTimeout}
	defer secondary.Close(context.WithoutCancel(ctx))
	found, err := c.Compare(ctx, n.primary, secondary)
	if err != nil {
		return nil, err
	}
	for _, s := range found.Skipped {
		switch {
		case s.Never:
		case s.Changed:
			return nil, problem.New(problem.Transient, "table_changed", "a table could not be compared: %s", s.Why).On(s.Name)
		default: // which waiting does not change
			return nil, problem.New(problem.Diverged, "repair_incomplete", "a table could not be compared: %s", s.Why).On(s.Name).WithHint(repairByHand)
		}
	}
	withoutLargeObjects(found)
	if found.Equal() {
		return found, nil
	}
	conn, err := n.meets.RepairSession(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if len(found.Tables) > 0 {
		n.twin.Step("copying rows that differ")
		if err := n.refill(ctx, conn, found); err != nil {
			return nil, err
		}
		if err := verify.RepairRows(ctx, conn, found, secondary, n.primary, n.primary); err != nil {
			return nil, err
		}
		for _, t := range found.Tables {
			n.rows += len(t.Rows)
		}
	}
	return found, nil
}

// refill copies whole tables that are empty here and not on the primary.
func (n *renewal) refill(ctx context.Context, conn *pgx.Conn, f *verify.Findings) error {
	for i := range f.Tables {
		t := &f.Tables[i]
		if !t.More {
			continue
		}
		// Not by a query on the table: planning one runs functions of its owner's.
		var empty bool
		if err := conn.QueryRow(ctx, `SELECT pg_catalog.pg_relation_size(`+sqlname.Literal(t.Table.SQL())+`::pg_catalog.regclass) = 0`).Scan(&empty); err != nil {
			return pg.Classify(err, "look at "+t.Table.String())
		}
		if !empty {
			continue
		}
		if err := verify.CopyTable(ctx, conn, n.side.DSN, n.side.Name(), verify.Table{Name: t.Table, Columns: t.Columns}, n.primary); err != nil {
			return err
		}
		t.Rows = nil // the next round finds them equal
	}
	return nil
}

// withoutLargeObjects leaves them to the pass that follows.
func withoutLargeObjects(f *verify.Findings) {
	kept := f.Tables[:0]
	for _, t := range f.Tables {
		if !verify.IsLargeObjects(t.Table) {
			kept = append(kept, t)
		}
	}
	f.Tables = kept
}

func (n *renewal) incomplete(f *verify.Findings) error {
	p := problem.New(problem.Diverged, "repair_incomplete", "the twin differs from the primary in what cannot be repaired by copying rows")
	switch {
	case len(f.Schema) > 0:
		p.Text += fmt.Sprintf(": %s %s", f.Schema[0].Kind, f.Schema[0].Name)
		p = p.On(f.Schema[0].Name)
	case len(f.Tables) > 0:
		p = p.On(f.Tables[0].Table.String())
	}
	return p.WithHint(repairByHand)
}
