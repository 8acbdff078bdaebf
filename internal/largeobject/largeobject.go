// Package largeobject brings the large objects of the primary to its twin and keeps
// them in step. They are not decoded from the log, so they are compared: in passes
// over the object ids, each of which looks at what is younger than the pass before
// and copies it whole. docs/design/0011-large-objects.md says why, and what it costs.
package largeobject

import (
	"time"

	"github.com/twinspan/twinspan/internal/problem"
)

// pageSize is how many bytes a page of an object holds, on servers of the usual
// block size (large_object.h, LOBLKSIZE).
const pageSize = 2048

const (
	// rangeObjects is how many objects a range of a plan has.
	rangeObjects = 2000
	// batchObjects and batchBytes bound what is replaced in one transaction: every
	// object that is removed holds a lock to its end.
	batchObjects = 500
	batchBytes   = 16 << 20
	// lastOID ends the last range: object ids have 32 bits.
	lastOID = 1<<32 - 1
)

// PlanRequest asks what a pass has to look at.
type PlanRequest struct {
	// Since is Next of the last complete pass, 0 before the first.
	Since uint64 `json:"since"`
	// Counters are those of that pass; when nothing was counted since, nothing has to
	// be looked at. Empty forces a look.
	Counters string `json:"counters"`
}

// Plan is a pass that begins.
type Plan struct {
	Same     bool     `json:"same"`     // nothing has changed since
	Since    uint64   `json:"since"`    // look at what is not older; 0 is everything
	Next     uint64   `json:"next"`     // every transaction before it had ended, with the epoch in the upper half
	Counters string   `json:"counters"` //
	Objects  int64    `json:"objects"`
	Bounds   []uint32 `json:"bounds"` // the last object id of each range, ascending; the last is that of all
	Block    int      `json:"block"`  // the server's block size
}

// ListRequest asks what of a range has to be brought.
type ListRequest struct {
	After uint32 `json:"after"` // exclusive
	Upto  uint32 `json:"upto"`  // inclusive
	Since uint64 `json:"since"`
}

// Entry is one object of a range.
type Entry struct {
	OID     uint32 `json:"o"`
	Changed bool   `json:"c,omitempty"`
	Pages   int64  `json:"p,omitempty"` // up to its last one; those of a sparse object may be missing
	Comment string `json:"d,omitempty"` // MD5 of its comment
}

// Object is what an object is besides its bytes.
type Object struct {
	OID     uint32  `json:"oid"`
	Owner   string  `json:"owner"`
	Default bool    `json:"default"` // nothing was ever granted
	Grants  []Grant `json:"grants,omitempty"`
	Comment []byte  `json:"comment,omitempty"` // in the encoding of the session
}

// Grant is one right on an object.
type Grant struct {
	Grantor   string `json:"grantor"`
	Grantee   string `json:"grantee"` // empty is PUBLIC
	Privilege string `json:"privilege"`
	Grantable bool   `json:"grantable"`
}

// State is how the twin's large objects stand.
type State struct {
	Objects int64         // on the primary, when last looked at
	Every   time.Duration // between passes; 0 is never by itself
	AsOf    time.Time     // everything committed before is there; zero before the first pass
	Running bool          // a pass was begun and is not complete
}

// DefaultEvery is how often passes are made if nobody says otherwise.
const DefaultEvery = 5 * time.Minute

// Result is what a pass did.
type Result struct {
	Objects int64 // on the primary
	Copied  int64
	Removed int64
	Bytes   int64 // of COPY data
}

func differentBlocks(there, here int) error {
	return problem.New(problem.Incompatible, "large_objects_block_size",
		"the primary's server was built with blocks of %d bytes, the secondary's with %d: the pages of large objects do not fit", there, here).
		WithHint("use servers of one block size")
}
