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

// problemOf returns the problem of that code, or one without.
func problemOf(list []api.Problem, code string) api.Problem {
	if i := slices.IndexFunc(list, func(p api.Problem) bool { return p.Code == code }); i >= 0 {
		return list[i]
	}
	return api.Problem{}
}

// A plan names, from either side, who would be waited for on both servers and what
// stands in the way, and changes nothing. A prepared transaction of another database of
// the twin's server holds up the making of a slot, so it stands in the way.
func TestPlanOfAFailover(t *testing.T) {
	t.Parallel()
	p := bankPair(t, linktest.Options{})
	ctx := t.Context()
	a, b := p.A.Server.DSN("bank"), p.B.Server.DSN("bank")

	var plan api.FailoverPlan
	both := func(in api.FailoverPlanRequest, what string, want func(api.FailoverPlan) bool) {
		t.Helper()
		for _, side := range []*linktest.Side{p.A, p.B} {
			pgtest.Eventually(t, linktest.Patience, func() (err error) {
				if plan, err = side.Client.FailoverPlan(ctx, "bank", in); err == nil && !want(plan) {
					err = fmt.Errorf("%s, asked at %s: %+v", what, side.Name, plan)
				}
				return err
			})
		}
	}
	both(api.FailoverPlanRequest{}, "nothing", func(p api.FailoverPlan) bool {
		return !p.Blocked && len(p.Waits) == 0 && p.Primary == "b" && p.Type == api.Planned && p.DrainSeconds == 10 && p.HoldSeconds != nil && *p.HoldSeconds == *p.MostSeconds && p.Loss == nil
	})

	writer := pgtest.Conn(t, p.A.Server.AppDSN("bank"))
	if _, err := writer.Exec(ctx, `BEGIN; INSERT INTO transfer VALUES ('open', 0, 1, 0)`); err != nil {
		t.Fatal(err)
	}
	reader := pgtest.Conn(t, p.A.Server.AppDSN("bank"))
	if _, err := reader.Exec(ctx, `BEGIN; SELECT count(*) FROM transfer`); err != nil {
		t.Fatal(err)
	}
	pid := int(writer.PgConn().PID())
	both(api.FailoverPlanRequest{DrainSeconds: 3}, "a writer", func(p api.FailoverPlan) bool {
		return !p.Blocked && len(p.Waits) == 1 && p.Waits[0].PID == pid && p.Waits[0].Agent == "a" && p.Waits[0].Role == "shop" && p.Waits[0].Database == "bank" &&
			p.Waits[0].Since != nil && p.Waits[0].Fate == api.FateEnded && *p.MostSeconds == *p.HoldSeconds+3
	})
	if _, err := writer.Exec(ctx, `ROLLBACK`); err != nil {
		t.Fatal(err)
	}

	pgtest.Exec(t, p.B.Server.DSN("postgres"), `CREATE TABLE elsewhere (i int)`)
	other := pgtest.Conn(t, p.B.Server.DSN("postgres"))
	if _, err := other.Exec(ctx, `BEGIN; INSERT INTO elsewhere VALUES (1); PREPARE TRANSACTION 'else'`); err != nil {
		t.Fatal(err)
	}
	both(api.FailoverPlanRequest{}, "prepared in another database", func(p api.FailoverPlan) bool {
		q := problemOf(p.Problems, "transaction_prepared")
		return p.Blocked && q.Severity == api.Blocks && q.Subject == "else" && strings.Contains(q.Title, "postgres") && strings.Contains(q.Hint, "COMMIT PREPARED") &&
			len(p.Waits) == 1 && p.Waits[0].GID == "else" && p.Waits[0].Agent == "b" && p.Waits[0].Fate == api.FateBlocks
	})
	f := failOver(t, p.A, "bank", api.FailoverRequest{})
	if f.State != api.FailoverUndone || f.Problem == nil || f.Problem.Code != "transaction_prepared" || f.Problem.Subject != "else" {
		t.Errorf("beside the prepared transaction: %+v", f)
	}
	pgtest.Exec(t, p.B.Server.DSN("postgres"), `ROLLBACK PREPARED 'else'`)

	// Of a forced one it names what would be left behind, and that it is not needed.
	forced, err := p.B.Client.FailoverPlan(ctx, "bank", api.FailoverPlanRequest{Type: api.Forced})
	if err != nil || !forced.Blocked || problemOf(forced.Problems, "primary_healthy").Severity != api.Blocks || forced.Loss == nil || !forced.Loss.PrimarySeen || forced.HoldSeconds != nil {
		t.Errorf("forced, with the primary there: %+v, %v", forced, err)
	}
	if forced, err = p.A.Client.FailoverPlan(ctx, "bank", api.FailoverPlanRequest{Type: api.Forced}); err != nil || problemOf(forced.Problems, "phase_refuses").Severity != api.Blocks {
		t.Errorf("forced, at the primary: %+v, %v", forced, err)
	}

	// Nothing was changed by asking.
	for dsn, want := range map[string]string{a: "0", b: "0"} {
		slots := pgtest.Query(t, dsn, `SELECT count(*) FROM pg_replication_slots WHERE slot_name LIKE 'twinspan%' AND database = current_database() AND NOT temporary`)[0][0]
		if dsn == a {
			want = "1"
		}
		if slots != want {
			t.Errorf("%s slots, want %s", slots, want)
		}
	}
	pgtest.Exec(t, a, `INSERT INTO transfer VALUES ('after', 0, 1, 0)`)
	p.WaitPhase(t, "bank", api.Replicating)
	p.WaitEqual(t, "bank", "bank")

	// A primary that is away is in the way of a planned failover, and of no forced one.
	p.A.Kill()
	pgtest.Eventually(t, linktest.Patience, func() error {
		plan, err := p.B.Client.FailoverPlan(ctx, "bank", api.FailoverPlanRequest{})
		if q := problemOf(plan.Problems, "peer_unreachable"); err != nil || !plan.Blocked || q.Severity != api.Blocks || !strings.Contains(q.Hint, "--type forced") {
			return fmt.Errorf("planned, with the primary away: %+v, %v", plan, err)
		}
		plan, err = p.B.Client.FailoverPlan(ctx, "bank", api.FailoverPlanRequest{Type: api.Forced})
		if err != nil || plan.Blocked || plan.Loss == nil || plan.Loss.PrimarySeen || plan.Loss.HeardAt == nil {
			return fmt.Errorf("forced, with the primary away: %+v, %v", plan, err)
		}
		return nil
	})
	if l, err := p.B.Client.Link(ctx, "bank"); err != nil || l.Role != api.Secondary || l.Epoch != 1 {
		t.Errorf("%+v, %v", l, err)
	}
}

