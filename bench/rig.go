package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/twinspan/twinspan/internal/instance"
	"github.com/twinspan/twinspan/internal/pg"
)

// rig is what all cases share: two servers, the program, a directory.
type rig struct {
	options
	dir       string
	program   string // the twinspan built from this tree
	a, b      *server
	major     int               // of both servers; 0 is the newest that is installed
	pglogical bool              // its library is loaded, if it is there
	optional  map[string]string // program or extension to why it is missing, empty when it is there
	notes     io.Writer
}

// server is a running PostgreSQL.
type server struct {
	*instance.Server
	name     string
	password string
	stop     context.CancelFunc
	ended    chan error
}

// settings are realistic ones: everything durable, nothing that runs in the
// middle of a case on its own.
var settings = map[string]string{
	"shared_buffers":                      "512MB",
	"fsync":                               "on",
	"autovacuum":                          "off",
	"checkpoint_timeout":                  "1h",
	"max_wal_size":                        "24GB",
	"min_wal_size":                        "4GB",
	"maintenance_work_mem":                "256MB",
	"max_worker_processes":                "40",
	"max_logical_replication_workers":     "20",
	"max_sync_workers_per_subscription":   "4",
	"wal_retrieve_retry_interval":         "100ms", // a resumed subscription is not to wait for it
	"max_replication_slots":               "40",
	"max_wal_senders":                     "40",
	"max_connections":                     "100",
	"wal_sender_timeout":                  "5min",
	"wal_receiver_timeout":                "5min",
	"log_min_messages":                    "warning",
	"max_slot_wal_keep_size":              "-1",
	"idle_in_transaction_session_timeout": "0",
}

func newRig(ctx context.Context, o options, major int, pglogical bool) (r *rig, err error) {
	r = &rig{options: o, major: major, pglogical: pglogical, notes: os.Stderr, optional: map[string]string{}}
	if r.dir, err = makeDir(o.dir); err != nil {
		return nil, err
	}
	made := r
	defer func() {
		if err != nil {
			err = errors.Join(err, made.close())
		}
	}()
	r.program = filepath.Join(r.dir, "twinspan")
	r.say("building twinspan")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", r.program, "github.com/twinspan/twinspan/cmd/twinspan").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build twinspan: %w\n%s", err, out)
	}
	r.say("starting two servers in %s", r.dir)
	if r.a, err = r.startServer(ctx, "a"); err != nil {
		return nil, err
	}
	if r.b, err = r.startServer(ctx, "b"); err != nil {
		return nil, err
	}
	return r, nil
}

// makeDir makes a directory that the servers' user can enter.
func makeDir(base string) (string, error) {
	if base == "" {
		base = os.TempDir()
		if !instance.Reachable(base) {
			base = "/tmp"
		}
	}
	dir, err := os.MkdirTemp(base, "twinspan-bench-")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	return dir, err
}

func (r *rig) startServer(ctx context.Context, name string) (*server, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	s := &server{name: name, ended: make(chan error, 1), Server: &instance.Server{
		Dir: filepath.Join(r.dir, name), Port: port, Settings: map[string]string{}, TLS: true, NoRestart: true, DieWithParent: true, StopTimeout: 20 * time.Second,
	}}
	for k, v := range settings {
		s.Settings[k] = v
	}
	if s.Binaries, err = instance.FindBinaries(r.major); err != nil {
		return nil, err
	}
	// The programs beside the server's: the directory may hold links to it alone.
	if real, err := filepath.EvalSymlinks(s.Binaries.Path("postgres")); err == nil {
		s.Binaries.Dir = filepath.Dir(real)
	}
	r.lookFor(s.Binaries)
	if r.pglogical && r.optional["pglogical"] == "" {
		s.Settings["shared_preload_libraries"] = "pglogical"
	}
	if err := s.Init(ctx); err != nil {
		return nil, err
	}
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.stop = stop
	go func() { s.ended <- s.Run(life) }()
	if err := s.WaitReady(ctx); err != nil {
		stop()
		return nil, errors.Join(err, <-s.ended)
	}
	s.password, err = s.Password()
	return s, err
}

// program is the path of a client program: the server's own, or the newest where that came
// without it.
func (s *server) program(name string) string {
	own := s.Binaries.Path(name)
	if _, err := os.Stat(own); err != nil {
		if other, _, err := instance.FindClient(name, 0); err == nil {
			return other
		}
	}
	return own
}

// lookFor notes which of the peers are installed.
func (r *rig) lookFor(b instance.Binaries) {
	r.optional["pglogical"] = fmt.Sprintf("not installed (apt-get install postgresql-%d-pglogical)", b.Major)
	out, err := exec.Command(b.Path("pg_config"), "--pkglibdir").Output()
	lib := strings.TrimSpace(string(out))
	if err != nil {
		lib = filepath.Join(filepath.Dir(b.Dir), "lib")
	}
	if _, err := os.Stat(filepath.Join(lib, "pglogical.so")); err == nil {
		r.optional["pglogical"] = ""
	}
	r.optional["pgcopydb"] = "not installed (apt-get install pgcopydb)"
	if _, err := exec.LookPath("pgcopydb"); err == nil {
		r.optional["pgcopydb"] = ""
	}
}

