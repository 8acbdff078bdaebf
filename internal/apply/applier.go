// Package apply writes the primary's changes to the secondary: in commit order,
// exactly once, whole transactions at a time, as few and as large statements as
// what has arrived allows. docs/design/0002-apply.md says how and why.
package apply

import (
	"context"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// Source hands over the stream of the primary in order.
type Source interface {
	// Next waits for the next item. An error ends the applier with that error. When
	// ctx ends first, its error (or cause) is returned and nothing is lost: the
	// next call returns the item.
	Next(ctx context.Context) (Item, error)
	// Ready says whether Next would return without waiting. Transactions are
	// applied together only while it says so, and nothing ever waits for company.
	Ready() bool
}

// Item is a part of the stream.
type Item struct {
	// Records holds whole records: a length (uint32, big-endian), then a message of
	// pgoutput of that length. The memory is the applier's from here on.
	Records []byte
	// Big is one message that is too large for memory, nil usually. The applier
	// closes it. Big follows Records.
	Big Big
	// Reached, when not 0, says that every transaction that committed before this
	// position has been handed over and none is open. It follows Records and Big.
	Reached lsn.LSN
	// SentAt is when the source's agent sent it; it is not used to apply.
	SentAt time.Time
}

// Big is a message that is not held in memory but, say, in a mapped file.
type Big interface {
	// Bytes is the message, readable until Close.
	Bytes() []byte
	// Done says that the bytes before upTo will hardly be read again.
	Done(upTo int)
	Close() error
}

// Limits bound what is applied in one go. A zero field means its default.
type Limits struct {
	Changes int // default 20000
	Bytes   int // of changes in memory, default 16 MiB; about twice as much is held
}

func (l Limits) orDefault() Limits {
	if l.Changes <= 0 {
		l.Changes = 20_000
	}
	if l.Bytes <= 0 {
		l.Bytes = 16 << 20
	}
	return l
}

// Applier applies one stream to one database. Set the fields, call Run once.
type Applier struct {
	DSN    *pg.DSN // of the database; the role must be a superuser
	Link   string  // the link's name, for the session's application_name
	Origin string  // name of the replication origin that holds the progress; exists
	// SourceMajor is the major version of the server that the changes come from; 0 where
	// it is not known.
	SourceMajor int
	// Start is the position to continue from, the origin's progress. Transactions
	// whose commit ends at or before it are passed over as duplicates. Run moves it on
	// when the origin has gone further since it was read.
	Start lsn.LSN
	// SkipBefore: changes of these tables are passed over in transactions that end
	// at or before the position (docs/design/0003-seeding.md).
	SkipBefore map[sqlname.Table]lsn.LSN
	// Repair: up to this position an INSERT into these tables replaces the row of
	// its key, and an UPDATE or DELETE that finds no row is right.
	Repair map[sqlname.Table]lsn.LSN
	// SkipTables and RepairTables are SkipBefore and Repair by the oids of the
	// secondary's tables, which stay when the stream renames one.
	SkipTables, RepairTables map[uint32]lsn.LSN
	// Unsettled, when set, is called before an UPDATE of a table in repair that gives
	// a row a new key and leaves values of it in TOAST: where the row is missing, it
	// stays so, and whoever set Unsettled fetches it. Without it such a row stops the
	// applier. The stream must be in text form. The table is known by its oid on the
	// secondary, the key's columns by their numbers there.
	Unsettled func(ctx context.Context, table uint32, columns []int16, key []string) error
	// Until, when not 0, makes Run return nil once every transaction that committed
	// before this position is applied and committed. Later ones are not begun.
	Until lsn.LSN
	// Encoding is the client_encoding that the stream was started with: UTF8, or the
	// primary's own encoding.
	Encoding string
	// OnSignal is called for each row inserted into twinspan.signal except those
	// that concern rows alone, which are applied. When it is called, all transactions
	// before are committed, and the changes before it in its own transaction are
	// written but not committed. The script it returns is run at this place, within
	// the target transaction, before anything that follows. After a restart it may be
	// called for the same row again. Optional: without it signals are passed over.
	OnSignal func(ctx context.Context, s Signal) (*Script, error)
	// OnUnseen is asked for a table of which the stream has rows and that no command has made so far: for
	// what makes it, nil where the primary does not have it any more and its rows mean nothing. Where a command
	// has made it, so that it is missing for another reason (seen), and without OnUnseen, such rows are the end, with schema_differs.
	OnUnseen func(ctx context.Context, u Unseen) (script *Script, seen bool, err error)
	// SpoolDir is for rows that have to wait for their table and are too many for
	// memory. Optional: without it they may only be few.
	SpoolDir string
	// OnCommit is called after every commit, also of a position alone. It must not
	// block. Optional.
	OnCommit func()
	// Prompt says whether positions without changes are to be stored at once, for
	// somebody waits for them on the primary; else they are about once a second.
	// Optional.
	Prompt func() bool
	Log    *slog.Logger
	Limits Limits

	status       status
	appointments appointments
	cancelAfter  atomic.Int64 // of SetConflict; 0 to wait
}

// Run applies what the source hands over until ctx ends, the source fails, the
// position Until is reached (nil), or a change cannot be applied. A problem of
// kind Transient asks to be started again from the origin's progress; one of
// kind Diverged names a change that does not fit the secondary. Whatever the
// end, the database holds whole transactions and the origin their position.
func (a *Applier) Run(ctx context.Context, src Source) error {
	if a.DSN == nil || a.Origin == "" || a.Log == nil || src == nil {
		return problem.New(problem.Internal, "applier_incomplete", "an applier needs DSN, Origin, Log and a source")
	}
	if slices.Contains(embedsASCII, a.Encoding) {
		return problem.New(problem.Incompatible, "encoding_unusable", "a stream cannot be applied in encoding %s", a.Encoding).
			WithHint("start the stream with the primary's own encoding or UTF8")
	}
	s, err := open(ctx, a)
	if err != nil {
		return err
	}
	e := newEngine(a, s, src)
	err = e.run(ctx)
	e.held.close()
	a.status.blocked.Store(nil)
	s.close(err == nil)
	if err != nil && ctx.Err() != nil && problem.KindOf(err) != problem.Diverged {
		return context.Cause(ctx)
	}
	return err
}

// embedsASCII are the encodings in whose characters bytes of ASCII occur, so that
// text cannot be escaped byte by byte. No server stores them (manual, "PostgreSQL
// Character Sets").
var embedsASCII = []string{"BIG5", "GB18030", "GBK", "JOHAB", "SJIS", "SHIFT_JIS_2004", "UHC"}

// Status is how far an applier is and what it did since it was started.
type Status struct {
	Received   lsn.LSN   // end of the last transaction, or position, that was taken from the source
	Applied    lsn.LSN   // position committed on the secondary; may not be on its disk yet
	LastCommit time.Time // when the last applied transaction committed, by the primary's clock; zero before the first

	Transactions int64 // applied; those without changes count
	Changes      int64 // applied
	Groups       int64 // target transactions, or pieces of one, written
	Fallbacks    int64 // groups that had to be replayed change by change
	Retries      int64 // groups that were tried again because of a lock

	// Where time went.
	Waiting    time.Duration // for the source
	Applying   time.Duration // for the server, to execute
	Committing time.Duration // for the server, to commit, where nothing else was under way

	Blocked *problem.Error // a lock that a schema change or a group waits for now; nil usually
}

// status is Status while it changes. One goroutine writes.
type status struct {
	received, applied                                 atomic.Uint64
	lastCommit                                        atomic.Int64 // microseconds since 1970
	transactions, changes, groups, fallbacks, retries atomic.Int64
	waiting, applying, committing                     atomic.Int64
	blocked                                           atomic.Pointer[problem.Error]
}

// Status may be called at any time by any goroutine.
func (a *Applier) Status() Status {
	s := &a.status
	out := Status{
		Received: lsn.LSN(s.received.Load()), Applied: lsn.LSN(s.applied.Load()),
		Transactions: s.transactions.Load(), Changes: s.changes.Load(), Groups: s.groups.Load(),
		Fallbacks: s.fallbacks.Load(), Retries: s.retries.Load(),
		Waiting:    time.Duration(s.waiting.Load()),
		Applying:   time.Duration(s.applying.Load()),
		Committing: time.Duration(s.committing.Load()),
		Blocked:    s.blocked.Load(),
	}
	if at := s.lastCommit.Load(); at != 0 {
		out.LastCommit = time.UnixMicro(at).UTC()
	}
	return out
}

// since adds the time since start to a duration of the status.
func since(counter *atomic.Int64, start time.Time) { counter.Add(int64(time.Since(start))) }
