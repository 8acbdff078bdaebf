//go:generate env TWINSPAN_GENERATE=1 go test -count=1 -run TestDiagramsInTheMap .

// Package role is the brain of one side of a link: which phase follows which
// event. It is pure: no I/O, no clock. The caller stores the new state before it
// acts on it, and acts only by what Work says.
package role

import (
	"fmt"
	"slices"
	"strings"

	"github.com/twinspan/twinspan/internal/problem"
)

// Role is which side of the link this is.
type Role string

// The roles.
const (
	Primary   Role = "primary"
	Secondary Role = "secondary"
)

// Phase is where the link stands. The names are part of the API.
type Phase string

// The phases.
const (
	Creating    Phase = "creating"     // both sides are being prepared
	Seeding     Phase = "seeding"      // the first copy is under way
	CatchingUp  Phase = "catching_up"  // changes are applied, the twin is behind
	Replicating Phase = "replicating"  // the twin follows closely
	Suspended   Phase = "suspended"    // somebody asked the link to rest
	FailingOver Phase = "failing_over" // the sides are changing places
	Fenced      Phase = "fenced"       // a former primary that accepts nothing
	Broken      Phase = "broken"       // stopped by a problem that needs a person
)

// Phases lists all phases in the order of a link's life.
func Phases() []Phase {
	return []Phase{Creating, Seeding, CatchingUp, Replicating, Suspended, FailingOver, Fenced, Broken}
}

// Event is something that happened to this side.
type Event string

// The events.
const (
	Prepared        Event = "prepared"         // both sides exist
	SeedingDone     Event = "seeding_done"     // the first copy is complete and durable
	CaughtUp        Event = "caught_up"        // the twin is within the bounds of lag
	FellBehind      Event = "fell_behind"      // a stream began far behind
	Suspend         Event = "suspend"          // asked for by an operator, on either side
	Resume          Event = "resume"           // asked for by an operator, on either side
	Failed          Event = "failed"           // a problem that no retry solves
	PeerSeeding     Event = "peer_seeding"     // the secondary reports its phase
	PeerCatchingUp  Event = "peer_catching_up" //
	PeerReplicating Event = "peer_replicating" //
	PeerBroken      Event = "peer_broken"      //
)

// Events lists all events.
func Events() []Event {
	return []Event{Prepared, SeedingDone, CaughtUp, FellBehind, Suspend, Resume, Failed,
		PeerSeeding, PeerCatchingUp, PeerReplicating, PeerBroken}
}

// State is what decides. It is comparable, and stored in the linked database.
type State struct {
	Role   Role
	Phase  Phase
	Epoch  int64
	Seeded bool // the secondary holds a whole copy
}

// Work is what a side does in its state.
type Work string

// The kinds of work.
const (
	Rest    Work = "rest"    // nothing, but answer the peer
	Prepare Work = "prepare" // bring the other side into being
	Seed    Work = "seed"    // copy
	Follow  Work = "follow"  // apply the stream
	Serve   Work = "serve"   // answer the secondary's requests
)

// Work says what the state calls for.
func (s State) Work() Work {
	switch {
	case s.Role == Primary && s.Phase == Creating:
		return Prepare
	case s.Role == Primary && slices.Contains([]Phase{Seeding, CatchingUp, Replicating}, s.Phase):
		return Serve
	case s.Role == Secondary && s.Phase == Seeding:
		return Seed
	case s.Role == Secondary && (s.Phase == CatchingUp || s.Phase == Replicating):
		return Follow
	}
	return Rest
}

// transition is a row of the table. To is empty where it depends on whether the
// copy is whole: then it is Seeding or CatchingUp.
type transition struct {
	role  Role
	from  []Phase
	event Event
	to    Phase
}

var active = []Phase{Seeding, CatchingUp, Replicating}

// table is the whole of it. What is not in it is refused.
var table = []transition{
	{Secondary, []Phase{Creating}, Prepared, Seeding},
	{Secondary, []Phase{Seeding}, SeedingDone, CatchingUp},
	{Secondary, []Phase{CatchingUp, Replicating}, CaughtUp, Replicating},
	{Secondary, []Phase{CatchingUp, Replicating}, FellBehind, CatchingUp},
	{Secondary, append([]Phase{Creating, Suspended}, active...), Suspend, Suspended},
	{Secondary, append([]Phase{Creating, Suspended, Broken}, active...), Resume, ""},
	{Secondary, append([]Phase{Creating, Suspended, Broken}, active...), Failed, Broken},

	{Primary, []Phase{Creating}, Prepared, Seeding},
	{Primary, active, PeerSeeding, Seeding},
	{Primary, active, PeerCatchingUp, CatchingUp},
	{Primary, active, PeerReplicating, Replicating},
	{Primary, append([]Phase{Creating, Broken}, active...), PeerBroken, Broken},
	{Primary, append([]Phase{Creating, Suspended}, active...), Suspend, Suspended},
	{Primary, append([]Phase{Suspended, Broken}, active...), Resume, ""},
	{Primary, append([]Phase{Creating, Suspended, Broken}, active...), Failed, Broken},
}

// Step returns the state that follows an event. An event that the phase does not
// allow leaves the state as it is and is a problem of kind Conflict.
func Step(s State, e Event) (State, error) {
	for _, t := range table {
		if t.role != s.Role || t.event != e || !slices.Contains(t.from, s.Phase) {
			continue
		}
		next := s
		next.Phase = t.to
		if t.to == "" {
			next.Phase = Seeding
			if s.Seeded {
				next.Phase = CatchingUp
			}
		}
		if e == SeedingDone {
			next.Seeded = true
		}
		return next, nil
	}
	return s, problem.New(problem.Conflict, "phase_refuses", "a link in phase %s does not allow %q on its %s", s.Phase, e, s.Role)
}

// Diagram renders one role's transitions as a Mermaid state diagram for the docs.
func Diagram(r Role) string {
	var b strings.Builder
	b.WriteString("stateDiagram-v2\n    [*] --> creating\n")
	for _, t := range table {
		if t.role != r {
			continue
		}
		for _, from := range t.from {
			if t.to == "" {
				fmt.Fprintf(&b, "    %s --> seeding: %s, copy not whole\n", from, t.event)
				fmt.Fprintf(&b, "    %s --> catching_up: %s, copy whole\n", from, t.event)
				continue
			}
			fmt.Fprintf(&b, "    %s --> %s: %s\n", from, t.to, t.event)
		}
	}
	return b.String()
}
