package schema

import (
	"strings"

	"github.com/twinspan/twinspan/internal/pg"
)

// option is an option of a statement that pg_dump has written.
type option struct {
	name   string // as it is written, with the "toast." before those of the TOAST table
	column bool   // of a column: ALTER COLUMN ... SET (...)
}

// word is a token of a statement, and where it begins.
type word struct {
	text  string
	start int
}

// words splits SQL into tokens without blanks and comments.
func words(sql string) []word {
	var list []word
	for i := 0; i < len(sql); {
		end := skipToken(sql, i)
		switch text := sql[i:end]; {
		case strings.TrimSpace(text) == "", strings.HasPrefix(text, "--"), strings.HasPrefix(text, "/*"):
		default:
			list = append(list, word{text, i})
		}
		i = end
	}
	return list
}

// withoutOptions takes options out of the lists WITH (...) and SET (...) of
// statements. A statement that sets nothing else goes, too.
func withoutOptions(sql string, drop func(option) bool) string {
	list := words(sql)
	var b strings.Builder
	done, statement := 0, 0 // what is copied; where the statement begins
	for i := 0; i < len(list); i++ {
		switch {
		case list[i].text == ";":
			statement = list[i].start + 1
			continue
		case list[i].text != "(" || i == 0:
			continue
		}
		before := strings.ToUpper(list[i-1].text)
		if before != "SET" && before != "WITH" {
			continue
		}
		column := before == "SET" && i >= 4 && strings.EqualFold(list[i-3].text, "COLUMN") && strings.EqualFold(list[i-4].text, "ALTER")
		items, end := itemsOf(sql, list, i)
		kept := make([]string, 0, len(items))
		for _, item := range items {
			if !drop(option{item.name, column}) {
				kept = append(kept, item.text)
			}
		}
		if end == len(list) || len(kept) == len(items) {
			continue
		}
		from, to := list[i].start+1, list[end].start
		switch {
		case len(kept) > 0:
		case before == "WITH":
			from, to = list[i-1].start, to+1
		case end+1 < len(list) && list[end+1].text == ";":
			from, to = statement, list[end+1].start+1
		default:
			from, to = statement, to+1
		}
		b.WriteString(sql[done:from])
		b.WriteString(strings.Join(kept, ", "))
		done, i = to, end
		if from == statement {
			statement = to
			if i+1 < len(list) && list[i+1].text == ";" {
				i++
			}
		}
	}
	if done == 0 {
		return sql
	}
	b.WriteString(sql[done:])
	return b.String()
}

// item is one of a list of options.
type item struct{ name, text string }

// itemsOf reads the list whose parenthesis is at place open, and returns the place of
// the closing one, which is behind the last where there is none.
func itemsOf(sql string, list []word, open int) (items []item, end int) {
	depth, start, named := 0, list[open].start+1, false
	var name strings.Builder
	for end = open; end < len(list); end++ {
		w := list[end]
		switch {
		case w.text == "(":
			depth++
			continue
		case w.text == ")":
			depth--
		}
		if depth == 0 || depth == 1 && w.text == "," {
			items = append(items, item{name.String(), strings.TrimSpace(sql[start:w.start])})
			name.Reset()
			start, named = w.start+1, false
			if depth == 0 {
				return items, end
			}
			continue
		}
		if w.text == "=" {
			named = true
		}
		if !named {
			name.WriteString(strings.Trim(w.text, `"`))
		}
	}
	return items, end
}

// cleansed is an entry's text without the options of columns that are a server's own.
// An older pg_dump, which does not know that they are, writes them as if somebody
// had set them.
func cleansed(e Entry) Text {
	switch e.Kind {
	case "TABLE", "FOREIGN TABLE", "MATERIALIZED VIEW", "VIEW", "INDEX":
	default:
		return e.SQL
	}
	known := map[string]bool{}
	for _, of := range []pg.OptionsOf{pg.ColumnOptions, pg.OperatorOptions} {
		for _, name := range pg.KnownOptions(of) {
			known[name] = true
		}
	}
	return Text(withoutOptions(string(e.SQL), func(o option) bool { return o.column && !known[o.name] }))
}

// withoutUnknown takes out of an entry the option that the target's server refused to
// know, where it only tunes, and returns its name; "" where there is none.
func withoutUnknown(e Entry, err error) (Entry, string) {
	var names []string
	withoutOptions(string(e.SQL), func(o option) bool {
		names = append(names, strings.TrimPrefix(o.name, "toast."))
		return false
	})
	name, found := pg.UnknownOption(err, names)
	if !found || !pg.Tuning(name) {
		return e, ""
	}
	e.SQL = Text(withoutOptions(string(e.SQL), func(o option) bool { return strings.TrimPrefix(o.name, "toast.") == name }))
	return e, name
}

// withoutOwner takes out of an entry the owner whom the target's server refused because he
// is no superuser there: event triggers and foreign-data wrappers have no others
// (event_trigger.c, foreigncmds.c). The object stays the agent's role's.
func withoutOwner(e Entry, err error) (Entry, bool) {
	if e.Kind != kindEvent && e.Kind != kindWrapper || pg.SQLState(err) != "42501" {
		return e, false
	}
	sql := string(e.SQL)
	start := strings.LastIndex(sql, "\nALTER "+e.Kind+" ")
	if start < 0 {
		return e, false
	}
	statement, rest, _ := strings.Cut(sql[start+1:], ";\n")
	if !strings.Contains(statement, " OWNER TO ") {
		return e, false
	}
	e.SQL = Text(sql[:start+1] + rest)
	return e, true
}
