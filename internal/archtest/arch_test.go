package archtest

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/twinspan/twinspan"

// file is a parsed Go file of the module.
type file struct {
	path  string // below the module's root, with slashes
	dir   string
	test  bool
	ast   *ast.File
	fset  *token.FileSet
	lines int
}

// generated files are not written by hand.
func (f file) generated() bool { return ast.IsGenerated(f.ast) }

func (f file) imports() []string {
	var all []string
	for _, spec := range f.ast.Imports {
		if p, err := strconv.Unquote(spec.Path.Value); err == nil {
			all = append(all, p)
		}
	}
	return all
}

// files parses every Go file of the module.
func files(t *testing.T) []file {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root, "go.mod")); err != nil {
		t.Fatalf("this is not the module's root: %v", err)
	}
	var all []file
	err = filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		base := entry.Name()
		if entry.IsDir() {
			if name != root && (strings.HasPrefix(base, ".") || base == "testdata" || base == "node_modules") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(base, ".go") {
			return nil
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		fset := token.NewFileSet()
		parsed, err := parser.ParseFile(fset, name, text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		all = append(all, file{
			path: rel, dir: path.Dir(rel), test: strings.HasSuffix(rel, "_test.go"),
			ast: parsed, fset: fset, lines: bytes.Count(text, []byte("\n")),
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// forTests says whether a file is part of a test, whatever its package.
func (f file) forTests() bool { return f.test || places[f.dir].tests }

// breaches returns what is wrong with one file's imports.
func breaches(f file) []string {
	own, known := places[f.dir]
	var wrong []string
	for _, imported := range f.imports() {
		if strings.HasPrefix(imported, "github.com/jackc/") && !own.pgx && !f.test {
			wrong = append(wrong, "may not speak to PostgreSQL's driver ("+imported+"): use internal/pg")
		}
		dir, ours := strings.CutPrefix(imported, module+"/")
		if !ours || !known {
			continue
		}
		other, listed := places[dir]
		switch {
		case !listed:
			wrong = append(wrong, "imports "+dir+", which has no place in the table")
		case other.tests && !f.forTests():
			wrong = append(wrong, "imports "+dir+", which is for tests")
		case !f.test && other.layer >= own.layer:
			wrong = append(wrong, "imports "+dir+", which is not in a lower layer")
		}
	}
	return wrong
}

func TestImportLaw(t *testing.T) {
	for _, f := range files(t) {
		if _, known := places[f.dir]; !known && !isTestProgram(f.dir) {
			t.Errorf("%s: package %s has no place in the table of internal/archtest/layers_test.go", f.path, f.dir)
		}
		for _, wrong := range breaches(f) {
			t.Errorf("%s %s", f.path, wrong)
		}
	}
}

// isTestProgram: what lies below test/ and bench/ is no part of the product.
func isTestProgram(dir string) bool {
	first, _, _ := strings.Cut(dir, "/")
	return first == "test" || first == "bench"
}

// TestTheLawBites gives the law files that break it.
func TestTheLawBites(t *testing.T) {
	for _, c := range []struct{ path, imports, want string }{
		{"internal/seed/a.go", module + "/internal/schema", "not in a lower layer"},
		{"internal/pg/a.go", module + "/internal/link", "not in a lower layer"},
		{"internal/cli/a.go", module + "/internal/pg", "not in a lower layer"},
		{"internal/link/a.go", module + "/internal/pgtest", "for tests"},
		{"internal/agent/a.go", "github.com/jackc/pgx/v5/pgconn", "driver"},
		{"internal/link/a.go", module + "/internal/elsewhere", "no place"},
		{"internal/link/a.go", module + "/internal/seed", ""},
		{"internal/link/a_test.go", module + "/internal/pgtest", ""},
		{"internal/linktest/a.go", module + "/internal/pgtest", ""},
	} {
		parsed, err := parser.ParseFile(token.NewFileSet(), c.path, "package p\nimport "+strconv.Quote(c.imports), 0)
		if err != nil {
			t.Fatal(err)
		}
		got := strings.Join(breaches(file{path: c.path, dir: path.Dir(c.path), test: strings.HasSuffix(c.path, "_test.go"), ast: parsed}), "; ")
		if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s importing %s: %q, want %q", c.path, c.imports, got, c.want)
		}
	}
}

func TestPackagesSayWhatTheyAre(t *testing.T) {
	commented := map[string]bool{}
	for _, f := range files(t) {
		if f.test {
			continue
		}
		commented[f.dir] = commented[f.dir] || f.ast.Doc != nil
		if name := f.ast.Name.Name; slices.Contains(emptyNames, name) {
			t.Errorf("%s: the package name %s says nothing", f.path, name)
		}
		if f.lines > mostLines && !f.generated() {
			t.Errorf("%s has %d lines; at most %d", f.path, f.lines, mostLines)
		}
	}
	for dir, has := range commented {
		if !has {
			t.Errorf("package %s has no comment", dir)
		}
	}
}

// TestHouseRules finds what CONTRIBUTING.md rules out.
func TestHouseRules(t *testing.T) {
	for _, f := range files(t) {
		ast.Inspect(f.ast, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				if n.Recv == nil && n.Name.Name == "init" {
					t.Errorf("%s has an init function", f.fset.Position(n.Pos()))
				}
			case *ast.SelectorExpr:
				on, ok := n.X.(*ast.Ident)
				switch {
				case !ok || !f.forTests() || f.dir == "internal/archtest":
				case on.Name == "time" && n.Sel.Name == "Sleep":
					t.Errorf("%s: a test sleeps; await the condition", f.fset.Position(n.Pos()))
				case slices.Contains([]string{"t", "tb", "b"}, on.Name) && strings.HasPrefix(n.Sel.Name, "Skip"):
					t.Errorf("%s: a test is skipped", f.fset.Position(n.Pos()))
				}
			}
			return true
		})
	}
}
