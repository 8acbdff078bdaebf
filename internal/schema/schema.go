// Package schema carries the structure of a database from the primary to its
// twin. The primary's side runs pg_dump and takes its answer apart into entries;
// the secondary's side keeps the entries in its database and builds them, each
// once: what tables need before the data in order, indexes and constraints
// after it in parallel. Only the primary's side needs PostgreSQL's programs.
package schema

import (
	"encoding/base64"
	"encoding/json"
	"unicode/utf8"

	"github.com/twinspan/twinspan/internal/sqlname"
)

// Text is SQL text in a database's encoding. In JSON it is a string, or an
// object {"base64": ...} when it is no valid UTF-8, as in a database whose
// encoding is SQL_ASCII: JSON would silently replace such bytes.
type Text string

// MarshalJSON implements json.Marshaler.
func (t Text) MarshalJSON() ([]byte, error) {
	if utf8.ValidString(string(t)) {
		return json.Marshal(string(t))
	}
	return json.Marshal(map[string]string{"base64": base64.StdEncoding.EncodeToString([]byte(t))})
}

// UnmarshalJSON implements json.Unmarshaler.
func (t *Text) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '{' {
		var coded struct {
			Base64 []byte `json:"base64"`
		}
		if err := json.Unmarshal(b, &coded); err != nil {
			return err
		}
		*t = Text(coded.Base64)
		return nil
	}
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	*t = Text(s)
	return nil
}

// Dump is the structure of a database at one snapshot. It crosses to the peer as
// JSON and can be tens of megabytes for ten thousand tables.
type Dump struct {
	ServerVersion int         `json:"serverVersion"` // as server_version_num
	Encoding      string      `json:"encoding"`      // the client_encoding that the text is in
	DropPublic    bool        `json:"dropPublic"`    // the database has no schema public
	Entries       []Entry     `json:"entries"`       // in an order in which each may be built
	Roles         []string    `json:"roles"`         // that own something or are named in a grant or a policy
	Extensions    []Extension `json:"extensions"`
}

// Entry is one object, or one property of an object, and how it is made.
type Entry struct {
	Section  Section       `json:"section"`
	ID       int           `json:"id"`                 // the number that Needs of others refers to
	Needs    []int         `json:"needs,omitempty"`    // entries that must be there before
	Kind     string        `json:"kind"`               // pg_dump's word: TABLE, INDEX, FK CONSTRAINT, ...
	Schema   string        `json:"schema"`             // for people; may be empty
	Name     string        `json:"name"`               // for people
	Table    sqlname.Table `json:"table"`              // of an index or constraint
	Refers   sqlname.Table `json:"refers"`             // the table that a foreign key points to
	Identity bool          `json:"identity,omitempty"` // the index by which the table's rows are told apart
	SQL      Text          `json:"sql"`
}

// Section says when an entry is built.
type Section string

// The sections.
const (
	PreData  Section = "pre-data"  // before the data is copied
	PostData Section = "post-data" // after it
)

// Extension is an extension that the database uses.
type Extension struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Schema  string `json:"schema"`
}

// Kinds of entries that have rules of their own.
const (
	kindIndex      = "INDEX"
	kindConstraint = "CONSTRAINT"
	kindForeignKey = "FK CONSTRAINT"
	kindAttach     = "INDEX ATTACH"
	kindRefresh    = "MATERIALIZED VIEW DATA"
	kindEvent      = "EVENT TRIGGER"
	kindWrapper    = "FOREIGN DATA WRAPPER"
	kindDomain     = "DOMAIN"
	kindType       = "TYPE"
)
