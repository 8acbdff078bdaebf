package api

import "time"

// FailoverType says how the sides change places.
type FailoverType string

// The types of a failover.
const (
	Planned FailoverType = "planned" // both sides take part; no transaction is lost
	Forced  FailoverType = "forced"  // the secondary alone; what it does not have is left behind
)

// FailoverRequest asks the two sides of a link to change places.
type FailoverRequest struct {
	Type           FailoverType `json:"type,omitempty" enum:"planned,forced" doc:"planned by default"`
	Cutover        bool         `json:"cutover,omitempty" doc:"Planned: remove the link afterwards; the former primary stays read-only"`
	DrainSeconds   float64      `json:"drainSeconds,omitempty" minimum:"0" maximum:"86400" doc:"Planned: how long writing transactions may go on before they are ended; 10 by default"`
	AcceptDataLoss bool         `json:"acceptDataLoss,omitempty" doc:"Forced: go on although transactions may be left behind"`
	Insist         bool         `json:"insist,omitempty" doc:"Forced: go on although the primary is there and a planned failover is possible"`
}

// FailoverPlanRequest says of which failover the plan is.
type FailoverPlanRequest struct {
	Type         FailoverType `json:"type,omitempty" enum:"planned,forced" doc:"planned by default"`
	Cutover      bool         `json:"cutover,omitempty" doc:"Planned: the link is removed afterwards"`
	DrainSeconds float64      `json:"drainSeconds,omitempty" minimum:"0" maximum:"86400" doc:"Planned: how long writing transactions may go on before they are ended; 10 by default"`
}

// FailoverPlan is what a change of places would meet if it began now. Nothing is changed
// by asking.
type FailoverPlan struct {
	Link         string           `json:"link" doc:"Name of the link"`
	Type         FailoverType     `json:"type" enum:"planned,forced" doc:"Planned or forced"`
	Primary      string           `json:"primary" doc:"The agent beside the side that would become primary"`
	Blocked      bool             `json:"blocked" doc:"Whether something stands against it"`
	Problems     []Problem        `json:"problems" nullable:"false" doc:"What stands against it (blocks) or is to be expected of it (warns, informs), on both sides"`
	Waits        []FailoverWaiter `json:"waits" nullable:"false" doc:"Transactions that are open now and would be waited for or ended, the oldest first"`
	DrainSeconds float64          `json:"drainSeconds" doc:"Planned: how long writing transactions may go on before they are ended"`
	HoldSeconds  *float64         `json:"holdSeconds" doc:"Planned: about how long writers would wait, when those that write now finish at once; null when that is not known"`
	MostSeconds  *float64         `json:"mostSeconds" doc:"Planned: the same when they go on until they are ended; null when that is not known"`
	Loss         *Loss            `json:"loss" doc:"Forced: what would be left behind as far as known; null otherwise"`
	Uncarried    *UncarriedSide   `json:"uncarried" doc:"What would be to be set up again on the new primary, for neither PostgreSQL nor the link carries it; null where its agent does not say"`
}

// WaiterFate says what becomes of a transaction that is in the way.
type WaiterFate string

// The fates.
const (
	FateEnded  WaiterFate = "ended"  // it may finish until the drain timeout, then it is ended
	FateWaited WaiterFate = "waited" // it is waited for, and the failover is undone when it takes too long
	FateBlocks WaiterFate = "blocks" // nothing but a person ends it
)

// FailoverWaiter is a transaction that a change of places would wait for.
type FailoverWaiter struct {
	Agent    string     `json:"agent" doc:"The agent beside the server it is on"`
	PID      int        `json:"pid,omitempty" doc:"Server process; missing for a prepared transaction"`
	GID      string     `json:"gid,omitempty" doc:"Identifier of a prepared transaction"`
	Role     string     `json:"role" doc:"Whose it is; empty where the server does not say"`
	Database string     `json:"database" doc:"The database that it is in"`
	Since    *time.Time `json:"since" doc:"When it began, or was prepared; null where the server does not say"`
	Fate     WaiterFate `json:"fate" enum:"ended,waited,blocks" doc:"What becomes of it"`
}

// FailoverPoint is where links that change places together wait for each other.
type FailoverPoint string

