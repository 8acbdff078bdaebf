package metrics

import (
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/twinspan/twinspan/api"
)

// phases and healths are the values of those labels, all of them, so that a query can
// compare with 0.
var (
	phases = []api.Phase{api.Creating, api.Seeding, api.CatchingUp, api.Replicating,
		api.Suspended, api.FailingOver, api.Fenced, api.Broken}
	healths    = []api.Health{api.Healthy, api.Degraded, api.Unhealthy}
	severities = []api.Severity{api.Blocks, api.Warns, api.Informs}
)

// family is the metrics of one name.
type family struct {
	name    string
	kind    prometheus.ValueType
	labels  []string
	help    string
	missing string // when it has no series; empty for never
	emit    func(s sight, out series)
	desc    *prometheus.Desc
}

// series puts out one value, with the values of the labels.
type series func(v float64, labels ...string)

// sight is what an agent shows at one moment. What it does not say is nil.
type sight struct {
	at            time.Time
	agent         *api.Agent
	links         []api.Link
	working       bool // the links are this process's
	peers         []api.Peer
	backups       *api.Backups
	instance      *api.Instance
	verifications map[string]api.Verification // the last of a link, by its name
}

const (
	gauge   = prometheus.GaugeValue
	counter = prometheus.CounterValue
)

// families are all metrics but the tally's, in the order of the documentation.
func families() []family {
	all := slices.Concat(agentFamilies(), linkFamilies(), appliedFamilies(), seedingFamilies(), equalFamilies(), backupFamilies(), instanceFamilies())
	for i := range all {
		all[i].desc = prometheus.NewDesc(all[i].name, all[i].help, all[i].labels, nil)
	}
	return all
}

func agentFamilies() []family {
	return []family{
		{name: "twinspan_postgres_up", kind: gauge, help: "1 when the instance answers.",
			emit: func(s sight, out series) {
				if s.agent != nil {
					out(truth(s.agent.Postgres.Connected))
				}
			}},
		{name: "twinspan_agent_working", kind: gauge, help: "1 while this process works the agent's links, 0 while it stands by for another one. The metrics of links come from the one that works.",
			emit: func(s sight, out series) { out(truth(s.working)) }},
		{name: "twinspan_agent_start_timestamp_seconds", kind: gauge, help: "When the agent was started.",
			emit: func(s sight, out series) {
				if s.agent != nil {
					out(unix(s.agent.StartedAt))
				}
			}},
		{name: "twinspan_certificate_expiry_timestamp_seconds", kind: gauge, labels: []string{"agent"}, help: "When the certificate of this agent, or of a peer, ends.",
			emit: func(s sight, out series) {
				if s.agent != nil && !s.agent.Expires.IsZero() {
					out(unix(s.agent.Expires), s.agent.Name)
				}
				for _, p := range s.peers {
					if !p.Expires.IsZero() && (s.agent == nil || p.Name != s.agent.Name) {
						out(unix(p.Expires), p.Name)
					}
				}
			}},
		{name: "twinspan_peer_connected", kind: gauge, labels: []string{"peer"}, help: "1 while the agents are connected.",
			emit: func(s sight, out series) {
				for _, p := range s.peers {
					out(truth(p.Connected), p.Name)
				}
			}},
		{name: "twinspan_peer_round_trip_seconds", kind: gauge, labels: []string{"peer"}, help: "How long a word to the peer and back takes, smoothed.", missing: "without a connection, and until it is measured",
			emit: func(s sight, out series) {
				for _, p := range s.peers {
					if p.RoundTripSeconds != nil {
						out(*p.RoundTripSeconds, p.Name)
					}
				}
			}},
		{name: "twinspan_problem", kind: gauge, labels: []string{"link", "code", "severity"},
			help: "1 for each problem that is there now; without a link where it is the agent's or its instance's. docs/problems.md has the codes.", missing: "while there is none",
			emit: func(s sight, out series) {
				if s.agent != nil {
					each(s.agent.Problems, func(p api.Problem) { out(1, "", p.Code, string(p.Severity)) })
				}
				for _, l := range s.links {
					each(l.Problems, func(p api.Problem) { out(1, l.Name, p.Code, string(p.Severity)) })
				}
			}},
	}
}

// each calls do for the first problem of each code and severity.
func each(list []api.Problem, do func(api.Problem)) {
	for i, p := range list {
		if !slices.ContainsFunc(list[:i], func(q api.Problem) bool { return q.Code == p.Code && q.Severity == p.Severity }) {
			do(p)
		}
	}
}

