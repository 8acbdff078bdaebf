package dbcopy

import (
	"cmp"
	"context"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/twinspan/twinspan/internal/assess"
	"github.com/twinspan/twinspan/internal/largeobject"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/schema"
	"github.com/twinspan/twinspan/internal/seed"
	"github.com/twinspan/twinspan/internal/sequence"
)

// transactionPatience bounds how long Open waits for transactions that are running: the
// position of a snapshot is known exactly once they have ended.
const transactionPatience = 10 * time.Minute

// Database is where Open reads. DSN, Find, Dir and Log are required.
type Database struct {
	DSN *pg.DSN // of the database; its role is a superuser
	// At is a moment that is exported already; its session must live until Open returns.
	// nil takes one now.
	At *Moment
	// Name is for the names of sessions, "copy" if it is empty.
	Name string
	// Find and Dir are those of schema.Source: how pg_dump is found, and where its output
	// passes.
	Find func(program string, minMajor int) (path string, major int, err error)
	Dir  string
	Log  *slog.Logger
}

// Open makes a source of a database, at the moment that it is given or at one that it
// takes. The server may be a standby, of any version from 10 on. It waits up to ten
// minutes for transactions that run, where a position is to be had exactly
// (docs/design/0029-database-copy.md).
func Open(ctx context.Context, d Database) (Source, error) {
	d.Name = cmp.Or(d.Name, "copy")
	l := &local{database: d}
	if err := l.describe(ctx); err != nil {
		return nil, err
	}
	if err := l.take(ctx); err != nil {
		return nil, err
	}
	l.origin.Begun = l.session.Begun
	return l, nil
}

// local is a Source of a server that this process reaches.
type local struct {
	database Database
	origin   Origin
	session  *seed.Session

	reading sync.Mutex // held while reader is used
	reader  sequence.Reader

	recovering, logical bool
}

func (l *local) describe(ctx context.Context) error {
	conn, err := l.database.DSN.Connect(ctx, pg.Session{Name: l.database.Name + "/describe"})
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if l.origin.Source, err = assess.Describe(ctx, conn); err != nil {
		return err
	}
	err = conn.QueryRow(ctx, `SELECT pg_is_in_recovery(), current_setting('wal_level') = 'logical', datacl IS NOT NULL FROM pg_catalog.pg_database WHERE datname = current_database()`).
		Scan(&l.recovering, &l.logical, &l.origin.Granted)
	if err != nil {
		return pg.Classify(err, "describe the database")
	}
	if major := l.origin.Major; major < assess.OldestPrimary {
		return problem.New(problem.Incompatible, "version_unsupported", "the database's server has PostgreSQL %d, and copies are made of %d and newer", major, assess.OldestPrimary).On(l.origin.Database)
	}
	return nil
}

// take takes the moment, or holds the one that is given.
func (l *local) take(ctx context.Context) (err error) {
	d := &l.database
	switch {
	case d.At != nil:
		l.origin.Moment = *d.At
		l.session, err = seed.Held(ctx, d.DSN, d.Name, d.At.Snapshot, d.At.Position)
	case l.logical && !l.recovering:
		waiting, stop := context.WithTimeoutCause(ctx, transactionPatience, problem.New(problem.Transient, "transactions_open",
			"transactions that ran when the copy was asked for have not ended in %s: its position is known once they have", transactionPatience).On(l.origin.Database).
			WithHint("pg_stat_activity shows them (xact_start); copy again when they have ended"))
		l.session, err = seed.Temporary(waiting, d.DSN, d.Name)
		if waiting.Err() != nil && ctx.Err() == nil {
			err = context.Cause(waiting)
		}
		stop()
		l.origin.Exact = true
		if err != nil && ctx.Err() == nil && problem.CodeOf(err) != "transactions_open" {
			// No slot can be made, for want of one, of a right, or of a line in pg_hba.conf: then
			// the position may be known less exactly.
			d.Log.Info("copied at a snapshot without a slot", "database", l.origin.Database, "err", err)
			l.session, l.origin.Exact, err = seed.Now(ctx, d.DSN, d.Name)
		}
	default:
		l.session, l.origin.Exact, err = seed.Now(ctx, d.DSN, d.Name)
	}
	if err != nil {
		return err
	}
	// A standby cannot read unlogged tables, and the primary's of a twin have no rows there.
	l.session.Unlogged = !l.recovering && d.At == nil
	l.session.Unguarded = true
	l.origin.Position = l.session.LSN
	return nil
}

// Origin implements Source.
func (l *local) Origin() Origin { return l.origin }

// Schema implements Source.
func (l *local) Schema(ctx context.Context) (*schema.Dump, error) {
	d := &l.database
	return (&schema.Source{DSN: d.DSN, Name: d.Name, Find: d.Find, Dir: d.Dir, Former: true}).Dump(ctx, l.session.Snapshot)
}

// Tables implements Source.
func (l *local) Tables(ctx context.Context) ([]seed.Table, error) { return l.session.Plan(ctx) }

// Copy implements Source.
func (l *local) Copy(ctx context.Context, r seed.CopyRequest, w io.Writer) (int64, error) {
	return l.session.Copy(ctx, r, w)
}

// Sequences implements Source.
func (l *local) Sequences(ctx context.Context) ([]sequence.Sequence, error) {
	l.reading.Lock()
	defer l.reading.Unlock()
	conn, err := l.database.DSN.Connect(ctx, pg.Session{Name: l.database.Name + "/sequences"})
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	return l.reader.Read(ctx, conn, true)
}

// Objects implements Source.
func (l *local) Objects() largeobject.Remote {
	return &largeobject.Source{DSN: l.database.DSN, Name: l.database.Name, Snapshot: l.session.Snapshot}
}

// Close implements Source.
func (l *local) Close() { l.session.Close() }
