package instance

import (
	"context"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// Watch takes part in nothing: another program (Patroni) makes, starts and stops the server. Until ctx ends, it notes whether the
// server accepts sessions, so that PID and WaitReady tell. A server whose data directory was removed under it is ended
// at once, as the server itself does only after a minute: until then it would go on answering out of memory.
func (s *Server) Watch(ctx context.Context) error {
	defer s.update(func() { s.pid, s.ended = 0, true })
	tick := time.NewTicker(pollForeign)
	defer tick.Stop()
	last := 0 // the postmaster that was seen
	for {
		file, err := readPIDFile(s.DataDir())
		pid := 0
		if err == nil && file.accepts() && alive(file.pid) && worksIn(file.pid, s.DataDir()) {
			pid, last = file.pid, file.pid
		}
		if s.PID() != pid {
			s.update(func() { s.pid = pid })
		}
		if last != 0 && pid == 0 && s.vanished() && workedIn(last, s.DataDir()) {
			s.log().Error("the data directory was removed: its server is ended", "pid", last)
			_ = syscall.Kill(last, syscall.SIGQUIT) // a failure means that it has ended
			last = 0
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// vanished says whether the data directory is none any more.
func (s *Server) vanished() bool {
	_, err := os.Stat(filepath.Join(s.DataDir(), "global", "pg_control"))
	return os.IsNotExist(err)
}

// Prepare checks what must hold before the server can be run by another program: its directory, that of its socket, its programs and its user.
func (s *Server) Prepare() error {
	if err := s.makeDir(); err != nil {
		return err
	}
	owner, err := s.prepare()
	if err != nil {
		return err
	}
	if dir := owner.barrier(s.Dir); dir != "" {
		return unreachable(owner, dir)
	}
	if err := s.MakeDir(filepath.Dir(s.DataDir())); err != nil {
		return err
	}
	return s.MakeDir(filepath.Join(s.Dir, "run"))
}

// Configured returns the settings that Run would give the server. Prepare must have been called.
func (s *Server) Configured() map[string]string {
	settings := defaults(s.Binaries.Major)
	maps.Copy(settings, s.Settings)
	return settings
}

// Account returns the command of a program that runs as the server's user, in a process group of its own, with
// the environment that the server would have.
func (s *Server) Account(program string, args ...string) (*exec.Cmd, error) {
	owner, err := runAs(s.RunAs)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(program, args...)
	cmd.Dir, cmd.Env = "/", owner.env()
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: owner.credential(), Setpgid: true}
	return cmd, nil
}

// SetPassword keeps a superuser's password that was chosen elsewhere.
func (s *Server) SetPassword(password string) error {
	if err := s.makeDir(); err != nil {
		return err
	}
	return writeFile(account{}, s.passwordFile(), []byte(password+"\n"))
}
