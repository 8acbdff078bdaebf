package backup

import (
	"context"
	"slices"
	"time"

	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
)

const (
	// secureWait bounds how long the log of the present may take into the repository.
	secureWait = 3 * time.Minute
	securePoll = 200 * time.Millisecond
	// suspectAfter is how long it takes before somebody asks for the reason.
	suspectAfter = 10 * time.Second
	// unseenFor is how long a database may have been there before it was seen, where the agent was at work.
	unseenFor = time.Minute
)

// Retain keeps everything in the repository until release is called.
func (k *Keeper) Retain() (release func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.retained++
	return func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.retained--
		for _, s := range k.stores {
			nudge(s.wake)
		}
	}
}

// Wanted says what is to be restored: a database, at a moment or to its DROP.
type Wanted struct {
	Name    string
	At      time.Time
	Dropped bool // to its DROP; At is zero
}

// Refresh looks which databases there are, where the server answers. It is done by itself every few seconds.
func (k *Keeper) Refresh(ctx context.Context) {
	asking, stop := context.WithTimeout(ctx, askWait)
	defer stop()
	conn, err := k.Server.Connect(asking, pg.Session{Name: "backup/databases"})
	if err == nil {
		_, err = k.sight(asking, conn)
		conn.Close(context.WithoutCancel(ctx))
	}
	if err != nil {
		k.Log.Info("the list of databases is as it was last", "err", err)
	}
}

// Find finds the database that had a name, at a moment or when it was dropped last.
func (k *Keeper) Find(w Wanted) (RestorableDatabase, error) {
	all, now := k.Databases(), time.Now()
	k.mu.Lock()
	defer k.mu.Unlock()
	// The log up to now can be had: Secure.
	var window Window
	for _, s := range k.stores {
		window = window.with(Restorable(now, s.known(), k.policy, now))
	}
	return find(all, w, now, window)
}

// find chooses among databases, of which those of one name are in the order of Keeper.Databases, the newest first.
func find(all []RestorableDatabase, w Wanted, now time.Time, window Window) (RestorableDatabase, error) {
	named := slices.DeleteFunc(slices.Clone(all), func(d RestorableDatabase) bool { return d.Name != w.Name })
	if len(named) == 0 {
		return RestorableDatabase{}, problem.New(problem.NotFound, "restore_database_unknown",
			"no database %q is known that could be restored", w.Name).On(w.Name).
			WithHint("twinspan database restorable lists those that are known; one is known as soon as an agent has seen it")
	}
	if window.From.IsZero() {
		return RestorableDatabase{}, problem.New(problem.NotFound, "restore_no_backup",
			"there is no backup yet that could be restored").On(w.Name).
			WithHint("twinspan backup list says when the first is due, and what is wrong")
	}
	if w.Dropped {
		i := slices.IndexFunc(named, func(d RestorableDatabase) bool { return d.Dropped() })
		if i < 0 {
			return RestorableDatabase{}, problem.New(problem.Conflict, "restore_not_dropped",
				"no database %q is known that was dropped", w.Name).On(w.Name).
				WithHint("one that is there is restored with --at; a DROP is known some seconds after it")
		}
		return named[i], nil
	}
	if w.At.After(now) {
		return RestorableDatabase{}, problem.New(problem.Invalid, "restore_in_future", "%s is in the future",
			show(w.At)).On(w.Name).WithHint("name a moment that has passed; it is %s", show(now))
	}
	// Of several the one that was there then. One is seen first some time after it was made.
	there := func(unseen time.Duration) int {
		return slices.IndexFunc(named, func(d RestorableDatabase) bool {
			return !w.At.Before(d.Since.Add(-unseen)) && (!d.Dropped() || w.At.Before(d.Gone))
		})
	}
	i := there(0)
	if i < 0 {
		i = there(unseenFor)
	}
	switch {
	case i >= 0 && !w.At.Before(window.From):
		return named[i], nil
	case i >= 0 || w.At.Before(window.From):
		return RestorableDatabase{}, problem.New(problem.NotFound, "restore_too_early",
			"%s is before the first moment that can be restored, %s", show(w.At), show(window.From)).On(w.Name).
			WithHint("name a later moment; twinspan database restorable lists them")
	case named[0].Dropped() && !w.At.Before(named[0].Gone):
		return RestorableDatabase{}, problem.New(problem.NotFound, "restore_gone",
			"the database %q had been dropped at %s", w.Name, show(w.At)).On(w.Name).
			WithHint("--deleted restores it as it was when it was dropped")
	}
	return RestorableDatabase{}, problem.New(problem.NotFound, "restore_absent", "there was no database %q at %s",
		w.Name, show(w.At)).On(w.Name).
		WithHint("twinspan database restorable lists which there were, and when")
}

// show writes a moment for people.
func show(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05.999999Z07:00") }

// Secured says whether everything that was committed at a moment or before is known to be in the repository, with a
// commit behind it that recovery can stop at.
func (k *Keeper) Secured(moment time.Time) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return moment.Before(k.pulse.secured)
}

// Secure brings everything that was committed until now into the repository, with a commit behind it.
func (k *Keeper) Secure(ctx context.Context) error {
	ctx, stop := context.WithTimeoutCause(ctx, secureWait, problem.New(problem.Transient, "backup_log_late",
		"the log of this moment was not in the repository after %s", secureWait).
		WithHint("the problems that twinspan backup list shows say why; restore to an earlier moment, or try again"))
	defer stop()
	err := k.secure(ctx)
	if ctx.Err() != nil && err != nil {
		return context.Cause(ctx)
	}
	return err
}

func (k *Keeper) secure(ctx context.Context) error {
	conn, err := k.Server.Connect(ctx, pg.Session{Name: "backup/secure"})
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	began := time.Now()
	s, err := look(ctx, conn)
	if err != nil {
		return err
	}
	if err := k.beat(ctx, conn, s); err != nil {
		return err
	}
	var end lsn.LSN
	if err := conn.QueryRow(ctx, `SELECT pg_catalog.pg_switch_wal()`).Scan(&end); err != nil {
		return pg.Classify(err, "switch the log")
	}
	segment := SegmentOf(s.timeline, end-1)
	for asked := began; ; {
		if s, err = look(ctx, conn); err != nil {
			return err
		}
		if len(s.archived) >= 24 && s.archived[:24] >= segment {
			k.noteArchived(s)
			return nil
		}
		if s.failed != "" && time.Since(asked) > suspectAfter {
			if err := k.check(ctx, s.failed); err != nil {
				return archiveFailing(problem.As(err), "the log does not get into the repository, and the server keeps it: ")
			}
			asked = time.Now()
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(securePoll):
		}
	}
}
