package capture_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/twinspan/twinspan/internal/capture"
	"github.com/twinspan/twinspan/internal/leaks"
	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/pgtest"
	"github.com/twinspan/twinspan/internal/problem"
)

// expected is what has to come of what pgoutput says, told by transactions.
func expected(t testing.TB, dsn, slot, options, own string) [][]byte {
	t.Helper()
	var want, transaction [][]byte
	hidden := map[string]bool{}
	rows, err := connect(t, dsn).Query(testContext(t), `SELECT encode(data, 'hex') FROM pg_logical_slot_peek_binary_changes('`+slot+`', NULL, NULL,
			'proto_version', '1', 'publication_names', '`+own+`'`+options+`)`)
	if err != nil {
		t.Fatal(err)
	}
	messages, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	for _, message := range messages {
		m, err := hex.DecodeString(message)
		if err != nil {
			t.Fatal(err)
		}
		transaction = append(transaction, m)
		if m[0] != 'C' {
			continue
		}
		foreign := len(transaction) > 1 && transaction[1][0] == 'O' && string(transaction[1][9:]) == own+"\x00"
		for _, m := range transaction {
			internal := false
			if m[0] == 'R' {
				internal = strings.HasPrefix(string(m[5:]), "twinspan\x00") && !strings.HasPrefix(string(m[5:]), "twinspan\x00signal\x00")
				hidden[string(m[1:5])] = internal
			} else if strings.ContainsRune("IUD", rune(m[0])) {
				internal = hidden[string(m[1:5])]
			}
			if !internal && (!foreign || m[0] == 'R' || m[0] == 'Y') {
				want = append(want, m)
			}
		}
		transaction = nil
	}
	return want
}

// TestStreamIsWhatPgoutputSends compares with the server's own reading of a twin
// slot, byte by byte, as text and as binary.
func TestStreamIsWhatPgoutputSends(t *testing.T) {
	server := pgtest.Shared(t)
	dsn, s := fresh(t, server)
	pgtest.Exec(t, dsn, `CREATE TYPE public.mood AS ENUM ('sad', 'ok');
		CREATE TABLE public.t (id text PRIMARY KEY, n int, f float8, d timestamptz, m public.mood, big text);
		CREATE TABLE public.keyless (id text, n int); CREATE TABLE public.theirs_only (id text PRIMARY KEY)`)
	prepare(t, s)
	own := s.Object()
	first := makeSlot(t, dsn, own)
	makeSlot(t, dsn, own+"_twin")
	pgtest.Exec(t, dsn, `SELECT pg_replication_origin_create('`+own+`'), pg_replication_origin_create('`+own+`_other')`)
	t.Cleanup(func() {
		pgtest.Exec(t, dsn, `SELECT pg_replication_origin_drop('`+own+`'), pg_replication_origin_drop('`+own+`_other')`)
	})
	// As from the twin over this link, and over another.
	session := func(origin, sql string) {
		pgtest.Exec(t, dsn, `SELECT pg_replication_origin_session_setup('`+origin+`')`+";"+sql+`; SELECT pg_replication_origin_session_reset()`)
	}
	link := `INSERT INTO twinspan.link (id, name, agent, peer, peer_agent, peer_database, role, phase, epoch) VALUES ('` + linkID +
		`', 'sales', '` + linkID + `', 'p', '` + linkID + `', 'd', 'primary', 'x', 1);`
	pgtest.Exec(t, dsn,
		`INSERT INTO public.t VALUES ('mine 1', 1, 0.1, now(), 'ok', repeat('x', 600000)), ('mine 2', NULL, 'NaN', '4713-01-01 BC', 'sad', NULL)`,
		link+`INSERT INTO twinspan.signal (id, kind) VALUES (1001, 'hello'); UPDATE twinspan.link SET phase = 'y'; INSERT INTO public.t VALUES ('mine 3')`,
		`UPDATE twinspan.link SET phase = 'z'`, // a transaction of nothing else
		`UPDATE public.t SET n = 2 WHERE id = 'mine 1'; UPDATE public.t SET id = 'mine 4' WHERE id = 'mine 2'; DELETE FROM public.t WHERE id = 'mine 3'`)
	session(own, `BEGIN; INSERT INTO public.theirs_only VALUES ('theirs 1'); INSERT INTO public.keyless VALUES ('theirs 2', 1); UPDATE public.t SET n = 77; TRUNCATE public.keyless; COMMIT`)
	session(own, `BEGIN; INSERT INTO twinspan.signal (id, kind) VALUES (1002, 'theirs'); COMMIT`)
	session(own+"_other", `BEGIN; INSERT INTO public.keyless VALUES ('others 1', 1); UPDATE public.keyless SET n = 2; COMMIT`)
	pgtest.Exec(t, dsn, `INSERT INTO public.theirs_only VALUES ('mine 5')`, `TRUNCATE public.keyless, public.theirs_only`,
		`ALTER TABLE public.keyless ADD x text DEFAULT 'd'; INSERT INTO public.keyless VALUES ('mine 6')`,
		`DELETE FROM twinspan.signal`, `INSERT INTO public.t VALUES ('the end')`)

	modes := map[string]string{"text": ""}
	if server.Major >= 14 {
		modes["binary"] = ", 'binary', 'true'"
	}
	for mode, options := range modes {
		c := &collector{}
		st := capture.NewStream(s, first)
		st.Sink, st.Binary, st.Encoding = c, mode == "binary", "UTF8"
		r := start(t, st)
		c.await(t, "the end")
		pgtest.Eventually(t, patience, func() error { // the last commit
			if records, _ := c.all(); records[len(records)-1][0] != 'C' {
				return errors.New("no commit")
			}
			return nil
		})
		r.stop()
		awaitIdle(t, dsn, own)
		got, _ := c.all()
		want := expected(t, dsn, own+"_twin", options, own)
		for i := range max(len(got), len(want)) {
			if i >= len(got) || i >= len(want) || !bytes.Equal(got[i], want[i]) {
				t.Fatalf("%s: message %d of %d, want %d\ngot  %.200q\nwant %.200q", mode, i, len(got), len(want), at(got, i), at(want, i))
			}
		}
		text := string(bytes.Join(got, nil))
		for _, part := range []string{"mine 1", "mine 4", "mine 5", "mine 6", "others 1", "hello", "theirs_only"} {
			if !strings.Contains(text, part) {
				t.Errorf("%s: %q is missing", mode, part)
			}
		}
		if strings.Contains(text, "theirs 1") || strings.Contains(text, "theirs 2") || strings.Contains(text, "seeded") {
			t.Errorf("%s: what should stay here went on", mode)
		}
		// Nothing was confirmed: the slot is where it was.
		if now := pgtest.Query(t, dsn, `SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = '`+own+`'`)[0][0]; now != first.String() {
			t.Errorf("the slot moved from %s to %s", first, now)
		}
	}
}

