// Package restore brings a managed instance back as it was at a moment, on a temporary server that nobody else
// reaches, for as long as somebody reads one database of it, and takes it away again (docs/design/0030-restore.md):
//
//	r := &restore.Restore{Repository: engine, Like: server, Dir: dir, ID: id, Log: log}
//	err := r.Run(ctx, restore.Target{Set: set, Database: oid, Time: moment}, func(ctx context.Context, s restore.State) error {
//		return read(ctx, s.DSN)
//	})
//
// Run leaves nothing. What a killed process leaves behind is removed by Sweep.
package restore

import (
	"context"
	"log/slog"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/twinspan/twinspan/internal/backup"
	"github.com/twinspan/twinspan/internal/instance"
	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
)

// Repository is where the backups are.
type Repository interface {
	// Databases lists the databases that a set holds.
	Databases(ctx context.Context, set string) ([]backup.Database, error)
	// Restore puts a set into the directory data of dir; of the databases only one, or all with "".
	Restore(ctx context.Context, set, only, dir string) error
	// Fetch renders a command of sh that brings the file $1 of the log to the path $2 of the server in dir. It ends
	// with 1 where there is no such file.
	Fetch(ctx context.Context, dir string) (command string, err error)
	// Reason makes a problem of what that command said when it failed, nil where it said nothing.
	Reason(said string) *problem.Error
	// Segment brings a segment of the log into a file.
	Segment(ctx context.Context, name, file string) error
	// Segments lists the segments of the log, in order.
	Segments(ctx context.Context) ([]string, error)
}

// Target is what is restored, and to where.
type Target struct {
	Set      backup.Set
	Database uint32 // its OID; 0 for the one that has the name Named then
	Named    string // with an OID, the name that it has to have: the caller compares
	Limit    int32  // its limit of connections, where DROP DATABASE has overwritten it; -1 for none
	// Time is the moment: what was committed then or before is in. Of a twin it is the primary's.
	Time     time.Time
	Before   lsn.LSN // or what lies before this position, which Timeline has
	Timeline uint32
	// Earlier returns the set before another. It is required with Time.
	Earlier func(backup.Set) (backup.Set, bool)

	// Of a twin's primary's moment, where it is known: what the log says of it, and the commit that is the last
	// one in, or that the backup is the state at the moment.
	twin    *moment
	through lsn.LSN
	atOnce  bool
}

// State is what was reached.
type State struct {
	DSN      *pg.DSN // of the database, as a superuser; nil where there is none of its OID
	Name     string  // of the database then
	Dead     bool    // it is being dropped: its files are gone
	Position lsn.LSN // where the recovery ended: every commit before it is in
	Last     time.Time
	Twin     *Twin // nil where the database was none
	// EndOfLog says that the repository has no commit behind Time, of a twin none of its primary's.
	EndOfLog bool
}

// Restore makes one temporary server. The fields but Step are required.
type Restore struct {
	Repository Repository
	Like       *instance.Server // whose user and programs the temporary one has
	Dir        string           // of all temporary servers
	ID         string           // names this one's directory; a UUID
	Agent      string           // id of the agent, whose links are known; "" for those of any
	Log        *slog.Logger
	Step       func(string) // is told what is being done; may be nil
	// Sizes are those of the instance's databases now, by OID, as far as they are known: they tell how much room is
	// needed.
	Sizes map[uint32]int64
	// Spare is how many more bytes have to be free: for others who write while nobody waits for the restore.
	Spare int64

	server *instance.Server
	held   []string // the databases of the set
}

// Run restores, calls use, and removes everything.
func (r *Restore) Run(ctx context.Context, t Target, use func(ctx context.Context, s State) error) error {
	r.server = r.fresh()
	defer func() {
		leaving, stop := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer stop()
		if err := r.server.Discard(leaving); err != nil {
			r.Log.Warn("a temporary server's directory is still there, and is removed later", "dir", r.server.Dir,
				"err", err)
		}
	}()
	only, need, err := r.only(ctx, t)
	if err != nil {
		return err
	}
	if err := r.room(need); err != nil {
		return err
	}
	for {
		var instead *Target
		err = r.wide(ctx, t, only, func(ctx context.Context, s State) error {
			other, again, err := r.settle(ctx, t, &s)
			if err != nil {
				return err
			}
			if again {
				instead = &other
				return errAgain
			}
			return use(ctx, s)
		})
		if instead == nil || ctx.Err() != nil {
			return err
		}
		r.Log.Info("the twin is recovered anew, to its primary's moment", "backup", instead.Set.Label, "lsn", instead.through)
		if err := r.server.Discard(ctx); err != nil {
			return err
		}
		if instead.Set.Label != t.Set.Label {
			if only, _, err = r.only(ctx, *instead); err != nil {
				return err
			}
		}
		t = *instead
	}
}

// settle says whether another target is to be recovered to than was reached: of a twin the moment is its primary's.
func (r *Restore) settle(ctx context.Context, t Target, s *State) (instead Target, again bool, err error) {
	switch {
	case s.Twin == nil || t.Time.IsZero() || s.Dead:
		return t, false, nil
	case t.twin == nil:
		return r.ofPrimary(ctx, t, s)
	case t.through != 0 && t.twin.last.position != s.Twin.Position:
		return t, false, problem.New(problem.Internal, "restore_failed", "the twin was recovered to %s of its primary, and not to %s",
			s.Twin.Position, t.twin.last.position).WithHint("restore again; report it with the agent's log")
	}
	tell(*t.twin, s)
	return t, false, nil
}

