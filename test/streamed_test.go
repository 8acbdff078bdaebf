package test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/config"
	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// blocks makes a server send transactions in blocks from a size on that tests reach.
func blocks(more ...pgtest.Option) []pgtest.Option {
	return append([]pgtest.Option{pgtest.WithSetting("logical_decoding_work_mem", "64kB"), pgtest.WithSetting("max_prepared_transactions", "10")}, more...)
}

// streamed returns how many transactions the server has sent before their commit.
func streamed(t *testing.T, s *linktest.Side) int {
	t.Helper()
	n, err := strconv.Atoi(pgtest.Query(t, s.Server.DSN("postgres"), `SELECT coalesce(sum(stream_txns), 0) FROM pg_stat_replication_slots`)[0][0])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// awaitStreamed waits until so many were.
func awaitStreamed(t *testing.T, s *linktest.Side, want int) {
	t.Helper()
	pgtest.Eventually(t, linktest.Patience, func() error {
		if n := streamed(t, s); n < want {
			return fmt.Errorf("%d transactions have come before their commit, not %d", n, want)
		}
		return nil
	})
}

// inSession runs statements in a session that goes on.
func inSession(t *testing.T, conn *pgx.Conn, sql ...string) {
	t.Helper()
	for _, text := range sql {
		if _, err := conn.PgConn().Exec(t.Context(), text).ReadAll(); err != nil {
			t.Fatalf("%v\nin: %s", err, text)
		}
	}
}

// arrives waits until a query on the secondary gives a value.
func arrives(t *testing.T, p *linktest.Pair, database, sql, want string) {
	t.Helper()
	pgtest.Eventually(t, linktest.Patience, func() error {
		if got := pgtest.Query(t, p.B.Server.DSN(database), sql)[0][0]; got != want {
			return fmt.Errorf("%s is %s, not %s", sql, got, want)
		}
		return nil
	})
}

// Large transactions come before their commit, several at once and mixed with small
// ones, which do not wait for them; what was rolled back of them never arrives.
func TestLargeTransactionsComeBeforeTheirCommit(t *testing.T) {
	t.Parallel()
	for _, major := range []int{14, 15, 18} {
		t.Run(strconv.Itoa(major), func(t *testing.T) {
			t.Parallel()
			p := linktest.New(t, linktest.Options{ServerA: blocks(pgtest.WithMajor(major)), ServerB: []pgtest.Option{pgtest.WithMajor(max(15, major))}})
			comeBeforeCommit(t, p)
		})
	}
}

func comeBeforeCommit(t *testing.T, p *linktest.Pair) {
	p.A.Server.CreateDatabase(t, "sales")
	a := p.A.Server.DSN("sales")
	pgtest.Exec(t, a, `CREATE TYPE mood AS ENUM ('sad', 'ok');
		CREATE TABLE t (id int PRIMARY KEY, v text, n int DEFAULT 0, m mood DEFAULT 'ok');
		CREATE TABLE small (id int PRIMARY KEY); CREATE TABLE keyless (v text, n int);
		CREATE TABLE toasted (id int PRIMARY KEY, n int, big text); ALTER TABLE toasted ALTER big SET STORAGE EXTERNAL;
		CREATE TABLE emptied (id int PRIMARY KEY, v text)`,
		`INSERT INTO emptied SELECT i, 'old' FROM generate_series(1, 1000) i`,
		`INSERT INTO toasted SELECT i, 0, repeat(md5(i::text), 200) FROM generate_series(1, 200) i`)
	p.Create(t, "sales", "sales")
	p.WaitPhase(t, "sales", api.Replicating)

	one, two, three := pgtest.Conn(t, a), pgtest.Conn(t, a), pgtest.Conn(t, a)
	inSession(t, one, `BEGIN`, `INSERT INTO t SELECT i, 'one' FROM generate_series(1, 9000) i`,
		`SAVEPOINT kept`, `UPDATE t SET n = 1 WHERE id <= 1500`,
		`SAVEPOINT lost`, `UPDATE t SET n = 2 WHERE id <= 2000`, `INSERT INTO t SELECT i, 'lost' FROM generate_series(9001, 11000) i`,
		`SAVEPOINT within`, `DELETE FROM t WHERE id <= 2500`, `RELEASE within`, `ROLLBACK TO lost`)
	inSession(t, two, `BEGIN`, `INSERT INTO t SELECT i, 'two' FROM generate_series(100001, 103000) i`)
	inSession(t, three, `BEGIN`, `INSERT INTO t SELECT i, 'three' FROM generate_series(200001, 203000) i`, `DELETE FROM small`)
	awaitStreamed(t, p.A, 3)
	pgtest.Exec(t, a, `INSERT INTO small SELECT generate_series(1, 10)`)
	arrives(t, p, "sales", `SELECT count(*) FROM small`, "10")
	arrives(t, p, "sales", `SELECT count(*) FROM t`, "0")

	inSession(t, one, `SAVEPOINT deep`, `INSERT INTO keyless SELECT 'x', i FROM generate_series(1, 1000) i`, `SAVEPOINT deeper`,
		`UPDATE keyless SET v = 'y' WHERE n % 7 = 0`, `ROLLBACK TO deeper`, `DELETE FROM keyless WHERE n % 5 = 0`, `RELEASE deep`,
		`UPDATE toasted SET n = id WHERE id > 100`)
	inSession(t, two, `UPDATE t SET id = id + 10000000 WHERE id BETWEEN 100001 AND 101000`, `COMMIT`)
	arrives(t, p, "sales", `SELECT count(*) || ' ' || min(v) FROM t`, "3000 two")
	inSession(t, three, `ROLLBACK`)
	pgtest.Exec(t, a, `INSERT INTO small VALUES (11)`)
	arrives(t, p, "sales", `SELECT count(*) FROM small`, "11")

	// Changes of the schema within, of which one is rolled back, and a TRUNCATE.
	inSession(t, one, `SAVEPOINT ddl`, `ALTER TABLE toasted ADD COLUMN lost int DEFAULT 5`, `UPDATE toasted SET lost = 6`, `ROLLBACK TO ddl`, `UPDATE toasted SET n = n + 1`,
		`UPDATE t SET n = 3 WHERE id <= 1500`, `ALTER TABLE t ADD COLUMN kept text DEFAULT 'k'`, `UPDATE t SET kept = v || n WHERE id <= 2000`,
		`TRUNCATE emptied`, `INSERT INTO emptied SELECT i, 'new' FROM generate_series(500, 2500) i`,
		`CREATE TABLE made (id int PRIMARY KEY, v text)`, `INSERT INTO made SELECT i, 'made' FROM generate_series(1, 2000) i`,
		`SAVEPOINT again`, `INSERT INTO made SELECT i, 'not made' FROM generate_series(2001, 4000) i`, `ROLLBACK TO again`,
		`UPDATE made SET v = 'last' WHERE id % 3 = 0`)
	pgtest.Exec(t, a, `INSERT INTO small VALUES (12)`)
	arrives(t, p, "sales", `SELECT count(*) FROM small`, "12")
	arrives(t, p, "sales", `SELECT count(*) FROM emptied WHERE v = 'old'`, "1000")
	pgtest.Eventually(t, linktest.Patience, func() error {
		if l, err := p.A.Client.Link(t.Context(), "sales"); err != nil || l.SpilledBytes == 0 {
			return fmt.Errorf("%d bytes are said to be on disk, %v", l.SpilledBytes, err)
		}
		return nil
	})
	inSession(t, one, `COMMIT`)
	// The description of a table that only streamed transactions have used holds on.
	pgtest.Exec(t, a, `UPDATE made SET v = 'after' WHERE id = 7`, `UPDATE t SET kept = 'after' WHERE id = 9`)
	p.WaitEqual(t, "sales", "sales")

	// A prepared transaction comes when it commits.
	inSession(t, two, `BEGIN`, `INSERT INTO t SELECT i, 'prepared' FROM generate_series(300001, 303000) i`, `PREPARE TRANSACTION 'p'`)
	inSession(t, three, `BEGIN`, `INSERT INTO t SELECT i, 'prepared' FROM generate_series(400001, 403000) i`, `PREPARE TRANSACTION 'q'`)
	awaitStreamed(t, p.A, 5)
	pgtest.Exec(t, a, `INSERT INTO small VALUES (13)`)
	arrives(t, p, "sales", `SELECT count(*) FROM small`, "13")
	arrives(t, p, "sales", `SELECT count(*) FROM t WHERE v = 'prepared'`, "0")
	pgtest.Exec(t, a, `COMMIT PREPARED 'p'`, `ROLLBACK PREPARED 'q'`)
	p.WaitEqual(t, "sales", "sales")

	for _, side := range []*linktest.Side{p.A, p.B} {
		if strings.Contains(side.Log(), "come at their commit") {
			t.Errorf("agent %s has given up transactions before their commit", side.Name)
		}
	}

	// Values that are too large for memory, within. Some servers do not say that such ones
	// were rolled back to a savepoint.
	inSession(t, one, `BEGIN`, `INSERT INTO toasted SELECT i, 0, repeat(md5(i::text), 400000) FROM generate_series(1001, 1003) i`,
		`SAVEPOINT s`, `INSERT INTO toasted SELECT i, 0, repeat(md5(i::text), 400000) FROM generate_series(1004, 1005) i`, `ROLLBACK TO s`, `COMMIT`)
	p.WaitEqual(t, "sales", "sales")
}

// A table that is altered, back to a savepoint, and altered again in one transaction is not
// found by the server that decodes the transaction while it runs; it comes at its commit.
func TestWhatCannotBeDecodedBeforeItsCommit(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{ServerA: blocks()})
	p.A.Server.CreateDatabase(t, "sales")
	a := p.A.Server.DSN("sales")
	pgtest.Exec(t, a, `CREATE TABLE t (id int PRIMARY KEY, v text)`, `CREATE TABLE small (id int PRIMARY KEY)`)
	p.Create(t, "sales", "sales")
	p.WaitPhase(t, "sales", api.Replicating)
	pgtest.Exec(t, a, `BEGIN; INSERT INTO t SELECT i, 'v' FROM generate_series(1, 3000) i;
		SAVEPOINT s; ALTER TABLE t ADD COLUMN lost int; UPDATE t SET lost = 1; ROLLBACK TO s;
		UPDATE t SET v = 'w' WHERE id <= 2000; ALTER TABLE t ADD COLUMN kept int; UPDATE t SET kept = id; COMMIT; INSERT INTO small VALUES (1)`)
	p.WaitEqual(t, "sales", "sales")
	if streamed(t, p.A) == 0 {
		t.Error("nothing came before its commit")
	}
	if log := p.B.Log(); !strings.Contains(log, "code=blocks_refused") {
		t.Error("the server decoded it: a remedy for that is of no use any more")
	}
}

