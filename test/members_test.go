//go:build ha

package test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/pgtest"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/setup"
)

// chosen reads a number of the environment.
func chosen(t *testing.T, variable string, otherwise uint64) uint64 {
	t.Helper()
	text := os.Getenv(variable)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", variable, err)
	}
	return n
}

// membersAndTwin is an instance of three members under the bank's load, and its twin.
type membersAndTwin struct {
	t     *testing.T
	group *linktest.Group
	b     *linktest.Side
	bank  *bank
}

func openMembers(t *testing.T) *membersAndTwin {
	t.Helper()
	return openMembersWith(t, nil)
}

// openMembersWith is openMembers with variables in the environment of the members' agents.
func openMembersWith(t *testing.T, env []string) *membersAndTwin {
	t.Helper()
	m := &membersAndTwin{t: t, group: linktest.MembersWith(t, "a", 3, env), b: linktest.Alone(t, "b", linktest.Options{})}
	leader := m.group.Leader()
	leader.Side.Pair(t, m.b)
	pgtest.Exec(t, m.group.DSN("postgres"), `CREATE DATABASE bank`)
	pgtest.Exec(t, m.group.DSN("bank"),
		`CREATE TABLE account (id int PRIMARY KEY, balance bigint NOT NULL)`,
		fmt.Sprintf(`INSERT INTO account SELECT i, %d FROM generate_series(0, %d) i`, opening, accounts-1),
		`CREATE TABLE transfer (id text PRIMARY KEY, debit int NOT NULL, credit int NOT NULL, amount int NOT NULL, n bigserial)`)
	if _, err := leader.Client.CreateLink(t.Context(), api.CreateLink{Name: "bank", Database: "bank", Peer: "b"}); err != nil {
		t.Fatal(err)
	}
	m.awaitReplicating()
	m.bank = openBank(t, 0, false, nil)
	m.bank.limit = 10 * time.Second
	m.bank.pace.Store(int64(20 * time.Millisecond))
	m.bank.more(4, func() string { return m.group.DSN("bank") })
	// These speak to one member each, whether it leads or has just been thawed: nothing that any of them is told may be lost.
	for _, one := range m.group.Members {
		m.bank.more(1, func() string { return one.DSN("bank") + " connect_timeout=3" })
	}
	m.bank.waitTransfers(100)
	return m
}

// awaitReplicating waits until the link replicates, whatever it went through.
func (m *membersAndTwin) awaitReplicating() {
	m.t.Helper()
	pgtest.Await(m.t, linktest.Patience, "the link goes on by itself", func() error {
		l, err := m.b.Client.Link(m.t.Context(), "bank")
		if err != nil {
			return err
		}
		if l.Phase != api.Replicating {
			return fmt.Errorf("phase %s, problems %+v", l.Phase, l.Problems)
		}
		return nil
	})
}

// awaitSlots waits until every standby has the link's slot. Patroni restarts a standby for it, all at once: until then there is none that could lead (docs/members.md).
func (m *membersAndTwin) awaitSlots() {
	m.t.Helper()
	pgtest.Await(m.t, linktest.Patience, "the standbys have the link's slot", func() error {
		for _, one := range m.group.Members {
			rows, err := pgtest.Try(m.t.Context(), one.DSN("postgres"), `SELECT FROM pg_replication_slots WHERE slot_name LIKE 'twinspan\_%'`)
			if err != nil || len(rows) != 1 {
				return fmt.Errorf("%s: %d slots, %v", one.Called(), len(rows), err)
			}
		}
		return nil
	})
}

// finish ends the load and compares the twin with the instance.
func (m *membersAndTwin) finish() {
	t := m.t
	t.Helper()
	m.bank.close()
	leader := m.group.Leader()
	end := pgtest.Query(t, m.group.DSN("bank"), `SELECT pg_current_wal_insert_lsn()`)[0][0]
	pgtest.Await(t, linktest.Patience, "everything is applied", func() error {
		l, err := m.b.Client.Link(t.Context(), "bank")
		if err != nil || l.Phase != api.Replicating || l.Position.Applied == "" {
			return fmt.Errorf("%+v, %v", l.Phase, err)
		}
		if at := pgtest.Query(t, m.group.DSN("bank"), `SELECT ($1::pg_lsn <= $2::pg_lsn)::text`, end, l.Position.Applied)[0][0]; at != "true" {
			return fmt.Errorf("applied %s of %s", l.Position.Applied, end)
		}
		return nil
	})
	m.bank.audit(m.group.DSN("bank"), false)
	m.bank.audit(m.b.Server.DSN("bank"), false)
	pgtest.Equal(t, leader.DSN("bank"), m.b.Server.DSN("bank"))
	t.Logf("%d transfers were acknowledged, none is lost", m.bank.transfers.Load())
}

