// Package syncmode has the commits of a primary wait for the twin, or lets them go, as the link's
// mode and role ask for (docs/design/0014-sync-and-clusters.md). What they wait for, and when, is
// package syncrep's to say.
package syncmode

import (
	"context"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/role"
	"github.com/twinspan/twinspan/internal/side"
	"github.com/twinspan/twinspan/internal/syncrep"
)

const (
	// modeInterval is how often a primary in mode sync looks at its twin.
	modeInterval = 250 * time.Millisecond
	// coverInterval is how often databases that have come since are spared.
	coverInterval = time.Minute
	// leavePatience bounds what an agent that is stopped does for commits that wait.
	leavePatience = 5 * time.Second
)

// Mode keeps the synchronous replication of a side's server as the link's mode and role ask for.
type Mode struct {
	side      *side.Side
	server    *syncrep.Server
	confirmed func() lsn.LSN // what the twin has confirmed of the stream that runs; 0 while none does

	settling chan struct{} // holds one element while nobody settles, who alone uses pace and covered
	pace     syncrep.Pace
	covered  time.Time

	mu      sync.Mutex // guards what follows
	known   bool       // engaged was read from the server at least once
	engaged bool       // commits wait for the twin
	state   api.SyncState
	since   time.Time
}

// New returns the mode of a side. server is the side's; confirmed is what the twin has
// confirmed of the stream that runs, 0 while none does.
func New(s *side.Side, server *syncrep.Server, confirmed func() lsn.LSN) *Mode {
	m := &Mode{side: s, server: server, confirmed: confirmed, settling: make(chan struct{}, 1)}
	m.settling <- struct{}{}
	return m
}

// Run keeps the server's synchronous replication as mode and role ask for it,
// on either side: a primary that became a secondary has to take back what it asked
// for. An agent that is stopped in good order cannot count its timeout any more, so
// commits with one go on without the twin; those without one wait for both.
func (m *Mode) Run(ctx context.Context) {
	tick := time.NewTicker(modeInterval)
	defer tick.Stop()
	for {
		if err := m.Settle(ctx); err != nil && ctx.Err() == nil {
			m.failed(problem.As(err))
		}
		select {
		case <-ctx.Done():
			if r := m.side.Record(); r.SyncTimeout > 0 && syncs(r) && m.waits() {
				ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), leavePatience)
				defer stop()
				if err := m.release(ctx); err != nil {
					m.side.Log.Warn("commits go on waiting for the twin", "err", err)
				}
			}
			return
		case <-tick.C:
		}
	}
}

// failed shows why mode sync is not in force. A server that is out of reach is
// the business of the link's work.
func (m *Mode) failed(p *problem.Error) {
	if p.Kind != problem.Transient && p.Kind != problem.Cancelled {
		m.side.Warn("mode", p)
	}
}

// syncs says whether this side's commits are to wait for the other.
func syncs(r catalog.Link) bool {
	return r.Mode == string(api.Sync) && role.Role(r.Role) == role.Primary && !r.Deleting
}

// Settle brings the server's synchronous replication in line with the link's mode
// and role as they are now. It is called again and again, and by whoever changes
// places: on the former primary so that its commits wait for nobody, on the new one
// to have them wait as soon as the other side is in step.
func (m *Mode) Settle(ctx context.Context) error {
	select {
	case <-m.settling:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { m.settling <- struct{}{} }()

	r := m.side.Record()
	if m.idle() && !syncs(r) {
		return nil // the usual case, which costs nothing
	}
	end, err := m.look(ctx)
	if err != nil {
		return err
	}
	if !syncs(r) {
		m.side.Warn("sync_degraded", nil)
		m.side.Warn("mode", nil)
		m.show("")
		return m.disengage(ctx)
	}
	age, met := m.pace.Look(time.Now(), end, m.confirmed())
	switch syncrep.Judge(role.Phase(r.Phase), m.waits(), time.Duration(r.SyncTimeout)*time.Second, age, met) {
	case syncrep.Release:
		m.show(api.SyncPending)
		return m.disengage(ctx)
	case syncrep.Engage:
		return m.engage(ctx)
	case syncrep.Degrade:
		if err := m.disengage(ctx); err != nil {
			return err
		}
		m.show(api.SyncDegraded)
		m.side.Warn("sync_degraded", problem.New(problem.Transient, "sync_degraded",
			"the twin has confirmed nothing for %d s: commits go on without it", r.SyncTimeout).On(r.Name).
			WithHint("bring the twin back; commits wait again as soon as it is in step"))
		return nil
	}
	if !m.waits() {
		m.show(api.SyncPending)
		return nil
	}
	m.show(api.SyncEngaged)
	if time.Since(m.covered) > coverInterval {
		return m.engage(ctx)
	}
	return nil
}

// look returns the end of the log, and notes whether commits wait. That is read
// anew each time, for the setting is none that goes to standbys: one that was
// promoted does not have it.
func (m *Mode) look(ctx context.Context) (end lsn.LSN, err error) {
	err = m.side.Session.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		engaged, err := m.server.Required(ctx, conn)
		if err != nil {
			return err
		}
		m.mu.Lock()
		m.engaged, m.known = engaged, true
		m.mu.Unlock()
		err = conn.QueryRow(ctx, `SELECT pg_current_wal_flush_lsn()::text`).Scan(&end)
		return pg.Classify(err, "read the end of the log")
	})
	return end, err
}

func (m *Mode) engage(ctx context.Context) error {
	if err := m.server.Require(ctx); err != nil {
		return err
	}
	m.mu.Lock()
	m.engaged = true
	m.mu.Unlock()
	m.covered = time.Now()
	m.side.Warn("sync_degraded", nil)
	m.side.Warn("mode", nil)
	m.show(api.SyncEngaged)
	return nil
}

// idle says whether commits are known not to wait.
func (m *Mode) idle() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.known && !m.engaged
}

// waits says whether commits wait for the twin.
func (m *Mode) waits() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.engaged
}

// disengage lets commits return. A side that is not primary any more has to end
// those that wait instead: the new primary does not have them, and their clients
// must not be told that they are safe.
func (m *Mode) disengage(ctx context.Context) error {
	if !m.waits() {
		return nil
	}
	if m.side.Role() == role.Secondary {
		err := m.side.Session.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error { return m.server.EndWaiting(ctx, conn) })
		if err != nil {
			return err
		}
	}
	return m.release(ctx)
}

func (m *Mode) release(ctx context.Context) error {
	if err := m.server.Release(ctx); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.engaged = false
	return nil
}

// show notes the state that is shown, "" in mode async. A degraded link stays so
// until it is engaged again.
func (m *Mode) show(s api.SyncState) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.state == s || m.state == api.SyncDegraded && s == api.SyncPending {
		return
	}
	m.state, m.since = s, time.Now().UTC()
	if s != "" {
		m.side.Log.Info("mode sync", "state", string(s))
	}
}

// View is how mode sync of a primary stands.
func (m *Mode) View() api.LinkSync {
	m.mu.Lock()
	defer m.mu.Unlock()
	v := api.LinkSync{State: m.state, TimeoutSeconds: int64(m.side.Record().SyncTimeout)}
	if v.State == "" {
		v.State = api.SyncUnknown
		return v
	}
	since := m.since
	v.Since = &since
	return v
}
