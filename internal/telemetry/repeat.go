package telemetry

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// Repeats is the brake for errors that come again and again, such as a server
// that is away: the first of a code is logged, further ones are counted, and the
// next one that is logged after the interval tells how many there were. The zero
// value needs Log only. It is safe for concurrent use.
type Repeats struct {
	Log   *slog.Logger
	Every time.Duration // between two lines of the same code; one minute by default

	mu   sync.Mutex
	seen map[string]*repeat
}

type repeat struct {
	at      time.Time
	skipped int
}

// maxCodes bounds the memory. Codes come from a catalogue, so it is never
// reached by them; it is there for callers that make up keys.
const maxCodes = 1000

// Warn logs err at level Warn under key, or counts it. Keys are usually the
// problem's code with what it is about.
func (r *Repeats) Warn(ctx context.Context, key, message string, err error, attrs ...slog.Attr) {
	count, due := r.due(key, time.Now())
	if !due {
		return
	}
	attrs = append(attrs, Failure(err))
	if count > 0 {
		attrs = append(attrs, slog.Int(Repeated, count))
	}
	r.Log.LogAttrs(ctx, slog.LevelWarn, message, attrs...)
}

// Forget makes the next error of a key be logged at once: what was wrong is over.
func (r *Repeats) Forget(key string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.seen, key)
}

func (r *Repeats) due(key string, now time.Time) (skipped int, due bool) {
	every := r.Every
	if every == 0 {
		every = time.Minute
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.seen == nil || len(r.seen) > maxCodes {
		r.seen = map[string]*repeat{}
	}
	last := r.seen[key]
	if last == nil {
		r.seen[key] = &repeat{at: now}
		return 0, true
	}
	if now.Sub(last.at) < every {
		last.skipped++
		return 0, false
	}
	skipped, last.skipped, last.at = last.skipped, 0, now
	return skipped, true
}
