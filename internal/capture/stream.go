package capture

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sync/errgroup"

	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/sqlname"
	"github.com/twinspan/twinspan/internal/wire"
)

// Sink takes the record stream. Write's bytes may end within a record and are
// the sink's only until it returns; it may block, which holds the slot where it
// is, but must return when the context of Run ends. Flush says that nothing more is there for now: what was written should
// leave at once.
type Sink interface {
	io.Writer
	Flush() error
}

// Stream reads one link's slot and hands on what pgoutput sends, untouched, as
// records (docs/format/stream.md). Set the fields before Run.
type Stream struct {
	Source
	Start    lsn.LSN // where to begin; the slot must not be ahead (CheckSlot)
	Binary   bool    // values in binary form; needs 14 and types that allow it
	Encoding string  // client_encoding of text values; empty means UTF8
	// Streamed lets large transactions come before their commit, in blocks (protocol
	// version 2); needs 14. The server does not tell of every such transaction that it came
	// from the twin, so nothing that did may lie behind Start.
	Streamed bool
	Timeline int64 // of the log on which Start lies (CheckTimeline); 0 is not checked
	Sink     Sink
	// Peek leaves the slot where it is: nothing is ever confirmed.
	Peek bool

	sent      atomic.Uint64
	handing   atomic.Int64 // time spent in the sink
	durable   atomic.Uint64
	confirmed chan struct{}
}

const (
	// replyInterval is how often the server hears of us, also while the sink blocks;
	// more often when wal_sender_timeout asks for it.
	replyInterval = 2 * time.Second
	// pieceSize is how much is collected before it goes to the sink unasked.
	pieceSize = 128 << 10
	// bodyPortion bounds what is read of one message at once.
	bodyPortion = 256 << 10
	// behindAfter is the age of a commit, by the clock of its server, at which the
	// stream is behind. What is younger is read and handed on at once.
	behindAfter = 200 * time.Millisecond
)

// NewStream returns a stream of the source from a position on.
func NewStream(s Source, start lsn.LSN) *Stream {
	st := &Stream{Source: s, Start: start, confirmed: make(chan struct{}, 1)}
	st.durable.Store(uint64(start))
	st.sent.Store(uint64(start))
	return st
}

// Sent is the end of the log that was read from the slot and given to the sink.
func (s *Stream) Sent() lsn.LSN { return lsn.LSN(s.sent.Load()) }

// Confirmed is the last position given to Confirm, or the start.
func (s *Stream) Confirmed() lsn.LSN { return lsn.LSN(s.durable.Load()) }

// Handing is how long the stream was held up by its sink until now.
func (s *Stream) Handing() time.Duration { return time.Duration(s.handing.Load()) }

// Confirm says that everything up to the position survives a crash of the
// secondary. The server may drop its log up to there. It never goes back.
func (s *Stream) Confirm(position lsn.LSN) {
	for {
		now := s.durable.Load()
		if uint64(position) <= now {
			return
		}
		if s.durable.CompareAndSwap(now, uint64(position)) {
			break
		}
	}
	select {
	case s.confirmed <- struct{}{}:
	default:
	}
}

// Run streams until ctx ends or something breaks. A problem of kind Transient
// means: begin again at the position that the secondary then holds.
func (s *Stream) Run(ctx context.Context) error {
	// By the slot's name: a link's own is not the only one on its instance, and
	// synchronous_standby_names, which asks for this session, knows only names.
	session := pg.Session{Name: s.Object()}
	if s.Encoding != "" {
		session.Settings = map[string]string{"client_encoding": s.Encoding}
	}
	conn, err := s.DSN.ConnectReplication(ctx, session)
	if err != nil {
		return err
	}
	interval, err := replyEvery(ctx, conn)
	if err == nil {
		err = s.identify(ctx, conn)
	}
	if err == nil {
		err = s.protect(ctx, conn)
	}
	if err != nil {
		conn.Close(context.WithoutCancel(ctx))
		return s.classify(ctx, err)
	}
	raw, err := pg.NewRaw(conn)
	if err != nil {
		conn.Close(context.WithoutCancel(ctx))
		return pg.Classify(err, "take over the replication connection")
	}
	defer raw.Close()
	// The session's end is the only way to wake a blocked read or write.
	defer context.AfterFunc(ctx, func() { raw.Close() })()
	if err := s.start(raw); err != nil {
		return s.classify(ctx, err)
	}
	group, inner := errgroup.WithContext(ctx)
	done := make(chan struct{})
	group.Go(func() error {
		defer close(done)
		return s.read(inner, raw)
	})
	group.Go(func() error {
		err := s.reply(inner, raw, interval, done)
		if err != nil {
			raw.Close()
		}
		return err
	})
	return s.classify(ctx, group.Wait())
}

