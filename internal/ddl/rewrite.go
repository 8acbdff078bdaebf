package ddl

import (
	"slices"
	"strings"

	"github.com/twinspan/twinspan/internal/sqlname"
)

// rewrite returns the text to run on the twin: the client's, with what has another
// meaning there taken out. "" means that nothing is left to do. versioned says that this
// server has the version of the extension that the change is about.
func (c *Change) rewrite(versioned bool) string {
	e := editor{text: string(c.SQL), tokens: scan(string(c.SQL), c.Conforming)}
	switch c.Tag {
	case "CREATE INDEX", "DROP INDEX":
		e.concurrently()
	case "ALTER TABLE":
		e.detach()
	}
	if strings.HasPrefix(c.Tag, "DROP ") {
		e.ifExists(c.Tag)
	}
	if c.On != "" {
		e.granted(string(c.On))
	}
	if c.Bound != "" {
		e.bound(string(c.Bound))
	}
	if versioned && (c.Tag == "CREATE EXTENSION" || c.Updates()) {
		e.version(string(c.Version))
	}
	if e.allInTablespace() || c.Config != nil && !e.roleSettings() {
		return ""
	}
	e.standIns(c.Tag, string(c.Role), string(c.Session))
	if len(c.Tablespaces) > 0 && !e.tablespaces(c.Tag, c.Tablespaces) {
		return ""
	}
	return e.result()
}

// editor replaces tokens of a statement.
type editor struct {
	text   string
	tokens []token
	cuts   []cut
}

type cut struct {
	start, end int
	with       string
}

func (e *editor) remove(from, to int) {
	e.cuts = append(e.cuts, cut{e.tokens[from].start, e.tokens[to].end, ""})
}

func (e *editor) result() string {
	slices.SortFunc(e.cuts, func(a, b cut) int { return a.start - b.start })
	var out strings.Builder
	at := 0
	for _, c := range e.cuts {
		out.WriteString(e.text[at:c.start])
		out.WriteString(c.with)
		at = c.end
	}
	out.WriteString(e.text[at:])
	return strings.TrimSpace(out.String())
}

// granted replaces on what a GRANT or REVOKE is.
func (e *editor) granted(on string) {
	first := slices.IndexFunc(e.tokens, func(t token) bool { return t.depth == 0 && t.is("on") })
	if first < 0 {
		return
	}
	last := first + slices.IndexFunc(e.tokens[first:], func(t token) bool { return t.depth == 0 && t.is("to", "from") })
	if last > first {
		e.cuts = append(e.cuts, cut{e.tokens[first].end, e.tokens[last].start, " " + on + " "})
	}
}

// bound replaces the bound of a partition: FOR VALUES and one or two lists in
// parentheses.
func (e *editor) bound(bound string) {
	for i := 0; i+2 < len(e.tokens); i++ {
		t := e.tokens[i]
		if t.depth > 0 || !t.is("for") || !e.tokens[i+1].is("values") {
			continue
		}
		lists := 1
		if e.tokens[i+2].is("from") {
			lists = 2
		}
		for _, close := range e.tokens[i:] {
			if close.depth == 0 && close.kind == other && close.word == ")" {
				if lists--; lists == 0 {
					e.cuts = append(e.cuts, cut{t.start, close.end, bound})
					return
				}
			}
		}
		return
	}
}

// version makes an extension in the version that the primary has, or brings it there,
// whatever is the default of this server.
func (e *editor) version(version string) {
	word := "VERSION"
	for i, t := range e.tokens {
		if i < 3 {
			continue
		}
		if t.is("update") {
			word = "TO"
		}
		if t.is("version", "to") && !e.tokens[i-1].is("schema") && i+1 < len(e.tokens) {
			e.cuts = append(e.cuts, cut{t.start, e.tokens[i+1].end, word + " " + sqlname.Literal(version)})
			return
		}
	}
	end := e.tokens[len(e.tokens)-1].end
	if e.tokens[len(e.tokens)-1].word == ";" {
		end = e.tokens[len(e.tokens)-1].start
	}
	e.cuts = append(e.cuts, cut{end, end, " " + word + " " + sqlname.Literal(version)})
}

// concurrently makes an index, or drops one, within the transaction: it is not the
// application that has to wait here, and readers of the table do not wait for the
// making of an index.
func (e *editor) concurrently() {
	for i, t := range e.tokens {
		if t.depth == 0 && t.is("concurrently") && i > 0 && e.tokens[i-1].is("index") {
			e.remove(i, i)
			return
		}
	}
}

