package seed_test

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/pgtest"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/seed"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// tables are several sizes and identities: keyed is in many chunks.
const tables = `
CREATE TABLE keyed (k int NOT NULL, part text NOT NULL, v text, n int, PRIMARY KEY (k, part));
INSERT INTO keyed SELECT i, 'p' || i % 7, repeat(md5(i::text), 8), i FROM generate_series(1, 12000) i;
CREATE EXTENSION citext;
CREATE TABLE folded (c citext PRIMARY KEY, v text, m citext[]);
INSERT INTO folded SELECT 'Key' || i, repeat(md5(i::text), 8), ARRAY['x'] FROM generate_series(1, 4000) i;
CREATE TABLE nokey (i int, v text);
INSERT INTO nokey SELECT i, repeat(md5(i::text), 8) FROM generate_series(1, 5000) i;
CREATE TABLE small (i int PRIMARY KEY, v text); INSERT INTO small SELECT i, i FROM generate_series(1, 100) i;
CREATE TABLE tiny (i int); INSERT INTO tiny VALUES (1);
`

// writes changes rows in every way: in place, moved to other blocks, with another
// key, deleted, inserted again, in place of another.
const writes = `
UPDATE keyed SET v = v || 'x', n = -n WHERE k % 5 = 0;
UPDATE keyed SET part = 'q' WHERE k % 11 = 0;
DELETE FROM keyed WHERE k % 7 = 0;
INSERT INTO keyed SELECT i, 'p' || i % 7, 'again', 0 FROM generate_series(1, 12000) i WHERE i % 14 = 0;
DELETE FROM keyed WHERE k BETWEEN 100 AND 120; UPDATE keyed SET k = k - 21 WHERE k BETWEEN 121 AND 141;
INSERT INTO keyed SELECT i, 'new', 'v', 1 FROM generate_series(1, 500) i;
UPDATE folded SET c = upper(c::text) WHERE v < '8'; DELETE FROM folded WHERE v > 'e'; INSERT INTO folded SELECT 'KEY' || i, 'back' FROM generate_series(1, 4000) i ON CONFLICT DO NOTHING;
UPDATE nokey SET v = 'y' WHERE i % 3 = 0; DELETE FROM nokey WHERE i % 5 = 0;
UPDATE small SET v = 'changed'; INSERT INTO tiny VALUES (2);
`

var copied = []string{"keyed", "folded", "nokey", "small", "tiny"}

func names(t testing.TB, dsn string) map[uint32]string {
	found := map[uint32]string{}
	for _, row := range pgtest.Query(t, dsn, "SELECT oid, relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace") {
		var oid uint32
		fmt.Sscan(row[0], &oid)
		found[oid] = row[1]
	}
	return found
}

func TestCancelledCopyGoesOn(t *testing.T) {
	w := sharedTwin(t, tables)
	w.target.Workers = 3
	seen := map[string]int{}
	for try := 0; ; try++ {
		ctx, cancel := context.WithCancel(t.Context())
		w.tap.before = func(n int, _ seed.CopyRequest) error {
			if n >= 9 {
				cancel()
			}
			return nil
		}
		_, err := w.target.Copy(ctx)
		cancel()
		for _, r := range w.tap.reset() {
			seen[fmt.Sprint(r.OID, r.First)]++
		}
		if err == nil {
			if try < 3 {
				t.Errorf("only %d interruptions", try)
			}
			break
		}
		if kind := problem.KindOf(err); kind != problem.Cancelled && kind != problem.Transient {
			t.Fatal(err)
		}
	}
	pgtest.Equal(t, w.from, w.to)
	if len(w.tap.begun) != 1 {
		t.Errorf("%d sessions", len(w.tap.begun))
	}
	again := 0
	for _, n := range seen {
		again += n - 1
	}
	if most := 3 * 10; again > most {
		t.Errorf("%d chunks were asked for again", again)
	}
}

func TestFinishedChunksAreNotAskedForAgain(t *testing.T) {
	w := sharedTwin(t, tables)
	w.target.Workers = 1
	done := map[string]bool{}
	cut := true
	w.tap.after = func(n int, r seed.CopyRequest, rows int64, err error) (int64, error) {
		id := fmt.Sprint(r.OID, r.First)
		if done[id] {
			t.Errorf("%s is asked for again", id)
		}
		// Each second request fails in its middle, as if the network broke.
		if cut = !cut; !cut {
			return rows, problem.New(problem.Transient, "connection_lost", "cut")
		}
		done[id] = true
		return rows, err
	}
	w.until()
	pgtest.Equal(t, w.from, w.to)
}

