package assess_test

import (
	"context"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/assess"
	"github.com/twinspan/twinspan/internal/instance"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/pgtest"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/sqlname"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

const newestDump = 99

func testContext(t testing.TB) context.Context {
	ctx, stop := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(stop)
	return ctx
}

func parse(t testing.TB, dsn string) *pg.DSN {
	t.Helper()
	d, err := pg.ParseDSN(dsn)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func connect(t testing.TB, dsn string) *pgx.Conn {
	t.Helper()
	conn, err := parse(t, dsn).Connect(testContext(t), pg.Session{Name: "check"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func look(t testing.TB, p assess.Primary) assess.Report {
	t.Helper()
	report, err := p.Look(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func primary(t testing.TB, dsn string, dump int) []assess.Finding {
	t.Helper()
	return look(t, assess.Primary{DSN: parse(t, dsn), DumpMajor: dump}).Findings
}

func secondary(t testing.TB, dsn string, target assess.Target) []assess.Finding {
	t.Helper()
	found, err := assess.Secondary(testContext(t), parse(t, dsn), target)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// quick is what every server of these tests has: it does not wait for its disk.
const quick = "informs fsync_off fsync"

// expect asserts that exactly these things were found, beside quick, and that each
// is complete. A thing is severity, code and object.
func expect(t testing.TB, found []assess.Finding, want ...string) {
	t.Helper()
	want = append(want, quick)
	var got []string
	for _, f := range found {
		got = append(got, strings.TrimSpace(string(f.Severity)+" "+f.Code+" "+f.Object))
		if f.Why == "" || f.Severity != problem.Informs && f.Remedy == "" {
			t.Errorf("%s says too little: %+v", f.Code, f)
		}
		if _, listed := problem.Describe(f.Code); !listed {
			t.Errorf("%s is not in the catalogue", f.Code)
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	for _, w := range want {
		if !slices.Contains(got, w) {
			t.Errorf("not found: %s", w)
		}
	}
	for _, g := range got {
		if !slices.Contains(want, g) {
			t.Errorf("found, and not there: %s", g)
		}
	}
}

func one(t testing.TB, found []assess.Finding, code string) assess.Finding {
	t.Helper()
	for _, f := range found {
		if f.Code == code {
			return f
		}
	}
	t.Errorf("%s was not found", code)
	return assess.Finding{}
}

func codes(found []assess.Finding) []string {
	var list []string
	for _, f := range found {
		list = append(list, string(f.Severity)+" "+f.Code)
	}
	return list
}

func TestNothingAgainstPgbench(t *testing.T) {
	s := pgtest.Shared(t)
	dsn := s.DSN(s.Database(t))
	program, _, err := instance.FindClient("pgbench", 0)
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(program, "-i", "-q", "-s", "1", dsn).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	report := look(t, assess.Primary{DSN: parse(t, dsn), DumpMajor: newestDump})
	expect(t, report.Findings, "informs table_without_key public.pgbench_history")
	source := report.Source
	if source.Database != parse(t, dsn).Database() || source.Owner != "shop" || source.Major != s.Major || source.Encoding != "UTF8" || source.Collate == "" ||
		source.CType == "" || source.Provider != "c" || source.Bytes < 10<<20 || len(source.Extensions) != 0 ||
		source.SystemID != pgtest.Query(t, dsn, `SELECT system_identifier FROM pg_control_system()`)[0][0] {
		t.Errorf("%+v", source)
	}
	if f := report.Facts; f.Database != source.Bytes || f.FreeLog <= 0 || f.KeepLog != assess.Unknown {
		t.Errorf("%+v", f)
	}
	other := pgtest.Start(t)
	expect(t, secondary(t, other.DSN("postgres"), assess.Target{Source: source, Needs: report.Needs, Database: "twin"}))
	// An empty one, and one of the same server under another name, will do.
	expect(t, secondary(t, other.DSN("postgres"), assess.Target{Source: source, Needs: report.Needs, Database: other.Database(t)}))
	expect(t, secondary(t, s.DSN("postgres"), assess.Target{Source: source, Needs: report.Needs, Database: "twin"}))
	expect(t, secondary(t, s.DSN("postgres"), assess.Target{Source: source, Database: source.Database}), "blocks same_database "+source.Database)
	for _, left := range []string{`SELECT 1 FROM pg_publication`, `SELECT 1 FROM pg_event_trigger`, `SELECT 1 FROM pg_replication_slots`, `SELECT 1 FROM pg_replication_origin`,
		`SELECT 1 FROM pg_namespace WHERE nspname = 'twinspan'`} {
		if rows := pgtest.Query(t, dsn, left); len(rows) != 0 {
			t.Errorf("the check left something: %s", left)
		}
	}
}

// Infinite intervals came with version 17: of a newer primary's columns those are named that may have one.
func TestColumnsOfValuesThatTheSecondaryDoesNotKnow(t *testing.T) {
	t.Parallel()
	newer := pgtest.Start(t, pgtest.WithMajor(17))
	dsn := newer.DSN(newer.Database(t))
	pgtest.Exec(t, dsn, `CREATE DOMAIN span AS interval; CREATE TYPE pair AS (n int, s span); CREATE TYPE spans AS RANGE (subtype = interval)`,
		`CREATE TABLE t (id int PRIMARY KEY, i interval, d span, list interval[], p pair, r spans, m spans_multirange, at timestamptz, v text)`)
	report := look(t, assess.Primary{DSN: parse(t, dsn), DumpMajor: newestDump})
	want := []string{"public.t.d", "public.t.i", "public.t.list", "public.t.m", "public.t.p", "public.t.r"}
	if !slices.Equal(report.Needs.Newer, want) {
		t.Errorf("of the columns may have one %v, not %v", report.Needs.Newer, want)
	}
	for _, of := range []struct {
		server *pgtest.Server
		want   []string
	}{{pgtest.Shared(t), want}, {newer, nil}} {
		var told []string
		for _, f := range secondary(t, of.server.DSN("postgres"), assess.Target{Source: report.Source, Needs: report.Needs, Database: "twin"}) {
			if f.Code == "value_too_new" {
				told = append(told, f.Object)
			}
		}
		if !slices.Equal(told, of.want) {
			t.Errorf("a secondary of version %d is told of %v, not %v", of.server.Major, told, of.want)
		}
	}
}

// TestEmpty makes one thing of each sort in a database of its own.
func TestEmpty(t *testing.T) {
	s := pgtest.Shared(t)
	source := assess.Source{Database: "x", SystemID: "1"}
	for what, sql := range map[string]string{
		"table": `CREATE TABLE public.t ()`, "temporary table of another": ``, "view": `CREATE VIEW public.v AS SELECT 1`, "sequence": `CREATE SEQUENCE public.s`,
		"function": `CREATE FUNCTION public.f() RETURNS int LANGUAGE sql AS 'SELECT 1'`, "type": `CREATE TYPE public.e AS ENUM ('x')`,
		"domain": `CREATE DOMAIN public.d AS int`, "schema": `CREATE SCHEMA s`, "extension": `CREATE EXTENSION pgcrypto`, "large object": `SELECT lo_create(0)`,
		"extension in pg_catalog": `CREATE EXTENSION adminpack`,
		"publication":             `CREATE PUBLICATION p`, "operator": `CREATE OPERATOR public.=== (LEFTARG = int, RIGHTARG = int, PROCEDURE = int4eq)`,
		"collation": `CREATE COLLATION public.c FROM "C"`, "conversion": `CREATE CONVERSION public.c FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8`,
		"text search": `CREATE TEXT SEARCH CONFIGURATION public.c (COPY = simple)`, "dictionary": `CREATE TEXT SEARCH DICTIONARY public.d (TEMPLATE = simple)`,
		"cast": `CREATE CAST (point AS int) WITH INOUT`, "wrapper": `CREATE FOREIGN DATA WRAPPER w`, "privileges": `ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC`,
		"remains of a link": `CREATE SCHEMA twinspan`,
	} {
		if what == "extension in pg_catalog" && s.Major >= 17 {
			continue // adminpack has gone
		}
		name := s.Database(t)
		dsn := s.DSN(name)
		if what == "temporary table of another" {
			c := pgtest.Conn(t, dsn)
			if _, err := c.Exec(testContext(t), `CREATE TEMP TABLE x (id serial, v text)`); err != nil {
				t.Fatal(err)
			}
		} else {
			pgtest.Exec(t, dsn, sql)
		}
		empty, err := assess.Empty(testContext(t), parse(t, dsn))
		if err != nil || empty != (sql == "") {
			t.Errorf("%s: empty %v %v", what, empty, err)
		}
		want := []string{"blocks target_not_empty " + name}
		if sql == "" {
			want = nil
		}
		expect(t, secondary(t, s.DSN("postgres"), assess.Target{Source: source, Database: name}), want...)
	}
	// Nobody is told to drop a twin that works.
	name := s.Database(t)
	pgtest.Exec(t, s.DSN(name), `CREATE SCHEMA twinspan; CREATE TABLE twinspan.link ()`)
	for _, f := range secondary(t, s.DSN("postgres"), assess.Target{Source: source, Database: name}) {
		if f.Code == "target_not_empty" && (strings.Contains(f.Remedy, "DROP") || !strings.Contains(f.Why, "link")) {
			t.Errorf("of a database that is linked: %+v", f)
		}
	}
	// New ones, and one whose schema public was made again.
	dsn := s.DSN(s.Database(t))
	for _, sql := range []string{`SELECT 1`, `DROP SCHEMA public; CREATE SCHEMA public; COMMENT ON SCHEMA public IS 'standard'`} {
		pgtest.Exec(t, dsn, sql)
		if empty, err := assess.Empty(testContext(t), parse(t, dsn)); err != nil || !empty {
			t.Errorf("after %s: empty %v %v", sql, empty, err)
		}
	}
}

func TestDescribeNamesExtensions(t *testing.T) {
	s := pgtest.Shared(t)
	dsn := s.DSN(s.Database(t))
	owner := `ALTER DATABASE ` + sqlname.Quote(parse(t, dsn).Database()) + ` OWNER TO `
	pgtest.Exec(t, dsn, `CREATE EXTENSION pgcrypto; CREATE ROLE "Own Er"; `+owner+`"Own Er"`)
	t.Cleanup(func() { pgtest.Exec(t, dsn, owner+`postgres; DROP ROLE "Own Er"`) })
	got, err := assess.Describe(testContext(t), connect(t, dsn))
	if err != nil || len(got.Extensions) != 1 || got.Extensions[0].Name != "pgcrypto" || got.Extensions[0].Version == "" || got.Owner != "Own Er" {
		t.Errorf("%+v %v", got, err)
	}
}

func TestVerdict(t *testing.T) {
	blocks := assess.Finding{Code: "a_blocks", Severity: problem.Blocks, Object: "x", Why: "why 100%", Remedy: "do 100%"}
	warns := assess.Finding{Code: "b_warns", Severity: problem.Warns, Why: "hm", Remedy: "mind"}
	informs := assess.Finding{Code: "c_informs", Severity: problem.Informs, Why: "so"}
	for _, c := range []struct {
		found    []assess.Finding
		accepted []string
		want     string
	}{
		{nil, nil, ""},
		{[]assess.Finding{informs}, nil, ""},
		{[]assess.Finding{warns, informs}, []string{"b_warns"}, ""},
		{[]assess.Finding{warns, informs}, []string{"c_informs"}, "b_warns"},
		{[]assess.Finding{blocks}, []string{"a_blocks"}, "a_blocks"}, // cannot be accepted away
		{[]assess.Finding{informs, blocks, warns}, nil, "a_blocks"},
		{nil, []string{"trigger_fires_on_twin"}, ""}, // it exists, and was not found here
		{nil, []string{"bogus"}, "accept_unknown"},
		{[]assess.Finding{warns}, []string{"b_warns", "trigger_fires_on_twins"}, "accept_unknown"},
	} {
		err := assess.Verdict(c.found, c.accepted)
		if problem.CodeOf(err) != c.want {
			t.Errorf("%v accepted %v: %v", codes(c.found), c.accepted, err)
		}
	}
	p := problem.As(assess.Verdict([]assess.Finding{blocks, warns}, nil))
	if p.Kind != problem.Incompatible || p.Subject != "x" || p.Hint != "do 100%" || !strings.HasPrefix(p.Text, "why 100%") || !strings.Contains(p.Text, "1 more: b_warns") {
		t.Errorf("%+v", p)
	}
	if p := problem.As(assess.Verdict(nil, []string{"trigger_fires"})); !strings.Contains(p.Hint, "trigger_fires_on_twin") {
		t.Errorf("%+v", p)
	}
	if p := problem.As(assess.Verdict([]assess.Finding{warns}, nil)); !strings.Contains(p.Hint, "--accept b_warns") {
		t.Errorf("%+v", p)
	}
}

// TestTakeover looks at servers that could not be primary after a change of places: that
// is no reason against a twin, but has to be accepted.
func TestTakeover(t *testing.T) {
	s := pgtest.Start(t, pgtest.WithSetting("wal_level", "replica"), pgtest.WithSetting("max_wal_senders", "0"), pgtest.WithSetting("max_replication_slots", "1"),
		pgtest.WithSetting("max_connections", "20"))
	ctx := testContext(t)
	conn := connect(t, s.DSN("postgres"))
	all := []string{"blocks senders_used_up", "blocks wal_level_too_low"}
	list, err := assess.Takeover(ctx, conn, "")
	if got := codes(list); err != nil || !slices.Equal(sorted(got), all) {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := conn.Exec(ctx, `SELECT pg_create_physical_replication_slot('mine')`); err != nil {
		t.Fatal(err)
	}
	if list, err = assess.Takeover(ctx, conn, "mine"); err != nil || !slices.Equal(sorted(codes(list)), all) {
		t.Errorf("its own slot is in the way: %v, %v", codes(list), err)
	}
	for range 9 {
		connect(t, s.DSN("postgres"))
	}
	all = []string{"blocks senders_used_up", "blocks slots_used_up", "blocks wal_level_too_low", "warns connections_short"}
	if list, err = assess.Takeover(ctx, conn, "another"); err != nil || !slices.Equal(sorted(codes(list)), all) {
		t.Errorf("%v, %v", codes(list), err)
	}
	for _, f := range list {
		if f.Why == "" || !strings.Contains(f.Remedy, "on the secondary") || f.Object == "" {
			t.Errorf("%+v", f)
		}
	}
	found := secondary(t, s.DSN("postgres"), assess.Target{Database: "twin"})
	for _, want := range []string{"warns senders_used_up", "warns wal_level_too_low", "warns slots_used_up", "warns connections_short"} {
		if n := len(slices.DeleteFunc(codes(found), func(c string) bool { return c != want })); n != 1 {
			t.Errorf("%d of %s in %v", n, want, codes(found))
		}
	}
}

func sorted(list []string) []string {
	slices.Sort(list)
	return list
}

// TestDatabasesOfTheInstance: the ones that the instance itself needs.
func TestDatabasesOfTheInstance(t *testing.T) {
	s := pgtest.Shared(t)
	if f := one(t, primary(t, s.DSN("postgres"), newestDump), "maintenance_database"); f.Severity != problem.Warns || f.Object != "postgres" {
		t.Errorf("%+v", f)
	}
	if f := one(t, primary(t, s.DSN("template1"), newestDump), "database_name_reserved"); f.Severity != problem.Blocks || f.Object != "template1" {
		t.Errorf("%+v", f)
	}
	list := secondary(t, s.DSN("postgres"), assess.Target{Database: "postgres", Source: assess.Source{Database: "sales"}})
	if f := one(t, list, "maintenance_database"); f.Severity != problem.Warns || !strings.Contains(f.Remedy, "--peer-database") {
		t.Errorf("%+v", f)
	}
	for _, f := range primary(t, s.DSN(s.Database(t)), newestDump) {
		if f.Code == "maintenance_database" || f.Code == "database_name_reserved" {
			t.Errorf("%+v", f)
		}
	}
}
