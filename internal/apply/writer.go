package apply

import (
	"encoding/binary"
	"math/bits"

	"github.com/twinspan/twinspan/internal/group"
	"github.com/twinspan/twinspan/internal/pgoutput"
)

const (
	// fewRows: below, single-row statements cost less than a set-based one.
	fewRows = 8
	// maxRows bounds a set-based UPDATE or DELETE, for the server's memory.
	maxRows = 5000
	// largeValue is the size from which a value is not copied on its way.
	largeValue = 32 << 10
	// The types text, varchar and integer.
	textOID, varcharOID, int4OID = 25, 1043, 23
)

// writer turns planned changes into messages. Its memory is used again.
type writer struct {
	s         *session
	old, new  []pgoutput.Column // of the change being written
	columns   []pgoutput.Column // in the order of parameters
	arrays    [][]byte
	counts    []byte
	slots     []int
	shape     []byte
	unchanged group.Columns
	null      group.Columns

	fences *fences
	sql    []byte // of a statement for a fence

	checked   bool // statements for one row are to fail unless they hit one
	unchecked bool // one was sent that does not
}

// insert writes one row.
func (w *writer) insert(r *relation, row []byte, op int) {
	w.old, w.new = w.old[:0], split(w.new, row)
	st := r.statement(append(w.shape[:0], 'I'), r.insertStatement)
	w.single(r, st, op, 1)
}

// delete deletes the row of the key that a tuple holds.
func (w *writer) delete(r *relation, key []byte, op int, want int64) {
	w.old, w.new = split(w.old, key), w.new[:0]
	st := r.statement(append(w.shape[:0], 'D'), func() *statement { return r.deleteStatement(true) })
	w.single(r, st, op, want)
}

// update updates the row of the key, which the old tuple holds if there is one.
func (w *writer) update(r *relation, old, row []byte, op int, want int64, identity bool) {
	w.old, w.new = split(w.old, old), split(w.new, row)
	w.unchanged = group.UnchangedOf(w.unchanged, pgoutput.Tuple{Bytes: row, Kinds: pgoutput.KindsOf(row)})
	keyInOld := len(old) > 0
	shape := append(w.shape[:0], 'U', bit(keyInOld), bit(identity))
	w.shape = appendColumns(shape, w.unchanged)
	st := r.statement(w.shape, func() *statement { return r.updateStatement(w.unchanged, keyInOld, identity) })
	w.single(r, st, op, want)
}

// deleteOne deletes one row that is the old tuple.
func (w *writer) deleteOne(r *relation, old []byte, op int) { w.deleteSome(r, old, 1, op) }

// deleteSome deletes so many rows that are the old tuple: a power of two.
func (w *writer) deleteSome(r *relation, old []byte, some, op int) {
	w.old, w.new = split(w.old, old), w.new[:0]
	w.null = nulls(w.null, w.old)
	w.shape = appendColumns(append(w.shape[:0], 'd', byte(bits.Len(uint(some)))), w.null)
	st := r.statement(w.shape, func() *statement { return r.deleteSomeStatement(w.null, some) })
	w.single(r, st, op, int64(some))
}

// updateOne updates one row that is the old tuple.
func (w *writer) updateOne(r *relation, old, row []byte, op int, identity bool) {
	w.old, w.new = split(w.old, old), split(w.new, row)
	w.null = nulls(w.null, w.old)
	w.unchanged = group.UnchangedOf(w.unchanged, pgoutput.Tuple{Bytes: row, Kinds: pgoutput.KindsOf(row)})
	shape := append(w.shape[:0], 'u', bit(identity), byte(len(w.unchanged)))
	w.shape = appendColumns(appendColumns(shape, w.unchanged), w.null)
	st := r.statement(w.shape, func() *statement { return r.updateOneStatement(w.unchanged, w.null, identity) })
	w.single(r, st, op, 1)
}

// single sends a statement with parameters from the old and new columns.
func (w *writer) single(r *relation, st *statement, op int, want int64) {
	if r.fence != nil {
		w.pick(st)
		w.fencedSingle(r, st, op, want)
		return
	}
	if w.checked {
		st = w.check(st, want)
	}
	w.s.prepare(st, op)
	size := w.pick(st)
	if size < largeValue {
		w.bind(st)
	} else {
		w.bindLarge(st, size)
	}
	w.s.execute(op, want)
}

// pick collects the columns that are a statement's parameters, and returns their size.
func (w *writer) pick(st *statement) (size int) {
	w.columns = w.columns[:0]
	for _, p := range st.params {
		from := w.new
		if p.old {
			from = w.old
		}
		w.columns = append(w.columns, from[p.column])
		size += len(from[p.column].Value)
	}
	return size
}

