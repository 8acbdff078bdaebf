package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/twinspan/twinspan/internal/problem"
)

// answer prints the answer of a command: v as JSON, or what human prints.
func (a *app) answer(v any, human func(w io.Writer)) error {
	a.answered = true
	if a.flags.output != "json" {
		human(a.out)
		return nil
	}
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return problem.Wrap(err, problem.Internal, "internal", "print the answer")
	}
	fmt.Fprintf(a.out, "%s\n", text)
	return nil
}

func when(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format("2006-01-02 15:04:05 UTC")
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// phrase prints a word of the API, such as catching_up, for people.
func phrase[T ~string](word T) string { return strings.ReplaceAll(string(word), "_", " ") }

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
