package capture

import (
	"bytes"
	"encoding/binary"

	"github.com/twinspan/twinspan/internal/problem"
)

// headLength is how much of a message is looked at: enough for the longest name
// of a schema and a table, or of an origin.
const headLength = 1 + 8 + 2*256

// filter decides which messages of pgoutput go on: not those of transactions that
// came from the twin over this very link, and not the rows of the schema
// twinspan, but for its signals.
type filter struct {
	own       string          // name of the link's own origin
	skipped   map[uint32]bool // relations whose rows stay here
	begin     []byte          // the Begin of a transaction whose origin is not known yet
	inside    bool            // within a transaction
	foreign   bool            // within one that came from the twin
	committed uint64          // end position of a commit that was just passed; the reader resets it

	sentAt      int64 // when the server sent the message, in microseconds by its clock
	committedAt int64 // when the transaction committed, by the same clock
	behind      bool  // the transaction is old, or has been coming for long
}

// look takes the head of a message and returns what was held back and goes before
// it, and whether the message itself goes on.
func (f *filter) look(head []byte) (emit [][]byte, keep bool, err error) {
	kind := head[0]
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
	switch kind {
	case 'C':
		if len(head) < 1+1+8+8+8 {
			return nil, false, tooShort(kind)
		}
		f.committed = binary.BigEndian.Uint64(head[1+1+8:])
		f.inside = false
		keep = !f.foreign
		f.foreign = false
		return emit, keep, nil
	case 'R':
		if len(head) < 1+4 {
			return nil, false, tooShort(kind)
		}
		schema, ok := cstring(head, 1+4)
		if !ok {
			return nil, false, tooShort(kind)
		}
		table, _ := cstring(head, 1+4+len(schema)+1)
		relation := binary.BigEndian.Uint32(head[1:])
		if string(schema) == "twinspan" && string(table) != "signal" {
			f.skipped[relation] = true
			return emit, false, nil
		}
		delete(f.skipped, relation)
		// A relation is announced once in a connection: it goes on even from a
		// transaction that does not, or later rows would have no description.
		return emit, true, nil
	case 'Y':
		return emit, true, nil
	case 'I', 'U', 'D':
		if len(head) < 1+4 {
			return nil, false, tooShort(kind)
		}
		return emit, !f.foreign && !f.skipped[binary.BigEndian.Uint32(head[1:])], nil
	case 'T':
		return emit, !f.foreign && !f.internal(head), nil
	}
	return emit, !f.foreign, nil
}

// internal says whether a Truncate names nothing but relations whose rows stay
// here: it would go on without their description.
func (f *filter) internal(head []byte) bool {
	if len(head) < 1+4+1+4 {
		return false
	}
	for rest := head[1+4+1:]; len(rest) >= 4; rest = rest[4:] {
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
