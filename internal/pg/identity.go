package pg

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Identity is the index by which a table's rows are told apart: the replica
// identity index where one is chosen, else the primary key, else a unique index
// that leaves no row out and allows no NULL.
type Identity struct {
	Table     uint32   // oid
	Index     uint32   // oid
	Columns   []string // the index's key
	Operators []string // the index's own equality for each column, as OPERATOR(...)
	Exact     bool     // the index has the columns' collations, so that Operators decide as it does
}

// identitySQL chooses one index for each ordinary, permanent table that has any.
// The argument is the expression of the number of key columns.
const identitySQL = `
WITH candidate AS (
    SELECT i.indrelid, i.indexrelid, i.indkey::int2[] AS cols, i.indclass, i.indcollation, %[1]s AS keys,
           c.relreplident = 'i' AND i.indisreplident AS chosen, i.indisprimary
      FROM pg_catalog.pg_index i
      JOIN pg_catalog.pg_class c ON c.oid = i.indrelid AND c.relkind = 'r' AND c.relpersistence = 'p'
      JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'twinspan')
       AND i.indisunique AND i.indisvalid AND i.indimmediate AND NOT i.indisexclusion
       AND i.indpred IS NULL AND i.indexprs IS NULL
), best AS (
    SELECT DISTINCT ON (d.indrelid) d.*
      FROM candidate d
     WHERE NOT EXISTS (SELECT FROM unnest(d.cols) WITH ORDINALITY AS k (attnum, n)
                         JOIN pg_catalog.pg_attribute a ON a.attrelid = d.indrelid AND a.attnum = k.attnum
                        WHERE k.n <= d.keys AND NOT a.attnotnull)
     ORDER BY d.indrelid, d.chosen DESC, d.indisprimary DESC, d.keys, d.indexrelid
)
SELECT b.indrelid, b.indexrelid, array_agg(a.attname::text ORDER BY k.n),
       array_agg(format('OPERATOR(%%I.%%s)', pn.nspname, p.oprname) ORDER BY k.n),
       bool_and(b.indcollation[k.n - 1] = a.attcollation)
  FROM best b
 CROSS JOIN LATERAL unnest(b.cols) WITH ORDINALITY AS k (attnum, n)
  JOIN pg_catalog.pg_attribute a ON a.attrelid = b.indrelid AND a.attnum = k.attnum
  JOIN pg_catalog.pg_opclass o ON o.oid = b.indclass[k.n - 1]
  JOIN pg_catalog.pg_amop m ON m.amopfamily = o.opcfamily AND m.amopstrategy = 3
                           AND m.amoplefttype = o.opcintype AND m.amoprighttype = o.opcintype
  JOIN pg_catalog.pg_operator p ON p.oid = m.amopopr
  JOIN pg_catalog.pg_namespace pn ON pn.oid = p.oprnamespace
 WHERE k.n <= b.keys
 GROUP BY b.indrelid, b.indexrelid`

// Identities finds the identity of every ordinary table of the database that has
// one, by the table's oid. Seeding and the building of indexes must agree on it.
func Identities(ctx context.Context, q Rows, serverMajor int) (map[uint32]Identity, error) {
	keys := "i.indnkeyatts"
	if serverMajor < 11 {
		keys = "i.indnatts"
	}
	rows, err := q.Query(ctx, fmt.Sprintf(identitySQL, keys))
	if err != nil {
		return nil, Classify(err, "find the identities of tables")
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Identity])
	if err != nil {
		return nil, Classify(err, "find the identities of tables")
	}
	identities := make(map[uint32]Identity, len(list))
	for _, i := range list {
		identities[i.Table] = i
	}
	return identities, nil
}
