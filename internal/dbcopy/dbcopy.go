// Package dbcopy makes an independent copy of a database, as it was at one moment,
// under a new name: on the same server or another one, of the same or a newer version,
// while the source is read and written. Nothing of a link is in the copy
// (docs/design/0029-database-copy.md).
//
// Open makes a Source of a database that a connection string leads to; an agent gives
// one of its peer's. Copy makes the copy:
//
//	source, err := dbcopy.Open(ctx, dbcopy.Database{DSN: dsn, Find: instance.FindClient, Dir: dir, Log: log})
//	if err != nil {
//		return err
//	}
//	defer source.Close()
//	target := &dbcopy.Target{Server: server, Name: "sales_2024", Agent: id, Log: log}
//	result, err := target.Copy(ctx, source)
//
// Copy leaves a whole database of that name, or none. What a killed process leaves behind
// has another name, and Sweep drops it.
package dbcopy

import (
	"context"
	"io"
	"time"

	"github.com/twinspan/twinspan/internal/assess"
	"github.com/twinspan/twinspan/internal/largeobject"
	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/schema"
	"github.com/twinspan/twinspan/internal/seed"
	"github.com/twinspan/twinspan/internal/sequence"
)

// Origin is what a Source is a copy of. It crosses between agents as JSON.
type Origin struct {
	assess.Source
	Moment
	Begun seed.Begun `json:"begun"`
	// Granted says that somebody has granted or revoked rights on the database.
	Granted bool `json:"granted"`
}

// Moment says when a snapshot was taken.
type Moment struct {
	// Snapshot is the name of an exported snapshot, which lives as long as the session
	// that exported it. It does not cross.
	Snapshot string `json:"-"`
	// Position is where in a log the moment lies. The log is the source server's own, or
	// the primary's where the source is a twin.
	Position lsn.LSN `json:"position"`
	// Exact says that exactly the transactions that committed before Position are in the
	// snapshot. Otherwise all that are in it did, and of others it is not known.
	Exact bool `json:"exact"`
	// CommittedAt is when the last transaction before Position committed; zero where it is
	// not known.
	CommittedAt time.Time `json:"committedAt,omitzero"`
	// Objects is as of when the large objects are, where that is not the moment itself: on
	// a twin. Zero otherwise, and where it is not known.
	Objects time.Time `json:"objects,omitzero"`
}

// Source is a database at one moment, held open for one copy. Its methods may be called
// by several goroutines. They fail with session_lost once the moment cannot be read any
// more, and Copy with table_changed of one table. Close lets it go.
type Source interface {
	// Origin says what it is.
	Origin() Origin
	// Schema reads the structure.
	Schema(ctx context.Context) (*schema.Dump, error)
	// Tables lists what has rows to copy. It is called before Copy.
	Tables(ctx context.Context) ([]seed.Table, error)
	// Copy writes rows of a table as COPY data, and returns how many they are.
	Copy(ctx context.Context, r seed.CopyRequest, w io.Writer) (rows int64, err error)
	// Sequences reads the sequences as they are now, at the moment or later.
	Sequences(ctx context.Context) ([]sequence.Sequence, error)
	// Objects gives the large objects.
	Objects() largeobject.Remote
	Close()
}

// Progress says what a copy does, and how far the rows are.
type Progress struct {
	Step string // for people
	seed.Progress
}

// Result is a copy that was made.
type Result struct {
	Origin Origin
	// Roles were missing on the server and were made, without the right to log in.
	Roles []string
	// Left are properties of the database that the server refuses, and views that were
	// left out for they depend on the schema twinspan, each with the reason.
	Left []string
	// Objects is how many large objects the copy has.
	Objects int64
}
