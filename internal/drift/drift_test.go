package drift

import (
	"strings"
	"testing"
	"time"

	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/verify"
)

func TestSchemasAreComparedWhenSignsChange(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	at := func(seconds int) time.Time { return now.Add(time.Duration(seconds) * time.Second) }
	var p Pace
	steps := []struct {
		at   int
		sign string
		due  bool
	}{
		{0, "a", false}, {3, "a", false}, {5, "a", true}, // never compared
		{10, "a", false}, {599, "a", false}, // equal
		{606, "a", true},                                       // believed for so long
		{610, "b", false}, {612, "c", false}, {617, "c", true}, // still again
		{620, "d", false}, {624, "e", false}, {628, "f", false}, {680, "g", true}, // never still
	}
	for _, s := range steps {
		due := p.Due(at(s.at), s.sign)
		if due != s.due {
			t.Errorf("after %d s with sign %s: due is %v", s.at, s.sign, due)
		}
		if due {
			p.Settled(at(s.at), s.sign)
		}
	}
}

func TestWeightOfDifferences(t *testing.T) {
	view := verify.SchemaDifference{Kind: "definition of view", Name: "v", State: verify.Differs, Primary: "a", Secondary: "b"}
	watch := catalog.Watch{Known: []catalog.Drift{Of(view)}}
	changed := view
	changed.Primary = "c"
	for _, x := range []struct {
		d    verify.SchemaDifference
		want Weight
	}{
		{view, Known}, {changed, Serious},
		{verify.SchemaDifference{Kind: "extension", Name: "x", State: verify.Differs}, Harmless},
		{verify.SchemaDifference{Kind: "extension", Name: "x", State: verify.Missing}, Serious},
		{verify.SchemaDifference{Kind: "event trigger", Name: "x", State: verify.Extra}, Warned},
		{verify.SchemaDifference{Kind: "index", Name: "x", State: verify.Missing, Repair: "CREATE INDEX"}, Mends},
		{verify.SchemaDifference{Kind: "index", Name: "x", State: verify.Differs, Repair: "REINDEX"}, Serious},
		{verify.SchemaDifference{Kind: "table", Name: "x", State: verify.Extra}, Serious},
		{verify.SchemaDifference{Kind: "table", Name: "x", State: verify.Missing}, Makes},
		{verify.SchemaDifference{Kind: "materialized view", Name: "x", State: verify.Missing}, Makes},
		{verify.SchemaDifference{Kind: "view", Name: "x", State: verify.Missing}, Serious},
		{verify.SchemaDifference{Kind: "table", Name: "x", State: verify.Differs, Primary: "owner a, kind r", Secondary: "owner b, kind r", Repair: "ALTER"}, Passes},
		{verify.SchemaDifference{Kind: "table", Name: "x", State: verify.Differs, Primary: "owner a, kind r", Secondary: "owner b, kind p"}, Serious},
	} {
		if got := Weigh(x.d, watch); got != x.want {
			t.Errorf("%+v weighs %d, want %d", x.d, got, x.want)
		}
	}
	worded := view
	worded.Worded = true
	if !FromCopy(worded) || FromCopy(view) || FromCopy(verify.SchemaDifference{State: verify.Missing}) {
		t.Error("what can come from a copy is misjudged")
	}
}

func TestDriftIsNamed(t *testing.T) {
	list := []verify.SchemaDifference{{Kind: "table", Name: "public.t", State: verify.Differs, Primary: "owner a, kind r, x", Secondary: "owner b, kind r, x", Repair: `ALTER TABLE public.t OWNER TO "a"`}}
	for range 5 {
		list = append(list, verify.SchemaDifference{Kind: "index", Name: "public.i", State: verify.Missing})
	}
	p := Problem("sales", list, 0x10)
	if want := "at position 0/10 the schemas differ: table public.t (primary: owner a; twin: owner b); and 5 more: index public.i, index public.i, index public.i, ..."; p.Text != want {
		t.Errorf("the text is %q", p.Text)
	}
	if p.Subject != "public.t" || !strings.Contains(p.Hint, `ALTER TABLE public.t OWNER TO "a"; then: twinspan link resume sales`) {
		t.Errorf("the problem is %+v", p)
	}
}
