package test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// Servers with an extension in other versions: an update to one that the twin lacks waits
// until its package is there, or is left out; where the twin's default is older, it gets that.
func TestVersionsOfAnExtension(t *testing.T) {
	t.Parallel()
	paths := map[string]string{}
	files := func(name, defaults string, scripts ...string) {
		t.Helper()
		if paths[name] == "" {
			dir, err := os.MkdirTemp("", "extension")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.RemoveAll(dir) })
			paths[name] = dir
		}
		dir := filepath.Join(paths[name], "extension")
		err := os.MkdirAll(dir, 0o755)
		if err == nil {
			err = os.Chmod(paths[name], 0o755)
		}
		write := func(file, text string) { // whole, as a package does: the twin's server may be reading it
			if err == nil {
				err = os.WriteFile(filepath.Join(paths[name], "new"), []byte(text), 0o644)
			}
			if err == nil {
				err = os.Rename(filepath.Join(paths[name], "new"), filepath.Join(dir, file))
			}
		}
		write("versioned.control", "default_version = '"+defaults+"'\n")
		for _, script := range scripts {
			write("versioned--"+script+".sql", "CREATE FUNCTION made_by_"+strings.NewReplacer(".", "_", "-", "_").Replace(script)+"() RETURNS int LANGUAGE sql AS 'SELECT 1';\n")
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	files("a", "1.1", "1.0", "1.0--1.1", "1.1--1.2")
	files("b", "1.0", "1.0")
	options := func(name string) []pgtest.Option {
		return []pgtest.Option{pgtest.WithMajor(18), pgtest.WithSetting("extension_control_path", "$system:"+paths[name])}
	}
	p := linktest.New(t, linktest.Options{ServerA: options("a"), ServerB: options("b")})
	p.A.Server.CreateDatabase(t, "d")
	a, b := p.A.Server.DSN("d"), p.B.Server.DSN("d")
	p.Create(t, "d", "d")
	p.WaitPhase(t, "d", api.Replicating)
	version := func(want string) {
		t.Helper()
		pgtest.Eventually(t, linktest.Patience, func() error {
			rows := pgtest.Query(t, b, `SELECT extversion FROM pg_extension WHERE extname = 'versioned'`)
			if len(rows) != 1 || rows[0][0] != want {
				return fmt.Errorf("the twin has %v, not %s", rows, want)
			}
			return nil
		})
	}
	waits := func(version string) { // the problem of the version before may be shown for a moment
		t.Helper()
		pgtest.Eventually(t, linktest.Patience, func() error {
			l, err := p.B.Client.Link(t.Context(), "d")
			if err == nil && !slices.ContainsFunc(l.Problems, func(q api.Problem) bool {
				return q.Code == "extension_version_missing" && strings.Contains(q.Title, "version "+version)
			}) {
				err = fmt.Errorf("phase %s, problems %+v", l.Phase, l.Problems)
			}
			return err
		})
	}

	pgtest.Exec(t, a, `CREATE EXTENSION versioned`) // 1.1, which the twin cannot make
	version("1.0")
	pgtest.Exec(t, a, `DROP EXTENSION versioned`, `CREATE EXTENSION versioned VERSION '1.0'`, `ALTER EXTENSION versioned UPDATE`,
		`CREATE TABLE behind (i int PRIMARY KEY)`, `INSERT INTO behind VALUES (1)`)
	waits("1.1")
	files("b", "1.0", "1.0--1.1") // the package is installed
	version("1.1")
	waitEqual(t, p, "d", "d")

	pgtest.Exec(t, a, `ALTER EXTENSION versioned UPDATE TO '1.2'`, `INSERT INTO behind VALUES (2)`)
	waits("1.2")
	if _, err := p.B.Client.ResumeSkipping(t.Context(), "d"); err != nil {
		t.Fatal(err)
	}
	p.WaitApplied(t, "d", "d")
	version("1.1")
}
