package verify

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// Definitions that a server prints otherwise when it has read its own text again.
var rereading = []string{
	`CREATE TABLE t (id int PRIMARY KEY, s varchar(10) CHECK (s IN ('a', 'b')), d timestamp without time zone DEFAULT now() CHECK (d > '2020-01-01'))`,
	`CREATE INDEX i ON t (lower(s)) WHERE s IN ('a', 'b')`,
	`CREATE VIEW v AS SELECT * FROM t WHERE s IN ('a', 'b')`,
	`CREATE POLICY p ON t USING (s IN ('a', 'b'))`,
}

// again makes in b what the catalogs of a say.
func again(t *testing.T, a, b string) {
	t.Helper()
	pgtest.Exec(t, b, `CREATE TABLE t (id int PRIMARY KEY, s varchar(10), d timestamp without time zone DEFAULT now())`)
	for _, sql := range []string{
		`SELECT format('ALTER TABLE t ADD CONSTRAINT %I %s', conname, pg_get_constraintdef(oid)) FROM pg_constraint WHERE conrelid = 't'::regclass AND contype = 'c'`,
		`SELECT pg_get_indexdef('i'::regclass)`,
		`SELECT 'CREATE VIEW v AS ' || pg_get_viewdef('v')`,
		`SELECT 'CREATE POLICY p ON t USING ' || pg_get_expr(polqual, polrelid) FROM pg_policy`,
	} {
		for _, row := range pgtest.Query(t, a, sql) {
			pgtest.Exec(t, b, row[0])
		}
	}
}

func read(t *testing.T, dsn string) *Schema {
	t.Helper()
	conn := pgtest.Conn(t, dsn)
	defer conn.Close(t.Context())
	_, err := conn.Exec(t.Context(), `SET search_path = ''`)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ReadSchema(t.Context(), conn)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// compareSchemas compares two databases as a link does.
func compareSchemas(t *testing.T, a, b string) []SchemaDifference {
	t.Helper()
	list, err := rereader(t, b).Settle(t.Context(), CompareSchemas(read(t, a), read(t, b)))
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func rereader(t *testing.T, dsn string) *Reader {
	t.Helper()
	parsed, err := pg.ParseDSN(dsn)
	if err != nil {
		t.Fatal(err)
	}
	return &Reader{DSN: parsed, Link: "test"}
}

func TestCopiedDefinitionsAreEqual(t *testing.T) {
	a, b := two(t)
	pgtest.Exec(t, a, rereading...)
	again(t, a, b)
	// Until 15 a table can become a view, and keeps what a view cannot have.
	pgtest.Exec(t, a, `CREATE TABLE once (i int, n int NOT NULL)`,
		`CREATE RULE "_RETURN" AS ON SELECT TO once DO INSTEAD SELECT 1 AS i, 2 AS n`)
	pgtest.Exec(t, b, `CREATE VIEW once AS SELECT 1 AS i, 2 AS n`)
	if list := compareSchemas(t, a, b); len(list) > 0 {
		t.Errorf("differences: %+v", list)
	}
	pgtest.Exec(t, b, `ALTER TABLE t DROP CONSTRAINT t_s_check, ADD CONSTRAINT t_s_check CHECK (s IN ('a', 'c'))`)
	if list := compareSchemas(t, a, b); len(list) != 1 || list[0].Name != "public.t: t_s_check" {
		t.Errorf("differences: %+v", list)
	}
	if read(t, a).Digest().Equal(read(t, b).Digest()) {
		t.Error("the digests are equal")
	}
}

func TestDigestIsOfEverything(t *testing.T) {
	a, b := two(t, `CREATE TABLE t (id int PRIMARY KEY, n int)`, `CREATE TABLE u (id int PRIMARY KEY)`)
	whole := read(t, a).Digest()
	if !whole.Equal(read(t, b).Digest()) {
		t.Fatal("equal databases have different digests")
	}
	for _, sql := range []string{`ALTER TABLE t ALTER n SET DEFAULT 3`, `COMMENT ON TABLE u IS 'x'`, `CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'`, `GRANT SELECT ON t TO PUBLIC`} {
		before := read(t, b).Digest()
		pgtest.Exec(t, b, sql)
		if read(t, b).Digest().Equal(before) {
			t.Errorf("%s does not change the digest", sql)
		}
	}
	other := whole
	other.Major++
	if other.All = "another"; !other.Equal(whole) {
		t.Error("versions differ in more than what they print alike")
	}
}

// A partition that is being detached has its constraint before it is detached.
func TestUnfinishedIsNotCompared(t *testing.T) {
	a, b := two(t, `CREATE TABLE p (id int) PARTITION BY RANGE (id)`, `CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (1) TO (10)`)
	reader := pgtest.Conn(t, a)
	if _, err := reader.Exec(t.Context(), `BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT * FROM p`); err != nil {
		t.Fatal(err)
	}
	conn := pgtest.Conn(t, a)
	if _, err := conn.Exec(t.Context(), `SET lock_timeout = '200ms'`); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), `ALTER TABLE p DETACH PARTITION p1 CONCURRENTLY`); err == nil {
		t.Fatal("the partition was detached")
	}
	pgtest.Exec(t, a, `INSERT INTO p1 VALUES (1), (1)`)
	if _, err := pgtest.Try(t.Context(), a, `CREATE UNIQUE INDEX CONCURRENTLY broken ON p1 (id)`); err == nil {
		t.Fatal("the index was made")
	}
	if !slices.ContainsFunc(read(t, a).Entries, func(e Entry) bool { return e.Kind == "constraint" && e.Invalid }) {
		t.Error("the partition has no constraint of its detaching")
	}
	if list := compareSchemas(t, a, b); len(list) > 0 {
		t.Errorf("differences: %+v", list)
	}
	reader.Close(t.Context())
	pgtest.Exec(t, a, `ALTER TABLE p DETACH PARTITION p1 FINALIZE`, `DROP INDEX IF EXISTS broken`)
	if list := compareSchemas(t, a, b); len(list) == 0 {
		t.Error("a detached partition is no difference")
	}
}

