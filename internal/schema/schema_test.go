package schema_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/instance"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/pgtest"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/schema"
	"github.com/twinspan/twinspan/internal/sqlname"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

const linkID = "11111111-2222-3333-4444-555555555555"

func parse(t testing.TB, dsn string) *pg.DSN {
	t.Helper()
	d, err := pg.ParseDSN(dsn)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// export holds a snapshot open for the test.
func export(t testing.TB, dsn string) string {
	t.Helper()
	conn, err := parse(t, dsn).Connect(t.Context(), pg.Session{Name: "test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	var snapshot string
	if _, err := conn.Exec(t.Context(), "BEGIN ISOLATION LEVEL REPEATABLE READ"); err != nil {
		t.Fatal(err)
	}
	if err := conn.QueryRow(t.Context(), "SELECT pg_export_snapshot()").Scan(&snapshot); err != nil {
		t.Fatal(err)
	}
	return snapshot
}

func source(t testing.TB, dsn string) *schema.Source {
	return &schema.Source{DSN: parse(t, dsn), Name: "sales", Find: instance.FindClient, Dir: t.TempDir()}
}

// target makes a database that is ready for a schema.
func target(t testing.TB, s *pgtest.Server) (*schema.Target, string) {
	t.Helper()
	dsn := s.DSN(s.Database(t))
	install(t, dsn)
	return &schema.Target{DSN: parse(t, dsn), Link: linkID, Name: "sales", Log: slog.New(slog.DiscardHandler), Workers: 4}, dsn
}

// through is the dump as the peer receives it.
func through(t testing.TB, d *schema.Dump) *schema.Dump {
	t.Helper()
	b, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	var got schema.Dump
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	return &got
}

func fetch(d *schema.Dump) func(context.Context) (*schema.Dump, error) {
	return func(context.Context) (*schema.Dump, error) { return d, nil }
}

var unstable = regexp.MustCompile(`(?m)^(\\(un)?restrict .*|-- (Started|Completed) on .*|-- PostgreSQL database dump complete|SET default_table.*)$`)

// structure is pg_dump's view of a database in sorted parts, without what belongs
// to links.
func structure(t testing.TB, dsn string) []string {
	t.Helper()
	program, _, err := instance.FindClient("pg_dump", 0)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "--schema-only", "--exclude-schema=twinspan", "--no-publications", "--dbname="+dsn)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err, string(err.(*exec.ExitError).Stderr))
	}
	parts := strings.Split(unstable.ReplaceAllString(string(out), ""), "\n--\n-- Name: ")
	for i, p := range parts {
		parts[i] = strings.Trim(p, " \n-")
	}
	if len(parts) < 10 {
		t.Fatalf("only %d parts in\n%s", len(parts), out)
	}
	// Entries of one kind are in an order that can depend on oids.
	slices.Sort(parts)
	return slices.DeleteFunc(parts, func(p string) bool { return strings.Contains(p, "twinspan") })
}

func diff(a, b []string) string {
	var out strings.Builder
	for _, p := range a {
		if !slices.Contains(b, p) {
			fmt.Fprintf(&out, "- %s\n", p)
		}
	}
	for _, p := range b {
		if !slices.Contains(a, p) {
			fmt.Fprintf(&out, "+ %s\n", p)
		}
	}
	return out.String()
}

func dropRoles(t testing.TB, s *pgtest.Server) {
	t.Cleanup(func() {
		pgtest.Exec(t, s.DSN("postgres"), `DROP ROLE IF EXISTS rich_owner, "Rich Grantee", rich_policy, rich_default, rich_elsewhere`)
	})
}

