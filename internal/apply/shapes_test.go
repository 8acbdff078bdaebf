package apply

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twinspan/twinspan/internal/pgoutput"
	"github.com/twinspan/twinspan/internal/pgtest"
)

func TestUnchangedToast(t *testing.T) {
	both(t, func(t *testing.T, text bool) {
		p := newPair(t, text, "CREATE TABLE t (id int PRIMARY KEY, n int, a text, b text); ALTER TABLE t ALTER a SET STORAGE EXTERNAL, ALTER b SET STORAGE EXTERNAL")
		p.do("INSERT INTO t SELECT i, 0, repeat('a' || i, 3000), repeat('b' || i, 3000) FROM generate_series(1, 60) i")
		p.apply()
		p.do(
			"UPDATE t SET n = 1", // both unchanged, many rows
			"UPDATE t SET a = repeat('x', 4000) WHERE id % 2 = 0", // then one of them set
			"UPDATE t SET n = n + 1, b = NULL WHERE id % 5 = 0",   // and the other
			"UPDATE t SET n = n + 1",                              // and all left alone again
			"UPDATE t SET id = id + 1000 WHERE id <= 10",          // changed keys, values stay behind
			"UPDATE t SET n = 77 WHERE id > 1000",                 // and change after
			"BEGIN; INSERT INTO t VALUES (-1, 0, repeat('q', 5000), 'z'); UPDATE t SET n = 9 WHERE id = -1; COMMIT",
			"UPDATE t SET n = 78 WHERE id = -1", "DELETE FROM t WHERE id = 20",
		)
		a := p.apply()
		p.same()
		if f := a.Status().Fallbacks; f != 0 {
			t.Errorf("%d fallbacks", f)
		}
	})
}

func TestAKeyInToast(t *testing.T) {
	both(t, func(t *testing.T, text bool) {
		p := newPair(t, text, "CREATE TABLE t (k text PRIMARY KEY, n int, pad text); ALTER TABLE t ALTER k SET STORAGE EXTERNAL, ALTER pad SET STORAGE EXTERNAL")
		p.do("INSERT INTO t SELECT repeat(chr(64 + i), 2500), 0, repeat('p', 3000) FROM generate_series(1, 20) i")
		p.apply()
		p.do("UPDATE t SET n = n + 1", "UPDATE t SET n = n + 1 WHERE k < 'F'", "DELETE FROM t WHERE k > 'R'", "UPDATE t SET k = repeat('z', 2600) WHERE k LIKE 'A%'")
		p.apply()
		p.same()
	})
}

func TestKeysChangePlaces(t *testing.T) {
	both(t, func(t *testing.T, text bool) {
		p := newPair(t, text, "CREATE TABLE t (id int PRIMARY KEY, v text)")
		p.do("INSERT INTO t SELECT i, 'v' || i FROM generate_series(1, 50) i")
		p.apply()
		p.do(
			"BEGIN; UPDATE t SET id = -1 WHERE id = 1; UPDATE t SET id = 1 WHERE id = 2; UPDATE t SET id = 2 WHERE id = -1; COMMIT",
			"BEGIN; DELETE FROM t WHERE id = 3; UPDATE t SET id = 3 WHERE id = 4; INSERT INTO t VALUES (4, 'new'); COMMIT",
			"UPDATE t SET id = id + 100 WHERE id > 40", "UPDATE t SET v = v || '!' WHERE id > 100 OR id < 5", "UPDATE t SET id = 41 WHERE id = 141",
		)
		a := p.apply()
		p.same()
		if f := a.Status().Fallbacks; f != 0 {
			t.Errorf("%d fallbacks", f)
		}
	})
}

