package apply

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/pgoutput"
	"github.com/twinspan/twinspan/internal/pgtest"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/sqlname"
)

func TestLargeTransactionsAreAppliedInPieces(t *testing.T) {
	both(t, func(t *testing.T, text bool) {
		p := newPair(t, text, "CREATE TABLE t (id int PRIMARY KEY, u int UNIQUE, v text)", "CREATE TABLE small (id int PRIMARY KEY)")
		p.do("INSERT INTO small VALUES (1)",
			"BEGIN; INSERT INTO t SELECT i, i, repeat('x', 100) FROM generate_series(1, 5000) i; UPDATE t SET v = 'y'; UPDATE t SET u = -u; UPDATE t SET u = 5001 + u; DELETE FROM t WHERE id % 3 = 0; COMMIT",
			"INSERT INTO small VALUES (2)", "INSERT INTO small VALUES (3)")
		until := p.position()
		a := p.applier(until)
		a.Limits = Limits{Changes: 700}
		tape := p.record(p.messages(), until, rand.New(rand.NewPCG(1, 1)))
		tape.took = func(n int) {
			// Nothing of it is visible before it is whole.
			if n%25 == 0 {
				got := pgtest.Query(t, p.target, "SELECT (SELECT count(*) FROM t), (SELECT count(*) FROM small)")[0]
				if got[0] != "0" && got[0] != "3334" || got[0] == "0" && got[1] > "1" {
					t.Errorf("readers see %v", got)
				}
			}
		}
		if err := p.run(a, tape); err != nil {
			t.Fatal(err)
		}
		p.same()
		s := a.Status()
		if s.Groups < 20 || s.Changes != 3+5000*4+1666 {
			t.Errorf("status is %+v", s)
		}
	})
}

func TestALargeTransactionThatEndsWithAPiece(t *testing.T) {
	p := newPair(t, false, "CREATE TABLE t (id int PRIMARY KEY)")
	p.do("INSERT INTO t SELECT generate_series(1, 200)", "INSERT INTO t VALUES (-1)")
	a, err := p.try(func(a *Applier) { a.Limits = Limits{Changes: 100} })
	if err != nil {
		t.Fatal(err)
	}
	p.same()
	if s := a.Status(); s.Transactions != 2 || s.Changes != 201 {
		t.Errorf("status is %+v", s)
	}
}

func TestAPieceThatFailsIsReplayedAlone(t *testing.T) {
	p := newPair(t, false, "CREATE TABLE t (id int PRIMARY KEY, u int UNIQUE)")
	p.do("INSERT INTO t SELECT i, i FROM generate_series(1, 10) i")
	p.apply()
	var swaps strings.Builder
	for range 40 {
		swaps.WriteString("UPDATE t SET u = -1 WHERE id = 1; UPDATE t SET u = 1 WHERE id = 2; UPDATE t SET u = 2 WHERE id = 1; UPDATE t SET u = -1 WHERE id = 1; UPDATE t SET u = 2 WHERE id = 2; UPDATE t SET u = 1 WHERE id = 1;")
	}
	p.do("BEGIN; INSERT INTO t SELECT i, i FROM generate_series(11, 100) i; " + swaps.String() + "UPDATE t SET u = -1 WHERE id = 1; UPDATE t SET u = 1 WHERE id = 2; UPDATE t SET u = 2 WHERE id = 1; COMMIT")
	a, err := p.try(func(a *Applier) { a.Limits = Limits{Changes: 50} })
	if err != nil {
		t.Fatal(err)
	}
	p.same()
	if s := a.Status(); s.Fallbacks == 0 || s.Groups < 5 {
		t.Errorf("status is %+v", s)
	}
	// One that cannot be applied at all takes everything of its transaction back.
	p.do("BEGIN; INSERT INTO t SELECT i, i FROM generate_series(1000, 1200) i; DELETE FROM t WHERE id = 5; COMMIT")
	pgtest.Exec(t, p.target, "DELETE FROM t WHERE id = 5")
	before, at := pgtest.Table(t, p.target, "t"), p.progress()
	if _, err = p.try(func(a *Applier) { a.Limits = Limits{Changes: 50} }); code(err) != "row_missing" {
		t.Fatalf("got %v", err)
	}
	contains(t, problem.As(err).Subject, "(id) = (5)")
	if pgtest.Table(t, p.target, "t") != before || p.progress() != at {
		t.Error("a part of the transaction stayed")
	}
}

