// Package turns shares a number of places among parties that each could fill them all.
// Every party always has a first place of its own; what it holds beyond comes from the
// places that all share, and goes first to who holds least.
package turns

import (
	"context"
	"slices"
	"sync"
)

// Pool is the places that parties share. Make it with New. Methods may be called by
// several goroutines.
type Pool struct {
	mu      sync.Mutex
	free    int
	held    map[string]int // places of each party, its own first one included
	waiting []*waiter      // in the order in which they came
}

// waiter is somebody who wants a place.
type waiter struct {
	party   string
	granted chan struct{} // closed once the place is its
}

// New returns a pool of the given number of places beyond the first of each party.
func New(places int) *Pool {
	return &Pool{free: max(0, places), held: map[string]int{}}
}

// Place is a place that a party holds until End.
type Place struct {
	pool  *Pool
	party string
	own   bool // the party's own, which nobody else waits for
}

// Take waits for a place for the party. The first is there at once. The error is the
// cause of the end of ctx.
func (p *Pool) Take(ctx context.Context, party string) (*Place, error) {
	p.mu.Lock()
	if p.held[party] == 0 {
		p.held[party]++
		p.mu.Unlock()
		return &Place{p, party, true}, nil
	}
	w := &waiter{party: party, granted: make(chan struct{})}
	p.waiting = append(p.waiting, w)
	p.grantLocked()
	p.mu.Unlock()
	select {
	case <-w.granted:
		return &Place{p, party, false}, nil
	case <-ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if at := slices.Index(p.waiting, w); at >= 0 {
		p.waiting = slices.Delete(p.waiting, at, at+1)
	} else { // it was granted meanwhile
		p.giveBackLocked(party, false)
	}
	return nil, context.Cause(ctx)
}

// Wanted says that the place should be ended soon: another party waits that would, with
// it, still hold less than this one does now. A party's own place is never wanted.
func (l *Place) Wanted() bool {
	if l.own {
		return false
	}
	p := l.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.ContainsFunc(p.waiting, func(w *waiter) bool { return p.held[w.party]+1 < p.held[l.party] })
}

// End gives the place back. It is called once.
func (l *Place) End() {
	l.pool.mu.Lock()
	defer l.pool.mu.Unlock()
	l.pool.giveBackLocked(l.party, l.own)
}

func (p *Pool) giveBackLocked(party string, own bool) {
	if p.held[party]--; p.held[party] == 0 {
		delete(p.held, party)
	}
	if !own {
		p.free++
	}
	p.grantLocked()
}

// grantLocked gives free places to those who wait: to the party that holds least, and
// among equal ones to who has waited longest.
func (p *Pool) grantLocked() {
	for p.free > 0 && len(p.waiting) > 0 {
		best := 0
		for i, w := range p.waiting {
			if p.held[w.party] < p.held[p.waiting[best].party] {
				best = i
			}
		}
		w := p.waiting[best]
		p.waiting = slices.Delete(p.waiting, best, best+1)
		p.free--
		p.held[w.party]++
		close(w.granted)
	}
}
