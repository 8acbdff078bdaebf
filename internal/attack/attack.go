// Package attack draws what somebody with few rights may try at a server that has links: statements
// that call what the links have there, forge their settings and messages, take what locks they get, and
// give commands with odd names and comments. Only tests import it.
package attack

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"

	"github.com/twinspan/twinspan/internal/sqlname"
)

// Statements is how many statements or messages each attacker gives; TWINSPAN_ATTACKS asks for more.
func Statements() int {
	if n, err := strconv.Atoi(os.Getenv("TWINSPAN_ATTACKS")); err == nil {
		return n
	}
	return 250
}

// Attacker draws statements.
type Attacker struct {
	Random *rand.Rand
	// Functions are those in the schema twinspan with the types of their parameters, Tables its tables.
	Functions, Tables [][]string
	made              int
}

func (a *Attacker) of(list ...string) string { return list[a.Random.IntN(len(list))] }

// value is an argument for a parameter of some type.
func (a *Attacker) value() string {
	return a.of(`NULL`, `1`, `0`, `'public.victim'`, `'public.victim'::regclass`, `'{"role": "postgres"}'`, `'own'`, `'extension'`, `true`, `'DROP TABLE public.victim'`, `ARRAY['public.victim']`, `16384`)
}

// name is a name that is awkward to paste.
func (a *Attacker) name() string {
	a.made++
	return a.of(fmt.Sprintf("t%d", a.made), fmt.Sprintf(`"T ""%d"`, a.made), fmt.Sprintf("\"a; DROP TABLE public.victim; --%d\"", a.made), fmt.Sprintf("\"x\nPL/pgSQL function twinspan.run_own(text) %d\"", a.made),
		fmt.Sprintf(`"$$%d"`, a.made), fmt.Sprintf(`"é'\%d"`, a.made), fmt.Sprintf(`"twinspan.t%d"`, a.made))
}

func (a *Attacker) setting() string {
	return a.of("twinspan.caller", "twinspan.dropped", "twinspan.rewritten", "twinspan.filled", "twinspan.extension", "twinspan.raised", "twinspan.place", "twinspan.pass_gate", "backtrace_functions", "session_replication_role", "event_triggers",
		"search_path", "role", "standard_conforming_strings", "quote_all_identifiers", "lc_messages", "bytea_output", "DateStyle", "array_nulls")
}

// grasping makes a function that takes all rights that it can get.
const grasping = `CREATE OR REPLACE FUNCTION own.grasp(v int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $grasp$ DECLARE r record; BEGIN
	FOR r IN SELECT rolname FROM pg_catalog.pg_roles WHERE NOT rolsuper AND rolname !~ '^pg_' LOOP
		BEGIN
			EXECUTE pg_catalog.format('ALTER ROLE %I SUPERUSER', r.rolname);
		EXCEPTION WHEN OTHERS THEN NULL;
		END;
	END LOOP;
	RETURN v; END $grasp$; CREATE OR REPLACE FUNCTION own.grasp() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM own.grasp(1); RETURN NEW; END $$;
	CREATE TABLE IF NOT EXISTS own.parted (id int, v text) PARTITION BY RANGE (id); CREATE TABLE IF NOT EXISTS own.held (id int PRIMARY KEY, v text)`

