package agent

import (
	"context"

	"github.com/twinspan/twinspan/api"
)

// Lost implements httpapi.Agent.
func (a *Agent) Lost(ctx context.Context, name string) (api.Lost, error) {
	l, err := a.links.named(name)
	if err != nil {
		return api.Lost{}, err
	}
	return l.Losses().Show(ctx)
}

// LostPage implements httpapi.Agent.
func (a *Agent) LostPage(ctx context.Context, name string, epoch, after int64, limit int, sql bool) (api.LostPage, error) {
	l, err := a.links.named(name)
	if err != nil {
		return api.LostPage{}, err
	}
	return l.Losses().Page(ctx, epoch, after, limit, sql)
}

// DiscardLost implements httpapi.Agent.
func (a *Agent) DiscardLost(ctx context.Context, name string, epoch int64) (api.Lost, error) {
	l, err := a.links.named(name)
	if err != nil {
		return api.Lost{}, err
	}
	return l.Losses().Discard(ctx, epoch)
}

// RejoinPlan implements httpapi.Agent.
func (a *Agent) RejoinPlan(ctx context.Context, name string) (api.RejoinPlan, error) {
	l, err := a.links.named(name)
	if err != nil {
		return api.RejoinPlan{}, err
	}
	return l.Former().Plan(ctx)
}

// Rejoin implements httpapi.Agent.
func (a *Agent) Rejoin(ctx context.Context, name string, in api.Rejoin) (api.Link, error) {
	l, err := a.links.named(name)
	if err != nil {
		return api.Link{}, err
	}
	if err := l.Former().Begin(ctx, in); err != nil {
		return api.Link{}, err
	}
	return l.View(), nil
}
