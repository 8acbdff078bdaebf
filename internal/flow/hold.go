package flow

import (
	"context"
	"sync"
	"time"

	"github.com/twinspan/twinspan/internal/lsn"
)

// holdable is a way that can be shut, or made slow, for a while. The zero value is open.
type holdable struct {
	mu     sync.Mutex
	shut   chan struct{} // closed when it is opened again; nil while it is open
	slow   time.Duration // what comes passes no earlier than this after it came
	eased  chan struct{} // closed when it is slow no more; nil while it is not
	passed lsn.LSN       // everything that has passed lies before
}

// Hold shuts the way. When it returns, whatever passes later waits for the
// returned function, which may be called more than once. Only one may hold it.
func (h *holdable) Hold() (release func()) {
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

// Linger makes the way slow, until the returned function is called: nothing stands
// still, and whoever asks before has as long to hear of a position that was reached
// elsewhere. Only one may do so.
func (h *holdable) Linger(by time.Duration) (release func()) {
	eased := make(chan struct{})
	h.mu.Lock()
	h.slow, h.eased = by, eased
	h.mu.Unlock()
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.eased == eased {
			h.slow, h.eased = 0, nil
			close(eased)
		}
	}
}

// Before calls f while nothing passes, unless something has passed that lies behind the
// position.
func (h *holdable) Before(position lsn.LSN, f func()) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.passed > position {
		return false
	}
	f()
	return true
}

// open says whether pass would not wait with what came at a time.
func (h *holdable) open(came time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.shut == nil && h.waitLocked(came) <= 0
}

func (h *holdable) waitLocked(came time.Time) time.Duration {
	if h.slow == 0 {
		return 0
	}
	return time.Until(came.Add(h.slow))
}

// pass waits until the way is open for what came at a time and reaches up to a
// position, or returns the reason of ctx.
func (h *holdable) pass(ctx context.Context, came time.Time, upto lsn.LSN) error {
	for {
		h.mu.Lock()
		shut, eased, wait := h.shut, h.eased, h.waitLocked(came)
		if shut == nil && wait <= 0 {
			h.passed = max(h.passed, upto)
			h.mu.Unlock()
			return nil
		}
		h.mu.Unlock()
		if err := stand(ctx, shut, eased, wait); err != nil {
			return err
		}
	}
}

// stand waits for a way that is shut, or else for one that is slow.
func stand(ctx context.Context, shut, eased <-chan struct{}, wait time.Duration) error {
	if shut != nil {
		eased, wait = nil, time.Hour
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-shut:
	case <-eased:
	case <-timer.C:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}
