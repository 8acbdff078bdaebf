// Package capture is the primary's half of the stream: what has to stand in the
// primary database for its changes to be had, and the reading of the slot.
package capture

import (
	"context"
	_ "embed"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// LockTimeout is the longest that any statement of an agent waits for a lock on
// the primary, and so the longest that it can make others wait behind it. It is less than
// deadlock_timeout's default of a second: of an agent and an application that wait for each
// other, the agent gives up.
const LockTimeout = 800 * time.Millisecond

// lockPatience is how long Prepare and Remove go on trying for a lock.
const lockPatience = 2 * time.Minute

//go:embed setup.sql
var setupSQL string

//go:embed identity.sql
var identitySQL string

// functionsSQL makes the functions that every primary has, also one that may make no event triggers.
func functionsSQL() string {
	return catalog.HomeSQL() + notesSQL + staleSQL + setupSQL + identitySQL + catalog.PrivateSQL
}

// Source is one link's footing in the primary database.
type Source struct {
	DSN  *pg.DSN // of the linked database
	Link string  // the link's id
	Name string  // the link's name, for the names of sessions
	Log  *slog.Logger
	// Waits, when set, is told what is waited for again and again, and with nil that it is
	// not any more.
	Waits func(error)
	// Step, when set, is told in words what Prepare does next.
	Step func(string)
}

// Object is the name of the link's slot and publication.
func (s *Source) Object() string { return catalog.ObjectName(s.Link) }

func (s *Source) session(purpose string) pg.Session {
	// The gate lets it pass: a secondary is prepared before it becomes primary.
	return pg.Session{Name: s.Name + "/" + purpose, Apply: true, Unseen: true, Settings: map[string]string{
		"lock_timeout": fmt.Sprint(LockTimeout.Milliseconds()),
		// A vacuum that is in the way gives way to who has waited this long (proc.c,
		// ProcSleep). The default is a second, when we have given up.
		"deadlock_timeout": "100ms",
	}}
}

// eventTriggers are those of a primary, shared by all links of the database.
var eventTriggers = [...]struct{ name, event, function string }{
	{"twinspan_ddl_end", "ddl_command_end", "twinspan.on_ddl_end()"},
	{"twinspan_drop", "sql_drop", "twinspan.on_drop()"},
	{"twinspan_drop_index", "ddl_command_start WHEN TAG IN ('DROP INDEX')", "twinspan.on_drop_index()"},
}

// Prepare makes every table updatable while it is published, keeps it so for
// tables to come, and publishes the database. The order matters: a table that is
// published before it has an identity refuses the application's UPDATEs. It can
// be repeated. The schema twinspan must be there.
func (s *Source) Prepare(ctx context.Context) error {
	step := s.Step
	if step == nil {
		step = func(string) {}
	}
	step("waiting for other links that prepare the database")
	release, err := s.alone(ctx)
	if err != nil {
		return err
	}
	defer release()
	step("creating functions and event triggers")
	conn, err := s.open(ctx, "prepare")
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	functions, err := planned(ctx, conn, functionsSQL())
	if err != nil {
		return err
	}
	err = s.patiently(ctx, func() error {
		_, err := conn.Exec(ctx, functions)
		return pg.Classify(err, "create the functions of the primary")
	})
	if err != nil {
		return err
	}
	if err := s.trigger(ctx, conn); err != nil {
		return err
	}
	step("waiting for open transactions that have changed tables")
	if err := s.settle(ctx, conn); err != nil {
		return err
	}
	step("giving every table a replica identity")
	if err := s.noteFilled(ctx, conn); err != nil {
		return err
	}
	if err := s.identify(ctx, conn); err != nil {
		return err
	}
	if err := s.watchTruncate(ctx, conn); err != nil {
		return err
	}
	step("publishing the database")
	if err := s.publish(ctx, conn); err != nil {
		return err
	}
	// A command that was just beginning when the event triggers came may have
	// escaped both them and settle.
	return s.identify(ctx, conn)
}

// open begins a session that works on what the links of a database share.
func (s *Source) open(ctx context.Context, purpose string) (*pgx.Conn, error) {
	session := s.session(purpose)
	conn, err := s.DSN.Connect(ctx, session)
	if pg.SQLState(err) == insufficientPrivilege {
		// Not for everybody to set; and no gate is in the way of such a role, for it can
		// only be a primary's.
		delete(session.Settings, "deadlock_timeout")
		session.Apply = false
		conn, err = s.DSN.Connect(ctx, session)
	}
	if err != nil {
		return nil, err
	}
	return conn, nil
}

// alone keeps the other links of the database from working on what they share, until
// release is called. Nobody but agents can have that lock. Without the schema there are
// no other links.
func (s *Source) alone(ctx context.Context) (release func(), err error) {
	release, err = s.DSN.LockFor(ctx, pg.Session{Name: s.Name + "/alone"}, "twinspan.version", "SHARE ROW EXCLUSIVE", lockPatience)
	if state := pg.SQLState(err); state == "3F000" || state == "42P01" {
		return func() {}, nil
	}
	return release, err
}

func makeEventTrigger(ctx context.Context, conn *pgx.Conn, name, event, function string) error {
	// An earlier agent made it for other tags.
	var there, same bool
	if err := conn.QueryRow(ctx, `SELECT count(*) > 0, coalesce(bool_and($2 = evtevent || CASE WHEN evttags IS NULL THEN ''
		ELSE ' WHEN TAG IN (' || (SELECT string_agg(quote_literal(g), ', ' ORDER BY g) FROM unnest(evttags) g) || ')' END), false) FROM pg_event_trigger WHERE evtname = $1`, name, event).Scan(&there, &same); err != nil {
		return pg.Classify(err, "look for the event trigger "+name)
	}
	if same {
		return nil
	}
	before := ""
	if there {
		before = "DROP EVENT TRIGGER " + sqlname.Quote(name) + "; "
	}
	// ALWAYS: a session in replica role makes tables too.
	_, err := conn.Exec(ctx, before+fmt.Sprintf(`CREATE EVENT TRIGGER %[1]s ON %[2]s EXECUTE PROCEDURE %[3]s; ALTER EVENT TRIGGER %[1]s ENABLE ALWAYS`,
		sqlname.Quote(name), event, function))
	return pg.Classify(err, "create the event trigger "+name)
}

// settle waits for the end of transactions that have made or changed tables and
// not committed: their commands came before the event triggers, and their tables
// are not to be seen yet. Such a transaction holds the strongest lock.
func (s *Source) settle(ctx context.Context, conn *pgx.Conn) error {
	const changing = ` FROM pg_locks WHERE locktype = 'relation' AND mode = 'AccessExclusiveLock' AND granted AND pid IS DISTINCT FROM pg_backend_pid()
		AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`
	var earlier []string
	err := conn.QueryRow(ctx, `SELECT coalesce(array_agg(DISTINCT virtualtransaction), '{}')`+changing).Scan(&earlier)
	if err != nil || len(earlier) == 0 {
		return pg.Classify(err, "look for open schema changes")
	}
	return s.patiently(ctx, func() error {
		var open int
		err := conn.QueryRow(ctx, `SELECT count(*)`+changing+` AND virtualtransaction = ANY ($1)`, earlier).Scan(&open)
		if err != nil || open == 0 {
			return pg.Classify(err, "look for open schema changes")
		}
		list, err := pg.Changing(ctx, conn) // the oldest first
		if err != nil {
			return err
		}
		text, subject, hint := "a transaction that changes tables is open", "", "end that transaction"
		if p := pg.Waited(text, list); p != nil {
			text, subject, hint = p.Text, p.Subject, p.Hint
		}
		return problem.New(problem.Transient, "lock_not_available", "%s", text).On(subject).WithHint("%s; the agent tries again by itself", hint)
	})
}

// noteFilled notes which columns with a value for older rows are there already. Servers
// before 11 have none.
func (s *Source) noteFilled(ctx context.Context, conn *pgx.Conn) error {
	_, err := conn.Exec(ctx, `DO $filled$ BEGIN
		IF current_setting('server_version_num')::int >= 110000 THEN
			EXECUTE 'INSERT INTO twinspan.filled SELECT attrelid, attnum FROM pg_catalog.pg_attribute WHERE atthasmissing ON CONFLICT DO NOTHING';
		END IF; END $filled$`)
	return pg.Classify(err, "note columns that are filled")
}

// unlessGone passes over that a table was dropped in the meantime.
func unlessGone(err error, op string) error {
	if pg.SQLState(err) == "42P01" {
		return nil
	}
	return pg.Classify(err, op)
}

// watchTruncate puts a trigger on each table of a server whose pgoutput says
// nothing of TRUNCATE (before version 11).
func (s *Source) watchTruncate(ctx context.Context, conn *pgx.Conn) error {
	return s.eachTable(ctx, conn, "watch TRUNCATE of", `SELECT c.oid::regclass::text, format('SELECT twinspan.watch_truncate(%s)', c.oid) FROM pg_class c
		WHERE c.relkind = 'r' AND current_setting('server_version_num')::int < 110000`)
}

// eachTable runs a statement for each table; sql gives their names and statements.
func (s *Source) eachTable(ctx context.Context, conn *pgx.Conn, what, sql string) error {
	rows, err := conn.Query(ctx, sql)
	if err != nil {
		return pg.Classify(err, "list tables")
	}
	type work struct{ Table, SQL string }
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[work])
	if err != nil {
		return pg.Classify(err, "list tables")
	}
	for _, w := range list {
		err := s.patiently(ctx, func() error {
			_, err := conn.Exec(ctx, w.SQL)
			return unlessGone(err, what+" "+w.Table)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// patiently repeats what failed for want of a lock, or gave way to others, with pauses in which the
// application goes on.
func (s *Source) patiently(ctx context.Context, do func() error) error {
	end, told := time.Now().Add(lockPatience), false
	defer func() {
		if told {
			s.Waits(nil)
		}
	}()
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, 3*time.Second) {
		err := do()
		code := problem.CodeOf(err)
		if code != "lock_not_available" && code != "serialization_failure" || time.Now().After(end) {
			return err
		}
		if s.Waits != nil {
			s.Waits(err)
			told = true
		}
		select {
		case <-ctx.Done():
			return err // which says who is in the way
		case <-time.After(pause):
		}
	}
}

// Former is a table's replica identity as it was before a link changed it.
type Former struct {
	Table sqlname.Table `json:"table"`
	Was   string        `json:"was"` // d default, n nothing, i index, f full
	Index string        `json:"index,omitempty"`
}

// SQL returns the statement that brings the identity back. An identity whose index
// has been dropped becomes NOTHING, as which PostgreSQL treats it.
func (f Former) SQL() string {
	identity := "DEFAULT"
	switch {
	case f.Was == "f":
		identity = "FULL"
	case f.Was == "i" && f.Index != "":
		identity = "USING INDEX " + sqlname.Quote(f.Index)
	case f.Was != "d":
		identity = "NOTHING"
	}
	return `ALTER TABLE ONLY ` + f.Table.SQL() + ` REPLICA IDENTITY ` + identity
}

// Identities lists the tables whose replica identity was changed.
func (s *Source) Identities(ctx context.Context, q catalog.Querier) ([]Former, error) {
	var have bool
	err := q.QueryRow(ctx, `SELECT to_regclass('twinspan.identity') IS NOT NULL`).Scan(&have)
	if err != nil || !have {
		return nil, pg.Classify(err, "look for the schema twinspan")
	}
	rows, err := q.Query(ctx, `SELECT n.nspname, c.relname, i.was::text, coalesce((SELECT x.relname FROM pg_class x JOIN pg_index y ON y.indexrelid = x.oid
		WHERE y.indrelid = c.oid AND x.relname = i.was_index), '')
		FROM twinspan.identity i JOIN pg_class c ON c.oid = i.oid JOIN pg_namespace n ON n.oid = c.relnamespace ORDER BY 1, 2`)
	if err != nil {
		return nil, pg.Classify(err, "list changed replica identities")
	}
	formers, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (f Former, err error) {
		return f, row.Scan(&f.Table.Schema, &f.Table.Name, &f.Was, &f.Index)
	})
	return formers, pg.Classify(err, "list changed replica identities")
}

// Remove takes away the link's publication and slot; with last, also what all
// links of the database share, and brings the replica identities back, unless
// another link has come that captures. Nothing of it needs the link's record; it can
// be repeated.
func (s *Source) Remove(ctx context.Context, last bool) error {
	release, err := s.alone(ctx)
	if err != nil {
		return err
	}
	defer release()
	conn, err := s.open(ctx, "remove")
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if _, err := conn.Exec(ctx, `DROP PUBLICATION IF EXISTS `+s.Object()); err != nil {
		return pg.Classify(err, "drop the publication")
	}
	if err := DropSlot(ctx, conn, s.Object()); err != nil {
		return err
	}
	if !last {
		return nil
	}
	// Whoever captures has stored that before it prepared, which this session does not
	// let it do now.
	if needed, err := s.others(ctx, conn); err != nil || needed {
		return err
	}
	for _, t := range slices.Concat(eventTriggers[:], schemaTriggers[:]) {
		if _, err := conn.Exec(ctx, `DROP EVENT TRIGGER IF EXISTS `+sqlname.Quote(t.name)); err != nil {
			return pg.Classify(err, "drop the event trigger "+t.name)
		}
	}
	if err := pg.AwaitCommands(ctx, conn); err != nil {
		return err
	}
	// A transaction that has changed schemas reads their tables until it ends.
	if err := s.patiently(ctx, func() error { return releaseSchema(ctx, conn) }); err != nil {
		return err
	}
	if err := s.restore(ctx, conn); err != nil {
		return err
	}
	err = s.eachTable(ctx, conn, "drop the trigger of", `SELECT tgrelid::regclass::text, format('DROP TRIGGER IF EXISTS twinspan_truncate ON %s', tgrelid::regclass)
		FROM pg_trigger WHERE tgname = 'twinspan_truncate'`)
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, `DROP FUNCTION IF EXISTS twinspan.on_ddl_end(), twinspan.on_drop(), twinspan.on_drop_index(), twinspan.on_truncate(), twinspan.published_in_part(oid),
		twinspan.keep_identity(oid, boolean), twinspan.watch_truncate(oid), twinspan.without_identity(oid[]), twinspan.telling(oid), twinspan.refusal(oid),
		twinspan.keep_identity(oid), twinspan.without_identity()`)
	return pg.Classify(err, "drop the functions of the primary")
}

// others says whether another link of the database captures.
func (s *Source) others(ctx context.Context, conn *pgx.Conn) (others bool, err error) {
	err = conn.QueryRow(ctx, `SELECT to_regclass('twinspan.link') IS NOT NULL`).Scan(&others)
	if err == nil && others {
		err = conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM twinspan.link WHERE role = 'primary' AND id::text <> $1)`, s.Link).Scan(&others)
	}
	return others, pg.Classify(err, "look for other links of the database")
}

// restore brings the replica identities back that Prepare and the event triggers
// have changed. What is restored is forgotten with it, so that another time does
// not undo what somebody chose since.
func (s *Source) restore(ctx context.Context, conn *pgx.Conn) error {
	formers, err := s.Identities(ctx, conn)
	if err != nil {
		return err
	}
	for _, f := range formers {
		err := s.patiently(ctx, func() error {
			_, err := conn.Exec(ctx, f.SQL()+`; DELETE FROM twinspan.identity WHERE oid = `+sqlname.Literal(f.Table.SQL())+`::regclass`)
			if state := pg.SQLState(err); state == "42809" || state == "42704" {
				return nil // it is a table no more, as one that a rule has made a view, or has that index no more
			}
			return unlessGone(err, "restore the replica identity of "+f.Table.String())
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// DropSlot drops a slot if it exists, ending the session that reads it.
func DropSlot(ctx context.Context, conn *pgx.Conn, slot string) error {
	for try := 0; ; try++ {
		_, err := conn.Exec(ctx, `SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = $1 AND active_pid IS NOT NULL`, slot)
		if err == nil {
			_, err = conn.Exec(ctx, `SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1`, slot)
		}
		if pg.SQLState(err) != "55006" || try == 50 {
			return pg.Classify(err, "drop the replication slot "+slot)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// CheckSlot says whether the stream can go on at the position: the slot is there,
// of this server, not invalidated, and not ahead of what the secondary holds. A
// slot ahead would leave transactions out without a word, as START_REPLICATION
// silently begins at the slot's own position (walsender.c, logical.c).
func CheckSlot(ctx context.Context, conn *pgx.Conn, slot string, position lsn.LSN, systemID string) error {
	var confirmed, current lsn.LSN
	var status, system string
	err := conn.QueryRow(ctx, `SELECT coalesce(s.confirmed_flush_lsn::text, '0/0'), pg_current_wal_flush_lsn()::text,
		coalesce(to_jsonb(s)->>'wal_status', ''), (SELECT system_identifier::text FROM pg_control_system())
		FROM pg_replication_slots s WHERE s.slot_name = $1 AND s.database = current_database() AND s.plugin = 'pgoutput'`, slot).
		Scan(&confirmed, &current, &status, &system)
	const repair = "twinspan link resume NAME --repair compares the twin with the primary, copies what differs, and goes on"
	switch {
	case err == pgx.ErrNoRows:
		return problem.New(problem.Diverged, "slot_lost", "the replication slot is gone from the primary").On(slot).WithHint(repair)
	case err != nil:
		return pg.Classify(err, "look at the replication slot")
	case systemID != "" && system != systemID:
		return problem.New(problem.Diverged, "primary_replaced", "the primary's server is not the one that the twin was copied from").On(slot).WithHint(repair)
	case status == "lost":
		return problem.New(problem.Diverged, "slot_lost", "the primary removed log that the twin still needed").On(slot).
			WithHint("raise max_slot_wal_keep_size on the primary, then: %s", repair)
	case confirmed > position:
		return problem.New(problem.Diverged, "slot_ahead", "the slot stands at %s, the twin holds everything up to %s: what lies between is lost", confirmed, position).
			On(slot).WithHint(repair)
	case position > current:
		return problem.New(problem.Diverged, "primary_behind", "the twin holds everything up to %s, the primary's log ends at %s", position, current).
			On(slot).WithHint("the primary was restored or replaced by a standby that lagged; %s", repair)
	}
	return nil
}
