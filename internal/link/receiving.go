package link

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/semaphore"

	"github.com/twinspan/twinspan/internal/apply"
	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/peer"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/reorder"
	"github.com/twinspan/twinspan/internal/wire"
)

const (
	// itemSize is about how many bytes of records go to the applier at once.
	itemSize = 128 << 10
	// bigRecord is the size from which a record goes to disk rather than memory.
	bigRecord = 8 << 20
)

// receiver turns the frames of a peer stream into items for the applier. It reads
// ahead of it by a bounded number of items and of bytes, which bounds the memory of a
// link that falls behind; streamed transactions that have committed wait on disk among
// them.
type receiver struct {
	stream   *peer.Stream
	compress bool
	spool    *Spool // for what is too large for memory
	streamed bool   // large transactions come before their commit

	parts chan part
	space *semaphore.Weighted // bytes of what waits in parts
	room  int64               // all of space

	cutter
	received atomic.Uint64
	reached  atomic.Uint64 // last position that the source said to be complete
	commit   atomic.Uint64 // end of the last transaction that came
	bytes    atomic.Uint64
	spilled  atomic.Int64 // bytes of streamed transactions on disk

	err error // why parts was closed

	// What was taken and not handed over; the applier's goroutine has it.
	kept   *part
	replay *replay
	whole  atomic.Uint64 // end of the streamed transaction that was handed over last

	gate    holdable      // shut while nothing may be handed over
	commits chan struct{} // holds an element when something was committed
	nudges  chan struct{} // holds an element when the applier is to look around

	ended chan struct{} // closed when nothing is applied from here any more
}

// committed is called after each commit of what came from here.
func (r *receiver) committed() {
	select {
	case r.commits <- struct{}{}:
	default:
	}
}

func newReceiver(s *peer.Stream, compress, streamed bool, spool *Spool, ahead int) *receiver {
	r := &receiver{
		stream: s, compress: compress, spool: spool, streamed: streamed,
		parts: make(chan part, ahead), room: int64(ahead) * itemSize, commits: make(chan struct{}, 1), nudges: make(chan struct{}, 1), ended: make(chan struct{}),
	}
	r.space = semaphore.NewWeighted(r.room)
	r.cutter = cutter{keep: spool.keep, note: r.note}
	return r
}

// Next implements apply.Source.
func (r *receiver) Next(ctx context.Context) (apply.Item, error) {
	if r.kept == nil && r.replay == nil {
		select {
		case p, ok := <-r.parts:
			if ok {
				r.space.Release(r.weight(p))
			}
			switch {
			case !ok:
				return apply.Item{}, r.err
			case p.whole != nil:
				r.replay = newReplay(p, r.spool)
				r.whole.Store(uint64(p.whole.Commit().End))
			default:
				r.kept = &p
			}
		case <-r.nudges:
			return apply.Item{}, nil
		case <-ctx.Done():
			return apply.Item{}, context.Cause(ctx)
		}
	}
	came, upto := r.waiting()
	if err := r.gate.pass(ctx, came, upto); err != nil {
		return apply.Item{}, err
	}
	if r.kept != nil {
		item := r.kept.Item
		r.kept = nil
		return item, nil
	}
	item, err := r.replay.next(ctx)
	if err == nil && r.replay.done() {
		r.replay.whole.Close()
		r.replay = nil
	}
	return item, err
}

// waiting is when what was taken and not handed over came, and up to where it reaches.
func (r *receiver) waiting() (came time.Time, upto lsn.LSN) {
	if r.kept != nil {
		return r.kept.came, r.kept.upto
	}
	return r.replay.came, r.replay.upto
}

// nudge has Next return without an item, if nothing comes: the applier looks between items
// for what waits for it.
func (r *receiver) nudge() {
	select {
	case r.nudges <- struct{}{}:
	default:
	}
}

// Ready implements apply.Source.
func (r *receiver) Ready() bool {
	if r.kept == nil && r.replay == nil {
		return len(r.parts) > 0 && r.gate.open(time.Now())
	}
	came, _ := r.waiting()
	return r.gate.open(came)
}

// drop closes what was taken and not handed over. The applier is gone by then.
func (r *receiver) drop() {
	if r.kept != nil && r.kept.Big != nil {
		r.kept.Big.Close()
	}
	if r.replay != nil {
		r.replay.whole.Close()
	}
	r.kept, r.replay = nil, nil
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
	close(r.parts)
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
	if r.streamed {
		r.collect = reorder.New(r.spool.dir, &r.spool.transactions, &r.spilled)
		defer r.collect.Close()
	}
	for {
		p, err := r.next(ctx, source)
		if err != nil {
			return err
		}
		p.came = time.Now()
		if err := r.put(ctx, p); err != nil {
			p.close()
			return err
		}
	}
}

// put has a part wait for the applier, once there is room. A part holds at least one record, which may be much
// longer than the usual item.
func (r *receiver) put(ctx context.Context, p part) error {
	if r.space.Acquire(ctx, r.weight(p)) != nil {
		return context.Cause(ctx)
	}
	select {
	case r.parts <- p:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// weight is what a part takes of space. One that is longer than all of it waits alone.
func (r *receiver) weight(p part) int64 { return min(int64(len(p.Records)), r.room) }

// note takes a position that came with the stream.
func (r *receiver) note(position lsn.LSN, complete bool) {
	if complete {
		r.reached.Store(uint64(position))
	} else {
		r.commit.Store(uint64(position))
	}
	r.received.Store(max(r.received.Load(), uint64(position)))
}

// replay is a streamed transaction that has committed, on its way to the applier.
type replay struct {
	whole *reorder.Transaction
	from  *reorder.Replay
	came  time.Time
	upto  lsn.LSN
	cutter
}

func newReplay(p part, spool *Spool) *replay {
	return &replay{whole: p.whole, from: p.whole.Replay(), came: p.came, upto: p.upto, cutter: cutter{keep: spool.keepOne}}
}

func (r *replay) next(ctx context.Context) (apply.Item, error) {
	p, err := r.cutter.next(ctx, r.from)
	return p.Item, err
}

// done says whether everything was handed over.
func (r *replay) done() bool { return r.from.Done() && r.at == len(r.buf) }

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
