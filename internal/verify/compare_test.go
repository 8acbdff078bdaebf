package verify

import (
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twinspan/twinspan/internal/sqlname"
)

func TestUnequalBlocks(t *testing.T) {
	a := []Block{{-2, 5, 1, 1}, {0, 3, 9, 9}, {1, 7, 4, 4}, {3, 2, 2, 2}}
	b := []Block{{3, 2, 2, 2}, {0, 3, 9, 8}, {-2, 5, 1, 1}, {2, 6, 1, 1}, {1, 9, 4, 4}}
	want := []unequalBlock{{0, 3}, {1, 9}, {2, 6}}
	if got := unequal(a, b); !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if got := unequal(a, slices.Clone(a)); got != nil {
		t.Errorf("the same differs: %v", got)
	}
	if got := unequal([]Block{{0, 1, 0, 0}}, nil); len(got) != 1 {
		t.Error("a row whose hashes are 0 is not seen")
	}
}

func TestBlocksFitTheTable(t *testing.T) {
	for rows, want := range map[int64]int{-1: 0, 0: 0, 1: 0, 1024: 0, 1025: 1, 5000: 3, 1_000_000: 10, 1 << 40: mostBits} {
		if got := firstBits(rows); got != want {
			t.Errorf("%d rows: %d bits, want %d", rows, got, want)
		}
	}
	differ := []unequalBlock{{1, 10}, {2, 80}, {3, 30}}
	for most, want := range map[int64]int{5: 1, 10: 1, 90: 2, 119: 2, 120: 3} {
		got, more := choose(4, differ, most)
		if len(got.Numbers) != want || more != (want < 3) {
			t.Errorf("at most %d rows: %v, %v", most, got, more)
		}
	}
	if got, more := choose(0, differ[:1], 1); got.Numbers != nil || more {
		t.Error("the whole table is one block")
	}
}

// Whatever rows two sides have, the difference of the two lists is found: by
// counting equal rows.
func TestDifferencesOfRandomLists(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	for range 3000 {
		var a, b []Hashed
		count := map[int64]int{}
		for range r.IntN(12) {
			h := Hashed{Key: []string{"k"}, Hash1: r.Int64N(4)}
			a, count[h.Hash1] = append(a, h), count[h.Hash1]+1
		}
		for range r.IntN(12) {
			h := Hashed{Key: []string{"k"}, Hash1: r.Int64N(4)}
			b, count[h.Hash1] = append(b, h), count[h.Hash1]-1
		}
		want := 0
		for hash, n := range count {
			if n != 0 {
				want++
			}
			for _, d := range differences(a, b, false) {
				if d.hash1 == hash && d.Primary-d.Secondary != n {
					t.Fatalf("%d copies more, told %d", n, d.Primary-d.Secondary)
				}
			}
		}
		if got := differences(a, b, false); len(got) != want {
			t.Fatalf("%v and %v: %d differences, want %d", a, b, len(got), want)
		}
		if got := differences(a, b, true); (len(got) > 0) != (want > 0) {
			t.Fatalf("with one key: %v", got)
		}
	}
}

func TestDifferencesByKey(t *testing.T) {
	a := []Hashed{{"1", []string{"10"}, 1, 1}, {"2", []string{"9"}, 2, 2}, {"3", []string{"a", "b"}, 3, 3}, {"4", []string{"x"}, 4, 4}}
	b := []Hashed{{"1", []string{"10"}, 1, 2}, {"2", []string{"a:", "b"}, 3, 3}, {"4", []string{"x"}, 4, 4}, {"5", []string{"x"}, 5, 5}}
	var got []string
	for _, d := range differences(a, b, true) {
		got = append(got, strings.Join(d.Key, "|")+" "+string(d.State))
	}
	want := []string{"9 missing", "10 differs", "a|b missing", "a:|b extra", "x differs"}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	first, second := differences(a, b, true), differences(a[1:], b, true)
	if left := both(first[:2], second, false); len(left) != 2 || left[0].Key[0] != "9" || left[1].Key[0] != "10" {
		t.Errorf("both times: %v", left)
	}
}

func TestSumsWrap(t *testing.T) {
	for number, want := range map[string]uint64{"0": 0, "-1": 1<<64 - 1, "18446744073709551616": 0, "18446744073709551617": 1, "-18446744073709551617": 1<<64 - 1} {
		if got, err := wrap(number); err != nil || got != want {
			t.Errorf("%s: %d, %v", number, got, err)
		}
	}
	if _, err := wrap("NaN"); err == nil {
		t.Error("NaN is taken for a number")
	}
}

func TestPaceSpreadsPieces(t *testing.T) {
	now := time.Unix(1000, 0)
	p := &pace{rate: 100}
	for i, want := range []time.Duration{0, time.Second, 3 * time.Second} {
		if got := p.reserve(now, int64(100*(i+1))); got != want {
			t.Errorf("piece %d waits %v, want %v", i, got, want)
		}
	}
	if got := p.reserve(now.Add(time.Minute), 1); got != 0 {
		t.Errorf("after a rest: %v", got)
	}
	if got := (&pace{}).reserve(now, 1<<40); got != 0 {
		t.Errorf("without a rate: %v", got)
	}
}

