package api

import "time"

// AuditState says what the audit of a link does.
type AuditState string

// The states of an audit.
const (
	AuditOff     AuditState = "off"     // its rate is 0
	AuditResting AuditState = "resting" // something is in the way
	AuditWaiting AuditState = "waiting" // for the time of the next pass
	AuditRunning AuditState = "running" // a pass is under way
)

// Audit is how a link compares itself with its primary in the background, in passes over
// everything that it carries.
type Audit struct {
	State              AuditState `json:"state" enum:"off,resting,waiting,running" doc:"What it does"`
	Why                string     `json:"why,omitempty" doc:"What is in the way while it rests, in words"`
	RateBytesPerSecond int64      `json:"rateBytesPerSecond" doc:"How fast each side reads its tables for it at most; 0 where it is off"`
	PassSeconds        *float64   `json:"passSeconds,omitempty" doc:"How long a pass takes at that rate; missing while that is not known"`
	BeganAt            *time.Time `json:"beganAt,omitempty" doc:"When the pass under way began, or the last one; missing before the first"`
	EndedAt            *time.Time `json:"endedAt,omitempty" doc:"When the last pass ended; missing before"`
	Items              int        `json:"items" doc:"Tables, materialized views and the like that are compared"`
	Done               int        `json:"done" doc:"How many of them the pass that began last has compared"`
	Differing          int        `json:"differing" doc:"How many of them differ"`
	Differences        int        `json:"differences" doc:"How many differences are known of"`
	LeftOut            int        `json:"leftOut" doc:"How many are left out, beside items"`
	EqualSince         *time.Time `json:"equalSince,omitempty" doc:"The earliest of the times when each of them was last found equal; missing while there is one that never was"`
	PauseSeconds       *float64   `json:"pauseSeconds,omitempty" doc:"The longest that applying was held up for it since the agent was started; missing while it was not"`
}

// AuditRequest asks for a pass.
type AuditRequest struct {
	Now bool `json:"now" doc:"Begin a pass now, rather than at its time"`
}

// AuditReport is the audit of a link in detail.
type AuditReport struct {
	Link string `json:"link" doc:"Name of the link"`
	Audit
	Compared []AuditItem `json:"compared" nullable:"false" doc:"What is compared, and how that stands, by kind and name; what is left out stands among them"`
}

// AuditItem is something that the audit compares by itself.
type AuditItem struct {
	Kind        string       `json:"kind" enum:"table,materialized view,large objects,sequences,schema" doc:"What it is"`
	Name        string       `json:"name" doc:"The table or materialized view" example:"public.orders"`
	Bytes       int64        `json:"bytes" doc:"How much reading it reads"`
	Skipped     string       `json:"skipped,omitempty" doc:"Why it is left out; missing where it is not"`
	EqualAt     *time.Time   `json:"equalAt,omitempty" doc:"When it was last found equal; missing while it was not"`
	Position    string       `json:"position,omitempty" doc:"The position of the primary's log at which the comparison that found it equal began" example:"0/1A2B3C8"`
	ComparedAt  *time.Time   `json:"comparedAt,omitempty" doc:"When all of it was last compared, with whatever result; missing before"`
	UnderWay    bool         `json:"underWay,omitempty" doc:"A part of it is compared, the rest will be"`
	Differences []Difference `json:"differences" nullable:"false" doc:"What differs, each seen at two positions"`
	More        bool         `json:"more,omitempty" doc:"More differs than is listed"`
}
