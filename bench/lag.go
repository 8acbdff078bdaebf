package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// probes is how many commits are followed from one side to the other.
	probes = 400
	// loadRate is the transactions a second beside them.
	loadRate = 300
	// throughputSeconds is how long pgbench runs for each candidate.
	throughputSeconds = 15
)

// lag measures how long a commit takes to become visible on the copy.
func (f *field) lag(ctx context.Context, out *results) error {
	for _, c := range slices.Clone(f.followers) {
		if !c.takes(workload{}) {
			continue
		}
		if err := f.awake(ctx, c, func(ctx context.Context) error { return f.lagOn(ctx, out, c.name(), f.r.b, c.database()) }); err != nil {
			if err := f.drop(ctx, c, "lag", err); err != nil {
				return err
			}
		}
	}
	if f.r.asked(f.r.candidates, "standby") {
		return f.standbyLag(ctx, out)
	}
	return nil
}

// lagOn measures how long a commit takes to be visible in a database, idle and under load.
func (f *field) lagOn(ctx context.Context, out *results, name string, on *server, database string) error {
	idle, err := f.probe(ctx, on, database)
	if err != nil {
		return err
	}
	stop, err := f.load(ctx, "-R", strconv.Itoa(loadRate), "-T", "3600")
	if err != nil {
		return err
	}
	defer stop()
	busy, err := f.probe(ctx, on, database)
	if err != nil {
		return err
	}
	for when, list := range map[string][]float64{"idle": idle, "busy": busy} {
		out.number("lag "+when+" p50 "+name, quantile(list, 0.5))
		out.number("lag "+when+" p99 "+name, quantile(list, 0.99))
	}
	out.line("lag of %-17s idle: %s;  at %d transactions a second: %s", name, spread(idle), loadRate, spread(busy))
	return nil
}

func spread(ms []float64) string {
	return fmt.Sprintf("p50 %5.2f ms, p99 %6.2f ms, worst %6.2f ms", quantile(ms, 0.5), quantile(ms, 0.99), quantile(ms, 1))
}

// awake runs something while a follower follows.
func (f *field) awake(ctx context.Context, c follower, do func(context.Context) error) error {
	ctx, stop := f.patient(ctx)
	defer stop()
	if _, err := f.mark(ctx); err != nil {
		return err
	}
	if err := c.resume(ctx); err != nil {
		return err
	}
	if err := f.arrived(ctx, c); err != nil {
		return err
	}
	if err := do(ctx); err != nil {
		return err
	}
	if _, err := f.mark(ctx); err != nil {
		return err
	}
	if err := f.arrived(ctx, c); err != nil {
		return err
	}
	return f.rest(ctx, c)
}

// arrived waits for the last marker.
func (f *field) arrived(ctx context.Context, c follower) error {
	return until(ctx, 20*time.Millisecond, func() (bool, error) {
		return value[bool](ctx, f.r.b, c.database(), fmt.Sprintf(`SELECT EXISTS (SELECT FROM bench_marker WHERE n = %d)`, f.marker))
	})
}

// probe commits rows and times, in milliseconds, until they are seen.
func (f *field) probe(ctx context.Context, on *server, database string) ([]float64, error) {
	write, err := f.r.a.dsn(source).Connect(ctx, session())
	if err != nil {
		return nil, err
	}
	defer write.Close(context.WithoutCancel(ctx))
	watch, err := on.dsn(database).Connect(ctx, session())
	if err != nil {
		return nil, err
	}
	defer watch.Close(context.WithoutCancel(ctx))
	if _, err := write.Exec(ctx, "SET synchronous_commit = on"); err != nil {
		return nil, err
	}
	var took []float64
	for range probes {
		f.marker++
		if _, err := write.Exec(ctx, fmt.Sprintf("INSERT INTO bench_marker VALUES (%d)", f.marker)); err != nil {
			return nil, err
		}
		began := time.Now()
		for there := false; !there; {
			if err := watch.QueryRow(ctx, fmt.Sprintf(`SELECT EXISTS (SELECT FROM bench_marker WHERE n = %d)`, f.marker)).Scan(&there); err != nil {
				return nil, err
			}
			if !there {
				// The runtime's timers take a millisecond where a processor idles.
				pause := unix.NsecToTimespec(50_000)
				_ = unix.Nanosleep(&pause, nil)
			}
		}
		took = append(took, float64(time.Since(began).Microseconds())/1000)
		time.Sleep(time.Duration(10+rand.N(20)) * time.Millisecond)
	}
	return took, nil
}

// load runs pgbench in the background until stop is called.
func (f *field) load(ctx context.Context, args ...string) (stop func(), err error) {
	cmd := exec.CommandContext(ctx, f.r.a.program("pgbench"), append(append([]string{"-n", "-c", "4", "-j", "2"}, args...), f.r.a.conninfo(source, overSocket))...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return func() {
		_ = cmd.Process.Signal(syscall.SIGINT) // it may have ended
		_ = cmd.Wait()
	}, nil
}

// throughput measures what the primary's application gets done beside a follower.
func (f *field) throughput(ctx context.Context, out *results) error {
	rates := map[string][]float64{}
	names := []string{"nobody"}
	for _, c := range f.followers {
		names = append(names, c.name())
	}
	began := time.Now()
	for round := 0; f.r.another(round, began, throughputPart); round++ {
		rate, err := f.rate(ctx)
		if err != nil {
			return err
		}
		rates["nobody"] = append(rates["nobody"], rate)
		for _, c := range slices.Clone(f.followers) {
			if !c.takes(workload{}) {
				continue
			}
			err := f.awake(ctx, c, func(ctx context.Context) error {
				rate, err := f.rate(ctx)
				rates[c.name()] = append(rates[c.name()], rate)
				f.r.say("round %d, throughput: %.0f beside %s", round+1, rate, c.name())
				return err
			})
			if err != nil {
				if err := f.drop(ctx, c, "throughput", err); err != nil {
					return err
				}
			}
		}
	}
	for _, name := range names {
		if len(rates[name]) > 0 {
			out.number("throughput "+name, quantile(rates[name], 0.5))
			out.line("throughput of the primary beside %-17s %6.0f transactions a second", name, quantile(rates[name], 0.5))
		}
	}
	return nil
}

// rate runs pgbench and returns its transactions a second.
func (f *field) rate(ctx context.Context) (float64, error) {
	cmd := exec.CommandContext(ctx, f.r.a.program("pgbench"), "-n", "-c", "4", "-j", "2", "-T", strconv.Itoa(throughputSeconds), f.r.a.conninfo(source, overSocket))
	out, err := cmd.Output()
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(out), "tps = ")
	number, _, _ := strings.Cut(rest, " ")
	return strconv.ParseFloat(number, 64)
}
