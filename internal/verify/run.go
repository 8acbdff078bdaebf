package verify

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// mostListed bounds the rows of one table that are looked at one by one, for each
// row that may be reported, so that blocks are not fetched for nothing.
const mostListed = 32 * rowsOfBlock

// Comparison compares two sides. Set the fields, then call Compare, and Confirm
// with both sides at a later position.
type Comparison struct {
	Tables  []string // names, with or without schema; empty for all
	NoRows  bool     // compare the schema alone
	Schema  bool     // compare the schema
	Values  bool     // report values, not only which columns differ
	Most    int      // rows reported of a table
	Workers int      // tables compared at once; at least 1
	Stored  bool     // compare what materialized views hold
	// Reader tells which definitions differ in words alone; needed with Schema.
	Reader *Reader
	// Progress, when set, is called by one goroutine at a time.
	Progress func(Progress)
}

// Progress is how far a comparison is.
type Progress struct {
	TablesTotal, TablesDone int
	BytesTotal              int64
}

// Findings is what a comparison found.
type Findings struct {
	Schema []SchemaDifference
	// Undecided are definitions that are printed otherwise, and may mean the same.
	Undecided []SchemaDifference
	Tables    []TableFinding // those that differ, by name
	Skipped   []Skipped
	Count     Count
}

// Skipped is a table whose rows were not compared.
type Skipped struct {
	Name, Why string
	Never     bool // whatever it holds: unlogged tables
	Changed   bool // it was changed while it was read: another time it can be compared
}

// Count says what was looked at.
type Count struct {
	Tables        int
	Rows          int64 // on the primary
	Blocks        int64
	BlocksFetched int64
	RowsFetched   int64 // on both sides
}

// TableFinding is a table whose rows differ.
type TableFinding struct {
	Subject
	Rows []RowDifference
	More bool // there are more than were looked at
	View bool // it is a materialized view

	blocks Blocks // in which they lie
}

// Equal says that nothing differs.
func (f *Findings) Equal() bool { return len(f.Schema) == 0 && len(f.Tables) == 0 }

// Compare compares everything.
func (c *Comparison) Compare(ctx context.Context, primary, secondary Side) (*Findings, error) {
	a, b, err := describe(ctx, primary, secondary)
	if err != nil {
		return nil, err
	}
	f := &Findings{}
	subjects, err := c.plan(a, b, f)
	if err != nil {
		return nil, err
	}
	if c.Schema {
		if err := c.schema(ctx, a, b, f); err != nil {
			return nil, err
		}
	}
	progress := Progress{TablesTotal: len(subjects)}
	for _, s := range subjects {
		progress.BytesTotal += s.bytes
	}
	c.report(progress)
	var mu sync.Mutex // guards f and progress
	err = c.each(ctx, len(subjects), func(ctx context.Context, i int) error {
		finding, count, err := c.table(ctx, primary, secondary, subjects[i])
		mu.Lock()
		defer mu.Unlock()
		if why, out := leftOut(err); out {
			f.Skipped = append(f.Skipped, Skipped{Name: subjects[i].Table.String(), Why: why, Changed: problem.CodeOf(err) == "table_changed"})
			err = nil
		}
		f.Count.add(count)
		if finding != nil {
			f.Tables = append(f.Tables, *finding)
		}
		progress.TablesDone++
		c.report(progress)
		return err
	})
	f.sort()
	return f, err
}

// leftOut says whether an error means that one table cannot be read, and why.
func leftOut(err error) (why string, out bool) {
	switch p := problem.As(err); problem.CodeOf(err) {
	case "table_changed", "owner_may_not_read", "row_security_hides_rows":
		return p.Text, true
	}
	return "", false
}

// schema compares what the sides consist of.
func (c *Comparison) schema(ctx context.Context, a, b *Database, f *Findings) error {
	if err := Comparable(a.Format, b.Format); err != nil {
		f.Skipped = append(f.Skipped, Skipped{Name: SchemaOf, Why: problem.As(err).Text})
		return nil
	}
	list, err := c.Reader.Settle(ctx, schemaDifferences(a.Schema(), b.Schema()))
	if err != nil {
		return err
	}
	f.Schema, f.Undecided = nil, nil
	for _, d := range list {
		if d.Undecided {
			f.Undecided = append(f.Undecided, d)
		} else {
			f.Schema = append(f.Schema, d)
		}
	}
	return nil
}