// ifExists forgives a DROP of what is not there: an index whose making had failed on
// the primary never was here, nor was a table that was made without an event. That
// both sides are the same afterwards is seen by comparing them.
func (e *editor) ifExists(tag string) {
	words := strings.Fields(strings.ToLower(tag))
	if len(e.tokens) <= len(words) || words[1] == "owned" {
		return
	}
	at := 1
	if e.tokens[1].is("procedural") { // DROP PROCEDURAL LANGUAGE
		at++
	}
	for _, w := range words[1:] {
		if !e.tokens[at].is(w) {
			return
		}
		at++
	}
	last := e.tokens[at-1]
	if at < len(e.tokens) && e.tokens[at].is("concurrently") {
		at++
	}
	if at < len(e.tokens) && !e.tokens[at].is("if") {
		e.cuts = append(e.cuts, cut{last.end, last.end, " IF EXISTS"})
	}
}

// standIns names the roles that CURRENT_USER and SESSION_USER stood for: here the session is
// the agent's, and so may be the rights.
func (e *editor) standIns(tag, current, session string) {
	for i, t := range e.tokens {
		name := session
		switch {
		case t.is("current_user", "current_role"), t.is("user") && strings.HasSuffix(tag, " USER MAPPING") && i > 0 && e.tokens[i-1].is("for"):
			name = current
		case !t.is("session_user"):
			continue
		}
		if name != "" && t.depth == 0 && namesRole(tag, e.tokens[:i]) {
			e.cuts = append(e.cuts, cut{t.start, t.end, sqlname.Quote(name)})
		}
	}
}

// namesRole says whether what follows the tokens of a command is the name of a role, and no expression.
func namesRole(tag string, before []token) bool {
	switch tag {
	case "GRANT", "REVOKE", "ALTER DEFAULT PRIVILEGES", "CREATE POLICY", "ALTER POLICY", "CREATE USER MAPPING", "ALTER USER MAPPING", "DROP USER MAPPING":
		return afterRoleWord(before)
	}
	last := len(before) - 1
	return last > 0 && (before[last].is("to") && before[last-1].is("owner") || tag == "CREATE SCHEMA" && before[last].is("authorization"))
}

// single says whether the text is one statement. The fence's EXECUTE would take
// several; bodies that begin with BEGIN ATOMIC hold semicolons of their own.
func (e *editor) single() bool {
	for i, t := range e.tokens {
		if t.is("atomic") {
			return true
		}
		if t.kind == other && t.word == ";" && t.depth == 0 && i < len(e.tokens)-1 {
			return false
		}
	}
	return true
}

// closed takes from a statement what follows it: empty ones, as in "CREATE TABLE t ();;", are several to whoever
// counts semicolons, and none to the server.
func closed(text string, conforming bool) string {
	tokens := scan(text, conforming)
	last := len(tokens) - 1
	for last >= 0 && tokens[last].kind == other && tokens[last].word == ";" {
		last--
	}
	if last < 0 || last == len(tokens)-1 {
		return text
	}
	return text[:tokens[last].end]
}

// detach makes DETACH PARTITION ... CONCURRENTLY and ... FINALIZE plain.
func (e *editor) detach() {
	for i, t := range e.tokens {
		if t.depth > 0 || !t.is("detach") || i+1 >= len(e.tokens) || !e.tokens[i+1].is("partition") {
			continue
		}
		if last := len(e.tokens) - 1; last > i+2 {
			if e.tokens[last].word == ";" {
				last--
			}
			if e.tokens[last].is("concurrently", "finalize") && last > i+2 {
				e.remove(last, last)
			}
		}
		return
	}
}

// allInTablespace says whether the statement moves whatever lies in a tablespace.
func (e *editor) allInTablespace() bool {
	for i := 0; i+2 < len(e.tokens); i++ {
		if e.tokens[i].depth == 0 && e.tokens[i].is("all") && e.tokens[i+1].is("in") && e.tokens[i+2].is("tablespace") {
			return true
		}
	}
	return false
}

