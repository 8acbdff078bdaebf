package link

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/gate"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/role"
	"github.com/twinspan/twinspan/internal/side"
)

// standInterval is how often a side looks whether all is there that it stands on.
const standInterval = 3 * time.Second

// standLoop looks, on either side and in every phase, for what a superuser may have taken
// away: the record, the gate, the event triggers, the publication, the database itself.
// What can be made again is made again at once, and it is said that it was gone.
func (l *Link) standLoop(ctx context.Context) {
	tick := time.NewTicker(standInterval)
	defer tick.Stop()
	var w standing
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := w.look(ctx, l); err != nil && ctx.Err() == nil {
			l.log.Debug("cannot look at what the link stands on", "err", err)
		}
	}
}

// standing is what the loop remembers.
type standing struct {
	database uint32 // its OID, 0 before it was read
	breached time.Time
	captures []string // what captured when it was last whole
	gate     bool     // the gate's functions were seen to be this program's
	renew    bool     // they are to be made anew
}

// missingOfGate says what of the gate is gone. Functions of another text are of an earlier release as long as
// none of this program's were there: they are made anew.
func (w *standing) missingOfGate(ctx context.Context, conn *pgx.Conn) ([]string, error) {
	gone, changed, err := gate.Missing(ctx, conn)
	if err != nil {
		return nil, err
	}
	if w.renew = len(changed) > 0 && !w.gate; w.renew {
		return gone, nil
	}
	w.gate = true
	return append(gone, changed...), nil
}

// missing says what captured before and does not any more.
func (w *standing) missing(there []string) (gone []string) {
	for _, what := range w.captures {
		if !slices.Contains(there, what) {
			gone = append(gone, what)
		}
	}
	if len(gone) == 0 {
		w.captures = there
	}
	return gone
}

// letOwnerRead keeps pg_dump working for the database's owner. That it cannot be done now
// stops nothing: the loop that looks after what a link stands on does it again.
func (l *Link) letOwnerRead(ctx context.Context, conn *pgx.Conn) {
	if err := catalog.Readable(ctx, conn); err != nil {
		l.log.Debug("cannot let the database's owner read the schema twinspan", "err", err)
	}
}

