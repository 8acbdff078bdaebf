package terminal

import (
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

// Screen redraws a block of lines in place, on a terminal. It is used by one
// goroutine.
type Screen struct {
	file    *os.File
	lines   int // of the block that stands there now
	columns int // of the terminal when it was drawn
}

// Of returns a screen when stream is a terminal, also as Out has it, and nil otherwise.
func Of(stream any) *Screen {
	if o, ok := stream.(*cleaning); ok {
		return &Screen{file: o.file}
	}
	f, ok := stream.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return nil
	}
	return &Screen{file: f}
}

// Draw replaces the block. Lines are cut to the width, because a line that wraps
// would spoil the count of those to go back over.
func (s *Screen) Draw(block []string) {
	var b strings.Builder
	columns, rows := s.size()
	if s.lines > 0 && columns < s.columns {
		s.lines = 0 // its lines may have been wrapped: it stays as it is
	}
	s.columns = columns
	if s.lines > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", s.lines)
	}
	block = Fit(block, max(1, rows-1))
	for _, text := range block {
		b.WriteString("\r\x1b[2K" + Cut(Clean(text), max(1, columns-1)) + "\n")
	}
	// What the last block had more is emptied, and the cursor goes back to the end.
	if more := s.lines - len(block); more > 0 {
		b.WriteString(strings.Repeat("\x1b[2K\n", more) + fmt.Sprintf("\x1b[%dA", more))
	}
	s.lines = len(block)
	io.WriteString(s.file, b.String())
}

// size is the terminal's, in columns and rows.
func (s *Screen) size() (columns, rows int) {
	columns, rows, err := term.GetSize(int(s.file.Fd()))
	if err != nil || columns < 1 { // some terminals do not know
		columns = 80
	}
	if err != nil || rows < 1 {
		rows = 24
	}
	return columns, rows
}

// Fit shortens a block to a number of lines, and says how many are left out: lines that
// have scrolled away cannot be gone back to. The last line stays.
func Fit(block []string, lines int) []string {
	if len(block) <= lines {
		return block
	}
	last := block[len(block)-1]
	kept := append([]string{}, block[:lines-1]...)
	return append(kept, fmt.Sprintf("… %d more lines; %s", len(block)-lines, strings.TrimSpace(last)))
}

// Cut shortens a line to a number of columns, one at least, and shows that it did.
func Cut(s string, columns int) string {
	if Width(s) <= columns {
		return s
	}
	left := columns - 1 // for the mark
	for i, r := range s {
		if left -= width(r); left < 0 {
			return s[:i] + "…"
		}
	}
	return s
}

// Bar draws how much of total is done, in width columns.
func Bar(done, total int64, width int) string {
	full := 0
	if total > 0 {
		full = int(float64(width) * min(1, float64(done)/float64(total)))
	}
	return "[" + strings.Repeat("#", full) + strings.Repeat(".", width-full) + "]"
}
