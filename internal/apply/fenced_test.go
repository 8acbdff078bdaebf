package apply

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/pgoutput"
	"github.com/twinspan/twinspan/internal/pgtest"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/rights"
)

// ownersSchema is a schema of a role that is no superuser; note fails where its caller is one,
// on the target alone, for on the source the tests' superuser writes.
func ownersSchema(role string) []string {
	return []string{
		`DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '` + role + `') THEN CREATE ROLE ` + role + ` LOGIN; END IF; END $$`,
		`CREATE SCHEMA s AUTHORIZATION ` + role,
		`DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = s, public', current_database()); EXECUTE format('ALTER DATABASE %I SET TimeZone = ''Asia/Tokyo''', current_database());
			EXECUTE format('ALTER DATABASE %I SET DateStyle = ''German, DMY''', current_database()); EXECUTE format('ALTER DATABASE %I SET app.tenant = ''T1''', current_database());
			EXECUTE format('ALTER DATABASE %I SET array_nulls = off', current_database()); END $$`,
		`CREATE FUNCTION s.note() RETURNS bool LANGUAGE plpgsql AS $$ BEGIN
			IF (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AND current_setting('session_replication_role') = 'replica'
			THEN RAISE EXCEPTION 'code ran as %', current_user; END IF; RETURN true; END $$`,
		`CREATE FUNCTION s.plain(x int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN PERFORM s.note(); RETURN x; END $$`,
		// By its bare name, as the database's search_path finds it.
		`CREATE FUNCTION s.f(x int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RETURN plain(x); END $$`,
		`CREATE FUNCTION s.told(x timestamptz) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN PERFORM note(); RETURN x::text || current_setting('app.tenant') || '\\'; END $$`,
		`CREATE DOMAIN s.d AS int CHECK (s.f(value) > 0)`,
		`CREATE TYPE s.pair AS (a s.d, b text)`,
	}
}

// tables of every way in which code of users comes to run when a row is written.
var codeTables = map[string]string{
	"check":      `(id int PRIMARY KEY, v text, x int, CHECK (s.f(x) = x))`,
	"domain":     `(id int PRIMARY KEY, v text, x s.d)`,
	"composite":  `(id int PRIMARY KEY, v text, x int, p s.pair, q s.pair[])`,
	"generated":  `(id int PRIMARY KEY, v text, x int, at timestamptz DEFAULT '2026-01-02 03:04:05+00', g text GENERATED ALWAYS AS (s.told(at)) STORED)`,
	"styles":     `(id int PRIMARY KEY, v text, x int, at timestamptz DEFAULT '2026-01-02 20:04:05+00', CHECK ((at::date)::text LIKE '03.01.2026'))`,
	"key":        `(id s.d PRIMARY KEY, v text, x int)`,
	"keyless":    `(id int, v text, x int, CHECK (s.f(x) = x))`,
	"partition":  `(id int, v text, x int, PRIMARY KEY (id)) PARTITION BY RANGE (id)`,
	"identity":   `(id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text, x int CHECK (s.f(x) = x))`,
	"exclusion":  `(id int PRIMARY KEY, v text, x int, EXCLUDE ((s.f(id)) WITH =))`,
	"money":      `(id int PRIMARY KEY, v text, x int CHECK (s.f(x) = x), m money DEFAULT 12.5)`,
	"row level":  `(id int PRIMARY KEY, v text, x int, CHECK (s.f(x) = x))`,
	"arrays":     `(id int PRIMARY KEY, v text, x int CHECK (s.f(x) = x), a int[] DEFAULT ARRAY[1, NULL], t text[] DEFAULT ARRAY['NULL', NULL, 'a''\\"b'])`,
	"statistics": `(id int PRIMARY KEY, v text, x int)`,
}

