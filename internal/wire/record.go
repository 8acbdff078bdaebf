// Package wire is what agents say to each other on the stream of a link: records
// in a byte stream, and the frames that carry it (docs/format/stream.md). It is
// pure; the peer package moves the bytes.
package wire

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/problem"
)

// RecordHeader is the length of what stands before each record: its length as a
// big-endian 32-bit number, itself not counted.
const RecordHeader = 4

// MaxRecord bounds a record: PostgreSQL's own limit for a message is 1 GB.
const MaxRecord = 1<<30 + 1<<20

// reached is the first byte of the one kind of record that pgoutput does not
// send. Its own messages begin with a letter.
const reached = 0x01

const reachedLength = 1 + 8 + 8

// Reached says that the source has handed over every transaction that committed
// before Position, and that none is under way.
type Reached struct {
	Position lsn.LSN
	At       time.Time // when the source's server said so, by its clock
}

// Append adds the record, header included.
func (r Reached) Append(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, reachedLength)
	b = append(b, reached)
	b = binary.BigEndian.AppendUint64(b, uint64(r.Position))
	return binary.BigEndian.AppendUint64(b, uint64(r.At.UnixMicro()))
}

// ParseReached reads a record without its header. ok is false for a message of
// pgoutput.
func ParseReached(record []byte) (r Reached, ok bool, err error) {
	if len(record) == 0 {
		return r, false, corrupt("an empty record")
	}
	if record[0] != reached {
		return r, false, nil
	}
	if len(record) != reachedLength {
		return r, false, corrupt("a position record of %d bytes", len(record))
	}
	r.Position = lsn.LSN(binary.BigEndian.Uint64(record[1:]))
	r.At = time.UnixMicro(int64(binary.BigEndian.Uint64(record[9:])))
	return r, true, nil
}

// Split says how many leading bytes of b are whole records, and how long the
// record behind them is, header included; 0 when not even its header is there.
func Split(b []byte) (whole, next int, err error) {
	for {
		rest := b[whole:]
		if len(rest) < RecordHeader {
			return whole, 0, nil
		}
		n := binary.BigEndian.Uint32(rest)
		if n == 0 || n > MaxRecord {
			return whole, 0, corrupt("a record of %d bytes", n)
		}
		next = RecordHeader + int(n)
		if next > len(rest) {
			return whole, next, nil
		}
		whole += next
	}
}

// Confirm is what the secondary tells the primary on the same stream.
type Confirm struct {
	Received lsn.LSN
	Applied  lsn.LSN
	Durable  lsn.LSN // survives a crash of the secondary's server; the slot may move here
}

// ConfirmLength is the length of an encoded Confirm.
const ConfirmLength = 24

// Append adds the encoded form.
func (c Confirm) Append(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(c.Received))
	b = binary.BigEndian.AppendUint64(b, uint64(c.Applied))
	return binary.BigEndian.AppendUint64(b, uint64(c.Durable))
}

// ParseConfirm reads what Append wrote. Positions out of order are refused: they
// would let the slot move past what is durable.
func ParseConfirm(b []byte) (Confirm, error) {
	if len(b) != ConfirmLength {
		return Confirm{}, corrupt("a confirmation of %d bytes", len(b))
	}
	c := Confirm{
		Received: lsn.LSN(binary.BigEndian.Uint64(b)),
		Applied:  lsn.LSN(binary.BigEndian.Uint64(b[8:])),
		Durable:  lsn.LSN(binary.BigEndian.Uint64(b[16:])),
	}
	if c.Durable > c.Applied || c.Applied > c.Received {
		return Confirm{}, corrupt("a confirmation with positions out of order")
	}
	return c, nil
}

// Frame kinds of the peer stream that belong to links.
const (
	FrameData    byte = 0x10 // both ways: bytes of a byte stream (records, COPY, a dump)
	FrameConfirm byte = 0x11 // secondary to primary
	FrameResult  byte = 0x12 // the answer's closing words, JSON
)

func corrupt(text string, args ...any) error {
	return problem.New(problem.Internal, "stream_corrupt", "the stream holds "+text, args...)
}

// String renders for tests and logs.
func (c Confirm) String() string {
	return fmt.Sprintf("received %s applied %s durable %s", c.Received, c.Applied, c.Durable)
}