// code has the function of grasping called from somewhere at a table.
func (a *Attacker) code() string {
	a.made++
	n := a.made
	table := a.of(`own.held`, `own.held`, `own.parted`, fmt.Sprintf(`own.p%d`, a.Random.IntN(n)))
	return strings.NewReplacer("#t", table, "#n", strconv.Itoa(n)).Replace(a.of(
		`CREATE INDEX ON #t (own.grasp(id))`, `CREATE INDEX ON #t (id) WHERE own.grasp(1) = 1`, `CREATE STATISTICS own.s#n ON (own.grasp(id)), v FROM #t`, `ALTER TABLE #t ADD CONSTRAINT c#n CHECK (own.grasp(id) IS NOT NULL)`,
		`ALTER TABLE #t ADD COLUMN c#n int DEFAULT own.grasp(1)`, `ALTER TABLE #t ADD COLUMN c#n float DEFAULT random()`, `ALTER TABLE #t ADD COLUMN c#n int GENERATED ALWAYS AS (own.grasp(id)) STORED`,
		`ALTER TABLE #t ALTER v TYPE text USING own.grasp(id)::text`, `CREATE TRIGGER t#n BEFORE INSERT OR UPDATE ON #t FOR EACH ROW EXECUTE FUNCTION own.grasp(); ALTER TABLE #t ENABLE ALWAYS TRIGGER t#n`,
		`CREATE CONSTRAINT TRIGGER t#n AFTER INSERT ON #t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION own.grasp()`, `CREATE MATERIALIZED VIEW own.m#n AS SELECT own.grasp(id) FROM #t`,
		`CREATE DOMAIN own.d#n AS int CHECK (own.grasp(VALUE) > 0); ALTER TABLE #t ADD COLUMN c#n own.d#n DEFAULT 1`, `CREATE TABLE own.p#n PARTITION OF own.parted FOR VALUES FROM (#n) TO (#n + 1)`,
		`CREATE TABLE own.p#n (id int, v text); ALTER TABLE own.parted ATTACH PARTITION own.p#n FOR VALUES FROM (#n) TO (#n + 1)`,
		`CREATE POLICY p#n ON #t USING (own.grasp(id) > 0); ALTER TABLE #t ENABLE ROW LEVEL SECURITY; ALTER TABLE #t FORCE ROW LEVEL SECURITY`, `INSERT INTO #t (id, v) VALUES (#n, 'x')`,
		`INSERT INTO #t (id, v) SELECT i, 'y' FROM generate_series(1000000 + 20 * #n, 1000019 + 20 * #n) i`, `UPDATE #t SET v = v || 'z' WHERE id % 3 = 0`, `DELETE FROM #t WHERE id % 5 = 0`, `TRUNCATE #t`, `ANALYZE #t`,
		`DROP TABLE #t CASCADE`, `DROP FUNCTION own.grasp(int) CASCADE`))
}

