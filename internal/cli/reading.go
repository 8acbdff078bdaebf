package cli

import (
	"fmt"

	"github.com/twinspan/twinspan/internal/terminal"
)

// reading is how far work has come that reads the tables of a database.
type reading struct {
	Of, Step              string
	TablesDone, Tables    int
	BytesDone, BytesTotal int64
}

func (r reading) soFar() string {
	return fmt.Sprintf("%d/%d tables, %s of %s", r.TablesDone, r.Tables, terminal.Size(min(r.BytesDone, r.BytesTotal)), terminal.Size(r.BytesTotal))
}

// readingShower returns what shows progress: a block that is redrawn on a terminal, lines
// elsewhere.
func (a *app) readingShower() func(reading) {
	if s := terminal.Of(a.errs); s != nil {
		return func(r reading) {
			block := []string{r.Of + ": " + r.Step}
			if r.BytesTotal > 0 {
				block = append(block, fmt.Sprintf("  %s %s", terminal.Bar(r.BytesDone, r.BytesTotal, 40), r.soFar()))
			}
			s.Draw(block)
		}
	}
	last := ""
	return func(r reading) {
		const tenth = 10
		done := int64(0)
		if r.BytesTotal > 0 {
			done = min(tenth, r.BytesDone*tenth/r.BytesTotal)
		}
		if now := fmt.Sprint(r.Step, done); now != last {
			last = now
			line := r.Of + ": " + r.Step
			if r.BytesTotal > 0 {
				line += ", " + r.soFar()
			}
			fmt.Fprintln(a.errs, line)
		}
	}
}
