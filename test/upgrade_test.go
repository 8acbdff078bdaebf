package test

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// earlierCommit is the release whose links have to go on: the last one before agents proved their
// records, wrote with the rights of owners and fenced by tickets.
const earlierCommit = "04c68a5"

// earlier returns the program of then, "" in a shallow clone that lacks its commit. It is built
// from the history, once for each machine.
func earlier(t *testing.T) string {
	t.Helper()
	said, err := exec.Command("../scripts/build-earlier", earlierCommit).Output()
	if err != nil {
		var why []byte
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			if why = exit.Stderr; exit.ExitCode() == 3 {
				t.Logf("NOT RUN: %s", why)
				return ""
			}
		}
		t.Fatalf("no program of commit %s to upgrade from: %v\n%s", earlierCommit, err, why)
	}
	return strings.TrimSpace(string(said))
}

// upgraded are the links of TestUpgrade, each of the database of that name.
var upgraded = []string{
	"plain",  // replicates
	"asleep", // is suspended
	"parted", // was made primary by force at b; what a lost was read by the program of then
	"unread", // the same, and a hears of it only when it comes back
}

// Links that the earlier release made go on when both agents are replaced, one after the
// other, whichever is the first: nothing is copied anew. While the two are of different
// age they replicate, and do not change places.
func TestUpgradeOneAfterTheOther(t *testing.T) {
	t.Parallel()
	program := earlier(t)
	if program == "" {
		return
	}
	for _, order := range []struct {
		name  string
		twins bool // b, which has the twins of a's databases, is the first
	}{{"the primary first", false}, {"the twin first", true}} {
		t.Run(order.name, func(t *testing.T) {
			t.Parallel()
			u := &upgrade{T: t, Pair: linktest.New(t, linktest.Options{Program: program}), rows: map[string]int{}}
			u.begin()
			if order.twins {
				u.replace(u.B)
				u.A.Start() // and hears that it is no primary of "unread"
			} else {
				u.replace(u.A)
			}
			waitFenced(t, u.A, "unread")
			u.half(order.twins)
			if order.twins {
				u.replace(u.A)
			} else {
				u.replace(u.B)
			}
			u.end()
		})
	}
}

// upgrade is a pair whose agents are being replaced.
type upgrade struct {
	*testing.T
	*linktest.Pair
	rows    map[string]int // how often each link's primary has been written to
	oids    string         // of the tables at b
	changes int
}

// begin makes the links with the program of then, and leaves a down.
func (u *upgrade) begin() {
	t := u.T
	t.Helper()
	for _, name := range upgraded {
		u.A.Server.CreateDatabase(t, name)
		pgtest.Exec(t, u.A.Server.AppDSN(name),
			`CREATE FUNCTION positive(i int) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN i > 0; END'`,
			`CREATE TABLE t (id int PRIMARY KEY, a text, n serial, CHECK (positive(id)))`, `CREATE TABLE bag (a text)`,
			`INSERT INTO t SELECT i, 'a' FROM generate_series(1, 1000) i`,
			`CREATE FUNCTION tally() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN UPDATE total SET n = total.n + 1; RETURN NULL; END'`,
			`CREATE TABLE total (id int PRIMARY KEY, n int); INSERT INTO total VALUES (1, 0)`,
			`CREATE TRIGGER counts AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION tally()`)
		u.Create(t, name, name)
	}
	for _, name := range upgraded {
		u.WaitPhase(t, name, api.Replicating)
		u.write(u.A, name)
		u.WaitEqual(t, name, name)
	}
	u.oids = u.tables()
	if _, err := u.B.Client.Suspend(t.Context(), "asleep"); err != nil {
		t.Fatal(err)
	}
	u.WaitPhase(t, "asleep", api.Suspended)
	u.part("parted")
	u.A.Start()
	waitFenced(t, u.A, "parted")
	u.part("unread")
}

// part has b made primary by force while a's agent is down, and clients write to both.
func (u *upgrade) part(name string) {
	u.Helper()
	u.A.Kill()
	u.write(u.A, name)
	force(u.T, u.B, name)
	u.write(u.B, name)
}

// replace puts the program under test in the place of the one of then.
func (u *upgrade) replace(s *linktest.Side) {
	u.Helper()
	s.Kill()
	s.Program = ""
	s.Start()
}

