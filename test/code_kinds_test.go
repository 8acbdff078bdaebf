package test

import (
	"fmt"
	"slices"
	"strings"
)

// codeKind is one place in a schema at which a table's owner has the server call a function
// of hers. %[1]s in its SQL is its name.
type codeKind struct {
	name string
	// columns and constraints are added to its table, eve.t_NAME (i int PRIMARY KEY, x int).
	columns string
	// before is what eve makes before the table, after what she makes behind it; by is what only
	// a superuser may make, between the two.
	before, by, after string
	// write replaces the statement that inserts the row %[2]d.
	write string
	// change is a schema change that eve gives while the link replicates.
	change string
	// naive is what somebody with all rights would have to run to call the function with them;
	// without it, that is the insert of a row.
	naive string
	// must lists the cells in which the function has to be called: stages, with p for the
	// primary's server and t for the twin's. It may be called in others.
	must string
	// aside says that nothing calls it for what is applied to a twin.
	aside bool
	// never says why nothing can call it at all.
	never string
	// since is the first major version that knows it, where that is not the oldest
	since int
}

// Cells in which what is evaluated for each row has to be called, and what is called by who writes it.
const (
	everyRow  = "seeding:t streaming:pt replay:pt repair:t restart:pt lost:pt rejoin:t"
	ownWrites = "streaming:p restart:p lost:pt"
)

// payload is SQL that is text everywhere. Whoever pastes it runs it.
const payload = `%[1]s'; SELECT eve.f_%[1]s(1); --`

// eveIs makes the owner of the code with what notes as whom it runs. A note is a line in the server's
// log: no transaction takes it back, and it can be made where nothing may be written. note tries all
// that it could do with more rights than eve's, and takes back what it was able to. say does without, for
// what is called while the server holds a page, where nothing can be taken back.
const eveIs = `CREATE SCHEMA IF NOT EXISTS eve AUTHORIZATION eve; SET SESSION AUTHORIZATION eve;
GRANT USAGE ON SCHEMA eve TO shop;
CREATE TABLE eve.sink (i int PRIMARY KEY);
CREATE FUNCTION eve.note(kind text) RETURNS void LANGUAGE plpgsql AS $note$
DECLARE
	was text := current_user; got text := ''; wrote text := ''; way text; hit bool;
BEGIN
	FOREACH way IN ARRAY ARRAY['RESET ROLE', 'SET SESSION AUTHORIZATION DEFAULT', 'RESET SESSION AUTHORIZATION', 'SET ROLE postgres', 'SET ROLE linkagent',
		'SELECT pg_catalog.set_config(''role'', ''none'', false)', 'SELECT count(rolpassword) FROM pg_catalog.pg_authid', 'COPY (SELECT 1) TO PROGRAM ''true''',
		'SET LOCAL zero_damaged_pages = off', 'INSERT INTO eve.sink VALUES (-1)'] LOOP
		hit := false;
		BEGIN
			EXECUTE way;
			hit := way !~* 'role|session' OR current_user <> was;
			RAISE EXCEPTION 'undone';
		EXCEPTION WHEN OTHERS THEN
			IF hit AND way LIKE 'INSERT%' THEN wrote := 'wrote'; ELSIF hit THEN got := got || way || '; '; END IF;
		END;
	END LOOP;
	RAISE LOG 'matrix|%|%|%|%|%|end', kind, was, session_user, got, wrote;
END $note$;
CREATE FUNCTION eve.say(kind text) RETURNS void LANGUAGE plpgsql AS $note$
BEGIN
	RAISE LOG 'matrix|%|%|%|%||end', kind, current_user, session_user, CASE WHEN has_table_privilege('pg_catalog.pg_authid', 'SELECT') THEN 'reads pg_authid' ELSE '' END;
END $note$`

// calling makes the function eve.f_NAME that notes and returns its argument.
const calling = `CREATE FUNCTION eve.f_%[1]s(v int) RETURNS int LANGUAGE plpgsql %[2]s AS $f$ BEGIN PERFORM eve.note('%[1]s'); RETURN v; END $f$`

