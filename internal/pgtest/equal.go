package pgtest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/pg"
)

// Equal fails the test unless both databases have the same ordinary tables,
// with the same columns and rows, outside the schema twinspan. Unlogged and
// temporary tables do not count. It compares counts and hashes first, and
// shows the first rows that differ.
func Equal(t testing.TB, dsnA, dsnB string) {
	t.Helper()
	if diff, err := Diff(context.Background(), dsnA, dsnB); err != nil {
		t.Fatalf("compare: %v", err)
	} else if diff != "" {
		t.Fatalf("the databases differ (- first, + second)\n%s", diff)
	}
}

// Diff is Equal for use within Eventually: it returns what differs, "" when
// nothing does.
func Diff(ctx context.Context, dsnA, dsnB string) (string, error) {
	a, err := openSide(ctx, dsnA)
	if err != nil {
		return "", err
	}
	defer a.close()
	b, err := openSide(ctx, dsnB)
	if err != nil {
		return "", err
	}
	defer b.close()
	var out strings.Builder
	for _, name := range union(a.order, b.order) {
		ta, inA := a.tables[name]
		tb, inB := b.tables[name]
		switch {
		case !inB:
			fmt.Fprintf(&out, "- table %s\n", name)
		case !inA:
			fmt.Fprintf(&out, "+ table %s\n", name)
		case ta.columns != tb.columns:
			fmt.Fprintf(&out, "  table %s\n- columns %s\n+ columns %s\n", name, ta.columns, tb.columns)
		default:
			if err := compareTable(ctx, &out, a.conn, b.conn, name, ta.row); err != nil {
				return "", err
			}
		}
	}
	return out.String(), nil
}

// side is one database at one moment.
type side struct {
	conn   *pgx.Conn
	tables map[string]shape
	order  []string
}

type shape struct {
	columns string // names and types, for comparing
	row     string // an SQL expression of a row's text
}

func (s side) close() { s.conn.Close(context.Background()) }

// tableColumns lists every column of every table in question. Floats are shown
// by their bits, because their text depends on the server's version.
const tableColumns = `
SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname),
       quote_ident(a.attname), format_type(a.atttypid, a.atttypmod),
       CASE WHEN a.atttypid = 'float4'::regtype THEN 'encode(float4send(' || quote_ident(a.attname) || '), ''hex'')'
            WHEN a.atttypid = 'float8'::regtype THEN 'encode(float8send(' || quote_ident(a.attname) || '), ''hex'')'
            WHEN a.atttypid IN ('float4[]'::regtype, 'float8[]'::regtype) THEN 'encode(array_send(' || quote_ident(a.attname) || '), ''hex'')'
            ELSE quote_ident(a.attname) END
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relkind = 'r' AND c.relpersistence = 'p'
  AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'twinspan') AND n.nspname !~ '^pg_'
ORDER BY 1, a.attnum`

func openSide(ctx context.Context, dsn string) (side, error) {
	if near := overSocket(dsn); near != "" {
		dsn = near
	}
	parsed, err := pg.ParseDSN(dsn)
	if err != nil {
		return side{}, err
	}
	conn, err := parsed.Connect(ctx, pg.Session{Name: "pgtest/compare"})
	if err != nil {
		return side{}, err
	}
	s := side{conn: conn, tables: map[string]shape{}}
	if _, err := conn.Exec(ctx, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"); err != nil {
		s.close()
		return side{}, err
	}
	rows, err := texts(ctx, conn, tableColumns)
	if err != nil {
		s.close()
		return side{}, err
	}
	for _, r := range rows {
		name := r[0]
		shape, known := s.tables[name]
		if !known {
			s.order = append(s.order, name)
		}
		if r[1] != "NULL" {
			shape.columns = join(shape.columns, r[1]+" "+r[2])
			shape.row = join(shape.row, r[3])
		}
		s.tables[name] = shape
	}
	return s, nil
}

func join(list, next string) string {
	if list == "" {
		return next
	}
	return list + ", " + next
}

func union(a, b []string) []string {
	all := slices.Concat(a, b)
	slices.Sort(all)
	return slices.Compact(all)
}

// compareTable writes what differs in one table.
func compareTable(ctx context.Context, out *strings.Builder, a, b *pgx.Conn, table, row string) error {
	// The sum of halves of the rows' MD5 does not depend on their order.
	sum := "SELECT count(*), coalesce(sum(('x' || left(md5(ROW(" + row + ")::text), 16))::bit(64)::bigint::numeric), 0) FROM ONLY " + table
	sumA, err := texts(ctx, a, sum)
	if err != nil {
		return fmt.Errorf("%s: %w", table, err)
	}
	sumB, err := texts(ctx, b, sum)
	if err != nil {
		return fmt.Errorf("%s: %w", table, err)
	}
	if slices.Equal(sumA[0], sumB[0]) {
		return nil
	}
	fmt.Fprintf(out, "  table %s: %s rows and %s rows\n", table, sumA[0][0], sumB[0][0])
	return diffRows(ctx, out, a, b, "SELECT r FROM (SELECT ROW("+row+")::text AS r FROM ONLY "+table+`) x ORDER BY r COLLATE "C"`)
}

// diffRows merges two sorted lists of rows and writes the first that differ.
func diffRows(ctx context.Context, out *strings.Builder, a, b *pgx.Conn, sql string) error {
	const show = 10
	rowsA, err := a.Query(ctx, sql, pgx.QueryExecModeSimpleProtocol)
	if err != nil {
		return err
	}
	defer rowsA.Close()
	rowsB, err := b.Query(ctx, sql, pgx.QueryExecModeSimpleProtocol)
	if err != nil {
		return err
	}
	defer rowsB.Close()
	next := func(rows pgx.Rows) (string, bool) {
		if !rows.Next() {
			return "", false
		}
		return string(rows.RawValues()[0]), true
	}
	ra, okA := next(rowsA)
	rb, okB := next(rowsB)
	for shown := 0; okA || okB; {
		switch {
		case okA && okB && ra == rb:
			ra, okA = next(rowsA)
			rb, okB = next(rowsB)
			continue
		case okA && (!okB || ra < rb):
			fmt.Fprintf(out, "-   %s\n", shorten(ra, 300))
			ra, okA = next(rowsA)
		default:
			fmt.Fprintf(out, "+   %s\n", shorten(rb, 300))
			rb, okB = next(rowsB)
		}
		if shown++; shown == show {
			out.WriteString("    and perhaps more\n")
			return nil
		}
	}
	return nil
}
