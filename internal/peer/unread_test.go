package peer

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// mostHeap runs f and returns by how much the memory in use grew at most, of both agents of the test.
func mostHeap(f func()) int64 {
	var before, now runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var most int64
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	for {
		runtime.ReadMemStats(&now)
		most = max(most, int64(now.HeapInuse)-int64(before.HeapInuse))
		select {
		case <-done:
			return most
		default:
			runtime.Gosched()
		}
	}
}

// A peer sends as much as it can on streams that are not read: those of a handler that is busy, and those that were
// refused, which the peer does not close. The connection is ended before they take what an agent may take.
func TestPeerWhoseBytesNobodyReadsIsCutOff(t *testing.T) {
	nothing := make([]byte, MaxFrame)
	for name, flood := range map[string]func(s *session) error{
		"busy handlers": func(s *session) error {
			st, err := s.begin(context.Background(), "hold", modeStream, []byte("{}"))
			for err == nil {
				err = st.WriteFrame(FirstFreeKind, nothing)
			}
			return err
		},
		"refused streams": func(s *session) error {
			mux, err := s.mux.OpenStream()
			if err != nil {
				return err
			}
			begin := appendFrame(appendFrame(nil, frameOpen, append([]byte{modeCall}, "no such thing"...)), frameLast, []byte("{}"))
			if _, err = mux.Write(begin); err == nil {
				_, err = mux.Write(nothing[:255<<10-len(begin)])
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := pair(t, func(a, b *agent) {
				a.HandleStream("hold", func(ctx context.Context, _ Peer, _ json.RawMessage, s *Stream) error {
					<-s.Context().Done()
					return nil
				})
			})
			s, err := b.sessionOf("a")
			check(t, err)
			most := mostHeap(func() {
				var all sync.WaitGroup
				for range 300 {
					all.Go(func() {
						for flood(s) == nil && s.ctx.Err() == nil {
						}
					})
				}
				await(t, "the flood to be cut off", func() bool { return s.ctx.Err() != nil })
				s.mux.Close()
				all.Wait()
			})
			if most > 800<<20 { // much of it garbage, and more with the race detector
				t.Errorf("%d MB were taken", most>>20)
			}
			await(t, "the reason to be said", func() bool { return strings.Contains(a.logs.String(), "that nobody reads") })
			together(t, a, b)
		})
	}
}

// Requests that are longer than a small frame share the memory for large ones; others do not wait for them, and one
// peer cannot take all of it.
func TestLongRequestsShareMemory(t *testing.T) {
	var served atomic.Int64
	finish := make(chan struct{})
	a, b := pair(t, func(a, b *agent) {
		a.Handle("hold", func(context.Context, Peer, json.RawMessage) (any, error) { served.Add(1); <-finish; return nil, nil })
		a.Handle("echo", echo)
	})
	peers := []*agent{b}
	for _, name := range []string{"c", "d"} {
		more := newAgent(t, name)
		a.know(t, more, "")
		more.know(t, a, a.Addr().String())
		more.start(t)
		together(t, a, more)
		peers = append(peers, more)
	}
	var all sync.WaitGroup
	const each = 5
	fitting := []int64{2, 3, 4} // who has one gets no more where that is the last
	for i, p := range peers {
		for range each {
			all.Go(func() { _ = p.Call(background(t), "a", "hold", strings.Repeat("x", smallFrame), nil) })
		}
		want := fitting[i]
		await(t, "as many to be served as fit", func() bool { return served.Load() == want })
		check(t, p.Call(background(t), "a", "echo", question{strings.Repeat("x", smallFrame/2)}, nil))
		if n := served.Load(); n != want {
			t.Errorf("%d of %d peers are served at once, not %d", n, i+1, want)
		}
	}
	close(finish)
	all.Wait()
	if n := served.Load(); n != each*int64(len(peers)) {
		t.Errorf("%d were served", n)
	}
	await(t, "the places to be given back", func() bool {
		a.bodies.mu.Lock()
		defer a.bodies.mu.Unlock()
		return len(a.bodies.held)+len(a.bodies.waiting) == 0
	})
}

// However the bytes of frames are cut, what is unread is counted, and nothing is left of streams that are over.
func TestUnreadIsCounted(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	u := &unread{dialled: true, streams: map[uint32]*unreadStream{}}
	var wire []byte
	frame := func(kind byte, flags uint16, id uint32, body int) {
		h := append(make([]byte, 0, muxHeader), 0, kind)
		h = binary.BigEndian.AppendUint16(h, flags)
		h = binary.BigEndian.AppendUint32(h, id)
		wire = append(binary.BigEndian.AppendUint32(append(wire, h...), uint32(body)), make([]byte, max(0, body*int(1-kind)))...)
	}
	u.opened(3)
	frame(muxWindow, muxSYN, 2, 1)
	frame(muxData, 0, 2, 100)
	frame(muxData, muxSYN, 4, 7)
	frame(muxData, 0, 3, 50) // on a stream of this side
	frame(muxData, muxFIN, 4, 0)
	for len(wire) > 0 {
		n := min(len(wire), 1+random.IntN(9))
		check(t, u.arrived(wire[:n]))
		wire = wire[n:]
	}
	if u.total != 107 || u.theirs != 2 {
		t.Fatalf("%d bytes of %d streams", u.total, u.theirs)
	}
	u.closed(3) // by this side: what comes is nobody's
	u.read(2, 60)
	if u.total != 97 {
		t.Errorf("%d bytes", u.total)
	}
	u.closed(4)
	frame(muxWindow, muxRST, 2, 0)
	frame(muxData, muxFIN, 3, 5)
	check(t, u.arrived(wire))
	if u.total != 0 || u.theirs != 0 || len(u.streams) != 0 {
		t.Errorf("left are %d bytes of %d streams: %v", u.total, u.theirs, u.streams)
	}
	for i := range uint32(mostOpen + 1) {
		wire = nil
		frame(muxWindow, muxSYN, 10+2*i, 0)
		if err := u.arrived(wire); (err != nil) != (i == mostOpen) {
			t.Fatalf("stream %d: %v", i, err)
		}
	}
}
