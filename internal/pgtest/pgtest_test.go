package pgtest_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/instance"
	"github.com/twinspan/twinspan/internal/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// hangEnv makes TestHangs start a server, say where, and hang.
const hangEnv = "TWINSPAN_TEST_HANG"

func TestHangs(t *testing.T) {
	if os.Getenv(hangEnv) == "" {
		return // only as the victim of TestKilledTestBinaryLeavesNothing
	}
	fmt.Println("data in", pgtest.Start(t).DataDir())
	select {}
}

func TestKilledTestBinaryLeavesNothing(t *testing.T) {
	cmd := exec.Command(os.Args[0], "-test.run=^TestHangs$")
	cmd.Env = append(os.Environ(), hangEnv+"=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var data string
	if _, err := fmt.Fscanf(out, "data in %s\n", &data); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(data + "/postmaster.pid")
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Sscan(string(text), &pid); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	pgtest.Eventually(t, time.Minute, func() error {
		if syscall.Kill(pid, 0) == nil {
			return fmt.Errorf("postmaster %d is still there", pid)
		}
		return nil
	})
	pgtest.Dir(t) // sweeps
	if _, err := os.Stat(data); !os.IsNotExist(err) {
		t.Errorf("%s is still there: %v", data, err)
	}
}

func TestDatabaseIsDroppedWithItsSlotAndSessions(t *testing.T) {
	s := pgtest.Shared(t)
	var name string
	t.Run("Inner Test", func(t *testing.T) {
		name = s.Database(t)
		pgtest.Exec(t, s.DSN(name), "CREATE TABLE a (i int)", "SELECT pg_create_logical_replication_slot('left_behind', 'pgoutput')")
		// Kept open beyond the cleanup of the database.
		conn, err := pgx.Connect(context.Background(), s.DSN(name))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close(context.Background()) })
	})
	if !strings.HasPrefix(name, "testdatabaseisdropped") {
		t.Errorf("the database is called %s", name)
	}
	if got := pgtest.Query(t, s.DSN("postgres"), "SELECT datname FROM pg_database WHERE datname = $1", name); len(got) != 0 {
		t.Errorf("%v is still there", got)
	}
	if got := pgtest.Query(t, s.DSN("postgres"), "SELECT slot_name FROM pg_replication_slots"); len(got) != 0 {
		t.Errorf("slot %v is still there", got)
	}
}

func TestKillIsACrashAndRestartRecovers(t *testing.T) {
	s := pgtest.Start(t, pgtest.WithSetting("checkpoint_timeout", "1h"))
	dsn := s.DSN("postgres")
	pgtest.Exec(t, dsn, "CREATE TABLE a (i int)", "INSERT INTO a SELECT generate_series(1, 1000)")
	s.Kill()
	if _, err := os.Stat(s.DataDir() + "/postmaster.pid"); err != nil {
		t.Fatalf("that was a clean stop: %v", err)
	}
	if _, err := pgx.Connect(context.Background(), dsn); err == nil {
		t.Fatal("the server still answers")
	}
	s.Restart()
	if got := pgtest.Query(t, dsn, "SELECT count(*), current_setting('checkpoint_timeout') FROM a"); got[0][0] != "1000" || got[0][1] != "1h" {
		t.Errorf("after recovery: %v", got)
	}
	s.Stop()
	if _, err := os.Stat(s.DataDir() + "/postmaster.pid"); !os.IsNotExist(err) {
		t.Errorf("stopped, but postmaster.pid: %v", err)
	}
	s.Restart()
	if got := pgtest.Query(t, dsn, "SELECT count(*) FROM a"); got[0][0] != "1000" {
		t.Errorf("after a clean stop: %v", got)
	}
}

func TestDiffSeesWhatDiffers(t *testing.T) {
	s := pgtest.Shared(t)
	a, b := s.DSN(s.Database(t)), s.DSN(s.Database(t))
	same := []string{
		`CREATE TABLE "Weird ""T" (id int PRIMARY KEY, "A b" text, f float8, fs float4[], n numeric)`,
		`INSERT INTO "Weird ""T" VALUES (1, 'x', 0.1, '{1.5,NaN}', 'NaN'), (2, NULL, 'infinity', NULL, 1.10)`,
		"CREATE TABLE nothing ()", "INSERT INTO nothing DEFAULT VALUES",
		"CREATE TABLE parent (i int)", "CREATE TABLE child (j int) INHERITS (parent)", "INSERT INTO child VALUES (1, 2)",
		"CREATE TABLE parted (i int) PARTITION BY LIST (i)", "CREATE TABLE part1 PARTITION OF parted FOR VALUES IN (1)", "INSERT INTO parted VALUES (1)",
		"CREATE TABLE twice (i int)", "INSERT INTO twice VALUES (1), (1)",
	}
	pgtest.Exec(t, a, same...)
	pgtest.Exec(t, b, same...)
	pgtest.Exec(t, a, "CREATE SCHEMA twinspan", "CREATE TABLE twinspan.own (i int)", "CREATE UNLOGGED TABLE unlogged (i int)")
	pgtest.Equal(t, a, b)

	for sql, want := range map[string]string{
		`UPDATE "Weird ""T" SET f = 0.2 WHERE id = 1`: `  table public."Weird ""T": 2 rows and 2 rows`,
		"INSERT INTO nothing DEFAULT VALUES":          "  table public.nothing: 1 rows and 2 rows\n+   ()\n",
		"UPDATE child SET j = 3":                      "-   (1,2)\n+   (1,3)\n",
		"DELETE FROM parted":                          "  table public.part1: 1 rows and 0 rows\n-   (1)\n",
		"DELETE FROM twice WHERE ctid = '(0,1)'":      "  table public.twice: 2 rows and 1 rows\n-   (1)\n",
		"CREATE TABLE more (i int)":                   "+ table public.more\n",
		"DROP TABLE child":                            "- table public.child\n",
		"ALTER TABLE twice ADD k text":                "- columns i integer\n+ columns i integer, k text\n",
	} {
		c := s.Database(t)
		pgtest.Exec(t, s.DSN(c), same...)
		pgtest.Exec(t, s.DSN(c), sql)
		diff, err := pgtest.Diff(t.Context(), a, s.DSN(c))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(diff, want) {
			t.Errorf("after %s the difference is\n%swant\n%s", sql, diff, want)
		}
	}
}

