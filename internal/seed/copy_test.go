package seed_test

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/twinspan/twinspan/internal/pgtest"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/seed"
)

// shapes is a table of every kind, with rows.
const shapes = `
CREATE EXTENSION hstore; CREATE EXTENSION citext; CREATE EXTENSION pgcrypto;
CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE TYPE pair AS (a int, b text); CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE DOMAIN moody AS mood; CREATE TYPE span AS RANGE (subtype = float8);
CREATE TABLE builtin (id int PRIMARY KEY, a bigint[], t timestamptz, d date, i interval, n numeric, f float8, g float4, b bytea, j jsonb, x xml,
    u uuid, ip inet, m macaddr, bits bit varying, ts tsvector, p point, pg polygon, mon money, r int4range, mr int4multirange, c "char", na name, l pg_lsn);
INSERT INTO builtin VALUES
  (1, '{{1,2},{3,NULL}}', '-infinity', '0044-03-15 BC', '1 mon -2 days 03:04:05.678', 'NaN', '-0', 'infinity', '\x0001ff', '{"a": [1, null]}', '<a>ü</a>',
   '00000000-0000-0000-0000-000000000001', '10.0.0.0/8', '08:00:2b:01:02:03', B'101', 'a:1 b:2A', '(1,2)', '((0,0),(1,1),(1,0))', '-12.34', '[1,5)', '{[1,2),[5,9)}', 'x', 'name', '16/B374D848'),
  (2, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
  (3, '{}', 'infinity', 'infinity', '0', 1e-200, 'NaN', 1.17549e-38, '', 'null', '', 'ffffffff-ffff-ffff-ffff-ffffffffffff', '::1', NULL, B'', '', NULL, NULL, '0', 'empty', '{}', '', '', '0/0');
CREATE TABLE enums (m mood, d positive, s span, dm moody); INSERT INTO enums VALUES ('sad', 1, '[1.5,2)', 'ok'), (NULL, NULL, 'empty', NULL);
CREATE TABLE own (ms mood[], p pair, ps pair[], h hstore, c citext, e text);
INSERT INTO own VALUES ('{ok,sad}', '(1,"x,y")', '{"(2,)"}', 'a=>NULL,"b c"=>1', 'CiTexT', E'tab\t\\N \\. newline\n'), (NULL, NULL, NULL, NULL, NULL, NULL), (NULL, NULL, NULL, NULL, NULL, '\N'), (NULL, NULL, NULL, NULL, NULL, '\.');
CREATE TABLE names (r regclass, o oid); INSERT INTO names VALUES ('builtin', 17), ('pg_class', 1);
CREATE TABLE always (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, twice int GENERATED ALWAYS AS (v * 2) STORED, v int);
INSERT INTO always (v) SELECT generate_series(1, 100);
CREATE TABLE only_generated (g int GENERATED ALWAYS AS (42) STORED); INSERT INTO only_generated SELECT FROM generate_series(1, 3);
CREATE TABLE no_columns (); INSERT INTO no_columns SELECT FROM generate_series(1, 4);
CREATE TABLE dropped (a int, b text, c int); INSERT INTO dropped VALUES (1, 'x', 2); ALTER TABLE dropped DROP COLUMN b; ALTER TABLE dropped ADD COLUMN d text DEFAULT 'later';
CREATE TABLE empty (a int);
CREATE SCHEMA "We""ird"; CREATE TABLE "We""ird"."Ta.b le" ("se""lect" int, "from" text); INSERT INTO "We""ird"."Ta.b le" VALUES (1, 'x');
CREATE TABLE parent (i int); CREATE TABLE child (j int) INHERITS (parent); INSERT INTO parent VALUES (1); INSERT INTO child VALUES (2, 3);
CREATE TABLE parted (i int, t text) PARTITION BY RANGE (i); CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (10) PARTITION BY HASH (t);
CREATE TABLE parted_1a PARTITION OF parted_1 FOR VALUES WITH (MODULUS 2, REMAINDER 0); CREATE TABLE parted_1b PARTITION OF parted_1 FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE TABLE parted_rest PARTITION OF parted DEFAULT; INSERT INTO parted SELECT i, 't' || i FROM generate_series(1, 100) i;
CREATE UNLOGGED TABLE unlogged (i int); INSERT INTO unlogged VALUES (1);
CREATE TABLE cycle_a (id int PRIMARY KEY, b int); CREATE TABLE cycle_b (id int PRIMARY KEY, a int REFERENCES cycle_a);
ALTER TABLE cycle_a ADD FOREIGN KEY (b) REFERENCES cycle_b DEFERRABLE INITIALLY DEFERRED;
INSERT INTO cycle_a VALUES (1, NULL); INSERT INTO cycle_b VALUES (1, 1); UPDATE cycle_a SET b = 1;
CREATE TABLE large (id int PRIMARY KEY, pad text, big text);
INSERT INTO large SELECT i, repeat(md5(i::text), 10), CASE WHEN i % 100 = 0 THEN (SELECT string_agg(md5(i::text || g), '') FROM generate_series(1, 300) g) END FROM generate_series(1, 6000) i;
CREATE TABLE medium (id int, pad text); INSERT INTO medium SELECT i, repeat('x', 200) FROM generate_series(1, 1000) i;
DO $$ BEGIN FOR i IN 1..300 LOOP EXECUTE format('CREATE TABLE many_%s (id int PRIMARY KEY, t text)', i); EXECUTE format('INSERT INTO many_%s VALUES (%s, %L)', i, i, i); END LOOP; END $$;
`

