package demo

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const (
	writers = 4
	// pause is between two transactions of a writer: the demonstration leaves the
	// machine room to breathe.
	pause = 15 * time.Millisecond
)

// workload changes the sample database as a shop's application does, on whichever
// side is the primary. It reconnects when its server goes away for a while, and when
// the sides change places.
type workload struct {
	dsns  []string
	count atomic.Int64 // transactions committed
	fails atomic.Int64 // transactions that failed and were given up

	mu     sync.Mutex // guards what follows
	last   time.Time
	before int64
	per    float64
}

func newWorkload(dsns ...string) *workload { return &workload{dsns: dsns, last: time.Now()} }

// Run works until ctx ends. Transactions under way are finished or rolled back.
func (w *workload) Run(ctx context.Context) {
	var all sync.WaitGroup
	for n := range writers {
		all.Go(func() {
			for ctx.Err() == nil {
				w.session(ctx, rand.New(rand.NewPCG(uint64(n), uint64(time.Now().UnixNano()))))
				rest(ctx, 50*time.Millisecond)
			}
		})
	}
	all.Wait()
}

func (w *workload) done() int64 { return w.count.Load() }

func (w *workload) errors() int64 { return w.fails.Load() }

// rate returns the transactions in a second since it was last asked.
func (w *workload) rate() float64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	now, count := time.Now(), w.count.Load()
	if passed := now.Sub(w.last).Seconds(); passed > 0.2 {
		w.per = float64(count-w.before) / passed
		w.last, w.before = now, count
	}
	return w.per
}

func rest(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// session works in one session until that breaks or ctx ends.
func (w *workload) session(ctx context.Context, random *rand.Rand) {
	conn := w.writable(ctx)
	if conn == nil {
		return
	}
	defer conn.Close(context.WithoutCancel(ctx))
	for ctx.Err() == nil && !conn.IsClosed() {
		err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error { return transaction(ctx, tx, random) })
		switch {
		case err == nil:
			w.count.Add(1)
		case refused(err):
			return // nothing was done here: the other side is the primary now
		case ctx.Err() == nil:
			w.fails.Add(1)
		}
		rest(ctx, pause)
	}
}

// writable connects to the side that accepts writes, as target_session_attrs=read-write
// does for an application; nil when there is none.
func (w *workload) writable(ctx context.Context) *pgx.Conn {
	for _, dsn := range w.dsns {
		conn, err := connect(ctx, dsn)
		if err != nil {
			continue
		}
		var only string
		if err := conn.QueryRow(ctx, "SHOW transaction_read_only").Scan(&only); err == nil && only == "off" {
			return conn
		}
		conn.Close(ctx)
	}
	return nil
}

// refused says whether a side does not accept writes.
func refused(err error) bool {
	var e *pgconn.PgError
	return errors.As(err, &e) && e.Code == "25006"
}

// transaction is one of the things that happen in a shop.
func transaction(ctx context.Context, tx pgx.Tx, random *rand.Rand) error {
	exec := func(sql string, args ...any) error {
		_, err := tx.Exec(ctx, sql, args...)
		return err
	}
	switch n := random.IntN(100); {
	case n < 45:
		return placeOrder(ctx, tx, random)
	case n < 65:
		return exec(`UPDATE orders SET state = 'paid', details = details || jsonb_build_object('paid', now())
			WHERE id = (SELECT max(id) - $1 FROM orders) AND state = 'new'`, random.IntN(200))
	case n < 75:
		return exec(`UPDATE customers SET address = jsonb_set(address, '{city}', to_jsonb($2::text)) WHERE id = $1`,
			random.IntN(customers)+1, fmt.Sprint("City ", random.IntN(1000)))
	case n < 82:
		return takeBack(ctx, tx, random)
	case n < 99:
		return exec(`INSERT INTO page_views (customer_id, path, agent) VALUES ($1, $2, 'Browser/8')`,
			random.IntN(customers)+1, fmt.Sprint("/product/", random.IntN(products)+1))
	default: // a table without a key takes part too
		return exec(`UPDATE page_views SET agent = 'Robot/1' WHERE ctid = (SELECT ctid FROM page_views ORDER BY at DESC LIMIT 1)`)
	}
}

func placeOrder(ctx context.Context, tx pgx.Tx, random *rand.Rand) error {
	var id int64
	err := tx.QueryRow(ctx, `INSERT INTO orders (customer_id, ordered_at, details) VALUES ($1, now(), $2) RETURNING id`,
		random.IntN(customers)+1, map[string]any{"channel": "web", "basket": random.IntN(1000)}).Scan(&id)
	if err != nil {
		return err
	}
	var bought []int
	for range 1 + random.IntN(5) {
		bought = append(bought, random.IntN(products)+1)
	}
	slices.Sort(bought) // always in the same order, so that writers do not deadlock
	for line, product := range slices.Compact(bought) {
		_, err := tx.Exec(ctx, `WITH p AS (UPDATE products SET stock = CASE WHEN stock > 0 THEN stock - 1 ELSE 1000 END WHERE id = $3 RETURNING price)
			INSERT INTO order_lines (order_id, ordered_on, line, product_id, quantity, price)
			SELECT $1, current_date, $2, $3, 1, price FROM p`, id, line+1, product)
		if err != nil {
			return err
		}
	}
	_, err = tx.Exec(ctx, `UPDATE orders SET total = (SELECT sum(amount) FROM order_lines WHERE order_id = $1) WHERE id = $1`, id)
	return err
}

// takeBack removes the lines of an order, which is an UPDATE and some DELETEs.
func takeBack(ctx context.Context, tx pgx.Tx, random *rand.Rand) error {
	var id int64
	err := tx.QueryRow(ctx, `SELECT max(id) - $1 FROM orders`, random.IntN(500)).Scan(&id)
	if err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, `UPDATE orders SET state = 'returned', total = 0 WHERE id = $1`, id); err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `DELETE FROM order_lines WHERE order_id = $1`, id)
	return err
}