// wide is once, and where only was brought and the log speaks of other files, once with all databases.
func (r *Restore) wide(ctx context.Context, t Target, only string, use func(ctx context.Context, s State) error) error {
	err := r.once(ctx, t, only, use)
	if only == "" || problem.CodeOf(err) != invalidPages {
		return err
	}
	// The log speaks of files that were left empty.
	r.Log.Info("the restore begins anew, with all databases", "err", err)
	if err := r.server.Discard(ctx); err != nil {
		return err
	}
	if err := r.room(t.Set.Bytes); err != nil {
		return err
	}
	return r.once(ctx, t, "", use)
}

// only is the name under which a set holds the database alone, "" where it does not, and about how many bytes are
// brought.
func (r *Restore) only(ctx context.Context, t Target) (name string, need int64, err error) {
	r.step("looking at the backup")
	list, err := r.Repository.Databases(ctx, t.Set.Label)
	if err != nil {
		return "", 0, err
	}
	r.held = nil
	for _, d := range list {
		r.held = append(r.held, d.Name)
	}
	i := slices.IndexFunc(list, func(d backup.Database) bool {
		return d.OID == t.Database || t.Database == 0 &&
			d.Name == t.Named
	})
	if i < 0 {
		return "", t.Set.Bytes, nil
	}
	need = t.Set.Bytes
	for j, d := range list {
		if j != i {
			need -= r.Sizes[d.OID]
		}
	}
	return list[i].Name, max(need, r.Sizes[t.Database]), nil
}

// reserve is what a restore needs beside the files of the backup: for log, and so that the disk is never full for
// others.
const reserve = 256 << 20

// room refuses a restore for which the disk is too small.
func (r *Restore) room(need int64) error {
	if err := r.server.MakeDir(r.server.Dir); err != nil {
		return err
	}
	var disk unix.Statfs_t
	if err := unix.Statfs(r.server.Dir, &disk); err != nil {
		return nil // the system does not say
	}
	// No more than a part of the disk: a small one has room for little.
	need += reserve + min(r.Spare, int64(disk.Blocks)*int64(disk.Bsize)/10)
	if free := int64(disk.Bavail) * int64(disk.Bsize); need > free {
		return problem.New(problem.Resource, "restore_space_short",
			"the restore needs about %d MB, and %d MB are free", need>>20, free>>20).On(r.Dir).
			WithHint("make room on the disk of the agent's directory")
	}
	return nil
}

func (r *Restore) step(what string) {
	if r.Step != nil {
		r.Step(what)
	}
}

// temporary is the server of a restore. Its Unix socket lies elsewhere where its own directory's path is too long for
// one.
func temporary(dir, id string) *instance.Server {
	s := &instance.Server{
		Dir: filepath.Join(dir,
			id), Port: 5432, Private: true, NoRestart: true, DieWithParent: true, StopTimeout: 10 * time.Second,
	}
	if s.SocketDir() == "" {
		s.Socket = elsewhere(id)
	}
	return s
}

// fresh is the temporary server as it was not run yet.
func (r *Restore) fresh() *instance.Server {
	s := temporary(r.Dir, r.ID)
	s.Binaries, s.RunAs, s.Log = r.Like.Binaries, r.Like.RunAs, r.Log
	return s
}

// once restores, recovers and calls use.
func (r *Restore) once(ctx context.Context, t Target, only string, use func(ctx context.Context, s State) error) error {
	r.server = r.fresh()
	r.step("bringing the backup " + t.Set.Label)
	for _, dir := range []string{r.server.Dir, r.server.SocketDir(), filepath.Join(r.server.Dir, "locks")} {
		if err := r.server.MakeDir(dir); err != nil {
			return err
		}
	}
	r.Log.Debug("a backup is brought", "backup", t.Set.Label, "alone", only != "", "dir", r.server.Dir)
	if err := r.Repository.Restore(ctx, t.Set.Label, only, r.server.Dir); err != nil {
		return err
	}
	if err := r.configure(ctx, t); err != nil {
		return err
	}
	err := r.recover(ctx, t, use)
	if problem.CodeOf(err) != endOfLog || t.Time.IsZero() {
		return err
	}
	// Nothing was committed behind the moment, as far as the repository knows: its end is what there is.
	if err := r.isWhole(ctx, t); err != nil {
		return err
	}
	r.Log.Info("the log ends before the moment", "moment", t.Time)
	t.Time, r.server = time.Time{}, r.fresh()
	if err := r.configure(ctx, t); err != nil {
		return err
	}
	return r.recover(ctx, t, func(ctx context.Context, s State) error {
		s.EndOfLog = true
		return use(ctx, s)
	})
}

// isWhole looks for log that is missing behind the set.
func (r *Restore) isWhole(ctx context.Context, t Target) error {
	segments, err := r.Repository.Segments(ctx)
	if err != nil {
		return err
	}
	for _, gap := range backup.Gaps(segments) {
		if gap.Last[8:] >= backup.SegmentOf(0, t.Set.From)[8:] {
			return missingLog(gap.First)
		}
	}
	return nil
}
