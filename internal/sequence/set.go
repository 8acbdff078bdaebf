package sequence

import (
	"context"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// Set gives sequences their states. Those that the database does not have, or
// whose bounds there do not admit the state, are returned and left as they are:
// the change of schema that makes them fit has not arrived. conn must be a
// session that the gate lets write, outside of a transaction.
func Set(ctx context.Context, conn *pgx.Conn, sequences []Sequence) (missing []sqlname.Table, err error) {
	for part := range slices.Chunk(sequences, atOnce) {
		left, err := set(ctx, conn, part)
		if err != nil {
			return nil, pg.Classify(err, "set the sequences")
		}
		missing = append(missing, left...)
	}
	return missing, nil
}

func set(ctx context.Context, conn *pgx.Conn, part []Sequence) ([]sqlname.Table, error) {
	schemas, names := make([]string, len(part)), make([]string, len(part))
	lasts, called := make([]int64, len(part)), make([]bool, len(part))
	for i, s := range part {
		schemas[i], names[i], lasts[i], called[i] = s.Name.Schema, s.Name.Name, s.Last, s.IsCalled
	}
	// The order of the select list is the order of what is done: setval runs for the
	// rows that are left after the joins.
	rows, err := conn.Query(ctx, `
		SELECT x.i, pg_catalog.setval(c.oid, x.last, x.called)
		  FROM ROWS FROM (pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::text[]), pg_catalog.unnest($3::bigint[]), pg_catalog.unnest($4::boolean[]))
		       WITH ORDINALITY AS x (schema, name, last, called, i)
		  JOIN pg_catalog.pg_namespace n ON n.nspname = x.schema::name
		  JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = x.name::name AND c.relkind = 'S'
		  JOIN pg_catalog.pg_sequence s ON s.seqrelid = c.oid AND x.last BETWEEN s.seqmin AND s.seqmax`,
		schemas, names, lasts, called)
	if err != nil {
		return nil, err
	}
	done := make([]bool, len(part))
	var i, value int64
	if _, err := pgx.ForEachRow(rows, []any{&i, &value}, func() error {
		done[i-1] = true
		return nil
	}); err != nil {
		return nil, err
	}
	var missing []sqlname.Table
	for i, s := range part {
		if !done[i] {
			missing = append(missing, s.Name)
		}
	}
	return missing, nil
}
