package flow

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/twinspan/twinspan/internal/apply"
)

func TestNothingIsHandedOverWhileItIsHeld(t *testing.T) {
	r := NewReceiver(nil, false, false, nil, 64)
	r.parts <- part{Item: apply.Item{Reached: 1}}
	release := r.Hold()
	ctx, stop := context.WithTimeout(t.Context(), time.Millisecond)
	defer stop()
	if _, err := r.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("held, and got %v", err)
	}
	if r.Ready() {
		t.Error("held, and ready")
	}
	release()
	release()
	if !r.Ready() {
		t.Error("what was taken while it was held is not ready")
	}
	item, err := r.Next(t.Context())
	if err != nil || item.Reached != 1 {
		t.Errorf("after the release: %+v, %v", item, err)
	}
	// A release of an earlier hold does not open a later one.
	later := r.Hold()
	release()
	if r.open(time.Now()) {
		t.Error("opened by another's release")
	}
	later()
}

// What comes while the way is slow passes later, and not at all later once it is not.
func TestWhatLingersPassesLater(t *testing.T) {
	r := NewReceiver(nil, false, false, nil, 64)
	release := r.Linger(time.Hour)
	r.parts <- part{Item: apply.Item{Reached: 1}, came: time.Now(), upto: 20}
	ctx, stop := context.WithTimeout(t.Context(), time.Millisecond)
	defer stop()
	if _, err := r.Next(ctx); !errors.Is(err, context.DeadlineExceeded) || r.Ready() {
		t.Fatalf("it lingers, and got %v, ready %t", err, r.Ready())
	}
	called := 0
	if !r.Before(10, func() { called++ }) {
		t.Error("nothing has passed the position, and it is said to be too late")
	}
	release()
	if _, err := r.Next(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r.Before(10, func() { called++ }) || !r.Before(20, func() { called++ }) || called != 2 {
		t.Errorf("what has passed is forgotten, or was called %d times", called)
	}
	// What came long ago does not wait.
	defer r.Linger(time.Millisecond)()
	r.parts <- part{Item: apply.Item{Reached: 2}, came: time.Now().Add(-time.Second)}
	if _, err := r.Next(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// A receiver to which nothing comes lets the applier look around when it is asked to, and
// hands over what came as before.
func TestNudgeWakesAnIdleApplier(t *testing.T) {
	r := NewReceiver(nil, false, false, nil, 64)
	r.Nudge()
	r.Nudge()
	if item, err := r.Next(t.Context()); err != nil || item.Reached != 0 || len(item.Records) != 0 {
		t.Errorf("nudged: %+v, %v", item, err)
	}
	ctx, stop := context.WithTimeout(t.Context(), time.Millisecond)
	defer stop()
	if _, err := r.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("nudged once more than asked: %v", err)
	}
	r.parts <- part{Item: apply.Item{Reached: 7}}
	if item, err := r.Next(t.Context()); err != nil || item.Reached != 7 {
		t.Errorf("afterwards: %+v, %v", item, err)
	}
}
