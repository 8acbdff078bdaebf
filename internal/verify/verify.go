// Package verify compares the two databases of a link at one exact position and
// mends the secondary. What is to be read is asked of a Side, of which Snapshot
// is the implementation over a server; which blocks and rows differ is decided by
// pure functions. docs/design/0008-verify.md says why it is right.
package verify

import (
	"context"
	"io"

	"github.com/twinspan/twinspan/internal/sqlname"
)

// Side is one of the two databases at the position. All methods may be called by
// several goroutines; what they read is of one moment, sequences aside.
type Side interface {
	// Describe lists what the database consists of.
	Describe(ctx context.Context) (*Database, error)
	// Digest adds up the blocks of a table.
	Digest(ctx context.Context, r DigestRequest) ([]Block, error)
	// List returns the hashes of the rows of some blocks.
	List(ctx context.Context, r ListRequest) (List, error)
	// Values returns the values of the rows with the keys.
	Values(ctx context.Context, r ValuesRequest) ([]Row, error)
}

// Source is the primary's side, which also gives whole rows.
type Source interface {
	Side
	// Copy writes rows as COPY data in text form, encoded as UTF8.
	Copy(ctx context.Context, r CopyRequest, w io.Writer) error
}

// Database is what a database consists of.
type Database struct {
	Format        int     `json:"format"`        // of the entries
	ServerVersion int     `json:"serverVersion"` // as server_version_num
	Encoding      string  `json:"encoding"`
	Probe         string  `json:"probe"` // what the server's hash function gives; empty when it has none
	Entries       []Entry `json:"entries"`
	Tables        []Table `json:"tables"`
	LargeObjects  int64   `json:"largeObjects"` // how many there are
	// Spans says that this side reads spans of tables; agents of before, which do not know
	// them, say nothing.
	Spans bool `json:"spans,omitempty"`
	// LargeObjectBytes is about how much reading all large objects reads.
	LargeObjectBytes int64 `json:"largeObjectBytes,omitempty"`
}

// Entry is one object of the schema.
type Entry struct {
	Kind   string `json:"kind"`   // table, column, index, constraint, ...
	Name   string `json:"name"`   // as a person reads it
	Detail string `json:"detail"` // with what is printed from a parse tree between the characters 1 and 2
	// Printed says that Detail depends on the server's version.
	Printed bool `json:"printed,omitempty"`
	// Invalid says that an index cannot be used, or that a constraint is one which a
	// partition gets while it is being detached.
	Invalid bool `json:"invalid,omitempty"`
	// Unsettled says that the object was dropped while it was read. It is not compared.
	Unsettled bool `json:"unsettled,omitempty"`
	// Table, Object and Definition are what it takes to build an index or a
	// constraint again. Definition is the server's own.
	Table      sqlname.Table `json:"table,omitzero"`
	Object     string        `json:"object,omitempty"`
	Definition string        `json:"definition,omitempty"`
	Index      string        `json:"index,omitempty"` // definition of the index below a constraint
	// Owner is the role with whose rights Detail is read again, and Reread what that takes
	// beside Table: a rule's event, a domain's base type, the kind of a routine.
	Owner  string `json:"owner,omitempty"`
	Reread string `json:"reread,omitempty"`
}

// Table is a table whose rows are compared, or why they are not.
type Table struct {
	Name    sqlname.Table `json:"name"`
	Bytes   int64         `json:"bytes"` // with TOAST
	Rows    int64         `json:"rows"`  // as the server estimates; -1 when it does not know
	Skip    string        `json:"skip,omitempty"`
	Columns []Column      `json:"columns"`
	Key     []string      `json:"key,omitempty"`
	// View says that it is a materialized view.
	View bool `json:"view,omitempty"`
	// Stored says that what it holds can be compared in spite of Skip.
	Stored bool `json:"stored,omitempty"`
}

