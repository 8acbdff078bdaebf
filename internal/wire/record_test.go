package wire

import (
	"bytes"
	"encoding/binary"
	"testing"
	"testing/quick"
	"time"

	"github.com/twinspan/twinspan/internal/lsn"
)

func record(body string) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
}

func TestSplitFindsWholeRecords(t *testing.T) {
	stream := append(append(record("Babc"), record("C")...), record("Ilong enough")...)
	first, second := len(record("Babc")), len(record("Babc"))+len(record("C"))
	for n := range len(stream) + 1 {
		whole, next, err := Split(stream[:n])
		if err != nil {
			t.Fatalf("%d bytes: %v", n, err)
		}
		want := 0
		switch {
		case n == len(stream):
			want = n
		case n >= second:
			want = second
		case n >= first:
			want = first
		}
		if whole != want {
			t.Errorf("%d bytes: %d are whole, want %d", n, whole, want)
		}
		if n-whole >= RecordHeader && next <= n-whole {
			t.Errorf("%d bytes: the next record is said to have %d", n, next)
		}
	}
}

func TestSplitRefusesImpossibleLengths(t *testing.T) {
	for _, n := range []uint32{0, MaxRecord + 1, 1<<32 - 1} {
		if _, _, err := Split(binary.BigEndian.AppendUint32(nil, n)); err == nil {
			t.Errorf("a record of %d bytes was taken", n)
		}
	}
}

func TestReached(t *testing.T) {
	want := Reached{Position: 0x16B374D848, At: time.UnixMicro(1_700_000_000_123_456)}
	b := want.Append(nil)
	got, ok, err := ParseReached(b[RecordHeader:])
	if err != nil || !ok || got.Position != want.Position || !got.At.Equal(want.At) {
		t.Fatalf("%+v %v %v", got, ok, err)
	}
	for n := range len(b) - RecordHeader {
		if _, ok, err := ParseReached(b[RecordHeader : RecordHeader+n]); ok || err == nil {
			t.Errorf("a prefix of %d bytes was taken", n)
		}
	}
	if _, ok, err := ParseReached([]byte("Bxxx")); ok || err != nil {
		t.Errorf("a message of pgoutput: %v %v", ok, err)
	}
}

func TestConfirm(t *testing.T) {
	same := func(a, b, c uint32) bool {
		d := lsn.LSN(a)
		want := Confirm{Received: d + lsn.LSN(b) + lsn.LSN(c), Applied: d + lsn.LSN(b), Durable: d}
		got, err := ParseConfirm(want.Append(nil))
		return err == nil && got == want
	}
	if err := quick.Check(same, nil); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []Confirm{{1, 2, 0}, {3, 1, 2}} {
		if _, err := ParseConfirm(bad.Append(nil)); err == nil {
			t.Errorf("%v was taken", bad)
		}
	}
	if _, err := ParseConfirm(make([]byte, ConfirmLength-1)); err == nil {
		t.Error("a short one was taken")
	}
}

func FuzzRecords(f *testing.F) {
	f.Add(append(record("Babc"), Reached{Position: 7}.Append(nil)...))
	f.Add([]byte{0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		whole, next, err := Split(b)
		if err != nil {
			return
		}
		if whole > len(b) || next > 0 && next <= len(b)-whole {
			t.Fatalf("whole %d next %d of %d", whole, next, len(b))
		}
		for rest := b[:whole]; len(rest) > 0; {
			n := int(binary.BigEndian.Uint32(rest)) + RecordHeader
			if r, ok, err := ParseReached(rest[RecordHeader:n]); ok && err == nil {
				if !bytes.Equal(r.Append(nil)[:RecordHeader+9], rest[:RecordHeader+9]) {
					t.Fatal("a position changed on its way")
				}
			}
			rest = rest[n:]
		}
	})
}

func FuzzConfirm(f *testing.F) {
	f.Add(Confirm{3, 2, 1}.Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := ParseConfirm(b); err == nil && !bytes.Equal(c.Append(nil), b) {
			t.Fatal("a confirmation changed on its way")
		}
	})
}
