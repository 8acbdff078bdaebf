package events

import (
	"fmt"
	"strings"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/problem"
)

// Standing is what a role event tells of a side of a link.
type Standing struct {
	Role  api.Role
	Phase api.Phase
	Epoch int64
}

// StandingOf is how a side of a link stands from an event on, and false where that does not
// tell.
func StandingOf(e api.Event) (Standing, bool) {
	return Standing{e.Role, e.Phase, e.Epoch}, e.Kind == api.EventRole || e.Kind == api.EventLink && e.Action == "made"
}

// Turn is the event of a side that stands otherwise than before, and of why where a problem
// is the reason.
func Turn(before, after Standing, why *problem.Error) api.Event {
	e := api.Event{Kind: api.EventRole, Action: "changed", By: api.Actor{Kind: api.ByAgent}, Role: after.Role, Phase: after.Phase, Epoch: after.Epoch}
	var parts []string
	if before.Role != after.Role {
		parts = append(parts, fmt.Sprintf("%s, was %s", after.Role, before.Role))
	}
	if before.Phase != after.Phase {
		parts = append(parts, fmt.Sprintf("%s, was %s", words(string(after.Phase)), words(string(before.Phase))))
	}
	if before.Epoch != after.Epoch {
		parts = append(parts, fmt.Sprintf("epoch %d, was %d", after.Epoch, before.Epoch))
	}
	e.Text = strings.Join(parts, "; ")
	if why != nil {
		e.Code, e.Subject = why.Code, why.Subject
		e.Text += ": " + why.Error()
	}
	return e
}

// Found is the event of a link that an agent finds at its start, where it is not known to
// stand like that. last is how it was last told of, if it was.
func Found(last *Standing, now Standing) api.Event {
	if last == nil {
		last = &Standing{}
	}
	e := Turn(*last, now, nil)
	e.Action = "found"
	if *last == (Standing{}) {
		e.Text = fmt.Sprintf("found at the start: %s, %s, epoch %d", now.Role, words(string(now.Phase)), now.Epoch)
	} else {
		e.Text = "found at the start to have changed meanwhile: " + e.Text
	}
	return e
}

// Failover returns the events that made one progress of a change of places another. before
// may be of an earlier one, or nothing.
func Failover(before, after api.FailoverProgress) []api.Event {
	var list []api.Event
	add := func(action, text string) *api.Event {
		list = append(list, api.Event{Kind: api.EventFailover, Action: action, Link: after.Link, By: api.Actor{Kind: api.ByAgent}, Text: text})
		return &list[len(list)-1]
	}
	if !before.StartedAt.Equal(after.StartedAt) {
		before = api.FailoverProgress{State: api.FailoverRunning}
		add("began", fmt.Sprintf("a %s failover has begun", after.Type))
	}
	for i, s := range after.Steps {
		if i >= len(before.Steps) {
			add("step", s.Name).Step = s.Name
		}
		if s.Done && (i >= len(before.Steps) || !before.Steps[i].Done) {
			e := add("step_done", s.Name+": done")
			e.Step, e.Seconds = s.Name, seconds(s.Seconds)
		}
	}
	if after.State == api.FailoverRunning || before.State != api.FailoverRunning {
		return list
	}
	var took *float64
	if after.EndedAt != nil {
		took = seconds(after.EndedAt.Sub(after.StartedAt).Seconds())
	}
	if after.State == api.FailoverDone {
		text := fmt.Sprintf("the %s failover is done: agent %s has the primary", after.Type, after.Primary)
		if after.Type == api.Planned {
			text += fmt.Sprintf("; writers waited %.3f s", after.HoldSeconds)
		}
		if after.Ended > 0 {
			text += fmt.Sprintf("; %d transactions were ended", after.Ended)
		}
		e := add("done", text)
		e.Epoch, e.Seconds, e.Failover = after.Epoch, took, after.Type
		if after.Type == api.Planned {
			e.HoldSeconds = seconds(after.HoldSeconds)
		}
		return list
	}
	e := add("undone", "the failover did not come about; everything is as before")
	e.Seconds, e.Failover = took, after.Type
	if p := after.Problem; p != nil {
		e.Code, e.Subject, e.Text = p.Code, p.Subject, e.Text+": "+p.Title
	}
	return list
}

// Operation is the event of a request that changes something. code is that of the error with
// which it failed or was refused, "" where it was done.
func Operation(by api.Actor, request, text, code string) api.Event {
	e := api.Event{Kind: api.EventOperation, Action: "done", By: by, Request: request, Text: text, Code: code}
	if code != "" {
		e.Action = "failed"
	}
	return e
}

func seconds(s float64) *float64 { return &s }

// words makes words of a name of the API, such as catching_up.
func words(name string) string { return strings.ReplaceAll(name, "_", " ") }
