package backup

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"strconv"
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
	Testing   TaskKind = "test"
)

// Keeper keeps an instance backed up, in each repository of its policy by itself: one that fails stops no other. Set the exported
// fields, then Run it; the other methods may be used from any goroutine.
type Keeper struct {
	// Engine makes the engine of the policy's repository with a number.
	Engine     func(number int) Engine
	Server     *pg.DSN // the instance, through its maintenance database
	Dir        string  // where the policy and the list of databases lie
	Repository string  // of the default policy; "" for one without any, which keeps nothing until somebody names a place
	// Handed says that another server of the instance may have led before this one: what of its log did not get into the repositories is
	// brought from here.
	Handed bool
	// Put puts a file in place whole.
	Put func(file string, text []byte) error
	// Script brings what archive_command calls up to date with the repositories.
	Script func(ctx context.Context) error
	// Prove restores a set of the policy's repository with a number on a temporary server, reads all of it, and removes it.
	Prove func(ctx context.Context, number int, set Set) (Proof, error)
	// Ready returns when the server accepts sessions.
	Ready func(ctx context.Context) error
	Log   *slog.Logger

	began   time.Time
	looking sync.Mutex // held while the databases are looked at and noted
	setting sync.Mutex // held while the policy is changed
	proving sync.Mutex // held while a backup is restored to prove it: one at a time, for each takes the room of the instance
	changed chan struct{}

	mu       sync.Mutex
	policy   Policy
	stores   []*store // of the policy, in its order
	problems problems // of the log
	tasks    []Task   // the running or waiting ones, and the last of each kind and repository
	number   int64
	retained int // how many want that nothing is removed: Retain
	databases
}

// Open reads what lies in the directory. It is called before Run, and may be called again when that has returned: then nothing is
// left of what was known before.
func (k *Keeper) Open() error {
	policy, err := LoadPolicy(k.policyFile(), k.Repository)
	if err != nil {
		return err
	}
	var stores []*store
	for _, r := range policy.Repositories {
		s := k.store(r)
		if err := errors.Join(s.openVerification(), s.openTest()); err != nil {
			return err
		}
		stores = append(stores, s)
	}
	list, listed, err := k.readDatabases()
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.changed == nil {
		k.changed = make(chan struct{}, 1)
	}
	k.began, k.problems, k.tasks = time.Now(), problems{}, nil
	k.policy, k.stores = policy, stores
	k.databases = databases{known: list, ready: listed, before: map[uint32]sightedAt{}}
	k.noteUnplaced()
	return nil
}

// Adopt takes the policy that lies in the directory, where another agent keeps the backups.
func (k *Keeper) Adopt() error {
	p, err := LoadPolicy(k.policyFile(), k.Repository)
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.policy = p
	return nil
}

// noteUnplaced says where nobody has named a place for the backups; k.mu is held.
func (k *Keeper) noteUnplaced() {
	var err error
	if len(k.policy.Repositories) == 0 {
		err = Unplaced()
	}
	k.problems.raise("place", err, k.Log)
}

// Unplaced is the problem of an instance of which nobody has said where its backups are kept.
func Unplaced() *problem.Error {
	return problem.New(problem.NotFound, "backup_place_missing", "nobody has said where the backups of the instance are to be kept, so there are none").
		WithHint("name a directory that all its hosts have, such as a network file system, or an object store: twinspan backup policy --repository PLACE")
}

// store makes what keeps a repository.
func (k *Keeper) store(r Repository) *store {
	s := &store{k: k, Repository: r, engine: k.Engine(r.Number), dir: k.Dir, wake: make(chan struct{}, 1), problems: problems{}}
	if r.Number != 1 {
		s.dir = filepath.Join(k.Dir, strconv.Itoa(r.Number))
	}
	return s
}

// Run keeps the instance backed up until ctx ends.
func (k *Keeper) Run(ctx context.Context) error {
	if err := k.Ready(ctx); err != nil {
		return nil // whoever runs the server says why
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { k.tend(ctx); return nil })
	group.Go(func() error { k.watch(ctx); return nil })
	return group.Wait()
}

// tend has each repository of the policy kept.
func (k *Keeper) tend(ctx context.Context) {
	var all sync.WaitGroup
	defer all.Wait()
	for {
		for _, s := range k.all() {
			k.mu.Lock()
			began := s.done != nil
			if !began && !s.left {
				s.done = make(chan struct{})
				working, stop := context.WithCancel(ctx)
				s.stop = stop
				all.Go(func() {
					defer close(s.done)
					s.work(working)
				})
			}
			k.mu.Unlock()
		}
		select {
		case <-ctx.Done():
			return
		case <-k.changed:
		}
	}
}

// all are the repositories of the policy.
func (k *Keeper) all() []*store {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.stores)
}

// Contents is what the repository with a number held when it answered last; none when it never did.
func (k *Keeper) Contents(number int) Contents {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, s := range k.stores {
		if s.Number == number {
			return s.known()
		}
	}
	return Contents{}
}

