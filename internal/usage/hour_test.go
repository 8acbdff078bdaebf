package usage

import (
	"testing"
	"time"
)

var ten = time.Date(2026, 11, 30, 10, 0, 0, 0, time.UTC)

// seen is an hour that was looked at all the time, every minute, as change says.
func seen(start time.Time, change func(minute int, l *Look)) Hour {
	h := Hour{Start: start}
	before := start.Add(-time.Minute)
	for m := range 60 {
		l := Look{At: start.Add(time.Duration(m) * time.Minute), Tier: "general-purpose", VCores: 8, Role: Secondary, Passive: true}
		if change != nil {
			change(m, &l)
		}
		if l.At.IsZero() {
			continue
		}
		h = h.Add(l, before)
		before = l.At
	}
	return h
}

func TestAnHourIsPassiveOnlyAsAWhole(t *testing.T) {
	for name, c := range map[string]struct {
		change func(int, *Look)
		voids  int
		want   string
		vcores int
	}{
		"passive":                      {nil, 0, Passive, 8},
		"somebody worked":              {nil, 1, Active, 8},
		"declared after it began":      {func(m int, l *Look) { l.Passive = m >= 1 }, 0, Active, 8},
		"declared no more":             {func(m int, l *Look) { l.Passive = m < 59 }, 0, Active, 8},
		"primary for a minute":         {func(m int, l *Look) { l.Role = map[bool]string{true: Primary, false: Secondary}[m == 30] }, 0, Active, 8},
		"without a link":               {func(m int, l *Look) { l.Role = Standalone }, 0, Active, 8},
		"larger for a minute":          {func(m int, l *Look) { l.VCores = map[bool]int{true: 16, false: 8}[m == 5] }, 0, Passive, 16},
		"not seen for a while":         {func(m int, l *Look) { l.At = map[bool]time.Time{false: l.At}[m > 20 && m < 25] }, 0, Unknown, 8},
		"not seen at its end":          {func(m int, l *Look) { l.At = map[bool]time.Time{false: l.At}[m > 50] }, 0, Unknown, 8},
		"not seen at its beginning":    {func(m int, l *Look) { l.At = map[bool]time.Time{false: l.At}[m < 5] }, 0, Unknown, 8},
		"not seen, and somebody works": {func(m int, l *Look) { l.At = map[bool]time.Time{false: l.At}[m > 50] }, 1, Active, 8},
		"not logged":                   {func(m int, l *Look) { l.Unlogged = m == 7 }, 0, Unknown, 8},
	} {
		h := seen(ten, c.change)
		if state, _ := h.State(time.Hour, c.voids, ten.Add(5*time.Hour)); state != c.want || h.VCores != c.vcores {
			t.Errorf("%s: %s with %d vCores, want %s with %d", name, state, h.VCores, c.want, c.vcores)
		}
	}
}

func TestReportBillsBothWays(t *testing.T) {
	hours := []Hour{
		seen(ten.Add(-24*time.Hour*30), nil), // October's last
		seen(ten, nil),
		seen(ten.Add(time.Hour), nil),
		// 12 is missing
		seen(ten.Add(3*time.Hour), func(m int, l *Look) { l.VCores = 16 }),
		seen(ten.Add(4*time.Hour), func(_ int, l *Look) { l.Role = Primary }),
	}
	voids := []Void{{Hour: ten.Add(time.Hour), Role: "reporter", First: ten.Add(90 * time.Minute)}}
	from := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	r := Make(from, from.AddDate(0, 1, 0), ten.Add(5*time.Hour), ten, hours, voids)
	if len(r.Lines) != 5 {
		t.Fatalf("%d hours", len(r.Lines))
	}
	want := []string{Passive, Active, Unknown, Passive, Active}
	for i, l := range r.Lines {
		if l.State != want[i] || (len(l.Voids) > 0) != (i == 1) || l.Open {
			t.Errorf("hour %d: %+v", i, l)
		}
	}
	if r.Lines[2].VCores != 8 || !r.Lines[2].Missing {
		t.Errorf("%+v", r.Lines[2])
	}
	// 16 vCores of a passive hour are 16 discounted; the unknown one is paid.
	if r.VCoreHours != 8+8+8+16+8 || r.Discount != 8+16 || r.Billed() != 24 || r.UnknownHours != 1 {
		t.Errorf("%+v", r)
	}
	// An hour that has not ended gives no discount yet.
	if r := Make(from, from.AddDate(0, 1, 0), ten.Add(59*time.Minute), ten, hours[1:2], nil); r.Lines[0].State != Passive || !r.Lines[0].Open || r.Discount != 0 {
		t.Errorf("%+v", r)
	}
	if r := Make(from, from.AddDate(0, 1, 0), ten, time.Time{}, nil, nil); len(r.Lines) != 0 {
		t.Errorf("before anything was seen: %+v", r)
	}
}

func TestWhoVoids(t *testing.T) {
	for _, c := range []struct {
		s    Session
		want bool
	}{
		{Session{Role: "app", Database: "sales"}, true},
		{Session{Role: "app", Database: "postgres"}, true},
		{Session{Role: "postgres", Superuser: true, Database: "sales"}, true},
		{Session{Role: "postgres", Superuser: true, Database: "postgres"}, false},
		{Session{Role: "exporter", Monitor: true, Database: "sales"}, false},
	} {
		if got := c.s.Voids("postgres"); got != c.want {
			t.Errorf("%+v: %t", c.s, got)
		}
	}
}
