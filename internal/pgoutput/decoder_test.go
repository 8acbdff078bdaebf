package pgoutput

import (
	"encoding/binary"
	"errors"
	"reflect"
	"testing"
	"time"
)

// Parts of messages, written as the manual has them.
func i16(v int) []byte         { return binary.BigEndian.AppendUint16(nil, uint16(v)) }
func i32(v int) []byte         { return binary.BigEndian.AppendUint32(nil, uint32(v)) }
func i64(v int) []byte         { return binary.BigEndian.AppendUint64(nil, uint64(v)) }
func str(s string) []byte      { return append([]byte(s), 0) }
func one(b byte) []byte        { return []byte{b} }
func text(s string) []byte     { return join(one('t'), i32(len(s)), []byte(s)) }
func bin(s string) []byte      { return join(one('b'), i32(len(s)), []byte(s)) }
func tuple(c ...[]byte) []byte { return join(i16(len(c)), join(c...)) }
func join(parts ...[]byte) []byte {
	var b []byte
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

// sample is a valid message and what must come out of it.
type sample struct {
	name     string
	msg      []byte
	stream   bool // decoded inside a streamed block
	parallel bool
	want     func(*Message) any
	equal    any
}

func row(c ...[]byte) Tuple {
	b := join(c...)
	return Tuple{Bytes: b, Len: len(c), Kinds: KindsOf(b)}
}

func samples() []sample {
	change := func(m *Message) any { return m.Change }
	return []sample{
		{name: "begin", msg: join(one('B'), i64(0x100), i64(7), i32(99)),
			want: func(m *Message) any { return m.Begin }, equal: Begin{0x100, 7, 99}},
		{name: "commit", msg: join(one('C'), one(0), i64(0x100), i64(0x130), i64(7)),
			want: func(m *Message) any { return m.Commit }, equal: Commit{0x100, 0x130, 7}},
		{name: "origin", msg: join(one('O'), i64(0x55), str("twin")),
			want: func(m *Message) any { return m.Origin }, equal: Origin{0x55, []byte("twin")}},
		{name: "relation", msg: join(one('R'), i32(16400), str("s"), str(`T "x`), one('d'), i16(2),
			one(1), str("id"), i32(20), i32(-1), one(0), str("v"), i32(25), i32(14)),
			want: func(m *Message) any { return m.Relation },
			equal: Relation{16400, []byte("s"), []byte(`T "x`), 'd', []RelationColumn{
				{true, []byte("id"), 20, -1}, {false, []byte("v"), 25, 14}}}},
		{name: "relation streamed", stream: true, msg: join(one('R'), i32(5), i32(1), str(""), str("t"), one('f'), i16(0)),
			want: func(m *Message) any { return []any{m.XID, m.Relation.ID} }, equal: []any{uint32(5), uint32(1)}},
		{name: "type", msg: join(one('Y'), i32(16500), str("s"), str("mood")),
			want: func(m *Message) any { return m.DataType }, equal: DataType{16500, []byte("s"), []byte("mood")}},
		{name: "insert", msg: join(one('I'), i32(16400), one('N'), tuple(text("1"), one('n'), bin("xyz"))),
			want: change, equal: Change{Relation: 16400, New: row(text("1"), one('n'), bin("xyz"))}},
		{name: "insert streamed", stream: true, msg: join(one('I'), i32(77), i32(16400), one('N'), tuple(text("1"))),
			want: func(m *Message) any { return []any{m.XID, m.Change.New} }, equal: []any{uint32(77), row(text("1"))}},
		{name: "insert of no columns", msg: join(one('I'), i32(16400), one('N'), tuple()),
			want: func(m *Message) any { return m.Change.New.Len }, equal: 0},
		{name: "update", msg: join(one('U'), i32(16400), one('N'), tuple(text("1"), one('u'))),
			want: change, equal: Change{Relation: 16400, New: row(text("1"), one('u'))}},
		{name: "update of the key", msg: join(one('U'), i32(16400), one('K'), tuple(text("1"), one('n')), one('N'), tuple(text("2"), one('u'))),
			want: change, equal: Change{16400, OldKey, row(text("1"), one('n')), row(text("2"), one('u'))}},
		{name: "update with the old row", msg: join(one('U'), i32(16400), one('O'), tuple(text("1")), one('N'), tuple(text("2"))),
			want: change, equal: Change{16400, OldFull, row(text("1")), row(text("2"))}},
		{name: "delete", msg: join(one('D'), i32(16400), one('K'), tuple(text("1"), one('n'))),
			want: change, equal: Change{Relation: 16400, OldKind: OldKey, Old: row(text("1"), one('n'))}},
		{name: "truncate", msg: join(one('T'), i32(2), one(3), i32(1), i32(2)),
			want: func(m *Message) any { return m.Truncate }, equal: Truncate{true, true, []uint32{1, 2}}},
		{name: "message", msg: join(one('M'), one(1), i64(9), str("p"), i32(3), []byte("abc")),
			want: func(m *Message) any { return m.Logical }, equal: Logical{true, 9, []byte("p"), []byte("abc")}},
		{name: "stream start", msg: join(one('S'), i32(5), one(1)),
			want: func(m *Message) any { return m.StreamStart }, equal: StreamStart{5, true}},
		{name: "stream stop", stream: true, msg: one('E'),
			want: func(m *Message) any { return m.Type }, equal: TypeStreamStop},
		{name: "stream commit", msg: join(one('c'), i32(5), one(0), i64(1), i64(2), i64(3)),
			want: func(m *Message) any { return []any{m.StreamCommit, m.Commit} }, equal: []any{uint32(5), Commit{1, 2, 3}}},
		{name: "stream abort", msg: join(one('A'), i32(5), i32(6)),
			want: func(m *Message) any { return m.StreamAbort }, equal: StreamAbort{XID: 5, SubXID: 6}},
		{name: "parallel stream abort", parallel: true, msg: join(one('A'), i32(5), i32(6), i64(7), i64(8)),
			want: func(m *Message) any { return m.StreamAbort }, equal: StreamAbort{5, 6, 7, 8}},
	}
}

func (s sample) decode(b []byte) (*Message, error) {
	d := &Decoder{Parallel: s.parallel, streaming: s.stream}
	return d.Decode(b)
}

func TestEveryMessage(t *testing.T) {
	for _, s := range samples() {
		m, err := s.decode(s.msg)
		if err != nil {
			t.Errorf("%s: %v", s.name, err)
			continue
		}
		if got := s.want(m); !reflect.DeepEqual(got, s.equal) {
			t.Errorf("%s: got %+v, want %+v", s.name, got, s.equal)
		}
	}
}

func TestEveryPrefixIsRefused(t *testing.T) {
	for _, s := range samples() {
		for n := range len(s.msg) {
			if _, err := s.decode(s.msg[:n]); err == nil {
				t.Errorf("%s: its first %d of %d bytes were taken", s.name, n, len(s.msg))
			}
		}
	}
}

func TestTrailingBytesAreRefused(t *testing.T) {
	for _, s := range samples() {
		if _, err := s.decode(append(s.msg[:len(s.msg):len(s.msg)], 0)); err == nil {
			t.Errorf("%s: a byte behind its end was taken", s.name)
		}
	}
}

func TestLengthsBeyondTheMessageAreRefused(t *testing.T) {
	for name, msg := range map[string][]byte{
		"value":         join(one('I'), i32(1), one('N'), i16(1), one('t'), i32(1<<31-1), []byte("x")),
		"negative":      join(one('I'), i32(1), one('N'), i16(1), one('t'), i32(-1)),
		"truncate":      join(one('T'), i32(-1), one(0), i32(1)),
		"message":       join(one('M'), one(0), i64(9), str("p"), i32(-1), []byte("abc")),
		"columns":       join(one('R'), i32(1), str("s"), str("t"), one('d'), i16(65535), one(0)),
		"tuple columns": join(one('I'), i32(1), one('N'), i16(65535), one('n')),
	} {
		var d Decoder
		if _, err := d.Decode(msg); !errors.Is(err, ErrShort) {
			t.Errorf("%s: got %v, want %v", name, err, ErrShort)
		}
	}
}

func TestNonsenseIsRefused(t *testing.T) {
	for name, msg := range map[string][]byte{
		"type":                one('?'),
		"nothing":             nil,
		"kind of value":       join(one('I'), i32(1), one('N'), i16(1), one('x')),
		"kind of tuple":       join(one('I'), i32(1), one('K'), tuple(text("1"))),
		"delete with new row": join(one('D'), i32(1), one('N'), tuple(text("1"))),
		"commit flags":        join(one('C'), one(1), i64(0), i64(0), i64(0)),
		"truncate options":    join(one('T'), i32(0), one(4)),
		"stop without start":  one('E'),
	} {
		var d Decoder
		if m, err := d.Decode(msg); err == nil {
			t.Errorf("%s: taken as %+v", name, m)
		}
	}
	for _, kind := range []byte("bPKrp") {
		var d Decoder
		if _, err := d.Decode(join(one(kind), i64(0))); !errors.Is(err, ErrTwoPhase) {
			t.Errorf("two-phase %q: got %v", kind, err)
		}
	}
}

func TestStreamedBlock(t *testing.T) {
	var d Decoder
	insert := join(one('I'), i32(16400), one('N'), tuple(text("1")))
	streamed := join(one('I'), i32(9), i32(16400), one('N'), tuple(text("1")))
	for _, step := range []struct {
		msg []byte
		xid uint32
	}{
		{insert, 0}, {join(one('S'), i32(9), one(1)), 0}, {streamed, 9}, {one('E'), 0}, {insert, 0},
	} {
		m, err := d.Decode(step.msg)
		if err != nil {
			t.Fatal(err)
		}
		if m.XID != step.xid {
			t.Errorf("%q has transaction %d, want %d", step.msg[0], m.XID, step.xid)
		}
	}
}

func TestTupleWalk(t *testing.T) {
	tup := row(text("one"), one('n'), one('u'), bin(""), text("two"))
	want := []Column{{'t', []byte("one")}, {Kind: 'n'}, {Kind: 'u'}, {'b', []byte{}}, {'t', []byte("two")}}
	got := tup.Columns(nil)
	if len(got) != len(want) {
		t.Fatalf("got %d columns", len(got))
	}
	var back []byte
	for i, c := range got {
		if c.Kind != want[i].Kind || string(c.Value) != string(want[i].Value) {
			t.Errorf("column %d is %+v, want %+v", i, c, want[i])
		}
		if at := tup.Column(i); at.Kind != c.Kind || string(at.Value) != string(c.Value) {
			t.Errorf("Column(%d) is %+v, want %+v", i, at, c)
		}
		back = AppendColumn(back, c)
	}
	if string(back) != string(tup.Bytes) {
		t.Error("columns do not make the tuple again")
	}
	if tup.Kinds != HasNull|HasUnchanged|HasText|HasBinary {
		t.Errorf("kinds are %b", tup.Kinds)
	}
}

func TestTimestamp(t *testing.T) {
	at := time.Date(2026, 3, 4, 5, 6, 7, 8000, time.UTC)
	if got := TimestampOf(at).Time(); !got.Equal(at) {
		t.Errorf("got %v, want %v", got, at)
	}
	if got := Timestamp(0).Time(); !got.Equal(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)) {
		t.Errorf("zero is %v", got)
	}
}

