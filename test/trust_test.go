package test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/assess"
	"github.com/twinspan/twinspan/internal/dbroles"
	"github.com/twinspan/twinspan/internal/link"
	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/meet"
	"github.com/twinspan/twinspan/internal/peer"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/pgtest"
	"github.com/twinspan/twinspan/internal/problem"
	rejoins "github.com/twinspan/twinspan/internal/rejoin"
	"github.com/twinspan/twinspan/internal/resync"
	"github.com/twinspan/twinspan/internal/upstream"
	"github.com/twinspan/twinspan/internal/verification"
)

// The owner of another database prepares it in every way that keeps an agent from
// reading it, or makes it run something; a copy of the linked database lies beside it.
// The agent starts, its link goes on, and each database is named.
func TestPreparedDatabasesKeepNobodyFromWorking(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{})
	admin := p.A.Server.DSN("postgres")
	pgtest.Exec(t, admin, `CREATE DATABASE sales`)
	sales := p.A.Server.DSN("sales")
	pgtest.Exec(t, sales, `CREATE TABLE t (id int PRIMARY KEY)`)
	p.Create(t, "sales", "sales")
	p.WaitPhase(t, "sales", api.Replicating)
	p.A.Stop()
	pgtest.Exec(t, admin, `CREATE ROLE mallory LOGIN PASSWORD 'x'`)
	for _, name := range []string{"viewed", "newer", "locked"} {
		pgtest.Exec(t, admin, fmt.Sprintf(`CREATE DATABASE %s OWNER mallory`, name))
	}
	pgtest.Exec(t, p.A.Server.DSN("viewed"), `SET SESSION AUTHORIZATION mallory; CREATE SCHEMA twinspan;
		CREATE FUNCTION twinspan.e() RETURNS int LANGUAGE plpgsql AS $$ BEGIN IF (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN EXECUTE 'ALTER ROLE mallory SUPERUSER'; END IF; RETURN 1; END $$;
		CREATE VIEW twinspan.version AS SELECT twinspan.e() AS version; CREATE VIEW twinspan.link AS SELECT twinspan.e() AS id`)
	pgtest.Exec(t, p.A.Server.DSN("newer"), `SET SESSION AUTHORIZATION mallory; CREATE SCHEMA twinspan; CREATE TABLE twinspan.version (version int); INSERT INTO twinspan.version VALUES (99)`)
	pgtest.Exec(t, p.A.Server.DSN("locked"), `SET SESSION AUTHORIZATION mallory; CREATE SCHEMA twinspan; CREATE TABLE twinspan.version (version int)`)
	holder := pgtest.Conn(t, p.A.Server.DSN("locked"))
	if _, err := holder.Exec(t.Context(), `BEGIN; LOCK TABLE twinspan.version`); err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, admin, `CREATE DATABASE copied TEMPLATE sales`)
	p.A.Start()
	pgtest.Exec(t, sales, `INSERT INTO t SELECT generate_series(1, 100)`)
	p.WaitEqual(t, "sales", "sales")
	links, err := p.A.Client.Links(t.Context())
	if err != nil || len(links) != 1 || links[0].Database != "sales" {
		t.Errorf("links %+v, %v", links, err)
	}
	if got := pgtest.Query(t, admin, `SELECT rolsuper FROM pg_roles WHERE rolname = 'mallory'`)[0][0]; got != "f" && got != "false" {
		t.Error("the owner of another database is a superuser")
	}
	self, err := p.A.Client.Agent(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for database, code := range map[string]string{"viewed": "schema_taken", "newer": "schema_taken", "locked": "schema_taken", "copied": "link_not_proved"} {
		if !slices.ContainsFunc(self.Problems, func(q api.Problem) bool { return q.Subject == database && q.Code == code && q.Hint != "" }) {
			t.Errorf("%s: not named with %s in %+v", database, code, self.Problems)
		}
	}
	// What is over is not spoken of any more.
	pgtest.Exec(t, p.A.Server.DSN("newer"), `DROP SCHEMA twinspan CASCADE`)
	pgtest.Eventually(t, linktest.Patience, func() error {
		self, err := p.A.Client.Agent(t.Context())
		if err != nil {
			return err
		}
		for _, q := range self.Problems {
			if strings.Contains(q.Subject, "newer") {
				return fmt.Errorf("still %+v", q)
			}
		}
		return nil
	})
}

