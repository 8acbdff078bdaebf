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

// lackingAt returns what a side lacks, as kind and name, asked at another one.
func lackingAt(t *testing.T, asked, of *linktest.Side) (list []string, side api.UncarriedSide) {
	t.Helper()
	u, err := asked.Client.Uncarried(t.Context(), "sales")
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(u.Sides, func(s api.UncarriedSide) bool { return s.Agent == of.Name })
	if i < 0 {
		t.Fatalf("%+v", u)
	}
	for _, o := range u.Sides[i].Objects {
		list = append(list, o.Kind+" "+o.Name)
	}
	return list, u.Sides[i]
}

// What is not carried is known from both sides before a failover, and from the new primary
// after a forced one, when the former cannot be asked; what was set up is listed no more.
func TestWhatIsNotCarriedIsListed(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{})
	p.A.Server.CreateDatabase(t, "shop")
	pgtest.Exec(t, p.A.Server.DSN("shop"), `CREATE TABLE t (a int PRIMARY KEY)`, `CREATE PUBLICATION "Ne""ws" FOR TABLE t`,
		`CREATE SUBSCRIPTION feed CONNECTION 'host=/nowhere password=hunter2' PUBLICATION p WITH (connect = false, slot_name = NONE)`,
		`SELECT pg_create_logical_replication_slot('cdc', 'pgoutput')`, `SELECT pg_create_physical_replication_slot('standby')`)
	if _, err := p.A.Client.CreateLink(t.Context(), api.CreateLink{Name: "sales", Database: "shop", Peer: p.B.Name, Accept: []string{"subscription_not_carried"}}); err != nil {
		t.Fatal(err)
	}
	p.WaitPhase(t, "sales", api.Replicating)
	pgtest.Exec(t, p.A.Server.DSN("postgres"), `ALTER DATABASE shop SET work_mem = '9MB'`, `ALTER SYSTEM SET vacuum_cost_limit = 321`, `ALTER SYSTEM SET archive_command = 'echo hunter2'`,
		`SELECT pg_reload_conf()`)
	pgtest.Eventually(t, linktest.Patience, func() error {
		if got := pgtest.Query(t, p.A.Server.DSN("postgres"), `SHOW vacuum_cost_limit`)[0][0]; got != "321" {
			return fmt.Errorf("the setting is %s", got)
		}
		return nil
	})

	want := []string{"subscription feed", `publication Ne"ws`, "logical_slot cdc", "physical_slot standby", "setting vacuum_cost_limit", "database_setting work_mem"}
	for _, asked := range []*linktest.Side{p.A, p.B} {
		got, side := lackingAt(t, asked, p.B)
		if !contains(got, want) || side.Role != api.Secondary || side.From != p.A.Name || side.AsOf == nil || side.Problem != nil {
			t.Errorf("asked at %s: %q, %+v", asked.Name, got, side)
		}
	}
	plan, err := p.A.Client.FailoverPlan(t.Context(), "sales", api.FailoverPlanRequest{})
	if err != nil || plan.Uncarried == nil || plan.Uncarried.Agent != p.B.Name || len(plan.Uncarried.Objects) < len(want) {
		t.Errorf("%+v, %v", plan, err)
	}
	if text := fmt.Sprintf("%+v", plan.Uncarried); strings.Contains(text, "hunter2") {
		t.Errorf("a secret is shown: %s", text)
	}
	if kept := pgtest.Query(t, p.B.Server.DSN("shop"), `SELECT inventory FROM twinspan.former`); strings.Contains(fmt.Sprint(kept), "hunter2") || !strings.Contains(fmt.Sprint(kept), "cdc") {
		t.Errorf("kept is %v", kept)
	}

	settingsAreNamed(t, p)
	p.A.Kill()
	if f, err := p.B.Client.Failover(t.Context(), "sales", api.FailoverRequest{Type: api.Forced, AcceptDataLoss: true}); err != nil || f.State != api.FailoverDone {
		t.Fatalf("%+v, %v", f, err)
	}
	pgtest.Exec(t, p.B.Server.DSN("shop"), `CREATE PUBLICATION "Ne""ws" FOR TABLE t`, `ALTER DATABASE shop SET work_mem = '9MB'`)
	got, side := lackingAt(t, p.B, p.B)
	left := []string{"subscription feed", "logical_slot cdc", "physical_slot standby", "setting vacuum_cost_limit"}
	if !contains(got, left) || side.Role != api.Primary || side.AsOf == nil || contains(got, []string{`publication Ne"ws`}) || contains(got, []string{"database_setting work_mem"}) {
		t.Errorf("after the failover: %q, %+v", got, side)
	}
	p.A.Start()
}

// settingsAreNamed sees that settings which the primary's database has got while it is linked are a problem, with the
// statements for the secondary, until that has them or its operator lets it be.
func settingsAreNamed(t *testing.T, p *linktest.Pair) {
	t.Helper()
	pgtest.Exec(t, p.A.Server.DSN("postgres"), `ALTER DATABASE shop SET search_path = "$user", "Shop 1", public`, `ALTER ROLE postgres IN DATABASE shop SET shop.key = 'hunter2'`)
	var named api.Problem
	pgtest.Eventually(t, linktest.Patience, func() error {
		l, err := p.B.Client.Link(t.Context(), "sales")
		if named = problemOf(l.Problems, "database_settings_differ"); err != nil || !strings.Contains(named.Hint, "search_path") {
			return fmt.Errorf("%+v, %v", l.Problems, err)
		}
		return nil
	})
	statement := `ALTER DATABASE "shop" SET "search_path" TO '$user', 'Shop 1', 'public'`
	if strings.Contains(fmt.Sprint(named), "hunter2") || strings.Contains(named.Hint, "work_mem") || !strings.Contains(named.Hint, statement) ||
		!strings.Contains(named.Hint, `ALTER ROLE "postgres" IN DATABASE "shop" SET "shop"."key" TO`) {
		t.Errorf("%+v", named)
	}
	pgtest.Exec(t, p.B.Server.DSN("postgres"), statement)
	const paths = `SELECT line FROM pg_db_role_setting s, unnest(s.setconfig) line WHERE setrole = 0 AND line LIKE 'search_path=%'`
	if a, b := pgtest.Query(t, p.A.Server.DSN("shop"), paths), pgtest.Query(t, p.B.Server.DSN("shop"), paths); len(a) != 1 || fmt.Sprint(a) != fmt.Sprint(b) {
		t.Errorf("%v, and by the statement %v", a, b)
	}
	for _, in := range []api.SetLink{{Accept: []string{"database_settings_differ"}}, {Withdraw: []string{"database_settings_differ"}}} {
		if _, err := p.B.Client.SetLink(t.Context(), "sales", in); err != nil {
			t.Fatal(err)
		}
		l, err := p.B.Client.Link(t.Context(), "sales")
		if left := problemOf(l.Problems, "database_settings_differ"); err != nil || left.Code != "" {
			t.Errorf("after %+v: %+v, %v", in, l.Problems, err)
		}
	}
}

// contains says whether all that is wanted is in a list.
func contains(list, want []string) bool {
	return !slices.ContainsFunc(want, func(w string) bool { return !slices.Contains(list, w) })
}
