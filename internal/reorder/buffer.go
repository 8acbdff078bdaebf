// Package reorder collects transactions that a primary streams before it knows
// whether they commit, and gives each back whole when it has: as though it had come
// at its commit, in the form in which any other transaction comes. It is the
// counterpart of the server's reorder buffer (src/backend/replication/logical/
// reorderbuffer.c; manual, "Streaming of Large Transactions for Logical Decoding").
// docs/design/0016-streamed-transactions.md says why and how.
package reorder

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"sync/atomic"
	"syscall"

	"github.com/twinspan/twinspan/internal/pgoutput"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/wire"
)

// A peer decides how many transactions are open, and what it says of tables in them.
const (
	// mostInMemory bounds the blocks of all open transactions together: beyond it the longest goes to its file.
	mostInMemory = 16 << 20
	// mostOpen is how many are open at most, more than a server has sessions; mostDescribed bounds the
	// descriptions of tables that they hold, in bytes.
	mostOpen      = 10_000
	mostDescribed = 64 << 20
)

// Budget is how much disk buffers may take together, in bytes. A
// golang.org/x/sync/semaphore.Weighted is one.
type Budget interface {
	TryAcquire(n int64) bool
	Release(n int64)
}

// Buffer holds the streamed transactions of one stream that are not finished. One
// goroutine uses it; the transactions that it has given away belong to others.
type Buffer struct {
	dir     string
	budget  Budget
	spilled *atomic.Int64

	open    map[uint32]*Transaction
	current *Transaction // whose block is open
	decoder pgoutput.Decoder
	packed  []byte
	told    uint64 // counts descriptions of tables
	// memory and described are the bytes of the blocks and of the descriptions of open transactions.
	memory, described int

	given atomic.Int64  // transactions that were given away and are not closed
	freed chan struct{} // has an element when one was closed
}

// New returns a buffer whose files, which have no names, lie in a directory that
// exists. spilled, which others may read, goes up and down with the bytes on disk.
func New(dir string, budget Budget, spilled *atomic.Int64) *Buffer {
	return &Buffer{dir: dir, budget: budget, spilled: spilled, open: map[uint32]*Transaction{}, freed: make(chan struct{}, 1)}
}

// Close gives up what is not finished. Transactions that were given away stay.
func (b *Buffer) Close() {
	for _, t := range b.open {
		t.Close()
	}
	b.open, b.current = nil, nil
}

// Inside says whether a block is open: then the next record belongs to a streamed
// transaction, and no position may come.
func (b *Buffer) Inside() bool { return b.current != nil }

// Take takes a message of the stream, which it does not keep. taken is false for one
// that is not of a streamed transaction and goes on as it is. whole is a
// transaction that has committed: it goes on where this message stood, and the caller
// closes it. Where there is no room, Take waits for those that it has given away to be
// closed, and fails when there are none. After an error the buffer is of no more use.
func (b *Buffer) Take(ctx context.Context, message []byte) (whole *Transaction, taken bool, err error) {
	if b.current == nil {
		switch pgoutput.Type(message[0]) {
		case pgoutput.TypeStreamStart, pgoutput.TypeStreamCommit, pgoutput.TypeStreamAbort, pgoutput.TypeStreamStop:
		case pgoutput.TypeRelation:
			b.describedOutside(message)
			return nil, false, nil
		default:
			return nil, false, nil
		}
	} else if xid, rest, ok := pgoutput.Unstream(message); ok {
		return nil, true, b.keep(ctx, xid, message[0], rest)
	}
	m, err := b.decoder.Decode(message)
	if err != nil {
		return nil, true, corrupt("a message that cannot be read: %v", err)
	}
	switch m.Type {
	case pgoutput.TypeStreamStart:
		return nil, true, b.start(m.StreamStart)
	case pgoutput.TypeStreamStop:
		b.current = nil
		return nil, true, nil
	case pgoutput.TypeOrigin:
		return nil, true, nil // as for others, what is told of it is of no use here
	case pgoutput.TypeStreamCommit:
		whole, err := b.commit(m.StreamCommit, m.Commit)
		return whole, true, err
	case pgoutput.TypeStreamAbort:
		return nil, true, b.abort(m.StreamAbort)
	}
	return nil, true, corrupt("a message of type %q within a block of a streamed transaction", message[0])
}

// TakeLarge is Take for a message of the length within a block, of which the first bytes are
// in head and the others come from a reader.
func (b *Buffer) TakeLarge(ctx context.Context, head []byte, from io.Reader, length int) error {
	xid, rest, ok := pgoutput.Unstream(head)
	if !ok || b.current == nil {
		return corrupt("a message of type %q and %d bytes", head[0], length)
	}
	t := b.current
	var header [wire.RecordHeader + 1]byte
	stripped := length - (len(head) - 1 - len(rest))
	binary.BigEndian.PutUint32(header[:], uint32(stripped))
	header[wire.RecordHeader] = head[0]
	if err := t.write(ctx, xid, header[:], rest); err != nil {
		return err
	}
	portion := make([]byte, blockSize)
	for left := stripped - 1 - len(rest); left > 0; {
		n, err := from.Read(portion[:min(left, len(portion))])
		if n > 0 {
			if err := t.write(ctx, xid, portion[:n]); err != nil {
				return err
			}
			left -= n
		}
		if err != nil && left > 0 {
			return err
		}
	}
	return nil
}

