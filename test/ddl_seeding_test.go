package test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// slowCopy makes a link whose first copy does not end before its rate is taken away.
func slowCopy(t *testing.T, schema ...string) (p *linktest.Pair, a string) {
	t.Helper()
	p = linktest.New(t, linktest.Options{})
	p.A.Server.CreateDatabase(t, "slow")
	a = p.A.Server.DSN("slow")
	pgtest.Exec(t, a, `CREATE TABLE big (id int PRIMARY KEY, v text)`, `INSERT INTO big SELECT i, repeat(md5(i::text), 10) FROM generate_series(1, 40000) i`)
	pgtest.Exec(t, a, schema...)
	if _, err := p.A.Client.CreateLink(t.Context(), api.CreateLink{Name: "slow", Database: "slow", Peer: "b", MaxRate: 40 << 10}); err != nil {
		t.Fatal(err)
	}
	copying(t, p)
	return p, a
}

// copying waits until rows are being copied.
func copying(t *testing.T, p *linktest.Pair) {
	t.Helper()
	pgtest.Eventually(t, linktest.Patience, func() error {
		l, err := p.A.Client.Link(t.Context(), "slow")
		if err == nil && (l.Phase != api.Seeding || l.Seeding.BytesDone == 0) {
			err = fmt.Errorf("phase %s with %+v", l.Phase, l.Seeding)
		}
		return err
	})
}

// fullSpeed takes the rate away.
func fullSpeed(t *testing.T, p *linktest.Pair) {
	t.Helper()
	none := int64(0)
	if _, err := p.A.Client.SetLink(t.Context(), "slow", api.SetLink{MaxRate: &none}); err != nil {
		t.Fatal(err)
	}
	p.WaitPhase(t, "slow", api.Replicating)
	sameStructure(t, p, "slow", "slow")
}

// beforeSeedingForms is what a copy holds.
var beforeSeedingForms = []string{
	`CREATE ROLE seeding_owner`, `CREATE TABLE old (id int PRIMARY KEY, n int)`, `INSERT INTO old SELECT i, i FROM generate_series(1, 100) i`,
	`CREATE TABLE parted (id int, at date, PRIMARY KEY (id, at)) PARTITION BY RANGE (at)`, `CREATE TABLE parted1 PARTITION OF parted FOR VALUES FROM ('2020-01-01') TO ('2021-01-01')`,
	`INSERT INTO parted VALUES (1, '2020-02-02')`, `CREATE VIEW old_view AS SELECT id FROM old`, `CREATE FUNCTION old_function(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1'`,
	`CREATE INDEX of_function ON old (old_function(n))`, `CREATE TYPE old_type AS ENUM ('a')`, `CREATE SEQUENCE old_sequence`, `CREATE INDEX old_index ON old (n)`,
}

