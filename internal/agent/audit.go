package agent

import (
	"context"

	"github.com/twinspan/twinspan/api"
)

// Audit implements httpapi.Agent.
func (a *Agent) Audit(ctx context.Context, name string) (api.AuditReport, error) {
	l, err := a.links.named(name)
	if err != nil {
		return api.AuditReport{}, err
	}
	return l.Auditor().Report(ctx)
}

// BeginAudit implements httpapi.Agent.
func (a *Agent) BeginAudit(ctx context.Context, name string) (api.AuditReport, error) {
	l, err := a.links.named(name)
	if err != nil {
		return api.AuditReport{}, err
	}
	return l.Auditor().Begin(ctx)
}
