package httpapi

import (
	"context"
	"net/http"

	"github.com/twinspan/twinspan/api"
)

// numbered is the shape of a request about a task.
type numbered struct {
	Number int64 `path:"number" minimum:"1" doc:"Number of the task"`
}

// backups puts the operations of a managed instance's backups on the interface.
func (r *routes) backups() {
	add(r, "agent", http.MethodGet, "/v1/instance", "getInstance", "Describe the instance, and of a managed one its backups",
		func(ctx context.Context, _ *none) (api.Instance, error) {
			i, err := r.agent.Instance(ctx)
			i.Problems = list(i.Problems)
			return i, err
		})
	add(r, "backups", http.MethodGet, "/v1/backups", "listBackups", "List the backups, and what is due, restorable and wrong",
		func(ctx context.Context, _ *none) (api.Backups, error) { return r.agent.Backups(ctx) })
	add(r, "backups", http.MethodPost, "/v1/backups", "backupNow", "Begin a backup; it waits for what is under way",
		func(ctx context.Context, in *with[api.BackupRequest]) (api.BackupTask, error) {
			return r.agent.BackupNow(ctx, in.Body)
		})
	add(r, "backups", http.MethodPost, "/v1/backups/verify", "verifyBackups", "Begin to read everything in the repository",
		func(ctx context.Context, _ *none) (api.BackupTask, error) { return r.agent.VerifyBackups(ctx) })
	add(r, "backups", http.MethodGet, "/v1/backups/tasks/{number}", "getBackupTask", "Describe a backup or a verification that was begun",
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
	add(r, "databases", http.MethodGet, "/v1/databases/restorable", "listRestorableDatabases", "List the databases that can be restored, dropped ones included",
		func(ctx context.Context, _ *none) ([]api.RestorableDatabase, error) {
			all, err := r.agent.RestorableDatabases(ctx)
			return list(all), err
		})
}
