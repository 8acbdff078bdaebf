package group

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/twinspan/twinspan/internal/pgoutput"
)

// tuple builds a row of text values; "~" is NULL and "^" an unchanged value.
func tuple(values ...string) pgoutput.Tuple {
	var b []byte
	for _, v := range values {
		switch v {
		case "~":
			b = append(b, pgoutput.Null)
		case "^":
			b = append(b, pgoutput.Unchanged)
		default:
			b = pgoutput.AppendColumn(b, pgoutput.Column{Kind: pgoutput.Text, Value: []byte(v)})
		}
	}
	return pgoutput.Tuple{Bytes: b, Len: len(values), Kinds: pgoutput.KindsOf(b)}
}

func values(row []byte) []string {
	var out []string
	for _, c := range (pgoutput.Tuple{Bytes: row}).Columns(nil) {
		switch c.Kind {
		case pgoutput.Null:
			out = append(out, "~")
		case pgoutput.Unchanged:
			out = append(out, "^")
		default:
			out = append(out, string(c.Value))
		}
	}
	return out
}

func keyed() *Table { return &Table{Key: []KeyColumn{{Column: 0}}} }

func ins(t *Table, v ...string) Change { return Change{Table: t, Op: Insert, New: tuple(v...)} }
func upd(t *Table, v ...string) Change { return Change{Table: t, Op: Update, New: tuple(v...)} }
func del(t *Table, v ...string) Change {
	return Change{Table: t, Op: Delete, OldKind: pgoutput.OldKey, Old: tuple(v...)}
}
func rekey(t *Table, old string, v ...string) Change {
	o := make([]string, len(v))
	for i := range o {
		o[i] = "~"
	}
	o[0] = old
	return Change{Table: t, Op: Update, OldKind: pgoutput.OldKey, Old: tuple(o...), New: tuple(v...)}
}

// show writes a plan down, one step to a word.
func show(p *Planner, names map[*Table]string) string {
	var out []string
	rows := func(sign string, rows []Row) {
		for _, r := range rows {
			out = append(out, sign+strings.Join(values(r), ","))
		}
	}
	for _, s := range p.Steps() {
		out = append(out, names[s.Table]+":")
		rows("-", s.Deletes)
		for _, u := range s.Updates {
			rows("=", u.Rows)
		}
		rows("+", s.Inserts)
		for _, i := range s.Rows {
			out = append(out, fmt.Sprintf("#%d", i))
		}
		if s.Truncate >= 0 {
			out = append(out, fmt.Sprintf("!%d", s.Truncate))
		}
	}
	return strings.Join(out, " ")
}

