package capture

import (
	"context"
	"encoding/binary"
	"slices"
	"strconv"

	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
)

// xidLength is what a message within a block of a streamed transaction has behind its
// type: the (sub)transaction.
const xidLength = 4

// streamed is a transaction that comes in blocks, before its commit.
type streamed struct {
	foreign bool            // it is known to have come from the twin
	subs    []uint32        // its subtransactions that changes came of; some may be there twice
	aborted map[uint32]bool // those of them that the server said to be rolled back
}

// lookStreamed is look for messages of streamed transactions. Where one begins and ends
// always goes on, also when it came from the twin: the server counts on its descriptions of
// tables to be known once it has committed.
func (f *filter) lookStreamed(kind byte, head []byte) (keep bool, err error) {
	switch {
	case kind == 'E':
		f.block, f.inside, f.foreign, f.behind = nil, false, false, false
		return true, nil
	case kind == 'O':
		name, ok := cstring(head, 1+8)
		if !ok {
			return false, tooShort(kind)
		}
		if string(name) == f.own {
			f.foreign, f.block.foreign = true, true
		}
		return true, nil
	case len(head) < 1+xidLength:
		return false, tooShort(kind)
	}
	xid := binary.BigEndian.Uint32(head[1:])
	switch kind {
	case 'S':
		if f.block = f.streamed[xid]; f.block == nil {
			f.block = &streamed{}
			f.streamed[xid] = f.block
		}
		// A block is old when it comes, for it had to grow.
		f.blockXID, f.inside, f.behind, f.foreign = xid, true, true, f.block.foreign
		return true, nil
	case 'c':
		if len(head) < 1+xidLength+1+8+8+8 {
			return false, tooShort(kind)
		}
		f.committed = binary.BigEndian.Uint64(head[1+xidLength+1+8:])
		t := f.streamed[xid]
		delete(f.streamed, xid)
		return true, f.settled(t)
	case 'A':
		if len(head) < 1+2*xidLength {
			return false, tooShort(kind)
		}
		f.rolledBack(xid, binary.BigEndian.Uint32(head[1+xidLength:]))
		return true, nil
	}
	if b := f.block; xid != f.blockXID && (len(b.subs) == 0 || b.subs[len(b.subs)-1] != xid) {
		b.subs = append(b.subs, xid)
	}
	return f.keeps(kind, head[1+xidLength:])
}

// rolledBack notes the end of a streamed transaction, or of a subtransaction of it.
func (f *filter) rolledBack(xid, sub uint32) {
	t := f.streamed[xid]
	switch {
	case xid == sub:
		delete(f.streamed, xid)
	case t != nil:
		if t.aborted == nil {
			t.aborted = map[uint32]bool{}
		}
		t.aborted[sub] = true
	}
}

// settled makes sure that the server has told of every subtransaction of a committed
// transaction that was rolled back. It does not of those whose changes it had put to disk
// before it sent them (reorderbuffer.c, ReorderBufferTruncateTXN marks as streamed
// what has entries in memory).
func (f *filter) settled(t *streamed) error {
	if t == nil || len(t.subs) == 0 {
		return nil
	}
	slices.Sort(t.subs)
	unsure := slices.DeleteFunc(slices.Compact(t.subs), func(xid uint32) bool { return t.aborted[xid] })
	if len(unsure) == 0 {
		return nil
	}
	untold, err := f.abortedAmong(unsure)
	if err == nil && untold {
		err = problem.New(problem.Transient, "blocks_refused", "the server has sent what was rolled back, and not said so")
	}
	return err
}

// abortedAmong asks the server whether some of these subtransactions, of a transaction
// that has committed, were rolled back. Its log of commits knows that before the
// transaction can commit, and as long as the slot may have to decode it.
func (s *Stream) abortedAmong(ctx context.Context, xids []uint32) (bool, error) {
	conn, err := s.DSN.Connect(ctx, pg.Session{Name: s.Name + "/stream"})
	if err != nil {
		return false, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var text string
	if err := conn.QueryRow(ctx, `SELECT pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::text`).Scan(&text); err != nil {
		return false, pg.Classify(err, "ask for rolled back subtransactions")
	}
	next, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return false, problem.Wrap(err, problem.Internal, "server_error", "read a transaction's number")
	}
	for part := range slices.Chunk(xids, 10_000) {
		whole := make([]string, len(part))
		for i, xid := range part {
			// Numbers of transactions go round; those under way are near the next one.
			whole[i] = strconv.FormatUint(next+uint64(int64(int32(xid-uint32(next)))), 10)
		}
		var found bool
		err := conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM unnest($1::text[]) x WHERE pg_catalog.pg_xact_status(x::xid8) = 'aborted')`, whole).Scan(&found)
		if err != nil || found {
			return found, pg.Classify(err, "ask for rolled back subtransactions")
		}
	}
	return false, nil
}
