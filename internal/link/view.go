package link

import (
	"maps"
	"slices"
	"time"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/role"
)

// heardFor is how long what the other side said counts as news.
const heardFor = 5 * time.Second

// View describes the link as the API shows it: the same from both sides, as far
// as the two have heard of each other.
func (l *Link) View() api.Link { return l.view() }

func (l *Link) view() api.Link {
	if l.Role() == role.Secondary {
		l.stand()
	}
	status, _ := l.place.Peers.Status(l.snapshot().Peer)
	connected := status.Connected
	l.mu.Lock()
	defer l.mu.Unlock()
	r, report, answer := l.record, l.live.report, l.live.answer
	v := api.Link{
		Name: r.Name, ID: r.ID, Database: l.database, Role: api.Role(r.Role), Phase: api.Phase(r.Phase), Epoch: r.Epoch, Mode: api.Mode(r.Mode),
		Suspended: r.Suspended,
		Peer:      api.LinkPeer{Name: r.Peer, Role: api.Role(otherRole(r)), Connected: connected, Database: r.PeerDatabase},
		Seeding:   report.Seeding,
		Rates:     report.Rates,
		Time:      report.Time, SpilledBytes: report.Spilled,
		Problems:  l.ownProblemsLocked(),
		Notices:   []api.Notice{},
		CreatedAt: r.CreatedAt,

		Sync: l.syncViewLocked(), LargeObjects: l.largeObjectsLocked(), SchemaChanges: report.SchemaChanges, OnConflict: r.OnConflict, OnIsolation: r.OnIsolation, MaxRate: r.MaxRate,
	}
	written := max(answer.Written, answer.Sent, report.Received)
	sent := max(answer.Sent, report.Received)
	v.Position = api.Position{
		Written: written.String(), Sent: sent.String(), Received: report.Received.String(),
		Applied: report.Applied.String(), Confirmed: report.Durable.String(),
	}
	fresh := time.Since(l.live.heard) < heardFor
	if r.Seeded && report.Applied > 0 {
		v.Lag = api.Lag{Bytes: report.Applied.Behind(written), Seconds: report.Lag}
		if !fresh {
			// Nobody has heard of the primary: what it wrote since is not known, but it
			// has been this long.
			v.Lag.Seconds = max(v.Lag.Seconds, time.Since(l.live.heard).Seconds())
			if l.live.heard.IsZero() {
				v.Lag.Seconds = 0
			}
		}
	}
	if f := r.LastFailover; f != nil {
		v.LastFailover = &api.Failover{Type: f.Type, At: f.At, HoldSeconds: f.HoldSeconds}
	}
	for _, n := range r.Notices {
		v.Notices = append(v.Notices, api.Notice{At: n.At, Code: n.Code, Subject: n.Subject, Text: n.Text})
	}
	if !connected {
		v.Problems = append(v.Problems, api.Problem{Code: "peer_unreachable", Severity: api.Warns, Subject: r.Peer,
			Title: "the agents are not connected; the primary keeps its log until they are",
			Hint:  "see that both agents run and that one of them reaches the other's endpoint: twinspan peer list"})
	} else if fresh {
		others := report.Problems
		if role.Role(r.Role) == role.Secondary {
			others = answer.Problems
		}
		for _, p := range others {
			if !slices.ContainsFunc(v.Problems, func(q api.Problem) bool { return q.Code == p.Code }) {
				v.Problems = append(v.Problems, p)
			}
		}
	}
	v.Health = health(v)
	return v
}

func health(v api.Link) api.Health {
	switch {
	case v.Phase == api.Broken || v.Phase == api.Fenced:
		return api.Unhealthy
	case v.Phase == api.Replicating && len(v.Problems) == 0:
		return api.Healthy
	case v.Phase == api.Replicating || v.Suspended:
		return api.Degraded
	case len(v.Problems) > 0:
		return api.Degraded
	}
	return api.Healthy
}

// ownProblemsLocked lists what is wrong on this side.
func (l *Link) ownProblemsLocked() []api.Problem {
	list := []api.Problem{}
	add := func(p *problem.Error, severity api.Severity) {
		if p != nil {
			list = append(list, api.Problem{Code: p.Code, Severity: severity, Title: p.Error(), Subject: p.Subject, Hint: p.Hint})
		}
	}
	add(l.record.Problem, api.Blocks)
	if a := l.secondary.applier; a != nil {
		add(a.Status().Blocked, api.Warns)
	}
	add(l.live.peerTrouble, api.Blocks)
	if l.record.Problem == nil {
		add(l.live.retained, api.Warns)
	}
	if l.trouble != nil && l.trouble.Code != "peer_unreachable" {
		add(l.trouble, api.Warns)
	}
	for _, code := range slices.Sorted(maps.Keys(l.beside.troubles)) {
		add(l.beside.troubles[code], api.Warns)
	}
	return list
}

func (l *Link) ownProblems() []api.Problem {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ownProblemsLocked()
}

// meter turns counters into rates over the last seconds.
type meter struct {
	points []point
}

type point struct {
	at                           time.Time
	transactions, changes, bytes int64
}

const meterSpan = 5 * time.Second

// per takes the counters of now. Counters that fell (a new stream) start anew.
func (m *meter) per(now time.Time, transactions, changes, bytes int64) api.Rates {
	p := point{now, transactions, changes, bytes}
	if n := len(m.points); n > 0 && (transactions < m.points[n-1].transactions || bytes < m.points[n-1].bytes) {
		m.points = nil
	}
	if n := len(m.points); n == 0 || now.Sub(m.points[n-1].at) >= 500*time.Millisecond {
		m.points = append(m.points, p)
	}
	for len(m.points) > 1 && now.Sub(m.points[1].at) >= meterSpan {
		m.points = m.points[1:]
	}
	first := m.points[0]
	span := now.Sub(first.at).Seconds()
	if span <= 0 {
		return api.Rates{}
	}
	return api.Rates{
		TransactionsPerSecond: float64(transactions-first.transactions) / span,
		ChangesPerSecond:      float64(changes-first.changes) / span,
		BytesPerSecond:        float64(bytes-first.bytes) / span,
	}
}
