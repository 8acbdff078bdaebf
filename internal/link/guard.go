package link

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/role"
	"github.com/twinspan/twinspan/internal/side"
)

const (
	guardInterval = 10 * time.Second
	// keptFor is how long what the server said of the slot counts as news.
	keptFor = 3 * guardInterval
	// retainedWarning is how much log the link's slot may hold back unremarked.
	retainedWarning = 8 << 30
)

// guard watches, on a primary, the log that the slot holds back for the twin, in
// every phase: a link that rests or is broken holds back the most. It stops the
// link when the server has dropped what the twin needed, and else only warns. It stops it at the
// second look: an operator who resumes the link with a repair may be ahead of the guard, and a new slot
// takes the place of the lost one as soon as the secondary asks for it.
func (l *Link) guard(ctx context.Context) {
	tick := time.NewTicker(guardInterval)
	defer tick.Stop()
	stop, change := false, int64(0) // whether a lost slot is to stop the link, and how often that had been changed at the first look
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		r := l.side.Record()
		if r.Deleting || r.StartLSN == 0 {
			continue
		}
		trouble, err := l.lookAtSlot(ctx, catalog.ObjectName(r.ID))
		if err != nil {
			continue // the link's work meets the same server and says so
		}
		l.mu.Lock()
		before := l.live.retained
		l.live.retained = trouble
		l.mu.Unlock()
		if trouble == nil {
			continue
		}
		if before == nil || before.Code != trouble.Code {
			l.log.Warn("log held back for the twin", "code", trouble.Code, "err", trouble)
			stop, change = trouble.Kind == problem.Diverged, r.Change
			continue
		}
		if !stop {
			continue
		}
		err = l.side.Update(ctx, func(now *catalog.Link) error {
			if now.Change != change || role.Phase(now.Phase) == role.Broken {
				return nil
			}
			next, err := role.Step(side.State(*now), role.Failed)
			if err == nil {
				side.Put(next, now)
				now.Problem = trouble
			}
			return err
		})
		if err != nil {
			l.log.Warn("cannot store the problem", "err", err)
			continue
		}
		stop = false
	}
}

func (l *Link) lookAtSlot(ctx context.Context, slot string) (*problem.Error, error) {
	var status string
	var retained, safe int64
	err := l.side.Session.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		err := conn.QueryRow(ctx, `SELECT coalesce(to_jsonb(s)->>'wal_status', ''), coalesce(pg_current_wal_lsn() - s.restart_lsn, 0)::bigint,
			coalesce((to_jsonb(s)->>'safe_wal_size')::bigint, -1) FROM pg_replication_slots s WHERE s.slot_name = $1`, slot).Scan(&status, &retained, &safe)
		return pg.Classify(err, "look at the replication slot")
	})
	if err != nil {
		return nil, err
	}
	kept := api.Retained{Bytes: retained, At: time.Now().UTC()}
	if safe >= 0 {
		kept.LeftBytes = &safe
	}
	l.mu.Lock()
	l.live.kept = kept
	l.mu.Unlock()
	switch {
	case status == "lost":
		return problem.New(problem.Diverged, "slot_lost", "the primary removed log that the twin still needed").On(slot).
			WithHint("raise max_slot_wal_keep_size on the primary, then: twinspan link resume %s --repair", l.Name()), nil
	case status == "unreserved" || safe >= 0 && safe < retained/4:
		return problem.New(problem.Resource, "slot_at_risk", "the primary will soon remove log that the twin still needs: it holds %s, and %s more are allowed",
			size(retained), size(max(0, safe))).On(slot).
			WithHint("raise max_slot_wal_keep_size on the primary now, or bring the twin back: a slot that is lost means a new copy"), nil
	case retained > retainedWarning:
		return problem.New(problem.Resource, "wal_retained", "the primary holds %s of log for the twin", size(retained)).On(slot).
			WithHint("bring the twin back or resume the link; if the disk fills up, link delete --force on the primary lets the log go"), nil
	}
	return nil, nil
}

func size(bytes int64) string {
	switch {
	case bytes >= 1<<30:
		return fmt.Sprintf("%.1f GB", float64(bytes)/(1<<30))
	case bytes >= 1<<20:
		return fmt.Sprintf("%d MB", bytes>>20)
	}
	return fmt.Sprintf("%d kB", bytes>>10)
}
