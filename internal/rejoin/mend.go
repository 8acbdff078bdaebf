package rejoin

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/lost"
	"github.com/twinspan/twinspan/internal/meet"
	"github.com/twinspan/twinspan/internal/origin"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/role"
	"github.com/twinspan/twinspan/internal/side"
)

// Clear takes away whatever the lost transactions have left, and lets the origin
// stand where the new primary's log begins to differ, in one transaction.
func (f *Former) Clear(ctx context.Context, conn *pgx.Conn, p lost.Parting, m lost.Mending) error {
	if err := RefusePrepared(ctx, conn); err != nil {
		return err
	}
	// Somebody may have committed what had been prepared.
	if err := f.losses.Collect(ctx, p); err != nil {
		return err
	}
	plan, err := lost.MakePlan(ctx, conn, p.Link, p.Epoch)
	if err != nil {
		return err
	}
	if err := lost.Consent(f.side.Name(), needs(plan), m.Accepted); err != nil {
		return err
	}
	r := f.side.Record()
	name := catalog.ObjectName(r.ID)
	if err := origin.Make(ctx, conn, r.ID); err != nil {
		return err
	}
	if _, err := conn.Exec(ctx, `SELECT pg_replication_origin_session_setup($1)`, name); err != nil {
		return pg.Classify(err, "take the replication origin")
	}
	err = pg.InTx(ctx, conn, func(tx pgx.Tx) error {
		// The commit record holds the origin's position, wherever it stood before, and no time of the primary's.
		if _, err := tx.Exec(ctx, `SELECT pg_replication_origin_xact_setup($1::text::pg_lsn, '2000-01-01 00:00:00.000001+00')`, r.StartLSN.String()); err != nil {
			return pg.Classify(err, "set the replication origin")
		}
		return lost.Clear(ctx, f.writer(tx), p.Link, p.Epoch, plan)
	})
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, `SELECT pg_replication_origin_session_reset()`)
	f.twin.Stands(0)
	f.side.Log.Info("lost rows are taken away", "lsn", r.StartLSN, "tables", len(plan.Touched), "anew", len(plan.Anew))
	return pg.Classify(err, "give the replication origin back")
}

// RefusePrepared refuses to begin while transactions of the former primary are
// prepared: they hold locks, and would be lost without a record.
func RefusePrepared(ctx context.Context, conn *pgx.Conn) error {
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

// Settle overwrites the rows at the keys where both sides stand at one position, and calls settled
// before the twin goes on from there.
func (f *Former) Settle(ctx context.Context, conn *pgx.Conn, p lost.Parting, settled func()) error {
	f.twin.Step("overwriting rows with the new primary's")
	var rows int64
	request := meet.SnapshotRequest{Reference: side.Reference{ID: p.Link, Epoch: p.Epoch}, Workers: 1}
	m, err := f.meets.Meet(ctx, request, func(ctx context.Context, m *meet.Meeting) (err error) {
		if rows, err = f.overwrite(ctx, conn, p, m); err != nil {
			return err
		}
		settled()
		return nil
	})
	if err != nil {
		return err
	}
	f.side.Log.Info("lost rows are overwritten", "lsn", m.Position, "rows", rows, "dur", m.Pause)
	m.Stream.Close()
	return nil
}

// Empty empties the database and has it copied as a new twin's is.
func (f *Former) Empty(ctx context.Context, conn *pgx.Conn, p lost.Parting) error {
	f.twin.Step("emptying the database")
	var other string
	err := conn.QueryRow(ctx, `SELECT coalesce(min(name), '') FROM twinspan.link WHERE id <> $1::text::uuid AND NOT deleting`, p.Link).Scan(&other)
	if err != nil {
		return pg.Classify(err, "look for other links of the database")
	}
	if other != "" {
		return problem.New(problem.Conflict, "rejoin_other_link", "the database cannot be copied anew, for link %s has it, too", other).On(other).
			WithHint("delete link %s first, and create it again afterwards", other)
	}
	if err := RefusePrepared(ctx, conn); err != nil {
		return err
	}
	if err := f.twin.Empty(ctx, conn); err != nil {
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
		r := f.side.Record()
		return catalog.SetStart(ctx, tx, &r, 0, "")
	})
	if err != nil {
		return err
	}
	err = f.side.Keep(ctx, func(ctx context.Context, conn *pgx.Conn, r *catalog.Link) error {
		r.StartLSN, r.SystemID = 0, "" // as is stored
		return origin.Drop(ctx, conn, p.Link)
	})
	if err != nil {
		return err
	}
	f.twin.Stands(0)
	f.twin.Step("")
	return f.side.Happen(ctx, role.Emptied, nil)
}
