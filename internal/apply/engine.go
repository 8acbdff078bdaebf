package apply

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/twinspan/twinspan/internal/group"
	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/pgoutput"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// batch is what is written in one go: whole transactions, or a piece of a large one.
type batch struct {
	plan *group.Planner
	txs  []transaction // by their first change
	ends bool          // it ends with a commit: the target transaction may end, too
	end  commit        // of the last transaction that is whole

	exchange  *exchange
	carried   *commit // the target transaction before, which the exchange commits
	closed    *commit // its own one, where the exchange commits that as well
	savepoint bool    // it is a further piece of an open target transaction
}

// transaction is one of the primary's.
type transaction struct {
	first int // index of its first change in the batch
	xid   uint32
	final lsn.LSN // where its commit record begins
	time  pgoutput.Timestamp
	skip  bool // it is a duplicate
	any   bool // it has changes that are applied
	alone bool // the target transaction ends with it

	signals int // how many signals of schema changes it had so far
}

// commit is what a target transaction makes true when it commits.
type commit struct {
	position     lsn.LSN
	time         pgoutput.Timestamp
	transactions int64
	changes      int64
}

// engine is a running applier.
type engine struct {
	a      *Applier
	s      *session
	w      writer
	src    Source
	limits Limits

	decoder        pgoutput.Decoder
	relations      map[uint32]*relation // by the primary's oid
	byTable        map[*group.Table]*relation
	questions      map[string]*statement // about the catalogs, by their text; planning them takes longer than they do
	lastRelation   *relation
	lastRelationID uint32

	open     bool        // inside a transaction of the stream
	tx       transaction // that one
	current  *batch      // being gathered
	spare    *batch
	inflight *batch // sent, not answered yet

	inTarget  bool    // a target transaction is open
	savepoint bool    // with a savepoint
	due       *commit // the open target transaction is complete: commit it
	pieces    int64   // changes in it from earlier pieces
	closing   bool    // nothing is pending but what is dispatched now

	reached   lsn.LSN // everything before was handed over
	committed lsn.LSN // the origin's position
	storedAt  time.Time

	raw      []byte                 // the message being taken
	held     held                   // rows of the open transaction whose table is not there yet
	making   bool                   // a table of such rows is being made
	resent   map[sqlname.Table]bool // tables whose rows are being sent anew
	reading  *reading               // a table whose rows are being said; nil usually
	readings uint32

	fences        fences
	writeIdentity map[*relation]bool // during a replay
	penalised     map[*relation]bool // not folded for now
}

func newEngine(a *Applier, s *session, src Source) *engine {
	e := &engine{
		a: a, s: s, w: writer{s: s, shape: make([]byte, 0, 64)}, src: src, limits: a.Limits.orDefault(),
		relations: map[uint32]*relation{}, byTable: map[*group.Table]*relation{}, questions: map[string]*statement{}, penalised: map[*relation]bool{},
		current: &batch{plan: group.New()},
		reached: a.Start, committed: a.Start, storedAt: time.Now(), resent: map[sqlname.Table]bool{},
	}
	e.held.dir = a.SpoolDir
	e.fences = newFences()
	e.w.fences = &e.fences
	a.status.applied.Store(uint64(a.Start))
	a.status.received.Store(uint64(a.Start))
	return e
}

// run is Run's loop.
func (e *engine) run(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() {
		// Whatever is being written or read ends.
		_ = e.s.raw.Conn().SetDeadline(time.Unix(1, 0))
	})()
	for {
		if done, err := e.atPosition(ctx); done || err != nil {
			return err
		}
		if !e.src.Ready() {
			if err := e.rest(ctx); err != nil {
				return err
			}
		}
		item, err := e.next(ctx)
		if err != nil {
			return err
		}
		if err := e.take(ctx, item); err != nil {
			if errors.Is(err, errUntil) {
				continue
			}
			return err
		}
	}
}

// errUntil ends the taking of an item: its next transaction lies past Until.
var errUntil = errors.New("the position was reached")

// atUntil says whether everything up to Until is known, and completes it.
func (e *engine) atUntil(ctx context.Context) (bool, error) {
	until := e.a.Until
	if until == 0 || e.open || max(e.reached, e.current.end.position) < until {
		return false, nil
	}
	if err := e.finish(ctx); err != nil {
		return false, err
	}
	if e.committed < until {
		return true, e.storeReached(ctx)
	}
	return true, nil
}