// acquire takes room on the disk.
func (b *Buffer) acquire(ctx context.Context, n int64) error {
	for !b.budget.TryAcquire(n) {
		if b.given.Load() == 0 {
			// The last of them may have been closed since.
			if b.budget.TryAcquire(n) {
				return nil
			}
			return full("transactions that are not finished take all the disk that the secondary's agent has for them")
		}
		select {
		case <-b.freed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

func (b *Buffer) start(m pgoutput.StreamStart) error {
	t := b.open[m.XID]
	if m.First != (t == nil) {
		return corrupt("a block of transaction %d that is not the one expected (first: %t)", m.XID, m.First)
	}
	if t == nil {
		if len(b.open) >= mostOpen {
			return corrupt("more than %d transactions at once", mostOpen)
		}
		t = &Transaction{buffer: b, xid: m.XID, section: -1, tables: map[uint32]description{}, newer: map[uint32]description{}}
		b.open[m.XID] = t
	}
	b.current = t
	return nil
}

// keep adds a message of the current transaction.
func (b *Buffer) keep(ctx context.Context, xid uint32, kind byte, rest []byte) error {
	t := b.current
	var header [wire.RecordHeader + 1]byte
	binary.BigEndian.PutUint32(header[:], uint32(1+len(rest)))
	header[wire.RecordHeader] = kind
	if pgoutput.Type(kind) == pgoutput.TypeRelation {
		if len(rest) < 4 {
			return corrupt("a description of a table that is too short")
		}
		b.told++
		id := binary.BigEndian.Uint32(rest)
		b.described -= len(t.tables[id].message)
		t.tables[id] = description{b.told, append([]byte{kind}, rest...)}
		delete(t.newer, id)
		if b.described += len(t.tables[id].message); b.described > mostDescribed {
			return corrupt("descriptions of tables of more than %d bytes in transactions that are not finished", mostDescribed)
		}
	}
	return t.write(ctx, xid, header[:], rest)
}

// describedOutside notes a description that came later than the one a streamed
// transaction has of the same table, and will have been passed on before it.
func (b *Buffer) describedOutside(message []byte) {
	if len(b.open) == 0 || len(message) < 1+4 {
		return
	}
	b.told++
	b.renew(binary.BigEndian.Uint32(message[1:]), description{b.told, bytes.Clone(message)})
}

func (b *Buffer) renew(id uint32, d description) {
	for _, t := range b.open {
		if old, ok := t.tables[id]; ok && old.number < d.number && t.newer[id].number < d.number {
			t.newer[id] = d
		}
	}
}

func (b *Buffer) commit(xid uint32, c pgoutput.Commit) (*Transaction, error) {
	t := b.open[xid]
	if t == nil || b.current != nil {
		return nil, corrupt("the commit of transaction %d, which was not streamed or is being", xid)
	}
	delete(b.open, xid)
	t.commit, t.given = c, true
	b.given.Add(1)
	for id, d := range t.tables {
		b.renew(id, d)
	}
	b.forget(t)
	return t, nil
}

func (b *Buffer) abort(m pgoutput.StreamAbort) error {
	t := b.open[m.XID]
	if t == nil || b.current != nil {
		return corrupt("the end of transaction %d, which was not streamed or is being", m.XID)
	}
	if m.SubXID != m.XID {
		if t.aborted == nil {
			t.aborted = map[uint32]bool{}
		}
		t.aborted[m.SubXID] = true
		return nil
	}
	delete(b.open, m.XID)
	b.forget(t)
	t.Close()
	return nil
}

// forget takes what a transaction holds that is not open any more off the bounds. Its block stays with
// whoever has taken it.
func (b *Buffer) forget(t *Transaction) {
	b.memory -= len(t.block)
	for _, d := range t.tables {
		b.described -= len(d.message)
	}
	t.tables = nil
}

// spillLongest moves the longest blocks of open transactions to their files until all fit in memory.
func (b *Buffer) spillLongest(ctx context.Context) error {
	for b.memory > mostInMemory {
		var longest *Transaction
		for _, t := range b.open {
			if longest == nil || len(t.block) > len(longest.block) {
				longest = t
			}
		}
		if err := longest.spill(ctx); err != nil {
			return err
		}
		longest.block = nil
	}
	return nil
}

func corrupt(text string, args ...any) error {
	return problem.New(problem.Internal, "stream_corrupt", "the stream holds "+text, args...)
}

// full is the problem of a transaction for which there is no room. Who meets it asks
// for a stream without blocks.
func full(text string) error {
	return problem.New(problem.Transient, "spill_full", "%s", text).
		WithHint("free space in the agent's directory; meanwhile large transactions come at their commit, from the primary's disk")
}

func diskProblem(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return full("the disk of the secondary's agent has no room for a transaction that is not finished")
	}
	return problem.Wrap(err, problem.Transient, "spool_unusable", "keep a transaction on the agent's disk")
}
