package instance

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"github.com/twinspan/twinspan/internal/problem"
)

const (
	pollStart    = 25 * time.Millisecond // how often a starting server is looked at
	pollForeign  = 250 * time.Millisecond
	firstBackoff = 100 * time.Millisecond
	mostBackoff  = 30 * time.Second
	steady       = time.Minute // after which a server is no longer crashing in a row
	orphanWait   = 30 * time.Second
	lockPatience = 2 * time.Second
)

// process is a running postmaster.
type process struct {
	pid   int
	ended <-chan error // receives one value when it has ended
}

// Run starts the server and keeps it running until ctx ends, then shuts it down
// (fast: sessions are ended) and returns nil. Init must have been called.
//
// A server that crashes after it once accepted sessions is started again, with
// growing pauses. One that never did makes Run return the problem, with a remedy.
//
// A server that an earlier agent left behind is taken over when it runs with
// the very configuration that Run would give it: its clients notice nothing.
// Otherwise, or with DieWithParent, it is shut down first and started anew.
// While another process supervises the server, Run refuses with server_supervised.
func (s *Server) Run(ctx context.Context) (err error) {
	defer func() {
		s.update(func() { s.pid, s.ended, s.err = 0, true, err })
	}()
	owner, err := s.prepare()
	if err != nil {
		return err
	}
	if version, err := s.dataVersion(); err != nil {
		return err
	} else if version == 0 {
		return problem.New(problem.NotFound, "data_dir_missing", "there is no data directory").On(s.DataDir()).
			WithHint("make it first")
	}
	lock, err := s.lock()
	if err != nil {
		return err
	}
	defer lock.Close()
	changed, err := s.writeConfig(owner, s.DataDir())
	if err != nil {
		return err
	}
	running, err := s.takeOver(ctx, changed)
	if ctx.Err() != nil && running == nil {
		return nil
	}
	if err != nil {
		return err
	}
	return s.supervise(ctx, owner, running)
}

// supervise keeps a server running; running is one that runs already, or nil.
func (s *Server) supervise(ctx context.Context, owner account, running *process) error {
	pause := firstBackoff
	everReady := false
	for {
		began := time.Now()
		mark := s.markLogs()
		p := running
		running = nil
		if p == nil {
			var err error
			if p, err = s.start(owner); err != nil {
				return err
			}
		}
		ready, exit := s.follow(ctx, p)
		s.update(func() { s.pid = 0 })
		if ctx.Err() != nil {
			s.log().Info("server stopped")
			return nil
		}
		everReady = everReady || ready
		if again, _ := s.restartAsked(); again {
			s.log().Info("server is started anew, as it was asked for")
			if err := s.awaitEmpty(ctx); err != nil && ctx.Err() == nil {
				return err
			}
			s.update(func() { s.restart = false })
			pause = firstBackoff
			continue
		}
		// Its logger ends a moment later, with the reason; its backends, if it was
		// killed, too.
		if err := s.awaitEmpty(ctx); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		end := s.crash(ready, exit, mark)
		s.update(func() { s.failed = end })
		if s.NoRestart || !everReady || end.Kind == problem.Incompatible {
			return end
		}
		if time.Since(began) > steady {
			pause = firstBackoff
		}
		s.log().Error("server ended by itself", "code", end.Code, "error", end, "hint", end.Hint, "restart_after", pause)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil
		}
		pause = min(2*pause, mostBackoff)
	}
}