// Whatever is killed or cut while large transactions are under way: nothing is lost and
// nothing comes twice.
func TestLargeTransactionsSurviveKills(t *testing.T) {
	t.Parallel()
	options, network := proxied(t)
	options.ServerA = blocks()
	p := linktest.New(t, options)
	p.A.Server.CreateDatabase(t, "sales")
	a := p.A.Server.DSN("sales")
	pgtest.Exec(t, a, `CREATE TABLE t (id bigint PRIMARY KEY, v text, n int DEFAULT 0)`, `CREATE TABLE keyless (v text, n bigint)`)
	p.Create(t, "sales", "sales")
	p.WaitPhase(t, "sales", api.Replicating)
	ctx, stop := context.WithCancel(t.Context())
	var writing sync.WaitGroup
	for writer := range 3 {
		writing.Go(func() { writeBlocks(ctx, t, a, writer) })
	}
	rng := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 3))
	before := streamed(t, p.A)
	for i := range rounds("TWINSPAN_KILLS", 9) {
		pause(t, time.Duration(200+rng.IntN(1500))*time.Millisecond)
		switch i % 3 {
		case 0:
			p.B.Kill()
			p.B.Start()
		case 1:
			p.A.Kill()
			p.A.Start()
		case 2:
			network(false)
			pause(t, time.Duration(rng.IntN(500))*time.Millisecond)
			network(true)
		}
		p.WaitPhase(t, "sales", api.Replicating, api.CatchingUp)
		awaitStreamed(t, p.A, before+3*i)
	}
	stop()
	writing.Wait()
	p.WaitEqual(t, "sales", "sales")
}

