package agent

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/history"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/telemetry"
)

// histories are the rings of the links at work, by id.
type histories struct {
	mu    sync.Mutex
	rings map[string]*history.Ring
}

// keepHistory takes a sample of every link at intervals until ctx ends. A disk that takes
// none keeps nothing from working: the charts have a gap, and the log says so once.
func (a *Agent) keepHistory(ctx context.Context) {
	tick := time.NewTicker(history.Every)
	defer tick.Stop()
	defer a.histories.close()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			err := a.sample(now)
			if err != nil && !failing {
				a.Log.LogAttrs(ctx, slog.LevelWarn, "the history of links is not kept", telemetry.Failure(err))
			}
			failing = err != nil
		}
	}
}

func (a *Agent) sample(now time.Time) (failed error) {
	for _, l := range a.links.all() {
		if err := a.histories.append(a.Dir.History(), l.ID(), history.Of(l.View(), now)); err != nil {
			failed = err
		}
	}
	return failed
}

func (h *histories) append(dir, id string, s api.HistorySample) error {
	r, err := h.ring(dir, id)
	if err != nil {
		return err
	}
	return r.Append(s)
}

// ring is the ring of a link, opened where it is not.
func (h *histories) ring(dir, id string) (*history.Ring, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if r := h.rings[id]; r != nil {
		return r, nil
	}
	r, err := history.Open(dir, id)
	if err != nil {
		return nil, err
	}
	if h.rings == nil {
		h.rings = map[string]*history.Ring{}
	}
	h.rings[id] = r
	return r, nil
}

// forget removes the ring of a link that was removed.
func (h *histories) forget(dir, id string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if r := h.rings[id]; r != nil {
		r.Close()
		delete(h.rings, id)
	}
	return history.Remove(dir, id)
}

func (h *histories) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, r := range h.rings {
		r.Close()
	}
	h.rings = nil
}

// History implements httpapi.Agent.
func (a *Agent) History(_ context.Context, name string, seconds float64) (api.History, error) {
	l, err := a.links.named(name)
	if err != nil {
		return api.History{}, err
	}
	if seconds < 0 {
		return api.History{}, problem.New(problem.Invalid, "request_invalid", "seconds is negative")
	}
	r, err := a.histories.ring(a.Dir.History(), l.ID())
	if err != nil {
		return api.History{}, err
	}
	out := api.History{Link: l.Name(), EverySeconds: history.Every.Seconds()}
	if seconds > 0 {
		out.Samples = r.Since(time.Now().Add(-time.Duration(seconds * float64(time.Second))))
	} else {
		out.Samples = r.Since(time.Time{})
	}
	return out, nil
}
