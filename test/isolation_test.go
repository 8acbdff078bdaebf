package test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/twinspan/twinspan/internal/pgtest"
)

// specsApart are isolation specs that are left out, and why.
var specsApart = map[string]string{
	"intra-grant-inplace-db":       "it names the database of PostgreSQL's own runs",
	"insert-conflict-specconflict": "the function of an index wants a setting of the session, which the twin's have not: a subscription stops, too",
	"prepared-transactions":        "it takes a quarter of an hour",
}

// TestIsolation runs PostgreSQL's isolation specs, in which several sessions work at once, on a
// linked primary and on a server without a link, as TestRegress runs the regression SQL:
// nobody waits, fails or sees rows otherwise because of the link, and the sides are equal after each.
func TestIsolation(t *testing.T) {
	major, _ := strconv.Atoi(os.Getenv("TWINSPAN_ISOLATION"))
	if major == 0 {
		t.Log("make isolation runs PostgreSQL's isolation specs")
		return
	}
	r := newRegress(t, major, os.Getenv("TWINSPAN_REGRESS_SQL"))
	tester := isolationTester(t, r.control)
	names := strings.FieldsFunc(os.Getenv("TWINSPAN_ISOLATION_SPECS"), func(c rune) bool { return c == ',' || c == ' ' })
	if len(names) == 0 {
		files, err := filepath.Glob(filepath.Join(r.sql, "specs", "*.spec"))
		if err != nil || len(files) == 0 {
			t.Fatalf("no specs: %v", err)
		}
		for _, file := range files {
			names = append(names, strings.TrimSuffix(filepath.Base(file), ".spec"))
		}
		names = slices.DeleteFunc(names, func(name string) bool { return specsApart[name] != "" })
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			spec := readFile(t, filepath.Join(r.sql, "specs", name+".spec"))
			play := func(s *pgtest.Server) string {
				ctx, cancel := context.WithTimeout(t.Context(), regressPatience)
				defer cancel()
				cmd := exec.CommandContext(ctx, tester, s.DSN(database))
				cmd.Stdin = strings.NewReader(spec)
				cmd.Env = append(os.Environ(), "PGPASSWORD="+pgtest.Password, "LC_ALL=C", "PGOPTIONS=-c lc_messages=C")
				out, err := cmd.CombinedOutput()
				if err != nil {
					t.Errorf("%s: %v", name, err)
				}
				return string(out)
			}
			// One after the other: a spec tells who waits, and on a busy machine everybody does.
			linked := play(r.pair.A.Server)
			r.settle(t, name, r.compare(t, name, linked, play(r.control)))
		})
	}
}

// isolationTester finds the program among what a server's package has for tests of extensions.
func isolationTester(t *testing.T, s *pgtest.Server) string {
	programs, err := filepath.EvalSymlinks(s.Programs())
	if err != nil {
		t.Fatal(err)
	}
	for _, lib := range []string{"../lib", "../lib/postgresql"} {
		if path := filepath.Join(programs, lib, "pgxs/src/test/isolation/isolationtester"); regularFile(path) {
			return path
		}
	}
	t.Fatalf("the server of %s has no isolationtester", s.Programs())
	return ""
}
