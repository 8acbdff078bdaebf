package ddl

import "strings"

// token is a piece of SQL text that means something: a word, a quoted name, a
// literal or a single other character. Blanks and comments are none.
type token struct {
	kind       kind
	start, end int    // in the text
	word       string // of a word in lower case; of a quoted name its name; else the text
	depth      int    // of parentheses around it
}

type kind uint8

const (
	word    kind = iota // a keyword or a name that is not quoted
	quoted              // a name in double quotes
	literal             // a string, of any form
	other               // a digit, an operator's character, punctuation
)

// is says whether the token is one of the keywords.
func (t token) is(words ...string) bool {
	if t.kind != word {
		return false
	}
	for _, w := range words {
		if t.word == w {
			return true
		}
	}
	return false
}

// name says whether the token can be a name.
func (t token) name() bool { return t.kind == word || t.kind == quoted }

// scan takes a statement apart (manual, "Lexical Structure"). Text that ends within
// a quote is one token to its end. conforming is standard_conforming_strings.
func scan(s string, conforming bool) []token {
	var list []token
	depth := 0
	for i := 0; i < len(s); {
		end, k := next(s, i, conforming)
		t := token{kind: k, start: i, end: end, word: s[i:end], depth: depth}
		switch {
		case k == blank:
			i = end
			continue
		case k == word:
			t.word = lower(t.word)
		case k == quoted:
			t.word = strings.ReplaceAll(strings.Trim(t.word, `"`), `""`, `"`)
		case t.word == "(":
			depth++
		case t.word == ")":
			depth--
			t.depth = depth
		}
		list = append(list, t)
		i = end
	}
	return list
}

// blank marks what is no token.
const blank kind = 255

func next(s string, i int, conforming bool) (end int, k kind) {
	switch c := s[i]; {
	case c == ' ' || c >= '\t' && c <= '\r':
		return i + 1, blank
	case strings.HasPrefix(s[i:], "--"):
		if n := strings.IndexByte(s[i:], '\n'); n >= 0 {
			return i + n, blank
		}
		return len(s), blank
	case strings.HasPrefix(s[i:], "/*"):
		return commentEnd(s, i), blank
	case c == '\'':
		return quoteEnd(s, i, '\'', !conforming), literal
	case c == '"':
		return quoteEnd(s, i, '"', false), quoted
	case c == '$':
		if tag, ok := dollarTag(s[i:]); ok {
			if n := strings.Index(s[i+len(tag):], tag); n >= 0 {
				return i + n + 2*len(tag), literal
			}
			return len(s), literal
		}
	case (c == 'e' || c == 'E') && strings.HasPrefix(s[i+1:], "'"):
		return quoteEnd(s, i+1, '\'', true), literal
	case wordStart(c):
		for i++; i < len(s) && (wordStart(s[i]) || s[i] >= '0' && s[i] <= '9' || s[i] == '$'); i++ {
		}
		return i, word
	}
	return i + 1, other
}

func quoteEnd(s string, i int, quote byte, escapes bool) int {
	for i++; i < len(s); i++ {
		switch {
		case escapes && s[i] == '\\':
			i++
		case s[i] != quote:
		case i+1 < len(s) && s[i+1] == quote:
			i++
		default:
			return i + 1
		}
	}
	return len(s)
}

func commentEnd(s string, i int) int {
	for depth := 0; i < len(s); {
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

// dollarTag returns the opening of a dollar-quoted string.
func dollarTag(s string) (string, bool) {
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case c == '$':
			return s[:i+1], true
		case !wordStart(c) && (i == 1 || c < '0' || c > '9'):
			return "", false
		}
	}
	return "", false
}

func wordStart(c byte) bool {
	return c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= 0x80
}

// lower folds what PostgreSQL folds in every encoding: the letters of ASCII.
func lower(s string) string {
	for i := range len(s) {
		if s[i] >= 'A' && s[i] <= 'Z' {
			b := []byte(s)
			for ; i < len(b); i++ {
				if b[i] >= 'A' && b[i] <= 'Z' {
					b[i] += 'a' - 'A'
				}
			}
			return string(b)
		}
	}
	return s
}
