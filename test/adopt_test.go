package test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/pgtest"
	"github.com/twinspan/twinspan/internal/problem"
)

// linked returns two sides with a link of the database sales, of which each side has noted
// how the other one is known.
func linked(t *testing.T) *linktest.Pair {
	t.Helper()
	p := linktest.New(t, linktest.Options{})
	pgtest.Exec(t, p.A.Server.DSN("postgres"), `CREATE DATABASE sales`)
	pgtest.Exec(t, p.A.Server.DSN("sales"), `CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT g, 'first' FROM generate_series(1, 1000) g`)
	p.Create(t, "sales", "sales")
	p.WaitPhase(t, "sales", api.Replicating)
	p.WaitEqual(t, "sales", "sales")
	noted(t, p)
	return p
}

// noted waits until both databases have the keys that their agents pin.
func noted(t *testing.T, p *linktest.Pair) {
	t.Helper()
	for _, s := range []*linktest.Side{p.A, p.B} {
		pgtest.Eventually(t, linktest.Patience, func() error {
			peers, err := s.Client.Peers(t.Context())
			if err != nil {
				return err
			}
			rows := pgtest.Query(t, s.Server.DSN("sales"), `SELECT coalesce((SELECT fingerprints[1] FROM twinspan.peer WHERE to_regclass('twinspan.peer') IS NOT NULL), '')`)
			if rows[0][0] != peers[0].Fingerprint {
				return fmt.Errorf("%s has noted %v, not %s", s.Name, rows, peers[0].Fingerprint)
			}
			return nil
		})
	}
}

// lose ends an agent and removes its directory, with all that is in it.
func lose(t *testing.T, s *linktest.Side) {
	t.Helper()
	s.Kill()
	if err := os.RemoveAll(s.Dir.Path()); err != nil {
		t.Fatal(err)
	}
}

// says waits until a side's link has a problem with a code, and returns its hint.
func says(t *testing.T, s *linktest.Side, code string) (hint string) {
	t.Helper()
	pgtest.Await(t, linktest.Patience, s.Name+" says "+code, func() error {
		l, err := s.Client.Link(t.Context(), "sales")
		if err != nil {
			return err
		}
		i := slices.IndexFunc(l.Problems, func(p api.Problem) bool { return p.Code == code })
		if i < 0 {
			return fmt.Errorf("phase %s, problems %+v", l.Phase, l.Problems)
		}
		if hint = l.Problems[i].Hint; hint == "" {
			t.Errorf("%s at %s has no hint", code, s.Name)
		}
		return nil
	})
	return hint
}

// trust agrees to the key of a side that was made anew.
func trust(t *testing.T, at *linktest.Side, name, fingerprint string) {
	t.Helper()
	if _, err := at.Client.SetPeer(t.Context(), name, api.SetPeer{Fingerprint: fingerprint}); err != nil {
		t.Fatalf("trust: %v", err)
	}
}

// copied says which transaction has made a row at the twin: another one after a new copy.
func copied(t *testing.T, twin *linktest.Side) string {
	t.Helper()
	return pgtest.Query(t, twin.Server.DSN("sales"), `SELECT xmin::text || ' ' || 't'::regclass::oid FROM t WHERE id = 1`)[0][0]
}