func at(list [][]byte, i int) []byte {
	if i < len(list) {
		return list[i]
	}
	return nil
}

// TestOrderIsCommitOrder interleaves transactions.
func TestOrderIsCommitOrder(t *testing.T) {
	dsn, _, c := stream(t, pgtest.Shared(t), `CREATE TABLE public.t (id text PRIMARY KEY)`)
	a, b := connect(t, dsn), connect(t, dsn)
	must(t, a, `BEGIN; INSERT INTO public.t VALUES ('a1')`)
	must(t, b, `BEGIN; INSERT INTO public.t VALUES ('b1')`)
	must(t, a, `INSERT INTO public.t VALUES ('a2')`)
	must(t, b, `COMMIT; BEGIN; INSERT INTO public.t VALUES ('p1'); PREPARE TRANSACTION '`+t.Name()+`'`)
	must(t, b, `BEGIN; INSERT INTO public.t VALUES ('r1'); PREPARE TRANSACTION '`+t.Name()+`2'`)
	must(t, a, `COMMIT; BEGIN; INSERT INTO public.t VALUES ('s1'); SAVEPOINT s; INSERT INTO public.t VALUES ('never'); ROLLBACK TO s;
		SAVEPOINT s2; INSERT INTO public.t VALUES ('s2'); RELEASE s2`)
	must(t, b, `COMMIT PREPARED '`+t.Name()+`'`)
	must(t, b, `ROLLBACK PREPARED '`+t.Name()+`2'`)
	must(t, b, `BEGIN; INSERT INTO public.t VALUES ('undone'); ROLLBACK`)
	must(t, a, `COMMIT; INSERT INTO public.t VALUES ('the end')`)
	c.await(t, "the end")
	if got, want := strings.Join(c.rows(), " "), "b1 a1 a2 p1 s1 s2 the end"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func confirmedFlush(t testing.TB, dsn, slot string) (l lsn.LSN) {
	t.Helper()
	if err := l.UnmarshalText([]byte(pgtest.Query(t, dsn, `SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = '`+slot+`'`)[0][0])); err != nil {
		t.Fatal(err)
	}
	return l
}

func TestIdleDatabaseMovesOn(t *testing.T) {
	server := pgtest.Shared(t)
	dsn, r, c := stream(t, server, `CREATE TABLE public.t (id text PRIMARY KEY)`)
	busy := server.DSN(server.Database(t))
	pgtest.Exec(t, busy, `CREATE TABLE public.x AS SELECT repeat('x', 100) FROM generate_series(1, 1000)`)
	var end lsn.LSN
	if err := end.UnmarshalText([]byte(pgtest.Query(t, busy, `SELECT pg_current_wal_flush_lsn()`)[0][0])); err != nil {
		t.Fatal(err)
	}
	pgtest.Eventually(t, patience, func() error {
		if c.last() < end {
			return fmt.Errorf("reached %s of %s", c.last(), end)
		}
		return nil
	})
	if at := confirmedFlush(t, dsn, r.Object()); at >= end {
		t.Fatalf("the slot moved to %s unasked", at)
	}
	_, reached := c.all()
	if d := time.Since(reached[len(reached)-1].At).Abs(); d > time.Hour {
		t.Errorf("the server's clock is %v away", d)
	}
	r.Confirm(end)
	pgtest.Eventually(t, patience, func() error {
		if at := confirmedFlush(t, dsn, r.Object()); at < end {
			return fmt.Errorf("the slot stands at %s", at)
		}
		return nil
	})
	r.Confirm(end - 100) // never back
	// Nor past what was read.
	r.Confirm(1 << 62)
	pgtest.Exec(t, dsn, `INSERT INTO public.t VALUES ('the end')`)
	c.await(t, "the end")
	pgtest.Eventually(t, patience, func() error {
		if r.Sent() <= end {
			return fmt.Errorf("sent %s", r.Sent())
		}
		return nil
	})
	if at := confirmedFlush(t, dsn, r.Object()); at < end || at > r.Sent() {
		t.Errorf("the slot stands at %s, read was up to %s", at, r.Sent())
	}
}

// TestNoPositionInsideATransaction holds the sink until the server has put a keepalive,
// which has a position, between the messages of a transaction.
func TestNoPositionInsideATransaction(t *testing.T) {
	dsn, s := fresh(t, pgtest.Shared(t))
	pgtest.Exec(t, dsn, `CREATE TABLE public.t (id text PRIMARY KEY, v text)`)
	prepare(t, s)
	c := &collector{gate: make(chan struct{})}
	st := capture.NewStream(s, makeSlot(t, dsn, s.Object()))
	st.Sink = c
	start(t, st)
	open := sync.OnceFunc(func() { close(c.gate) })
	t.Cleanup(open)
	pgtest.Exec(t, dsn, `INSERT INTO public.t SELECT n, repeat('x', 500) FROM generate_series(1, 15000) n`, `INSERT INTO public.t VALUES ('the end')`)
	// It answers what it hears of us while it cannot go on with the transaction.
	var first string
	pgtest.Eventually(t, patience, func() error {
		rows := pgtest.Query(t, dsn, `SELECT reply_time FROM pg_stat_replication JOIN pg_stat_activity USING (pid) WHERE datname = current_database() AND wait_event = 'WalSenderWriteData'`)
		if len(rows) != 1 {
			return errors.New("the server is not held up")
		}
		if first = cmp.Or(first, rows[0][0]); rows[0][0] == first {
			return errors.New("the server has heard nothing of us since")
		}
		return nil
	})
	open()
	c.await(t, "the end")
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.records) < 15000 || c.err != nil {
		t.Errorf("%d records %v", len(c.records), c.err)
	}
	for i := 1; i < len(c.reached); i++ {
		if c.reached[i].Position < c.reached[i-1].Position {
			t.Errorf("positions go back: %v", c.reached)
		}
	}
}

