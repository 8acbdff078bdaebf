package reorder

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"sync/atomic"
	"testing"

	"golang.org/x/sync/semaphore"

	"github.com/twinspan/twinspan/internal/pgoutput"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/wire"
)

// room is a budget that counts.
type room struct{ left, most int64 }

func (r *room) TryAcquire(n int64) bool {
	if n > r.left {
		return false
	}
	r.left -= n
	return true
}

func (r *room) Release(n int64) { r.left += n }

func newBuffer(t testing.TB, bytes int64) (*Buffer, *room, *atomic.Int64) {
	t.Helper()
	budget, spilled := &room{bytes, bytes}, &atomic.Int64{}
	return New(t.TempDir(), budget, spilled), budget, spilled
}

func u32(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }
func u64(v uint64) []byte { return binary.BigEndian.AppendUint64(nil, v) }

func start(xid uint32, first bool) []byte {
	m := append([]byte{'S'}, u32(xid)...)
	if first {
		return append(m, 1)
	}
	return append(m, 0)
}

func abort(xid, sub uint32) []byte { return slices.Concat([]byte{'A'}, u32(xid), u32(sub)) }

func commit(xid uint32, at uint64) []byte {
	return slices.Concat([]byte{'c'}, u32(xid), []byte{0}, u64(at), u64(at+8), u64(7))
}

var stop = []byte{'E'}

// in makes a message of one that stands within a block.
func in(xid uint32, m []byte) []byte { return slices.Concat(m[:1], u32(xid), m[1:]) }

// relation describes a table; version makes descriptions differ.
func relation(id, version uint32) []byte {
	return slices.Concat([]byte{'R'}, u32(id), []byte("s\x00"), fmt.Appendf(nil, "t%d\x00", version), []byte{'d', 0, 0})
}

// take hands messages over that are all of streamed transactions, and returns those that
// committed.
func take(t testing.TB, b *Buffer, messages ...[]byte) (done []*Transaction) {
	t.Helper()
	for _, m := range messages {
		whole, taken, err := b.Take(t.Context(), m)
		if err != nil || !taken {
			t.Fatalf("%q: taken %v, %v", m[0], taken, err)
		}
		if whole != nil {
			done = append(done, whole)
		}
	}
	return done
}

// replayed returns the messages of a transaction, as they go on.
func replayed(t testing.TB, whole *Transaction) (messages [][]byte) {
	t.Helper()
	r := whole.Replay()
	all, err := io.ReadAll(iotestReader{r, rand.New(rand.NewPCG(1, 2))})
	if err != nil || !r.Done() {
		t.Fatalf("done %v, %v", r.Done(), err)
	}
	for len(all) > 0 {
		n := wire.RecordHeader + int(binary.BigEndian.Uint32(all))
		messages = append(messages, all[wire.RecordHeader:n])
		all = all[n:]
	}
	return messages
}

// iotestReader reads portions of any size.
type iotestReader struct {
	from   io.Reader
	random *rand.Rand
}

func (r iotestReader) Read(p []byte) (int, error) {
	return r.from.Read(p[:min(len(p), 1+r.random.IntN(300_000))])
}

// model is what should come of a transaction.
type model struct {
	xid   uint32
	begun bool
	live  []entry
	subs  []uint32 // savepoints that are open
	sent  map[uint32]bool
}

type entry struct {
	chain   []uint32 // the subtransactions around it
	message []byte
}

