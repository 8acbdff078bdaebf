package flow

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"time"

	"github.com/twinspan/twinspan/internal/apply"
	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/pgoutput"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/reorder"
	"github.com/twinspan/twinspan/internal/wire"
)

// part is what goes to the applier in one go: an item, or a streamed transaction that
// has committed.
type part struct {
	apply.Item
	whole *reorder.Transaction // nil usually
	came  time.Time            // when it was received
	upto  lsn.LSN              // everything that it begins or ends lies before
}

func (p *part) empty() bool { return p.Records == nil && p.Reached == 0 && p.whole == nil }

// close frees a part that nobody takes.
func (p *part) close() {
	if p.Big != nil {
		p.Big.Close()
	}
	if p.whole != nil {
		p.whole.Close()
	}
}

// cutter cuts a byte stream of records into parts.
type cutter struct {
	// keep puts a record that is too large for memory on the disk.
	keep func(ctx context.Context, from io.Reader, length int) (apply.Big, error)
	// collect takes transactions that come before their commit; nil where none do.
	collect *reorder.Buffer
	// note is told every position that was seen, complete whether it is a Reached. Optional.
	note func(position lsn.LSN, complete bool)

	buf    []byte // what was received
	at     int    // and from where on it is not handed over yet
	last   int    // bytes that came with the last read
	shared bool   // a part of the buffer was handed over
}

// next returns the whole records that are there, at least one. They are not copied:
// the item's memory is the buffer's, which goes on behind them or is left to it.
func (c *cutter) next(ctx context.Context, from io.Reader) (part, error) {
	for {
		p, want, err := c.cut(ctx)
		if err != nil || !p.empty() {
			return p, err
		}
		if want >= wire.RecordHeader+bigRecord {
			p, err := c.large(ctx, from, want-wire.RecordHeader)
			if err != nil || p.Big != nil {
				return p, err
			}
			continue
		}
		if err := c.more(from, want); err != nil {
			return p, err
		}
	}
}

// large takes a record of which only the first bytes are there, without holding it in
// memory.
func (c *cutter) large(ctx context.Context, from io.Reader, length int) (p part, err error) {
	for c.collect != nil && len(c.buf)-c.at < wire.RecordHeader+streamedHead {
		if err := c.more(from, wire.RecordHeader+streamedHead); err != nil {
			return p, err
		}
	}
	head := c.buf[c.at+wire.RecordHeader:]
	c.buf, c.at, c.shared = nil, 0, false
	if c.collect != nil && c.collect.Inside() {
		return p, c.collect.TakeLarge(ctx, head, from, length)
	}
	p.Big, err = c.keep(ctx, io.MultiReader(bytes.NewReader(head), from), length)
	return p, err
}

// streamedHead is the least that the head of a message within a block has.
const streamedHead = 1 + 4

// cut takes the whole records out of the buffer, up to a position if there is one, or to
// a streamed transaction, for those end a part. When there is none it returns the length of the
// next one, header included, or of a header.
func (c *cutter) cut(ctx context.Context) (p part, want int, err error) {
	start, end := c.at, c.at
	for want = wire.RecordHeader; len(c.buf)-end >= wire.RecordHeader; want = wire.RecordHeader {
		length := int(binary.BigEndian.Uint32(c.buf[end:]))
		if length == 0 || length > wire.MaxRecord {
			_, _, err := wire.Split(c.buf[end:])
			return p, 0, err
		}
		want = wire.RecordHeader + length
		if len(c.buf)-end < want {
			break
		}
		record := c.buf[end+wire.RecordHeader : end+want]
		position, ok, err := wire.ParseReached(record)
		if err != nil {
			return p, 0, err
		}
		if ok {
			if c.collect != nil && c.collect.Inside() {
				return p, 0, problem.New(problem.Internal, "stream_corrupt", "the stream holds a position inside a block")
			}
			p.Reached = position.Position
			c.at = end + want
			break
		}
		if c.collect != nil {
			if end > start && streamed(record[0]) {
				break // what is before it goes first
			}
			whole, taken, err := c.collect.Take(ctx, record)
			if err != nil {
				return p, 0, err
			}
			if taken {
				end += want
				start, c.at = end, end
				if p.whole = whole; whole != nil {
					break
				}
				continue
			}
		}
		end += want
		c.at = end
		switch {
		case record[0] == byte(pgoutput.TypeBegin) && length >= 1+8:
			// The place of its commit: at this position the transaction is not there.
			p.upto = max(p.upto, lsn.LSN(binary.BigEndian.Uint64(record[1:]))+1)
		case record[0] == byte(pgoutput.TypeCommit) && length >= 1+1+8+8:
			c.noted(lsn.LSN(binary.BigEndian.Uint64(record[1+1+8:])), false)
		}
	}
	if end > start {
		p.Records, p.SentAt, c.shared = c.buf[start:end:end], time.Now(), true
	}
	if p.whole != nil {
		p.upto = max(p.upto, p.whole.Commit().End)
		c.noted(p.whole.Commit().End, false)
	}
	if p.Reached != 0 {
		c.noted(p.Reached, true)
	}
	return p, want, nil
}

// streamed says whether a message of this type, outside of a block, is about a streamed
// transaction.
func streamed(kind byte) bool {
	switch pgoutput.Type(kind) {
	case pgoutput.TypeStreamStart, pgoutput.TypeStreamCommit, pgoutput.TypeStreamAbort:
		return true
	}
	return false
}

func (c *cutter) noted(position lsn.LSN, complete bool) {
	if c.note != nil {
		c.note(position, complete)
	}
}

// more reads what is there, behind what is left of the buffer, so that a record of the
// wanted length will have room.
func (c *cutter) more(from io.Reader, want int) error {
	if c.at+want > cap(c.buf) || len(c.buf) == cap(c.buf) {
		// Small where little came last, for a record alone keeps its whole buffer.
		size := max(4<<10, min(2*c.last, itemSize), want)
		if c.shared || cap(c.buf) < size || cap(c.buf) > max(itemSize, size) {
			c.buf = append(make([]byte, 0, size), c.buf[c.at:]...)
		} else {
			c.buf = c.buf[:copy(c.buf[:cap(c.buf)], c.buf[c.at:])]
		}
		c.at, c.shared = 0, false
	}
	n, err := from.Read(c.buf[len(c.buf):cap(c.buf)])
	c.buf = c.buf[:len(c.buf)+n]
	c.last = n
	if n > 0 {
		return nil // an error comes again
	}
	return err
}
