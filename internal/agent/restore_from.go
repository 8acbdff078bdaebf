package agent

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/backup"
	"github.com/twinspan/twinspan/internal/pgbackrest"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/restore"
)

// restoreElsewhere begins to restore a database out of the repository of another instance, which may be gone. What
// that one's agent knew of its databases is not there: the database is the one that has the name at the moment, or had it
// when it was dropped last.
func (a *Agent) restoreElsewhere(ctx context.Context, in api.RestoreDatabase) (api.DatabaseCopy, error) {
	switch {
	case a.managed == nil:
		return api.DatabaseCopy{}, problem.New(problem.Incompatible, "restore_not_managed",
			"this agent runs no server, so it cannot run the temporary one of a restore").
			WithHint("restore on the agent of a managed instance, and with --peer to this one")
	case in.At != nil && in.At.After(time.Now()):
		return api.DatabaseCopy{}, problem.New(problem.Invalid, "restore_in_future", "%s is in the future",
			in.At.UTC().Format(time.RFC3339)).On(in.Database).WithHint("name a moment that has passed")
	}
	repositories := append([]api.RestoreRepository{{Place: in.From.Repository, Credentials: in.From.Credentials}}, in.From.Others...)
	for _, one := range repositories {
		place, err := backup.ParsePlace(one.Place)
		if err == nil {
			err = backup.Credentials(one.Credentials).Validate(place.Kind)
		}
		if err != nil {
			return api.DatabaseCopy{}, err
		}
	}
	if err := a.canTake(ctx, in); err != nil {
		return api.DatabaseCopy{}, err
	}
	job, key := restoreJob(in), in.From.Key
	return a.begin(job, func(ctx context.Context) error {
		var all []source
		for _, one := range repositories {
			all = append(all, source{place: one.Place})
		}
		return a.inTurn(ctx, job, all, func(s source) error {
			i := slices.IndexFunc(repositories, func(one api.RestoreRepository) bool { return one.Place == s.place })
			return a.restoreBorrowed(ctx, job, repositories[i], key)
		})
	})
}

// restoreBorrowed restores out of a repository that is another instance's.
func (a *Agent) restoreBorrowed(ctx context.Context, job *copyJob, from api.RestoreRepository, key string) error {
	id := newID()
	dir := filepath.Join(a.Dir.Restores(), id)
	policy := backup.Policy{RetentionDays: backup.DefaultRetention, Repositories: []backup.Repository{{Number: 1, Place: from.Place}}}
	engine := &pgbackrest.Engine{Server: a.managed, Home: dir, Number: 1, Policy: func() backup.Policy { return policy }}
	return a.copies.make(id, func() error {
		defer os.RemoveAll(dir) // what cannot be removed is swept
		job.show(func(v *api.DatabaseCopy) { v.Step, v.Restore.From = "reading the repository", from.Place })
		if err := engine.Borrow(ctx, key, from.Credentials); err != nil {
			return err
		}
		contents, err := engine.Contents(ctx)
		if err != nil {
			return err
		}
		return a.restoreUnknown(ctx, job, engine, contents)
	})
}

// restoreUnknown restores out of a repository of which nothing is known but what it holds.
func (a *Agent) restoreUnknown(ctx context.Context, job *copyJob, engine *pgbackrest.Engine, contents backup.Contents) error {
	r := a.newRestore(job, engine)
	r.Agent = "" // the links are of the other instance's agent
	return a.copies.make(r.ID, func() error {
		if at := job.view.Restore.At; at != nil {
			set, ok := contents.Before(*at)
			return deadly(a.restoreTo(ctx, job, r, ok, restore.Target{Set: set, Named: job.view.Database, Time: *at, Earlier: contents.Earlier}),
				job.view.Database)
		}
		return a.restoreDropped(ctx, job, r, contents)
	})
}

// errOther says that the database that was dropped had another name.
var errOther = errors.New("another database was dropped")

// restoreDropped restores the database that was dropped last of those of a name, where nobody knows which they were: the
// log says which OIDs were dropped, the backups which names these had, and of one that no backup has it is tried.
func (a *Agent) restoreDropped(ctx context.Context, job *copyJob, r *restore.Restore, contents backup.Contents) error {
	name := job.view.Database
	lists := map[string][]backup.Database{}
	list := func(set backup.Set) (all []backup.Database, err error) {
		if all, ok := lists[set.Label]; ok {
			return all, nil
		}
		all, err = r.Repository.Databases(ctx, set.Label)
		lists[set.Label] = all
		return all, err
	}
	unknown := problem.New(problem.NotFound, "restore_drop_unknown",
		"no DROP of a database %q is found in the log of the repository", name).On(name).
		WithHint("give a moment at which it was there: --at TIME")
	var dropped []restore.Dropped
	err := r.Drops(ctx, func(d restore.Dropped) (more bool, err error) {
		set, ok := contents.BeforePosition(d.At)
		if !ok {
			return false, nil // nothing before can be restored
		}
		known := false
		for _, s := range contents.Sets {
			if s.From <= set.From && s.Label != set.Label {
				continue // it may have had another name then
			}
			all, err := list(s)
			if err != nil {
				return false, err
			}
			i := slices.IndexFunc(all, func(o backup.Database) bool { return o.OID == d.OID })
			switch {
			case i < 0:
			case s.From > d.At:
				return true, nil // it was there afterwards: its tablespace was changed
			default:
				known = true
				if all[i].Name == name {
					dropped = append(dropped, d)
					return false, nil
				}
			}
		}
		if !known {
			dropped = append(dropped, d)
		}
		return true, nil
	})
	if err != nil {
		return err
	}
	for _, d := range dropped {
		set, ok := contents.BeforePosition(d.At)
		err := a.restoreTo(ctx, job, r, ok, restore.Target{Set: set, Database: d.OID, Named: name, Limit: -1, Before: d.At, Timeline: d.Timeline})
		if !errors.Is(err, errOther) {
			return deadly(err, name)
		}
	}
	return unknown
}
