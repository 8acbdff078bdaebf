package apply

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/pgtest"
	"github.com/twinspan/twinspan/internal/sqlname"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// serial numbers slots and origins, whose names are the server's.
var serial atomic.Int64

// pair is a source database with a slot and a target database with an origin.
type pair struct {
	t      testing.TB
	server *pgtest.Server
	source string // connection strings
	target string
	plain  string // the source's, with the server's own encoding
	slot   string
	origin string
	text   bool
}

// newPair makes two databases with the same schema.
func newPair(t testing.TB, text bool, schema ...string) *pair {
	t.Helper()
	return newPairOn(t, pgtest.Shared(t), text, schema...)
}

func newPairOn(t testing.TB, s *pgtest.Server, text bool, schema ...string) *pair {
	t.Helper()
	n := serial.Add(1)
	p := &pair{t: t, server: s, text: text, slot: fmt.Sprintf("s%d", n), origin: fmt.Sprintf("o%d", n)}
	p.plain = s.DSN(s.Database(t))
	p.source, p.target = p.plain+"&client_encoding=UTF8", s.DSN(s.Database(t))+"&client_encoding=UTF8"
	pgtest.Exec(t, p.source, schema...)
	pgtest.Exec(t, p.target, schema...)
	pgtest.Exec(t, p.target, "SELECT pg_replication_origin_create('"+p.origin+"')")
	t.Cleanup(func() {
		pgtest.Exec(t, s.DSN("postgres"), "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'twinspan/"+p.origin+"/%'")
		pgtest.Eventually(t, time.Minute, func() error {
			_, err := run(s.DSN("postgres"), "SELECT pg_replication_origin_drop('"+p.origin+"')")
			return err
		})
	})
	pgtest.Exec(t, p.source, "CREATE PUBLICATION p FOR ALL TABLES", "SELECT pg_create_logical_replication_slot('"+p.slot+"', 'pgoutput')")
	return p
}

// both runs a test in binary and in text form.
func both(t *testing.T, test func(t *testing.T, text bool)) {
	t.Run("binary", func(t *testing.T) { test(t, false) })
	t.Run("text", func(t *testing.T) { test(t, true) })
}

// run executes SQL without failing a test.
func run(dsn, sql string) (string, error) {
	parsed, err := pg.ParseDSN(dsn)
	if err != nil {
		return "", err
	}
	conn, err := parsed.Connect(context.Background(), pg.Session{Name: "test"})
	if err != nil {
		return "", err
	}
	defer conn.Close(context.Background())
	results, err := conn.PgConn().Exec(context.Background(), sql).ReadAll()
	if err != nil {
		return "", err
	}
	if last := results[len(results)-1]; len(last.Rows) > 0 && len(last.Rows[0]) > 0 {
		return string(last.Rows[0][0]), nil
	}
	return "", nil
}

// do executes statements on the source, each in a transaction of its own unless
// it says otherwise.
func (p *pair) do(sql ...string) {
	p.t.Helper()
	pgtest.Exec(p.t, p.source, sql...)
}

// message is a decoded row of the slot.
type message struct {
	lsn  lsn.LSN
	data []byte
}

// messages reads everything in the slot, without moving it.
func (p *pair) messages() []message {
	p.t.Helper()
	options := "'proto_version','1','publication_names','p'"
	if !p.text {
		options += ",'binary','true'"
	}
	// In the protocol that pgx does not look into: the session's encoding, which the
	// stream has, too, is the server's.
	results, err := pgtest.Conn(p.t, p.plain).PgConn().Exec(testContext(p.t),
		"SELECT lsn, encode(data, 'hex') FROM pg_logical_slot_peek_binary_changes('"+p.slot+"', NULL, NULL, "+options+")").ReadAll()
	if err != nil {
		p.t.Fatal(err)
	}
	rows := results[0].Rows
	out := make([]message, len(rows))
	for i, r := range rows {
		at, err := lsn.Parse(string(r[0]))
		if err != nil {
			p.t.Fatal(err)
		}
		data, err := hex.DecodeString(string(r[1]))
		if err != nil {
			p.t.Fatal(err)
		}
		out[i] = message{at, data}
	}
	return out
}

// position is where the source's log ends.
func (p *pair) position() lsn.LSN {
	p.t.Helper()
	return parse(p.t, pgtest.Query(p.t, p.source, "SELECT pg_current_wal_lsn()")[0][0])
}

