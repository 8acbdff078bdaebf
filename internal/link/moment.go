package link

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/dbcopy"
	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/role"
)

const (
	// momentPatience is how long a moment of a twin is waited for: one transaction of the
	// primary may be that long in being applied.
	momentPatience = 10 * time.Minute
	// restPatience is how long the replication origin of a link at rest may be held by
	// somebody else: what a former agent's session still does.
	restPatience = time.Minute
)

// Moment has f called with a snapshot of a twin that shows the primary's state at a
// position, which it names. The snapshot lives until f returns. The applier stands still for
// the milliseconds of its export. A twin that is no state of the primary, because its first
// copy or a repair is not done with, is twin_not_whole.
func (l *Link) Moment(ctx context.Context, f func(ctx context.Context, m dbcopy.Moment) error) error {
	if err := l.isWhole(); err != nil {
		return err
	}
	holder, err := l.dsn.Connect(ctx, pg.Session{Name: l.Name() + "/moment"})
	if err != nil {
		return err
	}
	defer holder.Close(context.WithoutCancel(ctx))
	// A session's first run of the query takes longer than any later one, which the applier
	// is not to wait for; and the transaction sees nothing before its first query.
	if _, err := exported(ctx, holder); err != nil {
		return err
	}
	if _, err := holder.Exec(ctx, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"); err != nil {
		return pg.Classify(err, "take the twin's snapshot")
	}
	m, err := l.takeMoment(ctx, holder)
	if err != nil {
		return err
	}
	if err := l.isWholeAt(ctx, m.Position); err != nil {
		return err
	}
	return f(ctx, m)
}

// takeMoment exports the holder's snapshot while nothing is applied.
func (l *Link) takeMoment(ctx context.Context, holder *pgx.Conn) (dbcopy.Moment, error) {
	ctx, stop := context.WithTimeoutCause(ctx, momentPatience, problem.New(problem.Transient, "position_not_reached",
		"the twin of link %s did not stand between two transactions of the primary within %s", l.Name(), momentPatience).On(l.Name()).
		WithHint("a large transaction is being applied, or something stops the link: twinspan link show %s", l.Name()))
	defer stop()
	for end := time.Now().Add(restPatience); ; {
		l.mu.Lock()
		there := l.secondary.applier != nil
		l.mu.Unlock()
		var m dbcopy.Moment
		var err error
		if there {
			m, err = l.momentBetween(ctx, holder)
		} else {
			m, err = l.momentAtRest(ctx, holder)
		}
		again := problem.CodeOf(err) == "link_interrupted" || problem.CodeOf(err) == "object_in_use"
		if !again || time.Now().After(end) {
			return m, err
		}
		select { // the link begins or ends to apply
		case <-ctx.Done():
			return m, context.Cause(ctx)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// momentBetween has the applier call between two transactions.
func (l *Link) momentBetween(ctx context.Context, holder *pgx.Conn) (m dbcopy.Moment, err error) {
	// The applier keeps one appointment at a time.
	select {
	case l.meeting <- struct{}{}:
	case <-ctx.Done():
		return m, context.Cause(ctx)
	}
	defer func() { <-l.meeting }()
	l.mu.Lock()
	applier, in := l.secondary.applier, l.secondary.receiver
	l.mu.Unlock()
	if applier == nil {
		return m, interrupted()
	}
	visit := &visit{done: make(chan struct{})}
	applier.At(0, func(applying context.Context) {
		visit.run(ctx, applying, func(ctx context.Context) error {
			var err error
			m, err = l.export(ctx, holder)
			if at := applier.Status().LastCommit; !at.IsZero() {
				m.CommittedAt = at
			}
			return err
		})
	})
	in.Nudge()
	came, err := visit.await(ctx, in)
	if !came {
		return dbcopy.Moment{}, err
	}
	return m, err
}

// momentAtRest keeps everybody from applying: whoever does has the replication origin.
func (l *Link) momentAtRest(ctx context.Context, holder *pgx.Conn) (m dbcopy.Moment, err error) {
	guard, err := l.dsn.Connect(ctx, pg.Session{Name: l.Name() + "/moment", Apply: true})
	if err != nil {
		return m, err
	}
	defer guard.Close(context.WithoutCancel(ctx))
	if _, err := guard.Exec(ctx, `SELECT pg_catalog.pg_replication_origin_session_setup($1)`, catalog.ObjectName(l.ID())); err != nil {
		return m, pg.Classify(err, "keep the link from applying for a moment")
	}
	return l.export(ctx, holder)
}

// export exports the snapshot and reads the position that is applied in it.
func (l *Link) export(ctx context.Context, holder *pgx.Conn) (m dbcopy.Moment, err error) {
	var position string
	err = holder.QueryRow(ctx, `SELECT pg_catalog.pg_export_snapshot(), coalesce(pg_catalog.pg_replication_origin_progress($1, false), '0/0')::text`, catalog.ObjectName(l.ID())).
		Scan(&m.Snapshot, &position)
	if err != nil {
		return m, pg.Classify(err, "take the twin's snapshot")
	}
	if m.Position, err = lsn.Parse(position); err != nil {
		return m, problem.Wrap(err, problem.Internal, "answer_unexpected", "read the position of the twin")
	}
	m.Exact = true
	l.mu.Lock()
	m.Objects = l.beside.collector.state.AsOf
	l.mu.Unlock()
	return m, nil
}

// isWholeAt refuses a twin that is no state of the primary at the position: until all
// snapshots of its first copy lie behind it, its tables are of several moments.
func (l *Link) isWholeAt(ctx context.Context, position lsn.LSN) error {
	if err := l.isWhole(); err != nil { // it may have become so since
		return err
	}
	r := l.snapshot()
	var before bool
	err := l.control.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		err := conn.QueryRow(ctx, `SELECT coalesce(max(lsn) > $2::text::pg_lsn, false) FROM twinspan.seed_session WHERE link = $1::text::uuid`, r.ID, position.String()).Scan(&before)
		return pg.Classify(err, "look when the twin was copied")
	})
	if err == nil && before {
		err = notWhole(r.Name, "what was written while it was first copied is not applied yet")
	}
	return err
}

// isWhole refuses a twin that is no state of the primary by what the link's record says.
func (l *Link) isWhole() error {
	r := l.snapshot()
	switch {
	case role.Role(r.Role) != role.Secondary:
		return problem.New(problem.Transient, "link_interrupted", "the sides of link %s have changed places", r.Name).On(r.Name).WithHint("copy again")
	case !r.Seeded:
		return notWhole(r.Name, "its first copy is under way")
	case r.Diverged || role.Phase(r.Phase) == role.Seeding:
		return notWhole(r.Name, "it is brought in line after a forced failover")
	case r.Renewing:
		return notWhole(r.Name, "it is being repaired")
	}
	return nil
}

func notWhole(name, why string) error {
	return problem.New(problem.Conflict, "twin_not_whole", "the twin of link %s is no state of the primary: %s", name, why).On(name).
		WithHint("copy it once the link replicates: twinspan link watch %s; or copy the primary's database", name)
}
