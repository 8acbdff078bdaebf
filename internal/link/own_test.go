package link

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Whatever an agent makes in the schema twinspan is known as the agent's, wherever its
// statement stands: what is not known is somebody else's, and stands in the way of a
// link's removal.
func TestWhatAgentsMakeIsKnown(t *testing.T) {
	known := madeHere()
	found := 0
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasSuffix(path, "_test.go") || filepath.Ext(path) != ".go" && filepath.Ext(path) != ".sql" {
			return err
		}
		text, err := os.ReadFile(path)
		for _, m := range creates.FindAllStringSubmatch(string(text), -1) {
			found++
			if !slices.Contains(known, strings.ToLower(m[1])) {
				t.Errorf("%s makes twinspan.%s, which is taken for somebody else's", path, m[1])
			}
		}
		return err
	})
	if err != nil || found < 20 {
		t.Fatalf("%d statements found, %v", found, err)
	}
}
