package api

import "time"

// Instance is the instance beside an agent.
type Instance struct {
	Agent       string            `json:"agent" doc:"Name of the agent"`
	Postgres    Postgres          `json:"postgres" doc:"The server"`
	Installed   string            `json:"installed,omitempty" example:"15.20" doc:"Release of the programs beside a managed server, which it runs after its next start; absent where it is not known"`
	Roles       InstanceRoles     `json:"roles" doc:"What its databases are in the links"`
	Size        *InstanceSize     `json:"size,omitempty" doc:"Tier and size; of a managed instance"`
	Enforcement *Enforcement      `json:"enforcement,omitempty" doc:"What holds the server to its size; of a managed instance"`
	Storage     *InstanceStorage  `json:"storage,omitempty" doc:"Of a managed instance; absent until it was measured"`
	Encryption  *EncryptionAtRest `json:"encryption,omitempty" doc:"How the data directory is encrypted; absent where the server is not on the agent's machine, or that is not known"`
	Usage       *UsageHour        `json:"usage,omitempty" doc:"The hour under way; of a managed instance whose hours are counted"`
	Backups     *Backups          `json:"backups,omitempty" doc:"Of a managed instance that the agent makes backups of"`
	Problems    []Problem         `json:"problems" nullable:"false" doc:"What is wrong now with the agent or its instance"`
}

// InstanceRoles counts the sides of links in an instance.
type InstanceRoles struct {
	Known     bool `json:"known" doc:"Whether the links were found; else the numbers say nothing"`
	Primary   int  `json:"primary" doc:"Links whose primary is here"`
	Secondary int  `json:"secondary" doc:"Links whose secondary is here"`
}

// InstanceSize is the size of a managed instance, as its operator declared it.
type InstanceSize struct {
	Tier         string `json:"tier" enum:"general-purpose,business-critical" doc:"Service tier"`
	VCores       int    `json:"vcores,omitempty" doc:"Processors; absent where none were declared: the instance shares its machine"`
	MemoryBytes  int64  `json:"memoryBytes,omitempty" doc:"Memory; absent where none was declared"`
	StorageBytes int64  `json:"storageBytes,omitempty" doc:"Storage; absent where none was declared: the file system is the limit"`
	Benefit      string `json:"benefit" enum:"none,passive-dr" doc:"passive-dr: nobody works on it, it is there for a disaster alone"`
}

// Enforcement says what holds a managed server to its size.
type Enforcement struct {
	Settings   bool     `json:"settings" doc:"Whether settings of the server follow from the size"`
	Limits     bool     `json:"limits" doc:"Whether the kernel holds the server's processes to vCores and memory, by a control group"`
	Why        string   `json:"why,omitempty" doc:"Why the kernel does not"`
	Pending    []string `json:"pending" nullable:"false" doc:"Settings that wait for a restart of the server"`
	Overridden []string `json:"overridden" nullable:"false" doc:"Settings of the size that somebody has set otherwise, as with ALTER SYSTEM"`
	Known      bool     `json:"known" doc:"Whether the server was asked for pending and overridden settings; they are unknown else"`
}

// InstanceStorage is the storage of a managed instance.
type InstanceStorage struct {
	UsedBytes  int64      `json:"usedBytes" doc:"What data directory and tablespaces take"`
	LimitBytes int64      `json:"limitBytes" doc:"What they may take: the size's storage, or what the file system lets them where that is less"`
	FreeBytes  int64      `json:"freeBytes" doc:"What is left of it"`
	FileSystem int64      `json:"fileSystemFreeBytes" doc:"What is free on the file system of the data directory"`
	MeasuredAt time.Time  `json:"measuredAt" doc:"When"`
	FullAt     *time.Time `json:"fullAt,omitempty" doc:"When it is full if it goes on as it has; absent where nothing says that it will be soon, and while too little was seen"`
	Rate       *float64   `json:"bytesPerSecond,omitempty" doc:"How fast it grows, over the time that the forecast looks back; absent while too little was seen"`
	Window     float64    `json:"windowSeconds" doc:"How far the forecast looks back"`
}

// EncryptionAtRest is how data at rest is encrypted, as far as the machine shows it.
type EncryptionAtRest struct {
	Kind   string `json:"kind" enum:"dm-crypt,file system,unknown" doc:"unknown: this machine does not encrypt; the disk itself, or the volume of a cloud, may"`
	Detail string `json:"detail,omitempty" doc:"File system and device" example:"ext4 on /dev/mapper/data"`
}

// SetInstance changes the size of a managed instance. What is absent stays.
type SetInstance struct {
	Tier         *string `json:"tier,omitempty" doc:"Service tier"`
	VCores       *int    `json:"vcores,omitempty" minimum:"1" maximum:"1024" doc:"Processors"`
	MemoryBytes  *int64  `json:"memoryBytes,omitempty" minimum:"1073741824" doc:"Memory"`
	StorageBytes *int64  `json:"storageBytes,omitempty" minimum:"268435456" doc:"Storage"`
	Benefit      *string `json:"benefit,omitempty" enum:"none,passive-dr" doc:"Whether nobody works on it"`
	Restart      bool    `json:"restart,omitempty" doc:"Restart the server where a setting needs that: its sessions end"`
}

// InstanceChange says what a change of a managed instance's size has done.
type InstanceChange struct {
	Size      InstanceSize `json:"size" doc:"The size now"`
	Restarted bool         `json:"restarted" doc:"Whether the server was restarted"`
	Pending   []string     `json:"pending" nullable:"false" doc:"Settings that take effect when the server is restarted"`
	Limits    string       `json:"limits,omitempty" doc:"Why the kernel does not hold the server to vCores and memory; absent where it does, and where nothing was declared"`
}

// InstanceUpdate says which servers of a managed instance run another release of their major version now.
type InstanceUpdate struct {
	Release string         `json:"release" example:"15.20" doc:"What the server that takes writes runs now"`
	Servers []ServerUpdate `json:"servers" nullable:"false" doc:"The servers that were restarted, in this order; none where nothing newer is installed"`
}

// ServerUpdate is one of them.
type ServerUpdate struct {
	Member  string  `json:"member,omitempty" doc:"Whose server; absent where the instance has no members"`
	From    string  `json:"from" example:"15.18" doc:"What it ran"`
	To      string  `json:"to" example:"15.20" doc:"What it runs"`
	Led     bool    `json:"led" doc:"Whether it took writes before"`
	Seconds float64 `json:"seconds" doc:"How long it took no sessions; of a former leader with standbys, how long no member took writes"`
}
