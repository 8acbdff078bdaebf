package backup

import (
	"fmt"
	"slices"
	"time"

	"github.com/twinspan/twinspan/internal/problem"
)

// Task is a backup, a verification or a test restore: waiting, under way, or ended. What a person asks for has a part for each repository.
type Task struct {
	Number     int64
	Repository int // its number; of several parts 0
	Kind       TaskKind
	Type       Kind // of a backup
	Asked      bool // by a person; else it was due
	Began      time.Time
	Ended      time.Time // zero until then
	Waiting    bool
	Problem    *problem.Error // why it failed
	Report     *Report        // of a verification that was done
	Proof      *Proof         // of a test restore that was done
	Parts      []Task         // of the repositories, where there are several
}

// merged joins the parts of each task. With several repositories the findings say where they are.
func merged(parts []Task, several bool) []Task {
	var all []Task
	for _, part := range parts {
		i := slices.IndexFunc(all, func(t Task) bool { return t.Number == part.Number })
		if i < 0 {
			t := part
			t.Parts = []Task{part}
			all = append(all, t)
			continue
		}
		t := &all[i]
		t.Parts = append(t.Parts, part)
		t.Repository = 0
		if part.Began.Before(t.Began) {
			t.Began = part.Began
		}
		switch {
		case t.Ended.IsZero() || part.Ended.IsZero():
			t.Ended = time.Time{}
		case part.Ended.After(t.Ended):
			t.Ended = part.Ended
		}
		t.Waiting = t.Waiting && part.Waiting
		if t.Problem == nil {
			t.Problem = part.Problem
		}
		if part.Report != nil {
			sum := *part.Report
			if r := t.Report; r != nil {
				sum = Report{Sets: r.Sets + sum.Sets, Segments: r.Segments + sum.Segments, Findings: slices.Concat(r.Findings, sum.Findings)}
			}
			t.Report = &sum
		}
		if t.Proof == nil {
			t.Proof = part.Proof
		}
	}
	for i := range all {
		if !several && len(all[i].Parts) == 1 {
			all[i].Parts = nil
		}
	}
	return all
}

// add gives a task its number, unless it has one; k.mu is held. Of the tasks of a repository that have ended the last of each kind is
// kept.
func (k *Keeper) add(t Task) Task {
	if t.Number == 0 {
		k.number++
		t.Number = k.number
	}
	t.Began = time.Now().UTC()
	k.tasks = slices.DeleteFunc(k.tasks, func(old Task) bool {
		return old.Kind == t.Kind && old.Repository == t.Repository && !old.Ended.IsZero()
	})
	k.tasks = append(k.tasks, t)
	return t
}

func (k *Keeper) update(t Task) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if i := slices.IndexFunc(k.tasks, func(old Task) bool { return old.Number == t.Number && old.Repository == t.Repository }); i >= 0 {
		k.tasks[i] = t
	}
}

// Begin asks for a backup, a verification or a test restore in all repositories and returns at once. It is done when what is under way has ended.
func (k *Keeper) Begin(kind TaskKind, of Kind) (Task, error) {
	defer k.Nudge()
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, t := range k.tasks {
		if t.Waiting {
			return Task{}, problem.New(problem.Conflict, "backup_busy", "a %s waits already", t.Kind).WithHint("wait until it has ended")
		}
	}
	if len(k.stores) == 0 {
		return Task{}, Unplaced()
	}
	t := Task{Kind: kind, Type: of, Asked: true, Waiting: true}
	for _, s := range k.stores {
		t.Repository = s.Number
		t = k.add(t)
	}
	return k.task(t.Number)
}

// Task returns a task by its number, which is forgotten when a newer one of its kind was begun.
func (k *Keeper) Task(number int64) (Task, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.task(number)
}

func (k *Keeper) task(number int64) (Task, error) {
	for _, t := range merged(k.tasks, len(k.stores) > 1) {
		if t.Number == number {
			return t, nil
		}
	}
	return Task{}, problem.New(problem.NotFound, "backup_task_unknown", "there is no backup or verification with the number %d", number).
		WithHint("twinspan backup list shows the backups that there are")
}

// Failed says in which repositories a task failed, of how many, for people; "" where it did in none, or has one alone.
func (t Task) Failed() string {
	n := 0
	for _, p := range t.Parts {
		if p.Problem != nil {
			n++
		}
	}
	if n == 0 || len(t.Parts) < 2 {
		return ""
	}
	return fmt.Sprintf("in %d of %d repositories", n, len(t.Parts))
}