// Three members under load, and what can happen to one of them, one thing after another: kill -9, a freeze, a data directory that is deleted, an etcd that loses its
// data, of the leader or of a standby. No acknowledged transfer is lost, whoever took it, and the link goes on by itself.
func TestMembersSurvive(t *testing.T) {
	seed := chosen(t, "TWINSPAN_MEMBERS_SEED", rand.Uint64N(1<<32))
	rounds := int(chosen(t, "TWINSPAN_MEMBERS_ROUNDS", 5))
	freeze := time.Duration(chosen(t, "TWINSPAN_MEMBERS_FREEZE", 25)) * time.Second
	t.Logf("seed %d (TWINSPAN_MEMBERS_SEED), %d rounds (TWINSPAN_MEMBERS_ROUNDS), freezes of %s (TWINSPAN_MEMBERS_FREEZE)", seed, rounds, freeze)
	rng := rand.New(rand.NewPCG(seed, 1))
	m := openMembers(t)
	faults := []string{"kill", "freeze", "wipe", "etcd"}
	// The first rounds are those that matter most.
	plan := []string{"kill", "freeze", "wipe", "etcd"}
	for round := range rounds {
		m.awaitReplicating()
		m.awaitSlots()
		m.group.AwaitWhole()
		victim, fault := m.group.Leader(), faults[rng.IntN(len(faults))]
		ofLeader := true
		if round < len(plan) {
			fault = plan[round]
		} else if rng.IntN(3) == 0 {
			ofLeader = false
			for _, one := range m.group.Members {
				if one != victim {
					victim = one
					break
				}
			}
		}
		what := fmt.Sprintf("round %d: %s of %s (leader: %v)", round+1, fault, victim.Called(), ofLeader)
		t.Log(what)
		began := time.Now()
		// Whoever leads before: an etcd that is lost need not move the lead.
		mustMove := ofLeader && fault != "etcd"
		switch fault {
		case "kill":
			victim.SignalAll(syscall.SIGKILL)
		case "freeze":
			victim.SignalAll(syscall.SIGSTOP)
		case "wipe":
			if err := os.RemoveAll(victim.DataDir()); err != nil {
				t.Logf("%v", err) // files come while they go
				os.RemoveAll(victim.DataDir())
			}
		case "etcd":
			pid := victim.Etcd()
			if err := os.RemoveAll(victim.EtcdDir()); err != nil {
				t.Log(err)
			}
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		var leader *linktest.Member
		if mustMove {
			leader = m.group.Leader(victim)
		} else {
			leader = m.group.Leader()
		}
		t.Logf("%s: %s leads and its agent serves after %s", what, leader.Called(), time.Since(began).Round(100*time.Millisecond))
		m.bank.waitTransfers(50)
		t.Logf("%s: commits go on after %s", what, time.Since(began).Round(100*time.Millisecond))
		m.awaitReplicating()
		t.Logf("%s: the link goes on after %s", what, time.Since(began).Round(100*time.Millisecond))
		switch fault {
		case "kill":
			victim.Relaunch()
		case "freeze":
			for time.Since(began) < freeze { // commits go on meanwhile
				m.bank.waitTransfers(5)
			}
			victim.SignalAll(syscall.SIGCONT)
		}
		m.bank.waitTransfers(50)
		m.group.AwaitWhole()
		t.Logf("%s: all members are back after %s", what, time.Since(began).Round(100*time.Millisecond))
	}
	m.finish()
}

// keepsStrangersOut sees that whoever has an account on a member's host can neither ask its programs nor read what they know.
func keepsStrangersOut(t *testing.T, m *linktest.Member) {
	t.Helper()
	for what, port := range map[string]int{"etcd": m.Record.Self.Client, "etcd for members": m.Record.Self.Peer, "Patroni": m.Record.Self.REST} {
		if port == 0 {
			continue
		}
		conn, err := tls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port), &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			continue
		}
		_ = conn.SetDeadline(time.Now().Add(linktest.Patience))
		_, _ = conn.Write([]byte("GET /health HTTP/1.0\r\n\r\n"))
		if n, err := conn.Read(make([]byte, 100)); n > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s of %s answers who shows no certificate: %d bytes, %v", what, m.Called(), n, err)
		}
		conn.Close()
	}
	for _, dir := range []string{"member", "instance/member", "instance/etcd", "instance/run"} {
		info, err := os.Stat(filepath.Join(m.Dir.Path(), dir))
		if errors.Is(err, os.ErrNotExist) && m.Record.Self.Witness {
			continue
		}
		if err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s of %s lets others in: %v, %v", dir, m.Called(), info, err)
		}
	}
	for _, file := range []string{"member/member.json", "instance/member/patroni.json", "instance/member/member.key"} {
		info, err := os.Stat(filepath.Join(m.Dir.Path(), file))
		if errors.Is(err, os.ErrNotExist) && m.Record.Self.Witness {
			continue
		}
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s of %s: %v, %v", file, m.Called(), info, err)
		}
	}
}

