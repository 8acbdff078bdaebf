package lost

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/rights"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// Mending is how far a rejoin has come with a parting. Each step is true from the
// commit on that did it.
type Mending struct {
	Complete bool   // everything that was lost is recorded
	Problem  string // code of why it cannot be; empty otherwise
	Accepted []string
	Begun    bool // somebody asked for the rejoin, and accepted Accepted
	Cleared  bool
	Settled  bool
	Mended   bool
}

// Look reads how far a rejoin has come.
func Look(ctx context.Context, q catalog.Querier, link string, epoch int64) (m Mending, err error) {
	err = q.QueryRow(ctx, `SELECT complete, coalesce(problem->>'code', ''), accepted IS NOT NULL, coalesce(accepted, '{}'), cleared, settled, mended
		FROM twinspan.lost WHERE link = $1::text::uuid AND epoch = $2`, link, epoch).
		Scan(&m.Complete, &m.Problem, &m.Begun, &m.Accepted, &m.Cleared, &m.Settled, &m.Mended)
	if errors.Is(err, pgx.ErrNoRows) {
		return m, unknown(epoch)
	}
	return m, pg.Classify(err, "read how far the rejoin is")
}

// Accept notes that somebody asked for a rejoin and what they accepted of it.
func Accept(ctx context.Context, q catalog.Querier, link string, epoch int64, codes []string) error {
	return set(ctx, q, link, epoch, `accepted = $3`, notNull(codes))
}

// Touched says whether a rejoin that is not complete may have changed rows: then the
// database is neither what it was nor what the new primary's is.
func Touched(ctx context.Context, q catalog.Querier, link string) (touched bool, err error) {
	err = q.QueryRow(ctx, `SELECT EXISTS (SELECT FROM twinspan.lost WHERE link = $1::text::uuid AND NOT mended
		AND (cleared OR settled OR accepted && ARRAY['compare_database', 'copy_database']))`, link).Scan(&touched)
	return touched, pg.Classify(err, "look for a rejoin that has begun")
}

// TakeBack notes, where a former primary becomes primary again, that no rejoin is
// called for any more, whatever was lost.
func TakeBack(ctx context.Context, q catalog.Querier, link string) error {
	rows, err := q.Query(ctx, `SELECT epoch FROM twinspan.lost WHERE link = $1::text::uuid AND NOT mended`, link)
	if err != nil {
		return pg.Classify(err, "list what was lost")
	}
	epochs, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		return pg.Classify(err, "list what was lost")
	}
	for _, epoch := range epochs {
		if err := MarkMended(ctx, q, link, epoch); err != nil {
			return err
		}
	}
	return nil
}

// MarkSettled notes that the rows at the keys are as the new primary has them. Run
// it in the transaction that makes them so.
func MarkSettled(ctx context.Context, q catalog.Querier, link string, epoch int64) error {
	return set(ctx, q, link, epoch, `settled = true`)
}

// MarkCompared notes that every row is as the new primary has it, by a comparison: no
// keys and tables are left to look at.
func MarkCompared(ctx context.Context, q catalog.Querier, link string, epoch int64) error {
	if err := MarkSettled(ctx, q, link, epoch); err != nil {
		return err
	}
	return forgetKeys(ctx, q, link, epoch)
}

// MarkMended notes that nothing is left to do, and forgets the keys.
func MarkMended(ctx context.Context, q catalog.Querier, link string, epoch int64) error {
	if err := set(ctx, q, link, epoch, `mended = true`); err != nil {
		return err
	}
	return forgetKeys(ctx, q, link, epoch)
}

func forgetKeys(ctx context.Context, q catalog.Querier, link string, epoch int64) error {
	for _, table := range []string{"lost_key", "lost_mend"} {
		if _, err := q.Exec(ctx, `DELETE FROM twinspan.`+table+` WHERE link = $1::text::uuid AND epoch = $2`, link, epoch); err != nil {
			return pg.Classify(err, "forget the keys of lost rows")
		}
	}
	return nil
}

func set(ctx context.Context, q catalog.Querier, link string, epoch int64, what string, args ...any) error {
	tag, err := q.Exec(ctx, `UPDATE twinspan.lost SET `+what+` WHERE link = $1::text::uuid AND epoch = $2`, append([]any{link, epoch}, args...)...)
	if err == nil && tag.RowsAffected() == 0 {
		return unknown(epoch)
	}
	return pg.Classify(err, "note how far the rejoin is")
}

