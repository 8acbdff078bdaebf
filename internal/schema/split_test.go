package schema

import (
	"strings"
	"testing"
)

const lookalike = "--\n-- TOC entry 99 (class 2606 OID 5)\n-- Name: no; Type: INDEX; Schema: public; Owner: me\n--\n"

func header(id, rest string) string {
	return "--\n-- TOC entry " + id + " (class 2606 OID 16516)\n-- Dependencies: 215 7\n-- Name: " + rest + "\n-- Data Pos: 0\n--\n"
}

func joined(s script) string {
	var b strings.Builder
	b.WriteString(s.head)
	for _, e := range s.entries {
		b.WriteString(e.text)
	}
	return b.String()
}

func TestHeadersWithinQuotesAreNotEntries(t *testing.T) {
	for name, quoted := range map[string]string{
		"string":         "SELECT '" + lookalike + "';\n",
		"doubled quote":  "SELECT 'a''\n" + lookalike + "';\n",
		"escapes":        `SELECT E'\'` + "\n" + lookalike + "';\n",
		"lower escapes":  `SELECT e'\\''` + "\n" + lookalike + "';\n",
		"no escape":      `SELECT 'x\'` + "\n; SELECT '\n" + lookalike + "';\n",
		"word before":    `SELECT type'x\'` + ";\nSELECT '\n" + lookalike + "';\n",
		"identifier":     "SELECT \"a'\n" + lookalike + "\";\n",
		"dollar":         "DO $$ it's\n" + lookalike + "$$;\n",
		"tagged dollar":  "DO $_a1$ $$ '\n" + lookalike + "$_a1$;\n",
		"dollar in name": "SELECT a$b$c FROM d;\nSELECT '\n" + lookalike + "';\n",
		"parameter":      "SELECT $1, '\n" + lookalike + "', $2;\n",
		"comment":        "/* a /* b */ '\n" + lookalike + "*/\n",
		"line comment":   "-- it's\nSELECT '\n" + lookalike + "';\n",
	} {
		text := "SET x = 1;\n\n" + header("1", "a; Type: FUNCTION; Schema: public; Owner: me") + quoted + header("2", "b; Type: INDEX; Schema: -; Owner: me") + "SELECT 2;\n"
		s := split(text)
		if len(s.entries) != 2 {
			t.Errorf("%s: %d entries", name, len(s.entries))
			continue
		}
		if joined(s) != text || s.head != "SET x = 1;\n\n" {
			t.Errorf("%s: joined again it is another text", name)
		}
		if s.entries[0].body != quoted || s.entries[1].body != "SELECT 2;\n" {
			t.Errorf("%s: bodies %q and %q", name, s.entries[0].body, s.entries[1].body)
		}
	}
}

func TestHeaderIsReadFromTheRight(t *testing.T) {
	s := split(header("3321", "evil; Type: TABLE; Schema: x; Owner: y z_key; Type: CONSTRAINT; Schema: My Schema; Owner: me") + "X")
	if len(s.entries) != 1 {
		t.Fatalf("%d entries", len(s.entries))
	}
	e := s.entries[0]
	if e.id != 3321 || e.class != 2606 || e.oid != 16516 || len(e.needs) != 2 || e.needs[1] != 7 ||
		e.kind != "CONSTRAINT" || e.space != "My Schema" || e.name != "evil; Type: TABLE; Schema: x; Owner: y z_key" {
		t.Errorf("read %+v", e)
	}
}

func FuzzSplit(f *testing.F) {
	f.Add("SET x;\n" + header("1", "a; Type: B; Schema: c; Owner: d") + "SELECT E'\\'' $$ /* */ $$;\n" + header("2", "x"))
	f.Add(lookalike + "$a$ " + lookalike)
	f.Fuzz(func(t *testing.T, text string) {
		s := split(text)
		if joined(s) != text {
			t.Fatalf("joined again it is %q", joined(s))
		}
		for _, e := range s.entries {
			if !strings.HasSuffix(e.text, e.body) || e.id <= 0 {
				t.Fatalf("entry %+v", e)
			}
		}
	})
}
