package test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// With the policy to cancel, a schema change ends who reads the table for too long,
// which is shown meanwhile. The policy is set on a link at work, from its primary.
func TestSchemaChangeCancelsReaders(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{})
	p.A.Server.CreateDatabase(t, "cancels")
	a, b := p.A.Server.DSN("cancels"), p.B.Server.DSN("cancels")
	pgtest.Exec(t, a, `CREATE TABLE t (id int PRIMARY KEY)`)
	p.Create(t, "cancels", "cancels")
	p.WaitPhase(t, "cancels", api.Replicating)
	reader := pgtest.Conn(t, b)
	result := make(chan error, 1)
	go func() {
		_, err := reader.Exec(context.Background(), `SELECT pg_sleep(600) FROM (SELECT count(*) FROM t) x`)
		result <- err
	}()
	pgtest.Eventually(t, linktest.Patience, func() error {
		if n := pgtest.Query(t, b, `SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()`)[0][0]; n != "1" {
			return fmt.Errorf("%s readers", n)
		}
		return nil
	})
	pgtest.Exec(t, a, `ALTER TABLE t ADD v int`, `INSERT INTO t VALUES (2, 2)`)
	pgtest.Eventually(t, linktest.Patience, func() error {
		l, err := p.A.Client.Link(t.Context(), "cancels")
		if err != nil || len(l.Problems) != 1 || l.Problems[0].Code != "schema_change_waits" || l.OnConflict != "wait" {
			return fmt.Errorf("the link shows %+v, policy %q, %v", l.Problems, l.OnConflict, err)
		}
		return nil
	})
	if _, err := p.A.Client.SetLink(t.Context(), "cancels", api.SetLink{OnConflict: "cancel=1s"}); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-result:
		if pg.SQLState(err) != "57014" {
			t.Errorf("the reader's error is %v", err)
		}
	case <-time.After(linktest.Patience):
		t.Fatal("the reader goes on")
	}
	sameStructure(t, p, "cancels", "cancels")
	for _, side := range []*linktest.Side{p.A, p.B} {
		pgtest.Eventually(t, linktest.Patience, func() error {
			if l, err := side.Client.Link(t.Context(), "cancels"); err != nil || l.OnConflict != "cancel=1s" {
				return fmt.Errorf("the policy is %q, %v", l.OnConflict, err)
			}
			return nil
		})
	}
	// It stays when the agent is started anew, and a session idle in a transaction is ended.
	p.B.Kill()
	p.B.Start()
	p.WaitPhase(t, "cancels", api.Replicating)
	idle := pgtest.Conn(t, b)
	if _, err := idle.Exec(t.Context(), `BEGIN; SELECT * FROM t`); err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, a, `ALTER TABLE t DROP v`)
	sameStructure(t, p, "cancels", "cancels")
	if _, err := idle.Exec(t.Context(), `SELECT 1`); err == nil {
		t.Error("the idle session goes on")
	}
	if _, err := p.A.Client.SetLink(t.Context(), "cancels", api.SetLink{OnConflict: "cancel=soon"}); err == nil {
		t.Error("a policy that cannot be read is taken")
	}
}
