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
	p, a, _ := drifts(t, "drift", `CREATE TABLE t (id int PRIMARY KEY)`, `CREATE TABLE u (id int PRIMARY KEY)`, `CREATE ROLE owning`, `CREATE ROLE other`, `ALTER TABLE t OWNER TO owning`,
		`CREATE SCHEMA of_owning AUTHORIZATION owning CREATE VIEW v AS SELECT 1 AS one`, `CREATE TYPE of_owning.kind AS ENUM ('a')`, `CREATE FUNCTION of_owning.f() RETURNS int LANGUAGE sql AS 'SELECT 1'`,
		`ALTER TYPE of_owning.kind OWNER TO owning`, `ALTER FUNCTION of_owning.f() OWNER TO owning`)
	pgtest.Exec(t, p.B.Server.DSN("postgres"), `CREATE ROLE other SUPERUSER`) // which it is on the twin alone
	pgtest.Exec(t, a, `REASSIGN OWNED BY owning TO other`)
	problem := stopped(t, p, "drift", "of_owning")
	if !strings.Contains(problem.Title, "primary: owner other; twin: owner owning") || !strings.Contains(problem.Hint, "ALTER SCHEMA of_owning OWNER TO \"other\"; then: twinspan link resume drift") {
		t.Fatalf("the problem is %+v", problem)
	}
	pgtest.Exec(t, p.B.Server.DSN("postgres"), `ALTER ROLE other NOSUPERUSER`)
	resume(t, p, "drift")
	noted := func() error {
		l, err := p.B.Client.Link(t.Context(), "drift")
		if err == nil && !slices.ContainsFunc(l.Notices, func(n api.Notice) bool { return n.Code == "owner_changed" && n.Subject == "of_owning.f()" }) {
			err = fmt.Errorf("%s, %+v", l.Phase, l.Notices)
		}
		return err
	}
	pgtest.Eventually(t, linktest.Patience, noted)
	sameStructure(t, p, "drift", "drift")

	pgtest.Exec(t, a, `CREATE TABLE w (id int PRIMARY KEY)`, `INSERT INTO w VALUES (1)`)
	p.WaitEqual(t, "drift", "drift")
	tamper(t, p.B, "drift", `DROP TABLE w`)
	problem = stopped(t, p, "drift", "public.w")
	if !strings.Contains(problem.Title, "table public.w is missing on the twin") {
		t.Fatalf("the problem is %+v", problem)
	}
	pgtest.Exec(t, a, `DROP TABLE w`)
	resume(t, p, "drift")
	sameStructure(t, p, "drift", "drift")

	tamper(t, p.B, "drift", `ALTER TABLE u ADD tampered int`)
	problem = stopped(t, p, "drift", "public.u.tampered")
	if !strings.Contains(problem.Title, "column public.u.tampered is on the twin alone") {
		t.Fatalf("the problem is %+v", problem)
	}
	tamper(t, p.B, "drift", `ALTER TABLE u DROP tampered`)
	resume(t, p, "drift")
	sameStructure(t, p, "drift", "drift")
}

