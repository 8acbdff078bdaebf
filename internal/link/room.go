package link

import (
	"cmp"

	"github.com/twinspan/twinspan/internal/seed"
	"github.com/twinspan/twinspan/internal/turns"
)

const (
	// linksMemory is about what the changes that wait and are being applied may take, of
	// all links of an agent together.
	linksMemory = 192 << 20
	// mostMemory is what one link may take of it, leastMemory what it always may.
	mostMemory  = 24 << 20
	leastMemory = 3 << 20
)

// NewSeeders returns the places that the first copies of an agent's links share beyond
// the first worker of each: enough for two links at once. workers is how many chunks of a
// link are copied at once, 0 for what a link chooses.
func NewSeeders(workers int) *turns.Pool {
	return turns.New(2 * (cmp.Or(workers, seed.DefaultWorkers()) - 1))
}

// room divides the memory for changes by the links of an agent: a third is for items that
// wait for the applier, the rest for what it groups.
func room(links int) (items, bytes int) {
	share := min(mostMemory, max(leastMemory, linksMemory/max(1, links)))
	items = share / 3 / itemSize
	return items, share - items*itemSize
}
