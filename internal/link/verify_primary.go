package link

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/capture"
	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/flow"
	"github.com/twinspan/twinspan/internal/peer"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/seed"
	"github.com/twinspan/twinspan/internal/sequence"
	"github.com/twinspan/twinspan/internal/verify"
	"github.com/twinspan/twinspan/internal/wire"
)

const (
	// holdLimit is how long the secondary's applier waits for a snapshot of the
	// primary before it goes on and the snapshot is tried again.
	holdLimit = 3 * time.Second
	// transactionPatience is how long a verification waits for transactions that were
	// running when it began.
	transactionPatience = 10 * time.Minute
	// transactionUntold is how long it waits before it says for whom.
	transactionUntold = 30 * time.Second
)

// snapshots are what verifications hold on a primary, by their tokens.
type snapshots struct {
	mu      sync.Mutex
	byToken map[string]*heldSnapshot
}

// heldSnapshot is a side, with those who read from it.
type heldSnapshot struct {
	side    *verify.Snapshot
	readers sync.WaitGroup
}

func (s *snapshots) add(token string, side *verify.Snapshot) (remove func(context.Context)) {
	held := &heldSnapshot{side: side}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byToken == nil {
		s.byToken = map[string]*heldSnapshot{}
	}
	s.byToken[token] = held
	return func(ctx context.Context) {
		s.mu.Lock()
		delete(s.byToken, token)
		s.mu.Unlock()
		held.readers.Wait()
		side.Close(ctx)
	}
}

func (s *snapshots) use(token string) (*verify.Snapshot, func(), error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	held := s.byToken[token]
	if held == nil {
		return nil, nil, problem.New(problem.Transient, "snapshot_lost", "the primary's snapshot of the verification is gone").WithHint("verify again")
	}
	held.readers.Add(1)
	return held.side, held.readers.Done, nil
}

// HandleVerifySnapshot holds a snapshot for as long as the stream lives.
func (l *Link) HandleVerifySnapshot(ctx context.Context, request SnapshotRequest, s *peer.Stream) error {
	ctx, leave, err := l.enter(ctx, request.Reference)
	if err != nil {
		return err
	}
	defer leave()
	session, err := l.snapshotForPeer(ctx, s)
	if err != nil {
		return err
	}
	return l.holdSnapshot(ctx, request, session, s)
}

