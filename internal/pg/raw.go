package pg

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// Raw is a connection on which the caller speaks the frontend/backend protocol
// itself (manual, "Message Formats"). It exists for the bulk paths: a message's
// body is read in portions, so that a row of a gigabyte needs no gigabyte, and
// many messages are written at once, COPY data among statements.
//
// One goroutine may read while another writes. Close may be called by any.
type Raw struct {
	conn   net.Conn
	socket *socket // below conn where that is a TLS connection; else the same
	hi     *pgconn.HijackedConn

	buf        []byte // what was read from the connection
	start, end int    // the unread part of buf
	left       int    // bytes of the current message's body not yet taken
}

// readBuffer is how much a Raw reads from its socket at once. Large, for each
// read wakes the server (walsender) when its socket was full.
const readBuffer = 1 << 18

// NewRaw takes over a session that is idle. The PgConn must not be used after.
func NewRaw(c *pgconn.PgConn) (*Raw, error) {
	// After a write that took long, a reader of pgx's own may still wait for the
	// next bytes in the background. It must be gone, or it takes them.
	ctx, stop := context.WithTimeout(context.Background(), 30*time.Second)
	defer stop()
	if err := c.SyncConn(ctx); err != nil {
		return nil, fmt.Errorf("take over connection: %w", err)
	}
	hi, err := c.Hijack()
	if err != nil {
		return nil, fmt.Errorf("take over connection: %w", err)
	}
	return newRaw(hi), nil
}

func newRaw(hi *pgconn.HijackedConn) *Raw {
	r := &Raw{conn: hi.Conn, hi: hi, buf: make([]byte, readBuffer)}
	below := hi.Conn
	secure, isTLS := hi.Conn.(*tls.Conn)
	if isTLS {
		below = secure.NetConn()
	}
	var ok bool
	if r.socket, ok = below.(*socket); !ok {
		// Not a session of a DSN, and nothing gathers in it.
		r.socket = newSocket(below)
		return r
	}
	if isTLS {
		r.socket.buf = make([]byte, recordsBuffer)
	}
	return r
}

// Gather says whether reads of the socket wait a while first, so that messages gather,
// unless the read before got so many that more are there surely. It is for a reader that
// is behind: all that it delays is found by the read (docs/design/0007-speed.md). Only
// the reader may call it.
func (r *Raw) Gather(on bool) { r.socket.gather = on }

// Conn returns the connection for writing and for deadlines.
func (r *Raw) Conn() net.Conn { return r.conn }

// ParameterStatus returns a setting that the server reported at the start.
func (r *Raw) ParameterStatus(name string) string { return r.hi.ParameterStatuses[name] }

// PID returns the number of the server's process.
func (r *Raw) PID() uint32 { return r.hi.PID }

// Close closes the connection at once, without a farewell.
func (r *Raw) Close() error { return r.conn.Close() }

// Cancel asks the server to cancel what the session is doing.
func (r *Raw) Cancel(ctx context.Context) error {
	ctx, stop := context.WithTimeout(ctx, 5*time.Second)
	defer stop()
	c, err := pgconn.Construct(r.hi)
	if err != nil {
		return err
	}
	return c.CancelRequest(ctx)
}

// Buffered says how many bytes lie in the buffer: whether Next can answer
// without waiting for the network.
func (r *Raw) Buffered() int { return r.end - r.start }

// Next reads the header of the next message and returns its type and the length
// of its body. What is left of the body before is passed over.
func (r *Raw) Next() (kind byte, length int, err error) {
	for r.left > 0 {
		if _, err := r.Take(readBuffer); err != nil {
			return 0, 0, err
		}
	}
	if err := r.fill(5); err != nil {
		return 0, 0, err
	}
	head := r.buf[r.start : r.start+5]
	length = int(binary.BigEndian.Uint32(head[1:])) - 4
	if length < 0 || length > 1<<30+1<<20 {
		return 0, 0, fmt.Errorf("message %q has the impossible length %d", head[0], length)
	}
	kind = head[0]
	r.start += 5
	r.left = length
	return kind, length, nil
}

// Take returns at most most bytes of the current message's body, at least one,
// or io.EOF at its end. They are valid until the next call of any method.
func (r *Raw) Take(most int) ([]byte, error) {
	if r.left == 0 {
		return nil, io.EOF
	}
	if err := r.fill(1); err != nil {
		return nil, err
	}
	n := min(most, r.left, r.end-r.start)
	b := r.buf[r.start : r.start+n]
	r.start += n
	r.left -= n
	return b, nil
}

// Body reads the rest of the current message's body into memory that belongs
// to the caller; more than most bytes are an error.
func (r *Raw) Body(most int) ([]byte, error) {
	if r.left > most {
		return nil, fmt.Errorf("message of %d bytes where at most %d are expected", r.left, most)
	}
	body := make([]byte, 0, r.left)
	for r.left > 0 {
		b, err := r.Take(r.left)
		if err != nil {
			return nil, err
		}
		body = append(body, b...)
	}
	return body, nil
}

// fill makes at least n bytes lie in the buffer.
func (r *Raw) fill(n int) error {
	if r.end-r.start >= n {
		return nil
	}
	if r.start > 0 {
		copy(r.buf, r.buf[r.start:r.end])
		r.end -= r.start
		r.start = 0
	}
	for r.end < n {
		m, err := r.conn.Read(r.buf[r.end:])
		r.end += m
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		r.rest()
	}
	return nil
}

// rest takes what has come beyond the record that a read of a TLS connection gave, so that
// Buffered tells of it and a message costs no way through TLS of its own.
func (r *Raw) rest() {
	if r.socket.buf == nil {
		return
	}
	r.socket.stays = true
	for r.end < len(r.buf) {
		m, err := r.conn.Read(r.buf[r.end:])
		r.end += m
		if err != nil {
			break // nothing is left, or the next read says what is wrong
		}
	}
	r.socket.stays = false
}

// ServerErrorFrom reads the body of an ErrorResponse ('E') message.
func ServerErrorFrom(body []byte) error {
	e := &pgconn.PgError{}
	for len(body) > 1 {
		field := body[0]
		end := 1
		for end < len(body) && body[end] != 0 {
			end++
		}
		value := string(body[1:end])
		switch field {
		case 'S':
			e.Severity = value
		case 'C':
			e.Code = value
		case 'M':
			e.Message = value
		case 'D':
			e.Detail = value
		case 'H':
			e.Hint = value
		case 's':
			e.SchemaName = value
		case 't':
			e.TableName = value
		case 'n':
			e.ConstraintName = value
		}
		body = body[min(end+1, len(body)):]
	}
	return e
}
