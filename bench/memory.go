package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/twinspan/twinspan/internal/terminal"
)

// largeRows is how many rows of 8 kB the large transaction has: 5 GB.
const largeRows = 655_360

// memory tells what the agents hold, after all cases before, and what they spend
// while nothing happens.
func (f *field) memory(ctx context.Context, out *results) error {
	for _, c := range f.followers {
		t, ok := c.(*twinspan)
		if !ok {
			continue
		}
		err := f.awake(ctx, c, func(ctx context.Context) error {
			m := f.r.measure(t.pids(), nil)
			const span = 20 * time.Second
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-time.After(span):
			}
			spent := m.spent()
			for _, g := range []*agent{t.pair.a, t.pair.b} {
				now, peak := memory(g.pid())
				out.line("memory of agent %-14s idle %s, at most %s in all cases before", g.label, terminal.Size(now), terminal.Size(peak))
				if t.label == "twinspan" {
					out.number("memory idle", max(out.numbers["memory idle"], float64(now)/(1<<20)))
				}
			}
			out.line("idle CPU, share of a core: agents %.2f %%, source %.2f %%, target %.2f %%", 100*spent.others/span.Seconds(),
				100*spent.source/span.Seconds(), 100*spent.target/span.Seconds())
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// large lets the agents follow one transaction of 5 GB and tells what they held. It is the
// last case, for the others do not follow it.
func (f *field) large(ctx context.Context, out *results) error {
	for _, c := range f.followers {
		t, ok := c.(*twinspan)
		if !ok || t.label != "twinspan" {
			continue
		}
		n := f.r.amount(largeRows)
		f.r.say("large: one transaction of %s", terminal.Size(int64(n)<<13))
		err := f.r.a.exec(ctx, source, `CREATE TABLE large (id int PRIMARY KEY, body text)`, `ALTER TABLE large ALTER body SET STORAGE EXTERNAL`,
			fmt.Sprintf(`INSERT INTO large SELECT i, repeat(md5(i::text), 256) FROM generate_series(1, %d) i`, n))
		if err != nil {
			return err
		}
		for _, pid := range t.pids() {
			// The peak is counted from here on (proc(5), clear_refs).
			if err := os.WriteFile(filepath.Join("/proc", strconv.Itoa(pid), "clear_refs"), []byte("5"), 0); err != nil {
				return err
			}
		}
		m := f.r.measure(t.pids(), nil)
		began := time.Now()
		if err := f.awake(ctx, c, func(context.Context) error { return nil }); err != nil {
			return err
		}
		spent := m.spent()
		var most int64
		for _, g := range []*agent{t.pair.a, t.pair.b} {
			_, peak := memory(g.pid())
			most = max(most, peak)
			out.line("large: agent %-14s held at most %s", g.label, terminal.Size(peak))
		}
		out.number("memory large", float64(most)/(1<<20))
		out.line("large: one transaction of %s took %.1f s, cpu %.1f source %.1f target %.1f agents", terminal.Size(int64(n)<<13),
			time.Since(began).Seconds(), spent.source, spent.target, spent.others)
		return f.compareOne(ctx, c, []string{"large"})
	}
	return nil
}