// rest is called when nothing has arrived: what was gathered is applied at once.
func (e *engine) rest(ctx context.Context) error {
	if err := e.finish(ctx); err != nil {
		return err
	}
	if e.reached > e.committed && !e.inTarget && time.Since(e.storedAt) >= e.interval() {
		return e.storeReached(ctx)
	}
	return nil
}

// next waits for the next item, but not past the time at which a position is due
// to be stored.
func (e *engine) next(ctx context.Context) (Item, error) {
	start := time.Now()
	defer since(&e.a.status.waiting, start)
	if e.reached <= e.committed || e.inTarget {
		return e.src.Next(ctx)
	}
	limited, stop := context.WithDeadline(ctx, e.storedAt.Add(e.interval()))
	defer stop()
	item, err := e.src.Next(limited)
	if err != nil && ctx.Err() == nil && limited.Err() != nil && errors.Is(err, context.DeadlineExceeded) {
		return Item{}, nil
	}
	return item, err
}

// take works through an item.
func (e *engine) take(ctx context.Context, item Item) error {
	if item.Big != nil {
		defer item.Big.Close()
	}
	for b := item.Records; len(b) > 0; {
		if len(b) < 4 || uint64(binary.BigEndian.Uint32(b)) > uint64(len(b)-4) {
			return corrupt("a record that ends early")
		}
		n := 4 + int(binary.BigEndian.Uint32(b))
		if err := e.message(ctx, b[4:n:n]); err != nil {
			return err
		}
		b = b[n:]
	}
	if item.Big != nil {
		if err := e.takeBig(ctx, item.Big); err != nil {
			return err
		}
	}
	if item.Reached != 0 {
		if e.open {
			return corrupt("a position inside a transaction")
		}
		e.reach(item.Reached)
	}
	return nil
}

// message takes one message of the stream.
func (e *engine) message(ctx context.Context, msg []byte) error {
	e.raw = msg
	m, err := e.decoder.Decode(msg)
	if err != nil {
		return corrupt("a message that cannot be read: %v", err)
	}
	switch m.Type {
	case pgoutput.TypeInsert, pgoutput.TypeUpdate, pgoutput.TypeDelete:
		return e.change(ctx, m)
	case pgoutput.TypeBegin:
		return e.beginAt(ctx, m.Begin)
	case pgoutput.TypeCommit:
		return e.commit(ctx, m.Commit)
	case pgoutput.TypeRelation:
		e.describe(msg, &m.Relation)
		return nil
	case pgoutput.TypeTruncate:
		return e.truncate(ctx, &m.Truncate)
	case pgoutput.TypeType, pgoutput.TypeOrigin, pgoutput.TypeMessage:
		return nil
	}
	return corrupt("messages of transactions that are not finished (%q); start it without streaming", byte(m.Type))
}

func (e *engine) begin(m pgoutput.Begin) error {
	if e.open {
		return corrupt("a transaction inside another")
	}
	if e.a.Until != 0 && m.Final >= e.a.Until {
		e.reach(e.a.Until)
		return errUntil
	}
	// A commit record that begins before a position that lies between records
	// also ends at or before it; commit checks that.
	e.open = true
	e.tx = transaction{first: len(e.current.plan.Changes()), xid: m.XID, final: m.Final, time: m.Time, skip: m.Final < e.a.Start}
	return nil
}

func (e *engine) commit(ctx context.Context, m pgoutput.Commit) error {
	if !e.open || m.LSN != e.tx.final {
		return corrupt("a commit at %s that fits no begin", m.LSN)
	}
	if e.tx.skip != (m.End <= e.a.Start) {
		return corrupt("a commit from %s to %s around the start position %s", m.LSN, m.End, e.a.Start)
	}
	if err := e.heldAtCommit(ctx); err != nil {
		return err
	}
	e.open = false
	clear(e.resent)
	e.reading = nil
	e.a.status.received.Store(max(e.a.status.received.Load(), uint64(m.End)))
	if e.tx.skip {
		return nil
	}
	if !e.tx.any {
		// Nothing of it is to be written, only its position.
		e.reach(m.End)
		e.a.status.transactions.Add(1)
		return nil
	}
	b := e.current
	b.plan.Seal()
	b.ends = true
	b.end.position, b.end.time = m.End, m.Time
	b.end.transactions++
	if e.tx.alone {
		return e.finish(ctx)
	}
	if e.full(b) {
		return e.flush(ctx)
	}
	return nil
}

// full says whether a batch is as large as one may be.
func (e *engine) full(b *batch) bool {
	return len(b.plan.Changes()) >= e.limits.Changes || b.plan.Bytes() >= e.limits.Bytes
}

