package verify

import (
	"cmp"
	"fmt"
	"math/bits"
	"slices"
	"strconv"
	"strings"
)

const (
	// rowsOfBlock is about how many rows a block has that is not divided further.
	rowsOfBlock = 1024
	// mostBits bounds the blocks of a table at the first look, and so the memory that
	// adding them up takes.
	mostBits = 16
	// furtherBits is how far unequal blocks are divided at once.
	furtherBits = 6
	// lastBits is where dividing ends: what then is in one block has one key.
	lastBits = 48
)

// firstBits chooses into how many blocks, as a power of two, a table is divided.
func firstBits(rows int64) int {
	return min(mostBits, bits.Len64(uint64(max(0, rows-1)/rowsOfBlock)))
}

// unequalBlock is a block that differs, with the rows that it has on the side
// that has more.
type unequalBlock struct {
	number, rows int64
}

// unequal finds the blocks that differ, in the order of their numbers. A block
// that one side lacks has no rows there.
func unequal(primary, secondary []Block) []unequalBlock {
	others := make(map[int64]Block, len(secondary))
	for _, b := range secondary {
		others[b.Number] = b
	}
	var differ []unequalBlock
	for _, a := range primary {
		b := others[a.Number]
		delete(others, a.Number)
		if b.Number = a.Number; a != b {
			differ = append(differ, unequalBlock{a.Number, max(a.Rows, b.Rows)})
		}
	}
	for _, b := range others {
		differ = append(differ, unequalBlock{b.Number, b.Rows})
	}
	slices.SortFunc(differ, func(a, b unequalBlock) int { return cmp.Compare(a.number, b.number) })
	return differ
}

// totalRows adds up the rows of blocks.
func totalRows(blocks []Block) (rows int64) {
	for _, b := range blocks {
		rows += b.Rows
	}
	return rows
}

// State says how something differs on the secondary.
type State string

// The states.
const (
	Missing State = "missing" // the primary has it, the secondary does not
	Extra   State = "extra"   // the secondary has it, the primary does not
	Differs State = "differs" // both have it, not the same
)

// RowDifference is a row that differs. A row of a table without a key is known by
// its hash, and differs by the number of its copies.
type RowDifference struct {
	Key       []string
	Hash      string // of a row without a key
	State     State
	Primary   int // rows with the key, or copies of the row
	Secondary int
	Columns   []string // those that differ, when there is one row on each side
	// OnPrimary and OnSecondary are the values, in the order of the subject's
	// columns, when they were asked for.
	OnPrimary, OnSecondary []*string

	places, otherPlaces []string // of the rows, at the snapshots
	hash1, hash2        int64
	there               [2]int64 // hashes of the primary's row, where it has one with the key
}

// identity tells differences of a table apart.
func (d *RowDifference) identity() string { return d.Hash + "\x00" + strings.Join(d.Key, "\x00") }

// copies are the rows of one key, or equal rows.
type copies struct {
	key       []string
	primary   []Hashed
	secondary []Hashed
}

// differences compares the rows of the same blocks, in the order of their keys.
func differences(primary, secondary []Hashed, keyed bool) []RowDifference {
	all := map[string]*copies{}
	of := func(h *Hashed) *copies {
		id := ""
		if keyed {
			// Lengths, for a value may hold anything.
			for _, k := range h.Key {
				id += strconv.Itoa(len(k)) + ":" + k
			}
		} else {
			id = hashText(h)
		}
		c := all[id]
		if c == nil {
			c = &copies{key: h.Key}
			all[id] = c
		}
		return c
	}
	for i := range primary {
		c := of(&primary[i])
		c.primary = append(c.primary, primary[i])
	}
	for i := range secondary {
		c := of(&secondary[i])
		c.secondary = append(c.secondary, secondary[i])
	}
	var list []RowDifference
	for _, c := range all {
		if d, differs := c.compare(keyed); differs {
			list = append(list, d)
		}
	}
	slices.SortFunc(list, func(a, b RowDifference) int {
		return cmp.Or(slices.CompareFunc(a.Key, b.Key, compareKeys), cmp.Compare(a.Hash, b.Hash))
	})
	return list
}

// compare says whether and how the copies differ.
func (c *copies) compare(keyed bool) (d RowDifference, differs bool) {
	if !differ(c.primary, c.secondary) {
		return d, false
	}
	d = RowDifference{Key: c.key, State: Differs, Primary: len(c.primary), Secondary: len(c.secondary)}
	if len(c.primary) == 1 {
		d.there = [2]int64{c.primary[0].Hash1, c.primary[0].Hash2}
	}
	for _, h := range c.primary {
		d.places = append(d.places, h.Place)
	}
	for _, h := range c.secondary {
		d.otherPlaces = append(d.otherPlaces, h.Place)
	}
	switch {
	case len(c.secondary) == 0 || !keyed && len(c.primary) > len(c.secondary):
		d.State = Missing
	case len(c.primary) == 0 || !keyed:
		d.State = Extra
	}
	if !keyed {
		one := append(c.primary, c.secondary...)[0]
		d.Hash, d.hash1, d.hash2 = hashText(&one), one.Hash1, one.Hash2
	}
	return d, true
}

// differ says whether two lists hold other rows, whatever their order.
func differ(a, b []Hashed) bool {
	if len(a) != len(b) {
		return true
	}
	count := map[[2]int64]int{}
	for i := range a {
		count[[2]int64{a[i].Hash1, a[i].Hash2}]++
		count[[2]int64{b[i].Hash1, b[i].Hash2}]--
	}
	for _, n := range count {
		if n != 0 {
			return true
		}
	}
	return false
}

func hashText(h *Hashed) string { return fmt.Sprintf("%016x%016x", uint64(h.Hash1), uint64(h.Hash2)) }

// compareKeys orders numbers as numbers and all else by its bytes.
func compareKeys(a, b string) int {
	x, errX := strconv.ParseInt(a, 10, 64)
	y, errY := strconv.ParseInt(b, 10, 64)
	if errX == nil && errY == nil {
		return cmp.Compare(x, y)
	}
	return cmp.Compare(a, b)
}

// both keeps of the second list what is in the first, too. What is brought in passes
// counts only where the primary's row is what it was: a change of it is on its way.
func both(first, second []RowDifference, inPasses bool) []RowDifference {
	seen := map[string][2]int64{}
	for i := range first {
		seen[first[i].identity()] = first[i].there
	}
	return slices.DeleteFunc(second, func(d RowDifference) bool {
		there, have := seen[d.identity()]
		return !have || inPasses && there != d.there
	})
}