// Every object that REASSIGN OWNED gives to somebody else is seen to differ, and the
// statement that mends it does.
func TestOwnersAreComparedAndMended(t *testing.T) {
	a, b := two(t)
	server := pgtest.Shared(t)
	role := "owner_" + strings.ToLower(t.Name())
	pgtest.Exec(t, server.DSN("postgres"), `DO $$ BEGIN CREATE ROLE `+role+`; CREATE ROLE `+role+`_2; EXCEPTION WHEN duplicate_object THEN NULL; END $$`)
	for _, dsn := range []string{a, b} {
		pgtest.Exec(t, dsn, `CREATE TABLE t (id serial, r int)`, `CREATE VIEW v AS SELECT 1 AS x`, `CREATE MATERIALIZED VIEW m AS SELECT 1 AS x`, `CREATE SEQUENCE s`,
			`CREATE TYPE e AS ENUM ('a')`, `CREATE TYPE c AS (a int)`, `CREATE DOMAIN d AS int`, `CREATE FUNCTION f(x int) RETURNS int LANGUAGE sql AS 'SELECT 1'`,
			`CREATE PROCEDURE p(x int) LANGUAGE sql AS 'SELECT 1'`, `CREATE AGGREGATE g(int) (sfunc = int4pl, stype = int)`, `CREATE SCHEMA sch`,
			`CREATE OPERATOR === (leftarg = int, rightarg = int, function = int4eq)`, `CREATE OPERATOR FAMILY of USING btree`, `CREATE COLLATION col (locale = 'C')`,
			`CREATE CONVERSION conv FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8`, `CREATE TEXT SEARCH CONFIGURATION tc (COPY = simple)`, `CREATE TEXT SEARCH DICTIONARY td (TEMPLATE = simple)`,
			`CREATE STATISTICS st ON id, r FROM t`, `CREATE FOREIGN DATA WRAPPER fdw`, `CREATE SERVER srv FOREIGN DATA WRAPPER fdw`, `CREATE FOREIGN TABLE ft (a int) SERVER srv`)
	}
	// The superuser who made them owns much else; what is theirs becomes another role's.
	conn := pgtest.Conn(t, a)
	for _, row := range pgtest.Query(t, a, `SELECT format('ALTER %s OWNER TO `+role+`', x) FROM unnest(ARRAY['TABLE t', 'VIEW v', 'MATERIALIZED VIEW m', 'SEQUENCE s', 'TYPE e', 'TYPE c', 'DOMAIN d',
			'FUNCTION f(int)', 'PROCEDURE p(int)', 'AGGREGATE g(int)', 'SCHEMA sch', 'OPERATOR === (int, int)', 'OPERATOR FAMILY of USING btree', 'COLLATION col', 'CONVERSION conv',
			'TEXT SEARCH CONFIGURATION tc', 'TEXT SEARCH DICTIONARY td', 'STATISTICS st', 'FOREIGN TABLE ft']) x`) {
		if _, err := conn.Exec(t.Context(), row[0]); err != nil {
			t.Fatalf("%s: %v", row[0], err)
		}
	}
	list := compareSchemas(t, a, b)
	seen := map[string]bool{}
	for _, d := range list {
		seen[d.Kind] = true
		if d.Repair == "" {
			t.Errorf("%s %s has no remedy: %s, %s", d.Kind, d.Name, d.Primary, d.Secondary)
		}
	}
	for _, kind := range []string{"table", "view", "materialized view", "sequence", "type", "composite type", "function", "schema", "operator", "operator family", "collation", "conversion",
		"text search configuration", "text search dictionary", "statistics", "foreign table"} {
		if !seen[kind] {
			t.Errorf("the owner of a %s is not compared", kind)
		}
	}
	if err := RepairSchema(t.Context(), pgtest.Conn(t, b), parsed(t, b), "test", list); err != nil {
		t.Fatal(err)
	}
	if left := compareSchemas(t, a, b); len(left) > 0 {
		t.Errorf("left: %+v", left)
	}
}

