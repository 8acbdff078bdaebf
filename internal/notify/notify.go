// Package notify tells systemd how a service stands (sd_notify(3)): that it is ready, that
// it stops, and, where a watchdog waits for it, that it lives. Without systemd it does
// nothing.
package notify

import (
	"context"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// What is told.
const (
	Ready    = "READY=1"
	Stopping = "STOPPING=1"
	alive    = "WATCHDOG=1"
)

// Service is a service as its manager sees it. Its zero value has none.
type Service struct {
	address  string        // of the manager's datagram socket
	watchdog time.Duration // after which the manager takes it for dead; 0 for never
}

// FromEnvironment reads what systemd gives to the process that it has started.
func FromEnvironment(get func(string) string) Service {
	s := Service{address: get("NOTIFY_SOCKET")}
	if s.address != "" && !strings.HasPrefix(s.address, "/") && !strings.HasPrefix(s.address, "@") {
		s.address = "" // a kind of socket that there is no more
	}
	usec, err := strconv.ParseInt(get("WATCHDOG_USEC"), 10, 64)
	if pid := get("WATCHDOG_PID"); err == nil && usec > 0 && (pid == "" || pid == strconv.Itoa(os.Getpid())) {
		s.watchdog = time.Duration(usec) * time.Microsecond
	}
	return s
}

// Say tells the manager something. Nobody waits for the answer, of which there is none.
func (s Service) Say(what string) error {
	if s.address == "" {
		return nil
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: s.address, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetWriteDeadline(time.Now().Add(time.Second))
	_, err = conn.Write([]byte(what))
	return err
}

// Watch says that the service lives as long as look returns, three times in each span of
// the watchdog, until ctx ends; then that it stops. A look that hangs lets the manager end
// the service and start it again.
func (s Service) Watch(ctx context.Context, look func(context.Context)) {
	defer s.Say(Stopping)
	if s.address == "" || s.watchdog == 0 {
		<-ctx.Done()
		return
	}
	tick := time.NewTicker(s.watchdog / 3)
	defer tick.Stop()
	for ctx.Err() == nil { // a tick that is due as well does not make it look once more
		look(ctx)
		s.Say(alive)
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}
