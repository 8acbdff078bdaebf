// Package syncrep steers a server's synchronous replication for links: which of the
// sessions that read its log a commit waits for, and in which databases.
//
// PostgreSQL waits by instance: a name in synchronous_standby_names holds up the
// commits of every database (src/backend/replication/syncrep.c). What other
// databases would suffer by it is taken from them by their own setting of
// synchronous_commit.
package syncrep

import (
	"slices"
	"strconv"
	"strings"

	"github.com/twinspan/twinspan/internal/problem"
)

// Prefix begins the application_name of every session of an agent, and so the
// members of Names that belong to links.
const Prefix = "twinspan/"

// Names is a value of synchronous_standby_names. The zero value waits for nobody.
type Names struct {
	// Any asks for any Count of the members; else the first Count that are connected.
	Any     bool
	Count   int
	Members []string // compared without regard to case; * stands for everybody
}

// Parse reads a value (syncrep_gram.y, syncrep_scanner.l).
func Parse(text string) (Names, error) {
	p := parser{rest: text}
	n, ok := p.config()
	if !ok {
		return Names{}, problem.New(problem.Invalid, "sync_names_unreadable", "the value of synchronous_standby_names cannot be read").
			On("synchronous_standby_names")
	}
	return n, nil
}

// String writes the value as the server reads it.
func (n Names) String() string {
	if len(n.Members) == 0 {
		return ""
	}
	quoted := make([]string, len(n.Members))
	for i, m := range n.Members {
		quoted[i] = `"` + strings.ReplaceAll(m, `"`, `""`) + `"`
		if m == "*" {
			quoted[i] = m
		}
	}
	method := "FIRST "
	if n.Any {
		method = "ANY "
	}
	return method + strconv.Itoa(n.Count) + " (" + strings.Join(quoted, ", ") + ")"
}

// all says whether every member has to answer.
func (n Names) all() bool {
	return n.Count >= len(n.Members) && !slices.Contains(n.Members, "*")
}

func (n Names) index(member string) int {
	return slices.IndexFunc(n.Members, func(m string) bool { return strings.EqualFold(m, member) })
}

// Has says whether the member is named.
func (n Names) Has(member string) bool { return n.index(member) >= 0 }

// Requires says whether no commit returns without the member's answer.
func (n Names) Requires(member string) bool { return n.Has(member) && n.all() }

// With returns the value that asks for the member beside those that were asked for
// before. PostgreSQL has no word for "one of these, and that one": unless all were
// asked for, adding one would let it, or them, be left out.
func (n Names) With(member string) (Names, error) {
	if n.Requires(member) {
		return n, nil
	}
	if !n.all() || n.Has(member) {
		return n, problem.New(problem.Conflict, "sync_names_taken",
			"synchronous_standby_names asks for %d of %d standbys; the twin cannot be asked for beside them", n.Count, len(n.Members)).
			On("synchronous_standby_names").
			WithHint("let it ask for all that it names, or for none, or use the link in mode async")
	}
	return Names{Count: len(n.Members) + 1, Members: append([]string{member}, n.Members...)}, nil
}

// Without returns the value that no longer asks for the member.
func (n Names) Without(member string) Names {
	i := n.index(member)
	if i < 0 {
		return n
	}
	left := Names{Any: n.Any, Count: n.Count, Members: slices.Delete(slices.Clone(n.Members), i, i+1)}
	if n.all() {
		left.Count = n.Count - 1
	}
	left.Count = min(left.Count, len(left.Members))
	if len(left.Members) == 0 {
		return Names{}
	}
	return left
}

// Links says whether all members are links' twins, and Others whether any is
// something else.
func (n Names) Links() bool {
	return len(n.Members) > 0 && !slices.ContainsFunc(n.Members, func(m string) bool { return !isLink(m) })
}

// Others lists the members that are not links' twins.
func (n Names) Others() []string {
	return slices.DeleteFunc(slices.Clone(n.Members), isLink)
}

