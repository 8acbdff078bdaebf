// Package durable changes files of a directory so that a crash at any moment leaves the old
// state or the new one, and so that what has been reported as done is still there afterwards.
// It does for an agent's files what durable_rename and durable_unlink do inside PostgreSQL.
package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// Write replaces a file as a whole, or makes it, with the given mode whatever the umask is.
// Its owner becomes the process's own. Whoever reads the file sees the old content or the
// new one. A symbolic link is itself replaced; what it points to stays as it is. When Write
// fails before the rename, the old file is untouched and no temporary file is left; a killed
// process may leave a temporary file of the same mode, whose name begins with a dot.
func Write(path string, content []byte, mode fs.FileMode) error {
	return WriteOwned(path, content, mode, -1, -1)
}

// WriteOwned is Write with an owner and a group, each of which -1 leaves to the process's own.
// The file has them before it is in place.
func WriteOwned(path string, content []byte, mode fs.FileMode, uid, gid int) error {
	return place(path, content, mode, uid, gid, os.Rename)
}

// Create is Write for a file that must not be there yet: it never replaces one, also not one
// that another process made at the same moment. Its error is then fs.ErrExist.
func Create(path string, content []byte, mode fs.FileMode) error {
	return place(path, content, mode, -1, -1, os.Link)
}

// place writes a temporary file beside path, and lets publish give it the name.
func place(path string, content []byte, mode fs.FileMode, uid, gid int, publish func(from, to string) error) error {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // after a rename it is gone already
	_, err = f.Write(content)
	if err == nil && (uid >= 0 || gid >= 0) {
		err = f.Chown(uid, gid)
	}
	if err == nil {
		err = f.Chmod(mode) // behind Chown, which may take bits of it away
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := publish(f.Name(), path); err != nil {
		return err
	}
	return SyncDir(dir)
}

// Remove removes a file; one that is not there is no error.
func Remove(path string) error {
	err := os.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// SyncDir makes durable what was renamed, made and removed in a directory.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
