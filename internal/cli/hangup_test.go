package cli

import (
	"bufio"
	"io"
	"log/slog"
	"strings"
	"syscall"
	"testing"
)

// TestHangupIsSurvived: a terminal that ends sends the signal that would end the agent.
func TestHangupIsSurvived(t *testing.T) {
	in, out := io.Pipe()
	stop := staysAtHangup(slog.New(slog.NewTextHandler(out, nil)))
	lines := bufio.NewScanner(in)
	for range 2 {
		if err := syscall.Kill(syscall.Getpid(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		if !lines.Scan() || !strings.Contains(lines.Text(), "SIGHUP: the agent goes on") {
			t.Fatalf("%q, %v", lines.Text(), lines.Err())
		}
	}
	stop()
}
