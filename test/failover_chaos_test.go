package test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// stubborn is a connection string to one side alone that writes whatever the side's
// default is.
func stubborn(s *linktest.Side, database string) func() string {
	dsn := fmt.Sprintf("host=127.0.0.1 port=%d user=postgres dbname=%s connect_timeout=5 options='-c default_transaction_read_only=off'", s.Server.Port, database)
	return func() string { return dsn }
}

// waitSettled waits until one side is primary, the other follows it, and the link
// replicates, whatever happened before.
func waitSettled(t *testing.T, p *linktest.Pair, name string) (primary *linktest.Side) {
	t.Helper()
	pgtest.Eventually(t, linktest.Patience, func() error {
		a, err := p.A.Client.Link(t.Context(), name)
		if err != nil {
			return err
		}
		b, err := p.B.Client.Link(t.Context(), name)
		if err != nil {
			return err
		}
		if a.Role == b.Role || a.Epoch != b.Epoch || a.Phase != api.Replicating || b.Phase != api.Replicating || !a.Peer.Connected {
			return fmt.Errorf("a is %s %s at %d, b is %s %s at %d; %v, %v", a.Role, a.Phase, a.Epoch, b.Role, b.Phase, b.Epoch, a.Problems, b.Problems)
		}
		primary = p.A
		if b.Role == api.Primary {
			primary = p.B
		}
		return nil
	})
	return primary
}

// waitStep waits until a failover that began after a moment has come to a step, or is
// over.
func waitStep(t *testing.T, at *linktest.Side, name string, began time.Time, step int) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for range 10_000 {
		f, err := at.Client.FailoverProgress(t.Context(), name)
		if err == nil && f.StartedAt.After(began) && (len(f.Steps) >= step || f.State != api.FailoverRunning) {
			return
		}
		<-tick.C
	}
}

// While the sides change places, one of the agents or servers is killed, or the
// network cut, at a random moment. Whatever that is, the link ends up with one side
// that accepts writes and one that follows it, by itself, and no acknowledged
// transfer is missing, also of clients that try to write on either side all the time.
func TestFailoversUnderKills(t *testing.T) {
	t.Parallel()
	options, network := proxied(t)
	p := linktest.New(t, options)
	p.A.Server.CreateDatabase(t, "bank")
	makeBank(t, p.A, "bank")
	p.Create(t, "bank", "bank")
	p.WaitPhase(t, "bank", api.Replicating)
	b := openBank(t, 4, false, eitherSide(p, "bank"))
	b.pace.Store(int64(5 * time.Millisecond))
	b.more(1, stubborn(p.A, "bank"))
	b.more(1, stubborn(p.B, "bank"))

	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 3))
	decided, undone := 0, 0
	for round := range rounds("TWINSPAN_FAILOVER_KILLS", 6) {
		primary := waitSettled(t, p, "bank")
		b.waitTransfers(50)
		before, err := primary.Client.Link(t.Context(), "bank")
		if err != nil {
			t.Fatal(err)
		}
		// The moment is anywhere from before the beginning to after the end.
		began, lasted := time.Now(), make(chan time.Duration, 1)
		at := []*linktest.Side{p.A, p.B}[rng.IntN(2)]
		go func() {
			_, err := at.Client.Failover(t.Context(), "bank", api.FailoverRequest{})
			var sent *api.Error
			if err != nil && !errors.As(err, &sent) {
				t.Logf("round %d: the failover was not taken: %v", round, err)
			}
			lasted <- time.Since(began)
		}()
		waitStep(t, at, "bank", began, rng.IntN(12))
		pause(t, time.Duration(rng.IntN(30))*time.Millisecond)
		what := rng.IntN(5)
		switch what {
		case 0:
			p.A.Kill()
			pause(t, time.Duration(rng.IntN(800))*time.Millisecond)
			p.A.Start()
		case 1:
			p.B.Kill()
			pause(t, time.Duration(rng.IntN(800))*time.Millisecond)
			p.B.Start()
		case 2:
			p.A.Server.Kill()
			pause(t, time.Duration(rng.IntN(800))*time.Millisecond)
			p.A.Server.Restart()
		case 3:
			p.B.Server.Kill()
			pause(t, time.Duration(rng.IntN(800))*time.Millisecond)
			p.B.Server.Restart()
		case 4:
			network(false)
			pause(t, time.Duration(rng.IntN(1500))*time.Millisecond)
			network(true)
		}
		<-lasted
		primary = waitSettled(t, p, "bank")
		after, err := primary.Client.Link(t.Context(), "bank")
		if err != nil {
			t.Fatal(err)
		}
		if after.Epoch > before.Epoch {
			decided++
		} else {
			undone++
		}
	}
	primary := waitSettled(t, p, "bank")
	b.waitTransfers(50)
	b.close()
	t.Logf("%d failovers decided, %d undone; %d transfers, %d refused and sent again", decided, undone, b.transfers.Load(), b.refusals.Load())
	if decided == 0 || undone == 0 {
		t.Error("the kills did not come at moments that differ")
	}
	b.audit(primary.Server.DSN("bank"), false)
	waitEqual(t, p, "bank", "bank")
}
