package seed

import (
	"context"
	"crypto/rand"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// lockTimeout is the longest that a statement on the primary waits for a lock,
// and so the longest that it can make others wait behind it.
const lockTimeout = time.Second

// Session is a snapshot held open on the primary, with the log position at which
// it was taken. It costs the primary one session, idle in a transaction that
// holds no lock on any table. Methods may be called by several goroutines.
type Session struct {
	Begun
	Snapshot string // the exported snapshot's name

	// Unlogged includes the rows of unlogged tables. It is set before Plan.
	Unlogged bool
	// Unguarded says that nothing keeps owners from putting functions at their tables behind the snapshot, as the event
	// triggers of a link do while it copies. It is set before Plan.
	Unguarded bool

	dsn    *pg.DSN
	name   string
	holder *pg.Raw
	done   chan struct{} // closed when the holder is gone

	mu     sync.Mutex // guards what follows
	plan   map[uint32]*Table
	idle   []*outSession
	closed bool
}

// CreateSlot creates the link's slot, whose first position is the session's. It
// waits for every transaction that is running to end. name is the link's, for
// the names of sessions.
func CreateSlot(ctx context.Context, dsn *pg.DSN, name, slot string) (*Session, error) {
	return begin(ctx, dsn, name, slot, false)
}

// Temporary takes a later snapshot with an exactly known position, by means of a
// slot that is dropped at once.
func Temporary(ctx context.Context, dsn *pg.DSN, name string) (*Session, error) {
	return begin(ctx, dsn, name, "twinspan_seed_"+strings.ToLower(rand.Text()), true)
}

// Held holds a snapshot that another session has exported, and that is at a position: the
// other may end then. A session of it is for a copy that no stream follows: Timeline is 0.
func Held(ctx context.Context, dsn *pg.DSN, name, snapshot string, position lsn.LSN) (*Session, error) {
	s := &Session{dsn: dsn, name: name, done: make(chan struct{})}
	s.Token, s.LSN = rand.Text(), position
	return s, s.hold(ctx, snapshot)
}

// Now takes a snapshot of any server, a standby's too, for a copy that no stream follows:
// Timeline is 0. Whatever is in the snapshot committed before LSN. exact says that
// everything which did is in it: nothing was written while it was taken, and no
// transaction that had written was open.
func Now(ctx context.Context, dsn *pg.DSN, name string) (s *Session, exact bool, err error) {
	s = &Session{dsn: dsn, name: name, done: make(chan struct{})}
	s.Token = rand.Text()
	conn, err := s.connectHolder(ctx)
	if err != nil {
		return nil, false, err
	}
	exact, err = s.takeNow(ctx, conn)
	if err == nil {
		err = s.keep(ctx, conn)
	}
	if err != nil {
		conn.Close(context.WithoutCancel(ctx))
		return nil, false, pg.Classify(err, "take a snapshot")
	}
	return s, exact, nil
}

// takeNow begins the holder's transaction. A standby replays a commit and shows it before
// its position is behind it, so open transactions say nothing there.
func (s *Session) takeNow(ctx context.Context, conn *pgx.Conn) (exact bool, err error) {
	const position = `SELECT pg_is_in_recovery(), CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END::text`
	var recovering, open bool
	var before, after string
	if err := conn.QueryRow(ctx, position).Scan(&recovering, &before); err != nil {
		return false, err
	}
	// Between the first position and the snapshot: whoever had committed before that position
	// and is not seen by the snapshot still has its number now.
	if err := conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE backend_xid IS NOT NULL) OR EXISTS (SELECT FROM pg_prepared_xacts)`).Scan(&open); err != nil {
		return false, err
	}
	if _, err := conn.Exec(ctx, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"); err != nil {
		return false, err
	}
	if err := conn.QueryRow(ctx, position).Scan(&recovering, &after); err != nil {
		return false, err
	}
	if s.LSN, err = lsn.Parse(after); err != nil {
		return false, err
	}
	return before == after && (recovering || !open), nil
}

// begin creates a slot with an exported snapshot, imports that into an ordinary
// session, exports it again from there, and lets the walsender go: snapshot and
// position belong together, but holding them needs no walsender and, when the
// slot is temporary, no slot.
func begin(ctx context.Context, dsn *pg.DSN, name, slot string, temporary bool) (*Session, error) {
	repl, err := dsn.ConnectReplication(ctx, pg.Session{Name: name + "/slot"})
	if err != nil {
		return nil, err
	}
	defer repl.Close(context.WithoutCancel(ctx))
	s := &Session{dsn: dsn, name: name, done: make(chan struct{})}
	s.Token = rand.Text()
	system, err := oneRow(ctx, repl, "IDENTIFY_SYSTEM")
	if err != nil {
		return nil, pg.Classify(err, "identify the primary's server")
	}
	s.SystemID = system[0]
	if s.Timeline, err = strconv.ParseInt(system[1], 10, 64); err != nil {
		return nil, problem.Wrap(err, problem.Internal, "timeline_unreadable", "read the timeline of the primary's server")
	}
	created, err := oneRow(ctx, repl, createSlotCommand(repl.ParameterStatus("server_version"), slot, temporary))
	if err != nil {
		return nil, slotError(err, slot)
	}
	if s.LSN, err = lsn.Parse(created[1]); err != nil {
		return nil, problem.Wrap(err, problem.Internal, "slot_answer", "read the position of the new slot")
	}
	if err := s.hold(ctx, created[2]); err != nil {
		return nil, err
	}
	return s, nil
}

// createSlotCommand writes CREATE_REPLICATION_SLOT in the syntax that the
// version prefers: options in parentheses came with 15.
func createSlotCommand(version, slot string, temporary bool) string {
	command := "CREATE_REPLICATION_SLOT " + sqlname.Quote(slot)
	if temporary {
		command += " TEMPORARY"
	}
	var major int
	_, err := fmt.Sscanf(version, "%d", &major)
	switch {
	case err == nil && major >= 17 && !temporary:
		// Standbys that synchronise slots take it over (manual, "Replication Slot
		// Synchronization"); where none does, it costs nothing.
		return command + " LOGICAL pgoutput (SNAPSHOT 'export', FAILOVER)"
	case err == nil && major >= 15:
		return command + " LOGICAL pgoutput (SNAPSHOT 'export')"
	}
	return command + " LOGICAL pgoutput EXPORT_SNAPSHOT"
}

func slotError(err error, slot string) error {
	switch {
	case pg.SQLState(err) == "42710":
		return problem.New(problem.Conflict, "slot_exists", "the replication slot exists already").On(slot)
	case pg.SQLState(err) == "55000" && strings.Contains(err.Error(), "wal_level"):
		return problem.New(problem.Incompatible, "wal_level_too_low", "the primary's log does not hold what a stream needs").On("wal_level").
			WithHint("set wal_level = logical on the primary and restart it")
	}
	return pg.Classify(err, "create the replication slot "+slot)
}

// oneRow runs a replication command that answers one row.
func oneRow(ctx context.Context, conn *pgconn.PgConn, command string) ([]string, error) {
	results, err := conn.Exec(ctx, command).ReadAll()
	if err != nil {
		return nil, err
	}
	if len(results) != 1 || len(results[0].Rows) != 1 || len(results[0].Rows[0]) < 4 {
		return nil, fmt.Errorf("%.30s: not one row of four columns", command)
	}
	row := make([]string, len(results[0].Rows[0]))
	for i, v := range results[0].Rows[0] {
		row[i] = string(v)
	}
	return row, nil
}

// hold imports the snapshot into a session of its own and exports it from there.
func (s *Session) hold(ctx context.Context, snapshot string) error {
	conn, err := s.connectHolder(ctx)
	if err != nil {
		return err
	}
	fail := func(err error) error {
		conn.Close(context.WithoutCancel(ctx))
		return pg.Classify(err, "hold the snapshot")
	}
	if _, err := conn.Exec(ctx, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"); err != nil {
		return fail(err)
	}
	if _, err := conn.Exec(ctx, "SET TRANSACTION SNAPSHOT "+sqlname.Literal(snapshot)); err != nil {
		return fail(err)
	}
	if err := s.keep(ctx, conn); err != nil {
		return fail(err)
	}
	return nil
}

func (s *Session) connectHolder(ctx context.Context) (*pgx.Conn, error) {
	return s.dsn.Connect(ctx, pg.Session{Name: s.name + "/snapshot", Settings: map[string]string{"client_encoding": "UTF8"}})
}

// keep exports the snapshot of a session's transaction, and makes the session the holder.
func (s *Session) keep(ctx context.Context, conn *pgx.Conn) error {
	err := conn.QueryRow(ctx, `SELECT pg_export_snapshot(), txid_snapshot_xmin(txid_current_snapshot()),
		current_setting('server_version_num')::int, current_setting('server_encoding')`).Scan(&s.Snapshot, &s.Xmin, &s.ServerVersion, &s.Encoding)
	if err != nil {
		return err
	}
	if s.holder, err = pg.NewRaw(conn.PgConn()); err != nil {
		return err
	}
	go s.watch()
	return nil
}

// watch reads until the holder's connection ends; Close ends it.
func (s *Session) watch() {
	defer close(s.done)
	for {
		// Notices and settings may come, and a farewell before the end.
		if _, _, err := s.holder.Next(); err != nil {
			return
		}
	}
}

// Done is closed when the snapshot is lost or the session closed.
func (s *Session) Done() <-chan struct{} { return s.done }

// Close releases the snapshot. Copies that run are not waited for: they hold the
// snapshot themselves.
func (s *Session) Close() {
	s.mu.Lock()
	idle := s.idle
	s.idle, s.closed = nil, true
	s.mu.Unlock()
	s.holder.Close()
	<-s.done
	for _, o := range idle {
		o.close()
	}
}

func sessionLost() *problem.Error {
	return problem.New(problem.Transient, "session_lost", "the snapshot of the seeding is gone")
}

// snapshotError sorts the errors of SET TRANSACTION SNAPSHOT.
func snapshotError(err error) error {
	switch pg.SQLState(err) {
	case "22023", "55000", "42704":
		return sessionLost()
	}
	return pg.Classify(err, "import the snapshot")
}
