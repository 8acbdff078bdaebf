package backup

import (
	"slices"
	"testing"

	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/problem"
)

// Of one number the segment of the newest timeline counts.
func TestNewestTimeline(t *testing.T) {
	got := Newest([]string{"000000010000000000000001", "000000010000000000000002", "000000010000000000000003",
		"00000002.history", "000000020000000000000002", "000000030000000000000004"})
	want := []Segment{{1, 1}, {2, 2}, {1, 3}, {3, 4}}
	if !slices.Equal(got, want) {
		t.Errorf("%v, not %v", got, want)
	}
}

// A recovery takes a segment that is missing for the end of the log.
func TestHoleEndsARecovery(t *testing.T) {
	// named lists segments, each as its timeline and its number.
	named := func(list ...[2]int) (names []string) {
		for _, s := range list {
			names = append(names, Segment{uint32(s[0]), uint64(s[1])}.String())
		}
		slices.Sort(names)
		return names
	}
	within := func(number int) lsn.LSN { return Segment{1, uint64(number)}.Start() + 1000 }
	plain := named([2]int{1, 3}, [2]int{1, 4}, [2]int{1, 5})
	for _, c := range []struct {
		name    string
		have    []string
		last    [2]int // zero for none
		reached lsn.LSN
		missing [2]int // zero for none
	}{
		{"all was read", plain, [2]int{1, 5}, within(5), [2]int{}},
		{"to the end of the last", plain, [2]int{1, 5}, Segment{1, 5}.End(), [2]int{}},
		{"a record goes on behind the end", plain, [2]int{1, 4}, within(4), [2]int{}},
		{"more was archived meanwhile", plain, [2]int{1, 5}, within(7), [2]int{}},
		{"a hole", named([2]int{1, 3}, [2]int{1, 5}), [2]int{}, Segment{1, 3}.End(), [2]int{1, 4}},
		{"a hole behind the hole", named([2]int{1, 3}, [2]int{1, 4}, [2]int{1, 7}), [2]int{}, within(3), [2]int{1, 5}},
		{"a hole before what was read", named([2]int{1, 1}, [2]int{1, 3}), [2]int{}, within(3), [2]int{}},
		{"the last is missing", plain[:2], [2]int{1, 5}, within(4), [2]int{1, 5}},
		{"all behind the backup is missing", nil, [2]int{1, 5}, within(3), [2]int{1, 4}},
		{"what is read no further", plain, [2]int{1, 5}, within(4), [2]int{1, 5}},
		{"nothing is known", nil, [2]int{}, within(3), [2]int{}},
		{"the position is not known", plain, [2]int{1, 5}, 0, [2]int{}},
		{"another timeline", append(named([2]int{2, 5}, [2]int{2, 6}), plain...), [2]int{2, 6}, within(6), [2]int{}},
		{"given up on the timeline before", append(named([2]int{2, 4}), plain...), [2]int{2, 4}, within(4), [2]int{}},
		{"a hole on the newer timeline", append(named([2]int{2, 4}, [2]int{2, 6}), plain...), [2]int{}, within(4),
			[2]int{2, 5}},
		{"a hole between timelines", append(named([2]int{2, 7}), plain...), [2]int{}, within(5), [2]int{1, 6}},
	} {
		e := expected{segments: c.have}
		if c.last != [2]int{} {
			e.last = named(c.last)[0]
		}
		want := ""
		if c.missing != [2]int{} {
			want = named(c.missing)[0]
		}
		p := problem.As(e.missing(c.reached))
		got := ""
		if p != nil {
			got = p.Subject
		}
		if got != want || p != nil && (p.Code != "restore_log_missing" || p.Hint == "") {
			t.Errorf("%s: %q is missing, not %q", c.name, got, want)
		}
	}
}
