package rights

import "testing"

func TestUnescaped(t *testing.T) {
	for in, want := range map[string]string{`plain`: "plain", `a\tb\nc\\d`: "a\tb\nc\\d", `\b\f\r\v`: "\b\f\r\v", `x\`: `x\`, ``: ``} {
		if got := string(unescaped([]byte(in))); got != want {
			t.Errorf("%q is %q, want %q", in, got, want)
		}
	}
	if got := string(appendRow(nil, []byte("a\t\\N\t\\\\N\t'"))); got != `(E'a',NULL,E'\\N',E'''')` {
		t.Errorf("a row is %s", got)
	}
}
