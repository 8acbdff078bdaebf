package events

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/twinspan/twinspan/api"
)

// Sight is how everything stood at one look.
type Sight struct {
	Problems []api.Problem // of the agent
	Links    []LinkSight
	Peers    []api.Peer
	Tasks    []api.BackupTask
	Copies   []api.DatabaseCopy
}

// LinkSight is a link at one look.
type LinkSight struct {
	View api.Link
	// Own are the problems that this side has found; the others are what the other side says.
	Own []api.Problem
	// Heard says whether the other side was heard of lately.
	Heard bool
}

const (
	// looks is how often a problem is seen before it counts, unless it stops a link: every
	// agent begins without its server, for a moment.
	looks = 2
	// remembered is how long a problem of before the start counts as open although it is not
	// seen: as long as it may take to be found again.
	remembered = time.Minute
)

// Watch makes events of one look and the next. It is used by one goroutine.
type Watch struct {
	problems map[string]map[problemKey]*trouble // by the link's id, "" for the agent
	peers    map[string]api.Peer                // by name; nil before the first look
	tasks    map[int64]string                   // states, by number
	copies   map[string]api.CopyState           // by id
}

type problemKey struct{ code, subject string }

// trouble is a problem that is there, or was at the last look.
type trouble struct {
	since  time.Time
	seen   int
	told   bool
	theirs bool      // the other side says it
	until  time.Time // it counts as open so long although it was not seen since the start
	event  api.Event
}

// NewWatch returns a watch that knows nothing.
func NewWatch() *Watch {
	return &Watch{problems: map[string]map[problemKey]*trouble{}, tasks: map[int64]string{}, copies: map[string]api.CopyState{}}
}

// Recall takes an event of before the start: what it leaves open is open. Events are
// recalled in order.
func (w *Watch) Recall(e api.Event, start time.Time) {
	switch {
	case e.Kind == api.EventLink && e.Action == "removed":
		w.Forget(e.LinkID)
	case e.Kind == api.EventProblem && e.Action == "began":
		e.Number = 0
		w.of(e.LinkID)[problemKey{e.Code, e.Subject}] = &trouble{since: e.At, told: true, until: start.Add(remembered), event: e}
	case e.Kind == api.EventProblem:
		delete(w.of(e.LinkID), problemKey{e.Code, e.Subject})
	}
}

// Forget drops what is known of a link that is gone.
func (w *Watch) Forget(id string) {
	delete(w.problems, id)
}

func (w *Watch) of(id string) map[problemKey]*trouble {
	if w.problems[id] == nil {
		w.problems[id] = map[problemKey]*trouble{}
	}
	return w.problems[id]
}

// Look returns what has happened since the last look.
func (w *Watch) Look(now time.Time, s Sight) []api.Event {
	list := w.lookAtProblems(now, "", s.Problems, api.Event{}, func(api.Problem) bool { return true }, true)
	for _, l := range s.Links {
		own := func(p api.Problem) bool {
			return slices.ContainsFunc(l.Own, func(q api.Problem) bool { return q.Code == p.Code })
		}
		of := api.Event{Link: l.View.Name, LinkID: l.View.ID, Database: l.View.Database, Peer: l.View.Peer.Name}
		list = append(list, w.lookAtProblems(now, l.View.ID, l.View.Problems, of, own, l.Heard)...)
	}
	list = append(list, w.lookAtPeers(s.Peers)...)
	list = append(list, w.lookAtTasks(s.Tasks)...)
	list = append(list, w.lookAtCopies(s.Copies)...)
	for i := range list {
		if list[i].At.IsZero() {
			list[i].At = now
		}
		list[i].By.Kind = cmp.Or(list[i].By.Kind, api.ByAgent)
	}
	return list
}

// lookAtProblems compares the problems of one link, or of the agent.
func (w *Watch) lookAtProblems(now time.Time, id string, problems []api.Problem, of api.Event, own func(api.Problem) bool, heard bool) []api.Event {
	var list []api.Event
	there := w.of(id)
	seen := map[problemKey]bool{}
	for _, p := range problems {
		key := problemKey{p.Code, Bounded(api.Event{Subject: p.Subject}).Subject}
		if seen[key] {
			continue
		}
		seen[key] = true
		o := there[key]
		if o == nil {
			o = &trouble{since: now}
			there[key] = o
		}
		o.seen++
		o.theirs, o.until = !own(p), time.Time{}
		e := of
		e.Kind, e.Action, e.At, e.Code, e.Severity, e.Subject, e.Text = api.EventProblem, "began", o.since, p.Code, p.Severity, p.Subject, p.Title
		o.event = e
		if !o.told && (p.Severity == api.Blocks && id != "" || o.seen >= looks) {
			o.told = true
			list = append(list, e)
		}
	}
	for _, key := range slices.SortedFunc(maps.Keys(there), byCode) {
		o := there[key]
		switch {
		case seen[key]:
			continue
		case o.told && (now.Before(o.until) || o.theirs && !heard):
			continue // not known to have ended
		case o.told:
			e := o.event
			e.Action, e.At, e.Seconds = "ended", now, seconds(now.Sub(o.since).Seconds())
			list = append(list, e)
		}
		delete(there, key)
	}
	return list
}