// close stops what runs and removes the directory.
func (r *rig) close() error {
	var all []error
	var wait sync.WaitGroup
	for _, s := range []*server{r.a, r.b} {
		if s == nil {
			continue
		}
		s.stop()
		wait.Go(func() { <-s.ended })
	}
	wait.Wait()
	return errors.Join(append(all, os.RemoveAll(r.dir))...)
}

func (r *rig) say(format string, args ...any) {
	fmt.Fprintf(r.notes, "%s  %s\n", time.Now().Format(time.TimeOnly), fmt.Sprintf(format, args...))
}

func (r *rig) asked(list []string, name string) bool { return slices.Contains(list, name) }

// amount scales a number.
func (r *rig) amount(n int) int { return max(1, int(float64(n)*r.scale)) }

// way is how a server is reached.
type way string

const (
	overSocket way = "socket"
	overTLS    way = "tls"
	overTCP    way = "tcp" // without TLS
)

// over is how everybody reaches the servers.
func (r *rig) over() way {
	if r.tls {
		return overTLS
	}
	return overTCP
}

// overSource is how everybody reads the source.
func (r *rig) overSource() way {
	if r.socket {
		return overSocket
	}
	return r.over()
}

// plain ends the name of who takes part once more, without TLS.
const plain = "-plain"

// twice says whether who shows what TLS costs takes part with it and without.
func (r *rig) twice() bool { return r.overSource() == overTLS }

// sslmode is libpq's word for the way.
func (w way) sslmode() string {
	if w == overTLS {
		return "require"
	}
	return "disable"
}

// conninfo is how libpq reaches a database of the server.
func (s *server) conninfo(database string, over way) string {
	host, secret := "127.0.0.1", " password="+s.password
	if over == overSocket {
		host, secret = filepath.Join(s.Dir, "run"), ""
	}
	return fmt.Sprintf("host=%s port=%d user=%s dbname=%s%s sslmode=%s", host, s.Port, instance.Superuser, database, secret, over.sslmode())
}

// noCertificate keeps a server's libpq from looking for a client's certificate in the home
// directory of whoever started it, which it may not enter.
const noCertificate = " sslcert=/nonexistent"

// publisher is how server b's subscriptions reach a database of the source.
func (r *rig) publisher(database string) string {
	return r.a.conninfo(database, r.overSource()) + noCertificate
}

func (s *server) dsn(database string) *pg.DSN {
	dsn, err := pg.ParseDSN(s.DSN())
	if err != nil {
		panic(err) // made by the instance itself
	}
	return dsn.WithDatabase(database)
}

// session is how the benchmark itself speaks with a database.
func session() pg.Session {
	return pg.Session{Name: "bench", Settings: map[string]string{"search_path": "public", "synchronous_commit": "off"}}
}

// exec runs statements in a session of their own.
func (s *server) exec(ctx context.Context, database string, statements ...string) error {
	conn, err := s.dsn(database).Connect(ctx, session())
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	for _, sql := range statements {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return fmt.Errorf("%w\nin: %.300s", err, sql)
		}
	}
	return nil
}

// value runs a query that gives one value.
func value[T any](ctx context.Context, s *server, database, sql string, args ...any) (T, error) {
	var v T
	conn, err := s.dsn(database).Connect(ctx, session())
	if err != nil {
		return v, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if err := conn.QueryRow(ctx, sql, args...).Scan(&v); err != nil {
		return v, fmt.Errorf("%w\nin: %.300s", err, sql)
	}
	return v, nil
}

// command runs a program to its end, killing its whole group when ctx ends, and
// returns the CPU seconds of it and its children.
func command(ctx context.Context, env []string, name string, args ...string) (float64, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	if err != nil {
		return 0, fmt.Errorf("%s: %w\n%s", filepath.Base(name), err, out)
	}
	return (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds(), nil
}

// child starts a program that ends with this one, its output in a file.
func child(log, name string, args ...string) (*exec.Cmd, <-chan struct{}, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, nil, err
	}
	defer out.Close()
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started, ended := make(chan error, 1), make(chan struct{})
	go func() {
		// The parent-death signal comes when the thread that forked ends.
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
			close(ended)
		}
	}()
	return cmd, ended, <-started
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// until polls a condition.
func until(ctx context.Context, every time.Duration, done func() (bool, error)) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if ok, err := done(); ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

func moduleRoot(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}").Output()
	return strings.TrimSpace(string(out)), err
}
