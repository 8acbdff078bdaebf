package test

import (
	"context"
	"fmt"
	"testing"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// A partition whose concurrent detaching is interrupted belongs to its table on the
// twin until it is finalized on the primary; rows written meanwhile are in both.
func TestDetachIsFinalized(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{})
	p.A.Server.CreateDatabase(t, "parts")
	a := p.A.Server.DSN("parts")
	pgtest.Exec(t, a, `CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id)`, `CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (1) TO (10)`,
		`CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20)`, `INSERT INTO p VALUES (1), (11)`)
	p.Create(t, "parts", "parts")
	p.WaitPhase(t, "parts", api.Replicating)

	reader := pgtest.Conn(t, a)
	if _, err := reader.Exec(t.Context(), `BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT * FROM p`); err != nil {
		t.Fatal(err)
	}
	conn := pgtest.Conn(t, a)
	detached := make(chan error, 1)
	go func() {
		_, err := conn.Exec(context.Background(), `ALTER TABLE p DETACH PARTITION p1 CONCURRENTLY`)
		detached <- err
	}()
	pgtest.Eventually(t, linktest.Patience, func() error {
		if pending := pgtest.Query(t, a, `SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhdetachpending`); len(pending) != 1 || pending[0][0] != "p1" {
			return fmt.Errorf("detaching is not under way: %v", pending)
		}
		return nil
	})
	pgtest.Exec(t, a, fmt.Sprintf(`SELECT pg_cancel_backend(%d)`, conn.PgConn().PID()))
	if err := <-detached; pg.SQLState(err) != "57014" {
		t.Fatalf("the partition was to be detached beside a reader: %v", err)
	}
	pgtest.Exec(t, a, `INSERT INTO p1 VALUES (2)`, `INSERT INTO p VALUES (12)`)
	waitEqual(t, p, "parts", "parts")
	if _, err := reader.Exec(t.Context(), `COMMIT`); err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, a, `ALTER TABLE p DETACH PARTITION p1 FINALIZE`, `INSERT INTO p1 VALUES (3)`, `ALTER TABLE p1 ADD note text DEFAULT 'alone'`)
	sameStructure(t, p, "parts", "parts")
	waitEqual(t, p, "parts", "parts")
}
