package agent

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/backup"
	"github.com/twinspan/twinspan/internal/pgbackrest"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/restore"
)

// restoreElsewhere begins to restore a database out of the repository of another instance, which may be gone. What
// that one's agent knew of its databases is not there: the database is the one that has the name at the moment.
func (a *Agent) restoreElsewhere(ctx context.Context, in api.RestoreDatabase) (api.DatabaseCopy, error) {
	policy := backup.Policy{RetentionDays: backup.DefaultRetention, Repository: in.From.Repository}
	switch {
	case a.managed == nil:
		return api.DatabaseCopy{}, problem.New(problem.Incompatible, "restore_not_managed",
			"this agent runs no server, so it cannot run the temporary one of a restore").
			WithHint("restore on the agent of a managed instance, and with --peer to this one")
	case in.Deleted:
		return api.DatabaseCopy{}, problem.New(problem.Incompatible, "restore_target",
			"where a database was dropped is known to the agent of its own instance only").On(in.Database).
			WithHint("give a moment before the DROP: --at TIME")
	case in.At.After(time.Now()):
		return api.DatabaseCopy{}, problem.New(problem.Invalid, "restore_in_future", "%s is in the future",
			in.At.UTC().Format(time.RFC3339)).On(in.Database).WithHint("name a moment that has passed")
	}
	if err := policy.Validate(); err != nil {
		return api.DatabaseCopy{}, err
	}
	if err := a.canTake(ctx, in); err != nil {
		return api.DatabaseCopy{}, err
	}
	job, key := restoreJob(in), in.From.Key
	return a.begin(job, func(ctx context.Context) error {
		id := newID()
		dir := filepath.Join(a.Dir.Restores(), id)
		return a.copies.make(id, func() error {
			defer os.RemoveAll(dir) // what cannot be removed is swept
			engine := &pgbackrest.Engine{Server: a.managed, Dir: dir, Policy: func() backup.Policy { return policy }}
			return a.restoreBorrowed(ctx, job, engine, key)
		})
	})
}

// restoreBorrowed restores out of a repository that is another instance's.
func (a *Agent) restoreBorrowed(ctx context.Context, job *copyJob, engine *pgbackrest.Engine, key string) error {
	job.show(func(v *api.DatabaseCopy) { v.Step = "reading the repository" })
	if err := engine.Borrow(ctx, key); err != nil {
		return err
	}
	contents, err := engine.Contents(ctx)
	if err != nil {
		return err
	}
	at := *job.view.Restore.At
	set, ok := contents.Before(at)
	r := a.newRestore(job, engine)
	return a.copies.make(r.ID, func() error {
		return deadly(a.restoreTo(ctx, job, r, ok, restore.Target{Set: set, Named: job.view.Database, Time: at}),
			job.view.Database)
	})
}
