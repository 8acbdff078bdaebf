package pgtest

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// witness is a test that notes how it fails.
type witness struct {
	testing.TB
	said string
}

func (w *witness) Fatalf(format string, _ ...any) {
	w.said = format
	runtime.Goexit()
}

// A wait that is right the second time is named; one that is not fails the test.
func TestAwaitTriesOnceMore(t *testing.T) {
	file := filepath.Join(t.TempDir(), "flaky")
	t.Setenv(FlakyEnv, file)
	ends := 0
	Await(t, 0, "the second", func() error {
		if ends++; ends == 2 {
			return nil
		}
		return errors.New("too early")
	})
	text, err := os.ReadFile(file)
	if err != nil || !strings.Contains(string(text), "flaky: TestAwaitTriesOnceMore: the second took longer") {
		t.Errorf("named as %q, %v", text, err)
	}
	w, done := &witness{TB: t}, make(chan struct{})
	go func() {
		defer close(done)
		Await(w, 0, "never", func() error { return errors.New("no") })
	}()
	if <-done; !strings.Contains(w.said, "once more") {
		t.Errorf("a wait that was never right ended with %q", w.said)
	}
}
