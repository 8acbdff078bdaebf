package pg_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

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
	// named tries until a wait says who is in the way: on a busy machine it may be looked too late.
	named := func(begin string, says ...string) {
		t.Helper()
		pgtest.Eventually(t, testPatience, func() error {
			if begin != "" {
				exec(t, conn, begin)
				defer func() { exec(t, conn, `ROLLBACK`) }()
			}
			p := wait()
			if p == nil {
				t.Fatal("it did not wait")
			}
			for _, want := range says {
				if !strings.Contains(p.Code+" "+p.Error()+" "+p.Hint, want) {
					return fmt.Errorf("%v, hint %q: no %q", p, p.Hint, want)
				}
			}
			return nil
		})
	}
	other := pgtest.Conn(t, dsn)
	if _, err := other.Exec(t.Context(), `BEGIN; INSERT INTO t VALUES (1)`); err != nil {
		t.Fatal(err)
	}
	named("", "server process ", "role ", "RowExclusiveLock", "since ", "pg_terminate_backend")
	if _, err := other.Exec(t.Context(), `PREPARE TRANSACTION 'kept'`); err != nil {
		t.Fatal(err)
	}
	named("", "lock_not_available", `prepared transaction "kept"`, "ROLLBACK PREPARED")
	pgtest.Exec(t, dsn, `ROLLBACK PREPARED 'kept'`)
	if p := wait(); p != nil {
		t.Errorf("with nobody in the way: %v", p)
	}

	// A transaction of a session that would wait long waits for less.
	conn = connect(t, dsn, pg.Session{Name: "test", Settings: map[string]string{"lock_timeout": "60s"}})
	if _, err := other.Exec(t.Context(), `BEGIN; INSERT INTO t VALUES (1)`); err != nil {
		t.Fatal(err)
	}
	named(`BEGIN; SET LOCAL lock_timeout = '3s'`, "server process ")
}

// Who has locked a catalog keeps every new session away, and is named.
func TestWhoHasLockedACatalogIsNamed(t *testing.T) {
	t.Parallel()
	s := pgtest.Shared(t)
	dsn := s.DSN(s.Database(t))
	d, err := pg.ParseDSN(dsn)
	if err != nil {
		t.Fatal(err)
	}
	other := pgtest.Conn(t, dsn)
	if _, err := other.Exec(t.Context(), `BEGIN; LOCK TABLE pg_class IN ACCESS EXCLUSIVE MODE`); err != nil {
		t.Fatal(err)
	}
	pid := fmt.Sprintf("server process %d (role ", other.PgConn().PID())
	connect := map[string]func(context.Context) error{
		"a session": func(ctx context.Context) error {
			_, err := d.Connect(ctx, pg.Session{Name: "test"})
			return err
		},
		"a replication session": func(ctx context.Context) error {
			_, err := d.ConnectReplication(ctx, pg.Session{Name: "test"})
			return err
		},
	}
	for what, connect := range connect {
		// On a busy machine the server may take longer to answer, and so may the look.
		pgtest.Eventually(t, testPatience, func() error {
			ctx, stop := context.WithTimeout(t.Context(), 2*time.Second)
			defer stop()
			p := problem.As(connect(ctx))
			if p == nil {
				t.Fatalf("%s began", what)
			}
			if p.Code != "lock_not_available" || !strings.Contains(p.Error(), pid) || !strings.Contains(p.Error(), "AccessExclusiveLock") {
				return fmt.Errorf("%s: %v", what, p)
			}
			return nil
		})
	}
}
