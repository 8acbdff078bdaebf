package turns

import (
	"context"
	"errors"
	"testing"
	"time"
)

// take takes a place that must be there at once.
func take(t *testing.T, p *Pool, party string) *Place {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), 30*time.Second)
	defer stop()
	place, err := p.Take(ctx, party)
	if err != nil {
		t.Fatalf("no place for %s: %v", party, err)
	}
	return place
}

// queue waits for a place in the background, and returns once it is in the queue.
func queue(t *testing.T, ctx context.Context, p *Pool, party string) <-chan *Place {
	t.Helper()
	p.mu.Lock()
	before := len(p.waiting)
	p.mu.Unlock()
	out := make(chan *Place, 1)
	go func() {
		defer close(out)
		if place, err := p.Take(ctx, party); err == nil {
			out <- place
		}
	}()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(30 * time.Second); ; <-tick.C {
		p.mu.Lock()
		n := len(p.waiting)
		p.mu.Unlock()
		if n > before {
			return out
		}
		if time.Now().After(end) {
			t.Fatalf("%s does not wait", party)
		}
	}
}

func got(c <-chan *Place) bool {
	select {
	case place := <-c:
		return place != nil
	default:
		return false
	}
}

func TestEveryPartyHasAPlaceOfItsOwn(t *testing.T) {
	p := New(1)
	take(t, p, "large")
	shared := take(t, p, "large")
	own := take(t, p, "small")
	if own.Wanted() || shared.Wanted() {
		t.Error("a place is wanted though nobody waits")
	}
	// The party's own is given back to nobody else.
	waiting := queue(t, t.Context(), p, "large")
	own.End()
	if got(waiting) {
		t.Error("the place of a party's own was given to another")
	}
	shared.End()
	if place := <-waiting; place == nil {
		t.Error("a place that came free was not given to who waited")
	}
}

func TestPlacesGoToWhoHoldsLeast(t *testing.T) {
	p := New(3)
	var large []*Place
	for range 4 {
		large = append(large, take(t, p, "large"))
	}
	more := queue(t, t.Context(), p, "large")
	take(t, p, "small")
	small := queue(t, t.Context(), p, "small")
	if large[0].Wanted() || !large[1].Wanted() {
		t.Errorf("wanted: own %v, shared %v", large[0].Wanted(), large[1].Wanted())
	}
	large[3].End()
	if place := <-small; place == nil || got(more) {
		t.Fatal("the place went to the party that held more")
	}
	// Three and two: another exchange would only turn them round.
	again := queue(t, t.Context(), p, "small")
	if large[1].Wanted() {
		t.Error("a place is wanted by a party that would then hold as much")
	}
	large[2].End()
	if place := <-more; place == nil || got(again) {
		t.Fatal("of two that held as much, not the one that had waited longer got the place")
	}
	large[1].End()
	if place := <-again; place == nil {
		t.Fatal("a free place was given to nobody")
	}
}

func TestWaitingIsGivenUp(t *testing.T) {
	p := New(1)
	take(t, p, "a")
	shared := take(t, p, "a")
	ctx, stop := context.WithCancelCause(t.Context())
	mine := errors.New("mine")
	waiting := queue(t, ctx, p, "a")
	stop(mine)
	if place := <-waiting; place != nil {
		t.Fatal("a place that was not there was given")
	}
	if _, err := p.Take(ctx, "a"); !errors.Is(err, mine) {
		t.Errorf("the error is %v", err)
	}
	shared.End()
	if len(p.waiting) != 0 || p.free != 1 || p.held["a"] != 1 {
		t.Errorf("left: %d waiting, %d free, %v", len(p.waiting), p.free, p.held)
	}
	take(t, p, "a")
}

// Whatever parties do, no more places are held than there are, and all come back.
func TestNothingIsLost(t *testing.T) {
	p := New(3)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	for _, party := range []string{"a", "b", "c", "a", "b", "a", "a", "c"} {
		go func() {
			defer func() { done <- struct{}{} }()
			for ctx.Err() == nil {
				limited, end := context.WithTimeout(ctx, time.Millisecond)
				if place, err := p.Take(limited, party); err == nil {
					p.mu.Lock()
					total := 0
					for _, n := range p.held {
						total += n
					}
					if total > 3+len(p.held) || p.free < 0 {
						t.Errorf("%v held, %d free", p.held, p.free)
					}
					p.mu.Unlock()
					place.Wanted()
					place.End()
				}
				end()
			}
		}()
	}
	time.AfterFunc(200*time.Millisecond, stop)
	for range 8 {
		<-done
	}
	if p.free != 3 || len(p.held) != 0 || len(p.waiting) != 0 {
		t.Errorf("left: %d free, %v held, %d waiting", p.free, p.held, len(p.waiting))
	}
}
