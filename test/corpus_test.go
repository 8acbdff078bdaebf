package test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/twinspan/twinspan/internal/instance"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// corpus is an application's database and its history. Its directory holds
//
//	roles.sql       the roles of the server
//	schema.sql      the database before the first migration, with rows
//	migrations/     NNNN_title.sql; a first line "-- as: string" sends the file as
//	                one string, "-- as: transaction" in one transaction, else psql
//	                sends its statements one by one
//	workload.sql    what sessions do all the time, see part
//	refused.sql     what a linked primary refuses, named after the code
type corpus struct {
	name, dir  string
	migrations []migration
	work       []part
	refused    []part
}

type migration struct {
	number int
	path   string
}

// part is a piece of a file that starts with "-- @name [from NNNN] [until NNNN]".
// It works when the first of these migrations is done and the second not begun.
type part struct {
	name, sql   string
	from, until int
}

var partHead = regexp.MustCompile(`(?m)^-- @(\w+)(?: from (\d+))?(?: until (\d+))?$`)

func readParts(t *testing.T, path string) []part {
	t.Helper()
	text := readFile(t, path)
	var parts []part
	heads := partHead.FindAllStringSubmatchIndex(text, -1)
	for i, h := range heads {
		end := len(text)
		if i+1 < len(heads) {
			end = heads[i+1][0]
		}
		number := func(n int) int {
			if h[2*n] < 0 {
				return 0
			}
			v, err := strconv.Atoi(text[h[2*n]:h[2*n+1]])
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
		parts = append(parts, part{name: text[h[2]:h[3]], sql: strings.TrimSpace(text[h[1]:end]), from: number(2), until: number(3)})
	}
	if len(parts) == 0 {
		t.Fatalf("%s has no parts", path)
	}
	return parts
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func corpora(t *testing.T) []corpus {
	t.Helper()
	dirs, err := filepath.Glob("corpus/*/schema.sql")
	if err != nil || len(dirs) < 3 {
		t.Fatalf("corpora: %v, %v", dirs, err)
	}
	var all []corpus
	for _, schema := range dirs {
		c := corpus{name: filepath.Base(filepath.Dir(schema)), dir: filepath.Dir(schema)}
		c.work, c.refused = readParts(t, filepath.Join(c.dir, "workload.sql")), readParts(t, filepath.Join(c.dir, "refused.sql"))
		files, err := filepath.Glob(filepath.Join(c.dir, "migrations", "*.sql"))
		if err != nil || len(files) < 40 {
			t.Fatalf("%s has %d migrations, %v", c.name, len(files), err)
		}
		slices.Sort(files)
		for i, path := range files {
			if !strings.HasPrefix(filepath.Base(path), fmt.Sprintf("%04d_", i+1)) {
				t.Fatalf("%s should be number %d", path, i+1)
			}
			c.migrations = append(c.migrations, migration{number: i + 1, path: path})
		}
		all = append(all, c)
	}
	return all
}

// psql runs a file as people do. It waits for locks for as long as it takes; the
// workload gives way.
func psql(t *testing.T, dsn, path string, args ...string) error {
	t.Helper()
	program, _, err := instance.FindClient("psql", 0)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program, append([]string{"-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", dsn, "-o", os.DevNull, "-f", path}, args...)...)
	cmd.Env = append(os.Environ(), "PGOPTIONS=-c client_min_messages=warning -c deadlock_timeout=10min", "PGAPPNAME=migration")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%v\n%s", err, out)
	}
	return nil
}

func (m migration) apply(t *testing.T, dsn string) error {
	t.Helper()
	head, _, _ := strings.Cut(readFile(t, m.path), "\n")
	switch head {
	case "-- as: transaction":
		return psql(t, dsn, m.path, "-1")
	case "-- as: string":
		conn := pgtest.Conn(t, dsn)
		defer conn.Close(context.Background())
		_, err := conn.PgConn().Exec(t.Context(), "SET deadlock_timeout = '10min'").ReadAll()
		if err == nil {
			_, err = conn.PgConn().Exec(t.Context(), readFile(t, m.path)).ReadAll()
		}
		if err != nil {
			return fmt.Errorf("%s: %w", m.path, err)
		}
		return nil
	}
	return psql(t, dsn, m.path)
}

// TestCorporaAreValid runs each history without a link: twice, once with the
// workload between the migrations. Both databases have one schema at the end.
func TestCorporaAreValid(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t)
	for _, c := range corpora(t) {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if err := psql(t, s.DSN("postgres"), filepath.Join(c.dir, "roles.sql")); err != nil {
				t.Fatal(err)
			}
			busy, idle := c.name+"_busy", c.name+"_idle"
			for _, database := range []string{busy, idle} {
				s.CreateDatabase(t, database)
				if err := psql(t, s.DSN(database), filepath.Join(c.dir, "schema.sql")); err != nil {
					t.Fatal(err)
				}
			}
			tables, err := strconv.Atoi(pgtest.Query(t, s.DSN(busy), `SELECT count(*) FROM pg_class WHERE relkind IN ('r', 'p') AND NOT relispartition AND relnamespace::regnamespace::text NOT IN ('pg_catalog', 'information_schema')`)[0][0])
			if err != nil || tables < 50 {
				t.Errorf("%d tables, %v", tables, err)
			}
			conn := pgtest.Conn(t, s.DSN(busy))
			for done := 0; ; done++ {
				for _, p := range c.work {
					if !p.works(done, done) {
						continue
					}
					if _, err := conn.PgConn().Exec(t.Context(), p.sql).ReadAll(); err != nil {
						t.Fatalf("workload %s after migration %d: %v", p.name, done, err)
					}
				}
				if done == len(c.migrations) {
					break
				}
				for _, database := range []string{busy, idle} {
					if err := c.migrations[done].apply(t, s.DSN(database)); err != nil {
						t.Fatal(err)
					}
				}
			}
			if d := diffDumps(readDump(t, s, busy), readDump(t, s, idle)); d != "" {
				t.Errorf("the schemas differ\n%s", d)
			}
		})
	}
}
