// Package instance runs a PostgreSQL server that the agent owns: it makes the
// data directory, starts the server as a child, watches it, restarts it after a
// crash and stops it. It knows nothing of links.
//
// A managed server outlives an agent that was killed: the database goes on
// serving its clients, and the agent that comes next takes it over (see Run).
// That is why the child is given no parent-death signal unless DieWithParent
// asks for it, as tests and demonstrations do.
package instance

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/twinspan/twinspan/internal/problem"
)

// Superuser is the role that Init makes and DSN logs in as.
const Superuser = "postgres"

// Server is one managed server. The exported fields are set before the first
// call and not changed afterwards. A Server is run once.
//
// Its directory holds
//
//	data/                the data directory, owned by the server's user
//	run/                 the Unix socket, for the server's user and root only
//	superuser-password   the superuser's password for TCP, mode 0600
//	server.log           what the server says before its own log begins (LogFile)
//	lock                 held by the process that supervises it
type Server struct {
	Dir      string            // absolute; required
	Data     string            // the data directory; empty: data/ in Dir. Another program that makes it needs one whose parent is the server's user's
	Binaries Binaries          // zero: of the data directory's version, or the newest
	Port     int               // zero: 5432
	Listen   string            // listen_addresses; empty: 127.0.0.1
	Socket   string            // directory of the Unix socket, for the server's user alone; empty: run/ in Dir
	Private  bool              // no TCP: the Unix socket alone
	Settings map[string]string // over the defaults; see settings.go. Apply changes them
	Log      *slog.Logger      // nil: silent
	RunAs    string            // user to run as when this process is root; empty: postgres, else nobody

	HBA           string        // pg_hba.conf in place of the default: trust on the socket, scram on TCP
	TLS           bool          // Init makes a certificate, and clients may use TLS (ssl = on)
	InitdbArgs    []string      // more arguments for initdb, after those of Init
	NoRestart     bool          // Run returns when the server ends by itself
	DieWithParent bool          // the server ends at once when this process is killed (Linux)
	StopTimeout   time.Duration // after which a fast shutdown becomes an immediate one; zero: a minute

	mu      sync.Mutex
	changed chan struct{} // closed and replaced when what follows changes
	pid     int           // of the postmaster while it accepts sessions
	ended   bool          // Run returned
	err     error         // what Run returned
	restart bool          // Restart waits for the server to be shut down
	failed  error         // why the last start failed, since Restart was called
	group   string        // the control group that does, "" for none
}

// DataDir returns the data directory.
func (s *Server) DataDir() string { return cmp.Or(s.Data, filepath.Join(s.Dir, "data")) }

// passwordFile holds the superuser's password.
func (s *Server) passwordFile() string { return filepath.Join(s.Dir, "superuser-password") }

// maxSocketPath is what fits into sockaddr_un.sun_path with its zero byte.
const maxSocketPath = 107

// socketDir returns the directory of the Unix socket, or "" when its path would
// be too long for a socket, or has a comma, which in a connection string parts
// hosts; the server then listens on TCP alone.
func (s *Server) socketDir() string {
	dir := cmp.Or(s.Socket, filepath.Join(s.Dir, "run"))
	if len(filepath.Join(dir, ".s.PGSQL.65535")) > maxSocketPath || strings.Contains(dir, ",") {
		return ""
	}
	return dir
}

func (s *Server) port() int {
	if s.Port == 0 {
		return 5432
	}
	return s.Port
}

func (s *Server) listen() string {
	switch {
	case s.Private:
		return ""
	case s.Listen == "":
		return "127.0.0.1"
	}
	return s.Listen
}

func (s *Server) log() *slog.Logger {
	if s.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return s.Log
}

// DSN returns the connection string of the superuser to the database postgres:
// over the Unix socket, or over TCP with the password where the path is too long
// for a socket. It may hold a secret.
func (s *Server) DSN() string {
	host, secret := s.socketDir(), ""
	if host == "" {
		host = dialHost(s.listen())
		if password, err := s.Password(); err == nil {
			secret = " password=" + quoteDSN(password)
		}
	}
	return fmt.Sprintf("host=%s port=%d user=%s%s dbname=postgres sslmode=disable", quoteDSN(host), s.port(), Superuser, secret)
}

// Password returns the superuser's password for connections over TCP.
func (s *Server) Password() (string, error) {
	text, err := os.ReadFile(s.passwordFile())
	if err != nil {
		return "", problem.Wrap(err, problem.NotFound, "password_missing", "the superuser's password cannot be read").
			WithHint("run as the user that made the instance")
	}
	return strings.TrimSpace(string(text)), nil
}

