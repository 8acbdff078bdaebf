package usage

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/telemetry"
)

const (
	// lookAtPassive is between two looks at an instance that is declared to be passive, lookElse at another.
	lookAtPassive = 5 * time.Second
	lookElse      = 30 * time.Second
	// storeEvery is how often an hour is stored that has nothing new but its end.
	storeEvery = 30 * time.Second
	// grace is how long a login waits to be judged: until this process knows its own, and the log says whether it was refused.
	grace = 3 * time.Second
)

// Meter counts the hours of one instance. Set the exported fields before Run.
type Meter struct {
	Server  *pg.DSN // through the maintenance database
	LogDir  string  // of the server's log
	Log     *slog.Logger
	Declare func() (look Look, known bool) // what the instance is now, At and Unlogged aside; not known while its links are not found
	Wanted  func() bool                    // whether the hours are to be counted: of an instance with a size or a benefit
	Unit    time.Duration                  // of counting; 0 for an hour, else for tests

	began    time.Time
	conn     *pgx.Conn
	hour     Hour
	before   time.Time // of the last look
	stored   time.Time
	logins   logins
	waiting  []login
	since    time.Time // logins before it were judged by an earlier process, or were not to be judged
	counted  counted
	unstored []Void
	known    map[Void]time.Time // when each of this unit began, by what else it is

	mu      sync.Mutex
	trouble *problem.Error
	now     Line // of the hour under way
}

// unit is what is counted.
func (m *Meter) unit() time.Duration {
	if m.Unit > 0 {
		return m.Unit
	}
	return time.Hour
}

// Run looks until ctx ends.
func (m *Meter) Run(ctx context.Context) {
	m.began = time.Now()
	m.logins.dir = m.LogDir
	defer func() {
		if m.conn != nil {
			_ = m.conn.Close(context.WithoutCancel(ctx)) // the process ends
		}
	}()
	for {
		pause := lookElse
		if m.Wanted() {
			passive, err := m.look(ctx)
			if passive {
				pause = lookAtPassive
			}
			m.troubled(ctx, err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(min(pause, m.unit()/4)):
		}
	}
}

func (m *Meter) troubled(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	if err != nil && m.conn != nil {
		_ = m.conn.Close(ctx)
		m.conn = nil
	}
	m.mu.Lock()
	before := m.trouble
	m.trouble = nil
	if err != nil {
		hint := "nothing, where the server is away for a moment: it is tried again; hours of which more than two minutes are not seen are unknown"
		if p := problem.As(err); p.Code == "schema_taken" {
			hint = p.Hint
		}
		m.trouble = problem.Wrap(err, problem.Transient, "usage_unseen", "usage is not counted now").WithHint("%s", hint)
	}
	after := m.trouble
	m.mu.Unlock()
	if after != nil && (before == nil || before.Error() != after.Error()) {
		m.Log.Warn("usage is not counted", telemetry.Failure(err))
	}
}

// Problem is why nothing is counted now, nil where it is.
func (m *Meter) Problem() *problem.Error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.trouble
}

// Now is the hour under way; its Start is zero while nothing was seen.
func (m *Meter) Now() Line {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.now
}

// look looks once, and says whether the instance is declared to be passive.
func (m *Meter) look(ctx context.Context) (passive bool, err error) {
	ctx, stop := context.WithTimeout(ctx, storeTimeout)
	defer stop()
	l, known := m.Declare()
	if !known {
		return l.Passive, nil
	}
	if err := m.open(ctx); err != nil {
		return l.Passive, err
	}
	l.At = time.Now().UTC()
	var voids []Void
	if l.Passive {
		if voids, l.Unlogged, err = m.sessions(ctx, l.At); err != nil {
			return true, err
		}
		voids, m.unstored = append(m.unstored, voids...), nil
	} else {
		m.waiting, m.since = nil, l.At
	}
	start := l.At.Truncate(m.unit())
	if !m.hour.Start.Equal(start) {
		if !m.hour.First.IsZero() { // with what was seen last of it
			if err := store(ctx, m.conn, m.hour, nil); err != nil {
				return l.Passive, err
			}
		}
		m.hour, m.stored = Hour{Start: start}, time.Time{}
	}
	m.hour = m.hour.Add(l, m.before)
	m.before = l.At
	m.show(l.At, voids)
	if len(voids) == 0 && l.At.Sub(m.stored) < storeEvery {
		return l.Passive, nil
	}
	if err := store(ctx, m.conn, m.hour, voids); err != nil {
		m.unstored = append(m.unstored, voids...)
		return l.Passive, err
	}
	m.stored = l.At
	return l.Passive, nil
}