// SchemaOf stands among what was skipped for the whole schema.
const SchemaOf = "(schema)"

func (c *Comparison) report(p Progress) {
	if c.Progress != nil {
		c.Progress(p)
	}
}

func (f *Findings) sort() {
	slices.SortFunc(f.Tables, func(a, b TableFinding) int { return strings.Compare(a.Table.String(), b.Table.String()) })
	slices.SortFunc(f.Skipped, func(a, b Skipped) int { return cmp.Compare(a.Name, b.Name) })
}

func (n *Count) add(more Count) {
	n.Tables += more.Tables
	n.Rows += more.Rows
	n.Blocks += more.Blocks
	n.BlocksFetched += more.BlocksFetched
	n.RowsFetched += more.RowsFetched
}

// each runs f for each number below n, several at once.
func (c *Comparison) each(ctx context.Context, n int, f func(ctx context.Context, i int) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(max(1, c.Workers))
	for i := range n {
		group.Go(func() error {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return f(ctx, i)
		})
	}
	return group.Wait()
}

// describe describes both sides.
func describe(ctx context.Context, primary, secondary Side) (a, b *Database, err error) {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() (err error) { a, err = primary.Describe(ctx); return err })
	group.Go(func() (err error) { b, err = secondary.Describe(ctx); return err })
	return a, b, group.Wait()
}

// planned is a table to compare.
type planned struct {
	Subject
	rows, bytes int64
	view        bool
}

// plan lists the tables whose rows are compared, the largest first.
func (c *Comparison) plan(a, b *Database, f *Findings) ([]planned, error) {
	if c.NoRows {
		return nil, nil
	}
	method := methodFor(a, b)
	there := map[sqlname.Table]Table{}
	for _, t := range b.Tables {
		there[t.Name] = t
	}
	var list []planned
	matched := make([]bool, len(c.Tables))
	for _, t := range a.Tables {
		if !c.wanted(t.Name, matched) {
			continue
		}
		if t.View && !c.Stored {
			continue
		}
		other, have := there[t.Name]
		why := c.skip(&t)
		switch {
		case why != "":
		case !have:
			why = "the secondary does not have it"
		case !slices.Equal(shape(t.Columns), shape(other.Columns)):
			why = "its columns differ"
		case c.Stored && c.skip(&other) != "":
			why = "on the secondary: " + other.Skip
		}
		if why != "" {
			f.Skipped = append(f.Skipped, Skipped{Name: t.Name.String(), Why: why, Never: t.Skip != ""})
			continue
		}
		list = append(list, planned{subject(t, method), t.Rows, t.Bytes, t.View})
	}
	if c.wanted(largeObjects, matched) && a.LargeObjects+b.LargeObjects > 0 {
		list = append(list, planned{subject(largeObjectsKnown().Table, method), max(a.LargeObjects, b.LargeObjects), a.LargeObjectBytes, false})
	}
	for i, found := range matched {
		if !found {
			return nil, problem.New(problem.NotFound, "table_unknown", "the primary has no table %q", c.Tables[i]).On(c.Tables[i]).
				WithHint("name it as schema.name")
		}
	}
	slices.SortStableFunc(list, func(x, y planned) int { return cmp.Compare(y.bytes, x.bytes) })
	return list, nil
}

// skip says why the rows of a table are not compared, empty where they are.
func (c *Comparison) skip(t *Table) string {
	if c.Stored && t.Stored {
		return ""
	}
	return t.Skip
}

// wanted says whether a table is to be compared, and notes which name it fits.
func (c *Comparison) wanted(t sqlname.Table, matched []bool) bool {
	found := len(c.Tables) == 0
	for i, name := range c.Tables {
		if name == t.String() || name == t.SQL() || name == t.Name || name == t.Schema+"."+t.Name {
			matched[i], found = true, true
		}
	}
	return found
}

// subject says how a table is compared. A key of floats cannot be looked up by a
// text that both versions print, so such a table counts as one without.
func subject(t Table, m Method) Subject {
	s := Subject{Table: t.Name, Columns: t.Columns, Key: t.Key, Method: m}
	for _, c := range t.Columns {
		if m.OldText && c.Family == Float && slices.Contains(t.Key, c.Name) {
			s.Key = nil
		}
	}
	return s
}