// TestCodeRunsAsOwner applies all kinds of changes to tables at which code of users runs.
func TestCodeRunsAsOwner(t *testing.T) {
	schema := ownersSchema("owner_a")
	var names []string
	for name, columns := range codeTables {
		quoted := `s."t ` + name + ` $1"`
		names = append(names, quoted)
		schema = append(schema, `CREATE TABLE `+quoted+columns)
		switch name {
		case "partition":
			schema = append(schema, `CREATE TABLE s.leaf PARTITION OF `+quoted+` (CHECK (s.f(x) = x)) FOR VALUES FROM (-100) TO (10000)`, `ALTER TABLE s.leaf OWNER TO owner_a`)
		case "check":
			schema = append(schema, `CREATE INDEX ON `+quoted+` (s.f(x)) WHERE s.f(x) <> 3`)
		case "statistics":
			schema = append(schema, `CREATE STATISTICS s.st ON (s.f(x)), id FROM `+quoted)
		case "row level":
			schema = append(schema, `ALTER TABLE `+quoted+` ENABLE ROW LEVEL SECURITY`, `ALTER TABLE `+quoted+` FORCE ROW LEVEL SECURITY`, `CREATE POLICY p ON `+quoted+` USING (false)`)
		case "keyless":
			schema = append(schema, `ALTER TABLE `+quoted+` REPLICA IDENTITY FULL`)
		}
		schema = append(schema, `ALTER TABLE `+quoted+` OWNER TO owner_a`)
	}
	p := newPair(t, true, schema...)
	for _, name := range names {
		over := ""
		if strings.Contains(name, "identity") {
			over = "OVERRIDING SYSTEM VALUE"
		}
		p.do(
			`INSERT INTO `+name+` (id, v, x) `+over+` SELECT g, E'it''s \\ "$1" '||g, g FROM generate_series(1, 60) g`,
			`INSERT INTO `+name+` (id, v, x) `+over+` VALUES (100, NULL, 100)`,
			`UPDATE `+name+` SET v = v || '!', x = x + 1 WHERE id BETWEEN 5 AND 40`,
			`UPDATE `+name+` SET v = E'\\x41\n\t' WHERE id = 100`,
			`DELETE FROM `+name+` WHERE id BETWEEN 20 AND 35`,
			`DELETE FROM `+name+` WHERE id = 1`,
			`BEGIN; INSERT INTO `+name+` (id, v, x) `+over+` SELECT g, repeat('large', 20000), g FROM generate_series(200, 210) g; UPDATE `+name+` SET x = 7 WHERE id > 205; COMMIT`)
		if strings.Contains(name, "composite") {
			p.do(`UPDATE `+name+` SET p = ROW(id, 'a "b" \\ ''c'), q = ARRAY[ROW(1, 'x')::s.pair, NULL]`, `UPDATE `+name+` SET p = NULL WHERE id = 3`)
		}
	}
	a := p.apply()
	p.same()
	if n := a.Status().Fallbacks; n > 0 {
		t.Errorf("%d groups had to be replayed", n)
	}
}

// TestFormOfStreamForCode says that values of such tables are wanted as text.
func TestFormOfStreamForCode(t *testing.T) {
	p := newPair(t, false, append(ownersSchema("owner_a"), `CREATE TABLE s.t (id int PRIMARY KEY CHECK (s.f(id) = id))`, `ALTER TABLE s.t OWNER TO owner_a`)...)
	p.do(`INSERT INTO s.t VALUES (1)`)
	if _, err := p.try(); code(err) != "stream_needs_text" {
		t.Errorf("got %v", err)
	}
}