// Two servers and a witness: writes go on alone where one is lost; a member that is removed does nothing for the instance any more, and another one takes its place.
func TestMembersComeAndGo(t *testing.T) {
	g := linktest.Members(t, "a", 2)
	g.Join(true)
	pgtest.Exec(t, g.DSN("postgres"), `CREATE TABLE note (n int PRIMARY KEY)`, `INSERT INTO note VALUES (1)`)
	for _, m := range g.Members {
		keepsStrangersOut(t, m)
	}
	// One that has the key of the backups from elsewhere is refused before it is admitted.
	if _, err := g.TryJoin(func(in *setup.Join) { in.BackupKeyCommand = "echo a-key-of-somebody-else" }); problem.CodeOf(err) != "member_backup_key" {
		t.Errorf("with another key of the backups: %v", err)
	}
	lost := g.Leader()
	if _, err := lost.Client.RemoveMember(t.Context(), lost.Called()); err == nil {
		t.Error("the member that leads was removed")
	}
	lost.SignalAll(syscall.SIGKILL)
	leader := g.Leader(lost)
	pgtest.Await(t, linktest.Patience, "writes go on", func() error {
		_, err := pgtest.Try(t.Context(), g.DSN("postgres"), `INSERT INTO note VALUES (2)`)
		return err
	})
	pgtest.Await(t, linktest.Patience, "it is said that writes have no standby", func() error {
		view, err := leader.View()
		if err != nil || !slices.ContainsFunc(view.Problems, func(p api.Problem) bool { return p.Code == "members_alone" }) {
			return fmt.Errorf("%+v, %v", view.Problems, err)
		}
		return nil
	})
	lost.Relaunch()
	g.AwaitWhole()
	if got := pgtest.Query(t, lost.DSN("postgres"), `SELECT count(*), pg_is_in_recovery()::text FROM note`)[0]; got[0] != "2" || got[1] != "true" {
		t.Errorf("the standby is to be read: %v", got)
	}
	if _, err := lost.Client.Links(t.Context()); err == nil {
		t.Error("a member that stands by answers for links")
	}
	if _, err := leader.Client.RemoveMember(t.Context(), lost.Called()); err != nil {
		t.Fatal(err)
	}
	pgtest.Await(t, linktest.Patience, "the removed member's server stops", func() error {
		if pid := linktest.Postmaster(lost.DataDir()); pid != 0 {
			return fmt.Errorf("process %d", pid)
		}
		view, err := lost.View()
		if err != nil || !slices.ContainsFunc(view.Problems, func(p api.Problem) bool { return p.Code == "member_removed" }) {
			return fmt.Errorf("problems %+v, %v", view.Problems, err)
		}
		return nil
	})
	g.Forget(lost)
	g.Join(false)
	pgtest.Exec(t, g.DSN("postgres"), `INSERT INTO note VALUES (3)`)
	g.AwaitWhole()
}
