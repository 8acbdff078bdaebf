package api

import "time"

// Role says which side of a link an agent's database is.
type Role string

// The roles.
const (
	Primary   Role = "primary"   // accepts writes
	Secondary Role = "secondary" // readable, refuses writes
)

// Phase says what a link is doing. Both sides report the same phase, except
// while they cannot reach each other.
type Phase string

// The phases.
const (
	Creating    Phase = "creating"     // the two sides are being prepared
	Seeding     Phase = "seeding"      // the first copy is under way
	CatchingUp  Phase = "catching_up"  // the copy is there; what was written meanwhile is being applied
	Replicating Phase = "replicating"  // the twin is in step
	Suspended   Phase = "suspended"    // stopped on request; the primary keeps the log
	FailingOver Phase = "failing_over" // the two sides are changing places
	Fenced      Phase = "fenced"       // this side was overruled by a higher epoch and refuses writes
	Broken      Phase = "broken"       // stopped by a problem that somebody must solve
)

// Health sums up a link for those who look only once.
type Health string

// The healths.
const (
	Healthy   Health = "healthy"   // it does what it should
	Degraded  Health = "degraded"  // it works or will work by itself, but somebody should look
	Unhealthy Health = "unhealthy" // it does not protect the data; somebody must act
)

// Mode says when a commit on the primary returns.
type Mode string

// The modes.
const (
	Async Mode = "async" // at once
	Sync  Mode = "sync"  // when the twin has it durably
)

// Severity says how much a problem or a finding matters.
type Severity string

// The severities, heaviest first.
const (
	Blocks  Severity = "blocks"  // nothing goes on until it is solved
	Warns   Severity = "warns"   // it goes on, but somebody should act
	Informs Severity = "informs" // worth knowing
)

// Link is one side's view of a link.
type Link struct {
	Name         string      `json:"name" doc:"Name of the link, the same on both sides" example:"sales"`
	ID           string      `json:"id" doc:"Identifier of the link, a UUID, the same on both sides"`
	Database     string      `json:"database" doc:"The linked database on this side"`
	Role         Role        `json:"role" enum:"primary,secondary" doc:"What this side is"`
	Phase        Phase       `json:"phase" enum:"creating,seeding,catching_up,replicating,suspended,failing_over,fenced,broken" doc:"What the link is doing"`
	Health       Health      `json:"health" enum:"healthy,degraded,unhealthy" doc:"Summary of phase, connection and problems"`
	Epoch        int64       `json:"epoch" doc:"Grows with every change of roles"`
	Mode         Mode        `json:"mode" enum:"async,sync" doc:"When a commit on the primary returns"`
	Suspended    bool        `json:"suspended" doc:"Whether somebody asked the link to stop for now"`
	Peer         LinkPeer    `json:"peer" doc:"The other side"`
	PhaseSince   *time.Time  `json:"phaseSince,omitempty" doc:"When the phase began; missing where that was before this side's agent was started"`
	Step         string      `json:"step,omitempty" doc:"What is being done or waited for in the phases creating, failing_over and fenced, in words; missing otherwise, and while it is not known"`
	StepSince    *time.Time  `json:"stepSince,omitempty" doc:"When that began; missing while it is not known"`
	Seeding      Progress    `json:"seeding,omitzero" doc:"The first copy, as last heard of; stays as it ended once it is done, and is missing while nothing is known of it"`
	Position     Position    `json:"position" doc:"How far the primary's log has come on its way"`
	Lag          Lag         `json:"lag" doc:"How far the secondary is behind, as far as it is known"`
	Rates        *Rates      `json:"rates,omitempty" doc:"What the secondary applies, averaged over the last seconds; missing while nothing streams and while it is not known"`
	Time         *TimeShares `json:"time,omitempty" doc:"Where the time of the stream went in the last seconds; missing while nothing streams"`
	Totals       *Totals     `json:"totals,omitempty" doc:"What this side's agent has applied since it was started; missing where it has applied nothing"`
	Retained     *Retained   `json:"retained,omitempty" doc:"What the primary's server keeps of its log for the twin; missing on the secondary, and while it is not known"`
	SpilledBytes int64       `json:"spilledBytes,omitempty" doc:"Disk that large transactions of the primary take on the secondary's side, until they have committed and are applied; missing while there are none"`
	Problems     []Problem   `json:"problems" nullable:"false" doc:"What is wrong now, heaviest first"`
	Notices      []Notice    `json:"notices" nullable:"false" doc:"What the link did that its owner should know, oldest first"`
	LastFailover *Failover   `json:"lastFailover" doc:"The last change of roles; null when there was none"`
	CreatedAt    time.Time   `json:"createdAt" doc:"When the link was created"`

	OnConflict    string        `json:"onConflict,omitempty" doc:"What becomes of sessions on the secondary that hold a lock in the way of what is applied: wait, or cancel= and for how long they are waited for" example:"cancel=30s"`
	OnIsolation   string        `json:"onIsolation,omitempty" doc:"What a primary does that has lost its twin: serve, or fence=AFTER, which refuses writes once it has not heard of it for so long" example:"fence=30s"`
	MaxRate       int64         `json:"maxRate,omitempty" doc:"The most bytes of rows a second that the first copy moves; missing where there is no limit"`
	SchemaChanges SchemaChanges `json:"schemaChanges,omitempty" enum:"followed,compared" doc:"How changes of the primary's schema come to the twin; missing while that is not known"`
	Sync          *LinkSync     `json:"sync,omitempty" doc:"How mode sync stands; missing in mode async"`

	LargeObjects *LargeObjects `json:"largeObjects,omitempty" doc:"How the large objects of the twin stand, which do not come with the stream; missing while that is not known"`
	Audit        *Audit        `json:"audit,omitempty" doc:"How the link compares itself with its primary in the background; missing while that is not known"`
}