// write changes rows as a client of the primary would.
func (u *upgrade) write(s *linktest.Side, name string) {
	u.Helper()
	u.rows[name]++
	n := u.rows[name]
	pgtest.Exec(u.T, s.Server.AppDSN(name), fmt.Sprintf(`INSERT INTO t SELECT i, '%s' FROM generate_series(%d, %d) i`, s.Name, 1000*n+1, 1000*n+50),
		fmt.Sprintf(`UPDATE t SET a = 'changed by %s' WHERE id %% 100 = %d`, s.Name, n), fmt.Sprintf(`DELETE FROM t WHERE id %% 100 = %d`, 50+n))
}

// alter makes schema changes on the primary: one of each kind that the programs tell each
// other in different ways.
func (u *upgrade) alter(s *linktest.Side, name string) {
	u.Helper()
	u.changes++
	n := u.changes
	pgtest.Exec(u.T, s.Server.AppDSN(name), fmt.Sprintf(`ALTER TABLE t ADD COLUMN filled%d float DEFAULT random()`, n), fmt.Sprintf(`CREATE TABLE made%d (id int PRIMARY KEY, a text)`, n),
		fmt.Sprintf(`INSERT INTO made%d VALUES (1, 'x')`, n), fmt.Sprintf(`ALTER TABLE made%d ALTER a TYPE varchar(10)`, n),
		fmt.Sprintf(`CREATE INDEX ON t ((lower(a))) WHERE id > %d`, n), fmt.Sprintf(`CREATE TABLE gone%[1]d (); DROP TABLE gone%[1]d`, n), `INSERT INTO bag VALUES ('x')`)
}

// tables identifies the tables at b that the first copy made: another copy makes others.
func (u *upgrade) tables() string {
	u.Helper()
	var list []string
	for _, name := range upgraded {
		list = append(list, name, fmt.Sprint(pgtest.Query(u.T, u.B.Server.DSN(name), `SELECT relname, oid FROM pg_class WHERE relname IN ('t', 'bag', 'total') ORDER BY 1`)))
	}
	return strings.Join(list, " ")
}

// half is when one of the two has been replaced.
func (u *upgrade) half(twins bool) {
	t := u.T
	t.Helper()
	u.alter(u.A, "plain")
	u.write(u.A, "plain")
	u.write(u.A, "asleep")
	u.WaitPhase(t, "plain", api.Replicating)
	u.WaitEqual(t, "plain", "plain")
	if refused(u.secondaryWrites()) != true {
		t.Error("the twin takes writes while the agents are of different age")
	}
	for _, s := range []*linktest.Side{u.A, u.B} {
		u.staysInPlace(s)
	}
	u.WaitPhase(t, "plain", api.Replicating)
	u.write(u.A, "plain")
	u.WaitEqual(t, "plain", "plain")
	for _, s := range []*linktest.Side{u.A, u.B} {
		if l, err := s.Client.Link(t.Context(), "asleep"); err != nil || l.Phase != api.Suspended {
			t.Errorf("what was suspended is at %s: %+v, %v", s.Name, l, err)
		}
	}
	for _, name := range []string{"parted", "unread"} {
		u.write(u.B, name)
		if l, err := u.A.Client.Link(t.Context(), name); err != nil || l.Phase != api.Fenced || l.Role != api.Secondary {
			t.Errorf("%s, which was left behind, is at a: %+v, %v", name, l, err)
		}
		if _, err := pgtest.Try(t.Context(), u.A.Server.AppDSN(name)+"&default_transaction_read_only=off", `DELETE FROM t`); !refused(err) {
			t.Errorf("%s takes a write at the side that was left behind: %v", name, err)
		}
	}
}

func (u *upgrade) secondaryWrites() error {
	_, err := pgtest.Try(u.Context(), u.B.Server.AppDSN("plain")+"&default_transaction_read_only=off", `DELETE FROM t`)
	return err
}

// staysInPlace asks a side for a change of places, which has to be refused with the reason.
func (u *upgrade) staysInPlace(s *linktest.Side) {
	t := u.T
	t.Helper()
	f, err := s.Client.Failover(t.Context(), "plain", api.FailoverRequest{})
	if err == nil {
		// The older one drives, and is refused by the newer.
		pgtest.Eventually(t, linktest.Patience, func() error {
			if f, err = s.Client.FailoverProgress(t.Context(), "plain"); err != nil || f.State == api.FailoverRunning {
				return fmt.Errorf("%+v, %v", f, err)
			}
			return nil
		})
		if f.State != api.FailoverUndone || f.Problem == nil || f.Problem.Code != "agent_older" || f.Problem.Hint == "" {
			t.Errorf("a change of places, asked of %s, while the agents are of different age: %+v, %+v", s.Name, f, f.Problem)
		}
		return
	}
	var sent *api.Error
	if !errors.As(err, &sent) || sent.Code != "agent_older" || sent.Hint == "" {
		t.Errorf("a change of places, asked of %s, while the agents are of different age: %v", s.Name, err)
	}
}

