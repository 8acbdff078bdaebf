package test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// drawn is what a workload was given by sequences.
type drawn struct {
	mu  sync.Mutex
	all map[string]map[int64]bool
}

func (d *drawn) add(name string, values []int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.all[name] == nil {
		d.all[name] = map[int64]bool{}
	}
	for _, v := range values {
		d.all[name][v] = true
	}
}

func (d *drawn) count(name string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.all[name])
}

func (d *drawn) has(name string, v int64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.all[name][v]
}

// draw calls nextval in several sessions, one or a few values at a time, until it
// is stopped or its server is gone.
func draw(t *testing.T, dsn string, names []string, got *drawn) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	for i := range 4 {
		running.Go(func() {
			conn, err := pgx.Connect(ctx, dsn)
			if err != nil {
				return
			}
			defer conn.Close(context.Background())
			for n := 0; ctx.Err() == nil; n++ {
				name := names[(i+n)%len(names)]
				rows, err := conn.Query(ctx, `SELECT nextval($1) FROM generate_series(1, $2::int)`, name, 1+n%7)
				if err != nil {
					return
				}
				values, err := pgx.CollectRows(rows, pgx.RowTo[int64])
				got.add(name, values)
				if err != nil {
					return
				}
				// A busy application, not as fast as the server can: the lead is for a
				// time, and this machine may be slow to look.
				pause(t, 3*time.Millisecond)
			}
		})
	}
	return func() {
		cancel()
		running.Wait()
	}
}