// SchemaChanges says how changes of the primary's schema come to the twin.
type SchemaChanges string

// The ways. A primary whose server or role allows no event triggers only has its
// schema compared with the twin's: a change stops the link.
const (
	Followed SchemaChanges = "followed"
	Compared SchemaChanges = "compared"
)

// SyncState says whether commits on the primary wait for the twin.
type SyncState string

// The states of mode sync.
const (
	SyncUnknown  SyncState = "unknown"  // the primary has not been heard
	SyncPending  SyncState = "pending"  // they will, once the twin is in step
	SyncEngaged  SyncState = "engaged"  // they do
	SyncDegraded SyncState = "degraded" // they did until the twin did not confirm in time
)

// LinkSync is how mode sync stands on the primary.
type LinkSync struct {
	State          SyncState  `json:"state" enum:"unknown,pending,engaged,degraded" doc:"Whether commits wait for the twin now"`
	TimeoutSeconds int64      `json:"timeoutSeconds" doc:"For how long they wait before they go on without the twin; 0 is without end"`
	Since          *time.Time `json:"since,omitempty" doc:"When the state began, as far as the primary's agent knows"`
}

// SetLink changes what can be changed of a link that exists. What is left out stays.
type SetLink struct {
	Mode               Mode     `json:"mode,omitempty" enum:"async,sync" doc:"When a commit on the primary returns"`
	SyncTimeoutSeconds *int64   `json:"syncTimeoutSeconds,omitempty" minimum:"0" maximum:"86400" doc:"In mode sync: for how long a commit waits before it goes on without the twin; 0 is without end"`
	OnConflict         string   `json:"onConflict,omitempty" pattern:"^(wait|cancel(=.+)?)$" patternDescription:"wait, cancel or cancel=AFTER" doc:"What becomes of sessions on the secondary that hold a lock in the way of what is applied: wait, cancel (after 30s), or cancel=AFTER" example:"cancel=10s"`
	OnIsolation        string   `json:"onIsolation,omitempty" pattern:"^(serve|fence(=.+)?)$" patternDescription:"serve, fence or fence=AFTER" doc:"What a primary does that has lost its twin: serve, or fence=AFTER, which refuses writes once it has not heard of it for so long; serve by default, fence alone after 30s" example:"fence=1m"`
	MaxRate            *int64   `json:"maxRate,omitempty" minimum:"0" doc:"The most bytes of rows a second that the first copy moves; 0 is no limit"`
	AuditRate          *int64   `json:"auditRate,omitempty" minimum:"0" doc:"How many bytes of tables each side reads in a second at most to compare them in the background; 0 switches that off"`
	Accept             []string `json:"accept,omitempty" nullable:"false" doc:"Codes of problems that are accepted: schema_drifted, schema_differs_since_copy, drop_objects; event_trigger_of_role, at the primary's agent alone; superuser_commands, at the secondary's"`
	Withdraw           []string `json:"withdraw,omitempty" nullable:"false" doc:"Codes whose acceptance is taken back: superuser_commands"`
}

