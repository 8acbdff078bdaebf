// Package lease sees that one process at a time works the links of an agent, however many
// have its identity: a row in each linked database says which one, the server's own list of
// sessions whether it lives, and every session of a link is let in only as long as the row is
// its process's. docs/design/0025-one-at-work.md has the reasons.
package lease

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
)

const (
	// beat is how often the keeper's session is used, and how often a process that stands
	// by looks whether the other one still lives.
	beat = time.Second
	// Patience is how long the keeper's session may be silent before another process takes
	// the links over.
	Patience = 8 * time.Second
	// timeout bounds one look into a database.
	timeout = 15 * time.Second
	// endPatience is how long the sessions of the one before may take to end.
	endPatience = 10 * time.Second
)

// Lease is a process's part. Set the exported fields, then Keep it; the methods may be used
// from any goroutine.
type Lease struct {
	Server *pg.DSN // the instance, through its maintenance database
	Agent  string  // the agent's id
	Place  string  // where the process runs, for people
	Log    *slog.Logger

	holder string

	mu     sync.Mutex
	keeper uint32 // of the session at work
	began  string
	held   []string      // databases
	wanted []string      // and those that another process has
	owed   []string      // those in which sessions of the one before are to be ended
	lost   chan struct{} // closed when another process has taken one of them
	by     string        // where that one runs
	ready  chan struct{} // closed when there is a keeper's session
}

// New returns the part of a process of its own.
func New(server *pg.DSN, agent, place string, log *slog.Logger) *Lease {
	var b [16]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	return &Lease{Server: server, Agent: agent, Place: place, Log: log, lost: make(chan struct{}), ready: make(chan struct{}),
		holder: fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:16])}
}

// Keep keeps the session by which other processes see that this one lives, until ctx ends.
func (l *Lease) Keep(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := l.keep(ctx); err != nil && ctx.Err() == nil {
			l.Log.Debug("no session that shows that the agent lives", "err", err)
		}
		pause(ctx, beat)
	}
	return nil
}

func (l *Lease) keep(ctx context.Context) error {
	conn, err := l.Server.Connect(ctx, pg.Session{Name: "lease"})
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	// Where the server shows no activity, a process that is stopped is taken to be alive.
	_, _ = conn.Exec(ctx, `SELECT pg_catalog.set_config('track_activities', 'on', false)`)
	var began string
	if err := conn.QueryRow(ctx, `SELECT backend_start::text FROM pg_catalog.pg_stat_activity WHERE pid = pg_catalog.pg_backend_pid()`).Scan(&began); err != nil {
		return pg.Classify(err, "read when the session began")
	}
	l.mu.Lock()
	first := l.keeper == 0
	l.keeper, l.began = conn.PgConn().PID(), began
	databases := slices.Clone(l.held)
	l.mu.Unlock()
	if first {
		close(l.ready)
	}
	for _, database := range databases { // they name the session of before
		if _, err := l.Take(ctx, database); err != nil {
			return err
		}
	}
	for {
		asking, stop := context.WithTimeout(ctx, timeout)
		_, err := conn.Exec(asking, `SELECT`)
		stop()
		if err != nil {
			return pg.Classify(err, "show that the agent lives")
		}
		if !pause(ctx, beat) {
			return nil
		}
	}
}

// Lost is closed once another process is known to work a database that this one has, or wants.
func (l *Lease) Lost() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lost
}

// again forgets what was held and lost, and returns what was wanted.
func (l *Lease) again() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	wanted := append(l.held, l.wanted...)
	l.held, l.wanted, l.owed = nil, nil, nil
	select {
	case <-l.lost:
		l.lost = make(chan struct{})
	default:
	}
	return wanted
}

// Rest forgets what was held: the process no longer works any links, and will take them anew.
func (l *Lease) Rest() { l.again() }

// Elsewhere is where the process runs that works the links in this one's place, "" where none is known.
func (l *Lease) Elsewhere() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.lost:
		return l.by
	default:
		return ""
	}
}

// Holds says whether this process works a database's links.
func (l *Lease) Holds(database string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Contains(l.held, database)
}

// Take makes this process the one that works the agent's links in a database. Where another
// one that lives does, it is returned. Of one that is gone, or silent for too long, the
// sessions are ended first.
func (l *Lease) Take(ctx context.Context, database string) (other *catalog.Held, err error) {
	ctx, stop := context.WithTimeout(ctx, timeout+endPatience)
	defer stop()
	select {
	case <-l.ready:
	case <-ctx.Done():
		return nil, problem.Wrap(context.Cause(ctx), problem.Transient, "connection_lost", "open the session that shows that the agent lives")
	}
	conn, err := open(ctx, l.Server.WithDatabase(database))
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	l.mu.Lock()
	want := catalog.Lease{Agent: l.Agent, Holder: l.holder, Keeper: l.keeper, Began: l.began, Place: l.Place}
	l.mu.Unlock()
	other, taken, err := catalog.TakeLease(ctx, conn, want, Patience.Seconds())
	switch {
	case err != nil:
		return nil, err
	case other != nil:
		l.mu.Lock()
		l.wanted = append(l.wanted, database)
		l.mu.Unlock()
		l.lose(other.Place)
		return other, nil
	}
	l.mu.Lock()
	if taken {
		l.owed = append(l.owed, database)
	}
	owes := slices.Contains(l.owed, database)
	l.mu.Unlock()
	if owes {
		if err := EndOthers(ctx, conn, l.Agent); err != nil {
			return nil, err
		}
		l.Log.Info("links taken over from a process that is gone", "database", database)
	}
	l.mu.Lock()
	if l.keeper != want.Keeper || l.began != want.Began { // the row names a session that is gone
		l.mu.Unlock()
		return l.Take(ctx, database)
	}
	defer l.mu.Unlock()
	l.owed = slices.DeleteFunc(l.owed, func(d string) bool { return d == database })
	if !slices.Contains(l.held, database) {
		l.held = append(l.held, database)
	}
	return nil, nil
}