// TestWhatCommitsComesWhole runs many transactions in blocks that take turns, with
// savepoints at any depth that are rolled back or kept: what committed comes whole, in order,
// once, and nothing else does; nothing is left of what did not.
func TestWhatCommitsComesWhole(t *testing.T) {
	for seed := range uint64(40) {
		random := rand.New(rand.NewPCG(seed, 9))
		b, budget, spilled := newBuffer(t, 1<<30)
		open := map[uint32]*model{}
		next, ended := uint32(100), 0
		for ended < 30 {
			if len(open) < 4 {
				next++
				open[next] = &model{xid: next, sent: map[uint32]bool{}}
			}
			var m *model
			for _, m = range open {
				break
			}
			take(t, b, start(m.xid, !m.begun))
			m.begun = true
			for range random.IntN(60) {
				switch {
				case random.IntN(6) == 0:
					next++
					m.subs = append(m.subs, next)
				case random.IntN(8) == 0 && len(m.subs) > 0:
					// Released: it stays part of the one around it, by a chain that was noted.
					m.subs = m.subs[:len(m.subs)-1]
				default:
					m.write(t, b, random)
				}
			}
			take(t, b, stop)
			if len(m.subs) > 0 && random.IntN(2) == 0 {
				m.rollBack(t, b, random.IntN(len(m.subs)))
			}
			switch random.IntN(8) {
			case 0:
				take(t, b, abort(m.xid, m.xid))
			case 1, 2:
				m.compare(t, seed, take(t, b, commit(m.xid, uint64(m.xid)<<4)))
			default:
				continue
			}
			delete(open, m.xid)
			ended++
		}
		b.Close()
		if budget.left != budget.most || spilled.Load() != 0 {
			t.Fatalf("seed %d: %d bytes are still taken, %d are said to be on disk", seed, budget.most-budget.left, spilled.Load())
		}
		if files, err := os.ReadDir(b.dir); err != nil || len(files) > 0 {
			t.Fatalf("seed %d: files %v, %v", seed, files, err)
		}
	}
}

func (m *model) write(t testing.TB, b *Buffer, random *rand.Rand) {
	size := 1 + random.IntN(300)
	if random.IntN(50) == 0 {
		size = 1 + random.IntN(2*blockSize)
	}
	message := make([]byte, 1+size)
	for i := range message {
		message[i] = byte(random.Uint32())
	}
	message[0] = 'I'
	xid, chain := m.xid, slices.Clone(m.subs)
	if len(chain) > 0 {
		xid = chain[len(chain)-1]
		m.sent[xid] = true
	}
	m.live = append(m.live, entry{chain, message})
	if random.IntN(30) > 0 {
		take(t, b, in(xid, message))
		return
	}
	// As though it were too large for memory, with a head of any length.
	whole := in(xid, message)
	head := 5 + random.IntN(len(whole)-5)
	if err := b.TakeLarge(t.Context(), whole[:head], iotestReader{bytes.NewReader(whole[head:]), random}, len(whole)); err != nil {
		t.Fatal(err)
	}
}

// rollBack rolls back to a savepoint, with all within.
func (m *model) rollBack(t testing.TB, b *Buffer, depth int) {
	gone := m.subs[depth]
	var within []uint32
	m.live = slices.DeleteFunc(m.live, func(e entry) bool {
		if !slices.Contains(e.chain, gone) {
			return false
		}
		if sub := e.chain[len(e.chain)-1]; !slices.Contains(within, sub) {
			within = append(within, sub)
		}
		return true
	})
	for _, sub := range within {
		take(t, b, abort(m.xid, sub))
	}
	m.subs = m.subs[:depth]
}

func (m *model) compare(t testing.TB, seed uint64, done []*Transaction) {
	t.Helper()
	if len(done) != 1 {
		t.Fatalf("seed %d: %d transactions", seed, len(done))
	}
	got := replayed(t, done[0])
	done[0].Close()
	at := uint64(m.xid) << 4
	want := [][]byte{slices.Concat([]byte{'B'}, u64(at), u64(7), u32(m.xid))}
	for _, e := range m.live {
		want = append(want, e.message)
	}
	want = append(want, slices.Concat([]byte{'C', 0}, u64(at), u64(at+8), u64(7)))
	if !slices.EqualFunc(got, want, bytes.Equal) {
		t.Fatalf("seed %d: transaction %d has %d messages instead of %d, or others", seed, m.xid, len(got), len(want))
	}
}

// TestWhatIsNotStreamedGoesOn: messages outside of blocks are not the buffer's.
func TestWhatIsNotStreamedGoesOn(t *testing.T) {
	b, _, _ := newBuffer(t, 1<<20)
	defer b.Close()
	take(t, b, start(5, true), in(5, []byte("Iabcd")), stop)
	for _, m := range [][]byte{pgoutput.Begin{}.Append(nil), []byte("Iabcd"), relation(1, 1), pgoutput.Commit{}.Append(nil)} {
		if whole, taken, err := b.Take(t.Context(), m); whole != nil || taken || err != nil {
			t.Errorf("%q: %v %v %v", m[0], whole, taken, err)
		}
	}
}

