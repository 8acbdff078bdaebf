package flow

const (
	// linksMemory is about what the changes that wait and are being applied may take, of
	// all links of an agent together.
	linksMemory = 192 << 20
	// mostMemory is what one link may take of it, leastMemory what it always may.
	mostMemory  = 24 << 20
	leastMemory = 3 << 20
)

// Room divides the memory for changes by the links of an agent: a third is for items that
// wait for the applier, the rest, in bytes, for what it groups.
func Room(links int) (items, bytes int) {
	share := min(mostMemory, max(leastMemory, linksMemory/max(1, links)))
	items = share / 3 / itemSize
	return items, share - items*itemSize
}
