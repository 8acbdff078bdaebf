package api

import "time"

// Lost is what forced failovers of a link have left behind: transactions that a
// former primary had committed and its twin never got.
type Lost struct {
	Link     string    `json:"link" doc:"Name of the link"`
	Partings []Parting `json:"partings" nullable:"false" doc:"One for each forced failover that left a side behind, the oldest first"`
}

// PartingState says what is known of a parting.
type PartingState string

// The states of a parting.
const (
	PartingReading    PartingState = "reading"    // the transactions are still being read
	PartingRead       PartingState = "read"       // all of them are recorded
	PartingUnreadable PartingState = "unreadable" // they cannot be read; Problem says why
	PartingDiscarded  PartingState = "discarded"  // somebody discarded the record
)

// Parting is what one forced failover left behind.
type Parting struct {
	Epoch        int64        `json:"epoch" doc:"The epoch that the failover began"`
	Agent        string       `json:"agent" doc:"Name of the agent beside the former primary, which keeps the record"`
	Database     string       `json:"database" doc:"The database there"`
	State        PartingState `json:"state" enum:"reading,read,unreadable,discarded" doc:"What is known"`
	Mended       bool         `json:"mended" doc:"Whether nothing is left to rejoin: a rejoin has brought the rows in line with the new primary's, or the side has become the primary again"`
	Parted       string       `json:"parted" doc:"The position in the former primary's log where the histories part" example:"0/1A2B3C8"`
	ReadTo       string       `json:"readTo" doc:"The position in that log up to which everything is recorded"`
	Transactions int64        `json:"transactions" doc:"Transactions that were lost"`
	Changes      int64        `json:"changes" doc:"What they changed: rows, truncated tables, commands about the schema"`
	First        *time.Time   `json:"first" doc:"When the first of them committed; null when there is none"`
	Last         *time.Time   `json:"last" doc:"When the last of them committed; null when there is none"`
	Tables       []LostTable  `json:"tables" nullable:"false" doc:"What was lost of each table"`
	Problem      *Problem     `json:"problem" doc:"Why they cannot be read; null otherwise"`
}

// LostTable counts what was lost of a table.
type LostTable struct {
	Table     string `json:"table" doc:"The table" example:"public.orders"`
	Inserts   int64  `json:"inserts" doc:"Inserted rows"`
	Updates   int64  `json:"updates" doc:"Updated rows"`
	Deletes   int64  `json:"deletes" doc:"Deleted rows"`
	Truncates int64  `json:"truncates" doc:"How often it was truncated"`
	Rewrites  int64  `json:"rewrites" doc:"How often a command about the schema gave every row new values"`
}

// LostPage is a part of the lost transactions, in commit order.
type LostPage struct {
	Transactions []LostTransaction `json:"transactions" nullable:"false" doc:"The transactions. The last may go on in the next page, which then begins with the same number"`
	Next         int64             `json:"next" doc:"What to give as after for the next page"`
	More         bool              `json:"more" doc:"Whether there may be a next page"`
}

// LostTransaction is a lost transaction.
type LostTransaction struct {
	Number      int64        `json:"number" doc:"Its place in the order of commits, from 1"`
	XID         int64        `json:"xid" doc:"Its number on the former primary"`
	Position    string       `json:"position" doc:"The end of its commit in the former primary's log"`
	CommittedAt time.Time    `json:"committedAt" doc:"When it committed, by the former primary's clock"`
	Total       int64        `json:"total" doc:"How many changes it has"`
	Changes     []LostChange `json:"changes" nullable:"false" doc:"Its changes, in order"`
}

