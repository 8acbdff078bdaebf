package httpapi

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/twinspan/twinspan/api"
)

// phases are the values of the label phase, all of them, so that a query can
// compare with 0.
func phases() []api.Phase {
	return []api.Phase{api.Creating, api.Seeding, api.CatchingUp, api.Replicating,
		api.Suspended, api.FailingOver, api.Fenced, api.Broken}
}

// metric is one number of a link, and whether it is known: what is not has no series.
type metric struct {
	desc  *prometheus.Desc
	value func(api.Link) (v float64, known bool)
}

// linkCollector reads the links when it is asked, so that nothing has to keep
// counters in step with them.
type linkCollector struct {
	agent     Agent
	up        *prometheus.Desc
	phase     *prometheus.Desc
	health    *prometheus.Desc
	problems  *prometheus.Desc
	connected *prometheus.Desc
	numbers   []metric
}

func newLinkCollector(agent Agent) *linkCollector {
	link := []string{"link", "role"}
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("twinspan_"+name, help, labels, nil)
	}
	number := func(name, help string, value func(api.Link) (float64, bool)) metric {
		return metric{desc("link_"+name, help, link...), value}
	}
	rate := func(what, help string, value func(api.Rates) float64) metric {
		return number("applied_"+what+"_per_second", help, func(l api.Link) (float64, bool) { return of(l.Rates, value) })
	}
	share := func(part, help string, value func(api.TimeShares) float64) metric {
		return number("time_"+part+"_ratio", "Part of the secondary's time in the last seconds spent "+help+".", func(l api.Link) (float64, bool) { return of(l.Time, value) })
	}
	seeding := func(what, help string, value func(api.Progress) int64) metric {
		return number("seeding_"+what, help, func(l api.Link) (float64, bool) { return float64(value(l.Seeding)), l.Seeding != api.Progress{} })
	}
	return &linkCollector{
		agent:     agent,
		up:        desc("postgres_up", "1 when the instance answers."),
		phase:     desc("link_phase", "1 for the phase that the link is in.", append(link, "phase")...),
		health:    desc("link_health", "1 for the health that the link has.", append(link, "health")...),
		problems:  desc("link_problems", "Problems that the link has now.", append(link, "severity")...),
		connected: desc("link_peer_connected", "1 while the two agents reach each other.", append(link, "peer")...),
		numbers: []metric{
			number("epoch", "Grows with every change of roles.", func(l api.Link) (float64, bool) { return float64(l.Epoch), true }),
			number("lag_bytes", "Log of the primary that is not known to be applied on the secondary.", func(l api.Link) (float64, bool) {
				return of(l.Lag.Bytes, func(n int64) float64 { return float64(n) })
			}),
			number("lag_seconds", "How old the oldest transaction that is not applied on the secondary is at most.", func(l api.Link) (float64, bool) {
				return of(l.Lag.Seconds, func(s float64) float64 { return s })
			}),
			number("peer_heard_timestamp_seconds", "When the other side last said how it stands.", func(l api.Link) (float64, bool) {
				return of(l.Peer.HeardAt, func(at time.Time) float64 { return float64(at.UnixMilli()) / 1000 })
			}),
			rate("transactions", "Source transactions applied.", func(r api.Rates) float64 { return r.TransactionsPerSecond }),
			rate("changes", "Row changes applied.", func(r api.Rates) float64 { return r.ChangesPerSecond }),
			rate("bytes", "Change data applied.", func(r api.Rates) float64 { return r.BytesPerSecond }),
			share("source", "waiting for the primary: for somebody to write, or for its server to decode", func(s api.TimeShares) float64 { return s.Source }),
			share("network", "waiting for what the primary's agent could not send faster", func(s api.TimeShares) float64 { return s.Network }),
			share("applying", "applying changes", func(s api.TimeShares) float64 { return s.Applying }),
			share("committing", "waiting for the secondary's server to commit", func(s api.TimeShares) float64 { return s.Committing }),
			number("audit_differences", "Differences between the sides that the audit knows of.", func(l api.Link) (float64, bool) {
				return ofAudit(l.Audit, func(a api.Audit) *float64 { n := float64(a.Differences); return &n })
			}),
			number("audit_pass_seconds", "How long a pass of the audit over everything takes at its rate.", func(l api.Link) (float64, bool) {
				return ofAudit(l.Audit, func(a api.Audit) *float64 { return a.PassSeconds })
			}),
			number("audit_equal_timestamp_seconds", "The earliest of the times when each part of the twin was last found equal.", func(l api.Link) (float64, bool) {
				return ofAudit(l.Audit, func(a api.Audit) *float64 { return unix(a.EqualSince) })
			}),
			number("audit_pass_end_timestamp_seconds", "When the last pass of the audit ended.", func(l api.Link) (float64, bool) {
				return ofAudit(l.Audit, func(a api.Audit) *float64 { return unix(a.EndedAt) })
			}),
			number("audit_left_out", "Tables and the like that the audit leaves out.", func(l api.Link) (float64, bool) {
				return ofAudit(l.Audit, func(a api.Audit) *float64 { n := float64(a.LeftOut); return &n })
			}),
			number("spilled_bytes", "Disk that large transactions take on the secondary's side until they have committed and are applied.", func(l api.Link) (float64, bool) {
				return float64(l.SpilledBytes), l.Rates != nil // which come with it
			}),
			seeding("size_bytes", "Size of the tables to copy.", func(p api.Progress) int64 { return p.BytesTotal }),
			seeding("done_bytes", "Part of the tables that is copied.", func(p api.Progress) int64 { return p.BytesDone }),
			seeding("tables", "Tables to copy.", func(p api.Progress) int64 { return p.TablesTotal }),
			seeding("done_tables", "Tables copied whole.", func(p api.Progress) int64 { return p.TablesDone }),
		},
	}
}

