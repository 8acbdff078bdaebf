package link

import (
	"time"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/assess"
	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/side"
)

// The methods by which the two agents of a link speak (docs/format/stream.md), beside those of the
// packages that have requests of their own.
const (
	MethodProbe  = "link.probe"  // take these bytes and say how long they took
	MethodCheck  = "link.check"  // what stands against a twin on your instance?
	MethodCreate = "link.create" // make the twin's database and record
	MethodInvert = "link.invert" // create a link whose primary is yours
	MethodChange = "link.change" // suspend or resume
	MethodSet    = "link.set"    // take these settings
	MethodRepair = "link.repair" // resume with a repair of your twin
	MethodDelete = "link.delete" // remove your side

	// MethodSeedingTables is asked by the primary of the secondary, MethodReport by the
	// secondary of the primary.
	MethodSeedingTables = "seed.progress" // how far is each table?
	MethodReport        = "link.report"   // here is how I stand; how do you?
)

// CheckRequest asks whether an instance can take a twin.
type CheckRequest struct {
	Source   assess.Source `json:"source"`
	Needs    assess.Needs  `json:"needs"`
	Database string        `json:"database"`
}

// CheckResponse answers it.
type CheckResponse struct {
	Findings []assess.Finding `json:"findings"`
}

// CreateRequest asks the secondary's agent for its side. It can be repeated.
type CreateRequest struct {
	ID             string        `json:"id"`
	Name           string        `json:"name"`
	Epoch          int64         `json:"epoch"`
	Mode           string        `json:"mode"`
	SyncTimeout    int           `json:"syncTimeout"`
	OnConflict     string        `json:"onConflict,omitempty"`
	MaxRate        int64         `json:"maxRate,omitempty"` // of the seeding, bytes a second
	Database       string        `json:"database"`          // on the secondary
	Source         assess.Source `json:"source"`
	PrimaryAddress string        `json:"primaryAddress"`
	// Notices are what was done on the secondary before the link was made.
	Notices []catalog.Notice `json:"notices,omitempty"`
}

// ChangeRequest carries a suspension or its end to the other side.
type ChangeRequest struct {
	ID        string `json:"id"`
	Suspended bool   `json:"suspended"`
	Change    int64  `json:"change"`
}

// Reference names a link, with the epoch that the asking side knows.
type Reference = side.Reference

// Report is how the secondary stands. It is sent every second.
type Report struct {
	Reference
	Phase     string       `json:"phase"`
	Seeded    bool         `json:"seeded"`
	Diverged  bool         `json:"diverged,omitempty"`
	Suspended bool         `json:"suspended"`
	Change    int64        `json:"change"`
	Step      string       `json:"step,omitempty"` // what it does in a phase without a measure
	Seeding   api.Progress `json:"seeding"`
	// StepSeconds is for how long Step has gone on.
	StepSeconds float64         `json:"stepSeconds,omitempty"`
	Received    lsn.LSN         `json:"received"`
	Applied     lsn.LSN         `json:"applied"`
	Durable     lsn.LSN         `json:"durable"`
	Format      int             `json:"format,omitempty"`     // capture.Format of the secondary's agent
	Lag         *float64        `json:"lagSeconds,omitempty"` // nil: it is not known
	Rates       *api.Rates      `json:"rates,omitempty"`      // nil: nothing streams
	Time        *api.TimeShares `json:"time,omitempty"`
	Spilled     int64           `json:"spilled,omitempty"` // bytes of streamed transactions on disk
	Problems    []api.Problem   `json:"problems"`

	LargeObjects  *api.LargeObjects `json:"largeObjects,omitempty"`
	Audit         *api.Audit        `json:"audit,omitempty"`
	SchemaChanges api.SchemaChanges `json:"schemaChanges,omitempty"`

	Settings Settings `json:"settings"`
}

// Answer is how the primary stands.
type Answer struct {
	Phase     string        `json:"phase"`
	Epoch     int64         `json:"epoch"`
	Suspended bool          `json:"suspended"`
	Change    int64         `json:"change"`
	Deleting  bool          `json:"deleting"`
	Written   lsn.LSN       `json:"written"`
	Sent      lsn.LSN       `json:"sent"`
	Now       time.Time     `json:"now"` // by the clock of the primary's server
	Problems  []api.Problem `json:"problems"`

	Settings Settings      `json:"settings"`
	Sync     *api.LinkSync `json:"sync,omitempty"`
	Format   int           `json:"format,omitempty"` // capture.Format of the primary's agent
	Handing  float64       `json:"handing"`          // part of the last seconds that the stream was held up in sending
	// Step is what the primary does in a phase without a measure, StepSeconds for how long.
	Step        string  `json:"step,omitempty"`
	StepSeconds float64 `json:"stepSeconds,omitempty"`
}