// firing makes the trigger function eve.r_NAME.
const firing = `CREATE FUNCTION eve.r_%[1]s() RETURNS trigger LANGUAGE plpgsql AS $f$ BEGIN PERFORM eve.note('%[1]s'); IF TG_OP = 'DELETE' THEN RETURN OLD; END IF; RETURN NEW; END $f$`

// compared makes the type eve.y_NAME with operators of eve's, and class their operator class, which only a superuser may.
const (
	compared = `CREATE TYPE eve.y_%[1]s AS (a int);
		CREATE FUNCTION eve.c_%[1]s_cmp(a eve.y_%[1]s, b eve.y_%[1]s) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $f$ BEGIN PERFORM eve.say('%[1]s'); RETURN CASE WHEN a.a < b.a THEN -1 WHEN a.a > b.a THEN 1 ELSE 0 END; END $f$;
		CREATE FUNCTION eve.c_%[1]s_lt(a eve.y_%[1]s, b eve.y_%[1]s) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT a.a < b.a'; CREATE FUNCTION eve.c_%[1]s_le(a eve.y_%[1]s, b eve.y_%[1]s) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT a.a <= b.a';
		CREATE FUNCTION eve.c_%[1]s_eq(a eve.y_%[1]s, b eve.y_%[1]s) RETURNS bool LANGUAGE plpgsql IMMUTABLE AS $f$ BEGIN PERFORM eve.say('%[1]s'); RETURN a.a = b.a; END $f$;
		CREATE FUNCTION eve.c_%[1]s_ge(a eve.y_%[1]s, b eve.y_%[1]s) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT a.a >= b.a'; CREATE FUNCTION eve.c_%[1]s_gt(a eve.y_%[1]s, b eve.y_%[1]s) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT a.a > b.a';
		CREATE OPERATOR eve.<# (FUNCTION = eve.c_%[1]s_lt, LEFTARG = eve.y_%[1]s, RIGHTARG = eve.y_%[1]s); CREATE OPERATOR eve.<=# (FUNCTION = eve.c_%[1]s_le, LEFTARG = eve.y_%[1]s, RIGHTARG = eve.y_%[1]s);
		CREATE OPERATOR eve.=# (FUNCTION = eve.c_%[1]s_eq, LEFTARG = eve.y_%[1]s, RIGHTARG = eve.y_%[1]s); CREATE OPERATOR eve.>=# (FUNCTION = eve.c_%[1]s_ge, LEFTARG = eve.y_%[1]s, RIGHTARG = eve.y_%[1]s);
		CREATE OPERATOR eve.># (FUNCTION = eve.c_%[1]s_gt, LEFTARG = eve.y_%[1]s, RIGHTARG = eve.y_%[1]s)`
	class = `CREATE OPERATOR CLASS eve.o_%[1]s DEFAULT FOR TYPE eve.y_%[1]s USING btree AS OPERATOR 1 eve.<#, OPERATOR 2 eve.<=#, OPERATOR 3 eve.=#, OPERATOR 4 eve.>=#, OPERATOR 5 eve.>#,
		FUNCTION 1 eve.c_%[1]s_cmp(eve.y_%[1]s, eve.y_%[1]s)`
)

