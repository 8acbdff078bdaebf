package seed

import (
	"context"
	"sync"
	"time"
)

const (
	// paceBurst is for how long a rate may have been saved up.
	paceBurst = 100 * time.Millisecond
	// paceLook is how soon another rate takes effect on those who wait.
	paceLook = 200 * time.Millisecond
)

// pace spreads what several goroutines move over time. Its rate may change meanwhile.
type pace struct {
	rate func() int64 // bytes a second, 0 for no limit

	mu     sync.Mutex
	credit float64 // bytes; below zero what was moved has still to be waited for
	at     time.Time
}

// wait returns when n more bytes may be moved, or ctx ends.
func (p *pace) wait(ctx context.Context, n int) error {
	for {
		pause := p.take(time.Now(), n)
		if pause <= 0 {
			return ctx.Err()
		}
		timer := time.NewTimer(min(pause, paceLook))
		select {
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		case <-timer.C:
		}
	}
}

// take moves n bytes if the rate allows any now; otherwise it says when to ask again.
func (p *pace) take(now time.Time, n int) time.Duration {
	rate := float64(p.rate())
	p.mu.Lock()
	defer p.mu.Unlock()
	if rate <= 0 {
		p.credit = 0
		return 0
	}
	p.credit = min(p.credit+now.Sub(p.at).Seconds()*rate, paceBurst.Seconds()*rate)
	p.at = now
	if p.credit < 0 {
		return time.Duration(-p.credit/rate*float64(time.Second)) + time.Nanosecond
	}
	p.credit -= float64(n)
	return 0
}