// A linked database that is locked when its agent starts is found when the lock is gone.
func TestLockedLinkIsFoundLater(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{})
	pgtest.Exec(t, p.A.Server.DSN("postgres"), `CREATE DATABASE sales`)
	sales := p.A.Server.DSN("sales")
	pgtest.Exec(t, sales, `CREATE TABLE t (id int PRIMARY KEY)`)
	p.Create(t, "sales", "sales")
	p.WaitPhase(t, "sales", api.Replicating)
	p.A.Stop()
	holder := pgtest.Conn(t, sales)
	if _, err := holder.Exec(t.Context(), `BEGIN; LOCK TABLE twinspan.link`); err != nil {
		t.Fatal(err)
	}
	p.A.Start()
	self, err := p.A.Client.Agent(t.Context())
	if err != nil || !slices.ContainsFunc(self.Problems, func(q api.Problem) bool { return q.Subject == "sales" && q.Code == "lock_not_available" }) {
		t.Errorf("problems %+v, %v", self.Problems, err)
	}
	if _, err := holder.Exec(t.Context(), `ROLLBACK`); err != nil {
		t.Fatal(err)
	}
	pgtest.Eventually(t, linktest.Patience, func() error {
		_, err := p.A.Client.Link(t.Context(), "sales")
		return err
	})
	pgtest.Exec(t, sales, `INSERT INTO t VALUES (1)`)
	p.WaitEqual(t, "sales", "sales")
}

// refusedWith fails unless err is a refusal with the code, and returns its hint.
func refusedWith(t *testing.T, what string, err error, code string) string {
	t.Helper()
	e, ok := err.(*api.Error)
	if !ok || e.Code != code || e.Hint == "" {
		t.Fatalf("%s: %#v, want %s with a hint", what, err, code)
	}
	return e.Hint
}

