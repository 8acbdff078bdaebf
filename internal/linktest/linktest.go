// Package linktest gives tests two servers with an agent beside each, the agents
// as processes of their own that can be killed. Only tests import it.
package linktest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/client"
	"github.com/twinspan/twinspan/internal/agent"
	"github.com/twinspan/twinspan/internal/config"
	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/peer"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// agentVariable tells the test binary to be an agent, and in which directory;
// patienceVariable how long its planned failovers may take.
const (
	agentVariable    = "TWINSPAN_LINKTEST_AGENT"
	patienceVariable = "TWINSPAN_LINKTEST_FAILOVER_PATIENCE"
)

// Patience bounds every wait for a link; machines for tests can be slow.
const Patience = 3 * time.Minute

// Main runs the tests. The same binary, started by Side.Start, is an agent.
func Main(m *testing.M) {
	if dir := os.Getenv(agentVariable); dir != "" {
		os.Exit(serve(config.Dir(dir)))
	}
	if text := os.Getenv(adoptVariable); text != "" {
		os.Exit(adopt(text))
	}
	// A proxy whose slow connection is cut leaves both ends of it blocked: the
	// one that passes on, and the reader that has nobody to hand bytes to.
	pgtest.Main(m, goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2/toxics.(*ToxicStub).Run"),
		goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2.(*ToxicLink).read"))
}

func serve(dir config.Dir) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	patience, _ := time.ParseDuration(os.Getenv(patienceVariable))
	a := &agent.Agent{Dir: dir, Version: "test", FailoverPatience: patience, Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	if err := a.Run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		return 1
	}
	return 0
}

// Side is a server with its agent.
type Side struct {
	Name   string
	Server *pgtest.Server
	// Standby is a streaming standby of Server, where Options asks for one. The agent
	// knows both.
	Standby *pgtest.Server
	Dir     config.Dir
	Client  *client.Client
	// Program is the twinspan that Start runs; empty for the one under test.
	Program string
	// Env are variables ("NAME=value") of the agent, beside this process's.
	Env []string

	t        testing.TB
	patience time.Duration
	endpoint string // of one that is made beside another
	process  *exec.Cmd
	ended    chan struct{}
}

// Pair is two sides that are peers.
type Pair struct {
	A, B *Side
}

// Options changes what New makes.
type Options struct {
	ServerA, ServerB []pgtest.Option
	// StandbyA and StandbyB, when not nil, give the server a streaming standby.
	StandbyA, StandbyB []pgtest.Option
	// DSN, when set, changes the connection string that a side's agent gets.
	DSN func(name, dsn string) string
	// Config, when set, changes a side's configuration.
	Config func(name string, c *config.Config)
	// Before, when set, is called for each server before its agent is started.
	Before func(name string, server *pgtest.Server)
	// Advertise, when set, changes the address at which a side tells others to dial it.
	Advertise func(name, listen string) string
	// Program is what both sides' agents are at first: see Side.
	Program string
	// FailoverPatience, when set, is agent.Agent's: for tests of what holds one up until the end.
	FailoverPatience time.Duration
}

// New starts two servers and two agents and pairs them: b dials a.
func New(t testing.TB, o Options) *Pair {
	t.Helper()
	p := &Pair{A: newSide(t, "a", o, o.ServerA, o.StandbyA), B: newSide(t, "b", o, o.ServerB, o.StandbyB)}
	p.A.Start()
	p.B.Start()
	p.A.Pair(t, p.B)
	return p
}

// Third starts another server with an agent, a peer of a.
func (p *Pair) Third(t testing.TB, name string, o Options) *Side {
	t.Helper()
	s := newSide(t, name, o, nil, nil)
	s.Start()
	p.A.Pair(t, s)
	return s
}

// Pair makes two sides peers: the other one dials this one.
func (s *Side) Pair(t testing.TB, other *Side) {
	t.Helper()
	invitation, err := s.Client.Invite(t.Context(), time.Hour)
	if err != nil {
		t.Fatalf("invite: %v", err)
	}
	if _, err := other.Client.Join(t.Context(), api.JoinRequest{Token: invitation.Token}); err != nil {
		t.Fatalf("join: %v", err)
	}
	pgtest.Await(t, Patience, "peers meet", func() error {
		peers, err := s.Client.Peers(t.Context())
		if err != nil || !slices.ContainsFunc(peers, func(p api.Peer) bool { return p.Name == other.Name && p.Connected }) {
			return fmt.Errorf("peers: %+v, %v", peers, err)
		}
		return nil
	})
}

