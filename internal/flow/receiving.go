// Package flow brings bytes from one agent to the other: the records of a stream, cut into
// items for the applier and kept within a bounded memory; rows; and answers that are too
// large for one message. It knows no link.
package flow

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/twinspan/twinspan/internal/apply"
	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/peer"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/reorder"
)

const (
	// itemSize is about how many bytes of records go to the applier at once.
	itemSize = 128 << 10
	// bigRecord is the size from which a record goes to disk rather than memory.
	bigRecord = 8 << 20
)

// Receiver turns the frames of a peer stream into items for the applier. It reads
// ahead of it by a bounded number of items and of bytes, which bounds the memory of a
// link that falls behind; streamed transactions that have committed wait on disk among
// them.
//
// Run, Next with Ready and Drop, and everything else may be called by three goroutines at
// the same time.
type Receiver struct {
	stream   *peer.Stream
	compress bool
	spool    *Spool // for what is too large for memory
	blocks   bool   // large transactions come before their commit

	parts chan part
	space *semaphore.Weighted // bytes of what waits in parts
	room  int64               // all of space

	cutter
	received atomic.Uint64
	reached  atomic.Uint64
	commit   atomic.Uint64
	bytes    atomic.Uint64
	spilled  atomic.Int64

	err error // why parts was closed

	// What was taken and not handed over; the applier's goroutine has it.
	kept   *part
	replay *replay
	whole  atomic.Uint64

	holdable               // shut while nothing may be handed over
	commits  chan struct{} // holds an element when something was committed
	nudges   chan struct{} // holds an element when the applier is to look around

	ended chan struct{} // closed when nothing is applied from here any more
}

// NewReceiver returns the receiver of a stream, which the caller closes. compress says that
// the bytes come compressed, blocks that large transactions come in blocks before their
// commit. ahead is how many items of usual size may wait (Room).
func NewReceiver(s *peer.Stream, compress, blocks bool, spool *Spool, ahead int) *Receiver {
	r := &Receiver{
		stream: s, compress: compress, spool: spool, blocks: blocks,
		parts: make(chan part, ahead), room: int64(ahead) * itemSize,
		commits: make(chan struct{}, 1), nudges: make(chan struct{}, 1), ended: make(chan struct{}),
	}
	r.space = semaphore.NewWeighted(r.room)
	r.cutter = cutter{keep: spool.Keep, note: r.note}
	return r
}

// Blocks says whether large transactions come before their commit.
func (r *Receiver) Blocks() bool { return r.blocks }

// Received is the furthest position that has come.
func (r *Receiver) Received() lsn.LSN { return lsn.LSN(r.received.Load()) }

// Reached is the last position of which the source said that everything before has come.
func (r *Receiver) Reached() lsn.LSN { return lsn.LSN(r.reached.Load()) }

// LastCommit is the end of the last transaction that has come.
func (r *Receiver) LastCommit() lsn.LSN { return lsn.LSN(r.commit.Load()) }

// LastWhole is the end of the last transaction that came in blocks and was handed over.
func (r *Receiver) LastWhole() lsn.LSN { return lsn.LSN(r.whole.Load()) }

// Bytes counts what has come, as it came over the network.
func (r *Receiver) Bytes() int64 { return int64(r.bytes.Load()) }

// Spilled is how many bytes of transactions that came in blocks lie on the disk.
func (r *Receiver) Spilled() int64 { return r.spilled.Load() }

// Err is why the stream has ended. It may be called once Run has returned.
func (r *Receiver) Err() error { return r.err }

// Committed notes that something that came from here was committed.
func (r *Receiver) Committed() {
	select {
	case r.commits <- struct{}{}:
	default:
	}
}

// Commits has an element when Committed was called since one was taken.
func (r *Receiver) Commits() <-chan struct{} { return r.commits }

// End says that nothing is applied from here any more. It is called once.
func (r *Receiver) End() { close(r.ended) }

// Ended is closed by End.
func (r *Receiver) Ended() <-chan struct{} { return r.ended }

// Next implements apply.Source.
func (r *Receiver) Next(ctx context.Context) (apply.Item, error) {
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
	if err := r.pass(ctx, came, upto); err != nil {
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
func (r *Receiver) waiting() (came time.Time, upto lsn.LSN) {
	if r.kept != nil {
		return r.kept.came, r.kept.upto
	}
	return r.replay.came, r.replay.upto
}

// Nudge has Next return without an item, if nothing comes: the applier looks between items
// for what waits for it.
func (r *Receiver) Nudge() {
	select {
	case r.nudges <- struct{}{}:
	default:
	}
}

// Ready implements apply.Source.
func (r *Receiver) Ready() bool {
	if r.kept == nil && r.replay == nil {
		return len(r.parts) > 0 && r.open(time.Now())
	}
	came, _ := r.waiting()
	return r.open(came)
}

// Drop closes what was taken and not handed over. The applier is gone by then.
func (r *Receiver) Drop() {
	if r.kept != nil && r.kept.Big != nil {
		r.kept.Big.Close()
	}
	if r.replay != nil {
		r.replay.whole.Close()
	}
	r.kept, r.replay = nil, nil
}

// Run receives until the stream ends or ctx does, and drops then what nobody has taken; it
// always returns an error.
func (r *Receiver) Run(ctx context.Context) error {
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
	for p := range r.parts {
		p.close()
	}
	return err
}

func (r *Receiver) receive(ctx context.Context) error {
	in := &frameReader{stream: r.stream, bytes: &r.bytes}
	var source io.Reader = in
	if r.compress {
		z, err := expand(in)
		if err != nil {
			return err
		}
		defer z.Close()
		source = z
	}
	if r.blocks {
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
func (r *Receiver) put(ctx context.Context, p part) error {
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
func (r *Receiver) weight(p part) int64 { return min(int64(len(p.Records)), r.room) }

// note takes a position that came with the stream.
func (r *Receiver) note(position lsn.LSN, complete bool) {
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
