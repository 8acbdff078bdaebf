package backup

import (
	"fmt"
	"strconv"

	"github.com/twinspan/twinspan/internal/lsn"
)

// segmentSize is that of the servers that instance.Init makes.
const segmentSize = 16 << 20

// SegmentOf names the segment of the log that holds a position (manual, "WAL Internals").
func SegmentOf(timeline uint32, at lsn.LSN) string {
	number := uint64(at) / segmentSize
	return segmentName(timeline, number)
}

func segmentName(timeline uint32, number uint64) string {
	const each = (1 << 32) / segmentSize
	return fmt.Sprintf("%08X%08X%08X", timeline, number/each, number%each)
}

// parseSegment takes a segment's name apart; ok is false for what is none, such as the history of a timeline.
func parseSegment(name string) (timeline uint32, number uint64, ok bool) {
	if len(name) != 24 {
		return 0, 0, false
	}
	var parts [3]uint64
	for i := range parts {
		n, err := strconv.ParseUint(name[8*i:8*i+8], 16, 32)
		if err != nil {
			return 0, 0, false
		}
		parts[i] = n
	}
	return uint32(parts[0]), parts[1]*((1<<32)/segmentSize) + parts[2], true
}

// Gap is log that is missing between log that is there: the first and the last segment.
type Gap struct{ First, Last string }

// Gaps finds what is missing in an ordered list of segments. What lies before the first or behind the last segment
// of a timeline is none.
func Gaps(segments []string) []Gap {
	var gaps []Gap
	var timeline uint32
	var last uint64
	for _, name := range segments {
		t, n, ok := parseSegment(name)
		if !ok {
			continue
		}
		if t == timeline && n > last+1 {
			gaps = append(gaps, Gap{segmentName(t, last+1), segmentName(t, n-1)})
		}
		timeline, last = t, n
	}
	return gaps
}
