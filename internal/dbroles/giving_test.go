package dbroles

import (
	"context"
	"log/slog"
	"strings"
	"testing"

	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/side"
)

// Memberships are given where the link made one of the two roles, each once: what was given
// before is given again only where the link has taken it back itself. CREATE is given whenever
// it is due.
func TestRolesAreGivenWhatTheyAreDue(t *testing.T) {
	both := []pg.Membership{{Role: "readers"}, {Role: "others"}}
	there := []pg.Role{{Name: "app", MemberOf: both}, {Name: "old", MemberOf: both}, {Name: "readers"}}
	notice := func(code, subject string) catalog.Notice { return catalog.Notice{Code: code, Subject: subject} }
	for _, c := range []struct {
		creators string
		notices  []catalog.Notice
		want     string
	}{
		{"", nil, ""},
		{"", []catalog.Notice{notice("role_created", "app")}, "app in readers, app in others"},
		{"", []catalog.Notice{notice("role_created", "readers")}, "app in readers, old in readers"},
		{"", []catalog.Notice{notice("role_created", "readers"), notice("role_given", "app in readers")}, "old in readers"},
		{"", []catalog.Notice{notice("role_created", "readers"), notice("role_given", "app in readers"),
			notice("role_taken", "app in readers")}, "app in readers, old in readers"},
		{"old", nil, "old creates"},
		{"old", []catalog.Notice{notice("role_given", "old creates")}, "old creates"},
	} {
		var got []string
		for _, d := range dues(there, map[string]bool{c.creators: true}, c.notices, "d") {
			got = append(got, d.subject)
		}
		if strings.Join(got, ", ") != c.want {
			t.Errorf("%+v: %q are due", c, got)
		}
	}
}

// What the link has given is what its notices say, without what it has taken back.
func TestGiftsAreWhatWasNotTakenBack(t *testing.T) {
	got := giftsOf([]catalog.Notice{
		{Code: "role_created", Subject: "app"}, {Code: "role_given", Subject: "app in readers"},
		{Code: "role_given", Subject: "a in b in c"}, {Code: "role_given", Subject: "app creates"},
		{Code: "role_taken", Subject: "app in readers"}, {Code: "role_given", Subject: "app"},
	})
	if len(got) != 2 || got[0] != (gift{"a in b in c", "a in b", "c"}) || got[1] != (gift{"app creates", "app", ""}) {
		t.Errorf("%+v", got)
	}
	roles := []pg.Role{
		{Name: "a", MemberOf: []pg.Membership{{Role: "b"}}},
		{Name: "b", MemberOf: []pg.Membership{{Role: "c"}, {Role: "a"}}},
	}
	if !memberThere(roles, "a", "c") || memberThere(roles, "a", "d") || memberThere(roles, "none", "c") {
		t.Error("memberships are not followed to their end")
	}
}

// peers answers every request with roles, or an error.
type peers struct {
	side.Peers
	roles []pg.Role
	err   error
}

func (p *peers) Call(_ context.Context, _, _ string, _, response any) error {
	response.(*RightsResponse).Roles = p.roles
	return p.err
}

// Who is a superuser of the primary is known from before while the primary does not answer. Of a
// role of which nothing was heard it is not known then. A primary whose release does not tell has none.
func TestSuperusersAreRemembered(t *testing.T) {
	primary := &peers{roles: []pg.Role{{Name: "root", Superuser: true}, {Name: "app"}}}
	k := New(side.New(nil, "d", primary, slog.New(slog.DiscardHandler), catalog.Link{}), Instance{})
	expect := func(name string, want bool, code string) {
		t.Helper()
		if got, err := k.superuserThere(t.Context(), name); got != want || problem.CodeOf(err) != code {
			t.Errorf("%s is a superuser: %v, %v", name, got, err)
		}
	}
	expect("root", true, "")
	expect("app", false, "")
	primary.roles, primary.err = nil, problem.New(problem.Transient, "peer_unreachable", "away")
	expect("root", true, "")
	expect("app", false, "")
	expect("other", false, "peer_unreachable")
	k.Forget()
	expect("root", false, "peer_unreachable")
	primary.err = problem.New(problem.NotFound, "method_unknown", "what?")
	expect("root", false, "")
}

// Only who was given the right to create schemas since it was first looked is one of the new.
func TestCreatorsAreNewSinceTheFirstLook(t *testing.T) {
	k := New(nil, Instance{})
	if now := k.newCreators([]string{"a"}); now["a"] {
		t.Error("who could create schemas at the first look is new")
	}
	if now := k.newCreators([]string{"a", "b"}); now["a"] || !now["b"] {
		t.Errorf("%v are new", now)
	}
	if now := k.newCreators([]string{"a", "b"}); now["b"] {
		t.Error("b is new again")
	}
}
