package agent

import (
	"context"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/link"
)

// handleFailover registers what the other side of a link may ask for a change of
// places.
func (a *Agent) handleFailover() {
	onLink(a, link.MethodState, func(ctx context.Context, l *link.Link, r link.Reference) (any, error) {
		return l.HandleState(ctx)
	}, func(r link.Reference) string { return r.ID })
	onLink(a, link.MethodFailover, func(ctx context.Context, l *link.Link, r link.FailoverRequest) (any, error) {
		return l.HandleFailover(ctx, r)
	}, func(r link.FailoverRequest) string { return r.ID })
	onLink(a, link.MethodFailoverShow, func(ctx context.Context, l *link.Link, r link.Reference) (any, error) {
		return l.HandleFailoverShow()
	}, func(r link.Reference) string { return r.ID })
	onLink(a, link.MethodFailoverCancel, func(ctx context.Context, l *link.Link, r link.Reference) (any, error) {
		return l.HandleFailoverCancel()
	}, func(r link.Reference) string { return r.ID })
	onLink(a, link.MethodFailoverGo, func(ctx context.Context, l *link.Link, r link.FailoverGoRequest) (any, error) {
		return nil, l.HandleFailoverGo(r.From)
	}, func(r link.FailoverGoRequest) string { return r.ID })
	onLink(a, link.MethodFailoverOutcome, func(ctx context.Context, l *link.Link, r link.OutcomeRequest) (any, error) {
		return a.outcome(ctx, l, r.Together)
	}, func(r link.OutcomeRequest) string { return r.ID })
	onLink(a, link.MethodFailoverPlan, func(ctx context.Context, l *link.Link, r link.PlanRequest) (any, error) {
		return l.HandleFailoverPlan(ctx, r)
	}, func(r link.PlanRequest) string { return r.ID })
	onLink(a, link.MethodFailoverAssess, func(ctx context.Context, l *link.Link, r link.AssessRequest) (any, error) {
		return l.HandleFailoverAssess(ctx, r)
	}, func(r link.AssessRequest) string { return r.ID })
	onLink(a, link.MethodFailoverStage, func(ctx context.Context, l *link.Link, r link.HoldRequest) (any, error) {
		return l.HandleFailoverStage(ctx, r)
	}, func(r link.HoldRequest) string { return r.ID })
	onLink(a, link.MethodFailoverBrake, func(ctx context.Context, l *link.Link, r link.BrakeRequest) (any, error) {
		return nil, l.HandleFailoverBrake(ctx, r)
	}, func(r link.BrakeRequest) string { return r.ID })
	onLink(a, link.MethodCutover, func(ctx context.Context, l *link.Link, r link.CutoverRequest) (any, error) {
		return l.HandleCutover(ctx, r)
	}, func(r link.CutoverRequest) string { return r.ID })
	onLink(a, link.MethodFailoverTurn, func(ctx context.Context, l *link.Link, r link.TurnRequest) (any, error) {
		return nil, l.HandleFailoverTurn(ctx, r)
	}, func(r link.TurnRequest) string { return r.ID })
	onLinkStream(a, link.MethodFailoverHold, (*link.Link).HandleFailoverHold, func(r link.HoldRequest) string { return r.ID })
}

// Failover implements httpapi.Agent.
func (a *Agent) Failover(ctx context.Context, name string, in api.FailoverRequest) (api.FailoverProgress, error) {
	l, err := a.links.named(name)
	if err != nil {
		return api.FailoverProgress{}, err
	}
	return l.Failover(ctx, in, nil)
}

// FailoverPlan implements httpapi.Agent.
func (a *Agent) FailoverPlan(ctx context.Context, name string, in api.FailoverPlanRequest) (api.FailoverPlan, error) {
	l, err := a.links.named(name)
	if err != nil {
		return api.FailoverPlan{}, err
	}
	return l.FailoverPlan(ctx, in)
}

// Uncarried implements httpapi.Agent.
func (a *Agent) Uncarried(ctx context.Context, name string) (api.Uncarried, error) {
	l, err := a.links.named(name)
	if err != nil {
		return api.Uncarried{}, err
	}
	return l.Uncarried(ctx)
}

// FailoverProgress implements httpapi.Agent. It still describes the cutover that
// removed a link.
func (a *Agent) FailoverProgress(ctx context.Context, name string) (api.FailoverProgress, error) {
	l, err := a.links.named(name)
	if err != nil {
		if last, have := a.links.cutover(name); have {
			return last, nil
		}
		return api.FailoverProgress{}, err
	}
	return l.FailoverProgress(ctx)
}

// CancelFailover implements httpapi.Agent.
func (a *Agent) CancelFailover(ctx context.Context, name string) (api.FailoverProgress, error) {
	l, err := a.links.named(name)
	if err != nil {
		return api.FailoverProgress{}, err
	}
	return l.CancelFailover(ctx)
}

// LinkRoles implements httpapi.Agent.
func (a *Agent) LinkRoles(ctx context.Context, name string) (api.LinkRoles, error) {
	l, err := a.links.named(name)
	if err != nil {
		return api.LinkRoles{}, err
	}
	return l.ShowRoles(ctx)
}

// BringRoles implements httpapi.Agent.
func (a *Agent) BringRoles(ctx context.Context, name string, in api.BringRoles) (api.LinkRoles, error) {
	l, err := a.links.named(name)
	if err != nil {
		return api.LinkRoles{}, err
	}
	return l.BringRoles(ctx, in)
}
