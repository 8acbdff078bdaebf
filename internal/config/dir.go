package config

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/twinspan/twinspan/internal/durable"
	"github.com/twinspan/twinspan/internal/problem"
)

// Dir is an agent's directory, an absolute path. Everything that makes an agent
// itself lies in it; everything about links lies in PostgreSQL.
type Dir string

// OpenDir names a directory, which need not exist. Symbolic links are kept as
// they are given.
func OpenDir(path string) (Dir, error) {
	if path == "" {
		return "", problem.New(problem.Invalid, "dir_missing", "no directory is named").
			WithHint("give --dir DIR or set TWINSPAN_DIR")
	}
	absolute, err := filepath.Abs(path)
	if err != nil {
		return "", problem.Wrap(err, problem.Invalid, "dir_invalid", "name the directory")
	}
	return Dir(absolute), nil
}

// Path returns the directory itself.
func (d Dir) Path() string { return string(d) }

// File returns the path of twinspan.toml.
func (d Dir) File() string { return d.join("twinspan.toml") }

// Identity returns the directory of the agent's key and certificate.
func (d Dir) Identity() string { return d.join("identity") }

// Peers returns the directory of the trusted peers.
func (d Dir) Peers() string { return d.join("peers") }

// Invitations returns the directory of the invitations that are open.
func (d Dir) Invitations() string { return d.join("invitations") }

// Access returns the directory of what the API over TCP needs: certificate, key
// and the tokens' hashes.
func (d Dir) Access() string { return d.join("api") }

// Instance returns the directory of a managed server.
func (d Dir) Instance() string { return d.join("instance") }

// Size returns the file with the size of a managed instance.
func (d Dir) Size() string { return d.join("instance.json") }

// Backup returns the directory of the backups of a managed server.
func (d Dir) Backup() string { return d.join("backup") }

// Restores returns the directory of the temporary servers of restores.
func (d Dir) Restores() string { return d.join("restores") }

// Events returns the directory of the agent's record of events.
func (d Dir) Events() string { return d.join("events") }

// History returns the directory of what the charts of links show.
func (d Dir) History() string { return d.join("history") }

// Run returns the directory of what lives only as long as the process.
func (d Dir) Run() string { return d.join("run") }

func (d Dir) join(name string) string { return filepath.Join(string(d), name) }

// Initialised says whether init was done here.
func (d Dir) Initialised() bool {
	_, err := os.Stat(d.File())
	return err == nil
}

// Load reads the configuration.
func (d Dir) Load() (Config, error) { return Load(d.File()) }

// Create makes the directory and the ones below that every agent has. The
// directory itself can be passed through by others, because a managed server
// runs as another user than an agent started by root; what is secret lies in
// directories that only the owner enters.
func (d Dir) Create() error {
	if err := os.MkdirAll(d.Path(), 0o755); err != nil {
		return problem.Wrap(err, problem.Resource, "dir_not_writable", "create the directory")
	}
	if err := os.MkdirAll(d.Run(), 0o700); err != nil {
		return problem.Wrap(err, problem.Resource, "dir_not_writable", "create the directory run")
	}
	return nil
}

// socketMax is what fits into sockaddr_un.sun_path with its closing NUL.
const socketMax = 107

// socketName is the file in Run that holds the socket's path when the ordinary
// one is too long.
const socketName = "socket"

// Socket returns the path of the Unix socket of the API, for those who dial.
func (d Dir) Socket() string {
	ordinary := filepath.Join(d.Run(), "twinspan.sock")
	if len(ordinary) <= socketMax {
		return ordinary
	}
	if text, err := os.ReadFile(filepath.Join(d.Run(), socketName)); err == nil {
		return strings.TrimSpace(string(text))
	}
	return d.shortSocket()
}