// ofLink is a family with one value of each link where that is known.
func ofLink(name string, kind prometheus.ValueType, help, missing string, value func(s sight, l api.Link) *float64) family {
	return family{name: "twinspan_link_" + name, kind: kind, labels: []string{"link", "role"}, help: help, missing: missing,
		emit: func(s sight, out series) {
			for _, l := range s.links {
				if v := value(s, l); v != nil {
					out(*v, l.Name, string(l.Role))
				}
			}
		}}
}

// ofLinkBy is a family with several values of each link, told apart by a label.
func ofLinkBy(name, label, help, missing string, values func(l api.Link, out func(v float64, of string))) family {
	return family{name: "twinspan_link_" + name, kind: gauge, labels: []string{"link", "role", label}, help: help, missing: missing,
		emit: func(s sight, out series) {
			for _, l := range s.links {
				values(l, func(v float64, of string) { out(v, l.Name, string(l.Role), of) })
			}
		}}
}

func linkFamilies() []family {
	return []family{
		ofLinkBy("phase", "phase", "1 for the phase that the link is in, 0 for the others.", "", func(l api.Link, out func(float64, string)) {
			for _, p := range phases {
				out(truth(l.Phase == p), string(p))
			}
		}),
		ofLinkBy("health", "health", "1 for the health that the link has, 0 for the others.", "", func(l api.Link, out func(float64, string)) {
			for _, h := range healths {
				out(truth(l.Health == h), string(h))
			}
		}),
		ofLinkBy("problems", "severity", "Problems that the link has now.", "", func(l api.Link, out func(float64, string)) {
			for _, s := range severities {
				n := 0
				for _, p := range l.Problems {
					n += int(truth(p.Severity == s))
				}
				out(float64(n), string(s))
			}
		}),
		ofLinkBy("peer_connected", "peer", "1 while the two agents of the link reach each other.", "", func(l api.Link, out func(float64, string)) {
			out(truth(l.Peer.Connected), l.Peer.Name)
		}),
		ofLink("peer_heard_timestamp_seconds", gauge, "When the other side last said how it stands.", "before it has since the agent was started or the sides changed places",
			func(_ sight, l api.Link) *float64 { return stamp(l.Peer.HeardAt) }),
		ofLink("epoch", gauge, "Grows with every change of roles.", "", func(_ sight, l api.Link) *float64 { return new(float64(l.Epoch)) }),
		ofLink("suspended", gauge, "1 while somebody has the link stand still.", "", func(_ sight, l api.Link) *float64 { return new(truth(l.Suspended)) }),
		ofLink("sync_engaged", gauge, "1 while commits on the primary wait for the twin, 0 while they do not although the mode is sync.", "in mode async, and while it is not known",
			func(_ sight, l api.Link) *float64 {
				if l.Sync == nil || l.Sync.State == api.SyncUnknown {
					return nil
				}
				return new(truth(l.Sync.State == api.SyncEngaged))
			}),
		ofLinkBy("position_bytes", "position", "How far the primary's log has come on its way, as a position in that log: written, sent, received, applied, confirmed. Each is at or before the one named before it.",
			"those that this side cannot know now", func(l api.Link, out func(float64, string)) {
				for _, p := range []struct{ name, text string }{{"written", l.Position.Written}, {"sent", l.Position.Sent}, {"received", l.Position.Received},
					{"applied", l.Position.Applied}, {"confirmed", l.Position.Confirmed}} {
					if v, known := position(p.text); known {
						out(v, p.name)
					}
				}
			}),
		ofLink("lag_bytes", gauge, "Log of the primary that is not known to be applied on the secondary.", "while it is not known", func(_ sight, l api.Link) *float64 { return float(l.Lag.Bytes) }),
		ofLink("lag_seconds", gauge, "How old the oldest transaction that is not applied on the secondary is at most. It grows while the two sides do not hear each other.",
			"until this agent, since it was started or the sides changed places, has known it once", func(s sight, l api.Link) *float64 {
				if l.Lag.Seconds == nil && l.Lag.AsOf != nil {
					return new(max(0, s.at.Sub(*l.Lag.AsOf).Seconds()))
				}
				return l.Lag.Seconds
			}),
		ofLink("applied_until_timestamp_seconds", gauge, "Everything that was committed on the primary before is applied on the secondary.", "as for twinspan_link_lag_seconds",
			func(_ sight, l api.Link) *float64 { return stamp(l.Lag.AsOf) }),
		ofLink("retained_wal_bytes", gauge, "Log that the primary's server keeps for the twin.", "on the secondary, and while it is not known", func(_ sight, l api.Link) *float64 {
			if l.Retained == nil {
				return nil
			}
			return new(float64(l.Retained.Bytes))
		}),
		ofLink("retained_wal_left_bytes", gauge, "How much more the primary's server may write until it removes log that the twin needs.",
			"as for twinspan_link_retained_wal_bytes, and where max_slot_wal_keep_size sets no limit", func(_ sight, l api.Link) *float64 {
				if l.Retained == nil {
					return nil
				}
				return float(l.Retained.LeftBytes)
			}),
		{name: "twinspan_link_last_failover_timestamp_seconds", kind: gauge, labels: []string{"link", "role", "type"}, help: "When the sides last changed places.", missing: "while they never did",
			emit: func(s sight, out series) {
				for _, l := range s.links {
					if f := l.LastFailover; f != nil {
						out(unix(f.At), l.Name, string(l.Role), f.Type)
					}
				}
			}},
		ofLink("last_failover_hold_seconds", gauge, "How long writers waited at the last planned failover.", "while the last was none", func(_ sight, l api.Link) *float64 {
			if l.LastFailover == nil || l.LastFailover.Type != string(api.Planned) {
				return nil
			}
			return &l.LastFailover.HoldSeconds
		}),
	}
}

