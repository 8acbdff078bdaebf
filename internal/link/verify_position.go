package link

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/flow"
	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/peer"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/verify"
	"github.com/twinspan/twinspan/internal/wire"
)

// twinLockTimeout is the longest that a verification's statement on the secondary
// waits for a lock.
const twinLockTimeout = 5 * time.Second

// streamPatience is how long a verification waits for the link's stream.
const streamPatience = 30 * time.Second

// meeting is a position at which both sides are known: the primary's by a
// snapshot that its agent holds while the stream lives.
type meeting struct {
	position lsn.LSN
	pause    time.Duration // for which the secondary applied nothing
	primary  *remoteSide
	stream   *peer.Stream
}

// meet has f called while the secondary stands exactly where the primary's
// snapshot is: everything that committed before its position is applied, nothing
// else. The snapshot is given up by closing the stream.
func (l *Link) meet(ctx context.Context, request SnapshotRequest, f func(ctx context.Context, m *meeting) error) (*meeting, error) {
	if err := l.awaitStream(ctx); err != nil {
		return nil, err
	}
	s, err := l.place.Peers.Open(ctx, l.Peer(), MethodVerifySnapshot, request)
	if err != nil {
		return nil, err
	}
	m := &meeting{stream: s}
	for {
		if _, err = readSnapshotAnswer(s); err == nil { // it is ready
			err = l.tryMeet(ctx, m, request, f)
		}
		if err == nil {
			return m, nil
		}
		if err != errMeetAgain {
			s.Close()
			return nil, err
		}
	}
}

