package apply

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twinspan/twinspan/internal/pgtest"
	"github.com/twinspan/twinspan/internal/problem"
)

const secret = "the-secret-value"

func TestAChangeThatDoesNotFitIsNamed(t *testing.T) {
	both(t, func(t *testing.T, text bool) {
		for _, c := range []struct {
			name    string
			damage  string // on the secondary
			change  string
			code    string
			subject string
			says    []string
		}{
			{"update without row", "DELETE FROM t WHERE id = 42", "UPDATE t SET v = '" + secret + "2' WHERE id > 40", "row_missing", "public.t (id, k) = (42, k42)", []string{"UPDATE public.t SET", "finds no row"}},
			{"delete without row", "DELETE FROM t WHERE id = 42", "DELETE FROM t WHERE id = 42", "row_missing", "public.t (id, k) = (42, k42)", []string{"DELETE FROM public.t"}},
			{"changed key without row", "DELETE FROM t WHERE id = 42", "UPDATE t SET id = 4242 WHERE id = 42", "row_missing", "public.t (id, k) = (42, k42)", []string{"UPDATE"}},
			{"insert of a row that is there", "INSERT INTO t VALUES (101, 'k', 'x')", "INSERT INTO t SELECT i, 'k', '" + secret + "2' FROM generate_series(90, 110) i", "row_duplicate", "public.t (id, k) = (101, k)", []string{"INSERT INTO public.t", "t_pkey"}},
			{"delete without key and row", "DELETE FROM nokey WHERE v LIKE '%7'", "DELETE FROM nokey WHERE v LIKE '%7'", "row_missing", "public.nokey", []string{"DELETE FROM public.nokey"}},
			{"constraint of the secondary", "ALTER TABLE t ADD CONSTRAINT nope CHECK (v <> '" + secret + "2')", "UPDATE t SET v = '" + secret + "2' WHERE id = 3", "apply_failed", "public.t (id, k) = (3, k3)", []string{"nope"}},
			{"value that the secondary refuses", "ALTER TABLE t ALTER w TYPE varchar(5)", "UPDATE t SET w = '" + secret + "2' WHERE id = 3", "apply_failed", "public.t (id, k) = (3, k3)", []string{"22001"}},
			{"key that is not unique", "ALTER TABLE t DROP CONSTRAINT t_pkey; INSERT INTO t SELECT * FROM t WHERE id = 5", "UPDATE t SET v = '" + secret + "2' WHERE id = 5", "identity_missing", "public.t", []string{`("id", "k")`, "cannot tell rows apart"}},
			{"table that is missing", "DROP TABLE t", "DELETE FROM t", "schema_differs", "public.t", []string{"public.t", "missing"}},
			{"column that is missing", "ALTER TABLE t DROP v", "DELETE FROM t", "schema_differs", "public.t", []string{`"v"`, "missing"}},
			{"column that is too much", `ALTER TABLE t ADD "More" int`, "DELETE FROM t", "schema_differs", "public.t", []string{`"More"`}},
		} {
			t.Run(c.name, func(t *testing.T) {
				p := newPair(t, text, "CREATE TABLE t (id int, k varchar(10), v text, w varchar(50), PRIMARY KEY (id, k))", "CREATE TABLE nokey (v text); ALTER TABLE nokey REPLICA IDENTITY FULL", "CREATE TABLE before (id int PRIMARY KEY)")
				p.do("INSERT INTO t SELECT i, 'k' || i, '"+secret+"' FROM generate_series(1, 60) i", "INSERT INTO nokey SELECT '"+secret+"' || i FROM generate_series(1, 9) i")
				p.apply()
				at := p.progress()
				before := pgtest.Table(t, p.target, "nokey")
				pgtest.Exec(t, p.target, c.damage)
				p.do("INSERT INTO before VALUES (1)", c.change)
				_, err := p.try()
				e := problem.As(err)
				if e == nil || e.Kind != problem.Diverged || e.Code != c.code || e.Subject != c.subject || e.Hint == "" {
					t.Fatalf("got %+v", e)
				}
				contains(t, err.Error(), c.says...)
				if c.code != "schema_differs" && c.code != "identity_missing" {
					contains(t, err.Error(), "transaction ", "committed at ")
				}
				if strings.Contains(err.Error()+e.Subject+e.Hint, secret) {
					t.Errorf("a value is shown: %v", err)
				}
				if got := p.progress(); got != at {
					t.Errorf("moved from %s to %s", at, got)
				}
				if got := pgtest.Query(t, p.target, "SELECT count(*) FROM before")[0][0]; got != "0" {
					t.Errorf("a part of the group is there")
				}
				if !strings.Contains(c.damage, "nokey") && pgtest.Table(t, p.target, "nokey") != before {
					t.Error("another table changed")
				}
			})
		}
	})
}

func TestAfterTheRepairByHandItGoesOn(t *testing.T) {
	p := newPair(t, false, "CREATE TABLE t (id int PRIMARY KEY, v text)")
	p.do("INSERT INTO t SELECT i, 'v' FROM generate_series(1, 30) i")
	p.apply()
	pgtest.Exec(t, p.target, "DELETE FROM t WHERE id = 7")
	p.do("UPDATE t SET v = 'w'", "INSERT INTO t VALUES (31, 'x')")
	if _, err := p.try(); code(err) != "row_missing" {
		t.Fatalf("got %v", err)
	}
	pgtest.Exec(t, p.target, "INSERT INTO t VALUES (7, 'v')")
	p.apply()
	p.same()
}

