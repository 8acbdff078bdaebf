package test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// A link that is being created, and one that is fenced, says on both sides what is done or
// waited for and since when, as far as that is known.
func TestEveryPhaseSaysWhatItDoes(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{})
	p.A.Server.CreateDatabase(t, "sales")
	a := p.A.Server.DSN("sales")
	// does waits until a side says that it does something, and says since when.
	does := func(side *linktest.Side, phase api.Phase, step string) (since *time.Time) {
		t.Helper()
		pgtest.Eventually(t, linktest.Patience, func() error {
			l, err := side.Client.Link(t.Context(), "sales")
			if err != nil || l.Phase != phase || l.Step != step {
				return fmt.Errorf("side %s is %s, %q since %v, problems %+v, %v", side.Name, l.Phase, l.Step, l.StepSince, l.Problems, err)
			}
			since = l.StepSince
			return nil
		})
		if text := commandLine(t, side, "link", "show", "sales"); !strings.Contains(text, step) {
			t.Errorf("link show does not say %q: %s", step, text)
		}
		return since
	}
	began := time.Now()
	open := pgtest.Conn(t, p.A.Server.AppDSN("sales"))
	if _, err := open.Exec(t.Context(), `BEGIN; CREATE TABLE t (id int PRIMARY KEY)`); err != nil {
		t.Fatal(err)
	}
	p.Create(t, "sales", "sales")
	const waiting = "waiting for open transactions that have changed tables"
	here, there := does(p.A, api.Creating, waiting), does(p.B, api.Creating, waiting)
	if here == nil || there == nil || here.Before(began.Add(-time.Second)) || here.After(time.Now()) || there.Before(here.Add(-time.Second)) || there.After(time.Now()) {
		t.Errorf("since %v at the primary, %v at the twin; the transaction began at %v", here, there, began)
	}
	if _, err := open.Exec(t.Context(), `COMMIT`); err != nil {
		t.Fatal(err)
	}
	p.WaitPhase(t, "sales", api.Replicating)
	for _, side := range []*linktest.Side{p.A, p.B} {
		if l, err := side.Client.Link(t.Context(), "sales"); err != nil || l.Step != "" || l.StepSince != nil || l.PhaseSince == nil {
			t.Errorf("replicating on side %s: %q since %v, the phase since %v, %v", side.Name, l.Step, l.StepSince, l.PhaseSince, err)
		}
	}

	// A primary that is fenced waits for its twin; what was before its agent was started it
	// does not know.
	if _, err := p.A.Client.SetLink(t.Context(), "sales", api.SetLink{OnIsolation: "fence=5s"}); err != nil {
		t.Fatal(err)
	}
	p.B.Kill()
	const meeting = "waiting to hear from b which side is the primary"
	if since := does(p.A, api.Fenced, meeting); since == nil {
		t.Error("it is not said since when a primary is fenced")
	}
	p.A.Stop()
	p.A.Start()
	if since := does(p.A, api.Fenced, meeting); since != nil {
		t.Errorf("a primary is fenced since %v, which was before its agent was started", since)
	}
	p.B.Start()
	p.WaitPhase(t, "sales", api.Replicating)

	// A former primary that was left behind by force.
	p.A.Stop()
	pgtest.Exec(t, a, `INSERT INTO t VALUES (1)`)
	pgtest.Eventually(t, linktest.Patience, func() error {
		_, err := p.B.Client.Failover(t.Context(), "sales", api.FailoverRequest{Type: api.Forced, AcceptDataLoss: true})
		return err
	})
	p.A.Start()
	if since := does(p.A, api.Fenced, "waiting for somebody to make it the twin again: twinspan link rejoin sales"); since == nil {
		t.Error("it is not said since when a former primary waits")
	}
}
