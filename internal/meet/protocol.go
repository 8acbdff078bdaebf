package meet

import (
	"time"

	"github.com/twinspan/twinspan/internal/seed"
	"github.com/twinspan/twinspan/internal/side"
	"github.com/twinspan/twinspan/internal/verify"
)

// The methods of a position at which both sides can be read, asked of the primary.
const (
	MethodSnapshot = "verify.snapshot" // hold a snapshot for as long as this stream
	MethodRead     = "verify.read"     // read at that snapshot, a byte stream
)

// Workers are the sessions that read at once on each side, where nobody asks for others.
const Workers = 2

// SnapshotRequest asks for a snapshot with an exactly known position. The primary
// says ready when the transactions that were running have ended, so that it will
// not take long; then it waits for a frame of the secondary, which by then holds
// its applier, and says begun; or again, when it took too long: the secondary
// lets its applier go on, and the next ready follows.
type SnapshotRequest struct {
	side.Reference
	Rate    int64 `json:"rate"`
	Workers int   `json:"workers"`
	Piece   int64 `json:"piece,omitempty"` // about how many bytes are read at once; 0 for a default
	// Linger, when set, is for how long the secondary keeps what it receives until the
	// position is known; otherwise it hands nothing over meanwhile.
	Linger time.Duration `json:"-"`
}

// The states of a SnapshotAnswer.
const (
	snapshotReady = "ready"
	snapshotAgain = "again"
	snapshotBegun = "begun"
)

// SnapshotAnswer is one frame of the answer.
type SnapshotAnswer struct {
	State string     `json:"state"`
	Begun seed.Begun `json:"begun"`
}

// ReadRequest asks for one thing at a snapshot: a description when nothing is set.
// Rows to copy come as COPY data, everything else as JSON.
type ReadRequest struct {
	side.SessionReference
	Digest *verify.DigestRequest `json:"digest,omitempty"`
	List   *verify.ListRequest   `json:"list,omitempty"`
	Values *verify.ValuesRequest `json:"values,omitempty"`
	Copy   *verify.CopyRequest   `json:"copy,omitempty"`
	// Contents asks for a description without the objects of the schema.
	Contents bool `json:"contents,omitempty"`
	// Dump asks for the schema as statements.
	Dump bool `json:"dump,omitempty"`
	// Sequences asks for what the sequences are now: they know no snapshots.
	Sequences bool `json:"sequences,omitempty"`
}