func TestUntil(t *testing.T) {
	p := newPair(t, false, "CREATE TABLE t (id int PRIMARY KEY)")
	p.do("INSERT INTO t VALUES (1)", "INSERT INTO t VALUES (2)")
	middle := p.position()
	p.do("INSERT INTO t VALUES (3)")
	all := p.messages()
	end := p.position()
	a := p.applier(middle)
	if err := a.Run(testContext(t), p.record(all, end, nil)); err != nil {
		t.Fatal(err)
	}
	if got := pgtest.Table(t, p.target, "t"); got != "(1)\n(2)\n" {
		t.Errorf("up to the middle there are %s", got)
	}
	if got := p.progress(); got != middle {
		t.Errorf("the origin stands at %s, want %s", got, middle)
	}
	if err := p.applier(end).Run(testContext(t), p.record(all, end, nil)); err != nil {
		t.Fatal(err)
	}
	p.same()
	// A position that is already behind needs nothing.
	if err := p.applier(middle).Run(testContext(t), &tape{end: errors.New("asked")}); err != nil {
		t.Fatal(err)
	}
}

func TestPositionsWithoutChangesAreStored(t *testing.T) {
	p := newPair(t, false, "CREATE TABLE t (id int PRIMARY KEY)")
	start := p.progress()
	ctx, stop := context.WithCancel(testContext(t))
	a := p.applier(0)
	done := make(chan error, 1)
	reached := p.position() + 0x1000
	go func() { done <- a.Run(ctx, &tape{items: []Item{{Reached: reached}}}) }()
	pgtest.Eventually(t, time.Minute, func() error {
		if got := p.progress(); got != reached {
			return fmt.Errorf("the origin stands at %s, began at %s", got, start)
		}
		return nil
	})
	stop()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
	if got := a.Status().Applied; got != reached {
		t.Errorf("status says %s", got)
	}
}

// Whoever waits for a position on the primary is told as soon as it is committed,
// each of them by itself.
func TestCommitsAreTold(t *testing.T) {
	p := newPair(t, false, "CREATE TABLE t (id int PRIMARY KEY)")
	p.do("INSERT INTO t VALUES (1)")
	last := p.position() + 0x1000
	tape := p.record(p.messages(), last, nil)
	tape.items = append(tape.items, Item{Reached: last + 0x1000})
	a := p.applier(0)
	told := make(chan struct{}, 100)
	a.OnCommit = func() { told <- struct{}{} }
	a.Prompt = func() bool { return true }
	ctx, stop := context.WithCancel(testContext(t))
	defer stop()
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx, tape) }()
	for a.Status().Applied != last+0x1000 {
		select {
		case <-told:
		case <-ctx.Done():
			t.Fatalf("nobody was told; applied is %s", a.Status().Applied)
		}
	}
	stop()
	<-done
	p.same()
}

func TestAPositionIsStoredWithTheGroupBeforeIt(t *testing.T) {
	p := newPair(t, false, "CREATE TABLE t (id int PRIMARY KEY)")
	p.do("INSERT INTO t VALUES (1)")
	reached := p.position() + 0x1000
	tape := p.record(p.messages(), reached, nil)
	tape.items = append(tape.items, Item{})
	tape.end = errCut
	tape.ready = func() bool { return false }
	tape.took = func(n int) {
		if got := p.progress(); n == 2 && got != reached {
			t.Errorf("the origin stands at %s, want %s", got, reached)
		}
	}
	if err := p.applier(0).Run(testContext(t), tape); !errors.Is(err, errCut) {
		t.Fatal(err)
	}
	p.same()
}

