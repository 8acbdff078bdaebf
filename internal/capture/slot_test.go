package capture_test

import (
	"fmt"
	"testing"

	"github.com/twinspan/twinspan/internal/capture"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// Whoever writes on the instance for longer than an agent waits for a lock is waited for.
func TestSlotWaitsForTransactions(t *testing.T) {
	server := pgtest.Shared(t)
	dsn, s := fresh(t, server)
	other, _ := fresh(t, server)
	must(t, connect(t, other), `CREATE TABLE public.t (i int)`)
	writer := connect(t, other)
	must(t, writer, `BEGIN; INSERT INTO public.t VALUES (1)`)
	made := make(chan error, 1)
	go func() { made <- s.MakeSlot(testContext(t)) }()
	pgtest.Eventually(t, patience, func() error {
		waiting := pgtest.Query(t, dsn, `SELECT (count(*) > 0)::text FROM pg_stat_activity WHERE datname = current_database()
			AND application_name = 'twinspan/sales/slot' AND wait_event_type = 'Lock' AND clock_timestamp() - query_start > '`+capture.LockTimeout.String()+`'::interval`)[0][0]
		select {
		case err := <-made:
			t.Fatalf("it did not wait: %v", err)
		default:
		}
		if waiting != "true" {
			return fmt.Errorf("nobody waits for so long")
		}
		return nil
	})
	must(t, writer, `COMMIT`)
	if err := <-made; err != nil {
		t.Fatal(err)
	}
	if n := pgtest.Query(t, dsn, `SELECT count(*)::text FROM pg_replication_slots WHERE database = current_database()`)[0][0]; n != "1" {
		t.Errorf("%s slots", n)
	}
	pgtest.Exec(t, dsn, `SELECT pg_drop_replication_slot('`+s.Object()+`')`)
}