// What ALTER DEFAULT PRIVILEGES said is compared, and can be brought in line, whatever either side has.
func TestDefaultPrivilegesAreRepaired(t *testing.T) {
	t.Parallel()
	a, b := two(t, `CREATE SCHEMA s`)
	pgtest.Exec(t, a, `CREATE ROLE "of ""all"`, `CREATE ROLE of_defaults`)
	t.Cleanup(func() {
		for _, dsn := range []string{a, b} {
			pgtest.Exec(t, dsn, `DROP OWNED BY of_defaults`, `DROP OWNED BY "of ""all"`)
		}
		pgtest.Exec(t, a, `DROP ROLE "of ""all"`, `DROP ROLE of_defaults`)
	})
	const of = `ALTER DEFAULT PRIVILEGES FOR ROLE "of ""all" `
	pgtest.Exec(t, a, of+`GRANT SELECT, INSERT ON TABLES TO of_defaults`, of+`GRANT UPDATE ON TABLES TO of_defaults WITH GRANT OPTION`, of+`REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC`, of+`IN SCHEMA s GRANT USAGE ON SEQUENCES TO of_defaults`,
		of+`REVOKE DELETE ON TABLES FROM "of ""all"`, of+`IN SCHEMA s GRANT USAGE ON TYPES TO PUBLIC`)
	pgtest.Exec(t, b, of+`GRANT DELETE ON TABLES TO of_defaults WITH GRANT OPTION`, of+`GRANT SELECT ON TABLES TO PUBLIC`, of+`IN SCHEMA s GRANT ALL ON FUNCTIONS TO of_defaults`, of+`REVOKE USAGE ON TYPES FROM PUBLIC`, of+`IN SCHEMA s GRANT USAGE ON TYPES TO of_defaults WITH GRANT OPTION`)
	list := compareSchemas(t, a, b)
	var found []string
	for _, d := range list {
		found = append(found, string(d.State)+" "+d.Name)
		if d.Kind != "default acl" || d.Repair == "" {
			t.Errorf("a difference: %+v", d)
		}
	}
	const name = `for role "of ""all" `
	slices.Sort(found)
	want := []string{"differs " + name + "in schema s on types", "differs " + name + "on tables", "extra " + name + "in schema s on functions", "extra " + name + "on types", "missing " + name + "in schema s on sequences", "missing " + name + "on functions"}
	if !slices.Equal(found, want) {
		t.Fatalf("found %q, want %q", found, want)
	}
	if err := RepairSchema(t.Context(), pgtest.Conn(t, b), parsed(t, b), "test", list); err != nil {
		t.Fatal(err)
	}
	if left := compareSchemas(t, a, b); len(left) > 0 {
		t.Errorf("left: %+v", left)
	}
	acls := `SELECT defaclobjtype, defaclnamespace::regnamespace, (SELECT string_agg(x::text, ' ' ORDER BY x::text) FROM unnest(defaclacl) x) FROM pg_default_acl ORDER BY 1, 2`
	if here, there := fmt.Sprint(pgtest.Query(t, a, acls)), fmt.Sprint(pgtest.Query(t, b, acls)); here != there {
		t.Errorf("the primary has %s, the secondary %s", here, there)
	}
}

