package test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/instance"
	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// pgbench runs the distribution's benchmark program against a database.
func pgbench(t *testing.T, ctx context.Context, s *linktest.Side, database string, args ...string) error {
	t.Helper()
	path, _, err := instance.FindClient("pgbench", 0)
	if err != nil {
		t.Fatal(err)
	}
	args = append(args, "-n", s.Server.AppDSN(database))
	out, err := exec.CommandContext(ctx, path, args...).CombinedOutput()
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("pgbench %v: %w\n%s", args, err, out[max(0, len(out)-500):])
	}
	return nil
}

// scale is the size of the database of the chaos test; TWINSPAN_SCALE=50 is a run
// worth its time on a quiet machine.
func scale() string {
	if s := os.Getenv("TWINSPAN_SCALE"); s != "" {
		return s
	}
	return "10"
}

// load runs pgbench until the returned function is called, again and again, for
// its server may be killed under it. That returns when the server has ended the
// sessions, too: what they were sent last is committed after pgbench is gone.
func load(t *testing.T, s *linktest.Side, database string, clients int) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		for ctx.Err() == nil {
			if err := pgbench(t, ctx, s, database, "-c", strconv.Itoa(clients), "-T", "600", "-R", "400"); err != nil {
				select {
				case <-ctx.Done():
				case <-time.After(200 * time.Millisecond):
				}
			}
		}
	})
	return sync.OnceFunc(func() {
		cancel()
		running.Wait()
		if t.Failed() {
			return // the server may be away
		}
		pgtest.Eventually(t, linktest.Patience, func() error {
			left, err := pgtest.Try(t.Context(), s.Server.DSN("postgres"), `SELECT pid FROM pg_stat_activity WHERE application_name = 'pgbench' AND datname = $1`, database)
			if err == nil && len(left) > 0 {
				err = fmt.Errorf("%d sessions of pgbench are left", len(left))
			}
			return err
		})
	})
}

// Ten kills of each agent and three of each server, at random moments of seeding
// and following, under load: at the end both sides hold the same rows.
func TestKilledWhateverAndWhenever(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{
		ServerA: []pgtest.Option{pgtest.WithSetting("fsync", "on"), pgtest.WithSetting("checkpoint_timeout", "30s")},
		ServerB: []pgtest.Option{pgtest.WithSetting("fsync", "on")},
	})
	p.A.Server.CreateDatabase(t, "bank")
	if err := pgbench(t, t.Context(), p.A, "bank", "-i", "-s", scale(), "-q"); err != nil {
		t.Fatal(err)
	}
	a := p.A.Server.AppDSN("bank")
	pgtest.Exec(t, a, `CREATE TABLE keyless AS SELECT i, md5(i::text) AS m FROM generate_series(1, 50000) i`)
	stop := load(t, p.A, "bank", 4)
	defer stop()
	p.Create(t, "bank", "bank")

	seed := pgtest.Seed()
	t.Logf("%s=%d", pgtest.SeedEnv, seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	var victims []func()
	for range 10 {
		victims = append(victims,
			func() { p.A.Kill(); p.A.Start() },
			func() { p.B.Kill(); p.B.Start() })
	}
	for range 3 {
		victims = append(victims,
			func() { p.A.Server.Kill(); p.A.Server.Restart() },
			func() { p.B.Server.Kill(); p.B.Server.Restart() })
	}
	rng.Shuffle(len(victims), func(i, j int) { victims[i], victims[j] = victims[j], victims[i] })
	for _, kill := range victims {
		pause(t, time.Duration(rng.IntN(2500))*time.Millisecond)
		kill()
	}
	p.WaitPhase(t, "bank", api.Replicating)
	stop()
	p.WaitEqual(t, "bank", "bank")
	if n := pgtest.Query(t, p.B.Server.DSN("bank"), `SELECT count(*) FROM pgbench_history`)[0][0]; n == "0" {
		t.Error("nothing was written while the test ran")
	}
}

// pause lets the system run for a while: the moment of a kill is the test's input.
func pause(t *testing.T, d time.Duration) {
	select {
	case <-t.Context().Done():
	case <-time.After(d):
	}
}

// A database of two thousand tables, and one of none.
func TestManyTablesAndNone(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{})
	p.A.Server.CreateDatabase(t, "none")
	p.Create(t, "none", "none")
	p.A.Server.CreateDatabase(t, "many")
	pgtest.Exec(t, p.A.Server.AppDSN("many"), `DO $$ BEGIN
		FOR i IN 1..2000 LOOP
			EXECUTE format('CREATE TABLE t%s (id int PRIMARY KEY, v text)', i);
			EXECUTE format('INSERT INTO t%s SELECT i, md5(i::text) FROM generate_series(1, 3) i', i);
			IF i % 200 = 0 THEN COMMIT; END IF;
		END LOOP; END $$`)
	p.Create(t, "many", "many")
	p.WaitPhase(t, "none", api.Replicating)
	p.WaitPhase(t, "many", api.Replicating)
	pgtest.Exec(t, p.A.Server.AppDSN("many"), `DO $$ BEGIN
		FOR i IN 1..2000 BY 7 LOOP EXECUTE format('UPDATE t%s SET v = v || ''x''', i); END LOOP; END $$`)
	p.WaitEqual(t, "many", "many")
	p.WaitEqual(t, "none", "none")
}

// A value of hundreds of megabytes, and a transaction of many more rows than fit
// into an agent's memory, neither makes an agent grow.
func TestAgentsStaySmall(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{ServerA: []pgtest.Option{pgtest.OnDisk()}, ServerB: []pgtest.Option{pgtest.OnDisk()}})
	p.A.Server.CreateDatabase(t, "big")
	a := p.A.Server.DSN("big")
	pgtest.Exec(t, a, `CREATE TABLE blob (id int PRIMARY KEY, b bytea)`, `ALTER TABLE blob ALTER b SET STORAGE EXTERNAL`,
		`CREATE TABLE rows (id int PRIMARY KEY, filler text)`,
		`INSERT INTO blob SELECT 1, decode(repeat('00ff41', 100 << 20), 'hex')`)
	p.Create(t, "big", "big")
	p.WaitPhase(t, "big", api.Replicating)
	pgtest.Exec(t, a, `INSERT INTO blob SELECT 2, b FROM blob`, `UPDATE blob SET b = substr(b, 2) WHERE id = 1`,
		`INSERT INTO rows SELECT i, repeat(md5(i::text), 10) FROM generate_series(1, 600000) i`, `DELETE FROM rows WHERE id % 2 = 0`)
	p.WaitEqual(t, "big", "big")
	for _, side := range []*linktest.Side{p.A, p.B} {
		if peak := side.PeakMemory(t); peak > 200<<20 {
			t.Errorf("agent %s took %d MB", side.Name, peak>>20)
		} else {
			t.Logf("agent %s took %d MB at most", side.Name, peak>>20)
		}
		if left, _ := filepath.Glob(filepath.Join(side.Dir.Path(), "spool", "*")); len(left) != 0 {
			t.Errorf("left in the spool of %s: %v", side.Name, left)
		}
	}
}