// What is copied as a whole might never come to its end on a network that breaks again and
// again.
func TestWholeTableIsDividedAfterAnInterruption(t *testing.T) {
	w := sharedTwin(t, tables)
	w.target.Workers, w.target.ChunkBytes = 1, 1<<40
	w.tap.after = func(n int, r seed.CopyRequest, rows int64, err error) (int64, error) {
		if n == 2 {
			return rows, problem.New(problem.Transient, "connection_lost", "cut")
		}
		return rows, err
	}
	if _, err := w.target.Copy(t.Context()); !problem.Retry(err) {
		t.Fatal(err)
	}
	before := w.tap.reset()
	w.tap.after = nil
	w.target.ChunkBytes = 256 << 10
	w.copy()
	ranges := map[uint32]int{}
	for _, r := range w.tap.reset() {
		ranges[r.OID]++
	}
	if len(before) != 2 || ranges[before[0].OID] != 0 || ranges[before[1].OID] < 3 {
		t.Errorf("asked for %v, then for %v", before, ranges)
	}
	pgtest.Equal(t, w.from, w.to)
}

// keys tell the rows of a table apart as its key does.
var keys = map[string]string{"keyed": "ROW(k, part)::text", "folded": "lower(c::text)"}

// contents are rows and keys of the tables at one session.
type contents struct{ rows, keys map[string]map[string]int }

// remember notes what every session sees.
func (w *twin) remember() {
	w.tap.Remote = keeping{w.tap.Remote}
	w.seen = map[lsn.LSN]contents{}
	w.tap.onBegin = func(b seed.Begun) {
		conn := w.at(b.Token)
		c := contents{map[string]map[string]int{}, map[string]map[string]int{}}
		for _, name := range copied {
			c.rows[name] = rowsOf(w.t, conn, "SELECT r::text FROM "+name+" r")
			if key, ok := keys[name]; ok {
				c.keys[name] = rowsOf(w.t, conn, "SELECT "+key+" FROM "+name)
			}
		}
		w.seen[b.LSN] = c
		conn.Close(context.Background())
	}
}

// check compares the target with what the result promises: a table has the rows
// of the session that the result names for it. In repair it may have others
// besides, whose keys are not alive there.
func (w *twin) check(r seed.Result) {
	w.t.Helper()
	target := pgtest.Conn(w.t, w.to)
	for _, name := range copied {
		table := sqlname.Table{Schema: "public", Name: name}
		position := cmp.Or(r.Repair[table], r.SkipBefore[table], r.Start)
		want, have := w.seen[position].rows[name], rowsOf(w.t, target, "SELECT r::text FROM "+name+" r")
		for row, n := range want {
			if have[row] != n {
				w.t.Errorf("%s at %v: row %.60s is there %d times, not %d", name, position, row, have[row], n)
				break
			}
			delete(have, row)
		}
		if r.Repair[table] == 0 {
			if len(have) > 0 {
				w.t.Errorf("%s at %v: %d rows too many", name, position, len(have))
			}
			continue
		}
		besides := 0
		for k, n := range rowsOf(w.t, target, "SELECT "+keys[name]+" FROM "+name) {
			if n > 1 {
				w.t.Errorf("%s: key %s is there twice", name, k)
			}
			if w.seen[position].keys[name][k] == 0 {
				besides++
			}
		}
		if besides != len(have) {
			w.t.Errorf("%s: %d rows besides those alive, with %d keys", name, len(have), besides)
		}
		w.t.Logf("%s in repair: %d rows besides %d", name, besides, len(want))
	}
}