func TestSkipBefore(t *testing.T) {
	p := newPair(t, false, "CREATE TABLE parent (id int PRIMARY KEY, v text)", "CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent)", "CREATE TABLE fresh (id serial PRIMARY KEY, v text)")
	p.do("INSERT INTO parent VALUES (1), (2)", "INSERT INTO child VALUES (1, 1)", "INSERT INTO fresh (v) SELECT 'old' FROM generate_series(1, 9)", "TRUNCATE parent, child, fresh RESTART IDENTITY",
		"INSERT INTO parent SELECT i, 'p' FROM generate_series(1, 20) i", "INSERT INTO child SELECT i, i FROM generate_series(1, 10) i", "UPDATE child SET parent = 2 WHERE id = 1")
	// child was copied here.
	copied := p.position()
	pgtest.Exec(t, p.target, "INSERT INTO parent SELECT i, 'leftover' FROM generate_series(100, 110) i", "SET session_replication_role = replica; INSERT INTO child SELECT i, CASE i WHEN 1 THEN 2 ELSE i END FROM generate_series(1, 10) i", "SELECT nextval('fresh_id_seq') FROM generate_series(1, 5)")
	p.do("UPDATE child SET parent = 3 WHERE id = 2", "DELETE FROM child WHERE id = 5", "INSERT INTO child VALUES (11, 11)", "INSERT INTO fresh (v) VALUES ('new')")
	if _, err := p.try(func(a *Applier) { a.SkipBefore = map[sqlname.Table]lsn.LSN{table("child"): copied} }); err != nil {
		t.Fatal(err)
	}
	p.same()
	if got := pgtest.Query(t, p.target, "SELECT nextval('fresh_id_seq')")[0][0]; got != "1" {
		t.Errorf("the sequence stands at %s", got)
	}
}

func TestRepair(t *testing.T) {
	both(t, func(t *testing.T, text bool) {
		p := newPair(t, text, "CREATE TABLE t (id int PRIMARY KEY, v text, big text, serial int GENERATED ALWAYS AS IDENTITY); ALTER TABLE t ALTER big SET STORAGE EXTERNAL", "CREATE TABLE other (id int PRIMARY KEY)")
		for seed := range uint64(6) {
			r := rand.New(rand.NewPCG(seed, 9))
			p.do("TRUNCATE t", "INSERT INTO t (id, v, big) SELECT i, 'v0', repeat('b' || i, 1500) FROM generate_series(1, 40) i")
			p.apply()
			pgtest.Exec(t, p.target, "DELETE FROM t")
			// The chunk of low ids was copied at the old snapshot,
			old := dump(t, p.source, "id <= 20")
			for range 60 {
				a, b := 1+r.IntN(50), 1+r.IntN(50)
				for _, sql := range []string{
					fmt.Sprintf("UPDATE t SET v = v || 'u' WHERE id = %d", a),
					fmt.Sprintf("DELETE FROM t WHERE id = %d", a),
					fmt.Sprintf("INSERT INTO t (id, v, big) VALUES (%d, 'n', repeat('n%d', 1500)) ON CONFLICT DO NOTHING", a, b),
					// Keys only move to places that stay theirs, see TestRepairThatCannotBeSure.
					fmt.Sprintf("UPDATE t SET id = %d, big = repeat('moved', 1000) WHERE id = %d AND NOT EXISTS (SELECT FROM t x WHERE x.id = %d)", b, a, b),
					fmt.Sprintf("UPDATE t SET serial = DEFAULT WHERE id = %d", a),
				}[r.IntN(5):][:1] {
					p.do(sql)
				}
			}
			p.do("UPDATE t SET id = 100 + id WHERE id IN (SELECT min(id) FROM t)")
			repair := p.position()
			// the rest at the new one, with the rows of the old chunk that are new.
			load(t, p.target, old)
			pgtest.Exec(t, p.target, "DELETE FROM t WHERE id IN ("+list(t, p.source, "SELECT id FROM t WHERE id > 20 OR v <> 'v0'")+")")
			load(t, p.target, dump(t, p.source, "id > 20 OR v <> 'v0'"))
			replaceRest(t, p)
			p.do("UPDATE t SET v = 'after'", "INSERT INTO other VALUES ("+fmt.Sprint(seed)+")")
			if _, err := p.try(func(a *Applier) { a.Repair = map[sqlname.Table]lsn.LSN{table("t"): repair} }); err != nil {
				t.Fatalf("seed %d: %v on %s", seed, err, problem.As(err).Subject)
			}
			p.same()
		}
	})
}

