package restore

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/twinspan/twinspan/internal/backup"
	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/problem"
)

// oneTimeline names what is read: a line of history that has changed timelines is read as one, for the pages of
// its segments may have growing timelines (src/backend/access/transam/xlogreader.c).
const oneTimeline = 1

// walLog is the log of a repository, to be read record by record: its segments in order, of one number the one of the
// newest timeline.
type walLog struct {
	r        *Restore
	dir      string
	segments []backup.Segment
	here     []backup.Segment // lie in dir
}

// openLog lists the log that there is. It has to be closed.
func (r *Restore) openLog(ctx context.Context) (*walLog, error) {
	names, err := r.Repository.Segments(ctx)
	if err != nil {
		return nil, err
	}
	return &walLog{r: r, dir: filepath.Join(r.Dir, r.ID, "log"), segments: backup.Newest(names)}, nil
}

// close removes what was brought, and the directory of the restore where nothing else is in it. What cannot be removed is swept.
func (l *walLog) close() {
	os.RemoveAll(l.dir)
	os.Remove(filepath.Dir(l.dir))
}

// index is the place of the first segment that holds what lies at a position or behind it.
func (l *walLog) index(at lsn.LSN) int {
	if i := slices.IndexFunc(l.segments, func(s backup.Segment) bool { return s.End() > at }); i >= 0 {
		return i
	}
	return len(l.segments)
}

// follows says whether no segment is missing before the one at a place.
func (l *walLog) follows(i int) bool {
	return i < len(l.segments) && l.segments[i].Number == l.segments[i-1].Number+1
}

// read returns what pg_waldump says of the records of a resource manager that begin in the segment at a place.
func (l *walLog) read(ctx context.Context, i int, rmgr string) ([]record, error) {
	l.r.step("reading the log: segment " + l.segments[i].String())
	wanted := l.segments[i : i+1]
	if l.follows(i + 1) { // the last record ends there
		wanted = l.segments[i : i+2]
	}
	if err := l.bring(ctx, wanted); err != nil {
		return nil, err
	}
	program, err := l.r.Like.Binaries.Find("pg_waldump")
	if err != nil {
		return nil, err
	}
	s := temporary(l.r.Dir, l.r.ID)
	s.RunAs = l.r.Like.RunAs
	// It fails at the end of the log, and where no record begins in what it is given.
	out, _, err := s.Work(ctx, []string{"TZ=UTC"}, program, "--path="+l.dir, "--timeline="+strconv.Itoa(oneTimeline),
		"--start="+wanted[0].Start().String(), "--end="+wanted[len(wanted)-1].End().String(), "--rmgr="+rmgr)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	var exit interface{ ExitCode() int }
	if err != nil && !errors.As(err, &exit) {
		return nil, err
	}
	var records []record
	for line := range strings.Lines(string(out)) {
		if r, ok := parseRecord(line); ok && r.at < wanted[0].End() {
			records = append(records, r)
		}
	}
	return records, nil
}

// bring brings segments into the directory, and removes others.
func (l *walLog) bring(ctx context.Context, wanted []backup.Segment) error {
	s := temporary(l.r.Dir, l.r.ID)
	s.RunAs = l.r.Like.RunAs
	if err := s.MakeDir(l.dir); err != nil {
		return err
	}
	file := func(s backup.Segment) string {
		s.Timeline = oneTimeline
		return filepath.Join(l.dir, s.String())
	}
	for _, old := range l.here {
		if !slices.Contains(wanted, old) {
			os.Remove(file(old)) // what stays is not asked for, and swept
		}
	}
	for _, segment := range wanted {
		if slices.Contains(l.here, segment) {
			continue
		}
		if err := l.r.Repository.Segment(ctx, segment.String(), file(segment)); err != nil {
			return err
		}
	}
	l.here = slices.Clone(wanted)
	return nil
}

// record is one that pg_waldump shows.
type record struct {
	at   lsn.LSN // where it begins
	text string  // what it says of it
}

var recordLine = regexp.MustCompile(`lsn: ([0-9A-F]+/[0-9A-F]+), .*?desc: (.*)`)

func parseRecord(line string) (record, bool) {
	m := recordLine.FindStringSubmatch(line)
	if m == nil {
		return record{}, false
	}
	at, err := lsn.Parse(m[1])
	return record{at, m[2]}, err == nil
}

func missingLog(segment string) *problem.Error {
	return problem.New(problem.NotFound, "restore_log_missing",
		"the repository does not have the segment %s of the log", segment).On(segment).
		WithHint("what was committed behind it cannot be restored from this backup: name an earlier moment, or one behind a later backup")
}
