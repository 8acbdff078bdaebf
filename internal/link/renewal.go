package link

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/role"
	"github.com/twinspan/twinspan/internal/seed"
	"github.com/twinspan/twinspan/internal/sqlname"
	"github.com/twinspan/twinspan/internal/verify"
)

// mostRepaired is how many rows of a table one round of a renewal repairs.
const mostRepaired = 20_000

// ResumeWithRepair lets a link go on whose stream cannot: its slot is gone, or what
// lies between slot and twin is, or the primary is one that has lost what the twin
// has. The stream begins anew at a snapshot, to whose state the twin is brought by
// comparing the two and copying the rows that differ.
func (l *Link) ResumeWithRepair(ctx context.Context) error {
	r := l.snapshot()
	if role.Role(r.Role) == role.Primary {
		return l.place.Peers.Call(ctx, r.Peer, MethodRepair, Reference{ID: r.ID, Epoch: r.Epoch}, nil)
	}
	if !r.Seeded {
		return problem.New(problem.Conflict, "copy_incomplete", "the copy is not complete: there is nothing to repair").On(r.Name).
			WithHint("twinspan link resume %s goes on with it", r.Name)
	}
	l.mu.Lock()
	streaming := l.secondary.applier != nil
	l.mu.Unlock()
	// The primary may know that the slot is lost while this side only knows that it is
	// not served.
	waiting := !streaming && (role.Phase(r.Phase) == role.CatchingUp || role.Phase(r.Phase) == role.Replicating)
	if role.Phase(r.Phase) != role.Broken && !waiting {
		return problem.New(problem.Conflict, "phase_refuses", "link %s is %s, not broken: its stream goes on as it is", r.Name, r.Phase).On(r.Name).
			WithHint("twinspan link verify %s --repair compares and repairs a link that replicates", r.Name)
	}
	err := l.control.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		next := l.snapshot()
		if err := catalog.SetRenewing(ctx, conn, &next); err != nil {
			return err
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		l.record.Renewing = true
		return nil
	})
	if err != nil {
		return err
	}
	return l.Resume(ctx)
}

// HandleRepair does it for the primary's operator.
func (l *Link) HandleRepair(ctx context.Context, r Reference) error {
	if err := l.secondaryAt(r); err != nil {
		return err
	}
	return l.ResumeWithRepair(ctx)
}

// renew brings the twin to the state of a new slot's snapshot. It begins from the
// start when it was interrupted: what was repaired by then is found equal.
func (l *Link) renew(ctx context.Context) error {
	defer l.step("")
	err := l.renewBy(ctx, (*renewal).run, func(context.Context, pgx.Tx) error { return nil })
	if err != nil {
		return err
	}
	l.step("copying large objects")
	_, err = l.BringLargeObjects(ctx, true)
	return err
}

// renewBy has the primary make its slot anew and the twin repaired at its snapshot;
// also is part of the commit from which on the twin stands there.
func (l *Link) renewBy(ctx context.Context, repair func(*renewal, context.Context) error, also func(context.Context, pgx.Tx) error) error {
	l.step("waiting for a new position")
	r := l.snapshot()
	request := SnapshotRequest{Reference: Reference{ID: r.ID, Epoch: r.Epoch}, Workers: verifyWorkers}
	s, err := l.place.Peers.Open(ctx, r.Peer, MethodRenew, request)
	if err != nil {
		return err
	}
	defer s.Close()
	answer, err := readSnapshotAnswer(s)
	if err != nil {
		return err
	}
	primary := &remoteSide{link: l, held: SessionReference{Reference: request.Reference, Token: answer.Begun.Token}}
	n := &renewal{link: l, primary: primary}
	if err := repair(n, ctx); err != nil {
		return err
	}
	if err := l.renewed(ctx, answer.Begun, also); err != nil {
		return err
	}
	l.log.Info("stream renewed", "lsn", answer.Begun.LSN, "rows", n.rows, "rounds", n.rounds)
	return nil
}

