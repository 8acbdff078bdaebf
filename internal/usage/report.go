package usage

import (
	"cmp"
	"slices"
	"time"
)

// Line is an hour of a report.
type Line struct {
	Hour
	State string
	Why   string
	Open  bool // it has not ended
	Voids []Void
}

// Total is the sum of hours of one kind.
type Total struct {
	VCores int
	Role   string
	State  string
	Hours  int
}

// Report is the usage of a month, or of another span.
type Report struct {
	From, Until time.Time
	Lines       []Line
	Totals      []Total
	// VCoreHours are all of them, Discount those of passive hours: what is paid as it goes is the rest. With licences of one's own
	// the same hours give their licences back.
	VCoreHours, Discount int
	// UnknownHours are counted in full.
	UnknownHours int
}

// Billed are the vCore hours that are paid for.
func (r Report) Billed() int { return r.VCoreHours - r.Discount }

// Make makes a report of what was seen between two moments. Hours of which nothing was seen since the first ever, began, are unknown, with the size
// of the hour before.
func Make(from, until, now, began time.Time, hours []Hour, voids []Void) Report {
	r := Report{From: from, Until: until}
	by := map[int64][]Void{}
	for _, v := range voids {
		by[v.Hour.Unix()] = append(by[v.Hour.Unix()], v)
	}
	have := map[int64]Hour{}
	for _, h := range hours {
		have[h.Start.Unix()] = h
	}
	totals := map[Total]int{}
	var last Hour
	for _, h := range hours { // of the month before, for its size
		if h.Start.Before(from) {
			last = h
		}
	}
	for at := from; at.Before(until) && at.Before(now); at = at.Add(time.Hour) {
		h, seen := have[at.Unix()]
		switch {
		case seen:
			last = h
		case began.IsZero() || at.Before(began):
			continue
		default:
			h = Hour{Start: at, Tier: last.Tier, VCores: last.VCores, Storage: last.Storage, Role: last.Role, Missing: true}
		}
		line := Line{Hour: h, Voids: by[at.Unix()], Open: now.Before(at.Add(time.Hour))}
		line.State, line.Why = h.State(time.Hour, len(line.Voids), now)
		slices.SortFunc(line.Voids, func(a, b Void) int { return a.First.Compare(b.First) })
		r.Lines = append(r.Lines, line)
		totals[Total{VCores: h.VCores, Role: h.Role, State: line.State}]++
		r.VCoreHours += h.VCores
		switch {
		case line.State == Unknown:
			r.UnknownHours++
		case line.State == Passive && !line.Open:
			r.Discount += h.VCores
		}
	}
	for t, n := range totals {
		t.Hours = n
		r.Totals = append(r.Totals, t)
	}
	slices.SortFunc(r.Totals, func(a, b Total) int {
		return cmp.Or(cmp.Compare(a.Role, b.Role), cmp.Compare(a.State, b.State), cmp.Compare(a.VCores, b.VCores))
	})
	return r
}
