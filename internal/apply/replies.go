package apply

import (
	"encoding/binary"
	"errors"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/twinspan/twinspan/internal/pg"
)

// replies reads what the server sends.
type replies struct {
	raw     *pg.Raw
	scratch []byte
	fatal   *pgconn.PgError // an error outside of an exchange, or one that ends the session
}

// run hands each reply to the exchange that current returns; it calls next when
// one is over. It returns why the connection ended.
func (r *replies) run(current func() *exchange, next func()) error {
	for {
		kind, length, err := r.raw.Next()
		if err != nil {
			return err
		}
		switch kind {
		case 'N', 'S', 'A', 'K', '2', '3', 'n', 't', 'T', 'G', 's', 'I':
			continue // notices, settings, and replies that say nothing new
		}
		x := current()
		if x == nil && kind != 'E' {
			return errUnexpected
		}
		switch kind {
		case '1':
			err = x.parsed()
		case 'C':
			var tag []byte
			if tag, err = r.body(length); err == nil {
				err = x.completed(tag)
			}
		case 'D':
			err = r.row(x, length)
		case 'E':
			err = r.failed(x, length)
		case 'Z':
			if err = x.ready(); err == nil {
				next()
			}
		default:
			err = errUnexpected
		}
		if err != nil {
			return err
		}
	}
}

// body reads the rest of a short message, into memory that is used again.
func (r *replies) body(length int) ([]byte, error) {
	r.scratch = r.scratch[:0]
	for len(r.scratch) < length {
		b, err := r.raw.Take(length - len(r.scratch))
		if err != nil {
			return nil, err
		}
		r.scratch = append(r.scratch, b...)
	}
	return r.scratch, nil
}

func (r *replies) row(x *exchange, length int) error {
	if !x.wantsRows() {
		return nil // passed over with the next message
	}
	b, err := r.body(length)
	if err != nil {
		return err
	}
	if len(b) < 2 {
		return errUnexpected
	}
	fields := make([]field, binary.BigEndian.Uint16(b))
	b = b[2:]
	for i := range fields {
		if len(b) < 4 {
			return errUnexpected
		}
		n := int32(binary.BigEndian.Uint32(b))
		b = b[4:]
		if n < 0 {
			continue
		}
		if int(n) > len(b) {
			return errUnexpected
		}
		fields[i] = append(field{}, b[:n]...)
		b = b[n:]
	}
	x.row(fields)
	return nil
}

// maxError bounds the text of an error.
const maxError = 1 << 20

func (r *replies) failed(x *exchange, length int) error {
	body, err := r.raw.Body(maxError)
	if err != nil {
		return err
	}
	var e *pgconn.PgError
	if !errors.As(pg.ServerErrorFrom(body), &e) {
		return errUnexpected
	}
	if x == nil || e.Severity == "FATAL" || e.Severity == "PANIC" || strings.HasPrefix(e.Code, "57P") {
		r.fatal = e
		return nil // the connection ends now
	}
	x.failed(e)
	return nil
}