func newSide(t testing.TB, name string, o Options, server, standby []pgtest.Option) *Side {
	t.Helper()
	server = append([]pgtest.Option{pgtest.MayBeOdd()}, server...)
	s := &Side{Name: name, Server: pgtest.Start(t, server...), Program: o.Program, patience: o.FailoverPatience, t: t}
	if o.Before != nil {
		o.Before(name, s.Server)
	}
	dir, err := config.OpenDir(filepath.Join(pgtest.Dir(t), name))
	if err != nil {
		t.Fatal(err)
	}
	s.Dir = dir
	dsn := s.Server.AgentDSN()
	if standby != nil {
		s.Standby = s.Server.Standby(t, "standby_"+name, standby...)
		dsn = pgtest.AgentDSNOf(s.Server, s.Standby)
	}
	if o.DSN != nil {
		dsn = o.DSN(name, dsn)
	}
	c := config.Config{Name: name, Postgres: config.Postgres{DSN: dsn}}
	c.Endpoint.Listen = fmt.Sprintf("127.0.0.1:%d", pgtest.FreePort())
	c.Endpoint.Advertise = c.Endpoint.Listen
	if o.Advertise != nil {
		c.Endpoint.Advertise = o.Advertise(name, c.Endpoint.Listen)
	}
	if o.Config != nil {
		o.Config(name, &c)
	}
	s.settle(c)
	return s
}

// settle makes the agent's directory and the client that asks it. What a failed test leaves is shown.
func (s *Side) settle(c config.Config) {
	t := s.t
	t.Helper()
	if err := s.Dir.Create(); err != nil {
		t.Fatal(err)
	}
	if _, err := peer.CreateIdentity(s.Dir.Path(), s.Name); err != nil {
		t.Fatal(err)
	}
	if err := config.WriteNew(s.Dir.File(), config.Render(c)); err != nil {
		t.Fatal(err)
	}
	var err error
	if s.Client, err = client.New(client.Dial{Socket: s.Dir.Socket()}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Client.Close)
	t.Cleanup(func() {
		s.racing()
		if t.Failed() {
			s.dump()
		}
	})
}

// Start starts the agent and waits until it has read its instance.
func (s *Side) Start() {
	s.t.Helper()
	s.Launch()
	pgtest.Await(s.t, Patience, "agent "+s.Name+" starts", func() error {
		_, err := s.Client.Links(s.t.Context())
		return err
	})
}

// Launch starts the agent and does not wait.
func (s *Side) Launch() {
	s.t.Helper()
	log, err := os.OpenFile(filepath.Join(s.Dir.Path(), "agent.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		s.t.Fatal(err)
	}
	defer log.Close()
	if s.Program == "" {
		s.process = exec.Command(os.Args[0])
		s.process.Env = append(os.Environ(), agentVariable+"="+s.Dir.Path(), patienceVariable+"="+s.patience.String())
	} else {
		s.process = exec.Command(s.Program, "serve", "--dir", s.Dir.Path(), "--log-level", "debug")
	}
	if s.Env != nil {
		s.process.Env = append(s.process.Environ(), s.Env...)
	}
	s.process.Stdout, s.process.Stderr = log, log
	s.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	ended := make(chan struct{})
	started := make(chan error)
	process := s.process
	go func() {
		// The signal comes at the end of the thread that started the child.
		runtime.LockOSThread()
		started <- process.Start()
		process.Wait()
		close(ended)
	}()
	if err := <-started; err != nil {
		s.t.Fatal(err)
	}
	s.ended = ended
	s.t.Cleanup(func() {
		process.Process.Kill()
		<-ended
	})
}

// FailOver kills the server and promotes its standby, which is Server from then on.
func (s *Side) FailOver() {
	s.t.Helper()
	s.Server.Kill()
	s.Standby.Promote(s.t)
	s.Server, s.Standby = s.Standby, s.Server
}

// PID returns the process id of the agent.
func (s *Side) PID() int { return s.process.Process.Pid }

// Kill ends the agent as kill -9 does.
func (s *Side) Kill() {
	s.process.Process.Kill()
	<-s.ended
}

// Stop ends the agent as an operator does.
func (s *Side) Stop() {
	s.t.Helper()
	s.process.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.ended:
	case <-time.After(time.Minute):
		s.t.Fatalf("agent %s does not stop", s.Name)
	}
}

func (s *Side) dump() {
	text, err := os.ReadFile(filepath.Join(s.Dir.Path(), "agent.log"))
	if err == nil {
		s.t.Logf("log of agent %s:\n%s", s.Name, text[max(0, len(text)-4000):])
	}
	pgtest.Keep(s.t, s.Dir.Path())
}

// racing fails the test when the race detector, where the test binary has it, has found
// something in the agent.
func (s *Side) racing() {
	text, _ := os.ReadFile(filepath.Join(s.Dir.Path(), "agent.log"))
	if at := bytes.Index(text, []byte("WARNING: DATA RACE")); at >= 0 {
		s.t.Errorf("agent %s: %s", s.Name, text[at:min(len(text), at+6000)])
	}
}

