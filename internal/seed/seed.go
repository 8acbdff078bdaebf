// Package seed makes the first copy of a database's rows. The primary's half
// (Source, Session) holds a snapshot and answers with COPY data; the secondary's
// half (Target) divides the tables into chunks, pulls them, several at once, and
// records each in the transaction that copies it, so that nothing is copied again
// because something was cut. docs/design/0003-seeding.md says why it is right.
package seed

import (
	"context"
	"io"

	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// Table is a table to copy, as it is at a session's snapshot.
type Table struct {
	OID      uint32        `json:"oid"`
	Name     sqlname.Table `json:"name"`
	Filenode uint32        `json:"filenode"` // of its file; another one has other row positions
	Blocks   int64         `json:"blocks"`
	Bytes    int64         `json:"bytes"`              // with TOAST
	Ranges   bool          `json:"ranges"`             // whether parts of it can be asked for
	Extended bool          `json:"extended,omitempty"` // an extension's own, in which its script has put rows on the twin
	Columns  []Column      `json:"columns"`            // without generated ones
	Key      []KeyColumn   `json:"key,omitempty"`
}

// Column is a column whose values are copied.
type Column struct {
	Name   string `json:"name"`
	Type   string `json:"type"`   // as format_type prints it
	Binary bool   `json:"binary"` // its binary form means the same on every server
}

// KeyColumn is one column of a unique key without NULLs.
type KeyColumn struct {
	Name  string `json:"name"`
	Equal string `json:"equal"`          // the key's equality, as OPERATOR(schema.=)
	Cast  string `json:"cast,omitempty"` // the type to which its operands are cast, if to any
}

// CopyRequest asks for rows of a table.
type CopyRequest struct {
	OID     uint32   `json:"oid"`
	Columns []string `json:"columns"`
	Binary  bool     `json:"binary"`
	First   int64    `json:"first"` // the first block
	End     int64    `json:"end"`   // the block behind the last; 0 for no end
	Since   uint64   `json:"since"` // only rows written by this or a later transaction; 0 for all
}

// whole says that every row is asked for.
func (r *CopyRequest) whole() bool { return r.First == 0 && r.End == 0 && r.Since == 0 }

// Begun describes a seeding session: a snapshot that the primary's agent holds.
type Begun struct {
	Token         string  `json:"token"` // identifies the session; lost with it
	LSN           lsn.LSN `json:"lsn"`   // in the snapshot are exactly the transactions whose commit record lies before
	Xmin          uint64  `json:"xmin"`  // every transaction before it had ended, with the epoch in the upper half
	SystemID      string  `json:"systemId"`
	Timeline      int64   `json:"timeline"` // of the log in which LSN lies
	ServerVersion int     `json:"serverVersion"`
	Encoding      string  `json:"encoding"` // of the database
	// Follows: tables that are created come with the stream, from the first session on.
	Follows bool `json:"follows"`
}

// BeginRequest says which session is wanted.
type BeginRequest struct {
	// Again: there were sessions before. The slot must exist then; without it the
	// changes since the first session would be missed.
	Again bool `json:"again"`
	// Not is a session that is of no more use; another one is begun if it is held.
	Not string `json:"not"`
}

// Remote is the primary's half, asked over the peer connection. Source is the
// one implementation; its methods fail with session_lost (Transient) when the
// token's session is no longer held.
type Remote interface {
	// Begin returns the session that is held, or begins one.
	Begin(ctx context.Context, r BeginRequest) (Begun, error)
	// Tables lists what is to be copied.
	Tables(ctx context.Context, token string) ([]Table, error)
	// Copy writes the rows as COPY data, and returns how many they are. It fails
	// with table_changed (Conflict) when the table's rows at the snapshot can no
	// longer be had: it was truncated, rewritten or dropped since.
	Copy(ctx context.Context, token string, r CopyRequest, w io.Writer) (rows int64, err error)
	// End releases the session's snapshot.
	End(ctx context.Context, token string) error
}

// Result says from where on the stream completes the copy. A transaction's
// position is that of its commit record (pgoutput's Begin.FinalLSN).
type Result struct {
	// Start is the first session's position: the stream begins here.
	Start lsn.LSN
	// SkipBefore: changes to the table in transactions before the position are in
	// the copy and passed over. Tables that are not in it have Start.
	SkipBefore map[sqlname.Table]lsn.LSN
	// Repair: changes to the table before the position are repeated over rows that
	// may have them already. An INSERT replaces the row with the same key; an
	// UPDATE or DELETE that finds no row is right.
	Repair map[sqlname.Table]lsn.LSN
	// Keys are the columns by which rows of the tables in Repair are told apart.
	Keys map[sqlname.Table][]string
	// RepairUntil is the greatest position in Repair, 0 when it is empty. Until the
	// stream has passed it, no index may be unique but those of identities.
	RepairUntil lsn.LSN
}

// Progress says how far the copy is.
type Progress struct {
	TablesTotal int
	TablesDone  int
	BytesTotal  int64 // as planned
	BytesDone   int64
	Rate        int64 // bytes in a second, lately
	Remaining   int64 // estimated seconds; -1 when unknown
}

// TableProgress says how far the copy of a table is.
type TableProgress struct {
	Table      sqlname.Table
	BytesTotal int64 // as planned
	BytesDone  int64
	Copying    bool // rows of it are under way
	Copied     bool // it is whole
}
