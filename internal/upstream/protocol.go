package upstream

import (
	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/seed"
	"github.com/twinspan/twinspan/internal/side"
)

// The methods by which the secondary asks the primary for the first copy and for the stream
// (docs/format/stream.md).
const (
	MethodBegin  = "seed.begin"  // a snapshot, the one you hold or a new one
	MethodTables = "seed.tables" // what is to be copied
	MethodSchema = "seed.schema" // the dump, a byte stream
	MethodCopy   = "seed.copy"   // one chunk, a byte stream
	MethodEnd    = "seed.end"    // the snapshot is not needed any more
	MethodStream = "link.stream" // changes from a position on
)

// StreamRequest asks for changes from a position on.
type StreamRequest struct {
	side.Reference
	Position lsn.LSN `json:"position"`
	Timeline int64   `json:"timeline"` // on which the position lies; 0 where it is not known
	Text     bool    `json:"text"`     // values as text, whatever their types allow
	Compress bool    `json:"compress"` // the byte stream is one zstd frame
	Streamed bool    `json:"streamed"` // large transactions may come before their commit
	// Extensions are those that the secondary's server has.
	Extensions []string `json:"extensions"`
	Format     int      `json:"format,omitempty"` // of signals that the twin understands (capture.Format); agents of before say none
}

// StreamHeader is the answer's first frame.
type StreamHeader struct {
	Encoding string `json:"encoding"`
	Timeline int64  `json:"timeline"` // of the log from the position on
	Major    int    `json:"major"`
}

// BeginRequest asks for a seeding session.
type BeginRequest struct {
	side.Reference
	seed.BeginRequest
}

// CopyRequest asks for rows of a table; the answer is a byte stream of COPY data.
type CopyRequest struct {
	side.SessionReference
	seed.CopyRequest
	Compress bool `json:"compress"` // the byte stream is one zstd frame
}
