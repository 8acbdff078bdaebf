package test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/pgtest"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// EXPLAIN ANALYZE makes tables and materialized views and fires no event trigger: the twin gets them all the same, with
// their owners, columns and rows, whether rows, a command or nothing comes next, and the primary can change their rows.
func TestWhatNoEventTriggerSawIsMade(t *testing.T) {
	t.Parallel()
	const odd = `Odd "Name"`
	p := linktest.New(t, linktest.Options{})
	for _, s := range []*linktest.Side{p.A, p.B} {
		pgtest.Exec(t, s.Server.DSN("postgres"), `CREATE ROLE `+sqlname.Quote(odd)+` LOGIN PASSWORD `+sqlname.Literal(pgtest.Password))
	}
	p.A.Server.CreateDatabase(t, odd)
	a, b := p.A.Server.DSN(odd), p.B.Server.DSN(odd)
	pgtest.Exec(t, a, `CREATE SCHEMA app AUTHORIZATION `+sqlname.Quote(odd), `CREATE TYPE app."Mood Of" AS ENUM ('good', 'bad')`, `GRANT USAGE ON TYPE app."Mood Of" TO PUBLIC`, `CREATE TABLE app.t (id int PRIMARY KEY, v numeric(7,3))`,
		`INSERT INTO app.t SELECT g, g / 7.0 FROM generate_series(1, 1000) g`, `GRANT ALL ON app.t TO PUBLIC`, `CREATE TABLE app.whole (id int UNIQUE, v numeric(7,3)) PARTITION BY RANGE (id)`, `ALTER TABLE app.whole OWNER TO `+sqlname.Quote(odd))
	p.Create(t, "unseen", odd)
	p.WaitPhase(t, "unseen", api.Replicating)
	user := p.A.Server.DSNOf(odd, pgtest.Password, odd)

	// Rows come first, of several tables in one transaction, one of them within a savepoint, and go on coming.
	pgtest.Exec(t, user, `BEGIN; EXPLAIN ANALYZE CREATE TABLE app."Made ""So" WITH (fillfactor = 70) AS SELECT id, v, 'good'::app."Mood Of" AS "the mood", 'x'::varchar(5) COLLATE "C" AS c FROM app.t;
		SAVEPOINT s; EXPLAIN (ANALYZE) SELECT id INTO app.other FROM app.t WHERE id < 10; RELEASE s; INSERT INTO app.other VALUES (77); COMMIT`,
		`INSERT INTO app."Made ""So" VALUES (5000, 1.5, 'bad', 'y')`)
	p.WaitEqual(t, "unseen", odd)
	pgtest.Exec(t, user, `UPDATE app."Made ""So" SET v = v + 1 WHERE id < 100; ALTER TABLE app.other ADD PRIMARY KEY (id); ALTER TABLE app.other ADD more text DEFAULT 'm'; DELETE FROM app.other WHERE id = 3`)
	// Rows and commands come in its own transaction.
	pgtest.Exec(t, user, `BEGIN; EXPLAIN ANALYZE CREATE TABLE app.within AS SELECT id, v FROM app.t; ALTER TABLE app.within ADD PRIMARY KEY (id); UPDATE app.within SET v = 0 WHERE id < 10; DELETE FROM app.within WHERE id > 900; COMMIT`)
	// A command comes first.
	pgtest.Exec(t, user, `EXPLAIN ANALYZE CREATE TABLE app.none AS SELECT id, v FROM app.t WHERE false; ALTER TABLE app.none ADD PRIMARY KEY (id)`,
		`EXPLAIN ANALYZE CREATE MATERIALIZED VIEW app.seen (first, second) AS SELECT id, v FROM app.t; CREATE UNIQUE INDEX seen_first ON app.seen (first); REFRESH MATERIALIZED VIEW CONCURRENTLY app.seen`)
	p.WaitEqual(t, "unseen", odd)
	pgtest.Exec(t, user, `INSERT INTO app.none VALUES (1, 2)`)
	// Rows are of the shape that their table had, whatever the next command of their transaction makes of it.
	pgtest.Exec(t, user, `BEGIN; EXPLAIN ANALYZE CREATE TABLE app.grows AS SELECT id, v FROM app.t; ALTER TABLE app.grows ADD more int DEFAULT 7; INSERT INTO app.grows VALUES (-1, 2, 3); ALTER TABLE app.grows ALTER v TYPE text; COMMIT`,
		`BEGIN; EXPLAIN ANALYZE CREATE TABLE app.shrinks AS SELECT id, v FROM app.t; ALTER TABLE app.shrinks DROP v; ALTER TABLE app.shrinks RENAME TO shrunk; INSERT INTO app.shrunk VALUES (-1); COMMIT`)
	// What names the relation first is about something else.
	pgtest.Exec(t, user, `EXPLAIN ANALYZE CREATE MATERIALIZED VIEW app.base AS SELECT id FROM app.t; CREATE VIEW app.above AS SELECT * FROM app.base; GRANT SELECT ON app.above TO PUBLIC`,
		`EXPLAIN ANALYZE CREATE MATERIALIZED VIEW app.given AS SELECT id FROM app.t; GRANT SELECT ON app.given TO PUBLIC`, `EXPLAIN ANALYZE CREATE TABLE app.parent AS SELECT id FROM app.t WHERE false; CREATE TABLE app.child (c int) INHERITS (app.parent); INSERT INTO app.child VALUES (1, 2)`)
	p.WaitEqual(t, "unseen", odd)
	// The table has got a key and rows before the twin can ask.
	if _, err := p.B.Client.Suspend(t.Context(), "unseen"); err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, user, `EXPLAIN ANALYZE CREATE TABLE app.late AS SELECT id, v FROM app.t WHERE false`, `ALTER TABLE app.late ADD PRIMARY KEY (id)`, `INSERT INTO app.late VALUES (1, 1), (2, 2)`, `UPDATE app.late SET v = 3 WHERE id = 2`, `ALTER TABLE app.late RENAME v TO w`,
		`EXPLAIN ANALYZE CREATE TABLE app.early AS SELECT id, v FROM app.t WHERE false`, `INSERT INTO app.early VALUES (1, 1), (2, 2)`, `ALTER TABLE app.early ADD PRIMARY KEY (id)`, `UPDATE app.early SET v = 3 WHERE id = 2`,
		`EXPLAIN ANALYZE CREATE TABLE app.named AS SELECT id, v FROM app.t WHERE false`, `ALTER TABLE app.named ENABLE ROW LEVEL SECURITY`, `ALTER TABLE app.named RENAME TO renamed`, `INSERT INTO app.renamed VALUES (1, 1)`,
		`EXPLAIN ANALYZE CREATE TABLE app.part AS SELECT id, v FROM app.t WHERE false`, `ALTER TABLE app.whole ATTACH PARTITION app.part FOR VALUES FROM (0) TO (1000)`, `INSERT INTO app.whole VALUES (1, 1), (2, 2)`, `UPDATE app.whole SET v = 3 WHERE id = 2`,
		`EXPLAIN ANALYZE CREATE MATERIALIZED VIEW app.one AS SELECT id FROM app.t`, `ALTER MATERIALIZED VIEW app.one RENAME TO other_one`, `CREATE UNIQUE INDEX ON app.other_one (id)`)
	if _, err := p.B.Client.Resume(t.Context(), "unseen"); err != nil {
		t.Fatal(err)
	}
	p.WaitEqual(t, "unseen", odd)
	// It is gone before the twin can ask.
	pgtest.Exec(t, user, `EXPLAIN ANALYZE CREATE TABLE app.short AS SELECT id FROM app.t; DROP TABLE app.short`, `EXPLAIN ANALYZE CREATE MATERIALIZED VIEW app.brief AS SELECT id FROM app.t; CREATE INDEX ON app.brief (id); REFRESH MATERIALIZED VIEW app.brief; DROP MATERIALIZED VIEW app.brief`)
	// Nothing comes.
	pgtest.Exec(t, user, `EXPLAIN ANALYZE CREATE TABLE app.quiet AS SELECT id, v FROM app.t WHERE false; EXPLAIN ANALYZE CREATE MATERIALIZED VIEW app.still AS SELECT id FROM app.t;
		EXPLAIN ANALYZE CREATE UNLOGGED TABLE app.scratch AS SELECT id FROM app.t;`)
	pgtest.Eventually(t, linktest.Patience, func() error {
		l, err := p.B.Client.Link(t.Context(), "unseen")
		for _, name := range []string{"app.quiet", "app.still", "app.scratch"} {
			if err == nil && !slices.ContainsFunc(l.Notices, func(n api.Notice) bool { return n.Code == "relation_made" && n.Subject == name }) {
				err = fmt.Errorf("%s is not made: %s, %+v, %+v", name, l.Phase, l.Problems, l.Notices)
			}
		}
		return err
	})
	pgtest.Exec(t, user, `INSERT INTO app.quiet VALUES (1, 1), (1, 1); DELETE FROM app.t WHERE id > 500; REFRESH MATERIALIZED VIEW app.still`)
	p.WaitEqual(t, "unseen", odd)
	sameStructure(t, p, "unseen", odd)
	for _, query := range []string{`SELECT count(*), min(first), max(second) FROM app.seen`, `SELECT count(*), max(id) FROM app.still`, `SELECT relname, pg_get_userbyid(relowner), reloptions FROM pg_class WHERE relnamespace = 'app'::regnamespace AND relkind IN ('r', 'm') ORDER BY 1`} {
		if here, there := pgtest.Query(t, a, query), pgtest.Query(t, b, query); fmt.Sprint(here) != fmt.Sprint(there) {
			t.Errorf("%s: the primary has %v, the twin %v", query, here, there)
		}
	}
	if v := verify(t, p.A.Client, "unseen", api.Verify{}); v.State != api.Equal {
		t.Errorf("verify says %s: %+v", v.State, v.Differences)
	}
}