// show keeps the hour under way for whoever asks.
func (m *Meter) show(now time.Time, voids []Void) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.now.Start.Equal(m.hour.Start) {
		m.now.Voids = nil
	}
	for _, v := range voids {
		if v.Hour.Equal(m.hour.Start) && len(m.now.Voids) < mostVoids {
			m.now.Voids = append(m.now.Voids, v)
		}
	}
	m.now.Hour, m.now.Open = m.hour, true
	m.now.State, m.now.Why = m.hour.State(m.unit(), len(m.now.Voids), now)
}

// open opens the session, makes the tables, and reads where an earlier process has come to.
func (m *Meter) open(ctx context.Context) error {
	if m.conn != nil {
		return nil
	}
	conn, err := m.Server.Connect(ctx, pg.Session{Name: "usage", Apply: true, Settings: map[string]string{"lock_timeout": "5s"}})
	if err != nil {
		return err
	}
	m.conn = conn
	have, err := there(ctx, conn)
	if err == nil && !have {
		err = install(ctx, conn)
	}
	if err != nil || !m.since.IsZero() {
		return err
	}
	now := time.Now().UTC()
	hours, voids, _, err := read(ctx, conn, now.Truncate(m.unit()), now.Add(m.unit()))
	if err != nil {
		return err
	}
	m.since = now
	for _, h := range hours {
		m.before, m.since = h.Last, h.Last
		if h.Start.Equal(now.Truncate(m.unit())) {
			m.hour = h
			m.mu.Lock()
			m.now.Hour, m.now.Voids = h, voids
			m.mu.Unlock()
		}
	}
	return nil
}

// session is one that the server shows.
type session struct {
	pid         uint32
	began       time.Time
	database    string
	role        string
	application string
	client      string
	query       *time.Time // when its last statement began
	busy        bool       // it is executing, or in a transaction
}

// sessions finds who works on the instance: by the log who has come since the last look, by the server's own list who works in a session
// that is longer. unlogged says that somebody may have come and gone unseen.
func (m *Meter) sessions(ctx context.Context, now time.Time) (voids []Void, unlogged bool, err error) {
	logged, live, counts, err := m.ask(ctx)
	if err != nil {
		return nil, false, err
	}
	found, err := m.logins.next(m.since)
	if err != nil {
		return nil, false, problem.Wrap(err, problem.Unauthorised, "usage_log_unreadable", "the log of the server cannot be read").On(m.LogDir)
	}
	unlogged = !logged || m.counted.unseen(now.Truncate(m.unit()), counts, live, found)
	m.waiting = append(m.waiting, found...)
	refused := map[string]bool{}
	for _, l := range m.waiting {
		if l.refused {
			refused[l.id] = true
		}
	}
	var judged []Void
	m.waiting = slices.DeleteFunc(m.waiting, func(l login) bool {
		if now.Sub(l.at) < grace {
			return false
		}
		if !l.refused && !refused[l.id] && !m.own(l.pid, l.at, l.application, l.role) {
			judged = append(judged, Void{Hour: l.at.Truncate(m.unit()), Role: l.role, Database: l.database, Application: l.application, Client: l.client, First: l.at})
		}
		return true
	})
	for _, s := range live {
		if m.own(s.pid, s.began, s.application, s.role) {
			continue
		}
		v := Void{Role: s.role, Database: s.database, Application: s.application, Client: s.client}
		var worked []time.Time
		if s.query != nil && !s.query.Before(m.since) && s.query.After(m.before.Add(-grace)) {
			worked = append(worked, *s.query)
		}
		if s.busy {
			worked = append(worked, now)
		}
		for _, at := range worked {
			v.Hour, v.First = at.Truncate(m.unit()), at
			judged = append(judged, v)
		}
	}
	voids, err = m.judge(ctx, judged)
	return m.news(voids), unlogged, err
}

// news leaves what is not known yet.
func (m *Meter) news(voids []Void) []Void {
	if m.known == nil || len(m.known) > 100*mostVoids {
		m.known = map[Void]time.Time{}
	}
	return slices.DeleteFunc(voids, func(v Void) bool {
		key := v
		key.First = time.Time{}
		first, known := m.known[key]
		if known && !v.First.Before(first) {
			return true
		}
		m.known[key] = v.First
		return false
	})
}