// check returns the checked form of a statement, if it has one that means the same.
func (w *writer) check(st *statement, want int64) *statement {
	if st.checked == nil && want == 1 {
		st.checked = checkedStatement(st)
	}
	if st.checked == nil || want != 1 {
		w.unchecked = true
		return st
	}
	return st.checked
}

func (w *writer) bind(st *statement) {
	s := w.s
	at := s.message('B')
	w.bindHead(st)
	for _, c := range w.columns {
		if c.Kind != pgoutput.Text && c.Kind != pgoutput.Binary {
			s.out = append(s.out, 0xff, 0xff, 0xff, 0xff)
			continue
		}
		s.out = binary.BigEndian.AppendUint32(s.out, uint32(len(c.Value)))
		s.out = append(s.out, c.Value...)
	}
	s.out = append(s.out, 0, 0)
	s.end(at)
}

// bindLarge is bind for values that are not to be copied.
func (w *writer) bindLarge(st *statement, size int) {
	s := w.s
	at := s.message('B')
	w.bindHead(st)
	head := len(s.out) - at
	binary.BigEndian.PutUint32(s.out[at:], uint32(head+4*len(w.columns)+size+2))
	for _, c := range w.columns {
		if c.Kind != pgoutput.Text && c.Kind != pgoutput.Binary {
			s.out = append(s.out, 0xff, 0xff, 0xff, 0xff)
			continue
		}
		s.out = binary.BigEndian.AppendUint32(s.out, uint32(len(c.Value)))
		if len(c.Value) < largeValue {
			s.out = append(s.out, c.Value...)
		} else {
			s.writeLarge(c.Value)
		}
	}
	s.out = append(s.out, 0, 0)
}

// bindHead appends what comes before the values of a Bind message.
func (w *writer) bindHead(st *statement) {
	s := w.s
	s.out = append(s.out, 0)
	s.out = append(s.out, st.name...)
	s.out = append(s.out, 0)
	s.out = binary.BigEndian.AppendUint16(s.out, uint16(len(w.columns)))
	for _, c := range w.columns {
		s.out = append(s.out, 0, bit(c.Kind == pgoutput.Binary))
	}
	s.out = binary.BigEndian.AppendUint16(s.out, uint16(len(w.columns)))
}

// set sends a set-based statement: its parameters are arrays of columns of rows.
func (w *writer) set(r *relation, st *statement, rows []group.Row, text bool) {
	w.counted(r, st, rows, nil, int64(len(rows)), text)
}

// counted is set for a statement with one more parameter, a number for each row, unless
// counts is nil; want is how many rows it must report.
func (w *writer) counted(r *relation, st *statement, rows []group.Row, counts []int, want int64, text bool) {
	if r.fence != nil {
		w.fencedSet(r, st, rows, counts, want)
		return
	}
	s := w.s
	s.prepare(st, opSet)
	w.fillArrays(r, st, rows)
	at := s.message('B')
	s.out = append(s.out, 0)
	s.out = append(s.out, st.name...)
	s.out = append(s.out, 0, 0, 1, 0, 1) // one format for all: binary
	parameters := len(st.params)
	if counts != nil {
		parameters++
	}
	s.out = binary.BigEndian.AppendUint16(s.out, uint16(parameters))
	for i, p := range st.params {
		element := r.columns[p.column].typeID
		if text {
			element = stringOID(r.columns[p.column].textFrom)
		}
		w.array(element, len(rows), w.arrays[i])
	}
	if counts != nil {
		w.counts = w.counts[:0]
		for _, n := range counts {
			w.counts = binary.BigEndian.AppendUint32(append(w.counts, 0, 0, 0, 4), uint32(n))
		}
		w.array(int4OID, len(rows), w.counts)
	}
	s.out = append(s.out, 0, 0)
	s.end(at)
	s.execute(opSet, want)
}

// stringOID is the OID of a column's textFrom.
func stringOID(name string) uint32 {
	if name == "varchar" {
		return varcharOID
	}
	return textOID
}

// array appends a parameter that is an array, of elements with their lengths.
func (w *writer) array(element uint32, n int, elements []byte) {
	s := w.s
	s.out = binary.BigEndian.AppendUint32(s.out, uint32(20+len(elements)))
	// array_recv: dimensions, whether there are nulls, type, length, lower bound.
	for _, v := range [...]uint32{1, 1, element, uint32(n), 1} {
		s.out = binary.BigEndian.AppendUint32(s.out, v)
	}
	s.out = append(s.out, elements...)
}

