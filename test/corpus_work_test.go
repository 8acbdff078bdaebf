package test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// bustle runs a corpus's workload in several sessions until it is stopped.
type bustle struct {
	work []part
	dsn  string

	// A session holds it for reading while it runs a part, so that who holds it
	// for writing knows that none runs.
	mu    sync.RWMutex
	done  int // the last migration that is done
	begun int // the last one that is begun

	count struct {
		sync.Mutex
		ok  map[string]int
		err error // the first that should not be
	}
	quit     context.CancelFunc // ends the sessions when they have ended their parts
	sessions sync.WaitGroup
}

func startBustle(t *testing.T, c corpus, dsn string, sessions int) *bustle {
	t.Helper()
	l := &bustle{work: c.work, dsn: dsn}
	l.count.ok = map[string]int{}
	var ctx context.Context
	ctx, l.quit = context.WithCancel(context.Background())
	abort, cancel := context.WithCancel(context.Background())
	for n := range sessions {
		conn := pgtest.Conn(t, dsn)
		random := rand.New(rand.NewPCG(1, uint64(n)))
		l.sessions.Add(1)
		go func() {
			defer l.sessions.Done()
			if err := l.session(ctx, abort, conn, random); err != nil {
				l.count.Lock()
				defer l.count.Unlock()
				l.count.err = errors.Join(l.count.err, err)
			}
		}()
	}
	// A test that has failed does not wait for parts that wait for a lock.
	t.Cleanup(func() {
		l.quit()
		cancel()
		l.sessions.Wait()
	})
	return l
}

// session runs parts until ctx is done, and gives up the one that runs when abort is.
func (l *bustle) session(ctx, abort context.Context, conn *pgx.Conn, random *rand.Rand) error {
	// In a deadlock with a migration, this side gives way.
	if _, err := conn.Exec(abort, `SET lock_timeout = '300ms'; SET deadlock_timeout = '50ms'; SET application_name = 'workload'`); err != nil {
		return err
	}
	tick := time.NewTicker(12 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := l.one(abort, conn, random); err != nil {
			return err
		}
	}
}

// one runs a part that works now.
func (l *bustle) one(ctx context.Context, conn *pgx.Conn, random *rand.Rand) error {
	l.mu.RLock()
	defer l.mu.RUnlock()
	var fit []part
	for _, p := range l.work {
		if p.works(l.done, l.begun) {
			fit = append(fit, p)
		}
	}
	p := fit[random.IntN(len(fit))]
	_, err := conn.PgConn().Exec(ctx, p.sql).ReadAll()
	if err == nil {
		l.count.Lock()
		defer l.count.Unlock()
		l.count.ok[p.name]++
		return nil
	}
	if !passing(err) {
		return fmt.Errorf("workload %s during migration %d: %w", p.name, l.begun, err)
	}
	_, err = conn.PgConn().Exec(ctx, "ROLLBACK").ReadAll()
	return err
}

func (p part) works(done, begun int) bool {
	return p.from <= done && (p.until == 0 || p.until > begun)
}

// passing reports whether an application would try again: it met a migration, or
// another session.
func passing(err error) bool {
	var e *pgconn.PgError
	if !errors.As(err, &e) {
		return false
	}
	switch e.Code {
	case "40P01", "40001", "55P03":
		return true
	case "0A000":
		return strings.Contains(e.Message, "cached plan")
	case "XX000":
		return strings.Contains(e.Message, "could not open relation") || strings.Contains(e.Message, "cache lookup failed") || strings.Contains(e.Message, "concurrently")
	}
	return false
}

// migrate applies a migration while the load goes on, but for the parts that
// work no more.
func (l *bustle) migrate(t *testing.T, m migration) error {
	t.Helper()
	l.hasRun(t, func(p part) bool { return p.until == m.number })
	l.mu.Lock()
	l.begun = m.number
	l.mu.Unlock()
	if err := m.apply(t, l.dsn); err != nil {
		return err
	}
	l.mu.Lock()
	l.done = m.number
	l.mu.Unlock()
	l.count.Lock()
	defer l.count.Unlock()
	return l.count.err
}

// hasRun waits until all parts of some have run: which one is next is drawn, and the migrations behind which one works
// may be done at once. It returns when something went wrong, too.
func (l *bustle) hasRun(t *testing.T, some func(part) bool) {
	t.Helper()
	pgtest.Eventually(t, linktest.Patience, func() error {
		l.count.Lock()
		defer l.count.Unlock()
		for _, p := range l.work {
			if some(p) && l.count.ok[p.name] == 0 && l.count.err == nil {
				return fmt.Errorf("workload %s has not run once", p.name)
			}
		}
		return nil
	})
}

// end stops the load when every part has worked.
func (l *bustle) end(t *testing.T) {
	t.Helper()
	l.hasRun(t, func(p part) bool { return true })
	l.quit()
	l.sessions.Wait()
	if l.count.err != nil {
		t.Fatal(l.count.err)
	}
}
