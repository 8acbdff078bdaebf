package seed_test

import (
	"context"
	"io"
	"log/slog"
	osexec "os/exec"
	"testing"

	"github.com/twinspan/twinspan/internal/instance"
	"github.com/twinspan/twinspan/internal/pgtest"
	"github.com/twinspan/twinspan/internal/seed"
)

// benchRows is about 260 MB of pgbench_accounts.
const benchRows = 2_000_000

const benchTable = "CREATE TABLE accounts (aid int NOT NULL, bid int, abalance int, at timestamptz, filler char(84))"

func benchSource(b *testing.B) (*pgtest.Server, string, int64) {
	s := pgtest.Shared(b)
	from := s.DSN(s.Database(b))
	pgtest.Exec(b, from, benchTable, "INSERT INTO accounts SELECT i, i % 10, i, now(), 'x' FROM generate_series(1, 2000000) i", "VACUUM ANALYZE accounts", "CHECKPOINT")
	if got := pgtest.Query(b, from, "SELECT count(*) FROM accounts")[0][0]; got != "2000000" {
		b.Fatal(got)
	}
	return s, from, benchRows * 130
}

// BenchmarkCopy copies one table with one worker in one chunk, and with two.
func BenchmarkCopy(b *testing.B) {
	s, from, bytes := benchSource(b)
	for name, workers := range map[string]int{"1-worker": 1, "2-workers": 2} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(bytes)
			for b.Loop() {
				b.StopTimer()
				to := s.DSN(s.Database(b))
				w := newTwin(b, from, to)
				w.target.Log = slog.New(slog.DiscardHandler)
				w.target.Workers, w.target.ChunkBytes = workers, 1<<30/int64(workers*workers*workers)
				w.target.Prepare = func(context.Context, string) error {
					pgtest.Exec(b, to, benchTable)
					b.StartTimer()
					return nil
				}
				if _, err := w.target.Copy(b.Context()); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				pgtest.Exec(b, from, "SELECT pg_drop_replication_slot('"+w.source.Slot+"')")
				b.StartTimer()
			}
		})
	}
}

// BenchmarkRead only reads the source, as a peer that writes to nowhere.
func BenchmarkRead(b *testing.B) {
	_, from, bytes := benchSource(b)
	source := &seed.Source{DSN: parse(b, from), Name: "sales", Slot: "bench_read", Log: slog.New(slog.DiscardHandler)}
	defer source.Close()
	begun, err := source.Begin(b.Context(), seed.BeginRequest{})
	if err != nil {
		b.Fatal(err)
	}
	tables, err := source.Tables(b.Context(), begun.Token)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(bytes)
	for b.Loop() {
		rows, err := source.Copy(b.Context(), begun.Token, seed.CopyRequest{OID: tables[0].OID, Columns: []string{"aid", "bid", "abalance", "at", "filler"}, Binary: true}, io.Discard)
		if err != nil || rows != benchRows {
			b.Fatal(rows, err)
		}
	}
}

// BenchmarkPsql is what seeding is compared with: psql's \copy piped into another.
func BenchmarkPsql(b *testing.B) {
	s, from, bytes := benchSource(b)
	psql, _, err := instance.FindClient("psql", 0)
	if err != nil {
		b.Fatal(err)
	}
	for _, format := range []string{"text", "binary"} {
		b.Run(format, func(b *testing.B) {
			b.SetBytes(bytes)
			for b.Loop() {
				b.StopTimer()
				to := s.DSN(s.Database(b))
				pgtest.Exec(b, to, benchTable)
				b.StartTimer()
				out := osexec.Command(psql, "-qd", from, "-c", `\copy accounts to pstdout (format `+format+`)`)
				in := osexec.Command(psql, "-qd", to, "-c", `\copy accounts from pstdin (format `+format+`)`)
				pipe, err := out.StdoutPipe()
				if err != nil {
					b.Fatal(err)
				}
				in.Stdin = pipe
				if err := out.Start(); err != nil {
					b.Fatal(err)
				}
				if err := in.Run(); err != nil {
					b.Fatal(err)
				}
				if err := out.Wait(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
