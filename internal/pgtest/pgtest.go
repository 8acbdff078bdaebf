// Package pgtest gives tests real PostgreSQL servers, databases on them, and
// the means to look at and compare their contents. Only tests import it.
//
// Servers are as users have them (see world.go): TLS and passwords, checksums, an
// agent's role of its own. They are made for speed, not for safety (fsync is off),
// listen on the loopback address, and end with the test binary, also when that is
// killed. As root they run as the user postgres.
package pgtest

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/twinspan/twinspan/internal/instance"
	"github.com/twinspan/twinspan/internal/leaks"
	"github.com/twinspan/twinspan/internal/problem"
)

// patience bounds every wait for a server; machines for tests can be slow.
const patience = 2 * time.Minute

// quitPatience bounds the wait for a server that was told to end at once; it kills its
// processes itself after five seconds.
const quitPatience = 15 * time.Second

// Server is a running PostgreSQL server. Its methods other than DSN and Database
// are for one goroutine at a time.
type Server struct {
	Port  int // on 127.0.0.1; stays the same over Restart
	Major int // 15 for PostgreSQL 15.12

	dir      string
	options  options
	drawn    drawn
	binaries instance.Binaries
	run      *instance.Server
	stop     context.CancelFunc
	done     chan error // receives Run's result
}

type options struct {
	major      int
	dir        string
	settings   map[string]string
	initdbArgs []string
	onDisk     bool
	noTLS      bool
	mayBeOdd   bool
}

// Option changes what Start starts.
type Option func(*options)

// WithMajor asks for a server of a major version.
func WithMajor(major int) Option { return func(o *options) { o.major = major } }

// WithBinaries asks for the server whose programs lie in a directory.
func WithBinaries(dir string) Option { return func(o *options) { o.dir = dir } }

// WithSetting sets a server setting over pgtest's own.
func WithSetting(name, value string) Option {
	return func(o *options) { o.settings[name] = value }
}

// WithInitdbArgs adds arguments to initdb, for instance "--encoding=LATIN1",
// "--locale=C".
func WithInitdbArgs(args ...string) Option {
	return func(o *options) { o.initdbArgs = append(o.initdbArgs, args...) }
}

// OnDisk keeps the server out of memory (see inMemory): for tests with much data.
func OnDisk() Option { return func(o *options) { o.onDisk = true } }

// WithoutTLS leaves the server without a certificate.
func WithoutTLS() Option { return func(o *options) { o.noTLS = true } }

// Start starts a fresh server for this test. It is stopped and removed with it.
func Start(t testing.TB, opts ...Option) *Server {
	t.Helper()
	s, err := create(t.Name(), opts)
	if err != nil {
		t.Fatalf("start a server: %v%s", err, hint(err))
	}
	if s.drawn.any() {
		t.Logf("the server on port %d has %s (%s=%d)", s.Port, s.drawn, SeedEnv, Seed())
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of the server on port %d:\n%s", s.Port, s.logTail())
			s.Stop()
			Keep(t, s.dir)
		}
		s.remove()
	})
	return s
}

func hint(err error) string {
	if h := problem.As(err).Hint; h != "" {
		return " (" + h + ")"
	}
	return ""
}

// sharedServer is the server of the test binary: the one thing here that has
// to outlive a test.
var sharedServer struct {
	sync.Mutex
	server *Server
}

// hasEnd says that Main runs, and will remove what outlives a test.
var hasEnd atomic.Bool

// Shared returns the test binary's own server, started at the first call. Take
// a database of it for each test. The package needs
//
//	func TestMain(m *testing.M) { pgtest.Main(m) }
func Shared(t testing.TB) *Server {
	t.Helper()
	sharedServer.Lock()
	defer sharedServer.Unlock()
	if !hasEnd.Load() {
		t.Fatal("pgtest.Shared needs func TestMain(m *testing.M) { pgtest.Main(m) } in this package")
	}
	if sharedServer.server == nil {
		s, err := create("", nil)
		if err != nil {
			t.Fatalf("start the shared server: %v%s", err, hint(err))
		}
		sharedServer.server = s
	}
	return sharedServer.server
}

// Main runs the tests, stops the shared server, looks for goroutines that were
// left running, but for those to ignore, and exits.
func Main(m *testing.M, ignore ...goleak.Option) {
	hasEnd.Store(true)
	code := m.Run()
	sharedServer.Lock()
	if sharedServer.server != nil {
		sharedServer.server.remove()
		sharedServer.server = nil
	}
	sharedServer.Unlock()
	removePrepared()
	if code != 0 {
		fmt.Fprintf(os.Stderr, "%s=%d\n", SeedEnv, Seed())
	}
	os.Exit(leaks.Code(code, ignore...))
}