// SyncTimeoutDefault is SyncTimeoutSeconds where it is not said: as long as the
// original's session timeout.
const SyncTimeoutDefault = 10

// LargeObjects is how a twin's large objects stand. They are brought in passes.
type LargeObjects struct {
	Objects      int64      `json:"objects" doc:"Large objects of the primary, when last looked at"`
	EverySeconds int64      `json:"everySeconds" doc:"Time between two passes; 0 when they are made on request alone"`
	AsOf         *time.Time `json:"asOf,omitempty" doc:"Everything that was committed before is there; missing before the first pass is complete"`
	Running      bool       `json:"running" doc:"Whether a pass is under way"`
}

// LargeObjectsRequest asks for a pass, or for another time between passes.
type LargeObjectsRequest struct {
	Now          bool   `json:"now,omitempty" doc:"Bring all that has changed, and wait for it"`
	EverySeconds *int64 `json:"everySeconds,omitempty" minimum:"0" maximum:"31536000" doc:"Time between two passes from now on; 0 makes them on request alone"`
}

// LargeObjectsResult says what a pass did.
type LargeObjectsResult struct {
	LargeObjects
	Copied  int64 `json:"copied" doc:"Objects that were new or had changed"`
	Removed int64 `json:"removed" doc:"Objects that the primary has no more"`
	Bytes   int64 `json:"bytes" doc:"What was copied for it"`
}

// LinkPeer is the other side of a link.
type LinkPeer struct {
	Name      string     `json:"name" doc:"Name by which this agent knows the other"`
	Role      Role       `json:"role" enum:"primary,secondary" doc:"What the other side is"`
	Connected bool       `json:"connected" doc:"Whether the two agents reach each other now"`
	HeardAt   *time.Time `json:"heardAt,omitempty" doc:"When it last said how its side of the link stands; missing when it has not since this agent was started or the sides changed places"`
	Database  string     `json:"database" doc:"The linked database on the other side"`
}

// Progress is how far a seeding has come.
type Progress struct {
	Step           string  `json:"step" doc:"What is being done, in words; empty before and after" example:"copying tables"`
	TablesTotal    int64   `json:"tablesTotal" doc:"Tables to copy"`
	TablesDone     int64   `json:"tablesDone" doc:"Tables copied whole"`
	BytesTotal     int64   `json:"bytesTotal" doc:"Size of the tables to copy, as the primary's server estimates it"`
	BytesDone      int64   `json:"bytesDone" doc:"Part of bytesTotal that is copied"`
	BytesPerSecond int64   `json:"bytesPerSecond" doc:"Rate of the copy now; 0 when it stands still"`
	EtaSeconds     float64 `json:"etaSeconds,omitempty" doc:"Estimated time to the end of the copy; missing when it cannot be told or is done"`
}

// States of a table in a first copy.
const (
	TableWaiting = "waiting"
	TableCopying = "copying"
	TableCopied  = "copied"
)

