package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/twinspan/twinspan/client"
	"github.com/twinspan/twinspan/internal/config"
	"github.com/twinspan/twinspan/internal/instance"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/setup"
)

// startTimeout bounds the making of a server and its first start.
const startTimeout = 2 * time.Minute

// side is an instance with its agent, a child process.
type side struct {
	name     string
	dir      config.Dir
	log      string // file with what the agent says
	port     int    // of the server
	endpoint int
	client   *client.Client
	socket   string // directory of the server's socket, or empty where it listens on TCP alone

	process *os.Process
	ended   chan struct{} // closed when the process has ended; nil before it began
	stopped bool          // the end was asked for
}

func newSide(p place, name string, port, endpoint int) *side {
	return &side{
		name: name, dir: config.Dir(filepath.Join(p.dir, name)), log: filepath.Join(p.dir, name+".log"),
		port: port, endpoint: endpoint,
	}
}

// both does the same on two sides at once.
func both(do func(*side) error, a, b *side) error {
	var group errgroup.Group
	for _, s := range []*side{a, b} {
		group.Go(func() error {
			if err := do(s); err != nil {
				return fmt.Errorf("agent %s: %w", s.name, err)
			}
			return nil
		})
	}
	return group.Wait()
}

// init is "twinspan init --managed".
func (s *side) init(ctx context.Context) error {
	_, err := setup.Init(ctx, setup.Request{
		Dir: s.dir, Name: s.name, Managed: true, NoBackups: true, Port: s.port, Endpoint: fmt.Sprintf("127.0.0.1:%d", s.endpoint),
	})
	if err != nil {
		return err
	}
	s.client, err = client.New(client.Dial{Socket: s.dir.Socket()})
	return err
}

// serve starts "twinspan serve" as a child that is told to end when this process
// does, in whatever way: the kernel sends the signal when the thread that started
// the child ends, so that thread is kept for as long as the child lives
// (prctl(2), PR_SET_PDEATHSIG). The signal is SIGTERM, for the agent has a server
// to stop.
func (s *side) serve(life context.Context) error {
	program, err := os.Executable()
	if err != nil {
		return problem.Wrap(err, problem.Internal, "program_unknown", "find the program itself")
	}
	log, err := os.OpenFile(s.log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return problem.Wrap(err, problem.Resource, "dir_not_writable", "open the agent's log")
	}
	defer log.Close()
	cmd := exec.CommandContext(life, program, "serve", "--dir", s.dir.Path())
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = childAttributes()
	ended, started := make(chan struct{}), make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		err := cmd.Start()
		started <- err
		if err == nil {
			// How it ended is told by its log, and the end itself by the channel.
			_ = cmd.Wait()
			close(ended)
		}
	}()
	if err := <-started; err != nil {
		return problem.Wrap(err, problem.Resource, "agent_not_started", "start the agent")
	}
	s.process, s.ended = cmd.Process, ended
	return nil
}

// ready waits until the agent and its server answer.
func (s *side) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout,
		problem.New(problem.Transient, "agent_slow", "the agent has no server after %s", startTimeout).WithHint("see %s", s.log))
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		if self, err := s.client.Agent(ctx); err == nil && self.Postgres.Connected {
			if filepath.IsAbs(self.Postgres.SocketDir) {
				s.socket = self.Postgres.SocketDir
			}
			return nil
		}
		if err := s.wait(ctx, tick.C); err != nil {
			return err
		}
	}
}

// wait waits for a tick, and fails when there is nothing to wait for any more.
func (s *side) wait(ctx context.Context, tick <-chan time.Time) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-s.ended:
		return s.died()
	case <-tick:
		return nil
	}
}

// died says why an agent ended that should not have.
func (s *side) died() error {
	why := "see " + s.log
	if text, err := os.ReadFile(s.log); err == nil {
		lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
		for _, l := range lines {
			if bytes.HasPrefix(l, []byte("error: ")) {
				why = strings.TrimPrefix(string(l), "error: ")
			}
		}
	}
	return problem.New(problem.Internal, "agent_died", "the agent ended by itself: %s", why)
}

// stop ends the agent, which stops its server, and kills it after a while.
func (s *side) stop(patience time.Duration) error {
	if s.client != nil {
		s.client.Close()
	}
	if s.ended == nil || s.stopped {
		return nil
	}
	s.stopped = true
	if err := terminate(s.process); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return problem.Wrap(err, problem.Internal, "agent_not_stopped", "stop the agent")
	}
	late := time.NewTimer(patience)
	defer late.Stop()
	select {
	case <-s.ended:
		return nil
	case <-late.C:
	}
	if err := s.process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return problem.Wrap(err, problem.Internal, "agent_not_stopped", "kill the agent")
	}
	<-s.ended
	return problem.New(problem.Internal, "agent_not_stopped", "the agent did not stop within %s and was killed", patience).
		WithHint("see that no server runs in %s", s.dir.Instance())
}

// dsn returns the connection string of the superuser to a database; of a key that
// stands twice the last one counts. It may hold a password.
func (s *side) dsn(name string) string {
	server := &instance.Server{Dir: s.dir.Instance(), Port: s.port}
	return server.DSN() + " dbname=" + name
}

// connect opens a session as an application does.
func (s *side) connect(ctx context.Context, name string) (*pgx.Conn, error) {
	return connect(ctx, s.dsn(name))
}

func connect(ctx context.Context, dsn string) (*pgx.Conn, error) {
	c, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, problem.New(problem.Internal, "dsn_invalid", "the connection string of the instance cannot be read")
	}
	c.RuntimeParams["application_name"] = "shop"
	return pgx.ConnectConfig(ctx, c)
}
