package linktest

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/client"
	"github.com/twinspan/twinspan/internal/config"
	"github.com/twinspan/twinspan/internal/instance"
	"github.com/twinspan/twinspan/internal/member"
	"github.com/twinspan/twinspan/internal/pgtest"
	"github.com/twinspan/twinspan/internal/setup"
)

// Group is an instance of several members, all on this machine. Its programs are to be installed (make members).
type Group struct {
	Members []*Member
	t       testing.TB
	name    string
	dir     string
	made    int
	env     []string
}

// Member is one of them, with its agent.
type Member struct {
	*Side
	Record member.Record
}

// Alone starts a server with an agent, nobody's peer yet.
func Alone(t testing.TB, name string, o Options) *Side {
	t.Helper()
	s := newSide(t, name, o, nil, nil)
	s.Start()
	return s
}

// Members makes an instance and waits until all its members are in.
func Members(t testing.TB, name string, count int) *Group {
	t.Helper()
	return MembersWith(t, name, count, nil)
}

// MembersWith is Members with variables ("NAME=value") in the agents' environment.
func MembersWith(t testing.TB, name string, count int, env []string) *Group {
	t.Helper()
	g := &Group{t: t, name: name, dir: pgtest.Dir(t), env: env}
	place, endpoint, ports := g.place()
	_, err := setup.Init(t.Context(), setup.Request{Dir: place, Name: name, Managed: true, Tier: setup.BusinessCritical, Endpoint: endpoint, Port: pgtest.FreePort(), MemberPorts: ports})
	if err != nil {
		t.Fatal(describe(err))
	}
	g.add(place)
	for len(g.Members) < count {
		g.Join(false)
	}
	return g
}

// place is where the next member lives.
func (g *Group) place() (dir config.Dir, endpoint string, ports []int) {
	g.t.Helper()
	dir, err := config.OpenDir(filepath.Join(g.dir, "m"+strconv.Itoa(g.made+1)))
	if err != nil {
		g.t.Fatal(err)
	}
	g.made++
	return dir, fmt.Sprintf("127.0.0.1:%d", pgtest.FreePort()), []int{pgtest.FreePort(), pgtest.FreePort(), pgtest.FreePort()}
}

// Join brings another member in, with a server or as a witness, and waits until it is.
func (g *Group) Join(witness bool) *Member {
	g.t.Helper()
	place, err := g.TryJoin(func(in *setup.Join) { in.Witness = witness })
	if err != nil {
		g.t.Fatal(describe(err))
	}
	return g.add(place)
}

// TryJoin makes the directory of another member, of which change says what is not as usual, and does not start it.
func (g *Group) TryJoin(change func(*setup.Join)) (config.Dir, error) {
	g.t.Helper()
	invitation, err := g.Leader().Client.InviteMember(g.t.Context(), api.InviteMember{})
	if err != nil {
		g.t.Fatal(describe(err))
	}
	place, endpoint, ports := g.place()
	in := setup.Join{Dir: place, Token: invitation.Token, Endpoint: endpoint, Ports: ports, Version: "test"}
	if change(&in); !in.Witness {
		in.Port = pgtest.FreePort()
	}
	_, err = setup.JoinInstance(g.t.Context(), in)
	return place, err
}

// add starts a member that was made, and waits until all are in.
func (g *Group) add(dir config.Dir) *Member {
	t := g.t
	t.Helper()
	record, err := member.Load(dir.Path())
	if err != nil {
		t.Fatal(err)
	}
	m := &Member{Side: &Side{Name: g.name, Dir: dir, Env: g.env, t: t}, Record: record}
	if m.Client, err = client.New(client.Dial{Socket: dir.Socket()}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Client.Close)
	t.Cleanup(m.end)
	t.Cleanup(func() {
		m.racing()
		if t.Failed() {
			m.dump()
			for _, log := range []string{"etcd.log", "patroni.log", "member/patroni.log"} {
				text, _ := os.ReadFile(filepath.Join(dir.Instance(), log))
				t.Logf("%s of %s:\n%s", log, record.Self.Name, text[max(0, len(text)-2000):])
			}
		}
	})
	g.Members = append(g.Members, m)
	m.Launch()
	g.AwaitWhole()
	return m
}

// Forget leaves a member that was removed out of account.
func (g *Group) Forget(m *Member) {
	g.Members = slices.DeleteFunc(g.Members, func(other *Member) bool { return other == m })
}

// Called is the member's name.
func (m *Member) Called() string { return m.Record.Self.Name }

// DataDir is its data directory.
func (m *Member) DataDir() string { return member.DataDir(m.Dir.Instance()) }

// Etcd returns the process of its etcd, 0 without one.
func (m *Member) Etcd() int { return m.noted("etcd.pid") }

// EtcdDir is the directory of its etcd's data.
func (m *Member) EtcdDir() string { return filepath.Join(m.Dir.Instance(), "etcd") }

func (m *Member) noted(file string) int {
	text, err := os.ReadFile(filepath.Join(m.Dir.Instance(), file))
	if err != nil {
		return 0
	}
	pid, _ := strconv.Atoi(strings.TrimSpace(string(text)))
	return pid
}

