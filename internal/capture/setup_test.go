package capture_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/twinspan/twinspan/internal/capture"
	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/pgtest"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// shapes are tables of every sort, each with rows and the columns id and v.
const shapes = `
CREATE SCHEMA "Other Schema";
CREATE TABLE public.keyed (id int PRIMARY KEY, v int);
CREATE TABLE public.keyless (id int, v int);
CREATE TABLE public."Weird ""Name"" 'q' \b" (id int, v int);
CREATE TABLE "Other Schema"."T" (id int, v int);
CREATE TABLE public.deferrable (id int PRIMARY KEY DEFERRABLE, v int);
CREATE TABLE public.nothing (id int PRIMARY KEY, v int);
ALTER TABLE public.nothing REPLICA IDENTITY NOTHING;
CREATE TABLE public.fully (id int PRIMARY KEY, v int);
ALTER TABLE public.fully REPLICA IDENTITY FULL;
CREATE TABLE public.indexed (id int NOT NULL, v int);
CREATE UNIQUE INDEX "Indexed id" ON public.indexed (id);
ALTER TABLE public.indexed REPLICA IDENTITY USING INDEX "Indexed id";
CREATE TABLE public.index_and_key (id int PRIMARY KEY, v int, other int NOT NULL DEFAULT 1);
CREATE UNIQUE INDEX index_and_key_id ON public.index_and_key (id, other);
ALTER TABLE public.index_and_key REPLICA IDENTITY USING INDEX index_and_key_id;
CREATE TABLE public.index_lost (id int NOT NULL UNIQUE, v int);
ALTER TABLE public.index_lost REPLICA IDENTITY USING INDEX index_lost_id_key;
ALTER TABLE public.index_lost DROP CONSTRAINT index_lost_id_key;
CREATE TABLE public.parted (id int, v int) PARTITION BY RANGE (id);
CREATE TABLE public.parted_low PARTITION OF public.parted FOR VALUES FROM (0) TO (5);
CREATE TABLE public.parted_high PARTITION OF public.parted FOR VALUES FROM (5) TO (1000);
CREATE TABLE public.parent (id int, v int);
CREATE TABLE public.child () INHERITS (public.parent);
CREATE UNLOGGED TABLE public.unlogged (id int, v int);
CREATE TABLE public.domained (id int, v int);
CREATE TABLE public.many (id int, v int, PRIMARY KEY (v, id));
`

// tables lists the user's tables that hold rows, quoted.
func tables(t testing.TB, dsn string) []string {
	var names []string
	for _, row := range pgtest.Query(t, dsn, `SELECT format('%I.%I', nspname, relname) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
		WHERE relkind IN ('r', 'p') AND nspname NOT IN ('pg_catalog', 'information_schema', 'twinspan') AND relpersistence <> 't' ORDER BY 1`) {
		names = append(names, row[0])
	}
	return names
}

func fill(t testing.TB, dsn string) {
	t.Helper()
	for _, name := range tables(t, dsn) {
		pgtest.Exec(t, dsn, `INSERT INTO `+name+` (id, v) SELECT n, 0 FROM generate_series(`+
			map[bool]string{true: "5", false: "0"}[strings.Contains(name, "parted_high")]+`, 4 + `+map[bool]string{true: "5", false: "0"}[strings.Contains(name, "parted_high")]+`) n`)
	}
}

// updateAll updates and deletes in every table.
func updateAll(t testing.TB, dsn string) {
	t.Helper()
	conn := connect(t, dsn)
	for _, name := range tables(t, dsn) {
		for _, sql := range []string{
			`UPDATE ` + name + ` SET v = v + 1`, `UPDATE ` + name + ` SET id = id WHERE id = 3`, `BEGIN; DELETE FROM ` + name + ` WHERE id IN (1, 6); ROLLBACK`,
		} {
			if _, err := conn.Exec(testContext(t), sql); err != nil {
				t.Errorf("%s: %v", sql, err)
				_, _ = conn.Exec(testContext(t), `ROLLBACK`)
			}
		}
	}
}

