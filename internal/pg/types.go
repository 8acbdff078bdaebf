package pg

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// Rows is a session or a transaction that answers queries.
type Rows interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// unportableSQL lists the types whose binary form means something only on the
// server it comes from: those that carry OIDs of types (arrays and composites of
// types made by users: array_send and record_send write them) or are OIDs of
// objects (reg*), those that have no binary form, and what is built on such.
const unportableSQL = `
WITH RECURSIVE bad AS (
    SELECT t.oid FROM pg_catalog.pg_type t
     WHERE t.typsend = 0 OR t.typreceive = 0 OR t.typtype IN ('c', 'p')
        OR t.oid IN (24, 2202, 2203, 2204, 2205, 2206, 4096, 4089, 3734, 3769, 4191)
        OR t.typcategory = 'A' AND t.typelem >= 16384
    UNION
    SELECT t.oid
      FROM bad b
      CROSS JOIN LATERAL (
            SELECT d.oid FROM pg_catalog.pg_type d WHERE d.typtype = 'd' AND d.typbasetype = b.oid
            UNION ALL
            SELECT a.oid FROM pg_catalog.pg_type a WHERE a.typcategory = 'A' AND a.typelem = b.oid
            UNION ALL
            SELECT r.rngtypid FROM pg_catalog.pg_range r WHERE r.rngsubtype = b.oid
            UNION ALL
            SELECT (to_jsonb(r)->>'rngmultitypid')::oid FROM pg_catalog.pg_range r
             WHERE r.rngtypid = b.oid AND to_jsonb(r)->>'rngmultitypid' IS NOT NULL
      ) t
)
SELECT DISTINCT b.oid
  FROM bad b
  JOIN pg_catalog.pg_attribute a ON a.atttypid = b.oid AND a.attnum > 0 AND NOT a.attisdropped
  JOIN pg_catalog.pg_class c ON c.oid = a.attrelid AND c.relkind = 'r' AND c.relpersistence = 'p'
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'twinspan')`

// UnportableTypes lists the types of columns of the database's permanent tables
// whose values must cross as text.
func UnportableTypes(ctx context.Context, q Rows) (map[uint32]bool, error) {
	rows, err := q.Query(ctx, unportableSQL)
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
