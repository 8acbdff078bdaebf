package peer

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twinspan/twinspan/internal/problem"
)

// sink reads a stream to its end and answers with the number of bytes.
func sink(_ context.Context, _ Peer, _ json.RawMessage, s *Stream) error {
	total := 0
	for {
		_, payload, err := s.ReadFrame()
		if err == io.EOF {
			return s.WriteFrame(0x10, strconv.AppendInt(nil, int64(total), 10))
		}
		if err != nil {
			return err
		}
		total += len(payload)
	}
}

func TestStalledStreamDoesNotStallOthers(t *testing.T) {
	release := make(chan struct{})
	a, _ := pair(t, func(_, b *agent) {
		b.Handle("echo", echo)
		b.HandleStream("sink", sink)
		b.HandleStream("stall", func(ctx context.Context, from Peer, body json.RawMessage, s *Stream) error {
			select {
			case <-release:
			case <-ctx.Done():
			}
			return sink(ctx, from, body, s)
		})
	})
	stalled, err := a.Open(background(t), "b", "stall", nil)
	check(t, err)
	defer stalled.Close()
	frame := make([]byte, MaxFrame)
	wrote := make(chan error, 1)
	go func() {
		var err error
		for range 2*maxWindow/MaxFrame + 2 { // cannot all be under way
			if err == nil {
				err = stalled.WriteFrame(0x10, frame)
			}
		}
		if err == nil {
			err = stalled.CloseWrite()
		}
		wrote <- err
	}()
	other, err := a.Open(background(t), "b", "sink", nil)
	check(t, err)
	defer other.Close()
	for range 64 {
		check(t, other.WriteFrame(0x10, frame))
		check(t, a.Call(background(t), "b", "echo", question{"x"}, nil))
	}
	check(t, other.CloseWrite())
	_, payload, err := other.ReadFrame()
	check(t, err)
	if string(payload) != strconv.Itoa(64*MaxFrame) {
		t.Errorf("%s bytes arrived", payload)
	}
	select {
	case err := <-wrote:
		t.Fatalf("the stalled stream took everything: %v", err)
	default:
	}
	close(release)
	check(t, receive(t, wrote))
	_, payload, err = stalled.ReadFrame()
	check(t, err)
	if string(payload) != strconv.Itoa((2*maxWindow/MaxFrame+2)*MaxFrame) {
		t.Errorf("%s bytes arrived on the stalled stream", payload)
	}
}

func TestCallerGivesUp(t *testing.T) {
	type end struct {
		cause error
		io    error
	}
	for _, act := range []string{"read", "write", "nothing"} {
		for _, how := range []string{"cancel", "close"} {
			t.Run(act+" "+how, func(t *testing.T) {
				entered, ended := make(chan struct{}), make(chan end, 1)
				a, b := pair(t, func(_, b *agent) {
					b.HandleStream("work", func(ctx context.Context, _ Peer, _ json.RawMessage, s *Stream) error {
						close(entered)
						var err error
						switch act {
						case "read":
							_, _, err = s.ReadFrame()
						case "write": // until the window is full, and longer
							for err == nil {
								err = s.WriteFrame(0x10, make([]byte, MaxFrame))
							}
						}
						<-ctx.Done()
						ended <- end{context.Cause(ctx), err}
						return err
					})
				})
				ctx, cancel := context.WithCancel(background(t))
				defer cancel()
				s, err := a.Open(ctx, "b", "work", nil)
				check(t, err)
				<-entered
				if how == "cancel" {
					cancel()
					<-s.Context().Done()
					if _, _, err := s.ReadFrame(); act != "write" && problem.KindOf(err) != problem.Cancelled {
						t.Errorf("the caller reads %v", err)
					}
				}
				check(t, s.Close())
				got := receive(t, ended)
				if problem.KindOf(got.cause) != problem.Cancelled {
					t.Errorf("the handler's context ended with %v", got.cause)
				}
				if act != "nothing" && problem.KindOf(got.io) != problem.Cancelled {
					t.Errorf("the handler was told %v", got.io)
				}
				noStreams(t, a, "b")
				noStreams(t, b, "a")
			})
		}
	}
}

