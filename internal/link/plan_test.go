package link

import (
	"testing"
	"time"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/problem"
)

func TestHalvesAreJoined(t *testing.T) {
	at := func(minute int) *time.Time { v := time.Date(2026, 1, 1, 0, minute, 0, 0, time.UTC); return &v }
	hold := 0.5
	warning := api.Problem{Code: "connections_short", Severity: api.Warns, Subject: "max_connections"}
	here := PlanHalf{Problems: []api.Problem{warning}, Waits: []api.FailoverWaiter{{PID: 3}, {PID: 2, Since: at(2), Fate: api.FateWaited}}, Hold: &hold}
	there := PlanHalf{Problems: []api.Problem{warning, {Code: "x", Severity: api.Informs}}, Waits: []api.FailoverWaiter{{PID: 1, Since: at(1), Fate: api.FateEnded}}}
	plan := joined(api.FailoverPlan{DrainSeconds: 10}, here, there)
	if plan.Blocked || len(plan.Problems) != 2 || *plan.HoldSeconds != 0.5 || *plan.MostSeconds != 10.5 {
		t.Errorf("%+v", plan)
	}
	for i, pid := range []int{1, 2, 3} {
		if plan.Waits[i].PID != pid {
			t.Errorf("%d comes as number %d", plan.Waits[i].PID, i)
		}
	}
	there.against(problem.New(problem.Conflict, "transaction_prepared", "it is prepared").On("p"))
	there.against(nil)
	there.Waits[0].Fate = api.FateBlocks
	plan = joined(api.FailoverPlan{DrainSeconds: 10}, here, there)
	if !plan.Blocked || len(plan.Problems) != 3 || plan.Problems[0].Code != "transaction_prepared" || *plan.MostSeconds != 0.5 {
		t.Errorf("%+v", plan)
	}
	if plan = joined(api.FailoverPlan{}, PlanHalf{}); plan.Blocked || plan.HoldSeconds != nil || plan.MostSeconds != nil {
		t.Errorf("nothing is known: %+v", plan)
	}
}