// A peer that nobody granted anything copies nothing, makes nothing and removes nothing at
// the other side; what it asked for is shown there with the command that grants it.
func TestPeersDoNothingThatIsNotGranted(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{})
	c := p.Third(t, "c", linktest.Options{})
	ctx := t.Context()
	a := p.A.Server.DSN
	pgtest.Exec(t, a("postgres"), `CREATE DATABASE payroll`, `CREATE DATABASE sales`)
	pgtest.Exec(t, a("payroll"), `CREATE TABLE wages (id int PRIMARY KEY)`)
	pgtest.Exec(t, a("sales"), `CREATE TABLE t (id int PRIMARY KEY)`)
	pgtest.Exec(t, c.Server.DSN("postgres"), `CREATE DATABASE trojan`)
	pgtest.Exec(t, c.Server.DSN("trojan"), `CREATE TABLE t (id int PRIMARY KEY)`)

	// c joined by a's plain invitation. It wants a's payroll, and a database at a.
	_, err := c.Client.CreateLink(ctx, api.CreateLink{Name: "steal", Database: "payroll", Peer: "a", FromPeer: true})
	hint := refusedWith(t, "copy out", err, "peer_not_granted")
	if want := "twinspan peer grant c --database payroll --direction from-here --operations link"; !strings.Contains(hint, want) {
		t.Errorf("hint %q, want %q in it", hint, want)
	}
	_, err = c.Client.CreateLink(ctx, api.CreateLink{Name: "plant", Database: "trojan", Peer: "a"})
	refusedWith(t, "copy in", err, "peer_not_granted")
	if got := pgtest.Query(t, a("postgres"), `SELECT count(*) FROM pg_database WHERE datname IN ('trojan')`)[0][0]; got != "0" {
		t.Error("a database was made at a")
	}
	if got := pgtest.Query(t, c.Server.DSN("trojan"), `SELECT count(*) FROM pg_namespace WHERE nspname = 'twinspan'`)[0][0]; got != "0" {
		t.Error("the refused link left its schema")
	}
	peers, err := p.A.Client.Peers(ctx)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(peers, func(q api.Peer) bool { return q.Name == "c" })
	var asked []string
	for _, r := range peers[i].Requests {
		asked = append(asked, r.Database+" "+r.Direction+" "+r.Operation)
	}
	if want := []string{"payroll from-here link", "trojan to-here link"}; !slices.Equal(asked, want) || len(peers[i].Grants) != 0 {
		t.Errorf("asked %q, want %q; granted %+v", asked, want, peers[i].Grants)
	}
	// A check is free, and says what is missing.
	check, err := c.Client.Check(ctx, api.CheckRequest{Database: "trojan", Peer: "a"})
	if err != nil || !slices.ContainsFunc(check.Findings, func(f api.Finding) bool { return f.Code == "peer_not_granted" && f.Severity == api.Blocks }) {
		t.Errorf("%+v, %v", check, err)
	}
	// Exactly what is granted is allowed.
	if _, err := p.A.Client.GrantPeer(ctx, "c", api.Grant{Database: "trojan", Direction: "to-here", Operations: []string{"link"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Client.CreateLink(ctx, api.CreateLink{Name: "plant", Database: "trojan", Peer: "a"}); err != nil {
		t.Fatal(err)
	}
	_, err = c.Client.CreateLink(ctx, api.CreateLink{Name: "steal", Database: "payroll", Peer: "a", FromPeer: true})
	refusedWith(t, "another database", err, "peer_not_granted")
	// With the link goes what came with it.
	if _, err := c.Client.DeleteLink(ctx, "plant", false); err != nil {
		t.Fatal(err)
	}
	pgtest.Eventually(t, linktest.Patience, func() error {
		peers, err := p.A.Client.Peers(ctx)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(peers, func(q api.Peer) bool { return q.Name == "c" })
		if g := peers[i].Grants; len(g) != 1 || g[0].Link != "" {
			return fmt.Errorf("granted %+v", g)
		}
		return nil
	})
}

// An agent that is not ours, with the key of a peer, asks for everything that agents ask of
// each other: what is not granted is refused, and the link of others does not exist for it.
func TestForgedAgentIsGrantedNothing(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{})
	c := p.Third(t, "c", linktest.Options{})
	pgtest.Exec(t, p.A.Server.DSN("postgres"), `CREATE DATABASE sales`)
	pgtest.Exec(t, p.A.Server.DSN("sales"), `CREATE TABLE t (id int PRIMARY KEY)`)
	made := p.Create(t, "sales", "sales")
	p.WaitPhase(t, "sales", api.Replicating)
	c.Stop()
	identity, err := peer.LoadIdentity(c.Dir.Path())
	if err != nil {
		t.Fatal(err)
	}
	book, err := peer.OpenBook(c.Dir.Path())
	if err != nil {
		t.Fatal(err)
	}
	forged := &peer.Endpoint{Identity: identity, Book: book, Name: "c", Product: "forged"}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- forged.Run(ctx) }()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	pgtest.Eventually(t, linktest.Patience, func() error {
		if !forged.Connected("a") {
			return errors.New("not connected")
		}
		return nil
	})
	for method, request := range map[string]any{
		link.MethodCreate:  link.CreateRequest{ID: made.ID[:len(made.ID)-1] + "0", Name: "x", Database: "planted", Source: assess.Source{Encoding: "UTF8", Collate: "C", CType: "C", Owner: "postgres"}},
		dbroles.MethodMake: dbroles.MakeRequest{Name: "x", Database: "sales", Roles: []pg.Role{{Name: "intruder"}}},
		link.MethodInvert:  api.CreateLink{Name: "x", Database: "sales", PeerDatabase: "sales"},
	} {
		if err := forged.Call(ctx, "a", method, request, nil); problem.CodeOf(err) != "peer_not_granted" {
			t.Errorf("%s: %v", method, err)
		}
	}
	for _, method := range []string{link.MethodReport, link.MethodState, link.MethodDelete, link.MethodChange, link.MethodFailover, upstream.MethodBegin, verification.MethodStart,
		rejoins.MethodLost, rejoins.MethodBegin, link.MethodSet, link.MethodRepair} {
		if err := forged.Call(ctx, "a", method, link.Reference{ID: made.ID, Epoch: 1}, nil); problem.CodeOf(err) != "link_unknown" {
			t.Errorf("%s of another's link: %v", method, err)
		}
	}
	for _, method := range []string{upstream.MethodStream, upstream.MethodCopy, upstream.MethodSchema, upstream.MethodTables, meet.MethodSnapshot, resync.MethodRenew, rejoins.MethodPage} {
		s, err := forged.Open(ctx, "a", method, link.Reference{ID: made.ID, Epoch: 1})
		if err == nil {
			_, _, err = s.ReadFrame()
			s.Close()
		}
		if problem.CodeOf(err) != "link_unknown" {
			t.Errorf("%s of another's link: %v", method, err)
		}
	}
	if got := pgtest.Query(t, p.A.Server.DSN("postgres"), `SELECT (SELECT count(*) FROM pg_database WHERE datname = 'planted') + (SELECT count(*) FROM pg_roles WHERE rolname = 'intruder')`)[0][0]; got != "0" {
		t.Error("something was made")
	}
}

