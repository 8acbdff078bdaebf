package door

import (
	"testing"
	"time"
)

func TestNoHostAsksWithoutEnd(t *testing.T) {
	p := &Pace{PerSecond: 20, AtOnce: 60}
	now := time.Unix(0, 0)
	for i := range p.AtOnce {
		if !p.Allow("192.0.2.1:80", now) {
			t.Fatalf("ask %d is refused", i)
		}
	}
	if p.Allow("192.0.2.1:81", now) {
		t.Error("another port is another host")
	}
	if !p.Allow("[2001:db8::1]:80", now) || !p.Allow("nonsense", now) {
		t.Error("nobody may ask")
	}
	if !p.Allow("192.0.2.1:80", now.Add(time.Second/20)) {
		t.Error("a host that waited may not ask")
	}
}