func TestOtherUniqueValuesChangePlaces(t *testing.T) {
	p := newPair(t, false, "CREATE TABLE t (id int PRIMARY KEY, u text UNIQUE, n int)", "CREATE TABLE other (id int PRIMARY KEY)")
	p.do("INSERT INTO t SELECT i, 'u' || i, 0 FROM generate_series(1, 40) i")
	p.apply()
	p.do("BEGIN; UPDATE t SET u = 'x' WHERE id = 1; UPDATE t SET u = 'u1' WHERE id = 2; UPDATE t SET u = 'u2' WHERE id = 1; COMMIT",
		"UPDATE t SET n = 1", "INSERT INTO other VALUES (1)", "UPDATE t SET n = 2")
	a := p.apply()
	p.same()
	s := a.Status()
	if s.Fallbacks != 1 || s.Transactions < 4 || s.Changes != 3+40+1+40 {
		t.Errorf("status is %+v", s)
	}
	// A unique value that moves to a new row, freed in the same group.
	p.do("DELETE FROM t WHERE id = 5", "INSERT INTO t VALUES (500, 'u5', 0)", "UPDATE t SET u = 'w' WHERE id = 6", "INSERT INTO t VALUES (600, 'u6', 0)")
	if f := p.apply().Status().Fallbacks; f != 0 {
		t.Errorf("%d fallbacks", f)
	}
	p.same()
}

func TestTablesThatFailedKeepTheirOrderForAWhile(t *testing.T) {
	p := newPair(t, false, "CREATE TABLE t (id int PRIMARY KEY, u int UNIQUE)")
	p.do("INSERT INTO t VALUES (1, 1), (2, 2), (3, 3)")
	swap := "BEGIN; UPDATE t SET u = -1 WHERE id = 1; UPDATE t SET u = 1 WHERE id = 2; UPDATE t SET u = 2 WHERE id = 1; COMMIT"
	back := "BEGIN; UPDATE t SET u = -1 WHERE id = 1; UPDATE t SET u = 2 WHERE id = 2; UPDATE t SET u = 1 WHERE id = 1; COMMIT"
	p.apply()
	p.do(swap)
	one := p.messages()
	p.do(back, swap, back, swap)
	all := p.messages()
	until := p.position()
	a := p.applier(until)
	tape := p.record(all[:len(one)], until, nil)
	rest := p.record(all[len(one):], until, nil)
	tape.items[0].Reached = 0
	tape.items = append(tape.items, rest.items...)
	n := 0
	tape.ready = func() bool { n++; return n%2 == 0 }
	if err := a.Run(testContext(t), tape); err != nil {
		t.Fatal(err)
	}
	p.same()
	if s := a.Status(); s.Fallbacks != 1 {
		t.Errorf("status is %+v", s)
	}
}

func TestTablesWithoutKey(t *testing.T) {
	both(t, func(t *testing.T, text bool) {
		p := newPair(t, text, `CREATE TABLE t (a int, b text, n numeric, j json, p point, f float8); ALTER TABLE t REPLICA IDENTITY FULL;
			CREATE TABLE nothing (); ALTER TABLE nothing REPLICA IDENTITY FULL`)
		p.do("INSERT INTO t SELECT i % 3, NULLIF('b' || i % 2, 'b0'), 1.0, '{\"a\": 1}', '(1,2)', 'NaN' FROM generate_series(1, 60) i",
			"INSERT INTO t VALUES (1, 'x', 1.0), (1, 'x', 1.00), (1, 'x', 1.000), (1, 'x', 1.00)", "INSERT INTO nothing DEFAULT VALUES", "INSERT INTO nothing DEFAULT VALUES")
		p.do("DELETE FROM t WHERE ctid = (SELECT min(ctid) FROM t WHERE a = 1)", "DELETE FROM t WHERE b = 'x' AND scale(n) = 3",
			"UPDATE t SET a = 7 WHERE b = 'x' AND scale(n) = 2", "UPDATE t SET b = 'y' WHERE ctid = (SELECT min(ctid) FROM t WHERE a = 2)",
			"UPDATE t SET n = NULL, j = NULL WHERE a = 0", "INSERT INTO t SELECT 9 FROM generate_series(1, 20)", "UPDATE t SET b = '' WHERE a = 9",
			"DELETE FROM nothing WHERE ctid = '(0,1)'")
		a := p.apply()
		p.same()
		if f := a.Status().Fallbacks; f != 0 {
			t.Errorf("%d fallbacks", f)
		}
	})
}

