package instance

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/twinspan/twinspan/internal/problem"
)

// Init makes the data directory when there is none; otherwise it only checks
// that the programs are of its version. The directory appears whole or not at
// all: an Init that was cut short is repeated from the start.
func (s *Server) Init(ctx context.Context) error {
	if err := s.makeDir(); err != nil {
		return err
	}
	owner, err := s.prepare()
	if err != nil {
		return err
	}
	if version, err := s.dataVersion(); err != nil || version != 0 {
		if err == nil && s.TLS {
			err = s.ensureCertificate(owner)
		}
		return err
	}
	if entries, err := os.ReadDir(s.DataDir()); err == nil && len(entries) > 0 {
		return problem.New(problem.Conflict, "data_dir_foreign", "the directory is not empty and holds no PostgreSQL data").On(s.DataDir()).
			WithHint("choose another directory, or empty this one")
	}
	if dir := owner.barrier(s.Dir); dir != "" {
		return unreachable(owner, dir)
	}
	next := s.DataDir() + ".new"
	if err := os.RemoveAll(next); err != nil {
		return diskProblem(err, next)
	}
	for _, dir := range []string{next, filepath.Join(s.Dir, "run")} {
		if err := errors.Join(os.MkdirAll(dir, 0o700), os.Chmod(dir, 0o700), owner.own(dir)); err != nil {
			return diskProblem(err, dir)
		}
	}
	if err := s.fillData(ctx, owner, next); err != nil {
		// What is left is removed by the next attempt, if not now.
		_ = os.RemoveAll(next)
		return err
	}
	if err := os.Remove(s.DataDir()); err != nil && !os.IsNotExist(err) {
		return diskProblem(err, s.DataDir())
	}
	if err := os.Rename(next, s.DataDir()); err != nil {
		return diskProblem(err, s.DataDir())
	}
	s.log().Info("data directory made", "dir", s.DataDir(), "version", s.Binaries.Major)
	return nil
}

// makeDir makes the server's directory. Root lets others pass it, because the
// server's user must; everything in it has a mode of its own.
func (s *Server) makeDir() error {
	mode := os.FileMode(0o700)
	if os.Geteuid() == 0 {
		mode = 0o711
	}
	if err := os.MkdirAll(s.Dir, mode); err != nil {
		return diskProblem(err, s.Dir)
	}
	info, err := os.Stat(s.Dir)
	if err == nil && info.Mode().Perm()&mode != mode {
		err = os.Chmod(s.Dir, info.Mode().Perm()|mode)
	}
	if err != nil {
		return diskProblem(err, s.Dir)
	}
	return nil
}

// MakePassword chooses the superuser's password, unless that was done before: Init takes
// the one that is there.
func (s *Server) MakePassword() (string, error) {
	if password, err := s.Password(); err == nil && password != "" {
		return password, nil
	}
	if err := s.makeDir(); err != nil {
		return "", err
	}
	secret := make([]byte, 24)
	// Read never fails (crypto/rand).
	_, _ = rand.Read(secret)
	password := base64.RawURLEncoding.EncodeToString(secret)
	return password, writeFile(account{}, s.passwordFile(), []byte(password+"\n"))
}

// ensureCertificate makes a certificate for a server that was made without.
func (s *Server) ensureCertificate(owner account) error {
	if _, err := os.Stat(filepath.Join(s.DataDir(), "server.key")); err == nil || !os.IsNotExist(err) {
		return diskProblem(err, s.DataDir())
	}
	return writeCertificate(owner, s.DataDir())
}

// fillData runs initdb and writes the configuration.
func (s *Server) fillData(ctx context.Context, owner account, data string) error {
	secret, err := s.MakePassword()
	if err != nil {
		return err
	}
	password := []byte(secret + "\n")
	// A copy that the server's user may read, in a directory that only it may enter.
	pwfile := filepath.Join(s.Dir, "run", "initdb-password")
	if err := writeFile(owner, pwfile, password); err != nil {
		return err
	}
	defer os.Remove(pwfile)

	err = s.initdb(ctx, owner, data, pwfile, "C.UTF-8")
	if err != nil && strings.Contains(err.Error(), "locale") {
		// macOS and older C libraries have no C.UTF-8.
		err = s.initdb(ctx, owner, data, pwfile, "C")
	}
	if err != nil {
		return err
	}
	if s.TLS {
		if err := writeCertificate(owner, data); err != nil {
			return err
		}
	}
	if _, err := s.writeConfig(owner, data); err != nil {
		return err
	}
	if err := writeFile(owner, filepath.Join(data, "pg_hba.conf"), []byte(s.hba())); err != nil {
		return err
	}
	main := filepath.Join(data, "postgresql.conf")
	text, err := os.ReadFile(main)
	if err != nil {
		return diskProblem(err, main)
	}
	return writeFile(owner, main, fmt.Appendf(text, "\ninclude '%s'\n", ConfigFile))
}

func (s *Server) initdb(ctx context.Context, owner account, data, pwfile, locale string) error {
	args := []string{
		"-D", data, "-U", Superuser, "-E", "UTF8", "--locale=" + locale, "--lc-messages=C", "--data-checksums",
		"--auth-local=trust", "--auth-host=scram-sha-256", "--pwfile=" + pwfile,
	}
	cmd := exec.CommandContext(ctx, s.Binaries.Path("initdb"), slices.Concat(args, s.InitdbArgs)...)
	cmd.Dir, cmd.Env = data, owner.env()
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: owner.credential(), Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.CombinedOutput()
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return problem.As(ctx.Err())
	}
	if p := diagnose(string(out), s); p != nil {
		return p
	}
	return problem.New(problem.Internal, "initdb_failed", "initdb failed: %s", lastLine(string(out), "initdb: error:", "FATAL:", "PANIC:")).On(data).
		WithHint("run %s by hand as the server's user to see more", s.Binaries.Path("initdb"))
}

// diskProblem classifies a failure to write a file of the server.
func diskProblem(err error, path string) error {
	switch {
	case err == nil:
		return nil
	case problem.CodeOf(err) != "internal":
		return err
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return diskFull(path)
	case errors.Is(err, os.ErrPermission), errors.Is(err, syscall.EROFS):
		return problem.Wrap(err, problem.Unauthorised, "server_dir_unwritable", "the server's directory cannot be written").On(path).
			WithHint("run as the user that owns it, or choose another directory")
	}
	return problem.Wrap(err, problem.Internal, "server_dir_failed", "the server's directory cannot be prepared").On(path).
		WithHint("look at what the operating system says about the directory")
}
