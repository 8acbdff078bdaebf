package capture

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// All SQL of this package is in the text of what agents make, or else it would count as somebody else's; and each file
// is run by one of those who make everything, at a new link and for the functions of an older agent.
func TestTextHoldsEveryFile(t *testing.T) {
	files, err := filepath.Glob("*.sql")
	if err != nil || len(files) < 8 {
		t.Fatalf("%v: %v", files, err)
	}
	for _, name := range files {
		sql, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(Text(), string(sql)) {
			t.Errorf("%s is not in the text", name)
		}
		if !strings.Contains(functionsSQL()+schemaSQL(), string(sql)) {
			t.Errorf("%s is not made", name)
		}
	}
}
