package instance

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/twinspan/twinspan/internal/problem"
)

// Space is what a server takes on disk, and what its file system has left.
type Space struct {
	Used int64 // of data directory, log and tablespaces, in whole blocks
	Free int64 // on the file system of the data directory, for the server's user
}

// Space measures what the server takes. It looks at every file: seconds where there are a million. Files that come and go meanwhile
// may be left out. Tablespaces on other file systems count as used, too.
func (s *Server) Space() (Space, error) {
	var out Space
	roots := []string{s.DataDir()}
	if log, err := os.Readlink(filepath.Join(s.DataDir(), "pg_wal")); err == nil {
		roots = append(roots, log)
	}
	spaces, err := os.ReadDir(filepath.Join(s.DataDir(), "pg_tblspc"))
	if err != nil {
		return out, unmeasured(err, s.DataDir())
	}
	for _, e := range spaces {
		if dir, err := os.Readlink(filepath.Join(s.DataDir(), "pg_tblspc", e.Name())); err == nil {
			roots = append(roots, dir)
		}
	}
	for _, root := range roots {
		err := filepath.WalkDir(root, func(_ string, e fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil {
				return err
			}
			info, err := e.Info()
			if err != nil {
				return nil // it is gone
			}
			if stat, ok := info.Sys().(*syscall.Stat_t); ok {
				out.Used += stat.Blocks * 512 // whatever the file system's own block is (stat(2))
			}
			return nil
		})
		if err != nil {
			return out, unmeasured(err, root)
		}
	}
	var stat unix.Statfs_t
	if err := unix.Statfs(s.DataDir(), &stat); err != nil {
		return out, unmeasured(err, s.DataDir())
	}
	out.Free = int64(stat.Bavail) * int64(stat.Bsize)
	return out, nil
}

func unmeasured(err error, path string) error {
	return problem.Wrap(err, problem.Unauthorised, "storage_unmeasured", "what the instance takes on disk cannot be measured").On(path).
		WithHint("run the agent as the user that made the instance")
}
