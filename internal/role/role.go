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

// Other returns the role of the other side.
func (r Role) Other() Role {
	if r == Primary {
		return Secondary
	}
	return Primary
}

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
	Fenced      Phase = "fenced"       // a primary, or a former one, that accepts nothing
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

	Begin      Event = "begin"      // a planned failover begins, on either side
	Undo       Event = "undo"       // it does not come about
	Fence      Event = "fence"      // the primary refuses writes, for the failover that is under way
	Isolated   Event = "isolated"   // the primary refuses writes, for its twin was not heard of for long
	Unfence    Event = "unfence"    // the twin is known not to have become primary
	Decide     Event = "decide"     // the secondary becomes primary, as planned
	Turned     Event = "turned"     // the peer has decided the failover for which this side is fenced
	Force      Event = "force"      // an operator makes this side primary, whatever the other is
	Superseded Event = "superseded" // the peer is primary with a higher epoch: histories have parted
	Adopt      Event = "adopt"      // the primary has a higher epoch, and this side follows it all the same
	Rejoin     Event = "rejoin"     // an operator lets a former primary become a twin again
	Rejoined   Event = "rejoined"   // nothing differs any more
	Emptied    Event = "emptied"    // nothing is left that could: the copy is made anew

	PeerRejoined Event = "peer_rejoined" // the secondary reports so
	PeerEmptied  Event = "peer_emptied"  //
)

// Events lists all events.
func Events() []Event {
	return []Event{Prepared, SeedingDone, CaughtUp, FellBehind, Suspend, Resume, Failed,
		PeerSeeding, PeerCatchingUp, PeerReplicating, PeerBroken,
		Begin, Undo, Fence, Isolated, Unfence, Decide, Turned, Force, Superseded, Adopt, Rejoin, Rejoined, Emptied, PeerRejoined, PeerEmptied}
}

// State is what decides. It is comparable, and stored in the linked database.
type State struct {
	Role   Role
	Phase  Phase
	Epoch  int64
	Seeded bool // the secondary holds a whole copy
	// Diverged: after a forced failover the former primary may hold transactions that
	// the new one does not. Only a rejoin, or a new copy, leads out.
	Diverged bool
	// Operation names the planned failover under way; empty usually. On a primary that
	// has become one by a planned failover it is none.
	Operation string
}

// Writable says whether applications may write on this side.
func (s State) Writable() bool { return s.Role == Primary && s.Phase != Fenced }

// Work is what a side does in its state.
type Work string

// The kinds of work.
const (
	Rest    Work = "rest"    // nothing, but answer the peer
	Prepare Work = "prepare" // bring the other side into being
	Seed    Work = "seed"    // copy
	Follow  Work = "follow"  // apply the stream
	Serve   Work = "serve"   // answer the secondary's requests
	Switch  Work = "switch"  // apply the stream to its end and become primary
	Salvage Work = "salvage" // read what the new primary does not have, and wait for a rejoin
	Mend    Work = "mend"    // repair what diverged
)