func TestNetEffects(t *testing.T) {
	a := keyed()
	for _, c := range []struct {
		name    string
		changes []Change
		want    string
	}{
		{"insert and update", []Change{ins(a, "1", "x", "big"), upd(a, "1", "y", "^")}, "a: +1,y,big"},
		{"insert and delete", []Change{ins(a, "1", "x"), del(a, "1", "~")}, ""},
		{"insert, delete, insert", []Change{ins(a, "1", "x"), del(a, "1", "~"), ins(a, "1", "y")}, "a: +1,y"},
		{"updates", []Change{upd(a, "1", "x", "big"), upd(a, "1", "y", "^")}, "a: =1,y,big"},
		{"updates that leave a value alone", []Change{upd(a, "1", "x", "^"), upd(a, "1", "y", "^")}, "a: =1,y,^"},
		{"a value set after it was left alone", []Change{upd(a, "1", "x", "^"), upd(a, "1", "y", "z"), upd(a, "1", "^", "^")}, "a: =1,y,z"},
		{"update and delete", []Change{upd(a, "1", "x"), del(a, "1", "~")}, "a: -1,~"},
		{"delete and insert", []Change{del(a, "1", "~"), ins(a, "1", "y")}, "a: -1,~ +1,y"},
		{"delete, insert, update", []Change{del(a, "1", "~", "~"), ins(a, "1", "y", "big"), upd(a, "1", "z", "^")}, "a: -1,~,~ +1,z,big"},
		{"delete, insert, delete", []Change{del(a, "1", "~"), ins(a, "1", "y"), del(a, "1", "~")}, "a: -1,~"},
		{"a changed key cuts", []Change{ins(a, "1", "x"), rekey(a, "1", "2", "x"), upd(a, "2", "y"), rekey(a, "2", "3", "z"), ins(a, "4", "x")},
			"a: +1,x a: #1 a: =2,y a: #3 a: +4,x"},
		{"a key given but the same", []Change{rekey(a, "1", "1", "x"), rekey(a, "1", "1", "y")}, "a: =1,y"},
		{"a key left in TOAST", []Change{rekey(a, "1", "^", "x"), upd(a, "1", "y")}, "a: =1,y"},
		{"impossible: twice inserted", []Change{ins(a, "1", "x"), ins(a, "1", "y")}, "a: +1,x a: +1,y"},
		{"impossible: updated after delete", []Change{del(a, "1", "~"), upd(a, "1", "y")}, "a: -1,~ a: =1,y"},
		{"impossible: a key that is not there", []Change{upd(a, "^", "y")}, "a: #0"},
		{"repair stands alone", []Change{ins(a, "1", "x"), {Table: a, Op: Insert, Repair: true, New: tuple("2", "x")}, ins(a, "3", "x")}, "a: +1,x a: #1 a: +3,x"},
	} {
		p := New()
		for _, change := range c.changes {
			p.Append(change)
		}
		p.Seal()
		if got := show(p, map[*Table]string{a: "a"}); got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

func TestUpdatesAreGroupedByWhatTheyLeaveAlone(t *testing.T) {
	a := keyed()
	p := New()
	for i := range 6 {
		row := []string{fmt.Sprint(i), "x", "y"}
		if i%3 > 0 {
			row[i%3] = "^"
		}
		p.Append(upd(a, row...))
	}
	p.Seal()
	s := p.Steps()
	if len(s) != 1 || len(s[0].Updates) != 3 {
		t.Fatalf("got %+v", s)
	}
	for i, want := range []string{"0,x,y 3,x,y", "1,^,y 4,^,y", "2,x,^ 5,x,^"} {
		var got []string
		for _, r := range s[0].Updates[i].Rows {
			got = append(got, strings.Join(values(r), ","))
		}
		if strings.Join(got, " ") != want {
			t.Errorf("set %d is %v, want %s", i, got, want)
		}
		if i > 0 && !s[0].Updates[i].Unchanged.Has(i) {
			t.Errorf("set %d leaves %v alone", i, s[0].Updates[i].Unchanged)
		}
	}
}

func TestOrders(t *testing.T) {
	log := &Table{Order: Rows}
	keyless := &Table{}
	s1, s2 := &Table{Order: Strict}, &Table{Order: Strict}
	a := keyed()
	names := map[*Table]string{a: "a", log: "log", keyless: "keyless"}
	p := New()
	for _, c := range []Change{
		ins(log, "1"), ins(log, "2"), del(log, "1"), ins(log, "3"),
		ins(keyless, "1"), ins(keyless, "1"),
		ins(s1, "1"), ins(s2, "1"), ins(a, "1"), upd(s1, "1"),
	} {
		p.Append(c)
	}
	p.Seal()
	want := "log: +1 +2 log: #2 log: +3 keyless: +1 +1 : #6 #7 #9 a: +1"
	if got := show(p, names); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestTruncateIsABarrier(t *testing.T) {
	a, b := keyed(), keyed()
	p := New()
	p.Append(ins(a, "1", "x"))
	p.Append(ins(b, "1", "x"))
	p.Append(Change{Op: Truncate, Truncate: &TruncateSet{Tables: []*Table{a}}})
	p.Append(ins(b, "2", "x"))
	p.Append(ins(a, "1", "x"))
	p.Seal()
	want := "a: +1,x b: +1,x : !2 b: +2,x a: +1,x"
	if got := show(p, map[*Table]string{a: "a", b: "b"}); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestBarrierKeepsTheOrderOfTables(t *testing.T) {
	before, after := keyed(), keyed() // one table, described twice
	p := New()
	p.Append(ins(before, "1", "x"))
	p.Append(Change{Op: Barrier})
	p.Append(upd(after, "1", "y"))
	p.Append(Change{Op: Barrier})
	p.Append(del(before, "1", "~"))
	p.Seal()
	want := "before: +1,x after: =1,y before: -1,~"
	if got := show(p, map[*Table]string{before: "before", after: "after"}); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestOpenChangesMove(t *testing.T) {
	a := keyed()
	p, next := New(), New()
	p.Append(ins(a, "1", "x"))
	p.Seal()
	p.Append(upd(a, "1", "y"))
	p.MoveOpen(next)
	next.Seal()
	names := map[*Table]string{a: "a"}
	if got := show(p, names); got != "a: +1,x" {
		t.Errorf("first: %q", got)
	}
	if got := show(next, names); got != "a: =1,y" {
		t.Errorf("second: %q", got)
	}
	p.Reset()
	if p.Bytes() != 0 || len(p.Changes()) != 0 || show(p, names) != "" {
		t.Error("something is left after a reset")
	}
}

func TestBytesGrowWithWhatIsHeld(t *testing.T) {
	a := keyed()
	p := New()
	big := strings.Repeat("x", 1<<16)
	p.Append(upd(a, "1", "x", big))
	if p.Bytes() < 1<<16 {
		t.Errorf("%d bytes", p.Bytes())
	}
	p.Append(upd(a, "1", "y", "^"))
	p.Seal()
	if p.Bytes() < 2<<16 {
		t.Errorf("%d bytes after a row was built from two", p.Bytes())
	}
}

func TestWideTables(t *testing.T) {
	const width = 1600
	a := &Table{Key: []KeyColumn{{Column: width - 1}}}
	first, second := make([]string, width), make([]string, width)
	for i := range width {
		first[i], second[i] = "^", "^"
	}
	first[0], first[width-1], second[1000], second[width-1] = "x", "k", "y", "k"
	p := New()
	p.Append(upd(a, first...))
	p.Append(upd(a, second...))
	p.Seal()
	set := p.Steps()[0].Updates[0]
	for i := range width {
		written := i == 0 || i == 1000 || i == width-1
		if set.Unchanged.Has(i) == written {
			t.Errorf("column %d: unchanged is %t", i, !written)
		}
	}
}

func TestEqualKeysOfUnequalBytes(t *testing.T) {
	numeric := func(digits, weight, sign, scale int, more ...uint16) []byte {
		var b []byte
		for _, v := range []int{digits, weight, sign, scale} {
			b = binary.BigEndian.AppendUint16(b, uint16(v))
		}
		for _, d := range more {
			b = binary.BigEndian.AppendUint16(b, d)
		}
		return b
	}
	f8 := func(bits uint64) []byte { return binary.BigEndian.AppendUint64(nil, bits) }
	f4 := func(bits uint32) []byte { return binary.BigEndian.AppendUint32(nil, bits) }
	for _, c := range []struct {
		name  string
		canon Canon
		kind  byte
		a, b  []byte
		equal bool
	}{
		{"numeric text", Numeric, 't', []byte("1.0"), []byte("1.00"), true},
		{"numeric text whole", Numeric, 't', []byte("100"), []byte("100.000"), true},
		{"numeric text tens", Numeric, 't', []byte("100"), []byte("10"), false},
		{"numeric binary", Numeric, 'b', numeric(1, 0, 0, 1, 1), numeric(1, 0, 0, 2, 1), true},
		{"numeric binary other", Numeric, 'b', numeric(1, 0, 0, 1, 1), numeric(1, 1, 0, 1, 1), false},
		{"float text", Float8, 't', []byte("-0"), []byte("0"), true},
		{"float binary zero", Float8, 'b', f8(1 << 63), f8(0), true},
		{"float binary NaN", Float8, 'b', f8(math.Float64bits(math.NaN())), f8(0xFFF8000000000000), true},
		{"float binary other", Float8, 'b', f8(math.Float64bits(1)), f8(math.Float64bits(-1)), false},
		{"float4 binary zero", Float4, 'b', f4(1 << 31), f4(0), true},
		{"blanks", Blank, 't', []byte("a  "), []byte("a"), true},
		{"blanks before", Blank, 't', []byte(" a"), []byte("a"), false},
		{"exact", Exact, 't', []byte("1.0"), []byte("1.00"), false},
	} {
		key := func(v []byte) string {
			b := pgoutput.AppendColumn(nil, pgoutput.Column{Kind: c.kind, Value: v})
			k, ok := appendKey(nil, []KeyColumn{{0, c.canon}}, pgoutput.Tuple{Bytes: b, Len: 1})
			if !ok {
				t.Fatalf("%s: no key", c.name)
			}
			return string(k)
		}
		if got := key(c.a) == key(c.b); got != c.equal {
			t.Errorf("%s: equal is %t", c.name, got)
		}
	}
}

func TestKeysOfSeveralColumnsDoNotRunTogether(t *testing.T) {
	key := []KeyColumn{{Column: 2}, {Column: 0}}
	a, _ := appendKey(nil, key, tuple("x", "-", "yz"))
	b, _ := appendKey(nil, key, tuple("zx", "-", "y"))
	if string(a) == string(b) {
		t.Error("two keys are one")
	}
}

// model is the tables' content: key to values.
type model map[*Table]map[string][]string

func (m model) update(t *Table, old string, row []string) error {
	before, ok := m[t][old]
	if !ok {
		return fmt.Errorf("update hits no row %s", old)
	}
	after := slices.Clone(row)
	for i, v := range after {
		if v == "^" {
			after[i] = before[i]
		}
	}
	delete(m[t], old)
	return m.insert(t, after)
}

func (m model) insert(t *Table, row []string) error {
	if _, ok := m[t][row[0]]; ok || slices.Contains(row, "^") {
		return fmt.Errorf("insert of %v", row)
	}
	m[t][row[0]] = row
	return nil
}

func (m model) delete(t *Table, key string) error {
	if _, ok := m[t][key]; !ok {
		return fmt.Errorf("delete hits no row %s", key)
	}
	delete(m[t], key)
	return nil
}

func (m model) change(c Change) error {
	switch c.Op {
	case Insert:
		return m.insert(c.Table, values(c.New.Bytes))
	case Delete:
		return m.delete(c.Table, values(c.Old.Bytes)[0])
	case Truncate:
		for _, t := range c.Truncate.Tables {
			clear(m[t])
		}
		return nil
	}
	row := values(c.New.Bytes)
	key := row[0]
	if c.OldKind != pgoutput.OldNone {
		key = values(c.Old.Bytes)[0]
		if row[0] == "^" {
			row[0] = key
		}
	}
	return m.update(c.Table, key, row)
}

func (m model) step(p *Planner, s Step) error {
	for _, r := range s.Deletes {
		if err := m.delete(s.Table, values(r)[0]); err != nil {
			return err
		}
	}
	for _, u := range s.Updates {
		for _, r := range u.Rows {
			row := values(r)
			for i, v := range row {
				if u.Unchanged.Has(i) != (v == "^") {
					return fmt.Errorf("row %v is in the set that leaves %v alone", row, u.Unchanged)
				}
			}
			if err := m.update(s.Table, row[0], row); err != nil {
				return err
			}
		}
	}
	for _, r := range s.Inserts {
		if err := m.insert(s.Table, values(r)); err != nil {
			return err
		}
	}
	for _, i := range s.Rows {
		if err := m.change(p.Changes()[i]); err != nil {
			return err
		}
	}
	if s.Truncate >= 0 {
		return m.change(p.Changes()[s.Truncate])
	}
	return nil
}

// randomChange makes a change that fits the content.
func randomChange(r *rand.Rand, tables []*Table, m model, number int) Change {
	t := tables[r.IntN(len(tables))]
	key := fmt.Sprint(r.IntN(5))
	value := func() string {
		if r.IntN(3) == 0 {
			return "^"
		}
		return fmt.Sprintf("v%d", number)
	}
	_, exists := m[t][key]
	switch dice := r.IntN(20); {
	case dice == 0:
		return Change{Op: Truncate, Truncate: &TruncateSet{Tables: tables[:1+r.IntN(len(tables))]}}
	case !exists:
		return ins(t, key, fmt.Sprintf("v%d", number), "~")
	case dice < 6:
		return del(t, key, "~", "~")
	case dice < 9:
		other := fmt.Sprint(r.IntN(5))
		if _, taken := m[t][other]; !taken {
			return rekey(t, key, other, value(), value())
		}
		return rekey(t, key, "^", value(), value())
	}
	return upd(t, key, value(), value())
}

func TestThePlanDoesWhatTheChangesDo(t *testing.T) {
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 1))
		tables := []*Table{keyed(), keyed(), {Key: []KeyColumn{{Column: 0}}, Order: Rows}, {Order: Strict}, {Order: Strict}}
		planned, ordered := model{}, model{}
		for _, t := range tables {
			planned[t], ordered[t] = map[string][]string{}, map[string][]string{}
		}
		p := New()
		for range 3 { // one planner, plan after plan
			for number := range 1 + r.IntN(60) {
				c := randomChange(r, tables, ordered, number)
				if err := ordered.change(c); err != nil {
					t.Fatalf("seed %d: the test is wrong: %v", seed, err)
				}
				tables[0].Order = Order(r.IntN(2))
				p.Append(c)
				if r.IntN(4) == 0 {
					p.Seal()
				}
			}
			p.Seal()
			for _, s := range p.Steps() {
				if err := planned.step(p, s); err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
			}
			for _, table := range tables {
				if !maps.EqualFunc(planned[table], ordered[table], slices.Equal) {
					t.Fatalf("seed %d: planned %v, ordered %v", seed, planned[table], ordered[table])
				}
			}
			p.Reset()
		}
	}
}

func BenchmarkFoldUpdates(b *testing.B) {
	a := keyed()
	rows := make([]pgoutput.Tuple, 20000)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range rows {
		rows[i] = tuple(fmt.Sprintf("%08d", r.IntN(15000)), "1234", "some text that is longer", "~")
	}
	p := New()
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		p.Append(Change{Table: a, Op: Update, New: rows[n%len(rows)]})
		if n++; n%len(rows) == 0 {
			p.Seal()
			p.Steps()
			p.Reset()
		}
	}
}