// seedingForms may be sent while the first copy is made. %[1]d keeps rounds apart.
var seedingForms = []form{
	{"a table of now", []string{`CREATE TABLE new%[1]d (id int PRIMARY KEY, a text)`, `INSERT INTO new%[1]d VALUES (1, 'a'), (2, 'b')`, `ALTER TABLE new%[1]d ADD b int DEFAULT 7`, `UPDATE new%[1]d SET a = 'c' WHERE id = 1`,
		`ALTER TABLE new%[1]d ADD u uuid DEFAULT gen_random_uuid(), ADD at timestamptz DEFAULT now()`, `ALTER TABLE new%[1]d ALTER id TYPE bigint, DROP COLUMN b`, `ALTER TABLE new%[1]d RENAME TO renamed%[1]d`,
		`CREATE INDEX new_index%[1]d ON renamed%[1]d (a)`, `ALTER INDEX new_index%[1]d RENAME TO newer_index%[1]d`, `DROP INDEX newer_index%[1]d`, `INSERT INTO renamed%[1]d VALUES (3, 'd')`}},
	{"in one transaction", []string{`BEGIN; CREATE TABLE work%[1]d AS SELECT * FROM old; ALTER TABLE work%[1]d ADD PRIMARY KEY (id); ALTER TABLE work%[1]d ADD CONSTRAINT c CHECK (n > 0); ALTER TABLE work%[1]d DROP CONSTRAINT c;
		UPDATE old SET n = w.n + 1 FROM work%[1]d w WHERE w.id = old.id; COMMIT`, `SELECT * INTO into%[1]d FROM old LIMIT 5`, `ALTER TABLE into%[1]d SET SCHEMA public`, `DROP TABLE into%[1]d`}},
	{"a work table", []string{`CREATE TABLE gone%[1]d (id int PRIMARY KEY)`, `INSERT INTO gone%[1]d VALUES (1)`, `CREATE VIEW gone_view%[1]d AS SELECT * FROM gone%[1]d`, `DROP TABLE gone%[1]d CASCADE`,
		`BEGIN; CREATE TABLE never%[1]d (id int); DROP TABLE never%[1]d; ROLLBACK`}},
	{"the rest of now", []string{`CREATE SCHEMA s%[1]d CREATE TABLE t (id serial PRIMARY KEY)`, `INSERT INTO s%[1]d.t DEFAULT VALUES`, `ALTER SCHEMA s%[1]d RENAME TO ss%[1]d`, `CREATE TYPE e%[1]d AS ENUM ('x')`, `ALTER TYPE e%[1]d ADD VALUE 'y'`,
		`CREATE TABLE with_e%[1]d (id int PRIMARY KEY, e e%[1]d)`, `INSERT INTO with_e%[1]d VALUES (1, 'y')`, `CREATE FUNCTION f%[1]d() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'`, `CREATE TRIGGER tg%[1]d BEFORE UPDATE ON with_e%[1]d FOR EACH ROW EXECUTE FUNCTION f%[1]d()`,
		`ALTER TRIGGER tg%[1]d ON with_e%[1]d RENAME TO tgg%[1]d`, `DROP TRIGGER tgg%[1]d ON with_e%[1]d`, `DROP FUNCTION f%[1]d()`, `CREATE SEQUENCE q%[1]d`, `ALTER SEQUENCE q%[1]d INCREMENT 5`, `CREATE DOMAIN d%[1]d AS int`, `ALTER DOMAIN d%[1]d SET DEFAULT 3`, `DROP DOMAIN d%[1]d`}},
	{"a partition of now", []string{`CREATE TABLE parted_%[1]d PARTITION OF parted FOR VALUES FROM ('20%[2]d-01-01') TO ('20%[2]d-12-31')`, `INSERT INTO parted VALUES (%[1]d, '20%[2]d-02-02')`, `ALTER TABLE parted_%[1]d SET (fillfactor = 70)`,
		`DROP TABLE parted_%[1]d`}},
	{"owners", []string{`ALTER TABLE old OWNER TO seeding_owner`, `ALTER VIEW old_view OWNER TO seeding_owner`, `ALTER FUNCTION old_function(int) OWNER TO seeding_owner`, `ALTER TYPE old_type OWNER TO seeding_owner`}},
	{"functions", []string{`ALTER FUNCTION old_function(int) COST 77`, `ALTER FUNCTION old_function STRICT`, `ALTER ROUTINE old_function(int) PARALLEL SAFE`}},
	{"rights, comments, replaced", []string{`GRANT SELECT ON old TO seeding_owner`, `COMMENT ON TABLE old IS 'round %[1]d'`, `CREATE OR REPLACE VIEW old_view AS SELECT id FROM old WHERE id > %[1]d`, `ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO seeding_owner`}},
}

