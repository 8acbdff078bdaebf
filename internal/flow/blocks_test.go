package flow

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/twinspan/twinspan/internal/apply"
	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/pgoutput"
	"github.com/twinspan/twinspan/internal/reorder"
	"github.com/twinspan/twinspan/internal/wire"
)

// collecting returns a receiver that takes blocks.
func collecting(t testing.TB) *Receiver {
	t.Helper()
	r := NewReceiver(nil, false, true, NewSpool(t.TempDir(), 0), 64)
	r.collect = reorder.New(r.spool.dir, &r.spool.transactions, &r.spilled)
	t.Cleanup(r.collect.Close)
	return r
}

// xid makes the head of a message about a streamed transaction.
func about(kind byte, xid uint32, rest ...byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{kind}, xid), rest...)
}

// TestBlocksBecomeTransactions sends streamed transactions, small ones between their blocks,
// positions and large values, cut at any place, through the whole receiver: the applier is
// handed whole transactions in commit order, and is told that more is there exactly while
// it is.
func TestBlocksBecomeTransactions(t *testing.T) {
	for seed := range seeds(20) {
		random := rand.New(rand.NewPCG(seed, 5))
		var stream []byte
		var want []event
		open, next := map[uint32][]event{}, uint32(10)
		put := func(m []byte) { stream = append(stream, record(m)...) }
		value := func() []byte {
			size := 1 + random.IntN(300)
			if random.IntN(100) == 0 && seed%5 == 0 {
				size = bigRecord + random.IntN(1000)
			}
			m := bytes.Repeat([]byte{byte(random.Uint32())}, 1+size)
			m[0] = 'I'
			return m
		}
		whole := func(at lsn.LSN, xid uint32, changes []event) {
			want = append(want, event{message: pgoutput.Begin{Final: at, XID: xid}.Append(nil)})
			want = append(want, changes...)
			want = append(want, event{message: pgoutput.Commit{LSN: at, End: at + 8}.Append(nil)})
		}
		for i := range 150 {
			at := lsn.LSN(16 * (i + 1))
			switch random.IntN(5) {
			case 0:
				stream, want = wire.Reached{Position: at}.Append(stream), append(want, event{reached: at})
			case 1:
				m := value()
				put(pgoutput.Begin{Final: at, XID: 1}.Append(nil))
				put(m)
				put(pgoutput.Commit{LSN: at, End: at + 8}.Append(nil))
				whole(at, 1, []event{{message: m, big: len(m) >= bigRecord}})
			case 2:
				for xid, changes := range open {
					put(append(about('c', xid, 0), pgoutput.Commit{LSN: at, End: at + 8}.Append(nil)[2:]...))
					whole(at, xid, changes)
					delete(open, xid)
					break
				}
			default:
				xid, first := next, byte(1)
				for other := range open {
					if random.IntN(2) == 0 {
						xid, first = other, 0
					}
					break
				}
				if first == 1 {
					next++
				}
				put(about('S', xid, first))
				for range random.IntN(200) {
					m := value()
					open[xid] = append(open[xid], event{message: m, big: len(m) >= bigRecord})
					put(about('I', xid, m[1:]...))
				}
				put([]byte{'E'})
				if open[xid] == nil {
					open[xid] = []event{}
				}
			}
		}
		r := collecting(t)
		go func() {
			defer close(r.parts)
			from := &portions{stream, random}
			for {
				p, err := r.cutter.next(t.Context(), from)
				if err != nil {
					r.err = err
					return
				}
				if r.err = r.put(t.Context(), p); r.err != nil {
					return
				}
			}
		}()
		got := handed(t, r)
		if !slices.EqualFunc(got, want, func(a, b event) bool {
			return bytes.Equal(a.message, b.message) && a.big == b.big && a.reached == b.reached
		}) {
			t.Fatalf("seed %d: %d events instead of %d, or others", seed, len(got), len(want))
		}
		if last := want[len(want)-1]; last.reached != 0 && lsn.LSN(r.received.Load()) != last.reached {
			t.Errorf("seed %d: received %s of %s", seed, lsn.LSN(r.received.Load()), last.reached)
		}
	}
}

// handed takes everything that a receiver hands over.
func handed(t *testing.T, r *Receiver) (events []event) {
	t.Helper()
	for {
		replaying := r.replay != nil
		item, err := r.Next(t.Context())
		if err == io.EOF {
			if replaying {
				t.Fatal("a transaction was to come that was over")
			}
			return events
		}
		if err != nil {
			t.Fatal(err)
		}
		events = append(events, eventsOf(item)...)
	}
}

// eventsOf looks into an item.
func eventsOf(item apply.Item) (events []event) {
	for b := item.Records; len(b) > 0; {
		n := wire.RecordHeader + int(binary.BigEndian.Uint32(b))
		events = append(events, event{message: b[wire.RecordHeader:n]})
		b = b[n:]
	}
	if item.Big != nil {
		events = append(events, event{message: bytes.Clone(item.Big.Bytes()), big: true})
		item.Big.Close()
	}
	if item.Reached != 0 {
		events = append(events, event{reached: item.Reached})
	}
	return events
}

// TestPositionInABlock: a position says that what committed before has come; in a block
// it can only be a mistake.
func TestPositionInABlock(t *testing.T) {
	r := collecting(t)
	stream := wire.Reached{Position: 7}.Append(record(about('S', 5, 1)))
	if p, err := r.cutter.next(t.Context(), bytes.NewReader(stream)); err == nil || err == io.EOF {
		t.Errorf("%+v, %v", p, err)
	}
}

// FuzzReceiveBlocks: no bytes of a peer that sends blocks make the receiver panic, or take
// memory that they only announce.
func FuzzReceiveBlocks(f *testing.F) {
	f.Add(slices.Concat(record(about('S', 5, 1)), record(about('I', 5, 1, 2, 3, 4)), record([]byte{'E'}), record(append(about('c', 5, 0), make([]byte, 24)...))))
	f.Add(slices.Concat(record(about('S', 5, 1)), []byte{1, 0, 0, 0, 'I'}))
	f.Add(fmt.Append(nil, "\x01\x00\x00\x00I"))
	f.Fuzz(func(t *testing.T, stream []byte) {
		r := collecting(t)
		from := bytes.NewReader(stream)
		for {
			p, err := r.cutter.next(t.Context(), from)
			if err != nil {
				return
			}
			if p.whole != nil {
				replay := newReplay(p, r.spool)
				for !replay.done() {
					item, err := replay.next(t.Context())
					if err != nil {
						t.Fatal(err)
					}
					if item.Big != nil {
						item.Big.Close()
					}
				}
			}
			p.close()
		}
	})
}