func TestSecurityLabelsAreCompared(t *testing.T) {
	if !pgtest.CanLabel() {
		return // no server takes a label here
	}
	s := pgtest.Start(t)
	s.LoadLabelProvider(t)
	a, b := s.DSN(s.Database(t)), s.DSN(s.Database(t))
	for _, dsn := range []string{a, b} {
		pgtest.Exec(t, dsn, `CREATE TABLE t (id int)`, `SECURITY LABEL ON COLUMN t.id IS 'same'`)
	}
	if list := compareSchemas(t, a, b); len(list) > 0 {
		t.Fatalf("differences: %+v", list)
	}
	pgtest.Exec(t, a, `SECURITY LABEL ON COLUMN t.id IS 'other'`, `SECURITY LABEL ON SCHEMA public IS 'more'`)
	list := compareSchemas(t, a, b)
	if len(list) != 2 || list[0].Name != "label on schema public" || list[1].Name != "label on table column public.t.id" || list[1].Primary != "other" {
		t.Errorf("differences: %+v", list)
	}
}

// Only what is printed from a parse tree may be printed in other words; and of that,
// literals and names count to the letter.
func TestNothingHidesInWords(t *testing.T) {
	a, b := two(t, `CREATE TABLE t (id int PRIMARY KEY, s text)`)
	before := len(compareSchemas(t, a, b))
	for _, pair := range [][2]string{
		{`COMMENT ON TABLE t IS 'a (b)'`, `COMMENT ON TABLE t IS 'a b'`}, {`COMMENT ON TABLE t IS 'is a::text'`, `COMMENT ON TABLE t IS 'is a'`},
		{`CREATE TYPE e AS ENUM ('a b')`, `CREATE TYPE e AS ENUM ('ab')`}, {`ALTER TABLE t ALTER s SET DEFAULT 'a (b)'`, `ALTER TABLE t ALTER s SET DEFAULT 'a b'`},
		{`ALTER TABLE t ADD CONSTRAINT c CHECK (s <> 'a b')`, `ALTER TABLE t ADD CONSTRAINT c CHECK (s <> 'ab')`}, {`CREATE INDEX i ON t (lower(s)) WHERE s = '::int'`, `CREATE INDEX i ON t (lower(s)) WHERE s = ''`},
		{`CREATE VIEW v AS SELECT 1 AS "a b"`, `CREATE VIEW v AS SELECT 1 AS ab`}, {`CREATE POLICY p ON t USING (s = 'x y')`, `CREATE POLICY p ON t USING (s = 'xy')`},
		{`CREATE FUNCTION g(x text DEFAULT 'a b') RETURNS int LANGUAGE sql AS 'SELECT 1'`, `CREATE FUNCTION g(x text DEFAULT 'ab') RETURNS int LANGUAGE sql AS 'SELECT 1'`},
		{`CREATE FUNCTION atomic() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; END`, `CREATE FUNCTION atomic() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 2; END`},
	} {
		pgtest.Exec(t, a, pair[0])
		pgtest.Exec(t, b, pair[1])
		list := compareSchemas(t, a, b)
		if len(list) == before && !strings.HasPrefix(pair[0], "COMMENT") || len(list) == 0 {
			t.Errorf("no difference is seen after %s and %s", pair[0], pair[1])
		}
		for _, d := range list {
			if d.Worded || strings.ContainsAny(d.Primary+d.Secondary, "\x01\x02") {
				t.Errorf("between servers of one version: %+v", d)
			}
		}
		before = len(list)
	}
}

