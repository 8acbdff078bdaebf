package lost

import (
	"context"
	"encoding/hex"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// Transaction is a lost transaction, or as much of it as a page has.
type Transaction struct {
	Number  int64 // among those of the parting, in commit order
	XID     int64
	LSN     string // the end of its commit
	At      time.Time
	Total   int64 // changes of the whole
	Changes []Change
}

// Change is one of its changes.
type Change struct {
	Number int64
	Kind   Kind
	Table  sqlname.Table // of a schema change none
	Key    []string      // names of the key's columns; none where rows cannot be told apart
	Old    []Value       // what is known of the row before
	New    []Value       // the row after
	Detail string        // of Truncate its options, of Schema its signal

	asText, always, generated map[string]bool
}

// State says what is known of a value.
type State string

// The states.
const (
	Known     State = "value"
	Null      State = "null"
	Unchanged State = "unchanged" // an update left it as it was, and it was not told
	Long      State = "long"      // the text is only its beginning
)

// Value is a column's value.
type Value struct {
	Column string
	State  State
	Text   string
	Hex    bool  // Text is the hexadecimal form of bytes that are no valid text
	Bytes  int64 // length of a Long one
}

// Limit bounds a page: it ends behind the change with which it reaches either.
type Limit struct {
	Changes int // default 1000
	Bytes   int // of values, default 8 MiB
	// Long is how much of a value that lies in pieces is shown; default 100 bytes.
	Long int
}

func (l Limit) orDefault() Limit {
	const changes, bytes, long = 1000, 8 << 20, 100
	if l.Changes <= 0 {
		l.Changes = changes
	}
	if l.Bytes <= 0 {
		l.Bytes = bytes
	}
	if l.Long <= 0 {
		l.Long = long
	}
	return l
}

const pageSQL = `
SELECT x.number, x.xid, x.lsn::text, x.at, x.changes, c.number, c.kind, coalesce(t.schema_name, ''), coalesce(t.table_name, ''),
       coalesce(t.columns, '{}'), coalesce(t.key_columns, '{}'), coalesce(t.as_text, '{}'), coalesce(t.always, '{}'),
       ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute a WHERE a.attrelid = t.oid AND a.attnum > 0 AND coalesce(to_jsonb(a)->>'attgenerated', '') <> ''),
       c.old_marks, coalesce(c.old_row, '{}'), c.new_marks, coalesce(c.new_row, '{}'), c.detail
  FROM (SELECT * FROM twinspan.lost_change WHERE link = $1::text::uuid AND epoch = $2 AND number > $3 ORDER BY number LIMIT $4) c
  JOIN twinspan.lost_transaction x ON x.link = c.link AND x.epoch = c.epoch AND x.number = c.transaction
  LEFT JOIN twinspan.lost_table t ON t.link = c.link AND t.epoch = c.epoch AND t.number = c.table_number
 ORDER BY c.number`

// Connect opens a session for Page. Text comes as UTF8, but from a database in
// SQL_ASCII, which holds any bytes, as it is.
func Connect(ctx context.Context, dsn *pg.DSN, name string) (*pgx.Conn, error) {
	conn, err := dsn.Connect(ctx, pg.Session{Name: name + "/lost", Apply: true})
	if err != nil {
		return nil, err
	}
	_, err = conn.Exec(ctx, `SELECT set_config('client_encoding', 'SQL_ASCII', false) WHERE getdatabaseencoding() = 'SQL_ASCII'`)
	if err != nil {
		conn.Close(context.WithoutCancel(ctx))
		return nil, pg.Classify(err, "read the database's encoding")
	}
	return conn, nil
}

// Page reads the changes behind the one with the number after, in the order in
// which they were made. next is the number of the last, to ask on with; more says
// that there may be others. The session must be one of Connect.
func Page(ctx context.Context, q catalog.Querier, link string, epoch, after int64, limit Limit) (list []Transaction, next int64, more bool, err error) {
	limit = limit.orDefault()
	if err := known(ctx, q, link, epoch); err != nil {
		return nil, 0, false, err
	}
	// Binary, for the text of an array is taken apart as UTF8.
	rows, err := q.Query(ctx, pageSQL, pgx.QueryExecModeDescribeExec, link, epoch, after, limit.Changes)
	if err != nil {
		return nil, 0, false, pg.Classify(err, "read lost rows")
	}
	next = after
	count, bytes := 0, 0
	for rows.Next() {
		if bytes >= limit.Bytes {
			more = true
			break
		}
		t, c, size, err := scanChange(rows, limit)
		if err != nil {
			rows.Close()
			return nil, 0, false, pg.Classify(err, "read lost rows")
		}
		if len(list) == 0 || list[len(list)-1].Number != t.Number {
			list = append(list, t)
		}
		last := &list[len(list)-1]
		last.Changes = append(last.Changes, c)
		next, bytes, count = c.Number, bytes+size, count+1
	}
	rows.Close()
	if err := rows.Err(); err != nil {
		return nil, 0, false, pg.Classify(err, "read lost rows")
	}
	more = more || count == limit.Changes
	return list, next, more, fillLong(ctx, q, link, epoch, list, limit)
}

func scanChange(rows pgx.Rows, limit Limit) (t Transaction, c Change, size int, err error) {
	var columns, generated []string
	var key []int16
	var asText, always []bool
	var oldMarks, newMarks string
	var oldRow, newRow []*string
	err = rows.Scan(&t.Number, &t.XID, &t.LSN, &t.At, &t.Total, &c.Number, &c.Kind, &c.Table.Schema, &c.Table.Name,
		&columns, &key, &asText, &always, &generated, &oldMarks, &oldRow, &newMarks, &newRow, &c.Detail)
	if err != nil {
		return t, c, 0, err
	}
	t.At = t.At.UTC()
	for _, k := range key {
		c.Key = append(c.Key, columns[k])
	}
	c.asText, c.always, c.generated = map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, name := range generated {
		c.generated[name] = true
	}
	for i, name := range columns {
		c.asText[name] = i < len(asText) && asText[i]
		c.always[name] = i < len(always) && always[i]
	}
	c.Old, c.New = values(columns, oldMarks, oldRow), values(columns, newMarks, newRow)
	// What lies in pieces is read into the page as well.
	size = len(c.Detail) + min(limit.Long, longBudget)*(strings.Count(oldMarks, string(markLong))+strings.Count(newMarks, string(markLong)))
	for _, list := range [][]*string{oldRow, newRow} {
		for _, v := range list {
			if v != nil {
				size += len(*v)
			}
		}
	}
	return t, c, size, nil
}

// values pairs names with what is known. Columns that were not told are left out.
func values(columns []string, marks string, row []*string) []Value {
	var list []Value
	for i, mark := range []byte(marks) {
		v := Value{Column: columns[i]}
		switch mark {
		case markUnknown:
			continue
		case markNull:
			v.State = Null
		case markUnchanged:
			v.State = Unchanged
		case markLong:
			v.State = Long
		default:
			v.State = Known
			v.Text, v.Hex = readable([]byte(*row[i]))
		}
		list = append(list, v)
	}
	return list
}

// readable gives bytes as text, or what is none in hexadecimal.
func readable(b []byte) (text string, isHex bool) {
	if utf8.Valid(b) {
		return string(b), false
	}
	return hex.EncodeToString(b), true
}

// longBudget bounds what of a change's long values is read.
const longBudget = 16 << 20

// fillLong reads the beginnings of long values.
func fillLong(ctx context.Context, q catalog.Querier, link string, epoch int64, list []Transaction, limit Limit) error {
	for i := range list {
		for j := range list[i].Changes {
			c := &list[i].Changes[j]
			left := longBudget
			for _, side := range []struct {
				isNew  bool
				values []Value
			}{{false, c.Old}, {true, c.New}} {
				for k := range side.values {
					if v := &side.values[k]; v.State == Long {
						if err := readLong(ctx, q, link, epoch, c.Number, side.isNew, v, min(limit.Long, left)); err != nil {
							return err
						}
						left -= len(v.Text)
					}
				}
			}
		}
	}
	return nil
}

// readLong reads the beginning of a long value.
func readLong(ctx context.Context, q catalog.Querier, link string, epoch, change int64, isNew bool, v *Value, most int) error {
	var beginning []byte
	err := q.QueryRow(ctx, `WITH p AS (
			SELECT v.piece, v.value, sum(length(v.value)) OVER (ORDER BY v.piece) - length(v.value) AS before
			  FROM twinspan.lost_value v
			  JOIN twinspan.lost_change c ON c.link = v.link AND c.epoch = v.epoch AND c.number = v.change
			  JOIN twinspan.lost_table t ON t.link = c.link AND t.epoch = c.epoch AND t.number = c.table_number
			 WHERE v.link = $1::text::uuid AND v.epoch = $2 AND v.change = $3 AND v.of_new = $4 AND t.columns[v.position + 1] = $5::text)
		SELECT (SELECT string_agg(value, '' ORDER BY piece) FROM p WHERE before < $6::bigint), (SELECT sum(length(value))::bigint FROM p)`,
		link, epoch, change, isNew, v.Column, most).Scan(&beginning, &v.Bytes)
	if err != nil {
		return pg.Classify(err, "read a long value")
	}
	beginning = beginning[:min(len(beginning), most)]
	// A character of the database's encoding may be cut at the end.
	const longestCharacter = 4
	for cut := 0; cut < longestCharacter && cut <= len(beginning); cut++ {
		err = q.QueryRow(ctx, `SELECT convert_from($1::bytea, getdatabaseencoding()::name)`, beginning[:len(beginning)-cut]).Scan(&v.Text)
		if state := pg.SQLState(err); state != "22021" && state != "22P05" {
			break
		}
	}
	if err != nil || !utf8.ValidString(v.Text) {
		v.Text, v.Hex = hex.EncodeToString(beginning), true
	}
	return nil
}
