package durable

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
)

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func content(t *testing.T, path, want string) {
	t.Helper()
	got, err := os.ReadFile(path)
	check(t, err)
	if string(got) != want {
		t.Errorf("%s: %.60q, want %.60q", filepath.Base(path), got, want)
	}
}

// only fails where the directory has other files than these.
func only(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	check(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if fmt.Sprint(names) != fmt.Sprint(want) {
		t.Errorf("the directory has %v, want %v", names, want)
	}
}

func mode(t *testing.T, path string, want fs.FileMode) {
	t.Helper()
	info, err := os.Lstat(path)
	check(t, err)
	if info.Mode() != want {
		t.Errorf("%s: mode %v, want %v", filepath.Base(path), info.Mode(), want)
	}
}

func owned(t *testing.T, path string, uid, gid int) {
	t.Helper()
	info, err := os.Stat(path)
	check(t, err)
	if stat := info.Sys().(*syscall.Stat_t); int(stat.Uid) != uid || int(stat.Gid) != gid {
		t.Errorf("%s: owned by %d:%d, want %d:%d", filepath.Base(path), stat.Uid, stat.Gid, uid, gid)
	}
}

// A file is made, and replaced, with the mode that was asked for, whatever the umask and the
// old file's mode are.
func TestWrite(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	check(t, Write(path, []byte("one"), 0o644))
	content(t, path, "one")
	mode(t, path, 0o644)
	check(t, Write(path, []byte("two"), 0o600))
	content(t, path, "two")
	mode(t, path, 0o600)
	check(t, Write(path, nil, 0o600))
	content(t, path, "")
	only(t, dir, "file")
}

// The owner is the one that was asked for, or the process's own.
func TestWriteOwned(t *testing.T) {
	uid, gid := os.Getuid(), os.Getgid() // only root gives files away
	if uid == 0 {
		uid, gid = 4711, 4712
	}
	path := filepath.Join(t.TempDir(), "file")
	check(t, WriteOwned(path, []byte("one"), 0o640, uid, gid))
	owned(t, path, uid, gid)
	mode(t, path, 0o640)
	check(t, Write(path, []byte("two"), 0o640))
	owned(t, path, os.Getuid(), os.Getgid())
}

// A symbolic link is replaced; what it points to stays, so that nobody can lead a secret away.
func TestWriteOverSymlink(t *testing.T) {
	dir := t.TempDir()
	target, path := filepath.Join(dir, "a-target"), filepath.Join(dir, "file")
	check(t, os.WriteFile(target, []byte("old"), 0o600))
	check(t, os.Symlink(target, path))
	check(t, Write(path, []byte("new"), 0o600))
	content(t, target, "old")
	content(t, path, "new")
	mode(t, path, 0o600)
	only(t, dir, "a-target", "file")
}

// Where the content cannot be written whole, the old file stays and nothing is left behind.
func TestWriteWithoutRoom(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	check(t, Write(path, []byte("old"), 0o600))
	signal.Ignore(syscall.SIGXFSZ)
	defer signal.Reset(syscall.SIGXFSZ)
	var limit syscall.Rlimit
	check(t, syscall.Getrlimit(syscall.RLIMIT_FSIZE, &limit))
	check(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: 4096, Max: limit.Max}))
	err := Write(path, bytes.Repeat([]byte("x"), 1<<16), 0o600)
	check(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit))
	if !errors.Is(err, syscall.EFBIG) {
		t.Errorf("%v", err)
	}
	content(t, path, "old")
	only(t, dir, "file")
}

// Where the name cannot be taken, nothing is left behind.
func TestWriteOverDirectory(t *testing.T) {
	dir := t.TempDir()
	check(t, os.Mkdir(filepath.Join(dir, "file"), 0o700))
	if err := Write(filepath.Join(dir, "file"), []byte("x"), 0o600); err == nil {
		t.Error("a directory was replaced")
	}
	only(t, dir, "file")
	if err := Write(filepath.Join(dir, "none", "file"), []byte("x"), 0o600); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a directory: %v", err)
	}
}

// Of several that make the same file one succeeds, and its content is there whole.
func TestCreate(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	var made, refused []string
	var mu sync.Mutex
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			text := fmt.Sprint("by ", i)
			err := Create(path, []byte(text), 0o600)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				made = append(made, text)
			case errors.Is(err, fs.ErrExist):
				refused = append(refused, text)
			default:
				t.Error(err)
			}
		})
	}
	all.Wait()
	if len(made) != 1 || len(refused) != 7 {
		t.Fatalf("made %v, refused %v", made, refused)
	}
	content(t, path, made[0])
	mode(t, path, 0o600)
	only(t, dir, "file")
}

// A removal succeeds also where nothing is left to remove.
func TestRemove(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	check(t, Write(path, []byte("x"), 0o600))
	check(t, Remove(path))
	check(t, Remove(path))
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

// writerEnv makes the test binary a process that replaces a file without end.
const writerEnv = "DURABLE_TEST_FILE"

func TestMain(m *testing.M) {
	if path := os.Getenv(writerEnv); path != "" {
		for i := 0; ; i++ {
			if err := Write(path, page(i), 0o600); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			if i == 1 {
				fmt.Println("writing")
			}
		}
	}
	os.Exit(m.Run())
}

func page(i int) []byte { return bytes.Repeat([]byte{'a' + byte(i%2)}, 1<<20) }

// While a file is replaced it is read whole, and after its writer was killed too: the old
// content or the new one, never a part and never a mixture.
func TestKilledWriter(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	whole := func() {
		t.Helper()
		text, err := os.ReadFile(path)
		check(t, err)
		if !bytes.Equal(text, page(0)) && !bytes.Equal(text, page(1)) {
			t.Fatalf("%d bytes, which are neither the old content nor the new one", len(text))
		}
	}
	for round := range 8 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), writerEnv+"="+path)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		check(t, err)
		check(t, cmd.Start())
		if _, err := out.Read(make([]byte, 64)); err != nil {
			t.Errorf("the writer ended: %v", err)
		}
		for range 5 * round { // another moment in each round
			whole()
		}
		check(t, cmd.Process.Kill())
		_ = cmd.Wait() // it was killed
		whole()
	}
	check(t, Write(path, page(0), 0o600)) // what killed writers left is in nobody's way
	content(t, path, string(page(0)))
}