func isLink(member string) bool {
	return len(member) > len(Prefix) && strings.EqualFold(member[:len(Prefix)], Prefix)
}

// equal compares meanings.
func (n Names) equal(m Names) bool {
	if n.Count != m.Count || len(n.Members) != len(m.Members) || n.Any != m.Any && !(n.all() && m.all()) {
		return false
	}
	for i := range n.Members {
		if !strings.EqualFold(n.Members[i], m.Members[i]) {
			return false
		}
	}
	return true
}

type parser struct{ rest string }

func (p *parser) config() (Names, bool) {
	if p.token("") == "" {
		return Names{}, p.rest == ""
	}
	n := Names{Count: 1}
	switch word, bare := p.peek(); {
	case bare && strings.EqualFold(word, "ANY"), bare && strings.EqualFold(word, "FIRST"):
		n.Any = strings.EqualFold(word, "ANY")
		p.name()
		count, _ := p.peek()
		p.name()
		return p.counted(n, count)
	case bare && isNumber(word):
		before := p.rest
		p.name()
		if p.token("(") == "(" {
			p.rest = before
			p.name()
			return p.counted(n, word)
		}
		p.rest = before
	}
	var ok bool
	n.Members, ok = p.list()
	return n, ok && p.token("") == "" && p.rest == ""
}

// counted reads the list in parentheses behind a number.
func (p *parser) counted(n Names, count string) (Names, bool) {
	var err error
	if n.Count, err = strconv.Atoi(count); err != nil || n.Count < 1 || p.token("(") != "(" {
		return n, false
	}
	p.rest = p.rest[1:]
	var ok bool
	if n.Members, ok = p.list(); !ok || p.token(")") != ")" {
		return n, false
	}
	p.rest = p.rest[1:]
	return n, p.token("") == "" && p.rest == ""
}

func (p *parser) list() (members []string, ok bool) {
	for {
		word, bare := p.peek()
		if word == "" || bare && (strings.EqualFold(word, "ANY") || strings.EqualFold(word, "FIRST")) {
			return nil, false
		}
		p.name()
		members = append(members, word)
		if p.token(",") != "," {
			return members, true
		}
		p.rest = p.rest[1:]
	}
}

// token passes over space and returns the next character if it is the wanted one,
// or, wanting none, whatever it is.
func (p *parser) token(want string) string {
	p.rest = strings.TrimLeft(p.rest, " \t\n\r\f\v")
	if p.rest == "" || want != "" && p.rest[:1] != want {
		return ""
	}
	return p.rest[:1]
}

// peek returns the next name and whether it is without quotes, "" when none is
// there. name passes over it.
func (p *parser) peek() (word string, bare bool) {
	copy := *p
	return copy.take()
}

func (p *parser) name() { p.take() }

func (p *parser) take() (word string, bare bool) {
	switch first := p.token(""); {
	case first == "":
		return "", false
	case first == "*":
		p.rest = p.rest[1:]
		return "*", true
	case first == `"`:
		return p.quoted(), false
	}
	n := 0
	for n < len(p.rest) && inName(p.rest[n]) {
		n++
	}
	word = p.rest[:n]
	if n > 0 && isDigit(word[0]) && !isNumber(word) || strings.HasPrefix(word, "$") {
		return "", false // the scanner takes them for junk
	}
	p.rest = p.rest[n:]
	return word, true
}

func (p *parser) quoted() string {
	var b strings.Builder
	for s := p.rest[1:]; ; {
		before, after, found := strings.Cut(s, `"`)
		if !found {
			return ""
		}
		b.WriteString(before)
		if !strings.HasPrefix(after, `"`) {
			p.rest = after
			return b.String()
		}
		b.WriteByte('"')
		s = after[1:]
	}
}

func inName(c byte) bool {
	return isDigit(c) || c == '_' || c == '$' || c|0x20 >= 'a' && c|0x20 <= 'z' || c >= 0x80
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func isNumber(s string) bool {
	return s != "" && strings.TrimLeft(s, "0123456789") == ""
}