// tablespaces takes out where something is to lie: that is each server's own. It
// returns false when nothing else was asked for.
func (e *editor) tablespaces(tag string, names []Raw) bool {
	for i := 0; i+1 < len(e.tokens); i++ {
		t, name := e.tokens[i], e.tokens[i+1]
		if !t.is("tablespace") || !name.name() || !slices.Contains(names, Raw(name.word)) {
			continue
		}
		if i >= 1 && e.tokens[i-1].is("set") && strings.HasPrefix(tag, "ALTER") {
			switch {
			case i >= 2 && e.tokens[i-2].word == ",":
				e.remove(i-2, i+1)
			case i+2 < len(e.tokens) && e.tokens[i+2].word == ",":
				e.remove(i-1, i+2)
			default:
				return false
			}
			continue
		}
		from := i
		if i >= 2 && e.tokens[i-1].is("index") && e.tokens[i-2].is("using") {
			from = i - 2
		}
		e.remove(from, i+1)
		i++
	}
	return true
}

// Updates says whether an extension gets another version.
func (c *Change) Updates() bool {
	t := scan(string(c.SQL), c.Conforming)
	return c.Tag == "ALTER EXTENSION" && c.Version != "" && len(t) > 3 && t[3].is("update")
}

// RenamedSchemas says which schemas get another name.
func (c *Change) RenamedSchemas() map[string]string {
	t := scan(string(c.SQL), c.Conforming)
	if c.Tag != "ALTER SCHEMA" || len(t) < 6 || !t[3].is("rename") || !t[4].is("to") {
		return nil
	}
	return map[string]string{t[2].word: t[5].word}
}

// NamedRoles lists the roles that must exist for the change to be made: whoever
// made it, and those it names.
func (c *Change) NamedRoles() []string {
	list := []string{string(c.Role)}
	tokens := scan(string(c.SQL), c.Conforming)
	for i, t := range tokens {
		if session := string(c.Session); t.is("session_user") && session != "" && !slices.Contains(list, session) && namesRole(c.Tag, tokens[:i]) {
			list = append(list, session)
			continue
		}
		if !t.name() || i == 0 || !slices.Contains(c.Roles, Raw(t.word)) || slices.Contains(list, t.word) {
			continue
		}
		if afterRoleWord(tokens[:i]) {
			list = append(list, t.word)
		}
	}
	return list
}

// afterRoleWord says whether a name that follows the tokens can be a role's: it
// stands in a list behind TO, FROM, BY, AUTHORIZATION, ROLE, USER or FOR.
func afterRoleWord(tokens []token) bool {
	for i := len(tokens) - 1; i >= 0; i-- {
		t := tokens[i]
		switch {
		case t.is("to", "from", "by", "authorization", "role", "user", "for", "group"):
			return true
		case t.word == "," && i > 0 && tokens[i-1].name():
			i--
		default:
			return false
		}
	}
	return false
}

// roleSettings takes out SET and RESET of role and session_authorization, which no function with its owner's rights, as
// the fence is, can say of another (guc.c, GUC_NOT_WHILE_SEC_REST): the settings are the primary's afterwards. It returns
// false when an ALTER asked for nothing else.
func (e *editor) roleSettings() bool {
	left := 0 // behind the function's name and parameters
	for i := e.named(); i < len(e.tokens); i++ {
		t := e.tokens[i]
		at := i + 1
		switch {
		case t.depth > 0 || t.word == ";":
			continue
		case !t.is("set", "reset") || at >= len(e.tokens):
		case e.tokens[at].is("role", "session_authorization"):
			at++
		case e.tokens[at].is("session") && at+1 < len(e.tokens) && e.tokens[at+1].is("authorization"):
			at += 2
		default:
			at = i + 1
		}
		if at == i+1 { // something else
			left++
			continue
		}
		if t.is("set") {
			switch {
			case at+1 < len(e.tokens) && e.tokens[at].is("from"):
				at += 2
			case at+1 < len(e.tokens) && (e.tokens[at].is("to") || e.tokens[at].word == "="):
				at += 2
			default:
				at++
			}
		}
		at = min(at, len(e.tokens))
		e.remove(i, at-1)
		i = at - 1
	}
	return left > 0
}

// named returns where the name of a function and its parameters are over, in CREATE and ALTER.
func (e *editor) named() int {
	i := slices.IndexFunc(e.tokens, func(t token) bool { return t.is("function", "procedure", "routine") }) + 2
	for i+1 < len(e.tokens) && e.tokens[i].word == "." {
		i += 2
	}
	if i < len(e.tokens) && e.tokens[i].word == "(" {
		i += slices.IndexFunc(e.tokens[i:], func(t token) bool { return t.depth == 0 && t.word == ")" }) + 1
	}
	return i
}
