package usage

import "time"

// counted compares the number of sessions that a server has counted (pg_stat_database, flushed when a session is at rest or ends) with those
// that its log told of. More that were counted were not logged, for somebody has turned that off for a role, a database or a session.
type counted struct {
	unit   time.Time
	base   map[string]int64
	slack  map[string]int64 // sessions that were there and may not have been counted yet
	logged map[string]int64
	more   int // looks in a row at which there were more
}

// strikes is at how many looks in a row there have to be more: the collector of a log may be late.
const strikes = 3

// unseen takes one look, and says whether there were sessions that were not logged. Every unit begins anew.
func (c *counted) unseen(unit time.Time, counts map[string]int64, live []session, found []login) bool {
	if !c.unit.Equal(unit) || c.base == nil {
		*c = counted{unit: unit, base: counts, slack: map[string]int64{}, logged: map[string]int64{}}
		for _, s := range live {
			c.slack[s.database]++
		}
		return false
	}
	for _, l := range found {
		if !l.refused {
			c.logged[l.database]++
		}
	}
	more := false
	for database, n := range counts {
		base, known := c.base[database]
		switch {
		case !known || n < base: // it is new, or its statistics were reset
			c.base[database], c.logged[database] = n, 0
			c.slack[database] = int64(len(live))
		case n-base > c.logged[database]+c.slack[database]:
			more = true
		}
	}
	if c.more++; !more {
		c.more = 0
	}
	return c.more >= strikes
}
