package config

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/twinspan/twinspan/internal/problem"
)

func newDir(t *testing.T, name string) Dir {
	t.Helper()
	d, err := OpenDir(filepath.Join(t.TempDir(), name))
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Create(); err != nil {
		t.Fatal(err)
	}
	return d
}

func TestSecondAgentInOneDirectoryIsRefusedByName(t *testing.T) {
	d := newDir(t, "a")
	first, err := d.Lock()
	if err != nil {
		t.Fatal(err)
	}
	_, err = d.Lock()
	if problem.CodeOf(err) != "already_running" || !strings.Contains(err.Error(), fmt.Sprintf("process %d", os.Getpid())) {
		t.Errorf("%v", err)
	}
	if err := first.Release(); err != nil {
		t.Fatal(err)
	}
	again, err := d.Lock()
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Release(); err != nil {
		t.Fatal(err)
	}
}

func TestSocketFitsWhateverThePathIs(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", "")
	short, err := os.MkdirTemp("", "tw")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(short) })
	t.Setenv("TMPDIR", short)
	for _, length := range []int{1, 60, 80, 100, 200} {
		path := filepath.Join(short, fmt.Sprintf("%0*d", length, 7))
		d, err := OpenDir(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Create(); err != nil {
			t.Fatal(err)
		}
		listen, err := d.PrepareSocket()
		if err != nil {
			t.Fatal(err)
		}
		if dial := d.Socket(); dial != listen {
			t.Errorf("listens on %s, dials %s", listen, dial)
		}
		l, err := net.Listen("unix", listen)
		if err != nil {
			t.Fatalf("%d bytes: %v", len(listen), err)
		}
		// Another environment finds it by the record.
		t.Setenv("TMPDIR", t.TempDir())
		conn, err := net.Dial("unix", d.Socket())
		t.Setenv("TMPDIR", short)
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
		l.Close()
		d.ReleaseSocket()
	}
	if left, err := filepath.Glob(filepath.Join(short, "twinspan-*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestSocketDirectoryOfSomebodyElseIsRefused(t *testing.T) {
	runtime, err := os.MkdirTemp("", "tw")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(runtime) })
	t.Setenv("XDG_RUNTIME_DIR", runtime)
	d := newDir(t, strings.Repeat("x", 120))
	if err := os.Mkdir(filepath.Dir(d.shortSocket()), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Dir(d.shortSocket()), 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := d.PrepareSocket(); problem.CodeOf(err) != "socket_dir_foreign" {
		t.Errorf("%v", err)
	}
}

func TestNewFileNeverReplacesOne(t *testing.T) {
	d := newDir(t, "odd 'name\" ü\n")
	if err := WriteNew(d.File(), []byte("first")); err != nil {
		t.Fatal(err)
	}
	if err := WriteNew(d.File(), []byte("second")); problem.CodeOf(err) != "already_initialised" {
		t.Errorf("%v", err)
	}
	text, err := os.ReadFile(d.File())
	if err != nil || string(text) != "first" {
		t.Errorf("%q, %v", text, err)
	}
	info, err := os.Stat(d.File())
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	entries, err := os.ReadDir(d.Path())
	if err != nil || len(entries) != 2 { // the file and run
		t.Errorf("left behind: %v, %v", entries, err)
	}
}