// change takes a changed row.
func (e *engine) change(ctx context.Context, m *pgoutput.Message) error {
	r, c, err := e.prepare(ctx, m)
	if err != nil || r == nil {
		return err
	}
	if r.role == signals {
		return e.signal(ctx, r, c)
	}
	return e.add(ctx, c)
}

// prepare makes a planner's change of a message; no relation means that there is
// nothing to apply.
func (e *engine) prepare(ctx context.Context, m *pgoutput.Message) (*relation, group.Change, error) {
	if !e.open {
		return nil, group.Change{}, corrupt("a change outside of a transaction")
	}
	r, err := e.relation(m.Change.Relation)
	if err != nil {
		return nil, group.Change{}, err
	}
	op := group.Insert
	switch m.Type {
	case pgoutput.TypeUpdate:
		op = group.Update
	case pgoutput.TypeDelete:
		op = group.Delete
	}
	if e.tx.skip || r.role == ignored || e.tx.final < r.skipBefore || r.role == signals && op != group.Insert {
		return nil, group.Change{}, nil
	}
	c := group.Change{Table: &r.Table, Op: op, OldKind: m.Change.OldKind, Old: m.Change.Old, New: m.Change.New}
	if op == group.Update && e.resent[r.name] {
		if c.OldKind != pgoutput.OldFull {
			return nil, group.Change{}, corrupt("a row of table %s that is sent anew and not whole", r.name)
		}
		c = group.Change{Table: &r.Table, Op: group.Insert, New: group.Filled(c.Old, c.New)}
	}
	if err := e.check(ctx, r, &c); err != nil {
		return nil, group.Change{}, err
	}
	switch {
	case r.missing:
		return nil, group.Change{}, e.hold(r)
	case e.tx.final < r.skipBefore:
		return nil, group.Change{}, nil
	}
	return r, c, nil
}

// check makes sure that a change fits its relation, which it looks up at its first.
func (e *engine) check(ctx context.Context, r *relation, c *group.Change) error {
	if c.Op != group.Delete && c.New.Len != len(r.columns) || c.OldKind != pgoutput.OldNone && c.Old.Len != len(r.columns) {
		return corrupt("a row of table %s with another number of columns than described", r.name)
	}
	if r.role == signals {
		return nil
	}
	if !r.resolved {
		if err := e.resolve(ctx, r); err != nil || r.missing {
			return err
		}
	}
	if len(r.textOnly) > 0 && (c.New.Kinds|c.Old.Kinds)&pgoutput.HasBinary != 0 {
		if err := needsText(r, c); err != nil {
			return err
		}
	}
	if c.Op != group.Insert && r.keyless() && c.OldKind != pgoutput.OldFull {
		return identityProblem(r)
	}
	if e.tx.final < r.repair {
		if r.keyless() {
			return identityProblem(r)
		}
		c.Repair = true
		return e.unsettled(ctx, r, c)
	}
	return nil
}

// add appends a change to the batch, and writes a piece when it becomes too large.
func (e *engine) add(ctx context.Context, c group.Change) error {
	b := e.current
	if !e.tx.any {
		e.tx.any = true
		e.tx.first = len(b.plan.Changes())
		b.txs = append(b.txs, e.tx)
	}
	b.plan.Append(c)
	if !e.full(b) {
		return nil
	}
	if b.plan.Sealed() > 0 {
		if err := e.flush(ctx); err != nil || !e.full(e.current) {
			return err
		}
	}
	return e.piece(ctx)
}

// truncate takes a TRUNCATE.
func (e *engine) truncate(ctx context.Context, m *pgoutput.Truncate) error {
	if !e.open {
		return corrupt("a change outside of a transaction")
	}
	if e.tx.skip {
		return nil
	}
	set := &group.TruncateSet{Cascade: m.Cascade, RestartIdentity: m.RestartIdentity}
	for _, id := range m.Relations {
		r, err := e.relation(id)
		if err != nil {
			return err
		}
		if r.role != ordinary {
			continue
		}
		if e.tx.final < r.skipBefore {
			set.Alone = true
			continue
		}
		if !r.resolved {
			if err := e.resolve(ctx, r); err != nil {
				return err
			}
			if r.missing {
				return r.match(nil)
			}
			if e.tx.final < r.skipBefore {
				set.Alone = true
				continue
			}
		}
		set.Tables = append(set.Tables, &r.Table)
	}
	if len(set.Tables) == 0 {
		return nil
	}
	return e.add(ctx, group.Change{Op: group.Truncate, Truncate: set})
}

