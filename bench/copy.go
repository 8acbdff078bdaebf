package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// original is the database of the first copy, copied the copy.
const original, copied = "original", "copied"

// copyPart, followPart and throughputPart are the parts of the limit that may have passed
// after the rounds of first copies, catch-ups and throughput.
const copyPart, followPart, throughputPart = 0.3, 0.8, 0.97

// copyPatience is how long one copy may take.
const copyPatience = 10 * time.Minute

const wideRows = 250_000 // about 2 kB each

// copier makes a first copy of original as copied, into a server without it, and
// returns the CPU seconds of programs besides the servers.
type copier struct {
	name    string
	copy    func(ctx context.Context) (float64, error)
	link    *twinspan // nil for others
	cleanup func(ctx context.Context) error
	once    bool // one round is enough, for it takes long
	// whole says that the copy has indexes and foreign keys, too.
	whole bool
}

// copyCases compares first copies.
func copyCases(ctx context.Context, r *rig, out *results) error {
	if err := r.loadOriginal(ctx); err != nil {
		return err
	}
	list, done, err := r.copiers(ctx, out)
	if err != nil {
		return err
	}
	defer done()
	tables, err := r.tables(ctx)
	if err != nil {
		return err
	}
	want, err := digests(ctx, r.a.dsn(original), tables)
	if err != nil {
		return err
	}
	failed := map[string]bool{}
	began := time.Now()
	for round := 0; r.another(round, began, copyPart); round++ {
		for i := range list {
			c := list[(i+round)%len(list)]
			if c.once && round > 0 || failed[c.name] {
				continue
			}
			s, err := r.tryCopy(ctx, c, want)
			if err != nil {
				if ctx.Err() != nil {
					return err
				}
				failed[c.name] = true
				out.failed("first copy by "+c.name, err)
				continue
			}
			out.add("copy", "first copy of pgbench scale 50, a wide table of 500 MB and 20 small ones", c.name, s)
			r.say("round %d, copy: %-20s %6.2f s wall, cpu %5.2f source %5.2f target %5.2f others", round+1, c.name, s.wall, s.source, s.target, s.others)
		}
	}
	return r.a.exec(ctx, "postgres", "DROP DATABASE "+original+" WITH (FORCE)")
}

// tryCopy times a copy and compares it. Whatever comes of it, the copy is removed.
func (r *rig) tryCopy(ctx context.Context, c copier, want map[string]string) (s sample, err error) {
	limited, stop := context.WithTimeoutCause(ctx, copyPatience, fmt.Errorf("it took longer than %v", copyPatience))
	defer stop()
	defer func() {
		again := errors.Join(c.cleanup(ctx), r.b.exec(ctx, "postgres", "DROP DATABASE IF EXISTS "+copied+" WITH (FORCE)"))
		if again != nil {
			err = errors.Join(err, fmt.Errorf("remove the copy: %w", again))
		}
	}()
	if s, err = r.timeCopy(limited, c); err != nil {
		return s, err
	}
	tables := slices.Collect(maps.Keys(want))
	got, err := digests(ctx, r.b.dsn(copied), tables)
	if err != nil {
		return s, err
	}
	for _, t := range tables {
		if got[t] != want[t] {
			return s, fmt.Errorf("table %s has %s instead of %s", t, got[t], want[t])
		}
	}
	return s, r.sameIndexes(ctx, c)
}

func (r *rig) timeCopy(ctx context.Context, c copier) (sample, error) {
	var s sample
	for _, server := range []*server{r.a, r.b} {
		if err := server.exec(ctx, "postgres", "CHECKPOINT"); err != nil {
			return s, err
		}
	}
	var pids []int
	if c.link != nil {
		pids = c.link.pids()
		defer r.profile(ctx, c.link, "copy", 6)()
	}
	m := r.measure(pids, nil)
	began := time.Now()
	others, err := c.copy(ctx)
	if err != nil {
		return s, err
	}
	s.wall = time.Since(began).Seconds()
	u := m.spent()
	s.source, s.target, s.others = u.source, u.target, u.others+others
	return s, nil
}

// sameIndexes sees that a whole copy has everything that the original has.
func (r *rig) sameIndexes(ctx context.Context, c copier) error {
	if !c.whole {
		return nil
	}
	const count = `SELECT (SELECT count(*) FROM pg_indexes WHERE schemaname = 'public') || ' indexes, ' || (SELECT count(*) FROM pg_constraint
		WHERE connamespace = 'public'::regnamespace AND convalidated) || ' constraints'`
	want, err := value[string](ctx, r.a, original, count)
	if err != nil {
		return err
	}
	got, err := value[string](ctx, r.b, copied, count)
	if err == nil && got != want {
		err = fmt.Errorf("the copy by %s has %s instead of %s", c.name, got, want)
	}
	return err
}

