package link

import (
	"context"
	"sync"
)

// holdable is a way that can be shut for a while. The zero value is open.
type holdable struct {
	mu   sync.Mutex
	shut chan struct{} // closed when it is opened again; nil while it is open
}

// hold shuts the way. When it returns, whatever passes later waits for the
// returned function, which may be called more than once. Only one may hold it.
func (h *holdable) hold() (release func()) {
	shut := make(chan struct{})
	h.mu.Lock()
	h.shut = shut
	h.mu.Unlock()
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.shut == shut {
			h.shut = nil
			close(shut)
		}
	}
}

// open says whether pass would not wait.
func (h *holdable) open() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.shut == nil
}

// pass waits until the way is open, or returns the reason of ctx.
func (h *holdable) pass(ctx context.Context) error {
	for {
		h.mu.Lock()
		shut := h.shut
		h.mu.Unlock()
		if shut == nil {
			return nil
		}
		select {
		case <-shut:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