// Work says what the state calls for.
func (s State) Work() Work {
	switch {
	case s.Role == Primary && s.Phase == Creating:
		return Prepare
	case s.Role == Primary && (s.Diverged || slices.Contains([]Phase{Seeding, CatchingUp, Replicating, FailingOver, Fenced}, s.Phase)):
		return Serve
	case s.Role == Primary:
		return Rest
	case s.Phase == Seeding && s.Diverged:
		return Mend
	case s.Phase == Seeding:
		return Seed
	case s.Phase == CatchingUp || s.Phase == Replicating:
		return Follow
	case s.Phase == FailingOver:
		return Switch
	case s.Phase == Fenced:
		return Salvage
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
	then  func(*State) // what changes besides the phase
}

var active = []Phase{Seeding, CatchingUp, Replicating}

// table is the whole of it. What is not in it is refused.
var table = []transition{
	{Secondary, []Phase{Creating}, Prepared, Seeding, nil},
	{Secondary, []Phase{Seeding}, SeedingDone, CatchingUp, nil},
	{Secondary, []Phase{CatchingUp, Replicating}, CaughtUp, Replicating, nil},
	{Secondary, []Phase{CatchingUp, Replicating}, FellBehind, CatchingUp, nil},
	{Secondary, append([]Phase{Creating, Suspended}, active...), Suspend, Suspended, nil},
	{Secondary, append([]Phase{Creating, Suspended, Broken}, active...), Resume, "", nil},
	{Secondary, append([]Phase{Creating, Suspended, Broken}, active...), Failed, Broken, nil},

	{Primary, []Phase{Creating}, Prepared, Seeding, nil},
	{Primary, active, PeerSeeding, Seeding, nil},
	{Primary, active, PeerCatchingUp, CatchingUp, nil},
	{Primary, active, PeerReplicating, Replicating, nil},
	{Primary, append([]Phase{Creating, Broken}, active...), PeerBroken, Broken, nil},
	{Primary, append([]Phase{Creating, Suspended}, active...), Suspend, Suspended, nil},
	{Primary, append([]Phase{Suspended, Broken}, active...), Resume, "", nil},
	{Primary, append([]Phase{Creating, Suspended, Broken}, active...), Failed, Broken, nil},

	// A planned failover.
	{Secondary, []Phase{CatchingUp, Replicating}, Begin, FailingOver, nil},
	{Secondary, []Phase{FailingOver}, Undo, CatchingUp, ended},
	{Secondary, []Phase{FailingOver}, Decide, CatchingUp, func(s *State) { ended(s); s.Role = Primary; s.Epoch++ }},
	{Primary, []Phase{CatchingUp, Replicating}, Begin, FailingOver, nil},
	{Primary, []Phase{FailingOver}, Undo, CatchingUp, ended},
	{Primary, []Phase{FailingOver}, Fence, Fenced, nil},
	{Primary, []Phase{Fenced}, Unfence, "", ended},
	{Primary, []Phase{Fenced}, Turned, CatchingUp, func(s *State) { ended(s); s.Role, s.Seeded = Secondary, true }},

	// A forced one, and what follows from it.
	{Primary, append([]Phase{Suspended, Broken, FailingOver}, active...), Isolated, Fenced, ended},
	{Secondary, []Phase{CatchingUp, Replicating, Suspended, Broken, FailingOver}, Force, Broken, func(s *State) { ended(s); s.Role, s.Diverged = Primary, true; s.Epoch++ }},
	// The peer may have decided the next epoch without a word from it: its twin must
	// not be of the same.
	{Primary, []Phase{Fenced}, Force, "", func(s *State) { ended(s); s.Epoch += 2 }},
	{Primary, Phases(), Superseded, Fenced, superseded},
	{Secondary, append([]Phase{Creating, Suspended, Broken}, active...), Adopt, same, nil},
}

// parted are the rows for sides whose histories have parted.
var parted = []transition{
	{Secondary, []Phase{Seeding}, Rejoined, CatchingUp, func(s *State) { s.Diverged = false }},
	{Secondary, []Phase{Seeding}, Emptied, Seeding, func(s *State) { s.Diverged, s.Seeded = false, false }},
	{Secondary, []Phase{Seeding}, Failed, Fenced, nil},
	{Secondary, []Phase{Fenced}, Failed, Fenced, nil},
	{Secondary, []Phase{Fenced}, Rejoin, Seeding, nil},
	{Secondary, []Phase{Seeding, Fenced}, Force, Broken, func(s *State) { s.Role = Primary; s.Epoch++ }},
	{Secondary, []Phase{Seeding, Fenced}, Adopt, Fenced, nil},
	{Primary, []Phase{Broken}, PeerEmptied, Seeding, func(s *State) { s.Diverged, s.Seeded = false, false }},
	{Primary, []Phase{Broken}, PeerRejoined, CatchingUp, func(s *State) { s.Diverged = false }},
	{Primary, []Phase{Broken}, Failed, Broken, nil},
	{Primary, Phases(), Superseded, Fenced, superseded},
}

// same is the phase of a row that leaves the phase as it is.
const same Phase = "same"

// superseded makes a secondary of a primary. Whatever its twin had, it is whole.
func superseded(s *State) {
	ended(s)
	s.Role, s.Diverged, s.Seeded = Secondary, true, true
}

// ended forgets the planned failover that was under way.
func ended(s *State) { s.Operation = "" }

// Step returns the state that follows an event. An event that the phase does not
// allow leaves the state as it is and is a problem of kind Conflict.
func Step(s State, e Event) (State, error) {
	rows := table
	if s.Diverged {
		rows = parted
	}
	for _, t := range rows {
		if t.role != s.Role || t.event != e || !slices.Contains(t.from, s.Phase) {
			continue
		}
		if e == Force && !s.Seeded {
			break
		}
		next := s
		switch t.to {
		case same:
		case "":
			next.Phase = Seeding
			if s.Seeded {
				next.Phase = CatchingUp
			}
		default:
			next.Phase = t.to
		}
		if e == SeedingDone {
			next.Seeded = true
		}
		if t.then != nil {
			t.then(&next)
		}
		return next, nil
	}
	return s, problem.New(problem.Conflict, "phase_refuses", "a link in phase %s does not allow %q on its %s", s.Phase, e, s.Role)
}

// Learn is Step for what follows from the other side's epoch, which this side has
// from then on: Turned, Superseded and Adopt.
func Learn(s State, e Event, epoch int64) (State, error) {
	if epoch <= s.Epoch {
		return s, problem.New(problem.Conflict, "epoch_old", "epoch %d is not beyond %d", epoch, s.Epoch)
	}
	next, err := Step(s, e)
	if err == nil {
		next.Epoch = epoch
	}
	return next, err
}

// Other is what one side knows of the other: its state, asked for after the own
// state was stored, for an answer to an earlier question says nothing of a later
// failover.
type Other struct {
	State
	// Decided names the planned failover by which it became primary; empty when it
	// did so otherwise, or is not primary.
	Decided string
}

// Meet says what follows for this side from the state of the other: an event, or
// "" for none. Turned, Superseded and Adopt are for Learn.
func Meet(mine State, other Other) Event {
	switch {
	case other.Epoch > mine.Epoch && other.Role == Primary:
		return outranked(mine, other)
	case other.Epoch != mine.Epoch || other.Role != Secondary || mine.Role != Primary:
		return ""
	case other.Phase == FailingOver && other.Operation == mine.Operation && mine.Operation != "":
		return "" // it may still decide
	case mine.Phase == Fenced:
		return Unfence
	case mine.Phase == FailingOver:
		return Undo
	}
	return ""
}

// outranked is Meet with a primary of a higher epoch.
func outranked(mine State, other Other) Event {
	switch {
	case mine.Role == Primary && mine.Phase == Fenced && mine.Operation != "" && mine.Operation == other.Decided && other.Epoch == mine.Epoch+1:
		return Turned
	case mine.Role == Primary:
		return Superseded
	case mine.Phase == FailingOver:
		return Undo
	}
	return Adopt
}

// Diagram renders one role's transitions as a Mermaid state diagram for the docs.
func Diagram(r Role) string {
	var b strings.Builder
	b.WriteString("stateDiagram-v2\n    [*] --> creating\n")
	for i, rows := range [][]transition{table, parted} {
		for _, t := range rows {
			if t.role != r {
				continue
			}
			for _, from := range t.from {
				b.WriteString(arrows(t, from, i == 1))
			}
		}
	}
	return b.String()
}

// arrows renders what one row says of one phase.
func arrows(t transition, from Phase, diverged bool) string {
	after := State{Role: t.role, Phase: from, Diverged: diverged}
	if t.then != nil {
		t.then(&after)
	}
	label := string(t.event)
	switch {
	case after.Role != t.role:
		label += ", becomes " + string(after.Role)
	case diverged:
		label += ", diverged"
	}
	switch t.to {
	case "":
		return fmt.Sprintf("    %[1]s --> seeding: %[2]s, copy not whole\n    %[1]s --> catching_up: %[2]s, copy whole\n", from, label)
	case same:
		return fmt.Sprintf("    %s --> %s: %s\n", from, from, label)
	}
	return fmt.Sprintf("    %s --> %s: %s\n", from, t.to, label)
}
