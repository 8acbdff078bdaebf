package seed

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"github.com/twinspan/twinspan/internal/sqlname"
)

func TestChunksCoverTheTableWithoutOverlap(t *testing.T) {
	for _, n := range []Table{
		{Blocks: 0}, {Blocks: 1, Bytes: 1 << 40, Ranges: true}, {Blocks: 1000, Bytes: 8192000, Ranges: true},
		{Blocks: 1000, Bytes: 1 << 40, Ranges: true}, {Blocks: 1 << 31, Bytes: 1 << 44, Ranges: true}, {Blocks: 7, Bytes: 7 << 20, Ranges: true},
	} {
		chunks := divide(&n, max(1<<20, n.Bytes/5000), 0)
		if chunks[0].first != 0 || chunks[len(chunks)-1].end != 0 {
			t.Errorf("%+v: not open at its ends", n)
		}
		var sum int64
		for i, c := range chunks {
			sum += c.bytes
			if c.number != i || i > 0 && c.first != chunks[i-1].end || i < len(chunks)-1 && c.end <= c.first {
				t.Errorf("%+v: chunk %d is %+v", n, i, c)
			}
		}
		if sum > n.Bytes || sum < n.Bytes-int64(len(chunks)) {
			t.Errorf("%+v: chunks have %d bytes", n, sum)
		}
	}
	if n := len(divide(&Table{Blocks: 1000, Bytes: 8 << 20}, 1<<20, 0)); n != 1 {
		t.Errorf("a table without ranges has %d chunks", n)
	}
	if n := len(divide(&Table{Blocks: 1000, Bytes: 10 << 20, Ranges: true}, 1<<20, 0)); n != 10 {
		t.Errorf("ten chunks are %d", n)
	}
}

func TestChunkBytes(t *testing.T) {
	for total, want := range map[int64]int64{0: minChunk, 1 << 40: maxChunk, 4 << 30: 128 << 20} {
		if got := chunkBytes(total, 4); got != want {
			t.Errorf("%d: %d", total, got)
		}
	}
}

func TestWhatIsCopiedWhole(t *testing.T) {
	for _, c := range []struct {
		total, table int64
		workers      int
		chunks       int
	}{
		{1200 << 20, 640 << 20, 2, 1},                   // little more than its share
		{1200 << 20, 640 << 20, 4, 10},                  // others would wait for it
		{1 << 40, 1<<30 - 1, 4, 1},                      // one of many
		{1 << 40, 1 << 30, 4, 16},                       // too much to lose
		{90 << 20, 90 << 20, 4, 1},                      // too small to be divided
		{900 << 20, 900 << 20, 1, 1},                    // there is one worker
		{100 << 30, 100 << 30, 2, 100 << 30 / minChunk}, // the only one
	} {
		n := Table{Blocks: c.table >> 13, Bytes: c.table, Ranges: true}
		if got := len(divide(&n, minChunk, wholeTable(c.total, c.workers))); got != c.chunks {
			t.Errorf("%+v: %d chunks", c, got)
		}
	}
}

