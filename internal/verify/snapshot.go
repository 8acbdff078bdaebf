package verify

import (
	"context"
	"fmt"
	"io"
	"math/big"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/sqlname"
)

const (
	// pieceBytes is about how much of a table is read in one transaction, and so how
	// long its lock is held.
	pieceBytes = 32 << 20
	// lockPatience is how long a piece is tried again while somebody changes its table.
	lockPatience = time.Minute
)

// Snapshot is a Side over an exported snapshot. Set the fields before the first
// call. Close ends its sessions.
type Snapshot struct {
	DSN         *pg.DSN
	Link        string        // the link's name, for the names of sessions
	ID          string        // as pg_export_snapshot returned it; whoever exported it keeps it
	Workers     int           // sessions that read at once; at least 1
	Rate        int64         // bytes of tables in a second; 0 for no limit
	Piece       int64         // about how many bytes of a table are read at once; 0 for a default
	LockTimeout time.Duration // the longest wait for a lock, which makes others wait, too
	// Read, when set, is called with the bytes of each piece of a table that was read
	// to add up its blocks.
	Read func(bytes int64)

	once  sync.Once
	pace  pace
	slots chan *reader // nil stands for a session that is not open

	mu      sync.Mutex // guards what follows
	version int
	tables  map[sqlname.Table]*known
}

func (s *Snapshot) prepare() {
	s.once.Do(func() {
		s.pace.rate = s.Rate
		s.slots = make(chan *reader, max(1, s.Workers))
		for range max(1, s.Workers) {
			s.slots <- nil
		}
	})
}

// Close ends the sessions. No call may be under way.
func (s *Snapshot) Close(ctx context.Context) {
	s.prepare()
	for range cap(s.slots) {
		if r := <-s.slots; r != nil {
			r.conn.Close(ctx)
		}
	}
}

func (s *Snapshot) learn(version int, tables []*known) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.version, s.tables = version, map[sqlname.Table]*known{}
	for _, t := range tables {
		s.tables[t.Name] = t
	}
}

// changed says that the rows of a table at the snapshot cannot be had any more.
func changed(name sqlname.Table) error {
	return problem.New(problem.Conflict, "table_changed", "the table was truncated, rewritten or dropped while it was compared").
		On(name.String()).WithHint("verify it again")
}

