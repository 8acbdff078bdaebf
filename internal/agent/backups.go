package agent

import (
	"context"
	"path/filepath"
	"time"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/backup"
	"github.com/twinspan/twinspan/internal/pgbackrest"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/side"
)

// openBackups sets up the backups of a managed server, before it is made: its settings
// depend on whether there are any.
func (a *Agent) openBackups() error {
	if a.config.Postgres.NoBackups {
		return nil
	}
	dir := a.Dir.Backup()
	if err := a.managed.MakeDir(dir); err != nil {
		return err
	}
	a.makeKeeper(dir)
	a.backups.Repository = filepath.Join(dir, "repository")
	return a.backups.Open()
}

// makeKeeper makes what keeps the backups in a directory.
func (a *Agent) makeKeeper(dir string) {
	a.keys = &pgbackrest.Keys{File: a.config.Postgres.BackupKeyFile, Command: a.config.Postgres.BackupKeyCommand}
	a.backups = &backup.Keeper{
		Dir: dir, Put: a.managed.PutFile, Ready: a.managed.WaitReady, Log: a.Log,
		Engine: func(number int) backup.Engine { return a.engine(number) },
		Prove:  a.proveBackup,
		Script: func(ctx context.Context) error {
			var engines []*pgbackrest.Engine
			for _, r := range a.backups.Policy().Repositories {
				engines = append(engines, a.engine(r.Number))
			}
			a.scripting.Lock()
			defer a.scripting.Unlock()
			return pgbackrest.WriteScript(ctx, a.managed, dir, engines)
		},
	}
}

// engine makes the engine of the backups' repository with a number.
func (a *Agent) engine(number int) *pgbackrest.Engine {
	return &pgbackrest.Engine{Server: a.managed, Home: a.Dir.Backup(), Number: number, Policy: a.backups.Policy, Keys: a.keys}
}

// backed returns the keeper of the backups, or why there is none.
func (a *Agent) backed() (*backup.Keeper, error) {
	switch {
	case a.managed == nil:
		return nil, problem.New(problem.Incompatible, "backup_not_managed", "the agent makes no backups of this instance: it is not a managed one").
			WithHint("whoever runs the server backs it up; twinspan init --managed makes an instance with backups")
	case a.cluster != nil && !a.cluster.State().Leads:
		return nil, a.cluster.StandsBy()
	case a.backups == nil:
		return nil, problem.New(problem.Incompatible, "backup_off", "the agent makes no backups of this instance").On(a.Dir.File()).
			WithHint("remove backups = false from twinspan.toml and restart the agent")
	}
	return a.backups, nil
}

// backupProblems is what is wrong with the backups.
func (a *Agent) backupProblems() []api.Problem {
	k := a.keeping()
	if k == nil {
		return nil
	}
	return backupProblems(k.State().Problems)
}

func backupProblems(all []*problem.Error) []api.Problem {
	list := []api.Problem{}
	for _, p := range all {
		list = append(list, shown(p, api.Blocks))
	}
	return list
}

// shown is a problem as it is shown.
func shown(p *problem.Error, otherwise api.Severity) api.Problem {
	return *side.ProblemOf(p, severityOf(p, otherwise))
}

// severityOf is the severity of a problem as the catalogue has it, or another where that lacks the code.
func severityOf(p *problem.Error, otherwise api.Severity) api.Severity {
	if entry, ok := problem.Describe(p.Code); ok {
		return api.Severity(entry.Severity)
	}
	return otherwise
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
		Policy: describePolicy(s.Policy), Known: s.Known, Repositories: []api.BackupRepository{}, Backups: []api.Backup{}, Tasks: []api.BackupTask{},
		Problems: backupProblems(s.Problems),
	}
	for _, one := range s.Stores {
		r := api.BackupRepository{Number: one.Number, Place: one.Place, Known: one.Contents != nil, Owed: one.Owed, VerifiedAt: known(one.Verified), TestedAt: known(one.Tested),
			Problems: backupProblems(one.Problems)}
		r.From, r.Until = moments(one.Window)
		if one.Contents != nil {
			r.Next = &api.NextBackup{Type: string(one.Next), At: one.NextAt.UTC()}
			for _, set := range one.Contents.Sets {
				out.Backups = append(out.Backups, api.Backup{
					Repository: one.Number, Label: set.Label, Type: string(set.Kind), StartedAt: set.Start, EndedAt: set.Stop, Bytes: set.Bytes, Stored: set.Stored,
					Needs: append([]string{}, set.Needs...), PageErrors: set.Damaged,
				})
			}
		}
		out.Repositories = append(out.Repositories, r)
	}
	if s.Next != "" {
		out.Next = &api.NextBackup{Type: string(s.Next), At: s.NextAt.UTC()}
	}
	out.From, out.Until = moments(s.Window)
	for _, t := range s.Tasks {
		out.Tasks = append(out.Tasks, describeTask(t, s.Policy))
	}
	return out
}

