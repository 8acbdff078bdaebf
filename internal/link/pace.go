package link

import (
	"time"

	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/role"
)

// pace measures how long the twin takes to confirm what the primary has written.
// The zero value has seen nothing.
type pace struct {
	mark lsn.LSN // was the end of the primary's log
	at   time.Time
}

// look takes the end of the log and what the twin has confirmed. age is the time
// since the mark was the end; met says that the twin has confirmed it, and then the
// next mark is set.
func (p *pace) look(now time.Time, end, confirmed lsn.LSN) (age time.Duration, met bool) {
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

// modeVerdict is what mode sync calls for.
type modeVerdict string

const (
	stay    modeVerdict = "stay"    // as it is
	engage  modeVerdict = "engage"  // commits are to wait for the twin
	release modeVerdict = "release" // they are not to: the link rests
	degrade modeVerdict = "degrade" // they are not to any more: the twin was away for too long
)

// inStepWithin is the time within which a twin confirms that commits may wait for:
// about as long the first of them will. Not shorter, for under load a twin that nobody
// waits for is always some seconds behind.
const inStepWithin = inStep

// judgeMode decides whether commits on a primary wait. engaged is whether they do;
// age and met are what pace says.
func judgeMode(phase role.Phase, engaged bool, timeout, age time.Duration, met bool) modeVerdict {
	switch {
	case phase == role.Creating || phase == role.Seeding || phase == role.Suspended:
		return release
	case engaged && timeout > 0 && !met && age > timeout:
		return degrade
	case !engaged && phase == role.Replicating && met && age <= inStepWithin && (timeout == 0 || age <= timeout/2):
		return engage
	}
	return stay
}
