package test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// eventsOf returns all events of a side's agent of some kinds.
func eventsOf(t *testing.T, s *linktest.Side, kinds ...string) []api.Event {
	t.Helper()
	page, err := s.Client.Events(t.Context(), api.EventQuery{Kinds: kinds, Limit: 1000})
	if err != nil || page.More {
		t.Fatalf("%v, %v", page.More, err)
	}
	return page.Events
}

// What happens to a link is in the records of both agents, each change of role and phase in
// order, across a kill; hooks are given the same.
func TestEventsTellOfAFailover(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{})
	p.A.Server.CreateDatabase(t, "shop")
	p.Create(t, "sales", "shop")
	p.WaitPhase(t, "sales", api.Replicating)

	given := filepath.Join(t.TempDir(), "given")
	file, err := os.OpenFile(p.A.Dir.File(), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(file, "\n[[hooks]]\non = [\"role\", \"failover.done\"]\ncommand = [\"/bin/sh\", \"-c\", 'cat >> \"$0\"', %q]\n", given)
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	pgtest.Eventually(t, linktest.Patience, func() error { // what waits for the disk dies with the agent
		kept := eventsOf(t, p.A, "link", "role")
		if n := len(kept); n == 0 || kept[n-1].Phase != api.Replicating {
			return fmt.Errorf("not kept yet, but %+v", kept)
		}
		return nil
	})
	p.A.Kill()
	p.A.Start()
	pgtest.Eventually(t, linktest.Patience, func() error { // it is found replicating, before the agents have met
		if l, err := p.A.Client.Link(t.Context(), "sales"); err != nil || l.Peer.HeardAt == nil || l.Lag.Seconds == nil {
			return fmt.Errorf("%+v, %v", l.Peer, err)
		}
		return nil
	})
	if f := failOver(t, p.A, "sales", api.FailoverRequest{}); f.State != api.FailoverDone {
		t.Fatalf("%+v", f.Problem)
	}
	p.WaitPhase(t, "sales", api.Replicating)
	if f := failOver(t, p.A, "sales", api.FailoverRequest{}); f.State != api.FailoverDone { // which A drives
		t.Fatalf("%+v", f.Problem)
	}
	p.WaitPhase(t, "sales", api.Replicating)

	for _, s := range []*linktest.Side{p.A, p.B} {
		var told []string
		pgtest.Eventually(t, linktest.Patience, func() error { // what has just happened may wait for the disk
			l, err := s.Client.Link(t.Context(), "sales")
			if err != nil {
				return err
			}
			var last api.Event
			told = nil
			for _, e := range eventsOf(t, s, "link", "role") {
				if e.Link != "sales" || e.LinkID != l.ID || e.Database != l.Database || e.Peer != l.Peer.Name {
					t.Errorf("%s: %+v", s.Name, e)
				}
				told, last = append(told, fmt.Sprintf("%s %s %d", e.Role, e.Phase, e.Epoch)), e
			}
			if last.Role != l.Role || last.Phase != l.Phase || last.Epoch != l.Epoch || l.Epoch != 3 {
				return fmt.Errorf("%s: the link is %s, %s, %d; told was\n%s", s.Name, l.Role, l.Phase, l.Epoch, strings.Join(told, "\n"))
			}
			return nil
		})
		wants := []string{"primary creating 1", "primary seeding 1", "primary replicating 1", "secondary replicating 2", "primary replicating 3"}
		if s == p.B {
			wants = []string{"secondary creating 1", "secondary seeding 1", "secondary replicating 1", "secondary failing_over 1", "primary replicating 2", "secondary replicating 3"}
		}
		at := 0
		for _, one := range told {
			if at < len(wants) && one == wants[at] {
				at++
			}
		}
		if at < len(wants) || slices.Index(told, wants[0]) != 0 {
			t.Errorf("%s: %q was not told, in order:\n%s", s.Name, wants[at:], strings.Join(told, "\n"))
		}
	}

	progress, err := p.A.Client.FailoverProgress(t.Context(), "sales")
	if err != nil {
		t.Fatal(err)
	}
	var steps, want []string
	for _, s := range progress.Steps {
		want = append(want, fmt.Sprintf("%s %.6f", s.Name, s.Seconds))
	}
	pgtest.Eventually(t, linktest.Patience, func() error {
		steps = nil
		done := false
		for _, e := range eventsOf(t, p.A, "failover") {
			switch e.Action {
			case "step_done":
				steps = append(steps, fmt.Sprintf("%s %.6f", e.Step, *e.Seconds))
			case "done":
				done = true
				if e.Epoch != 3 || *e.Seconds <= 0 || !strings.Contains(e.Text, "agent "+p.A.Name+" has the primary") {
					t.Errorf("%+v", e)
				}
			}
		}
		if !done || !slices.Equal(steps, want) {
			return fmt.Errorf("done %t, steps %q\nwant  %q", done, steps, want)
		}
		return nil
	})

	asked := map[string]int{}
	for _, s := range []*linktest.Side{p.A, p.B} {
		for _, e := range eventsOf(t, s, "operation", "agent", "lease", "peer") {
			asked[fmt.Sprintf("%s %s.%s %s %s%s", s.Name, e.Kind, e.Action, e.Request, e.By.Kind, e.By.Name)]++
			if e.Kind == api.EventAgent && strings.Contains(e.Text, "killed") {
				asked[s.Name+" was killed"]++
			}
		}
	}
	a, b := p.A.Name, p.B.Name
	for what, times := range map[string]int{
		a + " operation.done failOver operator": 2, b + " operation.done failover.start peer" + a: 1, a + " was killed": 1, b + " was killed": 0,
		a + " agent.started  agent": 2, b + " agent.started  agent": 1, a + " lease.taken  agent": 2, b + " peer.paired  agent": 1,
	} {
		if asked[what] != times {
			t.Errorf("%q %d times, want %d, of %v", what, asked[what], times, asked)
		}
	}
	if lost, met := asked[b+" peer.lost  agent"], asked[b+" peer.connected  agent"]; lost < 1 || met != lost+1 {
		t.Errorf("the peer was lost %d times and met %d times", lost, met)
	}

	p.A.Stop() // hooks have ended then
	text, err := os.Open(given)
	if err != nil {
		t.Fatal(err)
	}
	defer text.Close()
	var got []string
	for lines := bufio.NewScanner(text); lines.Scan(); {
		var e api.Event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprintf("%d %s.%s %s", e.Number, e.Kind, e.Action, e.Text))
	}
	p.A.Start()
	want = nil
	runs := 0 // of the agent, of which the second had the hook and has ended
	for _, e := range eventsOf(t, p.A, "agent.started", "role", "failover.done") {
		if e.Kind == api.EventAgent {
			runs++
		} else if runs == 2 {
			want = append(want, fmt.Sprintf("%d %s.%s %s", e.Number, e.Kind, e.Action, e.Text))
		}
	}
	if len(want) < 3 || !slices.Equal(got, want) {
		t.Errorf("the hook was given\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
