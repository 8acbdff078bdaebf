package test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// several are links that change places together, each with clients that write.
type several struct {
	*linktest.Pair
	t     *testing.T
	names []string
	banks []*bank
}

func makeSeveral(t *testing.T, names ...string) *several {
	s := &several{Pair: linktest.New(t, linktest.Options{}), t: t, names: names}
	for _, name := range names {
		s.A.Server.CreateDatabase(t, name)
		makeBank(t, s.A, name)
		s.Create(t, name, name)
	}
	for _, name := range names {
		s.WaitPhase(t, name, api.Replicating)
		b := openBank(t, 2, false, eitherSide(s.Pair, name))
		b.pace.Store(int64(5 * time.Millisecond))
		s.banks = append(s.banks, b)
	}
	return s
}

// begin has them change places, asked of an agent's side.
func (s *several) begin(at *linktest.Side) api.Failovers {
	s.t.Helper()
	f, err := at.Client.FailoverTogether(s.t.Context(), api.FailoversRequest{Links: s.names, DrainSeconds: 30})
	if err != nil {
		s.t.Fatal(err)
	}
	return f
}

// over waits until the agent at a side says how it ended.
func (s *several) over(at *linktest.Side) (f api.Failovers) {
	s.t.Helper()
	pgtest.Eventually(s.t, linktest.Patience, func() (err error) {
		if f, err = at.Client.Failovers(s.t.Context()); err == nil && f.State == api.FailoverRunning {
			err = fmt.Errorf("running: %+v", f)
		}
		return err
	})
	return f
}

// settled waits until all links replicate, and says where all of them have their primary.
func (s *several) settled(what string) *linktest.Side {
	s.t.Helper()
	var at *linktest.Side
	for i, name := range s.names {
		primary := waitSettled(s.t, s.Pair, name)
		if i > 0 && primary != at {
			s.t.Fatalf("%s: some of the links have changed places", what)
		}
		at = primary
		s.banks[i].waitTransfers(20)
	}
	return at
}

// Several links change places as one, driven by an agent, and none does when one cannot.
// Agents that are killed at the moments that matter leave all or none of them changed.
func TestLinksChangePlacesTogether(t *testing.T) {
	t.Parallel()
	s := makeSeveral(t, "one", "two", "three")
	// Nobody watches: the agent beside the primaries goes on by itself.
	f := s.begin(s.A)
	if again := s.begin(s.A); !again.StartedAt.Equal(f.StartedAt) {
		t.Errorf("asked again it began anew: %+v", again)
	}
	if f = s.over(s.A); f.State != api.FailoverDone || f.Problem != nil || len(f.Links) != 3 || f.Links[0].Primary != "b" {
		t.Errorf("%+v, %+v", f, f.Problem)
	}
	if s.settled("all") != s.B {
		t.Fatal("no link has changed places")
	}
	if left := pgtest.Query(t, s.A.Server.DSN("one"), `SELECT count(*)::text FROM twinspan.together`)[0][0]; left != "0" {
		t.Errorf("%s decisions are kept", left)
	}

	// One of them has a prepared transaction.
	pgtest.Exec(t, s.B.Server.AppDSN("two"), `CREATE TABLE late (i int)`, `BEGIN; INSERT INTO late VALUES (1); PREPARE TRANSACTION 'stays'`)
	_, err := s.A.Client.FailoverTogether(t.Context(), api.FailoversRequest{Links: s.names})
	if refusedWith(t, "with a link that cannot", err, "transaction_prepared"); !strings.Contains(err.Error(), "link two") {
		t.Errorf("with a link that cannot: %v", err)
	}
	if s.settled("one cannot") != s.B {
		t.Fatal("links have changed places of which one cannot")
	}
	pgtest.Exec(t, s.B.Server.DSN("two"), `ROLLBACK PREPARED 'stays'`)

	for range 2 { // beside the twins, and then beside the primaries
		s.killBeforeTheDecision(s.A)
		s.killAfterTheDecision(s.A)
	}
	primary := s.settled("end")
	for i, name := range s.names {
		s.banks[i].close()
		s.banks[i].audit(primary.Server.DSN(name), false)
		waitEqual(t, s.Pair, name, name)
	}
}