// What stopped the link may be accepted, and stops it no more; another difference does.
func TestDriftIsAccepted(t *testing.T) {
	t.Parallel()
	p, a, _ := drifts(t, "accepted", `CREATE TABLE t (id int PRIMARY KEY)`)
	tamper(t, p.B, "accepted", `CREATE INDEX of_readers ON t (id, (id % 7))`)
	stopped(t, p, "accepted", "public.of_readers")
	if _, err := p.A.Client.SetLink(t.Context(), "accepted", api.SetLink{Accept: []string{"schema_drifted"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := p.A.Client.SetLink(t.Context(), "accepted", api.SetLink{Accept: []string{"schema_drifted"}}); err == nil {
		t.Error("nothing was accepted twice")
	}
	resume(t, p, "accepted")
	pgtest.Exec(t, a, `INSERT INTO t VALUES (1)`)
	tamper(t, p.B, "accepted", `CREATE TABLE another (id int)`)
	problem := stopped(t, p, "accepted", "public.another")
	if strings.Contains(problem.Title, "of_readers") {
		t.Errorf("the problem is %+v", problem)
	}
}

// An index that REINDEX has made valid on the primary is built on the twin; one that
// is invalid there is no difference, and can be dropped.
func TestFailedIndexIsNoDifference(t *testing.T) {
	t.Parallel()
	p, a, b := drifts(t, "failed", `CREATE TABLE t (id int)`, `INSERT INTO t VALUES (1), (1)`)
	for _, name := range []string{"mended", "given_up", "used", "renamed"} {
		if _, err := pgtest.Try(t.Context(), a, `CREATE UNIQUE INDEX CONCURRENTLY `+name+` ON t (id)`); err == nil {
			t.Fatal("the index was made")
		}
	}
	if v := verify(t, p.A.Client, "failed", api.Verify{}); v.State != api.Equal {
		t.Errorf("verify says %s: %+v", v.State, v.Differences)
	}
	// Nor is that of a partitioned table which takes a failed one over.
	pgtest.Exec(t, a, `CREATE TABLE parted (a int, b int) PARTITION BY LIST (a); CREATE TABLE part PARTITION OF parted DEFAULT; INSERT INTO parted VALUES (1, 0)`)
	if _, err := pgtest.Try(t.Context(), a, `CREATE INDEX CONCURRENTLY part_failed ON part ((a / b))`); err == nil {
		t.Fatal("the index was made")
	}
	pgtest.Exec(t, a, `CREATE INDEX parted_failed ON parted ((a / b))`, `DROP TABLE parted`)
	pgtest.Exec(t, a, `DELETE FROM t`, `INSERT INTO t VALUES (1)`, `REINDEX INDEX mended`, `DROP INDEX given_up`,
		`COMMENT ON INDEX renamed IS 'invalid'`, `ALTER INDEX renamed RENAME TO other`, `DROP INDEX other`, `REINDEX INDEX used`, `ALTER TABLE t ADD CONSTRAINT used_key UNIQUE USING INDEX used`)
	pgtest.Eventually(t, linktest.Patience, func() error {
		rows := pgtest.Query(t, b, `SELECT indexrelid::regclass, indisvalid FROM pg_index WHERE indrelid = 't'::regclass ORDER BY indexrelid::regclass::text`)
		if len(rows) != 2 || rows[0][0] != "mended" || rows[0][1] != "t" || rows[1][0] != "used_key" || rows[1][1] != "t" {
			return fmt.Errorf("the twin has the indexes %v", rows)
		}
		return nil
	})
	sameStructure(t, p, "failed", "failed")
	pgtest.Eventually(t, linktest.Patience, func() error {
		l, err := p.B.Client.Link(t.Context(), "failed")
		if err != nil || l.Phase != api.Replicating || len(l.Notices) == 0 || l.Notices[len(l.Notices)-1].Code != "index_built" {
			return fmt.Errorf("the link is %s, its notices %+v", l.Phase, l.Notices)
		}
		return nil
	})
}

func resume(t *testing.T, p *linktest.Pair, name string) {
	t.Helper()
	if _, err := p.B.Client.Resume(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	p.WaitPhase(t, name, api.Replicating)
}

// A session that has switched event triggers off is found out (17 and later).
func TestSessionWithoutEventTriggers(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{ServerA: version(17), ServerB: version(17)})
	p.A.Server.CreateDatabase(t, "off")
	a := p.A.Server.DSN("off")
	pgtest.Exec(t, a, `CREATE TABLE t (id int PRIMARY KEY)`)
	p.Create(t, "off", "off")
	p.WaitPhase(t, "off", api.Replicating)
	pgtest.Exec(t, a, `SET event_triggers = off`, `CREATE VIEW unseen AS SELECT id FROM t`)
	if problem := stopped(t, p, "off", "public.unseen"); !strings.Contains(problem.Title, "view public.unseen is missing on the twin") {
		t.Errorf("the problem is %+v", problem)
	}
	pgtest.Exec(t, a, `DROP VIEW unseen`)
	resume(t, p, "off")
	sameStructure(t, p, "off", "off")
	if l, err := p.B.Client.Link(t.Context(), "off"); err != nil || l.SchemaChanges != api.Followed {
		t.Errorf("schema changes are %q, %v", l.SchemaChanges, err)
	}
}
