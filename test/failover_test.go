package test

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"testing"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// rounds is how often a test repeats itself; the variable asks for more.
func rounds(variable string, usual int) int {
	if n, err := strconv.Atoi(os.Getenv(variable)); err == nil {
		return n
	}
	return usual
}

// primaryOf returns the side that is primary, and the other.
func primaryOf(t *testing.T, p *linktest.Pair, name string) (primary, secondary *linktest.Side) {
	t.Helper()
	l, err := p.A.Client.Link(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	if l.Role == api.Primary {
		return p.A, p.B
	}
	return p.B, p.A
}

// failOver lets the sides change places, as planned, and returns how that ended.
func failOver(t *testing.T, at *linktest.Side, name string, request api.FailoverRequest) api.FailoverProgress {
	t.Helper()
	f, err := at.Client.Failover(t.Context(), name, request)
	if err != nil {
		t.Fatalf("failover: %v", err)
	}
	pgtest.Eventually(t, linktest.Patience, func() error {
		if f, err = at.Client.FailoverProgress(t.Context(), name); err != nil {
			return err
		}
		if f.State == api.FailoverRunning {
			return fmt.Errorf("under way: %+v", f.Steps)
		}
		return nil
	})
	return f
}

// Under load the sides change places again and again: no transfer that a client was
// told of is missing, none is there twice, and none failed but for the refusal of
// the side that is not primary any more.
func TestPlannedFailoversUnderLoad(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{})
	p.A.Server.CreateDatabase(t, "bank")
	if err := pgbench(t, t.Context(), p.A, "bank", "-i", "-s", "2", "-q"); err != nil {
		t.Fatal(err)
	}
	makeBank(t, p.A, "bank")
	p.Create(t, "bank", "bank")
	p.WaitPhase(t, "bank", api.Replicating)
	b := openBank(t, 8, true, eitherSide(p, "bank"))
	var holds []float64
	for round := range rounds("TWINSPAN_FAILOVERS", 4) {
		b.waitTransfers(200)
		old, next := primaryOf(t, p, "bank")
		at := []*linktest.Side{old, next}[round%2] // from either side
		f := failOver(t, at, "bank", api.FailoverRequest{})
		if f.State != api.FailoverDone || f.Primary != next.Name {
			t.Fatalf("round %d: %+v, %+v", round, f, f.Problem)
		}
		holds = append(holds, f.HoldSeconds)
		p.WaitPhase(t, "bank", api.Replicating)
		if l, err := next.Client.Link(t.Context(), "bank"); err != nil || l.Role != api.Primary || l.Epoch != int64(round+2) || l.LastFailover == nil {
			t.Fatalf("round %d: the new primary is %+v, %v", round, l, err)
		}
	}
	b.waitTransfers(200)
	b.close()
	slices.Sort(holds)
	t.Logf("%d transfers, %d refused and sent again; writers waited %.0f ms in the middle, %.0f ms at most", b.transfers.Load(), b.refusals.Load(),
		1000*holds[len(holds)/2], 1000*holds[len(holds)-1])
	primary, _ := primaryOf(t, p, "bank")
	b.audit(primary.Server.DSN("bank"), false)
	waitEqual(t, p, "bank", "bank")
}

// waitEqual waits until the secondary, whichever that is, has what the primary has.
func waitEqual(t *testing.T, p *linktest.Pair, name, database string) {
	t.Helper()
	primary, secondary := primaryOf(t, p, name)
	(&linktest.Pair{A: primary, B: secondary}).WaitEqual(t, name, database)
}
