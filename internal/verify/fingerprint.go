package verify

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
)

// querier is a session or a transaction.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// Schema is what a database consists of, without its rows.
type Schema struct {
	Format        int       `json:"format"`        // how its entries are written
	ServerVersion int       `json:"serverVersion"` // as server_version_num
	Entries       []Entry   `json:"entries"`
	Unknown       []Unknown `json:"unknown,omitempty"`
}

// Format is how this release writes entries. Those of another format say the same in
// other words, and cannot be compared.
const Format = 3

// Unknown is an option that the link does not know, and does not compare.
type Unknown struct {
	Name string `json:"name"`
	Of   string `json:"of"` // what has it: tables, indexes, columns, columns of indexes
}

// Schema is the part of it that is compared as a schema.
func (d *Database) Schema() *Schema {
	return &Schema{Format: d.Format, ServerVersion: d.ServerVersion, Entries: d.Entries}
}

// ReadSchema reads the schema as the session or transaction sees it.
func ReadSchema(ctx context.Context, q querier) (*Schema, error) {
	s := &Schema{Format: Format}
	var identities bool
	err := q.QueryRow(ctx, `SELECT current_setting('server_version_num')::int, to_regclass('twinspan.identity') IS NOT NULL`).Scan(&s.ServerVersion, &identities)
	if err == nil {
		s.Entries, s.Unknown, err = readEntries(ctx, q, s.ServerVersion, identities)
	}
	return s, pg.Classify(err, "read the schema")
}

// Digest stands for a schema: two schemas with the same digest are equal. Those of
// servers of different versions are compared without what depends on the version.
type Digest struct {
	Format   int    `json:"format"`
	Major    int    `json:"major"`
	All      string `json:"all"`
	Portable string `json:"portable"`
}

// Digest returns the schema's digest. It does not depend on the order of entries.
func (s *Schema) Digest() Digest {
	var all, portable [2]uint64
	for i := range s.Entries {
		e := &s.Entries[i]
		if e.Invalid || e.Unsettled {
			continue
		}
		add(&all, e.Kind, e.Name, e.Detail)
		if e.Printed {
			add(&portable, e.Kind, e.Name)
		} else {
			add(&portable, e.Kind, e.Name, e.Detail)
		}
	}
	return Digest{Format: s.Format, Major: s.ServerVersion / 10000, All: fmt.Sprintf("%016x%016x", all[0], all[1]), Portable: fmt.Sprintf("%016x%016x", portable[0], portable[1])}
}

func add(sum *[2]uint64, parts ...string) {
	h := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	sum[0] += binary.BigEndian.Uint64(h[:])
	sum[1] += binary.BigEndian.Uint64(h[8:])
}

// Equal says whether the schemas are equal to the letter, as far as they can be compared.
func (d Digest) Equal(other Digest) bool {
	if d.Format != other.Format {
		return false
	}
	if d.Major == other.Major {
		return d.All == other.All
	}
	return d.Portable == other.Portable
}

// CompareSchemas returns the objects that differ to the letter, those first that others
// hang on. A Reader tells which of them differ in words alone.
func CompareSchemas(primary, secondary *Schema) []SchemaDifference {
	return schemaDifferences(primary, secondary)
}

// Comparable refuses schemas that agents of different releases have read.
func Comparable(a, b int) error {
	if a == b {
		return nil
	}
	return problem.New(problem.Transient, "schema_unchecked", "the agents are of different releases, which describe schemas in different ways").
		WithHint("run the same release of twinspan on both sides")
}
