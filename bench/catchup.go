package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/pg"
)

// sample is one timed run, in seconds.
type sample struct {
	wall      float64
	walsender float64 // CPU of the slot's backend
	source    float64 // CPU of the source's server, the walsender included
	target    float64 // CPU of the target's server
	others    float64 // CPU of agents or programs
}

func (s sample) cpu() float64 { return s.source + s.target + s.others }

// field is what runs followers against workloads.
type field struct {
	r         *rig
	followers []follower
	limits    []*limit // none when they are not asked for
	pairs     []*pair
	out       *results
	marker    int64
	before    lsn.LSN // end of the log before the last marker's row
}

// followCases runs every case that needs a followed database.
func followCases(ctx context.Context, r *rig, out *results) (err error) {
	wanted := func(name string) bool { return r.asked(r.cases, name) }
	if err := r.load(ctx); err != nil {
		return err
	}
	f := &field{r: r, out: out}
	defer f.close()
	if err := f.establish(ctx, out); err != nil {
		return err
	}
	failed := map[string]bool{}
	began := time.Now()
	for round := 0; r.another(round, began, followPart); round++ {
		for _, w := range workloads {
			if w.major != r.major || !wanted(w.name) || failed[w.name] {
				continue
			}
			if err := f.compete(ctx, w, round, out); err != nil {
				if ctx.Err() != nil {
					return err
				}
				failed[w.name] = true
				out.failed("case "+w.name, err)
			}
		}
	}
	for _, c := range []struct {
		name string
		run  func(context.Context, *results) error
	}{{"lag", f.lag}, {"memory", f.memory}, {"throughput", f.throughput}, {"large", f.large}} {
		if r.major != 0 || !wanted(c.name) {
			continue
		}
		r.say("%s", c.name)
		if err := c.run(ctx, out); err != nil {
			if ctx.Err() != nil {
				return err
			}
			out.failed("case "+c.name, err)
		}
	}
	return nil
}

// establish sets all followers up and lets them rest.
func (f *field) establish(ctx context.Context, out *results) error {
	r := f.r
	if err := r.a.exec(ctx, source, publicationSQL); err != nil {
		return err
	}
	has := func(name string) bool { return r.asked(r.candidates, name) }
	if has("limit") {
		f.limits = append(f.limits, &limit{r: r, label: "limit", over: r.overSource()})
		if r.twice() {
			f.limits = append(f.limits, &limit{r: r, label: "limit" + plain, over: overTCP})
		}
		for _, l := range f.limits {
			if err := l.establish(ctx); err != nil {
				return err
			}
		}
	}
	programs := slices.Clone(r.programs)
	if has("twinspan") {
		programs = append([]string{"twinspan=" + r.program}, programs...)
	}
	for _, p := range programs {
		label, path, _ := strings.Cut(p, "=")
		if err := f.addTwinspan(ctx, label, path, r.overSource(), r.over()); err != nil {
			return err
		}
		if r.twice() {
			if err := f.addTwinspan(ctx, label+plain, path, overTCP, overTCP); err != nil {
				return err
			}
		}
	}
	for _, n := range []*native{
		{r: r, label: "native", options: "binary = true"},
		{r: r, label: "native-text", options: "binary = false"},
		{r: r, label: "native-streaming", options: "binary = true, streaming = on", stream: true},
		{r: r, label: "native-parallel", options: "binary = true, streaming = parallel", stream: true, since: 16},
	} {
		if has(n.label) && r.b.Binaries.Major >= n.since {
			f.followers = append(f.followers, n)
		}
	}
	if has("pglogical") && r.major == 0 {
		if why := r.optional["pglogical"]; why != "" {
			out.missing("pglogical", why)
		} else {
			f.followers = append(f.followers, &pglogical{r})
		}
	}
	for _, c := range slices.Clone(f.followers) {
		r.say("%s: first copy", c.name())
		if err := f.begin(ctx, c); err != nil {
			if err := f.drop(ctx, c, "first copy", err); err != nil {
				return err
			}
		}
	}
	return nil
}

// begin sets a follower up and lets it rest.
func (f *field) begin(ctx context.Context, c follower) error {
	ctx, stop := f.patient(ctx)
	defer stop()
	if err := c.establish(ctx); err != nil {
		return err
	}
	return f.rest(ctx, c)
}

// patience is how long one thing with one follower may take at scale 1.
const patience = 6 * time.Minute

// patient bounds what is done with one follower, so that one that hangs costs its own
// results alone.
func (f *field) patient(ctx context.Context) (context.Context, context.CancelFunc) {
	limit := time.Duration(max(1, f.r.scale) * float64(patience))
	return context.WithTimeoutCause(ctx, limit, fmt.Errorf("it did not come to its end within %v", limit))
}

