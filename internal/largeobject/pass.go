package largeobject

import (
	"context"
	"io"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// Remote is the primary's half, as the secondary reaches it. Source does the work.
type Remote interface {
	Plan(ctx context.Context, r PlanRequest) (Plan, error)
	List(ctx context.Context, r ListRequest) ([]Entry, error)
	Describe(ctx context.Context, oids []uint32) ([]Object, error)
	// Copy writes binary COPY data to w and returns the number of rows.
	Copy(ctx context.Context, oids []uint32, w io.Writer) (int64, error)
}

// Target is the secondary's half. What of a pass is done is recorded in the
// transactions that do it (twinspan.large_object_range), so that a pass goes on
// where it was interrupted. One pass runs at a time.
type Target struct {
	DSN     *pg.DSN // of the twin, which has the schema twinspan
	Link    string  // the link's id
	Name    string  // the link's name, for the names of sessions
	Remote  Remote
	Workers int // ranges brought at once; 0 means 4
	Log     *slog.Logger
	// Roles is told which roles were missing and were made NOLOGIN. May be nil.
	Roles func(ctx context.Context, made []string) error
	// Progress may be nil; it is called from several goroutines.
	Progress func(done, total int64)
}

// counted is Result while it grows.
type counted struct {
	seen, copied, removed, bytes atomic.Int64
	total                        int64
}

// Pass makes a pass, or goes on with the one that was begun. With force nothing
// that the server counts is believed: all is looked at.
func (t *Target) Pass(ctx context.Context, force bool) (Result, error) {
	conn, err := t.connect(ctx)
	if err != nil {
		return Result{}, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	p, err := load(ctx, conn, t.Link)
	if err != nil {
		return Result{}, err
	}
	if p.next == 0 {
		began := time.Now()
		request := PlanRequest{Since: p.since, Counters: p.counters}
		if force || time.Since(p.looked) > trust {
			request.Counters = ""
		}
		plan, err := t.Remote.Plan(ctx, request)
		if err != nil {
			return Result{}, err
		}
		if p, err = begin(ctx, conn, t.Link, plan, began); err != nil {
			return Result{}, err
		}
		if plan.Same {
			return Result{Objects: p.objects}, nil
		}
	}
	var sum counted
	sum.total = p.objects
	if err := t.ranges(ctx, conn, p, &sum); err != nil {
		return Result{}, err
	}
	if err := complete(ctx, conn, t.Link, p.next); err != nil {
		return Result{}, err
	}
	result := Result{Objects: p.objects, Copied: sum.copied.Load(), Removed: sum.removed.Load(), Bytes: sum.bytes.Load()}
	t.Log.Info("large objects brought", "link", t.Name, "objects", result.Objects, "copied", result.Copied, "removed", result.Removed, "bytes", result.Bytes)
	return result, nil
}

// Anew brings some objects whatever the twin has of them: what somebody has changed there no pass sees.
// Those that the primary has no more are removed. No pass may run meanwhile.
func (t *Target) Anew(ctx context.Context, oids []uint32) error {
	conn, err := t.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	w := worker{target: t, conn: conn, roles: &roleMaker{target: t}, sum: &counted{}}
	for part := range slices.Chunk(oids, batchObjects) {
		if _, err := w.replace(ctx, part, part, func(pgx.Tx) error { return nil }); err != nil {
			return err
		}
	}
	t.Log.Info("large objects brought anew", "link", t.Name, "objects", len(oids), "bytes", w.sum.bytes.Load())
	return nil
}

// ranges works through what is left of a pass.
func (t *Target) ranges(ctx context.Context, conn *pgx.Conn, p pass, sum *counted) error {
	left, err := leftOf(ctx, conn, t.Link)
	if err != nil {
		return err
	}
	workers := t.Workers
	if workers <= 0 {
		workers = 4
	}
	queue := make(chan span)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(queue)
		for _, s := range left {
			select {
			case queue <- s:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		return nil
	})
	roles := &roleMaker{target: t}
	for range min(workers, len(left)) {
		group.Go(func() error { return t.work(ctx, p, queue, roles, sum) })
	}
	return group.Wait()
}

// work brings ranges over a session of its own.
func (t *Target) work(ctx context.Context, p pass, queue <-chan span, roles *roleMaker, sum *counted) error {
	conn, err := t.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	w := worker{target: t, conn: conn, pass: p, roles: roles, sum: sum}
	for s := range queue {
		if err := w.bring(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

func (t *Target) connect(ctx context.Context) (*pgx.Conn, error) {
	return connect(ctx, t.DSN, pg.Session{Name: t.Name + "/objects", Apply: true, Settings: map[string]string{
		"synchronous_commit": "off", "lock_timeout": "60s", "client_min_messages": "error",
	}})
}

// roleMaker makes the roles that objects need, once.
type roleMaker struct {
	target *Target
	mu     sync.Mutex
	known  map[string]bool
}

func (m *roleMaker) need(ctx context.Context, conn *pgx.Conn, objects []Object) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.known == nil {
		m.known = map[string]bool{"": true}
	}
	var ask []string
	note := func(name string) {
		if !m.known[name] {
			m.known[name] = true
			ask = append(ask, name)
		}
	}
	for _, o := range objects {
		note(o.Owner)
		for _, g := range o.Grants {
			note(g.Grantor)
			note(g.Grantee)
		}
	}
	if len(ask) == 0 {
		return nil
	}
	rows, err := conn.Query(ctx, `SELECT w FROM pg_catalog.unnest($1::text[]) AS w WHERE w NOT IN (SELECT rolname FROM pg_catalog.pg_roles) ORDER BY 1`, ask)
	if err != nil {
		return pg.Classify(err, "list roles")
	}
	missing, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return pg.Classify(err, "list roles")
	}
	for _, name := range missing {
		if _, err := conn.Exec(ctx, `CREATE ROLE `+sqlname.Quote(name)+` NOLOGIN`); err != nil && pg.SQLState(err) != "42710" {
			return pg.Classify(err, "create the role "+name)
		}
	}
	if len(missing) > 0 && m.target.Roles != nil {
		return m.target.Roles(ctx, missing)
	}
	return nil
}

func lostRange() error {
	return problem.New(problem.Transient, "already_copied", "another agent brought large objects of the same range at the same time")
}