const refusing = `
CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER refuse BEFORE INSERT ON cycle_a FOR EACH ROW EXECUTE FUNCTION no(); ALTER TABLE cycle_a ENABLE ALWAYS TRIGGER refuse;
`

func TestEveryShapeArrives(t *testing.T) {
	w := sharedTwin(t, shapes, refusing)
	var last seed.Progress
	w.target.Progress = func(p seed.Progress) { last = p }
	r := w.copy()
	if err := w.schema.BuildIdentities(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := w.schema.BuildRest(t.Context()); err != nil {
		t.Fatal(err)
	}
	pgtest.Equal(t, w.from, w.to)
	if got := pgtest.Query(t, w.to, "SELECT count(*) FROM unlogged"); got[0][0] != "0" {
		t.Errorf("%s rows of an unlogged table", got[0][0])
	}
	if r.Start != w.tap.begun[0].LSN || r.RepairUntil != 0 || len(r.SkipBefore)+len(r.Repair) != 0 {
		t.Errorf("result %+v", r)
	}
	if last.TablesDone != last.TablesTotal || last.TablesTotal != len(pgtest.Query(t, w.to, "SELECT FROM twinspan.seed_table")) || last.BytesDone != last.BytesTotal {
		t.Errorf("progress ends at %+v", last)
	}
	tables := map[uint32]string{}
	for _, row := range pgtest.Query(t, w.to, "SELECT oid, table_name FROM twinspan.seed_table") {
		var oid uint32
		fmt.Sscan(row[0], &oid)
		tables[oid] = row[1]
	}
	binary, chunks := map[string]bool{}, map[string]int{}
	for _, r := range w.tap.requests {
		binary[tables[r.OID]] = r.Binary
		chunks[tables[r.OID]]++
	}
	for name, want := range map[string]bool{"enums": true, "large": true, "own": false, "names": false, "always": true} {
		if binary[name] != want {
			t.Errorf("%s: binary %v", name, binary[name])
		}
	}
	if chunks["large"] < 5 || chunks["medium"] != 1 {
		t.Errorf("chunks %d and %d", chunks["large"], chunks["medium"])
	}
	if first := tables[w.tap.requests[0].OID]; first != "large" {
		t.Errorf("%s came first", first)
	}
	// The slot is at its first position, and the snapshot is released.
	if got := pgtest.Query(t, w.from, "SELECT slot_name, temporary FROM pg_replication_slots WHERE database = current_database()"); len(got) != 1 || got[0][0] != w.source.Slot || got[0][1] != "f" {
		t.Errorf("slots %v", got)
	}
	if _, err := w.source.Session(w.tap.begun[0].Token); problem.CodeOf(err) != "session_lost" {
		t.Errorf("the session is still held: %v", err)
	}
	w.tap.reset()
	if again := w.copy(); again.Start != r.Start || len(w.tap.requests) != 0 {
		t.Errorf("copied again: %d requests", len(w.tap.requests))
	}
}

func TestLoneTableIsWrittenFrozen(t *testing.T) {
	w := sharedTwin(t, "CREATE EXTENSION pg_visibility", "CREATE TABLE a (i int, t text)", "INSERT INTO a SELECT i, repeat('x', 300) FROM generate_series(1, 8000) i")
	w.target.ChunkBytes = 64 << 20
	w.copy()
	if got := pgtest.Query(t, w.to, "SELECT bool_and(all_frozen), count(*) > 100 FROM pg_visibility_map('a')"); got[0][0] != "t" || got[0][1] != "t" {
		t.Errorf("frozen: %v", got)
	}
	pgtest.Equal(t, w.from, w.to)
}

func TestDatabaseWithoutTables(t *testing.T) {
	w := sharedTwin(t)
	if r := w.copy(); r.Start == 0 {
		t.Error("no position")
	}
	if len(w.tap.requests) != 0 {
		t.Errorf("%d requests", len(w.tap.requests))
	}
	w.copy()
}

func TestOtherEncodings(t *testing.T) {
	s := pgtest.Shared(t)
	create := func(encoding string) string {
		name := fmt.Sprintf("encoding_%s_%d", strings.ToLower(encoding), created.Add(1))
		pgtest.Exec(t, s.DSN("postgres"), "CREATE DATABASE "+name+" TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C' ENCODING "+encoding)
		t.Cleanup(func() { pgtest.Exec(t, s.DSN("postgres"), "DROP DATABASE "+name+" WITH (FORCE)") })
		return s.DSN(name)
	}
	for _, pair := range [][2]string{{"LATIN1", "LATIN1"}, {"LATIN1", "UTF8"}, {"SQL_ASCII", "SQL_ASCII"}, {"UTF8", "LATIN1"}} {
		from, to := create(pair[0]), create(pair[1])
		// Through the parameter's bytes, as the database takes them.
		value := map[string]string{"LATIN1": `convert_from('\xfcdf', 'LATIN1')`, "UTF8": `convert_from('\xc3bcc39f', 'UTF8')`, "SQL_ASCII": `convert_from('\xfcfffe', 'SQL_ASCII')`}[pair[0]]
		exec(t, from, "CREATE TABLE a (b text, x text[], n name)", "INSERT INTO a SELECT v, ARRAY[v], v FROM "+value+" v", "CREATE TYPE mood AS ENUM ('x'); CREATE TABLE c (b text, m mood[])", "INSERT INTO c SELECT v FROM "+value+" v")
		w := newTwin(t, from, to)
		w.target.Prepare = func(context.Context, string) error {
			exec(t, to, "CREATE TYPE mood AS ENUM ('x'); CREATE TABLE a (b text, x text[], n name); CREATE TABLE c (b text, m mood[])")
			return nil
		}
		w.copy()
		want := map[string]string{"LATIN1": "fcdf", "UTF8": "c3bcc39f", "SQL_ASCII": "fcfffe"}[pair[1]]
		got := query(t, to, "SELECT encode(convert_to(a.b, getdatabaseencoding()), 'hex') || encode(convert_to(c.b, getdatabaseencoding()), 'hex') FROM a, c")
		if got != want+want {
			t.Errorf("%v: %s", pair, got)
		}
	}
}

var created atomic.Int64

func exec(t testing.TB, dsn string, sql ...string) {
	t.Helper()
	conn, err := parse(t, dsn).Connect(t.Context(), session("test"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	for _, s := range sql {
		if err := conn.PgConn().Exec(t.Context(), "SET search_path = public; "+s).Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func query(t testing.TB, dsn, sql string) (answer string) {
	t.Helper()
	conn, err := parse(t, dsn).Connect(t.Context(), session("test"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), "SET search_path = public"); err != nil {
		t.Fatal(err)
	}
	if err := conn.QueryRow(t.Context(), sql).Scan(&answer); err != nil {
		t.Fatal(err)
	}
	return answer
}

func TestHugeValueNeedsLittleMemory(t *testing.T) {
	w := sharedTwin(t, "CREATE TABLE a (i int PRIMARY KEY, b bytea)",
		"ALTER TABLE a ALTER b SET STORAGE EXTERNAL", `INSERT INTO a SELECT 1, d || d || '\x77'::bytea FROM decode(repeat('0123456789abcdef', 300 << 16), 'hex') d`)
	runtime.GC()
	var before runtime.MemStats
	runtime.ReadMemStats(&before)
	var peak atomic.Uint64
	w.tap.wrap = func(_ int, out io.Writer) io.Writer { return &sampled{w: out, peak: &peak} }
	w.copy()
	if grown := int64(peak.Load()) - int64(before.HeapInuse); grown > 32<<20 || peak.Load() == 0 {
		t.Errorf("the heap grew by %d MB", grown>>20)
	}
	sql := "SELECT i, length(b), md5(b) FROM a"
	if a, b := pgtest.Query(t, w.from, sql), pgtest.Query(t, w.to, sql); fmt.Sprint(a) != fmt.Sprint(b) || a[0][1] != fmt.Sprint(300<<20+1) {
		t.Errorf("%v became %v", a, b)
	}
}

// sampled looks at the heap every few megabytes.
type sampled struct {
	w    io.Writer
	n    int
	peak *atomic.Uint64
}

func (s *sampled) Write(b []byte) (int, error) {
	if s.n += len(b); s.n > 8<<20 {
		s.n = 0
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		s.peak.Store(max(s.peak.Load(), m.HeapInuse))
	}
	return s.w.Write(b)
}

func TestRefusedRowsAreNamedWithoutTheirValues(t *testing.T) {
	w := sharedTwin(t, "CREATE TABLE a (i int)", "INSERT INTO a VALUES (4711)")
	prepare := w.target.Prepare
	w.target.Prepare = func(ctx context.Context, token string) error {
		if err := prepare(ctx, token); err != nil {
			return err
		}
		pgtest.Exec(t, w.to, "ALTER TABLE a ADD CONSTRAINT small CHECK (i < 4000)")
		return nil
	}
	_, err := w.target.Copy(t.Context())
	wantProblem(t, err, "row_refused", "public.a", problem.Incompatible)
	if text := fmt.Sprint(err); strings.Contains(text, "4711") || !strings.Contains(text, "small") {
		t.Errorf("it says %s", text)
	}
}

func TestCountsAreCompared(t *testing.T) {
	w := sharedTwin(t, "CREATE TABLE a (i int)", "INSERT INTO a VALUES (1), (2)")
	w.tap.after = func(_ int, _ seed.CopyRequest, rows int64, err error) (int64, error) { return rows + 1, err }
	_, err := w.target.Copy(t.Context())
	wantProblem(t, err, "seed_count", "public.a", problem.Diverged)
	if got := pgtest.Query(t, w.to, "SELECT count(*) FROM a"); got[0][0] != "0" {
		t.Errorf("%s rows stayed", got[0][0])
	}
}

func TestWhatCannotBeCopiedIsRefused(t *testing.T) {
	w := sharedTwin(t, "CREATE TYPE mood AS ENUM ('a'); CREATE TABLE p (m mood) PARTITION BY HASH (m)")
	_, err := w.target.Copy(t.Context())
	wantProblem(t, err, "partitioned_by_hash_of_enum", "public.p", problem.Incompatible)

	w = sharedTwin(t, "CREATE TABLE a (i int)")
	prepare := w.target.Prepare
	w.target.Prepare = func(ctx context.Context, token string) error {
		if err := prepare(ctx, token); err != nil {
			return err
		}
		pgtest.Exec(t, w.to, "ALTER TABLE a RENAME i TO j")
		return nil
	}
	_, err = w.target.Copy(t.Context())
	wantProblem(t, err, "schema_changed_during_seeding", "public.a", problem.Conflict)
}

// TestExtensionsOwnTables copies all rows of tables that extensions made, those of their
// scripts too, in place of what the script has made on the twin, with keys and references.
func TestExtensionsOwnTables(t *testing.T) {
	made := []string{"CREATE EXTENSION pgcrypto", "CREATE TABLE theirs (i int PRIMARY KEY, v text)", "CREATE TABLE referring (i int REFERENCES theirs)",
		"INSERT INTO theirs SELECT g, 'script' FROM generate_series(1, 5) g; INSERT INTO referring VALUES (2)",
		"ALTER EXTENSION pgcrypto ADD TABLE theirs", "ALTER EXTENSION pgcrypto ADD TABLE referring"}
	w := sharedTwin(t, append(made, "UPDATE pg_extension SET extconfig = ARRAY['theirs'::regclass::oid], extcondition = ARRAY['WHERE i > 5'] WHERE extname = 'pgcrypto'",
		"UPDATE theirs SET v = 'changed' WHERE i = 1; DELETE FROM theirs WHERE i = 5; INSERT INTO theirs VALUES (6, 'own'); INSERT INTO referring VALUES (6)")...)
	w.target.Prepare = func(context.Context, string) error {
		pgtest.Exec(t, w.to, made...)
		return nil
	}
	w.copy()
	pgtest.Equal(t, w.from, w.to)
	if got := pgtest.Table(t, w.to, "theirs"); got != "(1,changed)\n(2,script)\n(3,script)\n(4,script)\n(6,own)\n" {
		t.Errorf("got %s", got)
	}

	w = sharedTwin(t, "CREATE EXTENSION pgcrypto", "CREATE TABLE newer (i int)", "ALTER EXTENSION pgcrypto ADD TABLE newer")
	w.target.Prepare = func(context.Context, string) error {
		pgtest.Exec(t, w.to, "CREATE EXTENSION pgcrypto")
		return nil
	}
	_, err := w.target.Copy(t.Context())
	wantProblem(t, err, "extension_table_missing", "public.newer", problem.Incompatible)
}

// TestCodeRunsAsOwner copies tables at which code of users runs: with their owner's
// rights, and seeing what an ordinary session of the database sees.
func TestCodeRunsAsOwner(t *testing.T) {
	w := sharedTwin(t,
		`DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'owner_s') THEN CREATE ROLE owner_s LOGIN; END IF; END $$`,
		`CREATE SCHEMA s AUTHORIZATION owner_s`,
		`CREATE FUNCTION s.note() RETURNS bool LANGUAGE plpgsql AS $$ BEGIN
			IF (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AND current_setting('application_name') LIKE 'twinspan/%' THEN RAISE EXCEPTION 'code ran as %', current_user; END IF;
			RETURN true; END $$`,
		`CREATE FUNCTION s.plain(x int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN PERFORM s.note(); RETURN x; END $$`,
		`CREATE FUNCTION s.f(x int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RETURN plain(x); END $$`,
		`CREATE FUNCTION s.told(x timestamptz) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RETURN x::text; END $$`,
		`CREATE TABLE s.small (id int PRIMARY KEY, name text); INSERT INTO s.small SELECT g, 'class' || g FROM generate_series(0, 9) g; GRANT SELECT ON s.small TO owner_s`,
		`CREATE FUNCTION s.class(x int) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RETURN (SELECT name FROM small WHERE id = x % 10); END $$`,
		`DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = s, public', current_database()); EXECUTE format('ALTER DATABASE %I SET TimeZone = ''Asia/Tokyo''', current_database()); END $$`,
		`SET search_path = s, public; SET TimeZone = 'Asia/Tokyo';
		CREATE DOMAIN s.d AS int CHECK (s.f(value) > 0);
		CREATE TABLE s.t (x s.d, drop_me int, id int PRIMARY KEY, v text, a int[], at timestamptz DEFAULT '2026-01-02 20:04:05+00', g text GENERATED ALWAYS AS (s.told(at)) STORED,
			c text GENERATED ALWAYS AS (s.class(id)) STORED, CHECK (s.f(id) = id));
		ALTER TABLE s.t DROP drop_me; INSERT INTO s.t SELECT g, g, E'it''s \\ \t '||g, ARRAY[g, NULL] FROM generate_series(1, 3000) g; INSERT INTO s.t VALUES (1, 5000);
		CREATE UNIQUE INDEX ON s.t (s.f(id)) WHERE s.f(id) > 0;
		ALTER TABLE s.t ENABLE ROW LEVEL SECURITY; ALTER TABLE s.t FORCE ROW LEVEL SECURITY; CREATE POLICY p ON s.t USING (false); ALTER TABLE s.t OWNER TO owner_s;
		RESET search_path; RESET TimeZone`)
	prepare := w.target.Prepare
	w.target.Prepare = func(ctx context.Context, token string) error {
		if err := prepare(ctx, token); err != nil {
			return err
		}
		return w.schema.SetSettings(ctx)
	}
	w.copy()
	if err := w.schema.BuildRest(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := w.schema.Analyze(t.Context()); err != nil {
		t.Fatal(err)
	}
	pgtest.Equal(t, w.from, w.to)
	if got := pgtest.Query(t, w.to, `SELECT relforcerowsecurity::text FROM pg_class WHERE oid = 's.t'::regclass`)[0][0]; got != "true" {
		t.Errorf("policies bind the owner: %s", got)
	}
}