// renewed makes the snapshot's position the twin's, rows and origin being one from
// here on.
func (l *Link) renewed(ctx context.Context, begun seed.Begun, also func(context.Context, pgx.Tx) error) error {
	return l.control.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		r := l.snapshot()
		err := pg.InTx(ctx, conn, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, `SELECT pg_replication_origin_create($1) WHERE NOT EXISTS (SELECT FROM pg_replication_origin WHERE roname = $1)`,
				catalog.ObjectName(r.ID)); err != nil {
				return pg.Classify(err, "create the replication origin")
			}
			// Not transactional, so before the commit: where that fails all is done again.
			if _, err := tx.Exec(ctx, `SELECT pg_replication_origin_advance($1, $2::text::pg_lsn)`, catalog.ObjectName(r.ID), begun.LSN.String()); err != nil {
				return pg.Classify(err, "set the replication origin")
			}
			if err := also(ctx, tx); err != nil {
				return err
			}
			return catalog.SetRenewed(ctx, tx, &r, begun.LSN, begun.Timeline, begun.SystemID)
		})
		if err != nil {
			return err
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		l.record.StartLSN, l.record.SystemID, l.record.Renewing, l.record.Timeline = begun.LSN, begun.SystemID, false, begun.Timeline
		l.secondary.durable = begun.LSN
		return nil
	})
}

// repairByHand is what is left where a repair cannot do it.
const repairByHand = "bring it in line on the secondary by hand and try again, or delete the link and create it again"

// renewal compares and repairs while nothing is applied.
type renewal struct {
	link    *Link
	primary *remoteSide
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
	watch, err := n.link.schemaState(ctx)
	if err != nil {
		return err
	}
	drop, err := n.link.agreed(ctx, acceptDrop)
	if err != nil {
		return err
	}
	// What is accepted stays; what only a person makes is for the comparison that follows.
	n.left = func(d verify.SchemaDifference) bool {
		return weigh(d, watch) == known || weigh(d, watch) == warned || weigh(d, watch) == unclear || d.Kind == "extension"
	}
	accepted := []string{acceptCompare, acceptTables}
	if drop {
		accepted = append(accepted, acceptDrop)
	}
	err = n.rejoin(ctx, accepted)
	if problem.CodeOf(err) == "rejoin_not_accepted" {
		names := make([]string, 0, len(n.dropped))
		for _, d := range n.dropped {
			names = append(names, d.Kind+" "+d.Name)
		}
		return problem.New(problem.Conflict, "repair_drops_objects", "the primary does not have any more what the twin has: %s", cutTo(strings.Join(names, ", "), mostWords)).On(n.dropped[0].Name).
			WithHint("to have it dropped on the twin: twinspan link set %[1]s --accept %[2]s; then: twinspan link resume %[1]s --repair", n.link.Name(), acceptDrop)
	}
	if err == nil && drop { // it was for this repair
		err = n.link.consent(ctx, acceptDrop, false)
	}
	return err
}

// repair repairs rows until nothing differs. Tables of which more differs
// than one round repairs are compared again and again.
func (n *renewal) repair(ctx context.Context) error {
	c := verify.Comparison{Most: mostRepaired, Workers: verifyWorkers}
	c.Progress = func(p verify.Progress) {
		n.link.step(fmt.Sprintf("comparing with the primary, %d of %d tables", p.TablesDone, p.TablesTotal))
	}
	var before *verify.Findings
	for {
		found, err := n.round(ctx, &c)
		if err != nil || found.Equal() {
			return err
		}
		if before != nil && !progress(before, found) {
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
	l := n.link
	holder, err := l.dsn.Connect(ctx, pg.Session{Name: l.Name() + "/verify"})
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
	secondary := &verify.Snapshot{DSN: l.dsn, Link: l.Name(), ID: id, Workers: verifyWorkers, LockTimeout: twinLockTimeout}
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
	conn, err := l.repairSession(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if len(found.Tables) > 0 {
		l.step("copying rows that differ")
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

// repairSession opens a session that writes on the secondary for a repair: code of users may
// run in it, within fences, and nobody waits longer than a moment for a lock.
func (l *Link) repairSession(ctx context.Context) (*pgx.Conn, error) {
	return l.dsn.Connect(ctx, pg.Session{Name: l.Name() + "/repair", Apply: true, Fenced: true,
		Settings: map[string]string{"lock_timeout": "5s", "client_min_messages": "warning"}})
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
		if err := verify.CopyTable(ctx, conn, n.link.dsn, n.link.Name(), verify.Table{Name: t.Table, Columns: t.Columns}, n.primary); err != nil {
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
