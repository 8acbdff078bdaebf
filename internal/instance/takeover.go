package instance

import (
	"context"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/twinspan/twinspan/internal/problem"
)

// takeOver deals with what an earlier agent left: nothing, a running server,
// the leftovers of one. It returns a server to go on with, or nil when one must
// be started. reconfigured says that the running one has other settings.
func (s *Server) takeOver(ctx context.Context, reconfigured bool) (*process, error) {
	file, err := readPIDFile(s.DataDir())
	if err != nil {
		return nil, diskProblem(err, s.DataDir())
	}
	if file.pid == 0 {
		return nil, s.awaitEmpty(ctx)
	}
	if alive(file.pid) && worksIn(file.pid, s.DataDir()) {
		p := s.foreign(file.pid)
		if !reconfigured && !s.DieWithParent && file.port == s.port() {
			s.log().Info("running server taken over", "pid", file.pid)
			return p, nil
		}
		s.log().Info("running server is shut down to be started anew", "pid", file.pid)
		s.shutDown(p)
		return nil, s.awaitEmpty(ctx)
	}
	if err := s.awaitEmpty(ctx); err != nil {
		return nil, err
	}
	if alive(file.pid) && !anyWorksIn(s.DataDir()) {
		// PostgreSQL takes any live process of its user for the owner of the
		// file and refuses to start, though the number was given out anew, as
		// it soon is in a container. Nobody works in the directory: it is stale.
		s.log().Warn("stale postmaster.pid removed", "pid", file.pid)
		if err := os.Remove(filepath.Join(s.DataDir(), "postmaster.pid")); err != nil && !os.IsNotExist(err) {
			return nil, diskProblem(err, s.DataDir())
		}
	}
	return nil, nil
}

// Discard ends the server that an earlier process left in the directory, if one runs there, and removes the directory with all that
// is in it. It is for a server that nobody needs any more, and that no other process supervises.
func (s *Server) Discard(ctx context.Context) error {
	file, err := readPIDFile(s.DataDir())
	if err != nil {
		return diskProblem(err, s.DataDir())
	}
	if alive(file.pid) && worksIn(file.pid, s.DataDir()) {
		s.log().Info("a server that was left behind is ended", "pid", file.pid)
		_ = syscall.Kill(file.pid, syscall.SIGQUIT) // a failure means that it has ended
	}
	if err := s.awaitEmpty(ctx); err != nil {
		return err
	}
	for _, dir := range []string{s.Socket, s.Dir} {
		if dir == "" {
			continue
		}
		if err := os.RemoveAll(dir); err != nil {
			return diskProblem(err, dir)
		}
	}
	return nil
}

// foreign is a postmaster that is not this process's child. Its end is seen by
// looking, as its exit status goes to another.
func (s *Server) foreign(pid int) *process {
	ended := make(chan error, 1)
	go func() {
		tick := time.NewTicker(pollForeign)
		defer tick.Stop()
		for alive(pid) && worksIn(pid, s.DataDir()) {
			<-tick.C
		}
		ended <- nil
	}()
	return &process{pid: pid, ended: ended}
}

// awaitEmpty waits until no process works in the data directory: the children
// of a postmaster that was killed end by themselves, and a new one must not
// begin before.
func (s *Server) awaitEmpty(ctx context.Context) error {
	if !canSeeWorkers {
		return nil
	}
	tick := time.NewTicker(pollStart)
	defer tick.Stop()
	deadline := time.Now().Add(orphanWait)
	for anyWorksIn(s.DataDir()) {
		if time.Now().After(deadline) {
			return problem.New(problem.Conflict, "data_dir_in_use", "processes of an earlier server still use the data directory").On(s.DataDir()).
				WithHint("end them, then start again; never remove postmaster.pid while they run")
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return problem.As(ctx.Err())
		}
	}
	return nil
}