// TestNewestDescriptionHolds: what was told of a table outside of a transaction, after the
// transaction told of it, holds again behind it.
func TestNewestDescriptionHolds(t *testing.T) {
	b, _, _ := newBuffer(t, 1<<20)
	defer b.Close()
	outside := func(m []byte) {
		if _, taken, err := b.Take(t.Context(), m); taken || err != nil {
			t.Fatal(taken, err)
		}
	}
	outside(relation(1, 1))
	take(t, b, start(5, true), in(5, relation(1, 2)), in(5, relation(2, 1)), in(5, relation(3, 1)), in(5, relation(4, 1)), stop)
	outside(relation(2, 2))
	outside(relation(3, 2))
	take(t, b, start(5, false), in(5, relation(3, 3)), stop)
	take(t, b, start(6, true), in(6, relation(4, 2)), stop)
	first := take(t, b, commit(6, 100))[0]
	second := take(t, b, commit(5, 200))[0]
	defer first.Close()
	defer second.Close()
	if got := replayed(t, first); !bytes.Equal(got[len(got)-1][:1], []byte{'C'}) {
		t.Errorf("the first ends with %q", got[len(got)-1])
	}
	got := replayed(t, second)
	var behind [][]byte
	for i, m := range got {
		if m[0] == 'C' {
			behind = got[i+1:]
		}
	}
	if want := [][]byte{relation(2, 2), relation(4, 2)}; !slices.EqualFunc(behind, want, bytes.Equal) {
		t.Errorf("behind the commit: %q, want %q", behind, want)
	}
}

// TestBudget: a transaction that does not fit is a problem with a remedy, and what was
// taken for it is given back.
func TestBudget(t *testing.T) {
	b, budget, _ := newBuffer(t, blockSize+1000)
	message := make([]byte, blockSize)
	for i := range message {
		message[i] = byte(rand.Uint32())
	}
	message[0] = 'I'
	take(t, b, start(5, true), in(5, message))
	_, _, err := b.Take(t.Context(), in(5, message))
	if p := problem.As(err); p == nil || p.Code != "spill_full" || p.Kind != problem.Transient || p.Hint == "" {
		t.Fatalf("%v", err)
	}
	b.Close()
	if budget.left != budget.most {
		t.Errorf("%d bytes are still taken", budget.most-budget.left)
	}
}

// TestRoomIsWaitedFor: while transactions that have committed take the room, the next one
// waits until they are applied.
func TestRoomIsWaitedFor(t *testing.T) {
	budget := semaphore.NewWeighted(blockSize + 1000)
	b := New(t.TempDir(), budget, &atomic.Int64{})
	defer b.Close()
	message := make([]byte, blockSize)
	for i := range message {
		message[i] = byte(rand.Uint32())
	}
	message[0] = 'I'
	first := take(t, b, start(5, true), in(5, message), stop, commit(5, 100))[0]
	take(t, b, start(6, true))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := b.Take(ctx, in(6, message)); !errors.Is(err, context.Canceled) {
		t.Fatalf("with the context ended: %v", err)
	}
	waited := make(chan error)
	go func() {
		_, _, err := b.Take(t.Context(), in(6, []byte("Ix")))
		waited <- err
	}()
	first.Close()
	first.Close() // counts once
	if err := <-waited; err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.Take(t.Context(), in(6, message)); problem.CodeOf(err) != "spill_full" {
		t.Errorf("with nothing to wait for: %v", err)
	}
}

// TestImpossibleStreams: what no server sends is refused.
func TestImpossibleStreams(t *testing.T) {
	for name, messages := range map[string][][]byte{
		"goes on with what was not begun": {start(5, false)},
		"begins twice":                    {start(5, true), stop, start(5, true)},
		"a block in a block":              {start(5, true), start(6, true)},
		"commit of nothing":               {commit(5, 1)},
		"commit in a block":               {start(5, true), commit(5, 1)},
		"abort of nothing":                {abort(5, 5)},
		"end of no block":                 {stop},
		"a transaction in a block":        {start(5, true), pgoutput.Begin{}.Append(nil)},
		"a short one":                     {start(5, true), []byte("I12")},
	} {
		b, _, _ := newBuffer(t, 1<<20)
		var err error
		for _, m := range messages {
			if _, _, err = b.Take(t.Context(), m); err != nil {
				break
			}
		}
		if problem.CodeOf(err) != "stream_corrupt" {
			t.Errorf("%s: %v", name, err)
		}
		b.Close()
	}
}

