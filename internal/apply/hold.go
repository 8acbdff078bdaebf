package apply

import (
	"context"
	"encoding/binary"
	"io"
	"os"
	"regexp"
	"slices"

	"github.com/twinspan/twinspan/internal/pgoutput"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// heldMemory is how many bytes of rows wait in memory for their table.
const heldMemory = 4 << 20

// held keeps messages with rows whose table is made later in their transaction:
// CREATE TABLE AS writes its rows before it is known that it was run.
type held struct {
	dir    string
	of     []*relation // whose rows they are
	memory []byte      // messages, each behind its length
	file   *os.File    // what did not fit, without a name; nil usually
	size   int64       // of the file
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
	if r.gone || transient.MatchString(r.name.Name) {
		return nil
	}
	if !slices.Contains(e.held.of, r) {
		e.held.of = append(e.held.of, r)
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

// heldAtCommit has tables made that have not come with their transaction: EXPLAIN ANALYZE of a command that
// makes one tells nobody so. Rows of one that is there no more mean nothing; others are refused.
func (e *engine) heldAtCommit(ctx context.Context) error {
	var asked []sqlname.Table
	for !e.held.empty() {
		if len(e.held.of) == 0 {
			return corrupt("rows of a table that it does not name")
		}
		r := e.held.of[0]
		if slices.Contains(asked, r.name) {
			return r.match(nil)
		}
		asked = append(asked, r.name)
		e.tx.signals++
		if made, err := e.makeUnseen(ctx, r); err != nil {
			return err
		} else if !made {
			return r.match(nil)
		}
	}
	return nil
}

// makeHeld has tables made whose rows wait, before a command that needs one of them. It says whether there are any.
func (e *engine) makeHeld(ctx context.Context) (made bool, err error) {
	for _, r := range slices.Clone(e.held.of) {
		if e.held.empty() || !slices.Contains(e.held.of, r) {
			continue
		}
		one, err := e.makeUnseen(ctx, r)
		if err != nil {
			return false, err
		}
		made = made || one && !slices.Contains(e.held.of, r)
	}
	return made, nil
}

// makeUnseen has a table made that no event trigger saw, and takes the rows that wait for it. It says whether it is
// known what becomes of them.
func (e *engine) makeUnseen(ctx context.Context, r *relation) (known bool, err error) {
	if e.a.OnUnseen == nil || e.making {
		return false, nil
	}
	if err := e.drain(ctx); err != nil {
		return false, err
	}
	e.making = true
	defer func() { e.making = false }()
	script, seen, err := e.a.OnUnseen(ctx, r.unseen(e.tx.xid, Signal{At: e.tx.final, Place: e.tx.signals}))
	switch {
	case err != nil || seen:
		return false, err
	case script != nil:
		return true, e.script(ctx, script)
	}
	r.gone = true
	e.a.Log.InfoContext(ctx, "rows of a table passed over that is gone", "table", r.name.String(), "lsn", e.tx.final)
	return true, e.release(ctx)
}

// Unseen is a table that no command made, as the stream describes it. Names are in the
// encoding of the primary's database.
type Unseen struct {
	Signal         // where it is missed, as if there were a signal
	XID     uint32 // the transaction's
	OID     uint32
	Schema  []byte
	Name    []byte
	Columns []UnseenColumn
	// Bare says that the table had no replica identity when the rows were written: every table gets one from
	// the event trigger that sees it.
	Bare bool
}

// UnseenColumn is a column of it.
type UnseenColumn struct {
	Name     []byte `json:"name"`
	Type     uint32 `json:"type"`     // on the primary
	Modifier int32  `json:"modifier"` // of the type, -1 for none
}

func (r *relation) unseen(xid uint32, at Signal) Unseen {
	u := Unseen{Signal: at, XID: xid, OID: r.id, Schema: []byte(r.name.Schema), Name: []byte(r.name.Name), Bare: r.identity == pgoutput.IdentityDefault}
	for i, c := range r.columns {
		u.Bare = u.Bare && !c.inKey
		u.Columns = append(u.Columns, UnseenColumn{Name: []byte(c.name), Type: c.sourceID, Modifier: r.modifiers[i]})
	}
	return u
}
