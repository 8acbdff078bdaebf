package assess

import (
	"fmt"
	"time"
)

// Path is what was measured of the way between the agents.
type Path struct {
	Peer      string
	Dialled   bool          // by this side; the other way may be closed
	RoundTrip time.Duration // 0 when it was not measured yet
	Clock     time.Duration // the peer's clock minus this one
	Rate      float64       // bytes per second that got through
}

const (
	// clockInforms and clockWarns are differences of clocks worth a word: lag and the
	// times of failovers are read on either side.
	clockInforms = 2 * time.Second
	clockWarns   = time.Minute
	// copyRate is what one server writes of a copy with its indexes, about, when the
	// network is not what limits it: measured on small machines.
	copyRate = 40 << 20
	// outage is how long an interruption the primary's disk should bear.
	outage = time.Hour
)

// measurements is how often the network is measured before it is called slow.
const measurements = 4

// Remeasure repeats the measurement of a network that seems slower than the primary writes:
// a second of a busy machine says little of either. It returns the most that got through,
// and lowers facts.LogSteady to the least that was written, where that comes from moments.
// network and log measure one more time each.
func Remeasure(rate float64, facts *Facts, network, log func() (float64, error)) (float64, error) {
	for n := 1; n < measurements && rate < facts.LogSteady; n++ {
		again, err := network()
		if err != nil {
			return 0, err
		}
		rate = max(rate, again)
		if facts.LogAverage {
			continue
		}
		written, err := log()
		if err != nil {
			return 0, err
		}
		facts.LogSteady = min(facts.LogSteady, written)
	}
	return rate, nil
}

// JudgePath judges the way, and what it means for the primary's log.
func JudgePath(p Path, primary Facts) []Finding {
	var f findings
	who := "the peer dialled this agent"
	if p.Dialled {
		who = "this agent dialled the peer"
	}
	trip := "not measured yet"
	if p.RoundTrip > 0 {
		trip = p.RoundTrip.Round(10 * time.Microsecond).String()
	}
	if p.Rate > 0 {
		f.informsIf(true, "network_measured", p.Peer, fmt.Sprintf("%s; TLS stands, the round trip takes %s, %s/s get through", who, trip, size(int64(p.Rate))), "")
		f.warnsIf(p.Rate < primary.LogSteady, "network_slow", p.Peer,
			fmt.Sprintf("the primary writes %s of log a second, at most %s get through to the peer: the twin could fall ever further behind", size(int64(primary.LogSteady)), size(int64(p.Rate))),
			"give the two agents a faster network, or accept it if the log is mostly that of other databases")
	}
	apart := p.Clock.Abs()
	clocks := fmt.Sprintf("the clocks of the two agents' machines differ by %s", apart.Round(100*time.Millisecond))
	f.warnsIf(apart >= clockWarns, "clock_differs", p.Peer, clocks, "have both machines keep time: timedatectl set-ntp true")
	f.informsIf(apart >= clockInforms && apart < clockWarns, "clock_differs", p.Peer, clocks, "have both machines keep time: timedatectl set-ntp true")
	seeding := seedingTime(p, primary)
	f.informsIf(p.Rate > 0, "seeding_estimate", p.Peer, fmt.Sprintf("seeding takes about %s: %s at what the network, and one server's disk, can be expected to take",
		seeding.Round(time.Second), size(primary.Database)), "")
	judgeLog(&f, seeding, primary)
	return f
}

func seedingTime(p Path, primary Facts) time.Duration {
	rate := min(p.Rate, copyRate)
	if rate <= 0 {
		rate = copyRate
	}
	return max(time.Second, time.Duration(float64(primary.Database)/rate*float64(time.Second)))
}

// judgeLog: what the primary writes while the twin is seeded, or out of reach, it
// has to keep.
func judgeLog(f *findings, seeding time.Duration, primary Facts) {
	during := int64(primary.LogRate * seeding.Seconds())
	away := int64(primary.LogRate * outage.Seconds())
	writes := fmt.Sprintf("the primary writes %s of log a second and keeps it while the twin is seeded (about %s) or out of reach", size(int64(primary.LogRate)), seeding.Round(time.Second))
	if free := primary.FreeLog; free != Unknown {
		f.blocksIf(during > free, "wal_disk_short", "pg_wal", fmt.Sprintf("%s; its disk has %s free, which are full before the seeding is done", writes, size(free)), "make room on the primary's disk")
		f.informsIf(during <= free && during+away > free, "wal_disk_tight", "pg_wal", fmt.Sprintf("%s; its disk has %s free, which are full after less than an hour more", writes, size(free)), "make room on the primary's disk")
	}
	if keep := primary.KeepLog; keep != Unknown {
		f.warnsIf(during > keep, "slot_wal_short", "max_slot_wal_keep_size", fmt.Sprintf("%s; the server drops it once it exceeds %s, and the link with it", writes, size(keep)),
			"ALTER SYSTEM SET max_slot_wal_keep_size = -1; SELECT pg_reload_conf()")
	}
}
