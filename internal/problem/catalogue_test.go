package problem_test

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/twinspan/twinspan/internal/problem"
)

const root = "../.."

// page writes the catalogue as docs/problems.md has it.
func page() []byte {
	var b bytes.Buffer
	b.WriteString("# Problems\n\nEvery code that `twinspan check`, a link, the command line or the REST interface can name. Written by `make generated` from\n" +
		"`internal/problem`.\n\n- **blocks**: nothing goes on until it is solved.\n- **warns**: it goes on, or goes on by itself later, but somebody should look. `link create --accept CODE` accepts a\n" +
		"  warning of a check.\n- **informs**: worth knowing.\n\nA code has the heaviest severity that it comes with.\n")
	for _, area := range problem.Catalogue() {
		fmt.Fprintf(&b, "\n## %s\n\n| code | severity | what | meaning | remedy |\n|---|---|---|---|---|\n", area.Title)
		for _, e := range area.Entries {
			fmt.Fprintf(&b, "| <a id=\"%[1]s\"></a>`%[1]s` | %s | %s | %s | %s |\n", e.Code, e.Severity, e.Title, e.Meaning, e.Remedy)
		}
	}
	return b.Bytes()
}

// TestCatalogueIsWritten compares docs/problems.md with the catalogue.
func TestCatalogueIsWritten(t *testing.T) {
	file := filepath.Join(root, "docs", "problems.md")
	if os.Getenv("TWINSPAN_GENERATE") != "" {
		if err := os.WriteFile(file, page(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(text, page()) {
		t.Error("docs/problems.md is stale: run make generated")
	}
}

func TestEntriesAreWhole(t *testing.T) {
	seen := map[string]bool{}
	for _, area := range problem.Catalogue() {
		for _, e := range area.Entries {
			if seen[e.Code] {
				t.Errorf("%s is listed twice", e.Code)
			}
			seen[e.Code] = true
			if !codeForm.MatchString(e.Code) || e.Title == "" || strings.HasSuffix(e.Title, ".") || strings.Contains(e.Title+e.Meaning+e.Remedy, "|") ||
				e.Severity != problem.Informs && e.Remedy == "" && e.Code != "not_confirmed" {
				t.Errorf("%+v", e)
			}
		}
	}
	if e, ok := problem.Describe("wal_level_low"); !ok || e.Severity != problem.Blocks {
		t.Errorf("%+v", e)
	}
	if _, ok := problem.Describe("no_such_code"); ok {
		t.Error("a code that is not there was described")
	}
}

var codeForm = regexp.MustCompile(`^[a-z][a-z0-9]*(_[a-z0-9]+)*$`)

// composed are codes that the source puts together: of a phase, of a program's name.
var composed = []string{"link_broken", "link_fenced", "pg_dump_failed", "pg_restore_failed"}

// TestEveryCodeIsInTheCatalogue reads the source for codes, and the catalogue for
// codes that nothing uses.
func TestEveryCodeIsInTheCatalogue(t *testing.T) {
	used := map[string]string{}
	literals := map[string]bool{}
	for _, name := range sources(t) {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(name, ".sql") {
			for _, m := range regexp.MustCompile(`'(ddl_[a-z_]+)'`).FindAllStringSubmatch(string(text), -1) {
				used[m[1]] = name
			}
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), name, text, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			if code, ok := literal(n); ok {
				literals[code] = true
			}
			for _, code := range codesIn(n) {
				if codeForm.MatchString(code) {
					used[code] = name
				}
			}
			return true
		})
	}
	if len(used) < 200 {
		t.Errorf("only %d codes were found", len(used))
	}
	for _, code := range slices.Sorted(maps.Keys(used)) {
		if _, ok := problem.Describe(code); !ok {
			t.Errorf("%s uses the code %s, which is not in the catalogue", used[code], code)
		}
	}
	for _, area := range problem.Catalogue() {
		for _, e := range area.Entries {
			if used[e.Code] == "" && !literals[e.Code] && !slices.Contains(composed, e.Code) {
				t.Errorf("nothing uses the code %s of the catalogue", e.Code)
			}
		}
	}
}

// sources lists what the program is made of.
func sources(t *testing.T) []string {
	var list []string
	err := filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		base := entry.Name()
		switch {
		case entry.IsDir() && name != root && (strings.HasPrefix(base, ".") && base != ".." || slices.Contains([]string{"testdata", "agenttest", "pgtest", "linktest", "bench", "test"}, base)):
			return filepath.SkipDir
		case strings.HasSuffix(base, "_test.go") || strings.HasPrefix(base, "catalogue") && filepath.Base(filepath.Dir(name)) == "problem":
		case strings.HasSuffix(base, ".go") || strings.HasSuffix(base, ".sql"):
			list = append(list, name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// codesIn returns what is a code by its place: behind a kind or before a severity in a
// list (problem.New(problem.Invalid, "code"), return problem.Invalid, "code"), an
// argument of a finding, or a field of that name.
func codesIn(n ast.Node) []string {
	switch n := n.(type) {
	case *ast.CallExpr:
		if f, ok := n.Fun.(*ast.SelectorExpr); ok && slices.Contains([]string{"blocksIf", "warnsIf", "informsIf"}, f.Sel.Name) && len(n.Args) > 1 {
			code, _ := literal(n.Args[1])
			return []string{code}
		}
		return beside(n.Args)
	case *ast.ReturnStmt:
		return beside(n.Results)
	case *ast.AssignStmt:
		return beside(n.Rhs)
	case *ast.CompositeLit:
		return beside(n.Elts)
	case *ast.KeyValueExpr:
		if key, ok := n.Key.(*ast.Ident); ok && (key.Name == "Code" || key.Name == "code") {
			code, _ := literal(n.Value)
			return []string{code}
		}
	}
	return nil
}

// kinds are the names of the kinds, severities those of the severities.
var (
	kinds      = []string{"Invalid", "NotFound", "Conflict", "Unauthorised", "Incompatible", "Transient", "Resource", "Diverged", "Cancelled", "Internal"}
	severities = []string{"Blocks", "Warns", "Informs"}
)

func beside(list []ast.Expr) []string {
	var codes []string
	for i, e := range list {
		name := ""
		switch e := e.(type) {
		case *ast.SelectorExpr:
			if on, ok := e.X.(*ast.Ident); ok && on.Name == "problem" {
				name = e.Sel.Name
			}
		case *ast.Ident:
			name = e.Name
		}
		if slices.Contains(kinds, name) && i+1 < len(list) {
			code, _ := literal(list[i+1])
			codes = append(codes, code)
		}
		if slices.Contains(severities, name) && i > 0 {
			code, _ := literal(list[i-1])
			codes = append(codes, code)
		}
	}
	return codes
}

func literal(n ast.Node) (string, bool) {
	l, ok := n.(*ast.BasicLit)
	if !ok || l.Kind != token.STRING {
		return "", false
	}
	text, err := strconv.Unquote(l.Value)
	return text, err == nil
}
