package sqlname

import "testing"

func TestQuote(t *testing.T) {
	if got := Quote(`Weird "Name`); got != `"Weird ""Name"` {
		t.Errorf("got %s", got)
	}
	if got := Join([]string{"a", "B"}); got != `"a", "B"` {
		t.Errorf("got %s", got)
	}
}

func TestTable(t *testing.T) {
	for table, want := range map[Table]string{
		{"public", "t1"}: "public.t1",
		{"public", "T"}:  `public."T"`,
		{"1a", `x"y`}:    `"1a"."x""y"`,
		{"", "naïve"}:    `""."naïve"`,
	} {
		if got := table.String(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestLiteral(t *testing.T) {
	for in, want := range map[string]string{"a": "'a'", "it's": "'it''s'", `a\b'`: ` E'a\\b'''`} {
		if got := Literal(in); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}
