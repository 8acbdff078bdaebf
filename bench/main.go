// Command bench compares Twinspan with what else there is to copy and follow a
// PostgreSQL database: native logical replication, pglogical, pgcopydb, pg_dump,
// and with what the machine allows at best. It starts servers of its own, runs
// every case for every candidate in turn, several rounds, checks that both sides
// end equal, and prints medians and ratios. docs: bench/README.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/twinspan/twinspan/internal/instance"
	"github.com/twinspan/twinspan/internal/problem"
)

// options are the flags.
type options struct {
	cases      []string
	candidates []string
	programs   []string // LABEL=PATH of other builds of twinspan to compare with
	rounds     int
	limit      time.Duration
	began      time.Time
	scale      float64
	socket     bool   // everybody reads the source through its Unix socket
	tls        bool   // sessions over TCP have TLS
	dir        string // where to make the temporary directory
	profiles   string // directory for CPU profiles of the agents
	write      bool   // bench/RESULTS.md and the README's headline
}

func main() {
	o, err := parse(os.Args[1:])
	if err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "error:", err)
		}
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "error:", problem.As(err))
		os.Exit(1)
	}
}

func parse(args []string) (options, error) {
	var o options
	var cases, candidates, programs string
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.StringVar(&cases, "cases", "all", "comma-separated: all, "+strings.Join(caseNames(), ", "))
	f.StringVar(&candidates, "candidates", "all", "comma-separated: all, "+strings.Join(candidateNames, ", "))
	f.StringVar(&programs, "programs", "", "comma-separated LABEL=PATH: other builds of twinspan, as candidates of their own")
	f.IntVar(&o.rounds, "rounds", 3, "how often each case runs")
	f.DurationVar(&o.limit, "limit", 25*time.Minute, "about how long all of it may take: rounds behind the first are left out that would not fit; 0 is no limit")
	f.Float64Var(&o.scale, "scale", 1, "size of the data and of the backlogs; 1 is what the published table has")
	f.BoolVar(&o.socket, "socket", false, "let everybody read the source through its Unix socket rather than TCP")
	f.BoolVar(&o.tls, "tls", true, "TLS between everybody and the servers, as most servers have it; twinspan, the limit and other builds take part once more without")
	f.StringVar(&o.dir, "dir", "", "where to make the temporary directory for the servers' data")
	f.StringVar(&o.profiles, "profiles", "", "directory for CPU profiles of both agents during each copy and catch-up")
	f.BoolVar(&o.write, "write", false, "write bench/RESULTS.md and the headline in README.md")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	o.cases = expand(cases, caseNames())
	o.candidates = expand(candidates, candidateNames)
	if programs != "" {
		o.programs = strings.Split(programs, ",")
	}
	for _, c := range o.cases {
		if !slices.Contains(caseNames(), c) {
			return o, fmt.Errorf("there is no case %q", c)
		}
	}
	for _, c := range o.candidates {
		if !slices.Contains(candidateNames, c) {
			return o, fmt.Errorf("there is no candidate %q", c)
		}
	}
	o.began = time.Now()
	if o.rounds < 1 || o.scale <= 0 {
		return o, errors.New("rounds and scale must be positive")
	}
	return o, nil
}

func expand(list string, all []string) []string {
	if list == "all" {
		return all
	}
	return strings.Split(list, ",")
}

// run makes the rig, runs the cases and reports. Whatever happens, nothing is left.
func run(ctx context.Context, o options) (err error) {
	var root string
	if o.write {
		if root, err = moduleRoot(ctx); err != nil {
			return err
		}
	}
	results := &results{rounds: o.rounds, scale: o.scale}
	for _, s := range sections {
		if !slices.ContainsFunc(s.cases(), func(c string) bool { return slices.Contains(o.cases, c) }) {
			continue
		}
		if err := s.in(ctx, o, results); err != nil {
			if ctx.Err() != nil {
				results.print(os.Stdout) // what was measured so far
				return err
			}
			results.failed("cases "+strings.Join(s.cases(), ", "), err)
		}
	}
	results.print(os.Stdout)
	if o.write {
		if err := results.writeResults(filepath.Join(root, "bench", "RESULTS.md")); err != nil {
			return err
		}
		if err := writeBetween(filepath.Join(root, "README.md"), results.headline()); err != nil {
			return err
		}
	}
	if n := len(results.failures); n > 0 {
		return fmt.Errorf("%d failures, which are named above", n)
	}
	return nil
}

// another says whether a round is begun, after round others that took from a time on, when
// a part of the limit is all that may have passed at its end.
func (o *options) another(round int, from time.Time, part float64) bool {
	if round == 0 || o.limit == 0 || round >= o.rounds {
		return round < o.rounds
	}
	one := time.Since(from) / time.Duration(round)
	return time.Since(o.began)+one <= time.Duration(part*float64(o.limit))
}

// section is some cases that share a rig.
type section struct {
	cases     func() []string
	run       func(context.Context, *rig, *results) error
	major     int  // of the servers; 0 is the newest that is installed
	pglogical bool // its workers run in the servers, where DROP DATABASE waits for them without end
}

var sections = []section{
	{cases: func() []string { return []string{"copy"} }, run: copyCases},
	{cases: func() []string { return []string{"slow"} }, run: slowCase},
	{cases: followNames, run: followCases, pglogical: true},
	{cases: func() []string { return namesOf(parallelMajor) }, run: followCases, major: parallelMajor},
}

// parallelMajor is a version whose subscriptions apply large transactions in parallel.
const parallelMajor = 18

// in runs a section in a rig of its own, of which nothing is left.
func (s section) in(ctx context.Context, o options, out *results) (err error) {
	if _, err := instance.FindBinaries(s.major); err != nil && s.major != 0 {
		out.missing(strings.Join(s.cases(), ", "), err.Error())
		return nil
	}
	r, err := newRig(ctx, o, s.major, s.pglogical && slices.Contains(o.candidates, "pglogical"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	if s.major == 0 || out.facts == nil {
		out.facts = r.facts()
	}
	return s.run(ctx, r, out)
}

func caseNames() []string {
	var names []string
	for _, s := range sections {
		names = append(names, s.cases()...)
	}
	return names
}

func followNames() []string {
	return append(namesOf(0), "lag", "throughput", "memory", "large")
}

// namesOf are the workloads on servers of a version.
func namesOf(major int) []string {
	var names []string
	for _, w := range workloads {
		if w.major == major {
			names = append(names, w.name)
		}
	}
	return names
}
