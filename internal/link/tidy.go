package link

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/gate"
	"github.com/twinspan/twinspan/internal/origin"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/role"
	"github.com/twinspan/twinspan/internal/side"
)

// tidyPause is between two attempts to remove what a change of places has left.
const tidyPause = 2 * time.Second

// tidyLoop removes what a side has of its former role, and sees that the gate is as
// the record says, whenever the record has changed.
func (l *Link) tidyLoop(ctx context.Context) {
	for ctx.Err() == nil {
		_, changed := l.side.Watch()
		done, err := l.tidy(ctx)
		if err != nil && ctx.Err() == nil {
			l.log.Warn("leftovers of the former role stay for now", "err", err)
		}
		if done && err == nil {
			select {
			case <-changed:
			case <-ctx.Done():
			}
			continue
		}
		select {
		case <-time.After(tidyPause):
		case <-ctx.Done():
		}
	}
}

// tidy says whether nothing is left to do.
func (l *Link) tidy(ctx context.Context) (done bool, err error) {
	l.furniture.Lock()
	defer l.furniture.Unlock()
	l.mu.Lock()
	r, quiet := l.side.Record(), l.quieted
	l.mu.Unlock()
	if r.Deleting || !r.Seeded || quiet { // whoever has made it quiet may be making what would be removed
		return true, nil
	}
	var left leftovers
	err = l.side.Session.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		if err := l.agree(ctx, conn); err != nil {
			return err
		}
		return left.look(ctx, conn, r.ID)
	})
	s := side.State(r)
	switch {
	case err != nil:
		return false, err
	case s.Phase == role.FailingOver || s.Phase == role.Fenced || s.Diverged:
		return true, nil
	case s.Role == role.Secondary && !left.gate:
		l.log.Warn("the gate of a secondary is gone, it is built anew")
		return false, l.withGateSession(ctx, func(ctx context.Context, conn *pgx.Conn) error {
			if err := gate.Shut(ctx, conn); err != nil {
				return err
			}
			return gate.ShutTables(ctx, conn)
		})
	case s.Role == role.Secondary && left.capture:
		source := l.source()
		return true, source.Remove(ctx, !left.primaries)
	case s.Role == role.Primary && left.gate && !left.gated:
		err := l.withGateSession(ctx, func(ctx context.Context, conn *pgx.Conn) error { return gate.Open(ctx, conn, "") })
		return err == nil && !left.origin, err
	case s.Role == role.Primary && left.origin:
		return l.dropFollowed(ctx, r.ID)
	}
	return true, nil
}

// gateLock is how long work on the gate waits for a lock: whoever cannot be ended, frozen or
// prepared, is named then, and it is tried again.
const gateLock = "20s"

// withGateSession runs f in a session of its own, which may wait for locks.
func (l *Link) withGateSession(ctx context.Context, f func(context.Context, *pgx.Conn) error) error {
	conn, err := l.dsn.Connect(ctx, pg.Session{Name: l.Name() + "/gate", Apply: true, Unseen: true, Settings: map[string]string{"lock_timeout": gateLock}})
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	return f(ctx, conn)
}

// dropFollowed drops the origin of a side that follows nobody any more, once the
// other side follows it: until then its log is read from where the origin is named.
func (l *Link) dropFollowed(ctx context.Context, id string) (done bool, err error) {
	l.mu.Lock()
	followed := l.live.report.Applied != 0
	l.mu.Unlock()
	if !followed {
		return false, nil
	}
	err = l.side.Session.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error { return origin.Drop(ctx, conn, id) })
	return err == nil, err
}

// agree makes the gate do what the links of the database call for. It is called in
// the side's session, so that no state is stored meanwhile.
func (l *Link) agree(ctx context.Context, conn *pgx.Conn) error {
	var lets, refuses, should, changing bool
	err := conn.QueryRow(ctx, `SELECT state = 1, state = 2 OR state = 9999 AND EXISTS (SELECT FROM twinspan.link WHERE role = 'secondary' AND phase = 'failing_over'),
		to_regprocedure('twinspan.release()') IS NOT NULL OR EXISTS (SELECT FROM twinspan.link WHERE role = 'secondary' OR phase = 'fenced'),
		EXISTS (SELECT FROM twinspan.link WHERE phase = 'failing_over')
		FROM (SELECT coalesce(pg_sequence_last_value(to_regclass('twinspan.gate_state')), 1) AS state) x`).Scan(&lets, &refuses, &should, &changing)
	switch {
	case err != nil:
		return pg.Classify(err, "look at the gate")
	case !should && (refuses || !lets && !changing): // which may slow writers down
		return gate.LetThrough(ctx, conn)
	case should && !refuses:
		return gate.Refuse(ctx, conn)
	}
	return nil
}

// leftovers is what a database has for roles that a link may play in it.
type leftovers struct {
	capture     bool // slot or publication
	gate        bool
	origin      bool
	primaries   bool // of other links
	secondaries bool
	gated       bool // another link, or a cutover, needs the gate
}

func (o *leftovers) look(ctx context.Context, conn *pgx.Conn, id string) error {
	err := conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1) OR EXISTS (SELECT FROM pg_publication WHERE pubname = $1),
		to_regclass('twinspan.gate_state') IS NOT NULL, EXISTS (SELECT FROM pg_replication_origin WHERE roname = $1),
		EXISTS (SELECT FROM twinspan.link WHERE role = 'primary' AND id <> $2::text::uuid),
		EXISTS (SELECT FROM twinspan.link WHERE role = 'secondary' AND id <> $2::text::uuid)`, catalog.ObjectName(id), id).
		Scan(&o.capture, &o.gate, &o.origin, &o.primaries, &o.secondaries)
	if err != nil {
		return pg.Classify(err, "look for leftovers")
	}
	o.gated, err = gate.Needed(ctx, conn, id)
	return err
}
