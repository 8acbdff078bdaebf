package instance_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/instance"
	"github.com/twinspan/twinspan/internal/pgtest"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/transcript"
)

const patience = 2 * time.Minute

// helperEnv makes the test binary an agent that runs one server until it is
// killed: "directory port die-with-parent".
const helperEnv = "TWINSPAN_TEST_SERVE"

func TestMain(m *testing.M) {
	if how := os.Getenv(helperEnv); how != "" {
		var dir string
		var port int
		var die bool
		if _, err := fmt.Sscan(how, &dir, &port, &die); err != nil {
			panic(err)
		}
		s := &instance.Server{Dir: dir, Port: port, DieWithParent: die, Settings: quick()}
		fmt.Fprintln(os.Stderr, "helper ended:", s.Run(context.Background()))
		os.Exit(1)
	}
	pgtest.Main(m)
}

func quick() map[string]string {
	return map[string]string{"fsync": "off", "shared_buffers": "32MB"}
}

// newServer returns a server with a data directory.
func newServer(t *testing.T) *instance.Server {
	t.Helper()
	s := &instance.Server{
		Dir: filepath.Join(pgtest.Dir(t), "server"), Port: pgtest.FreePort(), Settings: quick(), InitdbArgs: []string{"--no-sync"},
	}
	if err := s.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { endLeftover(s) })
	return s
}

// endLeftover ends a server that a failed test left without a supervisor.
func endLeftover(s *instance.Server) {
	if pid := postmaster(s); pid > 0 {
		_ = syscall.Kill(pid, syscall.SIGQUIT)
	}
}

func postmaster(s *instance.Server) int {
	text, err := os.ReadFile(filepath.Join(s.DataDir(), "postmaster.pid"))
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(string(text), "\n")
	pid, err := strconv.Atoi(first)
	if err != nil {
		return 0
	}
	return pid
}

// again is the same server as another agent would see it.
func again(s *instance.Server) *instance.Server {
	return &instance.Server{Dir: s.Dir, Port: s.Port, Settings: s.Settings, Log: s.Log, DieWithParent: s.DieWithParent, NoRestart: s.NoRestart}
}

// run runs a server until the returned function is called or the test ends.
func run(t *testing.T, s *instance.Server) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	t.Cleanup(stop)
	waitReady(t, s)
	return stop
}

func waitReady(t *testing.T, s *instance.Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := s.WaitReady(ctx); err != nil {
		t.Fatalf("not ready: %v", err)
	}
}

// runFails runs a server that must not start.
func runFails(t *testing.T, s *instance.Server, code string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err := s.Run(ctx)
	if p := problem.As(err); p == nil || p.Code != code || p.Hint == "" {
		t.Fatalf("got %+v, want %s with a hint", p, code)
	}
	if got := s.WaitReady(ctx); problem.CodeOf(got) != code {
		t.Errorf("WaitReady gives %v", got)
	}
}

func gone(t *testing.T, pid int) {
	t.Helper()
	pgtest.Eventually(t, patience, func() error {
		if syscall.Kill(pid, 0) == nil {
			return fmt.Errorf("process %d is still there", pid)
		}
		return nil
	})
}

func TestServerIsMadeRunAndStopped(t *testing.T) {
	s := newServer(t)
	stop := run(t, s)
	rows := pgtest.Query(t, s.DSN(), `SELECT current_setting('wal_level'), current_setting('max_replication_slots'), current_setting('max_wal_senders'),
		current_setting('data_checksums'), pg_encoding_to_char(encoding), datcollate, current_setting('listen_addresses')
		FROM pg_database WHERE datname = 'template1'`)
	if got := fmt.Sprint(rows); got != "[[logical 120 120 on UTF8 C.UTF-8 127.0.0.1]]" && got != "[[logical 120 120 on UTF8 C 127.0.0.1]]" {
		t.Errorf("the server has %s", got)
	}
	for path, mode := range map[string]os.FileMode{"data": 0o700, "run": 0o700, "superuser-password": 0o600} {
		info, err := os.Stat(filepath.Join(s.Dir, path))
		if err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v %v", path, info.Mode(), err)
		}
	}
	password, err := s.Password()
	if err != nil {
		t.Fatal(err)
	}
	tcp := fmt.Sprintf("host=127.0.0.1 port=%d user=postgres dbname=postgres sslmode=disable", s.Port)
	if got := pgtest.Query(t, tcp+" password="+password, "SELECT 1"); got[0][0] != "1" {
		t.Errorf("got %v", got)
	}
	if _, err := pgx.Connect(t.Context(), tcp+" password=wrong"); err == nil {
		t.Error("a wrong password is let in over TCP")
	}
	pid := s.PID()
	stop()
	gone(t, pid)
	if s.PID() != 0 {
		t.Error("stopped, but it has a process")
	}
	// Init again leaves everything as it is.
	if err := again(s).Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after, _ := s.Password(); after != password {
		t.Error("a second Init changed the password")
	}
}

