package side

import (
	"context"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
)

// Session is a session that a link keeps for its record and for looking around. It is opened
// when needed, closed when it broke or was idle for long.
type Session struct {
	DSN     *pg.DSN
	Name    string // of the link
	Purpose string // of the session, "control" when empty

	mu   sync.Mutex
	conn *pgx.Conn
	last time.Time
	over bool // End has succeeded
}

// SessionTimeout bounds everything done in a session: its statements
// are small, and a server that hangs must not hang the link's supervisor.
const SessionTimeout = 15 * time.Second

// sessionIdle is how long an unused control session is kept.
const sessionIdle = time.Minute

// sessionTrust is how long a session that was used is taken for one that can be: behind
// it, the server is asked first, for it may have been restarted meanwhile, and what f
// was doing when it finds out cannot be repeated blindly.
const sessionTrust = 100 * time.Millisecond

// Do runs f with the session, a new one when that of before is gone. Only one f runs at
// a time.
func (c *Session) Do(ctx context.Context, f func(ctx context.Context, conn *pgx.Conn) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.doLocked(ctx, f)
}

// Last is Do with an f behind which the session is at its end, as End says.
func (c *Session) Last(ctx context.Context, f func(ctx context.Context, conn *pgx.Conn) error) error {
	return c.End(func() error { return c.doLocked(ctx, f) })
}

// End runs f while nothing is done in the session. Where it succeeds the session is at its end, and Do fails
// (link_unknown): once the schema twinspan is gone, the database's owner can make one, and what it held would be his.
func (c *Session) End(f func() error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := f(); err != nil {
		return err
	}
	c.over = true
	c.closeLocked()
	return nil
}

func (c *Session) doLocked(ctx context.Context, f func(ctx context.Context, conn *pgx.Conn) error) error {
	if c.over {
		return problem.New(problem.NotFound, "link_unknown", "the link %s was removed", c.Name).On(c.Name)
	}
	ctx, stop := context.WithTimeout(ctx, SessionTimeout)
	defer stop()
	if c.conn != nil && time.Since(c.last) > sessionTrust && c.conn.Ping(ctx) != nil {
		c.closeLocked()
	}
	if c.conn == nil || c.conn.IsClosed() {
		purpose := c.Purpose
		if purpose == "" {
			purpose = "control"
		}
		session := pg.Session{Name: c.Name + "/" + purpose, Apply: true, Unseen: true, Settings: map[string]string{
			"lock_timeout":      "5s",
			"statement_timeout": "15s",
		}}
		conn, err := c.DSN.Connect(ctx, session)
		if pg.SQLState(err) == "42501" {
			// A role that may not act as a replica is a primary's, where no gate is in the way.
			session.Apply = false
			conn, err = c.DSN.Connect(ctx, session)
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

// Rest closes the session when it has not been used for a while.
func (c *Session) Rest() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != nil && time.Since(c.last) > sessionIdle {
		c.closeLocked()
	}
}

// Close closes the session; Do opens another.
func (c *Session) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closeLocked()
}

func (c *Session) closeLocked() {
	if c.conn == nil {
		return
	}
	ctx, stop := context.WithTimeout(context.Background(), time.Second)
	defer stop()
	c.conn.Close(ctx)
	c.conn = nil
}
