package dbcopy_test

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/twinspan/twinspan/internal/dbcopy"
	"github.com/twinspan/twinspan/internal/instance"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/pgtest"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/sqlname"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

const (
	agent = "0a0a0a0a-1111-4222-8333-444444444444"
	id    = "5b5b5b5b-1111-4222-8333-444444444444"
)

var quiet = slog.New(slog.DiscardHandler)

func parse(t testing.TB, dsn string) *pg.DSN {
	t.Helper()
	d, err := pg.ParseDSN(dsn)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// open opens a source, which the test closes.
func open(t testing.TB, dsn string) dbcopy.Source {
	t.Helper()
	source, err := dbcopy.Open(t.Context(), dbcopy.Database{DSN: parse(t, dsn), Find: instance.FindClient, Dir: t.TempDir(), Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(source.Close)
	return source
}

func target(t testing.TB, s *pgtest.Server, name string) *dbcopy.Target {
	t.Helper()
	t.Cleanup(func() {
		conn := pgtest.Conn(t, s.DSN("postgres"))
		if _, err := conn.Exec(context.Background(), "DROP DATABASE IF EXISTS "+sqlname.Quote(name)); err != nil {
			t.Error(err)
		}
	})
	return &dbcopy.Target{Server: parse(t, s.DSN("postgres")), Name: name, Agent: agent, ID: id, Log: quiet}
}

// must makes the copy and returns what was made, and its connection string.
func must(t testing.TB, s *pgtest.Server, source dbcopy.Source, name string) (dbcopy.Result, string) {
	t.Helper()
	result, err := target(t, s, name).Copy(t.Context(), source)
	if err != nil {
		t.Fatalf("copy to %q: %v (hint: %s)", name, err, problem.As(err).Hint)
	}
	return result, s.DSN(name)
}

// everything is a database with one of whatever a copy has to bring.
const everything = `
CREATE EXTENSION hstore;
CREATE SCHEMA app AUTHORIZATION copy_owner;
CREATE SCHEMA "My ""Schema""";
CREATE TYPE app.mood AS ENUM ('sad', 'ok', 'it''s -- fine');
CREATE DOMAIN app.positive AS int CHECK (VALUE > 0);
CREATE SEQUENCE app.plain START 7 INCREMENT 5;
CREATE TABLE app.types (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, m app.mood, d app.positive, h hstore, twice int GENERATED ALWAYS AS (id::int * 2) STORED, big text, f float8, at timestamptz);
ALTER TABLE app.types OWNER TO copy_owner;
INSERT INTO app.types (m, d, h, big, f, at) SELECT 'ok', n, hstore('k', n::text), repeat(md5(n::text), n % 90), 1 / n::float8, '2024-02-29 12:00:00.123456+00'::timestamptz + n * interval '1 hour' FROM generate_series(1, 3000) n;
CREATE TABLE "My ""Schema"""."T; Type: INDEX" ("Id ""x""" int NOT NULL, "sel;ect" text NOT NULL, v serial);
CREATE UNIQUE INDEX "Weird; Index" ON "My ""Schema"""."T; Type: INDEX" ("sel;ect", "Id ""x""");
ALTER TABLE "My ""Schema"""."T; Type: INDEX" REPLICA IDENTITY USING INDEX "Weird; Index";
INSERT INTO "My ""Schema"""."T; Type: INDEX" SELECT n, 'x' || n FROM generate_series(1, 20) n;
CREATE TABLE app.nokey (a int, b text);
INSERT INTO app.nokey SELECT n % 3, CASE WHEN n % 2 = 0 THEN 'é' || n % 5 END FROM generate_series(1, 500) n;
CREATE UNLOGGED TABLE app.fast (a int PRIMARY KEY);
INSERT INTO app.fast SELECT generate_series(1, 10);
CREATE TABLE app.measure (at date NOT NULL, n int NOT NULL, v numeric, PRIMARY KEY (at, n)) PARTITION BY RANGE (at);
CREATE TABLE app.measure_1 PARTITION OF app.measure FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
CREATE TABLE app.measure_rest PARTITION OF app.measure DEFAULT;
INSERT INTO app.measure SELECT '2020-06-01'::date + n * 7, n, n / 3.0 FROM generate_series(1, 100) n;
CREATE TABLE app.dept (id int PRIMARY KEY, name text, parent int REFERENCES app.dept);
INSERT INTO app.dept VALUES (1, 'one', NULL), (2, 'two', 1);
ALTER TABLE app.dept ENABLE ROW LEVEL SECURITY;
CREATE POLICY see ON app.dept FOR SELECT TO copy_reader USING (name <> 'secret');
CREATE MATERIALIZED VIEW app.first AS SELECT id, name FROM app.dept;
CREATE VIEW app.between AS SELECT id FROM app.first;
CREATE FUNCTION app.touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END';
CREATE TRIGGER touch BEFORE UPDATE ON app.dept FOR EACH ROW EXECUTE FUNCTION app.touch();
ALTER TABLE app.dept ENABLE ALWAYS TRIGGER touch;
CREATE RULE quiet AS ON DELETE TO app.nokey WHERE old.a = 7 DO INSTEAD NOTHING;
ALTER TABLE app.nokey ENABLE ALWAYS RULE quiet;
CREATE TABLE app.heard (what text);
CREATE FUNCTION app.on_ddl() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO app.heard VALUES (tg_tag || '' '' || current_user); END';
CREATE EVENT TRIGGER application_ddl ON ddl_command_end EXECUTE FUNCTION app.on_ddl();
CREATE EVENT TRIGGER application_drop ON sql_drop EXECUTE FUNCTION app.on_ddl();
ALTER EVENT TRIGGER application_ddl ENABLE ALWAYS;
ALTER EVENT TRIGGER application_drop ENABLE REPLICA;
GRANT SELECT (id, name), UPDATE ON app.dept TO copy_reader WITH GRANT OPTION;
GRANT USAGE ON SCHEMA app TO PUBLIC;
ALTER DEFAULT PRIVILEGES IN SCHEMA app GRANT SELECT ON TABLES TO copy_reader;
SELECT setval('app.plain', 42), lo_from_bytea(4711, '\xdeadbeef'), lo_from_bytea(4712, convert_to(repeat('large ', 5000), 'UTF8'));
COMMENT ON LARGE OBJECT 4711 IS 'an object''s';
GRANT SELECT ON LARGE OBJECT 4712 TO copy_reader;
ALTER LARGE OBJECT 4711 OWNER TO copy_owner;
TRUNCATE app.heard;
`

// source makes a database of everything, with properties of its own.
func source(t testing.TB, s *pgtest.Server) string {
	t.Helper()
	roles(t, s)
	name := s.Database(t)
	dsn := s.DSN(name)
	quoted := sqlname.Quote(name)
	pgtest.Exec(t, dsn, everything,
		`ALTER DATABASE `+quoted+` OWNER TO copy_owner`,
		`ALTER DATABASE `+quoted+` SET work_mem = '5MB'`,
		`ALTER ROLE copy_reader IN DATABASE `+quoted+` SET search_path = app, public`,
		`ALTER DATABASE `+quoted+` CONNECTION LIMIT 77`,
		`REVOKE CONNECT ON DATABASE `+quoted+` FROM PUBLIC`,
		`GRANT CONNECT ON DATABASE `+quoted+` TO copy_reader`,
		`COMMENT ON DATABASE `+quoted+` IS 'it''s copied'`)
	return dsn
}

func roles(t testing.TB, s *pgtest.Server) {
	t.Helper()
	pgtest.Exec(t, s.DSN("postgres"), `DO $$ BEGIN
		IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'copy_owner') THEN CREATE ROLE copy_owner LOGIN PASSWORD 'x'; CREATE ROLE copy_reader; END IF; END $$`)
}

// dumped is what pg_dump says of a database as a role, without what differs from run to run
// and without the database's name.
func dumped(t testing.TB, dsn string, args ...string) string {
	t.Helper()
	program, _, err := instance.FindClient("pg_dump", 0)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, append([]string{"--dbname=" + dsn}, args...)...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("pg_dump: %v: %s", err, errs.String())
	}
	var lines []string
	for line := range strings.Lines(out.String()) {
		if !strings.HasPrefix(line, `\restrict`) && !strings.HasPrefix(line, `\unrestrict`) {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}

// properties are what pg_dump does not print without --create.
func properties(t testing.TB, dsn string) string {
	t.Helper()
	var b strings.Builder
	for _, row := range pgtest.Query(t, dsn, `SELECT pg_get_userbyid(datdba), datconnlimit, shobj_description(oid, 'pg_database'), pg_encoding_to_char(encoding), datcollate, datctype,
			(SELECT string_agg(coalesce(r.rolname, 'all') || s.setconfig::text, ';' ORDER BY r.rolname) FROM pg_db_role_setting s LEFT JOIN pg_roles r ON r.oid = s.setrole WHERE s.setdatabase = d.oid),
			(SELECT string_agg(CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(a.grantee) END || ' ' || a.privilege_type, ';' ORDER BY a.grantee, a.privilege_type)
			   FROM aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a)
		FROM pg_database d WHERE datname = current_database()`) {
		b.WriteString(strings.Join(row, "\n"))
	}
	return b.String()
}

// nothingOfOurs fails where something of a link is in a database.
func nothingOfOurs(t testing.TB, dsn string) {
	t.Helper()
	for _, row := range pgtest.Query(t, dsn, `
		SELECT 'schema ' || nspname FROM pg_namespace WHERE nspname LIKE 'twinspan%'
		UNION ALL SELECT 'trigger ' || tgname FROM pg_trigger WHERE tgname LIKE 'twinspan%'
		UNION ALL SELECT 'event trigger ' || evtname FROM pg_event_trigger WHERE evtname LIKE 'twinspan%'
		UNION ALL SELECT 'publication ' || pubname FROM pg_publication WHERE pubname LIKE 'twinspan%'
		UNION ALL SELECT 'setting ' || setconfig::text FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase AND d.datname = current_database() WHERE setconfig::text LIKE '%twinspan%' OR setconfig::text LIKE '%read_only%'
		UNION ALL SELECT 'label ' || label FROM pg_seclabel WHERE label LIKE '%twinspan%'
		UNION ALL SELECT 'comment ' || description FROM pg_description WHERE description LIKE '%twinspan%'
		UNION ALL SELECT 'database ' || datname FROM pg_database WHERE datname LIKE 'twinspan copy%'`) {
		t.Errorf("the copy has %s", row[0])
	}
}

func TestCopyIsTheDatabase(t *testing.T) {
	s := pgtest.Shared(t)
	from := source(t, s)
	name := `Copy "of; it's` + "\u00e9"
	var steps atomic.Int64
	to := target(t, s, name)
	to.Progress = func(p dbcopy.Progress) { steps.Add(1) }
	result, err := to.Copy(t.Context(), open(t, from))
	if err != nil {
		t.Fatalf("%v (hint: %s)", err, problem.As(err).Hint)
	}
	dsn := s.DSN(name)
	pgtest.Equal(t, from, dsn)
	if a, b := dumped(t, from), dumped(t, dsn); a != b {
		t.Errorf("pg_dump of the copy differs from the source's:\n%s", firstDifference(a, b))
	}
	if a, b := properties(t, from), properties(t, dsn); a != b {
		t.Errorf("the source's properties are\n%s\nand the copy's\n%s", a, b)
	}
	nothingOfOurs(t, dsn)
	if result.Objects != 2 || result.Origin.Position == 0 || !result.Origin.Exact || len(result.Roles) != 0 || len(result.Left) != 0 {
		t.Errorf("the result is %+v", result)
	}
	if steps.Load() == 0 {
		t.Error("no progress was told")
	}
	// No user's event trigger ran at what was done for the copy; it does at what its users do.
	if rows := pgtest.Query(t, dsn, `SELECT * FROM app.heard`); len(rows) != 0 {
		t.Errorf("event triggers of the users ran: %v", rows)
	}
	pgtest.Exec(t, dsn, `INSERT INTO app.dept VALUES (3, 'three', 1)`, `CREATE TABLE app.later (a int)`, `INSERT INTO app.types (m) VALUES ('sad')`)
	if rows := pgtest.Query(t, dsn, `SELECT max(id) FROM app.types UNION ALL SELECT nextval('app.plain') UNION ALL SELECT count(*) FROM app.heard WHERE what LIKE 'CREATE TABLE%'`); rows[0][0] != "3001" || rows[1][0] != "47" || rows[2][0] != "1" {
		t.Errorf("after writes to the copy: %v", rows)
	}
}

func firstDifference(a, b string) string {
	x, y := strings.Split(a, "\n"), strings.Split(b, "\n")
	for i := range x {
		if i >= len(y) || x[i] != y[i] {
			return strings.Join(x[max(0, i-2):min(len(x), i+4)], "\n") + "\n--- and\n" + strings.Join(y[min(len(y), max(0, i-2)):min(len(y), i+4)], "\n")
		}
	}
	return strings.Join(y[len(x):], "\n")
}
