package link

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/pgtest"
	"github.com/twinspan/twinspan/internal/side"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// The owner of the database may read the link's tables, and keeps nobody from dropping them with that. Who is in nobody's way
// stays.
func TestReadersDoNotKeepALinkFromBeingRemoved(t *testing.T) {
	server := pgtest.Shared(t)
	d, err := pg.ParseDSN(server.DSN(server.Database(t)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), 2*time.Minute)
	defer stop()
	open := func(name string) *pgx.Conn {
		conn, err := d.Connect(ctx, pg.Session{Name: name})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close(context.Background()) })
		return conn
	}
	do := func(conn *pgx.Conn, sql string) {
		t.Helper()
		if _, err := conn.Exec(ctx, sql); err != nil {
			t.Fatal(err)
		}
	}
	agent := open("sales/delete")
	if err := catalog.Install(ctx, agent); err != nil {
		t.Fatal(err)
	}
	reader, beside := open("x"), open("x")
	do(reader, `SET application_name = psql; BEGIN; LOCK TABLE twinspan.link IN ACCESS SHARE MODE`)
	do(beside, `SET application_name = psql; BEGIN; SELECT FROM pg_class`)
	dropped := make(chan error, 1)
	go func() { dropped <- catalog.Remove(ctx, agent) }()
	l := New(Place{Server: d, Log: slog.New(slog.DiscardHandler)}, d.Database(), catalog.Link{Name: "sales"})
	pgtest.Eventually(t, time.Minute, func() error {
		if err := l.endReadersNow(ctx); err != nil {
			return err
		}
		_, err := reader.Exec(ctx, `SELECT 1`)
		if err == nil {
			return side.ErrChanged
		}
		return nil
	})
	do(beside, `COMMIT`)
	if err := <-dropped; err != nil {
		t.Error(err)
	}
}
