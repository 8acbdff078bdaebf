package capture_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/twinspan/twinspan/internal/capture"
	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/pgtest"
)

var errDrained = errors.New("drained")

// drain throws away what it gets, and ends the stream where it has come to the end.
type drain struct {
	s   *capture.Stream
	end lsn.LSN
}

func (d drain) Write(p []byte) (int, error) { return len(p), nil }

func (d drain) Flush() error {
	if d.s.Sent() >= d.end {
		return errDrained
	}
	return nil
}

// BenchmarkBacklog reads a backlog of b.N transactions of four changes each, with and
// without TLS to the server. The slot stays where it is, as for a report of what was lost.
func BenchmarkBacklog(b *testing.B) {
	server := pgtest.Start(b, pgtest.WithSetting("max_wal_size", "8GB"))
	dsn, source := fresh(b, server)
	prepare(b, source)
	pgtest.Exec(b, dsn, `CREATE TABLE accounts (id int PRIMARY KEY, filler char(84), balance int)`, `CREATE TABLE history (id bigserial PRIMARY KEY, account int, delta int)`,
		`INSERT INTO accounts SELECT i, '', 0 FROM generate_series(1, 1000) i`,
		`CREATE PROCEDURE work(n int) LANGUAGE plpgsql AS $$ BEGIN
			FOR i IN 1..n LOOP
				UPDATE accounts SET balance = balance + i WHERE id = i % 1000 + 1;
				UPDATE accounts SET balance = balance - i WHERE id = i % 997 + 1;
				UPDATE accounts SET balance = balance + 1 WHERE id = i % 11 + 1;
				INSERT INTO history (account, delta) VALUES (i % 1000 + 1, i);
				COMMIT;
			END LOOP; END $$`)
	made, from, end := 0, lsn.LSN(0), lsn.LSN(0)
	for _, mode := range []string{"require", "disable"} {
		b.Run("sslmode="+mode, func(b *testing.B) {
			if made != b.N { // both modes read the same
				pgtest.Exec(b, dsn, `SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots`, `CHECKPOINT`)
				from = makeSlot(b, dsn, source.Object())
				pgtest.Exec(b, dsn, fmt.Sprintf(`CALL work(%d)`, b.N))
				if err := end.UnmarshalText([]byte(pgtest.Query(b, dsn, `SELECT pg_current_wal_lsn()`)[0][0])); err != nil {
					b.Fatal(err)
				}
				pgtest.Exec(b, dsn, `CALL work(1)`) // its commit is the first behind the end
				made = b.N
			}
			read := source
			read.DSN = parse(b, strings.Replace(dsn, "sslmode=require", "sslmode="+mode, 1))
			s := capture.NewStream(read, from)
			s.Binary, s.Peek, s.Sink = true, true, drain{s, end}
			b.ResetTimer()
			if err := s.Run(testContext(b)); !errors.Is(err, errDrained) {
				b.Fatal(err)
			}
			b.StopTimer()
			b.ReportMetric(float64(4*b.N)/b.Elapsed().Seconds(), "changes/s")
			awaitIdle(b, dsn, source.Object())
		})
	}
}