// codeKinds are those that a major version knows.
func codeKinds(major int) []codeKind {
	list := []codeKind{
		{name: "check", must: everyRow, columns: `, CHECK (eve.f_%[1]s(x) IS NOT NULL)`, change: `ALTER TABLE eve.t_%[1]s ADD CONSTRAINT more CHECK (eve.f_%[1]s(i) IS NOT NULL)`},
		{name: "domain", must: everyRow, before: `CREATE DOMAIN eve.d_%[1]s AS int CHECK (eve.f_%[1]s(VALUE) IS NOT NULL)`, columns: `, d eve.d_%[1]s DEFAULT 1`,
			change: `ALTER DOMAIN eve.d_%[1]s ADD CONSTRAINT more CHECK (eve.f_%[1]s(VALUE) > 0)`},
		{name: "domain_in_composite", must: everyRow, before: `CREATE DOMAIN eve.d_%[1]s AS int CHECK (eve.f_%[1]s(VALUE) IS NOT NULL); CREATE TYPE eve.y_%[1]s AS (d eve.d_%[1]s)`,
			columns: `, d eve.y_%[1]s, l eve.y_%[1]s[]`,
			write:   `INSERT INTO eve.t_%[1]s VALUES (%[2]d, %[2]d, '(1)', '{(2)}')`, change: `ALTER TABLE eve.t_%[1]s ADD COLUMN more eve.y_%[1]s DEFAULT '(3)'`},
		{name: "domain_in_literal", since: 11, must: "seeding:t replay:p repair:t",
			before:  `CREATE DOMAIN eve.d_%[1]s AS int CHECK (eve.f_%[1]s(VALUE) IS NOT NULL); CREATE TYPE eve.y_%[1]s AS (d eve.d_%[1]s); CREATE TYPE eve.g_%[1]s AS RANGE (SUBTYPE = eve.d_%[1]s, SUBTYPE_OPCLASS = int4_ops)`,
			columns: `, d eve.y_%[1]s DEFAULT '(1)', l eve.d_%[1]s[] DEFAULT '{2}', CHECK (d IS DISTINCT FROM '(4)'::eve.y_%[1]s)`,
			after:   `CREATE INDEX ON eve.t_%[1]s (x) WHERE d <> '(5)'::eve.y_%[1]s; CREATE VIEW eve.v_%[1]s AS SELECT '(6)'::eve.y_%[1]s; COMMENT ON CONSTRAINT d_%[1]s_check ON DOMAIN eve.d_%[1]s IS 'kept'`,
			change:  `ALTER TABLE eve.t_%[1]s ADD COLUMN more eve.y_%[1]s DEFAULT '(3)'; CREATE POLICY more ON eve.t_%[1]s USING (d <> '(7)'::eve.y_%[1]s)`, naive: `SELECT '(1)'::eve.y_%[1]s`},
		{name: "generated", since: 12, must: everyRow, columns: `, g int GENERATED ALWAYS AS (eve.f_%[1]s(x)) STORED`, change: `ALTER TABLE eve.t_%[1]s ADD COLUMN more int GENERATED ALWAYS AS (eve.f_%[1]s(i)) STORED`},
		{name: "index", must: everyRow, after: `CREATE INDEX ON eve.t_%[1]s (eve.f_%[1]s(x))`, change: `CREATE INDEX more_%[1]s ON eve.t_%[1]s (eve.f_%[1]s(i))`},
		{name: "predicate", must: everyRow, after: `CREATE INDEX ON eve.t_%[1]s (x) WHERE eve.f_%[1]s(x) > 0`, change: `CREATE INDEX more_%[1]s ON eve.t_%[1]s (i) WHERE eve.f_%[1]s(i) > 0`},
		{name: "folded", must: everyRow + " verify:pt drift:pt", after: `CREATE INDEX ON eve.t_%[1]s (x) WHERE x > eve.f_%[1]s(0)`, change: `CREATE INDEX more_%[1]s ON eve.t_%[1]s (i) WHERE x > eve.f_%[1]s(1)`},
		{name: "exclusion", must: everyRow, columns: `, EXCLUDE USING btree ((eve.f_%[1]s(i)) WITH =) DEFERRABLE INITIALLY DEFERRED`,
			change: `ALTER TABLE eve.t_%[1]s ADD EXCLUDE USING btree ((eve.f_%[1]s(i) + 1) WITH =) DEFERRABLE INITIALLY DEFERRED`},
		{name: "exclusion_operator", must: "seeding:t streaming:pt repair:t restart:pt lost:pt rejoin:t",
			before: `CREATE FUNCTION eve.c_%[1]s(a int, b int) RETURNS bool LANGUAGE plpgsql IMMUTABLE AS $f$ BEGIN PERFORM eve.say('%[1]s'); RETURN a = b; END $f$;
				CREATE FUNCTION eve.h_%[1]s(a int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $f$ BEGIN PERFORM eve.say('%[1]s'); RETURN a; END $f$;
				CREATE OPERATOR eve.=== (FUNCTION = eve.c_%[1]s, LEFTARG = int, RIGHTARG = int, COMMUTATOR = OPERATOR(eve.===))`,
			by:      `CREATE OPERATOR CLASS eve.o_%[1]s FOR TYPE int USING hash AS OPERATOR 1 eve.===, FUNCTION 1 eve.h_%[1]s(int)`,
			columns: `, EXCLUDE USING hash (i eve.o_%[1]s WITH OPERATOR(eve.===))`, change: `ALTER TABLE eve.t_%[1]s ADD EXCLUDE USING hash (x eve.o_%[1]s WITH OPERATOR(eve.===)) WHERE (x < 0)`},
		{name: "default", aside: true, must: ownWrites + " replay:pt", columns: `, d int DEFAULT eve.f_%[1]s(1)`, change: `ALTER TABLE eve.t_%[1]s ADD COLUMN more int DEFAULT eve.f_%[1]s(2)`},
		{name: "default_volatile", aside: true, must: ownWrites + " replay:p", columns: `, d int DEFAULT eve.f_%[1]s(1)`, change: `ALTER TABLE eve.t_%[1]s ADD COLUMN more int DEFAULT eve.f_%[1]s(2)`},
		{name: "using", must: "replay:p", change: `ALTER TABLE eve.t_%[1]s ALTER COLUMN x TYPE bigint USING eve.f_%[1]s(x)`, naive: `ALTER TABLE eve.t_%[1]s ALTER COLUMN x TYPE bigint USING eve.f_%[1]s(x)`},
		{name: "policy", aside: true, must: ownWrites + " replay:p", after: `ALTER TABLE eve.t_%[1]s ENABLE ROW LEVEL SECURITY; ALTER TABLE eve.t_%[1]s FORCE ROW LEVEL SECURITY; CREATE POLICY p ON eve.t_%[1]s USING (eve.f_%[1]s(x) > 0) WITH CHECK (eve.f_%[1]s(x) > 0)`,
			change: `CREATE POLICY q ON eve.t_%[1]s AS RESTRICTIVE USING (eve.f_%[1]s(i) > 0); UPDATE eve.t_%[1]s SET x = x + 1`,
			naive:  `SET ROLE shop; DO $$ BEGIN PERFORM FROM eve.t_%[1]s; END $$`},
		{name: "rule", aside: true, must: ownWrites + " replay:p", before: `CREATE TABLE eve.l_%[1]s (n serial PRIMARY KEY, x int)`, after: `CREATE RULE r AS ON INSERT TO eve.t_%[1]s DO ALSO INSERT INTO eve.l_%[1]s (x) VALUES (eve.f_%[1]s(new.x))`,
			change: `CREATE RULE q AS ON UPDATE TO eve.t_%[1]s DO ALSO INSERT INTO eve.l_%[1]s (x) VALUES (eve.f_%[1]s(new.i)); UPDATE eve.t_%[1]s SET x = x + 1`},
		{name: "rule_always", aside: true, must: ownWrites, before: `CREATE TABLE eve.l_%[1]s (n serial PRIMARY KEY, x int)`,
			after:  `CREATE RULE r AS ON INSERT TO eve.t_%[1]s DO ALSO INSERT INTO eve.l_%[1]s (x) VALUES (eve.f_%[1]s(new.x)); ALTER TABLE eve.t_%[1]s ENABLE ALWAYS RULE r`,
			change: `ALTER TABLE eve.t_%[1]s ENABLE REPLICA RULE r; ALTER TABLE eve.t_%[1]s ENABLE ALWAYS RULE r`},
		{name: "cast", aside: true, must: "replay:p", before: `CREATE TYPE eve.y_%[1]s AS ENUM ('a', 'b'); CREATE FUNCTION eve.c_%[1]s(v eve.y_%[1]s) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $f$ BEGIN PERFORM eve.note('%[1]s'); RETURN 'cast'; END $f$;
				CREATE CAST (eve.y_%[1]s AS text) WITH FUNCTION eve.c_%[1]s AS IMPLICIT; CREATE FUNCTION eve.b_%[1]s(v text) RETURNS eve.y_%[1]s LANGUAGE plpgsql IMMUTABLE AS $f$ BEGIN PERFORM eve.note('%[1]s'); RETURN 'b'; END $f$;
				CREATE CAST (text AS eve.y_%[1]s) WITH FUNCTION eve.b_%[1]s AS IMPLICIT`,
			columns: `, e eve.y_%[1]s DEFAULT 'a'`, change: `ALTER TABLE eve.t_%[1]s ADD COLUMN more text; UPDATE eve.t_%[1]s SET more = e`, naive: `SELECT e::text FROM eve.t_%[1]s`},
		{name: "cast_of_row", aside: true, must: "replay:p", after: `CREATE FUNCTION eve.c_%[1]s(v eve.t_%[1]s) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $f$ BEGIN PERFORM eve.note('%[1]s'); RETURN 'cast'; END $f$;
				CREATE CAST (eve.t_%[1]s AS text) WITH FUNCTION eve.c_%[1]s AS IMPLICIT`,
			change: `ALTER TABLE eve.t_%[1]s ADD COLUMN more text; UPDATE eve.t_%[1]s AS t SET more = t`, naive: `SELECT t::text FROM eve.t_%[1]s AS t`},
		{name: "operator_class", must: everyRow, before: compared, by: class,
			columns: `, o eve.y_%[1]s DEFAULT '(7)'`, after: `CREATE INDEX ON eve.t_%[1]s (o)`, change: `CREATE INDEX more_%[1]s ON eve.t_%[1]s (o, i)`},
		{name: "range_class", must: "seeding:t replay:p repair:t", before: compared,
			by:      class + `; CREATE TYPE eve.g_%[1]s AS RANGE (SUBTYPE = eve.y_%[1]s, SUBTYPE_OPCLASS = eve.o_%[1]s); ALTER TYPE eve.g_%[1]s OWNER TO eve`,
			columns: `, g eve.g_%[1]s DEFAULT '["(1)","(5)"]', CHECK (g IS DISTINCT FROM '["(1)","(7)")'::eve.g_%[1]s)`, after: `CREATE VIEW eve.v_%[1]s AS SELECT '["(2)","(3)")'::eve.g_%[1]s; CREATE INDEX ON eve.t_%[1]s (x) WHERE NOT isempty(g)`,
			change: `ALTER TABLE eve.t_%[1]s ADD COLUMN more eve.g_%[1]s DEFAULT '["(1)","(4)")'`, naive: `SELECT '["(1)","(5)"]'::eve.g_%[1]s`},
		{name: "aggregate", must: "seeding:t replay:pt", before: `CREATE FUNCTION eve.c_%[1]s(s int, v int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $f$ BEGIN PERFORM eve.note('%[1]s'); RETURN s + v; END $f$; CREATE AGGREGATE eve.a_%[1]s(int) (SFUNC = eve.c_%[1]s, STYPE = int, INITCOND = '0')`,
			after: `CREATE MATERIALIZED VIEW eve.m_%[1]s AS SELECT eve.a_%[1]s(x) FROM eve.t_%[1]s`, change: `REFRESH MATERIALIZED VIEW eve.m_%[1]s; CREATE MATERIALIZED VIEW eve.more_%[1]s AS SELECT eve.a_%[1]s(i) FROM eve.t_%[1]s`,
			naive: `SELECT eve.a_%[1]s(x) FROM eve.t_%[1]s`},
		{name: "view", aside: true, must: "replay:p", after: `CREATE VIEW eve.v_%[1]s AS SELECT i, eve.f_%[1]s(x) FROM eve.t_%[1]s; GRANT SELECT ON eve.v_%[1]s TO shop`, change: `CREATE OR REPLACE VIEW eve.v_%[1]s AS SELECT i, eve.f_%[1]s(x + 1) AS f_%[1]s FROM eve.t_%[1]s; SELECT * FROM eve.v_%[1]s`,
			naive: `SELECT * FROM eve.v_%[1]s`},
		{name: "materialized_view", must: "seeding:t replay:pt", after: `CREATE MATERIALIZED VIEW eve.m_%[1]s AS SELECT i, eve.f_%[1]s(x) FROM eve.t_%[1]s; CREATE UNIQUE INDEX ON eve.m_%[1]s (i); CREATE INDEX ON eve.m_%[1]s (eve.f_%[1]s(i))`,
			change: `REFRESH MATERIALIZED VIEW eve.m_%[1]s; CREATE MATERIALIZED VIEW eve.more_%[1]s AS SELECT eve.f_%[1]s(i) FROM eve.t_%[1]s`, naive: `SELECT FROM eve.t_%[1]s WHERE eve.f_%[1]s(x) > 0`},
		{name: "statistics", since: 14, must: "seeding:t replay:p verify:pt repair:pt rejoin:pt", after: `CREATE STATISTICS eve.s_%[1]s ON (eve.f_%[1]s(x)), i FROM eve.t_%[1]s; CREATE STATISTICS eve.z_%[1]s ON (x + eve.f_%[1]s(0)) FROM eve.t_%[1]s`,
			change: `CREATE STATISTICS eve.more_%[1]s ON (eve.f_%[1]s(i)), x FROM eve.t_%[1]s; ANALYZE eve.t_%[1]s`, naive: `SELECT FROM eve.t_%[1]s WHERE x = 1`},
		{name: "instead", aside: true, must: ownWrites, columns: ``, after: `CREATE VIEW eve.v_%[1]s AS SELECT i, x FROM eve.t_%[1]s; CREATE FUNCTION eve.r_%[1]s() RETURNS trigger LANGUAGE plpgsql AS $f$ BEGIN PERFORM eve.note('%[1]s'); INSERT INTO eve.t_%[1]s VALUES (new.i, new.x); RETURN NEW; END $f$;
				CREATE TRIGGER z INSTEAD OF INSERT ON eve.v_%[1]s FOR EACH ROW EXECUTE FUNCTION eve.r_%[1]s()`,
			write: `INSERT INTO eve.v_%[1]s VALUES (%[2]d, %[2]d)`, change: `ALTER VIEW eve.v_%[1]s SET (security_barrier)`, naive: `INSERT INTO eve.v_%[1]s VALUES (900, 900)`},
		{name: "partition", since: 11, must: everyRow, // its table is made below
			change: `CREATE TABLE eve.t_%[1]s_more PARTITION OF eve.t_%[1]s FOR VALUES FROM (5000) TO (6000); INSERT INTO eve.t_%[1]s VALUES (5001, 1)`},
		{name: "publication", since: 15, after: `CREATE PUBLICATION eve_%[1]s FOR TABLE eve.t_%[1]s WHERE (i > 0)`, change: `ALTER PUBLICATION eve_%[1]s SET TABLE eve.t_%[1]s WHERE (i > 1)`,
			naive: `SELECT eve.f_%[1]s(1)`, never: "the server takes no functions of users there"},
		{name: "settings", before: `CREATE FUNCTION eve.s_%[1]s() RETURNS int LANGUAGE sql SET search_path = "` + payload + `", eve SET application_name = $v$` + payload + `$v$ AS 'SELECT 1'`,
			change: `SET my.own = $v$` + payload + `$v$; SET search_path = "` + payload + `", eve; SET application_name = $v$` + payload + `$v$; SET TimeZone = '<x''>-01'; CREATE TABLE eve.more_%[1]s (i int PRIMARY KEY, x timestamptz DEFAULT now());
				CREATE FUNCTION eve.more_%[1]s() RETURNS int LANGUAGE sql SET search_path FROM CURRENT AS 'SELECT 1'`,
			naive: `DO $do$ BEGIN EXECUTE 'SET my.own = ''' || $v$` + payload + `$v$; END $do$`, never: "values are no code"},
		{name: "names", before: `CREATE TYPE eve."y` + payload + `" AS ENUM ($v$` + payload + `$v$); CREATE TABLE eve."` + payload + `" ("` + payload + `" int CONSTRAINT "k` + payload + `" PRIMARY KEY, "$$` + payload + `" eve."y` + payload + `" DEFAULT $v$` + payload + `$v$);
				CREATE TABLE eve."""` + payload + `" (i int PRIMARY KEY, "\` + payload + `" text DEFAULT 'x'); INSERT INTO eve."` + payload + `" VALUES (1); INSERT INTO eve."""` + payload + `" VALUES (1)`,
			change: `INSERT INTO eve."` + payload + `" VALUES (2); UPDATE eve."""` + payload + `" SET i = 2; ALTER TABLE eve."` + payload + `" ADD COLUMN "$x$` + payload + `" float DEFAULT random(); CREATE INDEX "more` + payload + `" ON eve."` + payload + `" ("` + payload + `");
				ALTER TABLE eve."""` + payload + `" RENAME TO "more""` + payload + `"; CREATE TABLE eve."$$` + payload + `" (i int PRIMARY KEY)`,
			naive: `DO $do$ BEGIN EXECUTE 'SELECT ''' || $v$` + payload + `$v$; END $do$`, never: "names are no code"},
		{name: "comments", after: `COMMENT ON TABLE eve.t_%[1]s IS $v$` + payload + `$v$; COMMENT ON COLUMN eve.t_%[1]s.x IS $v$\` + payload + `$$$v$`,
			change: "COMMENT ON TABLE eve.t_%[1]s /* " + payload + "\n */ IS $v$more " + payload + "$v$ -- \"\n", naive: `DO $do$ BEGIN EXECUTE 'SELECT ''' || $v$` + payload + `$v$; END $do$`, never: "comments are no code"},
		{name: "event_trigger", must: "replay:p", before: `CREATE FUNCTION eve.e_%[1]s() RETURNS event_trigger LANGUAGE plpgsql AS $f$ BEGIN PERFORM eve.note('%[1]s'); END $f$`,
			by: `CREATE EVENT TRIGGER e_%[1]s ON ddl_command_end EXECUTE FUNCTION eve.e_%[1]s()`, change: `CREATE TABLE eve.more_%[1]s (i int PRIMARY KEY)`, naive: `CREATE TABLE eve.n_%[1]s (i int)`},
		{name: "event_trigger_always", must: "replay:p", before: `CREATE FUNCTION eve.e_%[1]s() RETURNS event_trigger LANGUAGE plpgsql AS $f$ BEGIN PERFORM eve.note('%[1]s'); END $f$`,
			by: `CREATE EVENT TRIGGER e_%[1]s ON ddl_command_start EXECUTE FUNCTION eve.e_%[1]s(); ALTER EVENT TRIGGER e_%[1]s ENABLE ALWAYS`, change: `CREATE TABLE eve.more_%[1]s (i int PRIMARY KEY)`, naive: `CREATE TABLE eve.n_%[1]s (i int)`},
	}
	return slices.DeleteFunc(append(list, triggerKinds()...), func(k codeKind) bool { return major < k.since })
}

// triggerKinds are triggers of each timing in each mode.
func triggerKinds() (list []codeKind) {
	modes := []struct{ name, sql string }{{"origin", "ENABLE"}, {"always", "ENABLE ALWAYS"}, {"replica", "ENABLE REPLICA"}, {"disabled", "DISABLE"}}
	timings := []struct{ name, sql string }{
		{"before", `CREATE TRIGGER z BEFORE INSERT OR UPDATE OR DELETE ON eve.t_%[1]s FOR EACH ROW`},
		{"after", `CREATE TRIGGER z AFTER INSERT OR UPDATE OR DELETE ON eve.t_%[1]s FOR EACH ROW`},
		{"statement", `CREATE TRIGGER z AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON eve.t_%[1]s FOR EACH STATEMENT`},
		{"deferred", `CREATE CONSTRAINT TRIGGER z AFTER INSERT OR UPDATE OR DELETE ON eve.t_%[1]s DEFERRABLE INITIALLY DEFERRED FOR EACH ROW`},
	}
	for _, timing := range timings {
		for _, mode := range modes {
			k := codeKind{name: timing.name + "_" + mode.name,
				after:  firing + `; ` + timing.sql + ` EXECUTE FUNCTION eve.r_%[1]s(); ALTER TABLE eve.t_%[1]s ` + mode.sql + ` TRIGGER z`,
				change: strings.Replace(timing.sql, " z ", " more ", 1) + ` EXECUTE FUNCTION eve.r_%[1]s(); ALTER TABLE eve.t_%[1]s ` + mode.sql + ` TRIGGER more`}
			switch mode.name {
			case "origin", "always":
				k.must, k.aside = ownWrites, true
			case "replica":
				k.aside = true
				k.naive = `SET session_replication_role = replica; INSERT INTO eve.t_%[1]s VALUES (900, 900)`
			case "disabled":
				k.naive, k.never = `ALTER TABLE eve.t_%[1]s ENABLE TRIGGER z; INSERT INTO eve.t_%[1]s VALUES (900, 900)`, "nothing fires it"
			}
			list = append(list, k)
		}
	}
	return list
}

// fill puts the name into SQL of a kind.
func (k codeKind) fill(sql string, more ...any) string {
	if !strings.Contains(sql, "%[") {
		return sql
	}
	if !strings.Contains(sql, "%[2]") {
		more = nil
	}
	return fmt.Sprintf(sql, append([]any{k.name}, more...)...)
}

// made is what eve makes before the link, and between her two halves what a superuser makes.
func (k codeKind) made() (before, by, after string) {
	volatility := "IMMUTABLE"
	if k.name == "default_volatile" {
		volatility = "VOLATILE"
	}
	before = fmt.Sprintf(calling, k.name, volatility)
	if k.before != "" {
		before += "; " + k.fill(k.before)
	}
	table := `CREATE TABLE eve.t_%[1]s (i int PRIMARY KEY, x int` + k.columns + `)`
	if k.name == "partition" {
		table = `CREATE TABLE eve.t_%[1]s (i int, x int) PARTITION BY RANGE (eve.f_%[1]s(i)); CREATE TABLE eve.t_%[1]s_low PARTITION OF eve.t_%[1]s FOR VALUES FROM (MINVALUE) TO (1000);
			CREATE TABLE eve.t_%[1]s_rest PARTITION OF eve.t_%[1]s DEFAULT`
	}
	after = k.fill(table + `; GRANT ALL ON eve.t_%[1]s TO shop`)
	if k.after != "" {
		after += "; " + k.fill(k.after)
	}
	return before, k.fill(k.by), after + "; " + k.rows(1)
}

// insert is the statement that inserts a row.
func (k codeKind) insert(n int) string {
	if k.write != "" {
		return k.fill(k.write, n)
	}
	return k.fill(`INSERT INTO eve.t_%[1]s (i, x) VALUES (%[2]d, %[2]d)`, n)
}

// naively is what would call the function with all rights.
func (k codeKind) naively() string {
	if k.naive == "" {
		return k.insert(900)
	}
	return k.fill(k.naive)
}

// rows are statements that insert three rows from n on, change the first of them and delete the
// second.
func (k codeKind) rows(n int) string {
	return strings.Join([]string{k.insert(n), k.insert(n + 1), k.insert(n + 2),
		k.fill(`UPDATE eve.t_%[1]s SET x = x + 100000 WHERE i = %[2]d`, n), k.fill(`DELETE FROM eve.t_%[1]s WHERE i = %[2]d`, n+1)}, "; ")
}