// Between versions an expression may be printed in other words; the rest may not.
func TestWordsBetweenVersions(t *testing.T) {
	entry := func(detail string) *Entry { return &Entry{Kind: "column", Name: "public.t.c", Detail: detail} }
	a := entry("integer not null default \x01ra + 1\x02")
	for _, c := range []struct {
		detail          string
		differs, worded bool
	}{
		{"integer not null default \x01ra + 1\x02", false, false},
		{"integer not null default \x01rabs(a)\x02", true, true},
		{"integer default \x01rabs(a)\x02", true, false},
		{"bigint not null default \x01ra + 1\x02", true, false},
		{"integer not null", true, false},
	} {
		d, differs := compareEntries(a, entry(c.detail), false)
		if differs != c.differs || d.Worded != c.worded {
			t.Errorf("%q: differs is %v, worded %v", c.detail, differs, d.Worded)
		}
		if d, differs := compareEntries(a, entry(c.detail), true); differs != c.differs || d.Worded {
			t.Errorf("%q in one version: differs is %v, worded %v", c.detail, differs, d.Worded)
		}
	}
}

// What a server of another version makes by itself, or names otherwise, is no difference.
func TestVersionsMakeTheirOwn(t *testing.T) {
	var dsn string
	schema := func(major int) *Schema {
		s := pgtest.Start(t, pgtest.WithMajor(major))
		dsn = s.DSN(s.Database(t))
		making, _ := pgtest.Statements()
		taken := 0
		for _, sql := range making {
			if _, err := pgtest.Try(t.Context(), dsn, sql); err == nil {
				taken++
			}
		}
		if taken < len(making)*8/10 {
			t.Errorf("version %d took %d of %d", major, taken, len(making))
		}
		return read(t, dsn)
	}
	old, middle, recent := schema(12), schema(14), schema(18)
	for _, s := range []*Schema{old, middle} {
		list, err := rereader(t, dsn).Settle(t.Context(), CompareSchemas(s, recent))
		// Before 14 views are printed with functions' names where SQL has words of its own.
		list = slices.DeleteFunc(list, func(d SchemaDifference) bool { return d.Undecided && s == old })
		if err != nil || len(list) > 0 {
			t.Errorf("differences: %+v, %v", list, err)
		}
	}
}

