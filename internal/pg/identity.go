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
	Table   uint32     // oid
	Index   uint32     // oid
	Columns []string   // the index's key
	Equal   []Equality // how each column is compared
	Exact   bool       // the index has the columns' collations, so that Equal decides as it does
}

// Equality is how two values of a column are compared as an index compares them: by
// the equality of its operator class, to whose type the server coerces them.
type Equality struct {
	Operator string `json:"operator"`       // as OPERATOR(...)
	Cast     string `json:"cast,omitempty"` // the type to which both operands are cast, "" where that is not needed

	typ    string // the column's type, domains resolved
	source string // the string type whose cast to typ is typ's input function, "" for none
}

// EqualityOf is the equality of a built-in type that is compared by an operator =.
func EqualityOf(builtin string) Equality {
	return Equality{Operator: "OPERATOR(pg_catalog.=)", typ: "pg_catalog." + builtin, source: "text"}
}

// Of writes the comparison of two operands that have the column's type.
func (q Equality) Of(left, right string) string {
	if q.Cast != "" {
		left, right = left+"::"+q.Cast, right+"::"+q.Cast
	}
	return left + " " + q.Operator + " " + right
}

// OfText writes the comparison of a column with a value in text form, an expression of
// type text. The value is read by its type's input function alone: an explicit cast
// would call a function where a user made a cast from text. Where casts were made from
// every string type, and where the equality is not known, texts are compared, which no
// index helps.
func (q Equality) OfText(column, text string) string {
	if q.source == "" || q.Operator == "" {
		return "pg_catalog.format('%s', " + column + ") OPERATOR(pg_catalog.=) " + text
	}
	return q.Of(column, "("+text+")::pg_catalog."+q.source+"::"+q.typ)
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
       array_agg(CASE WHEN it.typtype <> 'p' AND it.oid <> a.atttypid THEN format('%%I.%%I', tn.nspname, it.typname)
                      WHEN it.typtype = 'p' AND y.typtype = 'd' THEN format('%%I.%%I', bn.nspname, bt.typname) ELSE '' END ORDER BY k.n),
       array_agg(format('%%I.%%I', bn.nspname, bt.typname) ORDER BY k.n),
       array_agg(CASE WHEN NOT EXISTS (SELECT FROM pg_catalog.pg_cast x WHERE x.castsource = 25 AND x.casttarget = bt.oid) THEN 'text'
                      WHEN NOT EXISTS (SELECT FROM pg_catalog.pg_cast x WHERE x.castsource = 1043 AND x.casttarget = bt.oid) THEN 'varchar' ELSE '' END ORDER BY k.n),
       bool_and(b.indcollation[k.n - 1] = a.attcollation)
  FROM best b
 CROSS JOIN LATERAL unnest(b.cols) WITH ORDINALITY AS k (attnum, n)
  JOIN pg_catalog.pg_attribute a ON a.attrelid = b.indrelid AND a.attnum = k.attnum
  JOIN pg_catalog.pg_opclass o ON o.oid = b.indclass[k.n - 1]
  JOIN pg_catalog.pg_amop m ON m.amopfamily = o.opcfamily AND m.amopstrategy = 3
                           AND m.amoplefttype = o.opcintype AND m.amoprighttype = o.opcintype
  JOIN pg_catalog.pg_operator p ON p.oid = m.amopopr
  JOIN pg_catalog.pg_namespace pn ON pn.oid = p.oprnamespace
  JOIN pg_catalog.pg_type it ON it.oid = o.opcintype
  JOIN pg_catalog.pg_namespace tn ON tn.oid = it.typnamespace
  JOIN pg_catalog.pg_type y ON y.oid = a.atttypid
  JOIN LATERAL (WITH RECURSIVE below (oid, typtype, typbasetype) AS (
                    SELECT y.oid, y.typtype, y.typbasetype
                    UNION ALL SELECT d.oid, d.typtype, d.typbasetype FROM below w JOIN pg_catalog.pg_type d ON d.oid = w.typbasetype WHERE w.typtype = 'd')
                SELECT w.oid FROM below w WHERE w.typtype <> 'd') base ON true
  JOIN pg_catalog.pg_type bt ON bt.oid = base.oid
  JOIN pg_catalog.pg_namespace bn ON bn.oid = bt.typnamespace
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
	list, err := pgx.CollectRows(rows, scanIdentity)
	if err != nil {
		return nil, Classify(err, "find the identities of tables")
	}
	identities := make(map[uint32]Identity, len(list))
	for _, i := range list {
		identities[i.Table] = i
	}
	return identities, nil
}

func scanIdentity(row pgx.CollectableRow) (i Identity, err error) {
	var operators, casts, types, sources []string
	if err := row.Scan(&i.Table, &i.Index, &i.Columns, &operators, &casts, &types, &sources, &i.Exact); err != nil {
		return i, err
	}
	for n := range operators {
		i.Equal = append(i.Equal, Equality{operators[n], casts[n], types[n], sources[n]})
	}
	return i, nil
}