// SeedingTables is how far each table of a first copy is.
type SeedingTables struct {
	Link   string         `json:"link" doc:"Name of the link"`
	Known  bool           `json:"known" doc:"Whether rows are copied now; before and after nothing is known of single tables"`
	Tables []SeedingTable `json:"tables" nullable:"false" doc:"Those under way, then those that wait, then those that are copied; of each the largest first"`
	More   int            `json:"more" doc:"How many tables more there are than are listed"`
}

// SeedingTable is one of them.
type SeedingTable struct {
	Table      string `json:"table" doc:"Name, as SQL writes it" example:"public.orders"`
	State      string `json:"state" enum:"waiting,copying,copied" doc:"Whether its rows wait, are under way, or are all copied"`
	BytesTotal int64  `json:"bytesTotal" doc:"Size as the primary's server estimated it"`
	BytesDone  int64  `json:"bytesDone" doc:"Part of bytesTotal that is copied"`
}

// Position is how far the primary's log has come on its way to the secondary.
// Each position is at or before the one above it. All are positions of the
// primary's instance. One is missing while this side cannot know it: what is the other
// side's, when that was not heard for some seconds.
type Position struct {
	Written   string `json:"written,omitempty" doc:"End of the primary's log" example:"0/1A2B3C8"`
	Sent      string `json:"sent,omitempty" doc:"Sent to the secondary's agent" example:"0/1A2B3C8"`
	Received  string `json:"received,omitempty" doc:"Received by the secondary's agent" example:"0/1A2B3C8"`
	Applied   string `json:"applied,omitempty" doc:"Applied and visible on the secondary" example:"0/1A2B3C8"`
	Confirmed string `json:"confirmed,omitempty" doc:"Durable on the secondary; the primary keeps its log from here on" example:"0/1A2B3C8"`
}

// Lag is how far the secondary is behind what the primary has written. What is not known
// is missing: on a secondary that does not hear the primary, on a primary that does not
// reach its server, and before there is something to be behind with.
type Lag struct {
	Bytes   *int64   `json:"bytes,omitempty" doc:"Log of the primary that is not known to be applied"`
	Seconds *float64 `json:"seconds,omitempty" doc:"How old the oldest transaction that is not applied is at most; 0 when there is none"`
	// AsOf stays when the lag is not known any more: a twin that is cut off is as old as that.
	AsOf *time.Time `json:"asOf,omitempty" doc:"Everything that was committed on the primary before is applied, by this agent's clock; missing where that was never known since this agent was started or the sides changed places"`
}

// Totals count what a side has applied since its agent was started, whatever interrupted
// it. They only grow.
type Totals struct {
	Transactions int64 `json:"transactions" doc:"Source transactions"`
	Changes      int64 `json:"changes" doc:"Rows inserted, updated and deleted"`
	Bytes        int64 `json:"bytes" doc:"Bytes that came over the network"`
	Retries      int64 `json:"retries" doc:"Groups of transactions that were applied again because of a lock"`
	Streams      int64 `json:"streams" doc:"Streams from the primary that were begun; more than one says that it was interrupted"`
}

// Retained is what a primary's server keeps of its log for the twin.
type Retained struct {
	Bytes     int64     `json:"bytes" doc:"Log behind the position from which the twin may need it"`
	LeftBytes *int64    `json:"leftBytes,omitempty" doc:"How much more may be written until the server removes log that the twin needs (max_slot_wal_keep_size); missing where it keeps everything"`
	At        time.Time `json:"at" doc:"When the server was asked"`
}

// Rates is what a link moves, averaged over the last seconds.
type Rates struct {
	TransactionsPerSecond float64 `json:"transactionsPerSecond" doc:"Source transactions"`
	ChangesPerSecond      float64 `json:"changesPerSecond" doc:"Rows inserted, updated and deleted"`
	BytesPerSecond        float64 `json:"bytesPerSecond" doc:"Bytes of change data, not compressed"`
}

