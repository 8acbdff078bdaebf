package pgtest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/sqlname"
)

// databases numbers the databases of the test binary.
var databases atomic.Int64

// Database makes a database for the test, named after it and owned by AppRole, and returns its name.
// It is dropped with the test, with whatever sessions and slots it still has.
func (s *Server) Database(t testing.TB) string {
	t.Helper()
	name := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		case r >= 'A' && r <= 'Z':
			return r - 'A' + 'a'
		}
		return '_'
	}, t.Name())
	name = fmt.Sprintf("%.40s_%d", name, databases.Add(1))
	s.createDatabase(t, name, " TEMPLATE template0")
	t.Cleanup(func() { s.drop(t, name) })
	return name
}

// drop drops a database. The server may be down by now, and then goes with it.
func (s *Server) drop(t testing.TB, name string) {
	ctx, stop := context.WithTimeout(context.Background(), patience)
	defer stop()
	conn, err := connect(ctx, s.DSN("postgres"))
	if err != nil {
		return
	}
	defer conn.Close(ctx)
	force := ""
	if s.Major >= 13 {
		force = " WITH (FORCE)"
	}
	Eventually(t, patience, func() error {
		// Slots keep a database from being dropped, and a session keeps a slot.
		for _, sql := range []string{
			"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = " + sqlname.Literal(name),
			"SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE NOT active AND database = " + sqlname.Literal(name),
			"DROP DATABASE IF EXISTS " + sqlname.Quote(name) + force,
		} {
			if _, err := conn.Exec(ctx, sql); err != nil {
				return err
			}
		}
		return nil
	})
}

// Conn opens a session that ends with the test.
func Conn(t testing.TB, dsn string) *pgx.Conn {
	t.Helper()
	ctx, stop := context.WithTimeout(context.Background(), patience)
	defer stop()
	conn, err := connect(ctx, dsn)
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

// Exec runs each text, which may hold several statements, in one session.
func Exec(t testing.TB, dsn string, sql ...string) {
	t.Helper()
	conn := Conn(t, dsn)
	defer conn.Close(context.Background())
	for _, text := range sql {
		if _, err := conn.PgConn().Exec(context.Background(), text).ReadAll(); err != nil {
			t.Fatalf("%v\nin: %s", err, shorten(text, 2000))
		}
	}
}

// Query runs a query and returns its rows as PostgreSQL's text; NULL is "NULL".
func Query(t testing.TB, dsn, sql string, args ...any) [][]string {
	t.Helper()
	conn := Conn(t, dsn)
	defer conn.Close(context.Background())
	result, err := texts(context.Background(), conn, sql, args...)
	if err != nil {
		t.Fatalf("%v\nin: %s", err, shorten(sql, 2000))
	}
	return result
}

// Try is Query for what may fail.
func Try(ctx context.Context, dsn, sql string, args ...any) ([][]string, error) {
	conn, err := connect(ctx, dsn)
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.Background())
	return texts(ctx, conn, sql, args...)
}

// connect opens a session of this package's, over the server's socket where it can.
func connect(ctx context.Context, dsn string) (*pgx.Conn, error) {
	if near := overSocket(dsn); near != "" {
		// A test may have closed the socket's way; why there is none is said by the other.
		if conn, err := open(ctx, near); err == nil {
			return conn, nil
		}
	}
	return open(ctx, dsn)
}

func open(ctx context.Context, dsn string) (*pgx.Conn, error) {
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, err
	}
	settle(config)
	config.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
	return pgx.ConnectConfig(ctx, config)
}

func texts(ctx context.Context, conn *pgx.Conn, sql string, args ...any) ([][]string, error) {
	rows, err := conn.Query(ctx, sql, append([]any{pgx.QueryExecModeSimpleProtocol}, args...)...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var result [][]string
	for rows.Next() {
		row := make([]string, len(rows.RawValues()))
		for i, v := range rows.RawValues() {
			row[i] = "NULL"
			if v != nil {
				row[i] = string(v)
			}
		}
		result = append(result, row)
	}
	return result, rows.Err()
}

// Table returns all rows of a table (a name as in SQL) as text, sorted, a line
// for each.
func Table(t testing.TB, dsn, table string) string {
	t.Helper()
	var b strings.Builder
	for _, row := range Query(t, dsn, `SELECT r::text FROM `+table+` AS r ORDER BY r::text COLLATE "C"`) {
		b.WriteString(row[0] + "\n")
	}
	return b.String()
}

// Eventually calls check until it returns nil; the test fails with its last
// error when it does not within the timeout.
func Eventually(t testing.TB, timeout time.Duration, check func() error) {
	t.Helper()
	if err := waitFor(timeout, check); err != nil {
		t.Fatalf("still not so after %v: %v", timeout, err)
	}
}

func shorten(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return s[:most] + "..."
}

// CreateDatabase creates a database of a given name, which AppRole owns. It lives as long
// as the server, which should be the test's own.
func (s *Server) CreateDatabase(t testing.TB, name string) {
	t.Helper()
	s.createDatabase(t, name, "")
}

func (s *Server) createDatabase(t testing.TB, name, template string) {
	t.Helper()
	conn := Conn(t, s.DSN("postgres"))
	defer conn.Close(context.Background())
	if s.Major >= 15 {
		template += " STRATEGY file_copy" // half the time where nothing is synced
	}
	if _, err := conn.Exec(t.Context(), "CREATE DATABASE "+sqlname.Quote(name)+template+" OWNER "+AppRole); err != nil {
		t.Fatal(err)
	}
	if err := s.drawn.setDatabase(t.Context(), conn, name); err != nil {
		t.Fatal(err)
	}
}

// DiffError is Diff for Eventually: nil when the two databases are equal.
func DiffError(dsnA, dsnB string) error {
	diff, err := Diff(context.Background(), dsnA, dsnB)
	if err == nil && diff != "" {
		err = errors.New(diff)
	}
	return err
}