// replyEvery returns how often to reply so that the server, whose timeout may be
// shorter than usual, does not take us for dead.
func replyEvery(ctx context.Context, conn *pgconn.PgConn) (time.Duration, error) {
	results, err := conn.Exec(ctx, `SELECT setting FROM pg_catalog.pg_settings WHERE name = 'wal_sender_timeout'`).ReadAll()
	if err != nil {
		return 0, err
	}
	for _, r := range results {
		for _, row := range r.Rows {
			ms, err := strconv.Atoi(string(row[0]))
			if err == nil && ms > 0 { // 0: no timeout
				return min(replyInterval, max(time.Duration(ms)*time.Millisecond/4, time.Millisecond)), nil
			}
		}
	}
	return replyInterval, nil
}

// classify makes a problem of what ended the stream. When ctx has ended, whatever
// broke did so because of it.
func (s *Stream) classify(ctx context.Context, err error) error {
	if ctx.Err() != nil && err != nil {
		err = context.Cause(ctx)
	}
	switch pg.SQLState(err) {
	case "42704", "55000", "58P01":
		// "slot does not exist", "can no longer get changes", "requested WAL segment
		// has already been removed": CheckSlot tells which at the next attempt.
		return problem.Wrap(err, problem.Transient, "slot_unusable", "read the replication slot").On(s.Object())
	}
	if s.Binary && pg.SQLState(err) == "42883" {
		// "no binary output function available": of a column that came since the stream
		// began, and whose table may be gone when it begins anew.
		return problem.Wrap(err, problem.Transient, "binary_unusable", "a value has no binary form").On(s.Object()).WithHint("nothing is to be done: the stream begins anew with text")
	}
	if s.Streamed && strings.HasPrefix(pg.SQLState(err), "XX") {
		// While a transaction runs, the catalogs do not always tell what they were: a
		// change that was rolled back to a savepoint and made again is taken for one that
		// holds (reorderbuffer.c keeps its tuple ids), and a table is not found.
		return problem.Wrap(err, problem.Transient, "blocks_refused", "decode a transaction before its commit").On(s.Object())
	}
	return pg.Classify(err, "read the replication slot")
}

func (s *Stream) start(raw *pg.Raw) error {
	options := `proto_version '1'`
	if s.Streamed {
		options = `proto_version '2', streaming 'on'`
	}
	options += `, publication_names ` + sqlname.Literal(sqlname.Quote(s.Object()))
	if s.Binary {
		options += `, binary 'true'`
	}
	sql := fmt.Sprintf("START_REPLICATION SLOT %s LOGICAL %s (%s)", s.Object(), s.Start, options)
	message := binary.BigEndian.AppendUint32([]byte{'Q'}, uint32(4+len(sql)+1))
	if _, err := raw.Conn().Write(append(append(message, sql...), 0)); err != nil {
		return err
	}
	for {
		kind, _, err := raw.Next()
		if err != nil {
			return err
		}
		switch kind {
		case 'W': // CopyBothResponse: the stream begins
			return nil
		case 'E':
			body, err := raw.Body(1 << 20)
			if err != nil {
				return err
			}
			return pg.ServerErrorFrom(body)
		}
	}
}

// reply tells the server what is durable: when it changes, and often enough that
// the server does not take us for dead. It asks for an answer, which carries the
// end of the log, so that an idle database in a busy instance moves on too. It
// never confirms what was not read: the slot would move past it.
func (s *Stream) reply(ctx context.Context, raw *pg.Raw, interval time.Duration, done <-chan struct{}) error {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	ask := byte(1)
	for {
		sent := s.sent.Load()
		durable := min(s.durable.Load(), sent)
		if s.Peek {
			durable = 0 // walsender.c, ProcessStandbyReplyMessage: no position is confirmed
		}
		b := make([]byte, 0, 64)
		b = append(b, 'd')
		b = binary.BigEndian.AppendUint32(b, 4+1+8+8+8+8+1)
		b = append(b, 'r')
		b = binary.BigEndian.AppendUint64(b, sent)
		b = binary.BigEndian.AppendUint64(b, durable)
		b = binary.BigEndian.AppendUint64(b, durable)
		b = binary.BigEndian.AppendUint64(b, uint64(time.Since(postgresEpoch).Microseconds()))
		b = append(b, ask)
		if _, err := raw.Conn().Write(b); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-done:
			return nil
		case <-tick.C:
			ask = 1
		case <-s.confirmed:
			ask = 0
		}
	}
}

var postgresEpoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

