package capture

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/pgtest"
)

// linked makes a database that is the primary of a link, whose signals are written down.
func linked(t *testing.T) string {
	t.Helper()
	dsn := functions(t)
	conn := pgtest.Conn(t, dsn)
	must := func(sql string) {
		if _, err := conn.Exec(context.Background(), sql, pgx.QueryExecModeSimpleProtocol); err != nil {
			t.Fatalf("%v\nin: %s", err, sql)
		}
	}
	must(`INSERT INTO twinspan.link (id, name, agent, peer, peer_agent, peer_database, role, phase, epoch, seeded)
		VALUES ('0b9a4b4e-6f7e-4b7e-9f60-2f1c0e8d7a11', 'sales', '0b9a4b4e-6f7e-4b7e-9f60-2f1c0e8d7a11', 'p', '0b9a4b4e-6f7e-4b7e-9f60-2f1c0e8d7a12', 'd', 'primary', 'replicating', 1, true)`)
	must(`INSERT INTO twinspan.twin_format SELECT id, 2 FROM twinspan.link`)
	must(`INSERT INTO twinspan.twin_extension SELECT k.id, x.name FROM twinspan.link k CROSS JOIN pg_available_extensions x`)
	must(`SET twinspan.pass_gate = on; CREATE TABLE twinspan.seen (n serial, said text); RESET twinspan.pass_gate`)
	must(`CREATE FUNCTION twinspan.see() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
		DECLARE p jsonb := NEW.payload; r text := '';
		BEGIN
			IF NEW.kind = 'ddl' THEN
				r := convert_from(decode(p->>'sql', 'base64'), getdatabaseencoding()::name);
				r := r || coalesce(' [' || convert_from(decode(p->>'on', 'base64'), getdatabaseencoding()::name) || ']', '') || coalesce(' [' || convert_from(decode(p->>'bound', 'base64'), getdatabaseencoding()::name) || ']', '');
				SELECT r || coalesce(string_agg('; ' || convert_from(decode(a, 'base64'), getdatabaseencoding()::name), ''), '') INTO r FROM jsonb_array_elements_text(p->'after') a;
				INSERT INTO twinspan.seen (said) VALUES (r);
			END IF;
			RETURN NEW;
		END $$`)
	must(`CREATE TRIGGER see BEFORE INSERT ON twinspan.signal FOR EACH ROW EXECUTE FUNCTION twinspan.see()`)
	must(`ALTER TABLE twinspan.signal ENABLE ALWAYS TRIGGER see`)
	must(`DELETE FROM twinspan.seen`)
	return dsn
}

// said are the schema changes that sessions put into the stream by the steps, each of which a new session sends.
func said(t *testing.T, dsn string, steps ...string) string {
	t.Helper()
	pgtest.Exec(t, dsn, `DELETE FROM twinspan.seen`)
	for _, sql := range steps {
		conn := pgtest.Conn(t, dsn)
		if _, err := conn.PgConn().Exec(context.Background(), sql).ReadAll(); err != nil {
			t.Fatalf("%v\nin: %s", err, sql)
		}
		conn.Close(context.Background())
	}
	var list []string
	for _, r := range pgtest.Query(t, dsn, `SELECT said FROM twinspan.seen ORDER BY n`) {
		list = append(list, strings.TrimSpace(r[0]))
	}
	return strings.Join(list, "\n")
}

