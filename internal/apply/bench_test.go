package apply

import (
	"testing"

	"github.com/twinspan/twinspan/internal/pgtest"
)

// BenchmarkApply applies recorded streams as fast as it goes; a change is one row.
func BenchmarkApply(b *testing.B) {
	for _, w := range []struct{ name, schema, work, reset string }{
		{"tpcb",
			`CREATE TABLE branches (bid int PRIMARY KEY, balance int, filler char(88)); CREATE TABLE tellers (tid int PRIMARY KEY, bid int, balance int, filler char(84));
			CREATE TABLE accounts (aid int PRIMARY KEY, bid int, balance int, filler char(84)); CREATE TABLE history (tid int, bid int, aid int, delta int, mtime timestamp, filler char(22));
			ALTER TABLE history REPLICA IDENTITY FULL;
			INSERT INTO branches SELECT i, 0 FROM generate_series(1, 10) i; INSERT INTO tellers SELECT i, i / 10, 0 FROM generate_series(1, 100) i; INSERT INTO accounts SELECT i, 1, 0, '' FROM generate_series(1, 100000) i`,
			`DO $$ BEGIN FOR i IN 1..20000 LOOP
				UPDATE accounts SET balance = balance + i WHERE aid = 1 + (i * 7919) % 100000; UPDATE tellers SET balance = balance + i WHERE tid = 1 + i % 100;
				UPDATE branches SET balance = balance + i WHERE bid = 1 + i % 10; INSERT INTO history VALUES (1, 2, 3, i, now(), ''); COMMIT; END LOOP; END $$`,
			"TRUNCATE history"},
		{"updates", "CREATE TABLE t (id bigint PRIMARY KEY, n int, v text); INSERT INTO t SELECT i, 0, 'some text ' || i FROM generate_series(1, 100000) i",
			"DO $$ BEGIN FOR i IN 1..30000 LOOP UPDATE t SET n = i WHERE id = 1 + (i::bigint * 7919) % 100000; COMMIT; END LOOP; END $$", "SELECT 1"},
		{"arrays", "CREATE TABLE t (id bigint PRIMARY KEY, n int, v text[]); INSERT INTO t SELECT i, 0, ARRAY['some text', 'and more ' || i] FROM generate_series(1, 100000) i",
			"DO $$ BEGIN FOR i IN 1..30000 LOOP UPDATE t SET n = i WHERE id = 1 + (i::bigint * 7919) % 100000; COMMIT; END LOOP; END $$", "SELECT 1"},
		{"inserts", "CREATE TABLE t (id bigint PRIMARY KEY, n int, v text)",
			"INSERT INTO t SELECT i, 0, md5(i::text) FROM generate_series(1, 100000) i", "TRUNCATE t"},
	} {
		b.Run(w.name, func(b *testing.B) {
			p := newPair(b, false, w.schema)
			p.do(w.work)
			until := p.position()
			messages := p.messages()
			var changes int64
			for b.Loop() {
				b.StopTimer()
				pgtest.Exec(b, p.target, w.reset, "CHECKPOINT")
				a := p.applier(until)
				a.Start = 0
				tape := p.record(messages, until, nil)
				b.StartTimer()
				if err := a.Run(testContext(b), tape); err != nil {
					b.Fatal(err)
				}
				if s := a.Status(); s.Fallbacks != 0 {
					b.Fatalf("status is %+v", s)
				}
				changes += a.Status().Changes
			}
			b.ReportMetric(float64(changes)/b.Elapsed().Seconds(), "changes/s")
		})
	}
}
