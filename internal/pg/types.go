package pg

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Rows is a session or a transaction that answers queries.
type Rows interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// unportableSQL lists the types whose binary form means something only on the
// server it comes from: those that carry OIDs of types (arrays and composites of
// types made by users: array_send and record_send write them) or are OIDs of
// objects (reg*), those that have no binary form, and what is built on such.
//
// What is built on what is one list, joined at each step: a database has two types for
// each of its relations, and looking each up among all of them takes the square of that.
const unportableSQL = `
WITH RECURSIVE built (base, oid) AS (
    SELECT typbasetype, oid FROM pg_catalog.pg_type WHERE typtype = 'd'
    UNION ALL
    SELECT typelem, oid FROM pg_catalog.pg_type WHERE typcategory = 'A' AND typelem <> 0
    UNION ALL
    SELECT rngsubtype, rngtypid FROM pg_catalog.pg_range
    UNION ALL
    SELECT rngtypid, (to_jsonb(r)->>'rngmultitypid')::oid FROM pg_catalog.pg_range r WHERE to_jsonb(r)->>'rngmultitypid' IS NOT NULL
), bad AS (
    SELECT t.oid FROM pg_catalog.pg_type t
     WHERE t.typsend = 0 OR t.typreceive = 0 OR t.typtype IN ('c', 'p')
        OR t.oid IN (24, 2202, 2203, 2204, 2205, 2206, 4096, 4089, 3734, 3769, 4191)
        OR t.typcategory = 'A' AND t.typelem >= 16384
        OR t.oid IN (0/*also*/)
    UNION
    SELECT t.oid FROM bad b JOIN built t ON t.base = b.oid
)
SELECT DISTINCT b.oid
  FROM bad b
  JOIN pg_catalog.pg_attribute a ON a.atttypid = b.oid AND a.attnum > 0 AND NOT a.attisdropped
  JOIN pg_catalog.pg_class c ON c.oid = a.attrelid AND c.relkind = 'r' AND c.relpersistence = 'p'
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'twinspan')`

// intervalOID is the type interval.
const intervalOID = 1186

// WithNewValues lists the built-in types whose binary form can hold values that a server
// of a major version takes for others, where one of the version source knows them: infinite intervals came with PostgreSQL 17 (release notes, E.9.3.5),
// and before it their bits are a number of months and days. In text form such a server
// refuses them.
func WithNewValues(major, source int) []uint32 {
	if major < 17 && source >= 17 {
		return []uint32{intervalOID}
	}
	return nil
}

// UnportableTypes lists the types of columns of the database's permanent tables
// whose values must cross as text; with also those that hold one of more types.
func UnportableTypes(ctx context.Context, q Rows, also ...uint32) (map[uint32]bool, error) {
	var more strings.Builder
	for _, oid := range also {
		fmt.Fprintf(&more, ", %d", oid)
	}
	rows, err := q.Query(ctx, strings.Replace(unportableSQL, "/*also*/", more.String(), 1))
	if err != nil {
		return nil, Classify(err, "list the types of columns")
	}
	oids, err := pgx.CollectRows(rows, pgx.RowTo[uint32])
	if err != nil {
		return nil, Classify(err, "list the types of columns")
	}
	types := make(map[uint32]bool, len(oids))
	for _, oid := range oids {
		types[oid] = true
	}
	return types, nil
}

// holdingSQL lists the columns of permanent tables whose values have parts of some types.
const holdingSQL = `
WITH RECURSIVE built (base, oid) AS (
    SELECT typbasetype, oid FROM pg_catalog.pg_type WHERE typtype = 'd'
    UNION ALL
    SELECT typelem, oid FROM pg_catalog.pg_type WHERE typcategory = 'A' AND typelem <> 0
    UNION ALL
    SELECT rngsubtype, rngtypid FROM pg_catalog.pg_range
    UNION ALL
    SELECT rngtypid, (to_jsonb(r)->>'rngmultitypid')::oid FROM pg_catalog.pg_range r WHERE to_jsonb(r)->>'rngmultitypid' IS NOT NULL
    UNION ALL
    SELECT a.atttypid, t.oid FROM pg_catalog.pg_type t JOIN pg_catalog.pg_attribute a ON a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped WHERE t.typtype = 'c'
), holding AS (
    SELECT unnest($1::oid[]) AS oid
    UNION
    SELECT t.oid FROM holding h JOIN built t ON t.base = h.oid
)
SELECT format('%I.%I.%I', n.nspname, c.relname, a.attname)
  FROM holding h
  JOIN pg_catalog.pg_attribute a ON a.atttypid = h.oid AND a.attnum > 0 AND NOT a.attisdropped
  JOIN pg_catalog.pg_class c ON c.oid = a.attrelid AND c.relkind = 'r' AND c.relpersistence = 'p'
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'twinspan')
 ORDER BY 1`

// ColumnsHolding lists the columns of the database's permanent tables whose values have parts of some types.
func ColumnsHolding(ctx context.Context, q Rows, types []uint32) ([]string, error) {
	rows, err := q.Query(ctx, holdingSQL, types)
	if err != nil {
		return nil, Classify(err, "list the columns of a type")
	}
	list, err := pgx.CollectRows(rows, pgx.RowTo[string])
	return list, Classify(err, "list the columns of a type")
}

// RefusesInfinity says whether a server refused an infinite interval, which it does not know
// (WithNewValues). Its message, in whatever language, names the type and quotes the value.
func RefusesInfinity(err error) bool {
	var e *pgconn.PgError
	return errors.As(err, &e) && e.Code == "22007" && strings.Contains(e.Message, "interval") && strings.Contains(e.Message, "infinity")
}

// StateUndefinedObject is the SQLSTATE of a value that names what the server does not have
// (undefined_object): a role in a regrole or aclitem, as a rule, for whatever is in the
// database comes with the stream (regproc.c, acl.c).
const StateUndefinedObject = "42704"

// UndefinedObjectHint says what to do about it.
const UndefinedObjectHint = "a value names what the secondary's server does not have, as a rule a role (regrole, aclitem): make there what the server names, CREATE ROLE ...; the link goes on by itself"