func TestAlterSystemWinsButNotOverThePort(t *testing.T) {
	s := newServer(t)
	stop := run(t, s)
	pgtest.Exec(t, s.DSN(), "ALTER SYSTEM SET work_mem = '7MB'", "ALTER SYSTEM SET port = 1")
	stop()
	s = again(s)
	s.Settings["work_mem"] = "5MB"
	run(t, s)
	if got := pgtest.Query(t, s.DSN(), "SELECT current_setting('work_mem'), current_setting('port')"); fmt.Sprint(got) != fmt.Sprintf("[[7MB %d]]", s.Port) {
		t.Errorf("got %v", got)
	}
}

func TestCrashedServerIsStartedAgain(t *testing.T) {
	s := newServer(t)
	out := &transcript.Buffer{}
	s.Log = slog.New(slog.NewTextHandler(out, nil))
	run(t, s)
	pgtest.Exec(t, s.DSN(), "CREATE TABLE a AS SELECT 42 AS answer")
	for crash := 1; crash <= 2; crash++ {
		old := s.PID()
		if err := syscall.Kill(old, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		pgtest.Eventually(t, patience, func() error {
			if pid := s.PID(); pid == 0 || pid == old {
				return fmt.Errorf("process %d", pid)
			}
			return nil
		})
		if got := pgtest.Table(t, s.DSN(), "a"); got != "(42)\n" {
			t.Errorf("after the crash: %q", got)
		}
		if n := out.Count(`msg="server ended by itself"`); n != crash {
			t.Errorf("%d crashes, logged %d times", crash, n)
		}
	}
}

func TestNoRestartReturnsTheCrash(t *testing.T) {
	s := newServer(t)
	s.NoRestart = true
	done := make(chan error, 1)
	go func() { done <- s.Run(context.Background()) }()
	waitReady(t, s)
	if err := syscall.Kill(s.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := <-done; problem.CodeOf(err) != "server_crashed" || !strings.Contains(err.Error(), "signal: killed") {
		t.Errorf("got %v", err)
	}
}

// serve runs the server in another process, kills that and returns when it is
// gone; the postmaster that it leaves, or not, is returned.
func serveAndKill(t *testing.T, s *instance.Server, die bool) (postmasterPID int) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d %v", helperEnv, s.Dir, s.Port, die))
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pgtest.Eventually(t, patience, func() error {
		conn, err := pgx.Connect(t.Context(), s.DSN())
		if err != nil {
			return err
		}
		return conn.Close(t.Context())
	})
	pid := postmaster(s)
	// An agent that is alive keeps others out.
	runFails(t, again(s), "server_supervised")
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	return pid
}

func TestServerOfAKilledAgentIsTakenOver(t *testing.T) {
	s := newServer(t)
	pid := serveAndKill(t, s, false)
	session := pgtest.Conn(t, s.DSN())
	s = again(s)
	stop := run(t, s)
	if s.PID() != pid {
		t.Fatalf("process %d was replaced by %d", pid, s.PID())
	}
	if err := session.Ping(t.Context()); err != nil {
		t.Errorf("the session that was open broke: %v", err)
	}
	// It is supervised like a child.
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	pgtest.Eventually(t, patience, func() error {
		if now := s.PID(); now == 0 || now == pid {
			return fmt.Errorf("process %d", now)
		}
		return nil
	})
	pid = s.PID()
	stop()
	gone(t, pid)
}

func TestTakenOverServerIsStopped(t *testing.T) {
	s := newServer(t)
	pid := serveAndKill(t, s, false)
	s = again(s)
	run(t, s)()
	gone(t, pid)
	if got := postmaster(s); got != 0 {
		t.Errorf("postmaster.pid names %d after a clean stop", got)
	}
}

func TestServerOfAKilledAgentIsReplacedWhenSettingsChanged(t *testing.T) {
	s := newServer(t)
	pid := serveAndKill(t, s, false)
	s = again(s)
	s.Settings["work_mem"] = "9MB"
	run(t, s)
	if s.PID() == pid {
		t.Error("a server with other settings was taken over")
	}
	if got := pgtest.Query(t, s.DSN(), "SHOW work_mem"); got[0][0] != "9MB" {
		t.Errorf("work_mem is %s", got[0][0])
	}
}

func TestDieWithParent(t *testing.T) {
	s := newServer(t)
	gone(t, serveAndKill(t, s, true))
	run(t, again(s))
}

func TestStalePIDFileWithAReusedNumber(t *testing.T) {
	s := newServer(t)
	// A process of the server's user that has nothing to do with it.
	owner, err := os.Stat(s.DataDir())
	if err != nil {
		t.Fatal(err)
	}
	stat := owner.Sys().(*syscall.Stat_t)
	other := exec.Command("sleep", "1000")
	if os.Geteuid() == 0 {
		other.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: stat.Uid, Gid: stat.Gid}}
	}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = other.Process.Kill()
		_ = other.Wait()
	})
	path := filepath.Join(s.DataDir(), "postmaster.pid")
	text := fmt.Sprintf("%d\n%s\n1700000000\n%d\n\n127.0.0.1\n", other.Process.Pid, s.DataDir(), s.Port)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(path, int(stat.Uid), int(stat.Gid)); err != nil {
		t.Fatal(err)
	}
	run(t, s)
	if err := other.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("the innocent process was ended: %v", err)
	}
}