func TestSchemaArrivesWhole(t *testing.T) {
	from, to := pgtest.Shared(t), pgtest.Start(t)
	dropRoles(t, from)
	dsn := from.DSN(from.Database(t))
	pgtest.Exec(t, dsn, rich)
	dump, err := source(t, dsn).Dump(t.Context(), export(t, dsn))
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"Rich Grantee", "postgres", "rich_default", "rich_owner", "rich_policy"}; !slices.Equal(dump.Roles, want) {
		t.Errorf("roles %q, want %q", dump.Roles, want)
	}
	if len(dump.Extensions) != 4 || dump.Extensions[0].Name != "btree_gist" || dump.Extensions[0].Schema != "public" {
		t.Errorf("extensions %v", dump.Extensions)
	}
	target, targetDSN := target(t, to)
	roles, err := target.Prepare(t.Context(), fetch(through(t, dump)))
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"Rich Grantee", "rich_default", "rich_owner", "rich_policy"}; !slices.Equal(roles, want) {
		t.Errorf("created %q, want %q", roles, want)
	}
	if got := pgtest.Query(t, targetDSN, "SELECT rolname FROM pg_roles WHERE rolcanlogin AND rolname ILIKE 'rich%'"); len(got) != 0 {
		t.Errorf("roles that came and can log in: %v", got)
	}
	pgtest.Exec(t, targetDSN, "INSERT INTO app.dept VALUES (1, NULL, 'one'), (2, NULL, 'two')")

	if err := target.BuildIdentity(t.Context(), []sqlname.Table{{Schema: "app", Name: "dept"}, {Schema: "app", Name: "nokey"}}); err != nil {
		t.Fatal(err)
	}
	wantIndexes(t, targetDSN, "app.dept_pkey")
	if err := target.BuildIdentities(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantIndexes(t, targetDSN, `"My ""Schema"""."Weird; Index"`, "app.dept_pkey", "app.measure_1_pkey", "app.measure_2_pkey",
		"app.measure_2a_pkey", "app.measure_pkey", "app.measure_rest_pkey", "app.person_pkey", "app.types_pkey")
	var steps []schema.Progress
	target.Progress = func(p schema.Progress) { steps = append(steps, p) }
	if err := target.BuildRest(t.Context()); err != nil {
		t.Fatal(err)
	}
	if last := steps[len(steps)-1]; last.Done != last.Total || last.Total == 0 {
		t.Errorf("the last progress is %+v", last)
	}
	if err := target.Analyze(t.Context()); err != nil {
		t.Fatal(err)
	}
	if d := diff(structure(t, dsn), structure(t, targetDSN)); d != "" {
		t.Errorf("the structure differs\n%s", d)
	}
	for _, sql := range []string{
		"SELECT * FROM app.zz_first ORDER BY id", "SELECT * FROM app.aa_second", "SELECT * FROM app.bykey ORDER BY id",
		"SELECT relname, relispopulated FROM pg_class WHERE relkind = 'm' ORDER BY 1",
		"SELECT indexrelid::regclass::text, indisvalid, indisreplident FROM pg_index WHERE indexrelid >= 16384 AND indrelid::regclass::text ~ 'app|My' ORDER BY 1",
		"SELECT conname, convalidated FROM pg_constraint WHERE oid >= 16384 AND contype IN ('f', 'c') AND conrelid::regclass::text ~ 'app' ORDER BY 1, conrelid::regclass::text",
	} {
		if a, b := pgtest.Query(t, dsn, sql), pgtest.Query(t, targetDSN, sql); fmt.Sprint(a) != fmt.Sprint(b) {
			t.Errorf("%s\n%v\n%v", sql, a, b)
		}
	}
	if got := pgtest.Query(t, targetDSN, "SELECT count(*) FROM pg_stats WHERE schemaname = 'app' AND tablename = 'dept'"); got[0][0] == "0" {
		t.Error("the table has no statistics")
	}
	if got := pgtest.Query(t, targetDSN, "SELECT count(*) FROM twinspan.seed_entry WHERE NOT done"); got[0][0] != "0" {
		t.Errorf("%s entries are not done", got[0][0])
	}
	if err := target.BuildRest(t.Context()); err != nil {
		t.Errorf("built again: %v", err)
	}
}

func wantIndexes(t *testing.T, dsn string, want ...string) {
	t.Helper()
	var got []string
	for _, row := range pgtest.Query(t, dsn, `SELECT format('%I.%I', n.nspname, c.relname) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
		JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname ~ 'app|My' ORDER BY format('%I.%I', n.nspname, c.relname) COLLATE "C"`) {
		got = append(got, row[0])
	}
	if !slices.Equal(got, want) {
		t.Errorf("indexes\n%q, want\n%q", got, want)
	}
}

