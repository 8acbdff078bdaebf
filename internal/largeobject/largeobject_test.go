package largeobject_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/largeobject"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

const linkID = "11111111-2222-4333-8444-555555555555"

// pair is a primary and a twin that knows a link.
type pair struct {
	from, to string // connection strings
	target   *largeobject.Target
	made     []string // roles that were missing
}

func newPair(t *testing.T) *pair {
	t.Helper()
	server := pgtest.Shared(t)
	p := &pair{from: server.DSN(server.Database(t)), to: server.DSN(server.Database(t))}
	dsn := func(s string) *pg.DSN {
		d, err := pg.ParseDSN(s)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	conn, err := dsn(p.to).Connect(t.Context(), pg.Session{Name: "test", Apply: true})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if err := catalog.Install(t.Context(), conn); err != nil {
		t.Fatal(err)
	}
	record := catalog.Link{ID: linkID, Name: "l", Agent: linkID, Peer: "p", PeerAgent: linkID, PeerDatabase: "d", Role: "secondary", Phase: "seeding", Epoch: 1, Mode: "async"}
	if err := catalog.Insert(t.Context(), conn, &record); err != nil {
		t.Fatal(err)
	}
	p.target = &largeobject.Target{DSN: dsn(p.to), Link: linkID, Name: "l", Remote: &largeobject.Source{DSN: dsn(p.from), Name: "l"}, Log: slog.New(slog.DiscardHandler),
		Roles: func(_ context.Context, made []string) error { p.made = append(p.made, made...); return nil }}
	return p
}

func (p *pair) pass(t *testing.T, force bool) largeobject.Result {
	t.Helper()
	r, err := p.target.Pass(t.Context(), force)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// everything lists all objects with owner, grants and comment, and all pages.
func everything(t *testing.T, dsn string) []string {
	t.Helper()
	var lines []string
	for _, sql := range []string{
		`SELECT m.oid, pg_get_userbyid(lomowner), (SELECT string_agg(x, ',' ORDER BY x) FROM (SELECT unnest(coalesce(lomacl, acldefault('L', lomowner)))::text AS x) y),
			obj_description(m.oid, 'pg_largeobject') FROM pg_largeobject_metadata m ORDER BY 1`,
		`SELECT loid, pageno, length(data), md5(data) FROM pg_largeobject ORDER BY 1, 2`,
	} {
		for _, row := range pgtest.Query(t, dsn, sql) {
			lines = append(lines, strings.Join(row, " "))
		}
	}
	return lines
}

func (p *pair) equal(t *testing.T) {
	t.Helper()
	a, b := everything(t, p.from), everything(t, p.to)
	for i := range max(len(a), len(b)) {
		if i >= len(a) || i >= len(b) || a[i] != b[i] {
			t.Fatalf("%d and %d lines; the first that differs:\n- %s\n+ %s", len(a), len(b), at(a, i), at(b, i))
		}
	}
}

func at(lines []string, i int) string {
	if i < len(lines) {
		return lines[i]
	}
	return "nothing"
}

// bytes returns an SQL expression of so many bytes that no compression helps.
func bytes(n int) string {
	return fmt.Sprintf(`substr((SELECT string_agg(sha512(i::text::bytea), '') FROM generate_series(0, %d / 64) i), 1, %[1]d)`, n)
}

func TestEveryChangeIsFound(t *testing.T) {
	p := newPair(t)
	pgtest.Exec(t, p.from, `CREATE ROLE "Lo ""Owner"""`, `CREATE ROLE lo_reader`, `CREATE ROLE lo_chain`)
	t.Cleanup(func() {
		for _, dsn := range []string{p.from, p.to} {
			pgtest.Exec(t, dsn, `SELECT lo_unlink(oid) FROM pg_largeobject_metadata`)
		}
		pgtest.Exec(t, p.from, `DROP ROLE "Lo ""Owner""", lo_reader, lo_chain`)
	})
	for i, size := range []int{0, 1, 2047, 2048, 2049, 4096, 100_000, 3_000_000} {
		pgtest.Exec(t, p.from, fmt.Sprintf(`SELECT lo_from_bytea(%d, %s)`, 1000+i, bytes(size)))
	}
	pgtest.Exec(t, p.from,
		`SELECT lo_create(2000), lo_put(2000, 10000000, 'far')`, // holes
		`SELECT lo_create(4294967295)`, `SELECT lo_create(1), lo_put(1, 0, 'x')`,
		`ALTER LARGE OBJECT 1001 OWNER TO "Lo ""Owner"""`, `GRANT SELECT ON LARGE OBJECT 1001 TO lo_reader, PUBLIC`,
		`GRANT UPDATE ON LARGE OBJECT 1002 TO lo_chain WITH GRANT OPTION; SET ROLE lo_chain; GRANT UPDATE ON LARGE OBJECT 1002 TO lo_reader; RESET ROLE`,
		`REVOKE ALL ON LARGE OBJECT 1003 FROM postgres`, `COMMENT ON LARGE OBJECT 1004 IS E'it''s\n"commented" \\ é'`, `COMMENT ON LARGE OBJECT 1005 IS 'x'`)
	if r := p.pass(t, false); r.Copied != 11 {
		t.Errorf("the first pass did %+v", r)
	}
	p.equal(t)

	for _, change := range []struct {
		what            string
		copied, removed int64
		sql             []string
	}{
		{"nothing", 0, 0, nil},
		{"a byte", 1, 0, []string{`SELECT lo_put(1007, 1234567, 'y')`}},
		{"appended", 1, 0, []string{`SELECT lo_put(1003, 2048, 'tail')`}},
		{"cut off within a page", 1, 0, []string{`SELECT lo_truncate(lo_open(1006, x'60000'::int), 50000)`}},
		{"cut off at a page", 1, 0, []string{`SELECT lo_truncate(lo_open(1005, x'60000'::int), 2048)`}},
		{"cut off to nothing", 1, 0, []string{`SELECT lo_truncate(lo_open(1004, x'60000'::int), 0)`}},
		{"made longer by cutting", 1, 0, []string{`SELECT lo_truncate64(lo_open(1000, x'60000'::int), 9000)`}},
		{"cut in a hole", 1, 0, []string{`SELECT lo_truncate64(lo_open(2000, x'60000'::int), 5000)`}},
		{"removed", 0, 2, []string{`SELECT lo_unlink(1001)`, `SELECT lo_unlink(4294967295)`}},
		{"made again, empty", 1, 0, []string{`SELECT lo_unlink(1007)`, `SELECT lo_create(1007)`}},
		{"made again, shorter", 1, 0, []string{`BEGIN; SELECT lo_unlink(1006), lo_from_bytea(1006, 'short'); COMMIT`}},
		{"another owner", 1, 0, []string{`ALTER LARGE OBJECT 1006 OWNER TO lo_reader`}},
		{"other rights", 1, 0, []string{`REVOKE UPDATE ON LARGE OBJECT 1002 FROM lo_chain CASCADE`}},
		{"another comment", 1, 0, []string{`COMMENT ON LARGE OBJECT 1002 IS 'now'`}},
		{"a comment less", 1, 0, []string{`COMMENT ON LARGE OBJECT 1005 IS NULL`}},
		{"many new ones", 700, 0, []string{`SELECT lo_from_bytea(i, 'n' || i::text::bytea) FROM generate_series(5000, 5699) i`}},
		{"many removed", 0, 700, []string{`SELECT lo_unlink(i) FROM generate_series(5000, 5699) i`}},
	} {
		pgtest.Exec(t, p.from, change.sql...)
		if r := p.pass(t, true); r.Copied != change.copied || r.Removed != change.removed {
			t.Errorf("%s: the pass did %+v", change.what, r)
		}
		p.equal(t)
	}

	// What is still open when a pass begins is brought by the next.
	open := pgtest.Conn(t, p.from)
	if _, err := open.Exec(t.Context(), `BEGIN; SELECT lo_put(1002, 0, 'open')`); err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, p.from, `SELECT lo_put(1003, 0, 'done')`)
	p.pass(t, true)
	if _, err := open.Exec(t.Context(), `COMMIT`); err != nil {
		t.Fatal(err)
	}
	p.pass(t, true)
	p.equal(t)

	// What was done to the twin is undone.
	pgtest.Exec(t, p.to, `SELECT lo_unlink(1003)`, `SELECT lo_create(777)`)
	p.pass(t, true)
	p.equal(t)
}

// A pass that nobody forces trusts what the server counts, and looks when it moved.
func TestPassesAreCheapWhileNothingChanges(t *testing.T) {
	p := newPair(t)
	pgtest.Exec(t, p.from, `SELECT lo_from_bytea(0, 'x') FROM generate_series(1, 50)`)
	p.pass(t, false)
	looks := &watched{Remote: p.target.Remote}
	p.target.Remote = looks
	pgtest.Eventually(t, time.Minute, func() error {
		before := looks.lists.Load()
		p.pass(t, false)
		if looks.lists.Load() != before {
			return errors.New("a pass looked at the objects although nothing changed")
		}
		return nil
	})
	pgtest.Exec(t, p.from, `SELECT lo_from_bytea(0, 'y')`)
	pgtest.Eventually(t, time.Minute, func() error {
		if r := p.pass(t, false); r.Copied != 1 {
			return fmt.Errorf("the pass did %+v", r)
		}
		return nil
	})
	p.equal(t)
}

// watched counts and can fail.
type watched struct {
	largeobject.Remote
	lists  atomic.Int64
	copies atomic.Int64
	fail   func(n int64) bool
}

func (w *watched) List(ctx context.Context, r largeobject.ListRequest) ([]largeobject.Entry, error) {
	w.lists.Add(1)
	return w.Remote.List(ctx, r)
}

var errCut = errors.New("cut")

func (w *watched) Copy(ctx context.Context, oids []uint32, out io.Writer) (int64, error) {
	n := w.copies.Add(1)
	if w.fail == nil || !w.fail(n) {
		return w.Remote.Copy(ctx, oids, out)
	}
	cut := &cutter{w: out, left: 100_000}
	rows, err := w.Remote.Copy(ctx, oids, cut)
	if err == nil {
		err = errCut
	}
	return rows, err
}

type cutter struct {
	w    io.Writer
	left int
}

func (c *cutter) Write(b []byte) (int, error) {
	if c.left -= len(b); c.left < 0 {
		return 0, errCut
	}
	return c.w.Write(b)
}

// A copy that is cut again and again is whole in the end, and what was copied is
// not copied again.
func TestInterruptedPassesGoOn(t *testing.T) {
	p := newPair(t)
	pgtest.Exec(t, p.from, `SELECT lo_from_bytea(0, `+bytes(300)+`) FROM generate_series(1, 7000)`,
		`SELECT lo_from_bytea(0, `+bytes(900_000)+`) FROM generate_series(1, 60)`)
	remote := &watched{Remote: p.target.Remote, fail: func(n int64) bool { return n%3 == 0 }}
	p.target.Remote = remote
	p.target.Workers = 2
	var copied []int64
	for range 100 {
		_, err := p.target.Pass(t.Context(), true)
		copied = append(copied, int64(len(pgtest.Query(t, p.to, `SELECT FROM pg_largeobject_metadata`))))
		if err == nil {
			break
		}
		if !errors.Is(err, errCut) {
			t.Fatal(err)
		}
	}
	if !slices.IsSorted(copied) || len(copied) < 3 || copied[len(copied)-1] != 7060 {
		t.Errorf("objects on the twin after each try: %v", copied)
	}
	p.equal(t)
	if left := pgtest.Query(t, p.to, `SELECT count(*) FROM twinspan.large_object_range`)[0][0]; left != "0" {
		t.Errorf("%s ranges are left", left)
	}
}

// Random changes in random transactions with passes in between end equal.
func TestRandomChangesEndEqual(t *testing.T) {
	p := newPair(t)
	seed := pgtest.Seed()
	t.Logf("%s=%d", pgtest.SeedEnv, seed)
	r := rand.New(rand.NewPCG(seed, 1))
	for range 12 {
		for range 30 {
			oid := 20_000 + r.IntN(30)
			try(t, p.from, []string{
				fmt.Sprintf(`SELECT lo_create(%d)`, oid), fmt.Sprintf(`SELECT lo_unlink(%d)`, oid),
				fmt.Sprintf(`SELECT lo_put(%d, %d, %s)`, oid, r.IntN(9000), bytes(r.IntN(5000))),
				fmt.Sprintf(`SELECT lo_truncate(lo_open(%d, x'60000'::int), %d)`, oid, r.IntN(9000)),
				fmt.Sprintf(`COMMENT ON LARGE OBJECT %d IS '%d'`, oid, oid),
			}[r.IntN(5)])
		}
		p.pass(t, r.IntN(2) == 0)
	}
	p.pass(t, true)
	p.equal(t)
}

// try runs a statement that may fail, for the object may be there or not.
func try(t *testing.T, dsn, sql string) {
	conn := pgtest.Conn(t, dsn)
	defer conn.Close(context.Background())
	_, _ = conn.Exec(t.Context(), sql)
}
