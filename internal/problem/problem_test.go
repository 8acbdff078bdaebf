package problem

import (
	"context"
	"errors"
	"fmt"
	"testing"
)

func TestAsKeepsWhatWasWrappedAround(t *testing.T) {
	inner := New(Resource, "slots_used_up", "no replication slot is free").On("server").WithHint("raise it")
	got := As(fmt.Errorf("link sales: %w", inner))
	if got.Kind != Resource || got.Code != "slots_used_up" || got.Subject != "server" || got.Hint != "raise it" {
		t.Fatalf("lost its class: %+v", got)
	}
	if got.Error() != "link sales: no replication slot is free" {
		t.Fatalf("text is %q", got.Error())
	}
	if As(inner) != inner {
		t.Fatal("an unwrapped problem was copied")
	}
}

func TestAsOfOthers(t *testing.T) {
	for err, kind := range map[error]Kind{
		context.Canceled:         Cancelled,
		context.DeadlineExceeded: Transient,
		errors.New("x"):          Internal,
	} {
		if got := KindOf(err); got != kind {
			t.Errorf("%v is %s, want %s", err, got, kind)
		}
	}
	if As(nil) != nil || KindOf(nil) != "" || CodeOf(nil) != "" {
		t.Error("nil is not nil")
	}
}

func TestErrorIsOneLine(t *testing.T) {
	err := Wrap(errors.New("a\n  b"), Invalid, "x", "dsn")
	if err.Error() != "dsn: a b" {
		t.Errorf("got %q", err.Error())
	}
}
