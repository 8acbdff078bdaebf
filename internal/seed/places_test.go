package seed_test

import (
	"fmt"
	"io"
	"sync"
	"testing"

	"github.com/twinspan/twinspan/internal/pgtest"
	"github.com/twinspan/twinspan/internal/seed"
	"github.com/twinspan/twinspan/internal/turns"
)

// While the workers of other links hold all that is shared, a link copies with the one
// that is its own, and its other workers do not keep it from ending.
func TestCopyWithItsOwnPlaceAlone(t *testing.T) {
	t.Parallel()
	var tables []string
	for i := range 12 {
		tables = append(tables, fmt.Sprintf(`CREATE TABLE t%d AS SELECT i FROM generate_series(1, 1000) i`, i))
	}
	w := sharedTwin(t, tables...)
	w.target.Workers, w.target.Places = 4, turns.New(1)
	for range 2 { // its own, and the shared one
		if _, err := w.target.Places.Take(t.Context(), "another link"); err != nil {
			t.Fatal(err)
		}
	}
	var mu sync.Mutex
	now, most := 0, 0
	w.tap.wrap = func(_ int, out io.Writer) io.Writer {
		mu.Lock()
		defer mu.Unlock()
		now++
		most = max(most, now)
		return out
	}
	w.tap.after = func(_ int, _ seed.CopyRequest, rows int64, err error) (int64, error) {
		mu.Lock()
		defer mu.Unlock()
		now--
		return rows, err
	}
	w.copy()
	if most != 1 || now != 0 {
		t.Errorf("%d tables were copied at once, %d are still", most, now)
	}
	pgtest.Equal(t, w.from, w.to)
}