// What a server keeps for itself, or does by itself, is nobody's definition.
func TestServersOwnIsNotCompared(t *testing.T) {
	a, b := two(t, `CREATE TABLE t (id int PRIMARY KEY, s text)`, `CREATE INDEX i ON t (s)`, `CREATE FUNCTION f(bool, bool) RETURNS bool LANGUAGE sql AS 'SELECT $1 = $2'`,
		`CREATE TABLE k (id int NOT NULL)`, `CREATE UNIQUE INDEX ki ON k (id)`)
	pgtest.Exec(t, b, `ALTER TABLE k REPLICA IDENTITY NOTHING`, `DROP INDEX ki`)
	pgtest.Exec(t, a, `ALTER TABLE k REPLICA IDENTITY USING INDEX ki`, `DROP INDEX ki`,
		`UPDATE pg_attribute SET attoptions = '{server_own=1,other=2}' WHERE attrelid = 't'::regclass AND attnum > 0`,
		`UPDATE pg_class SET reloptions = '{server_own=1}' WHERE oid = 't'::regclass`, `CLUSTER t USING i`,
		`CREATE OPERATOR === (leftarg = bool, rightarg = bool, function = f, negator = !==)`, `DROP OPERATOR === (bool, bool)`,
		`CREATE COLLATION pg_catalog.imported (locale = 'C')`)
	if list := compareSchemas(t, a, b); len(list) > 0 {
		t.Errorf("differences: %+v", list)
	}
	// This server would read its own options back.
	pgtest.Exec(t, a, `UPDATE pg_attribute SET attoptions = NULL WHERE attrelid = 't'::regclass`, `UPDATE pg_class SET reloptions = NULL WHERE oid = 't'::regclass`)
	for _, sql := range []string{`ALTER TABLE t ALTER s SET (n_distinct = 5)`, `ALTER TABLE t SET (fillfactor = 70)`, `CREATE OPERATOR !== (leftarg = bool, rightarg = bool, function = f)`, `CREATE COLLATION mine (locale = 'C')`} {
		before := len(compareSchemas(t, a, b))
		pgtest.Exec(t, a, sql)
		if len(compareSchemas(t, a, b)) != before+1 {
			t.Errorf("%s is no difference", sql)
		}
	}
}

// Where all identifiers are quoted, the catalogs keep quotes that mean nothing.
func TestQuotesThatNobodyNeedsAreNoDifference(t *testing.T) {
	t.Parallel()
	s := pgtest.Shared(t)
	a, b := s.DSN(s.Database(t)), s.DSN(s.Database(t))
	const make = `CREATE SCHEMA app; CREATE FUNCTION f() RETURNS int LANGUAGE sql SET search_path = app, "Up", pg_temp, "$user" SET work_mem = '5MB' AS 'SELECT 1'`
	pgtest.Exec(t, a, `SET quote_all_identifiers = on; `+make)
	pgtest.Exec(t, b, make)
	if config := pgtest.Query(t, a, `SELECT proconfig::text FROM pg_proc WHERE oid = 'f()'::regprocedure`)[0][0]; !strings.Contains(config, `\"app\"`) {
		t.Fatalf("the server keeps no quotes: %s", config)
	}
	if list := compareSchemas(t, a, b); len(list) > 0 {
		t.Errorf("differences: %+v", list)
	}
	for _, path := range []string{`app, up, pg_temp, "$user"`, `"app, Up", pg_temp, "$user"`, `app, "Up", pg_temp`} {
		pgtest.Exec(t, b, `ALTER FUNCTION f() SET search_path = `+path)
		if list := compareSchemas(t, a, b); len(list) != 1 {
			t.Errorf("%s: differences: %+v", path, list)
		}
	}
}

// Who created an extension owns what it made: on the twin, as a rule, the agent's role.
func TestExtensionsOfOtherOwners(t *testing.T) {
	a, b := two(t)
	role := "maker_" + strings.ToLower(t.Name())
	pgtest.Exec(t, a, `DO $$ BEGIN CREATE ROLE `+role+` SUPERUSER; EXCEPTION WHEN duplicate_object THEN NULL; END $$`)
	pgtest.Exec(t, a, `SET ROLE `+role, `CREATE EXTENSION dblink; CREATE EXTENSION tablefunc; CREATE EXTENSION hstore; CREATE EXTENSION postgres_fdw`)
	pgtest.Exec(t, b, `CREATE EXTENSION dblink; CREATE EXTENSION tablefunc; CREATE EXTENSION hstore; CREATE EXTENSION postgres_fdw`)
	if list := compareSchemas(t, a, b); len(list) > 0 {
		t.Errorf("%+v", list)
	}
}
