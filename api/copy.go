package api

import "time"

// CopyDatabase asks for an independent copy of a database of the instance.
type CopyDatabase struct {
	Database       string `json:"database" minLength:"1" maxLength:"63" doc:"The database to copy: a twin, a primary, or one without a link" example:"sales"`
	Name           string `json:"name" minLength:"1" maxLength:"63" doc:"Name of the new database" example:"sales_2024"`
	Peer           string `json:"peer,omitempty" maxLength:"63" doc:"The peer on whose instance it is made; this instance by default"`
	BytesPerSecond int64  `json:"bytesPerSecond,omitempty" minimum:"0" doc:"How fast rows are copied at most; 0 for no limit"`
}

// CopyState says how a copy stands.
type CopyState string

// The states of a copy.
const (
	Copying       CopyState = "running"   // under way
	Copied        CopyState = "done"      // the database is there
	CopyFailed    CopyState = "failed"    // it could not be made; the problem says why
	CopyCancelled CopyState = "cancelled" // somebody ended it
)

// DatabaseCopy is an independent copy of a database at one position: how far it is, or
// what was made.
type DatabaseCopy struct {
	ID             string     `json:"id" doc:"Identifies it"`
	Database       string     `json:"database" doc:"The database that is copied"`
	Name           string     `json:"name" doc:"Name of the new database"`
	Peer           string     `json:"peer" doc:"The peer on whose instance it is made, or from whose it comes; empty for a copy on the same instance"`
	Incoming       bool       `json:"incoming" doc:"Whether it is made here for the peer"`
	State          CopyState  `json:"state" enum:"running,done,failed,cancelled" doc:"How it stands"`
	Step           string     `json:"step" doc:"What is being done, in words; empty when it is over" example:"copying tables"`
	StartedAt      time.Time  `json:"startedAt" doc:"When it began"`
	EndedAt        *time.Time `json:"endedAt" doc:"When it was over; null before"`
	Link           string     `json:"link" doc:"The link of the twin that is copied; empty for another database"`
	Position       string     `json:"position" doc:"The position at which it is copied, of a twin in the primary's log, otherwise in the instance's own; empty before it is known" example:"0/1A2B3C8"`
	Exact          bool       `json:"exact" doc:"Whether exactly the transactions that committed before the position are in it. Otherwise all that are in it did, and of others it is not known"`
	CommittedAt    *time.Time `json:"committedAt" doc:"Of a twin: when the last transaction before the position committed on the primary; null where it is not known"`
	LargeObjects   int64      `json:"largeObjects" doc:"Large objects that it has"`
	ObjectsAsOf    *time.Time `json:"objectsAsOf" doc:"Of a twin with large objects: as of when it had them from the primary; null otherwise"`
	TablesTotal    int        `json:"tablesTotal" doc:"Tables whose rows are copied"`
	TablesDone     int        `json:"tablesDone" doc:"Tables whose rows were copied"`
	BytesTotal     int64      `json:"bytesTotal" doc:"Size of those tables"`
	BytesDone      int64      `json:"bytesDone" doc:"Part of bytesTotal that was copied"`
	BytesPerSecond int64      `json:"bytesPerSecond" doc:"How fast it is lately"`
	Attempt        int        `json:"attempt" doc:"How often it was begun: a table that is truncated meanwhile has it begun anew"`
	Roles          []string   `json:"roles" nullable:"false" doc:"Roles that were missing and were made, without the right to log in"`
	Left           []string   `json:"left" nullable:"false" doc:"What the copy does not have, with why"`
	Problem        *Problem   `json:"problem" doc:"Why it failed; null otherwise"`
	Restore        *Restored  `json:"restore" doc:"Of a copy that is made out of a backup: to which moment; null otherwise"`
}

// RestoreDatabase asks for a database of the instance as it was at a moment, as a new database.
type RestoreDatabase struct {
	Database       string       `json:"database" minLength:"1" maxLength:"63" doc:"The database to restore, which may have been dropped" example:"sales"`
	Name           string       `json:"name" minLength:"1" maxLength:"63" doc:"Name of the new database" example:"sales_before"`
	At             *time.Time   `json:"at,omitempty" doc:"The moment: what was committed then or before is in it, of a twin what was committed then on its primary. Required without deleted"`
	Deleted        bool         `json:"deleted,omitempty" doc:"Restore a database that was dropped to its last row before the DROP; of several of one name the one that was dropped last"`
	Peer           string       `json:"peer,omitempty" maxLength:"63" doc:"The peer on whose instance it is made; this instance by default"`
	BytesPerSecond int64        `json:"bytesPerSecond,omitempty" minimum:"0" doc:"How fast rows are copied out of the restored backup at most; 0 for no limit"`
	From           *RestoreFrom `json:"from,omitempty" doc:"The repository of another instance, which may be gone; the agent's own instance by default"`
}

// RestoreFrom is where a restore reads the backups of another instance. It holds secrets.
type RestoreFrom struct {
	Repository  string              `json:"repository" minLength:"1" maxLength:"4096" doc:"Place of the repository: a directory, as the agent's machine has it, or a path in an object store"`
	Credentials map[string]string   `json:"credentials,omitempty" doc:"What opens an object store: secrets"`
	Others      []RestoreRepository `json:"others,omitempty" doc:"More repositories of the same instance, which are tried in turn where one cannot be used"`
	Key         string              `json:"key" minLength:"1" maxLength:"1000" doc:"The key of all: a secret"`
}

// RestoreRepository is a repository with what opens it.
type RestoreRepository struct {
	Place       string            `json:"place" minLength:"1" maxLength:"4096" doc:"A directory, or a path in an object store"`
	Credentials map[string]string `json:"credentials,omitempty" doc:"What opens an object store: secrets"`
}

// Restored says out of what a database is restored, and to where.
type Restored struct {
	At       *time.Time `json:"at" doc:"The moment that was asked for; null for a dropped database as it was before its DROP"`
	From     string     `json:"from" doc:"Place of the repository, where it is another instance's; empty otherwise"`
	Deleted  bool       `json:"deleted" doc:"Whether it is as it was before its DROP"`
	Backup   string     `json:"backup" doc:"Label of the backup that the restore begins with; empty before it is chosen"`
	Reached  bool       `json:"reached" doc:"Whether the moment is reached"`
	Position string     `json:"position" doc:"The position reached in the log of the instance that was backed up: what committed before it is in, nothing else. Of a twin the copy's position is the primary's; empty before it is reached"`
	LastAt   *time.Time `json:"lastTransactionAt" doc:"When the last transaction of the instance before the position ended; null where the log behind the backup has none, or before it is reached"`
	EndOfLog bool       `json:"endOfLog" doc:"Whether the log in the repository ends before the moment: it holds no transaction that ended later, of a twin none that committed later on its primary"`
	// PrimaryLast belongs to the last transaction of the primary that is in.
	PrimaryLast string `json:"primaryLastTransaction" doc:"Of a twin that is restored to a moment: the position in the primary's log with which its last transaction was applied: it ended there or before, committedAt says when it committed, and no later one with changes lies between. Empty where the log behind the backup has none"`
}