// piece runs f in a transaction of its own at the snapshot, again while a lock is
// in the way. t is the table that f reads, if it reads one.
func (s *Snapshot) piece(ctx context.Context, t *known, oldText bool, f func(r *reader) error) error {
	s.prepare()
	var r *reader
	select {
	case r = <-s.slots:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { s.slots <- r }()
	for end := time.Now().Add(lockPatience); ; {
		if r == nil || r.conn.IsClosed() {
			opened, err := s.open(ctx)
			if err != nil {
				return err
			}
			r = opened
		}
		err := r.ready(ctx, t)
		if err == nil {
			err = s.within(ctx, r, oldText, f)
		}
		if problem.CodeOf(err) != "lock_not_available" || time.Now().After(end) || ctx.Err() != nil {
			return err
		}
	}
}

// within runs f in a transaction, which is rolled back: what it writes are temporary
// tables for its answers.
func (s *Snapshot) within(ctx context.Context, r *reader, oldText bool, f func(r *reader) error) error {
	mode := "READ ONLY"
	if r.fenced {
		mode = "READ WRITE"
	}
	begin := "BEGIN ISOLATION LEVEL REPEATABLE READ " + mode + "; SET TRANSACTION SNAPSHOT " + sqlname.Literal(s.ID)
	if oldText {
		begin += "; SET LOCAL extra_float_digits = 0"
	}
	_, err := r.conn.PgConn().Exec(ctx, begin).ReadAll()
	if err == nil {
		err = f(r)
	} else if state := pg.SQLState(err); state == "22023" || state == "55000" || state == "42704" {
		err = problem.New(problem.Transient, "snapshot_lost", "the snapshot of the verification is gone").WithHint("verify again")
	}
	if _, ended := r.conn.Exec(context.WithoutCancel(ctx), "ROLLBACK"); ended != nil {
		r.conn.Close(context.WithoutCancel(ctx))
	}
	return pg.Classify(err, "compare the databases")
}

// read runs f at the snapshot, and makes sure that what it read of a table was
// of the snapshot's time: TRUNCATE and rewriting leave an old snapshot with an
// empty table. The lock that f took keeps the file until the end.
func (s *Snapshot) read(ctx context.Context, t *known, m Method, f func(r *reader) error) error {
	return s.piece(ctx, t, m.OldText, func(r *reader) error {
		if err := f(r); err != nil {
			if state := pg.SQLState(err); state == "42P01" || state == "42703" || state == "3F000" {
				return changed(t.Name)
			}
			return err
		}
		if t.oid == 0 {
			return nil
		}
		var same bool
		err := r.conn.QueryRow(ctx, `SELECT coalesce(pg_relation_filenode($1::bigint::oid) = $2::bigint::oid, false)`, int64(t.oid), int64(t.filenode)).Scan(&same)
		if err == nil && !same {
			err = changed(t.Name)
		}
		return err
	})
}

// ranges divides what is looked at of a table into pieces, as conditions on t. The
// last has no end, for the table may have grown since it was measured. A span is one.
func (s *Snapshot) ranges(t *known, span *Span) []string {
	s.mu.Lock()
	ranged := s.version >= 140000 && span == nil
	s.mu.Unlock()
	piece := int64(pieceBytes)
	if s.Piece > 0 {
		piece = s.Piece
	}
	if !ranged || t.oid == 0 || t.Bytes <= piece || t.blocks < 2 {
		return []string{"true"}
	}
	step := max(1, t.blocks*piece/t.Bytes)
	var list []string
	for first := int64(0); first < t.blocks; first += step {
		condition := fmt.Sprintf("t.ctid >= '(%d,0)'", first)
		if first+step < t.blocks {
			condition += fmt.Sprintf(" AND t.ctid < '(%d,0)'", first+step)
		}
		list = append(list, condition)
	}
	return list
}

// each runs f for each piece of a table, several at once, at the rate.
func (s *Snapshot) each(ctx context.Context, t *known, span *Span, f func(ctx context.Context, where string) error) error {
	s.prepare()
	pieces := s.ranges(t, span)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(cap(s.slots))
	for _, where := range pieces {
		bytes := t.Bytes / int64(len(pieces))
		if span != nil {
			bytes = 0 // whoever chose it keeps the pace
		}
		group.Go(func() error {
			if wait := s.pace.reserve(time.Now(), bytes); wait > 0 {
				select {
				case <-ctx.Done():
				case <-time.After(wait):
				}
			}
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return f(ctx, where)
		})
	}
	return group.Wait()
}

// Digest implements Side.
func (s *Snapshot) Digest(ctx context.Context, r DigestRequest) ([]Block, error) {
	t, err := s.tableOf(ctx, r.Table)
	if err != nil {
		return nil, err
	}
	pieces := int64(len(s.ranges(t, r.Span)))
	var mu sync.Mutex
	sums := map[int64]Block{}
	err = s.each(ctx, t, r.Span, func(ctx context.Context, where string) error {
		var found []Block
		err := s.read(ctx, t, r.Method, func(session *reader) (err error) {
			if err := session.spanned(ctx, r.Span); err != nil {
				return err
			}
			rows, err := session.query(ctx, t, answerBlocks, r.digestSQL(where))
			if err != nil {
				return err
			}
			found, err = pgx.CollectRows(rows, scanBlock)
			return err
		})
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		for _, b := range found {
			sum := sums[b.Number]
			sums[b.Number] = Block{Number: b.Number, Rows: sum.Rows + b.Rows, Sum1: sum.Sum1 + b.Sum1, Sum2: sum.Sum2 + b.Sum2}
		}
		if s.Read != nil && r.Within.Bits == 0 && r.Span == nil {
			s.Read(t.Bytes / pieces)
		}
		return nil
	})
	blocks := make([]Block, 0, len(sums))
	for _, b := range sums {
		blocks = append(blocks, b)
	}
	return blocks, err
}

func scanBlock(row pgx.CollectableRow) (b Block, err error) {
	var sum1, sum2 string
	if err := row.Scan(&b.Number, &b.Rows, &sum1, &sum2); err != nil {
		return b, err
	}
	if b.Sum1, err = wrap(sum1); err == nil {
		b.Sum2, err = wrap(sum2)
	}
	return b, err
}

// wrap takes the low 64 bits of a number that may be longer.
func wrap(number string) (uint64, error) {
	n, ok := new(big.Int).SetString(number, 10)
	if !ok {
		return 0, problem.New(problem.Internal, "answer_unexpected", "the server's sum is no number")
	}
	mask := new(big.Int).SetUint64(^uint64(0))
	return n.And(n, mask).Uint64(), nil
}

// List implements Side.
func (s *Snapshot) List(ctx context.Context, r ListRequest) (List, error) {
	t, err := s.tableOf(ctx, r.Table)
	if err != nil {
		return List{}, err
	}
	var mu sync.Mutex
	var list List
	err = s.each(ctx, t, r.Span, func(ctx context.Context, where string) error {
		return s.read(ctx, t, r.Method, func(session *reader) error {
			if err := session.spanned(ctx, r.Span); err != nil {
				return err
			}
			rows, err := session.query(ctx, t, answerList, r.listSQL(where))
			if err != nil {
				return err
			}
			found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Hashed])
			mu.Lock()
			defer mu.Unlock()
			list.Rows = append(list.Rows, found...)
			return err
		})
	})
	if len(list.Rows) > r.Most {
		list.Rows, list.More = list.Rows[:r.Most], true
	}
	return list, err
}

