package member

import (
	"strings"
	"testing"

	"github.com/twinspan/twinspan/internal/instance"
	"github.com/twinspan/twinspan/internal/problem"
)

func TestUpdateOrder(t *testing.T) {
	old, current := instance.Release{Major: 15, Minor: 18}, instance.Release{Major: 15, Minor: 20}
	seen := func(name string, runs, has instance.Release) Seen {
		return Seen{Member: Member{Name: name}, Running: runs, Installed: has, Answers: true, Alive: true}
	}
	away, witness := seen("c", old, current), Seen{Member: Member{Name: "w", Witness: true}}
	away.Answers = false
	for name, c := range map[string]struct {
		leader  string
		members []Seen
		order   string
		code    string
	}{
		"the leader last":           {"b", []Seen{seen("c", old, current), seen("b", old, current), seen("a", old, current), witness}, "a c b", ""},
		"only who is behind":        {"b", []Seen{seen("a", current, current), seen("b", old, current), seen("c", old, old)}, "b", ""},
		"nothing newer":             {"a", []Seen{seen("a", old, old), seen("b", current, old)}, "", ""},
		"another major is no newer": {"a", []Seen{seen("a", old, instance.Release{Major: 16, Minor: 3})}, "", ""},
		"nobody leads":              {"", []Seen{seen("a", old, current)}, "", "member_leaderless"},
		"one is away":               {"a", []Seen{seen("a", old, current), away}, "", "member_away"},
		"one does not tell":         {"a", []Seen{seen("a", old, current), seen("b", old, instance.Release{})}, "", "member_release_unknown"},
		"a server that begins":      {"a", []Seen{seen("a", old, current), seen("b", instance.Release{}, current)}, "", "member_release_unknown"},
		"a witness has no release":  {"a", []Seen{seen("a", old, current), witness}, "a", ""},
	} {
		list, err := updateOrder(State{Leader: c.leader, Members: c.members})
		var names []string
		for _, m := range list {
			names = append(names, m.Name)
		}
		if got := strings.Join(names, " "); got != c.order || problem.CodeOf(err) != c.code {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}