func TestPortInUse(t *testing.T) {
	s := newServer(t)
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(s.Port)))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	runFails(t, s, "port_in_use")
}

func TestRefusals(t *testing.T) {
	s := newServer(t)
	s.Settings["wal_levels"] = "x"
	runFails(t, s, "settings_invalid")
	delete(s.Settings, "wal_levels")

	s = again(s)
	s.Listen = "192.0.2.1"
	runFails(t, s, "listen_address_invalid")

	runFails(t, &instance.Server{Dir: filepath.Join(pgtest.Dir(t), "none")}, "data_dir_missing")
	runFails(t, &instance.Server{Dir: "relative"}, "server_dir_invalid")

	s = again(s)
	version := filepath.Join(s.DataDir(), "PG_VERSION")
	if s.Binaries, _ = instance.FindBinaries(0); s.Binaries.Major == 0 {
		t.Fatal("no binaries")
	}
	if err := os.WriteFile(version, []byte("12\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	runFails(t, s, "data_version_mismatch")
	if err := s.Init(t.Context()); problem.CodeOf(err) != "data_version_mismatch" {
		t.Error("Init accepts the data of another version")
	}
}

func TestInitIsWholeOrNothing(t *testing.T) {
	dir := filepath.Join(pgtest.Dir(t), "server")
	s := &instance.Server{Dir: dir, Port: pgtest.FreePort(), InitdbArgs: []string{"--no-sync", "--no-such-option"}}
	if err := s.Init(t.Context()); problem.CodeOf(err) != "initdb_failed" {
		t.Fatalf("got %v", err)
	}
	// What a killed Init leaves.
	if err := os.MkdirAll(filepath.Join(dir, "data.new", "base"), 0o700); err != nil {
		t.Fatal(err)
	}
	s.InitdbArgs = []string{"--no-sync"}
	if err := s.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, left := range []string{"data.new", "run/initdb-password"} {
		if _, err := os.Stat(filepath.Join(dir, left)); !os.IsNotExist(err) {
			t.Errorf("%s is left: %v", left, err)
		}
	}

	foreign := filepath.Join(pgtest.Dir(t), "server")
	if err := os.MkdirAll(filepath.Join(foreign, "data", "photographs"), 0o755); err != nil {
		t.Fatal(err)
	}
	s = &instance.Server{Dir: foreign}
	if err := s.Init(t.Context()); problem.CodeOf(err) != "data_dir_foreign" {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(filepath.Join(foreign, "data", "photographs")); err != nil {
		t.Errorf("foreign data is gone: %v", err)
	}
}

func TestPathsThatNoSocketCanHave(t *testing.T) {
	for _, dir := range []string{strings.Repeat("long", 25), "a,b"} {
		s := &instance.Server{
			Dir: filepath.Join(pgtest.Dir(t), dir), Port: pgtest.FreePort(), Settings: quick(), InitdbArgs: []string{"--no-sync"},
		}
		if err := s.Init(t.Context()); err != nil {
			t.Fatal(err)
		}
		stop := run(t, s)
		if got := pgtest.Query(t, s.DSN(), "SELECT current_setting('unix_socket_directories'), inet_server_addr()"); fmt.Sprint(got) != "[[ 127.0.0.1]]" {
			t.Errorf("got %v", got)
		}
		stop()
	}
}

func TestOddPath(t *testing.T) {
	s := &instance.Server{
		Dir: filepath.Join(pgtest.Dir(t), `a "b' c\d`), Port: pgtest.FreePort(), Settings: quick(), InitdbArgs: []string{"--no-sync"},
	}
	if err := s.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	run(t, s)
	if got := pgtest.Query(t, s.DSN(), "SELECT inet_server_addr() IS NULL"); got[0][0] != "t" {
		t.Error("not over the Unix socket")
	}
}

// A server that root starts has the home of its own user: what libpq looks for there
// (certificates, a password file) it may look for.
func TestServerHasTheHomeOfItsUser(t *testing.T) {
	s := pgtest.Shared(t)
	conn := pgtest.Conn(t, s.DSN("postgres"))
	for _, sql := range []string{`CREATE TEMPORARY TABLE said (line text)`, `COPY said FROM PROGRAM 'id -un; echo "$HOME"'`} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	rows, _ := conn.Query(t.Context(), `SELECT line FROM said`)
	said, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(said) != 2 {
		t.Fatal(said, err)
	}
	want := os.Getenv("HOME")
	if os.Geteuid() == 0 {
		who, err := user.Lookup(said[0])
		if err != nil {
			t.Fatal(err)
		}
		want = who.HomeDir
	}
	if said[1] != want {
		t.Errorf("the server of %s has the home %s, not %s", said[0], said[1], want)
	}
}

// TestServerForOtherMachines: one that was made for this machine alone gets TLS and
// listens everywhere, with the password that was chosen before it was made.
func TestServerForOtherMachines(t *testing.T) {
	s := &instance.Server{Dir: filepath.Join(pgtest.Dir(t), "server"), Port: pgtest.FreePort(), Settings: quick(), InitdbArgs: []string{"--no-sync"}, HBA: instance.HBAFor([]string{"127.0.0.0/8"})}
	password, err := s.MakePassword()
	if err != nil {
		t.Fatal(err)
	}
	if again, err := s.MakePassword(); err != nil || again != password {
		t.Fatalf("chosen anew: %v", err)
	}
	if err := s.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { endLeftover(s) })
	open := again(s)
	open.Listen, open.TLS, open.HBA = "*", true, s.HBA
	if err := open.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	stop := run(t, open)
	defer stop()
	tcp := fmt.Sprintf("host=127.0.0.1 port=%d user=postgres dbname=postgres password=%s sslmode=require", s.Port, password)
	if got := pgtest.Query(t, tcp, `SELECT ssl::text, current_setting('listen_addresses') FROM pg_stat_ssl WHERE pid = pg_backend_pid()`)[0]; fmt.Sprint(got) != "[true *]" {
		t.Errorf("%v", got)
	}
	rules := pgtest.Query(t, open.DSN(), `SELECT string_agg(type || ' ' || coalesce(address, '-') || ' ' || auth_method, ', ' ORDER BY line_number) FROM pg_hba_file_rules WHERE error IS NULL AND database = '{all}'`)[0][0]
	if rules != "local - trust, host samehost scram-sha-256, hostssl 127.0.0.0 scram-sha-256" {
		t.Errorf("%s", rules)
	}
}

// A private server has no TCP port, and its socket where it was told.
func TestPrivateServer(t *testing.T) {
	s := newServer(t)
	s.Private, s.Socket = true, filepath.Join(pgtest.Dir(t), "socket")
	if err := s.MakeDir(s.Socket); err != nil {
		t.Fatal(err)
	}
	run(t, s)
	if rows := pgtest.Query(t, s.DSN(), `SHOW listen_addresses`); rows[0][0] != "" {
		t.Errorf("it listens on %q", rows[0][0])
	}
	if conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", s.Port)); err == nil {
		conn.Close()
		t.Error("it is reached over TCP")
	}
}

func TestDiscardEndsAndRemovesWhatWasLeft(t *testing.T) {
	s := newServer(t)
	pid := serveAndKill(t, s, false)
	other := again(s)
	other.Socket = filepath.Join(pgtest.Dir(t), "socket")
	if err := other.MakeDir(other.Socket); err != nil {
		t.Fatal(err)
	}
	if err := other.Discard(t.Context()); err != nil {
		t.Fatal(err)
	}
	gone(t, pid)
	for _, dir := range []string{s.Dir, other.Socket} {
		if _, err := os.Stat(dir); !os.IsNotExist(err) {
			t.Errorf("%s is there: %v", dir, err)
		}
	}
	if err := other.Discard(t.Context()); err != nil { // there is nothing any more
		t.Error(err)
	}
}
