package link

import (
	"context"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/role"
	"github.com/twinspan/twinspan/internal/side"
)

// PlanRequest asks the other side what a planned failover would meet there.
type PlanRequest struct {
	Reference
	api.FailoverPlanRequest
}

// PlanHalf is what it would meet on one side.
type PlanHalf struct {
	Problems []api.Problem        `json:"problems"`
	Waits    []api.FailoverWaiter `json:"waits"`
	Hold     *float64             `json:"hold,omitempty"` // the secondary's to say
	// Uncarried is the secondary's to say, too.
	Uncarried *api.UncarriedSide `json:"uncarried,omitempty"`
}

// holdTrips is how many times a planned failover goes to the other side and back while
// writers wait.
const holdTrips = 12

// FailoverPlan says what a change of places would meet if it began now. It changes
// nothing on either side.
func (l *Link) FailoverPlan(ctx context.Context, in api.FailoverPlanRequest) (api.FailoverPlan, error) {
	r := l.side.Record()
	if in.Type == "" {
		in.Type = api.Planned
	}
	out := api.FailoverPlan{Link: r.Name, Type: in.Type, Primary: l.place.AgentName}
	if in.Type == api.Forced {
		return l.forcedPlan(ctx, out)
	}
	if role.Role(r.Role) == role.Primary {
		out.Primary = r.Peer
	}
	if in.DrainSeconds == 0 {
		in.DrainSeconds = defaultDrain.Seconds()
	}
	out.DrainSeconds = in.DrainSeconds
	half, err := l.planHalf(ctx, in, role.Role(r.Role) == role.Primary)
	if err != nil {
		return out, err
	}
	halves := []PlanHalf{half}
	other, err := side.Call[PlanHalf](ctx, l.side, MethodFailoverPlan, PlanRequest{side.ReferenceOf(r), in})
	switch {
	case err == nil:
		halves = append(halves, other)
	case problem.CodeOf(err) == "method_unknown":
		halves[0].against(problem.New(problem.Conflict, "agent_older", "agent %s runs an older twinspan than this one, and does not say what a failover meets there", r.Peer).On(r.Peer).
			WithHint("replace the program of agent %s as well, then try again; the link goes on meanwhile", r.Peer))
	default:
		halves[0].against(noPlanned(err, r.Name))
	}
	return joined(out, halves...), nil
}

// handleFailoverPlan answers the other side for this one.
func (l *Link) handleFailoverPlan(ctx context.Context, request PlanRequest) (PlanHalf, error) {
	if err := l.side.SameEpoch(request.Reference); err != nil {
		return PlanHalf{}, err
	}
	return l.planHalf(ctx, request.FailoverPlanRequest, true)
}

// against adds what stands in the way.
func (h *PlanHalf) against(err error) {
	if p := problem.As(err); p != nil {
		h.Problems = append(h.Problems, against(p.Code, p.Subject, p.Error(), p.Hint))
	}
}

// joined puts halves into a plan: what blocks comes first, who has been there the longest
// before the others.
func joined(plan api.FailoverPlan, halves ...PlanHalf) api.FailoverPlan {
	for _, h := range halves {
		for _, p := range h.Problems {
			same := func(q api.Problem) bool { return q.Code == p.Code && q.Subject == p.Subject }
			if !slices.ContainsFunc(plan.Problems, same) {
				plan.Problems = append(plan.Problems, p)
			}
		}
		plan.Waits = append(plan.Waits, h.Waits...)
		if h.Hold != nil {
			plan.HoldSeconds = h.Hold
		}
		if h.Uncarried != nil {
			plan.Uncarried = h.Uncarried
		}
	}
	if plan.HoldSeconds != nil {
		most := *plan.HoldSeconds
		if slices.ContainsFunc(plan.Waits, func(w api.FailoverWaiter) bool { return w.Fate == api.FateEnded }) {
			most += plan.DrainSeconds
		}
		plan.MostSeconds = &most
	}
	weight := map[api.Severity]int{api.Blocks: 0, api.Warns: 1, api.Informs: 2}
	slices.SortStableFunc(plan.Problems, func(a, b api.Problem) int { return weight[a.Severity] - weight[b.Severity] })
	slices.SortStableFunc(plan.Waits, func(a, b api.FailoverWaiter) int {
		switch {
		case a.Since == nil && b.Since == nil:
			return 0
		case a.Since == nil:
			return 1
		case b.Since == nil:
			return -1
		}
		return a.Since.Compare(*b.Since)
	})
	plan.Blocked = len(plan.Problems) > 0 && plan.Problems[0].Severity == api.Blocks
	return plan
}

// planHalf looks at this side. What is wrong with the link already is told as well: it
// may matter more than what a failover itself looks at. With asked, the other side's agent will ask
// this one to have them change places.
func (l *Link) planHalf(ctx context.Context, in api.FailoverPlanRequest, asked bool) (h PlanHalf, err error) {
	r := l.side.Record()
	if asked {
		h.against(l.place.MayChange(l))
	}
	h.against(noPlanned(l.sameAgents(ctx), r.Name))
	if f, have := l.ownFailover(); have && f.State == api.FailoverRunning {
		h.against(notInStep(r.Name, role.FailingOver))
	}
	if role.Role(r.Role) == role.Primary {
		list, err := l.obstacles(ctx, in.Cutover)
		if err != nil {
			return h, err
		}
		h.Problems = append(h.Problems, list...)
		h.Waits, err = l.waiters(ctx, false)
		return h, err
	}
	if phase := role.Phase(r.Phase); phase != role.Replicating && phase != role.FailingOver {
		h.against(notInStep(r.Name, phase))
	}
	if l.verifications.Running() {
		h.against(verificationRunning(r.Name))
	}
	list, err := l.unfit(ctx)
	if err != nil {
		return h, err
	}
	h.Problems = append(h.Problems, list...)
	if h.Waits, err = l.waiters(ctx, true); err != nil {
		return h, err
	}
	for _, w := range h.Waits {
		if w.Fate == api.FateBlocks {
			h.against(holdsUpSlot(w))
		}
	}
	for _, p := range l.ownProblems() {
		if p.Severity == api.Blocks { // which stops the link, and is said above by its phase
			p.Severity = api.Warns
		}
		h.Problems = append(h.Problems, p)
	}
	h.Hold = l.expectedHold(r)
	h.Uncarried = l.uncarried.LacksOrWhy(ctx)
	return h, nil
}

