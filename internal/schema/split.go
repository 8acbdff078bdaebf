package schema

import (
	"strconv"
	"strings"
)

// script is the output of pg_restore --verbose, taken apart. Joined again (head,
// then every entry's text) it is the input.
type script struct {
	head    string // everything before the first entry: settings
	entries []scriptEntry
}

// scriptEntry is one entry as pg_restore wrote it (pg_backup_archiver.c,
// _printTocEntry).
type scriptEntry struct {
	text  string // header and all that follows up to the next header
	body  string // text without the header
	id    int    // "TOC entry"
	class uint32 // oid of the catalog that holds the object; may be 0
	oid   uint32 // of the object; may be 0
	needs []int
	name  string
	kind  string
	space string // the schema; "" for none
}

const headerStart = "--\n-- TOC entry "

// split finds the entries. A header counts only outside of quotes and comments
// that span lines, because a function's body can contain anything.
func split(text string) script {
	var s script
	open := -1 // index of the start of the current entry
	closeAt := func(end int) {
		if open < 0 {
			s.head = text[:end]
			return
		}
		s.entries[len(s.entries)-1].finish(text[open:end])
	}
	for i := 0; i < len(text); {
		if (i == 0 || text[i-1] == '\n') && strings.HasPrefix(text[i:], headerStart) {
			if e, length, ok := parseHeader(text[i:]); ok {
				closeAt(i)
				s.entries = append(s.entries, e)
				open = i
				i += length
				continue
			}
		}
		i = skipToken(text, i)
	}
	closeAt(len(text))
	return s
}

func (e *scriptEntry) finish(text string) {
	e.text = text
	_, length, _ := parseHeader(text)
	e.body = text[length:]
}

// parseHeader reads the comment that begins an entry and says how long it is.
func parseHeader(text string) (e scriptEntry, length int, ok bool) {
	rest := text[len("--\n"):]
	length = len("--\n")
	named := false
	for {
		line, after, more := strings.Cut(rest, "\n")
		if !more || !strings.HasPrefix(line, "--") {
			return e, 0, false
		}
		length += len(line) + 1
		rest = after
		switch {
		case line == "--":
			return e, length, named && e.id > 0
		case strings.HasPrefix(line, "-- TOC entry "):
			e.id, e.class, e.oid = parseIdentity(line)
		case !named && strings.HasPrefix(line, "-- Dependencies:"):
			for _, f := range strings.Fields(line[len("-- Dependencies:"):]) {
				if n, err := strconv.Atoi(f); err == nil {
					e.needs = append(e.needs, n)
				}
			}
		case !named && strings.HasPrefix(line, "-- Name: "):
			e.name, e.kind, e.space = parseName(line[len("-- Name: "):])
			named = true
		}
	}
}

// parseIdentity reads "-- TOC entry 3321 (class 2606 OID 16516)".
func parseIdentity(line string) (id int, class, oid uint32) {
	f := strings.Fields(strings.Trim(strings.NewReplacer("(", " ", ")", " ").Replace(line), "- "))
	if len(f) != 7 || f[3] != "class" || f[5] != "OID" {
		return 0, 0, 0
	}
	id, err := strconv.Atoi(f[2])
	c, errClass := strconv.ParseUint(f[4], 10, 32)
	o, errOID := strconv.ParseUint(f[6], 10, 32)
	if err != nil || errClass != nil || errOID != nil {
		return 0, 0, 0
	}
	return id, uint32(c), uint32(o)
}

// parseName reads "t t_pkey; Type: CONSTRAINT; Schema: public; Owner: postgres"
// from the right, for a name may contain anything but a line's end.
func parseName(s string) (name, kind, space string) {
	cut := func(key string) string {
		i := strings.LastIndex(s, key)
		if i < 0 {
			return ""
		}
		value := s[i+len(key):]
		s = s[:i]
		return value
	}
	cut("; Owner: ")
	space = cut("; Schema: ")
	kind = cut("; Type: ")
	if space == "-" {
		space = ""
	}
	return s, kind, space
}

// skipToken returns the index behind the token at i: a quoted thing or a comment
// as a whole, a word as a whole, any other byte by itself. Text that ends within
// a quote is one token to its end (manual, "Lexical Structure").
func skipToken(s string, i int) int {
	c := s[i]
	switch {
	case c == '\'':
		return skipQuoted(s, i, '\'', false)
	case c == '"':
		return skipQuoted(s, i, '"', false)
	case c == '-' && strings.HasPrefix(s[i:], "--"):
		return skipPast(s, i, "\n")
	case c == '/' && strings.HasPrefix(s[i:], "/*"):
		return skipComment(s, i)
	case c == '$':
		if tag, ok := dollarTag(s[i:]); ok {
			return skipPast(s, i+len(tag), tag)
		}
		return i + 1
	case isWordStart(c):
		end := i + 1
		for end < len(s) && (isWordStart(s[end]) || s[end] >= '0' && s[end] <= '9' || s[end] == '$') {
			end++
		}
		// Only a lone e before a quote makes backslashes escapes.
		if end == i+1 && (c == 'e' || c == 'E') && end < len(s) && s[end] == '\'' {
			return skipQuoted(s, end, '\'', true)
		}
		return end
	case c >= '0' && c <= '9':
		// A number may be followed by a word character without being one.
		return i + 1
	}
	return i + 1
}

// skipQuoted passes over a quoted string whose quote is at i. A doubled quote
// needs no care: the second one begins another string right behind.
func skipQuoted(s string, i int, quote byte, escapes bool) int {
	for i++; i < len(s); i++ {
		switch {
		case escapes && s[i] == '\\':
			i++
		case s[i] == quote && escapes && i+1 < len(s) && s[i+1] == quote:
			i++
		case s[i] == quote:
			return i + 1
		}
	}
	return len(s)
}

func skipComment(s string, i int) int {
	depth := 0
	for i < len(s) {
		switch {
		case strings.HasPrefix(s[i:], "/*"):
			depth++
			i += 2
		case strings.HasPrefix(s[i:], "*/"):
			depth--
			i += 2
			if depth == 0 {
				return i
			}
		default:
			i++
		}
	}
	return len(s)
}

func skipPast(s string, i int, end string) int {
	n := strings.Index(s[i:], end)
	if n < 0 {
		return len(s)
	}
	return i + n + len(end)
}

// dollarTag returns the opening of a dollar-quoted string, such as $_$.
func dollarTag(s string) (string, bool) {
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case c == '$':
			return s[:i+1], true
		case !isWordStart(c) && (i == 1 || c < '0' || c > '9'):
			return "", false
		}
	}
	return "", false
}

func isWordStart(c byte) bool {
	return c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= 0x80
}