// fillArrays collects the columns that a statement's parameters take, as elements
// of arrays: the length and the value, as the tuple has them.
func (w *writer) fillArrays(r *relation, st *statement, rows []group.Row) {
	w.slots = w.slots[:0]
	for range r.columns {
		w.slots = append(w.slots, -1)
	}
	for i, p := range st.params {
		w.slots[p.column] = i
		if i == len(w.arrays) {
			w.arrays = append(w.arrays, nil)
		}
		w.arrays[i] = w.arrays[i][:0]
	}
	for _, b := range rows {
		for c := 0; len(b) > 0; c++ {
			var rest []byte
			_, rest = pgoutput.Next(b)
			if i := w.slots[c]; i >= 0 {
				w.arrays[i] = appendElement(w.arrays[i], b[:len(b)-len(rest)])
			}
			b = rest
		}
	}
}

// appendElement appends a column of a tuple without its kind.
func appendElement(dst, column []byte) []byte {
	if len(column) < 5 {
		return append(dst, 0xff, 0xff, 0xff, 0xff)
	}
	return append(dst, column[1:]...)
}

// copy sends rows as COPY data.
func (w *writer) copy(r *relation, rows []group.Row, text bool) {
	if r.fence != nil {
		w.fencedInserts(r, rows)
		return
	}
	s := w.s
	st := r.statement(append(w.shape[:0], 'C', bit(text)), func() *statement { return &statement{sql: r.copySQL(text)} })
	s.prepare(st, opSet)
	s.bindNothing(st.name)
	s.execute(opSet, int64(len(rows)))
	at := s.message('d')
	if !text {
		s.out = append(s.out, "PGCOPY\n\xff\r\n\x00\x00\x00\x00\x00\x00\x00\x00\x00"...)
	}
	for _, row := range rows {
		if text {
			s.out = appendCopyText(s.out, r, row)
		} else {
			s.out = appendCopyBinary(s.out, r, row)
		}
		if len(s.out)-at >= copySize {
			s.end(at)
			if len(s.out) >= writeSize {
				s.flush()
			}
			at = s.message('d')
		}
	}
	if !text {
		s.out = append(s.out, 0xff, 0xff)
	}
	s.end(at)
	s.out = append(s.out, 'c', 0, 0, 0, 4)
}

// appendCopyBinary appends a row as COPY BINARY has it.
func appendCopyBinary(dst []byte, r *relation, b []byte) []byte {
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(r.written)))
	for c := 0; len(b) > 0; c++ {
		_, rest := pgoutput.Next(b)
		if !r.columns[c].generated {
			dst = appendElement(dst, b[:len(b)-len(rest)])
		}
		b = rest
	}
	return dst
}

// appendCopyText appends a row as COPY has it in text format.
func appendCopyText(dst []byte, r *relation, b []byte) []byte {
	first := true
	for c := 0; len(b) > 0; c++ {
		column, rest := pgoutput.Next(b)
		b = rest
		if r.columns[c].generated {
			continue
		}
		if !first {
			dst = append(dst, '\t')
		}
		first = false
		if column.Kind != pgoutput.Text {
			dst = append(dst, '\\', 'N')
			continue
		}
		dst = appendEscaped(dst, column.Value)
	}
	return append(dst, '\n')
}

func appendEscaped(dst, v []byte) []byte {
	from := 0
	for i, ch := range v {
		var escape byte
		switch ch {
		case '\\':
			escape = '\\'
		case '\n':
			escape = 'n'
		case '\r':
			escape = 'r'
		case '\t':
			escape = 't'
		default:
			continue
		}
		dst = append(dst, v[from:i]...)
		dst = append(dst, '\\', escape)
		from = i + 1
	}
	return append(dst, v[from:]...)
}

// split takes a tuple's bytes apart, in dst's memory.
func split(dst []pgoutput.Column, b []byte) []pgoutput.Column {
	return pgoutput.Tuple{Bytes: b}.Columns(dst[:0])
}

// nulls returns which columns are NULL, in dst's memory.
func nulls(dst group.Columns, columns []pgoutput.Column) group.Columns {
	dst = dst[:0]
	for i, c := range columns {
		if i%64 == 0 {
			dst = append(dst, 0)
		}
		if c.Kind == pgoutput.Null {
			dst[i/64] |= 1 << (i % 64)
		}
	}
	return dst
}

func appendColumns(dst []byte, columns group.Columns) []byte {
	for _, word := range columns {
		dst = binary.BigEndian.AppendUint64(dst, word)
	}
	return dst
}

func bit(v bool) byte {
	if v {
		return 1
	}
	return 0
}
