package pg_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/pgtest"
)

func raw(t testing.TB) *pg.Raw {
	t.Helper()
	s := pgtest.Shared(t)
	conn, err := parse(t, s.DSN("postgres")).Connect(testContext(t), pg.Session{Name: "raw"})
	if err != nil {
		t.Fatal(err)
	}
	r, err := pg.NewRaw(conn.PgConn())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func send(t testing.TB, r *pg.Raw, sql string) {
	t.Helper()
	message := binary.BigEndian.AppendUint32([]byte{'Q'}, uint32(4+len(sql)+1))
	if _, err := r.Conn().Write(append(append(message, sql...), 0)); err != nil {
		t.Fatal(err)
	}
}

// until passes over messages until one of the kind.
func until(t testing.TB, r *pg.Raw, kind byte) int {
	t.Helper()
	for {
		k, length, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		if k == kind {
			return length
		}
		if k == 'E' {
			body, _ := r.Body(1 << 20)
			t.Fatal(pg.ServerErrorFrom(body))
		}
	}
}

func TestRawReadsBodiesInPortions(t *testing.T) {
	r := raw(t)
	if r.ParameterStatus("client_encoding") != "UTF8" {
		t.Errorf("client_encoding is %q", r.ParameterStatus("client_encoding"))
	}
	send(t, r, `SELECT repeat('0123456789', 314573) || 'x'; SELECT 'small'`)
	length := until(t, r, 'D')
	if length != 2+4+3145731 {
		t.Fatalf("the row has %d bytes", length)
	}
	var got []byte
	for most := 1; ; most = min(most*3+1, 1<<20) {
		b, err := r.Take(most)
		if err == io.EOF {
			break
		}
		if err != nil || len(b) == 0 || len(b) > most {
			t.Fatalf("%d bytes of at most %d: %v", len(b), most, err)
		}
		got = append(got, b...)
	}
	if !bytes.Equal(got[6:], append(bytes.Repeat([]byte("0123456789"), 314573), 'x')) {
		t.Error("the row changed on its way")
	}
	if _, err := r.Take(1); err != io.EOF {
		t.Errorf("after the end: %v", err)
	}
	if until(t, r, 'D') != 2+4+5 {
		t.Error("the next row is lost")
	}
	if _, err := r.Body(10); err == nil {
		t.Error("a body longer than allowed was taken")
	}
	body, err := r.Body(11)
	if err != nil || string(body[6:]) != "small" {
		t.Errorf("%q %v", body, err)
	}
	until(t, r, 'Z')
	if status, err := r.Body(1); err != nil || string(status) != "I" {
		t.Errorf("status %q %v", status, err)
	}
	if r.Buffered() != 0 {
		t.Errorf("%d bytes are left", r.Buffered())
	}
	// What is not taken is passed over, also when it is larger than the buffer.
	send(t, r, `SELECT repeat('x', 1000000), 1; SELECT 'next'`)
	until(t, r, 'D')
	if _, err := r.Take(3); err != nil {
		t.Fatal(err)
	}
	until(t, r, 'D')
	if body, err := r.Body(100); err != nil || string(body[6:]) != "next" {
		t.Errorf("%q %v", body, err)
	}
}

func TestRawCancel(t *testing.T) {
	r := raw(t)
	send(t, r, `SELECT pg_sleep(600)`)
	done := make(chan error, 1)
	go func() {
		for {
			kind, _, err := r.Next()
			if err == nil && kind == 'E' {
				var body []byte
				if body, err = r.Body(1 << 20); err == nil {
					err = pg.ServerErrorFrom(body)
				}
			}
			if err != nil {
				done <- err
				return
			}
		}
	}()
	watch := connect(t, pgtest.Shared(t).DSN("postgres"), pg.Session{Name: "watch"})
	pgtest.Eventually(t, testPatience, func() error {
		if value(t, watch, `SELECT count(*)::text FROM pg_stat_activity WHERE application_name = 'twinspan/raw' AND state = 'active'`) != "1" {
			return errors.New("it does not sleep")
		}
		return nil
	})
	if err := r.Cancel(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if err := <-done; pg.SQLState(err) != "57014" {
		t.Errorf("got %v", err)
	}
	until(t, r, 'Z')
	send(t, r, `SELECT 1`)
	until(t, r, 'D')
}

func TestRawCloseWakesTheReader(t *testing.T) {
	r := raw(t)
	done := make(chan error, 1)
	go func() {
		_, _, err := r.Next()
		done <- err
	}()
	r.Close()
	// The server may be quicker to close its end.
	if err := <-done; !errors.Is(err, net.ErrClosed) && !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %v", err)
	}
	ended, cancel := context.WithCancel(testContext(t))
	cancel()
	if err := r.Cancel(ended); err == nil {
		t.Error("cancelled with a context that had ended")
	}
}

// slowConn returns from a write late, after the answer came, as happens on a busy
// machine; pgx takes it for a sign that nobody reads.
type slowConn struct {
	net.Conn
	slow atomic.Bool
}

func (c *slowConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	if c.slow.Load() {
		<-time.After(100 * time.Millisecond)
	}
	return n, err
}

func TestRawTakesOverAfterASlowWrite(t *testing.T) {
	config, err := pgconn.ParseConfig(pgtest.Shared(t).DSN("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	slow := &slowConn{}
	dial := config.DialFunc
	config.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		slow.Conn = conn
		return slow, err
	}
	conn, err := pgconn.ConnectConfig(testContext(t), config)
	if err != nil {
		t.Fatal(err)
	}
	slow.slow.Store(true)
	if err := conn.Exec(testContext(t), "SELECT 1").Close(); err != nil {
		t.Fatal(err)
	}
	slow.slow.Store(false)
	r, err := pg.NewRaw(conn)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := r.Conn().SetReadDeadline(time.Now().Add(testPatience)); err != nil {
		t.Fatal(err)
	}
	send(t, r, "SELECT 1")
	until(t, r, 'Z') // pgx's reader in the background would have taken it
}

// server is the other end of a Raw that says what it is told to.
func server(t testing.TB, say []byte) *pg.Raw {
	t.Helper()
	ours, theirs := net.Pipe()
	config, err := pgconn.ParseConfig("host=x")
	if err != nil {
		t.Fatal(err)
	}
	c, err := pgconn.Construct(&pgconn.HijackedConn{Conn: ours, Config: config, TxStatus: 'I', ParameterStatuses: map[string]string{}})
	if err != nil {
		t.Fatal(err)
	}
	r, err := pg.NewRaw(c)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		_, _ = theirs.Write(say)
		theirs.Close()
	}()
	t.Cleanup(func() { ours.Close(); theirs.Close() })
	return r
}

func TestRawRefusesImpossibleLengths(t *testing.T) {
	for _, length := range []uint32{0, 3, 1<<30 + 1<<20 + 5, 1 << 31, 1<<32 - 1} {
		r := server(t, binary.BigEndian.AppendUint32([]byte{'D'}, length))
		if _, n, err := r.Next(); err == nil {
			t.Errorf("a length of %d was taken as %d", length, n)
		}
	}
	for _, cut := range [][]byte{{}, {'D', 0, 0}, {'D', 0, 0, 0, 9, 'x'}} {
		r := server(t, cut)
		_, _, err := r.Next()
		if err == nil {
			_, err = r.Body(100)
		}
		if err != io.ErrUnexpectedEOF {
			t.Errorf("%v cut off: %v", cut, err)
		}
	}
	r := server(t, []byte{'Z', 0, 0, 0, 4, 'K', 0, 0, 0, 5, '!'})
	if kind, n, err := r.Next(); kind != 'Z' || n != 0 || err != nil {
		t.Fatal(kind, n, err)
	}
	if _, err := r.Take(1); err != io.EOF {
		t.Errorf("an empty body: %v", err)
	}
	if kind, n, err := r.Next(); kind != 'K' || n != 1 || err != nil {
		t.Fatal(kind, n, err)
	}
}

func TestServerErrorFrom(t *testing.T) {
	var e *pgconn.PgError
	err := pg.ServerErrorFrom([]byte("SERROR\x00VERROR\x00C23505\x00Mduplicate key\x00DKey (id)=(1)\x00Htry\x00spublic\x00tt1\x00nt1_pkey\x00\x00"))
	if !errors.As(err, &e) || e.Code != "23505" || e.Message != "duplicate key" || e.Detail != "Key (id)=(1)" || e.Hint != "try" ||
		e.SchemaName != "public" || e.TableName != "t1" || e.ConstraintName != "t1_pkey" || e.Severity != "ERROR" {
		t.Errorf("%#v", e)
	}
}

func FuzzServerErrorFrom(f *testing.F) {
	f.Add([]byte("SERROR\x00C23505\x00Mx\x00\x00"))
	f.Add([]byte("M"))
	f.Add([]byte("\x00\x00\x00"))
	f.Add([]byte("Cunfinished"))
	f.Fuzz(func(t *testing.T, body []byte) {
		if pg.ServerErrorFrom(body) == nil {
			t.Fatal("no error")
		}
	})
}

func FuzzRaw(f *testing.F) {
	f.Add([]byte{'Z', 0, 0, 0, 5, 'I'})
	f.Add([]byte{'D', 0, 0, 0, 8, 1, 2, 3, 4, 'E', 255, 255, 255, 255})
	f.Fuzz(func(t *testing.T, say []byte) {
		r := server(t, say)
		for read := 0; ; {
			_, n, err := r.Next()
			if err != nil {
				return
			}
			read += 5
			if n < 0 {
				t.Fatalf("a length of %d", n)
			}
			if n%2 == 1 { // an even one is passed over by Next
				body, err := r.Body(1 << 16)
				if err != nil {
					return
				}
				if !bytes.Equal(body, say[read:read+n]) {
					t.Fatalf("body of %d bytes for %d", len(body), n)
				}
			}
			read += n
		}
	})
}