// Release forgets a database in which no link is left.
func (l *Lease) Release(database string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held = slices.DeleteFunc(l.held, func(d string) bool { return d == database })
}

// EndOthers ends all other sessions of an agent's links in a database, and waits until they
// have ended: whoever opens one after the lease has changed is refused.
func EndOthers(ctx context.Context, conn *pgx.Conn, agent string) error {
	deadline := time.Now().Add(endPatience)
	for {
		left, err := catalog.EndSessions(ctx, conn, agent)
		if err != nil || left == 0 {
			return err
		}
		if time.Now().After(deadline) || !pause(ctx, 50*time.Millisecond) {
			return problem.New(problem.Transient, "sessions_stay", "%d sessions of the agent of before have not ended yet", left).
				WithHint("it is tried again; see pg_stat_activity for sessions whose application_name begins with twinspan/")
		}
	}
}

// Await returns when no process that lives has one of the databases that this one wanted.
func (l *Lease) Await(ctx context.Context) error {
	databases := l.again()
	for pause(ctx, beat) {
		free := true
		for _, database := range databases {
			other, err := Look(ctx, l.Server.WithDatabase(database), l.Agent)
			if pg.IsUnknownDatabase(err) {
				continue
			}
			if err != nil || other != nil && other.Holder != l.holder && other.There && other.Fresh {
				free = false
				break
			}
		}
		if free {
			return nil
		}
	}
	return problem.As(context.Cause(ctx))
}

// Look says who works an agent's links in a database, nil for nobody.
func Look(ctx context.Context, dsn *pg.DSN, agent string) (held *catalog.Held, err error) {
	err = lookInto(ctx, dsn, func(ctx context.Context, conn *pgx.Conn) error {
		return pg.InTx(ctx, conn, func(tx pgx.Tx) (err error) {
			held, err = catalog.LookAtLease(ctx, tx, agent, Patience.Seconds())
			return err
		})
	})
	return held, err
}

// lookInto looks into a database about which nothing is known.
func lookInto(ctx context.Context, dsn *pg.DSN, look func(ctx context.Context, conn *pgx.Conn) error) error {
	ctx, stop := context.WithTimeout(ctx, timeout)
	defer stop()
	conn, err := dsn.Connect(ctx, catalog.DiscoverSession())
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	return look(ctx, conn)
}

// Fence returns a connection string for a linked database whose sessions are refused once
// another process works its links. A database in which nobody has noted anything refuses
// nobody, nor does one where what is noted is no agent's, or came with a copy.
func (l *Lease) Fence(dsn *pg.DSN) *pg.DSN {
	var noted atomic.Bool // the table is there
	return dsn.Guarded(func(ctx context.Context, conn *pgconn.PgConn) error {
		asking := func(sql string) (string, error) { return ask(ctx, conn, sql) }
		if !noted.Load() {
			there, err := asking(`SELECT pg_catalog.to_regclass('twinspan.lease') IS NOT NULL`)
			if err != nil || there != "t" {
				return err
			}
			noted.Store(true)
		}
		holder, place, err := catalog.Holder(asking, l.Agent)
		switch {
		case pg.SQLState(err) == "42P01" || pg.SQLState(err) == "3F000" || pg.SQLState(err) == "42809":
			noted.Store(false) // somebody has dropped it, or it is no table
			return nil
		case err != nil || holder == "" || holder == l.holder:
			return err
		}
		l.lose(place)
		return twice(place)
	})
}

func (l *Lease) lose(to string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.by = to
	select {
	case <-l.lost:
	default:
		close(l.lost)
	}
}

// Twice is the problem of a process that has found another one at work with its identity.
func (l *Lease) Twice() *problem.Error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return twice(l.by)
}

func twice(where string) *problem.Error {
	return problem.New(problem.Transient, "agent_twice", "another agent with this one's identity works its links: in %s", where).
		WithHint("stop one of the two, for an agent's directory must not be copied; this one stands by, and takes over when the other is gone")
}

// ask returns the one value of a query in a session of whatever kind, "" where there is
// none.
func ask(ctx context.Context, conn *pgconn.PgConn, sql string) (string, error) {
	results, err := conn.Exec(ctx, sql).ReadAll()
	if err != nil || len(results) == 0 || len(results[0].Rows) == 0 {
		return "", err
	}
	return string(results[0].Rows[0][0]), nil
}

// open opens a session that the gate lets pass. A primary's role need not be one that may
// pass a gate.
func open(ctx context.Context, dsn *pg.DSN) (*pgx.Conn, error) {
	session := pg.Session{Name: "lease", Apply: true, Settings: map[string]string{"lock_timeout": "5s", "statement_timeout": "15s"}}
	conn, err := dsn.Connect(ctx, session)
	if pg.SQLState(err) == "42501" {
		session.Apply = false
		conn, err = dsn.Connect(ctx, session)
	}
	return conn, err
}

// pause waits, and says whether ctx has not ended.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