// check copies a segment of the log that the server could not get rid of. It fails with the reason of the first repository where
// none takes it.
func (k *Keeper) check(ctx context.Context, segment string) error {
	var first error
	for _, s := range k.all() {
		err := s.engine.Check(ctx, segment)
		if err == nil {
			return nil
		}
		if first == nil {
			first = err
		}
	}
	return first
}

// explained says of a backup that has waited for the log in vain why that does not come, where it is known.
func (k *Keeper) explained(err error) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if cause := k.problems["archive"]; cause != nil && problem.CodeOf(err) == "backup_log_late" {
		return archiveFailing(cause, "a backup needs the log, and ")
	}
	return err
}

// raise notes what is wrong with something that concerns all repositories, or, with nil, that nothing is any more.
func (k *Keeper) raise(about string, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.problems.raise(about, err, k.Log)
}

// State is what is known of the backups.
type State struct {
	Policy   Policy
	Stores   []StoreState // in the policy's order
	Known    bool         // whether each of them has answered
	Tasks    []Task
	Next     Kind // what is due next, at NextAt; "" while that is not known
	NextAt   time.Time
	Window   Window
	Problems []*problem.Error
}

// StoreState is what is known of one repository.
type StoreState struct {
	Repository
	Contents *Contents // nil while the repository has not answered
	Next     Kind      // what is due next, at NextAt
	NextAt   time.Time
	Window   Window
	Owed     int       // files of the log that it has missed, and that are brought to it from another
	Verified time.Time // when it was read as a whole last; zero for never
	Tested   time.Time // when one of its backups was last restored to prove it; zero for never
	Problems []*problem.Error
}

// State returns what is known, without asking anybody.
func (k *Keeper) State() State {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := State{Policy: k.policy, Known: true, Tasks: merged(k.tasks, len(k.stores) > 1)}
	now := time.Now()
	var seen []*problem.Error
	add := func(list []*problem.Error) {
		for _, p := range list {
			// One cause is met in several places.
			if !slices.ContainsFunc(seen, func(o *problem.Error) bool { return o.Code == p.Code && (o.Subject == p.Subject || len(k.stores) == 1) }) {
				out.Problems = append(out.Problems, p)
			}
			seen = append(seen, p)
		}
	}
	for _, s := range k.stores {
		one := StoreState{Repository: s.Repository, Contents: s.contents, Owed: s.owed, Verified: s.verified.At, Tested: s.tested.Done, Problems: s.problems.list()}
		if s.contents == nil {
			out.Known = false
		} else {
			one.Next, one.NextAt = Due(now, *s.contents)
			one.Window = Restorable(now, *s.contents, k.policy, s.archived())
			if out.Next == "" || one.NextAt.Before(out.NextAt) {
				out.Next, out.NextAt = one.Next, one.NextAt
			}
			out.Window = out.Window.with(one.Window)
		}
		out.Stores = append(out.Stores, one)
		add(one.Problems)
	}
	add(k.problems.list())
	return out
}

// SetPolicy changes the policy. A shorter retention, or a repository that is left out, makes moments unrestorable. Before what is
// new in it is used, and after what is left out is not used any more, it calls before.
func (k *Keeper) SetPolicy(p Policy, before func() error) error {
	if err := p.Validate(); err != nil {
		return err
	}
	text, err := policyText(p)
	if err != nil {
		return err
	}
	k.setting.Lock()
	defer k.setting.Unlock()
	if err := k.Put(k.policyFile(), text); err != nil {
		return err
	}
	k.mu.Lock()
	shorter := p.RetentionDays < k.policy.RetentionDays
	var stay, leave []*store
	for _, s := range k.stores {
		if p.Place(s.Number) == s.Place {
			stay = append(stay, s)
		} else {
			s.left = true
			leave = append(leave, s)
		}
	}
	k.policy, k.stores = p, stay
	k.noteUnplaced()
	k.tasks = slices.DeleteFunc(k.tasks, func(t Task) bool {
		return slices.ContainsFunc(leave, func(s *store) bool { return s.Number == t.Repository })
	})
	k.mu.Unlock()
	var failed error
	for _, s := range leave {
		failed = errors.Join(failed, s.leave())
	}
	if before != nil {
		failed = errors.Join(failed, before())
	}
	k.mu.Lock()
	k.stores = nil
	for _, r := range p.Repositories {
		i := slices.IndexFunc(stay, func(s *store) bool { return s.Number == r.Number })
		if i >= 0 {
			k.stores = append(k.stores, stay[i])
			stay[i].shorter = stay[i].shorter || shorter
		} else {
			k.stores = append(k.stores, k.store(r))
		}
	}
	k.mu.Unlock()
	nudge(k.changed)
	k.Nudge()
	return failed
}

// Nudge has all repositories looked at now.
func (k *Keeper) Nudge() {
	for _, s := range k.all() {
		nudge(s.wake)
	}
}

func nudge(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Policy returns the policy.
func (k *Keeper) Policy() Policy {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.policy
}
