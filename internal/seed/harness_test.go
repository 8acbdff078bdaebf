package seed_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/instance"
	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/pgtest"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/schema"
	"github.com/twinspan/twinspan/internal/seed"
	"github.com/twinspan/twinspan/internal/sqlname"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// lockPatience bounds waiting for a wait.
const lockPatience = time.Minute

const linkID = "11111111-2222-3333-4444-555555555555"

// twin is two databases, the second of which becomes a copy of the first.
type twin struct {
	t      testing.TB
	from   string // connection strings
	to     string
	source *seed.Source
	target *seed.Target
	schema *schema.Target
	tap    *tap
	seen   map[lsn.LSN]contents
}

func parse(t testing.TB, dsn string) *pg.DSN {
	t.Helper()
	d, err := pg.ParseDSN(dsn)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// newTwin prepares both sides. Tables are cut into chunks of 256 kB.
func newTwin(t testing.TB, from, to string) *twin {
	t.Helper()
	install(t, to)
	log := slog.New(slog.DiscardHandler)
	w := &twin{t: t, from: from, to: to}
	w.source = &seed.Source{DSN: parse(t, from), Name: "sales", Slot: fmt.Sprintf("slot_%d", time.Now().UnixNano()), Log: log}
	t.Cleanup(w.source.Close)
	w.tap = &tap{Remote: w.source}
	w.schema = &schema.Target{DSN: parse(t, to), Link: linkID, Name: "sales", Log: log}
	w.target = &seed.Target{
		DSN: parse(t, to), Link: linkID, Name: "sales", Remote: w.tap, Log: log, ChunkBytes: 256 << 10,
		Prepare: func(ctx context.Context, token string) error {
			_, err := w.schema.Prepare(ctx, func(ctx context.Context) (*schema.Dump, error) {
				session, err := w.source.Session(token)
				if err != nil {
					return nil, err
				}
				return (&schema.Source{DSN: parse(t, from), Name: "sales", Find: instance.FindClient, Dir: t.TempDir()}).Dump(ctx, session.Snapshot)
			})
			return err
		},
		Identity: func(ctx context.Context, tables []sqlname.Table) error { return w.schema.BuildIdentity(ctx, tables) },
	}
	return w
}

func install(t testing.TB, dsn string) {
	t.Helper()
	conn, err := parse(t, dsn).Connect(t.Context(), pg.Session{Name: "test"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if err := catalog.Install(t.Context(), conn); err != nil {
		t.Fatal(err)
	}
	err = catalog.Insert(t.Context(), conn, &catalog.Link{ID: linkID, Name: "sales", Agent: linkID, PeerAgent: linkID, Role: "secondary", Phase: "seeding", Mode: "async"})
	if err != nil {
		t.Fatal(err)
	}
}

// sharedTwin is a twin of two databases on the shared server.
func sharedTwin(t testing.TB, sql ...string) *twin {
	t.Helper()
	s := pgtest.Shared(t)
	from, to := s.DSN(s.Database(t)), s.DSN(s.Database(t))
	pgtest.Exec(t, from, sql...)
	return newTwin(t, from, to)
}

func (w *twin) copy() seed.Result {
	w.t.Helper()
	r, err := w.target.Copy(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

// until copies again as long as the problem asks for it.
func (w *twin) until() seed.Result {
	w.t.Helper()
	var result seed.Result
	pgtest.Eventually(w.t, 2*time.Minute, func() error {
		r, err := w.target.Copy(w.t.Context())
		if err != nil && !problem.Retry(err) {
			w.t.Fatal(err)
		}
		result = r
		return err
	})
	return result
}

// lose ends the session that holds the snapshot, as a crash would, and returns when it
// is gone and the source knows: until then, others can still take the snapshot. Nothing
// may begin a session meanwhile.
func (w *twin) lose() {
	w.t.Helper()
	pgtest.Exec(w.t, w.from, "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE application_name = 'twinspan/sales/snapshot' AND datname = current_database()")
	if n := len(w.tap.begun); n > 0 {
		if session, err := w.source.Session(w.tap.begun[n-1].Token); err == nil {
			<-session.Done()
		}
	}
}

// at opens a session that sees the source as the newest seeding session does.
func (w *twin) at(token string) *pgx.Conn {
	w.t.Helper()
	session, err := w.source.Session(token)
	if err != nil {
		w.t.Fatal(err)
	}
	conn := pgtest.Conn(w.t, w.from)
	for _, sql := range []string{"BEGIN ISOLATION LEVEL REPEATABLE READ", "SET TRANSACTION SNAPSHOT '" + session.Snapshot + "'"} {
		if _, err := conn.Exec(w.t.Context(), sql); err != nil {
			w.t.Fatal(err)
		}
	}
	return conn
}

// rowsOf reads a query's text rows into a set with counts.
func rowsOf(t testing.TB, conn *pgx.Conn, sql string) map[string]int {
	t.Helper()
	rows, err := conn.Query(t.Context(), sql)
	if err != nil {
		t.Fatal(err)
	}
	set := map[string]int{}
	var s string
	if _, err := pgx.ForEachRow(rows, []any{&s}, func() error { set[s]++; return nil }); err != nil {
		t.Fatal(err)
	}
	return set
}

// tap sees what the target asks, and can interfere.
type tap struct {
	seed.Remote
	mu       sync.Mutex
	requests []seed.CopyRequest
	begun    []seed.Begun
	onBegin  func(b seed.Begun)
	before   func(n int, r seed.CopyRequest) error                                 // may be nil
	wrap     func(n int, w io.Writer) io.Writer                                    // may be nil
	after    func(n int, r seed.CopyRequest, rows int64, err error) (int64, error) // may be nil
}

func (p *tap) Begin(ctx context.Context, r seed.BeginRequest) (seed.Begun, error) {
	b, err := p.Remote.Begin(ctx, r)
	if err == nil {
		p.mu.Lock()
		fresh := len(p.begun) == 0 || p.begun[len(p.begun)-1].Token != b.Token
		if fresh {
			p.begun = append(p.begun, b)
		}
		p.mu.Unlock()
		if fresh && p.onBegin != nil {
			p.onBegin(b)
		}
	}
	return b, err
}

func (p *tap) Copy(ctx context.Context, token string, r seed.CopyRequest, w io.Writer) (int64, error) {
	p.mu.Lock()
	p.requests = append(p.requests, r)
	n := len(p.requests)
	p.mu.Unlock()
	if p.before != nil {
		if err := p.before(n, r); err != nil {
			return 0, err
		}
	}
	if p.wrap != nil {
		w = p.wrap(n, w)
	}
	rows, err := p.Remote.Copy(ctx, token, r, w)
	if p.after != nil {
		return p.after(n, r, rows, err)
	}
	return rows, err
}

func (p *tap) reset() []seed.CopyRequest {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.requests
	p.requests = nil
	return r
}

func wantProblem(t testing.TB, err error, code, subject string, kind problem.Kind) {
	t.Helper()
	if p := problem.As(err); p == nil || p.Code != code || p.Subject != subject || p.Kind != kind {
		t.Errorf("got %+v, want %s on %s", p, code, subject)
	}
}

func session(name string) pg.Session { return pg.Session{Name: name} }