// Column is a column of a table.
type Column struct {
	Name      string `json:"name"`
	Type      string `json:"type"`           // as format_type prints it
	Family    Family `json:"family"`         // how its text is had
	Generated bool   `json:"generated"`      // it cannot be written
	Made      bool   `json:"made,omitempty"` // a cast to text may be a function of a user's, or (xml, bpchar) give other than is sent
}

// Family says how the text of a column's values is had.
type Family string

// The families.
const (
	Plain Family = "plain" // short text
	Long  Family = "long"  // text that may be too long for a row's: beyond a length its MD5 stands for it
	Bytes Family = "bytes" // bytea, the same
	Float Family = "float" // real and double precision
)

// Method says how rows are hashed. Both sides must use the same.
type Method struct {
	MD5     bool `json:"md5"`     // the servers' own hash functions differ
	Convert bool `json:"convert"` // the encodings differ
	OldText bool `json:"oldText"` // one server prints floats as versions before 12 do
}

// Subject is a table, with what of it is compared. A table without a key is
// divided by its rows' hash.
type Subject struct {
	Table   sqlname.Table `json:"table"`
	Columns []Column      `json:"columns"`
	Key     []string      `json:"key,omitempty"`
	Method  Method        `json:"method"`
	// Span, when set, is all that is looked at.
	Span *Span `json:"span,omitempty"`
}

// Span is the rows whose keys lie behind one and up to another, in the order of the
// key's index. Of spans that follow each other every key is in one on each side, also where
// two servers sort differently: there it may be in another one, or in several, and what
// then looks different is not, once it is looked up by its key.
type Span struct {
	After []string `json:"after,omitempty"` // exclusive; empty for the beginning
	Upto  []string `json:"upto,omitempty"`  // inclusive; empty for the end
}

// Blocks names blocks of a table: the leading Bits of the hash, as signed
// numbers. Bits 0 is the whole table, and then Numbers is empty.
type Blocks struct {
	Bits    int     `json:"bits"`
	Numbers []int64 `json:"numbers,omitempty"`
}

// DigestRequest asks for the blocks of 2^Bits that lie Within others.
type DigestRequest struct {
	Subject
	Bits   int    `json:"bits"`
	Within Blocks `json:"within"`
}

// Block is the digest of a block's rows. Sums wrap at 64 bits.
type Block struct {
	Number int64  `json:"n"`
	Rows   int64  `json:"r"`
	Sum1   uint64 `json:"a"`
	Sum2   uint64 `json:"b"`
}

// ListRequest asks for the rows of blocks, at most Most of them.
type ListRequest struct {
	Subject
	Blocks Blocks `json:"blocks"`
	Most   int    `json:"most"`
}

// List is the answer: the rows, in no order.
type List struct {
	Rows []Hashed `json:"rows"`
	More bool     `json:"more"` // there are more than asked for
}

// Hashed is a row by its key and its hashes.
type Hashed struct {
	Place string   `json:"p"` // ctid, at the snapshot
	Key   []string `json:"k,omitempty"`
	Hash1 int64    `json:"a"`
	Hash2 int64    `json:"b"`
}

// ValuesRequest asks for the values of rows.
type ValuesRequest struct {
	Subject
	Keys   [][]string `json:"keys"`
	Hashed bool       `json:"hashed"` // their MD5 will do
}

// Row is a row's values in the order of the subject's columns; nil is NULL.
type Row struct {
	Key    []string  `json:"key"`
	Values []*string `json:"values"`
}

// CopyRequest asks for whole rows: by Keys, or all of them, or by Places.
type CopyRequest struct {
	Subject
	Keys   [][]string `json:"keys,omitempty"`
	Places []string   `json:"places,omitempty"`
	All    bool       `json:"all,omitempty"`
}

// largeObjects stands for all large objects, as if they were a table with the
// key loid.
var largeObjects = sqlname.Table{Schema: "pg_catalog", Name: "pg_largeobject"}

// IsLargeObjects says whether a table stands for the large objects.
func IsLargeObjects(t sqlname.Table) bool { return t == largeObjects }