// awaitStream waits for a stream that is about to come back: an agent that was
// started anew finds its link in step before it is.
func (l *Link) awaitStream(ctx context.Context) error {
	end := time.Now().Add(streamPatience)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		l.mu.Lock()
		there := l.secondary.applier != nil
		l.mu.Unlock()
		if there {
			return nil
		}
		if time.Now().After(end) {
			return interrupted()
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// errMeetAgain says that the primary took too long.
var errMeetAgain = problem.New(problem.Transient, "snapshot_slow", "the primary's snapshot took too long")

// errMissed says that the position was behind what was handed over when it was known: it
// was not waited for long enough.
var errMissed = problem.New(problem.Transient, "position_missed", "the position was passed before it was known")

func (l *Link) tryMeet(ctx context.Context, m *meeting, request SnapshotRequest, f func(ctx context.Context, m *meeting) error) error {
	// The applier keeps one appointment at a time.
	select {
	case l.meeting <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-l.meeting }()
	l.mu.Lock()
	applier, in := l.secondary.applier, l.secondary.receiver
	l.mu.Unlock()
	if applier == nil {
		return interrupted()
	}
	began := time.Now()
	hold := in.Hold
	if request.Linger > 0 {
		hold = func() func() { return in.Linger(request.Linger) }
	}
	goOn := hold()
	defer goOn()
	// A primary that does not answer must not keep the applier from working.
	guard := time.AfterFunc(2*holdLimit, func() { m.stream.Close() })
	defer guard.Stop()
	if err := m.stream.WriteFrame(wire.FrameData, []byte{1}); err != nil {
		return err
	}
	answer, err := readSnapshotAnswer(m.stream)
	if err != nil {
		return err
	}
	if answer.State != snapshotBegun {
		return errMeetAgain
	}
	if !guard.Stop() {
		return interrupted()
	}
	m.position = answer.Begun.LSN
	m.primary = &remoteSide{link: l, held: SessionReference{Reference: request.Reference, Token: answer.Begun.Token}}
	visit := &visit{done: make(chan struct{})}
	var inside time.Duration
	met := in.Before(m.position, func() {
		applier.At(m.position, func(applying context.Context) {
			start := time.Now()
			visit.run(ctx, applying, func(ctx context.Context) error {
				defer func() { inside = time.Since(start) }()
				return f(ctx, m)
			})
		})
	})
	if !met {
		return errMissed
	}
	held := time.Since(began)
	if request.Linger > 0 {
		held = min(held, request.Linger)
	}
	goOn()
	// What was done counts, also when f itself has ended the stream.
	came, err := visit.await(ctx, in)
	if came {
		m.pause = held + inside
	}
	return err
}

func interrupted() error {
	return problem.New(problem.Transient, "link_interrupted", "the stream of the link is interrupted").
		WithHint("verify again when the link replicates: twinspan link show says why it does not")
}

// visit is a call of the applier that may come too late.
type visit struct {
	mu    sync.Mutex
	ended bool // nobody waits for it any more
	came  bool
	err   error
	done  chan struct{} // closed after the call
}

// run calls f unless it is too late. f's context ends with either of the two.
func (v *visit) run(ctx, applying context.Context, f func(context.Context) error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.ended {
		return
	}
	defer close(v.done)
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	defer context.AfterFunc(applying, func() { stop(context.Cause(applying)) })()
	v.came, v.err = true, f(ctx)
}

// await waits for the call, until the stream or ctx ends, and makes sure that none comes after it. It
// returns whether one came, and how it ended, or why none did.
func (v *visit) await(ctx context.Context, in *flow.Receiver) (came bool, err error) {
	missed := interrupted()
	select {
	case <-v.done:
	case <-in.Ended():
	case <-ctx.Done():
		missed = context.Cause(ctx)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.ended = true
	if !v.came {
		return false, missed
	}
	return true, v.err
}

func readSnapshotAnswer(s *peer.Stream) (answer SnapshotAnswer, err error) {
	kind, payload, err := s.ReadFrame()
	if err != nil {
		return answer, err
	}
	if kind != wire.FrameResult {
		return answer, problem.New(problem.Internal, "stream_corrupt", "the primary answers a verification with a frame of kind %#x", kind)
	}
	if err := wire.Decode(payload, &answer, wire.Room(len(payload))); err != nil {
		return answer, problem.Wrap(err, problem.Internal, "stream_corrupt", "read the primary's snapshot")
	}
	return answer, nil
}

// sides is a meeting of which both sides can be read for as long as needed.
type sides struct {
	*meeting
	secondary *verify.Snapshot
	holder    *pgx.Conn // exports the secondary's snapshot
}

// openSides makes both sides readable at one position.
func (l *Link) openSides(ctx context.Context, request SnapshotRequest, read func(bytes int64)) (*sides, error) {
	// Before the applier is held: connecting takes longer than anything else there.
	holder, err := l.dsn.Connect(ctx, pg.Session{Name: l.Name() + "/verify"})
	if err != nil {
		return nil, err
	}
	// So does a session's first run of the query: it is planned, and the catalogs are read for it.
	if _, err := exported(ctx, holder); err != nil {
		holder.Close(context.WithoutCancel(ctx))
		return nil, err
	}
	// The transaction sees nothing before its first query.
	if _, err := holder.Exec(ctx, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"); err != nil {
		holder.Close(context.WithoutCancel(ctx))
		return nil, pg.Classify(err, "take the secondary's snapshot")
	}
	x := &sides{holder: holder}
	x.meeting, err = l.meet(ctx, request, func(ctx context.Context, m *meeting) error {
		id, err := exported(ctx, holder)
		if err != nil {
			return err
		}
		x.secondary = &verify.Snapshot{DSN: l.dsn, Link: l.Name(), ID: id, Workers: request.Workers, Rate: request.Rate, Piece: request.Piece, LockTimeout: twinLockTimeout, Read: read}
		return nil
	})
	if err != nil {
		holder.Close(context.WithoutCancel(ctx))
		return nil, err
	}
	level := slog.LevelInfo
	if request.Linger > 0 { // the audit's, again and again
		level = slog.LevelDebug
	}
	l.log.Log(ctx, level, "verification at a position", "lsn", x.position, "dur", x.pause)
	return x, nil
}

// exported exports a session's snapshot.
func exported(ctx context.Context, conn *pgx.Conn) (id string, err error) {
	err = conn.QueryRow(ctx, "SELECT pg_export_snapshot()").Scan(&id)
	return id, pg.Classify(err, "take the secondary's snapshot")
}

// close gives both snapshots up.
func (x *sides) close(ctx context.Context) {
	x.secondary.Close(ctx)
	x.stream.Close()
	x.holder.Close(ctx)
}