// TestBlockedSinkKeepsTheConnection blocks for more than twice the server's patience.
func TestBlockedSinkKeepsTheConnection(t *testing.T) {
	server := pgtest.Start(t, pgtest.WithSetting("wal_sender_timeout", "6s"))
	dsn, s := fresh(t, server)
	pgtest.Exec(t, dsn, `CREATE TABLE public.t (id text PRIMARY KEY, v text)`)
	prepare(t, s)
	c := &collector{gate: make(chan struct{})}
	st := capture.NewStream(s, makeSlot(t, dsn, s.Object()))
	st.Sink = c
	start(t, st)
	open := sync.OnceFunc(func() { close(c.gate) })
	t.Cleanup(open)
	pgtest.Exec(t, dsn, `INSERT INTO public.t SELECT n, repeat('x', 5000) FROM generate_series(1, 4000) n`)
	walsender := `SELECT pid, clock_timestamp() - backend_start FROM pg_stat_replication`
	var pid string
	pgtest.Eventually(t, patience, func() error {
		rows := pgtest.Query(t, dsn, `SELECT pid FROM pg_stat_replication WHERE backend_start < clock_timestamp() - interval '13 s'`)
		if len(rows) != 1 {
			return fmt.Errorf("%v", pgtest.Query(t, dsn, walsender))
		}
		pid = rows[0][0]
		return nil
	})
	open()
	pgtest.Exec(t, dsn, `INSERT INTO public.t VALUES ('the end')`)
	c.await(t, "the end")
	if now := pgtest.Query(t, dsn, walsender); len(now) != 1 || now[0][0] != pid {
		t.Errorf("was %s, is %v", pid, now)
	}
	if len(c.rows()) != 4001 {
		t.Errorf("%d rows", len(c.rows()))
	}
}

