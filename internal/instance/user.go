package instance

import (
	"errors"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/twinspan/twinspan/internal/problem"
)

// account is the operating system user that a server runs as.
type account struct {
	name     string
	home     string
	uid, gid int
	change   bool // this process is root: children change to the account
}

// runAs resolves the user for servers. Anybody but root runs them as itself.
// Root, whom PostgreSQL refuses, runs them as name, or as postgres or nobody,
// whichever exists, when name is empty.
func runAs(name string) (account, error) {
	if os.Geteuid() != 0 {
		return account{uid: os.Geteuid(), gid: os.Getegid()}, nil
	}
	names := []string{name}
	if name == "" {
		names = []string{"postgres", "nobody"}
	}
	for _, n := range names {
		u, err := user.Lookup(n)
		if err != nil {
			continue
		}
		uid, err1 := strconv.Atoi(u.Uid)
		gid, err2 := strconv.Atoi(u.Gid)
		if err := errors.Join(err1, err2); err != nil {
			return account{}, err
		}
		if uid == 0 {
			return account{}, problem.New(problem.Invalid, "server_user_invalid", "PostgreSQL does not run as %s", n).
				WithHint("name another user for servers")
		}
		return account{name: n, home: u.HomeDir, uid: uid, gid: gid, change: true}, nil
	}
	return account{}, problem.New(problem.Invalid, "server_user_missing", "there is no user %s to run the server as", names[0]).
		WithHint("create it (useradd --system %s), or name another", names[0])
}

// env is the environment of a child that runs as the account. In root's home the
// account cannot look for certificates, and libpq takes that for an error: the server
// could follow no primary over TLS.
func (a account) env() []string {
	env := cleanEnv()
	if !a.change {
		return env
	}
	env = slices.DeleteFunc(env, func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		return name == "HOME" || name == "USER" || name == "LOGNAME"
	})
	return append(env, "HOME="+a.home, "USER="+a.name, "LOGNAME="+a.name)
}

// own gives a file or directory to the account.
func (a account) own(path string) error {
	if !a.change {
		return nil
	}
	return os.Lchown(path, a.uid, a.gid)
}

// credential is what a child needs to run as the account; nil for no change.
func (a account) credential() *syscall.Credential {
	if !a.change {
		return nil
	}
	return &syscall.Credential{Uid: uint32(a.uid), Gid: uint32(a.gid)}
}

// Reachable says whether the user that servers run as by default can enter the
// directory and all above it.
func Reachable(dir string) bool {
	owner, err := runAs("")
	return err == nil && owner.reaches(dir)
}

// reaches says whether the account can enter the directory and all above it.
func (a account) reaches(dir string) bool { return a.barrier(dir) == "" }

// barrier returns the uppermost directory on the way to dir that the account
// cannot enter, or "". Parts that do not exist are no barrier. For an account
// that is this process's own only a failing stat is one.
func (a account) barrier(dir string) string {
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real
	}
	if parent := filepath.Dir(dir); parent != dir {
		if b := a.barrier(parent); b != "" {
			return b
		}
	}
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return ""
	case err != nil:
		return dir
	case !a.change:
		return ""
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return ""
	}
	bit := os.FileMode(0o001)
	switch {
	case int(stat.Uid) == a.uid:
		bit = 0o100
	case int(stat.Gid) == a.gid:
		bit = 0o010
	}
	if info.Mode()&bit == 0 {
		return dir
	}
	return ""
}
