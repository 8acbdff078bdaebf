// Package pgoutput decodes the messages of PostgreSQL's built-in logical
// decoding plug-in, protocol versions 1 to 4 (manual, "Logical Replication
// Message Formats"; src/backend/replication/logical/proto.c).
//
// Nothing is copied: names, values and tuples are slices of the message that
// was given, and live as long as it does. A Decoder hands out the same structs
// again and again, so that a row costs no allocation.
package pgoutput

import (
	"time"

	"github.com/twinspan/twinspan/internal/lsn"
)

// Type is the first byte of a message.
type Type byte

// The types of messages.
const (
	TypeBegin        Type = 'B'
	TypeMessage      Type = 'M'
	TypeCommit       Type = 'C'
	TypeOrigin       Type = 'O'
	TypeRelation     Type = 'R'
	TypeType         Type = 'Y'
	TypeInsert       Type = 'I'
	TypeUpdate       Type = 'U'
	TypeDelete       Type = 'D'
	TypeTruncate     Type = 'T'
	TypeStreamStart  Type = 'S'
	TypeStreamStop   Type = 'E'
	TypeStreamCommit Type = 'c'
	TypeStreamAbort  Type = 'A'

	// Two-phase messages arrive only when they were asked for; Twinspan does
	// not ask, so that a prepared transaction arrives as an ordinary one when it
	// commits. Decode refuses them.
	TypeBeginPrepare     Type = 'b'
	TypePrepare          Type = 'P'
	TypeCommitPrepared   Type = 'K'
	TypeRollbackPrepared Type = 'r'
	TypeStreamPrepare    Type = 'p'
)

// Message is one decoded message; Type says which of the other fields was set.
type Message struct {
	Type Type
	// XID is the (sub)transaction inside a streamed block, 0 outside of one.
	XID uint32

	Begin        Begin
	Commit       Commit // also of TypeStreamCommit
	Origin       Origin
	Relation     Relation
	DataType     DataType
	Change       Change // of TypeInsert, TypeUpdate and TypeDelete
	Truncate     Truncate
	Logical      Logical
	StreamStart  StreamStart
	StreamCommit uint32 // the transaction of TypeStreamCommit
	StreamAbort  StreamAbort
}

// Begin opens a transaction.
type Begin struct {
	Final lsn.LSN // where its commit record begins
	Time  Timestamp
	XID   uint32
}

// Commit closes a transaction.
type Commit struct {
	LSN  lsn.LSN // where the commit record begins, equal to Begin.Final
	End  lsn.LSN // where it ends: the transaction's position
	Time Timestamp
}

// Origin says that the transaction came from another server.
type Origin struct {
	Commit lsn.LSN // its commit there
	Name   []byte
}

// Replica identities, as pg_class.relreplident has them.
const (
	IdentityDefault = 'd'
	IdentityNothing = 'n'
	IdentityFull    = 'f'
	IdentityIndex   = 'i'
)

// Relation describes a table, before its first change and again after it may
// have changed.
type Relation struct {
	ID       uint32
	Schema   []byte // empty means pg_catalog
	Name     []byte
	Identity byte
	Columns  []RelationColumn
}

// RelationColumn is one published column of a Relation.
type RelationColumn struct {
	Key      bool // part of the replica identity; every column with IdentityFull
	Name     []byte
	TypeID   uint32 // on the sending server
	Modifier int32
}

// DataType names a type that is not built in.
type DataType struct {
	ID     uint32
	Schema []byte
	Name   []byte
}

// Kinds of an old tuple.
const (
	OldNone = 0
	OldKey  = 'K' // the identity's columns, the others are null
	OldFull = 'O' // the whole row
)

// Change is an inserted, updated or deleted row.
type Change struct {
	Relation uint32
	OldKind  byte // OldNone: Old is not set
	Old      Tuple
	New      Tuple // not set for a delete
}

// Truncate empties tables together.
type Truncate struct {
	Cascade         bool
	RestartIdentity bool
	Relations       []uint32
}

// Logical is a message that somebody put in the log (pg_logical_emit_message).
type Logical struct {
	Transactional bool
	LSN           lsn.LSN
	Prefix        []byte
	Content       []byte
}

// StreamStart opens a block of changes of a transaction that is not finished.
type StreamStart struct {
	XID   uint32
	First bool
}

// StreamAbort takes back a streamed transaction, or one of its subtransactions.
type StreamAbort struct {
	XID    uint32
	SubXID uint32
	LSN    lsn.LSN   // 0 unless Decoder.Parallel
	Time   Timestamp // 0 unless Decoder.Parallel
}

// Timestamp counts microseconds since 2000-01-01 UTC, as PostgreSQL does.
type Timestamp int64

// epoch is 2000-01-01 UTC in microseconds since 1970.
const epoch = 946_684_800_000_000

// Time returns the moment as Go's type, in UTC.
func (t Timestamp) Time() time.Time { return time.UnixMicro(int64(t) + epoch).UTC() }

// TimestampOf is the inverse of Timestamp.Time.
func TimestampOf(t time.Time) Timestamp { return Timestamp(t.UnixMicro() - epoch) }
