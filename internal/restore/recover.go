package restore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/sqlname"
)

const (
	// stallAfter bounds how long a recovery may work on one segment of the log.
	stallAfter  = 10 * time.Minute
	recoverPoll = 100 * time.Millisecond
)

// Codes that end a recovery, and that the caller of recover looks at.
const (
	endOfLog     = "restore_end_of_log"
	invalidPages = "restore_invalid_pages"
)

// recover runs the server, waits until it has reached the target, and calls use.
func (r *Restore) recover(ctx context.Context, t Target, use func(ctx context.Context, s State) error) error {
	r.step("recovering")
	if err := os.Remove(r.server.LogFile()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return problem.Wrap(err, problem.Internal, "restore_failed",
			"the log of an earlier attempt cannot be removed").On(r.server.LogFile())
	}
	running, stop := context.WithCancel(ctx)
	defer stop()
	var ran error
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		ran = r.server.Run(running)
	}()
	defer func() { stop(); <-ended }()

	state, err := r.await(ctx, t, ended)
	if err == nil {
		alive, leave := context.WithCancel(ctx)
		defer leave()
		go func() {
			<-ended
			leave()
		}()
		err = use(alive, state)
	}
	select {
	case <-ended:
		if ctx.Err() == nil && (err != nil || ran != nil) {
			return r.reason(ran)
		}
	default:
	}
	if ctx.Err() != nil && err != nil {
		return context.Cause(ctx)
	}
	return err
}

// await waits until the recovery has reached the target.
func (r *Restore) await(ctx context.Context, t Target, ended <-chan struct{}) (State, error) {
	dsn, err := pg.ParseDSN(r.server.DSN())
	if err != nil {
		return State{}, err
	}
	last, since := "", time.Now()
	for {
		if r.server.PID() != 0 {
			state, reached, err := r.look(ctx, dsn, t)
			if reached || err != nil {
				return state, err
			}
		}
		if now := r.reading(); now != last {
			last, since = now, time.Now()
			r.step("recovering: log segment " + now)
		}
		if time.Since(since) > stallAfter {
			return State{}, problem.New(problem.Transient, "restore_stalled",
				"the recovery has not got past %q of the log for %s", last, stallAfter).On(last).
				WithHint("see that the repository's disk answers and that the machine is not overloaded, then restore again")
		}
		select {
		case <-ctx.Done():
			return State{}, context.Cause(ctx)
		case <-ended:
			return State{}, problem.New(problem.Internal, "restore_failed", "the temporary server ended")
		case <-time.After(recoverPoll):
		}
	}
}

// reading is the segment of the log that was asked for last.
func (r *Restore) reading() string {
	text, err := os.ReadFile(filepath.Join(r.server.Dir, readingFile))
	if err != nil {
		return "" // none was yet
	}
	return strings.TrimSpace(string(text))
}