// Clear takes away whatever the lost transactions left here, in the caller's
// transaction: the rows at every key that they touched, the objects that they
// created, all rows of tables that are to be copied anew. What is there afterwards is
// there as well at the position at which the histories part. The session must be
// one of pg.Session{Apply: true, Fenced: true} with FewRows.
func Clear(ctx context.Context, w *rights.Writer, link string, epoch int64, p *Plan) error {
	tx := w.TX
	if err := noteKeys(ctx, tx, link, epoch, p.Touched); err != nil {
		return err
	}
	for _, t := range p.Touched {
		if err := noteTable(ctx, tx, link, epoch, t.OID, false, t.Key); err != nil {
			return err
		}
		table, err := w.Table(ctx, t.Name)
		if err != nil {
			return err
		}
		for after, more := int64(0), true; more; {
			var keys [][]string
			if keys, after, err = Keys(ctx, tx, link, epoch, t.OID, after, KeysAtOnce); err != nil {
				return err
			}
			if err := DeleteKeys(ctx, table, t, keys); err != nil {
				return err
			}
			more = len(keys) == KeysAtOnce
		}
	}
	for _, d := range p.Drop {
		if _, err := tx.Exec(ctx, d.SQL()); err != nil {
			return pg.Classify(err, "drop "+d.Name)
		}
	}
	for _, t := range p.Anew {
		table, err := w.Table(ctx, t.Name)
		if err == nil {
			err = table.Empty(ctx)
		}
		if err != nil {
			return err
		}
		if err := noteTable(ctx, tx, link, epoch, t.OID, true, nil); err != nil {
			return err
		}
	}
	return set(ctx, tx, link, epoch, `cleared = true`)
}

func noteTable(ctx context.Context, tx pgx.Tx, link string, epoch int64, oid uint32, anew bool, key []string) error {
	_, err := tx.Exec(ctx, `INSERT INTO twinspan.lost_mend (link, epoch, oid, anew, table_key) SELECT $1::text::uuid, $2::bigint, $3::oid, $4::boolean,
		ARRAY(SELECT a.attnum FROM unnest($5::text[]) WITH ORDINALITY AS k (name, n) JOIN pg_catalog.pg_attribute a ON a.attrelid = $3::oid AND a.attname = k.name ORDER BY k.n)`,
		link, epoch, oid, anew, notNull(key))
	return pg.Classify(err, "note a table to mend")
}

