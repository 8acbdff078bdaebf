package cli

import (
	"strings"
	"testing"
	"time"

	"github.com/twinspan/twinspan/api"
)

// A link in a phase that no count measures says what it does and since when, wherever it
// is shown; what is not known is not said.
func TestStepIsShownInEveryPhase(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	shown := func(l api.Link) map[string]string {
		var show strings.Builder
		showLink(&show, l)
		return map[string]string{
			"show":             show.String(),
			"line":             progressLine(l),
			"block":            strings.Join(progressBlock(l), "\n"),
			"watch, the table": strings.Join(watchBlock([]api.Link{l}, at), "\n"),
		}
	}
	for _, phase := range []api.Phase{api.Creating, api.FailingOver, api.Fenced} {
		l := api.Link{Name: "sales", Phase: phase, Step: "doing this", StepSince: &at, PhaseSince: &at, Peer: api.LinkPeer{Name: "b", Connected: true}}
		for where, text := range shown(l) {
			if !strings.Contains(text, "doing this") || !strings.Contains(text, "03:04:05 UTC") || !strings.Contains(text, phrase(phase)) {
				t.Errorf("%s, %s: %s", phase, where, text)
			}
		}
		l.StepSince, l.PhaseSince = nil, nil
		for where, text := range shown(l) {
			if !strings.Contains(text, "doing this") || strings.Contains(text, "since") {
				t.Errorf("%s, %s, nothing known: %s", phase, where, text)
			}
		}
		next := l
		next.Step = "doing that"
		if !changed(l, next) || changed(l, l) {
			t.Errorf("%s: a new step makes a new line, and nothing else does", phase)
		}
	}
	for _, phase := range []api.Phase{api.Suspended, api.Broken} {
		if text := progressLine(api.Link{Name: "sales", Phase: phase, PhaseSince: &at, Peer: api.LinkPeer{Connected: true}}); !strings.Contains(text, "since 03:04:05 UTC") {
			t.Error(text)
		}
	}
}
