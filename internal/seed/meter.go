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
	tables   []*table
	done     map[uint32]int64 // bytes copied, by table
	open     map[uint32]int   // chunks left, by table
	moving   map[job]*atomic.Int64
	before   int64
	at       time.Time
	rate     float64
}

// newMeter counts what the session of that number still has to bring.
func newMeter(tables []*table, session int, now time.Time) *meter {
	m := &meter{tables: tables, done: map[uint32]int64{}, open: map[uint32]int{}, moving: map[job]*atomic.Int64{}, at: now}
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
				m.done[t.OID] += c.bytes
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
		m.done[j.table.OID] += j.chunk.bytes
	}
	if m.open[j.table.OID]--; m.open[j.table.OID] == 0 {
		m.progress.TablesDone++
	}
}

// moved is what of a job that is under way counts: its bytes, up to what was planned, and none of a chunk that is copied once more.
func (j job) moved(n *atomic.Int64) int64 {
	if j.chunk.at != 0 {
		return 0
	}
	return min(n.Load(), j.chunk.bytes)
}

// read sums up.
func (m *meter) read(now time.Time) Progress {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.progress
	for j, n := range m.moving {
		p.BytesDone += j.moved(n)
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

// each tells how far each table is, in the order of the plan.
func (m *meter) each() []TableProgress {
	m.mu.Lock()
	defer m.mu.Unlock()
	moving := map[uint32]int64{}
	for j, n := range m.moving {
		moving[j.table.OID] += j.moved(n)
	}
	list := make([]TableProgress, 0, len(m.tables))
	for _, t := range m.tables {
		p := TableProgress{Table: t.Name, BytesDone: m.done[t.OID]}
		for _, c := range t.chunks {
			p.BytesTotal += c.bytes
		}
		moved, copying := moving[t.OID]
		p.BytesDone += moved
		p.Copying, p.Copied = copying, m.open[t.OID] == 0
		list = append(list, p)
	}
	return list
}