// The primary's server dies at a random moment of a workload that only draws
// values; the twin is taken over by force and hands out none of them again.
func TestForcedTwinHandsOutNothingTwice(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{ServerA: []pgtest.Option{pgtest.WithSetting("fsync", "on")}})
	seed := pgtest.Seed()
	t.Logf("%s=%d", pgtest.SeedEnv, seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	for round := range 2 {
		database := fmt.Sprintf("draws%d", round)
		p.A.Server.CreateDatabase(t, database)
		a, b := p.A.Server.DSN(database), p.B.Server.DSN(database)
		pgtest.Exec(t, a, `CREATE SCHEMA "Odd ""S"""`, `CREATE SEQUENCE "Odd ""S"""."q 'n' $1"`, `CREATE SEQUENCE plain`,
			`CREATE SEQUENCE down INCREMENT -3`, `CREATE SEQUENCE cached CACHE 500`, `CREATE SEQUENCE whirl MAXVALUE 500000000 CYCLE`,
			`CREATE SEQUENCE spent MAXVALUE 40; SELECT setval('spent', 40)`, `CREATE SEQUENCE low AS smallint INCREMENT -1`,
			`CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, n serial)`, `SELECT setval('whirl', 499999900)`)
		names := []string{`plain`, `down`, `cached`, `whirl`, `"Odd ""S"""."q 'n' $1"`, `t_id_seq`}
		p.Create(t, database, database)
		p.WaitPhase(t, database, api.Replicating)
		got := &drawn{all: map[string]map[int64]bool{}}
		stop := draw(t, a, names, got)
		pgtest.Exec(t, a, `CREATE SEQUENCE IF NOT EXISTS unused`, `INSERT INTO t SELECT FROM generate_series(1, 50)`)
		pgtest.Eventually(t, linktest.Patience, func() error { // the moment may be the first one
			for _, name := range names {
				if got.count(name) == 0 {
					return fmt.Errorf("nothing was drawn of %s", name)
				}
			}
			return nil
		})
		pause(t, time.Duration(rng.IntN(4000))*time.Millisecond)
		p.A.Server.Kill()
		stop()
		result, err := p.B.Client.DeleteLink(t.Context(), database, true)
		if err != nil {
			t.Fatal(err)
		}
		if side := result.Sides[0]; side.State != api.Independent || !strings.Contains(side.Text, "ahead") {
			t.Errorf("the result says %+v", side)
		}
		for _, name := range names {
			next, err := strconv.ParseInt(pgtest.Query(t, b, `SELECT nextval($1)`, name)[0][0], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			if got.has(name, next) || got.count(name) == 0 {
				t.Errorf("round %d: %s hands out %d, of %d values drawn before", round, name, next, got.count(name))
			}
		}
		var next int64
		if err := pgtest.Conn(t, b).QueryRow(t.Context(), `SELECT nextval('spent')`).Scan(&next); err == nil {
			t.Errorf("round %d: the spent sequence hands out %d", round, next)
		}
		pgtest.Exec(t, b, `INSERT INTO t SELECT FROM generate_series(1, 10)`)
		p.A.Server.Restart()
		pgtest.Eventually(t, linktest.Patience, func() error {
			_, err := p.A.Client.DeleteLink(t.Context(), database, true)
			return err
		})
	}
}

// states lists every sequence of a database with value, is_called and definition.
func states(t *testing.T, dsn string) []string {
	t.Helper()
	var list []string
	for _, name := range pgtest.Query(t, dsn, `SELECT oid::regclass FROM pg_class WHERE relkind = 'S' AND relnamespace <> coalesce(to_regnamespace('twinspan')::oid, 0) ORDER BY 1`) {
		s := pgtest.Query(t, dsn, `SELECT last_value, is_called FROM `+name[0])[0]
		list = append(list, fmt.Sprint(name[0], s))
	}
	slices.Sort(list)
	return list
}

// Two thousand sequences of every kind are followed ahead while linked, through
// setval, restarts and TRUNCATE, and are exactly equal once the link is removed.
func TestSequencesAreExactAfterTheLink(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{})
	p.A.Server.CreateDatabase(t, "many")
	a, b := p.A.Server.DSN("many"), p.B.Server.DSN("many")
	pgtest.Exec(t, a, `DO $$ BEGIN FOR i IN 1..2000 LOOP
			EXECUTE format('CREATE SEQUENCE %I INCREMENT %s', 'Many ' || i, CASE WHEN i % 2 = 0 THEN i ELSE -i END);
			IF i % 3 = 0 THEN PERFORM nextval(format('%I', 'Many ' || i)) FROM generate_series(1, i % 10); END IF;
			IF i % 250 = 0 THEN COMMIT; END IF; END LOOP; END $$`,
		`CREATE SEQUENCE low MAXVALUE 10; SELECT setval('low', 10)`, `CREATE SEQUENCE near MAXVALUE 10; SELECT setval('near', 8)`,
		`CREATE SEQUENCE whirl MAXVALUE 10 CYCLE; SELECT setval('whirl', 10)`, `CREATE SEQUENCE later START 500`,
		`CREATE TABLE t (id int PRIMARY KEY GENERATED BY DEFAULT AS IDENTITY, n int)`, `INSERT INTO t (n) SELECT 1 FROM generate_series(1, 100)`)
	p.Create(t, "many", "many")
	p.WaitPhase(t, "many", api.Replicating)
	ahead := func(name string, check func(last int64, called string) bool) {
		t.Helper()
		pgtest.Eventually(t, linktest.Patience, func() error {
			s := pgtest.Query(t, b, `SELECT last_value, is_called FROM `+name)[0]
			last, _ := strconv.ParseInt(s[0], 10, 64)
			if !check(last, s[1]) {
				return fmt.Errorf("%s stands at %v", name, s)
			}
			return nil
		})
	}
	ahead(`low`, func(last int64, called string) bool { return last == 10 && called == "t" })
	ahead(`near`, func(last int64, _ string) bool { return last == 9 })
	ahead(`t_id_seq`, func(last int64, _ string) bool { return last > 100 && last < 1_000_000 })
	ahead(`"Many 1998"`, func(last int64, _ string) bool { return last > 1998 })
	ahead(`"Many 1999"`, func(last int64, _ string) bool { return last < -1999 })
	pgtest.Exec(t, a, `SELECT setval('t_id_seq', 500000000)`)
	ahead(`t_id_seq`, func(last int64, _ string) bool { return last > 500_000_000 && last < 501_000_000 })
	// Back again: by the primary's own doing, and in the stream, which resets the
	// twin's sequence behind the link's back.
	pgtest.Exec(t, a, `ALTER SEQUENCE later RESTART 100`, `SELECT setval('low', 2)`)
	ahead(`low`, func(last int64, _ string) bool { return last >= 3 && last < 10 })
	pgtest.Exec(t, a, `TRUNCATE t RESTART IDENTITY`, `INSERT INTO t (n) SELECT 1 FROM generate_series(1, 300)`)
	p.WaitApplied(t, "many", "many")
	ahead(`t_id_seq`, func(last int64, _ string) bool { return last > 300 && last < 10_000_000 })
	pgtest.Exec(t, a, `SELECT setval('later', 77, false)`, `SELECT nextval('"Many 4"')`)

	if _, err := p.A.Client.DeleteLink(t.Context(), "many", false); err != nil {
		t.Fatal(err)
	}
	if want, have := states(t, a), states(t, b); !slices.Equal(want, have) {
		for i := range want {
			if i >= len(have) || want[i] != have[i] {
				t.Fatalf("sequences differ, first %s", want[i])
			}
		}
	}
}
