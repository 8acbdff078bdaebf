package lost

import (
	"bytes"
	"context"
	"encoding/binary"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/pgoutput"
)

// longValue is the length from which a value lies in pieces in a table of its own.
const longValue = 1 << 20

// longInRow is the same for the values of a row that is large already: longer than
// any that an index holds, so that no key is among them.
const longInRow = 16 << 10

// writer records transactions in the database, several in one of its own.
type writer struct {
	Parting
	conn *pgx.Conn
	tx   pgx.Tx // nil between

	readTo       lsn.LSN
	transactions int64 // number of the last one that was begun
	changes      int64 // number of the last one
	lastTable    int
	tables       map[uint32]*table // by oid
	identities   map[uint32]pg.Identity

	current pgoutput.Begin
	first   int64 // number of the last change before the current transaction

	rows   bytes.Buffer // of lost_change, as COPY takes them
	values bytes.Buffer // of lost_value
	heads  bytes.Buffer // of lost_transaction
	unsaid int          // bytes since the last commit
}

func (w *writer) beginTransaction(b pgoutput.Begin) {
	w.current, w.first = b, w.changes
}

// commitTransaction records a transaction. One without changes, as agents have
// them, is nothing that was lost.
func (w *writer) commitTransaction(ctx context.Context, c pgoutput.Commit) error {
	w.readTo = c.End
	if w.changes == w.first {
		return nil
	}
	w.transactions++
	const columns = 7
	w.start(&w.heads, columns, w.transactions)
	field(&w.heads, binary.BigEndian.AppendUint64(nil, uint64(w.current.XID)))
	field(&w.heads, binary.BigEndian.AppendUint64(nil, uint64(c.End)))
	field(&w.heads, binary.BigEndian.AppendUint64(nil, uint64(w.current.Time)))
	field(&w.heads, binary.BigEndian.AppendUint64(nil, uint64(w.changes-w.first)))
	if w.unsaid+w.rows.Len()+w.heads.Len() < commitBytes && w.heads.Len() < copyBytes {
		return nil
	}
	if err := w.begin(ctx); err != nil {
		return err
	}
	return w.commit(ctx, false)
}

// complete records that there is no more up to a position.
func (w *writer) complete(ctx context.Context, end lsn.LSN) error {
	w.readTo = max(w.readTo, end)
	if err := w.begin(ctx); err != nil {
		return err
	}
	if err := w.commit(ctx, true); err != nil {
		return err
	}
	_, err := w.conn.Exec(ctx, `ANALYZE twinspan.lost_change; ANALYZE twinspan.lost_transaction; ANALYZE twinspan.lost_table`)
	return pg.Classify(err, "gather statistics of what was lost")
}

func (w *writer) begin(ctx context.Context) (err error) {
	if w.tx == nil {
		w.tx, err = w.conn.Begin(ctx)
	}
	return pg.Classify(err, "record lost transactions")
}

func (w *writer) commit(ctx context.Context, complete bool) error {
	if err := w.flush(ctx); err != nil {
		return err
	}
	_, err := w.tx.Exec(ctx, `UPDATE twinspan.lost SET read_to = $3::text::pg_lsn, complete = $4 WHERE link = $1::text::uuid AND epoch = $2`,
		w.Link, w.Epoch, w.readTo.String(), complete)
	if err == nil {
		err = w.tx.Commit(ctx)
	}
	w.tx, w.unsaid = nil, 0
	return pg.Classify(err, "record lost transactions")
}

func (w *writer) rollback(ctx context.Context) {
	if w.tx != nil {
		w.tx.Rollback(ctx)
		w.tx = nil
	}
}

// note records a change that has no rows.
func (w *writer) note(ctx context.Context, kind Kind, t *table, detail string) error {
	w.changes++
	w.head(kind, t)
	w.text([]byte{})
	w.null()
	w.text([]byte{})
	w.null()
	w.text([]byte(detail))
	return w.added(ctx)
}

// change records a changed row.
func (w *writer) change(ctx context.Context, kind Kind, t *table, c *pgoutput.Change) error {
	w.changes++
	w.head(kind, t)
	if err := w.row(ctx, c.Old, c.OldKind == pgoutput.OldKey, t, false); err != nil {
		return err
	}
	if err := w.row(ctx, c.New, false, t, true); err != nil {
		return err
	}
	w.text(nil)
	return w.added(ctx)
}

// added sends what was gathered when it is enough.
func (w *writer) added(ctx context.Context) error {
	if w.rows.Len()+w.values.Len() < copyBytes {
		return nil
	}
	return w.flush(ctx)
}

// The columns of the rows that are copied, and the head of the format (manual,
// "COPY", "Binary Format").
const (
	changeColumns = "twinspan.lost_change (link, epoch, number, transaction, kind, table_number, old_marks, old_row, new_marks, new_row, detail)"
	headColumns   = "twinspan.lost_transaction (link, epoch, number, xid, lsn, at, changes)"
	valueColumns  = "twinspan.lost_value (link, epoch, change, of_new, position, piece, value)"
	copyHead      = "PGCOPY\n\xff\r\n\x00\x00\x00\x00\x00\x00\x00\x00\x00"
)