// identities is what the catalogs say of tables' identities and indexes. A lost
// index makes i the same as n.
func identities(t testing.TB, dsn string) []string {
	var lines []string
	for _, row := range pgtest.Query(t, dsn, `SELECT c.oid::regclass, CASE WHEN c.relreplident = 'i'
			AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisreplident) THEN 'n' ELSE c.relreplident END,
			(SELECT string_agg(x.indexrelid::regclass || ' ' || x.indisreplident || x.indisprimary || x.indisunique || x.indimmediate || x.indisvalid, ', ' ORDER BY x.indexrelid)
			 FROM pg_index x WHERE x.indrelid = c.oid)
		FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
		WHERE relkind IN ('r', 'p') AND nspname NOT IN ('pg_catalog', 'information_schema', 'twinspan') ORDER BY 1`) {
		lines = append(lines, strings.Join(row, " "))
	}
	return lines
}

// traces is everything in the database and server that a link makes.
func traces(t testing.TB, dsn string) [][]string {
	return pgtest.Query(t, dsn, `
		SELECT 'event trigger ' || evtname FROM pg_event_trigger
		UNION ALL SELECT 'trigger ' || tgname FROM pg_trigger WHERE tgname LIKE '%twinspan%'
		UNION ALL SELECT 'publication ' || pubname FROM pg_publication
		UNION ALL SELECT 'slot ' || slot_name FROM pg_replication_slots WHERE database = current_database()
		UNION ALL SELECT 'function ' || proname FROM pg_proc WHERE pronamespace IN (SELECT oid FROM pg_namespace WHERE nspname = 'twinspan') AND proname NOT IN ('copied', 'free')
		UNION ALL SELECT 'changed ' || oid FROM twinspan.identity
		ORDER BY 1`)
}

