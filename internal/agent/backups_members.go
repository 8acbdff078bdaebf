package agent

import (
	"context"
	"maps"
	"path/filepath"
	"strconv"
	"time"

	"github.com/twinspan/twinspan/internal/backup"
	"github.com/twinspan/twinspan/internal/pgbackrest"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/telemetry"
)

// keepsLog is how much of the log each member's server keeps, whether or not it is needed: out of it the one that leads next brings what
// the one before had not archived.
const keepsLog = "1GB"

// openSharedBackups sets up a member's part of the backups of its instance: those are kept by the agent beside the server that leads, in a place
// that all members reach, with what all share.
func (a *Agent) openSharedBackups() error {
	if a.config.Postgres.NoBackups {
		return nil
	}
	dir := a.Dir.Backup()
	// What comes from the others is put into these, which the server's user has to own.
	for n := 2; n <= backup.MostRepositories; n++ {
		if err := a.managed.MakeDir(filepath.Join(dir, strconv.Itoa(n))); err != nil {
			return err
		}
	}
	a.managed.Settings = maps.Clone(pgbackrest.ArchiveSettings(dir))
	a.managed.Settings["wal_keep_size"] = keepsLog
	a.makeKeeper(dir)
	a.backups.Handed = true
	return a.backups.Open()
}

// followBackups makes this member ready to archive from the moment on at which it leads, with what the members share.
func (a *Agent) followBackups(ctx context.Context) error {
	if a.backups == nil {
		return nil
	}
	if err := a.backups.Adopt(); err != nil {
		return err
	}
	var failed error
	for _, r := range a.backups.Policy().Repositories {
		if err := a.engine(r.Number).Follow(ctx); err != nil && failed == nil {
			failed = err
		}
	}
	if err := a.backups.Script(ctx); err != nil {
		return err
	}
	return failed
}

// serveBackups keeps the backups while this member's server leads. The links go on where what the backups stand on cannot be read.
func (a *Agent) serveBackups(ctx context.Context) error {
	for {
		err := a.backups.Open()
		if err == nil {
			return a.backups.Run(ctx)
		}
		a.Log.Error("the backups cannot be kept", telemetry.Failure(err))
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(shareEvery):
		}
	}
}

// keeping is the keeper of the backups, nil where there are none, or where another member's agent keeps them.
func (a *Agent) keeping() *backup.Keeper {
	if a.cluster != nil && !a.cluster.State().Leads {
		return nil
	}
	return a.backups
}

// shareKey makes the key of the backups known to all members before anything is encrypted with it.
func (a *Agent) shareKey(ctx context.Context, text string) error {
	place, err := backup.ParsePlace(text)
	if err != nil {
		return err
	}
	err = a.engine(1).MakeKey(ctx, place)
	if problem.CodeOf(err) == "backup_key_lost" {
		return nil // said where it is used
	}
	if err != nil {
		return err
	}
	return a.cluster.Push(ctx)
}
