package link

import (
	"cmp"
	"slices"
	"time"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/role"
	"github.com/twinspan/twinspan/internal/side"
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
	status, _ := l.place.Peers.Status(l.side.Record().Peer)
	connected := status.Connected
	sent, changing := l.upstream.Sent(), l.changing()
	l.mu.Lock()
	defer l.mu.Unlock()
	r, report, answer := l.side.Record(), l.live.report, l.live.answer
	v := api.Link{
		Name: r.Name, ID: r.ID, Database: l.database, Role: api.Role(r.Role), Phase: api.Phase(r.Phase), Epoch: r.Epoch, Mode: api.Mode(r.Mode),
		Suspended: r.Suspended,
		Peer:      api.LinkPeer{Name: r.Peer, Role: api.Role(role.Role(r.Role).Other()), Connected: connected, Database: r.PeerDatabase},
		Seeding:   report.Seeding,
		Problems:  l.ownProblemsLocked(),
		Notices:   []api.Notice{},
		CreatedAt: r.CreatedAt,

		Sync: l.syncViewLocked(), SchemaChanges: report.SchemaChanges, OnConflict: r.OnConflict, OnIsolation: r.OnIsolation, MaxRate: r.MaxRate,
	}
	fresh := time.Since(l.live.heard) < heardFor
	if !l.live.heard.IsZero() {
		at := l.live.heard.UTC()
		v.Peer.HeardAt = &at
	}
	// What is the secondary's to say: its own agent always knows, the other as long as it
	// hears it.
	if fresh || role.Role(r.Role) == role.Secondary {
		v.Rates, v.Time, v.SpilledBytes, v.LargeObjects, v.Audit = report.Rates, report.Time, report.Spilled, l.largeObjectsLocked(), l.auditLocked()
		v.Position.Received, v.Position.Applied, v.Position.Confirmed = positionText(report.Received), positionText(report.Applied), positionText(report.Durable)
	} else {
		v.Seeding.BytesPerSecond, v.Seeding.EtaSeconds = 0, 0
	}
	showDoing(&v, l.doingLocked(changing, fresh))
	if since := l.side.PhaseSince(); !since.IsZero() {
		at := since.UTC()
		v.PhaseSince = &at
	}
	var written, applied lsn.LSN
	if role.Role(r.Role) == role.Secondary {
		applied = report.Applied
		if fresh {
			written = max(answer.Written, answer.Sent, report.Received)
			v.Position.Sent = positionText(max(answer.Sent, report.Received))
		}
	} else {
		v.Position.Sent = positionText(sent)
		if own := l.live.own; time.Since(own.at) < heardFor {
			written, applied = max(own.written, sent, report.Received), own.confirmed
			if !fresh {
				v.Position.Confirmed = positionText(own.confirmed)
			}
		}
		if fresh {
			applied = report.Applied
		}
	}
	v.Position.Written = positionText(written)
	if r.Seeded && applied > 0 && written > 0 {
		bytes := applied.Behind(written)
		v.Lag.Bytes = &bytes
		if fresh {
			v.Lag.Seconds = report.Lag
		}
	}
	v.Lag.AsOf = l.asOfLocked(v.Lag.Seconds)
	v.Totals = l.secondary.totalsLocked()
	if kept := l.live.kept; role.Role(r.Role) == role.Primary && time.Since(kept.At) < keptFor {
		v.Retained = &kept
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
	if fresh && stoppedAtPrimary(r, answer) {
		v.Phase, v.PhaseSince = api.Broken, nil
	}
	slices.SortStableFunc(v.Problems, func(p, q api.Problem) int { return cmp.Compare(urgency(q.Severity), urgency(p.Severity)) })
	v.Health = health(v)
	return v
}

// asOfLocked is up to when everything that was committed on the primary is applied, as far
// as it was ever known. lag is as old as the news.
func (l *Link) asOfLocked(lag *float64) *time.Time {
	d, r := &l.live, l.side.Record()
	if !r.Seeded {
		d.asOf = time.Time{}
	}
	if lag != nil {
		told := time.Now()
		if role.Role(r.Role) == role.Primary {
			told = d.heard
		}
		if at := told.Add(-time.Duration(*lag * float64(time.Second))); at.After(d.asOf) {
			d.asOf = at
		}
	}
	if d.asOf.IsZero() {
		return nil
	}
	at := d.asOf.UTC()
	return &at
}

// stoppedAtPrimary says whether a secondary that would go on is stopped by its primary, as
// that says: nobody should be told that such a link replicates. An answer of before a
// resumption says nothing.
func stoppedAtPrimary(r catalog.Link, answer Answer) bool {
	return role.Role(r.Role) == role.Secondary && !r.Diverged && slices.Contains([]role.Phase{role.Seeding, role.CatchingUp, role.Replicating}, role.Phase(r.Phase)) &&
		answer.Phase == string(role.Broken) && answer.Epoch == r.Epoch && answer.Change == r.Change
}

func urgency(s api.Severity) int {
	return slices.Index([]api.Severity{api.Informs, api.Warns, api.Blocks}, s)
}

// positionText is how a position is shown, and nothing where it is not known.
func positionText(position lsn.LSN) string {
	if position == 0 {
		return ""
	}
	return position.String()
}

const (
	// healthyWithin is how far a twin may be behind that is called healthy: somewhat more
	// than what a loaded one always is.
	healthyWithin = 2 * inStep
	// healthyBytes is the same in bytes of log.
	healthyBytes = 256 << 20
)

func health(v api.Link) api.Health {
	switch {
	case v.Phase == api.Broken || v.Phase == api.Fenced:
		return api.Unhealthy
	case v.Suspended || len(v.Problems) > 0:
		return api.Degraded
	case v.Phase == api.Replicating || v.Phase == api.CatchingUp:
		// Nobody can say of a twin that it protects the data when it is not known how far
		// it is behind, or it is far.
		if v.Lag.Bytes == nil || v.Lag.Seconds == nil || *v.Lag.Bytes > healthyBytes || *v.Lag.Seconds > healthyWithin.Seconds() {
			return api.Degraded
		}
	}
	return api.Healthy
}

// ownProblemsLocked lists what is wrong on this side.
func (l *Link) ownProblemsLocked() []api.Problem {
	list := []api.Problem{}
	add := func(p *problem.Error, severity api.Severity) {
		if p != nil {
			list = append(list, *side.ProblemOf(p, severity))
		}
	}
	stopped := l.side.Record().Problem
	add(stopped, api.Blocks)
	if a := l.secondary.applier; a != nil {
		add(a.Status().Blocked, api.Warns)
	}
	add(l.live.peerTrouble, api.Blocks)
	if stopped == nil {
		add(l.live.retained, api.Warns)
	}
	if trouble := l.side.Trouble(); trouble != nil && trouble.Code != "peer_unreachable" {
		add(trouble, api.Warns)
	}
	for _, warning := range l.side.Warnings() {
		add(warning, api.Warns)
	}
	return list
}

// OwnProblems lists what is wrong on this side, without what the other side says.
func (l *Link) OwnProblems() []api.Problem { return l.ownProblems() }

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

func (l *Link) syncView() *api.LinkSync {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.syncViewLocked()
}

// syncViewLocked is how mode sync stands, by this side's knowledge or the other's.
func (l *Link) syncViewLocked() *api.LinkSync {
	r := l.side.Record()
	switch {
	case r.Mode != string(api.Sync):
		return nil
	case role.Role(r.Role) == role.Secondary && l.live.answer.Sync != nil && time.Since(l.live.heard) < heardFor:
		v := *l.live.answer.Sync
		return &v
	case role.Role(r.Role) == role.Secondary:
		return &api.LinkSync{State: api.SyncUnknown, TimeoutSeconds: int64(r.SyncTimeout)}
	}
	v := l.mode.View()
	return &v
}

// largeObjectsLocked is what link show says of large objects; nil while nothing is known. The
// secondary knows, and reports it.
func (l *Link) largeObjectsLocked() *api.LargeObjects {
	if l.side.Role() == role.Primary {
		return l.live.report.LargeObjects
	}
	return l.objects.View()
}

// auditLocked is what link show says of the audit; nil while nothing is known. The
// secondary knows, and reports it.
func (l *Link) auditLocked() *api.Audit {
	if l.side.Role() == role.Primary {
		return l.live.report.Audit
	}
	return l.audit.View()
}