// The points of a failover of several links.
const (
	PointHold     FailoverPoint = "hold"     // everything is prepared; writers are not held yet
	PointPromise  FailoverPoint = "promise"  // writers are held and everything is applied
	PointDecision FailoverPoint = "decision" // it does what is decided for all
)

// FailoversRequest asks several links to change places as one, as planned.
type FailoversRequest struct {
	Links        []string `json:"links" nullable:"false" doc:"Names of the links; none for all of the agent"`
	Cutover      bool     `json:"cutover,omitempty" doc:"Remove the links afterwards; the former primaries stay read-only"`
	DrainSeconds float64  `json:"drainSeconds,omitempty" minimum:"0" maximum:"86400" doc:"How long writing transactions may go on before they are ended; 10 by default"`
}

// Failovers is a change of places of several links as one.
type Failovers struct {
	State     FailoverState      `json:"state" enum:"running,done,undone" doc:"How it stands"`
	Decided   bool               `json:"decided" doc:"Whether it is decided that the links change places: it cannot be given up any more"`
	StartedAt time.Time          `json:"startedAt" doc:"When it began"`
	EndedAt   *time.Time         `json:"endedAt" doc:"When it was over; null before"`
	Links     []FailoverProgress `json:"links" nullable:"false" doc:"Each link's part, in the order in which they were named"`
	Problem   *Problem           `json:"problem" doc:"Why it did not come about, or what is not known yet; null otherwise"`
}

// FailoverState says how a failover stands.
type FailoverState string

// The states of a failover.
const (
	FailoverRunning FailoverState = "running" // under way
	FailoverDone    FailoverState = "done"    // the sides have changed places
	FailoverUndone  FailoverState = "undone"  // it did not come about; everything is as before
)

// FailoverProgress is a change of places: how far it is, and how it ended.
type FailoverProgress struct {
	Link        string         `json:"link" doc:"Name of the link"`
	Type        FailoverType   `json:"type" enum:"planned,forced" doc:"Planned or forced"`
	State       FailoverState  `json:"state" enum:"running,done,undone" doc:"How it stands"`
	Steps       []FailoverStep `json:"steps" nullable:"false" doc:"What was done, and is being done, in order"`
	StartedAt   time.Time      `json:"startedAt" doc:"When it began"`
	EndedAt     *time.Time     `json:"endedAt" doc:"When it was over; null before"`
	Waiting     FailoverPoint  `json:"waiting" enum:",hold,promise,decision" doc:"Where it waits for other links that change places with it; empty otherwise"`
	HoldSeconds float64        `json:"holdSeconds" doc:"How long writers waited; 0 before they do, and when forced"`
	Ended       int            `json:"ended" doc:"Writing transactions that did not finish in time and were ended"`
	Primary     string         `json:"primary" doc:"The agent beside the new primary; empty before that is decided"`
	Epoch       int64          `json:"epoch" doc:"Epoch of the new primary; 0 before"`
	Loss        *Loss          `json:"loss" doc:"Forced: what is left behind as far as known; null otherwise"`
	Text        string         `json:"text" doc:"What became of the former primary, in a sentence; empty before the end"`
	Problem     *Problem       `json:"problem" doc:"Why it did not come about; null otherwise"`
}

// FailoverStep is a part of a failover.
type FailoverStep struct {
	Name    string  `json:"name" doc:"What is done, in words" example:"holding writers"`
	Seconds float64 `json:"seconds" doc:"How long it took, or takes so far"`
	Done    bool    `json:"done" doc:"Whether it is over"`
}

// Loss is an estimate of what a forced failover leaves behind.
type Loss struct {
	Written     string     `json:"written,omitempty" doc:"The end of the primary's log as last heard of; missing if it was not since the agent was started"`
	Applied     string     `json:"applied,omitempty" doc:"What the secondary has of it"`
	Bytes       *int64     `json:"bytes,omitempty" doc:"Log between the two; more may have been written since"`
	Seconds     *float64   `json:"seconds,omitempty" doc:"Time since the last word of the primary, or the lag if that is more"`
	HeardAt     *time.Time `json:"heardAt" doc:"When the primary was last heard of; null if not since the agent was started"`
	PrimarySeen bool       `json:"primarySeen" doc:"Whether the primary is there and works: then a planned failover loses nothing"`
}
