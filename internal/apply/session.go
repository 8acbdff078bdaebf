package apply

import (
	"context"
	"encoding/binary"
	"errors"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
)

const (
	// writeSize is how much is collected before it is written to the socket.
	writeSize = 64 << 10
	// copySize is about the size of one CopyData message.
	copySize = 32 << 10
	// Prepared statements are given up together when there are more of them, or
	// when their texts are longer: each has a plan in the server's memory.
	maxStatements     = 1000
	maxStatementBytes = 4 << 20
	// lockTimeout bounds every wait for a lock that somebody on the secondary
	// holds; afterwards the group is tried again. Until then, readers of the table
	// queue behind the waiting session.
	lockTimeout = 5 * time.Second
	// originPatience is how long the backend of an applier that just ended may still
	// hold the origin.
	originPatience = 10 * time.Second
)

// session is the connection to the secondary, driven with messages of the extended
// query protocol, many in flight. One goroutine writes; another, its own, reads.
type session struct {
	raw   *pg.Raw
	out   []byte
	err   error // the first failure to write
	large func(rest []byte)

	current *exchange
	unnamed statement      // stands for statements that are not kept
	queue   chan *exchange // for the reader, before their first byte is written
	closed  chan struct{}  // the reader is gone
	lost    error          // why, valid then

	generation     int // of prepared statements; grows when all are given up
	statements     int
	statementBytes int
	names          int
	unconfirmed    []*statement // prepared in the current exchange
}

// statement is a prepared statement and where its parameters come from.
type statement struct {
	name       string
	sql        string
	params     []param
	generation int
	sent       bool // preparing it was sent
	confirmed  bool // and succeeded; set by the reader

	checked *statement // its form that checks itself, once it was needed
}

// open connects, takes hold of the origin and starts the reader.
func open(ctx context.Context, a *Applier) (*session, error) {
	settings := map[string]string{
		"client_encoding":    a.Encoding,
		"synchronous_commit": "off",
		// Users' code that ran in this session may have made temporary types and tables
		// with the catalogs' names: those are found last then.
		"search_path":  "pg_catalog, pg_temp",
		"lock_timeout": strconv.FormatInt(lockTimeout.Milliseconds(), 10),
		// Rows are found by their key's index. A cached plan that scans a table, made
		// when that was small, would stay when it has grown (0002).
		"plan_cache_mode":  "force_generic_plan",
		"enable_seqscan":   "off",
		"enable_hashjoin":  "off",
		"enable_mergejoin": "off",
		// A scan that is unavoidable looks so expensive that it would be compiled.
		"jit": "off",
	}
	if a.Encoding == "" {
		delete(settings, "client_encoding")
	}
	conn, err := a.DSN.Connect(ctx, pg.Session{Name: a.Link + "/apply", Settings: settings, Apply: true, Fenced: true})
	if err != nil {
		return nil, err
	}
	if err := takeOrigin(ctx, conn, a.Origin); err != nil {
		conn.Close(context.WithoutCancel(ctx))
		return nil, err
	}
	progress, err := originProgress(ctx, conn, false)
	if err != nil {
		conn.Close(context.WithoutCancel(ctx))
		return nil, err
	}
	// The applier before this one may have been cut off with a commit on its way, which
	// came about after Start was read. From here on nobody else commits.
	a.Start = max(a.Start, progress)
	raw, err := pg.NewRaw(conn.PgConn())
	if err != nil {
		conn.Close(context.WithoutCancel(ctx))
		return nil, err
	}
	s := &session{raw: raw, queue: make(chan *exchange, 4), closed: make(chan struct{})}
	go s.read()
	return s, nil
}