// holdSnapshot keeps the session, which it closes, readable until the stream ends.
func (l *Link) holdSnapshot(ctx context.Context, request SnapshotRequest, session *seed.Session, s *peer.Stream) error {
	defer session.Close()
	ctx, stop := context.WithCancelCause(ctx)
	side := &verify.Snapshot{
		DSN: l.dsn, Link: l.Name(), ID: session.Snapshot, Workers: request.Workers, Rate: request.Rate, Piece: request.Piece, LockTimeout: capture.LockTimeout,
	}
	remove := l.primary.snapshots.add(session.Token, side)
	defer remove(context.WithoutCancel(ctx))
	defer stop(nil)
	if err := writeJSON(s, SnapshotAnswer{State: snapshotBegun, Begun: session.Begun}); err != nil {
		return err
	}
	level := slog.LevelInfo
	if request.Piece > 0 { // the audit's, again and again
		level = slog.LevelDebug
	}
	l.log.Log(ctx, level, "verification holds a snapshot", "lsn", session.LSN)
	go func() {
		for {
			if _, _, err := s.ReadFrame(); err != nil {
				stop(err)
				return
			}
		}
	}()
	select {
	case <-session.Done():
		return problem.New(problem.Transient, "snapshot_lost", "the primary's snapshot of the verification is gone").WithHint("verify again")
	case <-ctx.Done():
	}
	if err := context.Cause(ctx); !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// snapshotForPeer takes a snapshot while the secondary holds its applier.
func (l *Link) snapshotForPeer(ctx context.Context, s *peer.Stream) (*seed.Session, error) {
	end := time.Now().Add(transactionPatience)
	for {
		if err := l.waitForTransactions(ctx, end); err != nil {
			return nil, err
		}
		if err := writeJSON(s, SnapshotAnswer{State: snapshotReady}); err != nil {
			return nil, err
		}
		if _, _, err := s.ReadFrame(); err != nil {
			return nil, err
		}
		limited, stop := context.WithTimeout(ctx, holdLimit)
		session, err := seed.Temporary(limited, l.dsn, l.Name())
		late := limited.Err() != nil && ctx.Err() == nil
		stop()
		if err == nil || !late || time.Now().After(end) {
			return session, err
		}
		if err := writeJSON(s, SnapshotAnswer{State: snapshotAgain}); err != nil {
			return nil, err
		}
	}
}

// waitForTransactions waits until what is running now has ended: the making of a
// slot waits for it, too, in whatever database it runs.
func (l *Link) waitForTransactions(ctx context.Context, end time.Time) error {
	conn, err := l.dsn.Connect(ctx, pg.Session{Name: l.Name() + "/verify"})
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	// A snapshot's xmax is behind the last transaction that has ended: what has begun since may be running, too.
	var next int64
	if err := conn.QueryRow(ctx, `SELECT txid_current()`).Scan(&next); err != nil {
		return pg.Classify(err, "look for running transactions")
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	tell := time.Now().Add(transactionUntold)
	defer l.setAside("transaction", nil)
	for {
		var over bool
		if err := conn.QueryRow(ctx, `SELECT txid_snapshot_xmin(txid_current_snapshot()) >= $1`, next).Scan(&over); err != nil {
			return pg.Classify(err, "look for running transactions")
		}
		if over {
			return nil
		}
		now := time.Now()
		if now.After(end) {
			who, err := oldestTransaction(ctx, conn)
			if err != nil {
				return err
			}
			return problem.New(problem.Transient, "transaction_in_the_way", "a transaction on the primary has been running for longer than %s: %s", transactionPatience, who).
				On(who).WithHint("end it, and verify again")
		}
		if now.After(tell) {
			who, err := oldestTransaction(ctx, conn)
			if err != nil {
				return err
			}
			l.setAside("transaction", problem.New(problem.Transient, "transaction_in_the_way", "a verification waits for a transaction on the primary: %s", who).
				On(who).WithHint("it goes on when that ends, and gives up after %s", transactionPatience))
			tell = now.Add(transactionUntold)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// oldestTransaction names the oldest transaction that has written, in whatever database.
func oldestTransaction(ctx context.Context, conn *pgx.Conn) (who string, err error) {
	err = conn.QueryRow(ctx, `SELECT who FROM (
		SELECT 'process ' || pid || coalesce(' (' || nullif(application_name, '') || ')', '') AS who, xact_start AS since FROM pg_stat_activity WHERE backend_xid IS NOT NULL
		UNION ALL SELECT 'prepared transaction ' || gid, prepared FROM pg_prepared_xacts) x ORDER BY since LIMIT 1`).Scan(&who)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return "", pg.Classify(err, "look for running transactions")
	}
	return who, nil
}

// HandleVerifyRead reads at a snapshot.
func (l *Link) HandleVerifyRead(ctx context.Context, r VerifyRead, s *peer.Stream) error {
	if r.Sequences {
		return l.answer(ctx, r.Reference, s, func(ctx context.Context) (any, error) { return l.readSequences(ctx) })
	}
	side, done, err := l.primary.snapshots.use(r.Token)
	if err != nil {
		return err
	}
	defer done()
	if r.Copy != nil {
		return l.copyRows(ctx, side, r, s)
	}
	return l.answer(ctx, r.Reference, s, func(ctx context.Context) (any, error) {
		switch {
		case r.Digest != nil:
			return side.Digest(ctx, *r.Digest)
		case r.List != nil:
			return side.List(ctx, *r.List)
		case r.Values != nil:
			return side.Values(ctx, *r.Values)
		case r.Contents:
			return side.Contents(ctx)
		case r.Dump:
			return l.dump(ctx, side.ID)
		}
		return side.Describe(ctx)
	})
}

// readSequences reads this side's sequences as they are now.
func (l *Link) readSequences(ctx context.Context) ([]sequence.Sequence, error) {
	conn, err := l.dsn.Connect(ctx, pg.Session{Name: l.Name() + "/verify"})
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	return new(sequence.Reader).Read(ctx, conn, true)
}

func (l *Link) copyRows(ctx context.Context, side *verify.Snapshot, r VerifyRead, s *peer.Stream) error {
	ctx, leave, err := l.enter(ctx, r.Reference)
	if err != nil {
		return err
	}
	defer leave()
	out, err := flow.NewWriter(s, true)
	if err != nil {
		return err
	}
	if err := side.Copy(ctx, *r.Copy, out); err != nil {
		return err
	}
	return out.Finish(struct{}{})
}

func writeJSON(s *peer.Stream, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return s.WriteFrame(wire.FrameResult, body)
}

// HandleRenew makes the link's slot anew and holds the snapshot of its first
// position for as long as the stream lives, for the secondary to repair its twin by.
func (l *Link) HandleRenew(ctx context.Context, request SnapshotRequest, s *peer.Stream) error {
	ctx, leave, err := l.enter(ctx, request.Reference)
	if err != nil {
		return err
	}
	defer leave()
	session, err := l.renewSlot(ctx)
	if err != nil {
		return err
	}
	return l.holdSnapshot(ctx, request, session, s)
}

// renewSlot drops what is left of the slot and makes a new one.
func (l *Link) renewSlot(ctx context.Context) (*seed.Session, error) {
	source := l.source()
	err := l.control.do(ctx, func(ctx context.Context, conn *pgx.Conn) error { return capture.DropSlot(ctx, conn, source.Object()) })
	if err != nil {
		return nil, err
	}
	// A primary that was restored may lack what stood in it for the link.
	if err := source.Prepare(ctx); err != nil {
		return nil, err
	}
	session, err := seed.CreateSlot(ctx, l.dsn, l.Name(), source.Object())
	if err != nil {
		return nil, err
	}
	r := l.snapshot()
	err = l.control.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		return catalog.SetStart(ctx, conn, &r, session.LSN, session.SystemID)
	})
	if err != nil {
		session.Close()
		return nil, err
	}
	l.mu.Lock()
	l.record.StartLSN, l.record.SystemID = session.LSN, session.SystemID
	l.mu.Unlock()
	l.log.Info("slot made anew", "lsn", session.LSN)
	return session, nil
}
