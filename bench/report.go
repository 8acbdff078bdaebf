package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// results gathers what is printed in the end.
type results struct {
	facts  []string
	rounds int
	scale  float64
	groups []*group
	lines  []string          // of cases that are not timed runs
	absent map[string]string // candidates that are missing, and why

	numbers  map[string]float64 // what targets are about beside groups, by name
	failures []string           // cases, or candidates in one, that came to no end
}

// number keeps a number under a name.
func (out *results) number(name string, v float64) {
	if out.numbers == nil {
		out.numbers = map[string]float64{}
	}
	out.numbers[name] = v
}

// failed notes what did not work; the rest goes on.
func (out *results) failed(what string, err error) {
	text := fmt.Sprintf("FAILED: %s: %v", what, err)
	fmt.Fprintln(os.Stderr, text)
	out.failures = append(out.failures, strings.Join(strings.Fields(text), " "))
}

// group is a case.
type group struct {
	name, title string
	rows        []*row
}

// row is a candidate in a case.
type row struct {
	name    string
	samples []sample
}

func (out *results) add(name, title, candidate string, s sample) {
	g := out.group(name)
	if g == nil {
		g = &group{name: name, title: title}
		out.groups = append(out.groups, g)
	}
	for _, r := range g.rows {
		if r.name == candidate {
			r.samples = append(r.samples, s)
			return
		}
	}
	g.rows = append(g.rows, &row{candidate, []sample{s}})
}

func (out *results) group(name string) *group {
	for _, g := range out.groups {
		if g.name == name {
			return g
		}
	}
	return nil
}

func (out *results) missing(candidate, why string) {
	if out.absent == nil {
		out.absent = map[string]string{}
	}
	out.absent[candidate] = why
}

func (out *results) line(format string, args ...any) {
	out.lines = append(out.lines, fmt.Sprintf(format, args...))
}

// median of one of a row's numbers.
func (r *row) median(of func(sample) float64) float64 {
	list := make([]float64, len(r.samples))
	for i, s := range r.samples {
		list[i] = of(s)
	}
	return quantile(list, 0.5)
}

// quantile sorts the list. Between two values it takes the middle for the median.
func quantile(list []float64, q float64) float64 {
	if len(list) == 0 {
		return 0
	}
	slices.Sort(list)
	n := len(list)
	if q == 0.5 && n%2 == 0 {
		return (list[n/2-1] + list[n/2]) / 2
	}
	return list[min(n-1, int(q*float64(n)))]
}

func wall(s sample) float64 { return s.wall }

func (g *group) row(name string) *row {
	for _, r := range g.rows {
		if r.name == name {
			return r
		}
	}
	return nil
}

// print writes everything as text; in a Markdown file it stands as code.
func (out *results) print(w io.Writer) {
	for _, f := range out.facts {
		fmt.Fprintln(w, f)
	}
	fmt.Fprintf(w, "medians of at most %d rounds, scale %g; seconds; x: how many times as fast as native (first copy: as the subscription)\n", out.rounds, out.scale)
	for _, g := range out.groups {
		fmt.Fprintf(w, "\n%s: %s\n", g.name, g.title)
		g.print(w)
	}
	if len(out.lines) > 0 {
		fmt.Fprintln(w)
	}
	for _, l := range out.lines {
		fmt.Fprintln(w, l)
	}
	for name, why := range out.absent {
		fmt.Fprintf(w, "%s: %s\n", name, why)
	}
	for _, f := range out.failures {
		fmt.Fprintln(w, f)
	}
	out.printTargets(w)
}

