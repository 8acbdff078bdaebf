package linktest

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/twinspan/twinspan/internal/config"
	"github.com/twinspan/twinspan/internal/instance"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// HaveBackups says whether there is a pgBackRest, and in the test's log where there is none.
func HaveBackups(t testing.TB) bool {
	t.Helper()
	if len(instance.Programs("pgbackrest")) == 0 {
		t.Log("nothing was tested: pgBackRest is not here, and scripts/ensure-pgbackrest cannot fetch it on this system")
		return false
	}
	return true
}

// Managed makes an agent with a managed server, in a directory whose name is odd, and starts it. Server is nil:
// use DSN.
func Managed(t testing.TB, name string, change func(*config.Config)) *Side {
	t.Helper()
	return ManagedWith(t, name, nil, change)
}

// ManagedWith is Managed with variables ("NAME=value") in the agent's environment.
func ManagedWith(t testing.TB, name string, env []string, change func(*config.Config)) *Side {
	t.Helper()
	dir, err := config.OpenDir(filepath.Join(pgtest.Dir(t), "a 100% "+name+"'s"))
	if err != nil {
		t.Fatal(err)
	}
	s := &Side{Name: name, Dir: dir, Env: env, t: t}
	c := config.Config{Name: name, Postgres: config.Postgres{Managed: true, Port: pgtest.FreePort()}}
	c.Endpoint.Listen = fmt.Sprintf("127.0.0.1:%d", pgtest.FreePort())
	c.Endpoint.Advertise = c.Endpoint.Listen
	if change != nil {
		change(&c)
	}
	s.settle(c)
	t.Cleanup(s.endServer)
	s.Start()
	return s
}

// DSN returns the superuser's connection string to a database of a managed server.
func (s *Side) DSN(database string) string {
	s.t.Helper()
	c, err := s.Dir.Load()
	if err != nil {
		s.t.Fatal(err)
	}
	server := &instance.Server{Dir: s.Dir.Instance(), Port: c.Postgres.Port}
	before, _, _ := strings.Cut(server.DSN(), " dbname=")
	return before + " dbname='" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(database) + "' sslmode=disable"
}

// endServer ends a managed server that an agent left which was killed, and waits for it.
func (s *Side) endServer() {
	pid := Postmaster(filepath.Join(s.Dir.Instance(), "data"))
	if pid == 0 {
		return
	}
	_ = syscall.Kill(pid, syscall.SIGQUIT)
	pgtest.Await(s.t, Patience, "the managed server ends", func() error {
		if syscall.Kill(pid, 0) == nil {
			return fmt.Errorf("process %d is there", pid)
		}
		return nil
	})
}

// Postmaster returns the process id in a data directory's postmaster.pid, 0 without one.
func Postmaster(data string) int {
	text, err := os.ReadFile(filepath.Join(data, "postmaster.pid"))
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(string(text), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(first))
	if err != nil {
		return 0
	}
	return pid
}
