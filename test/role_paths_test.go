package test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"testing"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// rolesOf asks an agent which of a link's paths of roles it answers with yes. One that does
// not answer says no.
func rolesOf(ctx context.Context, s *linktest.Side, link string) (yes map[string]bool) {
	var dialer net.Dialer
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return dialer.DialContext(ctx, "unix", s.Dir.Socket())
	}}
	defer transport.CloseIdleConnections()
	yes = map[string]bool{}
	for _, path := range []string{"primary", "secondary", "health"} {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://agent/links/"+link+"/"+path, nil)
		if err != nil {
			return yes
		}
		answer, err := (&http.Client{Transport: transport}).Do(request)
		if err != nil {
			continue
		}
		answer.Body.Close()
		yes[path] = answer.StatusCode == http.StatusOK
	}
	return yes
}

// Load balancers that ask both agents all the time never hear of two primaries while the
// sides change places, and hear the right one after a planned and after a forced failover.
func TestRolesAreToldThroughFailovers(t *testing.T) {
	t.Parallel()
	options, network := proxied(t)
	p := linktest.New(t, options)
	p.A.Server.CreateDatabase(t, "sales")
	pgtest.Exec(t, p.A.Server.DSN("sales"), `CREATE TABLE t (i int PRIMARY KEY)`)
	p.Create(t, "sales", "sales")
	p.WaitPhase(t, "sales", api.Replicating)
	told := func(what string, s *linktest.Side, primary, secondary bool) {
		t.Helper()
		pgtest.Eventually(t, linktest.Patience, func() error {
			if yes := rolesOf(t.Context(), s, "sales"); yes["primary"] != primary || yes["secondary"] != secondary {
				return fmt.Errorf("%s: agent %s says %v", what, s.Name, yes)
			}
			return nil
		})
	}
	told("at the start", p.A, true, false)
	told("at the start", p.B, false, true)

	// The new side is asked before the old one: a yes of both means that the old one says
	// yes after the new one has.
	watching, stop := context.WithCancel(t.Context())
	looks := make(chan int, 1)
	go func() {
		n := 0
		for ; watching.Err() == nil; n++ {
			after, before := rolesOf(watching, p.B, "sales"), rolesOf(watching, p.A, "sales")
			if after["primary"] && before["primary"] {
				t.Error("both sides say that they are the primary")
			}
		}
		looks <- n
	}()
	f := failOver(t, p.A, "sales", api.FailoverRequest{})
	if f.State != api.FailoverDone || f.Primary != "b" {
		t.Fatalf("planned: %+v", f)
	}
	told("after the planned failover", p.B, true, false)
	told("after the planned failover", p.A, false, true)
	stop()
	if n := <-looks; n < 3 {
		t.Errorf("the agents were asked %d times", n)
	}

	// Cut off, the old primary cannot know; once it hears of it, it is none for anybody.
	network(false)
	pgtest.Eventually(t, linktest.Patience, func() error {
		f, err := p.A.Client.Failover(t.Context(), "sales", api.FailoverRequest{Type: api.Forced, AcceptDataLoss: true})
		if err != nil || f.State != api.FailoverDone {
			return fmt.Errorf("forced: %+v, %v", f, err)
		}
		return nil
	})
	told("after the forced failover", p.A, true, false)
	told("cut off", p.B, true, false)
	network(true)
	told("once it hears of it", p.B, false, false)
	told("once the other hears of it", p.A, true, false)
}