func (s *Stream) read(ctx context.Context, raw *pg.Raw) error {
	f := filter{
		own: s.Object(), skipped: map[uint32]bool{}, streamed: map[uint32]*streamed{},
		abortedAmong: func(xids []uint32) (bool, error) { return s.abortedAmong(ctx, xids) },
	}
	w := &pieces{sink: s.Sink, spent: &s.handing}
	for {
		// A part of a transaction, or of a block, is of no use to anybody: nothing is applied
		// before its commit, but for large ones, which the pieces carry on.
		if raw.Buffered() == 0 && !f.inside {
			if err := w.flush(); err != nil {
				return err
			}
		}
		raw.Gather(f.behind)
		kind, length, err := raw.Next()
		if err != nil {
			return err
		}
		switch kind {
		case 'd':
			if err := s.message(raw, length, &f, w); err != nil {
				return err
			}
		case 'E':
			body, err := raw.Body(1 << 20)
			if err != nil {
				return err
			}
			return pg.ServerErrorFrom(body)
		case 'c':
			return problem.New(problem.Transient, "stream_ended", "the server ended the stream")
		}
	}
}

// message reads one CopyData message: XLogData or a keepalive (manual, "Streaming
// Replication Protocol").
func (s *Stream) message(raw *pg.Raw, length int, f *filter, w *pieces) error {
	head, err := take(raw, 1)
	if err != nil {
		return err
	}
	switch head[0] {
	case 'k':
		b, err := take(raw, 8+8+1)
		if err != nil {
			return err
		}
		end := binary.BigEndian.Uint64(b)
		at := postgresEpoch.Add(time.Duration(binary.BigEndian.Uint64(b[8:])) * time.Microsecond)
		if f.inside {
			return nil
		}
		f.behind = false
		// What the server has decoded and sent ends here, and all of it is in the
		// sink: whatever commits later commits behind this position.
		s.sent.Store(max(s.sent.Load(), end))
		return w.write(wire.Reached{Position: lsn.LSN(end), At: at}.Append(nil))
	case 'w':
		b, err := take(raw, 8+8+8)
		if err != nil {
			return err
		}
		f.sentAt = int64(binary.BigEndian.Uint64(b[16:]))
		if err := s.payload(raw, length-25, f, w); err != nil {
			return err
		}
		if f.committed != 0 {
			s.sent.Store(max(s.sent.Load(), f.committed))
			f.committed = 0
		}
		return nil
	}
	return nil
}

// payload hands one message of pgoutput to the sink. Only its head is looked at;
// the rest is passed in portions, for it may be a gigabyte.
func (s *Stream) payload(raw *pg.Raw, length int, f *filter, w *pieces) error {
	if length < 1 {
		return problem.New(problem.Internal, "stream_corrupt", "the server sent an empty message")
	}
	head, err := take(raw, min(length, headLength))
	if err != nil {
		return err
	}
	emit, keep, err := f.look(head)
	if err != nil {
		return err
	}
	for _, held := range emit {
		if err := w.record(len(held), held); err != nil {
			return err
		}
	}
	if !keep {
		return nil // Next passes over the rest
	}
	if err := w.record(length, head); err != nil {
		return err
	}
	for left := length - len(head); left > 0; {
		b, err := raw.Take(min(left, bodyPortion))
		if err != nil {
			return err
		}
		if err := w.write(b); err != nil {
			return err
		}
		left -= len(b)
	}
	return nil
}

// take reads exactly n bytes of the message's body; n is small.
func take(raw *pg.Raw, n int) ([]byte, error) {
	b, err := raw.Take(n)
	if err != nil || len(b) == n {
		return b, eof(err)
	}
	whole := append(make([]byte, 0, n), b...)
	for len(whole) < n {
		if b, err = raw.Take(n - len(whole)); err != nil {
			return nil, eof(err)
		}
		whole = append(whole, b...)
	}
	return whole, nil
}

func eof(err error) error {
	if errors.Is(err, io.EOF) {
		return problem.New(problem.Internal, "stream_corrupt", "the server sent a message that is too short")
	}
	return err
}

// pieces collects what goes to the sink, so that many small messages make one
// write.
type pieces struct {
	sink    Sink
	spent   *atomic.Int64 // time in the sink
	b       []byte
	written bool
}

func (p *pieces) record(length int, head []byte) error {
	p.b = binary.BigEndian.AppendUint32(p.b, uint32(length))
	return p.write(head)
}

func (p *pieces) write(b []byte) error {
	p.b = append(p.b, b...)
	if len(p.b) < pieceSize {
		return nil
	}
	return p.push()
}

func (p *pieces) push() error {
	began := time.Now()
	_, err := p.sink.Write(p.b)
	p.spent.Add(int64(time.Since(began)))
	p.b = p.b[:0]
	p.written = true
	return err
}

func (p *pieces) flush() error {
	if len(p.b) > 0 {
		if err := p.push(); err != nil {
			return err
		}
	}
	if !p.written {
		return nil
	}
	p.written = false
	began := time.Now()
	defer func() { p.spent.Add(int64(time.Since(began))) }()
	return p.sink.Flush()
}
