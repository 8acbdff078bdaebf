package test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// code returns the stable name of an agent's error.
func code(err error) string {
	var sent *api.Error
	if errors.As(err, &sent) {
		return sent.Code
	}
	return fmt.Sprint(err)
}

// The primary is cut off while clients still write to it, and the secondary is made
// primary by force. When the old primary hears of it, it refuses writes at once, for
// everybody, and is fenced.
func TestForcedFailoverFencesTheOldPrimary(t *testing.T) {
	t.Parallel()
	options, network := proxied(t)
	p := bankPair(t, options)
	b := openBank(t, 4, false, stubborn(p.A, "bank"))
	b.waitTransfers(200)
	ctx := t.Context()

	// While the primary is there, force is not needed.
	_, err := p.B.Client.Failover(ctx, "bank", api.FailoverRequest{Type: api.Forced, AcceptDataLoss: true})
	if code(err) != "primary_healthy" {
		t.Errorf("with the primary there: %v", err)
	}
	_, err = p.A.Client.Failover(ctx, "bank", api.FailoverRequest{Type: api.Forced, AcceptDataLoss: true})
	if code(err) != "phase_refuses" {
		t.Errorf("at the primary: %v", err)
	}
	network(false)
	b.waitTransfers(100)
	pgtest.Eventually(t, linktest.Patience, func() error {
		_, err := p.B.Client.Failover(ctx, "bank", api.FailoverRequest{Type: api.Forced})
		if code(err) != "data_loss_not_accepted" {
			return fmt.Errorf("without consent: %v", err)
		}
		return nil
	})
	if _, err := p.B.Client.Failover(ctx, "bank", api.FailoverRequest{}); err == nil {
		t.Error("a planned failover of a link in pieces began")
	}
	// A prepared statement and an open transaction with an old snapshot, for later.
	old := pgtest.Conn(t, p.A.Server.DSN("bank"))
	if _, err := old.Exec(ctx, `BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM transfer`); err != nil {
		t.Fatal(err)
	}

	f, err := p.B.Client.Failover(ctx, "bank", api.FailoverRequest{Type: api.Forced, AcceptDataLoss: true})
	if err != nil || f.State != api.FailoverDone || f.Primary != "b" || f.Epoch != 2 || f.Loss == nil {
		t.Fatalf("forced: %+v, %v", f, err)
	}
	pgtest.Exec(t, p.B.Server.DSN("bank"), `INSERT INTO transfer VALUES ('by b', 0, 1, 0)`)
	b.note("by b", nil)
	next := pgtest.Query(t, p.B.Server.DSN("bank"), `SELECT n FROM transfer WHERE id = 'by b'`)[0][0]
	b.waitTransfers(50) // the old primary does not know yet
	network(true)
	pgtest.Eventually(t, linktest.Patience, func() error {
		l, err := p.A.Client.Link(ctx, "bank")
		if err != nil || l.Role != api.Secondary || l.Phase != api.Fenced || l.Epoch != 2 {
			return fmt.Errorf("the old primary is %+v, %v", l, err)
		}
		return nil
	})
	if _, err := old.Exec(ctx, `INSERT INTO transfer VALUES ('late', 0, 1, 0)`); err == nil || !strings.Contains(err.Error(), "25006") && !strings.Contains(err.Error(), "conn") && !strings.Contains(err.Error(), "broken pipe") {
		t.Errorf("a transaction with an older snapshot wrote on the old primary: %v", err)
	}
	for _, sql := range []string{`INSERT INTO transfer VALUES ('later', 0, 1, 0)`, `CREATE TABLE late (i int)`} {
		if _, err := pgtest.Try(ctx, stubborn(p.A, "bank")(), sql); err == nil {
			t.Errorf("%s: the old primary let it through", sql)
		}
	}
	b.close()
	end := pgtest.Query(t, p.A.Server.DSN("bank"), `SELECT count(*) FROM transfer`)
	missing := b.audit(p.B.Server.DSN("bank"), true)
	if len(missing) < 100 {
		t.Errorf("%d transfers were left behind; the test wants more", len(missing))
	}
	// No value of a sequence is handed out twice.
	if again := pgtest.Query(t, p.A.Server.DSN("bank"), `SELECT count(*) FROM transfer WHERE n >= $1`, next)[0][0]; again != "0" {
		t.Errorf("%s values of the sequence were handed out on both sides", again)
	}
	// Nothing is written any more, and agents and servers that are started anew do not
	// change that.
	p.A.Kill()
	p.A.Server.Restart()
	p.A.Start()
	if _, err := pgtest.Try(ctx, stubborn(p.A, "bank")(), `INSERT INTO transfer VALUES ('later', 0, 1, 0)`); err == nil {
		t.Error("the old primary let a write through after a restart")
	}
	pgtest.Eventually(t, linktest.Patience, func() error { // an agent that is started anew ends sessions once
		now, err := pgtest.Try(ctx, p.A.Server.DSN("bank"), `SELECT count(*) FROM transfer`)
		if err == nil && now[0][0] != end[0][0] {
			t.Errorf("the fenced side has %v transfers, it had %v", now, end)
		}
		return err
	})
}

