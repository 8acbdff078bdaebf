package backup

import (
	"context"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
)

const (
	watchEvery = 5 * time.Second
	beatEvery  = 10 * time.Second
	// askWait bounds one look at the server.
	askWait = 30 * time.Second
	// lateAfter is how long a commit may be on its way into the repository. The server switches after a minute.
	lateAfter = 10 * time.Minute
)

// watch looks at the server: at its databases, at how its log gets into the repository, and makes the commits
// that recovery can stop at.
func (k *Keeper) watch(ctx context.Context) {
	var conn *pgx.Conn
	defer func() {
		if conn != nil {
			conn.Close(context.WithoutCancel(ctx))
		}
	}()
	for ctx.Err() == nil {
		asking, stop := context.WithTimeout(ctx, askWait)
		err := func() (err error) {
			if conn == nil {
				if conn, err = k.Server.Connect(asking, pg.Session{Name: "backup"}); err != nil {
					return err
				}
			}
			return k.observe(asking, conn)
		}()
		stop()
		if err != nil && conn != nil {
			conn.Close(context.WithoutCancel(ctx))
			conn = nil
		}
		if err != nil && ctx.Err() == nil {
			k.Log.Debug("the server could not be watched", "err", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(watchEvery):
		}
	}
}

// sight is one look at the server.
type sight struct {
	at       time.Time // by the server's clock, before everything else
	before   lsn.LSN   // everything in the list was there at this position
	list     []sighted
	after    lsn.LSN // what is not in the list was gone at this position
	timeline uint32
	next     uint64 // the transaction number that is given out next
	archived string // the last segment in the repository, as the server knows it; "" for none
	failed   string // the segment that could not be archived last, "" when one was archived since
}

// sighted is a database in the list.
type sighted struct {
	Database
	dying bool  // its DROP is under way, or was broken off
	limit int32 // of connections
}

// observe looks at the server once.
func (k *Keeper) observe(ctx context.Context, conn *pgx.Conn) error {
	s, err := k.sight(ctx, conn)
	if err != nil {
		return err
	}
	k.noteArchived(s)
	if k.beatIsDue(s) {
		if err := k.beat(ctx, conn, s); err != nil {
			return err
		}
	}
	k.noteArchiver(ctx, s)
	return nil
}

// sight looks at the server and notes its databases. What is seen later is noted later.
func (k *Keeper) sight(ctx context.Context, conn *pgx.Conn) (sight, error) {
	k.looking.Lock()
	defer k.looking.Unlock()
	s, err := look(ctx, conn)
	if err != nil {
		return s, err
	}
	if err := k.noteDatabases(s); err != nil {
		k.Log.Warn("the list of databases could not be kept", "err", err)
	}
	return s, nil
}

func look(ctx context.Context, conn *pgx.Conn) (s sight, err error) {
	var next string
	if err := conn.QueryRow(ctx, `SELECT pg_catalog.clock_timestamp(), pg_catalog.pg_current_wal_lsn()`).Scan(&s.at, &s.before); err != nil {
		return s, pg.Classify(err, "read the position of the log")
	}
	rows, err := conn.Query(ctx, `SELECT datname, oid, datconnlimit = -2, datconnlimit FROM pg_catalog.pg_database WHERE NOT datistemplate ORDER BY oid`)
	if err != nil {
		return s, pg.Classify(err, "list the databases")
	}
	if s.list, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (d sighted, err error) {
		return d, row.Scan(&d.Name, &d.OID, &d.dying, &d.limit)
	}); err != nil {
		return s, pg.Classify(err, "list the databases")
	}
	// The timeline of the last checkpoint is another one for a while after a server has begun to lead.
	if err := conn.QueryRow(ctx, `SELECT pg_catalog.pg_current_wal_insert_lsn(), ('x' || pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int,
	pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::text, COALESCE(a.last_archived_wal, ''),
	CASE WHEN a.last_failed_time > COALESCE(a.last_archived_time, '-infinity') THEN a.last_failed_wal ELSE '' END
FROM pg_catalog.pg_stat_archiver a`).
		Scan(&s.after, &s.timeline, &next, &s.archived, &s.failed); err != nil {
		return s, pg.Classify(err, "look at the archiver")
	}
	s.next, err = strconv.ParseUint(next, 10, 64)
	return s, err
}