// noStreams waits until nothing is left of the streams with a peer.
func noStreams(t *testing.T, a *agent, peer string) {
	t.Helper()
	await(t, "the streams to be gone", func() bool {
		s, err := a.sessionOf(peer)
		check(t, err)
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.streams) == 0 && len(s.early) == 0 && s.mux.NumStreams() == 1
	})
}

func TestCallIsCancelled(t *testing.T) {
	entered, ended := make(chan struct{}, 1), make(chan struct{}, 1)
	a, _ := pair(t, func(_, b *agent) {
		b.Handle("wait", func(ctx context.Context, _ Peer, _ json.RawMessage) (any, error) {
			entered <- struct{}{}
			<-ctx.Done()
			ended <- struct{}{}
			return nil, nil
		})
	})
	ctx, cancel := context.WithCancel(background(t))
	go func() { <-entered; cancel() }()
	if err := a.Call(ctx, "b", "wait", nil, nil); problem.KindOf(err) != problem.Cancelled {
		t.Errorf("got %v", err)
	}
	receive(t, ended)
	ctx, cancel = context.WithTimeout(background(t), 20*time.Millisecond)
	defer cancel()
	if err := a.Call(ctx, "b", "wait", nil, nil); problem.CodeOf(err) != "timeout" {
		t.Errorf("got %v", err)
	}
	noStreams(t, a, "b")
}

func TestManyStreamsGivenUpAtOnce(t *testing.T) {
	// Resets overtake streams, and nothing may be left of either.
	a, b := pair(t, func(_, b *agent) {
		b.HandleStream("wait", func(ctx context.Context, _ Peer, _ json.RawMessage, _ *Stream) error {
			<-ctx.Done()
			return nil
		})
	})
	for range 20 {
		for range 50 {
			s, err := a.Open(background(t), "b", "wait", nil)
			check(t, err)
			go s.Close()
		}
		noStreams(t, a, "b")
		noStreams(t, b, "a")
	}
}

func TestHandlerThatReturnsEndsTheWriter(t *testing.T) {
	a, b := pair(t, func(_, b *agent) {
		b.HandleStream("enough", func(_ context.Context, _ Peer, _ json.RawMessage, s *Stream) error {
			return s.WriteFrame(0x10, []byte("enough"))
		})
		b.HandleStream("fail", func(_ context.Context, _ Peer, _ json.RawMessage, s *Stream) error {
			return problem.New(problem.Diverged, "row_missing", "no such row")
		})
	})
	for method, code := range map[string]string{"enough": "stream_ended", "fail": "row_missing"} {
		s, err := a.Open(background(t), "b", method, nil)
		check(t, err)
		for err == nil {
			err = s.WriteFrame(0x10, make([]byte, MaxFrame))
		}
		if problem.CodeOf(err) != code {
			t.Errorf("%s: writing gave %v", method, err)
		}
		if method == "enough" {
			if _, payload, err := s.ReadFrame(); err != nil || string(payload) != "enough" {
				t.Errorf("got %q %v", payload, err)
			}
			if _, _, err := s.ReadFrame(); err != io.EOF {
				t.Errorf("got %v", err)
			}
		} else if _, _, err := s.ReadFrame(); problem.CodeOf(err) != code {
			t.Errorf("got %v", err)
		}
		check(t, s.Close())
	}
	noStreams(t, a, "b")
	noStreams(t, b, "a")
}

func TestGigabyteThroughAStreamInLittleMemory(t *testing.T) {
	const total = 1 << 30
	a, _ := pair(t, func(_, b *agent) { b.HandleStream("sink", sink) })
	s, err := a.Open(background(t), "b", "sink", nil)
	check(t, err)
	defer s.Close()
	frame := make([]byte, MaxFrame)
	runtime.GC()
	var before, now runtime.MemStats
	runtime.ReadMemStats(&before)
	var peak uint64
	for i := range total / MaxFrame {
		check(t, s.WriteFrame(0x10, frame))
		if i%64 == 0 {
			runtime.ReadMemStats(&now)
			peak = max(peak, now.HeapAlloc)
		}
	}
	check(t, s.CloseWrite())
	_, payload, err := s.ReadFrame()
	check(t, err)
	if string(payload) != strconv.Itoa(total) {
		t.Errorf("%s bytes arrived", payload)
	}
	if peak > before.HeapAlloc+64<<20 {
		t.Errorf("the heap grew from %d to %d bytes", before.HeapAlloc, peak)
	}
}