// loadOriginal makes the database to copy.
func (r *rig) loadOriginal(ctx context.Context) error {
	r.say("loading the database to copy")
	if err := r.a.exec(ctx, "postgres", "CREATE DATABASE "+original); err != nil {
		return err
	}
	args := []string{"-i", "-q", "--foreign-keys", "-s", strconv.Itoa(r.amount(50)), r.a.conninfo(original, overSocket)}
	if _, err := command(ctx, nil, r.a.program("pgbench"), args...); err != nil {
		return err
	}
	statements := []string{
		`CREATE TABLE wide (id bigint PRIMARY KEY, title text NOT NULL, body text, data jsonb, at timestamptz)`,
		fmt.Sprintf(`INSERT INTO wide SELECT i, 'title ' || i, (SELECT string_agg(md5((i * 40 + j)::text), ' ') FROM generate_series(1, 40) j),
			jsonb_build_object('id', i, 'name', md5(i::text), 'tags', jsonb_build_array('a', i %% 10, md5('t' || i))), now() + i * interval '1 second'
			FROM generate_series(1, %d) i`, r.amount(wideRows)),
		`CREATE INDEX ON wide (at)`, `CREATE INDEX ON wide (title)`,
	}
	for i := range 20 {
		statements = append(statements, fmt.Sprintf(`CREATE TABLE small_%[1]d (id int PRIMARY KEY, wide bigint REFERENCES wide, name text UNIQUE)`, i),
			fmt.Sprintf(`INSERT INTO small_%d SELECT i, i, 'name ' || i FROM generate_series(1, %d) i`, i, min(2000, r.amount(wideRows))))
	}
	return r.a.exec(ctx, original, append(statements, `CREATE PUBLICATION `+publication+` FOR ALL TABLES`, "VACUUM ANALYZE", "CHECKPOINT")...)
}

func (r *rig) tables(ctx context.Context) ([]string, error) {
	return value[[]string](ctx, r.a, original, `SELECT array_agg(oid::regclass::text ORDER BY pg_relation_size(oid) DESC) FROM pg_class
		WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace`)
}

// copiers lists who takes part. done ends what runs for them.
func (r *rig) copiers(ctx context.Context, out *results) (list []copier, done func(), err error) {
	nothing := func(context.Context) error { return nil }
	var pairs []*pair
	done = func() {
		for _, p := range pairs {
			_ = p.close()
		}
	}
	programs := slices.Clone(r.programs)
	if r.asked(r.candidates, "twinspan") {
		programs = append([]string{"twinspan=" + r.program}, programs...)
	}
	for _, program := range programs {
		label, path, _ := strings.Cut(program, "=")
		p, err := r.newPair(ctx, label+"-copy", path, r.overSource(), r.over(), nil)
		if err != nil {
			done()
			return nil, nil, err
		}
		pairs = append(pairs, p)
		list = append(list, r.linkCopier(label, p))
	}
	has := func(name string) bool { return r.asked(r.candidates, name) }
	if has("native") {
		list = append(list, copier{name: "native", whole: true, copy: r.nativeCopy(false), cleanup: r.dropSubscription},
			copier{name: "native-index-after", whole: true, copy: r.nativeCopy(true), cleanup: r.dropSubscription})
	}
	if has("pgcopydb") {
		if why := r.optional["pgcopydb"]; why != "" {
			out.missing("pgcopydb", why)
		} else {
			list = append(list, copier{name: "pgcopydb", whole: true, copy: r.pgcopydb, cleanup: nothing})
		}
	}
	if has("pg_dump") {
		list = append(list, copier{name: "pg_dump", whole: true, copy: r.pgDump, cleanup: nothing})
	}
	if has("by-hand") {
		list = append(list, copier{name: "by-hand", whole: true, copy: r.byHand("after"), cleanup: nothing},
			copier{name: "by-hand-bare", copy: r.byHand("none"), cleanup: nothing},
			copier{name: "by-hand-index-before", whole: true, once: true, copy: r.byHand("before"), cleanup: nothing})
	}
	return list, done, nil
}

