package peer

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"testing"
)

// The benchmarks compare a stream between two agents with the TLS connection that it
// travels on, both over loopback. docs/design/0004-peers.md has their numbers.

func BenchmarkStream(b *testing.B) {
	x, y := pair(b, func(x, _ *agent) { x.HandleStream("sink", sink) })
	for _, size := range []int{4 << 10, 64 << 10, MaxFrame} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			s, err := y.Open(background(b), x.name(), "sink", nil)
			check(b, err)
			defer s.Close()
			frame := make([]byte, size)
			b.SetBytes(int64(size))
			for b.Loop() {
				check(b, s.WriteFrame(FirstFreeKind, frame))
			}
			check(b, s.CloseWrite())
			_, _, err = s.ReadFrame()
			check(b, err)
		})
	}
}

func BenchmarkCall(b *testing.B) {
	x, y := pair(b, func(x, _ *agent) { x.Handle("echo", echo) })
	for b.Loop() {
		check(b, y.Call(background(b), x.name(), "echo", question{"x"}, nil))
	}
}

func BenchmarkTLS(b *testing.B) {
	x, y := newAgent(b, "a"), newAgent(b, "b")
	x.know(b, y, "")
	l, err := tls.Listen("tcp", "127.0.0.1:0", x.serverTLS())
	check(b, err)
	defer l.Close()
	done := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{c}, make([]byte, 64<<10))
			c.Close()
		}
		done <- err
	}()
	raw, err := net.Dial("tcp", l.Addr().String())
	check(b, err)
	c := tls.Client(raw, y.clientTLS(sessionProtocol, func(string) bool { return true }))
	piece := make([]byte, 64<<10)
	b.SetBytes(int64(len(piece)))
	for b.Loop() {
		_, err := c.Write(piece)
		check(b, err)
	}
	check(b, c.Close())
	check(b, receive(b, done))
}
