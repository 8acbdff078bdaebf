package verify

import (
	"context"
	"testing"
	"time"

	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// snapshot opens a side over a database as it is now.
func snapshot(t *testing.T, dsn string) *Snapshot {
	t.Helper()
	conn := pgtest.Conn(t, dsn)
	var id string
	if _, err := conn.Exec(t.Context(), `BEGIN ISOLATION LEVEL REPEATABLE READ`); err != nil {
		t.Fatal(err)
	}
	if err := conn.QueryRow(t.Context(), `SELECT pg_export_snapshot()`).Scan(&id); err != nil {
		t.Fatal(err)
	}
	parsed, err := pg.ParseDSN(dsn)
	if err != nil {
		t.Fatal(err)
	}
	s := &Snapshot{DSN: parsed, Link: "test", ID: id, Workers: 2, LockTimeout: time.Second}
	t.Cleanup(func() { s.Close(context.Background()) })
	return s
}

// two makes two databases from the same statements.
func two(t *testing.T, sql ...string) (a, b string) {
	t.Helper()
	server := pgtest.Shared(t)
	a, b = server.DSN(server.Database(t)), server.DSN(server.Database(t))
	pgtest.Exec(t, a, sql...)
	pgtest.Exec(t, b, sql...)
	return a, b
}

// compare compares two databases as they are now, twice.
func compare(t *testing.T, a, b string, c Comparison) *Findings {
	t.Helper()
	if c.Most == 0 {
		c.Most = 100
	}
	c.Schema, c.Reader = true, rereader(t, b)
	f, err := c.Compare(t.Context(), snapshot(t, a), snapshot(t, b))
	if err == nil {
		err = c.Confirm(t.Context(), snapshot(t, a), snapshot(t, b), f)
	}
	if err != nil {
		t.Fatal(err)
	}
	return f
}
