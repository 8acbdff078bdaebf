package test

import (
	"testing"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// What the link itself does to bring rows to the primary's values fires no trigger, neither
// here nor there.
func TestFillingFiresNoTrigger(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{})
	p.A.Server.CreateDatabase(t, "filling")
	a := p.A.Server.DSN("filling")
	pgtest.Exec(t, a, `CREATE FUNCTION counts() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		INSERT INTO public.audit (which) VALUES (TG_TABLE_NAME); NEW.touched := NEW.touched + 1; RETURN NEW; END $$`, `CREATE TABLE audit (id bigserial PRIMARY KEY, which text)`)
	for _, mode := range []string{"always", "replica"} {
		pgtest.Exec(t, a, `CREATE TABLE on_`+mode+` (id int PRIMARY KEY, touched int DEFAULT 0)`, `INSERT INTO on_`+mode+` SELECT i FROM generate_series(1, 5) i`,
			`CREATE TRIGGER counts BEFORE INSERT OR UPDATE ON on_`+mode+` FOR EACH ROW EXECUTE FUNCTION counts()`)
	}
	p.Create(t, "filling", "filling")
	p.WaitPhase(t, "filling", api.Replicating)
	for _, mode := range []string{"always", "replica"} {
		pgtest.Exec(t, a, `ALTER TABLE on_`+mode+` ENABLE `+mode+` TRIGGER counts`, `ALTER TABLE on_`+mode+` ADD at timestamptz DEFAULT now()`,
			`ALTER TABLE on_`+mode+` ADD u uuid DEFAULT gen_random_uuid()`, `INSERT INTO on_`+mode+` (id) VALUES (9)`, `UPDATE on_`+mode+` SET u = NULL WHERE id = 1`)
	}
	p.WaitEqual(t, "filling", "filling")
	if rows := pgtest.Query(t, a, `SELECT (SELECT sum(touched) FROM on_always), (SELECT sum(touched) FROM on_replica), (SELECT count(*) FROM audit)`); rows[0][0] != "2" || rows[0][1] != "0" || rows[0][2] != "2" {
		t.Errorf("touched and noted on the primary: %v", rows[0])
	}
}

// What the text of a command does not tell comes from the primary's catalogs, or does not come.
func TestCatalogsTellWhatTextsDoNot(t *testing.T) {
	t.Parallel()
	crossingOf(t, 0, nil, kinds)
}

