package pg_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/twinspan/twinspan/internal/instance"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/pgtest"
	"github.com/twinspan/twinspan/internal/problem"
)

const secret = "s3cr3t-Wort"

// everyFace is all that can be seen of a thing by printing and logging it.
func everyFace(v any) string {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%v %+v %#v %s", v, v, v, v)
	if err, ok := v.(error); ok {
		p := problem.As(err)
		fmt.Fprintf(&b, " %s %s %s %s %+v", err.Error(), p.Text, p.Hint, p.Subject, p)
		for e := err; e != nil; e = errors.Unwrap(e) {
			fmt.Fprintf(&b, " %v", e)
		}
	}
	slog.New(slog.NewTextHandler(&b, nil)).Info("x", "v", v)
	slog.New(slog.NewJSONHandler(&b, nil)).Info("x", "v", v)
	_ = json.NewEncoder(&b).Encode(v)
	return b.String()
}

func TestPasswordNeverShows(t *testing.T) {
	for _, dsn := range []string{
		"postgres://u:" + secret + "@h:1/db?sslmode=disable",
		"host=h user=u password=" + secret + " dbname=db",
		"host=h user=u password='" + secret + "' dbname=db options='-c work_mem=1MB'",
		"postgres://u@h/db?password=" + secret,
		// Not right:
		"postgres://u:" + secret + "%zz@h/db",
		"postgres://u:" + secret + "@h:port/db",
		"postgres://u:1/" + secret + "@h/db",
		"postgres://u:1?" + secret + "@h/db",
		"postgres://u:1#" + secret + "@h/db",
		"postgresql://u:/" + secret + "@h/db",
		"host=h password='" + secret,
		"host=h password=" + secret + " " + secret,
		"host=h password=" + secret + " sslmode=wrong",
		"host=h password=" + secret + " connect_timeout=x",
		"host=h password=" + secret + " sslmode=verify-full sslrootcert=/does/not/exist",
		secret,
	} {
		d, err := pg.ParseDSN(dsn)
		if err != nil {
			if problem.CodeOf(err) != "dsn_invalid" || problem.KindOf(err) != problem.Invalid {
				t.Errorf("%s: %v", dsn, problem.As(err))
			}
			if seen := everyFace(err); strings.Contains(seen, secret) {
				t.Errorf("%s: the error shows the password: %s", dsn, seen)
			}
			continue
		}
		for _, d := range []*pg.DSN{d, d.WithDatabase("other")} {
			if seen := everyFace(d) + everyFace(*d) + d.Address() + d.User() + d.Database(); strings.Contains(seen, secret) {
				t.Errorf("%s: the password is seen: %s", dsn, seen)
			}
		}
	}
}

func TestMissingCertificateIsNamed(t *testing.T) {
	_, err := pg.ParseDSN("host=h sslmode=verify-full sslrootcert=/does/not/exist")
	if err == nil || !strings.Contains(err.Error(), "/does/not/exist") {
		t.Fatalf("%v", err)
	}
}

func TestConnectErrorsHideThePassword(t *testing.T) {
	s := pgtest.Shared(t)
	pgtest.Exec(t, s.DSN("postgres"), `CREATE ROLE somebody SUPERUSER LOGIN PASSWORD '`+secret+`'`)
	t.Cleanup(func() { pgtest.Exec(t, s.DSN("postgres"), `DROP ROLE somebody`) })
	user := fmt.Sprintf("%s:%s@", "nobody", secret)
	closed := net.JoinHostPort("127.0.0.1", strconv.Itoa(pgtest.FreePort()))
	for name, want := range map[string]string{
		"postgres://" + user + "127.0.0.1:" + strconv.Itoa(s.Port) + "/postgres?sslmode=disable":    "login_refused",
		"postgres://" + user + closed + "/postgres?sslmode=disable":                                 "connection_lost",
		"postgres://" + user + "no-such-host.invalid/postgres":                                      "connection_lost",
		"postgres://somebody:" + secret + "@127.0.0.1:" + strconv.Itoa(s.Port) + "/nothere":         "database_missing",
		"postgres://somebody:" + secret + "@127.0.0.1:" + strconv.Itoa(s.Port) + "/template0":       "database_closed",
		"postgres://somebody:" + secret + "@127.0.0.1:" + strconv.Itoa(s.Port) + "/p?work_mem=abcd": "",
	} {
		d := parse(t, name)
		_, err := d.Connect(testContext(t), pg.Session{Name: "x"})
		_, err2 := d.ConnectReplication(testContext(t), pg.Session{Name: "x"})
		for _, err := range []error{err, err2} {
			if err == nil || want != "" && problem.CodeOf(err) != want {
				t.Errorf("%s: %v, want %s", d, problem.CodeOf(err), want)
			}
			if strings.Contains(everyFace(err), secret) {
				t.Errorf("%s: the error shows the password: %v", d, err)
			}
		}
		if want == "database_missing" && !pg.IsUnknownDatabase(err) {
			t.Errorf("IsUnknownDatabase(%v)", err)
		}
	}
}

