package lease_test

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/lease"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/pgtest"
	"github.com/twinspan/twinspan/internal/problem"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

const agent = "11111111-1111-4111-8111-111111111111"

func parse(t testing.TB, dsn string) *pg.DSN {
	t.Helper()
	d, err := pg.ParseDSN(dsn)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// process is a process with the agent's identity.
func process(t testing.TB, server *pg.DSN, place string) (l *lease.Lease, end func()) {
	t.Helper()
	l = lease.New(server, agent, place, slog.New(slog.DiscardHandler))
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- l.Keep(ctx) }()
	ended := false
	end = func() {
		if !ended {
			ended = true
			stop()
			<-done
		}
	}
	t.Cleanup(end)
	return l, end
}

// linked makes a database with a link's record and returns its name.
func linked(t testing.TB, s *pgtest.Server) string {
	t.Helper()
	name := s.Database(t)
	conn := pgtest.Conn(t, s.DSN(name))
	err := pgx.BeginFunc(t.Context(), conn, func(tx pgx.Tx) error {
		if err := catalog.Install(t.Context(), tx); err != nil {
			return err
		}
		return catalog.Insert(t.Context(), tx, &catalog.Link{ID: "0b9a4b4e-6f7e-4b7e-9f60-2f1c0e8d7a11", Name: "sales", Agent: agent, Peer: "b",
			PeerAgent: "22222222-2222-4222-8222-222222222222", PeerDatabase: "sales", Role: "primary", Phase: "creating", Epoch: 1, Mode: "async"})
	})
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// Of two processes with one identity the first holds a database until it is gone. Then the
// second does, the sessions of the first are ended, and it can open no others.
func TestOneProcessHoldsADatabase(t *testing.T) {
	s := pgtest.Shared(t)
	server, name := parse(t, s.DSN("postgres")), linked(t, s)
	one, endOne := process(t, server, "one")
	two, _ := process(t, server, "two")
	if other, err := one.Take(t.Context(), name); err != nil || other != nil || !one.Holds(name) {
		t.Fatalf("the first: %+v, %v", other, err)
	}
	if other, err := two.Take(t.Context(), name); err != nil || other == nil || other.Place != "one" || two.Holds(name) {
		t.Fatalf("the second: %+v, %v", other, err)
	}
	select {
	case <-two.Lost():
	default:
		t.Error("the second does not know that another one works")
	}
	if p := two.Twice(); p.Code != "agent_twice" || p.Hint == "" {
		t.Errorf("%+v", p)
	}
	fenced := one.Fence(parse(t, s.DSN(name)))
	conn, err := fenced.Connect(t.Context(), pg.Session{Name: "sales/apply"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	// Anybody can name a session so.
	role := "named_" + name
	pgtest.Exec(t, s.DSN(name), fmt.Sprintf(`CREATE ROLE %q LOGIN PASSWORD 'x'`, role))
	t.Cleanup(func() { pgtest.Exec(t, s.DSN("postgres"), fmt.Sprintf(`DROP ROLE %q`, role)) })
	others, err := parse(t, s.DSNOf(role, "x", name)).Connect(t.Context(), pg.Session{Name: "sales/apply"})
	if err != nil {
		t.Fatal(err)
	}
	defer others.Close(context.Background())

	endOne()
	if err := two.Await(t.Context()); err != nil {
		t.Fatal(err)
	}
	if other, err := two.Take(t.Context(), name); err != nil || other != nil || !two.Holds(name) {
		t.Fatalf("the second, once the first is gone: %+v, %v", other, err)
	}
	if _, err := conn.Exec(t.Context(), `SELECT 1`); pg.SQLState(err) != "57P01" {
		t.Errorf("a session of the first: %v", err)
	}
	if _, err := others.Exec(t.Context(), `SELECT 1`); err != nil {
		t.Errorf("a session of somebody else: %v", err)
	}
	if _, err := fenced.Connect(t.Context(), pg.Session{Name: "sales/apply"}); problem.CodeOf(err) != "agent_twice" {
		t.Errorf("another session of the first: %v", err)
	}
	if _, err := fenced.ConnectReplication(t.Context(), pg.Session{Name: "sales/slot"}); problem.CodeOf(err) != "agent_twice" {
		t.Errorf("a replication session of the first: %v", err)
	}
	select {
	case <-one.Lost():
	default:
		t.Error("the first does not know that it has lost the database")
	}
	again, err := two.Fence(parse(t, s.DSN(name))).Connect(t.Context(), pg.Session{Name: "sales/apply"})
	if err != nil {
		t.Fatalf("a session of the second: %v", err)
	}
	again.Close(context.Background())
	if term := pgtest.Query(t, s.DSN(name), `SELECT term FROM twinspan.lease`)[0][0]; term != "2" {
		t.Errorf("term %s", term)
	}
}

// A keeper's session that is lost is made again, and named, before anybody takes the links for
// those of a process that is gone.
func TestKeeperComesBack(t *testing.T) {
	s := pgtest.Shared(t)
	name := linked(t, s)
	one, _ := process(t, parse(t, s.DSN("postgres")), "one")
	if other, err := one.Take(t.Context(), name); err != nil || other != nil {
		t.Fatalf("%+v, %v", other, err)
	}
	held, err := lease.Look(t.Context(), parse(t, s.DSN(name)), agent)
	if err != nil || held == nil || !held.There || !held.Fresh {
		t.Fatalf("%+v, %v", held, err)
	}
	pgtest.Exec(t, s.DSN("postgres"), fmt.Sprintf(`SELECT pg_terminate_backend(%d)`, held.Keeper))
	pgtest.Eventually(t, time.Minute, func() error {
		now, err := lease.Look(t.Context(), parse(t, s.DSN(name)), agent)
		if err != nil || !now.There || now.Keeper == held.Keeper || now.Holder != held.Holder || now.Term != 1 {
			return fmt.Errorf("%+v, %v", now, err)
		}
		return nil
	})
}

// Two that want a database at once do not both get it.
func TestOneOfManyGetsIt(t *testing.T) {
	s := pgtest.Shared(t)
	name := linked(t, s)
	server := parse(t, s.DSN("postgres"))
	got := make(chan bool)
	const many = 6
	for i := range many {
		l, _ := process(t, server, fmt.Sprint(i))
		go func() {
			other, err := l.Take(t.Context(), name)
			if err != nil {
				t.Error(err)
			}
			got <- other == nil && err == nil
		}()
	}
	holders := 0
	for range many {
		if <-got {
			holders++
		}
	}
	if holders != 1 {
		t.Errorf("%d hold it", holders)
	}
}

// What a database says of who works its links counts where an agent has noted it: not in a copy
// of a linked database, and not where somebody else has made what has the table's name, of which
// nothing is run.
func TestFenceBelievesNobodyElse(t *testing.T) {
	s := pgtest.Shared(t)
	server, name := parse(t, s.DSN("postgres")), linked(t, s)
	one, endOne := process(t, server, "one")
	if other, err := one.Take(t.Context(), name); err != nil || other != nil {
		t.Fatalf("%+v, %v", other, err)
	}
	endOne()
	copied := name + "_copy"
	pgtest.Eventually(t, time.Minute, func() error { // sessions of before take a moment to end
		conn := pgtest.Conn(t, s.DSN("postgres"))
		_, _ = conn.Exec(t.Context(), `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1`, name)
		_, err := conn.Exec(t.Context(), fmt.Sprintf(`CREATE DATABASE %q TEMPLATE %q`, copied, name))
		return err
	})
	t.Cleanup(func() { pgtest.Exec(t, s.DSN("postgres"), fmt.Sprintf(`DROP DATABASE %q WITH (FORCE)`, copied)) })
	taken := s.Database(t)
	owner := "owner_" + name
	pgtest.Exec(t, s.DSN(taken), fmt.Sprintf(`CREATE ROLE %[1]q LOGIN PASSWORD 'x'; ALTER DATABASE %[2]q OWNER TO %[1]q; CREATE TABLE public.ran_as (who text); GRANT INSERT ON public.ran_as TO %[1]q`, owner, taken))
	t.Cleanup(func() {
		pgtest.Exec(t, s.DSN(taken), fmt.Sprintf(`DROP OWNED BY %[1]q; ALTER DATABASE %[2]q OWNER TO CURRENT_USER; DROP ROLE %[1]q`, owner, taken))
	})
	pgtest.Exec(t, s.DSNOf(owner, "x", taken), fmt.Sprintf(`CREATE SCHEMA twinspan; CREATE FUNCTION twinspan.run() RETURNS uuid LANGUAGE plpgsql AS
		$$ BEGIN INSERT INTO public.ran_as VALUES (current_user); RETURN gen_random_uuid(); END $$;
		CREATE VIEW twinspan.lease AS SELECT '%s'::uuid AS agent, twinspan.run() AS holder, 'elsewhere'::text AS place`, agent))

	two, _ := process(t, server, "two")
	for _, database := range []string{copied, taken} {
		fenced := two.Fence(parse(t, s.DSN(database)))
		conn, err := fenced.Connect(t.Context(), pg.Session{Name: "sales/apply"})
		if err != nil {
			t.Fatalf("a session of %s: %v", database, err)
		}
		conn.Close(context.Background())
		raw, err := fenced.ConnectReplication(t.Context(), pg.Session{Name: "sales/slot"})
		if err != nil {
			t.Fatalf("a replication session of %s: %v", database, err)
		}
		raw.Close(context.Background())
	}
	select {
	case <-two.Lost():
		t.Error("it takes what a copy or somebody else says for another agent")
	default:
	}
	if _, err := lease.Look(t.Context(), parse(t, s.DSN(taken)), agent); err == nil {
		t.Error("what is no agent's table is read")
	}
	if other, err := two.Take(t.Context(), taken); err == nil || other != nil {
		t.Errorf("a lease in somebody else's schema: %+v, %v", other, err)
	}
	if ran := pgtest.Query(t, s.DSN(taken), `SELECT who FROM public.ran_as`); len(ran) > 0 {
		t.Errorf("the owner's function ran as %v", ran)
	}
	// In the linked database itself it counts.
	if _, err := two.Fence(parse(t, s.DSN(name))).Connect(t.Context(), pg.Session{Name: "sales/apply"}); problem.CodeOf(err) != "agent_twice" {
		t.Errorf("a session of the linked database: %v", err)
	}
}
