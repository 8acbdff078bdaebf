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

// No statement fails because of the link, on any version and under any settings of the
// session: what a database without a link takes, or refuses, a linked one takes and refuses.
func TestStatementsWorkOnEveryVersion(t *testing.T) {
	const odd = "&exit_on_error=on&quote_all_identifiers=on&transform_null_equals=on&array_nulls=off&xmloption=document&row_security=off&check_function_bodies=off" +
		"&default_transaction_isolation=serializable&enable_indexscan=off&plpgsql.variable_conflict=use_column&plpgsql.extra_errors=all&search_path=public,pg_catalog"
	for _, c := range []struct {
		major    int
		settings string
	}{{10, ""}, {12, ""}, {14, ""}, {15, ""}, {15, odd}, {17, ""}, {18, ""}} {
		major := c.major
		t.Run(fmt.Sprint(major, c.settings != ""), func(t *testing.T) {
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
				_, want := pgtest.Try(testContext(t), plain+c.settings, sql)
				_, got := pgtest.Try(testContext(t), linked+c.settings, sql)
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