func TestWindowGrowsWithDistance(t *testing.T) {
	for d, want := range map[time.Duration]uint32{
		0: minWindow, time.Millisecond: minWindow, 10 * time.Millisecond: 2 << 20, 30 * time.Millisecond: 4 << 20,
		50 * time.Millisecond: 8 << 20, time.Minute: maxWindow,
	} {
		if got := windowFor(d); got != want {
			t.Errorf("%v gives %d, want %d", d, got, want)
		}
	}
}

// meteredPortion is what meteredWay passes at once, at most, in bytes.
const meteredPortion = 16 << 10

// meteredWay passes bytes on from a dialled connection to an address, in small portions
// while open says so, and holds little itself.
func meteredWay(t *testing.T, to string, pass <-chan struct{}) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	var open sync.WaitGroup
	t.Cleanup(open.Wait)
	t.Cleanup(func() { l.Close() })
	open.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			check(t, near.(*net.TCPConn).SetReadBuffer(32<<10))
			far, err := net.Dial("tcp", to)
			if err != nil {
				near.Close()
				continue
			}
			t.Cleanup(func() { near.Close(); far.Close() })
			open.Go(func() { _, _ = io.Copy(near, far) })
			open.Go(func() {
				b := make([]byte, meteredPortion)
				for {
					<-pass // for ever, once it is closed
					n, err := near.Read(b)
					if err != nil {
						return
					}
					if _, err := far.Write(b[:n]); err != nil {
						return
					}
				}
			})
		}
	})
	return l.Addr().String()
}

// What a stream has to say does not wait until everything is through that others wrote
// before it: on a full way they take turns.
func TestSmallStreamPassesFullOnes(t *testing.T) {
	const streams = 6
	var bulk atomic.Int64 // bytes of the others that have arrived
	var arrived atomic.Bool
	a, b := newAgent(t, "a"), newAgent(t, "b")
	a.HandleStream("bulk", func(_ context.Context, _ Peer, _ json.RawMessage, s *Stream) error {
		for {
			_, payload, err := s.ReadFrame()
			if err != nil {
				return err
			}
			bulk.Add(int64(len(payload)))
		}
	})
	a.HandleStream("small", func(_ context.Context, _ Peer, _ json.RawMessage, s *Stream) error {
		_, _, err := s.ReadFrame()
		arrived.Store(err == nil)
		return err
	})
	a.know(t, b, "")
	a.start(t)
	pass := make(chan struct{}, 1<<10)
	release := sync.OnceFunc(func() { close(pass) })
	defer release()       // whoever waits to pass on ends
	for range cap(pass) { // enough to meet and to open streams
		pass <- struct{}{}
	}
	b.tempo.ping = time.Hour
	b.know(t, a, meteredWay(t, a.Addr().String(), pass))
	b.start(t)
	together(t, a, b)
	quiet, err := b.Open(background(t), "a", "small", nil)
	check(t, err)
	defer quiet.Close()
	var written atomic.Int64
	frame := make([]byte, 32<<10)
	for range streams {
		s, err := b.Open(background(t), "a", "bulk", nil)
		check(t, err)
		defer s.Close()
		go func() {
			for s.WriteFrame(FirstFreeKind, frame) == nil {
				written.Add(int64(len(frame)))
			}
		}()
	}
	still := func(n *atomic.Int64) func() bool {
		last, times := int64(-1), 0
		return func() bool {
			before := last
			if last = n.Load(); last != before {
				times = 0
			}
			times++
			return times >= 30 && len(pass) == 0
		}
	}
	await(t, "the way to fill", still(&written))
	go func() { _ = quiet.WriteFrame(FirstFreeKind, []byte("small")) }()
	await(t, "the frame to wait, too", still(&bulk))
	for range 2 << 20 / meteredPortion {
		pass <- struct{}{}
	}
	await(t, "the small frame to be among the next 2 MB", arrived.Load)
	release()
}
