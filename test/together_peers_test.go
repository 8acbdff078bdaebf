package test

import (
	"context"
	"fmt"
	"testing"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// spread are links of one agent with two peers, in both directions.
type spread struct {
	t     *testing.T
	pairs map[string]*linktest.Pair // of each link; A is the agent that drives them all
	names []string
}

func makeSpread(t *testing.T) *spread {
	home := linktest.New(t, linktest.Options{})
	away := &linktest.Pair{A: home.A, B: home.Third(t, "c", linktest.Options{})}
	s := &spread{t: t, pairs: map[string]*linktest.Pair{"here": home, "there": away, "back": away}, names: []string{"here", "there", "back"}}
	for _, name := range s.names {
		p, back := s.pairs[name], name == "back"
		primary := p.A
		if back {
			primary = p.B
			if _, err := primary.Client.GrantPeer(t.Context(), "a", api.Grant{Database: name, Direction: "from-here", Operations: []string{"link"}}); err != nil {
				t.Fatal(err)
			}
		}
		primary.Server.CreateDatabase(t, name)
		pgtest.Exec(t, primary.Server.AppDSN(name), `CREATE TABLE t (id int PRIMARY KEY)`)
		if _, err := p.A.Client.CreateLink(t.Context(), api.CreateLink{Name: name, Database: name, Peer: p.B.Name, FromPeer: back}); err != nil {
			t.Fatal(err)
		}
	}
	s.settled()
	return s
}

// settled waits until all links replicate, and says which agents have the primaries.
func (s *spread) settled() (at string) {
	s.t.Helper()
	for _, name := range s.names {
		at += waitSettled(s.t, s.pairs[name], name).Name
	}
	return at
}

// Links with several peers, and in both directions, change places as one. One that cannot is
// found before anything is done with the others. A cutover changes places at a peer, too, that was
// away when it was decided, though the link in whose database that was is removed meanwhile.
func TestLinksOfSeveralPeersChangePlacesTogether(t *testing.T) {
	t.Parallel()
	s := makeSpread(t)
	a, b, c := s.pairs["here"].A, s.pairs["here"].B, s.pairs["there"].B
	_, err := a.Client.FailoverTogether(t.Context(), api.FailoversRequest{Links: s.names})
	refusedWith(t, "without the peer's leave", err, "peer_not_granted")
	if _, err := c.Client.GrantPeer(t.Context(), "a", api.Grant{Database: "back", Direction: "from-here", Operations: []string{"failover"}}); err != nil {
		t.Fatal(err)
	}
	f, err := a.Client.FailoverTogether(t.Context(), api.FailoversRequest{Links: s.names})
	if err != nil {
		t.Fatal(err)
	}
	pgtest.Eventually(t, linktest.Patience, func() (err error) {
		if f, err = a.Client.Failovers(t.Context()); err == nil && f.State == api.FailoverRunning {
			err = fmt.Errorf("running: %+v", f.Links)
		}
		return err
	})
	if f.State != api.FailoverDone || f.Problem != nil {
		t.Errorf("%+v, %+v", f, f.Problem)
	}
	if at := s.settled(); at != "bca" {
		t.Fatalf("the primaries are at %s", at)
	}

	record := func() string { // any step stores it anew
		return pgtest.Query(t, a.Server.DSN("here"), `SELECT xmin::text FROM twinspan.link`)[0][0] + " " +
			pgtest.Query(t, b.Server.DSN("here"), `SELECT xmin::text FROM twinspan.link`)[0][0]
	}
	before := record()
	if _, err := a.Client.Suspend(t.Context(), "back"); err != nil {
		t.Fatal(err)
	}
	_, err = a.Client.FailoverTogether(t.Context(), api.FailoversRequest{Links: s.names})
	refusedWith(t, "with a link that is suspended", err, "not_replicating")
	if after := record(); after != before {
		t.Errorf("another link was begun with: %s, before %s", after, before)
	}
	if _, err := a.Client.Resume(t.Context(), "back"); err != nil {
		t.Fatal(err)
	}
	s.settled()

	letGo := s.held("here", b, a)
	s.promised(map[string]*linktest.Side{"here": a, "there": a, "back": c})
	awaitDeciding(t, a.Server.DSN("here"))
	c.Kill()
	letGo()
	for _, side := range []*linktest.Side{a, b} { // the leader is removed
		pgtest.Eventually(t, linktest.Patience, func() error {
			if _, err := side.Client.Link(t.Context(), "here"); err == nil {
				return fmt.Errorf("it is there")
			}
			return nil
		})
	}
	a.Kill()
	a.Start()
	c.Start()
	for name, primary := range map[string]*linktest.Side{"here": a, "there": a, "back": c} {
		pgtest.Eventually(t, linktest.Patience, func() error {
			_, err := pgtest.Try(t.Context(), primary.Server.AppDSN(name), `INSERT INTO t VALUES (1)`)
			return err
		})
		other := s.pairs[name].B
		if other == primary {
			other = a
		}
		if _, err := pgtest.Try(t.Context(), other.Server.AppDSN(name), `INSERT INTO t VALUES (2)`); err == nil {
			t.Errorf("database %s is written to on both sides", name)
		}
	}
}

// held begins a cutover of all, and keeps its decision from being stored until it is let go;
// that of the first link, whose primary is at a side.
func (s *spread) held(first string, primary, driver *linktest.Side) (letGo func()) {
	s.t.Helper()
	writer, conn := pgtest.Conn(s.t, primary.Server.AppDSN(first)), pgtest.Conn(s.t, driver.Server.DSN(first))
	if _, err := writer.Exec(s.t.Context(), `BEGIN; INSERT INTO t VALUES (-1)`); err != nil {
		s.t.Fatal(err)
	}
	if _, err := driver.Client.FailoverTogether(s.t.Context(), api.FailoversRequest{Links: s.names, Cutover: true, DrainSeconds: 30}); err != nil {
		s.t.Fatal(err)
	}
	pgtest.Eventually(s.t, linktest.Patience, func() error {
		if n := pgtest.Query(s.t, driver.Server.DSN(first), `SELECT count(*)::text FROM twinspan.together WHERE decided IS NULL`)[0][0]; n != "1" {
			return fmt.Errorf("it has not begun")
		}
		return nil
	})
	_, err := conn.Exec(s.t.Context(), `BEGIN; LOCK TABLE twinspan.together IN EXCLUSIVE MODE`)
	if err == nil {
		_, err = writer.Exec(s.t.Context(), `ROLLBACK`)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return func() { conn.Close(context.Background()) }
}

// promised waits until the secondaries of all links have promised to do what is decided.
func (s *spread) promised(twins map[string]*linktest.Side) {
	s.t.Helper()
	for name, twin := range twins {
		pgtest.Eventually(s.t, linktest.Patience, func() error {
			n := pgtest.Query(s.t, twin.Server.DSN(name), `SELECT count(*)::text FROM twinspan.promise p JOIN twinspan.link l ON l.id = p.link AND l.operation = p.operation`)[0][0]
			if n != "1" {
				return fmt.Errorf("link %s has not promised", name)
			}
			return nil
		})
	}
}