func TestRemoveBringsEverythingBack(t *testing.T) {
	dsn, s := fresh(t, pgtest.Shared(t))
	pgtest.Exec(t, dsn, shapes)
	fill(t, dsn)
	before := identities(t, dsn)
	for round := range 2 {
		prepare(t, s)
		updateAll(t, dsn)
		again := identities(t, dsn)
		for _, line := range again {
			full := strings.Contains(line, " f ")
			name, _, _ := strings.Cut(line, " ")
			keeps := slices.Contains([]string{"keyed", "indexed", "index_and_key", "many", "nothing", "unlogged", "parted"}, name)
			if full == keeps {
				t.Errorf("round %d: %s", round, line)
			}
		}
		prepare(t, s) // twice
		if twice := identities(t, dsn); !slices.Equal(again, twice) {
			t.Errorf("the second time changed\n%s\nto\n%s", again, twice)
		}
		updateAll(t, dsn)
		pgtest.Exec(t, dsn, `SELECT pg_create_logical_replication_slot('`+s.Object()+`', 'pgoutput')`)
		for range 2 {
			remove(t, s, true)
			if left := traces(t, dsn); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
			if after := identities(t, dsn); !slices.Equal(before, after) {
				t.Errorf("before\n%s\nafter\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
			}
		}
		updateAll(t, dsn)
	}
	if err := catalog.Remove(testContext(t), connect(t, dsn)); err != nil {
		t.Fatal(err)
	}
	remove(t, s, true) // also when the schema has gone already
}

// TestNoChangeFailsWhilePreparing runs an application's UPDATEs, DELETEs and
// new tables against Prepare and Remove.
func TestNoChangeFailsWhilePreparing(t *testing.T) {
	dsn, s := fresh(t, pgtest.Shared(t))
	pgtest.Exec(t, dsn, shapes)
	fill(t, dsn)
	names := tables(t, dsn)
	ctx, stop := context.WithCancel(testContext(t))
	var group errgroup.Group
	started := make(chan struct{}, 4)
	for worker := range 4 {
		conn := connect(t, dsn)
		group.Go(func() error {
			for n := 0; ctx.Err() == nil; n++ {
				name := names[rand.IntN(len(names))]
				sql := `BEGIN; UPDATE ` + name + ` SET v = v + 1 WHERE id = 3; DELETE FROM ` + name + ` WHERE id = 8; COMMIT`
				if n%10 == 0 {
					table := fmt.Sprintf("public.new_%d_%d", worker, n)
					sql = `BEGIN; CREATE TABLE ` + table + ` (id int); INSERT INTO ` + table + ` VALUES (1); UPDATE ` + table + ` SET id = 2; COMMIT;
						UPDATE ` + table + ` SET id = 3; BEGIN; DELETE FROM ` + table + `; COMMIT; DROP TABLE ` + table
				}
				if _, err := conn.Exec(testContext(t), sql); err != nil {
					return fmt.Errorf("%s: %w", sql, err)
				}
				if n == 0 {
					started <- struct{}{}
				}
			}
			return nil
		})
	}
	for range 4 {
		<-started
	}
	for range 3 {
		prepare(t, s)
		prepare(t, s)
		remove(t, s, true)
	}
	stop()
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
}

// TestRemoveWaitsForChangesUnderWay holds a change up that has chosen its event triggers,
// by one of the user's that comes between those of Twinspan.
func TestRemoveWaitsForChangesUnderWay(t *testing.T) {
	dsn, s := fresh(t, pgtest.Shared(t))
	prepare(t, s)
	pgtest.Exec(t, dsn, `CREATE TABLE public.barrier ()`,
		`CREATE FUNCTION public.stop() RETURNS event_trigger LANGUAGE plpgsql AS $$BEGIN LOCK TABLE public.barrier IN SHARE MODE; END$$`,
		`CREATE EVENT TRIGGER "middle" ON ddl_command_end EXECUTE FUNCTION public.stop()`)
	barrier := connect(t, dsn)
	must(t, barrier, `BEGIN; LOCK TABLE public.barrier`)
	change, removed := make(chan error, 1), make(chan error, 1)
	changer := connect(t, dsn)
	go func() {
		_, err := changer.Exec(testContext(t), `CREATE TABLE public.keyless (v int); INSERT INTO public.keyless VALUES (1)`)
		change <- err
	}()
	waiting := func(application, how string) bool {
		return pgtest.Query(t, dsn, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE '%`+application+`' AND `+how)[0][0] != "0"
	}
	pgtest.Eventually(t, patience, func() error {
		if !waiting("test", "wait_event_type = 'Lock'") {
			return errors.New("the change is not held up")
		}
		return nil
	})
	go func() { removed <- s.Remove(testContext(t), true) }()
	pgtest.Eventually(t, patience, func() error {
		if len(removed) == 0 && !waiting("/remove", "query LIKE '%virtualxid%'") {
			return errors.New("the removal is not there yet")
		}
		return nil
	})
	must(t, barrier, `COMMIT`)
	if err := <-change; err != nil {
		t.Errorf("the change: %v", err)
	}
	if err := <-removed; err != nil {
		t.Errorf("the removal: %v", err)
	}
	pgtest.Exec(t, dsn, `DROP EVENT TRIGGER "middle"`)
	if left := traces(t, dsn); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestTablesToComeStayUpdatable makes and changes tables after Prepare, as a role
// that has no other rights, and updates them in the same transaction.
func TestTablesToComeStayUpdatable(t *testing.T) {
	server := pgtest.Shared(t)
	dsn, s := fresh(t, server)
	prepare(t, s)
	role := fmt.Sprintf("app_%s", s.Object()[9:17])
	pgtest.Exec(t, dsn, `CREATE ROLE `+role+`; GRANT ALL ON SCHEMA public TO `+role+`; GRANT CREATE ON DATABASE `+sqlname.Quote(s.DSN.Database())+` TO `+role)
	t.Cleanup(func() {
		pgtest.Exec(t, dsn, `REASSIGN OWNED BY `+role+` TO postgres; DROP OWNED BY `+role+`; DROP ROLE `+role)
	})
	conn := connect(t, dsn)
	must(t, conn, `SET ROLE `+role+`; SET search_path = public`)
	if _, err := conn.Exec(testContext(t), `SELECT twinspan.keep_identity(0)`); pg.SQLState(err) != "42501" {
		t.Errorf("the schema twinspan is open: %v", err)
	}
	cases := map[string]string{
		"create":              `CREATE TABLE %[1]s (id int, v int)`,
		"as":                  `CREATE TABLE %[1]s AS SELECT 1 AS id, 2 AS v`,
		"into":                `SELECT 1 AS id, 2 AS v INTO %[1]s`,
		"like":                `CREATE TABLE %[1]s_l (id int PRIMARY KEY, v int); CREATE TABLE %[1]s (LIKE %[1]s_l)`,
		"with key":            `CREATE TABLE %[1]s (id int PRIMARY KEY, v int)`,
		"deferrable":          `CREATE TABLE %[1]s (id int PRIMARY KEY DEFERRABLE, v int)`,
		"key added":           `CREATE TABLE %[1]s (id int, v int); ALTER TABLE %[1]s ADD PRIMARY KEY (id)`,
		"key dropped":         `CREATE TABLE %[1]s (id int PRIMARY KEY, v int); ALTER TABLE %[1]s DROP CONSTRAINT %[1]s_pkey`,
		"key's column":        `CREATE TABLE %[1]s (x int PRIMARY KEY, id int, v int); ALTER TABLE %[1]s DROP COLUMN x`,
		"key's type":          `CREATE TABLE %[1]s (id int PRIMARY KEY, v int); ALTER TABLE %[1]s ALTER id TYPE bigint`,
		"type of the key":     `CREATE DOMAIN %[1]s_d AS int; CREATE TABLE %[1]s (x %[1]s_d PRIMARY KEY, id int, v int); DROP DOMAIN %[1]s_d CASCADE`,
		"logged":              `CREATE UNLOGGED TABLE %[1]s (id int, v int); ALTER TABLE %[1]s SET LOGGED`,
		"unlogged":            `CREATE TABLE %[1]s (id int, v int); ALTER TABLE %[1]s SET UNLOGGED`,
		"nothing":             `CREATE TABLE %[1]s (id int PRIMARY KEY, v int); ALTER TABLE %[1]s REPLICA IDENTITY NOTHING`,
		"back to default":     `CREATE TABLE %[1]s (id int, v int); ALTER TABLE %[1]s REPLICA IDENTITY DEFAULT`,
		"index":               `CREATE TABLE %[1]s (id int NOT NULL, v int); CREATE UNIQUE INDEX %[1]s_i ON %[1]s (id); ALTER TABLE %[1]s REPLICA IDENTITY USING INDEX %[1]s_i`,
		"index dropped":       `CREATE TABLE %[1]s (id int NOT NULL, v int); CREATE UNIQUE INDEX %[1]s_i ON %[1]s (id); ALTER TABLE %[1]s REPLICA IDENTITY USING INDEX %[1]s_i; DROP INDEX %[1]s_i`,
		"index's constraint":  `CREATE TABLE %[1]s (id int NOT NULL CONSTRAINT %[1]s_u UNIQUE, v int); ALTER TABLE %[1]s REPLICA IDENTITY USING INDEX %[1]s_u; ALTER TABLE %[1]s DROP CONSTRAINT %[1]s_u`,
		"partitions":          `CREATE TABLE %[1]s (id int, v int) PARTITION BY LIST (id); CREATE TABLE %[1]s_1 PARTITION OF %[1]s FOR VALUES IN (1); CREATE TABLE %[1]s_2 (id int, v int); ALTER TABLE %[1]s ATTACH PARTITION %[1]s_2 FOR VALUES IN (2)`,
		"detached":            `CREATE TABLE %[1]s_p (id int, v int) PARTITION BY LIST (id); CREATE TABLE %[1]s PARTITION OF %[1]s_p FOR VALUES IN (1, 2); ALTER TABLE %[1]s_p DETACH PARTITION %[1]s`,
		"inherited":           `CREATE TABLE %[1]s (id int, v int); CREATE TABLE %[1]s_c (x int) INHERITS (%[1]s); INSERT INTO %[1]s_c VALUES (1, 1, 1)`,
		"schema":              `CREATE SCHEMA %[1]s_s CREATE TABLE t (id int, v int); CREATE VIEW %[1]s AS SELECT * FROM %[1]s_s.t`,
		"renamed":             `CREATE TABLE %[1]s_r (id int, v int); ALTER TABLE %[1]s_r RENAME TO %[1]s`,
		"in a function":       `DO $$BEGIN CREATE TABLE %[1]s (id int, v int); UPDATE %[1]s SET v = 1; END$$`,
		"rolled back in part": `CREATE TABLE %[1]s (id int PRIMARY KEY, v int); SAVEPOINT s; ALTER TABLE %[1]s DROP CONSTRAINT %[1]s_pkey; UPDATE %[1]s SET v = 1; ROLLBACK TO s`,
		"temporary":           `CREATE TEMP TABLE %[1]s (id int, v int) ON COMMIT DROP`,
	}
	if server.Major >= 11 {
		cases["parent's key dropped"] = `CREATE TABLE %[1]s (id int PRIMARY KEY, v int) PARTITION BY LIST (id); CREATE TABLE %[1]s_1 PARTITION OF %[1]s FOR VALUES IN (1, 2); ALTER TABLE %[1]s DROP CONSTRAINT %[1]s_pkey`
		cases["parent's key added"] = `CREATE TABLE %[1]s (id int, v int) PARTITION BY LIST (id); CREATE TABLE %[1]s_1 PARTITION OF %[1]s FOR VALUES IN (1, 2); ALTER TABLE %[1]s ADD PRIMARY KEY (id)`
	}
	n := 0
	for what, sql := range cases {
		n++
		name := fmt.Sprintf("t%d", n)
		err := pgx.BeginFunc(testContext(t), conn, func(tx pgx.Tx) error {
			for _, statement := range []string{fmt.Sprintf(sql, name), `INSERT INTO %s VALUES (1, 1), (2, 1)`, `UPDATE %s SET v = 5`, `DELETE FROM %s WHERE id = 2`} {
				if strings.Contains(statement, "%s") {
					statement = fmt.Sprintf(statement, name)
				}
				if _, err := tx.Exec(testContext(t), statement); err != nil {
					return fmt.Errorf("%s: %w", statement, err)
				}
			}
			return nil
		})
		if err == nil && what != "temporary" {
			_, err = conn.Exec(testContext(t), `UPDATE `+name+` SET v = 6; DELETE FROM `+name)
		}
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	// Nobody is bothered who has a key of their own.
	full := pgtest.Query(t, dsn, `SELECT relname FROM pg_class c WHERE relreplident = 'f' AND relkind = 'r' AND relpersistence = 'p' AND EXISTS (
		SELECT FROM pg_index i WHERE indrelid = c.oid AND indisprimary AND indimmediate) AND NOT relispartition
		AND oid NOT IN (SELECT oid FROM twinspan.identity WHERE was = 'n')`)
	if len(full) > 0 {
		t.Errorf("FULL in spite of a key: %v", full)
	}
	pgtest.Exec(t, dsn, `CREATE TABLE dropped (id int, v int)`)
	if len(pgtest.Query(t, dsn, `SELECT FROM twinspan.identity WHERE oid = 'dropped'::regclass`)) == 0 {
		t.Error("a table without a key was not remembered")
	}
	pgtest.Exec(t, dsn, `DROP TABLE dropped`)
	if stale := pgtest.Query(t, dsn, `SELECT oid FROM twinspan.identity WHERE oid NOT IN (SELECT oid FROM pg_class)`); len(stale) > 0 {
		t.Errorf("dropped tables are remembered: %v", stale)
	}
	remove(t, s, true)
	wrong := pgtest.Query(t, dsn, `SELECT c.oid::regclass, relreplident FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
		WHERE relkind = 'r' AND relreplident = 'f' AND nspname NOT IN ('pg_catalog', 'information_schema', 'twinspan')`)
	if len(wrong) > 0 {
		t.Errorf("FULL after the end: %v", wrong)
	}
}

// TestChoicesOfOthersAreKept restores what somebody chose while linked.
func TestChoicesOfOthersAreKept(t *testing.T) {
	dsn, s := fresh(t, pgtest.Shared(t))
	pgtest.Exec(t, dsn, `CREATE TABLE public.a (id int NOT NULL); CREATE TABLE public.b (id int NOT NULL, UNIQUE (id)); CREATE TABLE public.c (id int NOT NULL)`)
	prepare(t, s)
	pgtest.Exec(t, dsn, `ALTER TABLE public.a REPLICA IDENTITY NOTHING; ALTER TABLE public.b REPLICA IDENTITY USING INDEX b_id_key; ALTER TABLE public.c ADD PRIMARY KEY (id)`)
	got := pgtest.Query(t, dsn, `SELECT relname, relreplident FROM pg_class WHERE relname IN ('a', 'b', 'c') ORDER BY 1`)
	if fmt.Sprint(got) != "[[a f] [b i] [c d]]" {
		t.Errorf("while linked: %v", got)
	}
	formers, err := s.Identities(testContext(t), connect(t, dsn))
	if err != nil || len(formers) != 1 || formers[0] != (capture.Former{Table: sqlname.Table{Schema: "public", Name: "a"}, Was: "n"}) {
		t.Errorf("formers %v %v", formers, err)
	}
	remove(t, s, true)
	got = pgtest.Query(t, dsn, `SELECT relname, relreplident FROM pg_class WHERE relname IN ('a', 'b', 'c') ORDER BY 1`)
	if fmt.Sprint(got) != "[[a n] [b i] [c d]]" {
		t.Errorf("afterwards: %v", got)
	}
}

func TestIdentityIndexIsNotDroppedConcurrently(t *testing.T) {
	dsn, s := fresh(t, pgtest.Shared(t))
	pgtest.Exec(t, dsn, `CREATE TABLE public.a (id int NOT NULL, v int); CREATE UNIQUE INDEX "Of ""a"".id" ON public.a (id); CREATE INDEX other ON public.a (v);
		ALTER TABLE public.a REPLICA IDENTITY USING INDEX "Of ""a"".id"; INSERT INTO public.a VALUES (1)`)
	prepare(t, s)
	conn := connect(t, dsn)
	_, err := conn.Exec(testContext(t), `DROP INDEX CONCURRENTLY public."Of ""a"".id"`)
	if pg.SQLState(err) != "55000" || !strings.Contains(err.Error(), "replica identity") {
		t.Errorf("got %v", err)
	}
	must(t, conn, `DROP INDEX CONCURRENTLY public.other`)
	must(t, conn, `UPDATE public.a SET v = 1`)
	must(t, conn, `DROP INDEX public."Of ""a"".id"; UPDATE public.a SET v = 2`)
}

// TestPrepareWaitsInPortions holds a lock on a table without a key for longer than
// one portion.
func TestPrepareWaitsInPortions(t *testing.T) {
	dsn, s := fresh(t, pgtest.Shared(t))
	pgtest.Exec(t, dsn, `CREATE TABLE public.busy (id int, v int); INSERT INTO public.busy VALUES (1, 1); CREATE TABLE public.calm (id int)`)
	holder := connect(t, dsn)
	must(t, holder, `BEGIN; UPDATE public.busy SET v = 2`)
	done := make(chan error, 1)
	go func() { done <- s.Prepare(testContext(t)) }()
	waiting := `SELECT count(*) FROM pg_locks WHERE relation = 'public.busy'::regclass AND mode = 'AccessExclusiveLock' AND NOT granted`
	watch := connect(t, dsn)
	// Three times seen waiting and not waiting: it lets others through in between.
	for turn := range 6 {
		pgtest.Eventually(t, patience, func() error {
			var n int
			if err := watch.QueryRow(testContext(t), waiting).Scan(&n); err != nil || n != (turn+1)%2 {
				return fmt.Errorf("turn %d: %d wait %v", turn, n, err)
			}
			return nil
		})
		// Somebody behind it in the queue gets through before the holder ends.
		other := connect(t, dsn)
		must(t, other, `SET lock_timeout = '20s'; INSERT INTO public.busy VALUES (2, 2)`)
	}
	select {
	case err := <-done:
		t.Fatalf("it did not wait: %v", err)
	default:
	}
	must(t, holder, `COMMIT`)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, dsn, `UPDATE public.busy SET v = 3; DELETE FROM public.busy; UPDATE public.calm SET id = 1`)
}

func TestPrepareEndsWithItsContext(t *testing.T) {
	dsn, s := fresh(t, pgtest.Shared(t))
	pgtest.Exec(t, dsn, `CREATE TABLE public.busy (id int)`)
	holder := connect(t, dsn)
	must(t, holder, `BEGIN; LOCK TABLE public.busy IN ROW EXCLUSIVE MODE`)
	ctx, stop := context.WithCancel(testContext(t))
	done := make(chan error, 1)
	go func() { done <- s.Prepare(ctx) }()
	pgtest.Eventually(t, patience, func() error {
		if len(pgtest.Query(t, dsn, `SELECT FROM pg_locks WHERE relation = 'public.busy'::regclass AND NOT granted`)) == 0 {
			return errors.New("it does not wait yet")
		}
		return nil
	})
	stop()
	if err := <-done; problem.KindOf(err) != problem.Cancelled {
		t.Errorf("got %v", err)
	}
}

// TestOpenSchemaChangesAreAwaited makes and changes tables in transactions that
// began before Prepare and end after it could have looked.
func TestOpenSchemaChangesAreAwaited(t *testing.T) {
	dsn, s := fresh(t, pgtest.Shared(t))
	pgtest.Exec(t, dsn, `CREATE TABLE public.keyed (id int PRIMARY KEY); INSERT INTO public.keyed VALUES (1)`)
	maker, dropper := connect(t, dsn), connect(t, dsn)
	must(t, maker, `BEGIN; CREATE TABLE public.unseen (id int); INSERT INTO public.unseen VALUES (1)`)
	must(t, dropper, `BEGIN; ALTER TABLE public.keyed DROP CONSTRAINT keyed_pkey`)
	done := make(chan error, 1)
	go func() { done <- s.Prepare(testContext(t)) }()
	pgtest.Eventually(t, patience, func() error {
		if len(pgtest.Query(t, dsn, `SELECT FROM pg_event_trigger WHERE evtname = 'twinspan_drop_index'`)) == 0 {
			return errors.New("the event triggers are not there yet")
		}
		return nil
	})
	must(t, maker, `COMMIT; UPDATE public.unseen SET id = 2`)
	must(t, dropper, `COMMIT; UPDATE public.keyed SET id = 2`)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, dsn, `UPDATE public.unseen SET id = 3; UPDATE public.keyed SET id = 3`)
}

// TestDropsWaitForNobodyElse drops an index while Prepare cannot get at another
// table.
func TestDropsWaitForNobodyElse(t *testing.T) {
	dsn, s := fresh(t, pgtest.Shared(t))
	pgtest.Exec(t, dsn, `CREATE TABLE public.busy (id int); CREATE TABLE public.mine (id int PRIMARY KEY, v int); CREATE INDEX mine_v ON public.mine (v)`)
	prepare(t, s)
	pgtest.Exec(t, dsn, `SET session_replication_role = replica; ALTER EVENT TRIGGER twinspan_ddl_end DISABLE; ALTER TABLE public.busy REPLICA IDENTITY DEFAULT;
		ALTER EVENT TRIGGER twinspan_ddl_end ENABLE ALWAYS`)
	holder := connect(t, dsn)
	must(t, holder, `BEGIN; LOCK TABLE public.busy IN ROW EXCLUSIVE MODE`)
	must(t, connect(t, dsn), `SET lock_timeout = '5s'; DROP INDEX public.mine_v; ALTER TABLE public.mine DROP CONSTRAINT mine_pkey; UPDATE public.mine SET v = 1`)
}

// An application's settings for the planner are for its own queries: with enable_indexscan off a
// CREATE TABLE took minutes, for the triggers' queries on the catalogs.
func TestTriggersHaveAPlannerOfTheirOwn(t *testing.T) {
	dsn, _, next := listening(t)
	for _, f := range pgtest.Query(t, dsn, `SELECT p.proname, coalesce(p.proconfig::text, '') FROM pg_proc p WHERE p.pronamespace = 'twinspan'::regnamespace
		AND (p.oid IN (SELECT evtfoid FROM pg_event_trigger) OR p.proname IN ('capture_command', 'capture_drop')) ORDER BY 1`) {
		switch f[0] {
		case "on_ddl_caller", "on_ddl_capture", "on_ddl_drop", "on_ddl_start": // look at no catalogs before they call the others
			continue
		}
		for name, value := range pg.PlannerSettings() {
			if (name == "enable_hashjoin" || name == "enable_mergejoin") && f[0] != "on_drop" && f[0] != "capture_drop" { // few objects are looked up
				value = "off"
			}
			if !strings.Contains(f[1], name+"="+value) || !strings.Contains(f[1], "jit=off") {
				t.Errorf("%s: %s of %s", f[0], name, f[1])
			}
		}
	}
	var off []string
	for name, value := range pg.PlannerSettings() {
		if value == "on" {
			off = append(off, "SET "+name+" = off")
		}
	}
	conn := connect(t, dsn)
	must(t, conn, strings.Join(off, "; "))
	changes := []string{`CREATE TABLE public.t (id int PRIMARY KEY)`, `ALTER TABLE public.t ADD w int`, `DROP TABLE IF EXISTS public.t`}
	each(t, conn, changes...)
	if got := texts(t, next()); got != strings.Join(changes, "|") {
		t.Errorf("captured: %s", got)
	}
}

// TestTwoLinks removes one of two links of a database.
func TestTwoLinks(t *testing.T) {
	dsn, a := fresh(t, pgtest.Shared(t))
	pgtest.Exec(t, dsn, `CREATE TABLE public.keyless (id int); INSERT INTO public.keyless VALUES (1)`)
	b := a
	b.Link = idOf(1<<31 + len(dsn))
	var group errgroup.Group
	for _, s := range []*capture.Source{&a, &b} { // both at once
		group.Go(func() error { return s.Prepare(testContext(t)) })
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	for _, s := range []capture.Source{a, b} {
		pgtest.Exec(t, dsn, `SELECT pg_create_logical_replication_slot('`+s.Object()+`', 'pgoutput')`)
	}
	remove(t, a, false)
	left := fmt.Sprint(traces(t, dsn))
	for _, want := range []string{"publication " + b.Object(), "slot " + b.Object(), "event trigger twinspan_ddl_end", "event trigger twinspan_drop", "changed"} {
		if !strings.Contains(left, want) {
			t.Errorf("%s is missing in %s", want, left)
		}
	}
	if strings.Contains(left, a.Object()) {
		t.Errorf("left behind: %s", left)
	}
	pgtest.Exec(t, dsn, `UPDATE public.keyless SET id = 2; CREATE TABLE public.more (id int); UPDATE public.more SET id = 2`)
	remove(t, b, true)
	if left := traces(t, dsn); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// A link that is the last one when its removal is decided is not when it is done.
func TestRemoveSparesALinkThatHasCome(t *testing.T) {
	dsn, s := fresh(t, pgtest.Shared(t))
	pgtest.Exec(t, dsn, `CREATE TABLE public.keyless (v int)`)
	prepare(t, s)
	err := catalog.Insert(testContext(t), connect(t, dsn), &catalog.Link{
		ID: "0b9a4b4e-6f7e-4b7e-9f60-2f1c0e8d7a11", Agent: "11111111-1111-4111-8111-111111111111", PeerAgent: "22222222-2222-4222-8222-222222222222",
		Name: "other", Peer: "berlin", PeerDatabase: "sales", Role: "primary", Phase: "creating", Epoch: 1, Mode: "async",
	})
	if err != nil {
		t.Fatal(err)
	}
	shared := func() string {
		return fmt.Sprint(pgtest.Query(t, dsn, `SELECT evtname FROM pg_event_trigger ORDER BY 1`), pgtest.Query(t, dsn, `SELECT relreplident FROM pg_class WHERE relname = 'keyless'`))
	}
	before := shared()
	remove(t, s, true)
	if after := shared(); after != before {
		t.Errorf("before %s, after %s", before, after)
	}
	pgtest.Exec(t, dsn, `DELETE FROM twinspan.link`)
	remove(t, s, true)
	if left := traces(t, dsn); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