func appliedFamilies() []family {
	total := func(what, help string, value func(t api.Totals) int64) family {
		return ofLink("applied_"+what+"_total", counter, help+" Applied on this side since the agent was started.", "where this side has applied nothing", func(_ sight, l api.Link) *float64 {
			if l.Totals == nil {
				return nil
			}
			return new(float64(value(*l.Totals)))
		})
	}
	share := func(part, help string, value func(t api.TimeShares) float64) family {
		return ofLink("time_"+part+"_ratio", gauge, "Part of the secondary's time in the last seconds spent "+help+".", "while nothing streams", func(_ sight, l api.Link) *float64 {
			if l.Time == nil {
				return nil
			}
			return new(value(*l.Time))
		})
	}
	return []family{
		total("transactions", "Source transactions.", func(t api.Totals) int64 { return t.Transactions }),
		total("changes", "Rows inserted, updated and deleted.", func(t api.Totals) int64 { return t.Changes }),
		total("bytes", "Change data as it came over the network.", func(t api.Totals) int64 { return t.Bytes }),
		total("retries", "Groups of transactions that were tried again because of a lock.", func(t api.Totals) int64 { return t.Retries }),
		total("streams", "Streams from the primary that were begun: it grows with each interruption.", func(t api.Totals) int64 { return t.Streams }),
		share("source", "waiting for the primary: for somebody to write, or for its server to decode", func(t api.TimeShares) float64 { return t.Source }),
		share("network", "waiting for what the primary's agent could not send faster", func(t api.TimeShares) float64 { return t.Network }),
		share("applying", "applying changes", func(t api.TimeShares) float64 { return t.Applying }),
		share("committing", "waiting for the secondary's server to commit", func(t api.TimeShares) float64 { return t.Committing }),
		ofLink("spilled_bytes", gauge, "Disk that large transactions take on the secondary's side until they have committed and are applied.", "while nothing streams", func(_ sight, l api.Link) *float64 {
			if l.Rates == nil { // which come with it
				return nil
			}
			return new(float64(l.SpilledBytes))
		}),
	}
}

func seedingFamilies() []family {
	of := func(what, help string, value func(p api.Progress) int64) family {
		return ofLink("seeding_"+what, gauge, help, "while nothing is known of a first copy", func(_ sight, l api.Link) *float64 {
			if l.Seeding == (api.Progress{}) {
				return nil
			}
			return new(float64(value(l.Seeding)))
		})
	}
	return []family{
		of("size_bytes", "Size of the tables to copy.", func(p api.Progress) int64 { return p.BytesTotal }),
		of("done_bytes", "Part of the tables that is copied.", func(p api.Progress) int64 { return p.BytesDone }),
		of("tables", "Tables to copy.", func(p api.Progress) int64 { return p.TablesTotal }),
		of("done_tables", "Tables copied whole.", func(p api.Progress) int64 { return p.TablesDone }),
	}
}

