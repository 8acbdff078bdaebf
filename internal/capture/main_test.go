package capture_test

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/capture"
	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

const (
	linkID   = "0b9a4b4e-6f7e-4b7e-9f60-2f1c0e8d7a11"
	patience = 2 * time.Minute
)

func testContext(t testing.TB) context.Context {
	ctx, stop := context.WithTimeout(context.Background(), 3*time.Minute)
	t.Cleanup(stop)
	return ctx
}

func parse(t testing.TB, dsn string) *pg.DSN {
	t.Helper()
	d, err := pg.ParseDSN(dsn)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func connect(t testing.TB, dsn string) *pgx.Conn {
	t.Helper()
	conn, err := parse(t, dsn).Connect(testContext(t), pg.Session{Name: "test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func must(t testing.TB, conn *pgx.Conn, sql string) {
	t.Helper()
	if _, err := conn.Exec(testContext(t), sql); err != nil {
		t.Fatalf("%v\nin: %s", err, sql)
	}
}

// ids numbers links, for slots are of the whole server.
func idOf(n int) string { return fmt.Sprintf("%08x-6f7e-4b7e-9f60-2f1c0e8d7a11", n) }

// fresh gives a database with the schema twinspan, and a link's footing in it.
func fresh(t testing.TB, server *pgtest.Server) (dsn string, s capture.Source) {
	t.Helper()
	name := server.Database(t)
	dsn = server.DSN(name)
	if err := catalog.Install(testContext(t), connect(t, dsn)); err != nil {
		t.Fatal(err)
	}
	var n int
	_, _ = fmt.Sscanf(pgtest.Query(t, dsn, `SELECT oid FROM pg_database WHERE datname = current_database()`)[0][0], "%d", &n)
	return dsn, capture.Source{DSN: parse(t, dsn), Link: idOf(n), Name: "sales", Log: slog.New(slog.DiscardHandler)}
}

func prepare(t testing.TB, s capture.Source) {
	t.Helper()
	if err := s.Prepare(testContext(t)); err != nil {
		t.Fatal(err)
	}
}

func remove(t testing.TB, s capture.Source, last bool) {
	t.Helper()
	if err := s.Remove(testContext(t), last); err != nil {
		t.Fatal(err)
	}
}