// flush sends what was gathered.
func (w *writer) flush(ctx context.Context) error {
	if err := w.send(ctx, &w.values, valueColumns); err != nil {
		return err
	}
	if err := w.send(ctx, &w.rows, changeColumns); err != nil {
		return err
	}
	return w.send(ctx, &w.heads, headColumns)
}

func (w *writer) send(ctx context.Context, b *bytes.Buffer, into string) error {
	if b.Len() == 0 {
		return nil
	}
	if err := w.begin(ctx); err != nil {
		return err
	}
	w.unsaid += b.Len()
	b.Write([]byte{0xff, 0xff}) // the trailer: a count of -1
	if _, err := w.conn.PgConn().CopyFrom(ctx, b, "COPY "+into+" FROM STDIN (FORMAT binary)"); err != nil {
		return pg.Classify(err, "record lost rows")
	}
	b.Reset()
	return nil
}

// start begins a row of the given number of columns, the first of which is its
// number.
func (w *writer) start(b *bytes.Buffer, columns int, number int64) {
	if b.Len() == 0 {
		b.WriteString(copyHead)
	}
	b.Write(binary.BigEndian.AppendUint16(nil, uint16(columns)))
	field(b, w.link())
	field(b, binary.BigEndian.AppendUint64(nil, uint64(w.Epoch)))
	field(b, binary.BigEndian.AppendUint64(nil, uint64(number)))
}

// link is the link's id as uuid_recv takes it.
func (w *writer) link() []byte { return uuidBytes(w.Link) }

func (w *writer) head(kind Kind, t *table) {
	const columns = 11
	w.start(&w.rows, columns, w.changes)
	field(&w.rows, binary.BigEndian.AppendUint64(nil, uint64(w.transactions+1)))
	w.text([]byte(kind))
	if t == nil {
		w.null()
		return
	}
	field(&w.rows, binary.BigEndian.AppendUint32(nil, uint32(t.number)))
}

func (w *writer) text(b []byte) { field(&w.rows, b) }

func (w *writer) null() { w.rows.Write([]byte{0xff, 0xff, 0xff, 0xff}) }

func field(b *bytes.Buffer, value []byte) {
	b.Write(binary.BigEndian.AppendUint32(nil, uint32(len(value))))
	b.Write(value)
}

// row adds the marks and the values of a tuple: two columns. Values that are long
// go to a table of their own.
func (w *writer) row(ctx context.Context, t pgoutput.Tuple, keyOnly bool, of *table, isNew bool) error {
	if t.Len == 0 {
		w.text(nil)
		w.null()
		return nil
	}
	const textOID = 25
	marks := make([]byte, 0, t.Len)
	array := arrayHead(textOID, t.Len)
	position := 0
	for b := t.Bytes; len(b) > 0; position++ {
		var c pgoutput.Column
		c, b = pgoutput.Next(b)
		mark := markOf(c)
		if keyOnly && !of.told[position] {
			mark = markUnknown
		}
		if mark == markValue && (len(c.Value) > longValue || len(c.Value) > longInRow && len(array)+len(c.Value) > copyBytes) {
			mark = markLong
			if err := w.long(ctx, c.Value, isNew, position); err != nil {
				return err
			}
		}
		marks = append(marks, mark)
		if mark != markValue {
			array = append(array, 0xff, 0xff, 0xff, 0xff)
			continue
		}
		array = binary.BigEndian.AppendUint32(array, uint32(len(c.Value)))
		array = append(array, c.Value...)
	}
	w.text(marks)
	field(&w.rows, array)
	return nil
}

func markOf(c pgoutput.Column) byte {
	switch c.Kind {
	case pgoutput.Null:
		return markNull
	case pgoutput.Unchanged:
		return markUnchanged
	}
	return markValue
}

// arrayHead begins an array of one dimension as array_recv takes it.
func arrayHead(element uint32, length int) []byte {
	b := binary.BigEndian.AppendUint32(nil, 1) // dimensions
	b = binary.BigEndian.AppendUint32(b, 1)    // it may have NULLs
	b = binary.BigEndian.AppendUint32(b, element)
	b = binary.BigEndian.AppendUint32(b, uint32(length))
	return binary.BigEndian.AppendUint32(b, 1) // lower bound
}

// long records a value in pieces. The row of the change may be half written in
// the buffer, so only the values' is sent.
func (w *writer) long(ctx context.Context, value []byte, isNew bool, position int) error {
	const columns = 7
	for piece := 0; len(value) > 0; piece++ {
		n := min(len(value), longValue)
		w.start(&w.values, columns, w.changes)
		of := []byte{0}
		if isNew {
			of[0] = 1
		}
		field(&w.values, of)
		field(&w.values, binary.BigEndian.AppendUint32(nil, uint32(position)))
		field(&w.values, binary.BigEndian.AppendUint32(nil, uint32(piece)))
		field(&w.values, value[:n])
		value = value[n:]
		if w.values.Len() >= copyBytes {
			if err := w.send(ctx, &w.values, valueColumns); err != nil {
				return err
			}
		}
	}
	return nil
}
