package test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/pgtest"
)

const (
	accounts = 200
	opening  = 1000
)

// makeBank makes the tables of a bank: money moves between accounts and is neither
// made nor lost, and every transfer has an id of its client's.
func makeBank(t *testing.T, s *linktest.Side, database string) {
	t.Helper()
	pgtest.Exec(t, s.Server.AppDSN(database),
		`CREATE TABLE account (id int PRIMARY KEY, balance bigint NOT NULL)`,
		fmt.Sprintf(`INSERT INTO account SELECT i, %d FROM generate_series(0, %d) i`, opening, accounts-1),
		`CREATE TABLE transfer (id text PRIMARY KEY, debit int NOT NULL, credit int NOT NULL, amount int NOT NULL, n bigserial)`)
}

// fate is what a client knows of a transfer.
type fate struct{ acknowledged, unknown bool }

// bank is clients that move money between accounts, and remember what they were
// told of each transfer.
type bank struct {
	t      *testing.T
	strict bool          // no error but the refusal of a read-only side is right
	limit  time.Duration // of a transfer, whose fate is unknown then; 0 for none

	mu        sync.Mutex
	fates     map[string]fate
	failures  []string
	pace      atomic.Int64 // time between a client's transfers, in nanoseconds
	refusals  atomic.Int64
	transfers atomic.Int64
	clients   int
	quit      context.Context // ends the clients when they have ended their transfers
	abort     context.Context // ends them in the middle of one
	stop      context.CancelFunc
	cancel    context.CancelFunc
	running   sync.WaitGroup
}

// bankPair is a pair whose link bank replicates the database of that name.
func bankPair(t *testing.T, options linktest.Options) *linktest.Pair {
	t.Helper()
	p := linktest.New(t, options)
	p.A.Server.CreateDatabase(t, "bank")
	makeBank(t, p.A, "bank")
	p.Create(t, "bank", "bank")
	p.WaitPhase(t, "bank", api.Replicating)
	return p
}

// homeAndAway are two links of one database, home to the pair's side b and away to a
// third side, and what traces the database had before.
func homeAndAway(t *testing.T) (home, away *linktest.Pair, before string) {
	t.Helper()
	home = linktest.New(t, linktest.Options{})
	away = &linktest.Pair{A: home.A, B: home.Third(t, "c", linktest.Options{})}
	home.A.Server.CreateDatabase(t, "bank")
	makeBank(t, home.A, "bank")
	before = traces(t, home.A, "bank")
	home.Create(t, "home", "bank")
	home.WaitPhase(t, "home", api.Replicating)
	if _, err := home.A.Client.CreateLink(t.Context(), api.CreateLink{Name: "away", Database: "bank", Peer: "c"}); err != nil {
		t.Fatal(err)
	}
	away.WaitPhase(t, "away", api.Replicating)
	return home, away, before
}

// eitherSide is a connection string over both sides that finds the one which
// accepts writes, as libpq's does.
func eitherSide(p *linktest.Pair, database string) func() string { return anySide(database, p.A, p.B) }

// anySide is the same over any sides.
func anySide(database string, sides ...*linktest.Side) func() string {
	var servers []*pgtest.Server
	for _, s := range sides {
		servers = append(servers, s.Server)
	}
	dsn := pgtest.AppConninfo(database, servers...) + " target_session_attrs=read-write connect_timeout=5"
	return func() string { return dsn }
}

// openBank starts clients; dsn leads to whoever is primary, when there is one.
func openBank(t *testing.T, clients int, strict bool, dsn func() string) *bank {
	b := &bank{t: t, strict: strict, fates: map[string]fate{}}
	b.quit, b.stop = context.WithCancel(context.Background())
	b.abort, b.cancel = context.WithCancel(context.Background())
	b.more(clients, dsn)
	t.Cleanup(b.close)
	return b
}

// more starts more clients, which may connect elsewhere.
func (b *bank) more(clients int, dsn func() string) {
	for range clients {
		number := b.clients
		b.clients++
		b.running.Go(func() { b.client(number, dsn) })
	}
}

// close ends the clients. None is left in the middle of a transfer: a server that has
// got a commit makes it some time after its client has turned away, and that would be a
// write beside what the test compares. A transfer that hangs is given up.
func (b *bank) close() {
	b.stop()
	hangs := time.AfterFunc(linktest.Patience, b.cancel)
	defer hangs.Stop()
	b.running.Wait()
}

