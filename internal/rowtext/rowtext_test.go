package rowtext

import (
	"strings"
	"testing"
)

// show writes fields so that NULL, empty and others differ.
func show(fields [][]byte) string {
	var out []string
	for _, f := range fields {
		if f == nil {
			out = append(out, "-")
			continue
		}
		out = append(out, "<"+string(f)+">")
	}
	return strings.Join(out, "")
}

func TestNext(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{`(1,a)`, `<1><a>`},
		{`()`, `-`},
		{`(,)`, `--`},
		{`("",)`, `<>-`},
		{`("a,b","c)d","e""f","g\\h"," i")`, `<a,b><c)d><e"f><g\h>< i>`},
		{"(\"x\ny\",2)(3,\"(4,\"\"5\"\")\")(,6)", "<x\ny><2>|<3><(4,\"5\")>|-<6>"},
		{`("",1)("{""a"":1}",2)`, `<><1>|<{"a":1}><2>`},
		{`(é,"ü ü")`, `<é><ü ü>`},
	} {
		var got []string
		rest := []byte(c.text)
		for len(rest) > 0 {
			fields, left, ok := Next(nil, rest)
			if !ok {
				t.Errorf("%s is not read", rest)
				break
			}
			got, rest = append(got, show(fields)), left
		}
		if s := strings.Join(got, "|"); s != c.want {
			t.Errorf("%q is %s, want %s", c.text, s, c.want)
		}
	}
	for _, text := range []string{``, `(`, `(1`, `("`, `(a,b`, `x`, `("a)`, `(\`} {
		if fields, _, ok := Next(nil, []byte(text)); ok {
			t.Errorf("%q is read as %s", text, show(fields))
		}
	}
}

func FuzzNext(f *testing.F) {
	f.Add([]byte(`(1,"a""b",)`))
	f.Add([]byte(`("\\",`))
	f.Fuzz(func(t *testing.T, text []byte) {
		for rest := text; len(rest) > 0; {
			_, left, ok := Next(nil, rest)
			if !ok {
				return
			}
			if len(left) >= len(rest) {
				t.Fatalf("nothing is taken of %q", rest)
			}
			rest = left
		}
	})
}
