package main

import (
	"context"
	"fmt"
	"strconv"
)

// source is the database that is followed.
const source = "bench"

// pgbenchScale of the followed database, and rows of the table items.
const (
	pgbenchScale = 20
	itemRows     = 500_000
)

// workload makes a backlog.
type workload struct {
	name, title string
	count       int      // at scale 1
	tables      []string // what it changes
	large       bool     // transactions that native replication may stream
	major       int      // of the servers; 0 is the newest that is installed
	keyless     bool     // a table without a key is changed
	// prepare brings the tables to where run can begin.
	prepare func(ctx context.Context, r *rig, n int) error
	run     func(ctx context.Context, r *rig, n int) error
}

var pgbenchTables = []string{"pgbench_accounts", "pgbench_branches", "pgbench_tellers", "pgbench_history"}

var workloads = []workload{
	{name: "tpcb", title: "200,000 TPC-B transactions", count: 200_000, tables: pgbenchTables, run: tpcb},
	{name: "inserts", title: "200,000 single-row inserts", count: 200_000, tables: []string{"events"},
		run: looped(1, `INSERT INTO events VALUES (nextval('events_id'), clock_timestamp(), i % 10, md5(i::text))`)},
	{name: "deletes", title: "200,000 single-row deletes", count: 200_000, tables: []string{"events"}, prepare: fillEvents, run: deletes},
	{name: "updates", title: "200,000 single-row updates by random key", count: 200_000, tables: []string{"items"},
		run: looped(itemRows, `UPDATE items SET n = n + 1, v = md5(i::text), at = clock_timestamp() WHERE id = k`)},
	{name: "bulk", title: "2,000,000 rows in four transactions", count: 2_000_000, tables: []string{"bulk"}, large: true, prepare: emptyBulk, run: bulk},
	{name: "mixed", title: "50,000 transactions on wide rows, half of the updates leave TOAST unchanged", count: 50_000, tables: []string{"documents"}, run: mixed},
	{name: "indexes", title: "200,000 changes of a table with six indexes", count: 200_000, tables: []string{"indexed"}, run: indexed},
	{name: "keyless", title: "20,000 changes of a small table without a key", count: 20_000, tables: []string{"keyless"}, keyless: true, run: keyless},
	{name: "bulk18", title: "2,000,000 rows in four transactions, PostgreSQL 18", count: 2_000_000, major: parallelMajor, tables: []string{"bulk"}, large: true, prepare: emptyBulk, run: bulk},
}

// schemaSQL makes the tables beside pgbench's.
const schemaSQL = `
CREATE TABLE bench_marker (n bigint PRIMARY KEY);
CREATE SEQUENCE events_id;
CREATE TABLE events (id bigint PRIMARY KEY, at timestamptz NOT NULL, kind int NOT NULL, body text);
CREATE TABLE items (id int PRIMARY KEY, n int NOT NULL, v text, at timestamptz, extra text);
ALTER TABLE items ALTER extra SET STORAGE EXTERNAL;
CREATE TABLE bulk (id bigint PRIMARY KEY, a int, b text, c numeric(12,2), at timestamptz);
CREATE TABLE documents (id int PRIMARY KEY, title text, body text, data jsonb, n int NOT NULL DEFAULT 0);
ALTER TABLE documents ALTER body SET STORAGE EXTERNAL;
CREATE TABLE indexed (id bigint PRIMARY KEY, a int, b int, c text, d timestamptz, e uuid);
CREATE INDEX ON indexed (a);
CREATE INDEX ON indexed (b, a);
CREATE INDEX ON indexed (c);
CREATE INDEX ON indexed (d);
CREATE INDEX ON indexed (e);
CREATE TABLE keyless (a int, b text, c timestamptz);
ALTER TABLE keyless REPLICA IDENTITY FULL
`

const fillSQL = `
INSERT INTO items SELECT i, 0, md5(i::text), now(), CASE WHEN i %% 20 = 0 THEN repeat(md5(i::text), 94) END FROM generate_series(1, %d) i;
INSERT INTO documents SELECT i, 'title ' || i, repeat(md5(i::text), 100), jsonb_build_object('id', i, 'tags', ARRAY['a', 'b', md5(i::text)]) FROM generate_series(1, %d) i;
INSERT INTO indexed SELECT i, i %% 1000, i %% 77, md5(i::text), now() + i * interval '1 second', md5('e' || i)::uuid FROM generate_series(1, %d) i;
INSERT INTO keyless SELECT i, md5(i::text), now() FROM generate_series(1, 1000) i`

