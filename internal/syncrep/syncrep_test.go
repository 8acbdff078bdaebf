package syncrep_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/pgtest"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/syncrep"
)

const patience = 2 * time.Minute

func testContext(t testing.TB) context.Context {
	ctx, stop := context.WithTimeout(context.Background(), 3*time.Minute)
	t.Cleanup(stop)
	return ctx
}

// server makes the synchronous replication of a link whose slot reads a database.
func server(t *testing.T, s *pgtest.Server, number int, database string) *syncrep.Server {
	t.Helper()
	dsn, err := pg.ParseDSN(s.DSN("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	slot := fmt.Sprintf("twinspan_%d", number)
	pgtest.Exec(t, s.DSN(database), `SELECT pg_create_logical_replication_slot('`+slot+`', 'pgoutput')`)
	return &syncrep.Server{DSN: dsn, Link: database, Member: syncrep.Member(slot), Database: database, Log: slog.New(slog.DiscardHandler)}
}

const (
	setting   = `SELECT setting FROM pg_settings WHERE name = 'synchronous_standby_names'`
	automatic = `SELECT count(*) FROM pg_file_settings WHERE name = 'synchronous_standby_names' AND sourcefile LIKE '%auto.conf'`
	databases = `SELECT coalesce(string_agg(datname || ':' || setconfig::text, ' ' ORDER BY datname), '') FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase`
)

func one(t *testing.T, s *pgtest.Server, sql string) string {
	t.Helper()
	return pgtest.Query(t, s.DSN("postgres"), sql)[0][0]
}

// expect compares a setting as soon as every session has it.
func expect(t *testing.T, s *pgtest.Server, sql, want string) {
	t.Helper()
	pgtest.Eventually(t, patience, func() error {
		if got := one(t, s, sql); got != want {
			return fmt.Errorf("%s: %s, want %s", sql, got, want)
		}
		return nil
	})
}

func do(t *testing.T, f func(context.Context) error) {
	t.Helper()
	if err := f(testContext(t)); err != nil {
		t.Fatalf("%v (%s)", err, problem.As(err).Hint)
	}
}

func TestRequireAndRelease(t *testing.T) {
	s := pgtest.Start(t)
	for _, name := range []string{"sales", "crm", "own", "stock"} {
		s.CreateDatabase(t, name)
	}
	pgtest.Exec(t, s.DSN("postgres"), `ALTER DATABASE own SET synchronous_commit = remote_write`)
	before := one(t, s, databases)
	sales, stock := server(t, s, 1, "sales"), server(t, s, 2, "stock")
	const spared = `{twinspan.local_commit=on,synchronous_commit=local}`
	for range 2 {
		do(t, sales.Require)
		expect(t, s, setting, `FIRST 1 ("twinspan/twinspan_1")`)
		expect(t, s, databases, `crm:`+spared+` own:{synchronous_commit=remote_write} postgres:`+spared+` stock:`+spared)
	}
	// A database that comes later is covered the next time.
	s.CreateDatabase(t, "later")
	do(t, sales.Require)
	expect(t, s, databases, `crm:`+spared+` later:`+spared+` own:{synchronous_commit=remote_write} postgres:`+spared+` stock:`+spared)
	do(t, stock.Require)
	expect(t, s, setting, `FIRST 2 ("twinspan/twinspan_2", "twinspan/twinspan_1")`)
	expect(t, s, databases, `crm:`+spared+` later:`+spared+` own:{synchronous_commit=remote_write} postgres:`+spared)
	do(t, sales.Release)
	expect(t, s, setting, `FIRST 1 ("twinspan/twinspan_2")`)
	expect(t, s, databases, `crm:`+spared+` later:`+spared+` own:{synchronous_commit=remote_write} postgres:`+spared+` sales:`+spared)
	for range 2 {
		do(t, stock.Release)
		expect(t, s, setting, ``)
		expect(t, s, databases, before)
		expect(t, s, automatic, "0")
	}
}

// held writes to database sales until a client is held, and returns where what becomes of it will
// be said: the checkpointer may take the names over later than a busy machine lets it.
func held(t *testing.T, s *pgtest.Server) <-chan error {
	t.Helper()
	var done chan error
	pgtest.Eventually(t, patience, func() error {
		if done == nil {
			result := make(chan error, 1)
			done = result
			go func() {
				_, err := pgtest.Try(testContext(t), s.DSN("sales"), `INSERT INTO t VALUES (1)`)
				result <- err
			}()
		}
		if one(t, s, `SELECT count(*)::text FROM pg_stat_activity WHERE datname = 'sales' AND wait_event = 'SyncRep'`) == "1" {
			return nil
		}
		select {
		case err := <-done: // it did not wait
			if err != nil {
				t.Fatal(err)
			}
			done = nil
		default:
		}
		return errors.New("nobody waits")
	})
	return done
}

// TestOnlyTheLinkedDatabaseWaits has no twin that would answer.
func TestOnlyTheLinkedDatabaseWaits(t *testing.T) {
	s := pgtest.Start(t)
	s.CreateDatabase(t, "sales")
	s.CreateDatabase(t, "crm")
	pgtest.Exec(t, s.DSN("sales"), `CREATE TABLE t (id int)`)
	sales := server(t, s, 1, "sales")
	do(t, sales.Require)
	pgtest.Exec(t, s.DSN("crm"), `CREATE TABLE t (id int)`, `INSERT INTO t VALUES (1)`)
	done := held(t, s)
	do(t, sales.Release)
	if err := <-done; err != nil {
		t.Error(err)
	}

	// Where the twin has become the primary, a client that waits is not told that its
	// commit is safe.
	do(t, sales.Require)
	done = held(t, s)
	conn, err := sales.DSN.Connect(testContext(t), pg.Session{Name: "test"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	do(t, func(ctx context.Context) error { return sales.EndWaiting(ctx, conn) })
	do(t, sales.Release)
	if err := <-done; err == nil {
		t.Error("the client was told that it committed")
	}
}

// The server waits for standbys of its own, none of which is there: who only looks
// must not wait.
func TestStandbysOfTheServersOwnKeepTheirPromise(t *testing.T) {
	s := pgtest.Start(t, pgtest.WithSetting("synchronous_standby_names", "s1"))
	pgtest.Exec(t, s.DSN("postgres")+"&synchronous_commit=local", `CREATE DATABASE crm`)
	link := server(t, s, 1, "postgres")
	link.Link = "sales"
	for _, c := range []struct{ own, beside, after, automatic string }{
		{"", `FIRST 2 ("twinspan/twinspan_1", "s1")`, "s1", "0"},
		{"s1, s2", "", "s1, s2", "1"},
		{"ANY 2 (s1, s2)", `FIRST 3 ("twinspan/twinspan_1", "s1", "s2")`, `FIRST 2 ("s1", "s2")`, "1"},
		{"s1", `FIRST 2 ("twinspan/twinspan_1", "s1")`, "s1", "0"},
	} {
		if c.own != "" {
			pgtest.Exec(t, s.DSN("postgres"), `ALTER SYSTEM SET synchronous_standby_names = '`+c.own+`'`, `SELECT pg_reload_conf()`)
			expect(t, s, setting, c.own)
		}
		err := link.Require(testContext(t))
		if c.beside == "" {
			if problem.CodeOf(err) != "sync_names_taken" || problem.As(err).Hint == "" {
				t.Errorf("beside %s: %v", c.own, err)
			}
		} else if err != nil {
			t.Errorf("beside %s: %v", c.own, err)
		} else {
			expect(t, s, setting, c.beside)
		}
		expect(t, s, databases, "") // who waited for s1 goes on waiting for it
		do(t, link.Release)
		expect(t, s, setting, c.after)
		expect(t, s, automatic, c.automatic)
	}
}

func TestWeakCommitsAreRefused(t *testing.T) {
	s := pgtest.Start(t)
	s.CreateDatabase(t, "sales")
	sales := server(t, s, 1, "sales")
	for _, weak := range []string{`ALTER DATABASE sales SET synchronous_commit = off`, `ALTER DATABASE sales SET synchronous_commit = remote_write`} {
		pgtest.Exec(t, s.DSN("postgres"), weak)
		err := sales.Require(testContext(t))
		if problem.CodeOf(err) != "sync_commit_weak" || problem.As(err).Hint == "" {
			t.Errorf("%s: %v", weak, err)
		}
	}
	pgtest.Exec(t, s.DSN("postgres"), `ALTER DATABASE sales RESET synchronous_commit`, `ALTER SYSTEM SET synchronous_commit = off`, `SELECT pg_reload_conf()`)
	if err := sales.Require(testContext(t)); problem.CodeOf(err) != "sync_commit_weak" {
		t.Errorf("the server's: %v", err)
	}
	pgtest.Exec(t, s.DSN("postgres"), `ALTER DATABASE sales SET synchronous_commit = on`)
	do(t, sales.Require)
	do(t, sales.Release)
	expect(t, s, databases, "sales:{synchronous_commit=on}")
}

func TestRequired(t *testing.T) {
	s := pgtest.Start(t)
	s.CreateDatabase(t, "sales")
	sales := server(t, s, 1, "sales")
	conn, err := sales.DSN.Connect(testContext(t), pg.Session{Name: "test"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	for _, want := range []bool{false, true, false} {
		if got, err := sales.Required(testContext(t), conn); err != nil || got != want {
			t.Errorf("required: %v %v, want %v", got, err, want)
		}
		if !want {
			do(t, sales.Require)
			awaitReload(t, conn, sales.Member)
		} else {
			do(t, sales.Release)
			awaitReload(t, conn, "")
		}
	}
}

// awaitReload waits until a session has read the settings anew.
func awaitReload(t *testing.T, conn *pgx.Conn, want string) {
	t.Helper()
	pgtest.Eventually(t, patience, func() error {
		var got string
		if err := conn.QueryRow(t.Context(), `SELECT current_setting('synchronous_standby_names')`).Scan(&got); err != nil {
			return err
		}
		if (got == "") != (want == "") {
			return fmt.Errorf("names are %q", got)
		}
		return nil
	})
}