// Log returns what the agent has logged so far.
func (s *Side) Log() string {
	text, err := os.ReadFile(filepath.Join(s.Dir.Path(), "agent.log"))
	if err != nil {
		s.t.Fatal(err)
	}
	return string(text)
}

// LogEnd is how long the agent's log is now, for AwaitLog.
func (s *Side) LogEnd() int64 {
	info, err := os.Stat(filepath.Join(s.Dir.Path(), "agent.log"))
	if err != nil {
		s.t.Fatal(err)
	}
	return info.Size()
}

// AwaitLog returns as soon as the agent has logged one of the texts behind an offset,
// and says which; -1 when it has not until ctx ends.
func (s *Side) AwaitLog(ctx context.Context, from int64, texts ...string) int {
	file, err := os.Open(filepath.Join(s.Dir.Path(), "agent.log"))
	if err != nil {
		s.t.Fatal(err)
	}
	defer file.Close()
	var seen []byte
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		more, err := io.ReadAll(io.NewSectionReader(file, from+int64(len(seen)), 1<<30))
		if err != nil {
			s.t.Fatal(err)
		}
		seen = append(seen, more...)
		if i := slices.IndexFunc(texts, func(text string) bool { return bytes.Contains(seen, []byte(text)) }); i >= 0 {
			return i
		}
		select {
		case <-ctx.Done():
			return -1
		case <-tick.C:
		}
	}
}

// Create makes a link of a database from a to b and returns at once.
func (p *Pair) Create(t testing.TB, name, database string) api.Link {
	t.Helper()
	l, err := p.A.Client.CreateLink(t.Context(), api.CreateLink{Name: name, Database: database, Peer: "b"})
	if err != nil {
		t.Fatalf("create link: %v", describe(err))
	}
	return l
}

// WaitPhase waits until both sides of the link are in one of the phases; a broken
// link fails the test unless that is waited for.
func (p *Pair) WaitPhase(t testing.TB, name string, phases ...api.Phase) {
	t.Helper()
	for _, side := range []*Side{p.B, p.A} {
		pgtest.Await(t, Patience, fmt.Sprintf("phase %v of link %s on side %s", phases, name, side.Name), func() error {
			l, err := side.Client.Link(t.Context(), name)
			if err != nil {
				return err
			}
			if slices.Contains(phases, l.Phase) {
				return nil
			}
			if l.Phase == api.Broken {
				t.Fatalf("link %s broke on side %s: %+v", name, side.Name, l.Problems)
			}
			return fmt.Errorf("side %s: phase %s, problems %+v", side.Name, l.Phase, l.Problems)
		})
	}
}

// WaitEqual waits until everything that the primary has written is applied, and
// compares the two databases row by row. Nothing may write meanwhile.
func (p *Pair) WaitEqual(t testing.TB, name, database string) {
	t.Helper()
	p.WaitApplied(t, name, database)
	pgtest.Equal(t, p.A.Server.DSN(database), p.B.Server.DSN(database))
}

// WaitApplied waits until the primary's log as it is now is applied.
func (p *Pair) WaitApplied(t testing.TB, name, database string) {
	t.Helper()
	end, err := lsn.Parse(pgtest.Query(t, p.A.Server.DSN("postgres"), `SELECT pg_current_wal_insert_lsn()`)[0][0])
	if err != nil {
		t.Fatal(err)
	}
	pgtest.Await(t, Patience, "link "+name+" applies the primary's log", func() error {
		l, err := p.B.Client.Link(t.Context(), name)
		if err != nil {
			return err
		}
		if l.Phase == api.Broken {
			t.Fatalf("link %s broke: %+v", name, l.Problems)
		}
		if l.Phase != api.Replicating && l.Phase != api.CatchingUp {
			return fmt.Errorf("phase %s", l.Phase)
		}
		if l.Position.Applied == "" {
			return fmt.Errorf("it is not known what is applied; problems %+v", l.Problems)
		}
		applied, err := lsn.Parse(l.Position.Applied)
		if err == nil && applied < end {
			err = fmt.Errorf("applied %s of %s; problems %+v", applied, end, l.Problems)
		}
		return err
	})
}

func describe(err error) string {
	var e *api.Error
	if errors.As(err, &e) {
		return fmt.Sprintf("[%s] %s (%s)", e.Code, e.Text, e.Hint)
	}
	return err.Error()
}

// PeakMemory returns the most memory that the agent's process has held, in bytes.
func (s *Side) PeakMemory(t testing.TB) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.PID()))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		var kilobytes int64
		if n, _ := fmt.Sscanf(line, "VmHWM: %d kB", &kilobytes); n == 1 {
			return kilobytes << 10
		}
	}
	t.Fatal("the system does not tell the peak of memory")
	return 0
}
