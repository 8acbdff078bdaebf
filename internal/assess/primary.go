package assess

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// Primary is the side that is to be the primary.
type Primary struct {
	DSN       *pg.DSN // of the database
	DumpMajor int     // version of the newest pg_dump beside the agent, 0 for none
	// Long is the age from which a transaction that keeps the link waiting is worth
	// a warning; 0 means five minutes.
	Long time.Duration
}

// Facts are what is measured of the primary for the findings of the way between.
type Facts struct {
	LogRate float64 `json:"logRate"` // bytes of log per second
	// LogSteady is the same as far as there is evidence that it goes on: the average since
	// the statistics began where LogAverage says so, else the least of what was measured.
	LogSteady  float64 `json:"logSteady"`
	LogAverage bool    `json:"logAverage"`
	FreeLog    int64   `json:"freeLog"`  // bytes free for log, Unknown when the server is elsewhere
	KeepLog    int64   `json:"keepLog"`  // bytes of log that slots may keep, Unknown for no limit
	Database   int64   `json:"database"` // bytes
}

// Report is what a look at the primary's side brings.
type Report struct {
	Source   Source
	Needs    Needs
	Facts    Facts
	Findings []Finding
}

// sampleLeast is how long the growth of the log is watched at least. It is a glance, for
// servers whose statistics are young or tell nothing of the log, and whoever creates a link
// waits for it.
const sampleLeast = 100 * time.Millisecond

