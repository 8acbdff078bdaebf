package link

import (
	"cmp"

	"github.com/twinspan/twinspan/internal/seed"
	"github.com/twinspan/twinspan/internal/turns"
)

// NewSeeders returns the places that the first copies of an agent's links share beyond
// the first worker of each: enough for two links at once. workers is how many chunks of a
// link are copied at once, 0 for what a link chooses.
func NewSeeders(workers int) *turns.Pool {
	return turns.New(2 * (cmp.Or(workers, seed.DefaultWorkers()) - 1))
}
