package pg_test

import (
	"strings"
	"testing"

	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/pgtest"
	"github.com/twinspan/twinspan/internal/problem"
)

// Whoever gives up waiting for a lock says who has it: a session, or a prepared transaction.
func TestWaitsForLocksAreNamed(t *testing.T) {
	t.Parallel()
	s := pgtest.Shared(t)
	dsn := s.DSN(s.Database(t))
	pgtest.Exec(t, dsn, `CREATE TABLE t (i int)`)
	conn := connect(t, dsn, pg.Session{Name: "test", Settings: map[string]string{"lock_timeout": "1s"}})
	wait := func() *problem.Error {
		_, err := conn.Exec(t.Context(), `TRUNCATE public.t`)
		return problem.As(pg.Classify(err, "empty it"))
	}
	other := pgtest.Conn(t, dsn)
	if _, err := other.Exec(t.Context(), `BEGIN; INSERT INTO t VALUES (1)`); err != nil {
		t.Fatal(err)
	}
	p := wait()
	for _, want := range []string{"server process ", "role ", "RowExclusiveLock", "since "} {
		if !strings.Contains(p.Error(), want) || !strings.Contains(p.Hint, "pg_terminate_backend") {
			t.Errorf("behind a session: %v, hint %q: no %q", p, p.Hint, want)
		}
	}
	if _, err := other.Exec(t.Context(), `PREPARE TRANSACTION 'kept'`); err != nil {
		t.Fatal(err)
	}
	if p := wait(); p.Code != "lock_not_available" || !strings.Contains(p.Error(), `prepared transaction "kept"`) || !strings.Contains(p.Hint, "ROLLBACK PREPARED") {
		t.Errorf("behind a prepared transaction: %v, hint %q", p, p.Hint)
	}
	pgtest.Exec(t, dsn, `ROLLBACK PREPARED 'kept'`)
	if p := wait(); p != nil {
		t.Errorf("with nobody in the way: %v", p)
	}

	// A transaction of a session that would wait long waits for less.
	conn = connect(t, dsn, pg.Session{Name: "test", Settings: map[string]string{"lock_timeout": "60s"}})
	if _, err := other.Exec(t.Context(), `BEGIN; INSERT INTO t VALUES (1)`); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), `BEGIN; SET LOCAL lock_timeout = '3s'`); err != nil {
		t.Fatal(err)
	}
	if p := wait(); !strings.Contains(p.Error(), "server process ") {
		t.Errorf("in a transaction that waits for less: %v", p)
	}
}
