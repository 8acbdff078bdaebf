package restore

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/twinspan/twinspan/internal/backup"
	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/problem"
)

// Drop finds the position of the record with which a database's files were removed by its DROP.
func (r *Restore) Drop(ctx context.Context, d backup.Known) (lsn.LSN, error) {
	r.step("looking for the DROP in the log")
	dir := filepath.Join(r.Dir, r.ID)
	defer os.RemoveAll(dir) // what cannot be removed is swept
	s := temporary(r.Dir, r.ID)
	s.RunAs = r.Like.RunAs
	into := filepath.Join(dir, "log")
	if err := s.MakeDir(into); err != nil {
		return 0, err
	}
	segments, err := backup.SegmentsOf(d.Timeline, d.At, d.GoneAt)
	if err != nil {
		return 0, dropUnknown(d, err.Error())
	}
	for _, name := range segments {
		if err := r.Repository.Segment(ctx, name, filepath.Join(into, name)); err != nil {
			return 0, err
		}
	}
	program, err := r.Like.Binaries.Find("pg_waldump")
	if err != nil {
		return 0, err
	}
	// It fails at the end of the log that it was given, where that is not the end of what was asked for.
	out, said, err := s.Work(ctx, nil, program, "--path="+into,
		"--timeline="+strconv.FormatUint(uint64(d.Timeline),
			10), "--start="+d.At.String(), "--end="+d.GoneAt.String(), "--rmgr=Database")
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	if at, ok := dropOf(string(out), d.OID); ok {
		return at, nil
	}
	reason, _, _ := strings.Cut(strings.TrimSpace(string(said)), "\n")
	if err != nil && reason == "" {
		reason = err.Error()
	}
	return 0, dropUnknown(d, reason)
}

func dropUnknown(d backup.Known, reason string) error {
	if reason != "" {
		reason = ": " + reason
	}
	return problem.New(problem.NotFound, "restore_drop_unknown",
		"the DROP of the database %q is not found in the log between %s and %s%s", d.Name, d.At, d.GoneAt, reason).
		On(d.Name).
		WithHint("restore it to an earlier moment with --at; twinspan database restorable says which")
}

var (
	dropRecord = regexp.MustCompile(`lsn: ([0-9A-F]+/[0-9A-F]+), .*desc: DROP dir (.*)`)
	dropDir    = regexp.MustCompile(`(\d+)/(\d+)`)
)

// dropOf reads what pg_waldump says of records that concern databases as a whole. The last one that removes the
// directory of a database is its DROP: one before may be of a change of its tablespace.
func dropOf(said string, oid uint32) (at lsn.LSN, found bool) {
	want := strconv.FormatUint(uint64(oid), 10)
	for line := range strings.Lines(said) {
		m := dropRecord.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		for _, dir := range dropDir.FindAllStringSubmatch(m[2], -1) {
			if position, err := lsn.Parse(m[1]); dir[2] == want && err == nil {
				at, found = position, true
			}
		}
	}
	return at, found
}