// writeBlocks runs large transactions, parts of which are rolled back, and small ones
// until ctx ends.
func writeBlocks(ctx context.Context, t *testing.T, dsn string, writer int) {
	conn := pgtest.Conn(t, dsn)
	rng := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), uint64(writer)))
	run := func(sql string) {
		if _, err := conn.PgConn().Exec(context.WithoutCancel(ctx), sql).ReadAll(); err != nil {
			t.Errorf("%v\nin: %s", err, sql)
		}
	}
	next := writer * 1_000_000_000
	for ctx.Err() == nil {
		run(fmt.Sprintf(`INSERT INTO keyless VALUES ('small', %d)`, next))
		run(`BEGIN`)
		for range 2 + rng.IntN(5) {
			first, last := next, next+300+rng.IntN(1500)
			next = last + 1
			insert := fmt.Sprintf(`INSERT INTO t SELECT i, md5(i::text) FROM generate_series(%d, %d) i`, first, last)
			update := fmt.Sprintf(`UPDATE t SET n = n + 1 WHERE id BETWEEN %d AND %d`, max(writer*1_000_000_000, first-2000), last)
			switch rng.IntN(4) {
			case 0:
				run(`SAVEPOINT s; ` + insert + `; SAVEPOINT r; ` + update + `; ROLLBACK TO s`)
			case 1:
				run(`SAVEPOINT s; ` + insert + `; SAVEPOINT r; ` + update + `; ROLLBACK TO r; RELEASE s`)
			case 2:
				run(insert + `; ` + fmt.Sprintf(`DELETE FROM t WHERE id BETWEEN %d AND %d AND id %% 3 = 0`, first, last))
			default:
				run(insert + `; ` + update)
			}
			pause(t, time.Duration(rng.IntN(100))*time.Millisecond)
		}
		if rng.IntN(4) == 0 {
			run(`ROLLBACK`)
		} else {
			run(`COMMIT`)
		}
	}
}