// awaitIdle waits until nobody reads a slot.
func awaitIdle(t testing.TB, dsn, slot string) {
	t.Helper()
	pgtest.Eventually(t, patience, func() error {
		if n := len(pgtest.Query(t, dsn, `SELECT FROM pg_replication_slots WHERE active AND slot_name = '`+slot+`'`)); n > 0 {
			return errors.New("the slot is read")
		}
		return nil
	})
}

func TestRunEnds(t *testing.T) {
	server := pgtest.Shared(t)
	dsn, r, c := stream(t, server, `CREATE TABLE public.t (id text PRIMARY KEY)`)
	pgtest.Exec(t, dsn, `INSERT INTO public.t VALUES ('1')`)
	c.await(t, "1")
	pgtest.Exec(t, dsn, `SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '`+r.Object()+`'`)
	err := <-r.done
	r.ended = true
	if problem.KindOf(err) != problem.Transient {
		t.Errorf("after the walsender's end: %v", err)
	}
	beginAtOnce := func(ctx context.Context) (chan error, *collector) {
		c, done := &collector{}, make(chan error, 1)
		s := capture.NewStream(r.Source, r.Start)
		s.Sink = c
		go func() { done <- s.Run(ctx) }()
		return done, c
	}
	// The server needs a moment to see that a reader has gone.
	begin := func(ctx context.Context) (chan error, *collector) {
		awaitIdle(t, dsn, r.Object())
		return beginAtOnce(ctx)
	}
	before := goleak.IgnoreCurrent()
	why := problem.New(problem.Transient, "stream_replaced", "another one")
	for _, cause := range []error{nil, why} {
		ctx, cancel := context.WithCancelCause(testContext(t))
		done, c := begin(ctx)
		c.await(t, "1")
		cancel(cause)
		switch err := <-done; {
		case cause == nil && problem.KindOf(err) != problem.Cancelled, cause != nil && !errors.Is(err, why):
			t.Errorf("cancelled for %v: %v", cause, err)
		}
	}
	if err := leaks.Find(before); err != nil {
		t.Error(err)
	}
	// A second reader of the same slot.
	first, c1 := begin(testContext(t))
	c1.await(t, "1")
	second, _ := beginAtOnce(testContext(t))
	if err := <-second; problem.KindOf(err) != problem.Transient || problem.CodeOf(err) != "object_in_use" {
		t.Errorf("two readers: %v", err)
	}
	remove(t, r.Source, true) // while it is read
	if err := <-first; problem.KindOf(err) != problem.Transient {
		t.Errorf("the slot was dropped: %v", err)
	}
	if left := traces(t, dsn); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	third, _ := beginAtOnce(testContext(t))
	if err := <-third; problem.CodeOf(err) != "slot_unusable" || problem.KindOf(err) != problem.Transient {
		t.Errorf("no slot: %v", err)
	}
}