// A twin on a server that cannot be primary is warned of by the check and by the link; a
// planned failover is refused, a forced one is not, and the way back compares.
func TestTwinOnAServerWithTooLittleLog(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{ServerB: []pgtest.Option{pgtest.WithSetting("wal_level", "replica")}})
	ctx := t.Context()
	p.A.Server.CreateDatabase(t, "bank")
	makeBank(t, p.A, "bank")
	check, err := p.A.Client.Check(ctx, api.CheckRequest{Database: "bank", Peer: "b"})
	if err != nil || !slices.ContainsFunc(check.Findings, func(f api.Finding) bool {
		return f.Code == "wal_level_too_low" && f.Severity == api.Warns && f.Object == "wal_level" && strings.Contains(f.Remedy, "on the secondary")
	}) {
		t.Fatalf("%+v, %v", check, err)
	}
	in := api.CreateLink{Name: "bank", Database: "bank", Peer: "b"}
	if _, err := p.A.Client.CreateLink(ctx, in); code(err) != "wal_level_too_low" {
		t.Fatalf("created without a word: %v", err)
	}
	in.Accept = []string{"wal_level_too_low"}
	if _, err := p.A.Client.CreateLink(ctx, in); err != nil {
		t.Fatal(err)
	}
	p.WaitPhase(t, "bank", api.Replicating)
	for _, side := range []*linktest.Side{p.A, p.B} {
		pgtest.Eventually(t, linktest.Patience, func() error {
			l, err := side.Client.Link(ctx, "bank")
			if q := problemOf(l.Problems, "wal_level_too_low"); err != nil || q.Severity != api.Warns || l.Phase != api.Replicating {
				return fmt.Errorf("side %s: %+v, %v", side.Name, l, err)
			}
			return nil
		})
	}
	if plan, err := p.A.Client.FailoverPlan(ctx, "bank", api.FailoverPlanRequest{}); err != nil || !plan.Blocked || problemOf(plan.Problems, "wal_level_too_low").Severity != api.Blocks {
		t.Errorf("planned: %+v, %v", plan, err)
	}
	if f := failOver(t, p.B, "bank", api.FailoverRequest{}); f.State != api.FailoverUndone || f.Problem == nil || f.Problem.Code != "wal_level_too_low" {
		t.Errorf("planned: %+v", f)
	}
	p.WaitPhase(t, "bank", api.Replicating)

	pgtest.Exec(t, p.A.Server.DSN("bank"), `INSERT INTO transfer VALUES ('both', 0, 1, 0)`)
	p.WaitApplied(t, "bank", "bank")
	p.B.Kill()
	pgtest.Exec(t, p.A.Server.DSN("bank"), `INSERT INTO transfer VALUES ('lost', 0, 1, 0); UPDATE account SET balance = balance + 1 WHERE id = 1`)
	p.A.Kill()
	p.B.Start()
	plan, err := p.B.Client.FailoverPlan(ctx, "bank", api.FailoverPlanRequest{Type: api.Forced})
	if err != nil || plan.Blocked || problemOf(plan.Problems, "wal_level_too_low").Severity != api.Warns {
		t.Errorf("forced: %+v, %v", plan, err)
	}
	f, err := p.B.Client.Failover(ctx, "bank", api.FailoverRequest{Type: api.Forced, AcceptDataLoss: true})
	if err != nil || f.State != api.FailoverDone || f.Primary != "b" || !strings.Contains(f.Text, "wal_level") {
		t.Fatalf("forced: %+v, %v", f, err)
	}
	b := p.B.Server.DSN("bank")
	pgtest.Exec(t, b, `INSERT INTO transfer VALUES ('by b', 0, 1, 0); UPDATE account SET balance = balance + 2 WHERE id = 2`)

	pgtest.Exec(t, p.B.Server.DSN("postgres"), `ALTER SYSTEM SET wal_level = 'logical'`)
	p.B.Kill()
	p.B.Server.Restart()
	p.B.Start()
	if level := pgtest.Query(t, b, `SHOW wal_level`)[0][0]; level != "logical" {
		t.Fatalf("the test's server keeps wal_level %s", level)
	}
	p.A.Start()
	pgtest.Eventually(t, linktest.Patience, func() error {
		plan, err := p.A.Client.RejoinPlan(ctx, "bank")
		if err != nil || plan.Unreadable != "log_not_held" || !slices.Contains(plan.Needs, "compare_database") {
			return fmt.Errorf("%+v, %v", plan, err)
		}
		return nil
	})
	if err := errorOf(p.B.Client.Rejoin(ctx, "bank", api.Rejoin{})); code(err) != "rejoin_not_accepted" {
		t.Errorf("without consent: %v", err)
	}
	if err := errorOf(p.B.Client.Rejoin(ctx, "bank", api.Rejoin{Accept: []string{"compare_database"}})); err != nil {
		t.Fatal(err)
	}
	waitSettled(t, p, "bank")
	back := &linktest.Pair{A: p.B, B: p.A}
	back.WaitEqual(t, "bank", "bank")
	if got := pgtest.Query(t, b, `SELECT string_agg(id, ',' ORDER BY id) FROM transfer WHERE id IN ('both', 'lost', 'by b')`)[0][0]; got != "both,by b" {
		t.Errorf("the new primary has %s", got)
	}
	// From here on all is as with any link.
	if f := failOver(t, p.A, "bank", api.FailoverRequest{}); f.State != api.FailoverDone || f.Primary != "a" {
		t.Errorf("home again: %+v", f)
	}
	waitSettled(t, p, "bank")
	p.WaitEqual(t, "bank", "bank")
	if l, err := p.A.Client.Link(ctx, "bank"); err != nil || problemOf(l.Problems, "wal_level_too_low").Code != "" {
		t.Errorf("%+v, %v", l.Problems, err)
	}
}

func errorOf(_ api.Link, err error) error { return err }
