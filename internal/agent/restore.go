package agent

import (
	"context"
	"errors"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/backup"
	"github.com/twinspan/twinspan/internal/dbcopy"
	"github.com/twinspan/twinspan/internal/instance"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/restore"
)

// RestoreDatabase implements httpapi.Agent.
func (a *Agent) RestoreDatabase(ctx context.Context, in api.RestoreDatabase) (api.DatabaseCopy, error) {
	if err := dbcopy.CheckName(in.Name); err != nil {
		return api.DatabaseCopy{}, err
	}
	if in.Deleted == (in.At != nil) {
		return api.DatabaseCopy{}, problem.New(problem.Invalid, "restore_target",
			"a restore goes to a moment, or to the DROP of a database that is gone").On(in.Database).
			WithHint("give one of --at TIME and --deleted")
	}
	if in.From != nil {
		return a.restoreElsewhere(ctx, in)
	}
	k, err := a.backed()
	if err != nil {
		return api.DatabaseCopy{}, err
	}
	wanted := backup.Wanted{Name: in.Database, Dropped: in.Deleted}
	if in.At != nil {
		wanted.At = in.At.UTC()
	}
	k.Refresh(ctx)
	of, err := k.Find(wanted)
	if err != nil {
		return api.DatabaseCopy{}, err
	}
	if err := a.canTake(ctx, in); err != nil {
		return api.DatabaseCopy{}, err
	}
	job := restoreJob(in)
	return a.begin(job, func(ctx context.Context) error { return a.restore(ctx, job, of, wanted) })
}

func restoreJob(in api.RestoreDatabase) *copyJob {
	v := api.DatabaseCopy{ID: newID(), Database: in.Database, Name: in.Name, Peer: in.Peer, Attempt: 1,
		Restore: &api.Restored{At: in.At, Deleted: in.Deleted}}
	if in.From != nil {
		v.Restore.From = in.From.Repository
	}
	return &copyJob{rate: in.BytesPerSecond, view: v}
}

// canTake refuses a restore whose database cannot be made where it is wanted, as far as that is known before.
func (a *Agent) canTake(ctx context.Context, in api.RestoreDatabase) error {
	if in.Peer != "" {
		_, err := a.peerNamed(in.Peer)
		return err
	}
	_, databases, err := a.server.Describe(ctx, false)
	if err == nil && isAmong(databases, in.Name) {
		err = taken(in.Name)
	}
	return err
}

// errDead says that the database was being dropped at the moment.
var errDead = errors.New("the database's files are gone")

// restore makes a database out of the backups.
func (a *Agent) restore(ctx context.Context, job *copyJob, of backup.RestorableDatabase, wanted backup.Wanted) error {
	release := a.backups.Retain()
	defer release()
	r := a.newRestore(job, a.engine)
	r.Sizes = a.sizes(ctx)
	return a.copies.make(r.ID, func() error {
		job.show(func(v *api.DatabaseCopy) { v.Step = "waiting until the log is in the repository" })
		if err := a.secure(ctx, of, wanted); err != nil {
			return err
		}
		if !wanted.Dropped {
			set, ok := a.contents().Before(wanted.At)
			err := a.restoreTo(ctx, job, r, ok, restore.Target{Set: set, Database: of.OID, Time: wanted.At})
			if !errors.Is(err, errDead) || !of.Dropped() {
				return deadly(err, of.Name)
			}
			// Recovery to a time ends at the first commit behind it. That was the DROP's, so nothing was
			// committed between the moment and the DROP.
			a.Log.Info("the restore begins anew, to the database's DROP", "database", of.Name)
		}
		at, err := r.Drop(ctx, of.Known)
		if err != nil {
			return err
		}
		target := restore.Target{Database: of.OID, Limit: -1, Before: at, Timeline: of.Timeline}
		if of.LimitSeen {
			target.Limit = of.Limit
		}
		set, ok := a.contents().BeforePosition(at)
		target.Set = set
		return deadly(a.restoreTo(ctx, job, r, ok, target), of.Name)
	})
}

func deadly(err error, name string) error {
	if !errors.Is(err, errDead) {
		return err
	}
	return problem.New(problem.NotFound, "restore_absent",
		"the files of the database %q are gone at that moment: it was being dropped", name).On(name).
		WithHint("name an earlier moment, or, some seconds after the DROP, use --deleted")
}

