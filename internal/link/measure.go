package link

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/apply"
	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/lag"
	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/pg"
)

// measureInterval is how often a primary looks at its log.
const measureInterval = time.Second

// measure is what a primary's server says of its log.
type measure struct {
	written   lsn.LSN
	confirmed lsn.LSN   // what the twin has confirmed to be durable; 0 while there is no slot
	now       time.Time // by the server's clock
	at        time.Time // by the agent's; zero before the first
}

// measureLoop keeps a primary's measure new while no secondary asks for it: how far a
// twin is behind that is away grows with everything that is written.
func (l *Link) measureLoop(ctx context.Context) {
	tick := time.NewTicker(measureInterval)
	defer tick.Stop()
	for {
		l.mu.Lock()
		due := time.Since(l.live.own.at) >= measureInterval*9/10
		l.mu.Unlock()
		if due && !l.side.Record().Deleting {
			asking, stop := context.WithTimeout(ctx, contactPatience)
			if _, err := l.measure(asking); err != nil && ctx.Err() == nil {
				l.log.Debug("the primary's log cannot be measured", "err", err)
			}
			stop()
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// measure asks a primary's server. What it said before stays when it does not answer, and
// is old.
func (l *Link) measure(ctx context.Context) (m measure, err error) {
	err = l.side.Session.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		err := conn.QueryRow(ctx, `SELECT pg_current_wal_lsn()::text, clock_timestamp(),
			coalesce((SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = $1)::text, '0/0')`, catalog.ObjectName(l.ID())).Scan(&m.written, &m.now, &m.confirmed)
		return pg.Classify(err, "read the end of the log")
	})
	if err != nil {
		return measure{}, err
	}
	m.at = time.Now()
	l.mu.Lock()
	l.live.own = m
	l.mu.Unlock()
	return m, nil
}

// heardLocked takes the primary's answer to a report.
func (l *Link) heardLocked(answer Answer) {
	l.live.answer, l.live.heard = answer, time.Now()
	l.live.track.Hear(lag.Heard{Written: answer.Written, At: answer.Now})
}

// behindLocked is how old what the twin does not have is at most, by the clock of the
// primary's server, as far as its answers tell it.
func (l *Link) behindLocked(status apply.Status) (age time.Duration, known bool) {
	if time.Since(l.live.heard) > heardFor || l.live.answer.Now.IsZero() {
		return 0, false
	}
	stood := lag.Stood{Applied: max(status.Applied, l.secondary.durable), LastCommit: status.LastCommit}
	if in := l.secondary.receiver; in != nil {
		// In this order: a transaction that comes between the two lies before what is
		// reached then.
		stood.Reached = in.Reached()
		stood.Commit = in.LastCommit()
	}
	return l.live.track.Behind(stood, l.live.answer.Now.Add(time.Since(l.live.heard)))
}

// busy says why the link has other things to do than being audited; nothing where it has not.
func (l *Link) busy() string {
	if l.verifications.Running() {
		return "a verification is under way"
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.secondary.applier
	if a == nil {
		return "the stream of the link is interrupted"
	}
	if age, known := l.behindLocked(a.Status()); !known || age > inStep {
		return "the link is behind"
	}
	return ""
}
