package capture_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/twinspan/twinspan/internal/capture"
	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/pgtest"
	"github.com/twinspan/twinspan/internal/wire"
)

// collector keeps the records that reach it. gate, when set, holds Write until it
// is closed.
type collector struct {
	gate chan struct{}

	mu       sync.Mutex
	b        []byte
	records  [][]byte // but for Reached
	reached  []wire.Reached
	flushed  int // bytes that were there at the last Flush
	received int
	inside   bool // between Begin and Commit
	err      error
}

func (c *collector) Write(p []byte) (int, error) {
	if c.gate != nil {
		<-c.gate
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.received += len(p)
	c.b = append(c.b, p...)
	whole, _, err := wire.Split(c.b)
	if err != nil {
		c.err = err
		return 0, err
	}
	for rest := c.b[:whole]; len(rest) > 0; {
		n := wire.RecordHeader + int(binary.BigEndian.Uint32(rest))
		record := append([]byte(nil), rest[wire.RecordHeader:n]...)
		rest = rest[n:]
		r, ok, err := wire.ParseReached(record)
		switch {
		case err != nil:
			c.err = err
		case ok:
			c.reached = append(c.reached, r)
			if c.inside {
				c.err = errors.New("a position inside a transaction")
			}
		default:
			c.records = append(c.records, record)
			c.inside = record[0] != 'C' && (c.inside || record[0] == 'B')
		}
	}
	c.b = append(c.b[:0], c.b[whole:]...)
	return len(p), nil
}

func (c *collector) Flush() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.flushed = c.received
	return nil
}

func (c *collector) all() ([][]byte, []wire.Reached) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([][]byte(nil), c.records...), append([]wire.Reached(nil), c.reached...)
}

// last is the newest position that was said to be reached.
func (c *collector) last() lsn.LSN {
	if _, reached := c.all(); len(reached) > 0 {
		return reached[len(reached)-1].Position
	}
	return 0
}

// rows gives the first column of each inserted row, as text, in order.
func (c *collector) rows() []string {
	records, _ := c.all()
	var rows []string
	for _, r := range records {
		if r[0] == 'I' {
			rows = append(rows, string(r[13:13+binary.BigEndian.Uint32(r[9:])]))
		}
	}
	return rows
}

func (c *collector) await(t testing.TB, row string) {
	t.Helper()
	pgtest.Eventually(t, patience, func() error {
		rows := c.rows()
		if len(rows) == 0 || rows[len(rows)-1] != row {
			return fmt.Errorf("the last of %d rows is not %q", len(rows), row)
		}
		if c.mu.Lock(); c.flushed != c.received {
			c.mu.Unlock()
			return errors.New("not flushed")
		}
		c.mu.Unlock()
		return nil
	})
}

// makeSlot makes the link's slot and returns its first position.
func makeSlot(t testing.TB, dsn, slot string) lsn.LSN {
	t.Helper()
	var start lsn.LSN
	if err := start.UnmarshalText([]byte(pgtest.Query(t, dsn, `SELECT lsn FROM pg_create_logical_replication_slot('`+slot+`', 'pgoutput')`)[0][0])); err != nil {
		t.Fatal(err)
	}
	return start
}

// running is a stream at work.
type running struct {
	*capture.Stream
	cancel context.CancelCauseFunc
	done   chan error
	ended  bool
}

func start(t testing.TB, s *capture.Stream) *running {
	t.Helper()
	ctx, cancel := context.WithCancelCause(testContext(t))
	r := &running{Stream: s, cancel: cancel, done: make(chan error, 1)}
	go func() { r.done <- s.Run(ctx) }()
	t.Cleanup(func() { r.stop() })
	return r
}

func (r *running) stop() error {
	r.cancel(nil)
	if r.ended {
		return nil
	}
	r.ended = true
	return <-r.done
}

// stream prepares a database and starts reading it as text.
func stream(t testing.TB, server *pgtest.Server, schema string) (dsn string, r *running, c *collector) {
	t.Helper()
	dsn, s := fresh(t, server)
	pgtest.Exec(t, dsn, schema)
	prepare(t, s)
	c = &collector{}
	st := capture.NewStream(s, makeSlot(t, dsn, s.Object()))
	st.Sink = c
	return dsn, start(t, st), c
}
