package api

import "time"

// Backups is what is known of the backups of a managed instance.
type Backups struct {
	Policy BackupPolicy `json:"policy" doc:"What is kept, and where"`
	Known  bool         `json:"known" doc:"Whether every repository has answered since the agent began; else it is not known what it holds"`
	// Repositories are those of the policy.
	Repositories []BackupRepository `json:"repositories" nullable:"false" doc:"How each repository stands"`
	Backups      []Backup           `json:"backups" nullable:"false" doc:"The backups, of each repository the oldest first"`
	Next         *NextBackup        `json:"next,omitempty" doc:"What is due next; absent while that is not known"`
	From         *time.Time         `json:"restorableFrom,omitempty" doc:"First moment to which the instance can be restored; absent where there is none"`
	Until        *time.Time         `json:"restorableUntil,omitempty" doc:"Last moment, up to which everything is known to be in the repository"`
	Tasks        []BackupTask       `json:"tasks" nullable:"false" doc:"Backups, verifications and test restores under way, and the last of each that ended"`
	Problems     []Problem          `json:"problems" nullable:"false" doc:"What is wrong with the backups now"`
}

// BackupRepository says how one repository stands.
type BackupRepository struct {
	Number     int         `json:"number" doc:"Names it as long as the policy has it"`
	Place      string      `json:"place" doc:"Where it is: a directory, or a path in an object store" example:"s3://backups/b?endpoint=s3.eu-central-1.amazonaws.com&region=eu-central-1"`
	Known      bool        `json:"known" doc:"Whether it has answered since the agent began"`
	Next       *NextBackup `json:"next,omitempty" doc:"What is due next in it; absent while that is not known"`
	From       *time.Time  `json:"restorableFrom,omitempty" doc:"First moment to which it can restore the instance; absent where there is none"`
	Until      *time.Time  `json:"restorableUntil,omitempty" doc:"Last moment, up to which everything is known to be in it"`
	Owed       int         `json:"owed" doc:"Files of the log that it missed while it did not answer, and that are brought to it out of another"`
	VerifiedAt *time.Time  `json:"verifiedAt,omitempty" doc:"When it was read as a whole last; absent for never"`
	TestedAt   *time.Time  `json:"testedAt,omitempty" doc:"When one of its backups was last restored to prove it; absent for never"`
	Problems   []Problem   `json:"problems" nullable:"false" doc:"What is wrong with it now"`
}

// Backup is one backup in a repository.
type Backup struct {
	Repository int       `json:"repository" doc:"Number of the repository that holds it"`
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
	RetentionDays int               `json:"retentionDays" minimum:"1" maximum:"35" doc:"How many days back every moment can be restored"`
	Repository    string            `json:"repository" doc:"Place of the first repository"`
	Repositories  []RepositoryPlace `json:"repositories" nullable:"false" doc:"All repositories"`
}

// RepositoryPlace is a repository that a policy names.
type RepositoryPlace struct {
	Number int    `json:"number" doc:"Names it as long as the policy has it"`
	Place  string `json:"place" doc:"A directory, or a path in an object store"`
}

// SetBackupPolicy changes a policy; what is absent stays.
type SetBackupPolicy struct {
	RetentionDays *int    `json:"retentionDays,omitempty" minimum:"1" maximum:"35" doc:"How many days back every moment can be restored"`
	Repository    *string `json:"repository,omitempty" minLength:"1" maxLength:"4096" doc:"Place of the one repository: a directory, or a path in an object store. The backups in those of before stay there and are not used"`
	// Add and Remove change the list of repositories by one.
	Add    *string `json:"addRepository,omitempty" minLength:"1" maxLength:"4096" doc:"Place of one more repository; of one that there is the credentials are changed"`
	Remove *string `json:"removeRepository,omitempty" minLength:"1" maxLength:"4096" doc:"Place of a repository that is not used any more; what it holds stays there"`
	// Credentials hold secrets.
	Credentials map[string]string `json:"credentials,omitempty" doc:"Secrets that open the repository named, an object store: of S3 key and secret, and token for temporary ones; of Azure key or sas; of GCS service (the JSON of a service account) or token"`
}

// BackupRequest asks for a backup.
type BackupRequest struct {
	Type string `json:"type,omitempty" enum:"full,diff,incr" doc:"Which; incr when it is absent"`
}

// BackupTask is a backup, a verification or a test restore.
type BackupTask struct {
	Number    int64            `json:"number" doc:"Its number since the agent began"`
	Kind      string           `json:"kind" enum:"backup,verify,test" doc:"What it does"`
	Type      string           `json:"type,omitempty" doc:"Of a backup: full, diff or incr"`
	State     string           `json:"state" enum:"waiting,running,done,failed" doc:"How far it is"`
	StartedAt time.Time        `json:"startedAt" doc:"When it began, or was asked for"`
	EndedAt   *time.Time       `json:"endedAt,omitempty" doc:"When it ended"`
	Error     *Error           `json:"error,omitempty" doc:"Why it failed"`
	Verified  *BackupVerified  `json:"verified,omitempty" doc:"What a verification found"`
	Tested    *BackupTested    `json:"tested,omitempty" doc:"What a test restore has read"`
	Parts     []BackupTaskPart `json:"repositories,omitempty" doc:"How it stands in each repository, where there are several"`
}

// BackupTaskPart is a backup, a verification or a test restore of one repository.
type BackupTaskPart struct {
	Number   int             `json:"number" doc:"Number of the repository"`
	Place    string          `json:"place" doc:"Where it is"`
	State    string          `json:"state" enum:"waiting,running,done,failed" doc:"How far it is there"`
	Error    *Error          `json:"error,omitempty" doc:"Why it failed there"`
	Verified *BackupVerified `json:"verified,omitempty" doc:"What a verification found there"`
	Tested   *BackupTested   `json:"tested,omitempty" doc:"What a test restore has read there"`
}

// BackupTested is what a test restore brought back and read: all of the instance.
type BackupTested struct {
	Backup    string    `json:"backup" doc:"Label of the backup that was restored"`
	Until     time.Time `json:"until" doc:"The moment to which the log was recovered"`
	Databases int       `json:"databases" doc:"Databases that were read"`
	Tables    int       `json:"tables" doc:"Tables and materialized views that were read, those of the catalogs included"`
	Rows      int64     `json:"rows" doc:"Rows that were read"`
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
	Format       int                 `json:"format" doc:"Version of this form"`
	Name         string              `json:"name" doc:"Name of the agent"`
	SystemID     string              `json:"systemId" doc:"System identifier of the instance; empty where it was not known"`
	Version      string              `json:"version" doc:"Version of its server; empty where it was not known"`
	Repository   string              `json:"repository" doc:"Place of the first repository"`
	Repositories []RestoreRepository `json:"repositories" nullable:"false" doc:"All repositories, with what opens them"`
	Stanza       string              `json:"stanza" doc:"Name of the instance within the repository"`
	Cipher       string              `json:"cipher" doc:"How the repository is encrypted"`
	Key          string              `json:"key" doc:"Its key: a secret"`
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