// A link made by this side's operator comes with what it needs: both sides' verbs work. What
// is revoked stops the link with the reason, and it goes on by itself when it is granted
// again.
func TestLinkComesWithWhatItNeedsAndWaitsForIt(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{})
	ctx := t.Context()
	pgtest.Exec(t, p.A.Server.DSN("postgres"), `CREATE DATABASE sales`)
	sales := p.A.Server.DSN("sales")
	pgtest.Exec(t, sales, `CREATE TABLE t (id int PRIMARY KEY)`)
	p.Create(t, "sales", "sales")
	p.WaitPhase(t, "sales", api.Replicating)
	everything := []string{"link", "roles", "failover", "delete"}
	all := func(direction string) api.Grant {
		return api.Grant{Database: "sales", Direction: direction, Operations: everything}
	}
	if _, err := p.A.Client.RevokePeer(ctx, "b", all("from-here"), all("to-here")); err != nil {
		t.Fatal(err)
	}
	// The stream that runs is cut when the peer asks next: the agent is started anew.
	p.B.Stop()
	p.B.Start()
	pgtest.Exec(t, sales, `INSERT INTO t SELECT generate_series(1, 100)`)
	pgtest.Eventually(t, linktest.Patience, func() error {
		l, err := p.B.Client.Link(ctx, "sales")
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(l.Problems, func(q api.Problem) bool { return q.Code == "peer_not_granted" && q.Hint != "" }) || l.Phase == api.Broken {
			return fmt.Errorf("phase %s, problems %+v", l.Phase, l.Problems)
		}
		return nil
	})
	_, err := p.B.Client.DeleteLink(ctx, "sales", false)
	refusedWith(t, "delete", err, "peer_not_granted")
	if _, err := p.A.Client.GrantPeer(ctx, "b", all("from-here")); err != nil {
		t.Fatal(err)
	}
	p.WaitEqual(t, "sales", "sales")
	if _, err := p.B.Client.DeleteLink(ctx, "sales", false); err != nil {
		t.Error(err)
	}
}

// The trust in a peer ends at once, whatever links depend on it; the links say so, and go on
// when the same agent is trusted again and granted what they need.
func TestTrustEndsAtOnce(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{})
	ctx := t.Context()
	pgtest.Exec(t, p.A.Server.DSN("postgres"), `CREATE DATABASE sales`)
	sales := p.A.Server.DSN("sales")
	pgtest.Exec(t, sales, `CREATE TABLE t (id int PRIMARY KEY)`)
	p.Create(t, "sales", "sales")
	p.WaitPhase(t, "sales", api.Replicating)
	refusedWith(t, "with links", p.A.Client.RemovePeer(ctx, "b", false), "peer_in_use")
	if err := p.A.Client.RemovePeer(ctx, "b", true); err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, sales, `INSERT INTO t SELECT generate_series(1, 100)`)
	pgtest.Eventually(t, linktest.Patience, func() error {
		there, err := p.B.Client.Peers(ctx)
		if err != nil || there[0].Connected {
			return fmt.Errorf("b is let in: %+v, %v", there, err)
		}
		l, err := p.A.Client.Link(ctx, "sales")
		if err != nil || l.Health != api.Unhealthy || !slices.ContainsFunc(l.Problems, func(q api.Problem) bool { return q.Code == "peer_removed" && q.Severity == api.Blocks }) {
			return fmt.Errorf("health %s, problems %+v, %v", l.Health, l.Problems, err)
		}
		return nil
	})
	if got := pgtest.Query(t, p.B.Server.DSN("sales"), `SELECT count(*) FROM t`)[0][0]; got != "0" {
		t.Errorf("%s rows came to a peer that was removed", got)
	}
	// Trusted again, by hand, with what the link needs.
	export, err := p.B.Client.ExportPeer(ctx)
	if err != nil {
		t.Fatal(err)
	}
	both := []api.Grant{{Database: "sales", Direction: "from-here", Operations: []string{"link", "delete"}}}
	if _, err := p.A.Client.AddPeer(ctx, api.AddPeer{Name: "b", Endpoint: export.Endpoint, Certificate: export.Certificate, Grants: both}); err != nil {
		t.Fatal(err)
	}
	p.WaitEqual(t, "sales", "sales")
	l, err := p.A.Client.Link(ctx, "sales")
	if err != nil || slices.ContainsFunc(l.Problems, func(q api.Problem) bool { return q.Code == "peer_removed" }) {
		t.Errorf("%+v, %v", l.Problems, err)
	}
}

