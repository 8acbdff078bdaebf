package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/terminal"
)

// reading is how far work has come that reads the tables of a database.
type reading struct {
	Of, Step              string
	TablesDone, Tables    int
	BytesDone, BytesTotal int64
}

func (r reading) soFar() string {
	return fmt.Sprintf("%d/%d tables, %s of %s", r.TablesDone, r.Tables, terminal.Size(min(r.BytesDone, r.BytesTotal)), terminal.Size(r.BytesTotal))
}

// readingShower returns what shows progress: a block that is redrawn on a terminal, lines
// elsewhere.
func (a *app) readingShower() func(reading) {
	if s := terminal.Of(a.errs); s != nil {
		return func(r reading) {
			block := []string{r.Of + ": " + r.Step}
			if r.BytesTotal > 0 {
				block = append(block, fmt.Sprintf("  %s %s", terminal.Bar(r.BytesDone, r.BytesTotal, 40), r.soFar()))
			}
			s.Draw(block)
		}
	}
	last := ""
	return func(r reading) {
		const tenth = 10
		done := int64(0)
		if r.BytesTotal > 0 {
			done = min(tenth, r.BytesDone*tenth/r.BytesTotal)
		}
		if now := fmt.Sprint(r.Step, done); now != last {
			last = now
			line := r.Of + ": " + r.Step
			if r.BytesTotal > 0 {
				line += ", " + r.soFar()
			}
			fmt.Fprintln(a.errs, line)
		}
	}
}

// cancelPatience is how long an interrupted command waits for the end.
const cancelPatience = 10 * time.Second

// followed is work of an agent that reads the tables of a database, as T describes it.
type followed[T any] struct {
	running   func(T) bool
	shown     func(T) reading
	look      func(ctx context.Context) (T, error)
	lost      func(error) error // says of an error of look what follows from it
	cancel    func(ctx context.Context) error
	cancelled string
}

// follow shows how far work is until it is over, and returns what it was then. An interrupt cancels it.
func follow[T any](ctx context.Context, a *app, v T, f followed[T]) (T, error) {
	show := a.readingShower()
	tick := time.NewTicker(a.deps.Poll)
	defer tick.Stop()
	for f.running(v) {
		show(f.shown(v))
		select {
		case <-ctx.Done():
			ending, stop := context.WithTimeout(context.WithoutCancel(ctx), cancelPatience)
			defer stop()
			if err := f.cancel(ending); err != nil {
				return v, err
			}
			return v, problem.New(problem.Cancelled, "interrupted", "%s", f.cancelled).WithHint("with --no-wait it goes on without the command")
		case <-tick.C:
		}
		now, err := f.look(ctx)
		switch {
		case err == nil:
			v = now
		case ctx.Err() == nil: // otherwise the next round sees it
			return v, f.lost(err)
		}
	}
	return v, nil
}