// flush sends the whole transactions that were gathered; the changes of the open
// one stay.
func (e *engine) flush(ctx context.Context) error {
	b := e.current
	if b.plan.Sealed() == 0 && !b.ends {
		return nil
	}
	next := e.fresh()
	b.plan.MoveOpen(next.plan)
	if e.open && e.tx.any {
		b.txs = b.txs[:len(b.txs)-1]
		e.tx.first = 0
		next.txs = append(next.txs, e.tx)
	}
	e.current = next
	return e.dispatch(ctx, b)
}

// fresh returns an empty batch.
func (e *engine) fresh() *batch {
	b := e.spare
	e.spare = nil
	if b == nil {
		b = &batch{plan: group.New()}
	}
	return b
}

// piece sends what was gathered of the open transaction, within a target
// transaction that stays open.
func (e *engine) piece(ctx context.Context) error {
	b := e.current
	if b.plan.Open() == 0 {
		return nil
	}
	b.plan.Seal()
	e.current = e.fresh()
	e.tx.first = 0
	e.current.txs = append(e.current.txs, e.tx)
	return e.dispatch(ctx, b)
}

// dispatch sends a batch after the one before was answered.
func (e *engine) dispatch(ctx context.Context, b *batch) error {
	b.end.changes = int64(b.plan.Sealed())
	if err := e.settle(ctx); err != nil {
		return err
	}
	e.forgive()
	x := e.s.begin()
	b.carried = e.sendDue()
	b.savepoint = e.inTarget
	e.enter(b)
	e.writeAndClose(b)
	e.checkFences()
	e.s.sync()
	b.exchange = x
	e.inflight = b
	e.a.status.groups.Add(1)
	return nil
}

// enter opens the target transaction, or a savepoint in the one that is open.
func (e *engine) enter(b *batch) {
	if !b.savepoint {
		e.s.exec("BEGIN", opControl, anyCount)
		e.inTarget, e.savepoint = true, false
		return
	}
	if e.savepoint {
		e.s.exec("RELEASE SAVEPOINT piece", opControl, anyCount)
	}
	e.s.exec("SAVEPOINT piece", opControl, anyCount)
	e.savepoint = true
}

// finish applies and commits every whole transaction that was gathered.
func (e *engine) finish(ctx context.Context) error {
	e.closing = !e.open
	err := e.flush(ctx)
	e.closing = false
	if err != nil {
		return err
	}
	if err := e.settle(ctx); err != nil {
		return err
	}
	if e.due == nil {
		return nil
	}
	// Nothing else is pending, so transactions without changes that followed are
	// covered as well. Elsewhere, they may lie behind some that are gathered only.
	e.due.position = max(e.due.position, e.reached)
	defer since(&e.a.status.committing, time.Now())
	x := e.s.begin()
	c := e.sendDue()
	e.s.sync()
	return e.awaitCommit(ctx, x, c)
}

// sendDue sends the end of the target transaction that is complete, if one is.
func (e *engine) sendDue() *commit {
	c := e.due
	if c == nil {
		return nil
	}
	e.sendCommit(c, opCommit)
	e.due, e.inTarget = nil, false
	return c
}

// sendCommit commits with the origin's position, which so becomes part of the
// commit record (src/backend/access/transam/xact.c, RecordTransactionCommit).
func (e *engine) sendCommit(c *commit, op int) {
	e.s.exec(fmt.Sprintf("SELECT pg_catalog.pg_replication_origin_xact_setup('%s', pg_catalog.timestamptz '2000-01-01 00:00:00+00' + pg_catalog.interval '1 microsecond' * %d)",
		c.position, int64(c.time)), op, anyCount)
	e.s.exec("COMMIT", op, committed)
}

func (e *engine) committedNow(c *commit) {
	s := &e.a.status
	e.committed = max(e.committed, c.position)
	e.storedAt = time.Now()
	s.applied.Store(uint64(e.committed))
	s.transactions.Add(c.transactions)
	s.changes.Add(c.changes)
	if c.time != 0 {
		s.lastCommit.Store(c.time.Time().UnixMicro())
	}
	if e.a.OnCommit != nil {
		e.a.OnCommit()
	}
}

// recycle makes a batch that is done the next to be gathered.
func (e *engine) recycle(b *batch) {
	b.plan.Reset()
	*b = batch{plan: b.plan, txs: b.txs[:0]}
	e.spare = b
}

// forgive lets tables be folded again whose time without is over.
func (e *engine) forgive() {
	for r := range e.penalised {
		if r.forgive(time.Now()) {
			delete(e.penalised, r)
		}
	}
}
