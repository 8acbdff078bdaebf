package apply

import (
	"bytes"
	"errors"
	"strconv"
	"sync"

	"github.com/jackc/pgx/v5/pgconn"
)

// What an expected reply belongs to, where it is not the index of a change.
const (
	opControl = -1 // BEGIN, savepoints, queries
	opCommit  = -2 // the end of the target transaction before
	opSet     = -3 // a statement for many changes
	opClose   = -4 // the end of the exchange's own target transaction
	opFence   = -5 // the look at what code of users left behind
)

// Counts that an expected reply may have, where it is not a number of rows.
const (
	anyCount  = -1
	atMostOne = -2
	committed = -3 // no rows, but the reply to COMMIT
)

// expectation is a reply that must come.
type expectation struct {
	op       int
	want     int64      // rows that the command must report
	prepared *statement // set: the reply to preparing it, otherwise to a command
	rows     *[][]field // where to put the rows that come before, if anywhere
}

// field is a column of a row that a query returned, in text; nil is NULL.
type field []byte

// exchange is what lies between two Syncs: everything sent, and the replies. After
// the first error the server passes over the rest, up to the Sync.
type exchange struct {
	mu       sync.Mutex
	expected []expectation
	next     int // the first whose reply has not come
	failure  *failure
	aborted  bool // an error came: what was sent behind it is not answered

	done chan struct{} // closed when the server is ready again
}

// failure is the first thing in an exchange that was not as expected.
type failure struct {
	op        int
	err       *pgconn.PgError // nil when a count is wrong
	want, got int64
}

func (f *failure) state() string {
	if f.err == nil {
		return ""
	}
	return f.err.Code
}

func (x *exchange) expect(e expectation) {
	x.mu.Lock()
	x.expected = append(x.expected, e)
	x.mu.Unlock()
}

// parsed takes a ParseComplete.
func (x *exchange) parsed() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.next == len(x.expected) || x.expected[x.next].prepared == nil {
		return errUnexpected
	}
	x.expected[x.next].prepared.confirmed = true
	x.next++
	return nil
}

// completed takes a CommandComplete with its tag.
func (x *exchange) completed(tag []byte) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.next == len(x.expected) || x.expected[x.next].prepared != nil {
		return errUnexpected
	}
	e := x.expected[x.next]
	x.next++
	switch {
	case e.want == committed && string(bytes.TrimRight(tag, "\x00")) != "COMMIT":
		// A failed transaction answers COMMIT with ROLLBACK, without an error.
		return errNotCommitted
	case e.want == anyCount || e.want == committed:
		return nil
	}
	got := rowsIn(tag)
	if got != e.want && !(e.want == atMostOne && got >= 0 && got <= 1) && x.failure == nil {
		x.failure = &failure{op: e.op, want: e.want, got: got}
	}
	return nil
}

// row takes a DataRow.
func (x *exchange) row(fields []field) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.next < len(x.expected) && x.expected[x.next].rows != nil {
		rows := x.expected[x.next].rows
		*rows = append(*rows, fields)
	}
}

// wantsRows says whether somebody looks at the rows that come.
func (x *exchange) wantsRows() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.next < len(x.expected) && x.expected[x.next].rows != nil
}

// failed takes an ErrorResponse. A wrong count before it came first, and stays.
func (x *exchange) failed(err *pgconn.PgError) {
	x.mu.Lock()
	defer x.mu.Unlock()
	op := opControl
	if x.next < len(x.expected) {
		op = x.expected[x.next].op
	}
	x.aborted = true
	if x.failure == nil {
		x.failure = &failure{op: op, err: err}
	}
}

// ready takes ReadyForQuery.
func (x *exchange) ready() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.next < len(x.expected) && !x.aborted {
		return errUnexpected
	}
	close(x.done)
	return nil
}

var (
	errUnexpected   = errors.New("the server sent a reply that fits nothing that was sent")
	errNotCommitted = errors.New("the server rolled a transaction back that was to be committed")
)

// rowsIn returns the count at the end of a command tag, -1 when it has none
// (manual, "Message Formats", CommandComplete).
func rowsIn(tag []byte) int64 {
	tag = bytes.TrimRight(tag, "\x00")
	n, err := strconv.ParseInt(string(tag[bytes.LastIndexByte(tag, ' ')+1:]), 10, 64)
	if err != nil {
		return -1
	}
	return n
}
