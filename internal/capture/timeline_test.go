package capture_test

import (
	"reflect"
	"testing"

	"github.com/twinspan/twinspan/internal/capture"
	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/pgtest"
	"github.com/twinspan/twinspan/internal/problem"
)

func TestParseHistory(t *testing.T) {
	for text, want := range map[string][]capture.Branch{
		"": nil,
		"1\t0/5000A98\tno recovery target specified\n":              {{1, 0x5000A98}},
		"# why\n1 0/1 x\n\n2\t1/0\tbefore 2026-01-01 00:00:00+00\n": {{1, 1}, {2, 1 << 32}},
	} {
		if got, err := capture.ParseHistory(text); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %v %v", text, got, err)
		}
	}
	for _, text := range []string{"1", "x 0/1", "1 0", "0 0/1", "-1 0/1"} {
		if got, err := capture.ParseHistory(text); problem.CodeOf(err) != "timeline_unreadable" {
			t.Errorf("%q: %v %v", text, got, err)
		}
	}
}

func FuzzParseHistory(f *testing.F) {
	f.Add("1\t0/5000A98\tno recovery target specified\n2\t0/6000000\tx")
	f.Fuzz(func(t *testing.T, text string) {
		branches, err := capture.ParseHistory(text)
		for _, b := range branches {
			if err != nil || b.Timeline < 1 {
				t.Fatalf("%q: %v %v", text, branches, err)
			}
		}
	})
}

// A standby is promoted twice; positions of before are right up to where the server
// left their timeline.
func TestCheckTimeline(t *testing.T) {
	first := pgtest.Start(t)
	dsn, _ := fresh(t, first)
	second := first.Standby(t, "second")
	end := func(s *pgtest.Server) lsn.LSN {
		t.Helper()
		at, err := lsn.Parse(pgtest.Query(t, s.DSN("postgres"), `SELECT pg_current_wal_flush_lsn()`)[0][0])
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	pgtest.Exec(t, dsn, `CREATE TABLE x (i int)`)
	shared := end(first)
	pgtest.Eventually(t, patience, func() error {
		_, err := pgtest.Try(t.Context(), second.DSN("postgres"), `SELECT 1 / (pg_last_wal_replay_lsn() >= '`+shared.String()+`')::int`)
		return err
	})
	first.Kill()
	second.Promote(t)
	s := &capture.Source{DSN: parse(t, second.DSN("postgres")), Link: linkID, Name: "sales"}
	conn := connect(t, second.DSN("postgres"))
	check := func(timeline int64, position lsn.LSN, want string) {
		t.Helper()
		now, err := s.CheckTimeline(testContext(t), conn, timeline, position)
		if now != 2 || problem.CodeOf(err) != want {
			t.Errorf("%s of timeline %d: now %d, %v, want %q", position, timeline, now, err, want)
		}
		if want != "" && (problem.KindOf(err) != problem.Diverged || problem.As(err).Hint == "") {
			t.Errorf("%+v", problem.As(err))
		}
	}
	pgtest.Exec(t, second.DSN("postgres"), `CREATE TABLE y AS SELECT generate_series(1, 10000)`)
	check(0, end(second), "")
	check(2, end(second), "")
	check(1, shared, "")
	check(1, end(second), "primary_behind") // which this server has passed, elsewhere
	check(7, shared, "primary_behind")
}
