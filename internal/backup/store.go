package backup

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/twinspan/twinspan/internal/problem"
)

// store keeps one repository. Keeper.mu guards what is behind wake.
type store struct {
	k *Keeper
	Repository
	engine Engine
	dir    string // of the engine
	wake   chan struct{}

	left     bool // it is not the policy's any more
	stop     context.CancelFunc
	done     chan struct{} // nil until it is worked on, closed when it is not any more
	problems problems
	contents *Contents    // nil until the repository answered
	verified verification // the last
	tested   test         // the last
	shorter  bool         // the policy keeps less than before
	owed     int          // files of the log that it has missed
	parted   bool         // it cannot have all of what it has missed: a full backup is due
	followed bool         // it has what a server that led before had of the log, as far as that is to be had
}

// leave ends the work on a repository that is not the policy's any more, and forgets it.
func (s *store) leave() error {
	s.k.mu.Lock()
	stop, done := s.stop, s.done
	s.k.mu.Unlock()
	if stop != nil {
		stop()
		<-done
	}
	for _, file := range []string{s.verificationFile(), s.testFile()} {
		if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
			s.k.Log.Warn("what is known of a former repository is still there", "err", err)
		}
	}
	return s.engine.Forget()
}

func (s *store) raise(about string, err error) {
	s.k.mu.Lock()
	defer s.k.mu.Unlock()
	if p := problem.As(err); p != nil && p.Subject == "" {
		err = p.On(s.Place)
	}
	s.problems.raise(about, err, s.k.Log)
}

// archived is the moment up to which all commits are known to be in the repository; Keeper.mu is held.
func (s *store) archived() time.Time {
	if s.owed > 0 {
		return time.Time{}
	}
	return s.k.archived()
}

// work makes backups when they are due or asked for.
func (s *store) work(ctx context.Context) {
	var retry time.Time
	pause := firstPause
	for ctx.Err() == nil {
		wait := lookAgain
		if s.look(ctx) {
			wait = lookEvery
			s.heal(ctx)
			s.follow(ctx)
			s.expire(ctx)
			if task, due := s.next(time.Now(), retry); due {
				wait = 0
				if s.do(ctx, task) || task.Asked {
					retry, pause = time.Time{}, firstPause
				} else {
					retry, pause = time.Now().Add(pause), min(2*pause, mostPause)
				}
			}
		} else {
			s.refuseWaiting()
		}
		select {
		case <-ctx.Done():
		case <-s.wake:
		case <-time.After(wait):
		}
	}
}

// look prepares the engine and asks the repository what it holds. It says whether backups can be made.
func (s *store) look(ctx context.Context) bool {
	k := s.k
	err := s.engine.Prepare(ctx)
	if failed := k.Script(ctx); failed != nil && ctx.Err() == nil {
		err = errors.Join(err, failed)
	}
	var c Contents
	if err == nil {
		c, err = s.engine.Contents(ctx)
	}
	if ctx.Err() != nil {
		return false
	}
	s.raise("repository", err)
	s.countOwed()
	if err != nil {
		k.mu.Lock()
		late := Overdue(time.Now(), k.began, s.known())
		k.mu.Unlock()
		s.overdue(late)
		return false
	}
	k.mu.Lock()
	s.contents = &c
	k.mu.Unlock()
	s.overdue(Overdue(time.Now(), k.began, c))
	s.raise("untested", untested(time.Now(), s.lastTest(), c))
	k.forget(time.Now())
	return true
}

// known is what the repository held when it answered last; Keeper.mu is held.
func (s *store) known() Contents {
	if s.contents == nil {
		return Contents{}
	}
	return *s.contents
}

// expire removes what a shorter policy keeps no longer.
func (s *store) expire(ctx context.Context) {
	s.k.mu.Lock()
	shorter := s.shorter && s.k.retained == 0
	s.shorter = s.shorter && !shorter
	s.k.mu.Unlock()
	if !shorter {
		return
	}
	err := s.engine.Expire(ctx)
	s.raise("backup", err)
	if err == nil {
		s.look(ctx)
	}
}

func (s *store) overdue(late bool) {
	if !late {
		s.raise("overdue", nil)
		return
	}
	since := "since the agent began to care for the instance"
	s.k.mu.Lock()
	if last, ok := s.known().Last(); ok {
		since = "since " + last.Stop.Format(time.RFC3339)
	}
	s.k.mu.Unlock()
	s.raise("overdue", problem.New(problem.Resource, "backup_overdue", "there was no backup %s", since).
		WithHint("the other problems of the backups, and the agent's log, say why; twinspan backup now tries at once"))
}

// next says what is to be done now: what a person asked for before what is due. retry is the earliest time for the latter.
func (s *store) next(now, retry time.Time) (Task, bool) {
	s.k.mu.Lock()
	defer s.k.mu.Unlock()
	for _, t := range s.k.tasks {
		if t.Waiting && t.Repository == s.Number {
			return t, true
		}
	}
	if now.Before(retry) {
		return Task{}, false
	}
	if s.parted {
		return s.k.add(Task{Repository: s.Number, Kind: Making, Type: Full}), true
	}
	if kind, at := Due(now, s.known()); !now.Before(at) {
		return s.k.add(Task{Repository: s.Number, Kind: Making, Type: kind}), true
	}
	if at := VerifyDue(now, s.verified.At, s.known()); !now.Before(at) {
		return s.k.add(Task{Repository: s.Number, Kind: Verifying}), true
	}
	if at := ProveDue(now, s.tested.Tried, s.tested.Done, s.known()); s.k.Prove != nil && !now.Before(at) {
		return s.k.add(Task{Repository: s.Number, Kind: Testing}), true
	}
	return Task{}, false
}