// takeOrigin makes the session the one that advances the origin. PostgreSQL
// allows one; the backend of an applier that was cut off may still be it.
func takeOrigin(ctx context.Context, conn *pgx.Conn, origin string) error {
	deadline := time.Now().Add(originPatience)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		_, err := conn.Exec(ctx, "SELECT pg_catalog.pg_replication_origin_session_setup($1)", origin)
		if err == nil {
			return nil
		}
		err = pg.Classify(err, "take the replication origin "+origin)
		if pg.SQLState(err) != "55006" || time.Now().After(deadline) {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// originProgress is the position of the origin that the session has taken. With flush,
// it is durable when it is known.
func originProgress(ctx context.Context, conn *pgx.Conn, flush bool) (position lsn.LSN, err error) {
	err = conn.QueryRow(ctx, "SELECT coalesce(pg_catalog.pg_replication_origin_session_progress($1)::text, '0/0')", flush).Scan(&position)
	return position, pg.Classify(err, "read the applied position")
}

// Settle waits until no applier commits under an origin any more, one that was cut
// off included, and returns the position of the last commit, which is then durable.
func Settle(ctx context.Context, dsn *pg.DSN, link, origin string) (lsn.LSN, error) {
	conn, err := dsn.Connect(ctx, pg.Session{Name: link + "/settle", Apply: true})
	if err != nil {
		return 0, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if err := takeOrigin(ctx, conn, origin); err != nil {
		return 0, err
	}
	return originProgress(ctx, conn, true)
}

// close ends the session and its reader. Unless the end is orderly, the server is
// asked to stop what it is executing, so that it lets go of the origin.
func (s *session) close(orderly bool) {
	if orderly {
		_, _ = s.raw.Conn().Write([]byte{'X', 0, 0, 0, 4})
	} else {
		select {
		case <-s.closed:
		default:
			_ = s.raw.Cancel(context.Background())
		}
	}
	_ = s.raw.Close()
	<-s.closed
}

// begin starts an exchange. What is sent from here to sync belongs to it.
func (s *session) begin() *exchange {
	x := &exchange{done: make(chan struct{})}
	select {
	case s.queue <- x:
	case <-s.closed: // wait will say so
	}
	s.current = x
	s.unconfirmed = s.unconfirmed[:0]
	if s.statements > maxStatements || s.statementBytes > maxStatementBytes {
		s.generation++
		s.statements, s.statementBytes = 0, 0
		s.exec("DEALLOCATE ALL", opControl, anyCount)
	}
	return x
}

// giveUp has the next exchange begin without prepared statements: users' code may have
// given them up and made others of their names, which stay when it is undone. The
// transaction must not be one that failed.
func (s *session) giveUp() { s.statements = maxStatements + 1 }

// sync ends the exchange and writes what was not written yet.
func (s *session) sync() {
	s.out = append(s.out, 'S', 0, 0, 0, 4)
	s.flush()
	s.current = nil
}

// wait waits for the end of an exchange and returns what was not as expected. An
// error is the end of the connection or of ctx.
func (s *session) wait(ctx context.Context, x *exchange) (*failure, error) {
	select {
	case <-x.done:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-s.closed:
		select {
		case <-x.done:
		default:
			return nil, s.lost
		}
	}
	if x.failure != nil {
		// What was to be prepared behind the failure is not.
		for _, st := range s.unconfirmed {
			if !st.confirmed {
				st.sent = false
			}
		}
		s.unconfirmed = s.unconfirmed[:0]
	}
	return x.failure, nil
}

// exec sends a statement without parameters and rows.
func (s *session) exec(sql string, op int, want int64) {
	s.parse("", sql)
	s.current.expect(expectation{op: op, prepared: &s.unnamed})
	s.bindNothing("")
	s.execute(op, want)
}

// query sends a statement, which is prepared once, and collects its rows, in text.
func (s *session) query(st *statement, rows *[][]field, args ...string) {
	s.prepare(st, opControl)
	at := s.message('B')
	s.out = append(s.out, 0)
	s.out = append(s.out, st.name...)
	s.out = append(s.out, 0, 0, 0)
	s.out = binary.BigEndian.AppendUint16(s.out, uint16(len(args)))
	for _, a := range args {
		s.out = binary.BigEndian.AppendUint32(s.out, uint32(len(a)))
		s.out = append(s.out, a...)
	}
	s.out = append(s.out, 0, 0)
	s.end(at)
	s.current.expect(expectation{op: opControl, want: anyCount, rows: rows})
	s.out = append(s.out, 'E', 0, 0, 0, 9, 0, 0, 0, 0, 0)
}

// prepare makes sure that the server knows a statement.
func (s *session) prepare(st *statement, op int) {
	if st.sent && st.generation == s.generation {
		return
	}
	s.names++
	st.name, st.generation = "a"+strconv.Itoa(s.names), s.generation
	st.sent, st.confirmed = true, false
	s.statements++
	s.statementBytes += len(st.sql)
	s.unconfirmed = append(s.unconfirmed, st)
	s.current.expect(expectation{op: op, prepared: st})
	s.parse(st.name, st.sql)
}

// discard forgets a statement, so that it is planned again at its next use.
func (s *session) discard(st *statement) {
	if !st.sent || st.generation != s.generation {
		return
	}
	at := s.message('C')
	s.out = append(s.out, 'S')
	s.out = append(s.out, st.name...)
	s.out = append(s.out, 0)
	s.end(at)
	s.statements--
	s.statementBytes -= len(st.sql)
	st.sent = false
}

func (s *session) parse(name, sql string) {
	at := s.message('P')
	s.out = append(s.out, name...)
	s.out = append(s.out, 0)
	s.out = append(s.out, sql...)
	s.out = append(s.out, 0, 0, 0)
	s.end(at)
}

func (s *session) bindNothing(name string) {
	at := s.message('B')
	s.out = append(s.out, 0)
	s.out = append(s.out, name...)
	s.out = append(s.out, 0, 0, 0, 0, 0, 0, 0)
	s.end(at)
}

// execute runs what was bound last; its reply must report the rows.
func (s *session) execute(op int, want int64) {
	s.current.expect(expectation{op: op, want: want})
	s.out = append(s.out, 'E', 0, 0, 0, 9, 0, 0, 0, 0, 0)
	if len(s.out) >= writeSize {
		s.flush()
	}
}

// message begins a message and returns where its length goes.
func (s *session) message(kind byte) int {
	s.out = append(s.out, kind, 0, 0, 0, 0)
	return len(s.out) - 4
}

// end fills in the length of the message begun last.
func (s *session) end(at int) {
	binary.BigEndian.PutUint32(s.out[at:], uint32(len(s.out)-at))
}

// flush writes what was collected. After a failure it does nothing: the reader
// learns of the lost connection, too.
func (s *session) flush() {
	s.write(s.out)
	s.out = s.out[:0]
	if cap(s.out) > 64*writeSize {
		s.out = nil
	}
}

func (s *session) write(b []byte) {
	if s.err != nil {
		return
	}
	if _, err := s.raw.Conn().Write(b); err != nil {
		s.err = err
		// The reader, and with it whoever waits, must not wait for replies to what
		// was not sent.
		_ = s.raw.Close()
	}
}

// writeLarge writes a value without collecting it, telling large of the progress.
func (s *session) writeLarge(v []byte) {
	s.flush()
	const portion = 1 << 20
	for len(v) > 0 && s.err == nil {
		n := min(portion, len(v))
		s.write(v[:n])
		v = v[n:]
		if s.large != nil {
			s.large(v)
		}
	}
}

// read takes the server's messages until the connection ends.
func (s *session) read() {
	var x *exchange
	r := replies{raw: s.raw}
	err := r.run(func() *exchange {
		if x == nil {
			select {
			case x = <-s.queue:
			default:
			}
		}
		return x
	}, func() { x = nil })
	s.lost = lostError(err, r.fatal)
	_ = s.raw.Close()
	close(s.closed)
}

// lostError is the problem of a connection that ended; a farewell of the server
// says more than the closed socket.
func lostError(err error, farewell *pgconn.PgError) error {
	if errors.Is(err, errUnexpected) || errors.Is(err, errNotCommitted) {
		return problem.Wrap(err, problem.Internal, "protocol_violated", "apply changes")
	}
	if farewell != nil {
		err = farewell
	}
	return pg.Classify(err, "apply changes")
}
