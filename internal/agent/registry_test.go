package agent

import (
	"strings"
	"testing"

	"github.com/twinspan/twinspan/internal/problem"
)

// Whoever asks an agent that cannot reach its server yet is told why, and what to do; a
// peer is not, for the reason names the server.
func TestWhyTheServerDoesNotAnswer(t *testing.T) {
	var r registry
	if err := r.readyHere(); problem.CodeOf(err) != "agent_starting" {
		t.Errorf("before the server was asked: %v", err)
	}
	r.waits(problem.New(problem.Transient, "connection_lost", "connect to app@db.internal:5432/shop"))
	_, named := r.named("shop")
	for _, err := range []error{r.readyHere(), named} {
		if p := problem.As(err); p.Code != "agent_starting" || p.Kind != problem.Transient || !strings.Contains(p.Error(), "db.internal") || p.Hint == "" {
			t.Errorf("the operator is told: %+v", p)
		}
	}
	_, asked := r.get("0b5c1d2e-0000-4000-8000-000000000001")
	for _, err := range []error{r.ready(), asked} {
		if problem.CodeOf(err) != "agent_starting" || strings.Contains(err.Error(), "db.internal") {
			t.Errorf("a peer is told: %v", err)
		}
	}
	r.waits(nil)
	if err := r.readyHere(); strings.Contains(err.Error(), "db.internal") {
		t.Errorf("when the server has answered: %v", err)
	}
}
