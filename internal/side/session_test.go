package side

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/pgtest"
	"github.com/twinspan/twinspan/internal/problem"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// A session that ended while nobody used it is no reason for anything to fail.
func TestASessionThatEndedIsReplaced(t *testing.T) {
	server := pgtest.Shared(t)
	dsn, err := pg.ParseDSN(server.DSN(server.Database(t)))
	if err != nil {
		t.Fatal(err)
	}
	c := &Session{DSN: dsn, Name: "test"}
	t.Cleanup(c.Close)
	pid := func() (pid uint32) {
		if err := c.Do(t.Context(), func(ctx context.Context, conn *pgx.Conn) error {
			return conn.QueryRow(ctx, `SELECT pg_backend_pid()`).Scan(&pid)
		}); err != nil {
			t.Fatal(err)
		}
		return pid
	}
	first := pid()
	if again := pid(); again != first {
		t.Errorf("session %d follows session %d", again, first)
	}
	conn := pgtest.Conn(t, server.DSN("postgres"))
	if _, err := conn.Exec(t.Context(), `SELECT pg_terminate_backend($1, 10000)`, first); err != nil {
		t.Fatal(err)
	}
	c.last = time.Now().Add(-2 * sessionTrust)
	if second := pid(); second == first {
		t.Error("the session was not ended")
	}
}

// Behind its end nothing is done in a session, for what it would read may be somebody else's.
func TestSessionIsOver(t *testing.T) {
	server := pgtest.Shared(t)
	dsn, err := pg.ParseDSN(server.DSN(server.Database(t)))
	if err != nil {
		t.Fatal(err)
	}
	c := &Session{DSN: dsn, Name: "over"}
	did := 0
	look := func(ctx context.Context, conn *pgx.Conn) error { did++; return nil }
	if err := c.End(func() error { return errors.New("not yet") }); err == nil || c.Do(t.Context(), look) != nil || did != 1 {
		t.Fatalf("an end that failed: %v, %d calls", err, did)
	}
	if err := c.Last(t.Context(), look); err != nil || did != 2 {
		t.Fatalf("the last call: %v, %d calls", err, did)
	}
	if err := c.Do(t.Context(), look); problem.CodeOf(err) != "link_unknown" || did != 2 {
		t.Errorf("a call behind the end: %v, %d calls", err, did)
	}
}
