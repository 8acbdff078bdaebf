//go:generate env TWINSPAN_GENERATE=1 go test . -count=1 -run TestCatalogueIsWritten

package problem

import (
	"slices"
	"strings"
)

// Entry explains a code: what somebody who met it wants to know. All codes that the
// agents use are in the catalogue, from which docs/problems.md is written.
type Entry struct {
	Code     string
	Severity Severity // the heaviest that it comes with
	Title    string   // a few words
	Meaning  string   // what is so, and what follows from it
	Remedy   string   // what to do; "" where there is nothing to do
}

// Area is a part of the catalogue.
type Area struct {
	Title   string
	Entries []Entry
}

// Catalogue returns all areas, for reading from top to bottom.
func Catalogue() []Area {
	return []Area{
		{"What a check finds", checkEntries()},
		{"Links", linkEntries()},
		{"Changes of places", failoverEntries()},
		{"Schema changes that are refused on a linked primary", ddlEntries()},
		{"What a link tells of by itself", noticeEntries()},
		{"Copies of databases", copyEntries()},
		{"Peers", peerEntries()},
		{"Servers", serverEntries()},
		{"The managed instance", instanceEntries()},
		{"Backups of a managed instance", backupEntries()},
		{"Members of an instance", memberEntries()},
		{"Agents, their directory and the interface", agentEntries()},
	}
}

// Describe explains a code, and says whether it is known.
func Describe(code string) (Entry, bool) {
	for _, area := range Catalogue() {
		if i := slices.IndexFunc(area.Entries, func(e Entry) bool { return e.Code == code }); i >= 0 {
			return area.Entries[i], true
		}
	}
	return Entry{}, false
}

// Like lists the codes that have a text in common with what somebody may have meant: those
// that contain it, or share its first word.
func Like(text string) []string {
	var close, far []string
	first, _, _ := strings.Cut(text, "_")
	for _, area := range Catalogue() {
		for _, e := range area.Entries {
			switch {
			case text != "" && strings.Contains(e.Code, text):
				close = append(close, e.Code)
			case len(first) > 2 && strings.HasPrefix(e.Code, first+"_"):
				far = append(far, e.Code)
			}
		}
	}
	if len(close) == 0 {
		close = far
	}
	slices.Sort(close)
	return close
}
