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

// force makes a side the primary, whatever the other is.
func force(t *testing.T, at *linktest.Side, name string) {
	t.Helper()
	f, err := at.Client.Failover(t.Context(), name, api.FailoverRequest{Type: api.Forced, AcceptDataLoss: true, Insist: true})
	if err != nil {
		t.Fatalf("forced failover: %v", err)
	}
	pgtest.Eventually(t, linktest.Patience, func() error {
		l, err := at.Client.Link(t.Context(), name)
		if err != nil || l.Role != api.Primary {
			return fmt.Errorf("%s, %v; %+v", l.Role, err, f)
		}
		return nil
	})
}

// waitFenced waits until a former primary is fenced and what it lost is read, and
// returns that.
func waitFenced(t *testing.T, s *linktest.Side, name string) api.Parting {
	t.Helper()
	var last api.Parting
	pgtest.Eventually(t, linktest.Patience, func() error {
		l, err := s.Client.Link(t.Context(), name)
		if err != nil || l.Phase != api.Fenced {
			return fmt.Errorf("%s, %v; %+v", l.Phase, err, l.Problems)
		}
		lost, err := s.Client.Lost(t.Context(), name)
		if err != nil || len(lost.Partings) == 0 {
			return fmt.Errorf("%+v, %v", lost, err)
		}
		last = lost.Partings[len(lost.Partings)-1]
		if last.Epoch != l.Epoch || last.State != api.PartingRead && last.State != api.PartingUnreadable {
			return fmt.Errorf("epoch %d, %+v", l.Epoch, last)
		}
		return nil
	})
	return last
}

// lostChanges reads every lost change of a parting.
func lostChanges(t *testing.T, s *linktest.Side, name string, epoch int64) (list []api.LostChange) {
	t.Helper()
	for after, more := int64(0), true; more; {
		page, err := s.Client.LostPage(t.Context(), name, epoch, after, false)
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range page.Transactions {
			list = append(list, x.Changes...)
		}
		after, more = page.Next, page.More
	}
	return list
}

// rejoin lets the former primary rejoin, and waits until the link replicates.
func rejoin(t *testing.T, p *linktest.Pair, at *linktest.Side, name string, accept ...string) {
	t.Helper()
	if _, err := at.Client.Rejoin(t.Context(), name, api.Rejoin{Accept: accept}); err != nil {
		t.Fatalf("rejoin: %v", err)
	}
	waitRejoined(t, p, name)
}

// waitRejoined waits until both sides replicate; a rejoin that failed fails the test.
func waitRejoined(t *testing.T, p *linktest.Pair, name string) {
	t.Helper()
	for _, side := range []*linktest.Side{p.A, p.B} {
		pgtest.Eventually(t, linktest.Patience, func() error {
			l, err := side.Client.Link(t.Context(), name)
			if err == nil && l.Phase == api.Replicating {
				return nil
			}
			if err == nil && l.Phase == api.Fenced {
				t.Fatalf("the rejoin failed: %+v", l.Problems)
			}
			return fmt.Errorf("side %s: %s, %v, %+v", side.Name, l.Phase, err, l.Problems)
		})
	}
}

