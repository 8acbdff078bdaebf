package link

import (
	"bufio"
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
	// ahead is how many items may wait for the applier; with itemSize it bounds the
	// memory of a link that falls behind.
	ahead = 64
	// bigRecord is the size from which a record goes to disk rather than memory.
	bigRecord = 8 << 20
)

// receiver turns the frames of a peer stream into items for the applier. It reads
// ahead of it by a bounded number of items.
type receiver struct {
	stream   *peer.Stream
	compress bool
	spool    *Spool // for big records

	items chan apply.Item

	received atomic.Uint64
	reached  atomic.Uint64 // last position that the source said to be complete
	bytes    atomic.Uint64

	err error // why items was closed

	gate holdable    // shut while nothing may be handed over
	kept *apply.Item // taken while it was shut; the applier's goroutine has it

	ended chan struct{} // closed when nothing is applied from here any more
}

func newReceiver(s *peer.Stream, compress bool, spool *Spool) *receiver {
	return &receiver{stream: s, compress: compress, spool: spool, items: make(chan apply.Item, ahead), ended: make(chan struct{})}
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
	b := bufio.NewReaderSize(source, 64<<10)
	for {
		item, err := r.next(ctx, b)
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

// next collects the whole records that are there, at least one.
func (r *receiver) next(ctx context.Context, b *bufio.Reader) (apply.Item, error) {
	var item apply.Item
	for {
		if len(item.Records) > 0 && (len(item.Records) >= itemSize || !recordBuffered(b)) {
			return item, nil
		}
		head, err := b.Peek(wire.RecordHeader)
		if err != nil {
			return item, err
		}
		length := int(binary.BigEndian.Uint32(head))
		if length == 0 || length > wire.MaxRecord {
			_, _, err := wire.Split(head)
			return item, err
		}
		if length >= bigRecord {
			if len(item.Records) > 0 {
				return item, nil
			}
			if _, err := b.Discard(wire.RecordHeader); err != nil {
				return item, err
			}
			big, err := r.spool.spill(ctx, b, length)
			if err != nil {
				return item, err
			}
			item.Big = big
			return item, nil
		}
		if item.Records == nil {
			item.Records = make([]byte, 0, max(4<<10, min(itemSize, b.Buffered()), length+wire.RecordHeader))
			item.SentAt = time.Now()
		}
		start := len(item.Records)
		item.Records = append(item.Records, head...)
		if _, err := b.Discard(wire.RecordHeader); err != nil {
			return item, err
		}
		at := len(item.Records)
		item.Records = grow(item.Records, length)
		if _, err := io.ReadFull(b, item.Records[at:]); err != nil {
			return item, err
		}
		position, ok, err := wire.ParseReached(item.Records[at:])
		if err != nil {
			return item, err
		}
		if ok {
			// The position is not a message: it ends the item.
			item.Records = item.Records[:start]
			item.Reached = position.Position
			r.reached.Store(uint64(position.Position))
			r.note(position.Position)
			return item, nil
		}
		if item.Records[at] == 'C' && length >= 1+1+8+8 {
			r.note(lsn.LSN(binary.BigEndian.Uint64(item.Records[at+1+1+8:])))
		}
	}
}

func (r *receiver) note(position lsn.LSN) {
	r.received.Store(max(r.received.Load(), uint64(position)))
}

func grow(b []byte, n int) []byte {
	if cap(b)-len(b) >= n {
		return b[:len(b)+n]
	}
	return append(b, make([]byte, n)...)
}

// recordBuffered says whether a whole record lies in the buffer, so that taking it
// does not wait.
func recordBuffered(b *bufio.Reader) bool {
	if b.Buffered() < wire.RecordHeader {
		return false
	}
	head, err := b.Peek(wire.RecordHeader)
	return err == nil && b.Buffered() >= wire.RecordHeader+int(binary.BigEndian.Uint32(head))
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
