package syncrep

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// changeLock is the relation whose lock an agent has while it reads and changes the
// settings: a catalog of the whole instance, in which nobody but superusers may lock, in
// a mode that keeps nobody from reading or writing it. Security labels of roles and
// databases lie there.
const changeLock, changeMode = "pg_catalog.pg_shseclabel", "SHARE UPDATE EXCLUSIVE"

// changePatience is how long one link of the instance waits for another's change.
const changePatience = 10 * time.Second

// checkpointerPatience is how long the checkpointer is given to take a changed setting
// over: until it has, commits wait as before (syncrep.c,
// SyncRepUpdateSyncStandbysDefined), and no view tells that it has.
const checkpointerPatience = time.Second

// reloadPatience is how long the server may take to read its settings anew.
const reloadPatience = 10 * time.Second

// Server is the synchronous replication of an instance, for one link on it.
type Server struct {
	DSN      *pg.DSN // the maintenance database
	Link     string  // the link's name, for the name of the session
	Member   string  // application_name of the session that reads the link's slot
	Database string  // the linked database
	Log      *slog.Logger
}

// Required says whether commits wait for the member.
func (s *Server) Required(ctx context.Context, conn *pgx.Conn) (bool, error) {
	n, err := current(ctx, conn)
	return n.Requires(s.Member), err
}

func current(ctx context.Context, conn *pgx.Conn) (Names, error) {
	var text string
	if err := conn.QueryRow(ctx, `SELECT current_setting('synchronous_standby_names')`).Scan(&text); err != nil {
		return Names{}, pg.Classify(err, "read synchronous_standby_names")
	}
	return Parse(text)
}

// Require makes commits in the linked database wait until the member has confirmed
// them. In the other databases of the instance commits return as before, unless the
// server waited for standbys of its own already: there it waits for both. Sessions
// that other databases had before go on waiting for the member until they end. It
// can be repeated; then it covers databases that have come since.
func (s *Server) Require(ctx context.Context) error {
	return s.change(ctx, func(conn *pgx.Conn, now Names) error {
		if err := s.effective(ctx, conn); err != nil {
			return err
		}
		next, err := now.With(s.Member)
		if err != nil {
			return err
		}
		if err := unambiguous(ctx, conn, next); err != nil {
			return err
		}
		if err := s.spare(ctx, conn, next); err != nil {
			return err
		}
		return s.set(ctx, conn, now, next)
	})
}

// Release lets commits return without the member, and takes back what Require did
// to other databases once no link needs it. It can be repeated.
func (s *Server) Release(ctx context.Context) error {
	return s.change(ctx, func(conn *pgx.Conn, now Names) error {
		next := now.Without(s.Member)
		if err := s.set(ctx, conn, now, next); err != nil {
			return err
		}
		return s.spare(ctx, conn, next)
	})
}

