package backup

import "time"

const (
	fullEvery = 7 * 24 * time.Hour
	diffEvery = 24 * time.Hour
	// overdueAfter is how late a backup may be before that is a problem by itself.
	overdueAfter = 6 * time.Hour
	// verifyEvery is how often everything in the repository is read, verifyAfter how long after its first backup.
	verifyEvery = 7 * 24 * time.Hour
	verifyAfter = 24 * time.Hour
	// testEvery is how often a backup is restored to prove it, testAfter how long after the first one, testAgain how long after a test that failed.
	testEvery = 7 * 24 * time.Hour
	testAfter = 24 * time.Hour
	testAgain = 24 * time.Hour
	// untestedAfter is how late a test restore may be before that is a problem by itself.
	untestedAfter = 3 * 24 * time.Hour
)

// Due says which backup is next, and when. With an empty repository it is a full one, at once.
func Due(now time.Time, c Contents) (Kind, time.Time) {
	full, ok := c.Last(Full)
	if !ok {
		return Full, now
	}
	last, _ := c.Last()
	atFull, atDiff := full.Stop.Add(fullEvery), last.Stop.Add(diffEvery)
	if !atFull.After(atDiff) {
		return Full, atFull
	}
	return Differential, atDiff
}

// VerifyDue says when the repository is to be read as a whole. verified is when that was done last, zero for never; an
// empty repository is not read.
func VerifyDue(now, verified time.Time, c Contents) time.Time {
	switch {
	case len(c.Sets) == 0:
		return now.Add(verifyEvery)
	case verified.IsZero():
		return c.Sets[0].Stop.Add(verifyAfter)
	}
	return verified.Add(verifyEvery)
}

// ProveDue says when a backup is to be restored to prove it. tried is when that was done last, done when it last succeeded; zero for never.
func ProveDue(now, tried, done time.Time, c Contents) time.Time {
	switch {
	case len(c.Sets) == 0:
		return now.Add(testEvery)
	case tried.After(done):
		return tried.Add(testAgain)
	case done.IsZero():
		return c.Sets[0].Stop.Add(testAfter)
	}
	return done.Add(testEvery)
}

// Overdue says whether a backup is so late that somebody should look. began is when the agent began to care for
// the instance: before the first backup it is the measure.
func Overdue(now, began time.Time, c Contents) bool {
	if _, ok := c.Last(Full); !ok {
		return now.Sub(began) > time.Hour
	}
	_, at := Due(now, c)
	return now.Sub(at) > overdueAfter
}

// Window is the time to which the instance can be restored. The zero value is none.
type Window struct{ From, Until time.Time }

// Restorable returns the window of a repository. archived is a moment up to which all
// commits are known to be in the repository, zero where none is known. A moment before the retention's period
// is left out although it may still be restorable: the next expiry may end that.
func Restorable(now time.Time, c Contents, p Policy, archived time.Time) Window {
	if len(c.Sets) == 0 {
		return Window{}
	}
	w := Window{From: reachable(c.Sets[0]), Until: c.Sets[len(c.Sets)-1].Stop}
	if period := now.Add(-p.Retention()); w.From.Before(period) {
		w.From = period
	}
	if archived.After(w.Until) {
		w.Until = archived
	}
	if w.Until.Before(w.From) {
		return Window{}
	}
	return w
}

// reachable is the first moment that can be reached from a set: its times are whole seconds, cut off.
func reachable(s Set) time.Time { return s.Stop.Add(time.Second) }