func TestClassify(t *testing.T) {
	server := func(code, message string) error {
		return fmt.Errorf("outer: %w", &pgconn.PgError{Code: code, Message: message})
	}
	known := problem.New(problem.Diverged, "x", "y")
	for _, c := range []struct {
		err  error
		kind problem.Kind
		code string
	}{
		{server("28P01", ""), problem.Unauthorised, "login_refused"},
		{server("28000", ""), problem.Unauthorised, "login_refused"},
		{server("3D000", ""), problem.NotFound, "database_missing"},
		{server("08P01", "unsupported startup parameter: xmloption"), problem.Invalid, "address_pooled"},
		{server("42501", ""), problem.Unauthorised, "privilege_missing"},
		{server("53100", ""), problem.Transient, "disk_full"},
		{server("53300", ""), problem.Transient, "connections_used_up"},
		{server("53400", "all replication slots are in use"), problem.Resource, "slots_used_up"},
		{server("53400", "something else"), problem.Transient, "server_unavailable"},
		{server("53200", ""), problem.Transient, "server_unavailable"},
		{server("55P03", ""), problem.Transient, "lock_not_available"},
		{server("55006", ""), problem.Transient, "object_in_use"},
		{server("57014", ""), problem.Transient, "statement_cancelled"},
		{server("40001", ""), problem.Transient, "serialization_failure"},
		{server("40P01", ""), problem.Transient, "serialization_failure"},
		{server("XX000", "cache lookup failed for publication 17697"), problem.Transient, "serialization_failure"},
		{server("XX000", "tuple concurrently updated"), problem.Transient, "serialization_failure"},
		{server("XX000", "invalid page in block 1"), problem.Internal, "server_error"},
		{server("57P01", ""), problem.Transient, "server_unavailable"},
		{server("57P03", ""), problem.Transient, "server_unavailable"},
		{server("08006", ""), problem.Transient, "server_unavailable"},
		{server("58030", ""), problem.Transient, "server_system_error"},
		{server("42P01", ""), problem.Internal, "server_error"},
		{context.Canceled, problem.Cancelled, "cancelled"},
		{context.DeadlineExceeded, problem.Transient, "connection_lost"},
		{io.ErrUnexpectedEOF, problem.Transient, "connection_lost"},
		{&net.OpError{Op: "read", Err: syscall.ECONNRESET}, problem.Transient, "connection_lost"},
		{pgx.ErrNoRows, problem.Internal, "answer_unexpected"},
		{pgx.ScanArgError{Err: io.EOF}, problem.Internal, "answer_unexpected"},
		{known, problem.Diverged, "x"},
	} {
		err := pg.Classify(c.err, "do it")
		if problem.KindOf(err) != c.kind || problem.CodeOf(err) != c.code {
			t.Errorf("%v: %s %s, want %s %s", c.err, problem.KindOf(err), problem.CodeOf(err), c.kind, c.code)
		}
		if pg.SQLState(err) != pg.SQLState(c.err) || pg.SQLState(err) == "" && !errors.Is(err, c.err) {
			t.Errorf("%v: the cause is lost", c.err)
		}
		if err != known && !strings.HasPrefix(err.Error(), "do it") {
			t.Errorf("%v does not say what was being done", err)
		}
	}
	used := problem.As(pg.Classify(server("55006", `Replikations-Slot »x« ist aktiv für PID 4711`), "read the slot"))
	if !strings.Contains(used.Hint, "pg_terminate_backend(4711)") {
		t.Errorf("the hint does not say who has it: %s", used.Hint)
	}
	if pg.Classify(nil, "x") != nil {
		t.Error("no error became one")
	}
}

