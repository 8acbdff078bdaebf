package backup

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"

	"github.com/twinspan/twinspan/internal/lsn"
)

// segmentSize is that of the servers that instance.Init makes.
const segmentSize = 16 << 20

// Segment is a file of the log (manual, "WAL Internals").
type Segment struct {
	Timeline uint32
	Number   uint64
}

// String is the name of its file.
func (s Segment) String() string {
	const each = (1 << 32) / segmentSize
	return fmt.Sprintf("%08X%08X%08X", s.Timeline, s.Number/each, s.Number%each)
}

// Start is the first position in it.
func (s Segment) Start() lsn.LSN { return lsn.LSN(s.Number * segmentSize) }

// End is the first position behind it.
func (s Segment) End() lsn.LSN { return lsn.LSN((s.Number + 1) * segmentSize) }

// SegmentOf names the segment of the log that holds a position.
func SegmentOf(timeline uint32, at lsn.LSN) string {
	return Segment{timeline, uint64(at) / segmentSize}.String()
}

// ParseSegment takes a segment's name apart; ok is false for what is none, such as the history of a timeline.
func ParseSegment(name string) (s Segment, ok bool) {
	if len(name) != 24 {
		return Segment{}, false
	}
	var parts [3]uint64
	for i := range parts {
		n, err := strconv.ParseUint(name[8*i:8*i+8], 16, 32)
		if err != nil {
			return Segment{}, false
		}
		parts[i] = n
	}
	return Segment{uint32(parts[0]), parts[1]*((1<<32)/segmentSize) + parts[2]}, true
}

// Newest takes names of segments apart, and orders them by their numbers: of one number the one of the newest timeline.
func Newest(names []string) []Segment {
	var all []Segment
	for _, name := range names {
		s, ok := ParseSegment(name)
		if !ok {
			continue
		}
		i, there := slices.BinarySearchFunc(all, s.Number, func(s Segment, n uint64) int { return cmp.Compare(s.Number, n) })
		switch {
		case !there:
			all = slices.Insert(all, i, s)
		case all[i].Timeline < s.Timeline:
			all[i] = s
		}
	}
	return all
}

// Gap is log that is missing between log that is there: the first and the last segment.
type Gap struct{ First, Last string }

// Gaps finds what is missing in an ordered list of segments. What lies before the first or behind the last segment
// of a timeline is none.
func Gaps(segments []string) []Gap {
	var gaps []Gap
	var last Segment
	for _, name := range segments {
		s, ok := ParseSegment(name)
		if !ok {
			continue
		}
		if s.Timeline == last.Timeline && s.Number > last.Number+1 {
			gaps = append(gaps, Gap{Segment{s.Timeline, last.Number + 1}.String(), Segment{s.Timeline, s.Number - 1}.String()})
		}
		last = s
	}
	return gaps
}
