package outofband

import (
	"testing"
	"time"

	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/sequence"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// A sequence of the twin moves ahead to its promise at once, and back only when the twin's schema
// is as new as the promise and the primary has just been heard.
func TestSequencesAreSetAsPromised(t *testing.T) {
	name, other := sqlname.Table{Schema: "public", Name: "s"}, sqlname.Table{Schema: "public", Name: "of nobody"}
	values := sequence.Definition{Increment: 1, Min: 1, Max: 1000, Cache: 1}
	at := func(name sqlname.Table, last int64) sequence.Sequence {
		return sequence.Sequence{Name: name, Definition: values, State: sequence.State{Last: last, IsCalled: true}}
	}
	for _, c := range []struct {
		what     string
		promised int64
		here     int64
		applied  lsn.LSN
		unheard  time.Duration
		want     int64 // 0 for nothing
	}{
		{"it is behind", 100, 50, 5, 0, 100},
		{"it is as promised", 100, 100, 20, 0, 0},
		{"it is ahead, and its name may mean another", 100, 200, 5, 0, 0},
		{"it is ahead", 100, 200, 10, 0, 100},
		{"it is ahead, and the primary away", 100, 200, 10, time.Second, 0},
		{"it is behind, and the primary away", 100, 50, 0, 2 * time.Second, 120},
	} {
		all := map[sqlname.Table]promised{name: {sequence.Promise{Sequence: at(name, c.promised), Rate: 10}, 10}}
		list := apart(all, []sequence.Sequence{at(other, 1), at(name, c.here)}, c.applied, c.unheard)
		switch {
		case c.want == 0 && len(list) == 0:
		case len(list) != 1 || list[0].Name != name || list[0].Last != c.want:
			t.Errorf("%s: %+v is set", c.what, list)
		}
	}
}
