package cli

import (
	"testing"
	"time"
)

func TestParseMoment(t *testing.T) {
	now := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	local := func(h, m, s, ns int) time.Time { return time.Date(2026, 11, 30, h, m, s, ns, time.Local) }
	for text, want := range map[string]time.Time{
		"2026-11-30T10:15:00Z":             now.Add(-105 * time.Minute),
		"2026-11-30T10:15:00.5+01:00":      now.Add(-165*time.Minute + 500*time.Millisecond),
		"2026-11-30 10:15:00+00":           now.Add(-105 * time.Minute),
		"2026-11-30 10:15:00.000001+05:30": now.Add(-435*time.Minute + time.Microsecond),
		"2026-11-30 10:15:00 UTC":          now.Add(-105 * time.Minute),
		" 2026-11-30 10:15:00.25 ":         local(10, 15, 0, 250_000_000),
		"2026-11-30T10:15:00":              local(10, 15, 0, 0),
		"2026-11-30 10:15":                 local(10, 15, 0, 0),
		"-90s":                             now.Add(-90 * time.Second),
	} {
		if got, err := parseMoment(text, now); err != nil || !got.Equal(want) {
			t.Errorf("%q is %s, %v; want %s", text, got, err, want)
		}
	}
	for _, text := range []string{"", "yesterday", "10m", "2026-11-30", "2026-11-30 10:15:00 EST", "30.11.2026 10:15"} {
		if got, err := parseMoment(text, now); err == nil {
			t.Errorf("%q is %s, %v", text, got, err)
		}
	}
}