// kinds are run in order, in one database.
var kinds = []form{
	{"rights on temporary objects", []string{`CREATE TABLE gs (i int PRIMARY KEY, a int); CREATE TABLE gu (i int PRIMARY KEY, a int)`,
		`CREATE TEMP TABLE gs (a int); GRANT INSERT ON gs TO public; GRANT SELECT ON gs, gu TO public; GRANT UPDATE (a) ON gs TO public; CREATE TEMP SEQUENCE gq; GRANT USAGE ON SEQUENCE gq TO public`,
		`CREATE TEMP TABLE gt (a int); GRANT SELECT ON gt TO public; REVOKE SELECT ON gt FROM public`}},
	{"what hangs on temporary objects", []string{`CREATE TEMP TABLE users (i int); CREATE FUNCTION first_user() RETURNS users LANGUAGE sql AS 'SELECT * FROM users LIMIT 1'; ALTER FUNCTION first_user() STABLE;
		GRANT EXECUTE ON FUNCTION first_user() TO public; CREATE DOMAIN many AS users[]; CREATE VIEW firsts AS SELECT first_user(); CREATE TABLE kept (i int PRIMARY KEY)`,
		`DROP FUNCTION first_user() CASCADE`, `DROP TABLE users CASCADE`}},
	{"like a temporary table", []string{`CREATE TEMP TABLE model (i int PRIMARY KEY, b text COLLATE "C" DEFAULT 'it''s \' CHECK (b <> ''), g int GENERATED ALWAYS AS IDENTITY (START 5), h int GENERATED ALWAYS AS (2 * i) STORED);
		COMMENT ON COLUMN model.b IS 'c'; CREATE INDEX ON model (lower(b)); CREATE STATISTICS st ON i, b FROM model; ALTER TABLE model ALTER b SET STORAGE EXTERNAL;
		CREATE TABLE alike (LIKE model INCLUDING ALL, o int REFERENCES gs) WITH (fillfactor = 70); INSERT INTO alike (i) VALUES (1), (2); SET standard_conforming_strings = off; CREATE TABLE alike2 (LIKE model INCLUDING DEFAULTS); INSERT INTO alike2 VALUES (7, DEFAULT, 1, 2)`}},
	{"bounds of the clock", []string{`CREATE TABLE pb (k timestamp) PARTITION BY RANGE (k); CREATE TABLE pb1 PARTITION OF pb FOR VALUES FROM (MINVALUE) TO (current_timestamp) PARTITION BY LIST (k)`,
		`CREATE TABLE pb0 (k timestamp); ALTER TABLE pb1 ATTACH PARTITION pb0 FOR VALUES IN (localtimestamp - interval '1 day', NULL)`, `CREATE TABLE pbd PARTITION OF pb DEFAULT`, `INSERT INTO pb VALUES (current_timestamp)`,
		`CREATE SCHEMA clock CREATE TABLE cp (k timestamp PRIMARY KEY, v int) PARTITION BY RANGE (k) CREATE TABLE cp1 PARTITION OF cp FOR VALUES FROM (current_timestamp) TO (MAXVALUE) CREATE INDEX ON cp (v)`, `INSERT INTO clock.cp VALUES (current_timestamp + interval '1 ms', 1)`}},
	{"settings of functions that nobody sets within another", []string{`CREATE FUNCTION as_role(a int DEFAULT 1) RETURNS name SET work_mem = '5MB' SET role = 'pg_monitor' SET DateStyle = 'German' LANGUAGE sql AS 'SELECT current_user'`,
		`CREATE FUNCTION no_role() RETURNS name SET role = 'pg_monitor' LANGUAGE sql AS 'SELECT current_user'`, `ALTER FUNCTION no_role() RESET role`, `ALTER FUNCTION as_role(int) SET role TO pg_read_all_stats COST 7`, `ALTER FUNCTION as_role SET ROLE pg_monitor`}},
	{"a search_path of blanks", []string{`SET search_path = ' '; CREATE SCHEMA blank CREATE TABLE of_blank (a int PRIMARY KEY) CREATE VIEW v_blank AS SELECT a FROM of_blank; INSERT INTO blank.of_blank VALUES (1)`,
		`SELECT set_config('search_path', '   ', false); ALTER SCHEMA blank RENAME TO blank2; SET search_path = ''; COMMENT ON TABLE blank2.of_blank IS 'x'; CREATE TABLE blank2.other AS SELECT 1 AS a`}},
	{"settings stored and used", []string{`SET work_mem = '17MB'; SET my.setting = 'x'; SET statement_timeout = '77s'; CREATE FUNCTION sfc() RETURNS int LANGUAGE sql SET work_mem FROM CURRENT SET my.setting FROM CURRENT SET statement_timeout FROM CURRENT SET maintenance_work_mem FROM CURRENT AS 'SELECT 1'`,
		`SET work_mem = '18MB'; ALTER FUNCTION sfc() SET work_mem FROM CURRENT`,
		`CREATE FUNCTION tenant() RETURNS text LANGUAGE sql AS $$ SELECT current_setting('app.tenant') $$`, `SET app.tenant = 't 1'; CREATE MATERIALIZED VIEW of_tenant AS SELECT tenant(), 0.1::float8 + 0.2 AS f`, `CREATE TABLE seen_of_tenant AS SELECT * FROM of_tenant`,
		`SET app.tenant = 't 2'; SET extra_float_digits = -5; SET DateStyle = 'German'; REFRESH MATERIALIZED VIEW of_tenant; CREATE TABLE seen_again AS SELECT *, now()::date::text FROM of_tenant`,
		`CREATE TABLE ut (i int PRIMARY KEY); INSERT INTO ut VALUES (1); SET my.setting = 'zz'; ALTER TABLE ut ADD z text DEFAULT current_setting('my.setting'); ALTER TABLE ut ALTER i TYPE text USING i || current_setting('my.setting')`}},
	{"words for a moment", []string{`CREATE TABLE mo (i int PRIMARY KEY, a timestamptz DEFAULT 'now', d date DEFAULT 'today', CHECK (a > timestamptz 'yesterday'), CONSTRAINT "fi ne" CHECK (i > 0) NOT VALID)`, `INSERT INTO mo VALUES (1), (2)`,
		`ALTER TABLE mo ADD t timestamp DEFAULT 'now' NOT NULL, ADD u timestamptz`, `ALTER TABLE mo ALTER u SET DEFAULT 'tomorrow', ADD CONSTRAINT later CHECK (u < 'infinity' AND u <> 'now')`, `INSERT INTO mo VALUES (3)`,
		`CREATE TABLE mp (k int, at timestamptz DEFAULT 'now') PARTITION BY LIST (k); CREATE TABLE mp1 PARTITION OF mp FOR VALUES IN (1); ALTER TABLE mp ADD b timestamptz DEFAULT 'now'; INSERT INTO mp VALUES (1)`,
		`CREATE VIEW mv WITH (security_barrier) AS SELECT i, 'now'::timestamptz AS at FROM mo WHERE a <= 'now'; CREATE TABLE mvt AS SELECT at FROM mv; CREATE OR REPLACE VIEW mv AS SELECT i, 'now'::timestamptz AS at, 1 AS one FROM mo`,
		`CREATE DOMAIN md AS timestamptz DEFAULT 'now' CHECK (VALUE > 'yesterday'); CREATE TABLE mdt (i int, m md); INSERT INTO mdt VALUES (1)`,
		`CREATE INDEX mi ON mo (i) WHERE a < 'now'; CREATE POLICY mpo ON mo USING (a < 'now') WITH CHECK (a < 'tomorrow')`,
		`CREATE FUNCTION mf(a timestamptz DEFAULT 'now') RETURNS timestamptz LANGUAGE sql AS 'SELECT $1'; CREATE TABLE mft AS SELECT mf(); SET DateStyle = 'SQL, DMY'; SET TimeZone = 'Asia/Kathmandu'; ALTER TABLE mo ALTER a SET DEFAULT 'now'`,
		`INSERT INTO mo (i) VALUES (4)`}},
	{"words for a moment within values, and in all else that keeps them", []string{`CREATE TABLE mr (i int PRIMARY KEY, r tstzrange DEFAULT '[now,infinity)', a date[] DEFAULT '{today,tomorrow}', t timestamptz DEFAULT 'today 12:00', u timestamptz DEFAULT $$now$$, plain text DEFAULT 'now', CHECK (r <> '[now,tomorrow)'), EXCLUDE USING gist (r WITH &&) WHERE (r < '[now,)'))`,
		`CREATE TYPE mc AS (at timestamptz, n int); ALTER TABLE mr ADD c mc DEFAULT '(now,1)'; INSERT INTO mr (i) VALUES (1)`, `CREATE VIEW mrv AS SELECT i, '{now}'::timestamptz[] AS at FROM mr WHERE r <> '[now,)'`,
		`CREATE FUNCTION mtf() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; CREATE TRIGGER mtr BEFORE INSERT ON mr FOR EACH ROW WHEN (NEW.t > 'now') EXECUTE FUNCTION mtf()`,
		`CREATE RULE mru AS ON DELETE TO mr WHERE (OLD.t > 'now') DO ALSO INSERT INTO mdt (i, m) VALUES (1, 'tomorrow')`, `CREATE STATISTICS mst ON (t - 'now'::timestamptz), i FROM mr`,
		`CREATE MATERIALIZED VIEW mrm (at, list) AS SELECT 'now'::timestamptz, '{now}'::timestamptz[]`, `REFRESH MATERIALIZED VIEW mrm; CREATE TABLE mrmt AS TABLE mrm; CREATE FUNCTION mat() RETURNS timestamptz LANGUAGE sql BEGIN ATOMIC SELECT 'now'::timestamptz; END`}},
	{"comments where a name is looked for", []string{`CREATE TABLE cm (d timestamptz) PARTITION BY RANGE (d); CREATE TABLE cm1 (d timestamptz); CREATE TABLE cm2 (LIKE cm1); INSERT INTO cm1 VALUES ('infinity')`,
		`/* as ATTACH PARTITION cm2 FOR VALUES */ ALTER TABLE cm ATTACH PARTITION /* the first */ cm1 FOR VALUES FROM (now()) TO (MAXVALUE); ALTER TABLE cm ATTACH PARTITION U&"\0063m2" FOR VALUES FROM (now() - interval '1 day') TO (now())`, `INSERT INTO cm VALUES ('9999-01-01')`,
		`ALTER TABLE cm DETACH PARTITION /* the second */ cm2 -- now
			CONCURRENTLY`}},
	{"texts by settings", []string{`CREATE TABLE tf (i int PRIMARY KEY, f float8, b bytea, c text); INSERT INTO tf VALUES (1, 0.1::float8 + 0.2, '\x00ff41', 'now')`,
		`SET extra_float_digits = 0; ALTER TABLE tf ALTER f TYPE text; SET bytea_output = 'escape'; ALTER TABLE tf ALTER b TYPE text; ALTER TABLE tf ALTER c TYPE timestamptz USING c::timestamptz`}},
	{"what a command computes writes once", []string{`CREATE TABLE written (n int, at text); CREATE FUNCTION writes(n int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.written VALUES (n, 'x'); EXECUTE format('CREATE TABLE IF NOT EXISTS public.of_%s (a int)', n); RETURN n; END $$`,
		`CREATE TABLE wr (id int PRIMARY KEY, b int); CREATE TABLE wrc () INHERITS (wr); INSERT INTO wr VALUES (1, 1), (2, 2); INSERT INTO wrc VALUES (3, 3)`, `ALTER TABLE wr ALTER b TYPE bigint USING writes(id)`,
		`ALTER TABLE wr ADD c int DEFAULT writes(4), ADD CHECK (c > 3)`, `CREATE FUNCTION makes(n int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN EXECUTE format('CREATE TABLE public.made_of_%s (a int)', n); RETURN n; END $$; ALTER TABLE wrc NO INHERIT wr; ALTER TABLE wrc ALTER b TYPE numeric USING makes(id)`,
		`CREATE TABLE wrp (k int PRIMARY KEY, v int) PARTITION BY RANGE (k); CREATE TABLE wrp1 PARTITION OF wrp DEFAULT; INSERT INTO wrp VALUES (1, 5), (2, 6); CREATE TABLE wrr (k int REFERENCES wrp); INSERT INTO wrr VALUES (2); ALTER TABLE wrp ADD u uuid DEFAULT gen_random_uuid(); CREATE TABLE wrk (k int PRIMARY KEY); INSERT INTO wrk VALUES (2); ALTER TABLE wrr ADD FOREIGN KEY (k) REFERENCES wrk; ALTER TABLE wrk ALTER k TYPE bigint`,
		`BEGIN; INSERT INTO wr (id, b) VALUES (7, 7); ALTER TABLE wr ADD d int DEFAULT writes(8); UPDATE wr SET d = 9 WHERE id = 7; COMMIT`}},
	{"what event triggers of users do within a command", []string{`CREATE FUNCTION evf() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN IF pg_trigger_depth() = 0 AND TG_TAG <> 'CREATE TABLE' THEN EXECUTE format('CREATE TABLE IF NOT EXISTS public.ev_%s (a int)', replace(TG_EVENT, '_', '')); INSERT INTO public.written VALUES (1, TG_TAG); END IF; END $$`,
		`CREATE EVENT TRIGGER evs ON ddl_command_start EXECUTE FUNCTION evf(); CREATE EVENT TRIGGER evd ON sql_drop EXECUTE FUNCTION evf(); CREATE EVENT TRIGGER evr ON table_rewrite EXECUTE FUNCTION evf()`,
		`CREATE TABLE evt (id int PRIMARY KEY, a int); INSERT INTO evt VALUES (1, 1); CREATE INDEX ON evt (a); ALTER TABLE evt ADD CHECK (a IS NOT NULL); ALTER TABLE evt ALTER a TYPE text; ALTER TABLE evt DROP COLUMN a`,
		`CREATE SCHEMA evsch CREATE TABLE a (x int)`, `DO $$ BEGIN CREATE TABLE evt2 (id int); ALTER TABLE evt2 ADD a int; CREATE INDEX ON evt2 (a); DROP TABLE evt2; END $$`, `DROP EVENT TRIGGER evs; DROP EVENT TRIGGER evd; DROP EVENT TRIGGER evr`}},
	{"names of TOAST tables", []string{`CREATE TABLE toasted (id int PRIMARY KEY, v text)`, `SET allow_system_table_mods = on; DO $$ DECLARE r record; BEGIN
		SELECT c.relname AS t, i.relname AS i INTO r FROM pg_class h JOIN pg_class c ON c.oid = h.reltoastrelid JOIN pg_index x ON x.indrelid = c.oid JOIN pg_class i ON i.oid = x.indexrelid WHERE h.relname = 'toasted';
		EXECUTE format('ALTER INDEX pg_toast.%I RENAME TO long_i; ALTER TABLE pg_toast.%I RENAME TO long_t', r.i, r.t); END $$; ALTER INDEX pg_toast.long_i SET (fillfactor = 70)`,
		`REINDEX TABLE CONCURRENTLY pg_toast.long_t`, `INSERT INTO toasted SELECT 1, string_agg(md5(i::text), '') FROM generate_series(1, 2000) i; ALTER TABLE toasted SET (toast.autovacuum_enabled = off)`}},
	{"one thing that depends, by CASCADE", []string{`CREATE FUNCTION cf(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1'; CREATE TABLE cd (id int PRIMARY KEY, d int DEFAULT cf(1)); INSERT INTO cd VALUES (1)`, `DROP FUNCTION cf CASCADE`, `INSERT INTO cd VALUES (2)`,
		`CREATE FUNCTION cf(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1'; CREATE INDEX ON cd (cf(id))`, `DROP FUNCTION cf CASCADE`,
		`CREATE FUNCTION cf(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1'; ALTER TABLE cd ADD CHECK (cf(id) = id)`, `DROP FUNCTION cf CASCADE`,
		`CREATE FUNCTION cf(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1'; CREATE STATISTICS cs ON cf(id), d FROM cd`, `DROP FUNCTION cf CASCADE`,
		`CREATE FUNCTION cf(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1'; CREATE POLICY cp ON cd USING (cf(id) = id)`, `DROP FUNCTION cf CASCADE`,
		`CREATE FUNCTION cf(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1'; CREATE RULE cr AS ON DELETE TO cd DO ALSO SELECT cf(1)`, `DROP FUNCTION cf CASCADE`,
		`CREATE FUNCTION cf(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1'; ALTER TABLE cd ADD g int GENERATED ALWAYS AS (cf(id)) STORED`, `DROP FUNCTION cf CASCADE`,
		`CREATE FUNCTION cf(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1'; CREATE DOMAIN cdom AS int CHECK (cf(VALUE) > 0); CREATE TABLE cdt (x cdom)`, `DROP FUNCTION cf CASCADE`,
		`CREATE SEQUENCE cq; ALTER TABLE cd ALTER d SET DEFAULT nextval('cq')`, `DROP SEQUENCE cq CASCADE`, `INSERT INTO cd VALUES (3)`,
		`CREATE COLLATION cc (locale = 'C'); CREATE INDEX ON cdt ((x::text) COLLATE cc)`, `DROP COLLATION cc CASCADE`, `DROP TABLE cdt`, `CREATE TABLE csr (id serial PRIMARY KEY); CREATE TABLE cso (id int PRIMARY KEY DEFAULT nextval('csr_id_seq'))`, `DROP TABLE csr CASCADE`, `INSERT INTO cso VALUES (1)`}},
	{"functions of an extension's library", []string{`CREATE EXTENSION unaccent; CREATE FUNCTION iu(regdictionary, text) RETURNS text LANGUAGE c IMMUTABLE STRICT AS '$libdir/unaccent', 'unaccent_dict'; CREATE TABLE ua (t text PRIMARY KEY); CREATE INDEX ON ua (iu('unaccent', t)); INSERT INTO ua VALUES ('é')`}},
	{"extensions of a version", []string{`CREATE EXTENSION pg_trgm VERSION '1.3'`, `CREATE TABLE em (id int PRIMARY KEY, v text); INSERT INTO em VALUES (1, 'a'); ALTER EXTENSION pg_trgm ADD TABLE em`, `ALTER EXTENSION pg_trgm UPDATE TO '1.5'`, `UPDATE em SET v = 'b'; INSERT INTO em VALUES (2)`,
		`ALTER EXTENSION pg_trgm UPDATE`}},
	{"a table that becomes a view", []string{`CREATE TABLE tv (x int); CREATE RULE "_RETURN" AS ON SELECT TO tv DO INSTEAD SELECT 1 AS x`}},
	{"truncated with partitions", []string{`CREATE TABLE tp (a int PRIMARY KEY); CREATE TABLE tc (a int REFERENCES tp) PARTITION BY RANGE (a); CREATE TABLE tc1 PARTITION OF tc FOR VALUES FROM (0) TO (100)`, `INSERT INTO tp VALUES (1); INSERT INTO tc VALUES (1)`, `TRUNCATE tp, tc`, `INSERT INTO tp VALUES (2)`}},
	{"types without a binary form", []string{`CREATE TABLE acl AS SELECT relname, relacl FROM pg_class WHERE relname = 'pg_class'`, `UPDATE acl SET relname = 'x'`}},
	{"passed on and revoked", []string{`CREATE ROLE kinds_1; CREATE ROLE kinds_2; CREATE ROLE kinds_3; GRANT SELECT ON gs TO kinds_1 WITH GRANT OPTION; SET ROLE kinds_1; GRANT SELECT ON gs TO kinds_2 WITH GRANT OPTION; SET ROLE kinds_2; GRANT SELECT ON gs TO kinds_3; RESET ROLE; REVOKE SELECT ON gs FROM kinds_1 CASCADE`}},
}