// shape is what the columns of the two sides must agree in, whatever their order.
func shape(columns []Column) []string {
	list := make([]string, len(columns))
	for i, c := range columns {
		list[i] = c.Name + "\x00" + c.Type
	}
	slices.Sort(list)
	return list
}

// methodFor chooses a method of hashing that both sides have.
func methodFor(a, b *Database) Method {
	convert := a.Encoding != b.Encoding
	return Method{
		MD5:     a.Probe == "" || a.Probe != b.Probe || convert,
		Convert: convert,
		OldText: (a.ServerVersion < 120000) != (b.ServerVersion < 120000),
	}
}

// table compares the rows of one table; no finding means that they are equal.
func (c *Comparison) table(ctx context.Context, primary, secondary Side, t planned) (*TableFinding, Count, error) {
	rows := t.rows
	if rows <= 0 {
		rows = t.bytes / 100
	}
	request := DigestRequest{Subject: t.Subject, Bits: firstBits(rows)}
	count := Count{Tables: 1}
	differ, err := c.digest(ctx, primary, secondary, request, &count)
	if err != nil || len(differ) == 0 {
		return nil, count, err
	}
	blocks, more := Blocks{}, false
	for {
		chosen, dropped := choose(request.Bits, differ, c.mostListed())
		blocks, more = chosen, more || dropped
		if !coarse(differ) || request.Bits+furtherBits > lastBits {
			break
		}
		request.Within = blocks
		request.Bits += furtherBits
		further, err := c.digest(ctx, primary, secondary, request, &count)
		if err != nil {
			return nil, count, err
		}
		if len(further) == 0 {
			return nil, count, nil
		}
		differ = further
	}
	found, listed, err := c.list(ctx, primary, secondary, t.Subject, blocks)
	count.BlocksFetched += int64(max(1, len(blocks.Numbers)))
	count.RowsFetched += listed.RowsFetched
	if err != nil || len(found.Rows) == 0 {
		return nil, count, err
	}
	found.More, found.View = found.More || more, t.view
	return found, count, nil
}

// mostListed is how many rows of a table are listed at most.
func (c *Comparison) mostListed() int64 { return max(mostListed, 4*int64(c.Most)) }

// coarse says that the blocks are too large to fetch their rows.
func coarse(differ []unequalBlock) bool {
	for _, d := range differ {
		if d.rows > 4*rowsOfBlock {
			return true
		}
	}
	return false
}

// choose takes the first blocks that have no more than the rows together, one at
// least, and says whether some are left.
func choose(bits int, differ []unequalBlock, most int64) (Blocks, bool) {
	b := Blocks{Bits: bits}
	if bits == 0 {
		return b, false
	}
	for _, d := range differ {
		if most -= d.rows; most < 0 && len(b.Numbers) > 0 {
			return b, true
		}
		b.Numbers = append(b.Numbers, d.number)
	}
	return b, false
}

// digest has both sides add up their blocks, at the same time.
func (c *Comparison) digest(ctx context.Context, primary, secondary Side, r DigestRequest, count *Count) ([]unequalBlock, error) {
	var a, b []Block
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() (err error) { a, err = primary.Digest(ctx, r); return err })
	group.Go(func() (err error) { b, err = secondary.Digest(ctx, r); return err })
	if err := group.Wait(); err != nil {
		return nil, err
	}
	if r.Within.Bits == 0 {
		count.Rows += totalRows(a)
	}
	count.Blocks += int64(max(len(a), len(b)))
	return unequal(a, b), nil
}

// list compares the rows of blocks one by one.
func (c *Comparison) list(ctx context.Context, primary, secondary Side, s Subject, blocks Blocks) (*TableFinding, Count, error) {
	var a, b List
	r := ListRequest{Subject: s, Blocks: blocks, Most: 4 * int(c.mostListed())}
	group, inner := errgroup.WithContext(ctx)
	group.Go(func() (err error) { a, err = primary.List(inner, r); return err })
	group.Go(func() (err error) { b, err = secondary.List(inner, r); return err })
	if err := group.Wait(); err != nil {
		return nil, Count{}, err
	}
	count := Count{RowsFetched: int64(len(a.Rows) + len(b.Rows))}
	f := &TableFinding{Subject: s, blocks: blocks, Rows: differences(a.Rows, b.Rows, len(s.Key) > 0)}
	if a.More || b.More {
		// What the one side cut off the other may have listed: nothing is known of it.
		return nil, count, problem.New(problem.Resource, "block_too_large", "too many rows of the table have the same key hash").On(s.Table.String())
	}
	if len(f.Rows) > c.Most {
		f.Rows, f.More = f.Rows[:c.Most], true
	}
	return f, count, nil
}