// replaceRest brings the rows whose values are not those of the first copy, as
// the copying by xmin does.
func replaceRest(t *testing.T, p *pair) {
	t.Helper()
	pgtest.Exec(t, p.target, "DELETE FROM t WHERE id IN ("+list(t, p.source, "SELECT id FROM t WHERE age(xmin) < 61")+")")
	load(t, p.target, dump(t, p.source, "age(xmin) < 61"))
}

// dump writes rows as INSERT statements.
func dump(t *testing.T, dsn, where string) string {
	t.Helper()
	var b strings.Builder
	for _, r := range pgtest.Query(t, dsn, "SELECT format('INSERT INTO t (id, v, big, serial) OVERRIDING SYSTEM VALUE VALUES (%L, %L, %L, %L) ON CONFLICT (id) DO NOTHING;', id, v, big, serial) FROM t WHERE "+where) {
		b.WriteString(r[0])
	}
	return b.String()
}

func load(t *testing.T, dsn, sql string) {
	t.Helper()
	pgtest.Exec(t, dsn, sql+";")
}

func list(t *testing.T, dsn, sql string) string {
	t.Helper()
	out := "0"
	for _, r := range pgtest.Query(t, dsn, sql) {
		out += "," + r[0]
	}
	return out
}

func TestRepairThatCannotBeSure(t *testing.T) {
	p := newPair(t, false, "CREATE TABLE t (id int PRIMARY KEY, v text, big text); ALTER TABLE t ALTER big SET STORAGE EXTERNAL")
	p.do("INSERT INTO t VALUES (1, 'a', repeat('one', 2000)), (2, 'b', 'x')")
	p.apply()
	// Everything is copied after these; row 2 then holds the large value of row 1,
	// which the stream does not repeat.
	p.do("DELETE FROM t WHERE id = 2", "UPDATE t SET id = 2 WHERE id = 1", "INSERT INTO t VALUES (1, 'new', repeat('two', 2000))")
	repair := p.position()
	pgtest.Exec(t, p.target, "TRUNCATE t", "INSERT INTO t VALUES (2, 'a', repeat('one', 2000)), (1, 'new', repeat('two', 2000))")
	_, err := p.try(func(a *Applier) { a.Repair = map[sqlname.Table]lsn.LSN{table("t"): repair} })
	if code(err) != "row_missing" {
		t.Fatalf("got %v", err)
	}
}

// TestUnsettledRowsAreTold repairs tables by their numbers, renamed or not, and is
// told of the row whose values nobody has; another table is passed over.
func TestUnsettledRowsAreTold(t *testing.T) {
	p := newPair(t, true, "CREATE TABLE t (id int PRIMARY KEY, v text, big text); ALTER TABLE t ALTER big SET STORAGE EXTERNAL; CREATE TABLE passed (id int PRIMARY KEY)")
	p.do("INSERT INTO t VALUES (1, 'a', repeat('one', 2000)), (2, 'b', 'x')", "INSERT INTO passed VALUES (1)")
	p.apply()
	pgtest.Exec(t, p.target, "DELETE FROM t WHERE id = 1", "DELETE FROM passed")
	p.do("UPDATE t SET v = 'c' WHERE id = 1", "UPDATE t SET id = 5 WHERE id = 1", "UPDATE t SET id = 7, big = 'y' WHERE id = 2", "DELETE FROM passed", "TRUNCATE passed")
	var oids [2]uint32
	for i, name := range []string{"t", "passed"} {
		fmt.Sscan(pgtest.Query(t, p.target, "SELECT '"+name+"'::regclass::oid")[0][0], &oids[i])
	}
	forever := ^lsn.LSN(0)
	var told []string
	_, err := p.try(func(a *Applier) {
		a.RepairTables, a.SkipTables = map[uint32]lsn.LSN{oids[0]: forever}, map[uint32]lsn.LSN{oids[1]: forever}
		a.Unsettled = func(_ context.Context, table uint32, columns []int16, key []string) error {
			told = append(told, fmt.Sprint(table == oids[0], columns, key))
			return nil
		}
	})
	if err != nil || fmt.Sprint(told) != "[true [1] [5]]" {
		t.Errorf("told %v, %v", told, err)
	}
	if got := pgtest.Table(t, p.target, "t"); got != "(7,b,y)\n" {
		t.Errorf("got %s", got)
	}
}

