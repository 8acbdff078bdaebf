package test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// waitBroken waits until both sides say that the link is broken, for this reason.
func waitBroken(t *testing.T, p *linktest.Pair, name, code string) {
	t.Helper()
	for _, side := range []*linktest.Side{p.B, p.A} {
		pgtest.Eventually(t, linktest.Patience, func() error {
			l, err := side.Client.Link(t.Context(), name)
			if err != nil {
				return err
			}
			for _, problem := range l.Problems {
				if l.Phase == api.Broken && problem.Code == code && problem.Hint != "" {
					return nil
				}
			}
			return fmt.Errorf("side %s: phase %s, problems %+v", side.Name, l.Phase, l.Problems)
		})
	}
}

// A slot that the server invalidated, or somebody dropped, cannot be continued:
// the link says so and can be made anew.
func TestLostSlot(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{ServerA: []pgtest.Option{
		pgtest.WithSetting("max_wal_size", "32MB"), pgtest.WithSetting("min_wal_size", "32MB")}})
	p.A.Server.CreateDatabase(t, "sales")
	a := p.A.Server.DSN("sales")
	pgtest.Exec(t, a, `CREATE TABLE t (id int PRIMARY KEY, filler text)`)
	for _, lose := range []func(){
		func() {
			p.B.Stop()
			// In force for this loss alone: any checkpoint would take the slots that follow.
			pgtest.Exec(t, a, `ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'`, `SELECT pg_reload_conf()`)
			pgtest.Eventually(t, linktest.Patience, func() error {
				pgtest.Exec(t, a, `INSERT INTO t SELECT i, repeat('x', 200) FROM generate_series(1, 100000) i`, `TRUNCATE t`, `CHECKPOINT`)
				if left := pgtest.Query(t, a, `SELECT slot_name FROM pg_replication_slots WHERE wal_status <> 'lost'`); len(left) > 0 {
					return fmt.Errorf("the server still keeps %v", left)
				}
				return nil
			})
			pgtest.Exec(t, a, `ALTER SYSTEM RESET max_slot_wal_keep_size`, `SELECT pg_reload_conf()`)
			p.B.Start()
		},
		func() {
			p.B.Stop()
			pgtest.Eventually(t, linktest.Patience, func() error {
				_, err := pgtest.Try(t.Context(), a, `SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots`)
				return err
			})
			p.B.Start()
		},
	} {
		p.Create(t, "sales", "sales")
		p.WaitPhase(t, "sales", api.Replicating)
		lose()
		waitBroken(t, p, "sales", "slot_lost")
		repairLost(t, p, "sales")
		if _, err := p.A.Client.DeleteLink(t.Context(), "sales", false); err != nil {
			t.Fatal(err)
		}
		pgtest.Exec(t, p.B.Server.DSN("postgres"), `DROP DATABASE sales`)
	}
}

// repairLost lets a link go on that has lost its slot, while the primary is written
// to, with rows on the twin that differ in every way.
func repairLost(t *testing.T, p *linktest.Pair, name string) {
	t.Helper()
	a := p.A.Server.DSN(name)
	pgtest.Exec(t, a, `INSERT INTO t SELECT i, 'since' FROM generate_series(1, 50000) i`)
	tamper(t, p.B, name, `INSERT INTO t VALUES (7, 'other'), (-1, 'extra')`)
	stop := make(chan struct{})
	var writing sync.WaitGroup
	writing.Go(func() {
		for i := 100_001; ; i++ {
			select {
			case <-stop:
				return
			default:
				pgtest.Exec(t, a, fmt.Sprintf(`INSERT INTO t VALUES (%d, 'meanwhile')`, i), fmt.Sprintf(`UPDATE t SET filler = 'again' WHERE id = %d`, i%50000))
			}
		}
	})
	if _, err := p.A.Client.ResumeWithRepair(t.Context(), name); err != nil {
		t.Error(err)
	}
	p.WaitPhase(t, name, api.Replicating)
	close(stop)
	writing.Wait()
	p.WaitEqual(t, name, name)
	if _, err := p.B.Client.ResumeWithRepair(t.Context(), name); err == nil {
		t.Error("a link that replicates was repaired")
	}
	pgtest.Exec(t, a, `TRUNCATE t`)
}

