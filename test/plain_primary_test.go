package test

import (
	"errors"
	"strings"
	"testing"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/pgtest"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// A primary whose role is no superuser allows no event triggers: its rows are
// followed, its schema is compared, and a change of it stops the link.
func TestPrimaryWithoutEventTriggers(t *testing.T) {
	t.Parallel()
	for _, major := range []int{0, 10} {
		t.Run(map[int]string{0: "installed", 10: "10"}[major], func(t *testing.T) {
			t.Parallel()
			plainPrimary(t, major)
		})
	}
}

func plainPrimary(t *testing.T, major int) {
	p := linktest.New(t, linktest.Options{ServerA: version(major), DSN: func(name, dsn string) string {
		if name == "a" {
			return strings.Replace(dsn, "//"+pgtest.AgentRole+":", "//plain:", 1)
		}
		return dsn
	}, Before: func(name string, server *pgtest.Server) {
		if name == "a" {
			pgtest.Exec(t, server.DSN("postgres"), `CREATE ROLE plain LOGIN REPLICATION CREATEDB PASSWORD `+sqlname.Literal(pgtest.Password), `CREATE DATABASE plain OWNER plain`)
		}
	}})
	super := p.A.Server.DSN("plain")
	a := p.A.Server.DSNOf("plain", pgtest.Password, "plain")
	pgtest.Exec(t, a, `CREATE TABLE t (id int PRIMARY KEY, s varchar(10) CHECK (s IN ('a', 'b')))`, `CREATE TABLE keyless (a int, b text)`,
		`CREATE TABLE part (id int) PARTITION BY LIST (id)`, `CREATE TABLE part1 PARTITION OF part FOR VALUES IN (1)`,
		`INSERT INTO t SELECT i, 'a' FROM generate_series(1, 1000) i`, `INSERT INTO keyless VALUES (1, 'x'), (1, 'x')`)
	check, err := p.A.Client.Check(t.Context(), api.CheckRequest{Database: "plain", Peer: "b"})
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, f := range check.Findings {
		found = found || f.Code == "event_triggers_refused" && f.Severity == api.Warns && f.Object == "plain"
		if f.Severity == api.Blocks {
			t.Errorf("check finds %+v", f)
		}
	}
	if !found {
		t.Fatalf("check says nothing of event triggers: %+v", check.Findings)
	}
	create := api.CreateLink{Name: "plain", Database: "plain", Peer: "b"}
	if _, err := p.A.Client.CreateLink(t.Context(), create); err == nil || !strings.Contains(err.Error(), "event triggers") {
		t.Fatalf("the link was made without a word: %v", err)
	}
	create.Accept = []string{"event_triggers_refused"}
	if _, err := p.A.Client.CreateLink(t.Context(), create); err != nil {
		t.Fatal(err)
	}
	p.WaitPhase(t, "plain", api.Replicating)
	pgtest.Exec(t, a, `UPDATE t SET s = 'b' WHERE id % 3 = 0`, `DELETE FROM keyless WHERE ctid = (SELECT min(ctid) FROM keyless)`, `INSERT INTO part VALUES (1)`, `TRUNCATE keyless`, `INSERT INTO keyless VALUES (3, 'y')`)
	p.WaitEqual(t, "plain", "plain")
	if v := verify(t, p.A.Client, "plain", api.Verify{}); v.State != api.Equal {
		t.Errorf("verify says %s: %+v, problem %+v", v.State, v.Differences, v.Problem)
	}
	for _, side := range []*linktest.Side{p.A, p.B} {
		pgtest.Eventually(t, linktest.Patience, func() error { return showsCompared(t, side) })
	}

	// A new table stops the link. Made on the twin, and with its rows repaired, it goes on.
	pgtest.Exec(t, a, `CREATE TABLE later (id int PRIMARY KEY)`, `INSERT INTO later VALUES (1)`)
	problem := stopped(t, p, "plain", "public.later")
	if !strings.Contains(problem.Title, "table public.later is missing on the twin") {
		t.Errorf("the problem is %+v", problem)
	}
	tamper(t, p.B, "plain", `CREATE TABLE later (id int PRIMARY KEY)`, `ALTER TABLE later OWNER TO plain`)
	resume(t, p, "plain")
	pgtest.Exec(t, a, `INSERT INTO later VALUES (2)`)
	if v := verify(t, p.A.Client, "plain", api.Verify{Repair: true}); v.State != api.Repaired || v.RepairedRows != 1 {
		t.Errorf("verify says %s: %+v, problem %+v", v.State, v.Differences, v.Problem)
	}
	p.WaitEqual(t, "plain", "plain")
	if f := failOver(t, p.A, "plain", api.FailoverRequest{Cutover: true}); f.State != api.FailoverUndone || f.Problem.Code != "not_superuser" {
		t.Errorf("a failover of a primary whose agent cannot hold writers: %+v, %+v", f, f.Problem)
	}
	if _, err := p.A.Client.DeleteLink(t.Context(), "plain", false); err != nil {
		t.Fatal(err)
	}
	if left := pgtest.Query(t, super, `SELECT nspname FROM pg_namespace WHERE nspname = 'twinspan' UNION ALL SELECT pubname FROM pg_publication UNION ALL SELECT relname FROM pg_class WHERE relreplident = 'f'`); len(left) > 0 {
		t.Errorf("left on the primary: %v", left)
	}
}

func showsCompared(t *testing.T, side *linktest.Side) error {
	l, err := side.Client.Link(t.Context(), "plain")
	if err == nil && l.SchemaChanges != api.Compared {
		err = errors.New("schema changes are shown as " + string(l.SchemaChanges))
	}
	return err
}
