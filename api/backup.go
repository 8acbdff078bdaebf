package api

import "time"

// Backups is what is known of the backups of a managed instance.
type Backups struct {
	Policy   BackupPolicy `json:"policy" doc:"What is kept, and where"`
	Known    bool         `json:"known" doc:"Whether the repository has answered since the agent began; else it is not known what it holds"`
	Backups  []Backup     `json:"backups" nullable:"false" doc:"The backups, the oldest first"`
	Next     *NextBackup  `json:"next,omitempty" doc:"What is due next; absent while that is not known"`
	From     *time.Time   `json:"restorableFrom,omitempty" doc:"First moment to which the instance can be restored; absent where there is none"`
	Until    *time.Time   `json:"restorableUntil,omitempty" doc:"Last moment, up to which everything is known to be in the repository"`
	Tasks    []BackupTask `json:"tasks" nullable:"false" doc:"Backups and verifications under way, and the last that ended"`
	Problems []Problem    `json:"problems" nullable:"false" doc:"What is wrong with the backups now"`
}

// Backup is one backup in the repository.
type Backup struct {
	Label      string    `json:"label" doc:"Its name in the repository" example:"20261129-235005F"`
	Type       string    `json:"type" enum:"full,diff,incr" doc:"What it copied: everything, what changed since the last full one, or since the last of any kind"`
	StartedAt  time.Time `json:"startedAt" doc:"When it began"`
	EndedAt    time.Time `json:"endedAt" doc:"When it was complete"`
	Bytes      int64     `json:"bytes" doc:"Size of the instance"`
	Stored     int64     `json:"storedBytes" doc:"What it added to the repository, in bytes"`
	Needs      []string  `json:"needs" nullable:"false" doc:"Labels of the backups that it builds on"`
	PageErrors bool      `json:"pageErrors" doc:"Whether pages of the instance had wrong checksums when it was made"`
}

// NextBackup is a backup that is due.
type NextBackup struct {
	Type string    `json:"type" enum:"full,diff,incr" doc:"Which"`
	At   time.Time `json:"at" doc:"When; it is made at once when that is past"`
}

// BackupPolicy says which backups are kept, and where.
type BackupPolicy struct {
	RetentionDays int    `json:"retentionDays" minimum:"1" maximum:"35" doc:"How many days back every moment can be restored"`
	Repository    string `json:"repository" doc:"Directory of the repository"`
}

// SetBackupPolicy changes a policy; what is absent stays.
type SetBackupPolicy struct {
	RetentionDays *int    `json:"retentionDays,omitempty" minimum:"1" maximum:"35" doc:"How many days back every moment can be restored"`
	Repository    *string `json:"repository,omitempty" minLength:"1" maxLength:"4096" doc:"Directory of the repository; the backups in the one of before stay there and are not used"`
}

// BackupRequest asks for a backup.
type BackupRequest struct {
	Type string `json:"type,omitempty" enum:"full,diff,incr" doc:"Which; incr when it is absent"`
}

// BackupTask is a backup or a verification.
type BackupTask struct {
	Number    int64           `json:"number" doc:"Its number since the agent began"`
	Kind      string          `json:"kind" enum:"backup,verify" doc:"What it does"`
	Type      string          `json:"type,omitempty" doc:"Of a backup: full, diff or incr"`
	State     string          `json:"state" enum:"waiting,running,done,failed" doc:"How far it is"`
	StartedAt time.Time       `json:"startedAt" doc:"When it began, or was asked for"`
	EndedAt   *time.Time      `json:"endedAt,omitempty" doc:"When it ended"`
	Error     *Error          `json:"error,omitempty" doc:"Why it failed"`
	Verified  *BackupVerified `json:"verified,omitempty" doc:"What a verification found"`
}

// BackupVerified is what a verification read and found.
type BackupVerified struct {
	Backups  int             `json:"backups" doc:"Backups that were read"`
	Segments int             `json:"segments" doc:"Segments of log that were read"`
	Findings []BackupFinding `json:"findings" nullable:"false" doc:"What is damaged or missing"`
}

// BackupFinding is something damaged or missing in the repository.
type BackupFinding struct {
	Backup string `json:"backup" doc:"Label of the backup; empty for log"`
	Text   string `json:"text" doc:"What is wrong"`
}

// BackupExport is all that a restore elsewhere needs, beside the repository itself. It holds a secret.
type BackupExport struct {
	Format     int    `json:"format" doc:"Version of this form"`
	Name       string `json:"name" doc:"Name of the agent"`
	SystemID   string `json:"systemId" doc:"System identifier of the instance; empty where it was not known"`
	Version    string `json:"version" doc:"Version of its server; empty where it was not known"`
	Repository string `json:"repository" doc:"Directory of the repository"`
	Stanza     string `json:"stanza" doc:"Name of the instance within the repository"`
	Cipher     string `json:"cipher" doc:"How the repository is encrypted"`
	Key        string `json:"key" doc:"Its key: a secret"`
}

// Instance is the instance beside an agent.
type Instance struct {
	Agent    string    `json:"agent" doc:"Name of the agent"`
	Postgres Postgres  `json:"postgres" doc:"The server"`
	Backups  *Backups  `json:"backups,omitempty" doc:"Of a managed instance that the agent makes backups of"`
	Problems []Problem `json:"problems" nullable:"false" doc:"What is wrong now with the agent or its instance"`
}

// RestorableDatabase is a database that can be restored, or could.
type RestorableDatabase struct {
	Name      string     `json:"name" doc:"Name of the database"`
	OID       uint32     `json:"oid" doc:"Its object identifier, which tells databases of one name apart"`
	Dropped   bool       `json:"dropped" doc:"Whether it was dropped"`
	SeenAt    time.Time  `json:"seenAt" doc:"When it was seen last"`
	DroppedBy *time.Time `json:"droppedBy,omitempty" doc:"When it was first missed, some seconds after its DROP"`
	From      *time.Time `json:"from,omitempty" doc:"First moment to which it can be restored; absent where there is none"`
	Until     *time.Time `json:"until,omitempty" doc:"Last moment; of a dropped database when it was seen last, and --deleted goes on to its DROP"`
}
