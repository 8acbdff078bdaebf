package peer

import (
	"context"
	"sync"
	"time"
)

// The places for large requests, each of MaxBody: they bound the memory of all of them. One peer has at most
// largeOfPeer, and a second one only where it leaves one free. So several peers together can take all of them; but
// who has none waits for no more than largePatience for those who send slowly: the one that has had its place for longest
// loses it.
const (
	largeBodies   = 4
	largeOfPeer   = 2
	largePatience = 10 * time.Second
)

// places are those of an agent.
type places struct {
	patience time.Duration

	mu      sync.Mutex
	held    []*place
	waiting []*place // those who came first come first
}

// place is one that a request has or waits for.
type place struct {
	peer    string
	evict   func() // takes it away; nil once all of the request is here
	since   time.Time
	granted chan struct{}
}

// take waits for a place for a request of a peer. evict is called where somebody else needs it more.
func (p *places) take(ctx context.Context, peer string, evict func()) (*place, error) {
	w := &place{peer: peer, evict: evict, granted: make(chan struct{})}
	p.mu.Lock()
	p.waiting = append(p.waiting, w)
	p.grant()
	p.mu.Unlock()
	for {
		select {
		case <-w.granted:
			return w, nil
		case <-ctx.Done():
			p.release(w)
			return nil, context.Cause(ctx)
		case <-time.After(p.patience):
			p.makeRoom(w)
		}
	}
}

// received notes that all of a request is here: it is not slow any more. A small one has no place.
func (p *places) received(w *place) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w != nil {
		w.evict = nil
	}
}

// release gives a place back, or waits no longer for it.
func (p *places) release(w *place) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.held, p.waiting = without(p.held, w), without(p.waiting, w)
	p.grant()
}

// of counts the places that a peer has.
func (p *places) of(peer string) (n int) {
	for _, h := range p.held {
		if h.peer == peer {
			n++
		}
	}
	return n
}

// grant gives places to those who wait, in turn. The caller holds the lock.
func (p *places) grant() {
	for i := 0; i < len(p.waiting); {
		w := p.waiting[i]
		had, free := p.of(w.peer), largeBodies-len(p.held)
		if free == 0 {
			return
		}
		if had >= largeOfPeer || had > 0 && free < 2 {
			i++
			continue
		}
		w.since = time.Now()
		p.held, p.waiting = append(p.held, w), without(p.waiting, w)
		close(w.granted)
	}
}

// makeRoom takes the place of who has been sending for longest, for a request of a peer that has none.
func (p *places) makeRoom(w *place) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.of(w.peer) > 0 || len(p.held) < largeBodies {
		return
	}
	for _, h := range p.held {
		if h.evict != nil && time.Since(h.since) >= p.patience {
			h.evict()
			h.evict = nil
			return
		}
	}
}

// without is a list without one of its places.
func without(list []*place, w *place) []*place {
	for i, x := range list {
		if x == w {
			return append(list[:i:i], list[i+1:]...)
		}
	}
	return list
}
