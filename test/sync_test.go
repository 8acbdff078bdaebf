package test

import (
	"context"
	"fmt"
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

// durable are the settings of a server whose commits survive a kill.
func durable() []pgtest.Option {
	return []pgtest.Option{pgtest.WithSetting("fsync", "on"), pgtest.WithSetting("full_page_writes", "on")}
}

// waitSync waits until both sides say how mode sync stands.
func waitSync(t testing.TB, p *linktest.Pair, name string, want api.SyncState) {
	t.Helper()
	for _, side := range []*linktest.Side{p.A, p.B} {
		pgtest.Eventually(t, linktest.Patience, func() error {
			l, err := side.Client.Link(t.Context(), name)
			if err != nil {
				return err
			}
			if l.Sync == nil || l.Sync.State != want {
				return fmt.Errorf("side %s: sync %+v, phase %s, lag %+v, problems %+v", side.Name, l.Sync, l.Phase, l.Lag, l.Problems)
			}
			return nil
		})
	}
}

func setLink(t testing.TB, s *linktest.Side, name string, in api.SetLink) {
	t.Helper()
	if _, err := s.Client.SetLink(t.Context(), name, in); err != nil {
		t.Fatal(err)
	}
}

// writers insert rows with clients of their own, whose server may be killed under
// them, and keep what was acknowledged.
type writers struct {
	dsn     string
	mu      sync.Mutex
	acked   []int64
	stop    context.CancelFunc
	running sync.WaitGroup
}

func startWriters(t *testing.T, dsn string, clients int) *writers {
	return startWritersFrom(t, dsn, clients, 0)
}

// startWritersFrom begins with an id, for more writers of the same table.
func startWritersFrom(t *testing.T, dsn string, clients int, first int64) *writers {
	ctx, stop := context.WithCancel(t.Context())
	w := &writers{dsn: dsn, stop: stop}
	for c := range clients {
		w.running.Go(func() {
			for id := int64(c)<<32 + first; ctx.Err() == nil; {
				conn, err := pgx.Connect(ctx, dsn)
				if err != nil {
					pause(t, 20*time.Millisecond)
					continue
				}
				for ctx.Err() == nil {
					id++
					// Not with ctx: a commit that is given up is not acknowledged.
					if _, err := conn.Exec(context.Background(), `INSERT INTO ledger VALUES ($1)`, id); err != nil {
						break
					}
					w.mu.Lock()
					w.acked = append(w.acked, id)
					w.mu.Unlock()
				}
				conn.Close(context.Background())
			}
		})
	}
	t.Cleanup(w.end)
	return w
}

func (w *writers) end() {
	w.stop()
	w.running.Wait()
}

func (w *writers) acknowledged() []int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.acked)
}

// missing lists those of the ids that a database does not have.
func missing(t *testing.T, dsn string, ids []int64) []int64 {
	t.Helper()
	have := map[int64]bool{}
	for _, row := range pgtest.Query(t, dsn, `SELECT id FROM ledger`) {
		id, err := strconv.ParseInt(row[0], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		have[id] = true
	}
	return slices.DeleteFunc(ids, func(id int64) bool { return have[id] })
}

// In mode sync what the primary has acknowledged is in the twin's database, however
// and whenever the primary's server dies: the twin is looked at while that is down.
func TestSyncLosesNothingThatWasAcknowledged(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{ServerA: durable(), ServerB: durable()})
	p.A.Server.CreateDatabase(t, "bank")
	a, b := p.A.Server.DSN("bank"), p.B.Server.DSN("bank")
	pgtest.Exec(t, a, `CREATE TABLE ledger (id bigint PRIMARY KEY)`)
	forEver := int64(0)
	if _, err := p.A.Client.CreateLink(t.Context(), api.CreateLink{Name: "bank", Database: "bank", Peer: "b", Mode: api.Sync, SyncTimeoutSeconds: &forEver}); err != nil {
		t.Fatal(err)
	}
	waitSync(t, p, "bank", api.SyncEngaged)
	w := startWriters(t, a, 4)
	last := rounds("TWINSPAN_SYNC_KILLS", 20) - 1
	for round := range last + 1 {
		before := len(w.acknowledged())
		pgtest.Eventually(t, linktest.Patience, func() error {
			if n := len(w.acknowledged()); n < before+100 {
				return fmt.Errorf("round %d: %d commits since the last", round, n-before)
			}
			return nil
		})
		p.A.Server.Kill()
		acked := w.acknowledged()
		if lost := missing(t, b, acked); len(lost) > 0 {
			t.Fatalf("round %d: %d of %d acknowledged rows are not on the twin, first %d", round, len(lost), len(acked), lost[0])
		}
		if round == last {
			break
		}
		p.A.Server.Restart()
	}
	w.end()
	if f := failOver(t, p.B, "bank", api.FailoverRequest{Type: api.Forced, AcceptDataLoss: true}); f.State != api.FailoverDone {
		t.Fatalf("%+v", f)
	}
	pgtest.Exec(t, b, `INSERT INTO ledger VALUES (-1)`)
	if lost := missing(t, b, w.acknowledged()); len(lost) > 0 {
		t.Errorf("%d acknowledged rows are lost", len(lost))
	}
	t.Logf("%d commits", len(w.acknowledged()))
}

