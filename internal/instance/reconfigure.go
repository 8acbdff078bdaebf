package instance

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/twinspan/twinspan/internal/problem"
)

// restartPatience bounds Restart: the end of the server that runs, and the start of the next.
const restartPatience = 3 * time.Minute

// Apply gives the server other settings in place of Settings: they are written, and a running server reads them. Those that
// take effect at a start alone wait for the next one (pg_settings.pending_restart). The configuration of a server that was
// not made yet is written by Init and Run. reads says that a running server was told to read them.
func (s *Server) Apply(settings map[string]string) (reads bool, err error) {
	owner, err := runAs(s.RunAs)
	if err != nil {
		return false, err
	}
	s.mu.Lock()
	s.Settings = maps.Clone(settings)
	pid := s.pid
	s.mu.Unlock()
	if _, err := os.Stat(filepath.Join(s.DataDir(), "PG_VERSION")); err != nil {
		return false, nil
	}
	changed, err := s.writeConfig(owner, s.DataDir())
	if err != nil || !changed || pid == 0 {
		return false, err
	}
	// A failure means that it has ended: the next one reads the file at its start.
	return syscall.Kill(pid, syscall.SIGHUP) == nil, nil
}

// Restart shuts a running server down (fast: sessions are ended) and returns when the next accepts sessions. A server that does not
// start again is a problem that says why; Run goes on trying. Only a server that Run keeps can be restarted.
func (s *Server) Restart(ctx context.Context) error {
	ctx, stop := context.WithTimeout(ctx, restartPatience)
	defer stop()
	s.mu.Lock()
	before := s.pid
	if before == 0 {
		s.mu.Unlock()
		return problem.New(problem.Transient, "server_stopped", "the server does not run now").On(s.DataDir()).WithHint("try again when it accepts sessions")
	}
	s.restart, s.failed = true, nil
	s.mu.Unlock()
	s.update(func() {})
	for {
		s.mu.Lock()
		pid, ended, failed, asked, changed := s.pid, s.ended, s.failed, s.restart, s.watch()
		s.mu.Unlock()
		switch {
		case ended:
			return problem.New(problem.Cancelled, "server_stopped", "the server was stopped")
		case failed != nil:
			return failed
		case !asked && pid != 0 && pid != before:
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return problem.Wrap(context.Cause(ctx), problem.Transient, "server_restart_slow", "the server has not accepted sessions yet since it was to be restarted").On(s.DataDir()).
				WithHint("its log in %s says what it is doing; it is started as soon as it can be", filepath.Join(s.DataDir(), "log"))
		}
	}
}

// restartAsked says whether Restart waits, and returns the channel that closes at the next change.
func (s *Server) restartAsked() (bool, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.restart, s.watch()
}

// Memory returns the machine's memory in bytes, 0 where it is not known.
func Memory() int64 { return int64(memory()) }
