package largeobject_test

import (
	"log/slog"
	"testing"

	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/largeobject"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// What a first pass and a look cost, for docs/design/0011-large-objects.md.
func BenchmarkPass(b *testing.B) {
	for name, make := range map[string]string{
		"2000 objects of 100 kB": `SELECT lo_from_bytea(0, (SELECT string_agg(sha512((i * 2000 + j)::text::bytea), '') FROM generate_series(1, 1600) j)) FROM generate_series(1, 2000) i`,
		"100000 objects of 64 B": `SELECT lo_from_bytea(0, sha512(i::text::bytea)) FROM generate_series(1, 100000) i`,
	} {
		b.Run(name, func(b *testing.B) {
			server := pgtest.Start(b)
			from, to := server.DSN(server.Database(b)), server.DSN(server.Database(b))
			pgtest.Exec(b, from, make, `VACUUM ANALYZE pg_largeobject`)
			dsn, err := pg.ParseDSN(to)
			if err != nil {
				b.Fatal(err)
			}
			source, err := pg.ParseDSN(from)
			if err != nil {
				b.Fatal(err)
			}
			conn, err := dsn.Connect(b.Context(), pg.Session{Name: "bench", Apply: true})
			if err != nil {
				b.Fatal(err)
			}
			defer conn.Close(b.Context())
			record := catalog.Link{ID: linkID, Name: "l", Agent: linkID, Peer: "p", PeerAgent: linkID, PeerDatabase: "d", Role: "secondary", Phase: "seeding", Epoch: 1, Mode: "async"}
			if err := catalog.Install(b.Context(), conn); err != nil {
				b.Fatal(err)
			}
			if err := catalog.Insert(b.Context(), conn, &record); err != nil {
				b.Fatal(err)
			}
			target := &largeobject.Target{DSN: dsn, Link: linkID, Name: "l", Remote: &largeobject.Source{DSN: source, Name: "l"}, Log: slog.New(slog.DiscardHandler)}
			for _, kind := range []string{"first", "look", "counted"} {
				b.Run(kind, func(b *testing.B) {
					var bytes int64
					for b.Loop() {
						if kind == "first" {
							b.StopTimer()
							for left := "1"; left != "0"; {
								left = pgtest.Query(b, to, `SELECT count(lo_unlink(oid)) FROM (SELECT oid FROM pg_largeobject_metadata LIMIT 500) x`)[0][0]
							}
							pgtest.Exec(b, to, `DELETE FROM twinspan.large_object`)
							b.StartTimer()
						}
						r, err := target.Pass(b.Context(), kind == "look")
						if err != nil {
							b.Fatal(err)
						}
						bytes = r.Bytes
					}
					b.SetBytes(bytes)
				})
			}
		})
	}
}
