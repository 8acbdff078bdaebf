package test

import (
	"context"
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
	dsn := pgtest.AppConninfo(database, s.Server) + " connect_timeout=5 options='-c default_transaction_read_only=off'"
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

// moment is a place in the course of things, as one of the agents logs it.
type moment struct {
	former bool // by the agent of the one that was primary before
	text   string
}

// failoverMoments are those of a planned failover, from its first step to when the old
// primary follows the new one. About half of them lie so late that it is decided.
var failoverMoments = []moment{
	{false, `step="looking for what stands against it"`},
	{false, `step="preparing both sides"`},
	{false, `step="waiting for the twin to be near"`},
	{false, `step="waiting for running writers, holding new ones"`},
	{true, `msg="writers held"`},
	{false, `step="applying the rest"`},
	{false, `step="ending the stream"`},
	{false, `step="fencing the old primary"`},
	{false, `step="bringing the last large objects"`},
	{true, `from=failing_over to=fenced`},
	{false, `step="setting sequences"`},
	{false, `step=deciding`},
	{false, `to=catching_up role=primary`},
	{false, `step="telling the old primary"`},
	{true, `from=fenced to=catching_up role=secondary`},
	{false, `msg="failover done"`},
	{false, `msg="stream begins"`},
	{false, `from=catching_up to=replicating role=primary`},
	{true, `from=catching_up to=replicating role=secondary`},
}

// victims are what is killed and comes back: an agent, a server, or the network.
type victims struct {
	t       *testing.T
	p       *linktest.Pair
	network func(up bool)
}

// names of victims, in the order in which they are drawn.
var victimNames = []string{"agent a", "agent b", "server a", "server b", "network"}

// kill takes one away for a while.
func (v victims) kill(which int, away time.Duration) {
	side := []*linktest.Side{v.p.A, v.p.B}[which%2]
	switch which {
	case 0, 1:
		side.Kill()
		pause(v.t, away)
		side.Start()
	case 2, 3:
		side.Server.Kill()
		pause(v.t, away)
		side.Server.Restart()
	default:
		v.network(false)
		pause(v.t, 2*away)
		v.network(true)
	}
}

// strike has something begun, and at one of the moments, or up to linger later, takes one
// of the victims away for a while. instead is logged by the next primary's agent, which drives, when the
// moment does not come, or empty. It says what was done, and whether the moment came.
func (v victims) strike(rng *rand.Rand, moments []moment, linger time.Duration, former, next *linktest.Side, begin func(), instead string) (what string, came bool) {
	v.t.Helper()
	m, which, away := moments[rng.IntN(len(moments))], rng.IntN(len(victimNames)), time.Duration(rng.IntN(800))*time.Millisecond
	side := next
	if m.former {
		side = former
	}
	what = victimNames[which] + " at " + m.text
	from, nextFrom := side.LogEnd(), next.LogEnd()
	begin()
	ctx, stop := context.WithTimeout(v.t.Context(), linktest.Patience)
	defer stop()
	other := make(chan bool, 1)
	if instead == "" {
		other <- false
	} else {
		go func() { // by the agent that drives, wherever the moment is logged
			came := next.AwaitLog(ctx, nextFrom, instead) == 0
			other <- came
			stop()
		}()
	}
	came = side.AwaitLog(ctx, from, m.text) == 0
	stop()
	if !<-other && !came {
		v.t.Errorf("%s: it did not come to that", what)
	}
	pause(v.t, time.Duration(rng.IntN(2))*time.Duration(rng.Int64N(int64(linger))))
	v.kill(which, away)
	return what, came
}

// While the sides change places, one of the agents or servers is killed, or the
// network cut, at a random step. Whatever that is, the link ends up with one side
// that accepts writes and one that follows it, by itself, and no acknowledged
// transfer is missing, also of clients that try to write on either side all the time.
func TestFailoversUnderKills(t *testing.T) {
	t.Parallel()
	options, network := proxied(t)
	p := bankPair(t, options)
	b := openBank(t, 4, false, eitherSide(p, "bank"))
	b.pace.Store(int64(5 * time.Millisecond))
	b.more(1, stubborn(p.A, "bank"))
	b.more(1, stubborn(p.B, "bank"))

	seed := pgtest.Seed()
	t.Logf("%s=%d", pgtest.SeedEnv, seed)
	rng := rand.New(rand.NewPCG(seed, 3))
	decided, undone := 0, 0
	v := victims{t, p, network}
	for round := range rounds("TWINSPAN_FAILOVER_KILLS", 6) {
		waitSettled(t, p, "bank")
		b.waitTransfers(50)
		former, next := primaryOf(t, p, "bank")
		before, err := former.Client.Link(t.Context(), "bank")
		if err != nil {
			t.Fatal(err)
		}
		at := []*linktest.Side{p.A, p.B}[rng.IntN(2)]
		what, came := v.strike(rng, failoverMoments, 10*time.Millisecond, former, next, func() {
			if _, err := at.Client.Failover(t.Context(), "bank", api.FailoverRequest{}); err != nil {
				t.Fatalf("round %d: the failover was not taken: %v", round, err)
			}
		}, `msg="failover did not come about"`)
		if !came { // by itself: it leaves everything as it was
			f, err := next.Client.FailoverProgress(t.Context(), "bank")
			t.Logf("round %d: the failover did not come that far: %v, %v", round, f.Problem, err)
		}
		primary := waitSettled(t, p, "bank")
		after, err := primary.Client.Link(t.Context(), "bank")
		if err != nil {
			t.Fatal(err)
		}
		if after.Epoch > before.Epoch {
			decided++
		} else {
			undone++
		}
		t.Logf("round %d: %s: epoch %d to %d", round, what, before.Epoch, after.Epoch)
	}
	primary := waitSettled(t, p, "bank")
	b.waitTransfers(50)
	b.close()
	t.Logf("%d failovers decided, %d undone; %d transfers, %d refused and sent again", decided, undone, b.transfers.Load(), b.refusals.Load())
	b.audit(primary.Server.DSN("bank"), false)
	waitEqual(t, p, "bank", "bank")
}
