package agent

import (
	"context"

	"github.com/twinspan/twinspan/api"
)

// Verify implements httpapi.Agent.
func (a *Agent) Verify(ctx context.Context, name string, in api.Verify) (api.Verification, error) {
	l, err := a.links.named(name)
	if err != nil {
		return api.Verification{}, err
	}
	return l.Verifications().Begin(ctx, in)
}

// Verification implements httpapi.Agent.
func (a *Agent) Verification(ctx context.Context, name string) (api.Verification, error) {
	l, err := a.links.named(name)
	if err != nil {
		return api.Verification{}, err
	}
	return l.Verifications().Show(ctx)
}

// CancelVerification implements httpapi.Agent.
func (a *Agent) CancelVerification(ctx context.Context, name string) (api.Verification, error) {
	l, err := a.links.named(name)
	if err != nil {
		return api.Verification{}, err
	}
	return l.Verifications().Cancel(ctx)
}