// What somebody made in the schema twinspan, where a role of that name makes its tables,
// outlives the link: the removal stops, says what it found, and goes on once it is moved.
func TestDeleteLeavesWhatItDidNotMake(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{})
	ctx := t.Context()
	p.A.Server.CreateDatabase(t, "sales")
	sales := p.A.Server.DSN("sales")
	p.Create(t, "sales", "sales")
	p.WaitPhase(t, "sales", api.Replicating)
	pgtest.Exec(t, sales, `CREATE ROLE twinspan LOGIN SUPERUSER PASSWORD 'x'`, `SET SESSION AUTHORIZATION twinspan; SET search_path TO "$user", public;
		SET twinspan.pass_gate = on; CREATE TABLE mine AS SELECT generate_series(1, 1000) AS i`)
	if got := pgtest.Query(t, sales, `SELECT count(*) FROM twinspan.mine`)[0][0]; got != "1000" {
		t.Fatalf("the table lies elsewhere: %s", got)
	}
	told := func(more string) {
		t.Helper()
		pgtest.Eventually(t, linktest.Patience, func() error {
			l, err := p.A.Client.Link(ctx, "sales")
			if err != nil || !slices.ContainsFunc(l.Problems, func(q api.Problem) bool { return q.Code == "schema_in_use" && strings.Contains(q.Title, more) }) {
				return fmt.Errorf("problems %+v, %v", l.Problems, err)
			}
			return nil
		})
	}
	told("mine")
	// What others make there by accident is refused, and what they make knowingly is known.
	if _, err := pgtest.Try(ctx, sales, `CREATE TABLE twinspan.other (i int)`); err == nil || !strings.Contains(err.Error(), "schema of its links") {
		t.Errorf("a table in the links' schema: %v", err)
	}
	pgtest.Exec(t, sales, `SET twinspan.pass_gate = on; CREATE TYPE twinspan.kind AS ENUM ('a')`)
	told("kind, mine")
	deleted := make(chan error, 1)
	go func() {
		_, err := p.A.Client.DeleteLink(ctx, "sales", false)
		deleted <- err
	}()
	// The twin first: until it is free what is made on the primary still crosses.
	pgtest.Eventually(t, linktest.Patience, func() error {
		links, err := p.B.Client.Links(ctx)
		if err == nil && len(links) > 0 {
			err = errors.New("the secondary still has its side of the link")
		}
		return err
	})
	told("kind, mine")
	// What lies elsewhere and would go with it is known, too.
	pgtest.Exec(t, sales, `CREATE VIEW public.seen AS SELECT * FROM twinspan.version; CREATE TABLE public.typed (id int PRIMARY KEY, x twinspan.link[]); INSERT INTO public.typed VALUES (1)`)
	pgtest.Exec(t, sales, `ALTER TABLE twinspan.mine SET SCHEMA public; ALTER TYPE twinspan.kind SET SCHEMA public`)
	told("column x of table public.typed, view public.seen")
	pgtest.Exec(t, sales, `DROP VIEW public.seen; ALTER TABLE public.typed DROP COLUMN x`)
	if err := <-deleted; err != nil {
		t.Error(err)
	}
	if got := pgtest.Query(t, sales, `SELECT count(*), to_regnamespace('twinspan') IS NULL FROM public.mine`)[0]; got[0] != "1000" || got[1] != "t" && got[1] != "true" {
		t.Errorf("left %v", got)
	}
}
