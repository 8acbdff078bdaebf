package agent

import (
	"context"
	"path/filepath"
	"time"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/backup"
	"github.com/twinspan/twinspan/internal/link"
	"github.com/twinspan/twinspan/internal/pgbackrest"
	"github.com/twinspan/twinspan/internal/problem"
)

// openBackups sets up the backups of a managed server, before it is made: its settings
// depend on whether there are any.
func (a *Agent) openBackups() error {
	if a.config.Postgres.NoBackups {
		return nil
	}
	dir := a.Dir.Backup()
	a.managed.Settings = pgbackrest.ArchiveSettings(dir)
	if err := a.managed.MakeDir(dir); err != nil {
		return err
	}
	a.engine = &pgbackrest.Engine{Server: a.managed, Dir: dir}
	a.backups = &backup.Keeper{
		Engine: a.engine, Dir: dir, Repository: filepath.Join(dir, "repository"), Put: a.managed.PutFile, Ready: a.managed.WaitReady, Log: a.Log,
	}
	a.engine.Policy = a.backups.Policy
	return a.backups.Open()
}

// backed returns the keeper of the backups, or why there is none.
func (a *Agent) backed() (*backup.Keeper, error) {
	switch {
	case a.managed == nil:
		return nil, problem.New(problem.Incompatible, "backup_not_managed", "the agent makes no backups of this instance: it is not a managed one").
			WithHint("whoever runs the server backs it up; twinspan init --managed makes an instance with backups")
	case a.backups == nil:
		return nil, problem.New(problem.Incompatible, "backup_off", "the agent makes no backups of this instance").On(a.Dir.File()).
			WithHint("remove backups = false from twinspan.toml and restart the agent")
	}
	return a.backups, nil
}

// backupProblems is what is wrong with the backups.
func (a *Agent) backupProblems() []api.Problem {
	if a.backups == nil {
		return nil
	}
	return backupProblems(a.backups.State().Problems)
}

func backupProblems(all []*problem.Error) []api.Problem {
	list := []api.Problem{}
	for _, p := range all {
		severity := api.Blocks
		if entry, ok := problem.Describe(p.Code); ok {
			severity = api.Severity(entry.Severity)
		}
		list = append(list, *link.ProblemOf(p, severity))
	}
	return list
}

// Instance implements httpapi.Agent.
func (a *Agent) Instance(ctx context.Context) (api.Instance, error) {
	info, err := a.Info(ctx)
	if err != nil {
		return api.Instance{}, err
	}
	out := api.Instance{Agent: info.Name, Postgres: info.Postgres, Problems: info.Problems}
	if a.backups != nil {
		b := describeBackups(a.backups.State())
		out.Backups = &b
	}
	return out, nil
}

// Backups implements httpapi.Agent.
func (a *Agent) Backups(context.Context) (api.Backups, error) {
	k, err := a.backed()
	if err != nil {
		return api.Backups{}, err
	}
	return describeBackups(k.State()), nil
}

func describeBackups(s backup.State) api.Backups {
	out := api.Backups{
		Policy: api.BackupPolicy(s.Policy), Known: s.Contents != nil, Backups: []api.Backup{}, Tasks: []api.BackupTask{}, Problems: backupProblems(s.Problems),
	}
	if s.Contents != nil {
		for _, set := range s.Contents.Sets {
			out.Backups = append(out.Backups, api.Backup{
				Label: set.Label, Type: string(set.Kind), StartedAt: set.Start, EndedAt: set.Stop, Bytes: set.Bytes, Stored: set.Stored,
				Needs: append([]string{}, set.Needs...), PageErrors: set.Damaged,
			})
		}
		out.Next = &api.NextBackup{Type: string(s.Next), At: s.NextAt.UTC()}
	}
	out.From, out.Until = moments(s.Window)
	for _, t := range s.Tasks {
		out.Tasks = append(out.Tasks, describeTask(t))
	}
	return out
}

func moments(w backup.Window) (from, until *time.Time) {
	if w.From.IsZero() {
		return nil, nil
	}
	f, u := w.From.UTC(), w.Until.UTC()
	return &f, &u
}