// SignalAll sends a signal to every process of the member, as what happens to its host would: its agent, Patroni, etcd and the server's.
func (m *Member) SignalAll(signal syscall.Signal) {
	postmaster := Postmaster(m.DataDir())
	for _, pid := range append([]int{m.PID(), m.noted("patroni.pid"), m.Etcd(), postmaster}, children(postmaster)...) {
		if pid > 1 {
			_ = syscall.Kill(pid, signal) // it may have ended
		}
	}
}

// children lists the processes that another one has started.
func children(parent int) []int {
	var list []int
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(text), ") ")
		fields := strings.Fields(rest)
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err == nil && parent > 1 && len(fields) > 1 && fields[1] == strconv.Itoa(parent) {
			list = append(list, pid)
		}
	}
	return list
}

// end ends what is left of a member.
func (m *Member) end() {
	m.SignalAll(syscall.SIGCONT)
	m.process.Process.Kill()
	<-m.ended
	m.SignalAll(syscall.SIGKILL)
	pgtest.Await(m.t, Patience, "the member's programs end", func() error {
		for _, pid := range []int{m.noted("patroni.pid"), m.Etcd(), Postmaster(m.DataDir())} {
			if text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil && strings.Contains(string(text), m.Dir.Path()) {
				_ = syscall.Kill(pid, syscall.SIGKILL)
				return fmt.Errorf("process %d is there", pid)
			}
		}
		return nil
	})
}

// View is what a member says of all.
func (m *Member) View() (api.Members, error) { return m.Client.Members(m.t.Context()) }

// Leader waits until a member leads whose agent works the links, others than except being asked, and returns it.
func (g *Group) Leader(except ...*Member) *Member {
	g.t.Helper()
	var found *Member
	pgtest.Await(g.t, Patience, "a member leads and serves", func() error {
		var last error
		for _, m := range g.Members {
			if contains(except, m) {
				continue
			}
			view, err := m.View()
			if err != nil {
				last = err
				continue
			}
			last = fmt.Errorf("leader %q, serves %q, problems %+v", view.Leader, view.Serves, view.Problems)
			for _, other := range g.Members {
				if other.Called() == view.Leader && !contains(except, other) && view.Serves == view.Leader {
					if _, err := other.Client.Links(g.t.Context()); err == nil {
						found = other
						return nil
					}
				}
			}
		}
		return last
	})
	return found
}

func contains(list []*Member, m *Member) bool {
	for _, other := range list {
		if other == m {
			return true
		}
	}
	return false
}

// AwaitWhole waits until all members answer, vote and follow, and commits wait for one of them.
func (g *Group) AwaitWhole() {
	g.t.Helper()
	pgtest.Await(g.t, Patience, "all members are in", func() error {
		for _, m := range g.Members {
			view, err := m.View()
			if err != nil {
				return err
			}
			leaders, sync, servers := 0, 0, 0
			for _, one := range view.Members {
				if !one.Answers || !one.Votes || one.Role == "unknown" || one.Role == "replica" && one.State != "streaming" {
					return fmt.Errorf("%s: %s is %s, %s, answers %v, votes %v; problems %+v", m.Called(), one.Name, one.Role, one.State, one.Answers, one.Votes, view.Problems)
				}
				if one.Role != "witness" {
					servers++
				}
				switch one.Role {
				case "leader":
					leaders++
				case "sync_standby":
					sync++
				}
			}
			if len(view.Members) != len(g.Members) || leaders != 1 || servers > 1 && sync == 0 || view.Serves != view.Leader || servers >= 3 != view.Strict {
				return fmt.Errorf("%s: %d members, %d leaders, %d synchronous standbys, serves %q of %q, strict %v", m.Called(), len(view.Members), leaders, sync, view.Serves, view.Leader, view.Strict)
			}
		}
		return nil
	})
}

// DSN is the superuser's connection string to a database of this member's server, over TCP.
func (m *Member) DSN(database string) string { return m.dsn(database, m) }

// DSN leads to whichever member takes writes.
func (g *Group) DSN(database string) string {
	return g.Members[0].dsn(database, g.Members...) + " target_session_attrs=read-write connect_timeout=3"
}

func (m *Member) dsn(database string, of ...*Member) string {
	password, err := (&instance.Server{Dir: m.Dir.Instance()}).Password()
	if err != nil {
		m.t.Fatal(err)
	}
	var hosts, ports []string
	for _, one := range of {
		if one.Record.Self.Witness {
			continue
		}
		hosts, ports = append(hosts, "127.0.0.1"), append(ports, strconv.Itoa(one.Record.Self.Postgres))
	}
	return fmt.Sprintf("host=%s port=%s user=postgres password=%s dbname=%s sslmode=require", strings.Join(hosts, ","), strings.Join(ports, ","), password, database)
}

// Relaunch starts the agent of a member that was killed.
func (m *Member) Relaunch() {
	m.t.Helper()
	<-m.ended
	m.Launch()
}
