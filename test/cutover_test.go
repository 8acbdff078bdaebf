package test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// cutover is one that is under way from a to b.
type cutover struct {
	*linktest.Pair
	t    *testing.T
	name string
}

func makeCutover(t *testing.T, p *linktest.Pair, name string) *cutover {
	p.A.Server.CreateDatabase(t, name)
	pgtest.Exec(t, p.A.Server.AppDSN(name), `CREATE TABLE t (id int PRIMARY KEY)`)
	p.Create(t, name, name)
	p.WaitPhase(t, name, api.Replicating)
	return &cutover{Pair: p, t: t, name: name}
}

// lock keeps a side from storing anything until it is let go. It has no transaction id, for which
// the making of a slot would wait.
func (c *cutover) lock(side *linktest.Side) (letGo func()) {
	c.t.Helper()
	conn := pgtest.Conn(c.t, side.Server.DSN(c.name))
	if _, err := conn.Exec(c.t.Context(), `BEGIN; LOCK TABLE twinspan.link IN EXCLUSIVE MODE`); err != nil {
		c.t.Fatal(err)
	}
	return func() { conn.Close(context.Background()) }
}

// waitRecord waits until a side's record is as wanted.
func (c *cutover) waitRecord(side *linktest.Side, where string) {
	c.t.Helper()
	pgtest.Eventually(c.t, linktest.Patience, func() error {
		if n := pgtest.Query(c.t, side.Server.DSN(c.name), `SELECT count(*)::text FROM twinspan.link WHERE `+where)[0][0]; n != "1" {
			return fmt.Errorf("link %s at %s is not %s", c.name, side.Name, where)
		}
		return nil
	})
}

// decided begins a cutover, and returns when the twin is the primary and the old side cannot
// store anything until it is let go.
func (c *cutover) decided() (letGo func()) {
	c.t.Helper()
	writer := pgtest.Conn(c.t, c.A.Server.AppDSN(c.name))
	if _, err := writer.Exec(c.t.Context(), `BEGIN; INSERT INTO t VALUES (-1)`); err != nil {
		c.t.Fatal(err)
	}
	if _, err := c.A.Client.Failover(c.t.Context(), c.name, api.FailoverRequest{Cutover: true, DrainSeconds: 30}); err != nil {
		c.t.Fatal(err)
	}
	c.waitRecord(c.B, `EXISTS (SELECT FROM pg_replication_slots WHERE database = current_database())`) // it is prepared
	decide := c.lock(c.B)
	if _, err := writer.Exec(c.t.Context(), `ROLLBACK`); err != nil {
		c.t.Fatal(err)
	}
	c.waitRecord(c.A, `phase = 'fenced'`)
	letGo = c.lock(c.A)
	decide()
	c.waitRecord(c.B, `role = 'primary'`)
	return letGo
}

// over waits until the link is gone from both sides, and sees that the twin is free and the
// former primary shut.
func (c *cutover) over() {
	c.t.Helper()
	for _, side := range []*linktest.Side{c.A, c.B} {
		pgtest.Eventually(c.t, linktest.Patience, func() error {
			l, err := side.Client.Link(c.t.Context(), c.name)
			if e, ok := err.(*api.Error); ok && e.Code == "link_unknown" {
				return nil
			}
			return fmt.Errorf("agent %s has link %s as %s, %v, %v", side.Name, c.name, l.Role, l.Problems, err)
		})
	}
	if left := pgtest.Query(c.t, c.B.Server.DSN(c.name), `SELECT nspname FROM pg_namespace WHERE nspname = 'twinspan' UNION ALL SELECT slot_name FROM pg_replication_slots WHERE database = current_database()`); len(left) > 0 {
		c.t.Errorf("the new primary of %s has %v", c.name, left)
	}
	pgtest.Exec(c.t, c.B.Server.AppDSN(c.name), `INSERT INTO t VALUES (1)`)
	if _, err := pgtest.Try(c.t.Context(), stubborn(c.A, c.name)(), `INSERT INTO t VALUES (1)`); err == nil || !strings.Contains(err.Error(), "cutover") {
		c.t.Errorf("writing to the former primary of %s: %v", c.name, err)
	}
	pgtest.Exec(c.t, c.A.Server.DSN(c.name), `BEGIN READ WRITE; SELECT twinspan.release(); COMMIT`)
}

