package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// Backups go on beside a link: what the owner of a linked database dumps of either side
// restores on a server that has nothing to do with the link, and can be written to there. Of a
// twin's part, the list of what is restored leaves the gate's triggers out, as the manual says.
func TestDumpsOfBothSidesRestoreElsewhere(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{})
	p.A.Server.CreateDatabase(t, "shop")
	pgtest.Exec(t, p.A.Server.AppDSN("shop"), `CREATE TABLE t (id serial PRIMARY KEY, v text)`, `INSERT INTO t (v) SELECT 'x' FROM generate_series(1, 100)`,
		`CREATE TABLE n (a int)`, `INSERT INTO n VALUES (1), (1)`, `CREATE VIEW big AS SELECT * FROM t WHERE id > 50`,
		`CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.v := ''seen''; RETURN NEW; END'`, `CREATE TRIGGER noted BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION noted()`)
	p.Create(t, "shop", "shop")
	p.WaitPhase(t, "shop", api.Replicating)
	p.WaitEqual(t, "shop", "shop")
	elsewhere := pgtest.Start(t)
	run := func(name string, args ...string) string {
		t.Helper()
		// Of the server's own version: a newer pg_restore sets what an older server does not know.
		path := fmt.Sprintf("/usr/lib/postgresql/%d/bin/%s", elsewhere.Major, name)
		out, err := exec.Command(path, args...).CombinedOutput()
		if err != nil {
			t.Errorf("%s %v: %v: %s", name, args, err, out)
		}
		return string(out)
	}
	file, list := filepath.Join(pgtest.Dir(t), "dump"), filepath.Join(pgtest.Dir(t), "list")
	ours := regexp.MustCompile(`(?m)^.* TRIGGER .* twinspan_gate.*\n`)
	for _, form := range []struct {
		name string
		args []string
		rows string // that t has then
	}{
		{"all", []string{"-Fc"}, "100"},
		{"all, as text", []string{"-Fp"}, "100"},
		{"the schema alone", []string{"-Fp", "--schema-only"}, "0"},
		{"schema public", []string{"-Fc", "-n", "public"}, "100"},
		{"a table", []string{"-Fc", "-t", "t", "--section=pre-data", "--section=data"}, "100"},
		{"two tables", []string{"-Fc", "-t", "t", "-t", "n"}, ""},
	} {
		for _, side := range []*linktest.Side{p.A, p.B} {
			run("pg_dump", append(slices.Clone(form.args), "-f", file, "-d", side.Server.AppDSN("shop"))...)
			name := elsewhere.Database(t)
			into := elsewhere.DSN(name)
			switch {
			case form.args[0] == "-Fp":
				run("psql", "-Xq", "-v", "ON_ERROR_STOP=1", "-f", file, "-d", into)
			case len(form.args) == 1:
				run("pg_restore", "--exit-on-error", file, "-d", into)
			default:
				whole := run("pg_restore", "-l", file)
				left := ours.ReplaceAllString(whole, "")
				if form.rows == "" { // the function of t's own trigger is left out
					left = regexp.MustCompile(`(?m)^.* TRIGGER .*\n`).ReplaceAllString(left, "")
				}
				if side == p.A && strings.Contains(whole, "twinspan") {
					t.Errorf("%s of the primary has something of the link: %s", form.name, whole)
				}
				if err := os.WriteFile(list, []byte(left), 0o600); err != nil {
					t.Fatal(err)
				}
				if slices.Contains(form.args, "-n") {
					pgtest.Exec(t, into, `DROP SCHEMA public`)
				}
				run("pg_restore", "--exit-on-error", "-L", list, file, "-d", into)
			}
			app := elsewhere.AppDSN(name)
			if n := pgtest.Query(t, app, `SELECT count(*)::text FROM t`)[0][0]; form.rows != "" && n != form.rows {
				t.Errorf("%s of %s: %s rows", form.name, side.Name, n)
			}
			for _, sql := range []string{`INSERT INTO t (v) VALUES ('r')`, `UPDATE t SET v = 'u'`, `CREATE TABLE more (i int)`, `TRUNCATE t`, `DROP TABLE t CASCADE`} {
				if _, err := pgtest.Try(t.Context(), app, sql); err != nil {
					t.Errorf("%s of %s: %s: %v", form.name, side.Name, sql, err)
				}
			}
		}
	}
}