// Describe implements prometheus.Collector.
func (c *linkCollector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.up, c.phase, c.health, c.problems, c.connected} {
		out <- d
	}
	for _, m := range c.numbers {
		out <- m.desc
	}
}

// Collect implements prometheus.Collector.
func (c *linkCollector) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := scrapeContext()
	defer cancel()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	info, err := c.agent.Info(ctx)
	if err != nil {
		out <- prometheus.NewInvalidMetric(c.up, err)
		return
	}
	gauge(c.up, number(info.Postgres.Connected))
	links, err := c.agent.Links(ctx)
	if err != nil {
		out <- prometheus.NewInvalidMetric(c.phase, err)
		return
	}
	for _, l := range links {
		name, role := l.Name, string(l.Role)
		for _, p := range phases() {
			gauge(c.phase, number(l.Phase == p), name, role, string(p))
		}
		for _, h := range []api.Health{api.Healthy, api.Degraded, api.Unhealthy} {
			gauge(c.health, number(l.Health == h), name, role, string(h))
		}
		for _, s := range []api.Severity{api.Blocks, api.Warns, api.Informs} {
			count := 0
			for _, p := range l.Problems {
				if p.Severity == s {
					count++
				}
			}
			gauge(c.problems, float64(count), name, role, string(s))
		}
		gauge(c.connected, number(l.Peer.Connected), name, role, l.Peer.Name)
		for _, m := range c.numbers {
			if v, known := m.value(l); known {
				gauge(m.desc, v, name, role)
			}
		}
	}
}

// of is a number of something that may be missing.
func of[T any](v *T, number func(T) float64) (float64, bool) {
	if v == nil {
		return 0, false
	}
	return number(*v), true
}

// ofAudit is a number of an audit that has looked at something.
func ofAudit(a *api.Audit, number func(api.Audit) *float64) (float64, bool) {
	if a == nil || a.BeganAt == nil {
		return 0, false
	}
	return of(number(*a), func(n float64) float64 { return n })
}

// unix is a time as metrics have it.
func unix(t *time.Time) *float64 {
	if t == nil {
		return nil
	}
	seconds := float64(t.UnixMilli()) / 1000
	return &seconds
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func metricsHandler(agent Agent, version string) http.Handler {
	registry := prometheus.NewRegistry()
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "twinspan_build_info", Help: "1, with the version of the program.", ConstLabels: prometheus.Labels{"version": version},
	})
	build.Set(1)
	registry.MustRegister(newLinkCollector(agent), build,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError})
}