// What is temporary, or hangs on what is, is told by the catalogs, and nothing of it is said; what is not is
// said as if there were no other.
func TestTemporaryObjectsAreKnown(t *testing.T) {
	dsn := linked(t)
	pgtest.Exec(t, dsn, `CREATE TABLE s (i int PRIMARY KEY, a int)`, `CREATE TABLE u (i int PRIMARY KEY, a int)`, `CREATE FUNCTION f(int) RETURNS int LANGUAGE sql AS 'SELECT $1'`,
		`CREATE TABLE "x on pg_temp.y" (a int)`)
	for _, c := range []struct {
		steps []string
		want  string
	}{
		{[]string{`CREATE TEMP TABLE s (f1 int); GRANT INSERT ON s TO public; REVOKE INSERT ON s FROM public; GRANT SELECT (f1) ON s TO public; REVOKE SELECT (f1) ON s FROM public`}, ``},
		{[]string{`CREATE TEMP TABLE s (a int); GRANT SELECT ON s, u TO public`}, `GRANT SELECT ON s, u TO public [TABLE public.u]`},
		{[]string{`CREATE TEMP TABLE s (a int); GRANT SELECT (a), UPDATE (a) ON u, s TO public`}, `GRANT SELECT (a), UPDATE (a) ON u, s TO public [TABLE public.u]`},
		{[]string{`CREATE TEMP TABLE s (a int); GRANT SELECT ON public.s TO public`}, `GRANT SELECT ON public.s TO public`},
		{[]string{`CREATE TEMP TABLE s (a int); BEGIN; SAVEPOINT p; GRANT SELECT ON s, u TO public; RELEASE p; GRANT UPDATE ON u TO public; COMMIT`},
			"GRANT SELECT ON s, u TO public [TABLE public.u]\nGRANT UPDATE ON u TO public"},
		{[]string{`CREATE TEMP TABLE s (a int); BEGIN; SAVEPOINT p; GRANT SELECT ON s TO public; ROLLBACK TO p; GRANT UPDATE ON u TO public; COMMIT`}, `GRANT UPDATE ON u TO public`},
		{[]string{`CREATE TEMP SEQUENCE q; GRANT USAGE ON SEQUENCE q TO public`}, ``},
		{[]string{`CREATE FUNCTION pg_temp.f(int) RETURNS int LANGUAGE sql AS 'SELECT 2'; GRANT EXECUTE ON FUNCTION pg_temp.f(int), f(int) TO public`},
			`GRANT EXECUTE ON FUNCTION pg_temp.f(int), f(int) TO public [FUNCTION public.f(integer)]`},
		{[]string{`CREATE TYPE pg_temp.e AS ENUM ('a'); GRANT USAGE ON TYPE pg_temp.e TO public`}, ``},
		// What depends on a temporary type goes with it.
		{[]string{`CREATE TEMP TABLE users (i int); CREATE FUNCTION gu() RETURNS users LANGUAGE sql AS 'SELECT * FROM users'; ALTER FUNCTION gu() STABLE; GRANT EXECUTE ON FUNCTION gu() TO public;
			COMMENT ON FUNCTION gu() IS 'x'; CREATE DOMAIN du AS users[]; COMMENT ON DOMAIN du IS 'x'; CREATE VIEW vu AS SELECT gu(); GRANT SELECT ON vu TO public; COMMENT ON VIEW vu IS 'x'; CREATE VIEW vv AS SELECT * FROM vu`}, ``},
		{[]string{`CREATE TEMP TABLE w (a int, b int); CREATE POLICY p ON w USING (true); CREATE RULE r AS ON INSERT TO w DO NOTHING; CREATE TRIGGER g BEFORE UPDATE ON w FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger();
			COMMENT ON POLICY p ON w IS 'x'; ALTER POLICY p ON w RENAME TO q; DROP TRIGGER g ON w; DROP RULE r ON w; DROP POLICY q ON w; CREATE STATISTICS st ON a, b FROM w`}, ``},
		{[]string{`CREATE TEMP TABLE s (a int); COMMENT ON COLUMN s.a IS 'x'; ALTER TABLE s ALTER a SET DEFAULT 1; DO $$ BEGIN GRANT SELECT ON s TO public; GRANT SELECT ON u TO public; END $$`}, `GRANT SELECT ON u TO public`},
		// A name is only a name.
		{[]string{`CREATE TEMP TABLE y (a int); COMMENT ON TABLE "x on pg_temp.y" IS 'x'; CREATE POLICY "p on pg_temp.y" ON u USING (true)`},
			"COMMENT ON TABLE \"x on pg_temp.y\" IS 'x'\nCREATE POLICY \"p on pg_temp.y\" ON u USING (true)"},
	} {
		if got := said(t, dsn, c.steps...); got != c.want {
			t.Errorf("%s\nsays %q\nwant %q", c.steps, got, c.want)
		}
	}
}

// A table that is made like a temporary one is said as the catalogs have it.
func TestTablesLikeTemporaryOnes(t *testing.T) {
	dsn := linked(t)
	pgtest.Exec(t, dsn, `CREATE TABLE other (id int PRIMARY KEY)`)
	got := said(t, dsn, `CREATE TEMP TABLE model (i int PRIMARY KEY, b text COLLATE "C" DEFAULT 'it''s \' CHECK (b <> ''), g int GENERATED ALWAYS AS IDENTITY (START 5));
		COMMENT ON COLUMN model.b IS 'c'; CREATE INDEX ON model (lower(b));
		CREATE TABLE made (LIKE model INCLUDING ALL, o int REFERENCES other) WITH (fillfactor = 70); CREATE TABLE plain (LIKE other)`)
	want := `CREATE TABLE public.made (i integer NOT NULL, b text COLLATE pg_catalog."C" DEFAULT 'it''s \'::text, g integer GENERATED ALWAYS AS IDENTITY (START 5 INCREMENT 1 MINVALUE 1 MAXVALUE 2147483647 CACHE 1) NOT NULL, o integer, ` +
		`CONSTRAINT model_b_check CHECK ((b <> ''::text)), CONSTRAINT made_pkey PRIMARY KEY (i), CONSTRAINT made_o_fkey FOREIGN KEY (o) REFERENCES public.other(id)) WITH (fillfactor=70); ` +
		`ALTER SEQUENCE public.made_g_seq AS bigint MINVALUE 1 MAXVALUE 2147483647; CREATE INDEX made_lower_idx ON public.made USING btree (lower(b)); COMMENT ON COLUMN public.made.b IS 'c'` + "\nCREATE TABLE plain (LIKE other)"
	if got != want {
		t.Errorf("said\n%s\nwant\n%s", got, want)
	}
}

