package notify

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// manager is where a service tells how it stands.
func manager(t *testing.T) (path string, next func() string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "tw") // a socket's name is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path = filepath.Join(dir, "n")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return path, func() string {
		conn.SetReadDeadline(time.Now().Add(time.Minute))
		text := make([]byte, 100)
		n, err := conn.Read(text)
		if err != nil {
			t.Fatal(err)
		}
		return string(text[:n])
	}
}

func environment(list map[string]string) func(string) string {
	return func(name string) string { return list[name] }
}

func TestALivingServiceSaysSo(t *testing.T) {
	path, next := manager(t)
	s := FromEnvironment(environment(map[string]string{"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "30000", "WATCHDOG_PID": strconv.Itoa(os.Getpid())}))
	if err := s.Say(Ready); err != nil {
		t.Fatal(err)
	}
	if got := next(); got != Ready {
		t.Errorf("first %q", got)
	}
	ctx, stop := context.WithCancel(t.Context())
	hangs := make(chan struct{})
	looks, done := 0, make(chan struct{})
	go func() {
		defer close(done)
		s.Watch(ctx, func(ctx context.Context) {
			if looks++; looks == 3 {
				close(hangs)
				<-ctx.Done()
			}
		})
	}()
	for range 2 {
		if got := next(); got != alive {
			t.Errorf("while it lives: %q", got)
		}
	}
	<-hangs // nothing is said any more, until it goes on
	stop()
	<-done
	if looks != 3 {
		t.Errorf("%d looks", looks)
	}
	if got := next(); got != alive {
		t.Errorf("after the look that hung: %q", got)
	}
	if got := next(); got != Stopping {
		t.Errorf("last %q", got)
	}
}

func TestWithoutAManagerNothingIsSaid(t *testing.T) {
	for name, list := range map[string]map[string]string{
		"nothing": {}, "a kind of before": {"NOTIFY_SOCKET": "kdbus:x"}, "another's watchdog": {"WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"},
	} {
		s := FromEnvironment(environment(list))
		ctx, stop := context.WithCancel(t.Context())
		stop()
		s.Watch(ctx, func(context.Context) { t.Errorf("%s: it looks", name) })
		if err := s.Say(Ready); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	gone := FromEnvironment(environment(map[string]string{"NOTIFY_SOCKET": filepath.Join(t.TempDir(), "gone")}))
	if gone.Say(Ready) == nil {
		t.Error("a manager that is gone was told")
	}
}