// A fenced primary whose other side is gone for good is let go on by force.
func TestForcedOnAFencedPrimary(t *testing.T) {
	t.Parallel()
	p := bankPair(t, linktest.Options{})
	ctx := t.Context()
	a := p.A.Server.DSN("bank")
	p.B.Kill()
	p.A.Kill()
	// As a failover leaves it whose driver is lost between fence and decision.
	pgtest.Exec(t, a, `UPDATE twinspan.link SET phase = 'fenced', operation = 'lost'`)
	p.A.Start()
	pgtest.Eventually(t, linktest.Patience, func() error {
		if _, err := pgtest.Try(ctx, a, `UPDATE account SET balance = balance`); err == nil {
			return errors.New("a fenced primary accepts writes")
		}
		return nil
	})
	f, err := p.A.Client.Failover(ctx, "bank", api.FailoverRequest{Type: api.Forced, AcceptDataLoss: true})
	if err != nil || f.Epoch != 3 || f.Primary != "a" {
		t.Fatalf("%+v, %v", f, err)
	}
	pgtest.Exec(t, a, `INSERT INTO transfer VALUES ('again', 1, 2, 0)`)
	p.B.Start()
	waitSettled(t, p, "bank")
	waitEqual(t, p, "bank", "bank")
	if l, err := p.B.Client.Link(ctx, "bank"); err != nil || l.Role != api.Secondary || l.Epoch != 3 {
		t.Errorf("the other side: %+v, %v", l, err)
	}
}

// With the policy to fence, a primary that has lost its twin refuses writes, and
// accepts them again when the two have met.
func TestIsolatedPrimaryIsFenced(t *testing.T) {
	t.Parallel()
	options, network := proxied(t)
	p := bankPair(t, options)
	ctx := t.Context()
	if _, err := p.B.Client.SetLink(ctx, "bank", api.SetLink{OnIsolation: "fence=1s"}); code(err) != "isolation_policy_invalid" {
		t.Errorf("a policy that fences at every hiccup: %v", err)
	}
	if _, err := p.B.Client.SetLink(ctx, "bank", api.SetLink{OnIsolation: "fence=5s"}); err != nil {
		t.Fatal(err)
	}
	b := openBank(t, 2, false, stubborn(p.A, "bank"))
	b.waitTransfers(100)
	pgtest.Eventually(t, linktest.Patience, func() error {
		if l, err := p.A.Client.Link(ctx, "bank"); err != nil || l.OnIsolation != "fence=5s" {
			return fmt.Errorf("%+v, %v", l, err)
		}
		return nil
	})
	network(false)
	pgtest.Eventually(t, linktest.Patience, func() error {
		l, err := p.A.Client.Link(ctx, "bank")
		if err != nil || l.Phase != api.Fenced || l.Role != api.Primary {
			return fmt.Errorf("%+v, %v", l, err)
		}
		return nil
	})
	if _, err := pgtest.Try(ctx, stubborn(p.A, "bank")(), `UPDATE account SET balance = balance`); err == nil {
		t.Error("a primary that is fenced accepts writes")
	}
	network(true)
	waitSettled(t, p, "bank")
	b.waitTransfers(50)
	b.close()
	b.audit(p.A.Server.DSN("bank"), false)
	waitEqual(t, p, "bank", "bank")
}