// crash says why the server ended.
func (s *Server) crash(ready bool, exit error, mark logMark) *problem.Error {
	text := s.lastWords(mark)
	if p := diagnose(text, s); p != nil && !ready {
		return p
	}
	if !ready {
		return problem.New(problem.Internal, "server_failed", "the server does not start: %s", lastLine(text, "FATAL:", "PANIC:")).On(s.DataDir()).
			WithHint("its log in %s and %s says more", s.LogFile(), filepath.Join(s.DataDir(), "log"))
	}
	reason := "no PANIC in its log"
	if line := lastLine(text, "PANIC:"); line != "no reason given" {
		reason = line
		if p := diagnose(line, s); p != nil {
			return p
		}
	}
	status := "it is gone"
	if exit != nil {
		status = exit.Error()
	}
	return problem.New(problem.Transient, "server_crashed", "the server ended by itself (%s): %s", status, reason).On(s.DataDir()).
		WithHint("its log in %s says more", filepath.Join(s.DataDir(), "log"))
}

// start starts the postmaster in the foreground as a child. It has a process
// group of its own, so that a terminal's Ctrl-C reaches the agent alone, which
// then stops the server in its turn.
func (s *Server) start(owner account) (*process, error) {
	early, err := s.openEarlyLog()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(s.Binaries.Path("postgres"), s.serverArgs()...)
	cmd.Dir, cmd.Env = s.DataDir(), owner.env()
	cmd.Stdout, cmd.Stderr = early, early
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: owner.credential(), Setpgid: true}
	leave := s.enterGroup(cmd.SysProcAttr)
	defer leave()
	if s.DieWithParent {
		dieWithParent(cmd.SysProcAttr)
	}
	started := make(chan error, 1)
	ended := make(chan error, 1)
	go func() {
		// The parent-death signal comes when the thread that forked ends, not the
		// process: hold the thread until the child has ended.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer early.Close()
		err := cmd.Start()
		started <- err
		if err == nil {
			ended <- cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return nil, problem.Wrap(err, problem.Internal, "server_failed", "the server cannot be started").On(s.Binaries.Dir).
			WithHint("check that the server's user may run %s", s.Binaries.Path("postgres"))
	}
	return &process{pid: cmd.Process.Pid, ended: ended}, nil
}

// openEarlyLog opens the file for the server's standard error. It stays small:
// the server's own log takes over soon.
func (s *Server) openEarlyLog() (*os.File, error) {
	flags := os.O_WRONLY | os.O_CREATE | os.O_APPEND
	if info, err := os.Stat(s.LogFile()); err == nil && info.Size() > 1<<20 {
		flags |= os.O_TRUNC
	}
	f, err := os.OpenFile(s.LogFile(), flags, 0o600)
	if err != nil {
		return nil, diskProblem(err, s.LogFile())
	}
	return f, nil
}

// follow waits until the postmaster has ended, and shuts it down when ctx ends.
// It says whether sessions were ever accepted, and how the process ended.
func (s *Server) follow(ctx context.Context, p *process) (ready bool, exit error) {
	tick := time.NewTicker(pollStart)
	defer tick.Stop()
	for {
		restart, changed := s.restartAsked()
		if restart {
			s.shutDown(p)
			return ready, nil
		}
		select {
		case exit = <-p.ended:
			return ready, exit
		case <-changed:
		case <-ctx.Done():
			s.shutDown(p)
			return ready, nil
		case <-tick.C:
			file, err := readPIDFile(s.DataDir())
			if err != nil || file.pid != p.pid || !file.accepts() {
				continue
			}
			ready = true
			tick.Stop()
			s.log().Info("server accepts sessions", "port", s.port(), "version", s.Binaries.Major, "pid", p.pid)
			s.update(func() { s.pid = p.pid })
		}
	}
}

// shutDown ends the postmaster: fast, then, when that takes too long, at once
// (the next start recovers from the log), and returns when it has ended.
func (s *Server) shutDown(p *process) {
	patience := s.StopTimeout
	if patience == 0 {
		patience = time.Minute
	}
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGQUIT, syscall.SIGKILL} {
		// A failure means that it has ended already.
		_ = syscall.Kill(p.pid, signal)
		select {
		case <-p.ended:
			return
		case <-time.After(patience):
			s.log().Warn("server does not stop", "signal", signal.String(), "after", patience)
		}
	}
	<-p.ended
}
