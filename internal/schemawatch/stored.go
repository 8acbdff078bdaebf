package schemawatch

import (
	"context"
	"reflect"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/drift"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/verify"
)

// The problems that an operator can accept, by their codes.
const (
	Drifted   = "schema_drifted"
	SinceCopy = "schema_differs_since_copy"
)

// State returns what is stored.
func (w *Watch) State(ctx context.Context) (catalog.Watch, error) {
	w.changing.Lock()
	defer w.changing.Unlock()
	return w.load(ctx)
}

// Counts returns what says whether a difference of the schemas is one, by what is stored.
func (w *Watch) Counts(ctx context.Context) (func(verify.SchemaDifference) bool, error) {
	stored, err := w.State(ctx)
	return func(d verify.SchemaDifference) bool { return drift.Weigh(d, stored) >= drift.Mends }, err
}

// load reads what is stored, unless it was read before. changing is held.
func (w *Watch) load(ctx context.Context) (stored catalog.Watch, err error) {
	w.mu.Lock()
	stored, loaded := w.stored, w.loaded
	w.mu.Unlock()
	if loaded {
		return stored, nil
	}
	err = w.side.Session.Do(ctx, func(ctx context.Context, conn *pgx.Conn) (err error) {
		stored, err = catalog.GetWatch(ctx, conn, w.side.ID())
		return err
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stored, w.loaded = stored, err == nil
	return stored, err
}

// change changes what is stored.
func (w *Watch) change(ctx context.Context, f func(stored *catalog.Watch)) error {
	w.changing.Lock()
	defer w.changing.Unlock()
	before, err := w.load(ctx)
	if err != nil {
		return err
	}
	next := before
	next.Known, next.Found = slices.Clone(next.Known), slices.Clone(next.Found)
	f(&next)
	if reflect.DeepEqual(next, before) {
		return nil
	}
	err = w.side.Session.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		return catalog.StoreWatch(ctx, conn, w.side.ID(), next)
	})
	if err == nil {
		w.mu.Lock()
		w.stored = next
		w.mu.Unlock()
	}
	return err
}

// Accept lets the differences be that a problem is about, which is Drifted or SinceCopy.
func (w *Watch) Accept(ctx context.Context, code string) error {
	accepted := 0
	err := w.change(ctx, func(stored *catalog.Watch) {
		if code == Drifted {
			for _, d := range stored.Found {
				d.Accepted = true
				stored.Known = append(stored.Known, d)
				accepted++
			}
			stored.Found = nil
			return
		}
		for i := range stored.Known {
			if !stored.Known[i].Accepted {
				stored.Known[i].Accepted = true
				accepted++
			}
		}
	})
	if err != nil {
		return err
	}
	if accepted == 0 {
		return problem.New(problem.NotFound, "nothing_to_accept", "the link knows of no difference that %s is about", code).On(code).
			WithHint("twinspan link show %s says what is wrong", w.side.Name())
	}
	w.showKnown()
	return nil
}