func (a *Agent) newRestore(job *copyJob, repository restore.Repository) *restore.Restore {
	return &restore.Restore{
		Repository: repository, Like: a.managed, Dir: a.Dir.Restores(), ID: newID(), Agent: a.identity.AgentID(),
		Log:  a.Log.With("restore", job.view.Name),
		Step: func(what string) { job.show(func(v *api.DatabaseCopy) { v.Step = what }) },
	}
}

// contents is what the repository holds, as it was known last.
func (a *Agent) contents() backup.Contents {
	if c := a.backups.State().Contents; c != nil {
		return *c
	}
	return backup.Contents{}
}

// secure sees to it that the log of what is wanted is in the repository.
func (a *Agent) secure(ctx context.Context, of backup.RestorableDatabase, wanted backup.Wanted) error {
	moment := wanted.At
	if wanted.Dropped {
		moment = of.Gone
	}
	if a.backups.Secured(moment) {
		return nil
	}
	err := a.backups.Secure(ctx)
	if err != nil && ctx.Err() == nil && !moment.After(a.backups.State().Window.Until) {
		// What is wanted is in the repository, as far as is known.
		a.Log.Warn("the log of the present is not in the repository", "err", err)
		return nil
	}
	return err
}

// sizes are those of the databases that there are, as far as they can be had.
func (a *Agent) sizes(ctx context.Context) map[uint32]int64 {
	sizes := map[uint32]int64{}
	_, databases, err := a.server.Describe(ctx, true)
	if err != nil {
		a.Log.Info("the sizes of the databases are not known", "err", err)
		return sizes
	}
	bytes := map[string]int64{}
	for _, d := range databases {
		bytes[d.Name] = d.Bytes
	}
	for _, d := range a.backups.Databases() {
		if !d.Dropped() {
			sizes[d.OID] = bytes[d.Name]
		}
	}
	return sizes
}

// restoreTo restores to a target and copies the database from there.
func (a *Agent) restoreTo(ctx context.Context, job *copyJob, r *restore.Restore, found bool, t restore.Target) error {
	if !found {
		return problem.New(problem.NotFound, "restore_too_early", "no backup was complete before that moment").
			On(job.view.Database).
			WithHint("name a later moment; twinspan database restorable lists them")
	}
	job.show(func(v *api.DatabaseCopy) { v.Restore.Backup = t.Set.Label })
	return r.Run(ctx, t, func(ctx context.Context, s restore.State) error {
		switch {
		case s.Dead:
			return errDead
		case s.DSN == nil:
			return problem.New(problem.NotFound, "restore_absent", "the database %q was not there at that moment",
				job.view.Database).On(job.view.Database).
				WithHint("twinspan database restorable lists which there were, and when")
		}
		job.show(func(v *api.DatabaseCopy) {
			v.Restore.Position = s.Position.String()
			if s.Twin != nil {
				v.Link = s.Twin.Link
			}
			v.Restore.Reached, v.Restore.LastAt, v.Restore.EndOfLog = true, known(s.Last), s.EndOfLog
			v.Step = "reading the database"
		})
		source, err := a.openRestored(ctx, s)
		if err != nil {
			return err
		}
		defer source.Close()
		job.show(func(v *api.DatabaseCopy) { showMoment(v, source.Origin().Moment) })
		if job.view.Peer != "" {
			return a.copyToPeer(ctx, job, source)
		}
		return a.copyHere(ctx, job, newID(), source)
	})
}

// openRestored makes a source of a database of a temporary server.
func (a *Agent) openRestored(ctx context.Context, s restore.State) (dbcopy.Source, error) {
	snapshot, release, err := s.Export(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	moment := dbcopy.Moment{Snapshot: snapshot, Position: s.Position, Exact: true}
	if s.Twin != nil {
		moment.Position = s.Twin.Position
	}
	return dbcopy.Open(ctx, dbcopy.Database{
		DSN: s.DSN, At: &moment, Name: "restore",
		Find: instance.FindClient, Dir: a.spool(), Log: a.Log,
	})
}
