package events

import (
	"slices"
	"strings"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/problem"
)

const (
	// pageDefault and pageMost are how many events a page has.
	pageDefault = 100
	pageMost    = 1000
)

// Read returns a page of the events that a query asks for, without waiting.
func (l *Log) Read(q api.EventQuery) (api.EventPage, error) {
	for _, kind := range q.Kinds {
		if err := CheckKind(kind); err != nil {
			return api.EventPage{}, err
		}
	}
	limit := q.Limit
	if limit <= 0 {
		limit = pageDefault
	}
	limit = min(limit, pageMost)
	page := api.EventPage{Events: []api.Event{}}
	l.mu.Lock()
	page.Last = l.last
	if len(l.files) > 0 {
		page.First = l.files[0].first
	}
	l.mu.Unlock()
	page.Next = max(q.After, page.Last)
	err := l.behind(q.After, func(e api.Event) bool {
		switch {
		case e.Number > page.Last:
			return false // came meanwhile
		case !Fits(q, e):
			return true
		case len(page.Events) < limit:
			page.Events = append(page.Events, e)
			return true
		case q.Newest:
			page.Events = append(slices.Delete(page.Events, 0, 1), e)
			return true
		}
		page.More = true
		page.Next = page.Events[limit-1].Number
		return false
	})
	return page, err
}

// Fits says whether an event is among those that a query asks for, its number aside.
func Fits(q api.EventQuery, e api.Event) bool {
	switch {
	case q.Link != "" && e.Link != q.Link,
		q.Peer != "" && e.Peer != q.Peer,
		q.Since != nil && e.At.Before(*q.Since),
		q.Until != nil && !e.At.Before(*q.Until):
		return false
	}
	return len(q.Kinds) == 0 || IsOf(q.Kinds, e)
}

// IsOf says whether an event is of one of the kinds, each a kind or one of its actions.
func IsOf(kinds []string, e api.Event) bool {
	return slices.Contains(kinds, string(e.Kind)) || slices.Contains(kinds, string(e.Kind)+"."+e.Action)
}

// CheckKind refuses what is neither a kind of events nor one of its actions.
func CheckKind(kind string) error {
	if api.IsEventKind(kind) {
		return nil
	}
	name, action, _ := strings.Cut(kind, ".")
	names := []string{}
	for _, k := range api.EventKinds() {
		if string(k.Kind) == name {
			return problem.New(problem.Invalid, "event_kind_unknown", "events of kind %s have no action %q", name, action).
				WithHint("its actions are: %s", strings.Join(k.Actions, ", "))
		}
		names = append(names, string(k.Kind))
	}
	return problem.New(problem.Invalid, "event_kind_unknown", "there are no events of kind %q", name).
		WithHint("the kinds are: %s", strings.Join(names, ", "))
}