// Many rows are deleted and changed at once: as many as there were, of equal ones, too.
func TestManyRowsOfTablesWithoutKey(t *testing.T) {
	both(t, func(t *testing.T, text bool) {
		p := newPair(t, text, `CREATE DOMAIN short AS text; CREATE TABLE t (a int, "B" short, n numeric, j json, at timestamptz, d float8); ALTER TABLE t REPLICA IDENTITY FULL;
			CREATE TABLE arrays (a int, v int[]); ALTER TABLE arrays REPLICA IDENTITY FULL;
			CREATE TABLE parts (a int, v text) PARTITION BY LIST (a); CREATE TABLE parts0 PARTITION OF parts DEFAULT; ALTER TABLE parts0 REPLICA IDENTITY FULL; ALTER TABLE parts REPLICA IDENTITY FULL`)
		p.do(`INSERT INTO t SELECT i % 40, NULLIF('b' || i % 3, 'b0'), 1.0, '{"a": 1}', '2026-01-01', 'NaN' FROM generate_series(1, 3000) i`,
			"INSERT INTO t SELECT 101, 'x', 1.00 FROM generate_series(1, 30)", "INSERT INTO t SELECT 101, 'x', 1.0 FROM generate_series(1, 30)",
			"INSERT INTO arrays SELECT i % 20, ARRAY[i % 2] FROM generate_series(1, 200) i", "INSERT INTO parts SELECT i % 20, 'v' FROM generate_series(1, 200) i",
			"INSERT INTO t SELECT FROM generate_series(1, 20)")
		p.apply()
		p.do("DELETE FROM t WHERE ctid IN (SELECT ctid FROM t WHERE a < 20 LIMIT 700)", "UPDATE t SET a = a + 1 WHERE a BETWEEN 10 AND 30",
			"UPDATE t SET a = a - 1 WHERE a BETWEEN 11 AND 20", "DELETE FROM t WHERE ctid IN (SELECT ctid FROM t WHERE a = 101 AND scale(n) = 2 LIMIT 17)",
			"INSERT INTO t SELECT 200, 'new' FROM generate_series(1, 50)", "UPDATE t SET a = 201 WHERE a = 200", "DELETE FROM t WHERE ctid IN (SELECT ctid FROM t WHERE a = 201 LIMIT 20)",
			"DELETE FROM t WHERE ctid IN (SELECT ctid FROM t WHERE a IS NULL LIMIT 11)", "DELETE FROM arrays WHERE ctid IN (SELECT ctid FROM arrays LIMIT 90)",
			"DELETE FROM parts WHERE ctid IN (SELECT ctid FROM parts LIMIT 90)", "UPDATE t SET n = NULL, j = NULL WHERE a % 2 = 0")
		a := p.apply()
		p.same()
		if f := a.Status().Fallbacks; f != 0 {
			t.Errorf("%d fallbacks", f)
		}
		// Of types without an equality, and with a NULL in each column, too.
		pgtest.Exec(t, p.source, "CREATE TABLE plain (j json, p point); ALTER TABLE plain REPLICA IDENTITY FULL")
		pgtest.Exec(t, p.target, "CREATE TABLE plain (j json, p point); ALTER TABLE plain REPLICA IDENTITY FULL")
		p.do(`INSERT INTO plain SELECT '{"a":  1}', '(1,2)' FROM generate_series(1, 10000)`, "INSERT INTO plain SELECT NULL, '(1,2)' FROM generate_series(1, 300)", "INSERT INTO plain SELECT '1', NULL FROM generate_series(1, 300)",
			"INSERT INTO plain SELECT FROM generate_series(1, 300)", "DELETE FROM plain WHERE ctid IN (SELECT ctid FROM plain LIMIT 9000)", "DELETE FROM plain WHERE ctid IN (SELECT ctid FROM plain WHERE j IS NULL LIMIT 400)",
			"DELETE FROM plain WHERE ctid IN (SELECT ctid FROM plain WHERE p IS NULL LIMIT 350)", "INSERT INTO arrays SELECT 7, ARRAY[1, NULL] FROM generate_series(1, 3000)", "DELETE FROM arrays WHERE ctid IN (SELECT ctid FROM arrays WHERE a = 7 LIMIT 2500)",
			"INSERT INTO parts SELECT i % 2, 'dup' FROM generate_series(1, 3000) i", "DELETE FROM parts WHERE ctid IN (SELECT ctid FROM parts WHERE v = 'dup' LIMIT 2500)")
		a = p.apply()
		p.same()
		if f := a.Status().Fallbacks; f != 0 {
			t.Errorf("%d fallbacks", f)
		}
		// Rows that are equal, but in other bytes on the secondary, are found one by one.
		p.do("DELETE FROM t WHERE a = 101 AND scale(n) = 2")
		p.apply()
		pgtest.Exec(t, p.target, "UPDATE t SET n = 1.000 WHERE a = 101 AND scale(n) = 1")
		p.do("DELETE FROM t WHERE a = 101 AND scale(n) = 1")
		a = p.apply()
		p.same()
		if f := a.Status().Fallbacks; f != 1 {
			t.Errorf("%d fallbacks", f)
		}
	})
}