// TimeShares says what the secondary spent its time with, in parts of 1 that make 1
// together. The largest is the bottleneck of a link that is behind.
type TimeShares struct {
	Source     float64 `json:"source" doc:"Waiting for the primary: for somebody to write, or for its server to decode"`
	Network    float64 `json:"network" doc:"Waiting for what the primary's agent could not send faster"`
	Applying   float64 `json:"applying" doc:"Applying changes"`
	Committing float64 `json:"committing" doc:"Waiting for the secondary's server to commit"`
}

// Problem is something wrong with a link or an agent, for as long as it lasts.
type Problem struct {
	Code     string   `json:"code" doc:"Stable name, the key into the documentation" example:"slot_lost"`
	Severity Severity `json:"severity" enum:"blocks,warns,informs" doc:"How much it matters"`
	Title    string   `json:"title" doc:"One line that says what is wrong"`
	Subject  string   `json:"subject" doc:"The object that it is about; may be empty"`
	Hint     string   `json:"hint" doc:"What to do; may be empty"`
}

// Notice is something that a link did by itself and its owner should know, for
// instance a role that it created.
type Notice struct {
	At      time.Time `json:"at" doc:"When it was done"`
	Code    string    `json:"code" doc:"Stable name" example:"role_created"`
	Subject string    `json:"subject" doc:"The object that it is about; may be empty"`
	Text    string    `json:"text" doc:"One line that says what was done"`
}

// Failover is a change of roles that happened.
type Failover struct {
	Type        string    `json:"type" enum:"planned,forced" doc:"Planned or forced"`
	At          time.Time `json:"at" doc:"When the new primary began"`
	HoldSeconds float64   `json:"holdSeconds" doc:"How long writers waited"`
}

// CreateLink asks for a link.
type CreateLink struct {
	Name               string   `json:"name" minLength:"1" maxLength:"63" pattern:"^[A-Za-z0-9][A-Za-z0-9._-]*$" patternDescription:"letters, digits, dots, dashes and underscores, a letter or digit first" doc:"Name of the link, unique on both sides" example:"sales"`
	Database           string   `json:"database" minLength:"1" maxLength:"63" doc:"The database on this agent's instance"`
	Peer               string   `json:"peer" minLength:"1" doc:"The other agent, by the name this one knows it"`
	PeerDatabase       string   `json:"peerDatabase,omitempty" maxLength:"63" doc:"The database on the other side; the same name by default"`
	Mode               Mode     `json:"mode,omitempty" enum:"async,sync" doc:"async by default"`
	SyncTimeoutSeconds *int64   `json:"syncTimeoutSeconds,omitempty" minimum:"0" maximum:"86400" doc:"In mode sync: for how long a commit waits before it goes on without the twin; 10 by default, 0 is without end"`
	Accept             []string `json:"accept,omitempty" nullable:"false" doc:"Codes of findings that do not stop the creation"`
	OnConflict         string   `json:"onConflict,omitempty" pattern:"^(wait|cancel(=.+)?)$" patternDescription:"wait, cancel or cancel=AFTER" doc:"What becomes of sessions on the secondary that hold a lock in the way of what is applied: wait, the default, cancel (after 30s), or cancel=AFTER"`
	OnIsolation        string   `json:"onIsolation,omitempty" pattern:"^(serve|fence(=.+)?)$" patternDescription:"serve, fence or fence=AFTER" doc:"What a primary does that has lost its twin: serve, or fence=AFTER, which refuses writes once it has not heard of it for so long; serve by default, fence alone after 30s" example:"fence=1m"`
	MaxRate            int64    `json:"maxRate,omitempty" minimum:"0" doc:"The most bytes of rows a second that the first copy moves; no limit by default"`
	AuditRate          *int64   `json:"auditRate,omitempty" minimum:"0" doc:"How many bytes of tables each side reads in a second at most to compare them in the background; 8 MB by default, 0 switches that off"`
	FromPeer           bool     `json:"fromPeer,omitempty" doc:"The peer's database is the initial primary"`
	// CreateRoles and WithPasswords say what becomes of roles that the secondary's
	// instance lacks; without, those that own or are granted something are made NOLOGIN.
	CreateRoles   bool `json:"createRoles,omitempty" doc:"Create the roles that use the database and are missing on the secondary, with attributes and memberships"`
	WithPasswords bool `json:"withPasswords,omitempty" doc:"With createRoles: they keep their passwords"`
}

