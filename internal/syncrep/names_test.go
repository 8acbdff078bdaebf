package syncrep_test

import (
	"reflect"
	"strings"
	"testing"

	"github.com/twinspan/twinspan/internal/pgtest"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/syncrep"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func names(t testing.TB, text string) syncrep.Names {
	t.Helper()
	n, err := syncrep.Parse(text)
	if err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return n
}

func TestParse(t *testing.T) {
	for text, want := range map[string]syncrep.Names{
		"":                         {},
		"  ":                       {},
		"a":                        {Count: 1, Members: []string{"a"}},
		"a, b":                     {Count: 1, Members: []string{"a", "b"}},
		"2(a,b)":                   {Count: 2, Members: []string{"a", "b"}},
		"first 2 (a, \"B \"\"c\")": {Count: 2, Members: []string{"a", `B "c`}},
		"ANY 1 (a, *)":             {Any: true, Count: 1, Members: []string{"a", "*"}},
		"*":                        {Count: 1, Members: []string{"*"}},
		"7, 8":                     {Count: 1, Members: []string{"7", "8"}},
		`FIRST 1 ("any", b$1)`:     {Count: 1, Members: []string{"any", "b$1"}},
	} {
		got := names(t, text)
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %+v, want %+v", text, got, want)
		}
		if again := names(t, got.String()); !reflect.DeepEqual(again, got) {
			t.Errorf("%q is written as %q, which is %+v", text, got, again)
		}
	}
}

// TestTheServerReadsTheSame asks the server about each text and each prefix of it.
func TestTheServerReadsTheSame(t *testing.T) {
	dsn := pgtest.Shared(t).DSN("postgres")
	seen := map[string]bool{}
	for _, whole := range []string{
		`FIRST 2 ("twinspan/twinspan_1", s1, "two words", *)`, `any 1 (a,b$c, "x""y")`, `3 (7, 8, 9)`, `a, 1b, c`, `"any", first`, `_a , ünö`, `1 a`, `2, 3`, `$a`, `a-b`, `FIRST (a)`, `0 (a)`, `a b`,
	} {
		for i := range len(whole) + 1 {
			text := strings.ToValidUTF8(whole[:i], "")
			if seen[text] {
				continue
			}
			seen[text] = true
			_, theirs := pgtest.Try(t.Context(), dsn, `ALTER SYSTEM SET synchronous_standby_names = '`+text+`'`)
			_, ours := syncrep.Parse(text)
			if (theirs == nil) != (ours == nil) {
				t.Errorf("%q: the server says %v, we %v", text, theirs, ours)
			}
		}
	}
	pgtest.Exec(t, dsn, `ALTER SYSTEM RESET synchronous_standby_names`)
}

func TestWithAndWithout(t *testing.T) {
	const twin = "twinspan/twinspan_1"
	for _, c := range []struct{ before, with, without string }{
		{"", `FIRST 1 ("twinspan/twinspan_1")`, ""},
		{"s1", `FIRST 2 ("twinspan/twinspan_1", "s1")`, `FIRST 1 ("s1")`},
		{"ANY 2 (s1, s2)", `FIRST 3 ("twinspan/twinspan_1", "s1", "s2")`, `FIRST 2 ("s1", "s2")`},
		{"FIRST 2 (TwinSpan/twinspan_1, s1)", "", ""},
		{`"twinspan/twinspan_2"`, `FIRST 2 ("twinspan/twinspan_1", "twinspan/twinspan_2")`, `FIRST 1 ("twinspan/twinspan_2")`},
		{"s1, s2", "", ""},
		{"ANY 1 (s1, s2)", "", ""},
		{"*", "", ""},
		{`ANY 1 (s1, "twinspan/twinspan_1")`, "", ""},
	} {
		before, err := syncrep.Parse(strings.ReplaceAll(c.before, "TwinSpan/twinspan_1", `"TwinSpan/twinspan_1"`))
		if err != nil {
			t.Fatal(err)
		}
		with, err := before.With(twin)
		switch {
		case before.Requires(twin):
			if err != nil || !reflect.DeepEqual(with, before) {
				t.Errorf("%s asks for it already, and became %s, %v", c.before, with, err)
			}
		case c.with == "":
			if problem.CodeOf(err) != "sync_names_taken" || problem.As(err).Hint == "" {
				t.Errorf("%s: %s, %v", c.before, with, err)
			}
		case err != nil || with.String() != c.with || !with.Requires(twin):
			t.Errorf("%s with it: %s, %v, want %s", c.before, with, err, c.with)
		default:
			if left := with.Without(twin); left.String() != c.without {
				t.Errorf("%s without it: %q, want %q", with, left, c.without)
			}
		}
	}
	for before, want := range map[string]string{
		`ANY 1 (s1, "twinspan/twinspan_1")`:   `ANY 1 ("s1")`,
		`FIRST 1 ("twinspan/twinspan_1", s1)`: `FIRST 1 ("s1")`,
		`FIRST 2 (s1, s2, twin)`:              `FIRST 2 ("s1", "s2", "twin")`,
		`ANY 2 (a, b, "TWINSPAN/twinspan_1")`: `ANY 2 ("a", "b")`,
	} {
		if got := names(t, before).Without(twin); got.String() != want {
			t.Errorf("%s without it: %s, want %s", before, got, want)
		}
	}
}

func TestMembers(t *testing.T) {
	n := names(t, `FIRST 2 ("twinspan/twinspan_1", s1)`)
	if n.Links() || !reflect.DeepEqual(n.Others(), []string{"s1"}) || !n.Has("S1") {
		t.Errorf("%+v", n)
	}
	if n = n.Without("s1"); !n.Links() || len(n.Others()) != 0 {
		t.Errorf("%+v", n)
	}
	if (syncrep.Names{}).Links() {
		t.Error("nobody is no link")
	}
	if m := syncrep.Member("twinspan_1"); m != "twinspan/twinspan_1" || syncrep.Object(m) != "twinspan_1" || syncrep.Object("s1") != "" {
		t.Error(m)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"", "a, b", `FIRST 2 ("x""y", *)`, "ANY 1 (", `"`, "9999999999999999999 (a)"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		n, err := syncrep.Parse(text)
		if err != nil {
			return
		}
		if len(n.Members) > 0 && n.Count < 1 {
			t.Fatalf("%+v", n)
		}
		again, err := syncrep.Parse(n.String())
		if err != nil || !reflect.DeepEqual(again, n) {
			t.Fatalf("%q: %+v is written as %q, which is %+v, %v", text, n, n, again, err)
		}
	})
}
