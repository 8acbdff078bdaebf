package seed

import (
	"bufio"
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// outBuffer is how much COPY data is written at once. A row comes in a message
// of its own, and rows are small.
const outBuffer = 1 << 18

// lockPatience is how long Copy goes on trying for a table's lock, a second at a
// time, with pauses in which the application goes on.
const lockPatience = time.Minute

// Copy writes the requested rows as COPY data, untouched. Whatever the size of a
// row, no more than a fraction of a megabyte of it is in memory. It holds an
// ACCESS SHARE lock on the table while it runs, and nothing after. Plan must have
// been called.
func (s *Session) Copy(ctx context.Context, r CopyRequest, w io.Writer) (rows int64, err error) {
	s.mu.Lock()
	table := s.plan[r.OID]
	s.mu.Unlock()
	if table == nil {
		return 0, problem.New(problem.Invalid, "table_unknown", "the table with oid %d is not in the plan", r.OID)
	}
	o, err := s.take(ctx)
	if err != nil {
		return 0, err
	}
	stop := context.AfterFunc(ctx, o.close)
	rows, err = o.copyTable(ctx, s.Snapshot, table, r, w)
	if !stop() {
		err = ctx.Err()
	}
	if err != nil {
		o.close()
		return rows, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		o.close()
	} else {
		s.idle = append(s.idle, o)
	}
	return rows, nil
}

// take returns an idle session or opens one.
func (s *Session) take(ctx context.Context) (*outSession, error) {
	s.mu.Lock()
	if n := len(s.idle); n > 0 {
		o := s.idle[n-1]
		s.idle = s.idle[:n-1]
		s.mu.Unlock()
		return o, nil
	}
	s.mu.Unlock()
	conn, err := s.dsn.Connect(ctx, pg.Session{Name: s.name + "/copy", Settings: map[string]string{
		// The bytes go to a session with the same encoding, so no value is converted
		// before the target does.
		"client_encoding":                 s.Encoding,
		"max_parallel_workers_per_gather": "0",
	}})
	if err != nil {
		return nil, err
	}
	raw, err := pg.NewRaw(conn.PgConn())
	if err != nil {
		conn.Close(context.WithoutCancel(ctx))
		return nil, pg.Classify(err, "take over a session")
	}
	return &outSession{raw: raw, out: bufio.NewWriterSize(nil, outBuffer)}, nil
}

// outSession is a session that speaks the simple query protocol.
type outSession struct {
	raw *pg.Raw
	out *bufio.Writer
}

func (o *outSession) close() { o.raw.Close() }

func (o *outSession) copyTable(ctx context.Context, snapshot string, t *Table, r CopyRequest, w io.Writer) (int64, error) {
	name, err := o.lock(ctx, snapshot, t)
	if err != nil {
		return 0, err
	}
	if !r.whole() {
		if _, err := o.query("SET LOCAL enable_seqscan = off"); err != nil {
			return 0, pg.Classify(err, "copy "+t.Name.String())
		}
	}
	rows, err := o.copyOut(copySQL(name, &r), w)
	switch pg.SQLState(err) {
	case "":
	case "42703", "42P01":
		return rows, schemaChanged(t.Name, "its columns changed")
	}
	if err != nil {
		return rows, problem.As(pg.Classify(err, "copy "+t.Name.String())).On(t.Name.String())
	}
	_, err = o.query("COMMIT")
	return rows, pg.Classify(err, "end the copy of "+t.Name.String())
}

// lock begins a transaction at the snapshot and locks the table, as it is called
// now. Under the lock its file must be that of the snapshot: TRUNCATE and the
// rewriting forms of ALTER TABLE leave nothing that an older snapshot could see,
// and VACUUM FULL moves rows to other blocks.
func (o *outSession) lock(ctx context.Context, snapshot string, t *Table) (name string, err error) {
	identity := fmt.Sprintf("SELECT %d::oid::regclass::text, coalesce(pg_relation_filenode(%d), 0)", t.OID, t.OID)
	begin := "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT " + sqlname.Literal(snapshot)
	end := time.Now().Add(lockPatience)
	for {
		if _, err := o.query(begin); err != nil {
			return "", snapshotError(err)
		}
		before, err := o.query(identity)
		if err != nil {
			return "", pg.Classify(err, "look at "+t.Name.String())
		}
		if before[1] == "0" {
			return "", tableChanged(t)
		}
		now, err := o.query(fmt.Sprintf("SET LOCAL lock_timeout = %d; LOCK TABLE ONLY %s IN ACCESS SHARE MODE; %s", lockTimeout.Milliseconds(), before[0], identity))
		if err == nil {
			if now[1] != strconv.FormatUint(uint64(t.Filenode), 10) || now[0] != before[0] {
				return "", tableChanged(t)
			}
			return now[0], nil
		}
		switch pg.SQLState(err) {
		case "42P01", "3F000":
			return "", tableChanged(t)
		}
		err = pg.Classify(err, "lock "+t.Name.String())
		if problem.CodeOf(err) != "lock_not_available" || time.Now().After(end) {
			return "", err
		}
		if _, err := o.query("ROLLBACK"); err != nil {
			return "", pg.Classify(err, "give up waiting for "+t.Name.String())
		}
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-time.After(lockTimeout):
		}
	}
}