// The primary is cut off while clients write to it, and the twin takes over by force:
// the report lists exactly the acknowledged transfers that the twin does not have,
// and after the rejoin both sides are equal. Again and again, to and fro.
func TestForcedFailoversAndRejoins(t *testing.T) {
	t.Parallel()
	p := bankPair(t, linktest.Options{})
	for round := range rounds("TWINSPAN_FORCED", 3) {
		old, next := primaryOf(t, p, "bank")
		b := openBank(t, 4, false, func() string { return old.Server.DSN("bank") })
		b.waitTransfers(100)
		old.Kill()
		b.waitTransfers(100)
		force(t, next, "bank")
		// Both are written to, as far as clients reach them.
		other := openBank(t, 2, false, func() string { return next.Server.DSN("bank") })
		b.waitTransfers(50)
		other.waitTransfers(50)
		old.Start()
		parting := waitFenced(t, old, "bank")
		if _, err := pgtest.Try(t.Context(), old.Server.DSN("bank")+"&default_transaction_read_only=off", `INSERT INTO transfer VALUES ('late', 1, 1, 1)`); !refused(err) {
			t.Errorf("round %d: the fenced side takes a write: %v", round, err)
		}
		b.close()
		other.waitTransfers(50)
		other.close()
		checkLost(t, b, old, next, parting)
		rejoin(t, p, []*linktest.Side{old, next}[round%2], "bank")
		waitEqual(t, p, "bank", "bank")
		// The next round's clients begin with the same names.
		pgtest.Exec(t, next.Server.DSN("bank"), `TRUNCATE transfer`, fmt.Sprintf(`UPDATE account SET balance = %d`, opening))
		waitEqual(t, p, "bank", "bank")
	}
}

// checkLost compares the report with what clients were told of the former primary.
func checkLost(t *testing.T, b *bank, old, next *linktest.Side, parting api.Parting) {
	t.Helper()
	var reported []string
	for _, c := range lostChanges(t, next, "bank", parting.Epoch) {
		if c.Table == "public.transfer" {
			reported = append(reported, *c.New[0].Value)
		}
	}
	there := map[string]bool{}
	for _, row := range pgtest.Query(t, next.Server.DSN("bank"), `SELECT id FROM transfer`) {
		there[row[0]] = true
	}
	mine := map[string]bool{}
	for _, row := range pgtest.Query(t, old.Server.DSN("bank"), `SELECT id FROM transfer`) {
		mine[row[0]] = true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	listed := map[string]bool{}
	for _, id := range reported {
		if listed[id] {
			t.Errorf("transfer %s is reported twice", id)
		}
		listed[id] = true
		if !mine[id] || !b.fates[id].acknowledged && !b.fates[id].unknown {
			t.Errorf("transfer %s is reported, and was none", id)
		}
	}
	missing := 0
	for id, f := range b.fates {
		// A client of the new primary may have used the same name since.
		if f.acknowledged && !there[id] {
			missing++
			if !listed[id] {
				t.Errorf("transfer %s was acknowledged, is missing, and is not reported", id)
			}
		}
	}
	if missing == 0 {
		t.Error("nothing was lost, so nothing was tested")
	}
	t.Logf("%d transfers were lost, %d transactions of %d changes", missing, parting.Transactions, parting.Changes)
}

// TestRejoinOfEveryShape loses changes of each kind of table, changes the same tables
// on the new primary, and rejoins: what has to be copied anew is named before, and
// nothing else is.
func TestRejoinOfEveryShape(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{})
	p.A.Server.CreateDatabase(t, "shapes")
	a, b := p.A.Server.DSN("shapes"), p.B.Server.DSN("shapes")
	pgtest.Exec(t, a, everyType...)
	pgtest.Exec(t, a, workload...)
	pgtest.Exec(t, a, `CREATE TABLE untouched AS SELECT i AS id FROM generate_series(1, 1000) i`,
		`CREATE TABLE referred (id int PRIMARY KEY, v text)`, `INSERT INTO referred SELECT i, repeat('x', 200) FROM generate_series(1, 20000) i`, // large enough to be frozen when it is copied
		`CREATE TABLE refers (id int PRIMARY KEY, r int REFERENCES referred)`, `INSERT INTO refers SELECT i, i FROM generate_series(1, 100) i`)
	p.Create(t, "shapes", "shapes")
	p.WaitPhase(t, "shapes", api.Replicating)
	p.WaitEqual(t, "shapes", "shapes")

	p.A.Kill()
	pgtest.Exec(t, a, workload...)
	pgtest.Exec(t, a, `TRUNCATE part_old`, `TRUNCATE referred CASCADE`, `CREATE TABLE fresh (id int PRIMARY KEY)`, `INSERT INTO fresh VALUES (1)`)
	force(t, p.B, "shapes")
	for range 2 {
		pgtest.Exec(t, b, workload...)
	}
	pgtest.Exec(t, b, `ALTER TABLE toast ADD COLUMN extra int DEFAULT 5`, `UPDATE toast SET extra = 6 WHERE id % 2 = 0`,
		`CREATE TABLE younger (id int PRIMARY KEY)`, `INSERT INTO younger VALUES (1)`, `ALTER TABLE doubly RENAME TO renamed`,
		`UPDATE renamed SET note = 'r'`, `UPDATE toast SET id = id + 1000000 WHERE id > 0`)
	p.A.Start()
	waitFenced(t, p.A, "shapes")
	plan, err := p.B.Client.RejoinPlan(t.Context(), "shapes")
	if err != nil {
		t.Fatal(err)
	}
	var anew []string
	for _, r := range plan.Reseed {
		anew = append(anew, r.Table+" "+r.Why)
	}
	if want := []string{"public.keyless keyless", "public.part_old truncated", "public.referred truncated", "public.refers truncated"}; !slices.Equal(anew, want) {
		t.Errorf("copied anew are %v, want %v", anew, want)
	}
	if strings.Join(plan.Needs, ",") != "drop_objects,reseed_tables" {
		t.Errorf("it needs %v", plan.Needs)
	}
	if _, err := p.A.Client.Rejoin(t.Context(), "shapes", api.Rejoin{Accept: []string{"reseed_tables"}}); err == nil || !strings.Contains(err.Error(), "drop_objects") {
		t.Errorf("it is done without consent: %v", err)
	}
	rejoin(t, p, p.A, "shapes", plan.Needs...)
	waitEqual(t, p, "shapes", "shapes")
	pgtest.Exec(t, b, strings.ReplaceAll(strings.Join(workload[:10], ";\n"), "doubly", "renamed"))
	waitEqual(t, p, "shapes", "shapes")

	// What only the former primary needed is gone.
	pgtest.Eventually(t, linktest.Patience, func() error {
		left := pgtest.Query(t, a, `SELECT slot_name FROM pg_replication_slots UNION ALL SELECT pubname FROM pg_publication`)
		if len(left) > 0 {
			return fmt.Errorf("left behind: %v", left)
		}
		return nil
	})
	// The roles come home.
	if f := failOver(t, p.A, "shapes", api.FailoverRequest{}); f.State != api.FailoverDone {
		t.Fatalf("failback: %+v", f)
	}
	waitEqual(t, p, "shapes", "shapes")
}