// held begins a failover, and keeps the agent that drives it from storing the decision until
// it is let go. A transaction that writes holds it up meanwhile.
func (s *several) held(driver, primary *linktest.Side) (letGo func()) {
	s.t.Helper()
	writer, conn := pgtest.Conn(s.t, primary.Server.AppDSN(s.names[0])), pgtest.Conn(s.t, driver.Server.DSN(s.names[0]))
	if _, err := writer.Exec(s.t.Context(), `BEGIN; INSERT INTO account VALUES (-1, 0)`); err != nil {
		s.t.Fatal(err)
	}
	s.begin(driver)
	pgtest.Eventually(s.t, linktest.Patience, func() error {
		if n := pgtest.Query(s.t, driver.Server.DSN(s.names[0]), `SELECT count(*)::text FROM twinspan.together WHERE decided IS NULL`)[0][0]; n != "1" {
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

// promised waits until every link has promised to do what is decided, and the driver, which is
// held, decides.
func (s *several) promised(driver, primary *linktest.Side) {
	s.t.Helper()
	twin := s.A
	if primary == s.A {
		twin = s.B
	}
	pgtest.Eventually(s.t, linktest.Patience, func() error {
		for _, name := range s.names {
			n := pgtest.Query(s.t, twin.Server.DSN(name), `SELECT count(*)::text FROM twinspan.promise p JOIN twinspan.link l ON l.id = p.link AND l.operation = p.operation`)[0][0]
			if n != "1" {
				return fmt.Errorf("link %s has not promised", name)
			}
		}
		return nil
	})
	awaitDeciding(s.t, driver.Server.DSN(s.names[0]))
}

// awaitDeciding waits until the agent that drives a failover of several links stores its
// decision, from which held keeps it. A promise that is stored is not known to it at once: who
// kills the agent that promised before that has the failover undone.
func awaitDeciding(t *testing.T, leader string) {
	t.Helper()
	pgtest.Eventually(t, linktest.Patience, func() error {
		if pgtest.Query(t, leader, `SELECT count(*)::text FROM pg_stat_activity
			WHERE datname = current_database() AND query LIKE 'UPDATE twinspan.together%' AND wait_event_type = 'Lock'`)[0][0] != "1" {
			return fmt.Errorf("the driver does not decide yet")
		}
		return nil
	})
}

// killBeforeTheDecision kills the agent that drives when all links wait for what it decides.
func (s *several) killBeforeTheDecision(driver *linktest.Side) {
	s.t.Helper()
	before := s.settled("before")
	letGo := s.held(driver, before)
	s.promised(driver, before)
	driver.Kill()
	// What a session of the killed agent still waits for would be done when it is let go.
	pgtest.Eventually(s.t, linktest.Patience, func() error {
		left := pgtest.Query(s.t, driver.Server.DSN(s.names[0]), `SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity
			WHERE datname = current_database() AND query LIKE 'UPDATE twinspan.together%' AND wait_event_type = 'Lock'`)
		if len(left) > 0 {
			return fmt.Errorf("it still waits")
		}
		return nil
	})
	letGo()
	driver.Start()
	if s.settled("killed before the decision") != before {
		s.t.Fatal("the links have changed places though it was not decided")
	}
}

// killAfterTheDecision kills the agent of the twins when it is decided, and one of the links
// has not done it yet.
func (s *several) killAfterTheDecision(driver *linktest.Side) {
	s.t.Helper()
	before := s.settled("before")
	twin := s.A
	if before == s.A {
		twin = s.B
	}
	letGo := s.held(driver, before)
	s.promised(driver, before)
	conn := pgtest.Conn(s.t, twin.Server.DSN("two"))
	if _, err := conn.Exec(s.t.Context(), `BEGIN; LOCK TABLE twinspan.link IN EXCLUSIVE MODE`); err != nil {
		s.t.Fatal(err)
	}
	letGo()
	pgtest.Eventually(s.t, linktest.Patience, func() error {
		if r := pgtest.Query(s.t, twin.Server.DSN("three"), `SELECT role FROM twinspan.link`)[0][0]; r != "primary" {
			return fmt.Errorf("it is not decided")
		}
		return nil
	})
	twin.Kill()
	if driver != twin {
		driver.Kill()
	}
	conn.Close(context.Background())
	twin.Start()
	if driver != twin {
		driver.Start()
	}
	if s.settled("killed after the decision") != twin {
		s.t.Fatal("the links have not changed places though it was decided")
	}
}
