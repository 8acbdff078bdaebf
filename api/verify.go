package api

import "time"

// Verify asks for a comparison of both sides of a link.
type Verify struct {
	Repair         bool     `json:"repair,omitempty" doc:"Bring the secondary in line with the primary where that can be done"`
	Values         bool     `json:"values,omitempty" doc:"Report the values of rows that differ, not only their keys"`
	Tables         []string `json:"tables,omitempty" nullable:"false" doc:"Compare only these tables, as schema.name; everything by default"`
	BytesPerSecond int64    `json:"bytesPerSecond,omitempty" minimum:"0" doc:"How fast each side reads its tables at most; 0 for no limit"`
	Workers        int      `json:"workers,omitempty" minimum:"0" maximum:"64" doc:"Sessions that read at once on each side; 2 by default"`
	Limit          int      `json:"limit,omitempty" minimum:"0" maximum:"10000" doc:"Rows reported of each table, and repaired at once; 1000 by default"`
}

// VerificationState says how a verification stands.
type VerificationState string

// The states of a verification.
const (
	Verifying VerificationState = "running"   // under way
	Equal     VerificationState = "equal"     // nothing differs
	Different VerificationState = "different" // something differs
	Repaired  VerificationState = "repaired"  // something differed and does no more
	Failed    VerificationState = "failed"    // it could not be done; the problem says why
	Cancelled VerificationState = "cancelled" // somebody ended it
)

// Verification is a comparison of both sides of a link at one position of the
// primary's log: how far it is, and what it found.
type Verification struct {
	Link            string               `json:"link" doc:"Name of the link"`
	State           VerificationState    `json:"state" enum:"running,equal,different,repaired,failed,cancelled" doc:"How it stands"`
	Step            string               `json:"step" doc:"What is being done, in words; empty when it is over" example:"comparing rows"`
	StartedAt       time.Time            `json:"startedAt" doc:"When it began"`
	EndedAt         *time.Time           `json:"endedAt" doc:"When it was over; null before"`
	Position        string               `json:"position" doc:"The position of the primary's log at which both sides were compared; empty before it is known" example:"0/1A2B3C8"`
	ConfirmedAt     string               `json:"confirmedAt" doc:"The later position at which what differed was looked at again; empty when nothing differed"`
	PauseSeconds    float64              `json:"pauseSeconds" doc:"The longest time for which the secondary applied nothing for it"`
	TablesTotal     int                  `json:"tablesTotal" doc:"Tables whose rows are compared"`
	TablesDone      int                  `json:"tablesDone" doc:"Tables whose rows were compared"`
	BytesTotal      int64                `json:"bytesTotal" doc:"Size of those tables"`
	BytesDone       int64                `json:"bytesDone" doc:"Part of bytesTotal that was read"`
	Rows            int64                `json:"rows" doc:"Rows of the primary that were compared"`
	Blocks          int64                `json:"blocks" doc:"Blocks of rows whose digests were compared"`
	BlocksFetched   int64                `json:"blocksFetched" doc:"Unequal blocks whose rows were looked at one by one"`
	RowsFetched     int64                `json:"rowsFetched" doc:"Rows of those blocks, both sides together, each time they were looked at"`
	Differences     []Difference         `json:"differences" nullable:"false" doc:"What differs, the schema first"`
	MoreRows        []string             `json:"moreRows" nullable:"false" doc:"Tables of which more rows differ than are listed"`
	Sequences       []SequenceDifference `json:"sequences" nullable:"false" doc:"Sequences that stand elsewhere on the secondary"`
	Skipped         []SkippedTable       `json:"skipped" nullable:"false" doc:"Tables whose rows were not compared"`
	Problem         *Problem             `json:"problem" doc:"Why it failed, or what could not be repaired; null otherwise"`
	RepairedRows    int                  `json:"repairedRows" doc:"Rows that were brought in line"`
	RepairedObjects int                  `json:"repairedObjects" doc:"Indexes, constraints and sequences that were brought in line"`
}

// Difference is something that is not on the secondary as it is on the primary.
type Difference struct {
	Kind      string   `json:"kind" doc:"row, or the kind of an object of the schema" example:"row"`
	Object    string   `json:"object" doc:"The table of a row, or the object" example:"public.orders"`
	State     string   `json:"state" enum:"missing,extra,differs" doc:"missing: the secondary lacks it; extra: only the secondary has it"`
	Key       []Value  `json:"key" nullable:"false" doc:"The key of a row; empty for a table without one"`
	Hash      string   `json:"hash" doc:"The hash of a row without a key; empty otherwise"`
	Columns   []string `json:"columns" nullable:"false" doc:"The columns of a row that differ"`
	Primary   string   `json:"primary" doc:"The object's definition on the primary, or the number of rows with the key"`
	Secondary string   `json:"secondary" doc:"The same on the secondary"`
	Values    []Pair   `json:"values" nullable:"false" doc:"The values that differ, when they were asked for"`
	Repair    string   `json:"repair" doc:"A statement for the secondary, in a session with session_replication_role = replica; or the command that repairs it"`
	Repaired  bool     `json:"repaired" doc:"Whether it was brought in line"`
}

// Value is a column with its value.
type Value struct {
	Column string `json:"column" doc:"Name of the column"`
	Value  string `json:"value" doc:"The value as text"`
}

// Pair is a column with its values on both sides.
type Pair struct {
	Column    string  `json:"column" doc:"Name of the column"`
	Primary   *string `json:"primary" doc:"The value on the primary as text; null is NULL, or no row"`
	Secondary *string `json:"secondary" doc:"The same on the secondary"`
}

// SequenceDifference is a sequence that stands elsewhere on the secondary.
type SequenceDifference struct {
	Name      string `json:"name" doc:"The sequence"`
	Primary   int64  `json:"primary" doc:"The value that comes next on the primary"`
	Secondary int64  `json:"secondary" doc:"The value that comes next on the secondary"`
	State     string `json:"state" enum:"behind,ahead" doc:"behind: values would be handed out again, unless it is set before it is needed; ahead: it was moved by somebody else, and counts as different"`
	Repaired  bool   `json:"repaired" doc:"Whether it was set"`
}

// SkippedTable is a table whose rows were not compared.
type SkippedTable struct {
	Table string `json:"table" doc:"The table"`
	Why   string `json:"why" doc:"Why it was not compared"`
}
