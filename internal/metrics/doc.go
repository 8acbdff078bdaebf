// Package metrics shows an agent to Prometheus. It follows the conventions of that: totals
// are counters, units are seconds and bytes, points in time are seconds since 1970, and
// what is not known has no series. A scrape reads what the agent has in memory; many
// scrapes at once cost as much as one.
//
// docs/metrics.md is written from the table in families.go.
//
//go:generate env TWINSPAN_GENERATE=1 go test . -count=1 -run TestMetricsAreDocumented
package metrics