// progress is the origin's position.
func (p *pair) progress() lsn.LSN {
	p.t.Helper()
	return parse(p.t, pgtest.Query(p.t, p.target, "SELECT coalesce(pg_replication_origin_progress('"+p.origin+"', true), '0/0')")[0][0])
}

func parse(t testing.TB, s string) lsn.LSN {
	t.Helper()
	at, err := lsn.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// tape is a Source of recorded messages.
type tape struct {
	items []Item
	at    int
	ready func() bool // nil: until the end
	end   error       // after the last item; nil waits for the end of ctx
	took  func(int)
}

func (s *tape) Next(ctx context.Context) (Item, error) {
	if s.at == len(s.items) {
		if s.end != nil {
			return Item{}, s.end
		}
		<-ctx.Done()
		return Item{}, context.Cause(ctx)
	}
	s.at++
	if s.took != nil {
		s.took(s.at)
	}
	return s.items[s.at-1], nil
}

func (s *tape) Ready() bool { return s.at < len(s.items) && (s.ready == nil || s.ready()) }

func record(data []byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(data))), data...)
}

// record makes a tape of messages, cut at random places; r may be nil: one item.
func (p *pair) record(messages []message, until lsn.LSN, r *rand.Rand) *tape {
	s := &tape{}
	var b []byte
	for _, m := range messages {
		b = append(b, record(m.data)...)
		if r != nil && r.IntN(20) == 0 {
			s.items = append(s.items, Item{Records: b})
			b = nil
		}
	}
	s.items = append(s.items, Item{Records: b, Reached: until})
	if r != nil {
		s.ready = func() bool { return r.IntN(3) > 0 }
	}
	return s
}

// applier makes an applier that ends at a position.
func (p *pair) applier(until lsn.LSN) *Applier {
	p.t.Helper()
	dsn, err := pg.ParseDSN(p.target)
	if err != nil {
		p.t.Fatal(err)
	}
	return &Applier{
		DSN: dsn, Link: p.origin, Origin: p.origin, Start: p.progress(), Until: until, Encoding: "UTF8",
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
}

// apply applies what is in the slot.
func (p *pair) apply() *Applier {
	p.t.Helper()
	a, err := p.try()
	if err != nil {
		p.t.Fatalf("apply: %v (code %s)", err, code(err))
	}
	return a
}

// try applies what is in the slot and returns how that ended.
func (p *pair) try(change ...func(*Applier)) (*Applier, error) {
	p.t.Helper()
	until := p.position()
	a := p.applier(until)
	for _, c := range change {
		c(a)
	}
	source := p.record(p.messages(), until, nil)
	return a, p.run(a, source)
}

// run runs an applier; when it takes too long it shows what the server does.
func (p *pair) run(a *Applier, source Source) error {
	p.t.Helper()
	ctx := testContext(p.t)
	defer context.AfterFunc(ctx, func() {
		if ctx.Err() == context.DeadlineExceeded {
			fmt.Fprintln(os.Stderr, "applier:", fmt.Sprintf("%+v", a.Status()))
			for _, row := range pgtest.Query(p.t, p.target, "SELECT pid, application_name, state, wait_event_type, wait_event, pg_blocking_pids(pid), left(query, 300) FROM pg_stat_activity WHERE pid <> pg_backend_pid()") {
				fmt.Fprintln(os.Stderr, row)
			}
		}
	})()
	return a.Run(ctx, source)
}

func testContext(t testing.TB) context.Context {
	ctx, stop := context.WithTimeout(context.Background(), 3*time.Minute)
	t.Cleanup(stop)
	return ctx
}

// same fails unless both databases hold the same rows.
func (p *pair) same() {
	p.t.Helper()
	pgtest.Equal(p.t, p.source, p.target)
}

// table names a table of public.
func table(name string) sqlname.Table { return sqlname.Table{Schema: "public", Name: name} }

// memory is a Big in memory.
type memory struct {
	data   []byte
	done   int
	closed bool
}

func (m *memory) Bytes() []byte { return m.data }
func (m *memory) Done(upTo int) { m.done = max(m.done, upTo) }
func (m *memory) Close() error  { m.closed = true; return nil }

// logBuffer collects a log.
type logBuffer struct{ bytes.Buffer }

func (l *logBuffer) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func contains(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%q does not say %q", text, part)
		}
	}
}
