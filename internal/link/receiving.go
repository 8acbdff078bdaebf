package link

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"

	"sync/atomic"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/twinspan/twinspan/internal/apply"
	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/peer"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/wire"
)

const (
	// itemSize is about how many bytes of records go to the applier at once.
	itemSize = 128 << 10
	// bigRecord is the size from which a record goes to disk rather than memory.
	bigRecord = 8 << 20
)

// receiver turns the frames of a peer stream into items for the applier. It reads
// ahead of it by a bounded number of items, which with itemSize bounds the memory of a
// link that falls behind.
type receiver struct {
	stream   *peer.Stream
	compress bool
	spool    *Spool // for big records

	items chan apply.Item

	buf  []byte // what was received
	at   int    // and from where on it is not handed over yet
	last int    // bytes that came with the last read

	received atomic.Uint64
	reached  atomic.Uint64 // last position that the source said to be complete
	bytes    atomic.Uint64

	err error // why items was closed

	gate holdable    // shut while nothing may be handed over
	kept *apply.Item // taken while it was shut; the applier's goroutine has it

	commits chan struct{} // holds an element when something was committed

	ended chan struct{} // closed when nothing is applied from here any more
}

// committed is called after each commit of what came from here.
func (r *receiver) committed() {
	select {
	case r.commits <- struct{}{}:
	default:
	}
}

func newReceiver(s *peer.Stream, compress bool, spool *Spool, ahead int) *receiver {
	return &receiver{stream: s, compress: compress, spool: spool, items: make(chan apply.Item, ahead), commits: make(chan struct{}, 1), ended: make(chan struct{})}
}

// Next implements apply.Source.
func (r *receiver) Next(ctx context.Context) (apply.Item, error) {
	if r.kept == nil {
		select {
		case item, ok := <-r.items:
			if !ok {
				return apply.Item{}, r.err
			}
			r.kept = &item
		case <-ctx.Done():
			return apply.Item{}, context.Cause(ctx)
		}
	}
	if err := r.gate.pass(ctx); err != nil {
		return apply.Item{}, err
	}
	item := *r.kept
	r.kept = nil
	return item, nil
}

// Ready implements apply.Source.
func (r *receiver) Ready() bool { return (r.kept != nil || len(r.items) > 0) && r.gate.open() }

// drop closes what was taken and not handed over. The applier is gone by then.
func (r *receiver) drop() {
	if r.kept != nil && r.kept.Big != nil {
		r.kept.Big.Close()
	}
	r.kept = nil
}

// run receives until the stream ends or ctx does; it always returns an error.
func (r *receiver) run(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { r.stream.Close() })()
	err := r.receive(ctx)
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = problem.New(problem.Transient, "stream_ended", "the primary's agent ended the stream")
	}
	r.err = err
	close(r.items)
	return err
}

func (r *receiver) receive(ctx context.Context) error {
	in := &frameReader{stream: r.stream, bytes: &r.bytes}
	var source io.Reader = in
	if r.compress {
		// One block ahead at most: a small flush must come through at once.
		z, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(window))
		if err != nil {
			return err
		}
		defer z.Close()
		source = z
	}
	for {
		item, err := r.next(ctx, source)
		if err != nil {
			return err
		}
		select {
		case r.items <- item:
		case <-ctx.Done():
			if item.Big != nil {
				item.Big.Close()
			}
			return context.Cause(ctx)
		}
	}
}

// next returns the whole records that are there, at least one. They are not copied:
// the item's memory is the buffer's, which goes on behind them or is left to it.
func (r *receiver) next(ctx context.Context, from io.Reader) (apply.Item, error) {
	for {
		item, want, err := r.cut()
		if err != nil || item.Records != nil || item.Reached != 0 {
			return item, err
		}
		if want >= wire.RecordHeader+bigRecord {
			head := r.buf[r.at+wire.RecordHeader:]
			r.buf, r.at = nil, 0
			big, err := r.spool.spill(ctx, io.MultiReader(bytes.NewReader(head), from), want-wire.RecordHeader)
			if err != nil {
				return item, err
			}
			item.Big = big
			return item, nil
		}
		if err := r.more(from, want); err != nil {
			return item, err
		}
	}
}

// cut takes the whole records out of the buffer, up to a position if there is one, for
// that ends an item. When there is none it returns the length of the next one, header
// included, or of a header.
func (r *receiver) cut() (item apply.Item, want int, err error) {
	start, end := r.at, r.at
	for want = wire.RecordHeader; len(r.buf)-end >= wire.RecordHeader; want = wire.RecordHeader {
		length := int(binary.BigEndian.Uint32(r.buf[end:]))
		if length == 0 || length > wire.MaxRecord {
			_, _, err := wire.Split(r.buf[end:])
			return item, 0, err
		}
		want = wire.RecordHeader + length
		if len(r.buf)-end < want {
			break
		}
		record := r.buf[end+wire.RecordHeader : end+want]
		position, ok, err := wire.ParseReached(record)
		if err != nil {
			return item, 0, err
		}
		if ok {
			item.Reached = position.Position
			r.at = end + want
			break
		}
		end += want
		r.at = end
		if record[0] == 'C' && length >= 1+1+8+8 {
			r.note(lsn.LSN(binary.BigEndian.Uint64(record[1+1+8:])))
		}
	}
	if end > start {
		item.Records, item.SentAt = r.buf[start:end:end], time.Now()
	}
	if item.Reached != 0 {
		r.reached.Store(uint64(item.Reached))
		r.note(item.Reached)
	}
	return item, want, nil
}

// more reads what is there, behind what is left of the buffer, so that a record of the
// wanted length will have room.
func (r *receiver) more(from io.Reader, want int) error {
	if r.at+want > cap(r.buf) || len(r.buf) == cap(r.buf) {
		// Small where little came last, for a record alone keeps its whole buffer.
		next := make([]byte, 0, max(4<<10, min(2*r.last, itemSize), want))
		r.buf, r.at = append(next, r.buf[r.at:]...), 0
	}
	n, err := from.Read(r.buf[len(r.buf):cap(r.buf)])
	r.buf = r.buf[:len(r.buf)+n]
	r.last = n
	if n > 0 {
		return nil // an error comes again
	}
	return err
}

func (r *receiver) note(position lsn.LSN) {
	r.received.Store(max(r.received.Load(), uint64(position)))
}

// frameReader is the byte stream in the data frames of a peer stream.
type frameReader struct {
	stream *peer.Stream
	rest   []byte
	bytes  *atomic.Uint64
	result []byte // the payload of the closing frame, once it came
}

func (f *frameReader) Read(p []byte) (int, error) {
	for len(f.rest) == 0 {
		kind, payload, err := f.stream.ReadFrame()
		if err != nil {
			return 0, err
		}
		switch kind {
		case wire.FrameData:
			f.rest = payload
		case wire.FrameResult:
			f.result = append([]byte(nil), payload...)
		}
	}
	n := copy(p, f.rest)
	f.rest = f.rest[n:]
	if f.bytes != nil {
		f.bytes.Add(uint64(n))
	}
	return n, nil
}
