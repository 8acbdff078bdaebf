package instance

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/twinspan/twinspan/internal/problem"
)

// fakePrograms makes a directory of programs that tell a version.
func fakePrograms(t *testing.T, dir, version string, programs ...string) string {
	t.Helper()
	// Under root the server's user must reach it, which t.TempDir does not allow.
	base, err := os.MkdirTemp("/tmp", "twinspan-fake-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(base) })
	dir = filepath.Join(base, dir)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(base, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, p := range programs {
		script := fmt.Sprintf("#!/bin/sh\necho '%s (PostgreSQL) %s'\n", p, version)
		if err := os.WriteFile(filepath.Join(dir, p), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestFindBinaries(t *testing.T) {
	server := []string{"initdb", "pg_ctl", "postgres"}
	old := fakePrograms(t, "a", "71.3 (Debian 71.3-1)", server...)
	beta := fakePrograms(t, "b", "72beta1", server...)
	incomplete := fakePrograms(t, "c", "73.1", "postgres", "initdb")
	t.Setenv(BinariesEnv, strings.Join([]string{old, incomplete, beta, "relative", ""}, ":"))
	for major, want := range map[int]string{0: beta, 71: old, 72: beta} {
		b, err := FindBinaries(major)
		if err != nil || b.Dir != want {
			t.Errorf("version %d: %+v, %v", major, b, err)
		}
	}
	if _, err := FindBinaries(73); problem.CodeOf(err) != "binaries_missing" || problem.As(err).Hint == "" {
		t.Errorf("version 73: %v", err)
	}

	t.Setenv(BinariesEnv, "")
	t.Setenv("PATH", old+":"+os.Getenv("PATH"))
	if b, err := FindBinaries(71); err != nil || b.Dir != old {
		t.Errorf("in PATH: %+v, %v", b, err)
	}
}

func TestFindBinariesPassesOverWhatTheServersUserCannotReach(t *testing.T) {
	dir := fakePrograms(t, "a", "71.3", "initdb", "pg_ctl", "postgres")
	t.Setenv(BinariesEnv, dir)
	if err := os.Chmod(filepath.Dir(dir), 0o700); err != nil {
		t.Fatal(err)
	}
	_, err := FindBinaries(71)
	if root := os.Geteuid() == 0; (err != nil) != root {
		t.Errorf("as root %v: %v", root, err)
	}
}

func TestFindClient(t *testing.T) {
	a := fakePrograms(t, "a", "71.3", "pg_dump")
	b := fakePrograms(t, "b", "72.1", "pg_dump")
	wrapper := fakePrograms(t, "w", "99.1", "pg_wrapper")
	if err := os.Symlink("pg_wrapper", filepath.Join(wrapper, "pg_dump")); err != nil {
		t.Fatal(err)
	}
	t.Setenv(BinariesEnv, a+":"+b)
	t.Setenv("PATH", wrapper+":"+os.Getenv("PATH"))
	path, major, err := FindClient("pg_dump", 70)
	if err != nil || path != filepath.Join(b, "pg_dump") || major != 72 {
		t.Errorf("got %s %d %v", path, major, err)
	}
	if _, _, err := FindClient("pg_dump", 73); problem.CodeOf(err) != "client_missing" || !strings.Contains(err.Error(), "72") {
		t.Errorf("got %v", err)
	}
	if _, _, err := FindClient("pg_nothing", 0); problem.CodeOf(err) != "client_missing" {
		t.Errorf("got %v", err)
	}
}
