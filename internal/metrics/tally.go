package metrics

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/twinspan/twinspan/api"
)

// pageOfEvents is how many events are counted at once.
const pageOfEvents = 1000

// tally counts what has happened since the agent was started, from its record of events.
type tally struct {
	mu        sync.Mutex
	after     int64 // the number of the last event that was counted
	events    *prometheus.CounterVec
	problems  *prometheus.CounterVec
	failovers *prometheus.CounterVec
	hold      prometheus.Histogram
}

// tallied describes what a tally counts, for the documentation.
var tallied = []family{
	{name: "twinspan_events_total", labels: []string{"kind", "action"}, help: "Events that the agent has kept since it was started; twinspan events lists them.", missing: "kinds of which there was none"},
	{name: "twinspan_problems_begun_total", labels: []string{"link", "code"}, help: "Problems that have begun since the agent was started.", missing: "codes that there was none of"},
	{name: "twinspan_failovers_total", labels: []string{"link", "type", "outcome"}, help: "Changes of places that this agent has driven since it was started, by outcome: done or undone.", missing: "outcomes that there was none of"},
	{name: "twinspan_failover_hold_seconds", help: "How long writers waited at planned failovers that this agent has driven since it was started, each as a histogram counts it."},
}

func newTally() *tally {
	counter := func(i int) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: tallied[i].name, Help: tallied[i].help}, tallied[i].labels)
	}
	return &tally{events: counter(0), problems: counter(1), failovers: counter(2), hold: prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: tallied[3].name, Help: tallied[3].help, Buckets: []float64{0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60},
		NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 100,
	})}
}

// Describe implements prometheus.Collector.
func (t *tally) Describe(out chan<- *prometheus.Desc) {
	for _, c := range []prometheus.Collector{t.events, t.problems, t.failovers, t.hold} {
		c.Describe(out)
	}
}

// Collect implements prometheus.Collector.
func (t *tally) Collect(out chan<- prometheus.Metric) {
	for _, c := range []prometheus.Collector{t.events, t.problems, t.failovers, t.hold} {
		c.Collect(out)
	}
}

// count counts the events since an agent was started that were not counted yet. What
// cannot be read now is counted later.
func (t *tally) count(ctx context.Context, source Source, started time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for {
		page, err := source.Events(ctx, api.EventQuery{After: t.after, Since: &started, Limit: pageOfEvents})
		if err != nil {
			return
		}
		for _, e := range page.Events {
			t.add(e)
		}
		if page.Next <= t.after {
			return
		}
		t.after = page.Next
		if !page.More {
			return
		}
	}
}

func (t *tally) add(e api.Event) {
	t.events.WithLabelValues(string(e.Kind), e.Action).Inc()
	switch {
	case e.Kind == api.EventProblem && e.Action == "began":
		t.problems.WithLabelValues(e.Link, e.Code).Inc()
	case e.Kind == api.EventFailover && (e.Action == "done" || e.Action == "undone"):
		t.failovers.WithLabelValues(e.Link, string(e.Failover), e.Action).Inc()
		if e.Failover == api.Planned && e.Action == "done" && e.HoldSeconds != nil {
			t.hold.Observe(*e.HoldSeconds)
		}
	}
}
