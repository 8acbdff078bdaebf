package link

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/gate"
	"github.com/twinspan/twinspan/internal/origin"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/role"
	"github.com/twinspan/twinspan/internal/side"
)

// removePatience is how long a caller waits for a removal. The removal itself
// goes on until it is complete.
const removePatience = 2 * time.Minute

// Delete removes the link on both sides; with force on this side alone, whatever
// the peer does. Without force a peer that cannot be reached stops it before
// anything has changed.
func (l *Link) Delete(ctx context.Context, force bool) (api.DeleteResult, error) {
	r := l.side.Record()
	other := api.DeletedSide{Agent: r.Peer, Database: r.PeerDatabase, Role: api.Role(role.Role(r.Role).Other()), State: api.Unknown,
		Text: "was not asked; run link delete --force there", Left: []string{}}
	last := l.lastChanges(ctx, r)
	if !force {
		err := l.place.Peers.Call(ctx, r.Peer, MethodDelete, side.ReferenceOf(r), &other)
		switch {
		case problem.CodeOf(err) == "link_unknown":
			other.Text = "does not know the link any more"
		case problem.Retry(err):
			l.sequences.Release()
			return api.DeleteResult{}, problem.Wrap(err, problem.Transient, problem.CodeOf(err), "remove the link on peer %s", r.Peer).
				WithHint("try again when the peer is back, or remove this side alone with --force")
		case err != nil:
			l.sequences.Release()
			return api.DeleteResult{}, err
		}
	}
	mine, err := l.remove(ctx, last, catalogDeleting)
	if err != nil {
		return api.DeleteResult{}, err
	}
	return api.DeleteResult{Name: r.Name, Forced: force, Sides: []api.DeletedSide{mine, other}}, nil
}

// lastChanges brings a whole copy up to date in what does not come with the stream,
// before the link is removed, and says in words how that went.
func (l *Link) lastChanges(ctx context.Context, r catalog.Link) string {
	if role.Role(r.Role) == role.Primary || !r.Seeded {
		return ""
	}
	return l.objects.Last(ctx) + l.sequences.Last(ctx)
}

func catalogDeleting(ctx context.Context, q catalog.Querier, l *catalog.Link) error {
	return catalog.SetDeleting(ctx, q, l, true)
}

// remove has this side removed; mark stores that it is.
func (l *Link) remove(ctx context.Context, last string, mark func(context.Context, catalog.Querier, *catalog.Link) error) (api.DeletedSide, error) {
	r := l.side.Record()
	mine := api.DeletedSide{Agent: l.place.AgentName, Database: l.database, Role: api.Role(r.Role), State: api.Independent, Left: []string{}}
	position := l.view().Position.Applied
	switch {
	case role.Role(r.Role) == role.Primary:
		mine.Text = "unchanged, reads and writes"
	case r.Seeded:
		mine.Text = fmt.Sprintf("a whole copy as of position %s of the former primary%s; reads and writes", position, last)
	case r.CreatedDatabase:
		mine.State, mine.Text = api.Dropped, "the copy was not finished; the database made for it was dropped"
	default:
		mine.Text = "the copy was not finished; the database was there before the link and is empty again"
	}
	err := l.side.Keep(ctx, func(ctx context.Context, conn *pgx.Conn, r *catalog.Link) error {
		if err := mark(ctx, conn, r); err != nil {
			return err
		}
		stored, err := catalog.Get(ctx, conn, r.ID)
		if err == nil {
			r.Deleting, r.Operation = true, stored.Operation
		}
		return err
	})
	if err != nil {
		l.sequences.Release()
		return mine, err
	}
	l.side.Announce()
	select {
	case <-l.removed:
		return mine, nil
	case <-ctx.Done():
		select {
		case <-l.removed: // which ended ctx
			return mine, nil
		default:
			return mine, context.Cause(ctx)
		}
	case <-time.After(removePatience):
	}
	p := problem.New(problem.Transient, "removal_pending", "the removal is under way and goes on by itself")
	if trouble := l.side.Trouble(); trouble != nil {
		p.Text += ": " + trouble.Error()
		p.Hint = trouble.Hint
	}
	return mine, p
}