func (w *standing) look(ctx context.Context, l *Link) error {
	r := l.side.Record()
	if r.Deleting || r.Phase == string(role.Creating) {
		return nil
	}
	var there bool
	var gone []string
	var others error
	var triggers *problem.Error
	err := l.side.Session.Do(ctx, func(ctx context.Context, conn *pgx.Conn) (err error) {
		// As it is now: it does not change while this session is in use, and with it what the
		// gate has to do.
		r = l.side.Record()
		err = conn.QueryRow(ctx, `SELECT d.oid, pg_catalog.to_regclass('twinspan.link') IS NOT NULL FROM pg_catalog.pg_database d WHERE datname = pg_catalog.current_database()`).
			Scan(&w.database, &there)
		if err == nil && there {
			err = conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM twinspan.link WHERE id = $1::text::uuid)`, r.ID).Scan(&there)
		}
		if err != nil || !there {
			return pg.Classify(err, "look for the link's record")
		}
		l.letOwnerRead(ctx, conn)
		others = onlyOurs(ctx, conn)
		if refuses(r) {
			gone, err = w.missingOfGate(ctx, conn)
		} else if role.Role(r.Role) == role.Primary && publishes(r) {
			source := l.source()
			var captures []string
			captures, err = source.Standing(ctx, conn)
			gone = w.missing(captures)
			if err == nil {
				triggers, err = eventTriggersAgreed(ctx, conn, r)
			}
		}
		return err
	})
	l.side.Warn("database", w.lost(ctx, l, err))
	if err == nil {
		l.side.Warn(eventTriggerOfRole, triggers)
	}
	if p := problem.As(others); p == nil || p.Code == "schema_in_use" {
		l.side.Warn("schema_in_use", p)
	}
	switch {
	case err != nil:
		return err
	case !there:
		return l.restoreRecord(ctx, r)
	case refuses(r):
		return w.shutAgain(ctx, l, gone)
	case len(gone) == 0:
		l.side.Warn("capture", nil)
		return nil
	}
	l.side.Warn("capture", problem.New(problem.Conflict, "capture_taken_away", "somebody has taken away what the link captures with: %s", strings.Join(gone, ", ")).On(gone[0]).
		WithHint("it is made again by itself; see who drops or disables objects named twinspan_, and compare both sides: twinspan link verify %s", r.Name))
	source := l.source()
	return source.Prepare(ctx)
}

// refuses says whether a side's gate has to refuse writes to every table, and nobody is
// about to change that.
func refuses(r catalog.Link) bool {
	switch role.Phase(r.Phase) {
	case role.CatchingUp, role.Replicating, role.Suspended, role.Broken:
		return role.Role(r.Role) == role.Secondary && r.Seeded && !r.Diverged
	case role.Fenced:
		return role.Role(r.Role) == role.Primary && r.Operation == "" // it is isolated
	}
	return false
}

func publishes(r catalog.Link) bool {
	switch role.Phase(r.Phase) {
	case role.Seeding, role.CatchingUp, role.Replicating:
		return true
	}
	return false
}

// lost tells a database that was renamed or dropped from one that is out of reach.
func (w *standing) lost(ctx context.Context, l *Link, err error) *problem.Error {
	if !pg.IsUnknownDatabase(err) || w.database == 0 {
		return nil
	}
	server, err := l.place.Server.Connect(ctx, pg.Session{Name: l.Name() + "/lost"})
	if err != nil {
		return nil
	}
	defer server.Close(context.WithoutCancel(ctx))
	var name string
	switch err := server.QueryRow(ctx, `SELECT datname FROM pg_catalog.pg_database WHERE oid = $1`, w.database).Scan(&name); err {
	case nil:
		return problem.New(problem.Conflict, "database_renamed", "database %q has been renamed to %q", l.database, name).On(name).
			WithHint("rename it back, or restart the agent, which finds the link in it")
	case pgx.ErrNoRows:
		return problem.New(problem.NotFound, "database_dropped", "database %q has been dropped", l.database).On(l.database).
			WithHint("remove the link: twinspan link delete %s --force, on both sides", l.Name())
	}
	return nil
}

// shutAgain shuts a gate that was taken away. That it was open stays a problem until a
// verification has found both sides equal since.
func (w *standing) shutAgain(ctx context.Context, l *Link, gone []string) error {
	if len(gone) == 0 {
		if w.renew {
			l.log.Info("the gate's functions are made anew")
			return l.withGateSession(ctx, gate.Shut)
		}
		if !w.breached.IsZero() && l.verifications.EqualSince(w.breached) {
			w.breached = time.Time{}
			l.side.Warn("breach", nil)
		}
		return nil
	}
	if l.Role() == role.Secondary { // of a primary that has been fenced it may not be shut yet
		l.log.Warn("the gate was taken away, it is shut again", "gone", strings.Join(gone, ", "))
		w.breached = time.Now()
		l.side.Warn("breach", breach(gone, l.Name()))
	}
	return l.withGateSession(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		ctx, stop := context.WithTimeout(ctx, shutPatience)
		defer stop()
		l.mu.Lock()
		r, quiet := l.side.Record(), l.quieted
		l.mu.Unlock()
		if quiet || !refuses(r) { // it may have become primary since
			return nil
		}
		if err := gate.Shut(ctx, conn); err != nil {
			return err
		}
		return gate.Slam(ctx, conn, func(p *problem.Error) { l.side.Warn("gate", p) })
	})
}

func breach(gone []string, name string) *problem.Error {
	return problem.New(problem.Conflict, "gate_taken_away", "somebody has taken away what keeps this side from being written to: %s; it is made again, but rows may have been written meanwhile", strings.Join(gone, ", ")).On(gone[0]).
		WithHint("twinspan link verify %s says whether anything differs, --repair mends it", name)
}

// restoreRecord writes the record of a link again that was dropped with its schema. The
// link stops, for nobody knows what else was done meanwhile; a gate that it calls for is
// shut at once.
func (l *Link) restoreRecord(ctx context.Context, r catalog.Link) error {
	next := r
	if stepped, err := role.Step(side.State(r), role.Failed); err == nil {
		side.Put(stepped, &next)
	}
	next.Problem = problem.New(problem.Conflict, "record_dropped", "the schema twinspan was dropped, with the link's record in it, which the agent has written again").On("twinspan").
		WithHint("see who did that; then compare both sides and go on: twinspan link resume %s --repair", r.Name)
	l.log.Error("the link's record is gone, it is written again", "phase", next.Phase)
	err := l.withGateSession(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		err := pg.InTx(ctx, conn, func(tx pgx.Tx) error {
			if err := catalog.Install(ctx, tx); err != nil {
				return err
			}
			if err := catalog.Insert(ctx, tx, &r); err != nil {
				return err
			}
			if err := catalog.SetSettings(ctx, tx, &next); err != nil {
				return err
			}
			if err := catalog.Prove(ctx, tx, &next, l.place.Key); err != nil {
				return err
			}
			return catalog.Turn(ctx, tx, &r, &next)
		})
		if err != nil || !refuses(r) {
			return err
		}
		ctx, stop := context.WithTimeout(ctx, shutPatience)
		defer stop()
		if err := gate.Shut(ctx, conn); err != nil {
			return err
		}
		return gate.Slam(ctx, conn, func(p *problem.Error) { l.side.Warn("gate", p) })
	})
	if err != nil {
		return err
	}
	l.side.Stored(next)
	if role.Role(r.Role) == role.Primary {
		source := l.source()
		return source.Prepare(ctx)
	}
	return nil
}
