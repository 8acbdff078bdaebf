package test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// A repair ends whatever the primary's schema has become while the link was broken: what
// is new is copied, what changed is copied anew, and what is gone goes when somebody says so.
func TestRepairBringsTheSchema(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{})
	p.A.Server.CreateDatabase(t, "repaired")
	a, b := p.A.Server.DSN("repaired"), p.B.Server.DSN("repaired")
	pgtest.Exec(t, a, `CREATE TABLE t (id int PRIMARY KEY, v text)`, `INSERT INTO t SELECT g, 'v' FROM generate_series(1, 50) g`,
		`CREATE TABLE o (id int PRIMARY KEY)`, `CREATE TABLE r (id int PRIMARY KEY REFERENCES o)`, `CREATE VIEW ov AS SELECT * FROM o`, `INSERT INTO o VALUES (1), (2)`, `INSERT INTO r VALUES (1)`,
		`CREATE TABLE gone (id int PRIMARY KEY)`, `CREATE UNLOGGED TABLE u (id int)`)
	p.Create(t, "repaired", "repaired")
	p.WaitPhase(t, "repaired", api.Replicating)
	tamper(t, p.B, "repaired", `DELETE FROM t WHERE id = 7`)
	pgtest.Exec(t, a, `UPDATE t SET v = 'w' WHERE id = 7`)
	p.WaitPhase(t, "repaired", api.Broken)
	pgtest.Exec(t, a, `CREATE TABLE fresh (id int PRIMARY KEY, o int REFERENCES o)`, `INSERT INTO fresh VALUES (1, 2)`,
		`ALTER TABLE o ADD COLUMN z int DEFAULT 7`, `UPDATE o SET z = 8 WHERE id = 1`, `CREATE INDEX oz ON o (z)`, `DROP TABLE gone`)

	if _, err := p.A.Client.ResumeWithRepair(t.Context(), "repaired"); err != nil {
		t.Fatal(err)
	}
	pgtest.Eventually(t, linktest.Patience, func() error {
		l, err := p.B.Client.Link(t.Context(), "repaired")
		if err != nil || l.Phase != api.Broken || len(l.Problems) == 0 || l.Problems[0].Code != "repair_drops_objects" || l.Problems[0].Subject != "public.gone" {
			return fmt.Errorf("the link is %s, %+v, %v", l.Phase, l.Problems, err)
		}
		return nil
	})
	if rows := pgtest.Query(t, b, `SELECT to_regclass('gone') IS NOT NULL`); rows[0][0] != "t" && rows[0][0] != "true" {
		t.Error("the table was dropped, though nobody agreed")
	}
	if _, err := p.A.Client.SetLink(t.Context(), "repaired", api.SetLink{Accept: []string{"drop_objects"}}); err != nil {
		t.Fatal(err)
	}
	// It is stored.
	p.B.Kill()
	p.B.Start()
	awaitPeer(t, p.A, "b") // an agent that answers has not met its peers yet
	if _, err := p.A.Client.ResumeWithRepair(t.Context(), "repaired"); err != nil {
		t.Fatal(err)
	}
	p.WaitPhase(t, "repaired", api.Replicating)
	pgtest.Exec(t, a, `INSERT INTO o VALUES (3, 3)`, `INSERT INTO r VALUES (3)`)
	p.WaitEqual(t, "repaired", "repaired")
	sameStructure(t, p, "repaired", "repaired")
	if rows := pgtest.Query(t, b, `SELECT count(*) FROM twinspan.consent`); rows[0][0] != "0" {
		t.Error("what was agreed to holds for the next repair, too")
	}
}

// What somebody dropped on the twin and the primary then uses stops the link at once, and repair brings it.
func TestRepairBringsWhatWasDropped(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{})
	p.A.Server.CreateDatabase(t, "dropped")
	a := p.A.Server.DSN("dropped")
	pgtest.Exec(t, a, `CREATE TABLE t (id int PRIMARY KEY)`, `INSERT INTO t VALUES (1)`, `CREATE TABLE u (id int)`, `INSERT INTO u VALUES (1)`, `CREATE VIEW v AS SELECT id FROM t`)
	p.Create(t, "dropped", "dropped")
	p.WaitPhase(t, "dropped", api.Replicating)
	for code, steps := range map[string][2]string{
		"schema_differs":       {`DROP TABLE u`, `INSERT INTO u VALUES (2)`},
		"schema_change_failed": {`DROP VIEW v`, `ALTER VIEW v ALTER COLUMN id SET DEFAULT 1`},
	} {
		tamper(t, p.B, "dropped", steps[0])
		pgtest.Exec(t, a, steps[1])
		p.WaitPhase(t, "dropped", api.Broken)
		l, err := p.B.Client.Link(t.Context(), "dropped")
		if err != nil || len(l.Problems) == 0 || l.Problems[0].Code != code || !strings.Contains(l.Problems[0].Hint, "--repair") {
			t.Fatalf("the link says %+v, %v", l.Problems, err)
		}
		if _, err := p.A.Client.ResumeWithRepair(t.Context(), "dropped"); err != nil {
			t.Fatal(err)
		}
		p.WaitPhase(t, "dropped", api.Replicating)
		sameStructure(t, p, "dropped", "dropped")
	}
}
