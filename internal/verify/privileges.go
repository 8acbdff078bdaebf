package verify

import (
	"encoding/json"
	"slices"
)

// defaultACL is the kind of what ALTER DEFAULT PRIVILEGES has said of a role's objects.
const defaultACL = "default acl"

// defaults is the definition of one: the beginning of the statements that change it, the kind of objects, what it
// grants, and what is granted where there is none.
type defaults struct {
	Of        string    `json:"of"`
	On        string    `json:"on"`
	Has       []granted `json:"has"`
	Otherwise []granted `json:"otherwise"`
}

// granted is what somebody is granted, with the right to grant it or without; names are quoted.
type granted struct {
	To     string `json:"to"`
	Grants bool   `json:"grants"`
	May    string `json:"may"`
}

// privileges are the statements that make the secondary's default privileges the primary's. Who has the same on both
// sides is left alone: versions differ in what an owner has.
func (d *SchemaDifference) privileges() (list []string) {
	var there, here defaults
	if d.entry.Definition != "" && json.Unmarshal([]byte(d.entry.Definition), &there) != nil || d.here.Definition != "" && json.Unmarshal([]byte(d.here.Definition), &here) != nil {
		return nil
	}
	any, want, have := there, there.Has, here.Has
	switch d.State {
	case Missing:
		have = there.Otherwise
	case Extra:
		any, want = here, here.Otherwise
	}
	of := func(all []granted, to string) []granted {
		return slices.DeleteFunc(slices.Clone(all), func(g granted) bool { return g.To != to })
	}
	var seen []string
	for _, g := range slices.Concat(have, want) {
		now, then := of(have, g.To), of(want, g.To)
		if slices.Contains(seen, g.To) || slices.Equal(now, then) {
			continue
		}
		seen = append(seen, g.To)
		if len(now) > 0 {
			list = append(list, any.Of+" REVOKE ALL ON "+any.On+" FROM "+g.To)
		}
		for _, w := range then {
			grant := any.Of + " GRANT " + w.May + " ON " + any.On + " TO " + w.To
			if w.Grants {
				grant += " WITH GRANT OPTION"
			}
			list = append(list, grant)
		}
	}
	return list
}