// noteKeys records every key that a lost change names, of the row before and the
// row after.
func noteKeys(ctx context.Context, tx pgx.Tx, link string, epoch int64, tables []TouchedTable) error {
	for _, t := range tables {
		rows, err := tx.Query(ctx, `SELECT number, columns FROM twinspan.lost_table WHERE link = $1::text::uuid AND epoch = $2 AND oid = $3`, link, epoch, t.OID)
		if err != nil {
			return pg.Classify(err, "read the descriptions of "+t.Name.String())
		}
		type description struct {
			Number  int
			Columns []string
		}
		list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[description])
		if err != nil {
			return pg.Classify(err, "read the descriptions of "+t.Name.String())
		}
		for _, d := range list {
			for _, side := range []string{"old", "new"} {
				if err := noteSide(ctx, tx, link, epoch, t, d.Number, d.Columns, side); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func noteSide(ctx context.Context, tx pgx.Tx, link string, epoch int64, t TouchedTable, number int, columns []string, side string) error {
	var values, told []string
	for _, name := range t.Key {
		at := slices.Index(columns, name) + 1
		if at == 0 {
			return nil // described before the key was; it has no rows, or the plan would not have the table
		}
		values = append(values, fmt.Sprintf("%s_row[%d]", side, at))
		told = append(told, fmt.Sprintf("substr(%s_marks, %d, 1) = 'v'", side, at))
	}
	var untold int64
	err := tx.QueryRow(ctx, fmt.Sprintf(`WITH c AS (SELECT * FROM twinspan.lost_change WHERE link = $1::text::uuid AND epoch = $2 AND table_number = $4 AND %[1]s_marks <> ''),
		noted AS (INSERT INTO twinspan.lost_key (link, epoch, oid, key) SELECT DISTINCT $1::text::uuid, $2::bigint, $3::oid, ARRAY[%[2]s] FROM c WHERE %[3]s)
		SELECT count(*) FROM c WHERE NOT (%[3]s)`, side, strings.Join(values, ", "), strings.Join(told, " AND ")), link, epoch, t.OID, number).Scan(&untold)
	if err == nil && untold > 0 {
		return problem.New(problem.Diverged, "lost_key_untold", "%d lost changes of table %s do not tell their key", untold, t.Name).On(t.Name.String()).
			WithHint("compare the whole database: twinspan link rejoin NAME --accept compare_database")
	}
	return pg.Classify(err, "note the keys of lost rows")
}

// NoteKey adds a key of which the row has to be overwritten; its columns are told by
// their numbers.
func NoteKey(ctx context.Context, q catalog.Querier, link string, epoch int64, oid uint32, columns []int16, key []string) error {
	_, err := q.Exec(ctx, `INSERT INTO twinspan.lost_key (link, epoch, oid, key) SELECT m.link, m.epoch, m.oid,
			ARRAY(SELECT v.value FROM unnest(m.table_key) WITH ORDINALITY AS k (attnum, n) JOIN unnest($4::int2[], $5::text[]) AS v (attnum, value) ON v.attnum = k.attnum ORDER BY k.n)
		FROM twinspan.lost_mend m WHERE m.link = $1::text::uuid AND m.epoch = $2 AND m.oid = $3`, link, epoch, oid, columns, key)
	return pg.Classify(err, "note the key of a row")
}

// Keys returns the next keys of a table behind the one with the id, and the id of the
// last; none when there are no more.
func Keys(ctx context.Context, q catalog.Querier, link string, epoch int64, oid uint32, after int64, most int) (keys [][]string, last int64, err error) {
	rows, err := q.Query(ctx, `SELECT id, key FROM twinspan.lost_key WHERE link = $1::text::uuid AND epoch = $2 AND oid = $3 AND id > $4 ORDER BY id LIMIT $5`, link, epoch, oid, after, most)
	if err != nil {
		return nil, 0, pg.Classify(err, "read the keys of lost rows")
	}
	var key []string
	_, err = pgx.ForEachRow(rows, []any{&last, &key}, func() error {
		keys = append(keys, key)
		key = nil
		return nil
	})
	return keys, last, pg.Classify(err, "read the keys of lost rows")
}

// KeysAtOnce is how many rows are dealt with at once.
const KeysAtOnce = 5000

// FewRows are settings of a session in which a few keys are looked for in tables that may be
// large.
func FewRows() map[string]string {
	return map[string]string{"lock_timeout": "10s", "enable_seqscan": "off", "enable_hashjoin": "off", "enable_mergejoin": "off"}
}

// DeleteKeys removes the rows of a table at keys. They stand in the statement: what runs code of
// users has the rights of the table's owner, who may not read where the keys are noted.
func DeleteKeys(ctx context.Context, table *rights.Writable, t TouchedTable, keys [][]string) error {
	if len(keys) == 0 {
		return nil
	}
	names, conditions := make([]string, len(t.Key)), make([]string, len(t.Key))
	for i, name := range t.Key {
		names[i] = fmt.Sprintf("k%d", i)
		conditions[i] = t.Equal[i].OfText("t."+sqlname.Quote(name), "k."+names[i])
	}
	rows := make([]string, len(keys))
	for i, key := range keys {
		values := make([]string, len(key))
		for j, v := range key {
			values[j] = string(rights.AppendLiteral(nil, []byte(v))) + "::pg_catalog.text"
		}
		rows[i] = "(" + strings.Join(values, ",") + ")"
	}
	return table.Remove(ctx, fmt.Sprintf(`DELETE FROM ONLY %s AS t USING (VALUES %s) AS k (%s) WHERE %s`,
		t.Name.SQL(), strings.Join(rows, ","), strings.Join(names, ", "), strings.Join(conditions, " AND ")), "delete the lost rows of "+t.Name.String())
}

// TablesNow names the tables at whose keys rows have to be overwritten, and those
// that have to be copied anew, as they are called now.
func TablesNow(ctx context.Context, q catalog.Querier, link string, epoch int64) (touched []TouchedTable, anew []AnewTable, err error) {
	var major int
	if err := q.QueryRow(ctx, `SELECT current_setting('server_version_num')::int / 10000`).Scan(&major); err != nil {
		return nil, nil, pg.Classify(err, "read the version")
	}
	identities, err := pg.Identities(ctx, q, major)
	if err != nil {
		return nil, nil, err
	}
	rows, err := q.Query(ctx, `SELECT c.oid, n.nspname, c.relname, m.anew, ARRAY(SELECT a.attname::text FROM unnest(m.table_key) WITH ORDINALITY AS k (attnum, n)
			JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum ORDER BY k.n)
		FROM twinspan.lost_mend m JOIN pg_catalog.pg_class c ON c.oid = m.oid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		WHERE m.link = $1::text::uuid AND m.epoch = $2 ORDER BY 2, 3`, link, epoch)
	if err != nil {
		return nil, nil, pg.Classify(err, "list the tables to mend")
	}
	var oid uint32
	var name sqlname.Table
	var again bool
	var key []string
	_, err = pgx.ForEachRow(rows, []any{&oid, &name.Schema, &name.Name, &again, &key}, func() error {
		if again {
			anew = append(anew, AnewTable{OID: oid, Name: name})
			return nil
		}
		t := TouchedTable{OID: oid, Name: name, Key: slices.Clone(key)}
		id := identities[oid]
		if !sameSet(id.Columns, t.Key) {
			return keyChanged(name)
		}
		for _, k := range t.Key {
			t.Equal = append(t.Equal, id.Equal[slices.Index(id.Columns, k)])
		}
		touched = append(touched, t)
		return nil
	})
	return touched, anew, pg.Classify(err, "list the tables to mend")
}

// keyChanged refuses keys that rows are not told apart by any more.
func keyChanged(name sqlname.Table) error {
	return problem.New(problem.Diverged, "lost_key_changed", "the key of table %s is another one by now", name).On(name.String()).
		WithHint("compare the whole database: twinspan link rejoin NAME --accept compare_database")
}
