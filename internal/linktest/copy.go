package linktest

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/client"
	"github.com/twinspan/twinspan/internal/config"
	"github.com/twinspan/twinspan/internal/pgtest"
	"github.com/twinspan/twinspan/internal/setup"
)

// Copy returns a side that has a copy of the agent's directory, as somebody makes one with
// cp, but for the address at which it listens. Its agent is not started.
func (s *Side) Copy(t testing.TB) *Side {
	t.Helper()
	return s.copied(t, func(dir config.Dir) {
		if err := os.MkdirAll(dir.Path(), 0o755); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("cp", "-a", s.Dir.Identity(), s.Dir.Peers(), dir.Path()).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	})
}

// copied makes a side with the same server, and another directory, which fill fills.
func (s *Side) copied(t testing.TB, fill func(config.Dir)) *Side {
	t.Helper()
	dir, err := config.OpenDir(filepath.Join(pgtest.Dir(t), fmt.Sprintf("%s-%d", s.Name, pgtest.FreePort())))
	if err != nil {
		t.Fatal(err)
	}
	fill(dir)
	c, err := s.Dir.Load()
	if err != nil {
		t.Fatal(err)
	}
	c.Endpoint.Listen = fmt.Sprintf("127.0.0.1:%d", pgtest.FreePort())
	c.Endpoint.Advertise = c.Endpoint.Listen
	if err := dir.Create(); err != nil {
		t.Fatal(err)
	}
	if err := config.WriteNew(dir.File(), config.Render(c)); err != nil {
		t.Fatal(err)
	}
	return s.in(t, dir)
}

func (s *Side) in(t testing.TB, dir config.Dir) *Side {
	t.Helper()
	other := &Side{Name: s.Name, Server: s.Server, Dir: dir, Program: s.Program, endpoint: fmt.Sprintf("127.0.0.1:%d", pgtest.FreePort()), t: t}
	var err error
	if other.Client, err = client.New(client.Dial{Socket: dir.Socket()}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(other.Client.Close)
	t.Cleanup(func() {
		other.racing()
		if t.Failed() {
			other.dump()
		}
	})
	return other
}

// Signal sends the agent's process a signal.
func (s *Side) Signal(signal os.Signal) {
	s.t.Helper()
	if err := s.process.Process.Signal(signal); err != nil {
		s.t.Fatal(err)
	}
}

// AwaitAlone waits until no session of an agent is left on the side's server. Those of a process that
// was killed end when the server has seen that its end of the connection is gone.
func (s *Side) AwaitAlone(t testing.TB) {
	t.Helper()
	pgtest.Await(t, Patience, "the sessions of the agent that was beside "+s.Name+" end", func() error {
		left, err := pgtest.Try(t.Context(), s.Server.DSN("postgres"), `SELECT datname, application_name FROM pg_stat_activity WHERE application_name LIKE 'twinspan/%'`)
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("%v", left)
		}
		return err
	})
}

// Adopted returns a side whose agent takes the place of this one's, which has ended, beside the same
// server, in a new directory: the other one's is neither read nor needed. Its agent is not started.
func (s *Side) Adopted(t testing.TB) (*Side, api.Initialised) {
	t.Helper()
	s.AwaitAlone(t)
	other, made, err := s.TryAdopt(t, setup.AnyAgent)
	if err != nil {
		t.Fatalf("adopt: %v", err)
	}
	return other, made
}

// TryAdopt is Adopted for an agent of an id, where it may be refused.
func (s *Side) TryAdopt(t testing.TB, agent string) (*Side, api.Initialised, error) {
	t.Helper()
	other := s.Beside(t)
	made, err := other.Adopt(t, s.Server.AgentDSN(), agent)
	return other, made, err
}

// Beside returns a side with the same server and an empty directory.
func (s *Side) Beside(t testing.TB) *Side {
	t.Helper()
	dir, err := config.OpenDir(filepath.Join(pgtest.Dir(t), fmt.Sprintf("%s-%d", s.Name, pgtest.FreePort())))
	if err != nil {
		t.Fatal(err)
	}
	return s.in(t, dir)
}

// Adopt is init --adopt in the side's directory.
func (s *Side) Adopt(t testing.TB, dsn, agent string) (api.Initialised, error) {
	t.Helper()
	return setup.Init(t.Context(), setup.Request{Dir: s.Dir, Name: s.Name, DSN: dsn, Endpoint: s.endpoint, Connect: true, Adopt: agent})
}

// adoptVariable tells the test binary to take links over, and how.
const adoptVariable = "TWINSPAN_LINKTEST_ADOPT"

func adopt(text string) int {
	var request setup.Request
	err := json.Unmarshal([]byte(text), &request)
	if err == nil {
		_, err = setup.Init(context.Background(), request)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		return 1
	}
	return 0
}

// Adopting returns a process that is about to do what Adopt does, for a test that kills it.
func (s *Side) Adopting(t testing.TB, agent string) *exec.Cmd {
	t.Helper()
	text, err := json.Marshal(setup.Request{Dir: s.Dir, Name: s.Name, DSN: s.Server.AgentDSN(), Endpoint: s.endpoint, Connect: true, Adopt: agent})
	if err != nil {
		t.Fatal(err)
	}
	process := exec.Command(os.Args[0])
	process.Env = append(os.Environ(), adoptVariable+"="+string(text))
	process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return process
}