func TestLostSnapshot(t *testing.T) {
	for round := range 3 {
		t.Run(fmt.Sprint(round), func(t *testing.T) {
			w := sharedTwin(t, tables)
			w.target.Workers = 2
			byOID := names(t, w.from)
			counts := map[string]int{}
			var once sync.Once
			// Somewhere among the chunks of each table in turn.
			victim := []string{"keyed", "folded", "nokey"}[round]
			lost := make(chan struct{})
			w.tap.before = func(_ int, r seed.CopyRequest) error {
				if byOID[r.OID] == "small" { // it is to come of the second snapshot
					select {
					case <-lost:
					case <-t.Context().Done():
					}
				}
				w.tap.mu.Lock()
				counts[byOID[r.OID]]++
				n := counts[victim]
				w.tap.mu.Unlock()
				if n == 3 { // of two at a time, one is complete then
					once.Do(func() {
						w.lose()
						pgtest.Exec(t, w.from, writes)
						close(lost)
					})
				}
				return nil
			}
			w.remember()
			remember := w.tap.onBegin
			w.tap.onBegin = func(b seed.Begun) {
				remember(b)
				if len(w.tap.begun) == 2 {
					// While the second session copies, others write on.
					pgtest.Exec(t, w.from, "UPDATE keyed SET v = 'after'; DELETE FROM small; INSERT INTO nokey VALUES (0, 'after'); UPDATE folded SET v = 'after'")
				}
			}
			r := w.until()
			if len(w.tap.begun) != 2 {
				t.Fatalf("%d sessions", len(w.tap.begun))
			}
			first, second := w.tap.begun[0], w.tap.begun[1]
			w.check(r)
			if first.LSN >= second.LSN || r.Start != first.LSN {
				t.Errorf("positions %v, %v, start %v", first.LSN, second.LSN, r.Start)
			}
			want := [][2]string{{"keyed", "repair"}, {"folded", "repair"}, {"nokey", "skip"}}[round]
			name := sqlname.Table{Schema: "public", Name: want[0]}
			switch want[1] {
			case "repair":
				if r.Repair[name] != second.LSN || r.RepairUntil != second.LSN || r.SkipBefore[name] != 0 || len(r.Keys[name]) == 0 {
					t.Errorf("result %+v", r)
				}
			case "skip":
				if r.SkipBefore[name] != second.LSN || r.Repair[name] != 0 {
					t.Errorf("result %+v", r)
				}
			}
			small := sqlname.Table{Schema: "public", Name: "small"}
			if r.SkipBefore[small] != second.LSN {
				t.Errorf("small was copied at the second session, result %+v", r)
			}
			if err := w.schema.BuildIdentities(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// keeping keeps the session for the test to look at.
type keeping struct{ seed.Remote }

func (keeping) End(context.Context, string) error { return nil }

func TestManyLostSnapshots(t *testing.T) {
	w := sharedTwin(t, tables)
	w.target.Workers = 2
	w.remember()
	n := 0
	w.tap.before = func(int, seed.CopyRequest) error {
		w.tap.mu.Lock()
		defer w.tap.mu.Unlock()
		if n++; n%6 == 0 && n < 60 {
			w.lose()
			pgtest.Exec(t, w.from, fmt.Sprintf(`UPDATE keyed SET n = n + 1 WHERE k %% 13 = %[1]d; DELETE FROM keyed WHERE k %% 17 = %[1]d;
				INSERT INTO keyed SELECT i, 'r%[1]d', 'w', %[1]d FROM generate_series(1, 200) i; UPDATE folded SET c = 'k%[1]d' || c WHERE v ~ '^%[1]d'`, n/6))
		}
		return nil
	}
	r := w.until()
	if len(w.tap.begun) < 5 {
		t.Errorf("only %d sessions", len(w.tap.begun))
	}
	w.check(r)
}

func TestTablesTruncatedOrRewrittenUnderTheSnapshot(t *testing.T) {
	w := sharedTwin(t, tables)
	w.target.Workers = 1
	w.remember()
	byOID := names(t, w.from)
	counts := map[string]int{}
	w.tap.before = func(_ int, r seed.CopyRequest) error {
		name := byOID[r.OID]
		counts[name]++
		switch {
		case name == "keyed" && counts[name] == 3:
			pgtest.Exec(t, w.from, "TRUNCATE small", "INSERT INTO small VALUES (7, 'new')", "VACUUM FULL folded", "UPDATE folded SET v = 'moved'")
		case name == "nokey" && counts[name] == 3:
			pgtest.Exec(t, w.from, "DELETE FROM nokey WHERE i < 2000", "VACUUM FULL nokey")
		}
		return nil
	}
	r := w.copy()
	if len(w.tap.begun) != 2 {
		t.Fatalf("%d sessions", len(w.tap.begun))
	}
	w.check(r)
	for name, skip := range map[string]bool{"small": true, "folded": true, "nokey": true, "keyed": false, "tiny": false} {
		table := sqlname.Table{Schema: "public", Name: name}
		if (r.SkipBefore[table] == w.tap.begun[1].LSN) != skip {
			t.Errorf("%s: %v", name, r.SkipBefore[table])
		}
	}
	if len(r.Repair) != 0 {
		t.Errorf("in repair: %v", r.Repair)
	}
}

func TestTruncatedBeforeThePlan(t *testing.T) {
	w := sharedTwin(t, tables)
	w.remember()
	remember := w.tap.onBegin
	w.tap.onBegin = func(b seed.Begun) {
		remember(b)
		if len(w.tap.begun) == 1 {
			pgtest.Exec(t, w.from, "TRUNCATE small, keyed", "INSERT INTO small VALUES (7, 'new')")
		}
	}
	r := w.copy()
	if len(w.tap.begun) != 2 || r.SkipBefore[sqlname.Table{Schema: "public", Name: "small"}] != w.tap.begun[1].LSN {
		t.Errorf("%d sessions, %v", len(w.tap.begun), r.SkipBefore)
	}
	w.check(r)
}

func TestTruncatedBetweenSessions(t *testing.T) {
	w := sharedTwin(t, tables)
	w.target.Workers = 1
	w.remember()
	w.tap.before = func(n int, _ seed.CopyRequest) error {
		if n == 6 {
			w.lose()
			pgtest.Exec(t, w.from, "TRUNCATE keyed, tiny; INSERT INTO keyed SELECT i, 't', 'x' FROM generate_series(1, 3000) i")
		}
		return nil
	}
	r := w.until()
	w.check(r)
}

func TestSchemaChangedBetweenSessions(t *testing.T) {
	for sql, subject := range map[string]string{
		"CREATE TABLE later (i int)":                  "public.later",
		"DROP TABLE tiny":                             "public.tiny",
		"DROP TABLE tiny; CREATE TABLE tiny (i int)":  "public.tiny",
		"ALTER TABLE keyed ADD COLUMN more int":       "public.keyed",
		"ALTER TABLE small ALTER v TYPE varchar(300)": "public.small",
	} {
		w := sharedTwin(t, tables)
		w.target.Workers = 1
		w.tap.before = func(n int, _ seed.CopyRequest) error {
			if n == 4 {
				w.lose()
				pgtest.Exec(t, w.from, sql)
			}
			return nil
		}
		var err error
		for err = problem.New(problem.Transient, "", ""); problem.Retry(err); {
			_, err = w.target.Copy(t.Context())
		}
		wantProblem(t, err, "schema_changed_during_seeding", subject, problem.Conflict)
	}
}

func TestLostSlotEndsTheSeeding(t *testing.T) {
	w := sharedTwin(t, tables)
	w.target.Workers = 1
	w.tap.before = func(n int, _ seed.CopyRequest) error {
		if n == 4 {
			w.lose()
			pgtest.Exec(t, w.from, "SELECT pg_drop_replication_slot('"+w.source.Slot+"')")
		}
		return nil
	}
	var err error
	for err = problem.New(problem.Transient, "", ""); problem.Retry(err); {
		_, err = w.target.Copy(t.Context())
	}
	wantProblem(t, err, "slot_lost", w.source.Slot, problem.Diverged)
}

func TestKilledServers(t *testing.T) {
	a, b := pgtest.Start(t), pgtest.Start(t)
	from, to := a.DSN(a.Database(t)), b.DSN(b.Database(t))
	pgtest.Exec(t, from, tables)
	w := newTwin(t, from, to)
	w.remember()
	w.target.Workers = 2
	var first, second sync.Once
	w.tap.before = func(n int, _ seed.CopyRequest) error {
		switch {
		case n == 8:
			first.Do(func() { b.Kill(); b.Restart() })
		case n >= 16:
			second.Do(func() {
				a.Kill()
				a.Restart()
				pgtest.Exec(t, from, writes)
			})
		}
		return nil
	}
	r := w.until()
	if len(w.tap.begun) != 2 {
		t.Fatalf("%d sessions", len(w.tap.begun))
	}
	w.check(r)
}

func TestPrimaryIsNeverMadeToWait(t *testing.T) {
	w := sharedTwin(t, tables)
	w.target.Workers = 1
	conn := pgtest.Conn(t, w.from)
	run := func(sql string) {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Error(err)
		}
	}
	w.tap.before = func(n int, r seed.CopyRequest) error {
		if n == 2 {
			// An open ALTER TABLE: the copy must step back again and again for others to pass.
			run("BEGIN; LOCK TABLE keyed IN ACCESS EXCLUSIVE MODE")
			go func() {
				watcher := pgtest.Conn(t, w.from)
				pgtest.Eventually(t, lockPatience, func() error {
					var waits int
					err := watcher.QueryRow(context.Background(), "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'twinspan/sales/copy' AND wait_event_type = 'Lock' AND datname = current_database()").Scan(&waits)
					if err == nil && waits == 0 {
						err = fmt.Errorf("nobody waits")
					}
					return err
				})
				pgtest.Eventually(t, lockPatience, func() error {
					var idle int
					err := watcher.QueryRow(context.Background(), "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'twinspan/sales/copy' AND state = 'idle' AND query = 'ROLLBACK' AND datname = current_database()").Scan(&idle)
					if err == nil && idle == 0 {
						err = fmt.Errorf("nobody stepped back")
					}
					return err
				})
				run("COMMIT")
			}()
		}
		return nil
	}
	w.copy()
	pgtest.Equal(t, w.from, w.to)
}