func describeTask(t backup.Task) api.BackupTask {
	out := api.BackupTask{Number: t.Number, Kind: string(t.Kind), Type: string(t.Type), State: "running", StartedAt: t.Began}
	switch {
	case t.Waiting:
		out.State = "waiting"
	case !t.Ended.IsZero():
		out.State = "done"
		out.EndedAt = &t.Ended
	}
	if p := t.Problem; p != nil {
		out.State = "failed"
		out.Error = &api.Error{Kind: string(p.Kind), Code: p.Code, Subject: p.Subject, Text: p.Error(), Hint: p.Hint}
	}
	if r := t.Report; r != nil {
		out.Verified = &api.BackupVerified{Backups: r.Sets, Segments: r.Segments, Findings: []api.BackupFinding{}}
		for _, f := range r.Findings {
			out.Verified.Findings = append(out.Verified.Findings, api.BackupFinding{Backup: f.Set, Text: f.Text})
		}
	}
	return out
}

// BackupNow implements httpapi.Agent.
func (a *Agent) BackupNow(_ context.Context, in api.BackupRequest) (api.BackupTask, error) {
	kind := backup.Kind(in.Type)
	if kind == "" {
		kind = backup.Incremental
	}
	return a.beginTask(backup.Making, kind)
}

// VerifyBackups implements httpapi.Agent.
func (a *Agent) VerifyBackups(context.Context) (api.BackupTask, error) {
	return a.beginTask(backup.Verifying, "")
}

func (a *Agent) beginTask(kind backup.TaskKind, of backup.Kind) (api.BackupTask, error) {
	k, err := a.backed()
	if err != nil {
		return api.BackupTask{}, err
	}
	t, err := k.Begin(kind, of)
	return describeTask(t), err
}

// BackupTask implements httpapi.Agent.
func (a *Agent) BackupTask(_ context.Context, number int64) (api.BackupTask, error) {
	k, err := a.backed()
	if err != nil {
		return api.BackupTask{}, err
	}
	t, err := k.Task(number)
	return describeTask(t), err
}

// BackupPolicy implements httpapi.Agent.
func (a *Agent) BackupPolicy(context.Context) (api.BackupPolicy, error) {
	k, err := a.backed()
	if err != nil {
		return api.BackupPolicy{}, err
	}
	return api.BackupPolicy(k.Policy()), nil
}

// SetBackupPolicy implements httpapi.Agent.
func (a *Agent) SetBackupPolicy(_ context.Context, in api.SetBackupPolicy) (api.BackupPolicy, error) {
	k, err := a.backed()
	if err != nil {
		return api.BackupPolicy{}, err
	}
	p := k.Policy()
	if in.RetentionDays != nil {
		p.RetentionDays = *in.RetentionDays
	}
	if in.Repository != nil {
		p.Repository = *in.Repository
	}
	if err := k.SetPolicy(p); err != nil {
		return api.BackupPolicy{}, err
	}
	return api.BackupPolicy(p), nil
}

// ExportBackups implements httpapi.Agent.
func (a *Agent) ExportBackups(context.Context) (api.BackupExport, error) {
	k, err := a.backed()
	if err != nil {
		return api.BackupExport{}, err
	}
	key, err := a.engine.Key()
	if err != nil {
		return api.BackupExport{}, err
	}
	out := api.BackupExport{Format: 1, Name: a.config.Name, Repository: k.Policy().Repository, Stanza: pgbackrest.Stanza, Cipher: pgbackrest.Cipher, Key: key}
	if f := a.facts.Load(); f != nil {
		out.SystemID, out.Version = f.SystemID, f.Version
	}
	return out, nil
}

// RestorableDatabases implements httpapi.Agent.
func (a *Agent) RestorableDatabases(ctx context.Context) ([]api.RestorableDatabase, error) {
	k, err := a.backed()
	if err != nil {
		return nil, err
	}
	k.Refresh(ctx)
	list := []api.RestorableDatabase{}
	for _, d := range k.Databases() {
		out := api.RestorableDatabase{Name: d.Name, OID: d.OID, Dropped: d.Dropped(), SeenAt: d.Seen.UTC()}
		if d.Dropped() {
			gone := d.Gone.UTC()
			out.DroppedBy = &gone
		}
		out.From, out.Until = moments(d.Window)
		list = append(list, out)
	}
	return list, nil
}
