package agent

import (
	"context"

	"github.com/twinspan/twinspan/api"
)

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
	return l.Uncarried().Show(ctx)
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

// SeedingTables implements httpapi.Agent.
func (a *Agent) SeedingTables(ctx context.Context, name string) (api.SeedingTables, error) {
	l, err := a.links.named(name)
	if err != nil {
		return api.SeedingTables{}, err
	}
	return l.SeedingTables(ctx)
}

// LinkRoles implements httpapi.Agent.
func (a *Agent) LinkRoles(ctx context.Context, name string) (api.LinkRoles, error) {
	l, err := a.links.named(name)
	if err != nil {
		return api.LinkRoles{}, err
	}
	return l.Roles().Show(ctx)
}

// BringRoles implements httpapi.Agent.
func (a *Agent) BringRoles(ctx context.Context, name string, in api.BringRoles) (api.LinkRoles, error) {
	l, err := a.links.named(name)
	if err != nil {
		return api.LinkRoles{}, err
	}
	return l.Roles().Bring(ctx, in)
}
