package test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/client"
	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// auditPass has a pass begin and waits until one that began later than now has ended.
func auditPass(t *testing.T, c *client.Client, name string) api.AuditReport {
	t.Helper()
	before, err := c.Audit(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.BeginAudit(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	var v api.AuditReport
	pgtest.Await(t, linktest.Patience, "a pass of the audit", func() (err error) {
		if v, err = c.Audit(t.Context(), name); err != nil {
			return err
		}
		if v.BeganAt == nil || v.EndedAt == nil || before.BeganAt != nil && !v.BeganAt.After(*before.BeganAt) || v.EndedAt.Before(*v.BeganAt) {
			return fmt.Errorf("%s %s, %d of %d compared, began %v, ended %v", v.State, v.Why, v.Done, v.Items, v.BeganAt, v.EndedAt)
		}
		return nil
	})
	return v
}

// audited puts what differs into words.
func audited(v api.AuditReport) []string {
	list := []string{}
	for _, i := range v.Compared {
		for _, d := range i.Differences {
			words := []string{d.Kind, d.Object}
			for _, k := range d.Key {
				words = append(words, k.Value)
			}
			list = append(list, strings.Join(append(words, d.State), " "))
		}
	}
	slices.Sort(list)
	return list
}

// auditProblem is the problem of the code that the link has, if it has one.
func auditProblem(t *testing.T, c *client.Client, name, code string) *api.Problem {
	t.Helper()
	l, err := c.Link(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range l.Problems {
		if p.Code == code {
			return &p
		}
	}
	return nil
}

// auditSchema has something of each kind that the audit compares.
var auditSchema = []string{
	`CREATE TABLE ledger (id int PRIMARY KEY, amount numeric, note text)`, `INSERT INTO ledger SELECT i, i, md5(i::text) FROM generate_series(1, 60000) i`,
	`CREATE TABLE named (name text, at timestamptz, n int, PRIMARY KEY (name, at))`, `INSERT INTO named SELECT 'n' || i % 50, '2020-01-01'::timestamptz + i * interval '1 h', i FROM generate_series(1, 2000) i`,
	`CREATE TABLE heap (a int, b text)`, `INSERT INTO heap SELECT i % 9, 'b' || i % 7 FROM generate_series(1, 500) i`,
	`CREATE FUNCTION twice(i int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT i * 2'`,
	`CREATE TABLE computed (id int PRIMARY KEY, a int, b int GENERATED ALWAYS AS (twice(a)) STORED)`, `INSERT INTO computed SELECT i, i FROM generate_series(1, 100) i`,
	`CREATE TABLE parts (id int, k int, v text, PRIMARY KEY (id, k)) PARTITION BY LIST (k)`, `CREATE TABLE parts_1 PARTITION OF parts FOR VALUES IN (1)`, `CREATE TABLE parts_2 PARTITION OF parts FOR VALUES IN (2)`,
	`INSERT INTO parts SELECT i, 1 + i % 2, 'v' FROM generate_series(1, 100) i`,
	`CREATE TABLE long (id int PRIMARY KEY, body text)`, `INSERT INTO long SELECT i, (SELECT string_agg(md5((i * 1000 + j)::text), '') FROM generate_series(1, 4000) j) FROM generate_series(1, 20) i`,
	// A cast of a user's that tells all values of the type alike.
	`CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy')`, `CREATE FUNCTION mood_text(mood) RETURNS text IMMUTABLE LANGUAGE sql AS $$SELECT 'a mood'$$`, `CREATE CAST (mood AS text) WITH FUNCTION mood_text(mood)`,
	`CREATE TABLE moods (m mood PRIMARY KEY, n int)`, `INSERT INTO moods VALUES ('sad', 1), ('ok', 2)`,
	`CREATE EXTENSION pgcrypto`, `CREATE TABLE settings (id int PRIMARY KEY, v text)`, `INSERT INTO settings SELECT i, 'v' FROM generate_series(1, 10) i`,
	`CREATE MATERIALIZED VIEW summed AS SELECT n % 3 AS rest, count(*) FROM named WHERE name <> 'new' GROUP BY 1`,
	`CREATE SEQUENCE numbers`, `SELECT setval('numbers', 1000)`,
	`SELECT lo_from_bytea(4711, decode(repeat('ab', 20000), 'hex')), lo_from_bytea(4712, 'small')`,
	`CREATE UNLOGGED TABLE scratch (i int)`,
}

// ofExtension makes table settings one that an extension made, with some rows of the
// user's, as pg_extension_config_dump does.
var ofExtension = []string{
	`INSERT INTO pg_depend SELECT 'pg_class'::regclass, 'settings'::regclass, 0, 'pg_extension'::regclass, oid, 0, 'e' FROM pg_extension WHERE extname = 'pgcrypto'`,
	`UPDATE pg_extension SET extconfig = ARRAY['settings'::regclass::oid], extcondition = ARRAY['WHERE id > 1'] WHERE extname = 'pgcrypto'`,
}

// The audit finds whatever differs within one pass, while clients write on the primary,
// says where, and is content once it is repaired.
func TestAuditFindsWhatDiffers(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{})
	p.A.Server.CreateDatabase(t, "audit")
	a, b := p.A.Server.DSN("audit"), p.B.Server.DSN("audit")
	pgtest.Exec(t, a, auditSchema...)
	rate := int64(1 << 30)
	if _, err := p.A.Client.CreateLink(t.Context(), api.CreateLink{Name: "audit", Database: "audit", Peer: "b", AuditRate: &rate}); err != nil {
		t.Fatal(err)
	}
	p.WaitPhase(t, "audit", api.Replicating)
	for _, dsn := range []string{a, b} {
		pgtest.Exec(t, dsn, append([]string{`SET session_replication_role = replica`, `SET twinspan.pass_gate = on`, `SET default_transaction_read_only = off`}, ofExtension...)...)
	}
	// Without the pauses a slow machine passes nearly every position before it knows it.
	stop := keepBusy(t, a, `UPDATE ledger SET amount = amount + 1 WHERE id % 1000 = 1`, `INSERT INTO named VALUES ('new', clock_timestamp(), 1)`, `INSERT INTO heap VALUES (1, 'more')`,
		`DELETE FROM named WHERE name = 'new' AND n = 1`, `UPDATE parts SET v = v || 'x' WHERE id = 10`, `SELECT pg_sleep(0.03)`)
	defer stop()

	v := auditPass(t, p.A.Client, "audit")
	if got := audited(v); len(got) > 0 {
		t.Fatalf("nothing differs, and told is %q", got)
	}
	if v.EqualSince == nil || v.PassSeconds == nil || v.RateBytesPerSecond != rate || v.LeftOut != 1 {
		t.Errorf("after a pass that found all equal: %+v", v.Audit)
	}
	var kinds []string
	for _, i := range v.Compared {
		switch {
		case i.Name == "public.scratch":
			if i.Skipped == "" || i.EqualAt != nil {
				t.Errorf("an unlogged table is compared: %+v", i)
			}
		case i.EqualAt == nil || i.Position == "":
			t.Errorf("not found equal: %+v", i)
		}
		kinds = append(kinds, i.Kind)
	}
	for _, want := range []string{"table", "materialized view", "large objects", "sequences", "schema"} {
		if !slices.Contains(kinds, want) {
			t.Errorf("no %s is among %v", want, kinds)
		}
	}

	tamper(t, p.B, "audit",
		`UPDATE ledger SET note = note || '!' WHERE id = 7`, `DELETE FROM ledger WHERE id = 59999`, `INSERT INTO ledger VALUES (-5)`,
		`INSERT INTO heap VALUES (77, 'extra')`,
		`BEGIN; UPDATE named SET n = n + 1 WHERE name = 'n1'; REFRESH MATERIALIZED VIEW summed; UPDATE named SET n = n - 1 WHERE name = 'n1'; COMMIT`,
		`BEGIN; CREATE OR REPLACE FUNCTION twice(i int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT i * 3'; UPDATE computed SET a = a WHERE id = 50;
			CREATE OR REPLACE FUNCTION twice(i int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT i * 2'; COMMIT`,
		`UPDATE parts_2 SET v = 'w' WHERE id = 5`, `UPDATE long SET body = overlay(body placing 'X' from 70000) WHERE id = 13`,
		`UPDATE moods SET m = 'happy' WHERE m = 'ok'`, `UPDATE settings SET v = 'w' WHERE id < 4`, `SELECT lo_put(4711, 12345, 'xyz')`)
	// The link sets sequences back where they belong, so this one is moved again and again. A
	// pass that looks at it just when it was set back finds nothing, and another one does.
	moved := keepBusy(t, b, `SET session_replication_role = replica`, `SET twinspan.pass_gate = on`, `SET default_transaction_read_only = off`, `SELECT setval('numbers', 1000000000), pg_sleep(0.05)`)
	defer moved()
	const sequence = "sequence public.numbers differs"
	want := []string{
		"row pg_catalog.pg_largeobject 4711 differs", "row public.computed 50 differs", "row public.heap extra",
		"row public.ledger -5 extra", "row public.ledger 59999 missing", "row public.ledger 7 differs", "row public.long 13 differs",
		"row public.moods happy extra", "row public.moods ok missing", "row public.parts_2 5 2 differs",
		"row public.settings 1 differs", "row public.settings 2 differs", "row public.settings 3 differs",
	}
	var got []string
	for range 10 {
		v = auditPass(t, p.B.Client, "audit")
		got = audited(v)
		rest := slices.DeleteFunc(slices.Clone(got), func(s string) bool { return s == sequence || strings.HasPrefix(s, "row public.summed ") })
		if !slices.Equal(rest, want) || !slices.ContainsFunc(got, func(s string) bool { return strings.HasPrefix(s, "row public.summed ") }) {
			t.Fatalf("told %q\nwant %q and rows of public.summed", got, want)
		}
		if slices.Contains(got, sequence) {
			break
		}
	}
	moved()
	if !slices.Contains(got, sequence) {
		t.Fatalf("ten passes told nothing of a sequence that differs: %q", got)
	}
	for _, side := range []*linktest.Side{p.A, p.B} {
		pgtest.Eventually(t, linktest.Patience, func() error {
			problem := auditProblem(t, side.Client, "audit", "audit_difference")
			if problem == nil || !strings.Contains(problem.Title, "public.ledger") || !strings.Contains(problem.Hint, "verify audit --repair") {
				return fmt.Errorf("%s says %+v", side.Name, problem)
			}
			return nil
		})
	}
	if l, err := p.B.Client.Link(t.Context(), "audit"); err != nil || l.Audit == nil || l.Audit.Differing != 10 || l.Audit.Differences != len(got) {
		t.Errorf("link show says %+v, %v", l.Audit, err)
	}

	// What is known survives the agent, and what was repaired is found equal again.
	p.B.Kill()
	p.B.Start()
	p.WaitPhase(t, "audit", api.Replicating)
	pgtest.Eventually(t, linktest.Patience, func() error {
		v, err := p.A.Client.Audit(t.Context(), "audit")
		if err == nil && !slices.Equal(audited(v), got) {
			err = fmt.Errorf("after a restart told is %q", audited(v))
		}
		return err
	})
	if v := verify(t, p.B.Client, "audit", api.Verify{Repair: true}); v.Problem != nil || v.State != api.Repaired {
		t.Errorf("the repair: %s %+v %q", v.State, v.Problem, told(v))
	}
	// A view that was not refreshed since its table changed cannot be had again.
	pgtest.Exec(t, a, `UPDATE named SET n = n + 1 WHERE name = 'n2'`)
	if err := reach(t.Context(), p.A, p.B, "audit", "audit"); err != nil {
		t.Fatal(err)
	}
	tamper(t, p.B, "audit", `REFRESH MATERIALIZED VIEW summed`, `SELECT lo_unlink(4712), lo_create(4713)`)
	if v := verify(t, p.B.Client, "audit", api.Verify{Repair: true}); v.State != api.Different || v.Problem == nil || v.Problem.Code != "view_not_repaired" || v.Problem.Subject != "public.summed" {
		t.Errorf("a stale view: %s %+v %q", v.State, v.Problem, told(v))
	}
	pgtest.Exec(t, a, `REFRESH MATERIALIZED VIEW summed`)
	if got := audited(auditPass(t, p.A.Client, "audit")); len(got) > 0 {
		t.Errorf("after the repair told is %q", got)
	}
	pgtest.Eventually(t, linktest.Patience, func() error {
		if problem := auditProblem(t, p.A.Client, "audit", "audit_difference"); problem != nil {
			return fmt.Errorf("after the repair the link has %+v", problem)
		}
		return nil
	})

	// The schema: whoever finds it first, the audit or what watches the schema and stops the link.
	tamper(t, p.B, "audit", `ALTER TABLE ledger ALTER note SET DEFAULT 'x'`)
	if _, err := p.A.Client.BeginAudit(t.Context(), "audit"); err != nil {
		t.Fatal(err)
	}
	pgtest.Eventually(t, linktest.Patience, func() error {
		v, err := p.B.Client.Audit(t.Context(), "audit")
		if err != nil || slices.Contains(audited(v), "column public.ledger.note differs") || auditProblem(t, p.B.Client, "audit", "schema_drifted") != nil {
			return err
		}
		return fmt.Errorf("told is %q, %s %s", audited(v), v.State, v.Why)
	})
	stop()
	nothingLeft(t, p)
}

// A pass that is broken off, by a suspension and then by the end of the agent, goes on where
// it was: what was compared before is not compared again. It rests meanwhile and says why.
func TestAuditGoesOnWhereItWas(t *testing.T) {
	t.Parallel()
	p, _, b := drifts(t, "onward", `CREATE TABLE wide (id int PRIMARY KEY, filler text)`, `INSERT INTO wide SELECT i, repeat(md5(i::text), 30) FROM generate_series(1, 30000) i`, `ANALYZE wide`)
	slow, fast := int64(1<<20), int64(1<<30) // with the first of them it takes half a minute
	set := func(rate int64) {
		t.Helper()
		if _, err := p.A.Client.SetLink(t.Context(), "onward", api.SetLink{AuditRate: &rate}); err != nil {
			t.Fatal(err)
		}
	}
	wide := func() (api.AuditReport, api.AuditItem) {
		t.Helper()
		v, err := p.B.Client.Audit(t.Context(), "onward")
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(v.Compared, func(i api.AuditItem) bool { return i.Name == "public.wide" })
		if i < 0 {
			return v, api.AuditItem{}
		}
		return v, v.Compared[i]
	}
	set(slow)
	pgtest.Eventually(t, linktest.Patience, func() error {
		if v, _ := wide(); v.RateBytesPerSecond != slow {
			return fmt.Errorf("the secondary has the rate %d", v.RateBytesPerSecond)
		}
		return nil
	})
	if _, err := p.A.Client.BeginAudit(t.Context(), "onward"); err != nil {
		t.Fatal(err)
	}
	// What a sitting has read is stored when it ends: here by a suspension, once it reads.
	read := func() string {
		return pgtest.Query(t, b, `SELECT coalesce(sum(idx_tup_read), 0) FROM pg_stat_user_indexes WHERE relname = 'wide'`)[0][0]
	}
	for before := read(); ; {
		pgtest.Eventually(t, linktest.Patience, func() error {
			if read() == before {
				return fmt.Errorf("nothing is read")
			}
			return nil
		})
		if _, err := p.A.Client.Suspend(t.Context(), "onward"); err != nil {
			t.Fatal(err)
		}
		p.WaitPhase(t, "onward", api.Suspended)
		pgtest.Eventually(t, linktest.Patience, func() error {
			if v, _ := wide(); v.State != api.AuditResting {
				return fmt.Errorf("while the link is suspended the audit is %s", v.State)
			}
			return nil
		})
		nothingLeft(t, p)
		if _, item := wide(); item.UnderWay {
			break
		}
		before = read()
		if _, err := p.A.Client.Resume(t.Context(), "onward"); err != nil {
			t.Fatal(err)
		}
		p.WaitPhase(t, "onward", api.Replicating)
		if _, err := p.A.Client.BeginAudit(t.Context(), "onward"); err != nil { // the pass may have ended
			t.Fatal(err)
		}
	}
	p.B.Kill()
	restarted := time.Now()
	p.B.Start()
	set(fast)
	if _, err := p.A.Client.Resume(t.Context(), "onward"); err != nil {
		t.Fatal(err)
	}
	p.WaitPhase(t, "onward", api.Replicating)
	if _, item := wide(); !item.UnderWay {
		t.Fatalf("the agent has forgotten how far it was: %+v", item)
	}
	if _, err := p.B.Client.BeginAudit(t.Context(), "onward"); err != nil {
		t.Fatal(err)
	}
	var first api.AuditItem
	pgtest.Eventually(t, linktest.Patience, func() error {
		v, item := wide()
		if item.EqualAt == nil {
			return fmt.Errorf("%+v, %+v", v.Audit, item)
		}
		first = item
		return nil
	})
	if !first.EqualAt.Before(restarted) {
		t.Errorf("it was begun anew, at %v, after the agent was started at %v", first.EqualAt, restarted)
	}
	none := int64(0)
	if _, err := p.A.Client.SetLink(t.Context(), "onward", api.SetLink{AuditRate: &none}); err != nil {
		t.Fatal(err)
	}
	pgtest.Eventually(t, linktest.Patience, func() error {
		if v, _ := wide(); v.State != api.AuditOff || v.RateBytesPerSecond != 0 {
			return fmt.Errorf("switched off it is %+v", v.Audit)
		}
		return nil
	})
	if _, err := p.B.Client.BeginAudit(t.Context(), "onward"); err == nil || !strings.Contains(err.Error(), "audit_off") && !strings.Contains(err.Error(), "switched off") {
		t.Errorf("a pass while it is off: %v", err)
	}
}