func TestBigMessages(t *testing.T) {
	both(t, func(t *testing.T, text bool) {
		p := newPair(t, text, "CREATE TABLE t (id int PRIMARY KEY, a bytea, b text); ALTER TABLE t ALTER a SET STORAGE EXTERNAL, ALTER b SET STORAGE EXTERNAL", "CREATE TABLE f (id int, a text); ALTER TABLE f REPLICA IDENTITY FULL")
		p.do("BEGIN; INSERT INTO t VALUES (1, 'x', 'y'); INSERT INTO t VALUES (2, decode(repeat('00ff5c0a', 500000), 'hex'), repeat(E'a\\\\\\n', 700000)); UPDATE t SET b = 'z' WHERE id = 2; COMMIT",
			"UPDATE t SET b = repeat('q', 3000000) WHERE id = 1", "UPDATE t SET id = 3 WHERE id = 1", "INSERT INTO f SELECT i, repeat('w', 1000000) FROM generate_series(1, 2) i", "UPDATE f SET id = 7 WHERE id = 1", "DELETE FROM f WHERE id = 2", "DELETE FROM t WHERE id = 2")
		until := p.position()
		var bigs []*memory
		tape := &tape{}
		var b []byte
		for _, m := range p.messages() {
			if len(m.data) < 100_000 {
				b = append(b, record(m.data)...)
				continue
			}
			big := &memory{data: m.data}
			bigs = append(bigs, big)
			tape.items = append(tape.items, Item{Records: b, Big: big})
			b = nil
		}
		tape.items = append(tape.items, Item{Records: b, Reached: until})
		a := p.applier(until)
		if err := p.run(a, tape); err != nil {
			t.Fatal(err)
		}
		p.same()
		if len(bigs) != 6 {
			t.Errorf("%d big messages", len(bigs))
		}
		for i, big := range bigs {
			if !big.closed || big.done < len(big.data)-200 {
				t.Errorf("message %d: closed %t, done %d of %d", i, big.closed, big.done, len(big.data))
			}
		}
		if f := a.Status().Fallbacks; f != 0 {
			t.Errorf("%d fallbacks", f)
		}
	})
}

func TestABigMessageThatDoesNotFitIsNamed(t *testing.T) {
	p := newPair(t, false, "CREATE TABLE t (id int PRIMARY KEY, b text)")
	p.do("INSERT INTO t VALUES (1, repeat('q', 300000))")
	pgtest.Exec(t, p.target, "INSERT INTO t VALUES (1, 'x')")
	tape := &tape{}
	var big *memory
	for _, m := range p.messages() {
		if m.data[0] == byte(pgoutput.TypeInsert) {
			big = &memory{data: m.data}
			tape.items = append(tape.items, Item{Big: big})
		} else {
			tape.items = append(tape.items, Item{Records: record(m.data)})
		}
	}
	err := p.applier(0).Run(testContext(t), tape)
	if code(err) != "row_duplicate" || !big.closed {
		t.Fatalf("got %v, closed %t", err, big.closed)
	}
	contains(t, problem.As(err).Subject, "(1)")
}

const workloadSchema = `
CREATE TABLE accounts (id int PRIMARY KEY, balance numeric NOT NULL, note text, tags text[]);
CREATE TABLE history (account int, delta numeric, at timestamptz DEFAULT clock_timestamp(), filler text);
ALTER TABLE history REPLICA IDENTITY FULL;
CREATE TABLE docs (a int, b text, body text, slug text UNIQUE, PRIMARY KEY (b, a));
ALTER TABLE docs ALTER body SET STORAGE EXTERNAL;
CREATE TABLE gen (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, n int, twice int GENERATED ALWAYS AS (n * 2) STORED);
CREATE TABLE money (k numeric PRIMARY KEY, v int);
CREATE TABLE parts (id int, day int, v text, PRIMARY KEY (id, day)) PARTITION BY LIST (day);
CREATE TABLE parts0 PARTITION OF parts FOR VALUES IN (0);
CREATE TABLE parts1 PARTITION OF parts FOR VALUES IN (1);
INSERT INTO accounts SELECT i, 0, 'n' || i, ARRAY['t' || i] FROM generate_series(1, 200) i`

