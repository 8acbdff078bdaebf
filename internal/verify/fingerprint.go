package verify

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"regexp"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/pg"
)

// querier is a session or a transaction.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// Schema is what a database consists of, without its rows.
type Schema struct {
	ServerVersion int     `json:"serverVersion"` // as server_version_num
	Entries       []Entry `json:"entries"`
}

// Schema is the part of it that is compared as a schema.
func (d *Database) Schema() *Schema {
	return &Schema{ServerVersion: d.ServerVersion, Entries: d.Entries}
}

// ReadSchema reads the schema as the session or transaction sees it.
func ReadSchema(ctx context.Context, q querier) (*Schema, error) {
	s := &Schema{}
	var identities bool
	err := q.QueryRow(ctx, `SELECT current_setting('server_version_num')::int, to_regclass('twinspan.identity') IS NOT NULL`).Scan(&s.ServerVersion, &identities)
	if err == nil {
		s.Entries, err = readEntries(ctx, q, identities)
	}
	return s, pg.Classify(err, "read the schema")
}

// Digest stands for a schema: two schemas with the same digest are equal. Those of
// servers of different versions are compared by what both print in the same way.
type Digest struct {
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
		add(&all, e.Kind, e.Name, plain(e.Detail))
		if e.Printed {
			add(&portable, e.Kind, e.Name)
		} else {
			add(&portable, e.Kind, e.Name, plain(e.Detail))
		}
	}
	return Digest{Major: s.ServerVersion / 10000, All: fmt.Sprintf("%016x%016x", all[0], all[1]), Portable: fmt.Sprintf("%016x%016x", portable[0], portable[1])}
}

func add(sum *[2]uint64, parts ...string) {
	h := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	sum[0] += binary.BigEndian.Uint64(h[:])
	sum[1] += binary.BigEndian.Uint64(h[8:])
}

// Equal says whether the schemas are equal as far as they can be compared.
func (d Digest) Equal(other Digest) bool {
	if d.Major == other.Major {
		return d.All == other.All
	}
	return d.Portable == other.Portable
}

// CompareSchemas returns the objects that differ, those first that others hang on.
func CompareSchemas(primary, secondary *Schema) []SchemaDifference {
	return schemaDifferences(primary, secondary)
}

// noise matches what means nothing in an expression as ruleutils.c prints it: casts,
// parentheses and blanks. Literals and quoted names are matched, too, and are none.
var noise = regexp.MustCompile(`'(?:[^']|'')*'|::(?:"(?:[^"]|"")+"|[a-z_][a-z0-9_$]*)(?:\.(?:"(?:[^"]|"")+"|[a-z_][a-z0-9_$]*))?(?: varying| precision)?(?:\([0-9,]+\))?(?: with(?:out)? time zone)?(?:\[\])*|"(?:[^"]|"")+"|[() ]`)

// printed matches what a server has printed from a parse tree (fingerprint.sql).
var printed = regexp.MustCompile("\x01[^\x02]*\x02")

// unmarked takes out what marks it.
var unmarked = strings.NewReplacer("\x01", "", "\x02", "")

// plain is a definition whose printed parts have no casts and parentheses. A server that
// reads a definition that it has printed may print it with others: (ARRAY['a'::character
// varying])::text[] becomes ARRAY[('a'::character varying)::text], though it means
// the same, and a copy's definitions have been read once more than the primary's.
// All else, as comments and labels, counts to the letter.
func plain(detail string) string {
	return printed.ReplaceAllStringFunc(detail, func(part string) string {
		return noise.ReplaceAllStringFunc(part, func(s string) string {
			if s[0] == '\'' || s[0] == '"' {
				return s
			}
			return ""
		})
	})
}

// frame is what of a definition every server prints alike.
func frame(detail string) string { return printed.ReplaceAllString(detail, "\x01") }
