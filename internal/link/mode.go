package link

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/role"
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

// synchrony is what a side knows of its mode. One settling at a time changes it;
// what View shows is guarded by the link's mutex.
type synchrony struct {
	settling chan struct{} // holds one element while nobody settles
	pace     pace
	known    bool // engaged was read from the server at least once
	covered  time.Time

	engaged bool // commits wait for the twin
	state   api.SyncState
	since   time.Time
}

// modeLoop keeps the server's synchronous replication as mode and role ask for it,
// on either side: a primary that became a secondary has to take back what it asked
// for. An agent that is stopped in good order cannot count its timeout any more, so
// commits with one go on without the twin; those without one wait for both.
func (l *Link) modeLoop(ctx context.Context) {
	tick := time.NewTicker(modeInterval)
	defer tick.Stop()
	for {
		if err := l.SettleMode(ctx); err != nil && ctx.Err() == nil {
			l.modeFailed(problem.As(err))
		}
		select {
		case <-ctx.Done():
			if r := l.snapshot(); r.SyncTimeout > 0 && l.syncs(r) && l.engaged() {
				ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), leavePatience)
				defer stop()
				if err := l.releaseMode(ctx); err != nil {
					l.log.Warn("commits go on waiting for the twin", "err", err)
				}
			}
			return
		case <-tick.C:
		}
	}
}

// longestPause is how long a link that was interrupted rests at most before it tries
// again; shorter where somebody waits.
func (l *Link) longestPause() time.Duration {
	if l.promptly() {
		return lastPause / 10
	}
	return lastPause
}

// modeFailed shows why mode sync is not in force. A server that is out of reach is
// the business of the link's work.
func (l *Link) modeFailed(p *problem.Error) {
	if p.Kind != problem.Transient && p.Kind != problem.Cancelled {
		l.setAside("mode", p)
	}
}

// syncs says whether this side's commits are to wait for the other.
func (l *Link) syncs(r catalog.Link) bool {
	return r.Mode == string(api.Sync) && role.Role(r.Role) == role.Primary && !r.Deleting
}

// SettleMode brings the server's synchronous replication in line with the link's mode
// and role as they are now. It is called again and again, and by whoever changes
// places: on the former primary so that its commits wait for nobody, on the new one
// to have them wait as soon as the other side is in step.
func (l *Link) SettleMode(ctx context.Context) error {
	l.mu.Lock()
	if l.sync.settling == nil {
		l.sync.settling = make(chan struct{}, 1)
		l.sync.settling <- struct{}{}
	}
	settling := l.sync.settling
	l.mu.Unlock()
	select {
	case <-settling:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { settling <- struct{}{} }()

	r := l.snapshot()
	if l.sync.known && !l.sync.engaged && !l.syncs(r) {
		return nil // the usual case, which costs nothing
	}
	end, err := l.lookAtMode(ctx)
	if err != nil {
		return err
	}
	if !l.syncs(r) {
		l.setAside("sync_degraded", nil)
		l.setAside("mode", nil)
		l.showMode("")
		return l.disengage(ctx)
	}
	age, met := l.sync.pace.look(time.Now(), end, l.confirmedHere())
	switch judgeMode(role.Phase(r.Phase), l.sync.engaged, time.Duration(r.SyncTimeout)*time.Second, age, met) {
	case release:
		l.showMode(api.SyncPending)
		return l.disengage(ctx)
	case engage:
		return l.engage(ctx)
	case degrade:
		if err := l.disengage(ctx); err != nil {
			return err
		}
		l.showMode(api.SyncDegraded)
		l.setAside("sync_degraded", problem.New(problem.Transient, "sync_degraded",
			"the twin has confirmed nothing for %d s: commits go on without it", r.SyncTimeout).On(r.Name).
			WithHint("bring the twin back; commits wait again as soon as it is in step"))
		return nil
	}
	if !l.sync.engaged {
		l.showMode(api.SyncPending)
		return nil
	}
	l.showMode(api.SyncEngaged)
	if time.Since(l.sync.covered) > coverInterval {
		return l.engage(ctx)
	}
	return nil
}

// lookAtMode returns the end of the log, and notes whether commits wait. That is read
// anew each time, for the setting is none that goes to standbys: one that was
// promoted does not have it.
func (l *Link) lookAtMode(ctx context.Context) (end lsn.LSN, err error) {
	err = l.control.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		engaged, err := l.syncServer().Required(ctx, conn)
		if err != nil {
			return err
		}
		l.mu.Lock()
		l.sync.engaged, l.sync.known = engaged, true
		l.mu.Unlock()
		err = conn.QueryRow(ctx, `SELECT pg_current_wal_flush_lsn()::text`).Scan(&end)
		return pg.Classify(err, "read the end of the log")
	})
	return end, err
}

func (l *Link) syncServer() *syncrep.Server {
	r := l.snapshot()
	return &syncrep.Server{DSN: l.place.Server, Link: r.Name, Member: syncrep.Member(catalog.ObjectName(r.ID)), Database: l.database, Log: l.place.Log}
}

// confirmedHere is what the twin has confirmed of the stream that runs; nothing
// while none does.
func (l *Link) confirmedHere() lsn.LSN {
	p := &l.primary
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stream == nil {
		return 0
	}
	return p.stream.stream.Confirmed()
}

func (l *Link) engage(ctx context.Context) error {
	if err := l.syncServer().Require(ctx); err != nil {
		return err
	}
	l.mu.Lock()
	l.sync.engaged = true
	l.mu.Unlock()
	l.sync.covered = time.Now()
	l.setAside("sync_degraded", nil)
	l.setAside("mode", nil)
	l.showMode(api.SyncEngaged)
	return nil
}

func (l *Link) engaged() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sync.engaged
}

// disengage lets commits return. A side that is not primary any more has to end
// those that wait instead: the new primary does not have them, and their clients
// must not be told that they are safe.
func (l *Link) disengage(ctx context.Context) error {
	if !l.sync.engaged {
		return nil
	}
	if l.Role() == role.Secondary {
		err := l.control.do(ctx, func(ctx context.Context, conn *pgx.Conn) error { return l.syncServer().EndWaiting(ctx, conn) })
		if err != nil {
			return err
		}
	}
	return l.releaseMode(ctx)
}

func (l *Link) releaseMode(ctx context.Context) error {
	if err := l.syncServer().Release(ctx); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sync.engaged = false
	return nil
}

// showMode notes the state that is shown, "" in mode async. A degraded link stays so
// until it is engaged again.
func (l *Link) showMode(s api.SyncState) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sync.state == s || l.sync.state == api.SyncDegraded && s == api.SyncPending {
		return
	}
	l.sync.state, l.sync.since = s, time.Now().UTC()
	if s != "" {
		l.log.Info("mode sync", "state", string(s))
	}
}

func (l *Link) syncView() *api.LinkSync {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.syncViewLocked()
}

// syncViewLocked is how mode sync stands, by this side's knowledge or the other's.
func (l *Link) syncViewLocked() *api.LinkSync {
	r := l.record
	switch {
	case r.Mode != string(api.Sync):
		return nil
	case role.Role(r.Role) == role.Secondary && l.live.answer.Sync != nil && time.Since(l.live.heard) < heardFor:
		v := *l.live.answer.Sync
		return &v
	case role.Role(r.Role) == role.Secondary || l.sync.state == "":
		return &api.LinkSync{State: api.SyncUnknown, TimeoutSeconds: int64(r.SyncTimeout)}
	}
	since := l.sync.since
	return &api.LinkSync{State: l.sync.state, TimeoutSeconds: int64(r.SyncTimeout), Since: &since}
}