// dialHost is where a server with these listen_addresses is reached from here.
func dialHost(listen string) string {
	first, _, _ := strings.Cut(listen, ",")
	switch first = strings.TrimSpace(first); first {
	case "*", "0.0.0.0", "":
		return "127.0.0.1"
	case "::":
		return "::1"
	}
	return first
}

func quoteDSN(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
}

// PID returns the postmaster's process id while the server accepts sessions,
// else 0.
func (s *Server) PID() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pid
}

// WaitReady waits until the server accepts sessions. It returns Run's error,
// or a problem with the code server_stopped, when Run returns before that.
func (s *Server) WaitReady(ctx context.Context) error {
	for {
		s.mu.Lock()
		pid, ended, err, changed := s.pid, s.ended, s.err, s.watch()
		s.mu.Unlock()
		switch {
		case pid != 0:
			return nil
		case ended && err != nil:
			return err
		case ended:
			return problem.New(problem.Cancelled, "server_stopped", "the server was stopped")
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return problem.As(ctx.Err())
		}
	}
}

// watch returns the channel that closes at the next change; s.mu is held.
func (s *Server) watch() chan struct{} {
	if s.changed == nil {
		s.changed = make(chan struct{})
	}
	return s.changed
}

func (s *Server) update(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
	close(s.watch())
	s.changed = nil
}

// prepare completes the fields and checks what must hold before anything runs.
func (s *Server) prepare() (account, error) {
	if !filepath.IsAbs(s.Dir) {
		return account{}, problem.New(problem.Invalid, "server_dir_invalid", "the server's directory %q is not absolute", s.Dir).
			WithHint("name it with its full path")
	}
	owner, err := runAs(s.RunAs)
	if err != nil {
		return account{}, err
	}
	version, err := s.dataVersion()
	if err != nil {
		return account{}, err
	}
	if s.Binaries.Dir == "" {
		if s.Binaries, err = FindBinaries(version); err != nil {
			return account{}, err
		}
	}
	if version != 0 && version != s.Binaries.Major {
		return account{}, problem.New(problem.Incompatible, "data_version_mismatch",
			"the data directory is of PostgreSQL %d, the programs in %s of %d", version, s.Binaries.Dir, s.Binaries.Major).On(s.DataDir()).
			WithHint("use the programs of PostgreSQL %d, for instance with %s=/usr/lib/postgresql/%d/bin", version, BinariesEnv, version)
	}
	if dir := owner.barrier(s.Binaries.Dir); dir != "" {
		return account{}, unreachable(owner, dir)
	}
	return owner, nil
}

func unreachable(owner account, dir string) error {
	who := "this user"
	if owner.name != "" {
		who = "the user " + owner.name
	}
	return problem.New(problem.Unauthorised, "server_dir_unreachable", "%s, as whom the server runs, cannot enter %s", who, dir).On(dir).
		WithHint("let others pass it (chmod o+x %s), or choose another directory", dir)
}

// dataVersion returns the major version of the data directory, 0 when there is
// none yet.
func (s *Server) dataVersion() (int, error) {
	text, err := os.ReadFile(filepath.Join(s.DataDir(), "PG_VERSION"))
	if os.IsNotExist(err) {
		return 0, nil
	}
	if err != nil {
		return 0, problem.Wrap(err, problem.Unauthorised, "data_dir_unreadable", "the data directory cannot be read").On(s.DataDir()).
			WithHint("run as the user that made it, or as root")
	}
	major, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0, problem.New(problem.Incompatible, "data_version_mismatch", "the data directory's PG_VERSION cannot be read").On(s.DataDir()).
			WithHint("PostgreSQL 10 and newer can be managed; restore the data directory otherwise")
	}
	return major, nil
}

// lock makes this process the only one that supervises the server. The lock
// goes with the process; children do not inherit it.
func (s *Server) lock() (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(s.Dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, problem.Wrap(err, problem.Unauthorised, "server_dir_unwritable", "the server's directory cannot be written").On(s.Dir).
			WithHint("run as the user that made it, or as root")
	}
	// A child that this process is just starting holds a copy of every open file until it
	// has become another program, and with it a lock that was given up meanwhile.
	deadline := time.Now().Add(lockPatience)
	for syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		if time.Now().After(deadline) {
			f.Close()
			return nil, problem.New(problem.Conflict, "server_supervised", "another process supervises this server already").On(s.Dir).
				WithHint("stop the other agent first")
		}
		time.Sleep(10 * time.Millisecond)
	}
	return f, nil
}
