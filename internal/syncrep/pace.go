package syncrep

import (
	"time"

	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/role"
)

// Pace measures how long the twin takes to confirm what the primary has written.
// The zero value has seen nothing.
type Pace struct {
	mark lsn.LSN // was the end of the primary's log
	at   time.Time
}

// Look takes the end of the log and what the twin has confirmed. age is the time
// since the mark was the end; met says that the twin has confirmed it, and then the
// next mark is set.
func (p *Pace) Look(now time.Time, end, confirmed lsn.LSN) (age time.Duration, met bool) {
	if p.at.IsZero() {
		p.mark, p.at = end, now
		return 0, false
	}
	age = now.Sub(p.at)
	if met = confirmed >= p.mark; met {
		p.mark, p.at = end, now
	}
	return age, met
}

// Verdict is what mode sync calls for.
type Verdict string

// What mode sync may call for.
const (
	Stay    Verdict = "stay"    // as it is
	Engage  Verdict = "engage"  // commits are to wait for the twin
	Release Verdict = "release" // they are not to: the link rests
	Degrade Verdict = "degrade" // they are not to any more: the twin was away for too long
)

// InStep is the time within which a twin confirms that commits may wait for:
// about as long the first of them will. Not shorter, for under load a twin that nobody
// waits for is always some seconds behind.
const InStep = 5 * time.Second

// Judge decides whether commits on a primary wait. engaged is whether they do;
// age and met are what Pace says.
func Judge(phase role.Phase, engaged bool, timeout, age time.Duration, met bool) Verdict {
	switch {
	case phase == role.Creating || phase == role.Seeding || phase == role.Suspended:
		return Release
	case engaged && timeout > 0 && !met && age > timeout:
		return Degrade
	case !engaged && phase == role.Replicating && met && age <= InStep && (timeout == 0 || age <= timeout/2):
		return Engage
	}
	return Stay
}