// randomStatement is one of a random workload; failures are part of it.
func randomStatement(r *rand.Rand) string {
	id, other := r.IntN(60), r.IntN(60)
	switch r.IntN(22) {
	case 0, 1, 2:
		return fmt.Sprintf("UPDATE accounts SET balance = balance + %d, note = 'n%d' WHERE id = %d; INSERT INTO history (account, delta, filler) VALUES (%d, %d, 'f')", id, other, id+1, id+1, other)
	case 3:
		return fmt.Sprintf("UPDATE accounts SET tags = tags || 't%d' WHERE id %% 20 = %d", other, id%20)
	case 4:
		return fmt.Sprintf("DELETE FROM accounts WHERE id = %d; INSERT INTO accounts VALUES (%d, %d.10, NULL, '{}')", id+1, id+1, id)
	case 5:
		return fmt.Sprintf("UPDATE history SET filler = 'g%d' WHERE account = %d", other, id+1)
	case 6:
		return fmt.Sprintf("DELETE FROM history WHERE account = %d", id+1)
	case 7, 8:
		return fmt.Sprintf("INSERT INTO docs VALUES (%d, 'k%d', repeat('body%d', 800), 's%d') ON CONFLICT DO NOTHING", id, other%3, other, id*3+other%3)
	case 9, 10:
		return fmt.Sprintf("UPDATE docs SET slug = 'w' || slug WHERE a = %d", id)
	case 11:
		return fmt.Sprintf("UPDATE docs SET body = repeat('new%d', 700) WHERE a < %d AND b = 'k1'", other, id/4)
	case 12:
		return fmt.Sprintf("UPDATE docs SET a = %d WHERE a = %d AND b = 'k0'", other, id)
	case 13:
		return fmt.Sprintf("DELETE FROM docs WHERE a = %d", id)
	case 14:
		return fmt.Sprintf("INSERT INTO gen (n) SELECT %d FROM generate_series(1, %d)", id, 1+other%15)
	case 15:
		return fmt.Sprintf("UPDATE gen SET n = n + 1 WHERE id %% 7 = %d; DELETE FROM gen WHERE id %% 31 = %d", id%7, other%31)
	case 16:
		return fmt.Sprintf("INSERT INTO money VALUES (%d.%d0, 1) ON CONFLICT (k) DO UPDATE SET v = money.v + 1, k = excluded.k", id%10, other%3)
	case 17:
		return fmt.Sprintf("INSERT INTO parts VALUES (%d, %d, 'p') ON CONFLICT DO NOTHING; UPDATE parts SET day = 1 - day WHERE id = %d", id, other%2, other)
	case 18:
		return fmt.Sprintf("SAVEPOINT s; INSERT INTO accounts VALUES (%d, 1) ON CONFLICT DO NOTHING; UPDATE accounts SET note = 'lost'; ROLLBACK TO s; UPDATE parts SET v = 'x%d' WHERE id < %d", 1000+id, id, other)
	case 19:
		// Slugs change places.
		return "UPDATE docs SET slug = -1 || slug WHERE a < 10; UPDATE docs SET slug = (SELECT '-' || d.slug FROM docs d WHERE d.a = 9 - docs.a AND d.b = docs.b) WHERE a < 10 AND EXISTS (SELECT FROM docs d WHERE d.a = 9 - docs.a AND d.b = docs.b)"
	case 20:
		if id < 5 {
			return []string{"TRUNCATE history", "TRUNCATE parts, gen RESTART IDENTITY", "DELETE FROM docs"}[other%3]
		}
	}
	return fmt.Sprintf("UPDATE accounts SET balance = balance * 1.1 WHERE id BETWEEN %d AND %d", id, id+other)
}