// LostChange is a change of a lost transaction.
type LostChange struct {
	Number   int64       `json:"number" doc:"Its place among all that was lost, from 1"`
	Kind     string      `json:"kind" enum:"insert,update,delete,truncate,schema,rewrite" doc:"What it did"`
	Table    string      `json:"table" doc:"The table; of a command about the schema what that is about"`
	Key      []string    `json:"key" nullable:"false" doc:"Columns of the table's key; empty when its rows cannot be told apart"`
	Old      []LostValue `json:"old" nullable:"false" doc:"What is told of the row before: nothing of most updates, the key of most deletions, everything of a table without a key"`
	New      []LostValue `json:"new" nullable:"false" doc:"The row after"`
	Text     string      `json:"text" doc:"The options of a TRUNCATE, or a command about the schema"`
	SQL      string      `json:"sql" doc:"A statement that does it again, when it was asked for; the values are left out then"`
	Complete bool        `json:"complete" doc:"Whether the statement does all that the change did"`
}

// LostValue is a column with its value.
type LostValue struct {
	Column string  `json:"column" doc:"Name of the column"`
	Value  *string `json:"value" doc:"The value as text, null for NULL; of a long one the beginning"`
	State  string  `json:"state" enum:"value,null,unchanged,long" doc:"unchanged: the update left it as it was, and it was not told"`
	Hex    bool    `json:"hex,omitempty" doc:"The value is bytes in hexadecimal: they are no text"`
	Bytes  int64   `json:"bytes,omitempty" doc:"Length of a long value"`
}

// Rejoin asks for a former primary to become a twin again.
type Rejoin struct {
	Accept []string `json:"accept,omitempty" doc:"What may be done besides overwriting rows: reseed_tables, drop_objects, keep_schema, compare_database; or copy_database alone"`
}

// RejoinPlan says what it takes to make a former primary a twin again.
type RejoinPlan struct {
	Link         string        `json:"link" doc:"Name of the link"`
	Agent        string        `json:"agent" doc:"Name of the agent beside the former primary"`
	Database     string        `json:"database" doc:"The database there"`
	Phase        Phase         `json:"phase" doc:"The former primary's phase: fenced before a rejoin, seeding during it"`
	Step         string        `json:"step" doc:"What a rejoin under way is doing; empty otherwise"`
	Problem      *Problem      `json:"problem" doc:"What stopped a rejoin; null otherwise"`
	Needs        []string      `json:"needs" nullable:"false" doc:"What has to be accepted: reseed_tables, drop_objects, keep_schema, compare_database, copy_database. In place of compare_database, with all that goes with it, copy_database can be accepted"`
	Cleared      bool          `json:"cleared" doc:"Whether a rejoin had begun before and goes on; the lists are empty then"`
	Tables       []RejoinTable `json:"tables" nullable:"false" doc:"Tables of which rows are overwritten with the new primary's"`
	Reseed       []ReseedTable `json:"reseed" nullable:"false" doc:"Tables that are copied anew"`
	Drop         []string      `json:"drop" nullable:"false" doc:"Objects that the new primary does not have, and that are dropped"`
	Build        []string      `json:"build" nullable:"false" doc:"Objects that a comparison makes as the new primary has them"`
	Stays        []string      `json:"stays" nullable:"false" doc:"What a comparison could not bring in line, so that the whole database is copied anew"`
	Keep         []string      `json:"keep" nullable:"false" doc:"Lost commands whose effect stays: grants and comments"`
	Irreversible []string      `json:"irreversible" nullable:"false" doc:"Lost commands that cannot be undone: the whole database is compared with the new primary's"`
	Unreadable   string        `json:"unreadable" doc:"The code of why what was lost is not known, or cannot be mended by itself, so that the whole database is compared with the new primary's; empty otherwise"`
}

// RejoinTable is a table of which rows are overwritten.
type RejoinTable struct {
	Table   string `json:"table" doc:"The table"`
	Changes int64  `json:"changes" doc:"Lost changes of its rows; rows of the same key are overwritten once"`
}

// ReseedTable is a table that is copied anew.
type ReseedTable struct {
	Table string `json:"table" doc:"The table"`
	Why   string `json:"why" enum:"truncated,rewritten,keyless,differs,missing" doc:"Why its rows cannot be overwritten one by one"`
	Bytes int64  `json:"bytes" doc:"Its size on the former primary"`
}