// What README and docs/operating.md promise: an agent whose directory is lost is replaced by one
// with an empty directory beside the same server. Both sides say who has to agree to what, nothing goes on
// before, and then the link goes on where it was, without a new copy, changes places and comes home.
func TestLostDirectory(t *testing.T) {
	t.Parallel()
	for _, lost := range []string{"b", "a"} {
		t.Run(map[string]string{"a": "primary", "b": "secondary"}[lost], func(t *testing.T) {
			t.Parallel()
			p := linked(t)
			sales := p.A.Server.DSN("sales")
			first := copied(t, p.B)
			gone, stays := p.B, p.A
			if lost == "a" {
				gone, stays = p.A, p.B
			}
			lose(t, gone)
			pgtest.Exec(t, sales, `INSERT INTO t SELECT g, 'meanwhile' FROM generate_series(1001, 1500) g; UPDATE t SET v = 'changed' WHERE id BETWEEN 10 AND 20`)
			anew, made := gone.Adopted(t)
			if a := made.Adopted; a == nil || len(a.Links) != 1 || a.Links[0].Name != "sales" || a.Links[0].Database != "sales" || len(a.Peers) != 1 || a.Peers[0].Name != stays.Name || !a.Peers[0].Known {
				t.Fatalf("taken over: %+v", made.Adopted)
			}
			anew.Start()
			command := "twinspan peer trust " + gone.Name + " --key " + made.Fingerprint
			for s, code := range map[*linktest.Side]string{stays: "peer_key_unknown", anew: "peer_refused"} {
				if hint := says(t, s, code); !strings.Contains(hint, command) {
					t.Errorf("%s says %q, want %q in it", s.Name, hint, command)
				}
			}
			if got := pgtest.Query(t, p.B.Server.DSN("sales"), `SELECT count(*) FROM t`)[0][0]; got != "1000" {
				t.Errorf("%s rows crossed before anybody agreed", got)
			}
			trust(t, stays, gone.Name, made.Fingerprint)
			now := &linktest.Pair{A: p.A, B: anew}
			if lost == "a" {
				now = &linktest.Pair{A: anew, B: p.B}
			}
			now.WaitPhase(t, "sales", api.Replicating)
			now.WaitEqual(t, "sales", "sales")
			if got := copied(t, p.B); got != first {
				t.Errorf("the twin was copied anew: row 1 is of %s, was of %s", got, first)
			}
			for range 2 {
				if f := failOver(t, anew, "sales", api.FailoverRequest{}); f.State != api.FailoverDone {
					t.Fatalf("failover: %+v", f)
				}
				primary, _ := primaryOf(t, now, "sales")
				pgtest.Exec(t, primary.Server.DSN("sales"), `INSERT INTO t SELECT max(id) + 1, 'after' FROM t`)
				now.WaitPhase(t, "sales", api.Replicating)
				waitEqual(t, now, "sales", "sales")
			}
			noted(t, now)
		})
	}
}

// Both directories are lost. Each operator agrees to the other one's key.
func TestBothDirectoriesLost(t *testing.T) {
	t.Parallel()
	p := linked(t)
	first := copied(t, p.B)
	lose(t, p.A)
	lose(t, p.B)
	pgtest.Exec(t, p.A.Server.DSN("sales"), `INSERT INTO t SELECT g, 'meanwhile' FROM generate_series(1001, 1100) g`)
	a, madeA := p.A.Adopted(t)
	b, madeB := p.B.Adopted(t)
	a.Start()
	b.Start()
	// Neither is where the other one was: addresses have changed, too.
	endpoint := madeA.Endpoint
	if _, err := b.Client.SetPeer(t.Context(), "a", api.SetPeer{Endpoint: &endpoint}); err != nil {
		t.Fatal(err)
	}
	trust(t, b, "a", madeA.Fingerprint)
	trust(t, a, "b", madeB.Fingerprint)
	now := &linktest.Pair{A: a, B: b}
	now.WaitPhase(t, "sales", api.Replicating)
	now.WaitEqual(t, "sales", "sales")
	if got := copied(t, p.B); got != first {
		t.Errorf("the twin was copied anew")
	}
}

