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

// While a schema change with rows that come anew waits for one table, those that it has emptied before are read: nothing is held
// while it waits. Row security that is forced takes an exclusive lock of its own where code of users runs.
func TestNothingIsHeldWhileASchemaChangeWaits(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{})
	p.A.Server.CreateDatabase(t, "held")
	a, b := p.A.Server.DSN("held"), p.B.Server.DSN("held")
	pgtest.Exec(t, a, `CREATE FUNCTION fine(v int) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN true; END'`)
	shapes := []string{"plain", "forced"}
	for _, shape := range shapes {
		pgtest.Exec(t, a, fmt.Sprintf(`CREATE TABLE %[1]s (id int PRIMARY KEY, v int) PARTITION BY RANGE (id);
			CREATE TABLE %[1]s_1 PARTITION OF %[1]s FOR VALUES FROM (0) TO (10);
			CREATE TABLE %[1]s_2 PARTITION OF %[1]s FOR VALUES FROM (10) TO (20);
			INSERT INTO %[1]s VALUES (1, 1), (2, 2), (11, 11)`, shape))
	}
	pgtest.Exec(t, a, `ALTER TABLE forced ADD CHECK (fine(v))`,
		`ALTER TABLE forced_1 ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY`, `ALTER TABLE forced_2 ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY`)
	p.Create(t, "held", "held")
	p.WaitPhase(t, "held", api.Replicating)
	for _, shape := range shapes {
		reader := pgtest.Conn(t, b)
		if _, err := reader.Exec(t.Context(), `BEGIN; SELECT count(*) FROM `+shape+`_2`); err != nil {
			t.Fatal(err)
		}
		pgtest.Exec(t, a, `ALTER TABLE `+shape+` ADD u uuid DEFAULT gen_random_uuid()`)
		pgtest.Eventually(t, linktest.Patience, func() error {
			l, err := p.B.Client.Link(t.Context(), "held")
			if err != nil || len(l.Problems) != 1 || l.Problems[0].Code != "schema_change_waits" {
				return fmt.Errorf("the link shows %+v, %v", l.Problems, err)
			}
			return nil
		})
		other := pgtest.Conn(t, b)
		ctx, cancel := context.WithTimeout(t.Context(), linktest.Patience)
		var count, columns int
		err := other.QueryRow(ctx, `SELECT count(*), (SELECT count(*) FROM pg_attribute WHERE attrelid = to_regclass($1) AND attname = 'u') FROM `+shape+`_1`, shape+"_1").Scan(&count, &columns)
		cancel()
		if err != nil || count != 2 || columns != 0 {
			t.Errorf("%s: while the change waits a reader finds %d rows, and %d columns u, %v", shape, count, columns, err)
		}
		if _, err := reader.Exec(t.Context(), `COMMIT`); err != nil {
			t.Fatal(err)
		}
		sameStructure(t, p, "held", "held")
		if n := pgtest.Query(t, b, `SELECT count(u) FROM `+shape)[0][0]; n != "3" {
			t.Errorf("%s: %s rows have a value", shape, n)
		}
	}
}