func TestALockIsWaitedFor(t *testing.T) {
	p := newPair(t, false, "CREATE TABLE t (id int PRIMARY KEY, v text)", "CREATE TABLE u (id int PRIMARY KEY, v text)")
	p.do("INSERT INTO t SELECT i, 'v' FROM generate_series(1, 30) i", "INSERT INTO u VALUES (1)")
	p.apply()
	p.do("INSERT INTO u VALUES (2)", "TRUNCATE t", "INSERT INTO t VALUES (1, 'new')")
	reader := pgtest.Conn(t, p.target)
	if _, err := reader.Exec(testContext(t), "BEGIN; SELECT count(*) FROM t"); err != nil {
		t.Fatal(err)
	}
	until := p.position()
	a := p.applier(until)
	var log logBuffer
	a.Log = log.logger()
	done := make(chan error, 1)
	tape := p.record(p.messages(), until, nil)
	go func() { done <- a.Run(testContext(t), tape) }()
	pgtest.Eventually(t, time.Minute, func() error {
		if a.Status().Retries == 0 {
			return fmt.Errorf("not tried again yet")
		}
		return nil
	})
	if _, err := reader.Exec(testContext(t), "COMMIT"); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	p.same()
	if s := a.Status(); s.Fallbacks != 0 {
		t.Errorf("status is %+v", s)
	}
	contains(t, log.String(), "group waits for a lock", "55P03")
}

func TestADeadlockIsTriedAgain(t *testing.T) {
	p := newPair(t, false, "CREATE TABLE a (id int PRIMARY KEY)", "CREATE TABLE b (id int PRIMARY KEY)")
	p.do("INSERT INTO a VALUES (1)", "INSERT INTO b VALUES (1)")
	p.apply()
	p.do("BEGIN; TRUNCATE a; TRUNCATE b; COMMIT")
	other := pgtest.Conn(t, p.target)
	if _, err := other.Exec(testContext(t), "BEGIN; LOCK b"); err != nil {
		t.Fatal(err)
	}
	until := p.position()
	a := p.applier(until)
	done := make(chan error, 1)
	tape := p.record(p.messages(), until, nil)
	go func() { done <- a.Run(testContext(t), tape) }()
	pgtest.Eventually(t, time.Minute, func() error {
		if got := pgtest.Query(t, p.target, "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'twinspan/"+p.origin+"/apply' AND wait_event_type = 'Lock'")[0][0]; got != "1" {
			return fmt.Errorf("not waiting yet")
		}
		return nil
	})
	// One of the two is chosen as the victim; whichever it is, the other goes on.
	_, _ = other.Exec(testContext(t), "LOCK a")
	_, _ = other.Exec(testContext(t), "ROLLBACK")
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	p.same()
}

func TestACancelledStatementIsTriedAgain(t *testing.T) {
	p := newPair(t, false, "CREATE TABLE t (id int PRIMARY KEY)")
	p.do("INSERT INTO t SELECT generate_series(1, 100)", "TRUNCATE t", "INSERT INTO t VALUES (1)")
	reader := pgtest.Conn(t, p.target)
	if _, err := reader.Exec(testContext(t), "BEGIN; SELECT count(*) FROM t"); err != nil {
		t.Fatal(err)
	}
	until := p.position()
	a := p.applier(until)
	done := make(chan error, 1)
	tape := p.record(p.messages(), until, nil)
	go func() { done <- a.Run(testContext(t), tape) }()
	pgtest.Eventually(t, time.Minute, func() error {
		if got := pgtest.Query(t, p.target, "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity WHERE application_name = 'twinspan/"+p.origin+"/apply' AND wait_event_type = 'Lock'")[0][0]; got != "1" {
			return fmt.Errorf("not waiting yet")
		}
		return nil
	})
	if _, err := reader.Exec(testContext(t), "COMMIT"); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if a.Status().Retries == 0 {
		t.Error("it was not tried again")
	}
	p.same()
}

func TestNonsenseInTheStream(t *testing.T) {
	begin := "B\x00\x00\x00\x00\x00\x00\x10\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x05"
	for name, records := range map[string][]byte{
		"short record":         {0, 0, 0, 9, 'B'},
		"short length":         {0, 0},
		"unknown message":      record([]byte("?")),
		"change outside":       record([]byte("I\x00\x00\x00\x01N\x00\x00")),
		"commit outside":       record([]byte("C\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x00")),
		"begin inside":         append(record([]byte(begin)), record([]byte(begin))...),
		"undescribed relation": append(record([]byte(begin)), record([]byte("I\x00\x00\x00\x01N\x00\x00"))...),
		"streaming":            record([]byte("S\x00\x00\x00\x05\x01")),
		"two phases":           record([]byte("b")),
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, false, "CREATE TABLE t (id int PRIMARY KEY)")
			a := p.applier(0)
			err := a.Run(testContext(t), &tape{items: []Item{{Records: records}}})
			if code(err) != "stream_corrupt" || problem.KindOf(err) != problem.Internal {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestRunNeedsItsFields(t *testing.T) {
	if err := (&Applier{}).Run(testContext(t), &tape{}); problem.KindOf(err) != problem.Internal {
		t.Errorf("got %v", err)
	}
	p := newPair(t, false, "CREATE TABLE t (id int PRIMARY KEY)")
	a := p.applier(0)
	a.Encoding = "SJIS"
	if err := a.Run(testContext(t), &tape{}); code(err) != "encoding_unusable" {
		t.Errorf("got %v", err)
	}
	a = p.applier(0)
	a.Origin = "nowhere"
	if err := a.Run(testContext(t), &tape{}); err == nil {
		t.Error("an origin that is missing was taken")
	}
}
