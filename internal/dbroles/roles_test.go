package dbroles

import (
	"strings"
	"testing"

	"github.com/twinspan/twinspan/internal/pg"
)

// A membership of the primary is given on, and missed, with what it lets its member do there, and no more.
func TestMembershipsAreNoMoreThanThePrimarys(t *testing.T) {
	yes, no := true, false
	for _, c := range []struct {
		m       pg.Membership
		options string
		usable  bool
	}{
		{pg.Membership{Role: "g"}, "", true}, // before version 16
		{pg.Membership{Role: "g", Inherit: &yes, Set: &yes}, " WITH INHERIT true, SET true", true},
		{pg.Membership{Role: "g", Inherit: &yes, Set: &no}, " WITH INHERIT true, SET false", true},
		{pg.Membership{Role: "g", Inherit: &no, Set: &yes}, " WITH INHERIT false, SET true", true},
		{pg.Membership{Role: "g", Admin: true, Inherit: &no, Set: &no}, " WITH INHERIT false, SET false", false},
	} {
		if got := optionsOf(c.m); got != c.options {
			t.Errorf("%+v is given with %q", c.m, got)
		}
		there := RightsResponse{Roles: []pg.Role{{Name: "g"}, {Name: "r", MemberOf: []pg.Membership{c.m}}}}
		p := lesserRole("l", there, []pg.Role{{Name: "g"}, {Name: "r"}}, nil, "d", false)
		if missed := p != nil && strings.Contains(p.Text, "membership in g"); missed != c.usable || c.m.Usable() != c.usable {
			t.Errorf("%+v is missed: %v, usable: %v", c.m, missed, c.m.Usable())
		}
	}
}
