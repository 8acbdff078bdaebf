// Package drift judges what differs between the schemas of both sides of a link: what it means
// to the link, and in which words it is told. See docs/design/0013-drift.md.
package drift

import (
	"fmt"
	"slices"
	"strings"

	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/verify"
)

// Weight is what a difference means to the link.
type Weight int

// What differences mean, from nothing to the end of the link's work.
const (
	Harmless Weight = iota // versions of extensions: each server has its own
	Known                  // it was there after the copy, or is accepted
	Unclear                // words whose meaning nobody can compare; the order of columns
	Warned                 // event triggers, commands on which no event trigger sees
	Mends                  // an index, which the link builds
	Passes                 // an owner, who becomes it on the twin, too
	Makes                  // a relation that no event trigger saw
	Serious
)

// Weigh judges one difference.
func Weigh(d verify.SchemaDifference, watch catalog.Watch) Weight {
	drift := Of(d)
	switch {
	case slices.ContainsFunc(watch.Known, drift.Same):
		return Known
	case d.Kind == "extension" && d.State == verify.Differs:
		return Harmless
	case d.Undecided, d.Kind == "column order" && d.State == verify.Differs:
		return Unclear
	case d.Kind == "event trigger", d.Kind == "comment" && strings.HasPrefix(d.Name, "event trigger "):
		return Warned
	case d.Kind == "index" && d.State == verify.Missing && d.Repair != "":
		return Mends
	case ChangesOwner(d) && d.Repair != "":
		return Passes
	case d.State == verify.Missing && (d.Kind == "table" || d.Kind == "materialized view"):
		return Makes
	}
	return Serious
}

// ChangesOwner says whether an object belongs to somebody else on the primary.
func ChangesOwner(d verify.SchemaDifference) bool {
	return d.State == verify.Differs && OwnerOf(d.Primary) != OwnerOf(d.Secondary)
}

// FromCopy says whether a difference that is found by the first comparison can come
// from a definition that was printed by a server of one version and read by another.
func FromCopy(d verify.SchemaDifference) bool { return d.State == verify.Differs && d.Worded }

// Of is a difference as it is stored.
func Of(d verify.SchemaDifference) catalog.Drift {
	return catalog.Drift{Kind: d.Kind, Name: d.Name, State: string(d.State), Primary: d.Primary, Secondary: d.Secondary}
}

// Among says whether a drift is one of the differences.
func Among(list []verify.SchemaDifference, k catalog.Drift) bool {
	return slices.ContainsFunc(list, func(d verify.SchemaDifference) bool { return Of(d).Same(k) })
}

// Problem names what differs, and what is to be done.
func Problem(link string, list []verify.SchemaDifference, at lsn.LSN) *problem.Error {
	d := list[0]
	p := problem.New(problem.Diverged, "schema_drifted", "at position %s the schemas differ: %s", at, Sentence(list)).On(d.Name)
	then := fmt.Sprintf("then: twinspan link resume %s", link)
	leave := fmt.Sprintf("; or leave it so: twinspan link set %s --accept schema_drifted", link)
	switch {
	case ChangesOwner(d) && d.Repair != "":
		return p.WithHint("give the command once more on the primary, where REASSIGN OWNED is not seen by event triggers: %s; %s%s", d.Repair, then, leave)
	case d.State == verify.Missing && d.Repair != "":
		return p.WithHint("on the secondary (%s): %s; %s%s", ThroughGate, d.Repair, then, leave)
	case d.State == verify.Missing:
		return p.WithHint("drop it on the primary and create it by a command of its own, or create it on the secondary (%s) as it is on the primary; %s%s", ThroughGate, then, leave)
	case d.State == verify.Extra:
		return p.WithHint("drop it on the secondary (%s); %s%s", ThroughGate, then, leave)
	}
	return p.WithHint("make the same change on the secondary (%s), or undo it on the primary; %s%s", ThroughGate, then, leave)
}

// ThroughGate is how a superuser's session passes the gate of a secondary.
const ThroughGate = "SET session_replication_role = replica; SET twinspan.pass_gate = on; SET default_transaction_read_only = off"

// MostWords bounds what is quoted of a definition.
const MostWords = 160

// Sentence says what differs: the first object in full, of others how many.
func Sentence(list []verify.SchemaDifference) string {
	d := list[0]
	text := d.Kind + " " + d.Name
	switch d.State {
	case verify.Missing:
		text += " is missing on the twin"
	case verify.Extra:
		text += " is on the twin alone"
	default:
		a, b := onlyIn(d.Primary, d.Secondary), onlyIn(d.Secondary, d.Primary)
		text += fmt.Sprintf(" (primary: %s; twin: %s)", Cut(a, MostWords), Cut(b, MostWords))
	}
	if len(list) > 1 {
		names := make([]string, 0, 4)
		for _, other := range list[1:min(len(list), 4)] {
			names = append(names, other.Kind+" "+other.Name)
		}
		text += fmt.Sprintf("; and %d more: %s", len(list)-1, strings.Join(names, ", "))
		if len(list) > 4 {
			text += ", ..."
		}
	}
	return text
}

// onlyIn returns the parts of a definition that another has not.
func onlyIn(a, b string) string {
	there := strings.Split(b, ", ")
	var only []string
	for _, part := range strings.Split(a, ", ") {
		if !slices.Contains(there, part) {
			only = append(only, part)
		}
	}
	if len(only) == 0 {
		return "nothing of it"
	}
	return strings.Join(only, ", ")
}

// Cut makes one line of a text, of so many characters at most.
func Cut(s string, most int) string {
	s = strings.Join(strings.Fields(s), " ")
	if r := []rune(s); len(r) > most {
		return string(r[:most]) + "..."
	}
	return s
}

// OwnerOf returns the owner that a definition names, "" when it names none.
func OwnerOf(detail string) string {
	owner, ok := strings.CutPrefix(detail, "owner ")
	if !ok {
		return ""
	}
	owner, _, _ = strings.Cut(owner, ", ")
	return owner
}
