package seed

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"
)

// move takes portions as fast as the pace allows, by a clock of its own, until a
// time has passed, and returns how many bytes that were, 2 GB at most.
func move(p *pace, now *time.Time, portion int, span time.Duration) (bytes int) {
	for end := now.Add(span); now.Before(end) && bytes < 1<<31; {
		if wait := p.take(*now, portion); wait > 0 {
			*now = now.Add(wait)
			continue
		}
		bytes += portion
	}
	return bytes
}

func TestPaceKeepsToARateThatChanges(t *testing.T) {
	var rate atomic.Int64
	p := &pace{rate: rate.Load}
	now := time.Unix(1000, 0)
	for _, want := range []int64{1 << 20, 8 << 20, 64 << 10} {
		rate.Store(want)
		got := move(p, &now, 64<<10, 20*time.Second)
		// A tenth of a second may have been saved, and one portion goes ahead.
		if exact := 20 * want; int64(got) < exact-exact/20-128<<10 || int64(got) > exact+want/5+128<<10 {
			t.Errorf("at %d bytes a second %d bytes went in 20 s", want, got)
		}
	}
	rate.Store(0)
	for range 1000 {
		if wait := p.take(now, 1<<20); wait != 0 {
			t.Fatalf("without a limit there is a wait of %s", wait)
		}
	}
}

func TestPaceDoesNotSaveUpWhatWasNotUsed(t *testing.T) {
	p := &pace{rate: func() int64 { return 1 << 20 }}
	now := time.Unix(1000, 0)
	move(p, &now, 1<<10, time.Second)
	now = now.Add(time.Hour)
	if got := move(p, &now, 1<<10, time.Second); got > 1<<20+1<<18 {
		t.Errorf("after an idle hour %d bytes went in a second", got)
	}
}

func TestPaceEndsWithItsContext(t *testing.T) {
	p := &pace{rate: func() int64 { return 1 }, at: time.Now()}
	if err := p.wait(context.Background(), 1<<20); err != nil {
		t.Fatal(err)
	}
	why := errors.New("enough")
	ctx, stop := context.WithCancelCause(context.Background())
	stop(why)
	if err := p.wait(ctx, 1); !errors.Is(err, why) {
		t.Errorf("got %v", err)
	}
}
