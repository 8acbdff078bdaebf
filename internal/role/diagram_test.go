package role

import (
	"os"
	"strings"
	"testing"
)

// ARCHITECTURE.md shows the table as it is. TWINSPAN_GENERATE=1 writes it anew.
func TestDiagramsInTheMap(t *testing.T) {
	const file, begin, end = "../../ARCHITECTURE.md", "<!-- diagrams:begin -->\n", "<!-- diagrams:end -->"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), begin)
	now, after, found := strings.Cut(rest, end)
	if !ok || !found {
		t.Fatal("ARCHITECTURE.md has no place for the diagrams")
	}
	want := "The secondary:\n\n```mermaid\n" + Diagram(Secondary) + "```\n\nThe primary:\n\n```mermaid\n" + Diagram(Primary) + "```\n"
	if now == want {
		return
	}
	if os.Getenv("TWINSPAN_GENERATE") == "" {
		t.Fatal("the diagrams are stale: make generated writes them anew")
	}
	if err := os.WriteFile(file, []byte(before+begin+want+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}