// TestCodeMeetsFastTables mixes tables of both kinds in one transaction, with code that
// leaves settings behind.
func TestCodeMeetsFastTables(t *testing.T) {
	p := newPair(t, true, append(ownersSchema("owner_a"),
		`CREATE FUNCTION s.dirty(x int) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN PERFORM note();
			IF current_setting('session_replication_role') = 'replica' THEN
				SET search_path = s; SET client_encoding = 'LATIN1'; SET statement_timeout = 1; SET default_transaction_read_only = on; SET standard_conforming_strings = off;
				EXECUTE 'CREATE TEMPORARY TABLE IF NOT EXISTS int2 (i int); CREATE TEMPORARY TABLE IF NOT EXISTS text (i int)';
			END IF; RETURN true; END $$`,
		`CREATE TABLE s.t (id int PRIMARY KEY, v text, CHECK (s.dirty(id)))`, `ALTER TABLE s.t OWNER TO owner_a`,
		`CREATE TABLE s.fast (id int PRIMARY KEY, v text)`, `CREATE TABLE s.later (id int PRIMARY KEY, v text, a text[])`)...)
	for i := range 5 {
		p.do(fmt.Sprintf(`BEGIN; INSERT INTO s.fast VALUES (%[1]d, 'größe'); INSERT INTO s.t VALUES (%[1]d, 'größe'); UPDATE s.fast SET v = v || '2' WHERE id = %[1]d; INSERT INTO s.t VALUES (%[1]d + 100, 'ä'); COMMIT`, i))
	}
	p.do(`INSERT INTO s.later SELECT g, 'ö', ARRAY['ü', NULL] FROM generate_series(1, 20) g`, `UPDATE s.later SET v = 'é'`)
	p.apply()
	p.same()
}

// TestFencesProblems are what code of users can do to be named.
func TestFencesProblems(t *testing.T) {
	for name, c := range map[string]struct{ body, want, says string }{
		"lacks a right":       {`PERFORM 1 FROM closed.t`, "owner_lacks_right", "owner_a"},
		"read-only":           {`SET TRANSACTION READ ONLY`, "code_leaves_fence", "owner_a"},
		"deallocates":         {`DEALLOCATE ALL`, "code_leaves_fence", "owner_a"},
		"raises":              {`RAISE EXCEPTION 'secret value'`, "apply_failed", "s.t"},
		"resets the role":     {`RESET ROLE`, "owner_lacks_right", "owner_a"},
		"alters the fence":    {`EXECUTE (SELECT 'ALTER FUNCTION ' || oid::regprocedure || ' SECURITY INVOKER' FROM pg_proc WHERE proname LIKE 'twinspan_run%' LIMIT 1)`, "code_leaves_fence", "owner_a"},
		"defers for the end":  {`CREATE TEMPORARY TABLE IF NOT EXISTS q (i int); DROP TRIGGER IF EXISTS z ON q; CREATE CONSTRAINT TRIGGER z AFTER INSERT ON q DEFERRABLE FOR EACH ROW EXECUTE FUNCTION s.tr(); ALTER TABLE q ENABLE ALWAYS TRIGGER z`, "deferred_trigger_fires", "ALWAYS"},
		"replication by role": {`SET session_replication_role = origin`, "owner_lacks_right", "owner_a"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, true, append(ownersSchema("owner_a"), `CREATE SCHEMA closed`, `CREATE TABLE closed.t ()`, `CREATE FUNCTION s.tr() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM s.note(); RETURN NULL; END'`,
				`CREATE FUNCTION s.bad(x int) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN IF current_setting('session_replication_role') = 'replica' THEN `+c.body+`; END IF; RETURN s.note(); END $$`,
				`CREATE TABLE s.fast (id int PRIMARY KEY)`, `CREATE TABLE s.t (id int PRIMARY KEY CHECK (s.bad(id)))`, `ALTER TABLE s.t OWNER TO owner_a`)...)
			p.do(`INSERT INTO s.fast VALUES (1)`, `INSERT INTO s.t VALUES (1)`, `INSERT INTO s.t VALUES (2)`, `INSERT INTO s.fast VALUES (2)`)
			_, err := p.try()
			if code(err) != c.want || strings.Contains(fmt.Sprint(err), "secret") {
				t.Fatalf("%v (code %s)", err, code(err))
			}
			p2 := problem.As(err)
			contains(t, p2.Error()+" "+p2.Subject+" "+p2.Hint, c.says)
			if rows := pgtest.Query(t, p.target, `SELECT count(*) FROM s.t`); rows[0][0] != "0" {
				t.Errorf("%s rows", rows[0][0])
			}
		})
	}
}

