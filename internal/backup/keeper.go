package backup

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
)

const (
	// lookEvery is how often the keeper looks whether something is to be done, lookAgain where something is wrong.
	lookEvery = 30 * time.Second
	lookAgain = 5 * time.Second
	// A backup that failed is tried again after firstPause, and later after mostPause.
	firstPause = time.Minute
	mostPause  = time.Hour
)

// TaskKind says what is done.
type TaskKind string

// The kinds of tasks.
const (
	Making    TaskKind = "backup"
	Verifying TaskKind = "verify"
)

// Task is a backup or a verification: waiting, under way, or ended.
type Task struct {
	Number  int64
	Kind    TaskKind
	Type    Kind // of a backup
	Asked   bool // by a person; else it was due
	Began   time.Time
	Ended   time.Time // zero until then
	Waiting bool
	Problem *problem.Error // why it failed
	Report  *Report        // of a verification that was done
}

// Keeper keeps an instance backed up. Set the exported fields, then Run it; the other methods may be
// used from any goroutine.
type Keeper struct {
	Engine     Engine
	Server     *pg.DSN // the instance, through its maintenance database
	Dir        string  // where the policy and the list of databases lie
	Repository string  // of the default policy
	// Put puts a file in place whole.
	Put func(file string, text []byte) error
	// Ready returns when the server accepts sessions.
	Ready func(ctx context.Context) error
	Log   *slog.Logger

	began   time.Time
	wake    chan struct{}
	looking sync.Mutex // held while the databases are looked at and noted

	mu       sync.Mutex
	policy   Policy
	problems map[string]*problem.Error // by what they are about
	contents *Contents                 // nil until the repository answered
	tasks    []Task                    // the running or waiting ones, and the last of each kind
	number   int64
	verified verification // the last
	shorter  bool         // the policy keeps less than before
	retained int          // how many want that nothing is removed: Retain
	databases
}

// Open reads what lies in the directory. It is called before Run.
func (k *Keeper) Open() error {
	var err error
	k.began, k.wake, k.problems = time.Now(), make(chan struct{}, 1), map[string]*problem.Error{}
	if k.policy, err = LoadPolicy(k.policyFile(), k.Repository); err != nil {
		return err
	}
	if err = k.openVerification(); err != nil {
		return err
	}
	return k.openDatabases()
}

// Run keeps the instance backed up until ctx ends.
func (k *Keeper) Run(ctx context.Context) error {
	if err := k.Ready(ctx); err != nil {
		return nil // whoever runs the server says why
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { k.work(ctx); return nil })
	group.Go(func() error { k.watch(ctx); return nil })
	return group.Wait()
}

// work makes backups when they are due or asked for.
func (k *Keeper) work(ctx context.Context) {
	var retry time.Time
	pause := firstPause
	for ctx.Err() == nil {
		wait := lookAgain
		if k.look(ctx) {
			wait = lookEvery
			k.expire(ctx)
			if task, due := k.next(time.Now(), retry); due {
				wait = 0
				if k.do(ctx, task) || task.Asked {
					retry, pause = time.Time{}, firstPause
				} else {
					retry, pause = time.Now().Add(pause), min(2*pause, mostPause)
				}
			}
		} else {
			k.refuseWaiting()
		}
		select {
		case <-ctx.Done():
		case <-k.wake:
		case <-time.After(wait):
		}
	}
}

// look prepares the engine and asks the repository what it holds. It says whether backups can be made.
func (k *Keeper) look(ctx context.Context) bool {
	err := k.Engine.Prepare(ctx)
	var c Contents
	if err == nil {
		c, err = k.Engine.Contents(ctx)
	}
	if ctx.Err() != nil {
		return false
	}
	k.raise("repository", err)
	if err != nil {
		k.mu.Lock()
		late := Overdue(time.Now(), k.began, k.known())
		k.mu.Unlock()
		k.overdue(late)
		return false
	}
	k.mu.Lock()
	k.contents = &c
	k.mu.Unlock()
	k.overdue(Overdue(time.Now(), k.began, c))
	k.forget(time.Now(), c)
	return true
}

// known is what the repository held when it answered last; k.mu is held.
func (k *Keeper) known() Contents {
	if k.contents == nil {
		return Contents{}
	}
	return *k.contents
}

// expire removes what a shorter policy keeps no longer.
func (k *Keeper) expire(ctx context.Context) {
	k.mu.Lock()
	shorter := k.shorter && k.retained == 0
	k.shorter = k.shorter && !shorter
	k.mu.Unlock()
	if !shorter {
		return
	}
	err := k.Engine.Expire(ctx)
	k.raise("backup", err)
	if err == nil {
		k.look(ctx)
	}
}

func (k *Keeper) overdue(late bool) {
	if !late {
		k.raise("overdue", nil)
		return
	}
	since := "since the agent began to care for the instance"
	k.mu.Lock()
	if last, ok := k.known().Last(); ok {
		since = "since " + last.Stop.Format(time.RFC3339)
	}
	k.mu.Unlock()
	k.raise("overdue", problem.New(problem.Resource, "backup_overdue", "there was no backup %s", since).
		WithHint("the other problems of the backups, and the agent's log, say why; twinspan backup now tries at once"))
}

// next says what is to be done now: what a person asked for before what is due. retry is the earliest time for the latter.
func (k *Keeper) next(now, retry time.Time) (Task, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, t := range k.tasks {
		if t.Waiting {
			return t, true
		}
	}
	if now.Before(retry) {
		return Task{}, false
	}
	if kind, at := Due(now, k.known()); !now.Before(at) {
		return k.add(Task{Kind: Making, Type: kind}), true
	}
	if at := VerifyDue(now, k.verified.At, k.known()); !now.Before(at) {
		return k.add(Task{Kind: Verifying}), true
	}
	return Task{}, false
}

