package test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// drifts makes a link and returns its primary's DSN.
func drifts(t *testing.T, name string, schema ...string) (*linktest.Pair, string, string) {
	t.Helper()
	p := linktest.New(t, linktest.Options{})
	p.A.Server.CreateDatabase(t, name)
	a, b := p.A.Server.DSN(name), p.B.Server.DSN(name)
	pgtest.Exec(t, a, schema...)
	p.Create(t, name, name)
	p.WaitPhase(t, name, api.Replicating)
	return p, a, b
}

// stopped waits until the link is broken by a difference, and returns it.
func stopped(t *testing.T, p *linktest.Pair, name, subject string) api.Problem {
	t.Helper()
	var found api.Problem
	pgtest.Eventually(t, linktest.Patience, func() error {
		l, err := p.A.Client.Link(t.Context(), name)
		if err != nil {
			return err
		}
		for _, problem := range l.Problems {
			if l.Phase == api.Broken && problem.Code == "schema_drifted" && problem.Subject == subject {
				found = problem
				return nil
			}
		}
		return fmt.Errorf("the link is %s: %+v", l.Phase, l.Problems)
	})
	return found
}

// What no event trigger sees stops the link, which names it; and the remedy it
// gives works.
func TestDriftStopsTheLink(t *testing.T) {
	t.Parallel()
	p, a, b := drifts(t, "drift", `CREATE TABLE t (id int PRIMARY KEY)`, `CREATE TABLE u (id int PRIMARY KEY)`, `CREATE ROLE owning`, `CREATE ROLE other`, `ALTER TABLE t OWNER TO owning`)
	pgtest.Exec(t, a, `REASSIGN OWNED BY owning TO other`)
	problem := stopped(t, p, "drift", "public.t")
	if !strings.Contains(problem.Title, "primary: owner other; twin: owner owning") || !strings.Contains(problem.Hint, "ALTER TABLE public.t OWNER TO \"other\"; then: twinspan link resume drift") {
		t.Fatalf("the problem is %+v", problem)
	}
	pgtest.Exec(t, a, `ALTER TABLE public.t OWNER TO other`, `INSERT INTO t VALUES (1)`)
	resume(t, p, "drift")
	sameStructure(t, p, "drift", "drift")

	pgtest.Exec(t, a, `EXPLAIN ANALYZE CREATE TABLE explained AS SELECT id FROM t WHERE false`)
	problem = stopped(t, p, "drift", "public.explained")
	if !strings.Contains(problem.Title, "table public.explained is missing on the twin") {
		t.Fatalf("the problem is %+v", problem)
	}
	pgtest.Exec(t, a, `DROP TABLE explained`)
	resume(t, p, "drift")
	sameStructure(t, p, "drift", "drift")

	pgtest.Exec(t, b, `SET session_replication_role = replica`, `SET default_transaction_read_only = off`, `ALTER TABLE u ADD tampered int`)
	problem = stopped(t, p, "drift", "public.u.tampered")
	if !strings.Contains(problem.Title, "column public.u.tampered is on the twin alone") {
		t.Fatalf("the problem is %+v", problem)
	}
	pgtest.Exec(t, b, `SET session_replication_role = replica`, `SET default_transaction_read_only = off`, `ALTER TABLE u DROP tampered`)
	resume(t, p, "drift")
	sameStructure(t, p, "drift", "drift")
}

func resume(t *testing.T, p *linktest.Pair, name string) {
	t.Helper()
	if _, err := p.B.Client.Resume(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	p.WaitPhase(t, name, api.Replicating)
}