// With a timeout commits go on without a twin that is away, the link says so, and
// they wait again when it is back; a link that rests, changes its mode or is removed
// leaves nobody waiting.
func TestSyncDegradesAndComesBack(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{})
	p.A.Server.CreateDatabase(t, "bank")
	p.A.Server.CreateDatabase(t, "other")
	a := p.A.Server.DSN("bank")
	pgtest.Exec(t, a, `CREATE TABLE ledger (id bigint PRIMARY KEY)`)
	p.Create(t, "bank", "bank")
	p.WaitPhase(t, "bank", api.Replicating)
	before := pgtest.Query(t, a, serverSettings)
	one := int64(1)
	setLink(t, p.B, "bank", api.SetLink{Mode: api.Sync, SyncTimeoutSeconds: &one}) // from the other side
	waitSync(t, p, "bank", api.SyncEngaged)

	p.B.Kill()
	pgtest.Exec(t, a, `INSERT INTO ledger VALUES (1)`) // returns, for the twin is given up
	pgtest.Eventually(t, linktest.Patience, func() error { return hasProblem(t, p.A, "bank", "sync_degraded") })
	pgtest.Exec(t, a, `INSERT INTO ledger VALUES (2)`)
	p.B.Start()
	waitSync(t, p, "bank", api.SyncEngaged)
	pgtest.Eventually(t, linktest.Patience, func() error {
		if hasProblem(t, p.A, "bank", "sync_degraded") == nil {
			return fmt.Errorf("the problem is still there")
		}
		return nil
	})

	// An agent that is stopped in good order lets commits go; a killed one cannot.
	p.A.Stop()
	pgtest.Exec(t, a, `INSERT INTO ledger VALUES (3)`)
	p.A.Start()
	waitSync(t, p, "bank", api.SyncEngaged)

	if _, err := p.A.Client.Suspend(t.Context(), "bank"); err != nil {
		t.Fatal(err)
	}
	waitSync(t, p, "bank", api.SyncPending)
	pgtest.Exec(t, a, `INSERT INTO ledger VALUES (4)`)
	if _, err := p.A.Client.Resume(t.Context(), "bank"); err != nil {
		t.Fatal(err)
	}
	waitSync(t, p, "bank", api.SyncEngaged)

	setLink(t, p.A, "bank", api.SetLink{Mode: api.Async})
	sameSettings(t, a, before)
	setLink(t, p.A, "bank", api.SetLink{Mode: api.Sync})
	waitSync(t, p, "bank", api.SyncEngaged)
	p.WaitEqual(t, "bank", "bank")
	if _, err := p.A.Client.DeleteLink(t.Context(), "bank", false); err != nil {
		t.Fatal(err)
	}
	sameSettings(t, a, before)
	pgtest.Exec(t, a, `INSERT INTO ledger VALUES (5)`)
}

const serverSettings = `SELECT current_setting('synchronous_standby_names'),
	(SELECT coalesce(string_agg(d.datname || setconfig::text, ' ' ORDER BY d.datname), '') FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase),
	(SELECT count(*)::text FROM pg_file_settings WHERE name = 'synchronous_standby_names')`

func sameSettings(t *testing.T, dsn string, want [][]string) {
	t.Helper()
	pgtest.Eventually(t, linktest.Patience, func() error {
		if got := pgtest.Query(t, dsn, serverSettings); !slices.Equal(got[0], want[0]) {
			return fmt.Errorf("settings are %q, were %q", got, want)
		}
		return nil
	})
}

