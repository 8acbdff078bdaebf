package link

import (
	"time"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/role"
)

// doing is what a side does or waits for where no count of rows or bytes says how far it is.
type doing struct {
	text  string    // "" where there is nothing to say
	since time.Time // when that began
}

// seconds is how long that goes on, for the other side, whose clock may be another.
func (d doing) seconds() float64 {
	if d.text == "" {
		return 0
	}
	return time.Since(d.since).Seconds()
}

// ago is what the other side did when it was last heard.
func ago(text string, seconds float64, heard time.Time) doing {
	return doing{text, heard.Add(-time.Duration(seconds * float64(time.Second)))}
}

// does notes what this side does from now on. It is forgotten when the phase changes.
func (l *Link) does(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.doing.text != text { // it may be said again and again
		l.doing = doing{text, time.Now()}
	}
}

// ownDoingLocked is what this side does; changing is the step of a failover that it drives.
func (l *Link) ownDoingLocked(changing doing) doing {
	if changing.text != "" {
		return changing
	}
	return l.doing
}

// doingLocked is what the link does, as far as this side knows: itself, or as it heard from
// the other side, when that is of now.
func (l *Link) doingLocked(changing doing, fresh bool) doing {
	if own := l.ownDoingLocked(changing); own.text != "" {
		return own
	}
	phase, report, answer := l.record.Phase, l.live.report, l.live.answer
	var other doing
	var same bool // the other side is in the phase that this one is in
	if role.Role(l.record.Role) == role.Secondary {
		other, same = ago(answer.Step, answer.StepSeconds, l.live.heard), answer.Phase == phase
	} else {
		other, same = ago(report.Step, report.StepSeconds, l.live.heard), report.Phase == phase || phase == string(role.Fenced)
	}
	if fresh && same && other.text != "" {
		return other
	}
	switch r := role.Role(l.record.Role); {
	case r == role.Secondary && role.Phase(phase) == role.Creating:
		return doing{"waiting to hear from " + l.record.Peer + " that it is prepared", l.phased}
	case r == role.Primary && role.Phase(phase) == role.Fenced:
		return doing{"waiting to hear from " + l.record.Peer + " which side is the primary", l.phased}
	}
	return doing{}
}

// showDoing puts into a view what the link does and since when, as far as that is known.
func showDoing(v *api.Link, d doing) {
	v.Step = d.text
	if d.text != "" && !d.since.IsZero() {
		at := d.since.UTC()
		v.StepSince = &at
	}
}
