package pgoutput

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/twinspan/twinspan/internal/lsn"
)

// Errors that a caller may branch on; Decode wraps them with the message's type.
var (
	ErrShort    = errors.New("message ends early")
	ErrTrailing = errors.New("message has bytes behind its end")
	ErrTwoPhase = errors.New("two-phase messages are not asked for and not understood")
	ErrUnknown  = errors.New("unknown type of message")
)

// Decoder decodes the messages of one stream, in order. The zero value is ready.
// Its one piece of state is whether a streamed block is open, for the messages
// inside carry a transaction number.
type Decoder struct {
	// Parallel says that the stream was started with streaming 'parallel'
	// (version 4): abort messages then carry a position and a time.
	Parallel bool

	streaming bool
	m         Message
	in        input
}

// Decode decodes one whole message. What it returns is valid until the next
// call, and its slices as long as msg. After an error the stream is unusable.
func (d *Decoder) Decode(msg []byte) (*Message, error) {
	d.in = input{b: msg}
	in := &d.in
	d.m.Type = Type(in.byte())
	d.m.XID = 0
	if len(msg) == 0 {
		return nil, fmt.Errorf("decode pgoutput message: %w", ErrShort)
	}
	err := d.body(in)
	if err == nil {
		err = in.end()
	}
	if err != nil {
		return nil, fmt.Errorf("decode pgoutput message %q: %w", msg[0], err)
	}
	return &d.m, nil
}

func (d *Decoder) body(in *input) error {
	m := &d.m
	switch m.Type {
	case TypeInsert, TypeUpdate, TypeDelete, TypeRelation, TypeType, TypeTruncate, TypeMessage:
		if d.streaming {
			m.XID = in.uint32()
		}
	}
	switch m.Type {
	case TypeInsert, TypeUpdate, TypeDelete:
		return m.Change.decode(m.Type, in)
	case TypeBegin:
		m.Begin = Begin{Final: in.lsn(), Time: Timestamp(in.uint64()), XID: in.uint32()}
	case TypeCommit:
		return m.Commit.decode(in)
	case TypeOrigin:
		m.Origin = Origin{Commit: in.lsn(), Name: in.string()}
	case TypeRelation:
		return m.Relation.decode(in)
	case TypeType:
		m.DataType = DataType{ID: in.uint32(), Schema: in.string(), Name: in.string()}
	case TypeTruncate:
		return m.Truncate.decode(in)
	case TypeMessage:
		return m.Logical.decode(in)
	case TypeStreamStart:
		return d.start(in)
	case TypeStreamStop:
		if !d.streaming {
			return errors.New("a streamed block ends that was not open")
		}
		d.streaming = false
	case TypeStreamCommit:
		m.StreamCommit = in.uint32()
		return m.Commit.decode(in)
	case TypeStreamAbort:
		m.StreamAbort = StreamAbort{XID: in.uint32(), SubXID: in.uint32()}
		if d.Parallel {
			m.StreamAbort.LSN, m.StreamAbort.Time = in.lsn(), Timestamp(in.uint64())
		}
	case TypeBeginPrepare, TypePrepare, TypeCommitPrepared, TypeRollbackPrepared, TypeStreamPrepare:
		return ErrTwoPhase
	default:
		return ErrUnknown
	}
	return nil
}

func (d *Decoder) start(in *input) error {
	d.m.StreamStart = StreamStart{XID: in.uint32(), First: in.byte() == 1}
	if in.err != nil {
		return nil // reported by end
	}
	if d.streaming {
		return errors.New("a streamed block begins inside another")
	}
	d.streaming = true
	return nil
}

func (c *Commit) decode(in *input) error {
	if flags := in.byte(); flags != 0 {
		return fmt.Errorf("commit has unknown flags %#x", flags)
	}
	*c = Commit{LSN: in.lsn(), End: in.lsn(), Time: Timestamp(in.uint64())}
	return nil
}

func (r *Relation) decode(in *input) error {
	r.ID, r.Schema, r.Name, r.Identity = in.uint32(), in.string(), in.string(), in.byte()
	n := int(in.uint16())
	r.Columns = r.Columns[:0]
	for range n {
		flags := in.byte()
		c := RelationColumn{Key: flags&1 != 0, Name: in.string(), TypeID: in.uint32(), Modifier: int32(in.uint32())}
		if in.err != nil {
			return in.err
		}
		r.Columns = append(r.Columns, c)
	}
	return nil
}

func (t *Truncate) decode(in *input) error {
	n := in.uint32()
	options := in.byte()
	if options&^3 != 0 {
		return fmt.Errorf("truncate has unknown options %#x", options)
	}
	t.Cascade, t.RestartIdentity = options&1 != 0, options&2 != 0
	t.Relations = t.Relations[:0]
	if uint64(n)*4 > uint64(len(in.b)) {
		return ErrShort
	}
	for range n {
		t.Relations = append(t.Relations, in.uint32())
	}
	return nil
}

func (l *Logical) decode(in *input) error {
	flags := in.byte()
	if flags&^1 != 0 {
		return fmt.Errorf("logical message has unknown flags %#x", flags)
	}
	*l = Logical{Transactional: flags == 1, LSN: in.lsn(), Prefix: in.string()}
	l.Content = in.take(int64(in.uint32()))
	return nil
}

func (c *Change) decode(kind Type, in *input) error {
	c.Relation = in.uint32()
	c.OldKind = OldNone
	c.Old, c.New = Tuple{}, Tuple{}
	mark := in.byte()
	if kind != TypeInsert && (mark == OldKey || mark == OldFull) {
		c.OldKind = mark
		if err := c.Old.decode(in); err != nil {
			return err
		}
		if kind == TypeDelete {
			return nil
		}
		mark = in.byte()
	}
	if in.err != nil {
		return in.err
	}
	if mark != 'N' || kind == TypeDelete {
		return fmt.Errorf("tuple of unknown kind %q", mark)
	}
	return c.New.decode(in)
}

// input reads from a message. The first failure sticks; reads after it give
// zero, so that a decoder checks once at its end.
type input struct {
	b   []byte
	err error
}

// end reports the first failure, or bytes that nobody read.
func (in *input) end() error {
	if in.err == nil && len(in.b) > 0 {
		return ErrTrailing
	}
	return in.err
}

func (in *input) take(n int64) []byte {
	if n > int64(len(in.b)) {
		in.err, in.b = ErrShort, nil
		return nil
	}
	v := in.b[:n]
	in.b = in.b[n:]
	return v
}

func (in *input) byte() byte {
	if v := in.take(1); v != nil {
		return v[0]
	}
	return 0
}

func (in *input) uint16() uint16 {
	if v := in.take(2); v != nil {
		return binary.BigEndian.Uint16(v)
	}
	return 0
}

func (in *input) uint32() uint32 {
	if v := in.take(4); v != nil {
		return binary.BigEndian.Uint32(v)
	}
	return 0
}

func (in *input) uint64() uint64 {
	if v := in.take(8); v != nil {
		return binary.BigEndian.Uint64(v)
	}
	return 0
}

func (in *input) lsn() lsn.LSN { return lsn.LSN(in.uint64()) }

func (in *input) string() []byte {
	end := bytes.IndexByte(in.b, 0)
	if end < 0 {
		in.err, in.b = ErrShort, nil
		return nil
	}
	v := in.b[:end]
	in.b = in.b[end+1:]
	return v
}