// Confirm looks at a later position at everything that was found, and leaves in f
// only what differs there too.
func (c *Comparison) Confirm(ctx context.Context, primary, secondary Side, f *Findings) error {
	if len(f.Schema)+len(f.Undecided) > 0 {
		a, b, err := describe(ctx, primary, secondary)
		if err != nil {
			return err
		}
		first := slices.Concat(f.Schema, f.Undecided)
		if err := c.schema(ctx, a, b, f); err != nil {
			return err
		}
		f.Schema, f.Undecided = bothSchemas(first, f.Schema), bothSchemas(first, f.Undecided)
	}
	var mu sync.Mutex // guards f and tables
	var tables []TableFinding
	err := c.each(ctx, len(f.Tables), func(ctx context.Context, i int) error {
		first := f.Tables[i]
		second, count, err := c.list(ctx, primary, secondary, first.Subject, first.blocks)
		if err == nil {
			second.Rows = both(first.Rows, second.Rows, IsLargeObjects(first.Table))
			second.More, second.View = second.More || first.More, first.View
			err = c.byKey(ctx, primary, secondary, second)
		}
		if err == nil {
			err = c.detail(ctx, primary, secondary, second)
		}
		mu.Lock()
		defer mu.Unlock()
		f.Count.RowsFetched += count.RowsFetched
		if why, out := leftOut(err); out {
			f.Skipped = append(f.Skipped, Skipped{Name: first.Table.String(), Why: why, Changed: problem.CodeOf(err) == "table_changed"})
			return nil
		}
		if err == nil && len(second.Rows) > 0 {
			tables = append(tables, *second)
		}
		return err
	})
	f.Tables = tables
	f.sort()
	return err
}

// valuesOf reads the rows at the same keys on both sides.
func valuesOf(ctx context.Context, primary, secondary Side, r ValuesRequest) (a, b []Row, err error) {
	if a, err = primary.Values(ctx, r); err != nil {
		return nil, nil, err
	}
	b, err = secondary.Values(ctx, r)
	return a, b, err
}

// sameValue says whether two values are the same, or both missing.
func sameValue(x, y *string) bool { return x == nil && y == nil || x != nil && y != nil && *x == *y }

// detail finds out which columns of the rows differ and, if asked for, the values.
func (c *Comparison) detail(ctx context.Context, primary, secondary Side, f *TableFinding) error {
	if len(f.Key) == 0 {
		return nil
	}
	r := ValuesRequest{Subject: f.Subject, Hashed: !c.Values}
	at := map[string]*RowDifference{}
	for i := range f.Rows {
		d := &f.Rows[i]
		if d.Primary+d.Secondary > 2 || d.State != Differs && !c.Values {
			continue
		}
		r.Keys = append(r.Keys, d.Key)
		at[d.identity()] = d
	}
	if len(r.Keys) == 0 {
		return nil
	}
	a, b, err := valuesOf(ctx, primary, secondary, r)
	if err != nil {
		return err
	}
	assign := func(rows []Row, to func(*RowDifference, []*string)) {
		for _, row := range rows {
			if d := at[(&RowDifference{Key: row.Key}).identity()]; d != nil {
				to(d, row.Values)
			}
		}
	}
	assign(a, func(d *RowDifference, v []*string) { d.OnPrimary = v })
	assign(b, func(d *RowDifference, v []*string) { d.OnSecondary = v })
	for _, d := range at {
		if len(d.OnPrimary) == len(f.Columns) && len(d.OnSecondary) == len(f.Columns) {
			for i, column := range f.Columns {
				if !sameValue(d.OnPrimary[i], d.OnSecondary[i]) {
					d.Columns = append(d.Columns, column.Name)
				}
			}
		}
		if !c.Values {
			d.OnPrimary, d.OnSecondary = nil, nil
		}
	}
	return nil
}
