package test

import (
	"fmt"
	"math"
	"testing"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// A first copy keeps to its rate, which can be changed from either side while it
// runs and holds up nothing once it is taken away.
func TestFirstCopyKeepsToItsRate(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{})
	p.A.Server.CreateDatabase(t, "slow")
	a := p.A.Server.DSN("slow")
	pgtest.Exec(t, a, `CREATE TABLE "none " ()`, `CREATE TABLE t (id int PRIMARY KEY, v text)`,
		`INSERT INTO t SELECT i, repeat(md5(i::text), 10) FROM generate_series(1, 100000) i`)
	// At this rate it would take a quarter of an hour.
	_, err := p.A.Client.CreateLink(t.Context(), api.CreateLink{Name: "slow", Database: "slow", Peer: "b", MaxRate: 40 << 10})
	if err != nil {
		t.Fatal(err)
	}
	// The bounds above are what the rates allow in more than a minute.
	moved := func(atLeast, atMost int64) {
		t.Helper()
		pgtest.Eventually(t, linktest.Patience, func() error {
			l, err := p.B.Client.Link(t.Context(), "slow")
			if err != nil {
				return err
			}
			if l.Phase != api.Seeding && l.Phase != api.Creating || l.Seeding.BytesDone > atMost {
				t.Fatalf("phase %s with %+v: the copy did not keep to its rate", l.Phase, l.Seeding)
			}
			if l.Seeding.BytesDone < atLeast {
				return fmt.Errorf("%+v", l.Seeding)
			}
			return nil
		})
	}
	moved(100<<10, 4<<20)
	for _, side := range []*linktest.Side{p.A, p.B} {
		s, err := side.Client.SeedingTables(t.Context(), "slow")
		if err != nil || !s.Known || s.More != 0 || len(s.Tables) != 2 {
			t.Fatalf("%s says of the tables %+v, %v", side.Name, s, err)
		}
		if one := s.Tables[0]; one.Table != "public.t" || one.State != api.TableCopying || one.BytesDone < 100<<10 || one.BytesDone >= one.BytesTotal {
			t.Errorf("%s says of the table that is copied %+v", side.Name, one)
		}
		if other := s.Tables[1]; other.Table != `public."none "` || other.BytesTotal != other.BytesDone && other.State == api.TableCopied {
			t.Errorf("%s says of the empty table %+v", side.Name, other)
		}
	}
	rate := int64(400 << 10)
	if _, err := p.B.Client.SetLink(t.Context(), "slow", api.SetLink{MaxRate: &rate}); err != nil {
		t.Fatal(err)
	}
	moved(1<<20, 20<<20)
	rate = 0
	if _, err := p.A.Client.SetLink(t.Context(), "slow", api.SetLink{MaxRate: &rate}); err != nil {
		t.Fatal(err)
	}
	p.WaitPhase(t, "slow", api.Replicating)
	p.WaitEqual(t, "slow", "slow")
	if s, err := p.B.Client.SeedingTables(t.Context(), "slow"); err != nil || s.Known || len(s.Tables) != 0 {
		t.Errorf("behind the first copy %+v, %v", s, err)
	}
}

// Both sides tell where the time of a link goes: one that has nothing to do waits for
// the primary.
func TestTimeOfALinkIsTold(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{})
	p.A.Server.CreateDatabase(t, "idle")
	p.Create(t, "idle", "idle")
	p.WaitPhase(t, "idle", api.Replicating)
	for _, side := range []*linktest.Side{p.A, p.B} {
		pgtest.Eventually(t, linktest.Patience, func() error {
			l, err := side.Client.Link(t.Context(), "idle")
			if err != nil {
				return err
			}
			s := l.Time
			if s == nil || s.Source < 0.9 || math.Abs(s.Source+s.Network+s.Applying+s.Committing-1) > 0.001 {
				return fmt.Errorf("side %s: %+v", side.Name, s)
			}
			return nil
		})
	}
}