// seedingRefusals are not.
var seedingRefusals = []string{
	`ALTER TABLE old ADD x int`, `ALTER TABLE old OWNER TO postgres, ADD x int`, `ALTER TABLE old RENAME TO older`, `DROP TABLE old CASCADE`, `DROP VIEW old_view`, `ALTER FUNCTION old_function(int) RENAME TO f`, `ALTER FUNCTION old_function(int) VOLATILE`,
	`DROP INDEX of_function`, `ALTER TYPE old_type ADD VALUE 'b'`, `ALTER TABLE parted DETACH PARTITION parted1`, `ALTER SEQUENCE old_sequence INCREMENT 2`,
	`CREATE TABLE attached (id int NOT NULL, at date NOT NULL); ALTER TABLE parted ATTACH PARTITION attached FOR VALUES FROM ('2030-01-01') TO ('2031-01-01')`,
	`CREATE TABLE parent (id int, n int); ALTER TABLE old INHERIT parent`, `CREATE OR REPLACE FUNCTION old_function(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1'; DROP FUNCTION old_function(int) CASCADE`,
	`CREATE OR REPLACE VIEW old_view AS SELECT id FROM old; DROP VIEW old_view`, `CREATE TABLE fresh (id int PRIMARY KEY); CREATE OR REPLACE VIEW old_view AS SELECT id FROM fresh; DROP TABLE fresh CASCADE`,
	`CREATE SEQUENCE IF NOT EXISTS old_sequence; ALTER SEQUENCE old_sequence INCREMENT 2`, `CREATE INDEX IF NOT EXISTS old_index ON old (n); DROP INDEX old_index`, `CREATE TABLE IF NOT EXISTS old (id int); DROP TABLE old CASCADE`,
	// The next part of the table would be asked for by a query that calls the function as the agent.
	`CREATE INDEX ON old (id) WHERE n > old_function(0)`, `CREATE STATISTICS folds ON (n + old_function(0)), id FROM old`,
}

// What came into being after the copy's snapshot may be altered and dropped while it is
// made, whoever is killed; what the copy holds may not.
func TestSchemaChangesWhileSeeding(t *testing.T) {
	t.Parallel()
	p, a := slowCopy(t, beforeSeedingForms...)
	round := func(n int) {
		for _, f := range seedingForms {
			for _, sql := range f.steps {
				sql = strings.NewReplacer("%[1]d", fmt.Sprint(n), "%[2]d", fmt.Sprint(40+n)).Replace(sql)
				if err := run(t, a, sql); err != nil {
					t.Fatalf("%s: %s: %v", f.name, sql, err)
				}
			}
		}
	}
	round(1)
	for _, sql := range seedingRefusals {
		var e *pgconn.PgError
		if err := run(t, a, sql); !errors.As(err, &e) || e.Code != "0A000" || !strings.Contains(e.Detail, "ddl_while_seeding") || e.Hint == "" {
			t.Errorf("%s: the error is %v", sql, err)
		}
	}
	p.B.Kill()
	p.B.Start()
	round(2)
	copying(t, p)
	fullSpeed(t, p)
	// What was refused is possible now.
	if err := run(t, a, seedingRefusals[0], `DROP VIEW old_view`); err != nil {
		t.Fatal(err)
	}
	sameStructure(t, p, "slow", "slow")
}

// The primary's agent holds the snapshot: with it this one is lost, and the copy goes on
// at another, which sees tables that the twin does not have yet.
func TestSchemaChangesBetweenSnapshots(t *testing.T) {
	t.Parallel()
	p, a := slowCopy(t, `CREATE TABLE also_big (id int PRIMARY KEY, v text)`, `INSERT INTO also_big SELECT i, repeat(md5(i::text), 10) FROM generate_series(1, 40000) i`)
	if err := run(t, a, `CREATE TABLE since (id int PRIMARY KEY); INSERT INTO since VALUES (1)`, `CREATE TABLE dropped (id int)`, `UPDATE big SET v = 'changed' WHERE id % 100 = 0`); err != nil {
		t.Fatal(err)
	}
	p.A.Kill()
	p.A.Start()
	pgtest.Eventually(t, linktest.Patience, func() error {
		if n := pgtest.Query(t, p.B.Server.DSN("slow"), `SELECT count(*) FROM twinspan.seed_session`)[0][0]; n == "1" {
			return errors.New("no second snapshot yet")
		}
		return nil
	})
	if err := run(t, a, `ALTER TABLE since ADD v int DEFAULT 3; INSERT INTO since VALUES (2, 4)`, `DROP TABLE dropped`, `ALTER TABLE since RENAME TO later`,
		`CREATE TABLE third AS SELECT * FROM big WHERE id < 50`, `DELETE FROM big WHERE id % 90 = 0`); err != nil {
		t.Fatal(err)
	}
	fullSpeed(t, p)
}