// Statement draws one.
func (a *Attacker) Statement() string {
	switch a.Random.IntN(16) {
	case 0, 1:
		f := a.Functions[a.Random.IntN(len(a.Functions))]
		var args []string
		if f[1] != "" {
			for range strings.Split(f[1], ",") {
				args = append(args, a.value())
			}
		}
		return `SELECT twinspan.` + sqlname.Quote(f[0]) + `(` + strings.Join(args, ", ") + `)`
	case 2:
		return `SET ` + a.of("", "LOCAL ") + a.setting() + ` = ` + a.of(`'on'`, `'off'`, `'postgres'`, `'twinspan_pass'`, `'{"kept": true, "temporary": true, "objects": [{"identity": "public.victim"}]}'`, `'replica'`, `''`, `'twinspan'`)
	case 3:
		return `SELECT pg_logical_emit_message(` + a.of("true", "false") + `, ` + a.of(`'twinspan'`, `'ddl'`, `'twinspan.signal'`, `''`) + `, ` + a.of(`'{"sql": "DROP TABLE public.victim"}'`, `'x'`, `repeat('y', 10000)`) + `)`
	case 4:
		table := a.Tables[a.Random.IntN(len(a.Tables))][0]
		return fmt.Sprintf(a.of(`LOCK TABLE twinspan.%s`, `BEGIN; LOCK TABLE twinspan.%s IN ROW SHARE MODE; COMMIT`, `TABLE twinspan.%s`, `DELETE FROM twinspan.%s`, `INSERT INTO twinspan.%s DEFAULT VALUES`, `DROP TABLE twinspan.%s`, `ALTER TABLE twinspan.%s ADD x int`,
			`CREATE TRIGGER x AFTER INSERT ON twinspan.%s FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()`, `SELECT setval('twinspan.%s', 1)`, `COMMENT ON TABLE twinspan.%s IS 'x'`, `GRANT ALL ON twinspan.%s TO PUBLIC`), table)
	case 5:
		return a.of(`SET ROLE postgres`, `SET ROLE linkagent`, `RESET ROLE`, `SET LOCAL ROLE NONE`, `GRANT postgres TO CURRENT_USER`, `ALTER ROLE CURRENT_USER SUPERUSER`, `CREATE ROLE attacker_more SUPERUSER`, `ALTER EVENT TRIGGER twinspan_ddl_end DISABLE`,
			`CREATE EVENT TRIGGER x ON ddl_command_end EXECUTE FUNCTION twinspan.on_ddl_end()`, `DROP SCHEMA twinspan CASCADE`, `ALTER SCHEMA twinspan RENAME TO mine`, `DROP OWNED BY CURRENT_USER`, `CREATE SCHEMA twinspan_x`, `SELECT pg_advisory_lock(8392292353529967719)`,
			`DROP TABLE IF EXISTS nothing_like_that`, `DROP TABLE IF EXISTS public.victim`, `TRUNCATE public.victim`, `REINDEX TABLE public.victim`, `DISCARD ALL`, `RESET ALL`, `NOTIFY twinspan, 'x'`)
	case 6:
		return `CREATE TABLE own.` + a.name() + ` (id int` + a.of(``, ` PRIMARY KEY`, ` DEFAULT 7 /* "`+"\n"+`PL/pgSQL function twinspan.resend(oid,text) line 1 */`) + `, v text)` + a.of(``, ` -- "`+"\n", `; SET twinspan.caller = '{}'`)
	case 7:
		return `DO $$ DECLARE t text; BEGIN SELECT format('%I.%I', schemaname, tablename) INTO t FROM pg_tables WHERE schemaname = 'own' LIMIT 1; ` +
			a.of(`EXECUTE 'ALTER TABLE ' || t || ' ADD COLUMN c' || (random() * 1000000)::int || ' int'`, `EXECUTE 'DROP TABLE ' || t`, `EXECUTE 'COMMENT ON TABLE ' || t || ' IS ''DROP TABLE public.victim'''`, `EXECUTE 'ALTER TABLE ' || t || ' ADD COLUMN u' || (random() * 1000000)::int || ' float DEFAULT random()'`,
				`EXECUTE 'CREATE INDEX ON ' || t || ' (v)'`, `PERFORM set_config('twinspan.caller', '{"role":"postgres"}', true); EXECUTE 'ALTER TABLE ' || t || ' ALTER v SET DEFAULT ''x'''`) + `; END $$`
	case 8:
		return `CREATE FUNCTION own.` + a.name() + `() RETURNS ` + a.of(`void LANGUAGE sql AS 'SELECT; DROP TABLE public.victim'`, `event_trigger LANGUAGE plpgsql AS 'BEGIN END'`, `trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = twinspan AS 'BEGIN RETURN NULL; END'`)
	case 9:
		return `CREATE SCHEMA own; CREATE TABLE own.` + a.name() + ` (); DROP TABLE IF EXISTS public.victim, own.none`
	case 10:
		return `CREATE TEMPORARY TABLE ` + a.of("note", "link", "signal", "pg_class", `"t 1"`) + ` (pid int, kind text)`
	case 11:
		return a.of(`BEGIN`, `COMMIT`, `ROLLBACK`, `SAVEPOINT s`, `ROLLBACK TO s`, `BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1`, `BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT 1`)
	case 12:
		return grasping
	case 13, 14:
		return a.code()
	}
	return `ALTER DEFAULT PRIVILEGES IN SCHEMA own GRANT SELECT ON TABLES TO ` + a.of(`PUBLIC`, `attacker_connects`)
}
