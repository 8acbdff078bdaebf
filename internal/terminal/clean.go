package terminal

import (
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"

	"golang.org/x/term"
)

// Out returns what lets only text through to a terminal: names and messages come from
// databases, and somebody may have put sequences in them that a terminal obeys. Other
// streams stay as they are.
func Out(w io.Writer) io.Writer {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return w
	}
	return &cleaning{f}
}

type cleaning struct{ file *os.File }

// Write implements io.Writer.
func (c *cleaning) Write(p []byte) (int, error) {
	if _, err := io.WriteString(c.file, clean(string(p), "\n\t")); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Clean shows what a terminal would obey, line ends too, as escapes.
func Clean(s string) string { return clean(s, "") }

func clean(s, but string) string {
	obeyed := func(r rune) bool { return (unicode.IsControl(r) || bidirectional(r)) && !strings.ContainsRune(but, r) }
	if strings.IndexFunc(s, obeyed) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		switch {
		case !obeyed(r):
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r < 0x100:
			fmt.Fprintf(&b, `\x%02x`, r)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

// bidirectional says whether a character changes the direction in which others are shown.
func bidirectional(r rune) bool {
	return r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069
}

// Width is how many columns of a terminal a text takes.
func Width(s string) (columns int) {
	for _, r := range s {
		columns += width(r)
	}
	return columns
}

// width is a character's: none of marks that join the one before, two of what East Asian
// fonts draw wide (Unicode, annex 11, in blocks).
func width(r rune) int {
	switch {
	case unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf):
		return 0
	case r >= 0x1100 && r <= 0x115f, r >= 0x2e80 && r <= 0xa4cf, r >= 0xac00 && r <= 0xd7a3, r >= 0xf900 && r <= 0xfaff, r >= 0xfe30 && r <= 0xfe6f,
		r >= 0xff00 && r <= 0xff60, r >= 0xffe0 && r <= 0xffe6, r >= 0x1f300 && r <= 0x1faff, r >= 0x20000 && r <= 0x3fffd:
		return 2
	}
	return 1
}
