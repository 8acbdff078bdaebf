package agent

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twinspan/twinspan/internal/peer"
)

// Every request between agents, wherever it is declared, has its place in the table of rights.
func TestEveryRequestNeedsWhatTheTableSays(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("..", "*", "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok {
				return true
			}
			for i, name := range spec.Names {
				if !strings.HasPrefix(strings.ToLower(name.Name), "method") || i >= len(spec.Values) {
					continue
				}
				literal, ok := spec.Values[i].(*ast.BasicLit)
				if !ok {
					continue
				}
				method, err := strconv.Unquote(literal.Value)
				if err != nil {
					t.Fatal(err)
				}
				found++
				if _, known := needs(method); !known {
					t.Errorf("%s (%s) has no place in the table of rights", name.Name, method)
				}
			}
			return true
		})
	}
	if found < 40 {
		t.Errorf("only %d requests were found", found)
	}
	if _, known := needs("link.unheard_of"); known {
		t.Error("whatever is asked is let through")
	}
}

func TestRequestsAreRememberedWithinBounds(t *testing.T) {
	var r requests
	now := time.Now()
	for i := range 3 * maxAsked {
		r.note("b", asking{fmt.Sprintf("d%02d", i), peer.ToHere, peer.OpLink}, now)
	}
	b := peer.Peer{Name: "b"}
	list := r.open(b)
	if len(list) != maxAsked || list[0].Database != "d00" || list[0].Command != "twinspan peer grant b --database d00 --direction to-here --operations link" {
		t.Errorf("%d, %+v", len(list), list[0])
	}
	if r.note("b", asking{"d00", peer.ToHere, peer.OpLink}, now) {
		t.Error("the same again is news")
	}
	b.Grants = []peer.Grant{{Database: "d00", Direction: peer.ToHere, Operations: []peer.Operation{peer.OpLink}}}
	if list := r.open(b); len(list) != maxAsked-1 || list[0].Database != "d01" {
		t.Errorf("what was granted is still open: %+v", list)
	}
	r.forget("b")
	if list := r.open(b); len(list) != 0 {
		t.Errorf("%+v", list)
	}
	for text, want := range map[string]string{"sales": "sales", "*": "'*'", "it's": `'it'\''s'`, "": "''", "a b;c": "'a b;c'"} {
		if got := shellQuoted(text); got != want {
			t.Errorf("%q: %s", text, got)
		}
	}
}
