package test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// cluster is a connection string to whichever of a side's servers is the primary.
func cluster(s *linktest.Side, database string) string {
	return pgtest.DSNOfBoth(s.Server, s.Standby, database) + "&target_session_attrs=read-write"
}

// waitReceived waits until a standby has received, and flushed, the server's log.
func waitReceived(t *testing.T, s *linktest.Side) {
	t.Helper()
	end := pgtest.Query(t, s.Server.DSN("postgres"), `SELECT pg_current_wal_flush_lsn()`)[0][0]
	pgtest.Eventually(t, linktest.Patience, func() error {
		_, err := pgtest.Try(t.Context(), s.Standby.DSN("postgres"), `SELECT 1 / (pg_last_wal_receive_lsn() >= '`+end+`')::int`)
		return err
	})
}

// ledger makes a linked table on a pair that is ready to fail over.
func ledger(t *testing.T, p *linktest.Pair) {
	t.Helper()
	p.A.Server.CreateDatabase(t, "bank")
	pgtest.Exec(t, p.A.Server.AppDSN("bank"), `CREATE TABLE ledger (id bigint PRIMARY KEY)`, `INSERT INTO ledger SELECT -i FROM generate_series(1, 1000) i`)
	p.Create(t, "bank", "bank")
	p.WaitPhase(t, "bank", api.Replicating)
}

// more waits until so many more commits are acknowledged.
func (w *writers) more(t *testing.T, n int) {
	t.Helper()
	before := len(w.acknowledged())
	pgtest.Eventually(t, linktest.Patience, func() error {
		if now := len(w.acknowledged()); now < before+n {
			return fmt.Errorf("%d commits", now-before)
		}
		return nil
	})
}

// brokenBy waits until both sides are broken by one of the problems.
func brokenBy(t *testing.T, p *linktest.Pair, name string, codes ...string) (code string) {
	t.Helper()
	for _, side := range []*linktest.Side{p.B, p.A} {
		pgtest.Eventually(t, linktest.Patience, func() error {
			l, err := side.Client.Link(t.Context(), name)
			if err != nil {
				return err
			}
			for _, problem := range l.Problems {
				if l.Phase == api.Broken && slices.Contains(codes, problem.Code) && strings.Contains(problem.Hint, "--repair") {
					code = problem.Code
					return nil
				}
			}
			return fmt.Errorf("side %s: phase %s, problems %+v", side.Name, l.Phase, l.Problems)
		})
	}
	return code
}

// resumeWithRepair lets a broken link go on until it replicates.
func resumeWithRepair(t *testing.T, p *linktest.Pair, at *linktest.Side, name string) {
	t.Helper()
	pgtest.Eventually(t, linktest.Patience, func() error {
		_, err := at.Client.ResumeWithRepair(t.Context(), name)
		return err
	})
	p.WaitPhase(t, name, api.Replicating)
}

// From 17 on standbys take the link's slot over. With those that hold the stream back
// until they have it (synchronized_standby_slots) a failover of the primary's cluster
// under load is survived by itself: nothing lost, nothing twice.
func TestFailoverSlotSurvivesThePrimarysFailover(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{
		ServerA: []pgtest.Option{pgtest.WithMajor(17), pgtest.WithSetting("synchronous_standby_names", "standby_a"), pgtest.WithSetting("synchronized_standby_slots", "standby_a"),
			pgtest.WithSetting("synchronous_commit", "local")}, // until the standby is there
		ServerB:  []pgtest.Option{pgtest.WithMajor(18)},
		StandbyA: []pgtest.Option{pgtest.WithSetting("sync_replication_slots", "on"), pgtest.WithSetting("synchronous_standby_names", ""), pgtest.WithSetting("synchronized_standby_slots", ""), pgtest.WithSetting("synchronous_commit", "on")},
	})
	ledger(t, p)
	pgtest.Exec(t, p.A.Server.DSN("postgres"), `ALTER DATABASE bank SET synchronous_commit = on`)
	w := startWriters(t, cluster(p.A, "bank"), 4)
	w.more(t, 500)
	pgtest.Eventually(t, linktest.Patience, func() error {
		if rows := pgtest.Query(t, p.A.Standby.DSN("postgres"), `SELECT FROM pg_replication_slots WHERE slot_name LIKE 'twinspan%' AND synced AND NOT temporary`); len(rows) != 1 {
			return fmt.Errorf("the standby does not have the slot")
		}
		return nil
	})
	w.more(t, 500)
	p.A.FailOver()
	acked := w.acknowledged()
	w.more(t, 500)
	w.end()
	p.WaitPhase(t, "bank", api.Replicating)
	p.WaitEqual(t, "bank", "bank")
	if lost := missing(t, p.B.Server.DSN("bank"), acked); len(lost) > 0 {
		t.Errorf("%d of %d acknowledged commits are lost", len(lost), len(acked))
	}
}