// do does a task and says whether it succeeded.
func (s *store) do(ctx context.Context, t Task) bool {
	k := s.k
	t.Waiting, t.Began = false, time.Now().UTC()
	k.update(t)
	var err error
	switch t.Kind {
	case Verifying:
		var r Report
		if r, err = s.engine.Verify(ctx); err == nil {
			t.Report = &r
			err = s.found(verification{At: time.Now().UTC(), Report: r})
		}
	case Testing:
		t.Proof, err = s.test(ctx)
	default:
		k.Log.Info("backup begins", "type", t.Type, "repository", s.Place)
		k.mu.Lock()
		expire := k.retained == 0
		// What stays although it is old goes once nobody wants it.
		s.shorter = s.shorter || !expire
		k.mu.Unlock()
		err = k.explained(s.engine.Backup(ctx, t.Type, expire))
	}
	if ctx.Err() != nil {
		return false
	}
	t.Ended, t.Problem = time.Now().UTC(), problem.As(err)
	if err == nil {
		if c, err := s.engine.Contents(ctx); err == nil {
			k.mu.Lock()
			s.contents = &c
			s.parted = s.parted && t.Type != Full
			k.mu.Unlock()
		}
	}
	k.update(t)
	if t.Kind == Making {
		s.raise("backup", err)
	}
	k.Log.Info("ended", "task", t.Kind, "repository", s.Place, "took", t.Ended.Sub(t.Began).Round(time.Millisecond), "ok", err == nil)
	return err == nil
}

// refuseWaiting ends what waits with the reason for which nothing can be done.
func (s *store) refuseWaiting() {
	k := s.k
	k.mu.Lock()
	defer k.mu.Unlock()
	for i, t := range k.tasks {
		if p := s.problems["repository"]; t.Waiting && t.Repository == s.Number && p != nil {
			k.tasks[i].Waiting, k.tasks[i].Ended, k.tasks[i].Problem = false, time.Now().UTC(), p
		}
	}
}

// countOwed notes how much the repository has missed.
func (s *store) countOwed() {
	names, err := s.engine.Owed(false)
	if err != nil {
		s.raise("archive", err)
		return
	}
	s.k.mu.Lock()
	s.owed = len(names)
	s.k.mu.Unlock()
}

// heal brings the repository the log that it has missed, out of the others.
func (s *store) heal(ctx context.Context) {
	brought := map[string]bool{}
	bring := func(lift bool) (any bool, err error) {
		names, err := s.engine.Owed(lift)
		for _, name := range names {
			if err == nil && !brought[name] {
				err = s.bring(ctx, name)
				brought[name] = err == nil
			}
		}
		return len(names) > 0, err
	}
	// What is missed between the looks is there at the next.
	any, err := bring(false)
	if any && err == nil {
		if _, err = bring(true); err == nil {
			err = s.engine.Paid()
		}
	}
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		err = archiveFailing(problem.As(err), "the log does not get into this repository, and is brought to it from another when it does: ")
	}
	s.raise("archive", err)
	if any {
		s.countOwed()
	}
}

// segmentName is how long the name of a segment is; other files of the log are there for people, or of a timeline.
const segmentName = 24

// bring brings one file of the log out of another repository, or from the server. What is nowhere any more is not missed: the next
// backup begins behind it.
func (s *store) bring(ctx context.Context, name string) error {
	file := filepath.Join(s.dir, "run", name)
	defer os.Remove(file) // it is written over where it stays
	for _, other := range s.k.all() {
		if other == s {
			continue
		}
		if err := other.engine.Segment(ctx, name, file); err == nil {
			return s.engine.Push(ctx, file)
		} else if ctx.Err() != nil {
			return context.Cause(ctx)
		} else if problem.CodeOf(err) != "restore_log_missing" {
			s.k.Log.Info("a file of the log cannot be had from another repository", "file", name, "repository", other.Place, "err", err)
		}
	}
	err := s.engine.Check(ctx, name)
	switch p := problem.As(err); {
	case p == nil:
		return nil
	case p.Code != "backup_failed":
		return err
	case len(name) == segmentName:
		s.k.Log.Warn("a segment of the log is in no other repository any more: a full backup follows", "segment", name, "repository", s.Place)
		s.k.mu.Lock()
		s.parted = true
		s.k.mu.Unlock()
	}
	return nil
}

// with is a window and another, as long as they have moments in common; else the later one.
func (w Window) with(o Window) Window {
	switch {
	case w.From.IsZero():
		return o
	case o.From.IsZero():
		return w
	case w.Until.Before(o.From):
		return o
	case o.Until.Before(w.From):
		return w
	}
	return Window{slices.MinFunc([]time.Time{w.From, o.From}, time.Time.Compare), slices.MaxFunc([]time.Time{w.Until, o.Until}, time.Time.Compare)}
}