func TestErrorsHoldNoRowValues(t *testing.T) {
	s := pgtest.Shared(t)
	conn := connect(t, s.DSN(s.Database(t)), pg.Session{Name: "test"})
	exec(t, conn, `SET search_path = public; CREATE TABLE t (id int PRIMARY KEY, name text CHECK (name <> 'Geheimrat')); INSERT INTO t VALUES (1, 'Geheim')`)
	for _, sql := range []string{
		`INSERT INTO t VALUES (2, 'Geheimrat')`,
		`INSERT INTO t SELECT id, 'Geheim' FROM t`,
		`SELECT 'Geheim'::int`,
		`SELECT (name || '.01.2020')::timestamp FROM t`,
		`SELECT ('{"a": Geheim')::json`,
	} {
		_, err := conn.Exec(testContext(t), sql)
		if err = pg.Classify(err, "do it"); err == nil || strings.Contains(err.Error(), "Geheim") || strings.Contains(problem.As(err).Hint, "Geheim") {
			t.Errorf("%s: %v", sql, err)
		}
	}
}

// TestSeveralHosts connects to a cluster of two, whichever stands first, and to
// its standby alone.
func TestSeveralHosts(t *testing.T) {
	primary := pgtest.Start(t)
	const plain = "of letters" // for strings that are put together here
	pgtest.Exec(t, primary.DSN("postgres"), `CREATE ROLE several SUPERUSER LOGIN PASSWORD '`+plain+`'`)
	standby := startStandby(t, primary) // has the role from the start
	cluster := func(ports string) string {
		return "host=127.0.0.1,127.0.0.1 port=" + ports + " user=several password='" + plain + "' dbname=postgres"
	}
	for _, ports := range []string{
		fmt.Sprintf("%d,%d", primary.Port, standby), fmt.Sprintf("%d,%d", standby, primary.Port),
	} {
		d := parse(t, cluster(ports))
		conn, err := d.Connect(testContext(t), pg.Session{Name: "test"})
		if err != nil {
			t.Fatal(err)
		}
		if got := value(t, conn, `SELECT current_setting('port')`); got != strconv.Itoa(primary.Port) {
			t.Errorf("of %s the one with port %s was chosen", ports, got)
		}
		conn.Close(context.Background())
		raw, err := d.ConnectReplication(testContext(t), pg.Session{Name: "test"})
		if err != nil {
			t.Fatal(err)
		}
		raw.Close(context.Background())
	}
	// One host named alone is taken as it is, with and without fallbacks of TLS.
	for _, mode := range []string{"disable", "prefer"} {
		conn := connect(t, fmt.Sprintf("host=127.0.0.1 port=%d user=several password='%s' dbname=postgres sslmode=%s", standby, plain, mode), pg.Session{Name: "test"})
		if value(t, conn, `SELECT pg_is_in_recovery()::text`) != "true" {
			t.Error("not the standby")
		}
	}
	primary.Stop()
	_, err := parse(t, cluster(fmt.Sprintf("%d,%d", standby, primary.Port))).
		Connect(testContext(t), pg.Session{Name: "test"})
	if problem.KindOf(err) != problem.Transient {
		t.Errorf("no member accepts writes: %v", err)
	}
}

// startStandby copies the primary and runs the copy as its hot standby.
func startStandby(t *testing.T, primary *pgtest.Server) int {
	t.Helper()
	binaries, err := instance.FindBinaries(primary.Major)
	if err != nil {
		t.Fatal(err)
	}
	dir := pgtest.Dir(t)
	port := pgtest.FreePort()
	data := filepath.Join(dir, "standby")
	// The owner of the primary's files owns the copy.
	info, err := os.Stat(primary.DataDir())
	if err != nil {
		t.Fatal(err)
	}
	owner := info.Sys().(*syscall.Stat_t)
	if err := os.Chown(dir, int(owner.Uid), int(owner.Gid)); err != nil {
		t.Fatal(err)
	}
	basebackup, _, err := instance.FindClient("pg_basebackup", primary.Major)
	if err != nil {
		t.Fatal(err)
	}
	ctl := filepath.Join(binaries.Dir, "pg_ctl")
	run := func(program string, args ...string) {
		t.Helper()
		cmd := osexec.Command(program, args...)
		cmd.Dir = dir
		if os.Geteuid() == 0 {
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: owner.Uid, Gid: owner.Gid}}
			cmd.Env = append(os.Environ(), "HOME="+dir) // root's is closed to it
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", program, err, out)
		}
	}
	run(basebackup, "-d", pgtest.Conninfo("postgres", primary), "-D", data, "-X", "stream", "-c", "fast", "-R")
	run(ctl, "-D", data, "-w", "-l", filepath.Join(dir, "log"), "-o", fmt.Sprintf("-p %d -k %s -c listen_addresses=127.0.0.1", port, dir), "start")
	t.Cleanup(func() { run(ctl, "-D", data, "-m", "immediate", "stop") })
	return port
}
