package peer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"
)

// Peers that together have all places and send slowly keep another one waiting for no longer than the patience; who has
// sent all is left alone, and so is who does not keep anybody waiting that has none.
func TestSlowRequestsMakeRoom(t *testing.T) {
	p := &places{patience: 20 * time.Millisecond}
	evicted := make(chan string, 10)
	take := func(ctx context.Context, peer, name string) (*place, error) {
		var w *place
		w, err := p.take(ctx, peer, func() { evicted <- name })
		return w, err
	}
	held := map[string]*place{}
	for _, who := range []string{"b", "b", "c", "d"} {
		name := fmt.Sprint(who, len(held))
		w, err := take(t.Context(), who, name)
		if err != nil {
			t.Fatal(err)
		}
		held[name] = w
	}
	p.received(held["b0"])
	// One more of a peer that has some waits, and nobody gives way to it.
	waiting, stop := context.WithTimeout(t.Context(), 5*p.patience)
	defer stop()
	if _, err := take(waiting, "c", "more"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a second place: %v", err)
	}
	if len(evicted) > 0 {
		t.Errorf("%s gave way", <-evicted)
	}
	done := make(chan error, 1)
	go func() { _, err := take(t.Context(), "e", "e"); done <- err }()
	if name := <-evicted; name != "b1" {
		t.Errorf("%s gave way", name)
	}
	p.release(held["b1"])
	if err := <-done; err != nil {
		t.Error(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var have []string
	for _, h := range p.held {
		have = append(have, h.peer)
	}
	if slices.Sort(have); !slices.Equal(have, []string{"b", "c", "d", "e"}) || len(p.waiting) > 0 {
		t.Errorf("places have %v, and %d wait", have, len(p.waiting))
	}
}
