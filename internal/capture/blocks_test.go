package capture

import (
	"encoding/binary"
	"slices"
	"testing"

	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/problem"
)

func number(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }

func position(v lsn.LSN) []byte { return binary.BigEndian.AppendUint64(nil, uint64(v)) }

// in is the head of a message within a block.
func in(xid uint32, kind byte, rest ...[]byte) []byte {
	return slices.Concat(append([][]byte{{kind}, number(xid)}, rest...)...)
}

func origin(name string) []byte {
	return slices.Concat([]byte{'O'}, position(0), []byte(name), []byte{0})
}

func streamCommit(xid uint32, end lsn.LSN) []byte {
	return in(xid, 'c', []byte{0}, position(end-8), position(end), position(0))
}

// newFilter returns one whose server knows these subtransactions to be rolled back.
func newFilter(aborted ...uint32) *filter {
	return &filter{
		own: "own", skipped: map[uint32]bool{}, streamed: map[uint32]*streamed{},
		abortedAmong: func(xids []uint32) (bool, error) {
			return slices.ContainsFunc(xids, func(x uint32) bool { return slices.Contains(aborted, x) }), nil
		},
	}
}

// TestBlocksAreFiltered: of a streamed transaction goes on what would of another one.
func TestBlocksAreFiltered(t *testing.T) {
	table := func(xid, id uint32, schema, name string) []byte {
		return in(xid, 'R', number(id), []byte(schema+"\x00"+name+"\x00"), []byte{'d', 0, 0})
	}
	first, again, end := []byte{1}, []byte{0}, []byte{'E'}
	f := newFilter()
	for i, c := range []struct {
		head         []byte
		keep, inside bool
		committed    uint64
	}{
		{head: in(5, 'S', first), keep: true, inside: true},
		{head: table(5, 1, "s", "t"), keep: true, inside: true},
		{head: in(5, 'I', number(1)), keep: true, inside: true},
		{head: table(5, 2, "twinspan", "link"), inside: true},
		{head: in(5, 'I', number(2)), inside: true},
		{head: in(6, 'T', number(1), []byte{0}, number(2)), inside: true},
		{head: table(6, 3, "twinspan", "signal"), keep: true, inside: true},
		{head: in(6, 'I', number(3)), keep: true, inside: true},
		{head: end, keep: true},
		{head: in(9, 'S', first), keep: true, inside: true},
		{head: origin("own"), keep: true, inside: true},
		{head: table(9, 4, "s", "u"), keep: true, inside: true},
		{head: in(9, 'I', number(4)), inside: true},
		{head: end, keep: true},
		{head: in(5, 'S', again), keep: true, inside: true},
		{head: in(5, 'D', number(1)), keep: true, inside: true},
		{head: end, keep: true},
		{head: in(9, 'S', again), keep: true, inside: true},
		{head: in(9, 'T', number(1), []byte{0}, number(4)), inside: true},
		{head: end, keep: true},
		{head: in(7, 'S', first), keep: true, inside: true},
		{head: origin("another"), keep: true, inside: true},
		{head: in(7, 'U', number(1)), keep: true, inside: true},
		{head: end, keep: true},
		{head: in(7, 'A', number(7)), keep: true},
		{head: streamCommit(9, 0x100), keep: true, committed: 0x100},
		{head: streamCommit(5, 0x200), keep: true, committed: 0x200},
	} {
		f.committed = 0
		emit, keep, err := f.look(c.head)
		if err != nil || len(emit) > 0 || keep != c.keep || f.inside != c.inside || f.committed != c.committed {
			t.Errorf("message %d, %q: keep %v, inside %v, committed %x, %v", i, c.head[0], keep, f.inside, f.committed, err)
		}
	}
	if len(f.streamed) > 0 {
		t.Errorf("%d transactions are still open", len(f.streamed))
	}
	for _, short := range [][]byte{{'S', 0}, {'c', 0, 0, 0, 1, 0}, {'A', 0, 0, 0, 1, 0}} {
		if _, _, err := newFilter().look(short); problem.CodeOf(err) != "stream_corrupt" {
			t.Errorf("%q: %v", short, err)
		}
	}
}

// TestUntoldRollback: a subtransaction that the server's log of commits knows to be rolled
// back, and the server has not said so, does not get through.
func TestUntoldRollback(t *testing.T) {
	for name, c := range map[string]struct {
		told bool
		code string
	}{"told": {true, ""}, "not told": {false, "blocks_refused"}} {
		f := newFilter(8)
		messages := [][]byte{in(5, 'S', []byte{1}), in(5, 'I', number(1)), in(8, 'I', number(1)), in(9, 'I', number(1)), in(8, 'I', number(1)), {'E'}}
		if c.told {
			messages = append(messages, in(5, 'A', number(8)))
		}
		for _, m := range messages {
			if _, _, err := f.look(m); err != nil {
				t.Fatal(err)
			}
		}
		if _, _, err := f.look(streamCommit(5, 0x100)); problem.CodeOf(err) != c.code {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzFilter: no message makes the filter panic.
func FuzzFilter(f *testing.F) {
	f.Add([]byte("S\x00\x00\x00\x05\x01"), []byte("O\x00\x00\x00\x00\x00\x00\x00\x00own\x00"), []byte("I\x00\x00\x00\x05\x00\x00\x00\x01"))
	f.Add([]byte("B\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), []byte("T"), []byte("C"))
	f.Fuzz(func(t *testing.T, one, two, three []byte) {
		filter := newFilter(7)
		for _, m := range [][]byte{one, two, three, {'E'}} {
			if len(m) > 0 {
				if _, _, err := filter.look(m[:min(len(m), headLength)]); err != nil {
					return
				}
			}
		}
	})
}