func TestStatementsBuildAsOnThePrimary(t *testing.T) {
	table := sqlname.Table{Schema: "s", Name: "t"}
	for _, c := range []struct {
		d    SchemaDifference
		want string
	}{
		{SchemaDifference{Kind: "index", State: Missing, entry: Entry{Definition: `CREATE INDEX i ON s.t USING btree (a)`, Index: "i"}}, `CREATE INDEX CONCURRENTLY IF NOT EXISTS i ON s.t USING btree (a)`},
		{SchemaDifference{Kind: "index", State: Missing, entry: Entry{Definition: `CREATE UNIQUE INDEX " INDEX " ON s.t USING btree (a)`}}, `CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS " INDEX " ON s.t USING btree (a)`},
		{SchemaDifference{Kind: "index", State: Missing, entry: Entry{Definition: `CREATE INDEX i ON ONLY s.t USING btree (a)`, Index: "I"}}, `CREATE INDEX i ON s.t USING btree (a)`},
		{SchemaDifference{Kind: "index", State: Differs, Secondary: invalid, entry: Entry{Table: table, Object: "i"}}, `REINDEX INDEX CONCURRENTLY "s"."i"`},
		{SchemaDifference{Kind: "index", State: Differs, entry: Entry{Table: table, Object: "i", Definition: "CREATE INDEX i"}}, ``},
		{SchemaDifference{Kind: "constraint", State: Missing, entry: Entry{Table: table, Object: "c", Definition: "CHECK ((a > 0))"}}, `ALTER TABLE "s"."t" ADD CONSTRAINT "c" CHECK ((a > 0))`},
		{SchemaDifference{Kind: "constraint", State: Missing, entry: Entry{Table: table, Object: "p", Definition: "PRIMARY KEY (a) DEFERRABLE INITIALLY DEFERRED", Index: "CREATE UNIQUE INDEX p ON s.t USING btree (a)"}},
			`CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS p ON s.t USING btree (a); ALTER TABLE "s"."t" ADD CONSTRAINT "p" PRIMARY KEY USING INDEX "p" DEFERRABLE INITIALLY DEFERRED`},
		{SchemaDifference{Kind: "sequence", State: Differs, entry: Entry{Table: table, Definition: "INCREMENT 2"}}, `ALTER SEQUENCE "s"."t" INCREMENT 2`},
		{SchemaDifference{Kind: "trigger", State: Missing, entry: Entry{Table: table, Object: "x"}}, ``},
	} {
		if got := strings.Join(c.d.statements(), "; "); got != c.want {
			t.Errorf("%s\nwant %s", got, c.want)
		}
	}
}

func TestRemediesNameWhatIsLost(t *testing.T) {
	table, view := sqlname.Table{Schema: "s", Name: "t"}, sqlname.Table{Schema: "s", Name: "v"}
	r := RemediesFor([]SchemaDifference{
		{Kind: "extension", Name: "x", State: Differs},
		{Kind: "column", Name: `s.t."a."".b"`, State: Extra, entry: Entry{Table: table}},
		{Kind: "column", Name: "s.t.c", State: Differs, entry: Entry{Table: table}},
		{Kind: "column", Name: "s.t.d", State: Missing, entry: Entry{Table: table}},
		{Kind: "view", Name: "s.v", State: Missing, entry: Entry{Table: view}},
		{Kind: "column", Name: "s.v.c", State: Missing, entry: Entry{Table: view}},
		{Kind: "index", Name: "s.i", State: Missing, Repair: "CREATE INDEX"},
		{Kind: "function", Name: "s.f(integer)", State: Differs},
		{Kind: "extension", Name: "y", State: Extra},
		{Kind: "comment", Name: "table constraint c on s.t", State: Extra},
		{Kind: "comment", Name: "table column s.t.c", State: Extra},
	})
	names := func(list []SchemaDifference) (out []string) {
		for _, d := range list {
			out = append(out, d.Kind+" "+d.Name+" "+d.Dropping())
		}
		return out
	}
	for _, c := range []struct {
		what      string
		got, want []string
	}{
		{"dropped", names(r.Drop), []string{`column s.t."a."".b" ALTER TABLE IF EXISTS "s"."t" DROP COLUMN IF EXISTS "a."".b" CASCADE`, "comment table column s.t.c COMMENT ON COLUMN s.t.c IS NULL"}},
		{"built", names(r.Build), []string{"view s.v ", "index s.i ", "function s.f(integer) DROP ROUTINE IF EXISTS s.f(integer) CASCADE"}},
		{"left", names(r.Leave), []string{"extension y ", "comment table constraint c on s.t "}},
	} {
		if !slices.Equal(c.got, c.want) {
			t.Errorf("%s are %q, want %q", c.what, c.got, c.want)
		}
	}
	if !slices.Equal(r.Recreate, []sqlname.Table{table}) {
		t.Errorf("made anew are %v", r.Recreate)
	}
}

func TestStatementForARow(t *testing.T) {
	one, two := "1", "it's"
	f := &TableFinding{Subject: Subject{Table: sqlname.Table{Schema: "s", Name: "t"}, Key: []string{"id"},
		Columns: []Column{{Name: "id"}, {Name: "n"}, {Name: "g", Generated: true}}}}
	for _, c := range []struct {
		d    RowDifference
		want string
	}{
		{RowDifference{Key: []string{"1"}, State: Extra}, `DELETE FROM ONLY "s"."t" WHERE "id" = '1'`},
		{RowDifference{Key: []string{"1"}, State: Missing}, ``},
		{RowDifference{Key: []string{"1"}, State: Missing, OnPrimary: []*string{&one, &two, &one}}, `INSERT INTO "s"."t" ("id", "n") OVERRIDING SYSTEM VALUE VALUES ('1', 'it''s')`},
		{RowDifference{Key: []string{"1"}, State: Differs, Columns: []string{"n", "g"}, OnPrimary: []*string{&one, nil, &one}, OnSecondary: []*string{&one, &two, &two}}, `UPDATE ONLY "s"."t" SET "n" = NULL WHERE "id" = '1'`},
	} {
		if got := f.Statement(&c.d); got != c.want {
			t.Errorf("%s\nwant %s", got, c.want)
		}
	}
}
