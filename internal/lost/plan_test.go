package lost_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/lost"
	"github.com/twinspan/twinspan/internal/pgtest"
	"github.com/twinspan/twinspan/internal/rights"
)

func (f *former) plan(t testing.TB) *lost.Plan {
	t.Helper()
	p, err := lost.MakePlan(testContext(t), connect(t, f.dsn), f.source.Link, 2)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// describe prints a plan in lines.
func describe(p *lost.Plan) []string {
	var lines []string
	for _, t := range p.Touched {
		lines = append(lines, fmt.Sprintf("touched %s by %s, %d changes", t.Name, strings.Join(t.Key, " "), t.Changes))
	}
	for _, t := range p.Anew {
		lines = append(lines, fmt.Sprintf("anew %s %s", t.Name, t.Why))
	}
	for _, d := range p.Drop {
		lines = append(lines, d.SQL())
	}
	for _, k := range p.Keep {
		lines = append(lines, "keep "+k)
	}
	for _, w := range p.Whole {
		lines = append(lines, "whole "+w)
	}
	return lines
}

var planned = []string{
	`CREATE TABLE public.keyed (a text, b int, note text, PRIMARY KEY (b, a))`,
	`CREATE TABLE public.whole (id int PRIMARY KEY, note text)`, `ALTER TABLE public.whole REPLICA IDENTITY FULL`,
	`CREATE TABLE public.keyless (a int)`, `CREATE TABLE public.untouched (id int PRIMARY KEY)`,
	`CREATE TABLE public.emptied (id int PRIMARY KEY)`, `CREATE TABLE public.referring (id int PRIMARY KEY, e int REFERENCES public.emptied)`,
	`INSERT INTO public.keyed SELECT 'k' || i, i, 'n' FROM generate_series(1, 6) i`, `INSERT INTO public.whole SELECT i, 'n' FROM generate_series(1, 4) i`,
	`INSERT INTO public.keyless VALUES (1), (1), (2)`, `INSERT INTO public.untouched VALUES (1)`, `INSERT INTO public.emptied VALUES (1)`,
}

// TestPlanAndClear takes away whatever the lost transactions left, and nothing else.
func TestPlanAndClear(t *testing.T) {
	f := part(t, pgtest.Shared(t), planned...)
	pgtest.Exec(t, f.dsn,
		`INSERT INTO public.keyed VALUES ('new', 100, 'x')`, `UPDATE public.keyed SET note = 'y' WHERE b = 2`,
		`UPDATE public.keyed SET a = 'moved', b = 30 WHERE b = 3`, `DELETE FROM public.keyed WHERE b = 4`,
		`UPDATE public.whole SET note = 'z' WHERE id = 1`, `INSERT INTO public.whole VALUES (9, 'w')`,
		`DELETE FROM public.keyless WHERE a = 2`,
		`TRUNCATE public.emptied CASCADE`,
		`CREATE SCHEMA odd`, `CREATE TABLE odd."T t" (id serial PRIMARY KEY, a int)`, `INSERT INTO odd."T t" (a) VALUES (1)`,
		`CREATE INDEX extra ON public.untouched (id)`, `CREATE VIEW public.v AS SELECT * FROM public.keyed`,
		`GRANT SELECT ON public.untouched TO PUBLIC`)
	f.collect(t)
	p := f.plan(t)
	got := describe(p)
	want := []string{
		"touched public.keyed by b a, 4 changes", "touched public.whole by id, 2 changes",
		"anew public.emptied truncated", "anew public.keyless keyless", "anew public.referring truncated",
		"DROP VIEW IF EXISTS public.v CASCADE", "DROP INDEX IF EXISTS public.extra CASCADE",
		`DROP TABLE IF EXISTS odd."T t" CASCADE`, "DROP SCHEMA IF EXISTS odd CASCADE", "keep GRANT SELECT ON public.untouched TO PUBLIC",
	}
	for _, line := range want {
		if !slices.Contains(got, line) {
			t.Errorf("the plan lacks %q", line)
		}
	}
	if t.Failed() {
		t.Fatalf("plan:\n%s", strings.Join(got, "\n"))
	}
	conn := connect(t, f.dsn)
	err := pgx.BeginFunc(testContext(t), conn, func(tx pgx.Tx) error {
		return lost.Clear(testContext(t), &rights.Writer{TX: tx, DSN: f.source.DSN, Link: f.source.Name}, f.source.Link, 2, p)
	})
	if err != nil {
		t.Fatal(err)
	}
	// The same keys are missing that the lost changes name; all else is as it was.
	pgtest.Exec(t, f.before, `DELETE FROM public.keyed WHERE b IN (2, 3, 4, 30, 100)`, `DELETE FROM public.whole WHERE id = 1`,
		`DELETE FROM public.keyless`, `DELETE FROM public.referring`, `DELETE FROM public.emptied`)
	pgtest.Equal(t, f.dsn, f.before)
	m, err := lost.Look(testContext(t), conn, f.source.Link, 2)
	if err != nil || !m.Cleared || !m.Complete || m.Begun || m.Settled || m.Mended {
		t.Errorf("%+v, %v", m, err)
	}
	// By now, names have changed.
	pgtest.Exec(t, f.dsn, `SET session_replication_role = replica; ALTER TABLE public.keyed RENAME TO renamed; ALTER TABLE public.renamed RENAME b TO c`)
	touched, anew, err := lost.TablesNow(testContext(t), conn, f.source.Link, 2)
	if err != nil || len(touched) != 2 || len(anew) != 3 || touched[0].Name.Name != "renamed" || strings.Join(touched[0].Key, " ") != "c a" {
		t.Fatalf("%+v %+v %v", touched, anew, err)
	}
	keys := map[string]bool{}
	for after := int64(0); ; {
		list, last, err := lost.Keys(testContext(t), conn, f.source.Link, 2, touched[0].OID, after, 2)
		if err != nil {
			t.Fatal(err)
		}
		if len(list) == 0 {
			break
		}
		for _, k := range list {
			keys[strings.Join(k, " ")] = true
		}
		after = last
	}
	for _, k := range []string{"100 new", "2 k2", "3 k3", "30 moved", "4 k4"} {
		if !keys[k] || len(keys) != 5 {
			t.Errorf("keys %v lack %q", keys, k)
		}
	}
	pgtest.Exec(t, f.dsn, `SET session_replication_role = replica; ALTER TABLE public.renamed DROP CONSTRAINT keyed_pkey; ALTER TABLE public.renamed ADD PRIMARY KEY (c)`)
	if _, _, err := lost.TablesNow(testContext(t), conn, f.source.Link, 2); err == nil {
		t.Error("another key is as good")
	}
	conn.Close(context.Background())
}

// TestCommandsThatCannotBeUndone ask for a copy of the whole database.
func TestCommandsThatCannotBeUndone(t *testing.T) {
	f := part(t, pgtest.Shared(t), `CREATE TABLE public.t (id int PRIMARY KEY, a text)`, `CREATE FUNCTION public.f() RETURNS int LANGUAGE sql AS 'SELECT 1'`)
	pgtest.Exec(t, f.dsn, `ALTER TABLE public.t ADD b int`, `CREATE OR REPLACE VIEW public.v AS SELECT 1 AS x`, `DROP FUNCTION public.f()`)
	f.collect(t)
	got := describe(f.plan(t))
	want := []string{"whole DROP FUNCTION IF EXISTS public.f()", "whole CREATE OR REPLACE VIEW public.v AS SELECT 1 AS x", "whole ALTER TABLE public.t ADD b int"}
	if !slices.Equal(got, want) {
		t.Errorf("plan:\n%s", strings.Join(got, "\n"))
	}
}
