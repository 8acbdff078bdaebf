package metrics

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/lsn"
)

const (
	// patience bounds what a scrape asks of the agent.
	patience = 5 * time.Second
	// freshFor is how long a scrape is good for the next one.
	freshFor = time.Second
)

// Source is the agent whose metrics are shown. Its methods answer from memory; they are
// safe for concurrent use.
type Source interface {
	Info(ctx context.Context) (api.Agent, error)
	Links(ctx context.Context) ([]api.Link, error)
	Peers(ctx context.Context) ([]api.Peer, error)
	// Backups fails where the agent makes none.
	Backups(ctx context.Context) (api.Backups, error)
	Instance(ctx context.Context) (api.Instance, error)
	// Verification answers from memory on the secondary alone, where it is asked.
	Verification(ctx context.Context, link string) (api.Verification, error)
	Events(ctx context.Context, q api.EventQuery) (api.EventPage, error)
}

// Handler serves the metrics of an agent and of its process.
func Handler(source Source, version string) http.Handler {
	registry := prometheus.NewRegistry()
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "twinspan_build_info", Help: "1, with the version of the program.", ConstLabels: prometheus.Labels{"version": version},
	})
	build.Set(1)
	registry.MustRegister(newCollector(source), build,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return promhttp.HandlerFor(&fresh{from: registry}, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError, EnableOpenMetrics: true})
}

// fresh answers scrapes that follow each other closely with the same figures.
type fresh struct {
	from prometheus.Gatherer

	mu  sync.Mutex
	at  time.Time
	all []*dto.MetricFamily
	err error
}

// Gather implements prometheus.Gatherer.
func (f *fresh) Gather() ([]*dto.MetricFamily, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.at.IsZero() || time.Since(f.at) >= freshFor {
		f.all, f.err = f.from.Gather()
		f.at = time.Now()
	}
	return f.all, f.err
}

// collector reads the agent when it is asked, so that nothing has to keep figures in step
// with it.
type collector struct {
	source   Source
	families []family
	tally    *tally
}

func newCollector(source Source) *collector {
	return &collector{source: source, families: families(), tally: newTally()}
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(out chan<- *prometheus.Desc) {
	for _, f := range c.families {
		out <- f.desc
	}
	c.tally.Describe(out)
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	s := look(ctx, c.source)
	for _, f := range c.families {
		f.emit(s, func(v float64, labels ...string) { out <- prometheus.MustNewConstMetric(f.desc, f.kind, v, labels...) })
	}
	if s.agent != nil {
		c.tally.count(ctx, c.source, s.agent.StartedAt)
		c.tally.Collect(out)
	}
}

// look asks an agent for everything. What it does not answer is left out.
func look(ctx context.Context, source Source) sight {
	s := sight{at: time.Now(), verifications: map[string]api.Verification{}}
	if a, err := source.Info(ctx); err == nil {
		s.agent = &a
	}
	links, err := source.Links(ctx)
	s.links, s.working = links, err == nil
	s.peers, _ = source.Peers(ctx)
	if b, err := source.Backups(ctx); err == nil {
		s.backups = &b
	}
	if i, err := source.Instance(ctx); err == nil {
		s.instance = &i
	}
	for _, l := range links {
		if l.Role != api.Secondary {
			continue
		}
		if v, err := source.Verification(ctx, l.Name); err == nil {
			s.verifications[l.Name] = v
		}
	}
	return s
}

// position reads a position of the log; false for none.
func position(text string) (float64, bool) {
	at, err := lsn.Parse(text)
	if err != nil || text == "" {
		return 0, false
	}
	return float64(at), true
}
