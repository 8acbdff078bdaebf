package assess_test

import (
	"io/fs"
	"os"
	"syscall"
	"testing"
)

// give makes the server's user the owner of a directory, where this is not that user.
func give(t *testing.T, dir string, like fs.FileInfo) {
	t.Helper()
	owner := like.Sys().(*syscall.Stat_t)
	if int(owner.Uid) == os.Getuid() {
		return
	}
	if err := os.Chown(dir, int(owner.Uid), int(owner.Gid)); err != nil {
		t.Fatal(err)
	}
}
