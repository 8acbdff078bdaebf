package link

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/twinspan/twinspan/internal/apply"
)

func TestNothingIsHandedOverWhileItIsHeld(t *testing.T) {
	r := newReceiver(nil, false, false, nil, 64)
	r.parts <- part{Item: apply.Item{Reached: 1}}
	release := r.gate.hold()
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
	later := r.gate.hold()
	release()
	if r.gate.open() {
		t.Error("opened by another's release")
	}
	later()
}
