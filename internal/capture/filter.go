package capture

import (
	"bytes"
	"encoding/binary"

	"github.com/twinspan/twinspan/internal/problem"
)

// headLength is how much of a message is looked at: enough for the longest name
// of a schema and a table, or of an origin.
const headLength = 1 + xidLength + 8 + 2*256

// filter decides which messages of pgoutput go on: not those of transactions that
// came from the twin over this very link, and not the rows of the schema
// twinspan, but for its signals.
type filter struct {
	own       string          // name of the link's own origin
	skipped   map[uint32]bool // relations whose rows stay here
	begin     []byte          // the Begin of a transaction whose origin is not known yet
	inside    bool            // within a transaction, or a block of a streamed one
	foreign   bool            // within one that came from the twin
	committed uint64          // end position of a commit that was just passed; the reader resets it

	block    *streamed // whose block is open; nil outside of blocks
	blockXID uint32
	streamed map[uint32]*streamed // those that are not finished
	// abortedAmong says whether some of these subtransactions were rolled back.
	abortedAmong func(xids []uint32) (bool, error)

	sentAt      int64 // when the server sent the message, in microseconds by its clock
	committedAt int64 // when the transaction committed, by the same clock
	behind      bool  // the transaction is old, or has been coming for long
}

// look takes the head of a message and returns what was held back and goes before
// it, and whether the message itself goes on.
func (f *filter) look(head []byte) (emit [][]byte, keep bool, err error) {
	kind := head[0]
	if f.block != nil || kind == 'S' || kind == 'c' || kind == 'A' {
		keep, err := f.lookStreamed(kind, head)
		return nil, keep, err
	}
	if kind == 'B' {
		if len(head) < 1+8+8 {
			return nil, false, tooShort(kind)
		}
		f.committedAt = int64(binary.BigEndian.Uint64(head[1+8:]))
		f.begin = append(f.begin[:0], head...)
		f.inside, f.foreign = true, false
		return nil, false, nil
	}
	f.behind = f.sentAt-f.committedAt > behindAfter.Microseconds()
	if len(f.begin) > 0 {
		// Origin, if there is one, follows Begin at once (pgoutput.c, pgoutput_begin_txn).
		if kind == 'O' {
			name, ok := cstring(head, 1+8)
			if !ok {
				return nil, false, tooShort(kind)
			}
			f.foreign = string(name) == f.own
		}
		if !f.foreign {
			emit = append(emit, f.begin)
		}
		// The held bytes are used before the next Begin overwrites them.
		f.begin = f.begin[:0]
	}
	if kind == 'C' {
		if len(head) < 1+1+8+8+8 {
			return nil, false, tooShort(kind)
		}
		f.committed = binary.BigEndian.Uint64(head[1+1+8:])
		f.inside = false
		keep = !f.foreign
		f.foreign = false
		return emit, keep, nil
	}
	keep, err = f.keeps(kind, head[1:])
	return emit, keep, err
}

// keeps says whether a message inside a transaction goes on; body is what it has behind
// its type and, in a block, its transaction.
func (f *filter) keeps(kind byte, body []byte) (bool, error) {
	switch kind {
	case 'R':
		if len(body) < 4 {
			return false, tooShort(kind)
		}
		schema, ok := cstring(body, 4)
		if !ok {
			return false, tooShort(kind)
		}
		table, _ := cstring(body, 4+len(schema)+1)
		relation := binary.BigEndian.Uint32(body)
		if string(schema) == "twinspan" && string(table) != "signal" {
			f.skipped[relation] = true
			return false, nil
		}
		delete(f.skipped, relation)
		// A relation is announced once in a connection: it goes on even from a
		// transaction that does not, or later rows would have no description.
		return true, nil
	case 'Y':
		return true, nil
	case 'I', 'U', 'D':
		if len(body) < 4 {
			return false, tooShort(kind)
		}
		return !f.foreign && !f.skipped[binary.BigEndian.Uint32(body)], nil
	case 'T':
		return !f.foreign && !f.internal(body), nil
	}
	return !f.foreign, nil
}

// internal says whether a Truncate names nothing but relations whose rows stay
// here: it would go on without their description.
func (f *filter) internal(body []byte) bool {
	if len(body) < 4+1+4 {
		return false
	}
	for rest := body[4+1:]; len(rest) >= 4; rest = rest[4:] {
		if !f.skipped[binary.BigEndian.Uint32(rest)] {
			return false
		}
	}
	return true
}

func cstring(b []byte, at int) ([]byte, bool) {
	if at > len(b) {
		return nil, false
	}
	end := bytes.IndexByte(b[at:], 0)
	if end < 0 {
		return nil, false
	}
	return b[at : at+end], true
}

func tooShort(kind byte) error {
	return problem.New(problem.Internal, "stream_corrupt", "the server sent a message %q that is too short", kind)
}
