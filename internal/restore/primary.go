package restore

import (
	"context"
	"errors"
	"regexp"
	"strconv"
	"time"

	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/problem"
)

// A moment of a twin is one of its primary: what the applier commits holds the position and the time of the
// primary's transaction, and so the log says which of its commits is the last of the moment. Recovery cannot stop at the
// primary's time, but at that commit's position.

// applied is a commit of an applier in the log of the twin's instance.
type applied struct {
	at       lsn.LSN   // where its record begins
	position lsn.LSN   // of the primary's transaction, or what the applier has reached without one
	time     time.Time // when the primary's transaction committed; zero without one
}

var (
	originOf     = regexp.MustCompile(`^COMMIT\b.*; origin: node (\d+), lsn ([0-9A-F]+/[0-9A-F]+), at (\S+ \S+) UTC`)
	noCommitTime = time.Date(2000, 1, 1, 0, 0, 1, 0, time.UTC)
)

// parseApplied reads a commit of an origin out of a record.
func parseApplied(r record, node uint16) (applied, bool) {
	m := originOf.FindStringSubmatch(r.text)
	if m == nil || m[1] != strconv.Itoa(int(node)) {
		return applied{}, false
	}
	position, err := lsn.Parse(m[2])
	if err != nil {
		return applied{}, false
	}
	at, err := time.Parse("2006-01-02 15:04:05.999999", m[3])
	if err != nil {
		return applied{}, false
	}
	if at.Before(noCommitTime) {
		at = time.Time{}
	}
	return applied{r.at, position, at.UTC()}, true
}

// errAgain says that the recovery is to begin anew with another target.
var errAgain = errors.New("recover to another position")

// moment is where the log of a twin's instance has a moment of the primary.
type moment struct {
	last  applied // the last commit of the primary's time or before; zero where the log has none
	later applied // the first behind; zero where the log has none
}

// findMoment looks for a moment of the primary in the log. near is a position to begin with: the nearer, the less is read.
// It does not look before first.
func (l *walLog) findMoment(ctx context.Context, node uint16, at time.Time, first, near lsn.LSN) (moment, error) {
	var m moment
	start := min(l.index(near), len(l.segments)-1)
	for i := start; i >= 0 && i < len(l.segments) && m.later.at == 0; i++ {
		if i > start && !l.follows(i) {
			return m, missingLog(l.after(i - 1))
		}
		found, err := l.momentIn(ctx, i, node, at)
		if err != nil {
			return m, err
		}
		if found.last.at != 0 {
			m.last = found.last
		}
		m.later = found.later
	}
	for i := start - 1; i >= 0 && m.last.at == 0 && l.segments[i].End() > first; i-- {
		if !l.follows(i + 1) {
			return m, missingLog(l.after(i))
		}
		found, err := l.momentIn(ctx, i, node, at)
		if err != nil {
			return m, err
		}
		m.last = found.last
		if found.later.at != 0 {
			m.later = found.later
		}
	}
	return m, nil
}

// momentIn looks into one segment.
func (l *walLog) momentIn(ctx context.Context, i int, node uint16, at time.Time) (m moment, err error) {
	records, err := l.read(ctx, i, "Transaction")
	if err != nil {
		return m, err
	}
	for _, r := range records {
		c, ok := parseApplied(r, node)
		switch {
		case !ok || c.time.IsZero():
		case c.time.After(at):
			m.later = c
			return m, nil
		default:
			m.last = c
		}
	}
	return m, nil
}

// after names the segment behind the one at a place.
func (l *walLog) after(i int) string {
	s := l.segments[i]
	s.Number++
	return s.String()
}

// ofPrimary sees that what was recovered of a twin is as the primary was at t.Time: it returns the target to recover to
// instead, and false where it is so. It says in the state what is known of that moment.
func (r *Restore) ofPrimary(ctx context.Context, t Target, s *State) (instead Target, again bool, err error) {
	log, err := r.openLog(ctx)
	if err != nil {
		return t, false, err
	}
	defer log.close()
	m, err := log.findMoment(ctx, s.Twin.Node, t.Time, t.Set.From, s.Position)
	if err != nil {
		return t, false, err
	}
	instead = t
	instead.twin = &m
	switch before := m.later.at != 0 && m.later.at < t.Set.To; {
	case before:
		// The backup has what the primary committed later.
		earlier, ok := t.Earlier(t.Set)
		if !ok {
			return t, false, problem.New(problem.NotFound, "restore_too_early",
				"the first backup of the twin has what the primary committed at %s, later than the moment", m.later.time.Format(time.RFC3339Nano)).
				WithHint("name a later moment; twinspan database restorable lists them")
		}
		instead.Set, instead.twin = earlier, nil
		return instead, true, nil
	case m.last.at >= s.Position, m.later.at != 0 && m.later.at < s.Position:
		if instead.through = m.last.at; m.last.at < t.Set.To {
			instead.through, instead.atOnce = 0, true
		}
		return instead, true, nil
	}
	tell(m, s)
	return t, false, nil
}

// tell says in the state what is known of the primary's moment.
func tell(m moment, s *State) {
	s.Twin.CommittedAt, s.Twin.Last = m.last.time, m.last.position
	s.EndOfLog = m.later.at == 0
}