// drop takes a follower out of all that comes, for it failed. An error is the end of ctx.
func (f *field) drop(ctx context.Context, c follower, what string, why error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	f.out.failed(what+", "+c.name()+", which is left out from here on", why)
	f.followers = slices.DeleteFunc(f.followers, func(o follower) bool { return o == c })
	ctx, stop := context.WithTimeout(ctx, time.Minute)
	defer stop()
	// Its slot must not be active while others are measured. What broke may not obey.
	err := errors.Join(c.suspend(ctx), c.remove(ctx))
	if err != nil {
		f.r.say("%s is not removed: %v", c.name(), err)
	}
	return nil
}

// addTwinspan lets a build of Twinspan take part, whose agents reach their servers each
// in its way.
func (f *field) addTwinspan(ctx context.Context, label, program string, from, to way) error {
	p, err := f.r.newPair(ctx, label, program, from, to, nil)
	if err != nil {
		return err
	}
	f.pairs = append(f.pairs, p)
	f.followers = append(f.followers, &twinspan{r: f.r, label: label, pair: p, db: source})
	return nil
}

func (f *field) close() {
	for _, p := range f.pairs {
		_ = p.close()
	}
}

// rest suspends a follower once its slot has moved to the last marker, and waits until it
// has let go of it. One that has not would read the same log again at its next turn.
func (f *field) rest(ctx context.Context, c follower) error {
	err := until(ctx, 10*time.Millisecond, func() (bool, error) {
		return value[bool](ctx, f.r.a, "postgres", fmt.Sprintf(`SELECT coalesce(bool_and(confirmed_flush_lsn > '%s'), true) FROM pg_replication_slots WHERE active`, f.before))
	})
	if err != nil {
		return err
	}
	if err := c.suspend(ctx); err != nil {
		return err
	}
	return until(ctx, 10*time.Millisecond, func() (bool, error) {
		return value[bool](ctx, f.r.a, "postgres", `SELECT NOT EXISTS (SELECT FROM pg_replication_slots WHERE active)`)
	})
}

// mark writes the row by which followers are seen to have come to the end, and
// returns the end of the log behind it.
func (f *field) mark(ctx context.Context) (end lsn.LSN, err error) {
	f.marker++
	if f.before, err = f.head(ctx); err != nil {
		return 0, err
	}
	if err := f.r.a.exec(ctx, source, fmt.Sprintf("INSERT INTO bench_marker VALUES (%d)", f.marker)); err != nil {
		return 0, err
	}
	return f.head(ctx)
}

// head is the end of the source's log.
func (f *field) head(ctx context.Context) (lsn.LSN, error) {
	text, err := value[string](ctx, f.r.a, source, `SELECT pg_current_wal_insert_lsn()::text`)
	if err != nil {
		return 0, err
	}
	return lsn.Parse(text)
}

// compete makes a backlog and lets every candidate catch up with it.
func (f *field) compete(ctx context.Context, w workload, round int, out *results) error {
	r := f.r
	n := r.amount(w.count)
	if w.prepare != nil {
		if err := w.prepare(ctx, r, n); err != nil {
			return err
		}
	}
	// A slot is read from where decoding can begin: a checkpoint that it has passed. All
	// pass this one, so that everybody decodes the backlog and nothing before it.
	if err := r.a.exec(ctx, source, "VACUUM ANALYZE", "CHECKPOINT"); err != nil {
		return err
	}
	if err := f.drainAll(ctx, workload{}, nil); err != nil {
		return err
	}
	for i, l := range f.limits {
		l.turn = round + 1 + i
		if err := l.advance(ctx); err != nil {
			return err
		}
	}
	r.say("round %d, %s: making the backlog", round+1, w.name)
	if err := w.run(ctx, r, n); err != nil {
		return err
	}
	order := slices.Clone(f.followers)
	if len(order) > 0 {
		order = append(order[round%len(order):], order[:round%len(order)]...)
	}
	if err := f.drainAll(ctx, w, func(name string, s sample) {
		out.add(w.name, w.title, name, s)
		r.say("round %d, %s: %-17s %6.2f s wall, cpu %5.2f source (walsender %5.2f) %5.2f target %5.2f agents", round+1, w.name, name,
			s.wall, s.source, s.walsender, s.target, s.others)
	}, order...); err != nil {
		return err
	}
	return f.compare(ctx, w)
}