// A row that somebody took away behind the gate's back stops the link at the
// change that misses it; put back, the link goes on with nothing lost.
func TestDivergenceStopsTheLinkAndNamesTheRow(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{})
	p.A.Server.CreateDatabase(t, "sales")
	a, b := p.A.Server.DSN("sales"), p.B.Server.DSN("sales")
	pgtest.Exec(t, a, `CREATE TABLE t (id int PRIMARY KEY, v text)`, `INSERT INTO t SELECT i, 'v' FROM generate_series(1, 100) i`)
	p.Create(t, "sales", "sales")
	p.WaitPhase(t, "sales", api.Replicating)
	tamper(t, p.B, "sales", `DELETE FROM t WHERE id = 42`)
	pgtest.Exec(t, a, `UPDATE t SET v = 'before' WHERE id = 41`, `UPDATE t SET v = 'missing' WHERE id = 42`, `UPDATE t SET v = 'after' WHERE id = 43`)
	waitBroken(t, p, "sales", "row_missing")
	l, err := p.B.Client.Link(t.Context(), "sales")
	if err != nil {
		t.Fatal(err)
	}
	if len(l.Problems) == 0 || !strings.Contains(l.Problems[0].Subject+l.Problems[0].Title, "42") || !strings.Contains(l.Problems[0].Subject+l.Problems[0].Title, "public.t") {
		t.Errorf("the problem does not name table and row: %+v", l.Problems)
	}
	if got := pgtest.Query(t, b, `SELECT v FROM t WHERE id = 43`)[0][0]; got != "v" {
		t.Errorf("a change behind the missing row was applied: %v", got)
	}
	tamper(t, p.B, "sales", `INSERT INTO t VALUES (42, 'v')`)
	resumeUnheard(t, p, "sales")
	p.WaitEqual(t, "sales", "sales")
}

// resumeUnheard lets a broken link go on until it replicates, asked of the primary's agent, while the secondary cannot
// store that: it reports again and again that it is broken, as it was before.
func resumeUnheard(t *testing.T, p *linktest.Pair, name string) {
	t.Helper()
	conn := pgtest.Conn(t, p.B.Server.DSN(name))
	if _, err := conn.Exec(t.Context(), `BEGIN; LOCK TABLE twinspan.link IN EXCLUSIVE MODE`); err != nil {
		t.Fatal(err)
	}
	resumed := make(chan error, 1)
	go func() {
		_, err := p.A.Client.Resume(t.Context(), name)
		resumed <- err
	}()
	pgtest.Eventually(t, linktest.Patience, func() error {
		if n := pgtest.Query(t, p.A.Server.DSN(name), `SELECT count(*)::text FROM twinspan.link WHERE change > 0`)[0][0]; n != "1" {
			return fmt.Errorf("the primary has not stored it")
		}
		return nil
	})
	heard := func() (at time.Time) {
		t.Helper()
		l, err := p.A.Client.Link(t.Context(), name)
		if err != nil || l.Peer.HeardAt == nil {
			t.Fatalf("%+v, %v", l.Peer, err)
		}
		return *l.Peer.HeardAt
	}
	for range 2 { // the first may have been sent before
		last := heard()
		pgtest.Eventually(t, linktest.Patience, func() error {
			if !heard().After(last) {
				return fmt.Errorf("the secondary has not reported since %v", last)
			}
			return nil
		})
	}
	conn.Close(context.Background())
	if err := <-resumed; err != nil {
		t.Error(err)
	}
	pgtest.Eventually(t, linktest.Patience, func() error { // the secondary may learn of it from an answer
		for _, side := range []*linktest.Side{p.B, p.A} {
			if l, err := side.Client.Link(t.Context(), name); err != nil || l.Phase != api.Replicating {
				return fmt.Errorf("side %s: %s, %+v, %v", side.Name, l.Phase, l.Problems, err)
			}
		}
		return nil
	})
}

// The agent's directory is for one agent at a time, and what it logs holds no
// secret.
func TestLogsHoldNoSecret(t *testing.T) {
	t.Parallel()
	const password = "s3cret-of-the-test"
	p := linktest.New(t, linktest.Options{
		DSN: func(name, dsn string) string { return dsn + "&password=" + password },
		Before: func(_ string, s *pgtest.Server) {
			pgtest.Exec(t, s.DSN("postgres"), `ALTER ROLE `+pgtest.AgentRole+` PASSWORD '`+password+`'`)
		},
	})
	p.A.Server.CreateDatabase(t, "sales")
	pgtest.Exec(t, p.A.Server.AppDSN("sales"), `CREATE TABLE t (id int PRIMARY KEY, v text)`, `INSERT INTO t VALUES (1, 'row-value-of-the-test')`)
	p.Create(t, "sales", "sales")
	p.WaitPhase(t, "sales", api.Replicating)
	tamper(t, p.B, "sales", `DELETE FROM t`)
	pgtest.Exec(t, p.A.Server.DSN("sales"), `UPDATE t SET v = 'other-value-of-the-test'`)
	waitBroken(t, p, "sales", "row_missing")
	for _, side := range []*linktest.Side{p.A, p.B} {
		for _, secret := range []string{password, "value-of-the-test", "PRIVATE KEY"} {
			if strings.Contains(side.Log(), secret) {
				t.Errorf("agent %s has logged %q", side.Name, secret)
			}
		}
	}
}
