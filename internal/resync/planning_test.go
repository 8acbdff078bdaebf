package resync

import (
	"strings"
	"testing"

	"github.com/twinspan/twinspan/internal/lost"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/sqlname"
	"github.com/twinspan/twinspan/internal/verify"
)

// A comparison needs what it does to be accepted, and a copy of the whole database where it cannot
// bring the schema in line. Who accepts that copy has accepted everything.
func TestWhatAComparisonNeedsIsAccepted(t *testing.T) {
	some := []verify.SchemaDifference{{Kind: "table", Name: "t"}}
	for _, c := range []struct {
		remedies verify.Remedies
		accepted []string
		needed   string
		missing  string
	}{
		{verify.Remedies{}, nil, "compare_database", "compare_database"},
		{verify.Remedies{Build: some}, []string{lost.AcceptCompare}, "compare_database", ""},
		{verify.Remedies{Drop: some}, []string{lost.AcceptCompare}, "compare_database,drop_objects", "drop_objects"},
		{verify.Remedies{Drop: some, Recreate: []sqlname.Table{{Name: "t"}}}, nil,
			"compare_database,drop_objects,reseed_tables", "compare_database, drop_objects, reseed_tables"},
		{verify.Remedies{Leave: some, Drop: some}, []string{lost.AcceptCompare, lost.AcceptDrop}, "copy_database", "copy_database"},
		{verify.Remedies{Drop: some}, []string{lost.AcceptCopy}, "compare_database,drop_objects", ""},
	} {
		needed := needsOf(c.remedies)
		if got := strings.Join(needed, ","); got != c.needed {
			t.Errorf("%+v needs %s, want %s", c.remedies, got, c.needed)
		}
		err := lost.Consent("sales", needed, c.accepted)
		if c.missing == "" && err == nil {
			continue
		}
		p := problem.As(err)
		if p == nil || p.Code != "rejoin_not_accepted" || !strings.HasSuffix(p.Text, ": "+c.missing) ||
			!strings.Contains(p.Hint, "--accept "+c.needed) {
			t.Errorf("%+v, accepted %q: %v", c.remedies, c.accepted, err)
		}
	}
}