// TestRejoinCopiesAnewWhatCannotBeUndone loses commands that nothing can undo, and on
// another link the slot that tells what was lost: the whole database is copied
// anew, when that is what is accepted.
func TestRejoinCopiesAnewWhatCannotBeUndone(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{})
	for _, name := range []string{"altered", "slotless"} {
		p.A.Server.CreateDatabase(t, name)
		pgtest.Exec(t, p.A.Server.AppDSN(name), `CREATE TABLE t (id int PRIMARY KEY, a text)`, `INSERT INTO t SELECT i, 'a' FROM generate_series(1, 1000) i`,
			`CREATE SEQUENCE s`, `SELECT lo_from_bytea(0, 'large')`)
		p.Create(t, name, name)
		p.WaitPhase(t, name, api.Replicating)
	}
	p.A.Kill()
	pgtest.Exec(t, p.A.Server.DSN("altered"), `ALTER TABLE t ADD COLUMN b int`, `INSERT INTO t VALUES (-1, 'lost', 1)`)
	pgtest.Exec(t, p.A.Server.DSN("slotless"), `INSERT INTO t VALUES (-1, 'lost')`)
	dropSlot(t, p.A, "slotless")
	for _, name := range []string{"altered", "slotless"} {
		force(t, p.B, name)
		pgtest.Exec(t, p.B.Server.DSN(name), `UPDATE t SET a = 'b' WHERE id < 100`)
	}
	p.A.Start()
	if parting := waitFenced(t, p.A, "slotless"); parting.State != api.PartingUnreadable || parting.Problem == nil || parting.Problem.Code != "slot_lost" {
		t.Errorf("%+v", parting)
	}
	waitFenced(t, p.A, "altered")
	for _, name := range []string{"altered", "slotless"} {
		plan, err := p.B.Client.RejoinPlan(t.Context(), name)
		if err != nil || !slices.Contains(plan.Needs, "compare_database") || (plan.Unreadable != "") != (name == "slotless") {
			t.Errorf("%s: %+v, %v", name, plan, err)
		}
		if _, err := p.B.Client.Rejoin(t.Context(), name, api.Rejoin{Accept: []string{"reseed_tables"}}); err == nil {
			t.Errorf("%s: it is done without consent", name)
		}
		rejoin(t, p, p.B, name, "copy_database")
		waitEqual(t, p, name, name)
	}
	// What was lost can still be seen, and is forgotten when somebody says so.
	if changes := lostChanges(t, p.B, "altered", 2); len(changes) != 2 || changes[0].Kind != "schema" || changes[1].Kind != "insert" {
		t.Errorf("%+v", changes)
	}
	lost, err := p.B.Client.DiscardLost(t.Context(), "altered", 0)
	if err != nil || lost.Partings[0].State != api.PartingDiscarded {
		t.Errorf("%+v, %v", lost, err)
	}
	if f := failOver(t, p.A, "altered", api.FailoverRequest{}); f.State != api.FailoverDone {
		t.Fatalf("failback: %+v", f)
	}
	waitEqual(t, p, "altered", "altered")
}

