// Package lag says how far a twin is behind what its primary has written, as far as that
// is known: from what the primary said of the end of its log, and when, and from how far
// the twin has come; and where the time of a stream goes. It has no clock and does no I/O.
package lag

import (
	"time"

	"github.com/twinspan/twinspan/internal/lsn"
)

// Heard is what the primary said: where its log ended at a time of its own clock.
type Heard struct {
	Written lsn.LSN
	At      time.Time
}

// Stood is how far a twin has come with the primary's log.
type Stood struct {
	Applied    lsn.LSN   // everything up to here is applied
	Reached    lsn.LSN   // everything up to here has been received, if anything is being received
	Commit     lsn.LSN   // the end of the last transaction that has been received
	LastCommit time.Time // when the last transaction that is applied committed, by the primary's clock; zero if not known
}

// has says whether everything that was written up to a position is applied. Positions
// behind the last transaction hold nothing for the twin.
func (s Stood) has(written lsn.LSN) bool {
	return s.Applied >= written || s.Applied >= s.Commit && s.Reached >= written
}

// most is how many words of the primary a Track keeps: with one a second, an hour of them.
// Of more, fewer are kept, evenly.
const most = 4096

// Track relates positions of the primary's log to times. Its zero value knows nothing.
type Track struct {
	newest Heard
	heard  []Heard       // which the twin is not known to have, oldest first
	apart  time.Duration // how far apart those are, at least
	had    time.Time     // of the newest that it has
}

// Hear takes what the primary said. A position that is none says nothing.
func (t *Track) Hear(h Heard) {
	if h.Written == 0 || h.At.IsZero() || h.Written == t.newest.Written {
		return // of the same position the first word tells most
	}
	t.newest = h
	n := len(t.heard)
	if n > 0 && h.At.Sub(t.heard[n-1].At) < t.apart {
		return
	}
	if n == most {
		for i := range most / 2 {
			t.heard[i] = t.heard[2*i]
		}
		t.heard = t.heard[:most/2]
		t.apart = t.heard[most/2-1].At.Sub(t.heard[0].At) / (most / 2)
	}
	t.heard = append(t.heard, h)
}

// Behind says how old the oldest transaction that the twin does not have is at most, at
// a time of the primary's clock; 0 when it has all that the primary has spoken of. It
// is not known until the twin has been seen to have something of what was spoken of.
func (t *Track) Behind(s Stood, now time.Time) (age time.Duration, known bool) {
	for len(t.heard) > 0 && s.has(t.heard[0].Written) {
		t.had = t.heard[0].At
		t.heard = t.heard[1:]
	}
	if t.newest.Written != 0 && s.has(t.newest.Written) {
		t.heard, t.apart, t.had = nil, 0, t.newest.At
		if s.Applied >= s.Commit {
			return 0, true
		}
	}
	since := t.had
	if s.LastCommit.After(since) {
		since = s.LastCommit
	}
	if since.IsZero() {
		return 0, false
	}
	return max(0, now.Sub(since)), true
}
