package link

import (
	"testing"
	"time"

	"github.com/twinspan/twinspan/internal/apply"
	"github.com/twinspan/twinspan/internal/lsn"
)

// The lag of a database to which nobody writes, beside others of its instance that are
// written to all the time: positions come faster than they are stored.
func TestLagOfPositionsAlone(t *testing.T) {
	now := time.Now()
	for name, c := range map[string]struct {
		applied, commit, reached, written uint64
		none                              bool
	}{
		"nothing has come":                       {100, 0, 0, 400, false},
		"all is stored":                          {400, 0, 400, 900, true},
		"positions come on":                      {100, 0, 500, 400, true},
		"far from what is written":               {100, 0, 300, 400, false},
		"the primary has not answered":           {100, 0, 300, 0, false},
		"a transaction is not applied":           {100, 200, 500, 400, false},
		"all transactions are":                   {200, 200, 500, 400, true},
		"one came behind what is said to be all": {600, 600, 500, 400, true},
		"it is not applied":                      {500, 600, 500, 400, false},
	} {
		r := newReceiver(nil, false, false, nil, 1)
		l := &Link{}
		l.secondary.receiver = r
		l.live.answer.Written, l.live.answer.Now, l.live.heard = lsn.LSN(c.written), now, now
		if c.commit > 0 {
			r.note(lsn.LSN(c.commit), false)
		}
		if c.reached > 0 {
			r.note(lsn.LSN(c.reached), true)
		}
		lag := l.lagLocked(apply.Status{Applied: lsn.LSN(c.applied), LastCommit: now.Add(-time.Hour)})
		if none := lag == 0; none != c.none {
			t.Errorf("%s: lag %s", name, lag)
		}
	}
}