// TestRejoinSurvivesKills kills one agent after the other again and again while a
// former primary rejoins, and writes to the new one all the time.
func TestRejoinSurvivesKills(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{})
	p.A.Server.CreateDatabase(t, "shapes")
	a, b := p.A.Server.DSN("shapes"), p.B.Server.DSN("shapes")
	pgtest.Exec(t, a, everyType...)
	pgtest.Exec(t, a, workload...)
	pgtest.Exec(t, a, `CREATE TABLE many (id int PRIMARY KEY, a text)`, `INSERT INTO many SELECT i, 'a' FROM generate_series(1, 50000) i`)
	p.Create(t, "shapes", "shapes")
	p.WaitPhase(t, "shapes", api.Replicating)
	p.A.Kill()
	pgtest.Exec(t, a, workload...)
	pgtest.Exec(t, a, `UPDATE many SET a = 'lost' WHERE id % 2 = 0`, `UPDATE many SET id = -id WHERE id % 3 = 0`, `DELETE FROM many WHERE id % 5 = 0`)
	force(t, p.B, "shapes")
	p.A.Start()
	waitFenced(t, p.A, "shapes")
	if _, err := p.A.Client.Rejoin(t.Context(), "shapes", api.Rejoin{Accept: []string{"reseed_tables"}}); err != nil {
		t.Fatal(err)
	}
	for round := range rounds("TWINSPAN_KILLS", 8) {
		side := []*linktest.Side{p.A, p.B}[round%2]
		seen := len(side.Log())
		pgtest.Exec(t, b, workload...)
		pgtest.Exec(t, b, fmt.Sprintf(`UPDATE many SET a = '%d' WHERE id %% 7 = %d`, round, round%7))
		// Whatever it is doing by then: a different moment each time, for the log grows by
		// what the side has done.
		pgtest.Eventually(t, linktest.Patience, func() error {
			if len(side.Log()) <= seen+40*round {
				l, err := side.Client.Link(t.Context(), "shapes")
				if err == nil && l.Phase == api.Replicating {
					return nil
				}
				return fmt.Errorf("nothing happens: %v, %s", err, l.Phase)
			}
			return nil
		})
		side.Kill()
		side.Start()
	}
	waitRejoined(t, p, "shapes")
	waitEqual(t, p, "shapes", "shapes")
}