func TestFullIdentityUsesAKeyOfTheSecondary(t *testing.T) {
	both(t, func(t *testing.T, text bool) {
		p := newPair(t, text, "CREATE TABLE t (v text, id int NOT NULL UNIQUE, big text); ALTER TABLE t ALTER big SET STORAGE EXTERNAL; ALTER TABLE t REPLICA IDENTITY FULL",
			"CREATE TABLE pk (v text, id int PRIMARY KEY, j json); ALTER TABLE pk REPLICA IDENTITY FULL")
		p.do("INSERT INTO t SELECT 'v', i, repeat('x', 3000) FROM generate_series(1, 30) i", "INSERT INTO pk SELECT 'v', i, '{}' FROM generate_series(1, 30) i")
		p.do("UPDATE t SET v = 'w'", "UPDATE t SET id = id + 100 WHERE id < 5", "DELETE FROM t WHERE id = 7", "UPDATE pk SET v = 'w'", "UPDATE pk SET id = -id WHERE id > 28", "DELETE FROM pk WHERE id BETWEEN 3 AND 20")
		p.apply()
		p.do("UPDATE t SET v = 'z'", "UPDATE t SET v = NULL WHERE id % 2 = 0", "DELETE FROM t WHERE id > 20")
		p.apply()
		p.same()
		if got := pgtest.Query(t, p.target, "SELECT coalesce(idx_scan, 0) > 0 FROM pg_stat_user_indexes WHERE relname = 'pk'")[0][0]; got != "t" {
			pgtest.Eventually(t, time.Minute, func() error {
				if got := pgtest.Query(t, p.target, "SELECT sum(idx_scan) > 0 FROM pg_stat_user_indexes WHERE relname = 'pk'")[0][0]; got != "t" {
					return fmt.Errorf("the index was not used")
				}
				return nil
			})
		}
	})
}

func TestGeneratedAndIdentityColumns(t *testing.T) {
	both(t, func(t *testing.T, text bool) {
		p := newPair(t, text,
			"CREATE TABLE g (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, a int, twice int GENERATED ALWAYS AS (a * 2) STORED, v text)",
			"CREATE TABLE o (id int PRIMARY KEY, serial bigint GENERATED ALWAYS AS IDENTITY, d bigint GENERATED BY DEFAULT AS IDENTITY, v text)")
		p.do("INSERT INTO g (a, v) SELECT i, 'v' FROM generate_series(1, 50) i", "INSERT INTO o (id, v) SELECT i, 'v' FROM generate_series(1, 50) i")
		p.apply()
		p.same()
		p.do("UPDATE g SET a = a + 1", "UPDATE o SET v = 'w', d = d + 1000", "DELETE FROM g WHERE id = 3", "INSERT INTO g (id, a) OVERRIDING SYSTEM VALUE VALUES (3, 3)", "UPDATE o SET v = 'z' WHERE id < 4")
		if f := p.apply().Status().Fallbacks; f != 0 {
			t.Errorf("%d fallbacks", f)
		}
		p.same()
		p.do("UPDATE g SET id = DEFAULT WHERE id IN (1, 2)", "UPDATE g SET a = 99 WHERE id > 50", "UPDATE o SET serial = DEFAULT, v = 'changed' WHERE id IN (7, 8)", "UPDATE o SET v = v || '!'")
		p.apply()
		p.same()
		if got := pgtest.Query(t, p.target, "SELECT string_agg(attidentity, '' ORDER BY attrelid::regclass::text, attnum) FROM pg_attribute WHERE attrelid IN ('g'::regclass, 'o'::regclass) AND attidentity <> ''")[0][0]; got != "aad" {
			t.Errorf("identities are %s now", got)
		}
	})
}