// Before 17 a standby has no slot of the link's: the link says so, and goes on after
// a repair, whoever was ahead of whom.
func TestSlotIsLostWithThePrimarysFailover(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{StandbyA: []pgtest.Option{}})
	ledger(t, p)
	// One writer, for the twin has to catch up with whatever is written on the same processors.
	w := startWriters(t, cluster(p.A, "bank"), 1)
	w.more(t, 500)
	p.A.FailOver()
	w.more(t, 500)
	t.Logf("broken by %s", brokenBy(t, p, "bank", "slot_lost", "primary_behind"))
	resumeWithRepair(t, p, p.A, "bank")
	w.more(t, 500)
	w.end()
	p.WaitEqual(t, "bank", "bank")
}

// A standby is promoted that lacks what the twin has, and has written past it since.
func TestPromotedPrimaryIsBehindTheTwin(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{StandbyA: []pgtest.Option{}})
	ledger(t, p)
	waitReceived(t, p.A)
	p.A.Standby.Stop()
	pgtest.Exec(t, p.A.Server.DSN("bank"), `INSERT INTO ledger SELECT i FROM generate_series(1, 10) i`, `DELETE FROM ledger WHERE id = -1`)
	p.WaitApplied(t, "bank", "bank")
	p.A.Server.Kill()
	p.A.Standby.Restart()
	p.A.FailOver()
	pgtest.Exec(t, p.A.Server.DSN("bank"), `INSERT INTO ledger SELECT i FROM generate_series(5, 50000) i`)
	brokenBy(t, p, "bank", "primary_behind")
	if n := pgtest.Query(t, p.B.Server.DSN("bank"), `SELECT count(*) FROM ledger`)[0][0]; n != "1009" {
		t.Errorf("the twin has %s rows; it must be left as it was", n)
	}
	resumeWithRepair(t, p, p.B, "bank")
	p.WaitEqual(t, "bank", "bank")
	pgtest.Exec(t, p.A.Server.DSN("bank"), `UPDATE ledger SET id = id + 1000000 WHERE id > 0`)
	p.WaitEqual(t, "bank", "bank")
}

// The secondary's server waits for its standby: what is confirmed to the primary is
// there, so a failover of the twin's cluster under load is survived by itself.
func TestTwinsClusterFailsOver(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{
		ServerB:  []pgtest.Option{pgtest.WithSetting("synchronous_standby_names", "standby_b"), pgtest.WithSetting("synchronous_commit", "local")},
		StandbyB: []pgtest.Option{pgtest.WithSetting("synchronous_standby_names", "")},
	})
	ledger(t, p)
	confirmed := func() error {
		end := pgtest.Query(t, p.A.Server.DSN("postgres"), `SELECT pg_current_wal_insert_lsn()`)[0][0]
		_, err := pgtest.Try(t.Context(), p.A.Server.DSN("postgres"), `SELECT 1 / (confirmed_flush_lsn >= '`+end+`')::int FROM pg_replication_slots`)
		return err
	}
	pgtest.Eventually(t, linktest.Patience, confirmed)
	p.B.Standby.Stop()
	pgtest.Exec(t, p.A.Server.DSN("bank"), `INSERT INTO ledger VALUES (-10000)`)
	p.WaitApplied(t, "bank", "bank")
	pgtest.Eventually(t, linktest.Patience, func() error { return hasProblem(t, p.B, "bank", "standbys_behind") })
	if confirmed() == nil {
		t.Error("what the standby does not have was confirmed")
	}
	p.B.Standby.Restart()
	pgtest.Eventually(t, linktest.Patience, confirmed)

	w := startWriters(t, p.A.Server.DSN("bank"), 4)
	w.more(t, 1000)
	p.B.FailOver()
	w.more(t, 1000)
	w.end()
	p.WaitPhase(t, "bank", api.Replicating)
	p.WaitEqual(t, "bank", "bank")
}

// Where it does not, the promoted standby may lack what was confirmed.
func TestTwinsStandbyIsBehindTheSlot(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{StandbyB: []pgtest.Option{}})
	ledger(t, p)
	p.WaitApplied(t, "bank", "bank")
	waitReceived(t, p.B)
	p.B.Standby.Stop()
	pgtest.Exec(t, p.A.Server.DSN("bank"), `INSERT INTO ledger SELECT i FROM generate_series(1, 10) i`)
	end := pgtest.Query(t, p.A.Server.DSN("postgres"), `SELECT pg_current_wal_insert_lsn()`)[0][0]
	pgtest.Eventually(t, linktest.Patience, func() error {
		_, err := pgtest.Try(t.Context(), p.A.Server.DSN("postgres"), `SELECT 1 / (confirmed_flush_lsn >= '`+end+`')::int FROM pg_replication_slots`)
		return err
	})
	p.B.Server.Kill()
	p.B.Standby.Restart()
	p.B.FailOver()
	brokenBy(t, p, "bank", "slot_ahead")
	resumeWithRepair(t, p, p.A, "bank")
	p.WaitEqual(t, "bank", "bank")
}