func TestWhatBecomesOfATable(t *testing.T) {
	key := []KeyColumn{{Name: "id", Equal: "OPERATOR(pg_catalog.=)"}}
	base := Table{OID: 1, Name: sqlname.Table{Schema: "s", Name: "t"}, Filenode: 5, Columns: []Column{{"id", "integer", true}}, Key: key}
	sessions := []session{{1, Begun{Xmin: 1 << 32}}, {2, Begun{Xmin: 1<<32 + 100}}}
	at := func(numbers ...int) (chunks []*chunk) {
		for _, n := range numbers {
			chunks = append(chunks, &chunk{at: n, from: n})
		}
		return chunks
	}
	altered, renamed, rewritten, unkeyed, rekeyed := base, base, base, base, base
	altered.Columns = append(slices.Clone(base.Columns), Column{"more", "text", true})
	renamed.Name.Name = "other"
	rewritten.Filenode = 6
	unkeyed.Key = nil
	rekeyed.Key = []KeyColumn{{Name: "other", Equal: "OPERATOR(pg_catalog.=)"}}
	for name, c := range map[string]struct {
		was    Table
		chunks []*chunk
		now    *Table
		xmin   uint64
		want   fate
	}{
		"complete":                       {base, at(1, 1), &base, 1<<32 + 200, keep},
		"complete and truncated":         {base, at(1), &rewritten, 1<<32 + 200, keep},
		"complete and dropped":           {base, at(2, 2), nil, 1<<32 + 200, keep},
		"nothing copied":                 {base, at(0, 0), &base, 1<<32 + 200, plan},
		"nothing copied, truncated":      {base, at(0), &rewritten, 1<<32 + 200, plan},
		"nothing copied, altered":        {base, at(0), &altered, 1<<32 + 200, gone},
		"some copied":                    {base, at(1, 0), &base, 1<<32 + 200, resume},
		"some copied anew":               {base, at(1, 2), &base, 1<<32 + 200, resume},
		"some copied, truncated":         {base, at(1, 0), &rewritten, 1<<32 + 200, restart},
		"some copied, no key":            {unkeyed, at(1, 0), &unkeyed, 1<<32 + 200, restart},
		"some copied, key dropped":       {base, at(1, 0), &unkeyed, 1<<32 + 200, restart},
		"some copied, another key":       {base, at(1, 0), &rekeyed, 1<<32 + 200, restart},
		"some copied, renamed":           {base, at(1, 0), &renamed, 1<<32 + 200, gone},
		"some copied, dropped":           {base, at(1, 0), nil, 1<<32 + 200, gone},
		"too many transactions ago":      {base, at(1, 0), &base, 1<<32 + 1<<31, restart},
		"as many as can be told":         {base, at(1, 0), &base, 1<<32 + 1<<31 - 1, resume},
		"later session is recent enough": {base, at(2, 0), &base, 1<<32 + 1<<31, resume},
	} {
		was := table{c.was, c.chunks}
		if got := was.decide(c.now, c.xmin, sessions); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

func TestJobsAreTheLargestTablesFirst(t *testing.T) {
	small := &table{Table{OID: 1, Bytes: 10}, []*chunk{{}}}
	large := &table{Table{OID: 2, Bytes: 90}, []*chunk{{number: 0, at: 1, from: 1}, {number: 1}, {number: 2, at: 2, from: 1}}}
	done := &table{Table{OID: 3, Bytes: 99}, []*chunk{{at: 1, from: 1}}}
	fresh := &table{Table{OID: 4, Bytes: 50}, []*chunk{{number: 0, at: 2, from: 2}, {number: 1}}}
	want := []job{{large, large.chunks[0], true}, {large, large.chunks[1], true}, {fresh, fresh.chunks[1], false}, {small, small.chunks[0], false}}
	if got := jobs([]*table{small, large, done, fresh}, 2); !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}

func TestMeter(t *testing.T) {
	start := time.Unix(1000, 0)
	done := &table{Table{OID: 1}, []*chunk{{at: 1, from: 1, bytes: 100}}}
	open := &table{Table{OID: 2}, []*chunk{{at: 2, from: 1, bytes: 100}, {bytes: 200, number: 1}}}
	m := newMeter([]*table{done, open}, 2, start)
	if p := m.read(start); p != (Progress{2, 1, 400, 200, 0, -1}) {
		t.Errorf("at the start %+v", p)
	}
	j := job{open, open.chunks[1], true}
	moved := m.start(j)
	moved.Add(50)
	if p := m.read(start.Add(time.Second)); p != (Progress{2, 1, 400, 250, 50, 3}) {
		t.Errorf("under way %+v", p)
	}
	moved.Add(1000) // the estimate was too small
	if p := m.read(start.Add(2 * time.Second)); p.BytesDone != 400 {
		t.Errorf("more than planned %+v", p)
	}
	if each := m.each(); !slices.Equal(each, []TableProgress{{BytesTotal: 100, BytesDone: 100, Copied: true}, {BytesTotal: 300, BytesDone: 300, Copying: true}}) {
		t.Errorf("each table under way %+v", each)
	}
	m.finish(j, false) // it is begun anew
	if each := m.each(); each[1] != (TableProgress{BytesTotal: 300, BytesDone: 100}) {
		t.Errorf("a table that waits %+v", each[1])
	}
	m.start(j)
	m.finish(j, true)
	if each := m.each(); each[1] != (TableProgress{BytesTotal: 300, BytesDone: 300, Copied: true}) {
		t.Errorf("a table that is whole %+v", each[1])
	}
	if p := m.read(start.Add(3 * time.Second)); p.TablesDone != 2 || p.BytesDone != 400 || p.Remaining != 0 {
		t.Errorf("at the end %+v", p)
	}
}

func TestCreateSlotCommand(t *testing.T) {
	for version, want := range map[string]string{
		"10.23":                `CREATE_REPLICATION_SLOT "a" TEMPORARY LOGICAL pgoutput EXPORT_SNAPSHOT`,
		"14.9 (Debian 14.9-1)": `CREATE_REPLICATION_SLOT "a" TEMPORARY LOGICAL pgoutput EXPORT_SNAPSHOT`,
		"15.18":                `CREATE_REPLICATION_SLOT "a" TEMPORARY LOGICAL pgoutput (SNAPSHOT 'export')`,
		"18beta1":              `CREATE_REPLICATION_SLOT "a" TEMPORARY LOGICAL pgoutput (SNAPSHOT 'export')`,
	} {
		if got := createSlotCommand(version, "a", true); got != want {
			t.Errorf("%s: %s", version, got)
		}
	}
}

func FuzzDataRow(f *testing.F) {
	f.Add([]byte("\x00\x02\x00\x00\x00\x01a\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, body []byte) {
		row, err := dataRow(body)
		if err == nil && len(row) > len(body) {
			t.Errorf("%d columns in %d bytes", len(row), len(body))
		}
		for _, v := range row {
			if !bytes.Contains(body, []byte(v)) {
				t.Errorf("%q came from nowhere", v)
			}
		}
	})
}