func hasProblem(t *testing.T, s *linktest.Side, name, code string) error {
	t.Helper()
	l, err := s.Client.Link(t.Context(), name)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(l.Problems, func(p api.Problem) bool { return p.Code == code && p.Hint != "" }) {
		return fmt.Errorf("problems are %+v", l.Problems)
	}
	return nil
}

// BenchmarkCommit measures a commit of one row by one client.
func BenchmarkCommit(b *testing.B) {
	p := linktest.New(b, linktest.Options{ServerA: durable(), ServerB: durable()})
	p.A.Server.CreateDatabase(b, "bank")
	dsn := p.A.Server.DSN("bank")
	pgtest.Exec(b, dsn, `CREATE TABLE ledger (id bigserial PRIMARY KEY)`)
	p.Create(b, "bank", "bank")
	p.WaitPhase(b, "bank", api.Replicating)
	for _, mode := range []api.Mode{api.Async, api.Sync} {
		setLink(b, p.A, "bank", api.SetLink{Mode: mode})
		if mode == api.Sync {
			waitSync(b, p, "bank", api.SyncEngaged)
		}
		conn, err := pgx.Connect(b.Context(), dsn)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(string(mode), func(b *testing.B) {
			var took []time.Duration
			for b.Loop() {
				began := time.Now()
				if _, err := conn.Exec(b.Context(), `INSERT INTO ledger DEFAULT VALUES`); err != nil {
					b.Fatal(err)
				}
				took = append(took, time.Since(began))
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds()), "us/p50")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "us/p99")
		})
		conn.Close(b.Context())
	}
}

// The mode stays when the sides change places: the new primary waits for its twin, the
// old one for nobody. When the new primary's server then dies, the other side takes
// over by force, and nothing that was acknowledged, by either, is lost.
func TestSyncFollowsTheRoles(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{ServerA: durable(), ServerB: durable()})
	p.A.Server.CreateDatabase(t, "bank")
	a, b := p.A.Server.DSN("bank"), p.B.Server.DSN("bank")
	pgtest.Exec(t, a, `CREATE TABLE ledger (id bigint PRIMARY KEY)`)
	before := pgtest.Query(t, a, serverSettings)
	forEver := int64(0)
	if _, err := p.A.Client.CreateLink(t.Context(), api.CreateLink{Name: "bank", Database: "bank", Peer: "b", Mode: api.Sync, SyncTimeoutSeconds: &forEver}); err != nil {
		t.Fatal(err)
	}
	waitSync(t, p, "bank", api.SyncEngaged)
	// One writer, for the twin has to catch up with whatever is written on the same processors.
	w := startWriters(t, both(p.A, p.B, "bank", "read-write"), 1)
	w.more(t, 200)
	if f := failOver(t, p.B, "bank", api.FailoverRequest{}); f.State != api.FailoverDone {
		t.Fatalf("%+v", f)
	}
	waitSync(t, p, "bank", api.SyncEngaged)
	if names := pgtest.Query(t, b, `SELECT current_setting('synchronous_standby_names')`)[0][0]; !strings.Contains(names, "twinspan/") {
		t.Errorf("the new primary waits for %q", names)
	}
	pgtest.Eventually(t, linktest.Patience, func() error {
		if got := pgtest.Query(t, a, serverSettings); got[0][0] != before[0][0] || got[0][2] != before[0][2] {
			return fmt.Errorf("the old primary's settings are %q, were %q", got, before)
		}
		return nil
	})
	w.more(t, 200)
	p.B.Server.Kill()
	w.end()
	acked := w.acknowledged()
	if f := failOver(t, p.A, "bank", api.FailoverRequest{Type: api.Forced, AcceptDataLoss: true}); f.State != api.FailoverDone {
		t.Fatalf("%+v", f)
	}
	if lost := missing(t, a, acked); len(lost) > 0 {
		t.Errorf("%d of %d acknowledged commits are lost, first %d", len(lost), len(acked), lost[0])
	}
	pgtest.Eventually(t, linktest.Patience, func() error { // it waits for nobody while it has no twin
		_, err := pgtest.Try(t.Context(), a, `INSERT INTO ledger VALUES (-1)`)
		return err
	})
}