func TestPartitionsAndInheritance(t *testing.T) {
	both(t, func(t *testing.T, text bool) {
		schema := []string{
			"CREATE TABLE part (id int, at int, v text, PRIMARY KEY (id, at)) PARTITION BY RANGE (at)",
			"CREATE TABLE part1 PARTITION OF part FOR VALUES FROM (0) TO (100)",
			"CREATE TABLE part2 (v text, at int NOT NULL, id int NOT NULL)", "ALTER TABLE part ATTACH PARTITION part2 FOR VALUES FROM (100) TO (200)",
			"CREATE TABLE base (id int PRIMARY KEY, v text)", "CREATE TABLE child (extra int, PRIMARY KEY (id)) INHERITS (base)",
		}
		p := newPair(t, text, schema...)
		p.do("INSERT INTO part SELECT i, i * 4, 'v' FROM generate_series(0, 49) i", "INSERT INTO base SELECT i, 'b' FROM generate_series(1, 20) i", "INSERT INTO child SELECT i, 'c', i FROM generate_series(1, 20) i",
			"UPDATE part SET at = 199 - at", "UPDATE part SET v = 'w' WHERE id % 2 = 0", "DELETE FROM part WHERE id % 7 = 0",
			"UPDATE ONLY base SET v = 'x'", "UPDATE base SET v = v || id WHERE id < 10", "DELETE FROM child WHERE id > 12", "DELETE FROM ONLY base WHERE id < 8", "TRUNCATE part1")
		p.apply()
		p.same()
		// Through the root, into a target whose partitions are cut otherwise.
		p.do("ALTER PUBLICATION p SET (publish_via_partition_root = true)")
		pgtest.Exec(t, p.target, "DROP TABLE part", "CREATE TABLE part (id int, at int, v text, PRIMARY KEY (id, at)) PARTITION BY HASH (id)", "CREATE TABLE h0 PARTITION OF part FOR VALUES WITH (MODULUS 2, REMAINDER 0)", "CREATE TABLE h1 PARTITION OF part FOR VALUES WITH (MODULUS 2, REMAINDER 1)")
		p.do("TRUNCATE part", "INSERT INTO part SELECT i, i * 4, 'v' FROM generate_series(0, 49) i", "UPDATE part SET v = 'w'", "UPDATE part SET at = 199 - at WHERE id < 25", "DELETE FROM part WHERE id > 40")
		p.apply()
		if got, want := pgtest.Table(t, p.target, "part"), pgtest.Table(t, p.source, "part"); got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	})
}

func TestOddNames(t *testing.T) {
	both(t, func(t *testing.T, text bool) {
		p := newPair(t, text, `CREATE SCHEMA "My ""Schema"`, `CREATE TYPE "My ""Schema"."Mood's" AS ENUM ('a', 'B "c"')`,
			`CREATE TABLE "My ""Schema"."Ta'ble \ $1" ("Id" int PRIMARY KEY, "select" text, "a""b" "My ""Schema"."Mood's", "naïve ü" int)`)
		p.do(`INSERT INTO "My ""Schema"."Ta'ble \ $1" SELECT i, 'v', 'B "c"', i FROM generate_series(1, 30) i`, `UPDATE "My ""Schema"."Ta'ble \ $1" SET "a""b" = 'a', "naïve ü" = 5`,
			`DELETE FROM "My ""Schema"."Ta'ble \ $1" WHERE "Id" < 15`, `UPDATE "My ""Schema"."Ta'ble \ $1" SET "Id" = 1000, "select" = 'x' WHERE "Id" = 20`)
		p.apply()
		p.same()
	})
}