// EndWaiting ends the sessions of the linked database whose commits wait, and returns
// when none does: their clients are not told that they have committed. Nothing may
// write to the database any more. conn is a session on the instance.
func (s *Server) EndWaiting(ctx context.Context, conn *pgx.Conn) error {
	for {
		var waiting int
		err := conn.QueryRow(ctx, `SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = $1 AND wait_event = 'SyncRep'`, s.Database).Scan(&waiting)
		if err != nil || waiting == 0 {
			return pg.Classify(err, "end commits that wait for the twin")
		}
		s.Log.Info("commits that waited for the twin were ended", "link", s.Link, "sessions", waiting)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// change runs f while no other link of the instance changes the same settings.
func (s *Server) change(ctx context.Context, f func(conn *pgx.Conn, now Names) error) error {
	conn, err := s.DSN.Connect(ctx, pg.Session{Name: s.Link + "/sync"})
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	release, err := s.DSN.LockFor(ctx, pg.Session{Name: s.Link + "/sync"}, changeLock, changeMode, changePatience)
	switch {
	case err == nil:
		defer release()
	case pg.SQLState(err) != "42501": // a role that is no superuser's changes what it may, and is alone
		return err
	}
	now, err := current(ctx, conn)
	if err != nil {
		return err
	}
	return f(conn, now)
}

// effective refuses a database whose commits would not wait, whomever the server
// asks for.
func (s *Server) effective(ctx context.Context, conn *pgx.Conn) error {
	var value, where string
	err := conn.QueryRow(ctx, `SELECT value, origin FROM (
		SELECT split_part(line, '=', 2) AS value, 'the database ' || $1 AS origin, 1 AS rank
		  FROM pg_db_role_setting s CROSS JOIN unnest(s.setconfig) line
		 WHERE s.setrole = 0 AND s.setdatabase = (SELECT oid FROM pg_database WHERE datname = $1)
		   AND line LIKE 'synchronous\_commit=%' AND NOT EXISTS (SELECT FROM unnest(s.setconfig) m WHERE m LIKE $2 || '=%')
		UNION ALL SELECT setting, 'the server', 2 FROM pg_file_settings WHERE name = 'synchronous_commit' AND applied
		UNION ALL SELECT 'on', 'the server', 3) s ORDER BY rank LIMIT 1`, s.Database, pg.LocalCommit).Scan(&value, &where)
	if err != nil {
		return pg.Classify(err, "read synchronous_commit")
	}
	if slices.Contains([]string{"on", "true", "yes", "1", "remote_apply"}, value) {
		return nil
	}
	return problem.New(problem.Incompatible, "sync_commit_weak", "%s has synchronous_commit = %s: its commits do not wait for the twin", where, value).
		On(s.Database).WithHint("ALTER DATABASE %s SET synchronous_commit = on, or use the link in mode async", sqlname.Quote(s.Database))
}

// unambiguous refuses names that several standbys bear, when there is more than one
// name to wait for: two of the same could stand in for the twin. So it does with names
// that Patroni sets, for it would not be heard any more when its standbys change.
func unambiguous(ctx context.Context, conn *pgx.Conn, n Names) error {
	if len(n.Members) < 2 {
		return nil
	}
	var patroni bool
	if err := conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE application_name LIKE 'Patroni%')`).Scan(&patroni); err != nil {
		return pg.Classify(err, "look for Patroni")
	}
	if patroni && len(n.Others()) > 0 {
		return problem.New(problem.Conflict, "sync_names_taken", "Patroni sets synchronous_standby_names by itself, as its standbys come and go").
			On("synchronous_standby_names").WithHint("use Patroni's synchronous_mode or the link's mode sync, not both")
	}
	rows, err := conn.Query(ctx, `SELECT application_name FROM pg_stat_replication GROUP BY 1 HAVING count(*) > 1`)
	if err != nil {
		return pg.Classify(err, "list the standbys")
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return pg.Classify(err, "list the standbys")
	}
	for _, name := range names {
		if n.Has(name) {
			return problem.New(problem.Conflict, "sync_names_taken", "several standbys are called %q: one of them could be taken for the twin", name).
				On("synchronous_standby_names").WithHint("give each standby its own name (application_name in primary_conninfo, or cluster_name)")
		}
	}
	return nil
}

// spare lets other databases return from their commits at once: those without a
// setting of their own get synchronous_commit = local while nobody but twins is
// waited for. With names that wait for anybody else nothing is set, for it would
// take from that standby what it was promised.
func (s *Server) spare(ctx context.Context, conn *pgx.Conn, n Names) error {
	const settings = `SELECT d.datname, c.line IS NOT NULL AS own, m.line IS NOT NULL AS marked FROM pg_database d
		LEFT JOIN LATERAL (SELECT line FROM pg_db_role_setting s, unnest(s.setconfig) line WHERE s.setdatabase = d.oid AND s.setrole = 0
			AND line LIKE 'synchronous\_commit=%') c ON true
		LEFT JOIN LATERAL (SELECT line FROM pg_db_role_setting s, unnest(s.setconfig) line WHERE s.setdatabase = d.oid AND s.setrole = 0
			AND line LIKE $1 || '=%') m ON true
		WHERE d.datallowconn AND NOT d.datistemplate`
	rows, err := conn.Query(ctx, settings, pg.LocalCommit)
	if err != nil {
		return pg.Classify(err, "list the databases")
	}
	type database struct {
		Name        string
		Own, Marked bool
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[database])
	if err != nil {
		return pg.Classify(err, "list the databases")
	}
	waiting, err := s.waiting(ctx, conn, n)
	if err != nil {
		return err
	}
	for _, d := range list {
		local := n.Links() && !slices.Contains(waiting, d.Name)
		name := sqlname.Quote(d.Name)
		switch {
		case local && !d.Own:
			_, err = conn.Exec(ctx, `ALTER DATABASE `+name+` SET `+pg.LocalCommit+` = on; ALTER DATABASE `+name+` SET synchronous_commit = local`)
		case !local && d.Marked:
			_, err = conn.Exec(ctx, `ALTER DATABASE `+name+` RESET synchronous_commit; ALTER DATABASE `+name+` RESET `+pg.LocalCommit)
		}
		if err != nil && !pg.IsUnknownDatabase(err) {
			return pg.Classify(err, "set synchronous_commit of database "+d.Name)
		}
	}
	return nil
}

// waiting lists the databases whose slots the members read, this link's included
// where it is one of them.
func (s *Server) waiting(ctx context.Context, conn *pgx.Conn, n Names) ([]string, error) {
	var members []string
	for _, m := range n.Members {
		members = append(members, Object(m))
	}
	rows, err := conn.Query(ctx, `SELECT database FROM pg_replication_slots WHERE slot_name = ANY ($1) AND database IS NOT NULL`, members)
	if err != nil {
		return nil, pg.Classify(err, "list the links' slots")
	}
	list, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if n.Has(s.Member) {
		list = append(list, s.Database)
	}
	return list, pg.Classify(err, "list the links' slots")
}

// set changes the server's setting and waits until it is in force. Where the value
// becomes what the server's own files say, ours is taken away.
func (s *Server) set(ctx context.Context, conn *pgx.Conn, now, next Names) error {
	if now.equal(next) {
		return nil
	}
	var base, source string
	err := conn.QueryRow(ctx, `SELECT coalesce((SELECT setting FROM pg_file_settings WHERE name = 'synchronous_standby_names'
			AND sourcefile NOT LIKE '%/postgresql.auto.conf' AND error IS NULL ORDER BY seqno DESC LIMIT 1), ''),
		(SELECT source FROM pg_settings WHERE name = 'synchronous_standby_names')`).Scan(&base, &source)
	if err != nil {
		return pg.Classify(err, "read where synchronous_standby_names is set")
	}
	refused := func(err error) error {
		return problem.Wrap(err, problem.Unauthorised, "sync_not_permitted", "set synchronous_standby_names").On("synchronous_standby_names").
			WithHint("set it by hand, or in Patroni's configuration, to '%s'; the agent sees it", next)
	}
	if source == "command line" || source == "environment variable" {
		return refused(problem.New(problem.Unauthorised, "sync_not_permitted", "it is given on the server's command line"))
	}
	statement := `ALTER SYSTEM SET synchronous_standby_names = ` + sqlname.Literal(next.String())
	if below, err := Parse(base); err == nil && below.equal(next) {
		statement = `ALTER SYSTEM RESET synchronous_standby_names`
	}
	if _, err := conn.Exec(ctx, statement); err != nil {
		return refused(pg.Classify(err, "change the setting"))
	}
	if _, err := conn.Exec(ctx, `SELECT pg_reload_conf()`); err != nil {
		return refused(pg.Classify(err, "have the server read its settings anew"))
	}
	end := time.Now().Add(reloadPatience)
	for {
		seen, err := current(ctx, conn)
		if err != nil {
			return err
		}
		if seen.equal(next) {
			s.Log.Info("synchronous replication changed", "link", s.Link, "names", next.String())
			return takenOver(ctx)
		}
		if time.Now().After(end) {
			return refused(problem.New(problem.Transient, "sync_not_permitted", "the server does not take the value over"))
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// takenOver waits until the checkpointer has had its time.
func takenOver(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(checkpointerPatience):
		return nil
	}
}