type failingSink struct{ err error }

func (s failingSink) Write([]byte) (int, error) { return 0, s.err }
func (s failingSink) Flush() error              { return s.err }

func TestSinksErrorEndsTheStream(t *testing.T) {
	dsn, s := fresh(t, pgtest.Shared(t))
	prepare(t, s)
	st := capture.NewStream(s, makeSlot(t, dsn, s.Object()))
	why := problem.New(problem.Resource, "sink_full", "full")
	st.Sink = failingSink{why}
	if err := st.Run(testContext(t)); !errors.Is(err, why) {
		t.Errorf("got %v", err)
	}
}

// sums counts and hashes without keeping.
type sums struct {
	n    int
	tail []byte
	sum  uint32
	done chan struct{}
}

func (s *sums) Write(p []byte) (int, error) {
	s.n += len(p)
	s.sum = crc32.Update(s.sum, crc32.IEEETable, p)
	s.tail = append(s.tail[max(0, len(s.tail)-16):], p[max(0, len(p)-16):]...)
	if s.n > 200<<20 {
		select {
		case <-s.done:
		default:
			close(s.done)
		}
	}
	return len(p), nil
}

func (s *sums) Flush() error { return nil }

func TestRowOf200MB(t *testing.T) {
	dsn, s := fresh(t, pgtest.Start(t, pgtest.WithSetting("max_wal_size", "2GB")))
	pgtest.Exec(t, dsn, `CREATE TABLE public.t (id text PRIMARY KEY, v text); ALTER TABLE public.t ALTER v SET STORAGE EXTERNAL`)
	prepare(t, s)
	st := capture.NewStream(s, makeSlot(t, dsn, s.Object()))
	pgtest.Exec(t, dsn, `INSERT INTO public.t VALUES ('big', repeat('0123456789abcdef', 13200000))`)
	sink := &sums{done: make(chan struct{})}
	st.Sink = sink
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	r := start(t, st)
	select {
	case <-sink.done:
	case err := <-r.done:
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	r.stop()
	if n := after.TotalAlloc - before.TotalAlloc; n > 16<<20 {
		t.Errorf("%d MB of memory were taken", n>>20)
	}
}

func TestCheckSlot(t *testing.T) {
	var small []pgtest.Option // segments, for less to write until one is lost
	if pgtest.Shared(t).Major >= 13 {
		small = []pgtest.Option{pgtest.WithInitdbArgs("--wal-segsize=1"), pgtest.WithSetting("max_wal_size", "2MB"), pgtest.WithSetting("min_wal_size", "2MB")}
	}
	server := pgtest.Start(t, small...)
	dsn, s := fresh(t, server)
	elsewhere, other := fresh(t, server)
	prepare(t, s)
	begin := makeSlot(t, dsn, s.Object())
	makeSlot(t, elsewhere, other.Object())
	pgtest.Exec(t, dsn, `SELECT pg_create_logical_replication_slot('decoder', 'test_decoding'), pg_create_physical_replication_slot('physical')`)
	system := pgtest.Query(t, dsn, `SELECT system_identifier FROM pg_control_system()`)[0][0]
	conn := connect(t, dsn)
	check := func(slot string, position lsn.LSN, system, want string) {
		t.Helper()
		err := capture.CheckSlot(testContext(t), conn, slot, position, system)
		if problem.CodeOf(err) != want {
			t.Errorf("%s at %s: %v, want %s", slot, position, err, want)
		}
		if err != nil && (problem.KindOf(err) != problem.Diverged || problem.As(err).Hint == "" || problem.As(err).Subject != slot) {
			t.Errorf("%s: %+v", want, problem.As(err))
		}
	}
	check(s.Object(), begin, system, "")
	check(s.Object(), begin, "", "")
	check(s.Object(), begin, "12345", "primary_replaced")
	check(s.Object(), begin-1, system, "slot_ahead")
	check(s.Object(), 0, system, "slot_ahead")
	check(s.Object(), 1<<40, system, "primary_behind")
	check("nothing_here", begin, system, "slot_lost")
	check(other.Object(), begin, system, "slot_lost") // of another database
	check("decoder", begin, system, "slot_lost")
	check("physical", begin, system, "slot_lost")
	if server.Major < 13 {
		return
	}
	pgtest.Exec(t, dsn, `ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'`, `SELECT pg_reload_conf()`)
	pgtest.Eventually(t, patience, func() error {
		pgtest.Exec(t, dsn, `CREATE TABLE IF NOT EXISTS public.x (v text); INSERT INTO public.x SELECT repeat('x', 1000) FROM generate_series(1, 4000)`,
			`SELECT pg_switch_wal()`, `CHECKPOINT`)
		if rows := pgtest.Query(t, dsn, `SELECT wal_status FROM pg_replication_slots WHERE slot_name = '`+s.Object()+`'`); rows[0][0] != "lost" {
			return errors.New(rows[0][0])
		}
		return nil
	})
	check(s.Object(), begin, system, "slot_lost")
	st := capture.NewStream(s, begin)
	st.Sink = &collector{}
	if err := st.Run(testContext(t)); problem.CodeOf(err) != "slot_unusable" || problem.KindOf(err) != problem.Transient {
		t.Errorf("read an invalidated slot: %v", err)
	}
	remove(t, s, true)
	if left := traces(t, dsn); slices.ContainsFunc(left, func(l []string) bool { return strings.Contains(l[0], s.Object()) }) {
		t.Errorf("left behind: %v", left)
	}
}

// TestBlocksComeBeforeTheCommit: a large transaction comes in blocks as it runs; the end of each
// subtransaction that was rolled back is told, or the stream ends for want of it.
func TestBlocksComeBeforeTheCommit(t *testing.T) {
	server := pgtest.Start(t, pgtest.WithSetting("logical_decoding_work_mem", "64kB"))
	dsn, s := fresh(t, server)
	pgtest.Exec(t, dsn, `CREATE TABLE public.t (id text PRIMARY KEY, v text)`)
	prepare(t, s)
	c := &collector{}
	st := capture.NewStream(s, makeSlot(t, dsn, s.Object()))
	st.Sink, st.Streamed = c, true
	r := start(t, st)
	conn := connect(t, dsn)
	must(t, conn, `BEGIN; INSERT INTO public.t SELECT i, 'v' FROM generate_series(1, 2000) i`)
	kinds := func() (n map[byte]int) {
		n = map[byte]int{}
		records, _ := c.all()
		for _, m := range records {
			n[m[0]]++
		}
		return n
	}
	pgtest.Eventually(t, patience, func() error {
		if n := kinds(); n['I'] == 0 || n['S'] == 0 || n['B'] > 0 {
			return fmt.Errorf("%v", n)
		}
		return nil
	})
	must(t, conn, `SAVEPOINT s; INSERT INTO public.t SELECT i, 'lost' FROM generate_series(2001, 4000) i`)
	pgtest.Eventually(t, patience, func() error {
		if n := kinds(); n['I'] <= 2000 {
			return fmt.Errorf("%v", n)
		}
		return nil
	})
	must(t, conn, `ROLLBACK TO s; INSERT INTO public.t SELECT i, 'kept' FROM generate_series(4001, 5000) i; RELEASE s; COMMIT`)
	pgtest.Eventually(t, patience, func() error {
		if n := kinds(); n['c'] != 1 || n['A'] == 0 || n['S'] != n['E'] {
			return fmt.Errorf("%v", n)
		}
		return nil
	})
	told := kinds()['A']
	// A value of many parts is put to disk before it is sent.
	must(t, conn, `ALTER TABLE public.t ALTER v SET STORAGE EXTERNAL`)
	must(t, conn, `BEGIN; INSERT INTO public.t SELECT i, 'v' FROM generate_series(5001, 6000) i; SAVEPOINT s`)
	must(t, conn, `INSERT INTO public.t SELECT i, repeat('x', 5000000) FROM generate_series(6001, 6003) i; ROLLBACK TO s; COMMIT`)
	var end string
	pgtest.Eventually(t, patience, func() error {
		select {
		case err := <-r.done:
			r.ended = true
			end = problem.CodeOf(err)
		default:
			n := kinds()
			if n['c'] < 2 && n['B'] == 0 {
				return fmt.Errorf("%v", n)
			}
			if end = "told"; n['c'] == 2 && n['A'] == told {
				end = "not told, and not noticed"
			}
		}
		return nil
	})
	if end != "told" && end != "blocks_refused" {
		t.Errorf("the stream ended with %s", end)
	}
	if c.mu.Lock(); c.err != nil {
		t.Error(c.err)
	}
	c.mu.Unlock()
}
