package api

import (
	"slices"
	"strings"
	"time"
)

// EventKind says of what sort an event is.
type EventKind string

// The kinds of events.
const (
	EventRole      EventKind = "role"      // a side's role, phase or epoch changed
	EventLink      EventKind = "link"      // a link was made or removed
	EventProblem   EventKind = "problem"   // a problem began or ended
	EventFailover  EventKind = "failover"  // a change of places, and its steps
	EventOperation EventKind = "operation" // somebody asked for a change
	EventPeer      EventKind = "peer"      // a peer was paired or removed, connected or lost
	EventAgent     EventKind = "agent"     // the agent was started or stopped, or lost events
	EventLease     EventKind = "lease"     // this process began or ceased to work the links
	EventBackup    EventKind = "backup"    // a backup or a verification of backups
	EventCopy      EventKind = "copy"      // a copy or a restore of a database
	EventHook      EventKind = "hook"      // a hook failed
)

// EventKinds lists the kinds with the actions of each, in the order of the documentation.
func EventKinds() []EventKindActions {
	return []EventKindActions{
		{EventRole, []string{"changed", "found"}},
		{EventLink, []string{"made", "removed"}},
		{EventProblem, []string{"began", "ended"}},
		{EventFailover, []string{"began", "step", "step_done", "done", "undone"}},
		{EventOperation, []string{"done", "failed"}},
		{EventPeer, []string{"paired", "removed", "key", "connected", "lost"}},
		{EventAgent, []string{"started", "stopped", "missed"}},
		{EventLease, []string{"taken", "lost"}},
		{EventBackup, []string{"began", "done", "failed"}},
		{EventCopy, []string{"began", "done", "failed", "cancelled"}},
		{EventHook, []string{"failed", "dropped"}},
	}
}

// IsEventKind says whether a text is a kind of events, or one with an action, as
// problem.began.
func IsEventKind(text string) bool {
	name, action, has := strings.Cut(text, ".")
	return slices.ContainsFunc(EventKinds(), func(k EventKindActions) bool {
		return string(k.Kind) == name && (!has || slices.Contains(k.Actions, action))
	})
}

// EventKindActions is a kind with what can happen of it.
type EventKindActions struct {
	Kind    EventKind
	Actions []string
}

// Event is something that happened, as one agent saw it.
type Event struct {
	Number   int64     `json:"number" doc:"Grows with every event of the agent"`
	At       time.Time `json:"at" doc:"When it happened"`
	Kind     EventKind `json:"kind" enum:"role,link,problem,failover,operation,peer,agent,lease,backup,copy,hook" doc:"Of what sort it is"`
	Action   string    `json:"action" doc:"What happened" example:"began"`
	Link     string    `json:"link,omitempty" doc:"Name of the link"`
	LinkID   string    `json:"linkId,omitempty" doc:"Identifier of the link"`
	Database string    `json:"database,omitempty" doc:"The database on this side"`
	Peer     string    `json:"peer,omitempty" doc:"Name of the peer"`
	By       Actor     `json:"by" doc:"Who did it"`
	Text     string    `json:"text" doc:"What happened, in a sentence"`

	Code     string   `json:"code,omitempty" doc:"Code of the problem, or of the reason" example:"peer_unreachable"`
	Severity Severity `json:"severity,omitempty" enum:"blocks,warns,informs" doc:"How much the problem matters"`
	Subject  string   `json:"subject,omitempty" doc:"The object that it is about; never with a value of a row"`
	Role     Role     `json:"role,omitempty" enum:"primary,secondary" doc:"Role of this side from then on"`
	Phase    Phase    `json:"phase,omitempty" doc:"Phase of this side from then on"`
	Epoch    int64    `json:"epoch,omitempty" doc:"Epoch of this side from then on"`
	Step     string   `json:"step,omitempty" doc:"Step of a change of places, in words"`
	Seconds  *float64 `json:"seconds,omitempty" doc:"How long it took"`
	// Failover and HoldSeconds are of a change of places that is over.
	Failover    FailoverType `json:"failover,omitempty" enum:"planned,forced" doc:"Of a change of places that is over: planned or forced"`
	HoldSeconds *float64     `json:"holdSeconds,omitempty" doc:"Of a planned one: how long writers waited"`
	Request     string       `json:"request,omitempty" doc:"Of an operation: what was asked for, as the REST interface or the peers' protocol names it" example:"failOver"`
	Details     string       `json:"details,omitempty" doc:"Of an operation: its parameters, as JSON, where none of them can be a secret; more of a copy or a backup"`
}

// ActorKind says what sort of actor did something.
type ActorKind string

// The kinds of actors.
const (
	ByAgent    ActorKind = "agent"    // the agent itself
	ByOperator ActorKind = "operator" // somebody, by the REST interface
	ByPeer     ActorKind = "peer"     // another agent, or its operator
)

// Actor is who did something.
type Actor struct {
	Kind    ActorKind `json:"kind" enum:"agent,operator,peer" doc:"What sort of actor it is"`
	Name    string    `json:"name,omitempty" doc:"Name of the peer; of an operator the label of the token, or its id where it has none"`
	Via     string    `json:"via,omitempty" enum:"socket,token" doc:"Of an operator: over the agent's Unix socket, or over TCP with a token"`
	Role    string    `json:"role,omitempty" doc:"Of an operator with a token: its role"`
	Address string    `json:"address,omitempty" doc:"Of an operator over TCP: where the connection came from"`
}

// EventQuery says which events are asked for. Its zero value is the first page of all.
type EventQuery struct {
	After  int64      // events behind this number
	Newest bool       // the newest of those that fit, not the oldest
	Limit  int        // the most of a page; 0 for a default
	Link   string     // of this link
	Peer   string     // of this peer
	Kinds  []string   // of these kinds, or actions, as problem or problem.began
	Since  *time.Time // not before
	Until  *time.Time // before
	Wait   int        // seconds to wait for an event where there is none
}

// EventPage is a part of an agent's events, in order.
type EventPage struct {
	Events []Event `json:"events" nullable:"false" doc:"The events, by number"`
	Next   int64   `json:"next" doc:"The after of the next page"`
	More   bool    `json:"more" doc:"Whether the next page has events now"`
	First  int64   `json:"first" doc:"Number of the oldest event that is kept; 0 for none"`
	Last   int64   `json:"last" doc:"Number of the newest"`
}
