package reorder

import (
	"context"
	"encoding/binary"
	"io"
	"maps"
	"os"
	"slices"

	"github.com/klauspost/compress/s2"

	"github.com/twinspan/twinspan/internal/pgoutput"
)

const (
	// blockSize is how many bytes of a transaction are in memory before they are
	// compressed and go to its file.
	blockSize = 256 << 10
	// sectionHeader is the (sub)transaction and the length of what follows.
	sectionHeader = 4 + 4
	// blockHeader is the length of a block before and after compression.
	blockHeader = 4 + 4
)

// Transaction is a streamed transaction: what came of it so far, in sections that
// belong to one (sub)transaction each. Records may go on in the next section.
type Transaction struct {
	buffer *Buffer
	xid    uint32
	commit pgoutput.Commit
	given  bool // to whoever took it from the buffer

	aborted map[uint32]bool // subtransactions that were rolled back

	block   []byte   // sections that are not in the file yet
	section int      // where in block the last one begins; -1 when there is none
	last    uint32   // whose it is
	file    *os.File // blocks; without a name; nil until there is one
	size    int64    // of the file

	// tables are the descriptions that are in it, newer those that came behind them in
	// the stream, from elsewhere.
	tables, newer map[uint32]description
}

// description is a Relation message with its number in the stream.
type description struct {
	number  uint64
	message []byte
}

// XID is its number on the primary.
func (t *Transaction) XID() uint32 { return t.xid }

// Commit is how it ended, once it was given away.
func (t *Transaction) Commit() pgoutput.Commit { return t.commit }

// Close gives up what the transaction holds.
func (t *Transaction) Close() {
	if t.file != nil {
		t.file.Close()
		t.buffer.budget.Release(t.size)
		t.buffer.spilled.Add(-t.size)
		t.file, t.size = nil, 0
	}
	t.block = nil
	if b := t.buffer; t.given {
		t.given = false
		b.given.Add(-1)
		select {
		case b.freed <- struct{}{}:
		default:
		}
	}
}

// write adds bytes that belong to a (sub)transaction.
func (t *Transaction) write(ctx context.Context, xid uint32, parts ...[]byte) error {
	before := len(t.block)
	if t.section < 0 || t.last != xid {
		t.section, t.last = len(t.block), xid
		t.block = binary.BigEndian.AppendUint32(t.block, xid)
		t.block = binary.BigEndian.AppendUint32(t.block, 0)
	}
	for _, part := range parts {
		t.block = append(t.block, part...)
	}
	binary.BigEndian.PutUint32(t.block[t.section+4:], uint32(len(t.block)-t.section-sectionHeader))
	t.buffer.memory += len(t.block) - before
	if len(t.block) < blockSize {
		return t.buffer.spillLongest(ctx)
	}
	return t.spill(ctx)
}

// spill moves the block to the file.
func (t *Transaction) spill(ctx context.Context) error {
	b := t.buffer
	// Half the disk of zstd's fastest level would cost twice the time here, and four times
	// at the replay (docs/design/0007-speed.md).
	b.packed = slices.Grow(b.packed[:0], blockHeader+s2.MaxEncodedLen(len(t.block)))
	b.packed = b.packed[:blockHeader+len(s2.Encode(b.packed[blockHeader:cap(b.packed)], t.block))]
	binary.BigEndian.PutUint32(b.packed, uint32(len(t.block)))
	binary.BigEndian.PutUint32(b.packed[4:], uint32(len(b.packed)-blockHeader))
	if t.file == nil {
		file, err := os.CreateTemp(b.dir, "transaction-*")
		if err != nil {
			return diskProblem(err)
		}
		t.file = file
		if err := os.Remove(file.Name()); err != nil {
			return diskProblem(err)
		}
	}
	n := int64(len(b.packed))
	if err := b.acquire(ctx, n); err != nil {
		return err
	}
	t.size += n
	b.spilled.Add(n)
	if _, err := t.file.Write(b.packed); err != nil {
		return diskProblem(err)
	}
	t.section = -1
	b.memory -= len(t.block)
	t.block = t.block[:0]
	if cap(t.block) > 4*blockSize {
		t.block = nil // a large record has been in it
	}
	return nil
}

// Replay returns the committed transaction as a byte stream of records (package wire),
// without what was rolled back: Begin, its messages as they stand outside of blocks,
// Commit, and descriptions of tables that hold again behind it. It can be read until
// the transaction is closed.
func (t *Transaction) Replay() *Replay {
	begin := pgoutput.Begin{Final: t.commit.LSN, Time: t.commit.Time, XID: t.xid}.Append(nil)
	end := appendRecord(nil, t.commit.Append(nil))
	for _, id := range slices.Sorted(maps.Keys(t.newer)) {
		end = appendRecord(end, t.newer[id].message)
	}
	return &Replay{t: t, rest: appendRecord(nil, begin), end: end}
}

func appendRecord(b, message []byte) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(message))), message...)
}

// Replay implements io.Reader.
type Replay struct {
	t    *Transaction
	rest []byte // what comes next
	end  []byte // what comes last; nil once it does

	sections []byte // of the block that is being read
	at       int64  // where in the file the next one begins
	memory   bool   // the block in memory, which follows the file, is being read

	packed, plain []byte
}

// Done says whether everything was read.
func (r *Replay) Done() bool { return len(r.rest) == 0 && r.end == nil }

// Read implements io.Reader.
func (r *Replay) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		if err := r.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// next makes rest the next part.
func (r *Replay) next() error {
	switch {
	case len(r.sections) > 0:
		xid, length := binary.BigEndian.Uint32(r.sections), binary.BigEndian.Uint32(r.sections[4:])
		section := r.sections[sectionHeader : sectionHeader+length]
		r.sections = r.sections[sectionHeader+length:]
		if !r.t.aborted[xid] {
			r.rest = section
		}
	case r.at < r.t.size:
		return r.unpack()
	case !r.memory:
		r.memory, r.sections = true, r.t.block
	case r.end != nil:
		r.rest, r.end = r.end, nil
	default:
		return io.EOF
	}
	return nil
}

// unpack reads the next block of the file.
func (r *Replay) unpack() (err error) {
	var header [blockHeader]byte
	if _, err := r.t.file.ReadAt(header[:], r.at); err != nil {
		return diskProblem(err)
	}
	length := int(binary.BigEndian.Uint32(header[4:]))
	r.packed = slices.Grow(r.packed[:0], length)[:length]
	if _, err := r.t.file.ReadAt(r.packed, r.at+blockHeader); err != nil {
		return diskProblem(err)
	}
	r.at += blockHeader + int64(length)
	if r.plain, err = s2.Decode(r.plain[:cap(r.plain)], r.packed); err != nil {
		return diskProblem(err)
	}
	if len(r.plain) != int(binary.BigEndian.Uint32(header[:])) {
		return diskProblem(io.ErrUnexpectedEOF)
	}
	r.sections = r.plain
	return nil
}