func TestAsManyColumnsAsATableCanHave(t *testing.T) {
	both(t, func(t *testing.T, text bool) {
		var columns, sets []string
		for i := range 1600 {
			columns = append(columns, fmt.Sprintf("c%d int", i))
			if i%3 == 1 {
				sets = append(sets, fmt.Sprintf("c%d = %d", i, i))
			}
		}
		p := newPair(t, text, "CREATE TABLE wide ("+strings.Join(columns, ", ")+", PRIMARY KEY (c1599))", "ALTER TABLE wide ALTER c0 TYPE text, ALTER c0 SET STORAGE EXTERNAL")
		p.do("INSERT INTO wide (c1599, c800, c0) SELECT i, i, repeat('x', 3000) FROM generate_series(1, 12) i", "UPDATE wide SET "+strings.Join(sets, ", "))
		p.apply()
		p.do("UPDATE wide SET c2 = 5", "UPDATE wide SET c0 = 'short' WHERE c1599 > 9", "DELETE FROM wide WHERE c1599 = 3")
		p.apply()
		p.same()
	})
}

func TestTruncate(t *testing.T) {
	p := newPair(t, false, "CREATE TABLE a (id int PRIMARY KEY, n bigint GENERATED BY DEFAULT AS IDENTITY)", "CREATE TABLE b (id serial PRIMARY KEY, a int REFERENCES a)", "CREATE TABLE c (id int PRIMARY KEY)")
	p.do("INSERT INTO a SELECT i FROM generate_series(1, 20) i", "INSERT INTO b (a) SELECT id FROM a", "INSERT INTO c SELECT id FROM a")
	p.apply()
	pgtest.Exec(t, p.target, "SELECT setval('b_id_seq', 500), setval('a_n_seq', 500)")
	p.do("INSERT INTO c VALUES (100)", "BEGIN; INSERT INTO c VALUES (101); TRUNCATE a RESTART IDENTITY CASCADE; INSERT INTO a VALUES (1); INSERT INTO b (a) VALUES (1); COMMIT", "UPDATE c SET id = 102 WHERE id = 100", "TRUNCATE c, b", "INSERT INTO c VALUES (5)")
	p.apply()
	p.same()
	if got := pgtest.Query(t, p.target, "SELECT nextval('b_id_seq'), nextval('a_n_seq')")[0]; got[0] != "1" || got[1] != "1" {
		t.Errorf("sequences stand at %v", got)
	}
}

func TestSavepointsAndPreparedTransactions(t *testing.T) {
	p := newPair(t, false, "CREATE TABLE t (id int PRIMARY KEY, v text)")
	p.do("BEGIN; INSERT INTO t VALUES (1, 'a'); SAVEPOINT s; INSERT INTO t VALUES (2, 'lost'); UPDATE t SET v = 'lost' WHERE id = 1; ROLLBACK TO s; INSERT INTO t VALUES (3, 'c'); SAVEPOINT s2; UPDATE t SET v = 'b' WHERE id = 1; RELEASE s2; COMMIT")
	name := p.slot
	p.do("BEGIN; INSERT INTO t VALUES (10, 'prepared'); PREPARE TRANSACTION '"+name+"'", "INSERT INTO t VALUES (11, 'between')", "COMMIT PREPARED '"+name+"'",
		"BEGIN; INSERT INTO t VALUES (12, 'never'); PREPARE TRANSACTION '"+name+"'", "ROLLBACK PREPARED '"+name+"'")
	p.apply()
	p.same()
	if got := pgtest.Query(t, p.target, "SELECT count(*) FROM t")[0][0]; got != "4" {
		t.Errorf("%s rows", got)
	}
}

func TestTriggersThatFireOnASecondarySeeEveryChange(t *testing.T) {
	p := newPair(t, true, "CREATE TABLE t (id int PRIMARY KEY, v text)", "CREATE TABLE plain (id int PRIMARY KEY, v text)")
	pgtest.Exec(t, p.target, "CREATE TABLE public.seen (n serial, op text, id int, v text)",
		`CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.seen (op, id, v) VALUES (tg_op, coalesce(new.id, old.id), new.v); RETURN NULL; END $$`,
		"CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON t FOR EACH ROW EXECUTE FUNCTION note()", "ALTER TABLE t ENABLE ALWAYS TRIGGER note",
		"CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON plain FOR EACH ROW EXECUTE FUNCTION note()")
	p.do("INSERT INTO t SELECT i, 'a' FROM generate_series(1, 10) i", "UPDATE t SET v = 'b' WHERE id = 1", "UPDATE t SET v = 'c' WHERE id = 1", "DELETE FROM t WHERE id = 1", "INSERT INTO plain VALUES (1)")
	p.apply()
	got := pgtest.Query(t, p.target, "SELECT string_agg(op || id || coalesce(v, ''), ' ' ORDER BY n) FROM seen WHERE id = 1")[0][0]
	if got != "INSERT1a UPDATE1b UPDATE1c DELETE1" {
		t.Errorf("the trigger saw %s", got)
	}
}