// Look looks at the side. What it does on the server ends with it.
func (p Primary) Look(ctx context.Context) (Report, error) {
	f, err := judgeAddress(ctx, p.DSN)
	if err != nil {
		return Report{}, err
	}
	conn, err := p.DSN.Connect(ctx, pg.Session{Name: "check", Settings: map[string]string{"lock_timeout": "2s"}})
	if err != nil {
		return Report{}, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	l := primaryLook{Primary: p, conn: conn, found: f}
	for _, step := range []func(context.Context) error{
		l.describe, l.startSample, l.server, l.cluster, l.database, l.tables, l.columns, l.programs, l.outside, l.endSample, l.space, l.exercise, l.transactions,
	} {
		if err := step(ctx); err != nil {
			return Report{}, err
		}
	}
	l.report.Findings = shorten(l.found)
	return l.report, nil
}

// primaryLook is one Look.
type primaryLook struct {
	Primary
	conn   *pgx.Conn
	report Report
	found  findings

	linked  bool // the database has a link already, which proves the rights
	blocked bool // logical slots cannot be had: no use in trying
	waited  bool // the slot had to wait for other transactions
	since   time.Time
	log     int64
}

func (l *primaryLook) describe(ctx context.Context) error {
	var err error
	if l.report.Source, err = Describe(ctx, l.conn); err != nil {
		return err
	}
	e, known, err := encryptionOf(ctx, l.conn, l.DSN)
	if err != nil {
		return err
	}
	if known {
		l.report.Source.Encryption = e.Kind
	}
	l.report.Facts = Facts{FreeLog: Unknown, KeepLog: Unknown, Database: l.report.Source.Bytes}
	l.report.Needs, err = readNeeds(ctx, l.conn, l.report.Source.Major)
	return err
}

// server judges the server's version and settings.
func (l *primaryLook) server(ctx context.Context) error {
	f := &l.found
	var version, slots, slotLimit, senders, senderLimit int
	var walLevel, keep, fsync string
	var recovering bool
	err := l.conn.QueryRow(ctx, `SELECT current_setting('server_version_num')::int, current_setting('wal_level'), pg_is_in_recovery(),
		(SELECT count(*) FROM pg_replication_slots)::int, current_setting('max_replication_slots')::int,
		(SELECT count(*) FROM pg_stat_replication)::int, current_setting('max_wal_senders')::int,
		coalesce(current_setting('max_slot_wal_keep_size', true), ''), current_setting('fsync')`).
		Scan(&version, &walLevel, &recovering, &slots, &slotLimit, &senders, &senderLimit, &keep, &fsync)
	if err != nil {
		return pg.Classify(err, "look at the primary")
	}
	major := version / 10000
	*f = append(*f, judgeVersion(version, false)...)
	f.blocksIf(recovering, "primary_in_recovery", "server", "the server is a standby: its log cannot be decoded into a new slot", "connect to its primary")
	f.blocksIf(walLevel != "logical", "wal_level_low", "wal_level", "wal_level is "+walLevel+"; changes can be read from the log only with logical",
		"ALTER SYSTEM SET wal_level = 'logical'; then restart the server")
	f.blocksIf(slotLimit-slots < 2, "slots_used_up", "max_replication_slots",
		fmt.Sprintf("%d of %d replication slots are taken; a link needs one, and a second while it is seeded", slots, slotLimit),
		fmt.Sprintf("ALTER SYSTEM SET max_replication_slots = %d; then restart the server; or drop slots that nobody uses", slotLimit+10))
	f.blocksIf(senderLimit-senders < 2, "senders_used_up", "max_wal_senders",
		fmt.Sprintf("%d of %d WAL senders are taken; a link needs one, and a second while it is seeded", senders, senderLimit),
		fmt.Sprintf("ALTER SYSTEM SET max_wal_senders = %d; then restart the server", senderLimit+10))
	f.blocksIf(l.DumpMajor < major, "pg_dump_too_old", "pg_dump",
		fmt.Sprintf("the newest pg_dump found has version %d, the server has %d", l.DumpMajor, major),
		fmt.Sprintf("install the client programs of version %d on the agent's machine, or name their directory in TWINSPAN_PG_BIN", major))
	f.informsIf(keep != "" && keep != "-1", "slot_wal_limited", "max_slot_wal_keep_size", "the server drops log that the twin still needs once it exceeds "+keep,
		"ALTER SYSTEM SET max_slot_wal_keep_size = -1; SELECT pg_reload_conf(); or make sure that it is enough for the longest interruption")
	judgeDurability(f, fsync)
	l.blocked = recovering || walLevel != "logical" || slotLimit-slots < 2 || senderLimit-senders < 2
	if err := judgeConnections(ctx, l.conn, f); err != nil {
		return err
	}
	return judgeSlots(ctx, l.conn, f)
}

func superuserRemedy(user string) string {
	return "ALTER ROLE " + sqlname.Quote(user) + " SUPERUSER; or give the agent a superuser's connection string"
}

func judgeDurability(f *findings, fsync string) {
	f.informsIf(fsync == "off", "fsync_off", "fsync", "the server does not wait for its disk: a crash of its machine can lose what it said was safe, and damage the data",
		"ALTER SYSTEM SET fsync = on; SELECT pg_reload_conf()")
}

// connectionsNeeded is what a link takes on one side at its busiest: the copying
// sessions, those of the schema, the stream and the agent's own.
const connectionsNeeded = 12

// judgeConnections compares the sessions that are open with those that may be.
func judgeConnections(ctx context.Context, conn *pgx.Conn, f *findings) error {
	var open, limit int
	err := conn.QueryRow(ctx, `SELECT (SELECT count(*) FROM pg_stat_activity WHERE coalesce(backend_type, 'client backend') = 'client backend')::int,
		current_setting('max_connections')::int`).Scan(&open, &limit)
	f.warnsIf(limit-open < connectionsNeeded, "connections_short", "max_connections",
		fmt.Sprintf("%d of %d sessions are open; a link takes up to %d", open, limit, connectionsNeeded),
		fmt.Sprintf("ALTER SYSTEM SET max_connections = %d; then restart the server; or end sessions that nobody uses", limit+20))
	return pg.Classify(err, "count the sessions")
}

// judgeSlots finds slots of others that keep log: the disk that they fill is the
// one that a link's slot needs.
func judgeSlots(ctx context.Context, conn *pgx.Conn, f *findings) error {
	rows, err := conn.Query(ctx, `SELECT slot_name::text, pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_receive_lsn() ELSE pg_current_wal_lsn() END, restart_lsn)::bigint
		FROM pg_replication_slots WHERE NOT active AND restart_lsn IS NOT NULL AND slot_name NOT LIKE 'twinspan\_%' ORDER BY 1`)
	if err != nil {
		return pg.Classify(err, "look at the replication slots")
	}
	var name string
	var kept *int64
	_, err = pgx.ForEachRow(rows, []any{&name, &kept}, func() error {
		if kept != nil {
			f.informsIf(true, "slot_abandoned", name, fmt.Sprintf("nobody reads this replication slot; it keeps %s of log on the primary's disk", size(*kept)),
				"SELECT pg_drop_replication_slot("+sqlname.Literal(name)+"), if nobody will read it again")
		}
		return nil
	})
	return pg.Classify(err, "look at the replication slots")
}

// startSample and endSample watch the log grow while the check reads.
func (l *primaryLook) startSample(ctx context.Context) error {
	l.since = time.Now()
	var err error
	l.log, err = l.logEnd(ctx)
	return err
}

func (l *primaryLook) logEnd(ctx context.Context) (end int64, err error) {
	err = l.conn.QueryRow(ctx, `SELECT CASE WHEN pg_is_in_recovery() THEN 0 ELSE pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0') END::bigint`).Scan(&end)
	return end, pg.Classify(err, "read the end of the log")
}

func (l *primaryLook) endSample(ctx context.Context) error {
	if left := sampleLeast - time.Since(l.since); left > 0 {
		select {
		case <-ctx.Done():
			return problem.As(context.Cause(ctx))
		case <-time.After(left):
		}
	}
	end, err := l.logEnd(ctx)
	if err != nil {
		return err
	}
	rate := float64(max(0, end-l.log)) / time.Since(l.since).Seconds()
	l.report.Facts.LogSteady = rate
	if l.report.Source.Major >= 14 {
		// The average since the statistics began says more than a moment, unless
		// they have just begun.
		var average float64
		err := l.conn.QueryRow(ctx, `SELECT coalesce(CASE WHEN now() - stats_reset > interval '10 minutes'
			THEN wal_bytes / extract(epoch FROM now() - stats_reset) END, 0)::float8 FROM pg_stat_wal`).Scan(&average)
		if err != nil {
			return pg.Classify(err, "read the statistics of the log")
		}
		rate = max(rate, average)
		if average > 0 {
			l.report.Facts.LogSteady, l.report.Facts.LogAverage = average, true
		}
	}
	l.report.Facts.LogRate = rate
	return nil
}

// LogRate measures once more how much log the primary writes in a second.
func (p Primary) LogRate(ctx context.Context) (float64, error) {
	conn, err := p.DSN.Connect(ctx, pg.Session{Name: "check"})
	if err != nil {
		return 0, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	l := &primaryLook{conn: conn, since: time.Now()}
	if l.log, err = l.logEnd(ctx); err != nil {
		return 0, err
	}
	select {
	case <-ctx.Done():
		return 0, problem.As(context.Cause(ctx))
	case <-time.After(sampleLeast):
	}
	end, err := l.logEnd(ctx)
	return float64(max(0, end-l.log)) / time.Since(l.since).Seconds(), err
}

// space tells what the log may grow to.
func (l *primaryLook) space(ctx context.Context) error {
	_, free, err := freeSpace(ctx, l.conn, l.DSN)
	if err != nil {
		return err
	}
	l.report.Facts.FreeLog = free
	var keep int64
	err = l.conn.QueryRow(ctx, `SELECT coalesce((SELECT CASE WHEN setting::bigint < 0 THEN -1 ELSE setting::bigint * 1048576 END
		FROM pg_settings WHERE name = 'max_slot_wal_keep_size'), -1)`).Scan(&keep)
	l.report.Facts.KeepLog = keep
	return pg.Classify(err, "read what slots may keep")
}

// size writes a number of bytes for people.
func size(n int64) string {
	units := []string{"B", "kB", "MB", "GB", "TB"}
	value, i := float64(n), 0
	for value >= 1024 && i < len(units)-1 {
		value, i = value/1024, i+1
	}
	text := fmt.Sprintf("%.1f", value)
	return strings.TrimSuffix(text, ".0") + " " + units[i]
}

// has says whether a code was found.
func (f findings) has(code string) bool {
	return slices.ContainsFunc(f, func(x Finding) bool { return x.Code == code })
}