// own says whether a session is the agent's. Those of a process before this one are told by their names and the agent's role: their numbers are not
// known any more.
func (m *Meter) own(pid uint32, at time.Time, application, role string) bool {
	if pg.IsOwn(pid, at) {
		return true
	}
	return role == m.Server.User() && (pg.IsOwnProgram(application) || at.Before(m.began) && strings.HasPrefix(application, "twinspan/"))
}

// ask asks the server whether it logs logins, who is there, and how many sessions each database has had.
func (m *Meter) ask(ctx context.Context) (logged bool, live []session, counts map[string]int64, err error) {
	err = m.conn.QueryRow(ctx, `SELECT pg_catalog.current_setting('logging_collector') = 'on' AND pg_catalog.current_setting('log_destination') ~ 'csvlog'
		AND pg_catalog.current_setting('log_connections') ~ '^(on|all)$|authorization' AND pg_catalog.current_setting('log_timezone') = 'UTC'`).Scan(&logged)
	if err != nil {
		return false, nil, nil, pg.Classify(err, "ask how the server logs")
	}
	rows, err := m.conn.Query(ctx, `SELECT pid, backend_start, datname, usename, application_name, coalesce(pg_catalog.host(client_addr), '[local]'), query_start, state <> 'idle'
		FROM pg_catalog.pg_stat_activity WHERE backend_type = 'client backend' AND datname IS NOT NULL AND usename IS NOT NULL AND state IS NOT NULL`)
	if err != nil {
		return false, nil, nil, pg.Classify(err, "list the sessions")
	}
	live, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (s session, err error) {
		return s, row.Scan(&s.pid, &s.began, &s.database, &s.role, &s.application, &s.client, &s.query, &s.busy)
	})
	if err != nil {
		return false, nil, nil, pg.Classify(err, "list the sessions")
	}
	rows, err = m.conn.Query(ctx, `SELECT datname, sessions FROM pg_catalog.pg_stat_database WHERE datname IS NOT NULL`)
	if err != nil {
		return false, nil, nil, pg.Classify(err, "count the sessions")
	}
	counts = map[string]int64{}
	var name string
	var n int64
	_, err = pgx.ForEachRow(rows, []any{&name, &n}, func() error { counts[name] = n; return nil })
	return logged, live, counts, pg.Classify(err, "count the sessions")
}

// judge leaves those that void an hour.
func (m *Meter) judge(ctx context.Context, found []Void) ([]Void, error) {
	if len(found) == 0 {
		return nil, nil
	}
	names := make([]string, len(found))
	for i, v := range found {
		names[i] = v.Role
	}
	rows, err := m.conn.Query(ctx, `WITH RECURSIVE monitor (oid) AS (
			SELECT oid FROM pg_catalog.pg_roles WHERE rolname = 'pg_monitor' UNION SELECT a.member FROM pg_catalog.pg_auth_members a JOIN monitor m ON a.roleid = m.oid)
		SELECT rolname, rolsuper, oid IN (SELECT oid FROM monitor) FROM pg_catalog.pg_roles WHERE rolname = ANY ($1)`, names)
	if err != nil {
		return nil, pg.Classify(err, "look at the roles of sessions")
	}
	roles := map[string]Session{}
	var s Session
	_, err = pgx.ForEachRow(rows, []any{&s.Role, &s.Superuser, &s.Monitor}, func() error { roles[s.Role] = s; return nil })
	if err != nil {
		return nil, pg.Classify(err, "look at the roles of sessions")
	}
	return slices.DeleteFunc(found, func(v Void) bool {
		s := roles[v.Role] // of one that is gone nothing is known, and it has worked
		s.Role, s.Database = v.Role, v.Database
		return !s.Voids(m.Server.Database())
	}), nil
}

// Read makes the report of a span.
func (m *Meter) Read(ctx context.Context, from, until time.Time) (Report, error) {
	ctx, stop := context.WithTimeout(ctx, storeTimeout)
	defer stop()
	conn, err := m.Server.Connect(ctx, pg.Session{Name: "usage"})
	if err != nil {
		return Report{}, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	have, err := there(ctx, conn)
	if err != nil || !have {
		return Report{From: from, Until: until}, err
	}
	hours, voids, began, err := read(ctx, conn, from, until)
	return Make(from, until, time.Now().UTC(), began, hours, voids), err
}
