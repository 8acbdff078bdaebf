package demo

import (
	"errors"
	"net"
	"os"
	"path/filepath"

	"github.com/twinspan/twinspan/internal/config"
	"github.com/twinspan/twinspan/internal/instance"
	"github.com/twinspan/twinspan/internal/problem"
)

// marker is the file that tells a demonstration's directory from others, so that
// no other is ever cleared.
const marker = "twinspan-demo"

// place is the directory of a demonstration.
type place struct {
	dir       string
	temporary bool
	lock      *config.Lock
}

// openPlace makes the directory, or clears that of an earlier demonstration.
func openPlace(dir string) (place, error) {
	p := place{dir: dir, temporary: dir == ""}
	if p.temporary {
		made, err := temporary()
		if err != nil {
			return place{}, err
		}
		p.dir = made
	} else if err := ours(dir); err != nil {
		return place{}, err
	}
	root, err := config.OpenDir(p.dir)
	if err != nil {
		return place{}, err
	}
	p.dir = root.Path()
	if err := root.Create(); err != nil {
		return place{}, err
	}
	if p.lock, err = root.Lock(); err != nil {
		return place{}, err
	}
	if err := p.clear(); err != nil {
		return place{}, errors.Join(err, p.close())
	}
	if !instance.Reachable(p.dir) {
		return place{}, errors.Join(problem.New(problem.Invalid, "dir_closed", "the user that runs the servers cannot enter %s", p.dir).
			WithHint("give --dir a directory that others can pass through, such as one below /tmp or /var/lib"), p.close())
	}
	return p, nil
}

// temporary makes a directory that the servers' user can enter: the system's, or
// /tmp where root's environment names one of its own.
func temporary() (string, error) {
	base := os.TempDir()
	if !instance.Reachable(base) {
		base = "/tmp"
	}
	dir, err := os.MkdirTemp(base, "twinspan-demo-")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		return "", problem.Wrap(err, problem.Resource, "dir_not_writable", "make a temporary directory")
	}
	return dir, nil
}

// ours refuses a directory that holds something else than a demonstration.
func ours(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) || err == nil && len(entries) == 0 {
		return nil
	}
	if err != nil {
		return problem.Wrap(err, problem.Invalid, "dir_unreadable", "look into the directory")
	}
	if _, err := os.Stat(filepath.Join(dir, marker)); err != nil {
		return problem.New(problem.Conflict, "dir_not_empty", "%s holds something else than a demonstration", dir).
			WithHint("give --dir a directory that is empty or does not exist")
	}
	return nil
}

// clear removes what an earlier demonstration left, and marks the directory.
func (p place) clear() error {
	for _, name := range []string{"a", "b", "a.log", "b.log"} {
		if err := os.RemoveAll(filepath.Join(p.dir, name)); err != nil {
			return problem.Wrap(err, problem.Resource, "dir_not_writable", "clear the directory")
		}
	}
	text := "A demonstration of Twinspan ran here. It is cleared when the next one begins.\n"
	if err := os.WriteFile(filepath.Join(p.dir, marker), []byte(text), 0o644); err != nil {
		return problem.Wrap(err, problem.Resource, "dir_not_writable", "mark the directory")
	}
	return nil
}

// close gives the directory back, and removes it when it was a temporary one.
func (p place) close() error {
	err := p.lock.Release()
	if p.temporary {
		err = errors.Join(err, os.RemoveAll(p.dir))
	}
	return err
}

// freePorts returns n ports of the loopback address that are free now, all
// different.
func freePorts(n int) ([]int, error) {
	var ports []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, problem.Wrap(err, problem.Resource, "port_unavailable", "find a free port")
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}
