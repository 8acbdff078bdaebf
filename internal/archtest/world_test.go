package archtest

import (
	"go/ast"
	"testing"
)

// lessWorld are the options of the test support with which a server is less than a user
// has, and how many tests may want each. A test that raises a number says why here.
var lessWorld = map[string]int{
	"WithoutTLS": 0,
}

// Tests have servers as users have them (internal/pgtest/world.go), unless they ask for
// less by an option that is counted here.
func TestServersAreAsUsersHaveThem(t *testing.T) {
	found := map[string][]string{}
	declared := map[string]bool{}
	for _, f := range files(t) {
		ast.Inspect(f.ast, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				declared[n.Name.Name] = declared[n.Name.Name] || f.dir == "internal/pgtest"
			case *ast.CallExpr:
				if s, ok := n.Fun.(*ast.SelectorExpr); ok {
					if _, counted := lessWorld[s.Sel.Name]; counted {
						found[s.Sel.Name] = append(found[s.Sel.Name], f.fset.Position(n.Pos()).String())
					}
				}
			}
			return true
		})
	}
	for option, most := range lessWorld {
		if !declared[option] {
			t.Errorf("internal/pgtest has no option %s", option)
		}
		if places := found[option]; len(places) > most {
			t.Errorf("%d tests want %s, %d may: %v", len(places), option, most, places)
		}
	}
}