func TestTableIsSortedText(t *testing.T) {
	s := pgtest.Shared(t)
	dsn := s.DSN(s.Database(t))
	pgtest.Exec(t, dsn, "CREATE TABLE a (i int, t text); INSERT INTO a VALUES (2, 'b'), (1, NULL)")
	if got := pgtest.Table(t, dsn, "public.a"); got != "(1,)\n(2,b)\n" {
		t.Errorf("got %q", got)
	}
}

// TestMatrixOfServers starts every major version that is here; make matrix
// brings them all.
func TestMatrixOfServers(t *testing.T) {
	first := pgtest.Shared(t)
	sql := []string{
		"CREATE TABLE a (f float8, g float4[], d timestamptz, i interval)",
		"INSERT INTO a VALUES (0.1 + 0.2, '{0.3,NaN}', '2001-01-01 BC', '-1 day +02:03'), (1e300 / 3, NULL, 'infinity', NULL)",
	}
	a := first.DSN(first.Database(t))
	pgtest.Exec(t, a, sql...)
	found := 0
	for major := 10; major <= 18; major++ {
		if _, err := instance.FindBinaries(major); err != nil {
			continue
		}
		found++
		t.Run(strconv.Itoa(major), func(t *testing.T) {
			s := pgtest.Start(t, pgtest.WithMajor(major))
			b := s.DSN(s.Database(t))
			pgtest.Exec(t, b, sql...)
			pgtest.Equal(t, a, b)
			want := fmt.Sprintf("[[%d logical 50]]", major)
			if got := pgtest.Query(t, b, "SELECT current_setting('server_version_num')::int / 10000, current_setting('wal_level'), current_setting('max_replication_slots')"); fmt.Sprint(got) != want {
				t.Errorf("got %v, want %s", got, want)
			}
			s.Kill()
			s.Restart()
			pgtest.Equal(t, a, b)
		})
	}
	if found == 0 {
		t.Error("no server is found by its version")
	}
}

// What is asked for by the environment is what runs, whatever is found first.
func TestMinorIsChosen(t *testing.T) {
	found, err := instance.FindBinaries(0)
	if err != nil {
		t.Fatal(err)
	}
	cache := pgtest.Dir(t)
	newest := filepath.Join(cache, "newest", strconv.Itoa(found.Major))
	if err := os.MkdirAll(newest, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(found.Dir, filepath.Join(newest, "bin")); err != nil {
		t.Fatal(err)
	}
	t.Setenv(instance.CacheEnv, cache)
	for choice, want := range map[string]string{"": found.Dir, "installed": found.Dir, "newest": "/newest/"} {
		t.Setenv(pgtest.MinorEnv, choice)
		if got := pgtest.Start(t).Programs(); !strings.Contains(got, want) {
			t.Errorf("with %q the server is that of %s, not of %s", choice, got, want)
		}
	}
}

// Servers are copies of one directory, and no two of them are one cluster: the second has
// an identifier of its own, with which it starts and recovers.
func TestServersAreClustersOfTheirOwn(t *testing.T) {
	const sql = `SELECT system_identifier FROM pg_control_system()`
	first, second := pgtest.Start(t), pgtest.Start(t)
	before := pgtest.Query(t, second.DSN("postgres"), sql)[0][0]
	if other := pgtest.Query(t, first.DSN("postgres"), sql)[0][0]; other == before {
		t.Errorf("both servers have the system identifier %s", other)
	}
	second.Kill()
	second.Restart()
	if after := pgtest.Query(t, second.DSN("postgres"), sql)[0][0]; after != before {
		t.Errorf("the system identifier was %s and is %s", before, after)
	}
}

// Sessions of the package take the short way, and whatever else has the same DSN the one of
// users.
func TestSessionsTakeTheSocket(t *testing.T) {
	s := pgtest.Start(t)
	const sql = `SELECT ssl::text FROM pg_stat_ssl WHERE pid = pg_backend_pid()`
	for _, dsn := range []string{s.DSN("postgres"), s.AppDSN("postgres"), s.DSN("postgres") + "&application_name=x"} {
		if got := pgtest.Query(t, dsn, sql)[0][0]; got != "false" {
			t.Errorf("%s: a session of the package has TLS: %s", dsn, got)
		}
		conn, err := pgx.Connect(t.Context(), dsn)
		if err != nil {
			t.Fatal(err)
		}
		var secure string
		if err := conn.QueryRow(t.Context(), sql).Scan(&secure); err != nil || secure != "true" {
			t.Errorf("%s: another session has TLS: %s, %v", dsn, secure, err)
		}
		_ = conn.Close(t.Context())
	}
	if got := pgtest.Query(t, s.AgentDSN(), sql)[0][0]; got != "true" {
		t.Errorf("a session of the agent's role has TLS: %s", got)
	}
}