// A dump goes through its own directory, not through everybody's, and leaves nothing.
func TestDumpKeepsToItsDirectory(t *testing.T) {
	server := pgtest.Shared(t)
	dsn := server.DSN(server.Database(t))
	src := source(t, dsn)
	t.Setenv("TMPDIR", filepath.Join(src.Dir, "missing"))
	if _, err := src.Dump(t.Context(), export(t, dsn)); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(src.Dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestBuildingGoesOnWhereItWasCut(t *testing.T) {
	s := pgtest.Shared(t)
	dropRoles(t, s)
	dsn := s.DSN(s.Database(t))
	pgtest.Exec(t, dsn, rich)
	dump, err := source(t, dsn).Dump(t.Context(), export(t, dsn))
	if err != nil {
		t.Fatal(err)
	}
	target, targetDSN := target(t, s)
	// Each attempt is cut at its first progress of building; each builds at least one entry.
	for try := 0; ; try++ {
		ctx, cancel := context.WithCancel(t.Context())
		first := -1
		target.Progress = func(p schema.Progress) {
			if p.Step == "schema" {
				return
			}
			if first < 0 {
				first = p.Done
			}
			if p.Done > first+10 {
				cancel()
			}
		}
		_, err := target.Prepare(ctx, fetch(dump))
		if err == nil {
			err = target.BuildRest(ctx)
		}
		cancel()
		if err == nil {
			if try < 3 {
				t.Errorf("done after only %d interruptions", try)
			}
			break
		}
		if problem.KindOf(err) != problem.Cancelled && !problem.Retry(err) {
			t.Fatal(err)
		}
		if try == 100 {
			t.Fatal("it never ends")
		}
	}
	if d := diff(structure(t, dsn), structure(t, targetDSN)); d != "" {
		t.Errorf("the structure differs\n%s", d)
	}
}

func TestFailuresAreNamed(t *testing.T) {
	s := pgtest.Shared(t)
	dsn := s.DSN(s.Database(t))
	pgtest.Exec(t, dsn, "CREATE TABLE a (i int)", "CREATE UNIQUE INDEX only_once ON a (i)")
	src := source(t, dsn)
	check := func(err error, code, subject string, kind problem.Kind) {
		t.Helper()
		p := problem.As(err)
		if p == nil || p.Code != code || p.Subject != subject || p.Kind != kind {
			t.Errorf("got %+v", p)
		}
	}

	old := *src
	old.Find = func(string, int) (string, int, error) {
		return "", 0, problem.New(problem.NotFound, "client_missing", "none")
	}
	_, err := old.Dump(t.Context(), export(t, dsn))
	check(err, "pg_dump_too_old", "", problem.Incompatible)
	_, err = src.Dump(t.Context(), "00000003-0000ABCD-1")
	check(err, "session_lost", "", problem.Transient)

	dump, err := src.Dump(t.Context(), export(t, dsn))
	if err != nil {
		t.Fatal(err)
	}
	tgt, _ := target(t, s)
	lacking := *dump
	lacking.Extensions = append(lacking.Extensions, schema.Extension{Name: "no_such_extension"})
	_, err = tgt.Prepare(t.Context(), fetch(&lacking))
	check(err, "extension_missing", "no_such_extension", problem.Incompatible)

	broken := *dump
	broken.Entries = append(slices.Clone(dump.Entries), schema.Entry{Section: schema.PreData, ID: 1e6, Kind: "FUNCTION", Schema: "x", Name: "f()", SQL: "CREATE FUNCTION nonsense"})
	_, err = tgt.Prepare(t.Context(), fetch(&broken))
	check(err, "schema_entry_failed", "x.f()", problem.Incompatible)

	tgt, targetDSN := target(t, s)
	if _, err := tgt.Prepare(t.Context(), fetch(dump)); err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, targetDSN, "INSERT INTO a VALUES (1), (1)")
	err = tgt.BuildRest(t.Context())
	check(err, "schema_entry_violated", "public.a", problem.Diverged)
	if strings.Contains(err.Error(), "(1)") {
		t.Errorf("a row is shown: %v", err)
	}
}

func TestOtherEncodingsAndNoPublicSchema(t *testing.T) {
	s := pgtest.Shared(t)
	for _, encoding := range []string{"LATIN1", "SQL_ASCII"} {
		name := "schema_" + strings.ToLower(encoding)
		create := func(n string) string {
			pgtest.Exec(t, s.DSN("postgres"), "DROP DATABASE IF EXISTS "+n+" WITH (FORCE)", "CREATE DATABASE "+n+" TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C' ENCODING "+encoding)
			t.Cleanup(func() { pgtest.Exec(t, s.DSN("postgres"), "DROP DATABASE "+n+" WITH (FORCE)") })
			return s.DSN(n)
		}
		from, to := create(name), create(name+"_to")
		body := "SET client_encoding = LATIN1; DROP SCHEMA public; CREATE SCHEMA x; CREATE FUNCTION x.f() RETURNS text LANGUAGE sql AS 'SELECT ''gr\xfc\xdfe'''"
		execRaw(t, from, body)
		install(t, to)
		dump, err := source(t, from).Dump(t.Context(), export(t, from))
		if err != nil {
			t.Fatal(err)
		}
		tgt := &schema.Target{DSN: parse(t, to), Link: linkID, Name: "sales", Log: slog.New(slog.DiscardHandler)}
		if _, err := tgt.Prepare(t.Context(), fetch(through(t, dump))); err != nil {
			t.Fatal(err)
		}
		if got := pgtest.Query(t, to+"&client_encoding=UTF8", "SELECT encode(convert_to(x.f(), getdatabaseencoding()), 'hex')"); got[0][0] != "6772fcdf65" {
			t.Errorf("%s: %s", encoding, got[0][0])
		}
		if got := pgtest.Query(t, to+"&client_encoding=UTF8", "SELECT count(*) FROM pg_namespace WHERE nspname = 'public'"); got[0][0] != "0" {
			t.Errorf("%s: the schema public is there", encoding)
		}
	}
}

func execRaw(t testing.TB, dsn, sql string) {
	t.Helper()
	conn := pgtest.Conn(t, dsn)
	if err := conn.PgConn().Exec(t.Context(), sql).Close(); err != nil {
		t.Fatal(err)
	}
}

func install(t testing.TB, dsn string) {
	t.Helper()
	conn, err := parse(t, dsn).Connect(t.Context(), pg.Session{Name: "test"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if err := catalog.Install(t.Context(), conn); err != nil {
		t.Fatal(err)
	}
	if err := catalog.Insert(t.Context(), conn, &catalog.Link{ID: linkID, Name: "sales", Agent: linkID, PeerAgent: linkID, Role: "secondary", Phase: "seeding", Mode: "async"}); err != nil {
		t.Fatal(err)
	}
}