// workload runs random transactions from several sessions at once.
func (p *pair) workload(seed uint64, sessions, transactions int) {
	p.t.Helper()
	var all sync.WaitGroup
	for n := range sessions {
		conn := pgtest.Conn(p.t, p.source)
		r := rand.New(rand.NewPCG(seed, uint64(n)))
		all.Go(func() {
			for range transactions {
				var b strings.Builder
				b.WriteString("BEGIN;")
				for range 1 + r.IntN(4) {
					b.WriteString(randomStatement(r) + ";")
				}
				b.WriteString([]string{"COMMIT", "COMMIT", "COMMIT", "ROLLBACK"}[r.IntN(4)])
				// Deadlocks and collisions roll a transaction back, which is fine.
				if _, err := conn.PgConn().Exec(context.Background(), b.String()).ReadAll(); err != nil {
					_, _ = conn.PgConn().Exec(context.Background(), "ROLLBACK").ReadAll()
				}
			}
		})
	}
	all.Wait()
}

func TestRandomWorkloadWithRestarts(t *testing.T) {
	both(t, func(t *testing.T, text bool) {
		for seed := range uint64(3) {
			r := rand.New(rand.NewPCG(seed, 77))
			p := newPair(t, text, workloadSchema)
			for round := range 3 {
				p.workload(seed*10+uint64(round), 3, 60)
				until := p.position()
				messages := p.messages()
				restarts := 0
				for p.progress() < until {
					a := p.applier(until)
					a.Limits = Limits{Changes: 1 + r.IntN(500)}
					tape := p.record(messages, until, r)
					if restarts < 4 {
						restarts++
						tape.items = tape.items[:r.IntN(len(tape.items))]
						tape.end = errCut
					}
					if err := p.run(a, tape); err != nil && !errors.Is(err, errCut) {
						t.Fatalf("seed %d: %v on %s", seed, err, problem.As(err).Subject)
					}
				}
				p.same()
			}
		}
	})
}

var errCut = problem.New(problem.Transient, "cut", "the test cut the stream")

// An applier that was cut off has a commit on its way. It comes about after the next
// one has read where to start: nothing is applied twice, also where no key would say so.
func TestCommitOnItsWayIsNotRepeated(t *testing.T) {
	p := newPair(t, false, "CREATE TABLE t (v text); ALTER TABLE t REPLICA IDENTITY FULL")
	p.do("INSERT INTO t VALUES ('once')")
	until := p.position()
	messages := p.messages()
	before := pgtest.Conn(t, p.target)
	ctx := context.Background()
	for _, sql := range []string{
		"SELECT pg_replication_origin_session_setup('" + p.origin + "')", "SET session_replication_role = replica", "BEGIN", "INSERT INTO t VALUES ('once')",
		"SELECT pg_replication_origin_xact_setup('" + until.String() + "', now())",
	} {
		if _, err := before.Exec(ctx, sql); err != nil {
			t.Fatal(err)
		}
	}
	a := p.applier(until)
	if a.Start >= until {
		t.Fatal("the commit has come about already")
	}
	ended := make(chan error, 1)
	go func() { ended <- p.run(a, p.record(messages, until, nil)) }()
	pgtest.Eventually(t, time.Minute, func() error {
		if n := pgtest.Query(t, p.target, "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'twinspan/"+p.origin+"/apply'")[0][0]; n != "1" {
			return errors.New("the next applier is not there yet")
		}
		return nil
	})
	if _, err := before.Exec(ctx, "COMMIT"); err != nil {
		t.Fatal(err)
	}
	if err := before.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	p.same()
}

