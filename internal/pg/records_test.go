package pg

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// memory is one end of a connection in memory. Writes never wait; reads get what is there,
// at most most bytes at once.
type memory struct {
	net.Conn // what tests do not need
	in, out  *flow
	most     int
}

type flow struct {
	mu    sync.Mutex
	more  sync.Cond
	bytes bytes.Buffer
	ended bool
}

func newMemory(most int) (near, far *memory) {
	one, other := &flow{}, &flow{}
	one.more.L, other.more.L = &one.mu, &other.mu
	return &memory{in: one, out: other, most: most}, &memory{in: other, out: one, most: 1 << 20}
}

func (m *memory) Read(p []byte) (int, error) {
	f := m.in
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.bytes.Len() == 0 {
		if f.ended {
			return 0, io.EOF
		}
		f.more.Wait()
	}
	return f.bytes.Read(p[:min(len(p), m.most)])
}

func (m *memory) Write(p []byte) (int, error) {
	f := m.out
	f.mu.Lock()
	defer f.mu.Unlock()
	f.more.Broadcast()
	return f.bytes.Write(p)
}

// Close ends what the other end reads.
func (m *memory) Close() error {
	f := m.out
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended = true
	f.more.Broadcast()
	return nil
}

func (m *memory) SetWriteDeadline(time.Time) error { return nil }

// certificate makes one for the far end.
func certificate(t testing.TB) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// secured puts TLS on both ends and returns a Raw of the near one.
func secured(t testing.TB, near, far net.Conn, version uint16) (*Raw, net.Conn) {
	t.Helper()
	server := tls.Server(far, &tls.Config{Certificates: []tls.Certificate{certificate(t)}, MaxVersion: version})
	client := tls.Client(newSocket(near), &tls.Config{InsecureSkipVerify: true})
	done := make(chan error, 1)
	go func() { done <- server.Handshake() }()
	if err := errors.Join(client.Handshake(), <-done); err != nil {
		t.Fatal(err)
	}
	return newRaw(&pgconn.HijackedConn{Conn: client}), server
}

// numbered is a message that tells which one it is.
func numbered(i int) []byte {
	body := fmt.Sprintf("%d, as a row of some length", i)
	return append(binary.BigEndian.AppendUint32([]byte{'d'}, uint32(4+len(body))), body...)
}

func readNumbered(t testing.TB, r *Raw, i int) {
	t.Helper()
	kind, length, err := r.Next()
	if err != nil {
		t.Fatalf("message %d: %v", i, err)
	}
	body, err := r.Body(length)
	if want := numbered(i); err != nil || kind != 'd' || !bytes.Equal(body, want[5:]) {
		t.Fatalf("message %d is %q %q, %v", i, kind, body, err)
	}
}

// TestGatherCountsBytesNotRecords: over TLS each message is a record, and a reader that is
// behind waits for more to come once, not before every one of them.
func TestGatherCountsBytesNotRecords(t *testing.T) {
	const messages = 10_000
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			near, far := newMemory(1 << 20)
			r, server := secured(t, near, far, version)
			for i := range messages {
				if _, err := server.Write(numbered(i)); err != nil {
					t.Fatal(err)
				}
			}
			pauses := 0
			r.socket.pause = func() { pauses++ }
			r.Gather(true)
			for i := range messages {
				readNumbered(t, r, i)
			}
			if pauses > 2 {
				t.Errorf("%d pauses for %d messages that were all there", pauses, messages)
			}
		})
	}
}

// TestBufferedTellsOfAllRecordsThatCame: a reader hands on what it has when nothing more
// is there, so it must know of records behind the one that it read, and not wait for one
// of which a part has come.
func TestBufferedTellsOfAllRecordsThatCame(t *testing.T) {
	near, far := newMemory(1 << 20)
	r, server := secured(t, near, far, tls.VersionTLS13)
	for i := range 3 {
		if _, err := server.Write(numbered(i)); err != nil {
			t.Fatal(err)
		}
	}
	// Of the fourth record, a half comes later.
	came := near.in.bytes.Len()
	if _, err := server.Write(numbered(3)); err != nil {
		t.Fatal(err)
	}
	half := (near.in.bytes.Len() - came) / 2
	later := bytes.Clone(near.in.bytes.Bytes()[came+half:])
	near.in.bytes.Truncate(came + half)
	readNumbered(t, r, 0)
	if want := len(numbered(1)) + len(numbered(2)); r.Buffered() != want {
		t.Errorf("%d bytes are known to be there, not %d", r.Buffered(), want)
	}
	readNumbered(t, r, 1)
	readNumbered(t, r, 2)
	if r.Buffered() != 0 {
		t.Errorf("%d bytes are left", r.Buffered())
	}
	if _, err := far.Write(later); err != nil {
		t.Fatal(err)
	}
	readNumbered(t, r, 3)
}

// TestRecordsInPieces: whatever the socket gives at once, the messages are the same, and
// the end comes behind the last.
func TestRecordsInPieces(t *testing.T) {
	const messages = 300
	for _, most := range []int{1, 3, 22, 100, 5000, 1 << 20} {
		near, far := newMemory(most)
		r, server := secured(t, near, far, tls.VersionTLS13)
		r.socket.pause = func() {}
		all := []byte{}
		for i := range messages {
			all = append(all, numbered(i)...)
		}
		// Records begin and end anywhere.
		for rest := all; len(rest) > 0; {
			n := min(len(rest), 1+len(rest)*7%911)
			if _, err := server.Write(rest[:n]); err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
		if err := errors.Join(server.(*tls.Conn).CloseWrite(), far.Close()); err != nil {
			t.Fatal(err)
		}
		for i := range messages {
			r.Gather(i%2 == 0)
			readNumbered(t, r, i)
		}
		if _, _, err := r.Next(); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("at most %d bytes: behind the last message comes %v", most, err)
		}
	}
}

// BenchmarkGather reads rows of 100 bytes, each written by itself, as the walsender does,
// by a reader that is behind.
func BenchmarkGather(b *testing.B) {
	message := append(binary.BigEndian.AppendUint32([]byte{'d'}, 4+100), make([]byte, 100)...)
	for _, secure := range []bool{false, true} {
		name := map[bool]string{false: "plain", true: "tls"}[secure]
		b.Run(name, func(b *testing.B) {
			near, far := connected(b, "tcp")
			narrow(near)
			r := newRaw(&pgconn.HijackedConn{Conn: newSocket(near)})
			if secure {
				r, far = secured(b, near, far, tls.VersionTLS13)
			}
			r.Gather(true)
			b.SetBytes(int64(len(message)))
			b.ResetTimer()
			go func() {
				for range b.N {
					if _, err := far.Write(message); err != nil {
						return
					}
				}
			}()
			for range b.N {
				if _, _, err := r.Next(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
		})
	}
}