func TestBoundsAreThoseOfTheCatalogs(t *testing.T) {
	dsn := linked(t)
	got := said(t, dsn, `CREATE TABLE p (k timestamp, i interval) PARTITION BY RANGE (k); SET DateStyle = 'SQL, DMY'; CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (MINVALUE) TO ('02/03/2020');
		CREATE SCHEMA s; CREATE TABLE s."P 2" (k timestamp, i interval); SET search_path = s, public; ALTER TABLE p ATTACH PARTITION "P 2" FOR VALUES FROM (make_date(2021, 1, 2)) TO (MAXVALUE)`)
	for _, want := range []string{"[FOR VALUES FROM (MINVALUE) TO ('2020-03-02 00:00:00')]", "[FOR VALUES FROM ('2021-01-02 00:00:00') TO (MAXVALUE)]"} {
		if !strings.Contains(got, want) {
			t.Errorf("%s lacks %s", got, want)
		}
	}
}

// All that makes a session differ goes along.
func TestSettingsOfTheSession(t *testing.T) {
	dsn := linked(t)
	pgtest.Exec(t, dsn, `DROP TRIGGER see ON twinspan.signal`, `CREATE OR REPLACE FUNCTION twinspan.see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		INSERT INTO twinspan.seen (said) SELECT e.key || '=' || convert_from(decode(e.value, 'base64'), getdatabaseencoding()::name) FROM jsonb_each_text(NEW.payload->'settings') e; RETURN NEW; END $$`,
		`CREATE TRIGGER see BEFORE INSERT ON twinspan.signal FOR EACH ROW EXECUTE FUNCTION twinspan.see()`, `ALTER TABLE twinspan.signal ENABLE ALWAYS TRIGGER see`,
		`CREATE FUNCTION tenant() RETURNS text LANGUAGE sql AS $$ SELECT current_setting('app.tenant') $$`)
	got := "\n" + said(t, dsn, `SET work_mem = '17MB'; SET my.setting = 'x'; SET app.tenant = 't 1'; SET extra_float_digits = 0; SET lc_messages = 'C'; SET enable_seqscan = off;
		CREATE FUNCTION g() RETURNS int LANGUAGE sql SET my.setting FROM CURRENT SET "maintenance_work_mem" FROM CURRENT AS 'SELECT 1'; CREATE MATERIALIZED VIEW m AS SELECT tenant()`) + "\n"
	for _, want := range []string{"work_mem=17MB", "my.setting=x", "app.tenant=t 1", "extra_float_digits=0", "enable_seqscan=off", "maintenance_work_mem=64MB", "search_path=\"$user\", public"} {
		if !strings.Contains(got, "\n"+want+"\n") {
			t.Errorf("the settings lack %s: %s", want, got)
		}
	}
}

// A refusal leaves nothing behind, and says why.
func TestWhatCannotStayIsRefused(t *testing.T) {
	dsn := linked(t)
	for code, sql := range map[string]string{
		"ddl_temporary":       `CREATE TEMP TABLE users (i int); CREATE TABLE uses (id int, u users)`,
		"ddl_type_unwritable": `CREATE TABLE snap AS SELECT relpartbound FROM pg_class`,
		"ddl_c_function":      `CREATE FUNCTION d(internal) RETURNS internal LANGUAGE c STRICT AS '$libdir/dict_snowball', 'dsnowball_init'`,
	} {
		conn := pgtest.Conn(t, dsn)
		_, err := conn.PgConn().Exec(context.Background(), sql).ReadAll()
		if pg := fmt.Sprintf("%+v", err); err == nil || !strings.Contains(pg, "0A000") {
			t.Errorf("%s: %v", code, err)
		}
	}
	// A library of an extension that both have is none.
	if got := said(t, dsn, `CREATE EXTENSION unaccent; CREATE FUNCTION iu(text) RETURNS text LANGUAGE c IMMUTABLE STRICT AS '$libdir/unaccent', 'unaccent_dict'`); !strings.Contains(got, "CREATE FUNCTION iu") {
		t.Errorf("said %s", got)
	}
}

