package peer

import (
	"context"
	"time"
)

// Event says that a peer became connected, or is no longer.
type Event struct {
	Peer      string
	Connected bool
	At        time.Time
}

// watcher is one receiver of events, with those that it has not taken yet.
type watcher struct {
	pending []Event
	wake    chan struct{} // holds one
}

// Watch returns a channel of events, beginning with one for each peer that is connected
// now. None is lost and none waits for a slow receiver. The channel is closed when the
// context ends, and then only.
func (e *Endpoint) Watch(ctx context.Context) <-chan Event {
	w := &watcher{wake: make(chan struct{}, 1)}
	out := make(chan Event)
	e.mu.Lock()
	e.prepareLocked()
	for name, c := range e.contacts {
		if c.current != nil {
			w.pending = append(w.pending, Event{Peer: name, Connected: true, At: c.since})
		}
	}
	e.watchers[w] = struct{}{}
	e.mu.Unlock()
	w.wake <- struct{}{}
	go e.deliver(ctx, w, out)
	return out
}

func (e *Endpoint) deliver(ctx context.Context, w *watcher, out chan<- Event) {
	defer close(out)
	defer func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.watchers, w)
	}()
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
		}
		e.mu.Lock()
		events := w.pending
		w.pending = nil
		e.mu.Unlock()
		for _, event := range events {
			select {
			case <-ctx.Done():
				return
			case out <- event:
			}
		}
	}
}

func (e *Endpoint) tellLocked(event Event) {
	for w := range e.watchers {
		w.pending = append(w.pending, event)
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
}
