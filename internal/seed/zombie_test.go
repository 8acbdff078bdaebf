package seed_test

import (
	"context"
	"testing"

	"github.com/twinspan/twinspan/internal/pgtest"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/seed"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// heldUp begins a copy and holds it up when the rows of the nth request have come, until
// release is closed.
func (w *twin) heldUp(nth int) (ended <-chan error, release chan struct{}) {
	w.t.Helper()
	reached, release := make(chan struct{}), make(chan struct{})
	w.tap.after = func(n int, _ seed.CopyRequest, rows int64, err error) (int64, error) {
		if n == nth {
			close(reached)
			<-release
		}
		return rows, err
	}
	result := make(chan error, 1)
	go func() {
		_, err := w.target.Copy(w.t.Context())
		result <- err
	}()
	select {
	case <-reached:
	case err := <-result:
		w.t.Fatalf("the former ended before: %v", err)
	}
	return result, release
}

// A former agent's worker has the rows of a chunk and is about to commit them,
// when another agent has already gone on to a later session.
func TestWhatAFormerAgentStillCopiesComesToNothing(t *testing.T) {
	w := sharedTwin(t, tables)
	w.remember()
	w.target.Workers = 1
	entered := make(chan struct{})
	former, release := w.heldUp(4)
	w.lose()

	later := *w.target
	later.Name = "another" // or the former's sessions would simply be ended
	later.Remote = &tap{Remote: keeping{w.source}, onBegin: w.tap.onBegin}
	later.Identity = func(ctx context.Context, tables []sqlname.Table) error {
		close(entered)
		return w.schema.BuildIdentity(ctx, tables)
	}
	type outcome struct {
		r   seed.Result
		err error
	}
	done := make(chan outcome, 1)
	go func() {
		r, err := later.Copy(t.Context())
		done <- outcome{r, err}
	}()
	select {
	case <-entered:
	case o := <-done:
		close(release)
		t.Fatalf("it ended before: %v", o.err)
	}
	close(release)
	wantProblem(t, <-former, "already_copied", "", problem.Transient)
	o := <-done
	if o.err != nil {
		t.Fatal(o.err)
	}
	w.check(o.r)
}

// A former agent's worker has all rows of a table that another agent has begun to copy in
// ranges: the first of these begins where the whole does, and has its number.
func TestWhatAFormerAgentCopiesWholeComesToNothing(t *testing.T) {
	w := sharedTwin(t, tables)
	w.target.Workers, w.target.ChunkBytes = 1, 1<<40
	asked := make(chan struct{})
	former, release := w.heldUp(1)
	later := *w.target
	later.Name, later.ChunkBytes = "another", 256<<10
	later.Remote = &tap{Remote: w.source, before: func(n int, _ seed.CopyRequest) error {
		if n == 1 {
			close(asked)
		}
		return nil
	}}
	done := make(chan error, 1)
	go func() {
		_, err := later.Copy(t.Context())
		done <- err
	}()
	select {
	case <-asked:
	case err := <-done:
		close(release)
		t.Fatalf("it ended before: %v", err)
	}
	close(release)
	wantProblem(t, <-former, "already_copied", "", problem.Transient)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	pgtest.Equal(t, w.from, w.to)
}

func TestASecondAgentEndsTheSessionsOfTheFirst(t *testing.T) {
	w := sharedTwin(t, tables)
	w.target.Workers = 1
	former, release := w.heldUp(4)
	later := *w.target
	later.Remote = w.source
	if _, err := later.Copy(t.Context()); err != nil {
		t.Fatal(err)
	}
	close(release)
	if err := <-former; !problem.Retry(err) {
		t.Errorf("the former says %v", err)
	}
}
