package meet

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/capture"
	"github.com/twinspan/twinspan/internal/flow"
	"github.com/twinspan/twinspan/internal/peer"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/schema"
	"github.com/twinspan/twinspan/internal/seed"
	"github.com/twinspan/twinspan/internal/sequence"
	"github.com/twinspan/twinspan/internal/side"
	"github.com/twinspan/twinspan/internal/verify"
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

// Primary is where a primary holds snapshots for its secondary.
type Primary struct {
	side    *side.Side
	service *side.Service
	dump    func(ctx context.Context, snapshot string) (*schema.Dump, error)

	mu      sync.Mutex
	byToken map[string]*heldSnapshot
}

// NewPrimary returns a primary's half, which serves as the service does; dump reads the schema
// at a snapshot.
func NewPrimary(s *side.Side, service *side.Service, dump func(ctx context.Context, snapshot string) (*schema.Dump, error)) *Primary {
	return &Primary{side: s, service: service, dump: dump}
}

// heldSnapshot is a snapshot, with those who read from it.
type heldSnapshot struct {
	snapshot *verify.Snapshot
	readers  sync.WaitGroup
}

func (p *Primary) add(token string, snapshot *verify.Snapshot) (remove func(context.Context)) {
	held := &heldSnapshot{snapshot: snapshot}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.byToken == nil {
		p.byToken = map[string]*heldSnapshot{}
	}
	p.byToken[token] = held
	return func(ctx context.Context) {
		p.mu.Lock()
		delete(p.byToken, token)
		p.mu.Unlock()
		held.readers.Wait()
		snapshot.Close(ctx)
	}
}

func (p *Primary) use(token string) (*verify.Snapshot, func(), error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	held := p.byToken[token]
	if held == nil {
		return nil, nil, problem.New(problem.Transient, "snapshot_lost", "the primary's snapshot of the verification is gone").WithHint("verify again")
	}
	held.readers.Add(1)
	return held.snapshot, held.readers.Done, nil
}

// HandleSnapshot holds a snapshot for as long as the stream lives.
func (p *Primary) HandleSnapshot(ctx context.Context, request SnapshotRequest, s *peer.Stream) error {
	ctx, leave, err := p.service.Enter(ctx, request.Reference)
	if err != nil {
		return err
	}
	defer leave()
	session, err := p.snapshotForPeer(ctx, s)
	if err != nil {
		return err
	}
	return p.Hold(ctx, request, session, s)
}

// Hold keeps the session, which it closes, readable until the stream ends.
func (p *Primary) Hold(ctx context.Context, request SnapshotRequest, session *seed.Session, s *peer.Stream) error {
	defer session.Close()
	ctx, stop := context.WithCancelCause(ctx)
	snapshot := &verify.Snapshot{
		DSN: p.side.DSN, Link: p.side.Name(), ID: session.Snapshot, Workers: request.Workers, Rate: request.Rate, Piece: request.Piece, LockTimeout: capture.LockTimeout,
	}
	remove := p.add(session.Token, snapshot)
	defer remove(context.WithoutCancel(ctx))
	defer stop(nil)
	if err := flow.WriteResult(s, SnapshotAnswer{State: snapshotBegun, Begun: session.Begun}); err != nil {
		return err
	}
	level := slog.LevelInfo
	if request.Piece > 0 { // the audit's, again and again
		level = slog.LevelDebug
	}
	p.side.Log.Log(ctx, level, "verification holds a snapshot", "lsn", session.LSN)
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
func (p *Primary) snapshotForPeer(ctx context.Context, s *peer.Stream) (*seed.Session, error) {
	end := time.Now().Add(transactionPatience)
	for {
		if err := p.waitForTransactions(ctx, end); err != nil {
			return nil, err
		}
		if err := flow.WriteResult(s, SnapshotAnswer{State: snapshotReady}); err != nil {
			return nil, err
		}
		if _, _, err := s.ReadFrame(); err != nil {
			return nil, err
		}
		limited, stop := context.WithTimeout(ctx, holdLimit)
		session, err := seed.Temporary(limited, p.side.DSN, p.side.Name())
		late := limited.Err() != nil && ctx.Err() == nil
		stop()
		if err == nil || !late || time.Now().After(end) {
			return session, err
		}
		if err := flow.WriteResult(s, SnapshotAnswer{State: snapshotAgain}); err != nil {
			return nil, err
		}
	}
}

// waitForTransactions waits until what is running now has ended: the making of a
// slot waits for it, too, in whatever database it runs.
func (p *Primary) waitForTransactions(ctx context.Context, end time.Time) error {
	conn, err := p.side.DSN.Connect(ctx, pg.Session{Name: p.side.Name() + "/verify"})
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
	defer p.side.Warn("transaction", nil)
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
			p.side.Warn("transaction", problem.New(problem.Transient, "transaction_in_the_way", "a verification waits for a transaction on the primary: %s", who).
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

// HandleRead reads at a snapshot.
func (p *Primary) HandleRead(ctx context.Context, r ReadRequest, s *peer.Stream) error {
	if r.Sequences {
		return p.service.Answer(ctx, r.Reference, s, func(ctx context.Context) (any, error) { return readSequences(ctx, p.side) })
	}
	snapshot, done, err := p.use(r.Token)
	if err != nil {
		return err
	}
	defer done()
	if r.Copy != nil {
		return p.copyRows(ctx, snapshot, r, s)
	}
	return p.service.Answer(ctx, r.Reference, s, func(ctx context.Context) (any, error) {
		switch {
		case r.Digest != nil:
			return snapshot.Digest(ctx, *r.Digest)
		case r.List != nil:
			return snapshot.List(ctx, *r.List)
		case r.Values != nil:
			return snapshot.Values(ctx, *r.Values)
		case r.Contents:
			return snapshot.Contents(ctx)
		case r.Dump:
			return p.dump(ctx, snapshot.ID)
		}
		return snapshot.Describe(ctx)
	})
}

// readSequences reads a side's sequences as they are now.
func readSequences(ctx context.Context, s *side.Side) ([]sequence.Sequence, error) {
	conn, err := s.DSN.Connect(ctx, pg.Session{Name: s.Name() + "/verify"})
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	return new(sequence.Reader).Read(ctx, conn, true)
}

func (p *Primary) copyRows(ctx context.Context, snapshot *verify.Snapshot, r ReadRequest, s *peer.Stream) error {
	ctx, leave, err := p.service.Enter(ctx, r.Reference)
	if err != nil {
		return err
	}
	defer leave()
	out, err := flow.NewWriter(s, true)
	if err != nil {
		return err
	}
	if err := snapshot.Copy(ctx, *r.Copy, out); err != nil {
		return err
	}
	return out.Finish(struct{}{})
}
