package seed

import (
	"context"
	"log/slog"
	"runtime"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/sqlname"
	"github.com/twinspan/twinspan/internal/turns"
)

// DefaultWorkers is how many chunks of a link are copied at once: as many as this machine
// has processors, between two and eight. Each keeps a session of both servers and both
// agents at work, so that more are in each other's way (docs/design/0007-speed.md).
func DefaultWorkers() int { return min(8, max(2, runtime.NumCPU())) }

// Target is the secondary's half of a link's seeding.
type Target struct {
	DSN    *pg.DSN // of the target database, which has the schema twinspan
	Link   string  // the link's id
	Name   string  // the link's name, for the names of sessions
	Remote Remote
	// Prepare makes the tables, at the session's snapshot. It is called before the
	// plan is made, again after a failure, and not any more once the plan stands.
	Prepare func(ctx context.Context, token string) error
	// Room is asked, before the plan is made, whether so many bytes of rows have room; its error ends the seeding. It may be nil.
	Room func(bytes int64) error
	// Identity builds the keys of tables, before rows are replaced in them.
	Identity func(ctx context.Context, tables []sqlname.Table) error
	// MaxRate is asked again and again for the most bytes of rows a second, all workers
	// together; 0 is no limit. It may be nil.
	MaxRate func() int64
	Workers int // chunks at once; 0 for DefaultWorkers()
	// Places is what the workers of all links share; nil where nobody else copies.
	Places     *turns.Pool
	ChunkBytes int64 // 0 for a size that fits, between 64 and 256 MB
	Log        *slog.Logger
	Progress   func(Progress) // may be nil; called from one goroutine at a time
	// Tables, which may be nil, is given a function when rows begin to be copied. That tells how
	// far each table is, in the order of the plan; it may be called at any time, from any
	// goroutine, and costs as much as there are tables.
	Tables func(each func() []TableProgress)
}

func (t *Target) workers() int {
	if t.Workers > 0 {
		return t.Workers
	}
	return DefaultWorkers()
}

func (t *Target) connect(ctx context.Context, encoding string) (*pgx.Conn, error) {
	return t.DSN.Connect(ctx, pg.Session{Name: t.Name + "/seed", Apply: true, Fenced: true, Settings: map[string]string{
		"client_encoding": encoding, "synchronous_commit": "off", "lock_timeout": "60s", "client_min_messages": "error",
	}})
}

