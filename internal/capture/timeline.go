package capture

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
)

// Branch says where a timeline was left: everything before At is part of the
// timelines that follow, nothing behind it is.
type Branch struct {
	Timeline int64
	At       lsn.LSN
}

// mostHistory bounds a history file: a line for each promotion.
const mostHistory = 1 << 20

// ParseHistory reads a timeline history file (timeline.c, readTimeLineHistory): lines
// of the timeline that was left, the position, and a reason.
func ParseHistory(text string) ([]Branch, error) {
	var branches []Branch
	unreadable := problem.New(problem.Internal, "timeline_unreadable", "the history of the server's timeline cannot be read")
	if len(text) > mostHistory {
		return nil, unreadable
	}
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		if len(fields) < 2 {
			return nil, unreadable
		}
		timeline, err := strconv.ParseInt(fields[0], 10, 64)
		at, bad := lsn.Parse(fields[1])
		if err != nil || bad != nil || timeline < 1 {
			return nil, unreadable
		}
		branches = append(branches, Branch{timeline, at})
	}
	return branches, nil
}

// CheckTimeline says whether what the twin holds, everything up to a position of a
// timeline, is part of what the server has, and returns the server's timeline. A
// standby that was promoted before it had received all starts a new timeline behind
// what it had: a position of before then names other transactions than the twin has.
// A timeline of 0 is not known and not checked.
func (s *Source) CheckTimeline(ctx context.Context, conn *pgx.Conn, timeline int64, position lsn.LSN) (now int64, err error) {
	// The name of a log file begins with the timeline (xlog_internal.h, XLogFileName).
	err = conn.QueryRow(ctx, `SELECT ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::bigint`).Scan(&now)
	if err != nil || timeline == 0 || timeline == now {
		return now, pg.Classify(err, "read the server's timeline")
	}
	text, err := s.history(ctx, now)
	if err != nil {
		return now, err
	}
	branches, err := ParseHistory(text)
	if err != nil {
		return now, err
	}
	for _, b := range branches {
		if b.Timeline == timeline && position <= b.At {
			return now, nil
		}
		if b.Timeline == timeline {
			return now, parted(s.Name, fmt.Sprintf("the primary's server left it at %s", b.At), timeline, position)
		}
	}
	return now, parted(s.Name, fmt.Sprintf("the primary's server is on timeline %d and never was on it", now), timeline, position)
}

func parted(name, where string, timeline int64, position lsn.LSN) error {
	return problem.New(problem.Diverged, "primary_behind", "the twin holds everything up to %s of timeline %d; %s: the twin has transactions that the primary has lost",
		position, timeline, where).On(name).
		WithHint("twinspan link resume %s --repair takes them from the twin and goes on; a forced failover to the twin keeps them", name)
}

// history asks the server for the history file of its timeline.
func (s *Source) history(ctx context.Context, timeline int64) (string, error) {
	conn, err := s.DSN.ConnectReplication(ctx, s.session("timeline"))
	if err != nil {
		return "", err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	results, err := conn.Exec(ctx, fmt.Sprintf("TIMELINE_HISTORY %d", timeline)).ReadAll()
	if err != nil {
		return "", pg.Classify(err, "read the history of the server's timeline")
	}
	if len(results) != 1 || len(results[0].Rows) != 1 || len(results[0].Rows[0]) != 2 {
		return "", problem.New(problem.Internal, "timeline_unreadable", "the server's answer about its timeline is not one row")
	}
	return string(results[0].Rows[0][1]), nil
}
