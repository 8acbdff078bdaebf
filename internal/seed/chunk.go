package seed

import (
	"cmp"
	"slices"

	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// session is a seeding session as the secondary remembers it. They are counted
// from 1.
type session struct {
	number int
	Begun
}

// table is a table of the plan with its chunks.
type table struct {
	Table
	chunks []*chunk
}

// chunk is a range of a table's blocks.
type chunk struct {
	number int
	first  int64 // block
	end    int64 // block behind the last; 0 for no end
	bytes  int64 // estimated
	from   int   // the session in which its rows were first copied; 0 for none
	at     int   // the session whose rows it has; 0 for none
}

// Bounds of a chunk's size when none is asked for: small enough that little is
// done again after an interruption, large enough to cost nothing by itself.
const (
	minChunk = 64 << 20
	maxChunk = 256 << 20
)

// chunkBytes chooses the size of chunks so that all workers stay busy to the end.
func chunkBytes(total int64, workers int) int64 {
	return min(max(total/int64(workers*8), minChunk), maxChunk)
}

// wholeBytes is the most that is copied as a whole.
const wholeBytes = 1 << 30

// wholeTable chooses the size up to which a table is copied as a whole: reading it all
// costs the source a third less than reading ranges of it, and the target can freeze its
// rows. It must not keep one worker busy when the others have nothing left.
func wholeTable(total int64, workers int) int64 {
	share := total / int64(workers)
	return min(share+share/4, wholeBytes)
}

// divide cuts a table that is larger than whole into chunks of about the size. The first
// begins at block 0 and the last has no end, so that together they are the whole table,
// whatever its size was at the planning.
func divide(t *Table, size, whole int64) []*chunk {
	if !t.Ranges || t.Blocks < 2 || t.Bytes < max(size+size/2, whole) {
		return []*chunk{{bytes: t.Bytes}}
	}
	step := max(1, int64(float64(t.Blocks)*float64(size)/float64(t.Bytes)))
	var chunks []*chunk
	for first := int64(0); first < t.Blocks; first += step {
		blocks := min(step, t.Blocks-first)
		chunks = append(chunks, &chunk{
			number: len(chunks), first: first, end: first + step,
			bytes: int64(float64(t.Bytes) * float64(blocks) / float64(t.Blocks)),
		})
	}
	chunks[len(chunks)-1].end = 0
	return chunks
}

// started says whether any chunk has rows.
func (t *table) started() bool {
	return slices.ContainsFunc(t.chunks, func(c *chunk) bool { return c.at > 0 })
}

// complete says whether all chunks have the rows of one session.
func (t *table) complete() bool {
	return t.chunks[0].at > 0 && !slices.ContainsFunc(t.chunks, func(c *chunk) bool { return c.at != t.chunks[0].at })
}

// merging says whether the table has rows of a session before the given one.
func (t *table) merging(now int) bool {
	return slices.ContainsFunc(t.chunks, func(c *chunk) bool { return c.from > 0 && c.from < now })
}

// fate is what becomes of a table when a session is lost and another begins.
type fate string

const (
	keep    fate = "keep"    // it is complete
	plan    fate = "plan"    // nothing is copied: it is copied at the new session
	resume  fate = "resume"  // what is copied stays; what changed in it is copied again
	restart fate = "restart" // what is copied is thrown away
	gone    fate = "gone"    // it is no more, or another one
)

// horizon is how many transactions may lie between a chunk's session and a later
// one: beyond it, the age of a row is no longer told by its xmin.
const horizon = 1 << 31

// decide says what becomes of a table. now is the table at the new session; nil
// when it is not there. xmin is the new session's, of the numbered ones that of
// each session before.
func (t *table) decide(now *Table, xmin uint64, sessions []session) fate {
	switch {
	case t.complete():
		return keep
	case now == nil || now.Name != t.Name || !slices.Equal(now.Columns, t.Columns):
		return gone
	case !t.started():
		return plan
	case now.Filenode != t.Filenode || len(now.Key) == 0 || !slices.Equal(now.Key, t.Key):
		return restart
	}
	for _, c := range t.chunks {
		if c.at > 0 && xmin-sessions[c.at-1].Xmin >= horizon {
			return restart
		}
	}
	return resume
}

// job is one chunk to copy.
type job struct {
	table *table
	chunk *chunk
	merge bool // over rows of earlier sessions
}

// jobs lists what is left to do at a session: the chunks of the largest tables
// first, in order, so that no large one is left at the end.
func jobs(tables []*table, now int) []job {
	var list []job
	for _, t := range tables {
		if t.complete() {
			continue
		}
		merge := t.merging(now)
		for _, c := range t.chunks {
			if c.at != now {
				list = append(list, job{t, c, merge})
			}
		}
	}
	slices.SortStableFunc(list, func(a, b job) int {
		return cmp.Or(cmp.Compare(b.table.Bytes, a.table.Bytes), cmp.Compare(a.table.OID, b.table.OID), cmp.Compare(a.chunk.number, b.chunk.number))
	})
	return list
}

// result sums up a finished copy.
func result(sessions []session, tables []*table) Result {
	r := Result{Start: sessions[0].LSN, SkipBefore: map[sqlname.Table]lsn.LSN{}, Repair: map[sqlname.Table]lsn.LSN{}, Keys: map[sqlname.Table][]string{}}
	for _, t := range tables {
		from := t.chunks[0].from
		for _, c := range t.chunks {
			from = min(from, c.from)
		}
		if from > 1 {
			r.SkipBefore[t.Name] = sessions[from-1].LSN
		}
		if at := t.chunks[0].at; at > from {
			until := sessions[at-1].LSN
			r.Repair[t.Name] = until
			r.RepairUntil = max(r.RepairUntil, until)
			for _, k := range t.Key {
				r.Keys[t.Name] = append(r.Keys[t.Name], k.Name)
			}
		}
	}
	return r
}