// TestWhatIsCode asks of tables with and without code of users.
func TestWhatIsCode(t *testing.T) {
	p := newPair(t, true, ownersSchema("owner_a")...)
	want := map[string]bool{}
	add := func(code bool, columns string, more ...string) {
		name := fmt.Sprintf("s.w%d", len(want))
		want[name] = code
		pgtest.Exec(t, p.target, `CREATE TABLE `+name+` `+columns)
		for _, sql := range more {
			pgtest.Exec(t, p.target, strings.ReplaceAll(sql, "@", name))
		}
	}
	pgtest.Exec(t, p.target, `CREATE TYPE s.mood AS ENUM ('a', 'b')`, `CREATE DOMAIN s.plaind AS text CHECK (length(value) < 10)`, `CREATE DOMAIN s.deep AS s.pair`, `CREATE TYPE s.dr AS RANGE (subtype = s.d)`,
		`CREATE FUNCTION s.tr() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'`)
	add(false, `(i int PRIMARY KEY, t text, n numeric CHECK (n > 0), m s.mood, a int[], d s.plaind, at timestamptz, j jsonb)`, `CREATE INDEX ON @ (lower(t))`, `CREATE INDEX ON @ (i) WHERE n > 3`)
	add(false, `(i int PRIMARY KEY, g int GENERATED ALWAYS AS (i * 2) STORED)`, `CREATE TRIGGER z BEFORE INSERT ON @ FOR EACH ROW EXECUTE FUNCTION s.tr()`)
	add(false, `(i int DEFAULT s.f(1), at timestamptz DEFAULT now())`)
	add(false, `(i int PRIMARY KEY)`, `ALTER TABLE @ ENABLE ROW LEVEL SECURITY`, `CREATE POLICY p ON @ USING (s.note())`)
	add(true, `(i int CHECK (s.f(i) > 0))`)
	add(true, `(i s.d)`)
	add(true, `(i s.d[])`)
	add(true, `(i s.pair[])`)
	add(true, `(i s.deep)`)
	add(true, `(i s.dr)`)
	add(true, `(i int, g int GENERATED ALWAYS AS (s.f(i)) STORED)`)
	add(true, `(i int)`, `CREATE INDEX ON @ (s.f(i))`)
	add(true, `(i int)`, `CREATE INDEX ON @ (i) WHERE s.f(i) > 3`)
	add(true, `(i int)`, `CREATE STATISTICS s.st1 ON i, (s.f(i)) FROM @`)
	add(true, `(i int) PARTITION BY RANGE (s.f(i))`)
	add(true, `(i int) PARTITION BY RANGE (i)`, `CREATE TABLE s.below PARTITION OF @ (CHECK (s.f(i) > 0)) FOR VALUES FROM (1) TO (10)`)
	add(true, `(i int)`, `CREATE TRIGGER z BEFORE INSERT ON @ FOR EACH ROW EXECUTE FUNCTION s.tr()`, `ALTER TABLE @ ENABLE REPLICA TRIGGER z`)
	add(true, `(at timestamptz CHECK (at::date > '2020-01-01'))`)
	add(true, `(at timestamptz CHECK (at < CURRENT_TIMESTAMP + interval '100 years'))`)
	add(true, `(d date CHECK (d::text <> ''))`)
	add(true, `(i int)`, `CREATE FUNCTION s.lt(int, int) RETURNS bool IMMUTABLE LANGUAGE sql AS 'SELECT $1 < $2'`, `CREATE OPERATOR s.<<< (LEFTARG = int, RIGHTARG = int, FUNCTION = s.lt)`, `ALTER TABLE @ ADD CHECK (i OPERATOR(s.<<<) 100)`)
	add(true, `(i int)`, `CREATE FUNCTION s.cmp(int, int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1 - $2'`,
		`CREATE OPERATOR CLASS s.oc FOR TYPE int USING btree AS OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, OPERATOR 4 >=, OPERATOR 5 >, FUNCTION 1 s.cmp(int, int)`, `CREATE INDEX ON @ (i s.oc)`)
	pgtest.Exec(t, p.target, `CREATE TYPE s.ranged AS RANGE (subtype = int, subtype_opclass = s.oc)`, `CREATE FUNCTION s.diff(float8, float8) RETURNS float8 IMMUTABLE LANGUAGE sql AS 'SELECT $1 - $2'`, `CREATE TYPE s.apart AS RANGE (subtype = float8, subtype_diff = s.diff)`)
	add(true, `(i s.ranged)`)
	add(true, `(i s.ranged[])`)
	add(true, `(i s.apart)`)
	d, err := pg.ParseDSN(p.target)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := d.Connect(testContext(t), pg.Session{Name: "test"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(testContext(t))
	for name, code := range want {
		var oid uint32
		if err := conn.QueryRow(testContext(t), `SELECT $1::text::regclass::oid`, name).Scan(&oid); err != nil {
			t.Fatal(err)
		}
		all, err := rights.Of(testContext(t), conn, []uint32{oid})
		if err != nil || all[oid].Code != code {
			t.Errorf("%s: %+v, %v", name, all[oid], err)
		}
	}
}

// TestTruncateOfTrees empties random graphs of partitions and references, as the primary did.
func TestTruncateOfTrees(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	for range 4 {
		var schema []string
		const roots = 5
		tree := map[int][]string{}
		for i := range roots {
			name := fmt.Sprintf("r%d", i)
			refs := ""
			for j := range i {
				if r.IntN(3) == 0 {
					refs += fmt.Sprintf(", x%d int REFERENCES r%d", j, j)
				}
			}
			kind := ""
			if r.IntN(3) > 0 {
				kind = " PARTITION BY RANGE (id)"
			}
			schema = append(schema, `CREATE TABLE `+name+` (id int PRIMARY KEY`+refs+`)`+kind)
			tree[i] = []string{name}
			if kind != "" {
				schema = append(schema, fmt.Sprintf(`CREATE TABLE %[1]sa PARTITION OF %[1]s FOR VALUES FROM (0) TO (10)`, name),
					fmt.Sprintf(`CREATE TABLE %[1]sb PARTITION OF %[1]s FOR VALUES FROM (10) TO (20) PARTITION BY RANGE (id)`, name), fmt.Sprintf(`CREATE TABLE %[1]sc PARTITION OF %[1]sb FOR VALUES FROM (10) TO (20)`, name))
				tree[i] = append(tree[i], name+"a", name+"b", name+"c")
			}
		}
		p := newPair(t, true, schema...)
		for range 12 {
			for i := range roots {
				p.do(fmt.Sprintf(`INSERT INTO r%d (id) SELECT g FROM generate_series(0, 19) g ON CONFLICT DO NOTHING`, i))
			}
			var list []string
			for _, i := range r.Perm(roots)[:1+r.IntN(roots)] {
				list = append(list, tree[i][r.IntN(len(tree[i]))])
			}
			sql := "TRUNCATE " + strings.Join(list, ", ")
			if r.IntN(4) == 0 {
				sql += " CASCADE"
			}
			if r.IntN(4) == 0 {
				sql = strings.Replace(sql, " CASCADE", "", 1) + " RESTART IDENTITY"
			}
			_, _ = run(p.source, sql) // some are refused there, and have no effect
		}
		p.apply()
		p.same()
	}
}

func TestLiterals(t *testing.T) {
	got := string(literals(nil, `UPDATE "a$1""$2" SET x = $2, y = $11::"$3" WHERE z = '$1''$2' AND a = $1`, func(dst []byte, i int) []byte {
		return appendValue(dst, pgoutput.Column{Kind: pgoutput.Text, Value: []byte(fmt.Sprintf(`<%d'\>`, i))})
	}))
	if want := `UPDATE "a$1""$2" SET x = E'<1''\\>', y = E'<10''\\>'::"$3" WHERE z = '$1''$2' AND a = E'<0''\\>'`; got != want {
		t.Errorf("got %s", got)
	}
}
