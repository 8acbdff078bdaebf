package group

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"

	"github.com/twinspan/twinspan/internal/pgoutput"
)

func wholeDel(t *Table, v ...string) Change {
	return Change{Table: t, Op: Delete, OldKind: pgoutput.OldFull, Old: tuple(v...)}
}

func wholeUpd(t *Table, old []string, v ...string) Change {
	return Change{Table: t, Op: Update, OldKind: pgoutput.OldFull, Old: tuple(old...), New: tuple(v...)}
}

func TestNetEffectsWithoutKey(t *testing.T) {
	a := &Table{}
	for _, c := range []struct {
		name    string
		changes []Change
		want    string
	}{
		{"inserts", []Change{ins(a, "1"), ins(a, "1")}, "a: +1 +1"},
		{"a chain of updates", []Change{wholeUpd(a, []string{"1"}, "2"), wholeUpd(a, []string{"2"}, "3")}, "a: -1 +3"},
		{"equal rows", []Change{wholeDel(a, "1"), wholeDel(a, "2"), wholeDel(a, "1"), ins(a, "1"), ins(a, "3"), ins(a, "3")}, "a: -1 -1 -2 +1 +3 +3"},
		{"inserted and deleted", []Change{wholeDel(a, "0"), ins(a, "1"), ins(a, "1"), wholeDel(a, "1")}, "a: -0 +1"},
		{"deleted and inserted", []Change{wholeDel(a, "1"), ins(a, "1")}, "a: -1 +1"},
		{"there and back", []Change{wholeUpd(a, []string{"1"}, "2"), wholeUpd(a, []string{"2"}, "1")}, "a: -1 +1"},
		{"NULL", []Change{wholeDel(a, "~", "1"), ins(a, "~", "1")}, "a: -~,1 +~,1"},
		{"a value left in TOAST", []Change{wholeDel(a, "1", "x"), wholeUpd(a, []string{"2", "y"}, "3", "^"), wholeDel(a, "3", "y")}, "a: -1,x a: #1 a: -3,y"},
		{"without the whole row", []Change{wholeDel(a, "1"), del(a, "1")}, "a: -1 a: #1"},
		{"first inserts", []Change{ins(a, "1"), wholeDel(a, "1"), ins(a, "2"), wholeDel(a, "2")}, "a: +1 a: -1"},
	} {
		p := New()
		for _, change := range c.changes {
			p.Append(change)
		}
		p.Seal()
		if got := show(p, map[*Table]string{a: "a"}); got != c.want {
			t.Errorf("%s: planned %q, not %q", c.name, got, c.want)
		}
	}
}

// bag is a table without a key: how often each row is there.
type bag map[string]int

func (b bag) add(row []byte, n int) error {
	key := fmt.Sprint(values(row))
	if b[key] += n; b[key] < 0 {
		return fmt.Errorf("row %s is not there", key)
	}
	if b[key] == 0 {
		delete(b, key)
	}
	return nil
}

func (b bag) change(c *Change) (err error) {
	if c.Op != Insert {
		err = b.add(c.Old.Bytes, -1)
	}
	if c.Op != Delete && err == nil {
		err = b.add(Filled(c.Old, c.New).Bytes, 1)
	}
	return err
}

func (b bag) step(p *Planner, s Step) error {
	for _, r := range s.Deletes {
		if err := b.add(r, -1); err != nil {
			return err
		}
	}
	for _, r := range s.Inserts {
		if err := b.add(r, 1); err != nil {
			return err
		}
	}
	for _, i := range s.Rows {
		if err := b.change(&p.Changes()[i]); err != nil {
			return err
		}
	}
	return nil
}

func TestThePlanDoesWhatTheChangesDoWithoutKey(t *testing.T) {
	for seed := range uint64(2000) {
		r := rand.New(rand.NewPCG(seed, 2))
		a := &Table{}
		planned, ordered := bag{}, bag{}
		var rows [][]string // that are there
		p := New()
		for range 3 {
			for range r.IntN(60) {
				v := []string{fmt.Sprint(r.IntN(4)), []string{"x", "~"}[r.IntN(2)]}
				var c Change
				dice := r.IntN(4)
				at := 0
				if len(rows) > 0 {
					at = r.IntN(len(rows))
				}
				switch {
				case len(rows) == 0 || dice == 0:
					c, rows = ins(a, v...), append(rows, v)
				case dice == 1:
					c = wholeDel(a, rows[at]...)
					rows = append(rows[:at:at], rows[at+1:]...)
				default:
					old := rows[at]
					c = wholeUpd(a, old, v...)
					if dice == 3 && old[1] != "~" && r.IntN(3) == 0 {
						c, v[1] = wholeUpd(a, old, v[0], "^"), old[1]
					}
					rows[at] = v
				}
				if err := ordered.change(&c); err != nil {
					t.Fatalf("seed %d: the test is wrong: %v", seed, err)
				}
				if r.IntN(30) == 0 {
					a.Order = Order(r.IntN(2))
				}
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
			if !maps.Equal(planned, ordered) {
				t.Fatalf("seed %d: planned %v, ordered %v", seed, planned, ordered)
			}
			p.Reset()
		}
	}
}
