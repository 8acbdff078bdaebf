package test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/pgtest"
)

// columnsOf lists the columns of tables and filled materialized views with an expression of what a value is:
// the type's send function, but where that writes object ids, which are each server's own; there the
// output function, never a cast.
const columnsOf = `
WITH RECURSIVE base AS (
	SELECT oid, oid AS type FROM pg_type WHERE typtype <> 'd'
	UNION ALL SELECT d.oid, b.type FROM pg_type d JOIN base b ON d.typbasetype = b.oid WHERE d.typtype = 'd'
)
SELECT c.oid::regclass::text, quote_ident(a.attname), CASE WHEN a.attname IS NULL THEN NULL
	WHEN t.oid < 16384 AND t.typtype = 'b' AND t.typnamespace = 'pg_catalog'::regnamespace AND t.typname !~ '^_?reg' AND t.typsend <> 0 AND (t.typelem = 0 OR t.typelem < 16384)
		THEN format('encode(%s(%I), ''hex'')', t.typsend, a.attname)
	ELSE format('format(''%%s'', %I)', a.attname) END
FROM pg_class c
LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN base ON base.oid = a.atttypid LEFT JOIN pg_type t ON t.oid = base.type
WHERE c.relkind IN ('r', 'm') AND c.relpersistence = 'p' AND c.relispopulated
	AND c.relnamespace::regnamespace::text NOT IN ('pg_catalog', 'information_schema', 'twinspan') AND c.relnamespace::regnamespace::text !~ '^pg_'
ORDER BY 1, a.attname`

// contents opens a session that reads whatever there is, always in the same words, and
// returns it with an expression of a row of each table.
func contents(ctx context.Context, dsn string) (*pgx.Conn, map[string]string, error) {
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return nil, nil, err
	}
	for _, set := range []string{"search_path = pg_catalog", "DateStyle = ISO", "IntervalStyle = postgres", "TimeZone = UTC", "extra_float_digits = 3", "bytea_output = hex", "row_security = off", "lc_monetary = 'C'", "xmloption = content", "quote_all_identifiers = off"} {
		if _, err := conn.Exec(ctx, "SET "+set); err != nil {
			conn.Close(context.Background())
			return nil, nil, err
		}
	}
	rows, err := conn.Query(ctx, columnsOf, pgx.QueryExecModeSimpleProtocol)
	if err != nil {
		conn.Close(context.Background())
		return nil, nil, err
	}
	tables := map[string]string{}
	for rows.Next() {
		var table string
		var column, value *string
		if err = rows.Scan(&table, &column, &value); err != nil {
			break
		}
		row := tables[table]
		if column != nil {
			row += fmt.Sprintf(" || ' %s=' || CASE WHEN %s IS NULL THEN 'null' ELSE '<' || %s || '>' END", strings.ReplaceAll(*column, "'", "''"), *column, *value)
		}
		tables[table] = row
	}
	rows.Close()
	if err == nil {
		err = rows.Err()
	}
	if err != nil {
		conn.Close(context.Background())
		return nil, nil, err
	}
	return conn, tables, nil
}

// diffContents returns which rows differ between two databases that rest.
func diffContents(ctx context.Context, dsnA, dsnB string) (string, error) {
	a, tablesA, err := contents(ctx, dsnA)
	if err != nil {
		return "", err
	}
	defer a.Close(context.Background())
	b, tablesB, err := contents(ctx, dsnB)
	if err != nil {
		return "", err
	}
	defer b.Close(context.Background())
	var out strings.Builder
	names := maps.Clone(tablesA)
	maps.Copy(names, tablesB)
	for _, table := range slices.Sorted(maps.Keys(names)) {
		row, inA := tablesA[table]
		other, inB := tablesB[table]
		if !inA || !inB || row != other {
			fmt.Fprintf(&out, "  table %s: on the primary %v with%s, on the twin %v with%s\n", table, inA, row, inB, other)
			continue
		}
		var sums [2][2]string
		for i, conn := range []*pgx.Conn{a, b} {
			sql := fmt.Sprintf(`SELECT count(*)::text, coalesce(sum(('x' || left(md5(''%s), 16))::bit(64)::bigint::numeric), 0)::text FROM ONLY %s`, row, table)
			if err := conn.QueryRow(ctx, sql, pgx.QueryExecModeSimpleProtocol).Scan(&sums[i][0], &sums[i][1]); err != nil {
				return "", fmt.Errorf("%s: %w", table, err)
			}
		}
		if sums[0] == sums[1] {
			continue
		}
		fmt.Fprintf(&out, "  table %s: %s rows and %s rows\n", table, sums[0][0], sums[1][0])
		var lines [2][]string
		for i, conn := range []*pgx.Conn{a, b} {
			rows, err := conn.Query(ctx, fmt.Sprintf(`SELECT left(line, 400) FROM (SELECT ''%s AS line FROM ONLY %s) l ORDER BY line COLLATE "C"`, row, table), pgx.QueryExecModeSimpleProtocol)
			if err != nil {
				return "", err
			}
			if lines[i], err = pgx.CollectRows(rows, pgx.RowTo[string]); err != nil {
				return "", err
			}
		}
		shown := map[byte]int{} // of each side
		for line := range strings.Lines(diffLines(lines[0], lines[1])) {
			side := strings.TrimLeft(line, " ")[0]
			if shown[side]++; shown[side] <= 6 {
				out.WriteString(line)
			}
		}
	}
	return out.String(), nil
}

// Whatever the text of values looks like, other bits are another value.
func TestContentsAreComparedByTheirBits(t *testing.T) {
	t.Parallel()
	s := pgtest.Shared(t)
	a, b := s.DSN(s.Database(t)), s.DSN(s.Database(t))
	for _, dsn := range []string{a, b} {
		pgtest.Exec(t, dsn, `CREATE TYPE pair AS (n int, t text)`, `CREATE FUNCTION same(pair) RETURNS text LANGUAGE sql AS 'SELECT ''x''::text'`, `CREATE CAST (pair AS text) WITH FUNCTION same(pair)`,
			`CREATE TABLE "it's" (f float8, "p 1" pair, n text, r regtype)`, `CREATE TABLE none ()`, `INSERT INTO none DEFAULT VALUES`, `CREATE MATERIALIZED VIEW m AS SELECT count(*) FROM none`)
	}
	same := func(want string) {
		t.Helper()
		d, err := diffContents(t.Context(), a, b)
		if err != nil || want == "" && d != "" || !strings.Contains(d, want) {
			t.Errorf("instead of %q: %q, %v", want, d, err)
		}
	}
	same("")
	for _, step := range []struct{ onA, onB, want string }{
		{`INSERT INTO "it's" VALUES (0, '(1,a)', NULL, 'pair')`, `INSERT INTO "it's" VALUES (0, '(1,a)', NULL, 'pair')`, ""},
		{``, `UPDATE "it's" SET f = '-0'`, `f=<8000`},
		{`UPDATE "it's" SET f = '-0'`, `UPDATE "it's" SET n = ''`, `n=<>`},
		{`UPDATE "it's" SET n = ''`, `UPDATE "it's" SET "p 1" = '(2,a)'`, `"p 1"=<(2,a)>`},
		{`UPDATE "it's" SET "p 1" = '(2,a)'`, `INSERT INTO none DEFAULT VALUES`, `1 rows and 2 rows`},
		{`INSERT INTO none DEFAULT VALUES; REFRESH MATERIALIZED VIEW m`, ``, `table public.m`},
	} {
		pgtest.Exec(t, a, step.onA)
		pgtest.Exec(t, b, step.onB)
		same(step.want)
	}
}
