package assess_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
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

func primary(t testing.TB, dsn string, dump int) []assess.Finding {
	t.Helper()
	found, err := assess.Primary(testContext(t), connect(t, dsn), dump)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func secondary(t testing.TB, dsn string, target assess.Target) []assess.Finding {
	t.Helper()
	found, err := assess.Secondary(testContext(t), parse(t, dsn), target)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// codes lists what was found, with what each does: "blocks wal_level_low".
func codes(found []assess.Finding) []string {
	list := []string{}
	for _, f := range found {
		list = append(list, string(f.Severity)+" "+f.Code)
	}
	return list
}

// expect asserts that exactly these things were found, and that each is complete.
func expect(t testing.TB, found []assess.Finding, want ...string) {
	t.Helper()
	got := codes(found)
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("found %v, want %v", got, want)
	}
	for _, f := range found {
		if f.Why == "" || f.Severity == problem.Blocks && f.Remedy == "" {
			t.Errorf("%s says too little: %+v", f.Code, f)
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

func TestNothingAgainstPgbench(t *testing.T) {
	s := pgtest.Shared(t)
	dsn := s.DSN(s.Database(t))
	program, _, err := instance.FindClient("pgbench", 0)
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(program, "-i", "-q", "-s", "1", "-h", "127.0.0.1", "-p", strconv.Itoa(s.Port), "-U", "postgres", parse(t, dsn).Database()).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	expect(t, primary(t, dsn, newestDump))
	source, err := assess.Describe(testContext(t), connect(t, dsn))
	if err != nil {
		t.Fatal(err)
	}
	if source.Database != parse(t, dsn).Database() || source.Owner != "postgres" || source.Major != s.Major || source.Encoding != "UTF8" || source.Collate == "" ||
		source.CType == "" || source.Provider != "c" || source.Bytes < 10<<20 || len(source.Extensions) != 0 ||
		source.SystemID != pgtest.Query(t, dsn, `SELECT system_identifier FROM pg_control_system()`)[0][0] {
		t.Errorf("%+v", source)
	}
	other := pgtest.Start(t)
	expect(t, secondary(t, other.DSN("postgres"), assess.Target{Source: source, Database: "twin"}))
	// An empty one, and one of the same server under another name, will do.
	expect(t, secondary(t, other.DSN("postgres"), assess.Target{Source: source, Database: other.Database(t)}))
	expect(t, secondary(t, s.DSN("postgres"), assess.Target{Source: source, Database: "twin"}))
	expect(t, secondary(t, s.DSN("postgres"), assess.Target{Source: source, Database: source.Database}), "blocks same_database")
}

func TestFaultsOfThePrimary(t *testing.T) {
	s := pgtest.Start(t, pgtest.WithSetting("max_replication_slots", "3"), pgtest.WithSetting("max_wal_senders", "2"), pgtest.WithSetting("max_slot_wal_keep_size", "1MB"))
	name := s.Database(t)
	dsn := s.DSN(name)
	expect(t, primary(t, dsn, newestDump), "informs slot_wal_limited")
	pgtest.Exec(t, dsn, `CREATE UNLOGGED TABLE public.u (id int); SELECT lo_create(0), lo_create(0);
		CREATE FUNCTION public.f() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'; CREATE EVENT TRIGGER twinspan_gate ON ddl_command_start EXECUTE FUNCTION public.f();
		SELECT pg_create_physical_replication_slot('a'), pg_create_physical_replication_slot('b', true)`)
	sender, err := parse(t, dsn).ConnectReplication(testContext(t), pg.Session{Name: "taken"})
	if err != nil {
		t.Fatal(err)
	}
	defer sender.Close(testContext(t))
	pgtest.Exec(t, s.DSN("postgres"), `ALTER DATABASE `+sqlname.Quote(name)+` IS_TEMPLATE true`)
	t.Cleanup(func() { pgtest.Exec(t, s.DSN("postgres"), `ALTER DATABASE `+sqlname.Quote(name)+` IS_TEMPLATE false`) })
	found := primary(t, dsn, s.Major-1)
	expect(t, found, "informs slot_wal_limited", "informs unlogged_tables", "warns large_objects_not_carried", "blocks slots_used_up",
		"blocks senders_used_up", "blocks database_is_template", "blocks database_is_secondary", "blocks pg_dump_too_old")
	for code, word := range map[string]string{"slots_used_up": "2 of 3", "senders_used_up": "1 of 2", "large_objects_not_carried": "2 large", "unlogged_tables": "1 unlogged", "slot_wal_limited": "1MB"} {
		if f := one(t, found, code); !strings.Contains(f.Why, word) {
			t.Errorf("%s: %s", code, f.Why)
		}
	}
	// What a remedy says can be done.
	for _, code := range []string{"slots_used_up", "senders_used_up"} {
		statement, _, _ := strings.Cut(one(t, found, code).Remedy, ";")
		pgtest.Exec(t, dsn, statement)
	}
}

func TestLowWalLevelAndPlainRole(t *testing.T) {
	s := pgtest.Start(t, pgtest.WithSetting("wal_level", "replica"))
	pgtest.Exec(t, s.DSN("postgres"), `CREATE ROLE "Odd Name" LOGIN`)
	plain := fmt.Sprintf(`host=127.0.0.1 port=%d user='Odd Name' dbname=postgres sslmode=disable`, s.Port)
	found := primary(t, plain, newestDump)
	expect(t, found, "blocks wal_level_low", "blocks not_superuser")
	expect(t, secondary(t, plain, assess.Target{Database: "twin"}), "blocks not_superuser")
	statement, _, _ := strings.Cut(one(t, found, "not_superuser").Remedy, ";")
	pgtest.Exec(t, s.DSN("postgres"), statement)
	statement, _, _ = strings.Cut(one(t, found, "wal_level_low").Remedy, ";")
	pgtest.Exec(t, s.DSN("postgres"), statement)
	expect(t, primary(t, plain, newestDump), "blocks wal_level_low") // until it is started anew
}

func TestFaultsOfTheSecondary(t *testing.T) {
	setting := "max_replication_slots"
	if pgtest.Shared(t).Major >= 18 {
		setting = "max_active_replication_origins"
	}
	s := pgtest.Start(t, pgtest.WithSetting(setting, "2"))
	pgtest.Exec(t, s.DSN("postgres"), `SELECT pg_replication_origin_create('a'), pg_replication_origin_create('b')`)
	found := secondary(t, s.DSN("postgres"), assess.Target{Database: "twin", Source: assess.Source{
		Database: "x", SystemID: "1", Extensions: []assess.Extension{{Name: "plpgsql"}, {Name: "no_such_thing", Version: "1"}},
	}})
	expect(t, found, "blocks origins_used_up", "blocks extension_missing")
	if f := one(t, found, "origins_used_up"); f.Object != setting || !strings.Contains(f.Why, "2 of 2") {
		t.Errorf("%+v", f)
	}
	if f := one(t, found, "extension_missing"); f.Object != "no_such_thing" {
		t.Errorf("%+v", f)
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
		want := []string{"blocks target_not_empty"}
		if sql == "" {
			want = nil
		}
		expect(t, secondary(t, s.DSN("postgres"), assess.Target{Source: source, Database: name}), want...)
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
	pgtest.Exec(t, dsn, `CREATE EXTENSION pgcrypto; CREATE ROLE "Own Er"; ALTER DATABASE `+sqlname.Quote(parse(t, dsn).Database())+` OWNER TO "Own Er"`)
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
	if p := problem.As(assess.Verdict([]assess.Finding{warns}, nil)); !strings.Contains(p.Hint, "--accept b_warns") {
		t.Errorf("%+v", p)
	}
}

// TestStandby starts a server anew in recovery.
func TestStandby(t *testing.T) {
	s := pgtest.Start(t)
	s.Stop()
	if err := os.WriteFile(filepath.Join(s.DataDir(), "standby.signal"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	s.Restart()
	expect(t, primary(t, s.DSN("postgres"), newestDump), "blocks primary_in_recovery")
	expect(t, secondary(t, s.DSN("postgres"), assess.Target{Database: "twin"}), "blocks secondary_in_recovery")
}
