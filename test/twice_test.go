package test

import (
	"fmt"
	"slices"
	"syscall"
	"testing"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// standsBy waits until an agent says that another one with its identity works.
func standsBy(t *testing.T, s *linktest.Side) {
	t.Helper()
	pgtest.Await(t, linktest.Patience, "agent "+s.Dir.Path()+" stands by", func() error {
		self, err := s.Client.Agent(t.Context())
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(self.Problems, func(p api.Problem) bool { return p.Code == "agent_twice" && p.Severity == api.Blocks && p.Hint != "" }) {
			return fmt.Errorf("problems %+v", self.Problems)
		}
		return nil
	})
	_, err := s.Client.Links(t.Context())
	refusedWith(t, "links of an agent that stands by", err, "agent_twice")
	_, err = s.Client.Suspend(t.Context(), "sales")
	refusedWith(t, "suspend at an agent that stands by", err, "agent_twice")
}

// works waits until an agent works the link.
func works(t *testing.T, s *linktest.Side) {
	t.Helper()
	pgtest.Await(t, linktest.Patience, "agent "+s.Dir.Path()+" works", func() error {
		l, err := s.Client.Link(t.Context(), "sales")
		if err == nil && l.Phase == api.Broken {
			t.Fatalf("the link is broken: %+v", l.Problems)
		}
		if err == nil && l.Phase != api.Replicating {
			err = fmt.Errorf("phase %s, problems %+v", l.Phase, l.Problems)
		}
		return err
	})
}

// A directory is copied, and an agent runs in each: one works, the other says so and takes
// over when the one that works is killed, or stopped for long; that one, woken up, stands by. No
// row is lost, and the link never breaks.
func TestTwoAgentsWithOneIdentity(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"b", "a"} {
		t.Run(map[string]string{"a": "primary", "b": "secondary"}[name], func(t *testing.T) {
			t.Parallel()
			p := linktest.New(t, linktest.Options{})
			pgtest.Exec(t, p.A.Server.DSN("postgres"), `CREATE DATABASE sales`)
			sales := p.A.Server.DSN("sales")
			pgtest.Exec(t, sales, `CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT g, 'first' FROM generate_series(1, 1000) g`)
			p.Create(t, "sales", "sales")
			p.WaitPhase(t, "sales", api.Replicating)
			rows := 1000
			write := func() {
				pgtest.Exec(t, sales, fmt.Sprintf(`INSERT INTO t SELECT g, 'more' FROM generate_series(%d, %d) g; UPDATE t SET v = v || 'x' WHERE id %% 7 = 0`, rows+1, rows+100))
				rows += 100
			}
			with := func(s *linktest.Side) *linktest.Pair {
				if name == "a" {
					return &linktest.Pair{A: s, B: p.B}
				}
				return &linktest.Pair{A: p.A, B: s}
			}
			one := map[string]*linktest.Side{"a": p.A, "b": p.B}[name]
			two := one.Copy(t)
			two.Launch()
			standsBy(t, two)
			works(t, one)
			write()
			with(one).WaitEqual(t, "sales", "sales")

			one.Kill()
			write()
			works(t, two)
			with(two).WaitEqual(t, "sales", "sales")
			one.Launch()
			standsBy(t, one)

			two.Signal(syscall.SIGSTOP)
			write()
			works(t, one)
			with(one).WaitEqual(t, "sales", "sales")
			two.Signal(syscall.SIGCONT)
			standsBy(t, two)
			write()
			works(t, one)
			with(one).WaitEqual(t, "sales", "sales")
			for _, s := range []*linktest.Side{p.A, p.B} {
				if s == one || s.Name != name {
					links, err := s.Client.Links(t.Context())
					if err != nil || len(links) != 1 || links[0].Phase != api.Replicating {
						t.Errorf("links at %s: %+v, %v", s.Name, links, err)
					}
				}
			}
		})
	}
}