// add gives a task its number; k.mu is held. Of tasks that have ended the last of each kind is kept.
func (k *Keeper) add(t Task) Task {
	k.number++
	t.Number, t.Began = k.number, time.Now().UTC()
	k.tasks = slices.DeleteFunc(k.tasks, func(old Task) bool { return old.Kind == t.Kind && !old.Ended.IsZero() })
	k.tasks = append(k.tasks, t)
	return t
}

// do does a task and says whether it succeeded.
func (k *Keeper) do(ctx context.Context, t Task) bool {
	t.Waiting, t.Began = false, time.Now().UTC()
	k.update(t)
	var err error
	if t.Kind == Verifying {
		var r Report
		if r, err = k.Engine.Verify(ctx); err == nil {
			t.Report = &r
			err = k.found(verification{At: time.Now().UTC(), Report: r})
		}
	} else {
		k.Log.Info("backup begins", "type", t.Type)
		k.mu.Lock()
		expire := k.retained == 0
		// What stays although it is old goes once nobody wants it.
		k.shorter = k.shorter || !expire
		k.mu.Unlock()
		err = k.Engine.Backup(ctx, t.Type, expire)
	}
	if ctx.Err() != nil {
		return false
	}
	t.Ended, t.Problem = time.Now().UTC(), problem.As(err)
	if err == nil {
		if c, err := k.Engine.Contents(ctx); err == nil {
			k.mu.Lock()
			k.contents = &c
			k.mu.Unlock()
		}
	}
	k.update(t)
	if t.Kind == Making {
		k.raise("backup", err)
	}
	k.Log.Info("ended", "task", t.Kind, "took", t.Ended.Sub(t.Began).Round(time.Millisecond), "ok", err == nil)
	return err == nil
}

func (k *Keeper) update(t Task) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if i := slices.IndexFunc(k.tasks, func(old Task) bool { return old.Number == t.Number }); i >= 0 {
		k.tasks[i] = t
	}
}

// refuseWaiting ends what waits with the reason for which nothing can be done.
func (k *Keeper) refuseWaiting() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for i, t := range k.tasks {
		if t.Waiting && k.problems["repository"] != nil {
			k.tasks[i].Waiting, k.tasks[i].Ended, k.tasks[i].Problem = false, time.Now().UTC(), k.problems["repository"]
		}
	}
}

// Begin asks for a backup or a verification and returns at once. It is done when what is under way has ended.
func (k *Keeper) Begin(kind TaskKind, of Kind) (Task, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, t := range k.tasks {
		if t.Waiting {
			return Task{}, problem.New(problem.Conflict, "backup_busy", "a %s waits already", t.Kind).WithHint("wait until it has ended")
		}
	}
	t := k.add(Task{Kind: kind, Type: of, Asked: true, Waiting: true})
	k.nudge()
	return t, nil
}

func (k *Keeper) nudge() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// Task returns a task by its number, which is forgotten when a newer one of its kind was begun.
func (k *Keeper) Task(number int64) (Task, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, t := range k.tasks {
		if t.Number == number {
			return t, nil
		}
	}
	return Task{}, problem.New(problem.NotFound, "backup_task_unknown", "there is no backup or verification with the number %d", number).
		WithHint("twinspan backup list shows the backups that there are")
}

// raise notes what is wrong with something, or, with nil, that nothing is any more.
func (k *Keeper) raise(about string, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	old := k.problems[about]
	if err == nil {
		if old != nil {
			k.Log.Info("backups: solved", "code", old.Code)
		}
		delete(k.problems, about)
		return
	}
	p := problem.As(err)
	if p.Kind == problem.Cancelled {
		return
	}
	if old == nil || old.Code != p.Code || old.Error() != p.Error() {
		k.Log.Error("backups", "code", p.Code, "error", p, "hint", p.Hint)
	}
	k.problems[about] = p
}

// State is what is known of the backups.
type State struct {
	Policy   Policy
	Contents *Contents // nil while the repository has not answered
	Tasks    []Task
	Next     Kind // what is due next, at NextAt
	NextAt   time.Time
	Window   Window
	Problems []*problem.Error
}

// State returns what is known, without asking anybody.
func (k *Keeper) State() State {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := State{Policy: k.policy, Contents: k.contents, Tasks: slices.Clone(k.tasks)}
	seen := map[string]bool{}
	for _, about := range slices.Sorted(maps.Keys(k.problems)) {
		p := k.problems[about]
		if !seen[p.Code] { // one cause is met in several places
			s.Problems = append(s.Problems, p)
		}
		seen[p.Code] = true
	}
	if k.contents != nil {
		now := time.Now()
		s.Next, s.NextAt = Due(now, *k.contents)
		s.Window = Restorable(now, *k.contents, k.policy, k.archived())
	}
	return s
}

// SetPolicy changes the policy. A shorter retention, or another repository, makes moments unrestorable.
func (k *Keeper) SetPolicy(p Policy) error {
	if err := p.Validate(); err != nil {
		return err
	}
	text, err := policyText(p)
	if err != nil {
		return err
	}
	if err := k.Put(k.policyFile(), text); err != nil {
		return err
	}
	k.mu.Lock()
	moved := k.policy.Repository != p.Repository
	k.shorter = k.shorter || p.RetentionDays < k.policy.RetentionDays
	k.policy = p
	if moved {
		k.contents = nil
	}
	k.mu.Unlock()
	k.nudge()
	if moved { // what was found is of the former repository
		return k.found(verification{})
	}
	return nil
}

// Policy returns the policy.
func (k *Keeper) Policy() Policy {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.policy
}
