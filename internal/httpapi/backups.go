package httpapi

import (
	"context"
	"net/http"
	"strconv"

	"github.com/twinspan/twinspan/api"
)

// numbered is the shape of a request about a task.
type numbered struct {
	Number int64 `path:"number" minimum:"1" doc:"Number of the task"`
}

// ofMonth is the shape of a request about a month.
type ofMonth struct {
	Month string `query:"month" pattern:"^[0-9]{4}-[0-9]{2}$" doc:"Month, UTC; the present one without" example:"2026-11"`
}

// backups puts the operations of a managed instance's backups on the interface.
func (r *routes) backups() {
	add(r, "agent", http.MethodGet, "/v1/instance", "getInstance", "Describe the instance, and of a managed one its backups",
		func(ctx context.Context, _ *none) (api.Instance, error) {
			i, err := r.agent.Instance(ctx)
			i.Problems = list(i.Problems)
			if i.Usage != nil {
				i.Usage.Voids = list(i.Usage.Voids)
			}
			if e := i.Enforcement; e != nil {
				e.Pending, e.Overridden = list(e.Pending), list(e.Overridden)
			}
			return i, err
		})
	add(r, "agent", http.MethodPatch, "/v1/instance", "setInstance", "Change the size of a managed instance",
		func(ctx context.Context, in *with[api.SetInstance]) (api.InstanceChange, error) {
			c, err := r.agent.SetInstance(ctx, in.Body)
			c.Pending = list(c.Pending)
			return c, err
		})
	add(r, "agent", http.MethodPost, "/v1/instance/update", "updateInstance", "Restart servers of a managed instance beside which a newer minor release is installed",
		func(ctx context.Context, _ *none) (api.InstanceUpdate, error) {
			u, err := r.agent.UpdateInstance(ctx)
			u.Servers = list(u.Servers)
			return u, err
		})
	add(r, "agent", http.MethodGet, "/v1/usage", "getUsage", "Tell the hours of a managed instance in a month, by vCores, role and state",
		func(ctx context.Context, in *ofMonth) (api.Usage, error) {
			u, err := r.agent.Usage(ctx, in.Month)
			u.Hours, u.Totals = list(u.Hours), list(u.Totals)
			for i := range u.Hours {
				u.Hours[i].Voids = list(u.Hours[i].Voids)
			}
			return u, err
		})
	add(r, "backups", http.MethodGet, "/v1/backups", "listBackups", "List the backups, and what is due, restorable and wrong",
		func(ctx context.Context, _ *none) (api.Backups, error) { return r.agent.Backups(ctx) })
	add(r, "backups", http.MethodPost, "/v1/backups", "backupNow", "Begin a backup; it waits for what is under way",
		func(ctx context.Context, in *with[api.BackupRequest]) (api.BackupTask, error) {
			return r.agent.BackupNow(ctx, in.Body)
		})
	add(r, "backups", http.MethodPost, "/v1/backups/verify", "verifyBackups", "Begin to read everything in the repository",
		func(ctx context.Context, _ *none) (api.BackupTask, error) { return r.agent.VerifyBackups(ctx) })
	add(r, "backups", http.MethodPost, "/v1/backups/test", "testBackups", "Begin to restore the newest backup on a temporary server, and to read all of it",
		func(ctx context.Context, _ *none) (api.BackupTask, error) { return r.agent.TestBackups(ctx) })
	add(r, "backups", http.MethodGet, "/v1/backups/tasks/{number}", "getBackupTask", "Describe a backup, a verification or a test restore that was begun",
		func(ctx context.Context, in *numbered) (api.BackupTask, error) {
			return r.agent.BackupTask(ctx, in.Number)
		})
	add(r, "backups", http.MethodGet, "/v1/backups/policy", "getBackupPolicy", "Say which backups are kept, and where",
		func(ctx context.Context, _ *none) (api.BackupPolicy, error) { return r.agent.BackupPolicy(ctx) })
	add(r, "backups", http.MethodPatch, "/v1/backups/policy", "setBackupPolicy", "Change which backups are kept, and where",
		func(ctx context.Context, in *with[api.SetBackupPolicy]) (api.BackupPolicy, error) {
			return r.agent.SetBackupPolicy(ctx, in.Body)
		})
	add(r, "backups", http.MethodPost, "/v1/backups/export", "exportBackups", "What a restore elsewhere needs beside the repository; it holds the key",
		func(ctx context.Context, _ *none) (api.BackupExport, error) { return r.agent.ExportBackups(ctx) })
	addList(r, "databases", "/v1/databases/restorable", "listRestorableDatabases", "List the databases that can be restored, dropped ones included",
		func(d api.RestorableDatabase) string { return d.Name + "/" + strconv.FormatUint(uint64(d.OID), 10) }, r.agent.RestorableDatabases)
}
