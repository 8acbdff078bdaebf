package lost

import (
	"context"
	"encoding/hex"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/pgoutput"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// table is a table as the stream describes it, recorded once for each description.
type table struct {
	number  int
	oid     uint32
	name    sqlname.Table
	columns []string
	told    []bool  // columns that an old row of which only the key is told has
	key     []int16 // places in columns; none when rows cannot be told apart
	asText  []bool
	always  []bool
	signals bool // it is twinspan.signal
}

func (t *table) full() string { return t.name.SQL() }

// describe takes a description of the stream.
func (w *writer) describe(ctx context.Context, r *pgoutput.Relation) error {
	t := &table{oid: r.ID, name: sqlname.Table{Schema: string(r.Schema), Name: string(r.Name)}}
	if t.name.Schema == "" {
		t.name.Schema = "pg_catalog"
	}
	t.signals = t.name == sqlname.Table{Schema: "twinspan", Name: "signal"}
	for i, c := range r.Columns {
		t.columns = append(t.columns, string(c.Name))
		t.told = append(t.told, c.Key)
		if c.Key && r.Identity != pgoutput.IdentityFull {
			t.key = append(t.key, int16(i))
		}
	}
	if t.signals {
		w.tables[r.ID] = t
		return nil
	}
	if err := w.look(ctx, t, r.Columns, r.Identity == pgoutput.IdentityFull); err != nil {
		return err
	}
	return w.keep(ctx, t)
}

// keep records a description unless it is what is known of the table.
func (w *writer) keep(ctx context.Context, t *table) error {
	if known := w.tables[t.oid]; known != nil && known.name == t.name && slices.Equal(known.columns, t.columns) &&
		slices.Equal(known.key, t.key) && slices.Equal(known.told, t.told) {
		return nil
	}
	w.tables[t.oid] = t
	if err := w.begin(ctx); err != nil {
		return err
	}
	w.lastTable++
	t.number = w.lastTable
	_, err := w.tx.Exec(ctx, `INSERT INTO twinspan.lost_table (link, epoch, number, oid, schema_name, table_name, columns, key_columns, as_text, always)
		VALUES ($1::text::uuid, $2, $3, $4, $5, $6, $7, $8, $9, $10)`, w.Link, w.Epoch, t.number, t.oid, t.name.Schema, t.name.Name,
		notNull(t.columns), notNull(t.key), notNull(t.asText), notNull(t.always))
	return pg.Classify(err, "record a table's description")
}

func notNull[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

// named finds the description of a table that the stream names only, or makes one
// without columns.
func (w *writer) named(ctx context.Context, schema, name string) (*table, error) {
	wanted := sqlname.Table{Schema: schema, Name: name}
	for _, t := range w.tables {
		if t.name == wanted {
			return t, nil
		}
	}
	t := &table{name: wanted}
	err := w.conn.QueryRow(ctx, `SELECT coalesce(to_regclass(format('%I.%I', $1::text, $2::text))::oid, 0)`, schema, name).Scan(&t.oid)
	if err != nil {
		return nil, pg.Classify(err, "look for a table")
	}
	return t, w.keep(ctx, t)
}

// comparableSQL says of types, in their order, whether rows can be found by an
// equality of theirs. The listed OIDs are built-in types without one, or with one
// that says something else (box and circle compare areas), and what arrays,
// composites, ranges and enums are compared by. Operators of extensions are not in
// the search path, so their types count as without.
const comparableSQL = `
WITH RECURSIVE t (place, oid) AS (
    SELECT u.place, u.oid FROM unnest($1::oid[]) WITH ORDINALITY AS u (oid, place)
    UNION
    SELECT t.place, x.oid FROM t JOIN pg_catalog.pg_type y ON y.oid = t.oid
     CROSS JOIN LATERAL (
           SELECT y.typbasetype WHERE y.typtype = 'd'
           UNION ALL SELECT y.typelem WHERE y.typelem <> 0 AND y.typlen = -1
           UNION ALL SELECT a.atttypid FROM pg_catalog.pg_attribute a WHERE y.typtype = 'c' AND a.attrelid = y.typrelid AND a.attnum > 0 AND NOT a.attisdropped) x (oid)
)
SELECT bool_and(y.oid IS NOT NULL AND y.oid NOT IN (600, 601, 602, 603, 604, 628, 718) AND (y.oid < 16384 OR y.typtype <> 'b' OR y.typelem <> 0)
       AND (y.typtype <> 'b' OR y.typelem <> 0 AND y.typlen = -1 OR y.oid IN (1043, 650) OR EXISTS (
            SELECT FROM pg_catalog.pg_opclass f JOIN pg_catalog.pg_am m ON m.oid = f.opcmethod AND m.amname IN ('btree', 'hash')
             WHERE f.opcdefault AND f.opcintype = y.oid)))
  FROM t LEFT JOIN pg_catalog.pg_type y ON y.oid = t.oid
 GROUP BY t.place ORDER BY t.place`

// look reads what the stream does not tell of a table, as the catalogs have it now.
func (w *writer) look(ctx context.Context, t *table, columns []pgoutput.RelationColumn, full bool) error {
	types := make([]uint32, len(columns))
	for i, c := range columns {
		types[i] = c.TypeID
	}
	rows, err := w.conn.Query(ctx, comparableSQL, types)
	if err != nil {
		return pg.Classify(err, "look at a table's types")
	}
	list, err := pgx.CollectRows(rows, pgx.RowTo[bool])
	if err != nil {
		return pg.Classify(err, "look at a table's types")
	}
	for _, c := range list {
		t.asText = append(t.asText, !c)
	}
	var always []string
	var version int
	err = w.conn.QueryRow(ctx, `SELECT ARRAY(SELECT attname::text FROM pg_catalog.pg_attribute a WHERE attrelid = $1 AND attnum > 0 AND to_jsonb(a)->>'attidentity' = 'a'),
		current_setting('server_version_num')::int / 10000`, t.oid).Scan(&always, &version)
	if err != nil {
		return pg.Classify(err, "look at a table")
	}
	for _, c := range t.columns {
		t.always = append(t.always, slices.Contains(always, c))
	}
	if !full {
		return nil
	}
	// The whole old row is told, so that any key of the table will do.
	if w.identities == nil {
		if w.identities, err = pg.Identities(ctx, w.conn, version); err != nil {
			return err
		}
	}
	for _, name := range w.identities[t.oid].Columns {
		at := slices.Index(t.columns, name)
		if at < 0 {
			t.key = nil
			break
		}
		t.key = append(t.key, int16(at))
	}
	return nil
}

// uuidBytes reads the text of a uuid.
func uuidBytes(id string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(id, "-", ""))
	if err != nil || len(b) != 16 {
		return make([]byte, 16)
	}
	return b
}