// FuzzTake: no messages of a peer make the buffer panic or keep what it took.
func FuzzTake(f *testing.F) {
	seed := func(messages ...[]byte) {
		var stream []byte
		for _, m := range messages {
			stream = appendRecord(stream, m)
		}
		f.Add(stream)
	}
	seed(start(5, true), in(5, []byte("Iabcdefg")), in(6, relation(1, 1)), stop, relation(1, 2), abort(5, 6), commit(5, 100))
	seed(start(5, true), slices.Concat([]byte{'O'}, u64(0), []byte("x\x00")), stop, abort(5, 5))
	f.Fuzz(func(t *testing.T, stream []byte) {
		b, budget, _ := newBuffer(t, 1<<20)
		for len(stream) > wire.RecordHeader {
			n := int(binary.BigEndian.Uint32(stream))
			if n == 0 || n > len(stream)-wire.RecordHeader {
				break
			}
			whole, _, err := b.Take(t.Context(), stream[wire.RecordHeader:wire.RecordHeader+n])
			if err != nil {
				break
			}
			if whole != nil {
				if m := replayed(t, whole); len(m) < 2 || m[0][0] != 'B' {
					t.Fatalf("it comes as %q", m)
				}
				whole.Close()
			}
			stream = stream[wire.RecordHeader+n:]
		}
		b.Close()
		if budget.left != budget.most {
			t.Fatal("something is still taken")
		}
	})
}

func BenchmarkTake(b *testing.B) {
	buffer, _, _ := newBuffer(b, 1<<50)
	message := in(5, append([]byte("Irrrr"), bytes.Repeat([]byte("some row of a table "), 6)...))
	take(b, buffer, start(5, true))
	b.SetBytes(int64(len(message)))
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := buffer.Take(b.Context(), message); err != nil {
			b.Fatal(err)
		}
	}
	buffer.Close()
}

// Whatever a primary sends, what is not finished takes little memory: the blocks of very many transactions go to
// the disk sooner, and descriptions of tables without end are refused.
func TestManyOpenTransactionsTakeLittleMemory(t *testing.T) {
	const many = 300
	b, budget, _ := newBuffer(t, 1<<30)
	defer b.Close()
	row := append([]byte{'I'}, bytes.Repeat([]byte{7}, 50_000)...)
	for n := range 4 {
		for xid := range uint32(many) {
			take(t, b, start(xid+1, n == 0), in(xid+1, row), stop)
			held := 0
			for _, x := range b.open {
				held += cap(x.block)
			}
			if held > 2*mostInMemory || b.memory > mostInMemory {
				t.Fatalf("%d bytes are in memory, counted %d", held, b.memory)
			}
		}
	}
	for xid := range uint32(many) {
		if xid%2 == 0 {
			take(t, b, abort(xid+1, xid+1))
			continue
		}
		for _, whole := range take(t, b, commit(xid+1, uint64(xid))) {
			if messages := replayed(t, whole); len(messages) != 6 || !bytes.Equal(messages[3], row) {
				t.Fatalf("transaction %d has %d messages", xid+1, len(messages))
			}
			whole.Close()
		}
	}
	if b.memory != 0 || budget.left != budget.most {
		t.Errorf("left are %d bytes in memory, %d on disk", b.memory, budget.most-budget.left)
	}

	wide := slices.Concat(relation(1, 1), bytes.Repeat([]byte{0}, 1<<20))
	take(t, b, start(1, true))
	var err error
	for id := uint32(0); err == nil && id < 100; id++ {
		copy(wide[1:], u32(id%70))
		_, _, err = b.Take(t.Context(), in(1, wide))
	}
	if problem.CodeOf(err) != "stream_corrupt" || b.described < mostDescribed {
		t.Errorf("%d bytes of descriptions: %v", b.described, err)
	}
	other, _, _ := newBuffer(t, 1<<30)
	for xid := range uint32(mostOpen) {
		take(t, other, start(xid+1, true), stop)
	}
	if _, _, err := other.Take(t.Context(), start(mostOpen+1, true)); problem.CodeOf(err) != "stream_corrupt" {
		t.Errorf("one more: %v", err)
	}
	other.Close()
}