func TestExclusionConstraintsKeepOrder(t *testing.T) {
	p := newPair(t, false, "CREATE TABLE t (id int PRIMARY KEY, r int4range, EXCLUDE USING gist (r WITH &&))")
	p.do("INSERT INTO t SELECT i, int4range(i * 10, i * 10 + 5) FROM generate_series(1, 20) i")
	p.apply()
	p.do("BEGIN; UPDATE t SET r = 'empty' WHERE id = 1; UPDATE t SET r = '[10,15)' WHERE id = 2; UPDATE t SET r = '[20,25)' WHERE id = 1; COMMIT")
	if f := p.apply().Status().Fallbacks; f != 0 {
		t.Errorf("%d fallbacks", f)
	}
	p.same()
}

func TestKeysThatAreEqualInOtherBytes(t *testing.T) {
	both(t, func(t *testing.T, text bool) {
		p := newPair(t, text,
			"CREATE COLLATION nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false)",
			"CREATE TABLE num (k numeric PRIMARY KEY, v int)", "CREATE TABLE f (k float8 PRIMARY KEY, v int)", "CREATE TABLE iv (k interval PRIMARY KEY, v int)",
			"CREATE TABLE nc (k text COLLATE nocase PRIMARY KEY, v int)", "CREATE TABLE bp (k bpchar PRIMARY KEY, v int)", "CREATE TABLE js (k jsonb PRIMARY KEY, v int)", "CREATE TABLE c (k text COLLATE \"C\", k2 varchar(9), v int, PRIMARY KEY (k2, k))")
		p.do("INSERT INTO num SELECT i + 0.0, 0 FROM generate_series(1, 20) i", "INSERT INTO f SELECT i, 0 FROM generate_series(0, 20) i", "INSERT INTO iv SELECT i * interval '1 day', 0 FROM generate_series(1, 20) i",
			"INSERT INTO nc SELECT 'key' || i, 0 FROM generate_series(1, 20) i", "INSERT INTO bp SELECT 'key' || i, 0 FROM generate_series(1, 20) i", "INSERT INTO js SELECT to_jsonb(i + 0.0), 0 FROM generate_series(1, 20) i", "INSERT INTO c SELECT 'a' || i, 'b', 0 FROM generate_series(1, 20) i")
		for table, value := range map[string]string{"num": "k + 0.000", "f": "CASE WHEN k = 0 THEN '-0' ELSE k END", "iv": "k - interval '1 day' + interval '24 hours'", "nc": "upper(k)", "bp": "k || '  '", "js": "to_jsonb(k::numeric + 0.00)", "c": "k"} {
			p.do("UPDATE "+table+" SET v = v + 1", "UPDATE "+table+" SET k = "+value, "UPDATE "+table+" SET v = v + 1",
				"CREATE TEMP TABLE x AS SELECT * FROM "+table+" LIMIT 5; BEGIN; DELETE FROM "+table+" WHERE k IN (SELECT k FROM x); INSERT INTO "+table+" SELECT * FROM x; COMMIT",
				"UPDATE "+table+" SET v = v + 1")
		}
		p.apply()
		p.same()
	})
}

func TestIndexesWithAnEqualityOfTheirOwn(t *testing.T) {
	p := newPair(t, false, "CREATE SCHEMA ext", "CREATE EXTENSION citext SCHEMA ext", "CREATE TABLE t (k ext.citext PRIMARY KEY, v int)")
	p.do("INSERT INTO t SELECT 'Key' || i, 0 FROM generate_series(1, 30) i", "UPDATE t SET v = 1", "UPDATE t SET k = upper(k::text)", "UPDATE t SET v = 2", "DELETE FROM t WHERE k < 'KEY3'")
	p.apply()
	p.same()
}