// removeHere takes this side's objects away. It can be repeated, also by an agent
// that was started anew in the middle.
func (l *Link) removeHere(ctx context.Context) error {
	r := l.side.Record()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	go l.endReaders(ctx)
	err := l.mode.Settle(ctx) // before the slot goes: commits would wait for ever
	if err != nil {
		return err
	}
	if role.Role(r.Role) == role.Primary {
		err = l.removePrimary(ctx, r)
	} else {
		err = l.removeTwin(ctx, r)
	}
	if err != nil {
		return err
	}
	l.log.Info("link removed", "role", r.Role, "database", l.database)
	close(l.removed)
	return errRemoved
}

// readersPatience is how long who reads the link's tables, as the database's owner may, keeps its removal waiting.
const readersPatience = 30 * time.Second

// endReaders ends sessions that hold locks on what is to be dropped of the schema twinspan.
func (l *Link) endReaders(ctx context.Context) {
	select {
	case <-ctx.Done():
		return
	case <-time.After(readersPatience):
	}
	for ctx.Err() == nil {
		if err := l.endReadersNow(ctx); err != nil {
			l.log.Debug("cannot end who reads the link's tables", "err", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

func (l *Link) endReadersNow(ctx context.Context) error {
	ctx, stop := context.WithTimeout(ctx, 5*time.Second)
	defer stop()
	conn, err := l.dsn.Connect(ctx, pg.Session{Name: l.Name() + "/readers"})
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var who []string
	err = conn.QueryRow(ctx, `SELECT coalesce(array_agg(format('process %s of %s', b.pid, b.usename)) FILTER (WHERE pg_catalog.pg_terminate_backend(b.pid)), '{}') FROM (
		SELECT DISTINCT h.pid, h.usename FROM pg_catalog.pg_locks w JOIN pg_catalog.pg_stat_activity a ON a.pid = w.pid
		  JOIN pg_catalog.pg_class c ON c.oid = w.relation AND c.relnamespace = pg_catalog.to_regnamespace('twinspan')
		 CROSS JOIN LATERAL unnest(pg_catalog.pg_blocking_pids(w.pid)) x (pid) JOIN pg_catalog.pg_stat_activity h ON h.pid = x.pid
		 WHERE NOT w.granted AND w.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
		   AND a.application_name LIKE 'twinspan/%' AND a.usename = session_user AND NOT (h.application_name LIKE 'twinspan/%' AND h.usename = session_user)) b`).Scan(&who)
	if err == nil && len(who) > 0 {
		l.log.Info("ended who kept the link from being removed", "who", who)
	}
	return pg.Classify(err, "end who reads the link's tables")
}

func (l *Link) removePrimary(ctx context.Context, r catalog.Link) error {
	var left leftovers
	err := l.side.Session.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error { return left.look(ctx, conn, r.ID) })
	if err != nil {
		return err
	}
	source := l.source()
	if err := source.Remove(ctx, !left.primaries && !left.secondaries); err != nil {
		return err
	}
	// What it has from having been a secondary, or from a failover that was prepared.
	if left.origin {
		err := l.side.Session.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error { return origin.Drop(ctx, conn, r.ID) })
		if err != nil {
			return err
		}
	}
	if left.gate {
		err := l.withGateSession(ctx, func(ctx context.Context, conn *pgx.Conn) error { return gate.Open(ctx, conn, r.ID) })
		if err != nil {
			return err
		}
	}
	// Nobody reads by the schema's name behind its end. A removal that fails now goes on without the loops.
	l.endLoops()
	return l.side.Session.Last(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		return pg.InTx(ctx, conn, func(tx pgx.Tx) error {
			if err := catalog.Delete(ctx, tx, r.ID); err != nil {
				return err
			}
			return removeIfLast(ctx, tx)
		})
	})
}
