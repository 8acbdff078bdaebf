package link

import (
	"context"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/pg"
)

// control is the one session that a link keeps for its record and for looking
// around. It is opened when needed, closed when it broke or was idle for long.
type control struct {
	dsn     *pg.DSN
	name    string
	purpose string // of the session, "control" when empty

	mu   sync.Mutex
	conn *pgx.Conn
	last time.Time
}

// controlTimeout bounds everything done in the control session: its statements
// are small, and a server that hangs must not hang the link's supervisor.
const controlTimeout = 15 * time.Second

// controlIdle is how long an unused control session is kept.
const controlIdle = time.Minute

// controlTrust is how long a session that was used is taken for one that can be: behind
// it, the server is asked first, for it may have been restarted meanwhile, and what f
// was doing when it finds out cannot be repeated blindly.
const controlTrust = 100 * time.Millisecond

// do runs f with the session, a new one when that of before is gone. Only one f runs at
// a time.
func (c *control) do(ctx context.Context, f func(ctx context.Context, conn *pgx.Conn) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	ctx, stop := context.WithTimeout(ctx, controlTimeout)
	defer stop()
	if c.conn != nil && time.Since(c.last) > controlTrust && c.conn.Ping(ctx) != nil {
		c.closeLocked()
	}
	if c.conn == nil || c.conn.IsClosed() {
		purpose := c.purpose
		if purpose == "" {
			purpose = "control"
		}
		session := pg.Session{Name: c.name + "/" + purpose, Apply: true, Unseen: true, Settings: map[string]string{
			"lock_timeout":      "5s",
			"statement_timeout": "15s",
		}}
		conn, err := c.dsn.Connect(ctx, session)
		if pg.SQLState(err) == "42501" {
			// A role that may not act as a replica is a primary's, where no gate is in the way.
			session.Apply = false
			conn, err = c.dsn.Connect(ctx, session)
		}
		if err != nil {
			return err
		}
		c.conn = conn
	}
	err := f(ctx, c.conn)
	c.last = time.Now()
	if err != nil && c.conn.PgConn().TxStatus() != 'I' {
		c.closeLocked()
	}
	return err
}

// rest closes the session when it has not been used for a while.
func (c *control) rest() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != nil && time.Since(c.last) > controlIdle {
		c.closeLocked()
	}
}

func (c *control) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closeLocked()
}

func (c *control) closeLocked() {
	if c.conn == nil {
		return
	}
	ctx, stop := context.WithTimeout(context.Background(), time.Second)
	defer stop()
	c.conn.Close(ctx)
	c.conn = nil
}
