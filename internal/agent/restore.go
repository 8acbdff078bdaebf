package agent

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/backup"
	"github.com/twinspan/twinspan/internal/dbcopy"
	"github.com/twinspan/twinspan/internal/instance"
	"github.com/twinspan/twinspan/internal/pgbackrest"
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

// restore makes a database out of the backups: of the repositories in turn, where one cannot be used.
func (a *Agent) restore(ctx context.Context, job *copyJob, of backup.RestorableDatabase, wanted backup.Wanted) error {
	release := a.backups.Retain()
	defer release()
	job.show(func(v *api.DatabaseCopy) { v.Step = "waiting until the log is in the repository" })
	if err := a.secure(ctx, of, wanted); err != nil {
		return err
	}
	sizes := a.sizes(ctx)
	return a.inTurn(ctx, job, a.sources(wanted.At), func(s source) error {
		r := a.newRestore(job, s.repository)
		r.Sizes = sizes
		return a.copies.make(r.ID, func() error { return a.restoreOf(ctx, job, r, s.contents, of, wanted) })
	})
}

// source is a repository for a restore, with what it holds.
type source struct {
	place      string
	repository restore.Repository
	contents   backup.Contents
}

// sources are the repositories of the instance that answer, the one first that has the newest backup before a moment, of any with a
// zero one. What one lacks of the log is looked for in the others.
func (a *Agent) sources(moment time.Time) []source {
	type candidate struct {
		engine *pgbackrest.Engine
		from   time.Time
		store  backup.StoreState
	}
	var all []candidate
	for _, s := range a.backups.State().Stores {
		if s.Contents == nil {
			continue
		}
		last, _ := s.Contents.Last()
		if !moment.IsZero() {
			last, _ = s.Contents.Before(moment)
		}
		all = append(all, candidate{a.engine(s.Number), last.Stop, s})
	}
	slices.SortStableFunc(all, func(x, y candidate) int { return y.from.Compare(x.from) })
	var list []source
	for i, c := range all {
		several := pgbackrest.Several{c.engine}
		for j, other := range all {
			if j != i && len(other.store.Problems) == 0 {
				several = append(several, other.engine)
			}
		}
		one := source{c.store.Place, several, *c.store.Contents}
		if len(all) == 1 {
			one.repository = c.engine
		}
		list = append(list, one)
	}
	return list
}

// unusable are the codes with which one repository fails and another may not.
var unusable = []string{"backup_damaged", "backup_failed", "backup_key_wrong", "backup_key_lost", "backup_repository_missing", "backup_repository_foreign",
	"backup_repository_unwritable", "backup_store_unreachable", "backup_store_refused", "backup_bucket_missing", "backup_credentials_invalid",
	"restore_log_missing", "restore_failed", "restore_too_early", "restore_stalled", "restore_drop_unknown", "pgbackrest_answer"}

// inTurn restores out of the first repository that can be used. The error is that of the first.
func (a *Agent) inTurn(ctx context.Context, job *copyJob, all []source, restore func(source) error) error {
	var first error
	for i, s := range all {
		err := restore(s)
		if first == nil {
			first = err
		}
		if err == nil || ctx.Err() != nil || i == len(all)-1 || !slices.Contains(unusable, problem.CodeOf(err)) {
			if err == nil {
				return nil
			}
			break
		}
		a.Log.Warn("a restore goes on with another repository", "repository", s.place, "code", problem.CodeOf(err), "err", err)
		job.show(func(v *api.DatabaseCopy) { v.Attempt++ })
	}
	if first == nil {
		return problem.New(problem.NotFound, "restore_no_backup", "no repository has answered that could be restored from").On(job.view.Database).
			WithHint("twinspan backup list says what is wrong")
	}
	return first
}

// restoreOf restores out of one repository.
func (a *Agent) restoreOf(ctx context.Context, job *copyJob, r *restore.Restore, contents backup.Contents, of backup.RestorableDatabase, wanted backup.Wanted) error {
	if !wanted.Dropped {
		set, ok := contents.Before(wanted.At)
		err := a.restoreTo(ctx, job, r, ok, restore.Target{Set: set, Database: of.OID, Time: wanted.At, Earlier: contents.Earlier})
		if !errors.Is(err, errDead) || !of.Dropped() {
			return deadly(err, of.Name)
		}
		// Recovery to a time ends at the first commit behind it. That was the DROP's, so nothing was
		// committed between the moment and the DROP.
		a.Log.Info("the restore begins anew, to the database's DROP", "database", of.Name)
	}
	drop, err := r.Drop(ctx, of.Known)
	if err != nil {
		return err
	}
	target := restore.Target{Database: of.OID, Limit: -1, Before: drop.At, Timeline: drop.Timeline}
	if of.LimitSeen {
		target.Limit = of.Limit
	}
	set, ok := contents.BeforePosition(drop.At)
	target.Set = set
	return deadly(a.restoreTo(ctx, job, r, ok, target), of.Name)
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
	r := a.temporary(repository, job.view.Name)
	r.Step = func(what string) { job.show(func(v *api.DatabaseCopy) { v.Step = what }) }
	return r
}

func (a *Agent) temporary(repository restore.Repository, of string) *restore.Restore {
	return &restore.Restore{
		Repository: repository, Like: a.managed, Dir: a.Dir.Restores(), ID: newID(), Agent: a.identity.AgentID(), Log: a.Log.With("restore", of),
	}
}

// proveBackup implements backup.Keeper's Prove.
func (a *Agent) proveBackup(ctx context.Context, number int, set backup.Set) (p backup.Proof, err error) {
	r := a.temporary(a.engine(number), "test of "+set.Label)
	err = a.copies.make(r.ID, func() error {
		p, err = r.Prove(ctx, set)
		return err
	})
	return p, err
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
		case t.Named != "" && s.Name != t.Named:
			return errOther
		}
		job.show(func(v *api.DatabaseCopy) {
			v.Restore.Position = s.Position.String()
			if s.Twin != nil {
				v.Link = s.Twin.Link
				if s.Twin.Last != 0 {
					v.Restore.PrimaryLast = s.Twin.Last.String()
				}
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
		moment.Position, moment.CommittedAt = s.Twin.Position, s.Twin.CommittedAt
	}
	return dbcopy.Open(ctx, dbcopy.Database{
		DSN: s.DSN, At: &moment, Name: "restore",
		Find: instance.FindClient, Dir: a.spool(), Log: a.Log,
	})
}