// Links are not taken over from an agent that works them, nor what somebody else has prepared, nor
// copies; not by a role that is neither a superuser nor their agent's; a taking over that was cut off is
// done again, one after another too, and whoever had the links before finds them another's.
func TestTakingOverIsRefused(t *testing.T) {
	t.Parallel()
	p := linked(t)
	admin := p.B.Server.DSN("postgres")
	refused := func(what, agent, code string) {
		t.Helper()
		if _, _, err := p.B.TryAdopt(t, agent); problem.CodeOf(err) != code || problem.As(err).Hint == "" {
			t.Errorf("%s: %v, want %s with a hint", what, err, code)
		}
	}
	refused("while the agent works", "any", "adopt_alive")
	p.B.Kill()
	p.B.AwaitAlone(t)
	refused("another agent's", "00000000-0000-0000-0000-000000000001", "adopt_nothing")

	// The owner of another database forges a record; the linked database is copied.
	pgtest.Exec(t, admin, `CREATE ROLE mallory LOGIN PASSWORD 'x'; GRANT CREATE ON DATABASE postgres TO mallory`, `CREATE DATABASE forged OWNER mallory`, `CREATE DATABASE copied TEMPLATE sales`)
	pgtest.Exec(t, p.B.Server.DSN("forged"), `SET SESSION AUTHORIZATION mallory; CREATE SCHEMA twinspan; CREATE TABLE twinspan.version (version int); INSERT INTO twinspan.version VALUES (1);
		CREATE FUNCTION twinspan.e() RETURNS uuid LANGUAGE plpgsql AS $$ BEGIN IF (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN EXECUTE 'ALTER ROLE mallory SUPERUSER'; END IF; RETURN NULL; END $$;
		CREATE VIEW twinspan.link AS SELECT twinspan.e() AS id, 'forged' AS name; CREATE VIEW twinspan.peer AS SELECT twinspan.e() AS link`)
	poor := p.B.Beside(t)
	if _, err := poor.Adopt(t, p.B.Server.DSNOf("mallory", "x", "postgres"), "any"); problem.CodeOf(err) != "adopt_nothing" && problem.CodeOf(err) != "adopt_rights" {
		t.Errorf("by an ordinary role: %v", err)
	}
	second, first := p.B.Adopted(t)
	passed := map[string]bool{}
	for _, x := range first.Adopted.Passed {
		passed[x.Database] = x.Why != "" && x.Hint != ""
	}
	if len(first.Adopted.Links) != 1 || first.Adopted.Links[0].Database != "sales" || !passed["forged"] || !passed["copied"] {
		t.Errorf("taken over: %+v", first.Adopted)
	}
	if got := pgtest.Query(t, admin, `SELECT rolsuper FROM pg_roles WHERE rolname = 'mallory'`)[0][0]; got != "f" && got != "false" {
		t.Error("whoever forged a record is a superuser")
	}

	// Cut off before its last step, it is no agent yet, and the same is done again.
	if err := os.Remove(second.Dir.File()); err != nil {
		t.Fatal(err)
	}
	again, err := second.Adopt(t, p.B.Server.AgentDSN(), "any")
	if err != nil || again.Fingerprint != first.Fingerprint || again.ID != first.ID || len(again.Adopted.Links) != 1 {
		t.Fatalf("again: %+v, %v", again, err)
	}
	// A third takes the links from the second, which finds them another's.
	third, last := p.B.Adopted(t)
	second.Start()
	for _, s := range []*linktest.Side{second, p.B} {
		if s != second {
			s.Start()
		}
		if links, err := s.Client.Links(t.Context()); err != nil || len(links) != 0 {
			t.Errorf("links of who was replaced: %+v, %v", links, err)
		}
		self, err := s.Client.Agent(t.Context())
		if err != nil || !slices.ContainsFunc(self.Problems, func(q api.Problem) bool { return q.Code == "link_not_proved" && q.Subject == "sales" }) {
			t.Errorf("problems %+v, %v", self.Problems, err)
		}
		s.Stop()
	}
	third.Start()
	trust(t, p.A, "b", last.Fingerprint)
	pgtest.Exec(t, p.A.Server.DSN("sales"), `INSERT INTO t VALUES (2001, 'x')`)
	(&linktest.Pair{A: p.A, B: third}).WaitEqual(t, "sales", "sales")
	refused("while the one that took over works", "any", "adopt_alive")

	// Another server has none of it.
	c := p.Third(t, "c", linktest.Options{})
	if _, _, err := c.TryAdopt(t, "any"); problem.CodeOf(err) != "adopt_nothing" {
		t.Errorf("beside another server: %v", err)
	}
}

// A taking over is killed again and again, at moments drawn from a seed. The one that comes to its
// end in the same directory has the links, and they go on.
func TestTakingOverSurvivesKills(t *testing.T) {
	t.Parallel()
	p := linked(t)
	random := rand.New(rand.NewPCG(pgtest.Seed(), 0))
	lose(t, p.B)
	pgtest.Exec(t, p.A.Server.DSN("sales"), `INSERT INTO t SELECT g, 'meanwhile' FROM generate_series(1001, 1200) g`)
	anew := p.B.Beside(t)
	killed, begun := 0, 0
	for range 20 {
		if anew.Dir.Initialised() {
			break
		}
		process := anew.Adopting(t, "any")
		if err := process.Start(); err != nil {
			t.Fatal(err)
		}
		timer := time.AfterFunc(time.Duration(random.Int64N(int64(time.Second))), func() { process.Process.Kill() })
		if err := process.Wait(); err != nil {
			killed++
		}
		timer.Stop()
		if _, err := os.Stat(anew.Dir.Identity()); err == nil {
			begun++
		}
	}
	t.Logf("killed %d times, %d of them once it had begun to write", killed, begun)
	p.B.AwaitAlone(t)
	made, err := anew.Adopt(t, p.B.Server.AgentDSN(), "any")
	if err != nil {
		t.Fatalf("after %d kills: %v", killed, err)
	}
	anew.Start()
	trust(t, p.A, "b", made.Fingerprint)
	(&linktest.Pair{A: p.A, B: anew}).WaitEqual(t, "sales", "sales")
}
