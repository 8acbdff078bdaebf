package capture_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/twinspan/twinspan/internal/capture"
	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// No statement fails because of the link, on any version: what a database without a link
// takes, or refuses, a linked one takes and refuses.
func TestStatementsWorkOnEveryVersion(t *testing.T) {
	for _, major := range []int{10, 12, 14, 15, 17, 18} {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			t.Parallel()
			server := pgtest.Start(t, pgtest.WithMajor(major))
			plain := server.DSN(server.Database(t))
			linked, s := fresh(t, server)
			conn := connect(t, linked)
			err := catalog.Insert(testContext(t), conn, &catalog.Link{
				ID: s.Link, Agent: "11111111-1111-4111-8111-111111111111", PeerAgent: "22222222-2222-4222-8222-222222222222",
				Name: "sales", Peer: "b", PeerDatabase: "sales", Role: "primary", Phase: "replicating", Epoch: 1, Mode: "async",
			})
			if err != nil {
				t.Fatal(err)
			}
			prepare(t, s)
			if err := s.NoteFormat(testContext(t), conn, capture.Format); err != nil {
				t.Fatal(err)
			}
			taken := 0
			making, changing := pgtest.Statements()
			all := slices.Concat(making, changing)
			for _, sql := range all {
				_, want := pgtest.Try(testContext(t), plain, sql)
				_, got := pgtest.Try(testContext(t), linked, sql)
				if pg.SQLState(got) != pg.SQLState(want) {
					t.Errorf("%s\nwithout a link: %v\nlinked: %v", sql, want, got)
				}
				if want == nil {
					taken++
				}
			}
			if n := len(all); taken < n*8/10 {
				t.Errorf("the server took %d of %d", taken, n)
			}
		})
	}
}