// A cutover whose agent is killed behind the decision is completed when that is back, and is shown
// until then: the link is not left behind, reversed, nor does the same command change it back.
func TestCutoverIsCompletedByAnAgentStartedAnew(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{})
	c := makeCutover(t, p, "decided")
	letGo := c.decided()
	p.B.Kill()
	p.B.Start()
	pgtest.Eventually(t, linktest.Patience, func() error {
		l, err := p.B.Client.Link(t.Context(), c.name)
		if err == nil && !slices.ContainsFunc(l.Problems, func(p api.Problem) bool { return p.Code == "cutover_pending" }) {
			err = fmt.Errorf("the link is %s with %v", l.Role, l.Problems)
		}
		return err
	})
	if f, err := p.B.Client.Failover(t.Context(), c.name, api.FailoverRequest{Cutover: true}); err != nil || f.State != api.FailoverRunning || f.Primary != "b" {
		t.Errorf("the same command: %+v, %v", f, err)
	}
	_, err := p.B.Client.Failover(t.Context(), c.name, api.FailoverRequest{})
	refusedWith(t, "another change of places", err, "cutover_pending")
	letGo()
	c.over()

	c = makeCutover(t, p, "half")
	letGo = c.decided()
	letGoTwin := c.lock(p.B)
	letGo()
	pgtest.Eventually(t, linktest.Patience, func() error {
		if links, err := p.A.Client.Links(t.Context()); err != nil || len(links) > 0 {
			return fmt.Errorf("agent a has %v, %v", links, err)
		}
		return nil
	})
	p.B.Kill()
	letGoTwin()
	p.B.Start()
	c.over()
}

// The same of several links, of which one has not done yet what was decided for all. It is done as well where that link
// cannot be told before the agent is killed, and the one in whose database it is decided is found late.
func TestCutoverOfSeveralIsCompletedByAnAgentStartedAnew(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{})
	one, two := makeCutover(t, p, "one"), makeCutover(t, p, "two")
	letGo := one.decidedWith(two)
	letGoTwo := two.lock(p.B)
	letGo()
	pgtest.Eventually(t, linktest.Patience, func() error {
		if n := pgtest.Query(t, p.B.Server.DSN("two"), `SELECT count(*)::text FROM twinspan.together WHERE decided`)[0][0]; n != "1" {
			return fmt.Errorf("it is not decided")
		}
		return nil
	})
	p.B.Kill()
	letGoTwo()
	p.B.Start()
	one.over()
	two.over()

	three, four := makeCutover(t, p, "three"), makeCutover(t, p, "four")
	letGo = three.decidedWith(four)
	conn := pgtest.Conn(t, p.B.Server.DSN("four"))
	if _, err := conn.Exec(t.Context(), `BEGIN; LOCK TABLE twinspan.link, twinspan.together IN EXCLUSIVE MODE`); err != nil {
		t.Fatal(err)
	}
	letGo()
	pgtest.Eventually(t, linktest.Patience, func() error {
		l, err := p.B.Client.Link(t.Context(), "three")
		if q := problemOf(l.Problems, "cutover_pending"); err == nil && !strings.Contains(q.Title, "not been possible") {
			err = fmt.Errorf("the link is %s with %v", l.Role, l.Problems)
		}
		return err
	})
	p.B.Kill()
	// What sessions of the killed agent still wait for would be done when they are let go.
	pgtest.Eventually(t, linktest.Patience, func() error {
		left := pgtest.Query(t, p.B.Server.DSN("four"), `SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'twinspan/%'`)
		if len(left) > 0 {
			return fmt.Errorf("%d sessions are there", len(left))
		}
		return nil
	})
	conn.Close(context.Background())
	letGoThree := three.hide(p.B)
	p.B.Start()
	pgtest.Eventually(t, linktest.Patience, func() error { // which is not to be taken for undone
		l, err := p.B.Client.Link(t.Context(), "four")
		if q := problemOf(l.Problems, "others_unknown"); err == nil && !strings.Contains(q.Title, "could not be searched") {
			err = fmt.Errorf("the link is %s with %v", l.Phase, l.Problems)
		}
		return err
	})
	letGoThree()
	three.over()
	four.over()
}

// hide keeps an agent that is started from finding its side of the link until it is let go.
func (c *cutover) hide(side *linktest.Side) (letGo func()) {
	c.t.Helper()
	conn := pgtest.Conn(c.t, side.Server.DSN(c.name))
	if _, err := conn.Exec(c.t.Context(), `BEGIN; LOCK TABLE twinspan.link IN ACCESS EXCLUSIVE MODE`); err != nil {
		c.t.Fatal(err)
	}
	return func() { conn.Close(context.Background()) }
}

// decidedWith begins a cutover of two links, of which both have promised to do what is decided. That is not stored until
// it is let go.
func (c *cutover) decidedWith(other *cutover) (letGo func()) {
	c.t.Helper()
	s := &spread{t: c.t, pairs: map[string]*linktest.Pair{c.name: c.Pair, other.name: c.Pair}, names: []string{c.name, other.name}}
	letGo = s.held(c.name, c.A, c.B)
	s.promised(map[string]*linktest.Side{c.name: c.B, other.name: c.B})
	return letGo
}
