package agenttest

import (
	"context"

	"github.com/twinspan/twinspan/api"
)

// Backed is how the backups of an agent stand; see the fields of Agent.
type Backed struct {
	State      api.Backups              `json:"state"`
	Task       api.BackupTask           `json:"task"`
	Export     api.BackupExport         `json:"export"`
	Restorable []api.RestorableDatabase `json:"restorable"`
	Size       api.InstanceSize         `json:"size"`
	Storage    *api.InstanceStorage     `json:"storage"`
	Used       []api.UsageHour          `json:"used"` // of every month
}

// Instance implements httpapi.Agent.
func (a *Agent) Instance(context.Context) (api.Instance, error) {
	return api.Instance{Agent: a.Self.Name, Postgres: a.Self.Postgres, Backups: &a.Backed.State, Size: &a.Backed.Size, Enforcement: &api.Enforcement{}, Storage: a.Backed.Storage, Problems: a.Self.Problems}, a.enter("Instance")
}

// Usage implements httpapi.Agent.
func (a *Agent) Usage(_ context.Context, month string) (api.Usage, error) {
	return api.Usage{Month: month, Hours: a.Backed.Used}, a.enter("Usage", month)
}

// SetInstance implements httpapi.Agent.
func (a *Agent) SetInstance(_ context.Context, in api.SetInstance) (api.InstanceChange, error) {
	out := api.InstanceChange{Size: a.Backed.Size, Restarted: in.Restart}
	if in.VCores != nil {
		out.Size.VCores = *in.VCores
	}
	return out, a.enter("SetInstance", out.Size.VCores, in.Restart)
}

// UpdateInstance implements httpapi.Agent.
func (a *Agent) UpdateInstance(context.Context) (api.InstanceUpdate, error) {
	return api.InstanceUpdate{Release: "15.20", Servers: []api.ServerUpdate{{From: "15.18", To: "15.20", Led: true, Seconds: 1.5}}}, a.enter("UpdateInstance")
}

// Backups implements httpapi.Agent.
func (a *Agent) Backups(context.Context) (api.Backups, error) {
	return a.Backed.State, a.enter("Backups")
}

// BackupNow implements httpapi.Agent.
func (a *Agent) BackupNow(_ context.Context, in api.BackupRequest) (api.BackupTask, error) {
	return a.Backed.Task, a.enter("BackupNow", in)
}

// VerifyBackups implements httpapi.Agent.
func (a *Agent) VerifyBackups(context.Context) (api.BackupTask, error) {
	return a.Backed.Task, a.enter("VerifyBackups")
}

// TestBackups implements httpapi.Agent.
func (a *Agent) TestBackups(context.Context) (api.BackupTask, error) {
	return a.Backed.Task, a.enter("TestBackups")
}

// BackupTask implements httpapi.Agent.
func (a *Agent) BackupTask(_ context.Context, number int64) (api.BackupTask, error) {
	return a.Backed.Task, a.enter("BackupTask", number)
}

// BackupPolicy implements httpapi.Agent.
func (a *Agent) BackupPolicy(context.Context) (api.BackupPolicy, error) {
	return a.Backed.State.Policy, a.enter("BackupPolicy")
}

// SetBackupPolicy implements httpapi.Agent.
func (a *Agent) SetBackupPolicy(_ context.Context, in api.SetBackupPolicy) (api.BackupPolicy, error) {
	p := a.Backed.State.Policy
	if in.RetentionDays != nil {
		p.RetentionDays = *in.RetentionDays
	}
	if in.Repository != nil {
		p.Repository = *in.Repository
	}
	return p, a.enter("SetBackupPolicy", p.RetentionDays, p.Repository)
}

// ExportBackups implements httpapi.Agent.
func (a *Agent) ExportBackups(context.Context) (api.BackupExport, error) {
	return a.Backed.Export, a.enter("ExportBackups")
}

// RestorableDatabases implements httpapi.Agent.
func (a *Agent) RestorableDatabases(context.Context) ([]api.RestorableDatabase, error) {
	return a.Backed.Restorable, a.enter("RestorableDatabases")
}