// drainAll marks the end and lets everybody come to it; timed when there is somebody
// to tell.
func (f *field) drainAll(ctx context.Context, w workload, tell func(string, sample), order ...follower) error {
	end, err := f.mark(ctx)
	if err != nil {
		return err
	}
	if len(order) == 0 {
		order = slices.Clone(f.followers)
	}
	for i, c := range order {
		// A limit takes its turn like everybody, for who is first finds the log cold.
		for _, l := range f.limits {
			if tell == nil || i != l.turn%len(order) {
				continue
			}
			s, err := l.drain(ctx, end-1)
			if err != nil {
				return fmt.Errorf("%s: %w", l.label, err)
			}
			tell(l.label, s)
		}
		s, err := f.drain(ctx, w, c, tell != nil)
		if err != nil {
			if err := f.drop(ctx, c, "case "+w.name, err); err != nil {
				return err
			}
			continue
		}
		if tell != nil && c.takes(w) {
			tell(c.name(), s)
		}
	}
	return nil
}

// drain resumes a follower, waits for the marker, and suspends it again.
func (f *field) drain(ctx context.Context, w workload, c follower, timed bool) (s sample, err error) {
	ctx, stop := f.patient(ctx)
	defer stop()
	r := f.r
	watch, err := r.b.dsn(c.database()).Connect(ctx, session())
	if err != nil {
		return s, err
	}
	defer watch.Close(context.WithoutCancel(ctx))
	slots, err := r.a.dsn("postgres").Connect(ctx, session())
	if err != nil {
		return s, err
	}
	defer slots.Close(context.WithoutCancel(ctx))
	if timed {
		if err := r.b.exec(ctx, "postgres", "CHECKPOINT"); err != nil {
			return s, err
		}
	}
	stopProfile := func() {}
	if t, ok := c.(*twinspan); ok && timed {
		stopProfile = r.profile(ctx, t, w.name, 3)
	}
	m := r.measure(c.pids(), []int{int(watch.PgConn().PID())})
	if err := c.resume(ctx); err != nil {
		return s, err
	}
	// The clock starts with the walsender: how soon a candidate takes notice of being
	// resumed is no question of speed.
	var walsender int
	err = until(ctx, 2*time.Millisecond, func() (bool, error) {
		err := slots.QueryRow(ctx, `SELECT coalesce(max(active_pid), 0) FROM pg_replication_slots WHERE active`).Scan(&walsender)
		return walsender != 0, err
	})
	if err != nil {
		return s, err
	}
	began := time.Now()
	err = until(ctx, 10*time.Millisecond, func() (bool, error) {
		var there bool
		err := watch.QueryRow(ctx, fmt.Sprintf(`SELECT EXISTS (SELECT FROM bench_marker WHERE n = %d)`, f.marker)).Scan(&there)
		if err == nil && !there && time.Since(began) > 10*time.Second {
			err = f.alive(ctx, c)
		}
		return there, err
	})
	if err != nil {
		return s, err
	}
	s.wall = time.Since(began).Seconds()
	u := m.spent()
	s.walsender = ownCPU(walsender)
	s.source, s.target, s.others = u.source, u.target, u.others
	stopProfile()
	return s, f.rest(ctx, c)
}

// alive finds out why a follower takes long: a broken link never comes to the end.
func (f *field) alive(ctx context.Context, c follower) error {
	t, ok := c.(*twinspan)
	if !ok {
		return nil
	}
	l, err := t.pair.b.client.Link(ctx, t.link())
	if err == nil && l.Phase == "broken" {
		return fmt.Errorf("link %s broke: %+v", t.link(), l.Problems)
	}
	return nil
}

// compare sees that the copies equal the source, by count and hash of all rows. A follower
// whose copy does not has failed.
func (f *field) compare(ctx context.Context, w workload) error {
	for _, c := range slices.Clone(f.followers) {
		if !c.takes(workload{keyless: w.keyless, large: true}) {
			continue
		}
		if err := f.compareOne(ctx, c, w.tables); err != nil {
			if err := f.drop(ctx, c, "case "+w.name, err); err != nil {
				return err
			}
		}
	}
	return nil
}

// compareOne compares tables of one follower's copy with the source.
func (f *field) compareOne(ctx context.Context, c follower, tables []string) error {
	want, err := digests(ctx, f.r.a.dsn(source), tables)
	if err != nil {
		return err
	}
	got, err := digests(ctx, f.r.b.dsn(c.database()), tables)
	if err != nil {
		return err
	}
	for _, table := range tables {
		if got[table] != want[table] {
			return fmt.Errorf("table %s differs from the source: %s there, %s here", table, got[table], want[table])
		}
	}
	return nil
}

// digests counts and hashes the rows of tables.
func digests(ctx context.Context, dsn *pg.DSN, tables []string) (map[string]string, error) {
	conn, err := dsn.Connect(ctx, session())
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	out := map[string]string{}
	for _, t := range tables {
		var digest string
		err := conn.QueryRow(ctx, fmt.Sprintf(`SELECT count(*) || ' rows, ' || coalesce(sum(hashtextextended(t::text, 0)::numeric), 0) FROM %s t`, t)).Scan(&digest)
		if err != nil {
			return nil, err
		}
		out[t] = digest
	}
	return out, nil
}