// Bound finds where a span of about so many rows ends that begins behind a key; nothing
// when there are no more than that.
func (s *Snapshot) Bound(ctx context.Context, subject Subject, after []string, rows int64) ([]string, error) {
	t, err := s.tableOf(ctx, subject.Table)
	if err != nil {
		return nil, err
	}
	subject.Span = &Span{After: after}
	var found []Hashed
	err = s.read(ctx, t, subject.Method, func(session *reader) error {
		if err := session.spanned(ctx, subject.Span); err != nil {
			return err
		}
		rows, err := session.query(ctx, t, answerList, subject.boundSQL(rows))
		if err != nil {
			return err
		}
		found, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Hashed])
		return err
	})
	if err != nil || len(found) == 0 {
		return nil, err
	}
	return found[0].Key, nil
}

// spanned has the transaction read a span by the index that it was chosen by: a table is
// never read whole for a part of it.
func (r *reader) spanned(ctx context.Context, span *Span) error {
	if span == nil {
		return nil
	}
	_, err := r.conn.Exec(ctx, "SELECT pg_catalog.set_config('enable_seqscan', 'off', true)")
	return err
}

// Values implements Side.
func (s *Snapshot) Values(ctx context.Context, r ValuesRequest) ([]Row, error) {
	t, err := s.tableOf(ctx, r.Table)
	if err != nil || len(r.Keys) == 0 {
		return nil, err
	}
	var list []Row
	err = s.read(ctx, t, r.Method, func(session *reader) error {
		// A few rows are wanted of a table that may be large.
		if _, err := session.conn.Exec(ctx, "SET LOCAL enable_seqscan = off"); err != nil {
			return err
		}
		rows, err := session.query(ctx, t, answerRows, r.valuesSQL(t.keyOf(r.Key)))
		if err != nil {
			return err
		}
		list, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Row])
		return err
	})
	return list, err
}

// Copy implements Source.
func (s *Snapshot) Copy(ctx context.Context, r CopyRequest, w io.Writer) error {
	t, err := s.tableOf(ctx, r.Table)
	if err != nil {
		return err
	}
	return s.read(ctx, t, Method{}, func(session *reader) error {
		if _, err := session.conn.Exec(ctx, "SET LOCAL enable_seqscan = off"); err != nil {
			return err
		}
		return session.copyTo(ctx, t, written(r.Columns), r.rowsSQL(t.keyOf(r.Key)), w)
	})
}

var _ Source = (*Snapshot)(nil)
