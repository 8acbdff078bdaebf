package apply

import (
	"context"
	"encoding/binary"
	"io"
	"os"
	"regexp"

	"github.com/twinspan/twinspan/internal/pgoutput"
	"github.com/twinspan/twinspan/internal/problem"
)

// heldMemory is how many bytes of rows wait in memory for their table.
const heldMemory = 4 << 20

// held keeps messages with rows whose table is made later in their transaction:
// CREATE TABLE AS writes its rows before it is known that it was run.
type held struct {
	dir    string
	memory []byte   // messages, each behind its length
	file   *os.File // what did not fit, without a name; nil usually
	size   int64    // of the file
}

func (h *held) empty() bool { return len(h.memory) == 0 && h.size == 0 }

func (h *held) add(msg []byte) error {
	var length [4]byte
	binary.BigEndian.PutUint32(length[:], uint32(len(msg)))
	if h.file == nil && len(h.memory)+len(msg)+4 <= heldMemory {
		h.memory = append(append(h.memory, length[:]...), msg...)
		return nil
	}
	if h.file == nil {
		if err := h.create(); err != nil {
			return problem.Wrap(err, problem.Resource, "spool_unusable", "keep rows whose table is not there yet")
		}
	}
	for _, part := range [][]byte{length[:], msg} {
		n, err := h.file.Write(part)
		h.size += int64(n)
		if err != nil {
			return problem.Wrap(err, problem.Resource, "spool_unusable", "keep rows whose table is not there yet").
				WithHint("free space in the agent's directory, then resume the link")
		}
	}
	return nil
}

func (h *held) create() error {
	if h.dir == "" {
		return os.ErrInvalid
	}
	file, err := os.CreateTemp(h.dir, "held-*")
	if err != nil {
		return err
	}
	h.file = file
	return os.Remove(file.Name())
}

// each hands over every message in order; the bytes are valid until it returns.
func (h *held) each(take func(msg []byte) error) error {
	for b := h.memory; len(b) > 0; {
		n := 4 + int(binary.BigEndian.Uint32(b))
		if err := take(b[4:n:n]); err != nil {
			return err
		}
		b = b[n:]
	}
	if h.file == nil {
		return nil
	}
	in := io.NewSectionReader(h.file, 0, h.size)
	for {
		var length [4]byte
		if _, err := io.ReadFull(in, length[:]); err == io.EOF {
			return nil
		} else if err != nil {
			return problem.Wrap(err, problem.Transient, "spool_unusable", "read rows that waited for their table")
		}
		// Changes keep their message until they are written: each has its own.
		msg := make([]byte, binary.BigEndian.Uint32(length[:]))
		if _, err := io.ReadFull(in, msg); err != nil {
			return problem.Wrap(err, problem.Transient, "spool_unusable", "read rows that waited for their table")
		}
		if err := take(msg); err != nil {
			return err
		}
	}
}

func (h *held) close() {
	if h.file != nil {
		h.file.Close()
	}
	*h = held{dir: h.dir}
}

// transient matches the names that version 10 gives to the new half of a table
// that is being rewritten, and publishes (cluster.c, make_new_heap).
var transient = regexp.MustCompile(`^pg_temp_[0-9]+$`)

// hold keeps the message being taken, whose table is not there.
func (e *engine) hold(r *relation) error {
	if transient.MatchString(r.name.Name) {
		return nil
	}
	return e.held.add(e.raw)
}

// release takes the rows that were held and whose table is there now.
func (e *engine) release(ctx context.Context) error {
	if e.held.empty() {
		return nil
	}
	waiting := e.held
	defer waiting.close()
	e.held = held{dir: waiting.dir}
	return waiting.each(func(msg []byte) error {
		e.raw = msg
		m, err := e.decoder.Decode(msg)
		if err != nil {
			return corrupt("a message that cannot be read: %v", err)
		}
		switch m.Type {
		case pgoutput.TypeInsert, pgoutput.TypeUpdate, pgoutput.TypeDelete:
			return e.change(ctx, m)
		}
		return corrupt("a message of type %q that was held", byte(m.Type))
	})
}

// heldAtCommit refuses rows whose table has not come with their transaction.
func (e *engine) heldAtCommit() error {
	if e.held.empty() {
		return nil
	}
	for _, r := range e.relations {
		if r.missing && !transient.MatchString(r.name.Name) {
			return r.match(nil)
		}
	}
	return corrupt("rows of a table that it does not name")
}