// A transaction that does not fit on the agent's disk before its commit comes at its
// commit; nothing stops meanwhile.
func TestLargeTransactionBeyondTheBudget(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{ServerA: blocks(), Config: func(_ string, c *config.Config) { c.Limits.SpillMB = 1 }})
	p.A.Server.CreateDatabase(t, "sales")
	a := p.A.Server.DSN("sales")
	pgtest.Exec(t, a, `CREATE TABLE t (id int PRIMARY KEY, v text)`, `CREATE TABLE small (id int PRIMARY KEY)`)
	p.Create(t, "sales", "sales")
	p.WaitPhase(t, "sales", api.Replicating)
	conn := pgtest.Conn(t, a)
	inSession(t, conn, `BEGIN`, `INSERT INTO t SELECT i, (SELECT string_agg(md5(random()::text || j || i), '') FROM generate_series(1, 10) j) FROM generate_series(1, 20000) i`)
	pgtest.Eventually(t, linktest.Patience, func() error {
		l, err := p.A.Client.Link(t.Context(), "sales")
		if err != nil {
			return err
		}
		for _, problem := range l.Problems {
			if problem.Code == "spill_full" && problem.Severity == api.Warns && problem.Hint != "" {
				return nil
			}
		}
		return fmt.Errorf("no word of it: phase %s, problems %+v", l.Phase, l.Problems)
	})
	pgtest.Exec(t, a, `INSERT INTO small VALUES (1)`)
	arrives(t, p, "sales", `SELECT count(*) FROM small`, "1")
	inSession(t, conn, `INSERT INTO t VALUES (0, 'last')`, `COMMIT`)
	p.WaitEqual(t, "sales", "sales")
	if l, err := p.B.Client.Link(t.Context(), "sales"); err != nil || l.Phase != api.Replicating {
		t.Errorf("the link is in phase %s, %v", l.Phase, err)
	}
}
