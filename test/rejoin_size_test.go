package test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// TestRejoinOfDatabasesOfDifferentSizes loses the same number of rows of databases
// of pgbench's scales, which a variable may name, and tells how long each rejoin
// takes.
func TestRejoinOfDatabasesOfDifferentSizes(t *testing.T) {
	t.Parallel()
	scales := []string{"1", "4"}
	if list := os.Getenv("TWINSPAN_REJOIN_SCALES"); list != "" {
		scales = strings.Split(list, ",")
	}
	p := linktest.New(t, linktest.Options{ServerA: []pgtest.Option{pgtest.OnDisk()}, ServerB: []pgtest.Option{pgtest.OnDisk()}})
	for _, scale := range scales {
		name := "scale" + scale
		p.A.Server.CreateDatabase(t, name)
		if err := pgbench(t, t.Context(), p.A, name, "-i", "-q", "-s", scale); err != nil {
			t.Fatal(err)
		}
		p.Create(t, name, name)
		p.WaitPhase(t, name, api.Replicating)
	}
	const rows = 2000
	p.A.Kill()
	for _, scale := range scales {
		pgtest.Exec(t, p.A.Server.DSN("scale"+scale), fmt.Sprintf(`UPDATE pgbench_accounts SET abalance = 7 WHERE aid %% (100000 * %s / %d) = 0`, scale, rows))
		force(t, p.B, "scale"+scale)
		pgtest.Exec(t, p.B.Server.DSN("scale"+scale), fmt.Sprintf(`UPDATE pgbench_accounts SET abalance = 8 WHERE aid %% (100000 * %s / %d) = 1`, scale, rows))
	}
	p.A.Start()
	for _, scale := range scales {
		name := "scale" + scale
		if parting := waitFenced(t, p.A, name); parting.Changes != rows {
			t.Errorf("scale %s: %d lost changes", scale, parting.Changes)
		}
		began := time.Now()
		rejoin(t, p, p.A, name)
		t.Logf("scale %s: %d lost rows, replicating after %.1f s", scale, rows, time.Since(began).Seconds())
		waitEqual(t, p, name, name)
	}
}