// pulse is what is known of the keeper's own commits; Keeper.mu guards it.
type pulse struct {
	beaten  time.Time // when it was made last
	next    uint64    // the transaction number behind it
	sent    []mark    // commits that are not in the repository yet, by position
	safe    time.Time // what was committed until then is in the repository
	secured time.Time // and of what was committed before this, a commit behind it is, too
	last    string    // the segment of the last commit that is in the repository
	checked time.Time // when the engine was asked for the reason of a failure
}

// mark is a commit of the keeper.
type mark struct {
	segment string
	at      time.Time // shortly before
}

// archived is the moment up to which all commits are known to be in the repository; k.mu is held.
func (k *Keeper) archived() time.Time { return k.pulse.safe }

// noteArchived learns how far the repository is from the last segment that the server got rid of.
func (k *Keeper) noteArchived(s sight) {
	k.mu.Lock()
	defer k.mu.Unlock()
	p := &k.pulse
	if len(s.archived) >= 24 {
		for len(p.sent) > 0 && p.sent[0].segment <= s.archived[:24] {
			p.safe, p.secured, p.last = p.sent[0].at, p.sent[0].at, p.sent[0].segment
			p.sent = p.sent[1:]
		}
	}
	// Nobody has written since: what was true then still is.
	if p.next == s.next && p.next != 0 && len(p.sent) == 0 && !p.beaten.IsZero() {
		p.safe = s.at
	}
}

func (k *Keeper) beatIsDue(s sight) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return s.next != k.pulse.next && s.at.Sub(k.pulse.beaten) >= beatEvery
}

// beat commits a transaction that has a number and does nothing else.
func (k *Keeper) beat(ctx context.Context, conn *pgx.Conn, s sight) error {
	var own string
	var at time.Time
	if err := conn.QueryRow(ctx, `SELECT pg_catalog.pg_current_xact_id()::text, pg_catalog.clock_timestamp()`).Scan(&own, &at); err != nil {
		return pg.Classify(err, "make a commit")
	}
	number, err := strconv.ParseUint(own, 10, 64)
	if err != nil {
		return err
	}
	var end lsn.LSN
	if err := conn.QueryRow(ctx, `SELECT pg_catalog.pg_current_wal_insert_lsn()`).Scan(&end); err != nil {
		return pg.Classify(err, "read the position of the log")
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.pulse.beaten, k.pulse.next = at, number+1
	k.pulse.sent = append(k.pulse.sent, mark{SegmentOf(s.timeline, end-1), s.at})
	return nil
}

// noteArchiver finds out why the log does not get into the repository, where it does not.
func (k *Keeper) noteArchiver(ctx context.Context, s sight) {
	k.mu.Lock()
	known := slices.ContainsFunc(k.stores, func(s *store) bool { return s.contents != nil })
	asked := k.pulse.checked
	var oldest time.Time
	if len(k.pulse.sent) > 0 {
		oldest = k.pulse.sent[0].at
	}
	k.mu.Unlock()
	switch {
	case s.failed != "" && s.at.Sub(asked) >= lookAgain:
		k.mu.Lock()
		k.pulse.checked = s.at
		k.mu.Unlock()
		err := k.check(ctx, s.failed)
		if err != nil && ctx.Err() == nil {
			k.raise("archive", archiveFailing(problem.As(err), "the log does not get into the repository, and the server keeps it: "))
		}
		// Where it succeeded, the server's next attempt does too, and that ends the problem.
	case s.failed == "" && known && !oldest.IsZero() && s.at.Sub(oldest) > lateAfter:
		k.raise("archive", problem.New(problem.Resource, "backup_log_late", "the log of %s is not in the repository yet", oldest.UTC().Format(time.RFC3339)).
			WithHint("see that archive_mode and archive_command of the server are those of twinspan.conf, and that the repository's disk is not overloaded"))
	case s.failed == "":
		k.raise("archive", nil)
	}
}

// archiveFailing says of a cause what follows from it.
func archiveFailing(cause *problem.Error, follows string) *problem.Error {
	p := *cause
	p.Text = follows + cause.Text
	return &p
}