func equalFamilies() []family {
	audit := func(what, help, missing string, value func(a api.Audit) *float64) family {
		return ofLink("audit_"+what, gauge, help, missing, func(_ sight, l api.Link) *float64 {
			if l.Audit == nil || l.Audit.BeganAt == nil {
				return nil
			}
			return value(*l.Audit)
		})
	}
	const begun = "before the first pass has begun, and while it is not known"
	verified := func(what, help string, value func(v api.Verification) float64) family {
		return ofLink(what, gauge, help, "on the primary, while one is under way or failed, and while the link was not verified since the agent was started", func(s sight, l api.Link) *float64 {
			v, known := s.verifications[l.Name]
			if !known || v.EndedAt == nil || v.State != api.Equal && v.State != api.Different && v.State != api.Repaired {
				return nil
			}
			return new(value(v))
		})
	}
	return []family{
		audit("differences", "Differences between the sides that the audit knows of.", begun, func(a api.Audit) *float64 { return new(float64(a.Differences)) }),
		audit("pass_seconds", "How long a pass of the audit over everything takes at its rate.", begun, func(a api.Audit) *float64 { return a.PassSeconds }),
		audit("equal_timestamp_seconds", "The earliest of the times when each part of the twin was last found equal.", begun+"; while a part never was", func(a api.Audit) *float64 { return stamp(a.EqualSince) }),
		audit("pass_end_timestamp_seconds", "When the last pass of the audit ended.", begun+"; before the first has ended", func(a api.Audit) *float64 { return stamp(a.EndedAt) }),
		audit("left_out", "Tables and the like that the audit leaves out.", begun, func(a api.Audit) *float64 { return new(float64(a.LeftOut)) }),
		verified("last_verified_timestamp_seconds", "When the last verification ended.", func(v api.Verification) float64 { return unix(*v.EndedAt) }),
		verified("verification_differences", "Differences that the last verification listed and did not repair.", func(v api.Verification) float64 {
			n := 0
			for _, d := range v.Differences {
				n += int(truth(!d.Repaired))
			}
			return float64(n)
		}),
	}
}

func backupFamilies() []family {
	const none = "where the agent makes no backups, and before the repository has answered"
	known := func(s sight) bool { return s.backups != nil && s.backups.Known }
	when := func(name, help string, at func(b api.Backups) *time.Time) family {
		return family{name: name, kind: gauge, help: help, missing: none + "; while nothing can be restored", emit: func(s sight, out series) {
			if known(s) {
				if v := stamp(at(*s.backups)); v != nil {
					out(*v)
				}
			}
		}}
	}
	return []family{
		{name: "twinspan_backup_last_success_timestamp_seconds", kind: gauge, labels: []string{"type"}, help: "When the last backup of each type that is in the repository was complete.", missing: none + "; types of which there is none",
			emit: func(s sight, out series) {
				if !known(s) {
					return
				}
				for _, kind := range []string{"full", "diff", "incr"} {
					var last time.Time
					for _, b := range s.backups.Backups {
						if b.Type == kind && b.EndedAt.After(last) {
							last = b.EndedAt
						}
					}
					if !last.IsZero() {
						out(unix(last), kind)
					}
				}
			}},
		{name: "twinspan_backup_last_test_timestamp_seconds", kind: gauge, labels: []string{"repository"}, help: "When a backup of each repository, by its number, was last restored to prove it.", missing: none + "; repositories of which none was",
			emit: func(s sight, out series) {
				if !known(s) {
					return
				}
				for _, r := range s.backups.Repositories {
					if r.TestedAt != nil {
						out(unix(*r.TestedAt), strconv.Itoa(r.Number))
					}
				}
			}},
		{name: "twinspan_backup_repository_bytes", kind: gauge, help: "What the backups in the repository take, without the log.", missing: none,
			emit: func(s sight, out series) {
				if known(s) {
					var n int64
					for _, b := range s.backups.Backups {
						n += b.Stored
					}
					out(float64(n))
				}
			}},
		when("twinspan_restorable_from_timestamp_seconds", "First moment to which the instance can be restored.", func(b api.Backups) *time.Time { return b.From }),
		when("twinspan_restorable_until_timestamp_seconds", "Last moment, up to which everything is known to be in the repository.", func(b api.Backups) *time.Time { return b.Until }),
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// unix is a time as metrics have it.
func unix(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

// stamp is unix of a time that may be missing.
func stamp(t *time.Time) *float64 {
	if t == nil {
		return nil
	}
	return new(unix(*t))
}

// float is a number that may be missing.
func float(n *int64) *float64 {
	if n == nil {
		return nil
	}
	return new(float64(*n))
}
