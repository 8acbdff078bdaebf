package test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// Documents are stored as applications do, a large object and the row that names it in
// one transaction, and removed again, while the sides change places: what was
// acknowledged is on the new primary, with its bytes.
func TestFailoverTakesLargeObjectsAlong(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{})
	p.A.Server.CreateDatabase(t, "docs")
	pgtest.Exec(t, p.A.Server.AppDSN("docs"), `CREATE TABLE doc (id bigint PRIMARY KEY, body oid)`)
	p.Create(t, "docs", "docs")
	p.WaitPhase(t, "docs", api.Replicating)

	// stored says of each document whether it must be there; of those whose end is not
	// known nothing is said.
	stored := map[string]bool{}
	ctx, stop := context.WithCancel(t.Context())
	var acknowledged atomic.Int64
	var storing sync.WaitGroup
	storing.Go(func() {
		for id := 0; ctx.Err() == nil; id++ {
			conn, err := pgx.Connect(ctx, both(p.A, p.B, "docs", "read-write"))
			if err != nil {
				continue // nobody accepts writes at this moment
			}
			key := fmt.Sprint(id)
			err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
				var body uint32
				if err := tx.QueryRow(ctx, `SELECT lo_from_bytea(0, convert_to('document ' || $1::text, 'UTF8'))`, key).Scan(&body); err != nil {
					return err
				}
				_, err := tx.Exec(ctx, `INSERT INTO doc VALUES ($1, $2)`, id, body)
				return err
			})
			if err == nil {
				stored[key] = true
				acknowledged.Add(1)
			}
			if err == nil && id%3 == 0 {
				delete(stored, key)
				if _, err = conn.Exec(ctx, `WITH gone AS (DELETE FROM doc WHERE id = $1 RETURNING body) SELECT lo_unlink(body) FROM gone`, id); err == nil {
					stored[key] = false
				}
			}
			conn.Close(context.WithoutCancel(ctx))
		}
	})
	for range 4 {
		primary := waitSettled(t, p, "docs")
		before := acknowledged.Load()
		pgtest.Eventually(t, linktest.Patience, func() error {
			if n := acknowledged.Load() - before; n < 30 {
				return fmt.Errorf("%d documents stored", n)
			}
			return nil
		})
		if f := failOver(t, primary, "docs", api.FailoverRequest{}); f.State != api.FailoverDone {
			t.Fatalf("%+v", f)
		}
	}
	stop()
	storing.Wait()
	primary := waitSettled(t, p, "docs")
	there := map[string]bool{}
	for _, row := range pgtest.Query(t, primary.Server.DSN("docs"), `SELECT id::text, convert_from(lo_get(body), 'UTF8') FROM doc`) {
		if there[row[0]] = true; row[1] != "document "+row[0] {
			t.Errorf("document %s is %q", row[0], row[1])
		}
	}
	for id, want := range stored {
		if there[id] != want {
			t.Errorf("document %s: there %v, want %v", id, there[id], want)
		}
	}
	if lost := pgtest.Query(t, primary.Server.DSN("docs"), `SELECT oid::text FROM pg_largeobject_metadata WHERE oid NOT IN (SELECT body FROM doc)`); len(lost) > 0 {
		t.Errorf("large objects of nobody: %v", lost)
	}
	t.Logf("%d documents", len(stored))
}