// Who may call what captures a command is the event trigger alone.
func TestCapturingIsForItsTriggerAlone(t *testing.T) {
	dsn := linked(t)
	if _, err := pgtest.Try(context.Background(), dsn, `SELECT twinspan.capture_command('CREATE TABLE', false, true)`); err == nil || !strings.Contains(err.Error(), "for its event trigger alone") {
		t.Errorf("the error is %v", err)
	}
}

// How a session has names printed is nothing to the trigger: neither the text of a command nor where it is
// called from depends on it.
func TestNamesAreQuotedAsASessionLikes(t *testing.T) {
	dsn := linked(t)
	got := said(t, dsn, `SET quote_all_identifiers = on; CREATE TABLE all_quoted (id int); ALTER TABLE all_quoted ADD v text`)
	for _, want := range []string{"CREATE TABLE all_quoted (id int)", "ALTER TABLE all_quoted ADD v text"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q lacks %q", got, want)
		}
	}
	for _, name := range []string{`on_ddl_capture`, `"twinspan.on_ddl_capture"`, `"""twinspan"".""on_ddl_capture"""`, `"twinspan"".""on_ddl_capture"`} {
		_, err := pgtest.Try(context.Background(), dsn, `CREATE FUNCTION `+name+`() RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM twinspan.capture_command('CREATE TABLE', false, true); END $$; SELECT `+name+`()`)
		if err == nil || !strings.Contains(err.Error(), "for its event trigger alone") {
			t.Errorf("called by %s: %v", name, err)
		}
	}
}

// An index whose making no event told of comes with the command that names it.
func TestIndexesThatNoEventToldOf(t *testing.T) {
	dsn := linked(t)
	pgtest.Exec(t, dsn, `CREATE TABLE t (i int, j int)`, `INSERT INTO t VALUES (1, 1), (1, 2)`)
	for _, name := range []string{"mended", "invalid"} {
		if _, err := pgtest.Try(context.Background(), dsn, `CREATE UNIQUE INDEX CONCURRENTLY `+name+` ON t (i)`); err == nil {
			t.Fatal("the index was made")
		}
	}
	pgtest.Exec(t, dsn, `DELETE FROM t WHERE j = 2`, `REINDEX INDEX mended`, `CREATE OR REPLACE FUNCTION twinspan.see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		INSERT INTO twinspan.seen (said) SELECT convert_from(decode(b, 'base64'), 'UTF8') FROM jsonb_array_elements_text(NEW.payload->'before') b; INSERT INTO twinspan.seen (said) VALUES (NEW.payload->>'tag'); RETURN NEW; END $$`)
	got := said(t, dsn, `ALTER INDEX invalid RENAME TO "In ""valid"; COMMENT ON INDEX "In ""valid" IS 'x'; ALTER INDEX public . mended RENAME TO "Be tter"; ALTER TABLE t ADD CONSTRAINT c UNIQUE USING INDEX "Be tter"`)
	want := "DO 'BEGIN IF pg_catalog.to_regclass(''public.mended'') IS NULL THEN CREATE UNIQUE INDEX mended ON public.t USING btree (i); END IF; END'\nALTER INDEX\n" +
		"DO 'BEGIN IF pg_catalog.to_regclass(''public.\"Be tter\"'') IS NULL THEN CREATE UNIQUE INDEX \"Be tter\" ON public.t USING btree (i); END IF; END'\nALTER TABLE"
	if got != want {
		t.Errorf("said\n%s\nwant\n%s", got, want)
	}
}

// Rows that the scripts of extensions make are the primary's; tables that become an extension's stay as
// they are.
func TestTablesOfExtensions(t *testing.T) {
	dsn := linked(t)
	pgtest.Exec(t, dsn, `CREATE EXTENSION pg_trgm VERSION '1.3'`, `CREATE TABLE m (i int)`, `INSERT INTO m VALUES (1)`, `CREATE OR REPLACE FUNCTION twinspan.see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		INSERT INTO twinspan.seen (said) SELECT NEW.kind || coalesce(': ' || (SELECT string_agg(convert_from(decode(b, 'base64'), 'UTF8'), ' then ') FROM jsonb_array_elements_text(coalesce(NEW.payload->'before', '[]') || (NEW.payload->'after')) b), '');
		RETURN NEW; END $$`)
	got := said(t, dsn, `ALTER EXTENSION pg_trgm ADD TABLE m; ALTER EXTENSION pg_trgm UPDATE TO '1.4'`)
	want := "ddl\nddl: DO 'BEGIN IF pg_catalog.has_table_privilege(''public.m'', ''DELETE'') THEN DELETE FROM ONLY public.m; END IF; END'\nrows_begin\nrows\nrows_end"
	if got != want {
		t.Errorf("said\n%s\nwant\n%s", got, want)
	}
}
