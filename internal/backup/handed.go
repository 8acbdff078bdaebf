package backup

import (
	"bufio"
	"context"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
)

// A standby takes every segment of the log that it has received for archived (archive_mode is "on", not "always"). So what the server that led
// before had not brought into the repository yet is archived by nobody once another one leads, and the log would have a hole right before the
// change of the leader.

// inherited is the log that a server has in common with those that led before it.
type inherited struct {
	lines     []timeline // before the server's own, in order
	histories []string   // files that say which timeline follows which: without one of them recovery does not find those behind it
}

// timeline is one up to the position at which the next began.
type timeline struct {
	number uint32
	end    lsn.LSN
}

// owner is the timeline that has a segment whole. There is none for a segment of the server's own timeline.
func (in inherited) owner(number uint64) (uint32, bool) {
	for _, t := range in.lines {
		if (Segment{t.number, number}).End() <= t.end {
			return t.number, true
		}
	}
	return 0, false
}

// parseHistory reads the history file of a timeline.
func parseHistory(text string) (lines []timeline, err error) {
	for scan := bufio.NewScanner(strings.NewReader(text)); scan.Scan(); {
		fields := strings.Fields(scan.Text())
		if len(fields) < 2 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		number, err := strconv.ParseUint(fields[0], 10, 32)
		if err != nil {
			return nil, problem.Wrap(err, problem.Incompatible, "internal", "read the history of a timeline")
		}
		end, err := lsn.Parse(fields[1])
		if err != nil {
			return nil, err
		}
		lines = append(lines, timeline{uint32(number), end})
	}
	return lines, nil
}

// inheritance asks the server what it has in common with those that led before.
func (k *Keeper) inheritance(ctx context.Context) (in inherited, err error) {
	ctx, stop := context.WithTimeout(ctx, askWait)
	defer stop()
	conn, err := k.Server.Connect(ctx, pg.Session{Name: "backup/history"})
	if err != nil {
		return in, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	rows, err := conn.Query(ctx, `SELECT name FROM pg_catalog.pg_ls_waldir() ORDER BY 1`)
	if err != nil {
		return in, pg.Classify(err, "list the files of the log")
	}
	files, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return in, pg.Classify(err, "list the files of the log")
	}
	for _, name := range files {
		if strings.HasSuffix(name, ".history") {
			in.histories = append(in.histories, name)
		}
	}
	if len(in.histories) == 0 {
		return in, nil // nobody ever led before
	}
	// The newest is the server's own: it leads.
	var text string
	if err := conn.QueryRow(ctx, `SELECT pg_catalog.pg_read_file('pg_wal/' || $1)`, in.histories[len(in.histories)-1]).Scan(&text); err != nil {
		return in, pg.Classify(err, "read the history of the timeline")
	}
	in.lines, err = parseHistory(text)
	return in, err
}

// follow brings what the servers that led before had of the log, and the repository has not: out of what this server has received, or out of another
// repository. Where some of it is nowhere a full backup is due.
func (s *store) follow(ctx context.Context) {
	if s.followed || !s.k.Handed {
		return
	}
	in, err := s.k.inheritance(ctx)
	if err != nil {
		s.k.Log.Info("what the server has of the log of those that led before is not known yet", "err", err)
		return
	}
	s.take(ctx, in)
}

// take brings what is missing of what the server has in common with those that led before. It is
// tried again until that has worked.
func (s *store) take(ctx context.Context, in inherited) {
	have, err := s.engine.Segments(ctx)
	for _, name := range in.histories {
		if err == nil {
			err = s.engine.Check(ctx, name)
		}
	}
	s.k.mu.Lock()
	sets := s.known()
	s.k.mu.Unlock()
	for _, name := range in.missing(have, sets) {
		if err != nil {
			break
		}
		s.k.Log.Info("a segment of the log that the leader before had not archived is brought", "segment", name, "repository", s.Place)
		err = s.bring(ctx, name)
	}
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		s.raise("handed", archiveFailing(problem.As(err),
			"the log of the server that led before does not get into this repository: "))
		return
	}
	s.followed = true
	s.raise("handed", nil)
}

// missing lists the segments of before that a repository does not have, and that its last full backup, or one behind it, needs.
func (in inherited) missing(have []string, c Contents) (names []string) {
	last, ok := c.Last(Full)
	if len(in.lines) == 0 || !ok {
		return nil
	}
	first, end := uint64(last.From)/segmentSize, uint64(in.lines[len(in.lines)-1].end)/segmentSize
	for n := first; n < end; n++ {
		number, ok := in.owner(n)
		if !ok {
			continue
		}
		if name := (Segment{number, n}).String(); !slices.Contains(have, name) {
			names = append(names, name)
		}
	}
	return names
}
