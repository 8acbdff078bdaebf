package link

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// A session that ended while nobody used it is no reason for anything to fail.
func TestControlOutlivesItsSession(t *testing.T) {
	server := pgtest.Shared(t)
	dsn, err := pg.ParseDSN(server.DSN(server.Database(t)))
	if err != nil {
		t.Fatal(err)
	}
	c := &control{dsn: dsn, name: "test"}
	t.Cleanup(c.close)
	pid := func() (pid uint32) {
		if err := c.do(t.Context(), func(ctx context.Context, conn *pgx.Conn) error {
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
	c.last = time.Now().Add(-2 * controlTrust)
	if second := pid(); second == first {
		t.Error("the session was not ended")
	}
}