// documentRows and indexedRows are what the tables begin with.
const documentRows, indexedRows = 20_000, 200_000

// load makes the followed database.
func (r *rig) load(ctx context.Context) error {
	r.say("loading the database")
	if err := r.a.exec(ctx, "postgres", "CREATE DATABASE "+source); err != nil {
		return err
	}
	if err := r.pgbench(ctx, "-i", "-q", "-s", strconv.Itoa(r.amount(pgbenchScale))); err != nil {
		return err
	}
	return r.a.exec(ctx, source, schemaSQL, fmt.Sprintf(fillSQL, itemRows, documentRows, indexedRows), "VACUUM ANALYZE", "CHECKPOINT")
}

// pgbench runs pgbench on the followed database.
func (r *rig) pgbench(ctx context.Context, args ...string) error {
	env := []string{"PGOPTIONS=-c synchronous_commit=off"}
	_, err := command(ctx, env, r.a.program("pgbench"), append(args, r.a.conninfo(source, overSocket))...)
	return err
}

func tpcb(ctx context.Context, r *rig, n int) error {
	return r.pgbench(ctx, "-n", "-c", "4", "-j", "2", "-t", strconv.Itoa((n+3)/4))
}

// looped runs a statement n times, each in a transaction of its own; i counts and k
// is any number up to another.
func looped(upTo int, statement string) func(context.Context, *rig, int) error {
	return func(ctx context.Context, r *rig, n int) error {
		return r.a.exec(ctx, source, fmt.Sprintf(`DO $$ DECLARE k int; BEGIN FOR i IN 1..%d LOOP k := 1 + floor(random() * %d); %s; COMMIT; END LOOP; END $$`,
			n, upTo, statement))
	}
}

func fillEvents(ctx context.Context, r *rig, n int) error {
	there, err := value[int](ctx, r.a, source, `SELECT count(*)::int FROM events`)
	if err != nil || there >= n {
		return err
	}
	return r.a.exec(ctx, source, fmt.Sprintf(`INSERT INTO events SELECT nextval('events_id'), now(), i %% 10, md5(i::text)
		FROM generate_series(1, %d) i`, n-there))
}

func deletes(ctx context.Context, r *rig, n int) error {
	return r.a.exec(ctx, source, fmt.Sprintf(`DO $$ DECLARE r record; BEGIN
		FOR r IN SELECT id FROM events ORDER BY random() LIMIT %d LOOP DELETE FROM events WHERE id = r.id; COMMIT; END LOOP; END $$`, n))
}

func emptyBulk(ctx context.Context, r *rig, _ int) error {
	return r.a.exec(ctx, source, "TRUNCATE bulk")
}

func bulk(ctx context.Context, r *rig, n int) error {
	for part := range 4 {
		err := r.a.exec(ctx, source, fmt.Sprintf(`INSERT INTO bulk SELECT i, i %% 1000, md5(i::text), i / 100.0, now() FROM generate_series(%d, %d) i`,
			part*n/4+1, (part+1)*n/4))
		if err != nil {
			return err
		}
	}
	return nil
}

func mixed(ctx context.Context, r *rig, n int) error {
	return looped(documentRows, fmt.Sprintf(`
		IF i %% 2 = 0 THEN UPDATE documents SET n = n + 1 WHERE id = k;
		ELSIF i %% 5 = 0 THEN UPDATE documents SET body = repeat(md5(i::text), 100) WHERE id = k;
		ELSIF i %% 7 = 0 THEN DELETE FROM documents WHERE id = (SELECT max(id) FROM documents WHERE id > %d);
		ELSE INSERT INTO documents SELECT max(id) + 1, 'new ' || i, repeat(md5(i::text), 60), jsonb_build_object('i', i) FROM documents;
		END IF`, documentRows))(ctx, r, n)
}

func indexed(ctx context.Context, r *rig, n int) error {
	return looped(indexedRows, `
		IF i % 2 = 0 THEN UPDATE indexed SET a = i % 1000, c = md5(i::text), d = clock_timestamp() WHERE id = k;
		ELSE INSERT INTO indexed SELECT max(id) + 1, i % 1000, i % 77, md5(i::text), now(), md5('e' || i)::uuid FROM indexed;
		END IF`)(ctx, r, n)
}

func keyless(ctx context.Context, r *rig, n int) error {
	return looped(1000, `
		IF i % 2 = 0 THEN UPDATE keyless SET b = md5(i::text) WHERE a = k;
		ELSE INSERT INTO keyless VALUES (1000 + i, md5(i::text), now()); DELETE FROM keyless WHERE a = 1000 + i;
		END IF`)(ctx, r, n)
}
