package pgtest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// FlakyEnv names the environment variable with the file to which is added what was only
// right when it was tried once more. make test shows it at its end.
const FlakyEnv = "TWINSPAN_TEST_FLAKY"

// KeepEnv names the environment variable with the directory into which the directories
// of servers and agents of tests that failed are copied.
const KeepEnv = "TWINSPAN_TEST_KEEP"

// flaky names what was tried once more.
func flaky(test, what string) {
	line := fmt.Sprintf("flaky: %s: %s\n", test, what)
	fmt.Fprint(os.Stderr, line)
	if path := os.Getenv(FlakyEnv); path != "" {
		if f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600); err == nil {
			_, _ = f.WriteString(line)
			_ = f.Close()
		}
	}
}

// Await is Eventually for what a slow machine alone can delay: a start, a session between
// agents, a phase. When its time is over it waits as long once more, and the wait is named
// as flaky. What asserts rows, order, rights, roles or writability is no business of it:
// check ends such a wait with t.Fatal, or the caller takes Eventually.
func Await(t testing.TB, timeout time.Duration, what string, check func() error) {
	t.Helper()
	err := waitFor(timeout, check)
	if err == nil {
		return
	}
	if err2 := waitFor(timeout, check); err2 != nil {
		t.Fatalf("%s: not so after %v, and once more as long: %v", what, timeout, err2)
	}
	flaky(t.Name(), fmt.Sprintf("%s took longer than %v: %v", what, timeout, err))
}

// waitFor calls check until it returns nil; its last error when it does not in time.
func waitFor(timeout time.Duration, check func() error) error {
	deadline := time.Now().Add(timeout)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		<-tick.C
	}
}

// Keep copies a directory of a test that failed to where KeepEnv says.
func Keep(t testing.TB, dir string) {
	base := os.Getenv(KeepEnv)
	if base == "" || !t.Failed() {
		return
	}
	target := filepath.Join(base, fmt.Sprint(Seed()), strings.ReplaceAll(t.Name(), "/", "_"))
	err := os.MkdirAll(target, 0o700)
	if err == nil {
		var out []byte
		if out, err = exec.Command("cp", "-a", dir, target).CombinedOutput(); err != nil {
			err = errors.New(string(out))
		}
	}
	t.Logf("%s is kept in %s (%v)", dir, target, err)
}
