package instance

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"time"

	"github.com/twinspan/twinspan/internal/problem"
)

// programGrace is how long a program may take to end once it was told to.
const programGrace = 20 * time.Second

// mostOutput bounds what is kept of what a program says on either stream.
const mostOutput = 64 << 20

// Programs lists the paths at which a program lies that is no part of PostgreSQL, in the places
// that FindBinaries looks at and in its order. Those that the server's user cannot reach are left out.
func Programs(name string) []string {
	owner, ownerErr := runAs("")
	var found []string
	for _, dir := range slices.Concat(namedDirs(), installedDirs(), fetchedDirs()) {
		if path := filepath.Join(dir, name); executable(path) && ownerErr == nil && owner.reaches(dir) {
			found = append(found, path)
		}
	}
	return found
}

// Work runs a program as the server's user until it ends, and returns what it wrote. When ctx
// ends it is told to end (SIGTERM), and killed 20 s later. On Linux it is told to end, too, when this process is
// killed. env are variables ("NAME=value") beside those that the server has. An error that is no
// *exec.ExitError means that the program was not run to its end.
func (s *Server) Work(ctx context.Context, env []string, program string, args ...string) (out, errs []byte, err error) {
	owner, err := runAs(s.RunAs)
	if err != nil {
		return nil, nil, err
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir, cmd.Env = "/", append(owner.env(), env...)
	var stdout, stderr bounded
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: owner.credential(), Setpgid: true}
	endWithParent(cmd.SysProcAttr)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = programGrace
	done := make(chan error, 1)
	go func() {
		// The signal comes when the thread that forked ends, not the process (prctl(2)).
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		done <- cmd.Run()
	}()
	err = <-done
	if ctx.Err() != nil && err != nil {
		err = problem.As(context.Cause(ctx))
	}
	return stdout.Bytes(), stderr.Bytes(), err
}

// bounded keeps the first bytes of a stream and drops the rest.
type bounded struct{ bytes.Buffer }

func (b *bounded) Write(p []byte) (int, error) {
	if room := mostOutput - b.Len(); room > 0 {
		b.Buffer.Write(p[:min(len(p), room)])
	}
	return len(p), nil
}

// MakeDir makes a directory, and those above it that are missing, for the server's user alone. One that exists is left as it is.
func (s *Server) MakeDir(path string) error {
	if _, err := os.Stat(path); err == nil || !errors.Is(err, os.ErrNotExist) {
		return diskProblem(err, path)
	}
	owner, err := runAs(s.RunAs)
	if err != nil {
		return err
	}
	if parent := filepath.Dir(path); parent != path {
		if err := s.MakeDir(parent); err != nil {
			return err
		}
	}
	if err := errors.Join(os.Mkdir(path, 0o700), owner.own(path)); err != nil && !errors.Is(err, os.ErrExist) {
		return diskProblem(err, path)
	}
	return nil
}

// PutFile puts a file in place whole, for the server's user to read alone.
func (s *Server) PutFile(path string, text []byte) error {
	owner, err := runAs(s.RunAs)
	if err != nil {
		return err
	}
	return writeFile(owner, path, text)
}

// SocketDir returns the directory of the server's Unix socket, or "" where it has none (see DSN).
func (s *Server) SocketDir() string { return s.socketDir() }

// ClientEnv are the variables by which a program of libpq finds the server as its superuser, where the server has no
// Unix socket; nil where it has one, for then its directory is to be named. They hold a secret.
func (s *Server) ClientEnv() []string {
	if s.socketDir() != "" {
		return nil
	}
	env := []string{"PGHOST=" + dialHost(s.listen()), "PGSSLMODE=disable"}
	if password, err := s.Password(); err == nil {
		env = append(env, "PGPASSWORD="+password)
	}
	return env
}
