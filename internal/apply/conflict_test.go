package apply

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// Who stands in the way is cancelled, or ended where there is nothing to cancel;
// others are left alone.
func TestReadersInTheWayAreCancelled(t *testing.T) {
	p := newPair(t, false, `CREATE TABLE t (id int PRIMARY KEY)`, `CREATE TABLE other (id int PRIMARY KEY)`)
	p.do(`INSERT INTO t VALUES (1)`)
	p.apply()
	p.do(`TRUNCATE t`, `INSERT INTO t VALUES (2)`)
	reads := func(table string) *pgx.Conn {
		conn := pgtest.Conn(t, p.target)
		if _, err := conn.Exec(t.Context(), `BEGIN; SELECT * FROM `+table); err != nil {
			t.Fatal(err)
		}
		return conn
	}
	idle, bystander, active := reads("t"), reads("other"), reads("t")
	result := make(chan error, 1)
	go func() {
		_, err := active.Exec(context.Background(), `SELECT pg_sleep(600)`)
		result <- err
	}()
	// Until its statement runs there is nothing to cancel, and it would be ended.
	pgtest.Eventually(t, time.Minute, func() error {
		if got := pgtest.Query(t, p.target, `SELECT state FROM pg_stat_activity WHERE pid = $1`, active.PgConn().PID())[0][0]; got != "active" {
			return fmt.Errorf("the reader is %s", got)
		}
		return nil
	})
	if _, err := p.try(func(a *Applier) { a.SetConflict(true, 100*time.Millisecond) }); err != nil {
		t.Fatal(err)
	}
	p.same()
	if err := <-result; pg.SQLState(err) != "57014" {
		t.Errorf("the active reader's error is %v", err)
	}
	if _, err := idle.Exec(t.Context(), `SELECT 1`); err == nil {
		t.Error("the idle reader goes on")
	}
	if _, err := bystander.Exec(t.Context(), `SELECT 1`); err != nil {
		t.Errorf("the reader of another table: %v", err)
	}
}

// A policy that comes while the applier waits counts at once.
func TestPolicyChangesWhileTheApplierWaits(t *testing.T) {
	p := newPair(t, false, `CREATE TABLE t (id int PRIMARY KEY)`)
	p.do(`TRUNCATE t`, `INSERT INTO t VALUES (2)`)
	reader := pgtest.Conn(t, p.target)
	if _, err := reader.Exec(t.Context(), `BEGIN; SELECT * FROM t`); err != nil {
		t.Fatal(err)
	}
	_, err := p.try(func(a *Applier) {
		go pgtest.Eventually(t, time.Minute, func() error {
			if b := a.Status().Blocked; b == nil || b.Code != "changes_wait" {
				return errors.New("nothing waits")
			}
			a.SetConflict(true, 0)
			return nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	p.same()
	if _, err := reader.Exec(t.Context(), `SELECT 1`); err == nil {
		t.Error("the reader goes on")
	}
}