// create starts a server, and tries once more when a start took too long.
func create(test string, opts []Option) (*Server, error) {
	s, err := createOnce(test, opts)
	if code := problem.CodeOf(err); err != nil && (code == "timeout" || code == "port_in_use") {
		flaky(test, "start of a server: "+err.Error())
		s, err = createOnce(test, opts)
	}
	return s, err
}

func createOnce(test string, opts []Option) (*Server, error) {
	o := options{settings: map[string]string{}}
	for _, opt := range opts {
		opt(&o)
	}
	nth, _ := ordinals.LoadOrStore(test, new(atomic.Int64))
	random := draws(fmt.Sprint(test, nth.(*atomic.Int64).Add(1)))
	binaries, err := findBinaries(o, random)
	if err != nil {
		return nil, err
	}
	dir, err := makeDir(inMemory(o.onDisk)...)
	if err != nil {
		return nil, err
	}
	s := &Server{Major: binaries.Major, binaries: binaries, dir: dir, options: o}
	if o.mayBeOdd {
		s.drawn = draw(random)
	}
	ctx, stop := context.WithTimeout(context.Background(), patience)
	defer stop()
	if err = s.init(ctx); err == nil {
		// Another process may take the port between the look and the start.
		for range 5 {
			s.Port = FreePort()
			if err = s.start(); problem.CodeOf(err) != "port_in_use" {
				break
			}
		}
	}
	if err == nil {
		err = s.people(ctx)
	}
	if err != nil {
		s.remove()
		return nil, err
	}
	return s, nil
}

// ordinals number the servers of each test.
var ordinals sync.Map

// settings make servers fast and small, with room for links.
func settings(major int) map[string]string {
	m := map[string]string{
		"fsync": "off", "full_page_writes": "off", "max_wal_size": "256MB",
		// In the data directory, so that a killed server leaves none behind.
		"dynamic_shared_memory_type": "mmap", "logging_collector": "off", "log_line_prefix": "%m [%p] %d %a ",
		"shared_buffers": "64MB", "max_connections": "200",
		"wal_level": "logical", "max_replication_slots": "50", "max_wal_senders": "50", "max_prepared_transactions": "20",
	}
	if major >= 18 {
		m["max_active_replication_origins"] = "50"
	}
	return m
}

// prototype returns an instance that has not run yet.
func (s *Server) prototype() *instance.Server {
	all := settings(s.Major)
	maps.Copy(all, s.drawn[atServer])
	maps.Copy(all, s.options.settings)
	if s.drawn.any() {
		oddPorts.Store(s.Port, true)
	}
	return &instance.Server{
		Dir: s.dir, Binaries: s.binaries, Port: s.Port, Settings: all, Log: slog.New(slog.DiscardHandler),
		HBA:        hba,
		InitdbArgs: append([]string{"--no-sync"}, s.options.initdbArgs...), TLS: !s.options.noTLS,
		NoRestart: true, DieWithParent: true, StopTimeout: 20 * time.Second,
	}
}

func (s *Server) start() error {
	ctx, stop := context.WithCancel(context.Background())
	s.run, s.stop, s.done = s.prototype(), stop, make(chan error, 1)
	run, done := s.run, s.done
	go func() { done <- run.Run(ctx) }()
	waitCtx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := run.WaitReady(waitCtx); err != nil {
		stop()
		<-done
		s.run = nil
		return err
	}
	sockets.Store(s.Port, filepath.Join(s.dir, "run"))
	return nil
}

// Stop shuts the server down (fast), if it runs.
func (s *Server) Stop() {
	if s.run == nil {
		return
	}
	s.stop()
	<-s.done
	s.run = nil
}

// Restart stops the server if it runs and starts it on the same port. After Kill
// it recovers as after a crash.
func (s *Server) Restart() {
	s.Stop()
	if err := s.start(); err != nil {
		panic(fmt.Sprintf("restart of a server: %v\n%s", err, s.logTail()))
	}
}

// quit has the server end without a checkpoint. One that does not answer is killed.
func (s *Server) quit() {
	if s.run == nil || s.run.PID() == 0 {
		s.Stop() // what did not start, or has ended by itself
		return
	}
	_ = syscall.Kill(s.run.PID(), syscall.SIGQUIT)
	select {
	case <-s.done:
		s.stop()
		s.run = nil
	case <-time.After(quitPatience):
		s.Kill()
	}
}

// Kill ends the postmaster and all its children with SIGKILL, as the crash of a
// machine would, and returns when they are gone.
func (s *Server) Kill() {
	if s.run == nil {
		return
	}
	pid := s.run.PID()
	segment := s.sharedMemory()
	// A stopped postmaster makes no new children between the look and the kill.
	_ = syscall.Kill(pid, syscall.SIGSTOP)
	for _, child := range childrenOf(pid) {
		_ = syscall.Kill(child, syscall.SIGKILL)
	}
	_ = syscall.Kill(pid, syscall.SIGKILL)
	<-s.done
	s.stop()
	s.run = nil
	if segment >= 0 {
		_, _ = unix.SysvShmCtl(segment, unix.IPC_RMID, nil)
	}
}