func FuzzDecode(f *testing.F) {
	for _, s := range samples() {
		f.Add(s.msg, s.stream, s.parallel)
	}
	f.Fuzz(func(t *testing.T, msg []byte, streaming, parallel bool) {
		d := Decoder{Parallel: parallel, streaming: streaming}
		m, err := d.Decode(msg)
		if err != nil {
			return
		}
		for _, tup := range []Tuple{m.Change.Old, m.Change.New} {
			var back []byte
			columns := tup.Columns(nil)
			for _, c := range columns {
				back = AppendColumn(back, c)
			}
			if len(columns) != tup.Len || string(back) != string(tup.Bytes) || KindsOf(back) != tup.Kinds {
				t.Fatalf("tuple of %d columns walks as %d", tup.Len, len(columns))
			}
		}
		d = Decoder{Parallel: parallel, streaming: streaming}
		if _, err := d.Decode(msg[:len(msg)-1]); err == nil {
			t.Fatal("a message is valid without its last byte")
		}
	})
}

func BenchmarkDecodeUpdate(b *testing.B) {
	msg := join(one('U'), i32(16400), one('N'), tuple(bin("12345678"), bin("1234"), bin("some text that is longer"), one('n')))
	var d Decoder
	b.ReportAllocs()
	b.SetBytes(int64(len(msg)))
	for b.Loop() {
		if _, err := d.Decode(msg); err != nil {
			b.Fatal(err)
		}
	}
}