func TestASchemaThatChangesInTheStream(t *testing.T) {
	p := newPair(t, false, "CREATE TABLE t (id int PRIMARY KEY, a text, b int)")
	p.do("INSERT INTO t SELECT i, 'a', 1 FROM generate_series(1, 20) i")
	// Both sides change before the stream is read: the first row has columns that
	// are not there any more, by then, under that name.
	p.do("ALTER TABLE t RENAME b TO c", "UPDATE t SET c = 2", "DELETE FROM t WHERE id = 1")
	pgtest.Exec(t, p.target, "ALTER TABLE t RENAME b TO c")
	_, err := p.try()
	if code(err) != "schema_differs" {
		t.Fatalf("got %v", err)
	}
	contains(t, err.Error(), `"b"`, "public.t")
	pgtest.Exec(t, p.target, "ALTER TABLE t RENAME c TO b")
	messages := p.messages()
	until := p.position()
	tape := p.record(messages, until, nil)
	cut := 0
	for i, m := range messages { // the second description of the table
		if m.data[0] == byte(pgoutput.TypeRelation) {
			cut = i
		}
	}
	tape.items = nil
	tape.items = append(p.record(messages[:cut-1], 0, nil).items, p.record(messages[cut-1:], until, nil).items...)
	asked := 0
	tape.ready = func() bool { asked++; return false }
	tape.took = func(n int) {
		if n == 2 {
			pgtest.Exec(t, p.target, "ALTER TABLE t RENAME b TO c")
		}
	}
	if err := p.applier(until).Run(testContext(t), tape); err != nil {
		t.Fatal(err)
	}
	p.same()
}

func TestSignals(t *testing.T) {
	both(t, func(t *testing.T, text bool) {
		schema := "CREATE SCHEMA twinspan; CREATE TABLE twinspan.signal (id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, at timestamptz NOT NULL DEFAULT clock_timestamp(), kind text NOT NULL, payload jsonb NOT NULL DEFAULT '{}'); CREATE TABLE twinspan.own (x int PRIMARY KEY); CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE u (id int PRIMARY KEY)"
		p := newPair(t, text, schema)
		p.do("INSERT INTO t SELECT generate_series(1, 30)", "INSERT INTO u VALUES (1)", "INSERT INTO twinspan.own VALUES (1)",
			`BEGIN; INSERT INTO t VALUES (100); INSERT INTO twinspan.signal (kind, payload) VALUES ('truncate', '{"schema":"public","table":"t","cascade":false,"restart":true}'); INSERT INTO t VALUES (101); COMMIT`,
			`BEGIN; INSERT INTO t VALUES (102); INSERT INTO twinspan.signal (kind, payload) VALUES ('barrier', '{"n": 1}'); INSERT INTO t VALUES (103); COMMIT`,
			"UPDATE twinspan.signal SET kind = 'x'", "DELETE FROM twinspan.signal", "INSERT INTO u VALUES (2)")
		var seen []string
		a, err := p.try(func(a *Applier) {
			a.OnSignal = func(_ context.Context, s Signal) (*Script, error) {
				kind, payload := s.Kind, s.Payload
				var v map[string]any
				if err := json.Unmarshal(payload, &v); err != nil {
					return nil, err
				}
				rows := pgtest.Query(t, p.target, "SELECT string_agg(id::text, ' ' ORDER BY id) FROM t")[0][0]
				seen = append(seen, fmt.Sprint(kind, v, rows))
				return nil, nil
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		if len(seen) != 1 || seen[0] != "barriermap[n:1]101" {
			t.Errorf("signals: %q", seen)
		}
		if got := pgtest.Table(t, p.target, "t"); got != "(101)\n(102)\n(103)\n" {
			t.Errorf("t is %s", got)
		}
		if got := pgtest.Query(t, p.target, "SELECT (SELECT count(*) FROM twinspan.signal) + (SELECT count(*) FROM twinspan.own), (SELECT count(*) FROM u)")[0]; got[0] != "0" || got[1] != "2" {
			t.Errorf("counts are %v", got)
		}
		if a.Status().Applied < p.progress() {
			t.Error("the status lags")
		}
	})
}
