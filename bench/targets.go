package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// target is a row of the table of what was to be reached.
type target struct {
	what, goal, measured string
	met                  bool
}

// targets compares what was measured with what Twinspan is to reach. What was not
// measured has no row.
func (out *results) targets() []target {
	var list []target
	add := func(met bool, what, goal, measured string, args ...any) {
		list = append(list, target{what, goal, fmt.Sprintf(measured, args...), met})
	}
	out.copyTargets(add)
	out.catchUpTargets(add)
	out.walsenderTarget(add)
	out.limitTarget(add)
	out.tlsTargets(add)
	out.numberTargets(add)
	return list
}

type adder func(met bool, what, goal, measured string, args ...any)

// both returns two candidates' rows of a case, if both were measured.
func (out *results) both(name, one, other string) (a, b *row) {
	g := out.group(name)
	if g == nil || g.row(one) == nil || g.row(other) == nil {
		return nil, nil
	}
	return g.row(one), g.row(other)
}

func (out *results) copyTargets(add adder) {
	for _, c := range []struct {
		against, what string
		most          float64
	}{{"by-hand", "COPY piped by hand and indexes", 1.10}, {"pgcopydb", "pgcopydb", 1}, {"native", "a native subscription", 1 / 1.2}} {
		if a, b := out.both("copy", "twinspan", c.against); a != nil {
			x := a.median(wall) / b.median(wall)
			add(x <= c.most, "first copy, time of that of "+c.what, fmt.Sprintf("at most %.2f x", c.most), "%.2f x", x)
		}
	}
}

// natives are the modes of native replication.
var natives = []string{"native", "native-text", "native-streaming", "native-parallel"}

func (out *results) catchUpTargets(add adder) {
	least := map[string]float64{"tpcb": 1.8, "updates": 1.8, "deletes": 1.8, "inserts": 1.3, "bulk": 1.3, "bulk18": 1.3, "indexes": 1.5}
	for _, g := range out.groups {
		ours := g.row("twinspan")
		if ours == nil || g.name == "copy" {
			continue
		}
		best := 0.0
		for _, name := range natives {
			if r := g.row(name); r != nil && (best == 0 || r.median(wall) < best) {
				best = r.median(wall)
			}
		}
		if best > 0 {
			want := max(1, least[g.name])
			x := best / ours.median(wall)
			add(x >= want, g.name+", as fast as native's best mode", fmt.Sprintf("at least %.1f x", want), "%.2f x", x)
		}
		if r := g.row("pglogical"); r != nil {
			x := r.median(wall) / ours.median(wall)
			add(x >= 1, g.name+", as fast as pglogical", "at least 1.0 x", "%.2f x", x)
		}
		if r := g.row("native"); r != nil && slices.Contains([]string{"tpcb", "updates", "deletes", "inserts"}, g.name) {
			x := ours.median(sample.cpu) / r.median(sample.cpu)
			add(x <= 0.7, g.name+", all CPU of native's", "at most 0.70 x", "%.2f x", x)
		}
	}
}

// walsenderTarget takes the catch-ups together: single ones are too short for the
// kernel's counters.
func (out *results) walsenderTarget(add adder) {
	var ours, theirs float64
	for _, g := range out.groups {
		if a, b := out.both(g.name, "twinspan", "native"); a != nil && g.name != "copy" {
			of := func(s sample) float64 { return s.walsender }
			ours, theirs = ours+a.median(of), theirs+b.median(of)
		}
	}
	if theirs > 0 {
		add(ours <= theirs, "walsender's CPU of native's, all catch-ups", "at most 1.00 x", "%.2f x", ours/theirs)
	}
}

func (out *results) limitTarget(add adder) {
	met := true
	var all []string
	for _, g := range out.groups {
		if a, b := out.both(g.name, "twinspan", "limit"); a != nil {
			x := b.median(wall) / a.median(wall)
			met = met && x >= 0.9
			all = append(all, fmt.Sprintf("%s %.2f", g.name, x))
		}
	}
	if all != nil {
		add(met, "nearness to the decode limit", "at least 0.90 each", "%s", strings.Join(all, ", "))
	}
}

// tlsTargets are about what TLS to the servers costs.
func (out *results) tlsTargets(add adder) {
	for _, g := range out.groups {
		if a, b := out.both(g.name, "limit", "limit"+plain); a != nil {
			x := b.median(wall) / a.median(wall)
			add(x >= 0.85, g.name+", the slot read over TLS, of its speed without", "at least 0.85 x", "%.2f x", x)
		}
		if a, b := out.both(g.name, "twinspan", "twinspan"+plain); a != nil {
			x := b.median(wall) / a.median(wall)
			least := map[string]float64{"tpcb": 0.9}[g.name]
			if least == 0 {
				least = 1 / 1.15
			}
			add(x >= least, g.name+", caught up over TLS, of its speed without", fmt.Sprintf("at least %.2f x", least), "%.2f x", x)
		}
	}
}

// numberTargets are those of single numbers.
func (out *results) numberTargets(add adder) {
	n := out.numbers
	below := func(key, what, unit string, most float64) {
		if v, ok := n[key]; ok {
			add(v < most, what, fmt.Sprintf("under %g %s", most, unit), "%.2f %s", v, unit)
		}
	}
	ratio := func(key, against, what string, good func(x float64) bool, goal string) {
		a, ok := n[key]
		b, there := n[against]
		if ok && there && b > 0 {
			add(good(a/b), what, goal, "%.2f x", a/b)
		}
	}
	atMost := func(most float64) func(float64) bool { return func(x float64) bool { return x <= most } }
	below("lag busy p50 twinspan", "lag at 300 transactions a second, p50", "ms", 1)
	ratio("lag busy p99 twinspan", "lag busy p99 standby", "the same, p99 of a physical standby's", atMost(1), "at most 1.00 x")
	below("lag idle p50 twinspan", "lag when idle, p50", "ms", 1)
	ratio("throughput twinspan", "throughput native", "the primary's throughput of that with native", func(x float64) bool { return x >= 0.98 }, "at least 0.98 x")
	below("memory idle", "memory of an agent, idle", "MB", 64)
	below("memory large", "memory of an agent at most, with a transaction of 5 GB", "MB", 400)
	ratio("slow backlog bytes twinspan", "slow backlog bytes native", "slow network: bytes of native's, TPC-B", atMost(0.35), "at most 0.35 x")
	ratio("slow copy bytes twinspan", "slow copy bytes native", "slow network: bytes of native's, first copy with text", atMost(0.35), "at most 0.35 x")
	if v, ok := n["slow rows rate twinspan"]; ok {
		add(v >= 0.9, "slow network: share of its rate while rows are copied", "at least 0.90", "%.2f", v)
	}
}

// printTargets writes the table of targets.
func (out *results) printTargets(w io.Writer) {
	list := out.targets()
	if len(list) == 0 {
		return
	}
	met := 0
	fmt.Fprintln(w, "\nTargets")
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "\ttarget\tmeasured\tmet")
	for _, g := range list {
		verdict := "no"
		if g.met {
			verdict = "yes"
			met++
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", g.what, g.goal, g.measured, verdict)
	}
	t.Flush()
	fmt.Fprintf(w, "%d of %d met\n", met, len(list))
}