// end is when both have been replaced: everything works, nothing has been copied anew, and
// each side has what its agent makes today.
func (u *upgrade) end() {
	t := u.T
	t.Helper()
	u.WaitPhase(t, "plain", api.Replicating)
	u.alter(u.A, "plain")
	u.write(u.A, "plain")
	u.WaitEqual(t, "plain", "plain")
	if _, err := u.A.Client.Resume(t.Context(), "asleep"); err != nil {
		t.Fatal(err)
	}
	u.WaitPhase(t, "asleep", api.Replicating)
	u.WaitEqual(t, "asleep", "asleep")
	for _, name := range []string{"plain", "asleep"} {
		u.renewed(u.A, name, "twinspan.format()")
		u.renewed(u.B, name, "twinspan.ticket(text, oid)")
	}
	for _, name := range []string{"parted", "unread"} {
		parting := waitFenced(t, u.A, name)
		var told int
		for _, c := range lostChanges(t, u.B, name, parting.Epoch) {
			if c.Kind == "insert" && c.Table == "public.t" {
				told++
			}
		}
		if told != 50 {
			t.Errorf("%s lost 50 rows, and %d are told", name, told)
		}
		plan, err := u.A.Client.RejoinPlan(t.Context(), name)
		if err != nil || len(plan.Reseed) != 0 {
			t.Errorf("%s is to rejoin by %+v, %v", name, plan, err)
		}
		rejoin(t, u.Pair, u.A, name, plan.Needs...)
		waitEqual(t, u.Pair, name, name)
	}
	for _, name := range upgraded {
		for range map[string]int{"plain": 2, "asleep": 1, "parted": 1, "unread": 1}[name] {
			primary, secondary := primaryOf(t, u.Pair, name)
			pgtest.Eventually(t, linktest.Patience, func() error {
				l, err := secondary.Client.Link(t.Context(), name)
				if err != nil || l.Health != api.Healthy {
					return fmt.Errorf("%+v, %v", l, err)
				}
				return nil
			})
			if f := failOver(t, secondary, name, api.FailoverRequest{}); f.State != api.FailoverDone {
				t.Fatalf("%s: %s does not take over from %s: %+v, %+v", name, secondary.Name, primary.Name, f, f.Problem)
			}
			waitSettled(t, u.Pair, name)
			u.write(secondary, name)
			u.alter(secondary, name)
			waitEqual(t, u.Pair, name, name)
			if _, err := pgtest.Try(t.Context(), primary.Server.AppDSN(name)+"&default_transaction_read_only=off", `DELETE FROM t`); !refused(err) {
				t.Errorf("%s: %s takes a write: %v", name, primary.Name, err)
			}
		}
		for _, s := range []*linktest.Side{u.A, u.B} {
			dsn := s.Server.DSN(name)
			if got := pgtest.Query(t, dsn, `SELECT count(*) FROM twinspan.proof`)[0][0]; got != "1" {
				t.Errorf("%s of %s proves %s records", name, s.Name, got)
			}
		}
	}
	if now := u.tables(); now != u.oids {
		t.Errorf("the twin's tables are\n%s\nand were\n%s", now, u.oids)
	}
}

// renewed fails the test unless what a side has in the schema of its link is of today: a
// function that then was none is there, and none takes locks that anybody could take.
func (u *upgrade) renewed(s *linktest.Side, name, function string) {
	u.Helper()
	pgtest.Eventually(u.T, linktest.Patience, func() error {
		left := pgtest.Query(u.T, s.Server.DSN(name), `SELECT p.oid::regprocedure FROM pg_proc p WHERE p.pronamespace = 'twinspan'::regnamespace AND p.prosrc LIKE '%advisory%'`)
		if there := pgtest.Query(u.T, s.Server.DSN(name), `SELECT to_regprocedure($1) IS NOT NULL`, function)[0][0]; there != "t" && there != "true" || len(left) > 0 {
			return fmt.Errorf("%s of %s: %s is there: %s; of then are %v", name, s.Name, function, there, left)
		}
		return nil
	})
}