// linkCopier is a link until it replicates.
func (r *rig) linkCopier(label string, p *pair) copier {
	t := &twinspan{r: r, label: label, pair: p, db: original}
	return copier{name: label, whole: true,
		link: t,
		copy: func(ctx context.Context) (float64, error) {
			_, err := p.a.client.CreateLink(ctx, api.CreateLink{Name: t.link(), Database: original, Peer: p.b.label, PeerDatabase: copied})
			if err != nil {
				return 0, err
			}
			return 0, t.reach(ctx, 10*time.Millisecond, api.CatchingUp, api.Replicating)
		},
		cleanup: func(ctx context.Context) error { return t.remove(ctx) },
	}
}

func (r *rig) nativeCopy(indexesAfter bool) func(context.Context) (float64, error) {
	return func(ctx context.Context) (float64, error) {
		section := ""
		if indexesAfter {
			section = "pre-data"
		}
		if err := r.b.exec(ctx, "postgres", "CREATE DATABASE "+copied); err != nil {
			return 0, err
		}
		if err := r.restore(ctx, original, copied, section); err != nil {
			return 0, err
		}
		err := r.b.exec(ctx, copied, `CREATE SUBSCRIPTION bench_copy CONNECTION `+sqlname.Literal(r.publisher(original))+
			` PUBLICATION `+publication+` WITH (binary = true)`)
		if err != nil {
			return 0, err
		}
		if err := r.subscribed(ctx, copied); err != nil || !indexesAfter {
			return 0, err
		}
		return 0, r.restore(ctx, original, copied, "post-data")
	}
}

func (r *rig) dropSubscription(ctx context.Context) error {
	return r.b.exec(ctx, copied, "DROP SUBSCRIPTION bench_copy")
}

func (r *rig) pgcopydb(ctx context.Context) (float64, error) {
	if err := r.b.exec(ctx, "postgres", "CREATE DATABASE "+copied); err != nil {
		return 0, err
	}
	jobs := strconv.Itoa(cores())
	return command(ctx, nil, "pgcopydb", "clone", "--dir", r.dir+"/pgcopydb", "--restart", "--table-jobs", jobs, "--index-jobs", jobs, "--no-owner", "--no-acl",
		"--source", r.a.conninfo(original, r.overSource()), "--target", r.b.conninfo(copied, r.over()))
}

func (r *rig) pgDump(ctx context.Context) (float64, error) {
	if err := r.b.exec(ctx, "postgres", "CREATE DATABASE "+copied); err != nil {
		return 0, err
	}
	return command(ctx, nil, "bash", "-o", "pipefail", "-c", `"$0" --schema=public --no-publications -Z0 -Fc "$1" | "$2" -d "$3" --clean --if-exists`,
		r.a.program("pg_dump"), r.a.conninfo(original, r.overSource()), r.b.program("pg_restore"), r.b.conninfo(copied, r.over()))
}

// byHand pipes COPY from server to server, as many tables at once as there are cores;
// indexes and constraints are made before, after, or not at all.
func (r *rig) byHand(indexes string) func(context.Context) (float64, error) {
	return func(ctx context.Context) (float64, error) {
		section := "pre-data"
		if indexes == "before" {
			section = ""
		}
		if err := r.b.exec(ctx, "postgres", "CREATE DATABASE "+copied); err != nil {
			return 0, err
		}
		if err := r.restore(ctx, original, copied, section); err != nil {
			return 0, err
		}
		tables, err := r.tables(ctx)
		if err != nil {
			return 0, err
		}
		var cpu atomic.Int64
		group, inner := errgroup.WithContext(ctx)
		group.SetLimit(cores())
		for _, t := range tables {
			group.Go(func() error {
				spent, err := r.pipe(inner, t)
				cpu.Add(int64(spent * 1e9))
				return err
			})
		}
		if err := group.Wait(); err != nil || indexes != "after" {
			return float64(cpu.Load()) / 1e9, err
		}
		return float64(cpu.Load()) / 1e9, r.restore(ctx, original, copied, "post-data")
	}
}

// pipe copies a table from psql to psql.
func (r *rig) pipe(ctx context.Context, table string) (float64, error) {
	const script = `"$0" -qXd "$1" -c "COPY $3 TO STDOUT (FORMAT binary)" | PGOPTIONS='-c session_replication_role=replica -c synchronous_commit=off' "$0" -qXd "$2" -c "COPY $3 FROM STDIN (FORMAT binary)"`
	cmd := exec.CommandContext(ctx, "bash", "-o", "pipefail", "-c", script, r.a.program("psql"),
		r.a.conninfo(original, r.overSource()), r.b.conninfo(copied, r.over()), table)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	out, err := cmd.CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("pipe %s: %w\n%s", table, err, out)
	}
	return (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds(), nil
}