func describePolicy(p backup.Policy) api.BackupPolicy {
	out := api.BackupPolicy{RetentionDays: p.RetentionDays, Repositories: []api.RepositoryPlace{}}
	if len(p.Repositories) > 0 {
		out.Repository = p.Repositories[0].Place
	}
	for _, r := range p.Repositories {
		out.Repositories = append(out.Repositories, api.RepositoryPlace(r))
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

func describeTask(t backup.Task, p backup.Policy) api.BackupTask {
	out := api.BackupTask{Number: t.Number, Kind: string(t.Kind), Type: string(t.Type), StartedAt: t.Began}
	out.State, out.Error, out.Verified = describePart(t)
	out.Tested = describeProof(t.Proof)
	if !t.Ended.IsZero() {
		out.EndedAt = &t.Ended
	}
	if in := t.Failed(); in != "" && out.Error != nil {
		out.Error.Text = in + ": " + out.Error.Text
	}
	for _, part := range t.Parts {
		one := api.BackupTaskPart{Number: part.Repository, Place: p.Place(part.Repository)}
		one.State, one.Error, one.Verified = describePart(part)
		one.Tested = describeProof(part.Proof)
		out.Parts = append(out.Parts, one)
	}
	return out
}

func describePart(t backup.Task) (state string, failed *api.Error, verified *api.BackupVerified) {
	state = "running"
	switch {
	case t.Waiting:
		state = "waiting"
	case t.Ended.IsZero():
	case t.Problem != nil:
		state = "failed"
	default:
		state = "done"
	}
	if p := t.Problem; p != nil && state == "failed" {
		failed = &api.Error{Kind: string(p.Kind), Code: p.Code, Subject: p.Subject, Text: p.Error(), Hint: p.Hint}
	}
	if r := t.Report; r != nil {
		verified = &api.BackupVerified{Backups: r.Sets, Segments: r.Segments, Findings: []api.BackupFinding{}}
		for _, f := range r.Findings {
			verified.Findings = append(verified.Findings, api.BackupFinding{Backup: f.Set, Text: f.Text})
		}
	}
	return state, failed, verified
}

func describeProof(p *backup.Proof) *api.BackupTested {
	if p == nil {
		return nil
	}
	return &api.BackupTested{Backup: p.Set, Until: p.Until.UTC(), Databases: p.Databases, Tables: p.Tables, Rows: p.Rows}
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

// TestBackups implements httpapi.Agent.
func (a *Agent) TestBackups(context.Context) (api.BackupTask, error) {
	return a.beginTask(backup.Testing, "")
}

func (a *Agent) beginTask(kind backup.TaskKind, of backup.Kind) (api.BackupTask, error) {
	k, err := a.backed()
	if err != nil {
		return api.BackupTask{}, err
	}
	t, err := k.Begin(kind, of)
	return describeTask(t, k.Policy()), err
}

// BackupTask implements httpapi.Agent.
func (a *Agent) BackupTask(_ context.Context, number int64) (api.BackupTask, error) {
	k, err := a.backed()
	if err != nil {
		return api.BackupTask{}, err
	}
	t, err := k.Task(number)
	return describeTask(t, k.Policy()), err
}

// BackupPolicy implements httpapi.Agent.
func (a *Agent) BackupPolicy(context.Context) (api.BackupPolicy, error) {
	k, err := a.backed()
	if err != nil {
		return api.BackupPolicy{}, err
	}
	return describePolicy(k.Policy()), nil
}

// SetBackupPolicy implements httpapi.Agent.
func (a *Agent) SetBackupPolicy(ctx context.Context, in api.SetBackupPolicy) (api.BackupPolicy, error) {
	k, err := a.backed()
	if err != nil {
		return api.BackupPolicy{}, err
	}
	p, place, err := changed(k.Policy(), in)
	if err != nil {
		return api.BackupPolicy{}, err
	}
	var before func() error
	if place != "" {
		if before, err = a.opened(k.Policy(), p, place, in.Credentials); err != nil {
			return api.BackupPolicy{}, err
		}
	} else if len(in.Credentials) > 0 {
		return api.BackupPolicy{}, problem.New(problem.Invalid, "backup_credentials_invalid", "there is no repository named to which the credentials belong").
			WithHint("name it with --repository or --add-repository")
	}
	if a.cluster != nil && place != "" {
		if err := a.shareKey(ctx, place); err != nil {
			return api.BackupPolicy{}, err
		}
	}
	if err := k.SetPolicy(p, before); err != nil {
		return api.BackupPolicy{}, err
	}
	if a.cluster != nil {
		if err := a.cluster.Push(ctx); err != nil {
			return api.BackupPolicy{}, err
		}
	}
	return describePolicy(p), nil
}

// changed is a policy with the changes that are asked for, and the place of the repository to which credentials belong.
func changed(p backup.Policy, in api.SetBackupPolicy) (_ backup.Policy, place string, err error) {
	if in.RetentionDays != nil {
		p.RetentionDays = *in.RetentionDays
	}
	if in.Repository != nil && (in.Add != nil || in.Remove != nil) {
		return p, "", problem.New(problem.Invalid, "backup_policy_invalid", "one repository alone, and another one added or removed, cannot be asked for at once").
			WithHint("use --repository, or --add-repository and --remove-repository")
	}
	switch {
	case in.Repository != nil:
		place = *in.Repository
		one, number := p.With(place)
		if p.Place(number) == "" && len(p.Repositories) == 1 {
			number = p.Repositories[0].Number
		}
		one.Repositories = []backup.Repository{{Number: number, Place: place}}
		p = one
	case in.Add != nil:
		place = *in.Add
		p, _ = p.With(place)
	}
	if in.Remove != nil {
		if p, err = p.Without(*in.Remove); err != nil {
			return p, "", err
		}
	}
	return p, place, p.Validate()
}

// opened sees that the credentials of a repository are what it needs, and returns what keeps them.
func (a *Agent) opened(old, p backup.Policy, text string, c backup.Credentials) (before func() error, err error) {
	place, err := backup.ParsePlace(text)
	if err != nil {
		return nil, err
	}
	var engine *pgbackrest.Engine
	there := false
	for _, r := range p.Repositories {
		if r.Place == text {
			engine, there = a.engine(r.Number), old.Place(r.Number) == text
		}
	}
	if engine == nil || there && len(c) == 0 {
		return nil, nil // it has its own
	}
	if err := c.Validate(place.Kind); err != nil {
		return nil, err
	}
	if len(c) == 0 {
		return nil, nil
	}
	return func() error { return engine.SetCredentials(c) }, nil
}

// ExportBackups implements httpapi.Agent.
func (a *Agent) ExportBackups(ctx context.Context) (api.BackupExport, error) {
	k, err := a.backed()
	if err != nil {
		return api.BackupExport{}, err
	}
	p := k.Policy()
	if len(p.Repositories) == 0 {
		return api.BackupExport{}, backup.Unplaced()
	}
	out := api.BackupExport{Format: 1, Name: a.config.Name, Repository: p.Repositories[0].Place, Stanza: pgbackrest.Stanza, Cipher: pgbackrest.Cipher}
	if out.Key, err = a.engine(p.Repositories[0].Number).Key(ctx); err != nil {
		return api.BackupExport{}, err
	}
	for _, r := range p.Repositories {
		c, err := a.engine(r.Number).Credentials()
		if err != nil {
			return api.BackupExport{}, err
		}
		out.Repositories = append(out.Repositories, api.RestoreRepository{Place: r.Place, Credentials: c})
	}
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