// DeleteResult says what the deletion of a link left.
type DeleteResult struct {
	Name   string        `json:"name" doc:"Name of the link that is gone"`
	Forced bool          `json:"forced" doc:"Whether the peer was left out"`
	Sides  []DeletedSide `json:"sides" nullable:"false" doc:"The two databases, the agent's own first"`
}

// The states of a database after its link was deleted.
const (
	Independent = "independent" // whole, readable and writable
	Incomplete  = "incomplete"  // a copy that was never finished and must not be used as the database
	Dropped     = "dropped"     // did not exist before the link and held an unfinished copy: it is gone
	Unknown     = "unknown"     // the peer was not asked
)

// DeletedSide is one database after its link was deleted.
type DeletedSide struct {
	Agent    string   `json:"agent" doc:"Name of the agent beside it"`
	Database string   `json:"database" doc:"Name of the database"`
	Role     Role     `json:"role" enum:"primary,secondary" doc:"What it was"`
	State    string   `json:"state" enum:"independent,incomplete,dropped,unknown" doc:"What it is now"`
	Text     string   `json:"text" doc:"The state in a sentence, with the position up to which a twin is whole"`
	Left     []string `json:"left" nullable:"false" doc:"Objects of the link that could not be removed"`
}

// LinkRoles compares the roles that a link's database needs on its two instances.
type LinkRoles struct {
	Link  string     `json:"link" doc:"Name of the link"`
	Agent string     `json:"agent" doc:"The agent beside the secondary, where the roles are compared"`
	Roles []LinkRole `json:"roles" nullable:"false" doc:"The primary's roles that the database needs or that have used it, by name"`
	Done  []RoleDone `json:"done" nullable:"false" doc:"What was brought, when that was asked for"`
}

// RoleState says how a role stands on the secondary.
type RoleState string

// The states of a role.
const (
	RoleSame    RoleState = "same"    // it has there what it has on the primary, or more
	RoleDiffers RoleState = "differs" // it is there, with less
	RoleMissing RoleState = "missing" // it is not there
)

// RolePassword says how a role's password on the secondary compares with the primary's.
// A password that was set on each side by itself differs, also when it is the same word.
type RolePassword string

// How passwords compare.
const (
	PasswordNone    RolePassword = "none"    // it has none on the primary
	PasswordSame    RolePassword = "same"    // as the primary's server keeps it
	PasswordDiffers RolePassword = "differs" // it was set on each side by itself
	PasswordMissing RolePassword = "missing" // it has none on the secondary
	PasswordUnknown RolePassword = "unknown" // one of the two cannot be told
)

// LinkRole is one of these roles.
type LinkRole struct {
	Name     string       `json:"name" doc:"Name of the role"`
	State    RoleState    `json:"state" enum:"same,differs,missing" doc:"How it stands on the secondary"`
	Lacks    []string     `json:"lacks" nullable:"false" doc:"Attributes and memberships that it has on the primary and not on the secondary"`
	Password RolePassword `json:"password" enum:"none,same,differs,missing,unknown" doc:"How its password compares"`
	UsedAt   *time.Time   `json:"usedAt" doc:"When it was last seen to use the primary's database; null if not within a day, as far as the primary's agent has run"`
	Refused  string       `json:"refused" doc:"Why it could not log in on the secondary; empty when nothing is known against it, or it does not log in on the primary"`
}

// RoleDone is what was done for a role on the secondary.
type RoleDone struct {
	Name string `json:"name" doc:"Name of the role"`
	Text string `json:"text" doc:"What was done, and what was left to the instance's owner"`
}

// BringRoles asks for what roles lack on the secondary.
type BringRoles struct {
	WithPasswords bool `json:"withPasswords,omitempty" doc:"With the passwords, as the hashes that servers keep; at the primary's agent"`
}
