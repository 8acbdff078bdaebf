package backup

import (
	"context"
	"errors"
	"path/filepath"
	"time"

	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/problem"
)

// Proof is what a test restore has brought back and read.
type Proof struct {
	Set       string    `json:"set"`   // its label
	Until     time.Time `json:"until"` // the moment to which the log was recovered
	Position  lsn.LSN   `json:"position"`
	Databases int       `json:"databases"`
	Tables    int       `json:"tables"`
	Rows      int64     `json:"rows"`
}

// test is the last test restore, and why it failed. It lies in a file: what failed stays a problem when the agent starts anew, and an agent that is
// started every day has to test, too.
type test struct {
	Tried  time.Time `json:"tried"`
	Done   time.Time `json:"done"` // the last that succeeded
	Failed string    `json:"failed,omitempty"`
	Hint   string    `json:"hint,omitempty"`
}

func (s *store) testFile() string { return filepath.Join(s.dir, "tested.json") }

// openTest reads the last test. A file that is broken counts as none: the next one writes it anew.
func (s *store) openTest() error {
	last, found, err := recall[test](s.testFile(), "test")
	if found {
		s.tested = last
		s.raise("test", last.problem())
	}
	return err
}

func (t test) problem() error {
	if t.Failed == "" {
		return nil
	}
	return problem.New(problem.Diverged, "backup_test_failed", "the newest backup could not be restored for a test: %s", t.Failed).WithHint("%s", t.Hint)
}

// lastTest is when a backup of the repository was last proved.
func (s *store) lastTest() time.Time {
	s.k.mu.Lock()
	defer s.k.mu.Unlock()
	return s.tested.Done
}

// test restores the newest set to prove it.
func (s *store) test(ctx context.Context) (*Proof, error) {
	k := s.k
	k.proving.Lock()
	defer k.proving.Unlock()
	release := k.Retain()
	defer release()
	k.mu.Lock()
	set, ok := s.known().Last()
	last := s.tested
	k.mu.Unlock()
	if !ok {
		return nil, problem.New(problem.NotFound, "restore_no_backup", "there is no backup yet that could be restored").On(s.Place).
			WithHint("twinspan backup list says when the first is due, and what is wrong")
	}
	expected, err := s.expected(ctx)
	var proof Proof
	if err == nil {
		proof, err = k.Prove(ctx, s.Number, set)
	}
	if err == nil {
		err = expected.missing(proof.Position)
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	last.Tried, last.Failed, last.Hint = time.Now().UTC(), "", ""
	if p := problem.As(err); p != nil {
		last.Failed, last.Hint = p.Error(), p.Hint
		err = last.problem()
	} else {
		last.Done = last.Tried
	}
	k.mu.Lock()
	s.tested = last
	k.mu.Unlock()
	s.raise("test", last.problem())
	if err == nil {
		s.raise("untested", nil)
	}
	failed := s.keep(s.testFile(), "test", last)
	if err != nil || failed != nil {
		return nil, errors.Join(err, failed)
	}
	return &proof, nil
}

// expected is the log that has to be in a repository.
type expected struct {
	segments []string // that are there, in order
	last     string   // the segment of a commit that has to be there; "" where none is known
}

// expected says what has to be in the repository by now. Nothing has where it is known to miss some, and is brought it.
func (s *store) expected(ctx context.Context) (e expected, err error) {
	s.k.mu.Lock()
	e.last = s.k.pulse.last
	s.k.mu.Unlock()
	// Behind: what was missed up to that commit is owed by now.
	owed, err := s.engine.Owed(false)
	if err != nil || len(owed) > 0 || s.k.Handed && !s.followed {
		return expected{}, err
	}
	e.segments, err = s.engine.Segments(ctx)
	return e, err
}

// missing is the problem of log that ends too early for a recovery that has reached a position: the
// server takes a hole for the end. nil where that is not so.
func (e expected) missing(reached lsn.LSN) error {
	if reached == 0 {
		return nil
	}
	line := Newest(e.segments)
	at := Segment{Number: uint64(reached-1) / segmentSize} // the last that was read
	// The last of the newest timeline: what others have behind it was given up.
	newest := 0
	for i, s := range line {
		if s.Number == at.Number {
			at = s
		}
		if s.Timeline >= line[newest].Timeline {
			newest = i
		}
	}
	before := at
	for i, s := range line {
		if i > newest || s.Number <= at.Number {
			continue
		}
		if s.Number > before.Number+1 || s.Timeline < before.Timeline {
			return endsEarly(at, Segment{before.Timeline, before.Number + 1})
		}
		before = s
	}
	if last, ok := ParseSegment(e.last); ok && last.Number > at.Number {
		return endsEarly(at, Segment{last.Timeline, at.Number + 1})
	}
	return nil
}

func endsEarly(at, next Segment) error {
	// Where a segment is missing, its timeline is not known.
	at.Timeline, next.Timeline = max(at.Timeline, 1), max(next.Timeline, 1)
	return problem.New(problem.Diverged, "restore_log_missing",
		"the recovery ended with the segment %s of the log: %s is missing, or cannot be read", at, next).On(next.String()).
		WithHint("make a full backup now (twinspan backup now --type full): " +
			"what was committed behind that segment cannot be restored from the backups before it")
}

// untested is the problem of a repository of which no backup was proved for too long; nil where that is not so.
func untested(now, done time.Time, c Contents) error {
	due := ProveDue(now, done, done, c)
	if now.Sub(due) <= untestedAfter {
		return nil
	}
	since := "yet"
	if !done.IsZero() {
		since = "since " + done.UTC().Format(time.RFC3339)
	}
	return problem.New(problem.Resource, "backup_untested", "no backup was restored for a test %s", since).
		WithHint("the agent's log says why; twinspan backup test does it now")
}