func (b *bank) client(number int, dsn func() string) {
	ctx := b.quit
	rng := rand.New(rand.NewPCG(uint64(number), 1))
	var conn *pgx.Conn
	for n := 0; ctx.Err() == nil; {
		if conn == nil || conn.IsClosed() {
			var err error
			if conn, err = pgx.Connect(ctx, dsn()); err != nil {
				conn = nil
				select {
				case <-ctx.Done():
				case <-time.After(20 * time.Millisecond):
				}
				continue
			}
		}
		id := fmt.Sprintf("%d/%d", number, n)
		err := b.bounded(conn, id, rng)
		if refused(err) {
			// Nothing was done: the same transfer again, where writes are accepted.
			b.refusals.Add(1)
			conn.Close(context.Background())
			select {
			case <-ctx.Done():
			case <-time.After(5 * time.Millisecond):
			}
			continue
		}
		n++
		b.note(id, err)
		if err != nil {
			conn.Close(context.Background())
		}
		if pace := b.pace.Load(); pace > 0 {
			select {
			case <-ctx.Done():
			case <-time.After(time.Duration(pace)):
			}
		}
	}
	if conn != nil {
		conn.Close(context.Background())
	}
}

// refused says whether the side refuses all writes.
func refused(err error) bool {
	var e *pgconn.PgError
	return errors.As(err, &e) && e.Code == "25006"
}

// note remembers what came of a transfer.
func (b *bank) note(id string, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err == nil {
		b.transfers.Add(1)
		b.fates[id] = fate{acknowledged: true}
		return
	}
	b.fates[id] = fate{unknown: true}
	if b.strict {
		b.failures = append(b.failures, fmt.Sprintf("%s: %v", id, err))
	}
}

// bounded is a transfer that is given up after the limit.
func (b *bank) bounded(conn *pgx.Conn, id string, rng *rand.Rand) error {
	ctx := b.abort
	if b.limit > 0 {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeout(ctx, b.limit)
		defer stop()
	}
	return b.transfer(ctx, conn, id, rng)
}

func (b *bank) transfer(ctx context.Context, conn *pgx.Conn, id string, rng *rand.Rand) error {
	debit, credit, amount := rng.IntN(accounts), rng.IntN(accounts), rng.IntN(50)
	// In one order, or two transfers could wait for each other.
	first, second := min(debit, credit), max(debit, credit)
	sign := 1
	if first == credit {
		sign = -1
	}
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `INSERT INTO transfer (id, debit, credit, amount) VALUES ($1, $2, $3, $4)`, id, debit, credit, amount); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `UPDATE account SET balance = balance - $2 WHERE id = $1`, first, sign*amount); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `UPDATE account SET balance = balance + $2 WHERE id = $1`, second, sign*amount)
		return err
	})
}

// audit compares what the clients were told with what a database holds: every
// acknowledged transfer is there, none is there that no client sent, and the
// balances are what the transfers make of them. It returns the acknowledged
// transfers that are missing, for tests in which some may be.
func (b *bank) audit(dsn string, mayMiss bool) (missing []string) {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	there := map[string]bool{}
	for _, row := range pgtest.Query(b.t, dsn, `SELECT id FROM transfer`) {
		there[row[0]] = true
		if f, known := b.fates[row[0]]; !known || !f.acknowledged && !f.unknown {
			b.t.Errorf("transfer %s is there, and nobody sent it", row[0])
		}
	}
	for id, f := range b.fates {
		if f.acknowledged && !there[id] {
			missing = append(missing, id)
		}
	}
	if len(missing) > 0 && !mayMiss {
		b.t.Errorf("%d acknowledged transfers are missing, such as %s", len(missing), missing[0])
	}
	sum := pgtest.Query(b.t, dsn, `SELECT sum(balance) FROM account`)[0][0]
	if sum != fmt.Sprint(accounts*opening) {
		b.t.Errorf("the accounts hold %s, not %d", sum, accounts*opening)
	}
	wrong := pgtest.Query(b.t, dsn, fmt.Sprintf(`SELECT a.id, a.balance, w.balance FROM account a JOIN (
		SELECT id, %d + coalesce(sum(amount), 0) AS balance FROM account LEFT JOIN (
			SELECT credit AS who, amount FROM transfer UNION ALL SELECT debit, -amount FROM transfer) x ON who = id GROUP BY id) w USING (id)
		WHERE a.balance <> w.balance`, opening))
	if len(wrong) > 0 {
		b.t.Errorf("%d accounts do not hold what their transfers make, such as %v", len(wrong), wrong[0])
	}
	if len(b.failures) > 0 {
		b.t.Errorf("%d transfers failed, such as %s", len(b.failures), b.failures[0])
	}
	return missing
}

// waitTransfers waits until clients have been told of some more transfers.
func (b *bank) waitTransfers(more int64) {
	b.t.Helper()
	from := b.transfers.Load()
	pgtest.Eventually(b.t, linktest.Patience, func() error {
		if now := b.transfers.Load(); now < from+more {
			b.mu.Lock()
			defer b.mu.Unlock()
			return fmt.Errorf("%d of %d transfers; %s", now-from, more, strings.Join(b.failures[max(0, len(b.failures)-3):], "; "))
		}
		return nil
	})
}
