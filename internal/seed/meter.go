package seed

import (
	"sync"
	"sync/atomic"
	"time"
)

// meter measures the progress of a copy.
type meter struct {
	mu       sync.Mutex // guards what follows
	progress Progress
	open     map[uint32]int // chunks left, by table
	moving   map[job]*atomic.Int64
	before   int64
	at       time.Time
	rate     float64
}

// newMeter counts what the session of that number still has to bring.
func newMeter(tables []*table, session int, now time.Time) *meter {
	m := &meter{open: map[uint32]int{}, moving: map[job]*atomic.Int64{}, at: now}
	m.progress.TablesTotal = len(tables)
	for _, t := range tables {
		complete := t.complete()
		if complete {
			m.progress.TablesDone++
		}
		for _, c := range t.chunks {
			m.progress.BytesTotal += c.bytes
			if c.at > 0 {
				m.progress.BytesDone += c.bytes
			}
			if !complete && c.at != session {
				m.open[t.OID]++
			}
		}
	}
	m.before = m.progress.BytesDone
	return m
}

func (m *meter) start(j job) *atomic.Int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := &atomic.Int64{}
	m.moving[j] = n
	return n
}

func (m *meter) finish(j job, done bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.moving, j)
	if !done {
		return
	}
	if j.chunk.at == 0 {
		m.progress.BytesDone += j.chunk.bytes
	}
	if m.open[j.table.OID]--; m.open[j.table.OID] == 0 {
		m.progress.TablesDone++
	}
}

// read sums up. What is under way counts by its bytes, up to what was planned.
func (m *meter) read(now time.Time) Progress {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.progress
	for j, n := range m.moving {
		if j.chunk.at == 0 {
			p.BytesDone += min(n.Load(), j.chunk.bytes)
		}
	}
	if passed := now.Sub(m.at).Seconds(); passed >= 0.1 {
		rate := float64(max(0, p.BytesDone-m.before)) / passed
		if m.rate == 0 {
			m.rate = rate
		}
		// A chunk that ends makes a jump; half of the past smooths it.
		m.rate = (m.rate + rate) / 2
		m.before, m.at = p.BytesDone, now
	}
	p.Rate, p.Remaining = int64(m.rate), -1
	if p.Rate > 0 {
		p.Remaining = (p.BytesTotal - p.BytesDone) / p.Rate
	}
	return p
}