// PrepareSocket returns the path to listen on. When the directory's own path is
// too long for a socket, the socket lies in a directory of its own, below
// XDG_RUNTIME_DIR or the system's temporary directory, and run/socket names it.
// The caller must hold the lock.
func (d Dir) PrepareSocket() (string, error) {
	record := filepath.Join(d.Run(), socketName)
	ordinary := filepath.Join(d.Run(), "twinspan.sock")
	if len(ordinary) <= socketMax {
		if err := os.Remove(record); err != nil && !errors.Is(err, os.ErrNotExist) {
			return "", problem.Wrap(err, problem.Resource, "dir_not_writable", "prepare the socket")
		}
		return ordinary, nil
	}
	short := d.shortSocket()
	if len(short) > socketMax {
		return "", problem.New(problem.Invalid, "socket_path_long", "no path short enough for a Unix socket: %d bytes, at most %d", len(short), socketMax).
			WithHint("use a directory with a shorter path, or set XDG_RUNTIME_DIR or TMPDIR to a short one")
	}
	if err := ownDirectory(filepath.Dir(short)); err != nil {
		return "", err
	}
	if err := durable.Write(record, []byte(short+"\n"), 0o600); err != nil {
		return "", problem.Wrap(err, problem.Resource, "dir_not_writable", "record the path of the socket")
	}
	return short, nil
}

// ReleaseSocket removes the directory that PrepareSocket made, once the socket in
// it is closed; where the socket lies in Run there is nothing to do.
func (d Dir) ReleaseSocket() {
	record := filepath.Join(d.Run(), socketName)
	if text, err := os.ReadFile(record); err == nil {
		// What cannot be removed is in nobody's way: the next agent uses it again.
		_ = os.Remove(filepath.Dir(strings.TrimSpace(string(text))))
	}
}

func (d Dir) shortSocket() string {
	base := os.Getenv("XDG_RUNTIME_DIR")
	if base == "" {
		base = os.TempDir()
	}
	sum := sha256.Sum256([]byte(d))
	return filepath.Join(base, fmt.Sprintf("twinspan-%d-%s", os.Getuid(), hex.EncodeToString(sum[:6])), "api.sock")
}

// ownDirectory makes a directory that only this user enters. In a place that
// everybody may write to, somebody else could have made it first: that is refused.
func ownDirectory(path string) error {
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return problem.Wrap(err, problem.Resource, "dir_not_writable", "create the directory of the socket")
	}
	info, err := os.Lstat(path)
	if err != nil {
		return problem.Wrap(err, problem.Resource, "dir_not_writable", "look at the directory of the socket")
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !info.IsDir() || info.Mode().Perm()&0o077 != 0 || !ok || int(stat.Uid) != os.Getuid() {
		return problem.New(problem.Conflict, "socket_dir_foreign", "%s exists and is not a directory of this user alone", path).
			WithHint("remove it, or set XDG_RUNTIME_DIR to a directory of your own")
	}
	return nil
}

// Lock keeps a second agent out of the directory.
type Lock struct{ file *os.File }

// Lock takes the directory for this process. The kernel gives it back when the
// process ends, however it ends.
func (d Dir) Lock() (*Lock, error) {
	path := filepath.Join(d.Run(), "lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, problem.Wrap(err, problem.Resource, "dir_not_writable", "open the lock of the directory")
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer f.Close()
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, problem.Wrap(err, problem.Resource, "lock_failed", "lock the directory")
		}
		pid := make([]byte, 20)
		n, _ := f.Read(pid)
		return nil, problem.New(problem.Conflict, "already_running", "an agent runs in %s already (process %s)", d.Path(), strings.TrimSpace(string(pid[:n]))).
			WithHint("stop it first, or use another directory")
	}
	if err = f.Truncate(0); err == nil {
		_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	if err != nil {
		f.Close()
		return nil, problem.Wrap(err, problem.Resource, "dir_not_writable", "write the lock of the directory")
	}
	return &Lock{file: f}, nil
}

// Release gives the directory back. It may be called once.
func (l *Lock) Release() error { return l.file.Close() }
