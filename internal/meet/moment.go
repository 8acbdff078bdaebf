package meet

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
func (s *Secondary) Moment(ctx context.Context, f func(ctx context.Context, m dbcopy.Moment) error) error {
	if err := s.isWhole(); err != nil {
		return err
	}
	holder, err := s.side.DSN.Connect(ctx, pg.Session{Name: s.side.Name() + "/moment"})
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
	m, err := s.takeMoment(ctx, holder)
	if err != nil {
		return err
	}
	if err := s.isWholeAt(ctx, m.Position); err != nil {
		return err
	}
	return f(ctx, m)
}

// takeMoment exports the holder's snapshot while nothing is applied.
func (s *Secondary) takeMoment(ctx context.Context, holder *pgx.Conn) (dbcopy.Moment, error) {
	ctx, stop := context.WithTimeoutCause(ctx, momentPatience, problem.New(problem.Transient, "position_not_reached",
		"the twin of link %s did not stand between two transactions of the primary within %s", s.side.Name(), momentPatience).On(s.side.Name()).
		WithHint("a large transaction is being applied, or something stops the link: twinspan link show %s", s.side.Name()))
	defer stop()
	for end := time.Now().Add(restPatience); ; {
		applier, _ := s.stream()
		var m dbcopy.Moment
		var err error
		if applier != nil {
			m, err = s.momentBetween(ctx, holder)
		} else {
			m, err = s.momentAtRest(ctx, holder)
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
func (s *Secondary) momentBetween(ctx context.Context, holder *pgx.Conn) (m dbcopy.Moment, err error) {
	// The applier keeps one appointment at a time.
	select {
	case s.appointment <- struct{}{}:
	case <-ctx.Done():
		return m, context.Cause(ctx)
	}
	defer func() { <-s.appointment }()
	applier, in := s.stream()
	if applier == nil {
		return m, interrupted()
	}
	visit := &visit{done: make(chan struct{})}
	applier.At(0, func(applying context.Context) {
		visit.run(ctx, applying, func(ctx context.Context) error {
			var err error
			m, err = s.export(ctx, holder)
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
func (s *Secondary) momentAtRest(ctx context.Context, holder *pgx.Conn) (m dbcopy.Moment, err error) {
	guard, err := s.side.DSN.Connect(ctx, pg.Session{Name: s.side.Name() + "/moment", Apply: true})
	if err != nil {
		return m, err
	}
	defer guard.Close(context.WithoutCancel(ctx))
	if _, err := guard.Exec(ctx, `SELECT pg_catalog.pg_replication_origin_session_setup($1)`, catalog.ObjectName(s.side.ID())); err != nil {
		return m, pg.Classify(err, "keep the link from applying for a moment")
	}
	return s.export(ctx, holder)
}

// export exports the snapshot and reads the position that is applied in it.
func (s *Secondary) export(ctx context.Context, holder *pgx.Conn) (m dbcopy.Moment, err error) {
	var position string
	err = holder.QueryRow(ctx, `SELECT pg_catalog.pg_export_snapshot(), coalesce(pg_catalog.pg_replication_origin_progress($1, false), '0/0')::text`, catalog.ObjectName(s.side.ID())).
		Scan(&m.Snapshot, &position)
	if err != nil {
		return m, pg.Classify(err, "take the twin's snapshot")
	}
	if m.Position, err = lsn.Parse(position); err != nil {
		return m, problem.Wrap(err, problem.Internal, "answer_unexpected", "read the position of the twin")
	}
	m.Exact = true
	m.Objects = s.Objects()
	return m, nil
}

// isWholeAt refuses a twin that is no state of the primary at the position: until all
// snapshots of its first copy lie behind it, its tables are of several moments.
func (s *Secondary) isWholeAt(ctx context.Context, position lsn.LSN) error {
	if err := s.isWhole(); err != nil { // it may have become so since
		return err
	}
	r := s.side.Record()
	var before bool
	err := s.side.Session.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		err := conn.QueryRow(ctx, `SELECT coalesce(max(lsn) > $2::text::pg_lsn, false) FROM twinspan.seed_session WHERE link = $1::text::uuid`, r.ID, position.String()).Scan(&before)
		return pg.Classify(err, "look when the twin was copied")
	})
	if err == nil && before {
		err = notWhole(r.Name, "what was written while it was first copied is not applied yet")
	}
	return err
}

// isWhole refuses a twin that is no state of the primary by what the link's record says.
func (s *Secondary) isWhole() error {
	r := s.side.Record()
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