func (g *group) print(w io.Writer) {
	base := g.row("native")
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "candidate\twall\tmin-max\tx\twalsender\tsource\ttarget\tagents\tall CPU\tCPU of native\t")
	for _, r := range g.rows {
		times := make([]float64, len(r.samples))
		for i, s := range r.samples {
			times[i] = s.wall
		}
		speed, share := "", ""
		if base != nil {
			speed = fmt.Sprintf("%.2f", base.median(wall)/r.median(wall))
			share = fmt.Sprintf("%.2f", r.median(sample.cpu)/base.median(sample.cpu))
		}
		fmt.Fprintf(t, "%s\t%.2f\t%.2f-%.2f\t%s\t%.2f\t%.2f\t%.2f\t%.2f\t%.2f\t%s\t\n", r.name, r.median(wall), slices.Min(times), slices.Max(times), speed,
			r.median(func(s sample) float64 { return s.walsender }), r.median(func(s sample) float64 { return s.source }),
			r.median(func(s sample) float64 { return s.target }), r.median(func(s sample) float64 { return s.others }), r.median(sample.cpu), share)
	}
	t.Flush()
}

// writeResults puts everything into the file of results, whose remarks stay.
func (out *results) writeResults(path string) error {
	var b bytes.Buffer
	b.WriteString("```\n")
	out.print(&b)
	b.WriteString("```\n")
	return writeBetween(path, b.String())
}

const begin, end = "<!-- bench:begin -->", "<!-- bench:end -->"

// writeBetween replaces what stands between the two marks of a file.
func writeBetween(path, text string) error {
	old, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, rest, found := strings.Cut(string(old), begin)
	_, after, ended := strings.Cut(rest, end)
	if !found || !ended {
		return fmt.Errorf("%s has no place for results", path)
	}
	return os.WriteFile(path, []byte(before+begin+"\n"+text+end+after), 0o644)
}

// headline is the lines of the README.
func (out *results) headline() string {
	var b strings.Builder
	compare := func(name, against, text string) string {
		g := out.group(name)
		if g == nil || g.row("twinspan") == nil || g.row(against) == nil {
			return ""
		}
		return fmt.Sprintf(text, g.row(against).median(wall)/g.row("twinspan").median(wall))
	}
	join := func(begin string, parts ...string) {
		parts = slices.DeleteFunc(parts, func(s string) bool { return s == "" })
		if len(parts) > 0 {
			b.WriteString("- " + begin + strings.Join(parts, ", ") + ".\n")
		}
	}
	join("Catching up, as fast as a native subscription times: ", compare("tpcb", "native", "TPC-B %.1f"), compare("updates", "native", "updates %.1f"),
		compare("deletes", "native", "deletes %.1f"), compare("inserts", "native", "inserts %.1f"), compare("bulk", "native", "bulk %.1f"))
	join("First copy: ", compare("copy", "native", "%.1f times as fast as a native subscription"), compare("copy", "pgcopydb", "%.1f times as fast as pgcopydb"),
		compare("copy", "by-hand", "%.2f times as fast as COPY piped by hand and the indexes built after"))
	b.WriteString("- " + strings.Join(out.facts, "; ") + ": [all of it](bench/RESULTS.md).\n")
	return b.String()
}

// facts are the machine's.
func (r *rig) facts() []string {
	version, err := exec.Command(r.a.Binaries.Path("postgres"), "--version").Output()
	if err != nil {
		version = []byte("PostgreSQL of unknown version")
	}
	return []string{
		time.Now().UTC().Format("2 January 2006"),
		fmt.Sprintf("%d cores (%s), %s of memory", cores(), model(), memoryTotal()),
		strings.TrimSpace(string(version)) + " twice, " + runtime.Version() + ", all on one machine",
	}
}

func cores() int { return runtime.NumCPU() }

// procLine returns what follows a name in a file of /proc.
func procLine(file, name string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(text)) {
		if key, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(v)
		}
	}
	return "unknown"
}

func model() string { return procLine("/proc/cpuinfo", "model name") }

func memoryTotal() string {
	var kb int64
	if _, err := fmt.Sscanf(procLine("/proc/meminfo", "MemTotal"), "%d", &kb); err != nil {
		return "unknown size"
	}
	return fmt.Sprintf("%d GB", (kb+1<<19)>>20)
}