func TestKilledAtAnyMoment(t *testing.T) {
	p := newPair(t, false, workloadSchema)
	p.workload(99, 3, 120)
	until := p.position()
	messages := p.messages()
	r := rand.New(rand.NewPCG(5, 5))
	killer := pgtest.Conn(t, p.target)
	const kills = 12
	for n := range kills {
		a := p.applier(until)
		a.Limits = Limits{Changes: 1 + r.IntN(300)}
		tape := p.record(messages, until, r)
		at := 1 + len(tape.items)*n/(kills+1) + r.IntN(3)
		tape.took = func(taken int) {
			if taken != at {
				return
			}
			if _, err := killer.Exec(context.Background(), "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'twinspan/"+p.origin+"/apply'"); err != nil {
				t.Error(err)
			}
		}
		if err := p.run(a, tape); !problem.Retry(err) {
			t.Fatalf("kill %d: %v (%s)", n, err, code(err))
		}
	}
	p.apply()
	p.same()
}

func TestKilledInsideALargeTransaction(t *testing.T) {
	p := newPair(t, false, "CREATE TABLE t (id int PRIMARY KEY, v text)")
	p.do("INSERT INTO t VALUES (-1, 'before')", "BEGIN; INSERT INTO t SELECT i, 'x' FROM generate_series(1, 5000) i; UPDATE t SET v = 'y'; COMMIT", "INSERT INTO t VALUES (-2, 'after')")
	until := p.position()
	messages := p.messages()
	for _, at := range []int{3, 40, 200} {
		a := p.applier(until)
		a.Limits = Limits{Changes: 100}
		tape := p.record(messages, until, rand.New(rand.NewPCG(3, 3)))
		tape.took = func(n int) {
			if n == at {
				pgtest.Exec(t, p.target, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'twinspan/"+p.origin+"/apply'")
			}
		}
		if err := p.run(a, tape); !problem.Retry(err) {
			t.Fatalf("got %v", err)
		}
		if got := pgtest.Query(t, p.target, "SELECT count(*) FROM t WHERE id > 0")[0][0]; got != "0" {
			t.Errorf("%s rows of an unfinished transaction", got)
		}
	}
	p.apply()
	p.same()
}

func TestACancelledApplierLeavesNothingBehind(t *testing.T) {
	p := newPair(t, false, "CREATE TABLE t (id int PRIMARY KEY)")
	p.do("INSERT INTO t SELECT generate_series(1, 100)", "INSERT INTO t VALUES (-1)")
	reader := pgtest.Conn(t, p.target)
	if _, err := reader.Exec(testContext(t), "BEGIN; LOCK t"); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancelCause(testContext(t))
	done := make(chan error, 1)
	a, tape := p.applier(0), p.record(p.messages(), 0, nil)
	go func() { done <- a.Run(ctx, tape) }()
	pgtest.Eventually(t, time.Minute, func() error {
		if got := pgtest.Query(t, p.target, "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'twinspan/"+p.origin+"/apply' AND wait_event_type = 'Lock'")[0][0]; got != "1" {
			return fmt.Errorf("not waiting yet")
		}
		return nil
	})
	why := errors.New("suspended")
	stop(why)
	if err := <-done; !errors.Is(err, why) {
		t.Errorf("ended with %v", err)
	}
	// The server's session does not wait on: the origin is free while the lock is held.
	pgtest.Eventually(t, time.Minute, func() error {
		if got := pgtest.Query(t, p.target, "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'twinspan/"+p.origin+"/apply'")[0][0]; got != "0" {
			return fmt.Errorf("still there")
		}
		return nil
	})
	if _, err := reader.Exec(testContext(t), "COMMIT"); err != nil {
		t.Fatal(err)
	}
	p.apply()
	p.same()
}

func TestOtherEncodings(t *testing.T) {
	s := pgtest.Start(t, pgtest.WithInitdbArgs("--encoding=LATIN1", "--locale=C"))
	p := newPairOn(t, s, true, "CREATE TABLE t (id int PRIMARY KEY, v text)")
	p.do("INSERT INTO t SELECT i, chr(233) || E'\\\\' || i FROM generate_series(1, 20) i", "UPDATE t SET v = v || chr(255)")
	raw := false
	for _, m := range p.messages() {
		raw = raw || strings.Contains(hex.EncodeToString(m.data), "e95c")
	}
	if !raw {
		t.Fatal("the stream is not in LATIN1")
	}
	if _, err := p.try(func(a *Applier) { a.Encoding = "LATIN1" }); err != nil {
		t.Fatal(err)
	}
	p.same()
}