// look says what was reached, once the server lets sessions in. Until then it does not.
func (r *Restore) look(ctx context.Context, dsn *pg.DSN, t Target) (s State, reached bool, err error) {
	conn, err := r.anywhere(ctx, dsn, pg.Session{Name: "restore"})
	if err != nil {
		if state := pg.SQLState(err); state != "57P03" && state != "" && ctx.Err() == nil {
			return s, false, err
		}
		return s, false, nil
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var last *time.Time
	var position *string
	err = conn.QueryRow(ctx,
		`SELECT pg_catalog.pg_last_wal_replay_lsn()::text, pg_catalog.pg_last_xact_replay_timestamp()`).
		Scan(&position, &last)
	if err == nil && position != nil {
		s.Position, err = lsn.Parse(*position)
	}
	if err != nil {
		return s, false, pg.Classify(err, "ask the temporary server what it has reached")
	}
	if last != nil {
		s.Last = *last
	}
	var limit int32
	err = conn.QueryRow(ctx,
		`SELECT datname, datconnlimit FROM pg_catalog.pg_database WHERE CASE $1::oid WHEN 0 THEN datname = $2 ELSE oid = $1 END`, t.Database, t.Named).
		Scan(&s.Name, &limit)
	if errors.Is(err, pgx.ErrNoRows) {
		return s, true, nil
	}
	if err != nil {
		return s, false, pg.Classify(err, "look for the database")
	}
	s.DSN = dsn.WithDatabase(s.Name)
	const dying = -2
	if limit == dying && t.Before == 0 {
		s.Dead = true
		return s, true, nil
	}
	if limit == dying {
		limit = t.Limit
	}
	if _, err := conn.Exec(ctx,
		`UPDATE pg_catalog.pg_database SET datconnlimit = $2, datallowconn = true WHERE datname = $1`, s.Name, limit); err != nil {
		return s, false, pg.Classify(err, "let the agent into the database")
	}
	return s, true, r.readable(ctx, &s)
}

// anywhere opens a session of a database that lets one in. None has to, not even those that initdb makes.
func (r *Restore) anywhere(ctx context.Context, dsn *pg.DSN, s pg.Session) (conn *pgx.Conn, err error) {
	for _, name := range append([]string{"postgres", "template1"}, r.held...) {
		conn, err = dsn.WithDatabase(name).Connect(ctx, s)
		if err == nil || !pg.IsUnknownDatabase(err) && problem.CodeOf(err) != "database_closed" {
			break
		}
	}
	return conn, err
}

// Export exports a snapshot of what was reached, which lives until release is called.
func (s State) Export(ctx context.Context) (snapshot string, release func(), err error) {
	conn, err := s.DSN.Connect(ctx, pg.Session{Name: "restore/snapshot"})
	if err != nil {
		return "", nil, err
	}
	release = func() { conn.Close(context.WithoutCancel(ctx)) }
	if _, err = conn.Exec(ctx, `BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY`); err == nil {
		err = conn.QueryRow(ctx, `SELECT pg_catalog.pg_export_snapshot()`).Scan(&snapshot)
	}
	if err != nil {
		release()
		return "", nil, pg.Classify(err, "export a snapshot")
	}
	return snapshot, release, nil
}

// readable sees whether the database's files are there, for before 15.4 and 14.9 DROP DATABASE leaves no mark that
// tells that it is dead, and whether it was a twin.
func (r *Restore) readable(ctx context.Context, s *State) error {
	conn, err := s.DSN.Connect(ctx, pg.Session{Name: "restore"})
	if pg.IsUnknownDatabase(err) {
		s.Dead = true
		return nil
	}
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if err := forgetPrepared(ctx, conn); err != nil {
		return err
	}
	s.Twin, err = twinOf(ctx, conn, r.Agent)
	return err
}

// forgetPrepared rolls back the transactions that were prepared: they had not committed, and hold the locks that they held.
func forgetPrepared(ctx context.Context, conn *pgx.Conn) error {
	rows, err := conn.Query(ctx, `SELECT gid FROM pg_catalog.pg_prepared_xacts WHERE database = pg_catalog.current_database()`)
	if err != nil {
		return pg.Classify(err, "list prepared transactions")
	}
	prepared, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return pg.Classify(err, "list prepared transactions")
	}
	for _, gid := range prepared {
		if _, err := conn.Exec(ctx, `ROLLBACK PREPARED `+sqlname.Literal(gid)); err != nil {
			return pg.Classify(err, "roll back a prepared transaction")
		}
	}
	return nil
}

// logKept is how much of the end of the server's log is looked at.
const logKept = 64 << 10

// reason says why the server ended, by its log.
func (r *Restore) reason(ran error) error {
	said := tail(r.server.LogFile())
	fatal := ""
	for line := range strings.Lines(said) {
		for _, mark := range []string{"FATAL:", "PANIC:"} {
			if _, text, found := strings.Cut(line, mark); found {
				fatal = strings.TrimSpace(text)
			}
		}
	}
	switch {
	case strings.Contains(said, "recovery ended before configured recovery target was reached"):
		return problem.New(problem.NotFound, endOfLog,
			"the log ends before what was to be reached, with the segment %s", r.reading()).On(r.reading()).
			WithHint("see that the log gets into the repository (twinspan backup list), and restore to an earlier moment")
	case strings.Contains(said, "WAL contains references to invalid pages"):
		return problem.New(problem.Diverged, invalidPages, "the backup and the log do not fit each other: %s", fatal).
			WithHint("twinspan backup verify looks for damage; restore to a moment behind another backup")
	case strings.Contains(said, "No space left on device"):
		return problem.New(problem.Resource, "restore_space_short", "there is no room for the restore").
			On(r.server.Dir).
			WithHint("make room on the disk of the agent's directory; nothing of the restore is left there")
	case strings.Contains(said, "could not restore file"):
		if p := r.Repository.Reason(said); p != nil {
			return p
		}
	}
	p := problem.As(ran)
	if p == nil {
		p = problem.New(problem.Transient, "server_stopped", "the server stopped")
	}
	if fatal == "" {
		return p
	}
	return problem.New(problem.Internal, "restore_failed", "the temporary server does not recover: %s", fatal).
		WithHint("twinspan backup verify looks for damage; restore to a moment behind another backup")
}

// tail is the end of a file.
func tail(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Sprint(err)
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > logKept {
		_, err = f.Seek(-logKept, io.SeekEnd)
		if err != nil {
			return fmt.Sprint(err)
		}
	}
	text, err := io.ReadAll(io.LimitReader(f, logKept))
	if err != nil {
		return fmt.Sprint(err)
	}
	return string(text)
}