// Copy copies every row that is not copied yet, and returns when all are. It can
// be called again after any failure, by any agent; a problem of kind Transient
// (a broken connection, a lost snapshot, a full disk) asks for just that. Run it
// once at a time.
func (t *Target) Copy(ctx context.Context) (Result, error) {
	conn, err := t.connect(ctx, "UTF8")
	if err != nil {
		return Result{}, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	// What a former agent's sessions still do would be thrown away in the end.
	_, err = conn.Exec(ctx, `SELECT pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity
		WHERE datname = current_database() AND application_name = current_setting('application_name') AND pid <> pg_backend_pid()`)
	if err != nil {
		return Result{}, pg.Classify(err, "end older sessions of the seeding")
	}
	s, err := t.load(ctx, conn)
	if err != nil {
		return Result{}, err
	}
	if len(s.sessions) > 0 {
		if s, err = t.divideWhole(ctx, conn, s); err != nil {
			return Result{}, err
		}
	}
	useless := ""
	for !s.complete() {
		begun, err := t.Remote.Begin(ctx, BeginRequest{Again: len(s.sessions) > 0, Not: useless})
		if err != nil {
			return Result{}, err
		}
		if s, err = t.enter(ctx, conn, s, begun); err != nil {
			return Result{}, err
		}
		changed, err := t.copyAll(ctx, conn, s)
		if err != nil {
			return Result{}, err
		}
		if len(changed) > 0 {
			t.Log.Info("tables changed under the snapshot, another is taken", "link", t.Name, "tables", len(changed), "first", changed[0].String())
		}
		useless = begun.Token
		if s, err = t.load(ctx, conn); err != nil {
			return Result{}, err
		}
	}
	// The snapshot keeps the primary from cleaning up: it goes as soon as it can.
	// Nothing hangs on the answer, for the copy is complete.
	if err := t.Remote.End(ctx, s.last().Token); err != nil {
		t.Log.Warn("seeding session not ended", "link", t.Name, "err", err)
	}
	return result(s.sessions, s.tables), nil
}

// room refuses tables for which there is none.
func (t *Target) room(tables []Table) error {
	if t.Room == nil {
		return nil
	}
	var bytes int64
	for _, table := range tables {
		bytes += table.Bytes
	}
	return t.Room(bytes)
}

// enter brings the state to the session: it makes the plan at the first one, and
// decides what becomes of each table at every later one.
func (t *Target) enter(ctx context.Context, conn *pgx.Conn, s *state, b Begun) (*state, error) {
	if len(s.sessions) > 0 && s.last().Token == b.Token {
		return s, nil
	}
	if len(s.sessions) == 0 {
		if err := t.Prepare(ctx, b.Token); err != nil {
			return nil, err
		}
	}
	list, err := t.Remote.Tables(ctx, b.Token)
	if err != nil {
		return nil, err
	}
	if len(s.sessions) == 0 {
		if err := t.room(list); err != nil {
			return nil, err
		}
		err = t.begin(ctx, conn, b, list)
	} else {
		err = t.reconcile(ctx, conn, b, list)
	}
	if err != nil {
		return nil, err
	}
	t.Log.Info("copying begins at a session", "link", t.Name, "lsn", b.LSN.String(), "tables", len(list))
	return t.load(ctx, conn)
}

// newest is above every server's version.
const newest = 1000

// copyAll copies what is left at the newest session. It returns the tables that
// this session cannot give any more.
func (t *Target) copyAll(ctx context.Context, conn *pgx.Conn, s *state) ([]sqlname.Table, error) {
	now := s.last().number
	list := jobs(s.tables, now)
	if err := t.buildKeys(ctx, list); err != nil {
		return nil, err
	}
	var version int
	if err := conn.QueryRow(ctx, `SELECT current_setting('server_version_num')::int`).Scan(&version); err != nil {
		return nil, pg.Classify(err, "read the version")
	}
	// The primary's version may be another one at each session, so the newest is assumed.
	columns, err := readColumns(ctx, conn, version, pg.WithNewValues(version/10000, newest))
	if err != nil {
		return nil, pg.Classify(err, "read the twin's columns")
	}
	fenced, err := t.readFenced(ctx, conn, list)
	if err != nil {
		return nil, err
	}
	meter := newMeter(s.tables, now, time.Now())
	if t.Tables != nil {
		t.Tables(meter.each)
	}
	var limit *pace
	if t.MaxRate != nil {
		limit = &pace{rate: t.MaxRate, at: time.Now()}
	}
	var changed []sqlname.Table
	// Code of users may look into other tables: those that have none come first.
	for _, part := range [2][]job{fenced.jobs(list, false), fenced.jobs(list, true)} {
		run := &round{
			target: t, sessions: s.sessions, columns: columns, fenced: fenced, jobs: part, changed: map[sqlname.Table]bool{},
			meter: meter, pace: limit, emptied: make(chan struct{}),
		}
		more, err := run.all(ctx)
		if err != nil {
			return nil, err
		}
		changed = append(changed, more...)
	}
	return changed, nil
}

// buildKeys builds the keys of the tables in which rows will be replaced.
func (t *Target) buildKeys(ctx context.Context, list []job) error {
	var tables []sqlname.Table
	for _, j := range list {
		if j.merge && (len(tables) == 0 || tables[len(tables)-1] != j.table.Name) {
			tables = append(tables, j.table.Name)
		}
	}
	if len(tables) == 0 {
		return nil
	}
	return t.Identity(ctx, tables)
}

// Result is what Copy returned once the copy was complete, without asking the
// primary. A copy that is not complete has none, which is a problem of kind Conflict.
func (t *Target) Result(ctx context.Context) (Result, error) {
	conn, err := t.connect(ctx, "UTF8")
	if err != nil {
		return Result{}, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	s, err := t.load(ctx, conn)
	if err != nil {
		return Result{}, err
	}
	if len(s.sessions) == 0 {
		return Result{}, nil
	}
	if !s.complete() {
		return Result{}, problem.New(problem.Conflict, "copy_incomplete", "the copy is not complete")
	}
	return result(s.sessions, s.tables), nil
}
