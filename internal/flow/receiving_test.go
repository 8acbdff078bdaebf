package flow

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/twinspan/twinspan/internal/apply"
	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/wire"
)

// portions gives a byte stream in portions of any size.
type portions struct {
	rest   []byte
	random *rand.Rand
}

func (p *portions) Read(b []byte) (int, error) {
	if len(p.rest) == 0 {
		return 0, io.EOF
	}
	most := 1 + p.random.IntN(3000)
	if p.random.IntN(4) == 0 {
		most = 1 + p.random.IntN(300<<10)
	}
	n := copy(b[:min(len(b), most)], p.rest)
	p.rest = p.rest[n:]
	return n, nil
}

// seeds is how many streams a test draws: with the race detector a few are enough to see what
// goroutines share.
func seeds(n uint64) uint64 {
	if testing.Short() {
		return n / 5
	}
	return n
}

func record(message []byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(message))), message...)
}

// event is what an applier is handed: a message, a large one, or a position.
type event struct {
	message []byte
	big     bool
	reached lsn.LSN
}

// TestItemsAreTheStream cuts streams of records, positions and large records at any
// place: what comes out is what went in, in order.
func TestItemsAreTheStream(t *testing.T) {
	for seed := range seeds(30) {
		random := rand.New(rand.NewPCG(seed, 1))
		var stream []byte
		var want []event
		for i := range 400 {
			switch kind := random.IntN(100); {
			case kind < 10:
				e := event{reached: lsn.LSN(i + 1)}
				stream, want = wire.Reached{Position: e.reached}.Append(stream), append(want, e)
			case kind == 10 && i < 200 && seed%10 == 0:
				m := bytes.Repeat([]byte{'I', byte(i)}, bigRecord/2+random.IntN(1000))
				stream, want = append(stream, record(m)...), append(want, event{message: m, big: true})
			default:
				size := 1 + random.IntN(200)
				if kind == 11 {
					size = 1 + random.IntN(bigRecord/8)
				}
				m := bytes.Repeat([]byte{'I'}, size)
				m[size-1] = byte(i) | 1<<7
				stream, want = append(stream, record(m)...), append(want, event{message: m})
			}
		}
		got := received(t, &portions{stream, random})
		if len(got) != len(want) {
			t.Fatalf("seed %d: %d events instead of %d", seed, len(got), len(want))
		}
		for i := range want {
			if !bytes.Equal(got[i].message, want[i].message) || got[i].big != want[i].big || got[i].reached != want[i].reached {
				t.Fatalf("seed %d: event %d is another one: %d bytes, position %s instead of %d bytes, position %s", seed, i,
					len(got[i].message), got[i].reached, len(want[i].message), want[i].reached)
			}
		}
	}
}

// received takes all items of a stream first and looks into them afterwards, for
// nothing may change what was handed over.
func received(t *testing.T, from io.Reader) []event {
	t.Helper()
	r := NewReceiver(nil, false, false, NewSpool(t.TempDir(), 0), 64)
	var items []apply.Item
	for {
		item, err := r.next(t.Context(), from)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		items = append(items, item.Item)
	}
	var events []event
	for _, item := range items {
		events = append(events, eventsOf(item)...)
	}
	return events
}

// Items that wait are bounded in bytes, too: a peer may send many records that are just not long enough for the disk.
func TestLongRecordsDoNotWaitTogether(t *testing.T) {
	const ahead = 64
	r := NewReceiver(nil, false, false, NewSpool(t.TempDir(), 0), ahead)
	long := part{Item: apply.Item{Records: make([]byte, bigRecord-1)}}
	over, stop := context.WithCancel(t.Context())
	stop()
	if err := r.put(t.Context(), long); err != nil {
		t.Fatal(err)
	}
	if r.put(over, long) == nil {
		t.Errorf("%d bytes wait of %d at most", 2*len(long.Records), ahead*itemSize)
	}
	for range 3 {
		if item, err := r.Next(t.Context()); err != nil || len(item.Records) != len(long.Records) {
			t.Fatalf("%d bytes, %v", len(item.Records), err)
		}
		if err := r.put(t.Context(), long); err != nil {
			t.Fatal(err)
		}
	}
	short := NewReceiver(nil, false, false, NewSpool(t.TempDir(), 0), ahead)
	for range ahead { // as many as ever
		if err := short.put(t.Context(), part{Item: apply.Item{Records: make([]byte, itemSize)}}); err != nil {
			t.Fatal(err)
		}
	}
}

// FuzzReceive: no bytes of a peer make the receiver panic, or take memory that they
// only announce.
func FuzzReceive(f *testing.F) {
	f.Add(wire.Reached{Position: 1}.Append(record([]byte("C")))[:20])
	f.Add([]byte{0, 0, 0, 0})
	f.Add([]byte{0x40, 0, 0, 1, 'I'})
	f.Add([]byte{0, 0, 0, 2, 1, 1})
	f.Fuzz(func(t *testing.T, stream []byte) {
		r := NewReceiver(nil, false, false, NewSpool(t.TempDir(), 0), 64)
		from := bytes.NewReader(stream)
		for {
			item, err := r.next(t.Context(), from)
			if err != nil {
				return
			}
			if item.Big != nil {
				item.Big.Close()
			}
		}
	})
}

// frameful reads as a peer stream does: a frame at a time.
type frameful struct{ stream, rest []byte }

func (f *frameful) Read(b []byte) (int, error) {
	if len(f.rest) == 0 {
		f.rest = f.stream
	}
	n := copy(b[:min(len(b), 128<<10)], f.rest)
	f.rest = f.rest[n:]
	return n, nil
}

func BenchmarkReceive(b *testing.B) {
	var stream []byte
	for i := range 10_000 {
		stream = append(stream, record(bytes.Repeat([]byte{'I'}, 40+i%100))...)
	}
	r := NewReceiver(nil, false, false, NewSpool(b.TempDir(), 0), 64)
	from := &frameful{stream: stream}
	b.SetBytes(int64(len(stream)))
	b.ReportAllocs()
	for total := 0; total < b.N*len(stream); {
		item, err := r.next(b.Context(), from)
		if err != nil {
			b.Fatal(err)
		}
		total += len(item.Records)
	}
}