func byCode(a, b problemKey) int {
	return cmp.Or(strings.Compare(a.code, b.code), strings.Compare(a.subject, b.subject))
}

// lookAtPeers compares the agents that are trusted.
func (w *Watch) lookAtPeers(peers []api.Peer) []api.Event {
	var list []api.Event
	now := map[string]api.Peer{}
	for _, p := range peers {
		now[p.Name] = p
		before, known := w.peers[p.Name]
		switch {
		case w.peers == nil:
		case !known || before.ID != p.ID:
			list = append(list, api.Event{Kind: api.EventPeer, Action: "paired", Peer: p.Name, Text: "the agent is trusted, by the key " + p.Fingerprint})
		case before.Fingerprint != p.Fingerprint:
			list = append(list, api.Event{Kind: api.EventPeer, Action: "key", Peer: p.Name, Text: "another key of the agent is trusted: " + p.Fingerprint})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(w.peers)) {
		if _, still := now[name]; !still {
			list = append(list, api.Event{Kind: api.EventPeer, Action: "removed", Peer: name, Text: "the agent is not trusted any more"})
		}
	}
	w.peers = now
	return list
}

// lookAtTasks compares the backups and verifications.
func (w *Watch) lookAtTasks(tasks []api.BackupTask) []api.Event {
	var list []api.Event
	for _, t := range tasks {
		before := w.tasks[t.Number]
		w.tasks[t.Number] = t.State
		if before == t.State || t.State == "waiting" {
			continue
		}
		what := strings.TrimSpace(t.Type + " backup")
		if t.Kind == "verify" {
			what = "verification of the backups"
		} else if t.Kind == "test" {
			what = "test restore of the backups"
		}
		e := api.Event{Kind: api.EventBackup, Action: "began", Text: "a " + what + " has begun", Details: t.Kind + " " + t.Type}
		switch t.State {
		case "done":
			e.Action, e.Text = "done", "the "+what+" is done"
			if r := t.Tested; r != nil {
				e.Text += fmt.Sprintf(": %d databases, %d tables and %d rows of %s were read", r.Databases, r.Tables, r.Rows, r.Backup)
			}
			if v := t.Verified; v != nil {
				e.Text += fmt.Sprintf(": %d backups and %d segments read, %d findings", v.Backups, v.Segments, len(v.Findings))
			}
		case "failed":
			e.Action, e.Text = "failed", "the "+what+" failed"
			if t.Error != nil {
				e.Code, e.Subject, e.Text = t.Error.Code, t.Error.Subject, e.Text+": "+t.Error.Text
			}
		}
		e.Details = strings.TrimSpace(e.Details)
		if t.EndedAt != nil {
			e.Seconds = seconds(t.EndedAt.Sub(t.StartedAt).Seconds())
		}
		list = append(list, e)
	}
	for number := range w.tasks {
		if !slices.ContainsFunc(tasks, func(t api.BackupTask) bool { return t.Number == number }) {
			delete(w.tasks, number)
		}
	}
	return list
}

// lookAtCopies compares the copies and restores of databases, those that peers make here
// included.
func (w *Watch) lookAtCopies(copies []api.DatabaseCopy) []api.Event {
	var list []api.Event
	for _, c := range slices.Backward(copies) { // the oldest first
		before := w.copies[c.ID]
		w.copies[c.ID] = c.State
		if before == c.State {
			continue
		}
		e := api.Event{Kind: api.EventCopy, Action: string(c.State), Database: c.Database, Peer: c.Peer, Link: c.Link, Subject: c.Name}
		what := fmt.Sprintf("the copy of database %s as %s", c.Database, c.Name)
		if c.Restore != nil {
			what = fmt.Sprintf("the restore of database %s as %s", c.Database, c.Name)
		}
		switch c.State {
		case api.Copying:
			e.Action, e.Text = "began", what+" has begun"
		case api.Copied:
			e.Text = what + " is done"
			if c.Position != "" {
				e.Text += ", at position " + c.Position
			}
		default:
			e.Text = what + " was not made"
			if p := c.Problem; p != nil {
				e.Code, e.Text = p.Code, e.Text+": "+p.Title
			}
		}
		if c.Incoming {
			e.By = api.Actor{Kind: api.ByPeer, Name: c.Peer}
		}
		if c.EndedAt != nil {
			e.Seconds = seconds(c.EndedAt.Sub(c.StartedAt).Seconds())
		}
		list = append(list, e)
	}
	for id := range w.copies {
		if !slices.ContainsFunc(copies, func(c api.DatabaseCopy) bool { return c.ID == id }) {
			delete(w.copies, id)
		}
	}
	return list
}