// expectedHold is about how long writers will wait: as long as the last time, or as
// what is left to apply takes when that is more.
func (l *Link) expectedHold(r catalog.Link) *float64 {
	status, _ := l.place.Peers.Status(r.Peer)
	l.stand()
	l.mu.Lock()
	lag := l.live.report.Lag
	l.mu.Unlock()
	if lag == nil || !status.Connected {
		return nil
	}
	hold := (holdTrips * status.RoundTrip).Seconds() + min(*lag, barrierPatience.Seconds())
	if f := r.LastFailover; f != nil && f.Type == planned {
		hold = max(hold, f.HoldSeconds)
	}
	return &hold
}

// forcedPlan is the plan of a forced failover, which this side does by itself.
func (l *Link) forcedPlan(ctx context.Context, out api.FailoverPlan) (api.FailoverPlan, error) {
	if err := l.side.Ascertain(ctx); err != nil {
		return out, err
	}
	mine := l.side.Record()
	var h PlanHalf
	if _, err := role.Step(side.State(mine), role.Force); err != nil {
		h.against(noForce(mine))
		return joined(out, h), nil
	}
	touched, err := l.touched(ctx, mine)
	if err != nil {
		return out, err
	}
	if touched {
		h.against(rejoinBegun(mine))
	}
	loss := l.loss(ctx, mine)
	if loss.PrimarySeen {
		h.against(primaryHealthy(mine.Name))
	}
	out.Loss = &loss
	if role.Role(mine.Role) == role.Secondary {
		list, err := l.unfit(ctx)
		if err != nil {
			return out, err
		}
		for _, p := range list { // it goes on without a slot
			if p.Severity == api.Blocks && p.Code != "secondary_in_recovery" && p.Code != "not_superuser" {
				p.Severity = api.Warns
			}
			h.Problems = append(h.Problems, p)
		}
		if h.Waits, err = l.waiters(ctx, true); err != nil {
			return out, err
		}
		h.Uncarried = l.uncarried.LacksOrWhy(ctx)
	}
	return joined(out, h), nil
}

// waiters lists the transactions that a failover would wait for on this side: as long as
// it is the primary those that write in its database, else those of the whole instance
// that have a number, for which a slot waits when it is made.
func (l *Link) waiters(ctx context.Context, instance bool) ([]api.FailoverWaiter, error) {
	var list []api.FailoverWaiter
	err := l.side.Session.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, `SELECT 0, gid, owner::text, database::text, prepared AS since FROM pg_catalog.pg_prepared_xacts
			WHERE CASE WHEN $1 THEN NOT EXISTS (SELECT FROM pg_catalog.pg_replication_slots WHERE slot_name = $2) ELSE database = pg_catalog.current_database() END
			UNION ALL SELECT a.pid, '', coalesce(a.usename::text, ''), coalesce(a.datname::text, ''), a.xact_start FROM pg_catalog.pg_stat_activity a
			WHERE a.pid <> pg_catalog.pg_backend_pid() AND NOT coalesce(a.application_name LIKE 'twinspan/%' AND a.usename = session_user, false)
			AND CASE WHEN $1 THEN a.backend_xid IS NOT NULL AND NOT EXISTS (SELECT FROM pg_catalog.pg_replication_slots WHERE slot_name = $2)
			    ELSE a.datname = pg_catalog.current_database() AND (a.backend_xid IS NOT NULL OR EXISTS (SELECT FROM pg_catalog.pg_locks k
			         WHERE k.pid = a.pid AND k.granted AND k.locktype = 'relation' AND k.relation >= 16384 AND k.mode NOT IN ('AccessShareLock', 'RowShareLock'))) END
			ORDER BY since, 1`, instance, catalog.ObjectName(l.ID()))
		if err != nil {
			return pg.Classify(err, "look who writes")
		}
		w := api.FailoverWaiter{Agent: l.place.AgentName}
		var since *time.Time
		_, err = pgx.ForEachRow(rows, []any{&w.PID, &w.GID, &w.Role, &w.Database, &since}, func() error {
			w.Since = nil
			if since != nil {
				at := since.UTC()
				w.Since = &at
			}
			switch {
			case w.PID == 0:
				w.Fate = api.FateBlocks
			case instance:
				w.Fate = api.FateWaited
			default:
				w.Fate = api.FateEnded
			}
			list = append(list, w)
			return nil
		})
		return pg.Classify(err, "look who writes")
	})
	return list, err
}

// holdsUpSlot is the problem of a prepared transaction, of whatever database, without
// whose end no slot is made.
func holdsUpSlot(w api.FailoverWaiter) *problem.Error {
	return problem.New(problem.Conflict, "transaction_prepared", "the prepared transaction %q of role %s in database %s is not finished: no replication slot can be made on the secondary's server before", w.GID, w.Role, w.Database).On(w.GID).
		WithHint("in database %s at agent %s: COMMIT PREPARED or ROLLBACK PREPARED", w.Database, w.Agent)
}