// sharedMemory returns the System V segment by which a server marks its data
// directory as in use (src/include/utils/pidfile.h, line 7), -1 if unknown. It
// would outlive a killed server, though not the crash of a machine.
func (s *Server) sharedMemory() int {
	text, err := os.ReadFile(filepath.Join(s.DataDir(), "postmaster.pid"))
	if lines := strings.Split(string(text), "\n"); err == nil && len(lines) >= 7 {
		if fields := strings.Fields(lines[6]); len(fields) == 2 {
			if id, err := strconv.Atoi(fields[1]); err == nil {
				return id
			}
		}
	}
	return -1
}

// childrenOf lists the processes whose parent is pid (proc(5), stat field 4).
func childrenOf(pid int) []int {
	var children []int
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		// The name in parentheses may hold spaces.
		_, rest, _ := strings.Cut(string(text[strings.LastIndex(string(text), ")")+1:]), " ")
		fields := strings.Fields(rest)
		if len(fields) > 1 && fields[1] == strconv.Itoa(pid) {
			if child, err := strconv.Atoi(filepath.Base(filepath.Dir(path))); err == nil {
				children = append(children, child)
			}
		}
	}
	return children
}

// remove ends the server and removes its directory: nothing has to be written before.
func (s *Server) remove() {
	s.quit()
	_ = os.RemoveAll(s.dir)
}

func (s *Server) logTail() string {
	text, err := os.ReadFile(filepath.Join(s.dir, "server.log"))
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-4000):])
}

// Programs returns the directory of the server's programs.
func (s *Server) Programs() string { return s.binaries.Dir }

// DataDir returns the data directory.
func (s *Server) DataDir() string { return filepath.Join(s.dir, "data") }

// prefix of the directories of servers; the test binary's pid follows.
const prefix = "twinspan-pgtest-"

// makeDir makes a directory that the server's user can reach, also when TMPDIR
// is private to root, and removes what killed test binaries left there.
func makeDir(bases ...string) (string, error) {
	var last error
	for _, base := range append(bases, os.TempDir(), "/tmp", "/var/tmp") {
		if !instance.Reachable(base) {
			continue
		}
		sweep(base)
		dir, err := os.MkdirTemp(base, prefix+strconv.Itoa(os.Getpid())+"-")
		if err == nil {
			return dir, nil
		}
		last = err
	}
	return "", fmt.Errorf("no directory for temporary files that the server's user can reach: %w", last)
}

// inMemory names the directory for servers that is a file system in memory,
// where one with room is. A server consists of a thousand small files; making
// them there took a third of the time (0.34 s for initdb, not 1.0 s), and copying
// a prepared directory on disk took as long as initdb.
func inMemory(onDisk bool) []string {
	const room = 8 << 30
	var stat syscall.Statfs_t
	if err := syscall.Statfs("/dev/shm", &stat); err != nil || onDisk || uint64(stat.Bavail)*uint64(stat.Bsize) < room {
		return nil
	}
	return []string{"/dev/shm"}
}

// Dir makes a directory that the server's user can reach, removed with the test:
// for tests that run servers of their own.
func Dir(t testing.TB) string {
	t.Helper()
	dir, err := makeDir(inMemory(false)...)
	if err == nil {
		err = os.Chmod(dir, 0o711)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func sweep(base string) {
	old, _ := filepath.Glob(filepath.Join(base, prefix+"*"))
	for _, dir := range old {
		text, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), prefix), "-")
		pid, err := strconv.Atoi(text)
		if err == nil && syscall.Kill(pid, 0) == syscall.ESRCH {
			_ = os.RemoveAll(dir)
		}
	}
}

// FreePort finds a port on the loopback address that nobody listens on, and keeps
// every test of this and of other processes from finding it as well, as long as the
// process lives: whom it is for may be down for a while. It is below the range from
// which systems take the ports of outgoing connections.
func FreePort() int {
	for {
		port := 15000 + rand.IntN(17000)
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		claim, err := net.ListenPacket("udp", address) // of no use to anybody else
		if err != nil {
			continue
		}
		l, err := net.Listen("tcp", address)
		if err != nil {
			claim.Close()
			continue
		}
		l.Close()
		claims.Lock()
		claims.held = append(claims.held, claim)
		claims.Unlock()
		return port
	}
}

// claims are the ports that FreePort gave. They are held here, for a socket that
// nothing refers to is closed.
var claims struct {
	sync.Mutex
	held []net.PacketConn
}
