package link

import (
	"time"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/role"
	"github.com/twinspan/twinspan/internal/side"
)

// ago is what the other side did when it was last heard.
func ago(text string, seconds float64, heard time.Time) side.Doing {
	return side.Doing{Text: text, Since: heard.Add(-time.Duration(seconds * float64(time.Second)))}
}

// ownDoingLocked is what this side does; changing is the step of a failover that it drives.
func (l *Link) ownDoingLocked(changing side.Doing) side.Doing {
	if changing.Text != "" {
		return changing
	}
	return l.side.Doing()
}

// doingLocked is what the link does, as far as this side knows: itself, or as it heard from
// the other side, when that is of now.
func (l *Link) doingLocked(changing side.Doing, fresh bool) side.Doing {
	if own := l.ownDoingLocked(changing); own.Text != "" {
		return own
	}
	r := l.side.Record()
	phase, report, answer := r.Phase, l.live.report, l.live.answer
	var other side.Doing
	var same bool // the other side is in the phase that this one is in
	if role.Role(r.Role) == role.Secondary {
		other, same = ago(answer.Step, answer.StepSeconds, l.live.heard), answer.Phase == phase
	} else {
		other, same = ago(report.Step, report.StepSeconds, l.live.heard), report.Phase == phase || phase == string(role.Fenced)
	}
	if fresh && same && other.Text != "" {
		return other
	}
	switch own := role.Role(r.Role); {
	case own == role.Secondary && role.Phase(phase) == role.Creating:
		return side.Doing{Text: "waiting to hear from " + r.Peer + " that it is prepared", Since: l.side.PhaseSince()}
	case own == role.Primary && role.Phase(phase) == role.Fenced:
		return side.Doing{Text: "waiting to hear from " + r.Peer + " which side is the primary", Since: l.side.PhaseSince()}
	}
	return side.Doing{}
}

// showDoing puts into a view what the link does and since when, as far as that is known.
func showDoing(v *api.Link, d side.Doing) {
	v.Step = d.Text
	if d.Text != "" && !d.Since.IsZero() {
		at := d.Since.UTC()
		v.StepSince = &at
	}
}
