// Package assess looks at the two sides of a link that may be made for what would
// stop, slow or spoil it. It reads the servers themselves, and exercises the rights
// that a link needs rather than guess them, in transactions that are rolled back
// and with a slot that is temporary: nothing of it stays.
package assess

import (
	"fmt"
	"slices"
	"strings"

	"github.com/twinspan/twinspan/internal/problem"
)

// The versions that a link supports.
const (
	OldestPrimary   = 10
	OldestSecondary = 14
	NewestTested    = 18
)

// Finding is one thing that a check found. Its code is in the catalogue of
// problems (docs/problems.md).
type Finding struct {
	Code     string           `json:"code"`
	Severity problem.Severity `json:"severity"`
	Object   string           `json:"object,omitempty"`
	Why      string           `json:"why"`
	Remedy   string           `json:"remedy,omitempty"`
}

// mostObjects is how many objects are named one by one under the same code.
const mostObjects = 25

type findings []Finding

func (f *findings) add(severity problem.Severity, code, object, why, remedy string) {
	*f = append(*f, Finding{Code: code, Severity: severity, Object: object, Why: why, Remedy: remedy})
}

func (f *findings) blocksIf(is bool, code, object, why, remedy string) {
	if is {
		f.add(problem.Blocks, code, object, why, remedy)
	}
}

func (f *findings) warnsIf(is bool, code, object, why, remedy string) {
	if is {
		f.add(problem.Warns, code, object, why, remedy)
	}
}

func (f *findings) informsIf(is bool, code, object, why, remedy string) {
	if is {
		f.add(problem.Informs, code, object, why, remedy)
	}
}

// shorten leaves out all but the first objects of each code, and says how many.
func shorten(list []Finding) []Finding {
	count := map[string]int{}
	var short []Finding
	last := map[string]int{}
	for _, f := range list {
		count[f.Code]++
		if count[f.Code] <= mostObjects {
			last[f.Code] = len(short)
			short = append(short, f)
		}
	}
	for code, n := range count {
		if n > mostObjects {
			short[last[code]].Why += fmt.Sprintf("; so are %d others, which are not listed", n-mostObjects)
		}
	}
	return short
}

// Verdict returns nil when nothing in the findings stops a link, given the codes
// of warnings that its creator accepts, and else one problem that names what does. A code
// that does not exist is refused: somebody means another one.
func Verdict(found []Finding, accepted []string) error {
	for _, code := range accepted {
		_, known := problem.Describe(code)
		if !known && !slices.ContainsFunc(found, func(f Finding) bool { return f.Code == code }) { // a peer may be newer
			p := problem.New(problem.Invalid, "accept_unknown", "no check finds anything that is called %q", code).On(code)
			if like := problem.Like(code); len(like) > 0 {
				return p.WithHint("there are: %s", strings.Join(like, ", "))
			}
			return p.WithHint("twinspan check names what it finds")
		}
	}
	var stops []Finding
	for _, severity := range []problem.Severity{problem.Blocks, problem.Warns} {
		for _, f := range found {
			if f.Severity == severity && (severity == problem.Blocks || !slices.Contains(accepted, f.Code)) {
				stops = append(stops, f)
			}
		}
	}
	if len(stops) == 0 {
		return nil
	}
	first := stops[0]
	p := problem.New(problem.Incompatible, first.Code, "%s", first.Why).On(first.Object)
	p.Hint = first.Remedy
	if first.Severity == problem.Warns {
		p.Hint = strings.TrimPrefix(p.Hint+"; accept it with --accept "+first.Code, "; ")
	}
	if len(stops) > 1 {
		others := make([]string, 0, len(stops)-1)
		for _, s := range stops[1:] {
			others = append(others, s.Code)
		}
		p.Text += fmt.Sprintf(" (and %d more: %s; see twinspan check)", len(others), strings.Join(slices.Compact(others), ", "))
	}
	return p
}
