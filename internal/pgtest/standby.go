package pgtest

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/twinspan/twinspan/internal/problem"
)

// Standby starts a streaming standby of the server, which is stopped for the copying
// and started again. name is its application_name. The standby has a slot on the
// server, so that it never loses the log, and ends with the test. Options add to the
// server's.
func (s *Server) Standby(t testing.TB, name string, opts ...Option) *Server {
	t.Helper()
	dir, err := makeDir(inMemory(s.options.onDisk)...)
	if err != nil {
		t.Fatalf("standby: %v", err)
	}
	standby := &Server{Major: s.Major, binaries: s.binaries, dir: dir, options: s.options, drawn: s.drawn}
	standby.options.settings = map[string]string{}
	for k, v := range s.options.settings {
		standby.options.settings[k] = v
	}
	for _, opt := range opts {
		opt(&standby.options)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of the standby on port %d:\n%s", standby.Port, standby.logTail())
		}
		standby.remove()
	})
	Exec(t, s.DSN("postgres"), `SELECT pg_create_physical_replication_slot('`+name+`', true)`)
	s.Stop()
	err = standby.clone(s)
	s.Restart()
	if err != nil {
		t.Fatalf("copy the server for a standby: %v", err)
	}
	if err := standby.follow(s, name); err != nil {
		t.Fatalf("start the standby: %v\n%s", err, standby.logTail())
	}
	return standby
}

// clone copies the data directory of a server that is stopped.
func (s *Server) clone(from *Server) error {
	// init makes what else the server's directory needs, with its owners.
	ctx, stop := context.WithTimeout(context.Background(), patience)
	defer stop()
	if err := s.init(ctx); err != nil {
		return err
	}
	if err := os.RemoveAll(s.DataDir()); err != nil {
		return err
	}
	if out, err := exec.Command("cp", "-a", from.DataDir(), s.DataDir()).CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// follow makes the server a standby of another one, and starts it.
func (s *Server) follow(primary *Server, name string) error {
	s.options.settings["primary_conninfo"] = Conninfo("postgres", primary) + " application_name=" + name
	s.options.settings["primary_slot_name"] = name
	s.options.settings["hot_standby_feedback"] = "on"
	if err := s.settle(); err != nil {
		return err
	}
	var err error
	for range 5 {
		if s.Port == 0 {
			s.Port = FreePort()
		}
		if err = s.start(); problem.CodeOf(err) != "port_in_use" {
			return err
		}
		s.Port = 0
	}
	return err
}

// settle puts the file that makes a standby beside the data, owned as these are.
func (s *Server) settle() error {
	owner, err := os.Stat(s.DataDir())
	if err != nil {
		return err
	}
	path := filepath.Join(s.DataDir(), "standby.signal")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		return err
	}
	return chownLike(path, owner)
}

func chownLike(path string, like fs.FileInfo) error {
	uid, gid, ok := ownerOf(like)
	if !ok || os.Geteuid() != 0 {
		return nil
	}
	return os.Chown(path, uid, gid)
}

// Promote makes a standby a primary, and returns when it accepts writes.
func (s *Server) Promote(t testing.TB) {
	t.Helper()
	Exec(t, s.DSN("postgres"), `SELECT pg_promote(true, 60)`)
	Eventually(t, patience, func() error {
		if in := Query(t, s.DSN("postgres"), `SELECT pg_is_in_recovery()`)[0][0]; in != "f" && in != "false" {
			return fmt.Errorf("still in recovery")
		}
		return nil
	})
}

func ownerOf(info fs.FileInfo) (uid, gid int, ok bool) {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, 0, false
	}
	return int(stat.Uid), int(stat.Gid), true
}