func tableChanged(t *Table) error {
	return problem.New(problem.Conflict, "table_changed", "%s was truncated, rewritten or dropped after the snapshot", t.Name).On(t.Name.String())
}

func schemaChanged(t sqlname.Table, what string) error {
	return problem.New(problem.Conflict, "schema_changed_during_seeding", "%s: %s while the database was being copied", t, what).
		On(t.String()).WithHint("delete the link and create it again, and leave the schema alone until it replicates")
}

// copySQL writes the COPY of a request. name is quoted.
func copySQL(name string, r *CopyRequest) string {
	format := "text"
	if r.Binary {
		format = "binary"
	}
	columns := sqlname.Join(r.Columns)
	if r.whole() {
		if columns != "" {
			columns = " (" + columns + ")"
		}
		return fmt.Sprintf("COPY %s%s TO STDOUT (FORMAT %s)", name, columns, format)
	}
	var where []string
	if r.First > 0 {
		where = append(where, fmt.Sprintf("ctid >= '(%d,0)'", r.First))
	}
	if r.End > 0 {
		where = append(where, fmt.Sprintf("ctid < '(%d,0)'", r.End))
	}
	if r.Since > 0 {
		// Numbers of transactions go round: one is later when it is ahead by less
		// than half of them (TransactionIdFollowsOrEquals).
		where = append(where, fmt.Sprintf("(xmin::text::bigint - %d + 4294967296) %% 4294967296 < 2147483648", uint32(r.Since)))
	}
	filter := ""
	if len(where) > 0 {
		filter = " WHERE " + strings.Join(where, " AND ")
	}
	return fmt.Sprintf("COPY (SELECT %s FROM ONLY %s%s) TO STDOUT (FORMAT %s)", columns, name, filter, format)
}

// send writes a Query message.
func (o *outSession) send(sql string) error {
	msg := make([]byte, 5, len(sql)+6)
	msg[0] = 'Q'
	binary.BigEndian.PutUint32(msg[1:], uint32(len(sql)+5))
	msg = append(append(msg, sql...), 0)
	_, err := o.raw.Conn().Write(msg)
	return err
}

// smallMessage bounds what is read into memory as a whole.
const smallMessage = 1 << 20

// query runs statements and returns the last row that they answered.
func (o *outSession) query(sql string) ([]string, error) {
	if err := o.send(sql); err != nil {
		return nil, err
	}
	var row []string
	var failed error
	for {
		kind, _, err := o.raw.Next()
		if err != nil {
			return nil, cmp.Or(failed, err) // a farewell says more than the end
		}
		switch kind {
		case 'D', 'E':
			body, err := o.raw.Body(smallMessage)
			if err != nil {
				return nil, err
			}
			if kind == 'E' {
				failed = pg.ServerErrorFrom(body)
			} else if row, err = dataRow(body); err != nil {
				return nil, err
			}
		case 'Z':
			return row, failed
		}
	}
}

// dataRow reads a DataRow message; NULL is "".
func dataRow(body []byte) ([]string, error) {
	if len(body) < 2 {
		return nil, io.ErrUnexpectedEOF
	}
	row := make([]string, binary.BigEndian.Uint16(body))
	body = body[2:]
	for i := range row {
		if len(body) < 4 {
			return nil, io.ErrUnexpectedEOF
		}
		n := int(int32(binary.BigEndian.Uint32(body)))
		body = body[4:]
		if n < 0 {
			continue
		}
		if n > len(body) {
			return nil, io.ErrUnexpectedEOF
		}
		row[i] = string(body[:n])
		body = body[n:]
	}
	return row, nil
}

// copyOut runs a COPY TO STDOUT and returns the number of rows.
func (o *outSession) copyOut(sql string, w io.Writer) (rows int64, err error) {
	if err := o.send(sql); err != nil {
		return 0, err
	}
	o.out.Reset(w)
	defer o.out.Reset(nil)
	var failed error
	for {
		kind, _, err := o.raw.Next()
		if err != nil {
			return 0, cmp.Or(failed, err)
		}
		switch kind {
		case 'd':
			if err := o.pass(); err != nil {
				return 0, err
			}
		case 'C':
			body, err := o.raw.Body(smallMessage)
			if err != nil {
				return 0, err
			}
			tag := strings.TrimRight(string(body), "\x00")
			if rows, err = strconv.ParseInt(strings.TrimPrefix(tag, "COPY "), 10, 64); err != nil {
				return 0, fmt.Errorf("the command tag %q has no number of rows", tag)
			}
		case 'E':
			body, err := o.raw.Body(smallMessage)
			if err != nil {
				return 0, err
			}
			failed = pg.ServerErrorFrom(body)
		case 'Z':
			if failed != nil {
				return 0, failed
			}
			return rows, o.out.Flush()
		}
	}
}

// pass passes the current message's body on in portions.
func (o *outSession) pass() error {
	for {
		b, err := o.raw.Take(outBuffer)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if _, err := o.out.Write(b); err != nil {
			return err
		}
	}
}
