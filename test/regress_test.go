package test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/instance"
	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/lsn"
	"github.com/twinspan/twinspan/internal/pgtest"
)

// regressPatience is how long one file of the regression SQL may take.
const regressPatience = 10 * time.Minute

// shown is what psql's \d shows of a link: its publication, and the identity that it gives tables
// without a key.
var shown = regexp.MustCompile(`(?m)^Publications:\n    "twinspan_[0-9a-f]{32}"\n|^    "twinspan_[0-9a-f]{32}"\n|^Replica Identity: FULL\n`)

// refusalCode is how a refusal is known in what psql prints.
var refusalCode = regexp.MustCompile(`ERROR: .*\nDETAIL:  Twinspan code: (\w+)`)

// mostRefused is how many statements of a version's regression SQL may be refused.
var mostRefused = map[int]int{15: 3, 17: 5, 18: 7}

// remedy is the statement for the secondary in the hint of a problem: what an operator does who heeds it.
var remedy = regexp.MustCompile(`on the secondary: ([^;]*); the link goes on by itself`)

// explained is why a difference may be: of a file, or of all, what matches.
type explained struct {
	file, why string
	what      *regexp.Regexp
}

// explain finds the reason of a difference in a file; nil where there is none.
func explain(list []explained, file, what string) *explained {
	i := slices.IndexFunc(list, func(e explained) bool { return (e.file == file || e.file == "") && e.what.MatchString(what) })
	if i < 0 {
		return nil
	}
	return &list[i]
}

// differs explains the lines that only one of the two servers prints (docs/schema-changes.md, "PostgreSQL's own regression SQL").
var differs = []explained{
	{"opr_sanity", "the catalogs list the functions of schema twinspan", regexp.MustCompile(`^ +oid +\| +proname|^-+\+-+$|^\(\d+ rows\)|^ +\d+ \| \w+ *$`)},
	{"alter_table", "pg_locks lists the tables of schema twinspan", regexp.MustCompile(`max_lockmode|^-+\+-+$|^\(\d+ rows?\)|^ \w+ +\| \w+Lock$`)},
	{"event_trigger", "the link has event triggers, and gives tables without a key a replica identity", regexp.MustCompile(`^NOTICE:  test_event_trigger: ddl_command_start ALTER TABLE|\| event trigger \||evtname|^-+[-+]+$|^\(\d+ rows\)`)},
	{"replica_identity", "a linked table always has a replica identity", regexp.MustCompile(`^ [dn]$`)},
	{"publication", "the link has a publication, which gives tables without a key a replica identity", regexp.MustCompile(``)},
	{"prepared_xacts", "SERIALIZABLE transactions that change the schema at one time meet in the link's notes", regexp.MustCompile(``)},
	{"", "a table without a key that has a virtual generated column, or a child that does", regexp.MustCompile(`^(WARNING:  the server refuses|DETAIL:  Twinspan code: table_not_updatable|HINT:  Give the table)`)},
	{"generated_virtual", "tables without a key that have virtual generated columns", regexp.MustCompile(``)},
	{"fast_default", "a table without a key gets no virtual generated column", regexp.MustCompile(`ddl_not_updatable|the server would refuse UPDATE|^HINT:  Give the table a primary key first|twinspan\.|^SQL statement|pg_event_trigger_ddl_commands|c\.classid = |column "col5" of relation`)},
	{"without_overlaps", "the twin looks nothing up by a key WITHOUT OVERLAPS, so it is no replica identity", regexp.MustCompile(`^    "temporal_rng_pk" PRIMARY KEY`)},
	{"uuid", "uuidv7() tells the time", regexp.MustCompile(`^ [0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)},
	{"create_table", "pg_class is copied, and that not all of its columns can be", regexp.MustCompile(`as_select1|ddl_type_unwritable|pg_node_tree|pg_node_tree, of|twinspan\.|relpartbound|format\('Leave`)},
}

// apart explains the objects that a file leaves different on the two sides of the link.
var apart = []explained{
	{"event_trigger", "event triggers do not cross, nor what is done while they are off", regexp.MustCompile(`^(test_event_trigger_guc|public\.event_trigger_test: pguc)$`)},
}

// TestRegress runs PostgreSQL's own regression SQL on a linked primary and on a server without a
// link: both print the same, but for what is explained above, and after each file the sides of the link are equal.
func TestRegress(t *testing.T) {
	major, _ := strconv.Atoi(os.Getenv("TWINSPAN_REGRESS"))
	if major == 0 {
		t.Log("make regress runs PostgreSQL's regression SQL")
		return
	}
	r := newRegress(t, major, os.Getenv("TWINSPAN_REGRESS_SQL"))
	files := strings.FieldsFunc(os.Getenv("TWINSPAN_REGRESS_FILES"), func(c rune) bool { return c == ',' || c == ' ' })
	if len(files) == 0 {
		files = r.schedule(t)
	} else if files[0] != "test_setup" {
		files = append([]string{"test_setup"}, files...)
	}
	for _, file := range files {
		t.Run(file, func(t *testing.T) { r.take(t, file) })
	}
	t.Logf("%d files, about %d statements, of which %d were refused: %v", len(files), r.statements, len(r.refused), r.refused)
	if len(r.refused) > mostRefused[major] {
		t.Errorf("%d statements were refused, %d may be", len(r.refused), mostRefused[major])
	}
}

// regress is a run of the regression SQL.
type regress struct {
	pair       *linktest.Pair
	control    *pgtest.Server
	psql, sql  string // the program, and the directory of the SQL
	results    string // files that the SQL writes, a directory for each server
	statements int
	refused    []string // file and code
	heeded     map[string]bool
}

// database is the name by which the regression SQL knows its database.
const database = "regression"

func newRegress(t *testing.T, major int, sql string) *regress {
	options := []pgtest.Option{pgtest.WithMajor(major), pgtest.WithSetting("max_locks_per_transaction", "256"), pgtest.WithSetting("allow_in_place_tablespaces", "on")}
	r := &regress{
		pair: linktest.New(t, linktest.Options{ServerA: options, ServerB: options}), control: pgtest.Start(t, options...), sql: sql, results: pgtest.Dir(t), heeded: map[string]bool{},
	}
	if r.psql = filepath.Join(r.control.Programs(), "psql"); !regularFile(r.psql) {
		var err error
		if r.psql, _, err = instance.FindClient("psql", major); err != nil {
			t.Fatal(err)
		}
	}
	// As pg_regress makes it.
	for _, s := range []*pgtest.Server{r.pair.A.Server, r.control} {
		pgtest.Exec(t, s.DSN("postgres"), `CREATE DATABASE `+database+` TEMPLATE template0`)
		for _, setting := range []string{"lc_messages = 'C'", "lc_monetary = 'C'", "lc_numeric = 'C'", "lc_time = 'C'", "bytea_output = 'hex'", "timezone_abbreviations = 'Default'"} {
			pgtest.Exec(t, s.DSN("postgres"), `ALTER DATABASE `+database+` SET `+setting)
		}
	}
	r.link(t)
	return r
}

// link makes the link. Superusers that the SQL makes are none on the secondary.
func (r *regress) link(t *testing.T) {
	t.Helper()
	if _, err := r.pair.A.Client.CreateLink(t.Context(), api.CreateLink{Name: database, Database: database, Peer: "b", Accept: []string{"table_not_updatable"}}); err != nil {
		t.Fatal(err)
	}
	r.pair.WaitPhase(t, database, api.Replicating)
	if _, err := r.pair.B.Client.SetLink(t.Context(), database, api.SetLink{Accept: []string{"superuser_commands"}}); err != nil {
		t.Fatal(err)
	}
}

// schedule lists the files in the order in which pg_regress takes them.
func (r *regress) schedule(t *testing.T) (files []string) {
	for line := range strings.Lines(readFile(t, filepath.Join(r.sql, "parallel_schedule"))) {
		if names, is := strings.CutPrefix(line, "test:"); is {
			files = append(files, strings.Fields(names)...)
		}
	}
	return files
}

// take runs a file on both servers at once.
func (r *regress) take(t *testing.T, file string) {
	text := readFile(t, filepath.Join(r.sql, "sql", file+".sql"))
	statements := strings.Count(text, ";\n")
	r.statements += statements
	var wait sync.WaitGroup
	var linked, control string
	wait.Go(func() { linked = r.run(t, r.pair.A.Server, "linked", file, text) })
	wait.Go(func() { control = r.run(t, r.control, "control", file, text) })
	wait.Wait()
	for _, code := range refusalCode.FindAllStringSubmatch(linked, -1) {
		r.refused = append(r.refused, file+" "+code[1])
	}
	output := r.compare(t, file, linked, control)
	r.settle(t, file, fmt.Sprintf("about %d statements, %s", statements, output))
}

// settle waits until the secondary has everything of a file, and compares the sides. said is what is told
// of one that is in order.
func (r *regress) settle(t *testing.T, file, said string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), regressPatience)
	defer cancel()
	if err := r.arrive(ctx, t); err != nil {
		t.Errorf("%s: %v", file, err)
		r.again(t)
		return
	}
	if _, err := r.pair.A.Client.LargeObjects(ctx, database, api.LargeObjectsRequest{Now: true}); err != nil {
		t.Errorf("%s: large objects: %v", file, err)
	}
	v := verify(t, r.pair.A.Client, database, api.Verify{})
	if v.State != api.Equal {
		if v.State != api.Different || slices.ContainsFunc(v.Differences, func(d api.Difference) bool { return explain(apart, file, d.Object) == nil }) {
			t.Errorf("%s: the sides are %s: %+v, problem %+v", file, v.State, v.Differences, v.Problem)
		}
		r.again(t)
		return
	}
	t.Logf("%s: %s; %d tables and %d rows equal", file, said, v.TablesDone, v.Rows)
}

// run gives the text of a file to psql as pg_regress does, and returns what it prints.
func (r *regress) run(t *testing.T, s *pgtest.Server, name, file, text string) string {
	ctx, cancel := context.WithTimeout(t.Context(), regressPatience)
	defer cancel()
	build := filepath.Join(r.results, name)
	for _, dir := range []string{build, filepath.Join(build, "results")} {
		if err := os.MkdirAll(dir, 0o777); err != nil {
			t.Error(err)
		}
		// The server writes there, as another user.
		if err := os.Chmod(dir, 0o777); err != nil {
			t.Error(err)
		}
	}
	cmd := exec.CommandContext(ctx, r.psql, "-X", "-a", "-q", "-d", s.DSN(database), "-v", "HIDE_TABLEAM=on", "-v", "HIDE_TOAST_COMPRESSION=on")
	cmd.Stdin = strings.NewReader(text)
	cmd.Env = append(os.Environ(), "PGTZ=PST8PDT", "PGDATESTYLE=Postgres, MDY", "PGOPTIONS=-c intervalstyle=postgres_verbose", "PGPASSWORD="+pgtest.Password, "LC_MESSAGES=C", "LC_ALL=C",
		// No library of C functions is built: what needs one fails on both servers alike.
		"PG_ABS_SRCDIR="+r.sql, "PG_ABS_BUILDDIR="+build, "PG_LIBDIR=/nonexistent", "PG_DLSUFFIX=.so")
	out, _ := cmd.CombinedOutput() // its status is that of the last statement
	if ctx.Err() != nil {
		t.Errorf("%s: not over after %s on the %s server", file, regressPatience, name)
	}
	return strings.ReplaceAll(shown.ReplaceAllString(string(out), ""), build, "BUILDDIR")
}

// compare reports the lines that only one of the servers printed and that are not explained; it returns
// how they compare.
func (r *regress) compare(t *testing.T, file, linked, control string) string {
	dir := t.TempDir()
	for name, text := range map[string]string{"linked": linked, "control": control} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "diff", "-U3", "control", "linked")
	cmd.Dir = dir
	out, _ := cmd.Output()
	_, body, _ := strings.Cut(string(out), "\n@@")
	count, reasons := 0, map[string]bool{}
	for line := range strings.Lines(body) {
		if line[0] != '+' && line[0] != '-' {
			continue
		}
		reason := explain(differs, file, strings.TrimSuffix(line[1:], "\n"))
		if reason == nil {
			t.Errorf("%s: the servers print different lines:\n@@%s", file, body)
			return "output differs"
		}
		count++
		reasons[reason.why] = true
	}
	if count == 0 {
		return "output equal"
	}
	return fmt.Sprintf("output equal but for %d lines (%s)", count, strings.Join(slices.Sorted(maps.Keys(reasons)), "; "))
}

// arrive waits until the secondary has all that the primary wrote. Nothing may be made
// in the database for that.
func (r *regress) arrive(ctx context.Context, t *testing.T) error {
	var end lsn.LSN
	now, err := pgtest.Try(ctx, r.pair.A.Server.DSN("postgres"), `SELECT pg_current_wal_insert_lsn()`)
	if err == nil {
		end, err = lsn.Parse(now[0][0])
	}
	if err != nil {
		return err
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		l, err := r.pair.B.Client.Link(ctx, database)
		if err == nil {
			err = fmt.Errorf("phase %s, applied %s of %s; problems %+v", l.Phase, l.Position.Applied, end, l.Problems)
			if at, bad := lsn.Parse(l.Position.Applied); bad == nil && at >= end && l.Phase == api.Replicating {
				return nil
			}
		}
		if l.Phase == api.Broken {
			return err
		}
		r.heed(t, l.Problems)
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}

// heed does what a problem asks the secondary's operator for.
func (r *regress) heed(t *testing.T, problems []api.Problem) {
	for _, p := range problems {
		m := remedy.FindStringSubmatch(p.Hint)
		if p.Code != "right_missing" || m == nil || r.heeded[m[1]] {
			continue
		}
		r.heeded[m[1]] = true
		t.Logf("%s: %s", p.Title, m[1])
		pgtest.Exec(t, r.pair.B.Server.DSN(database), `SET session_replication_role = replica; SET twinspan.pass_gate = on; SET default_transaction_read_only = off`, m[1])
	}
}

// again makes the link anew, for the files to come.
func (r *regress) again(t *testing.T) {
	t.Helper()
	for _, side := range []*linktest.Side{r.pair.A, r.pair.B} {
		pgtest.Eventually(t, linktest.Patience, func() error {
			links, err := side.Client.Links(t.Context())
			if err != nil || len(links) == 0 {
				return err
			}
			_, err = side.Client.DeleteLink(t.Context(), database, true)
			return fmt.Errorf("side %s has the link still: %v", side.Name, err)
		})
	}
	pgtest.Exec(t, r.pair.B.Server.DSN("postgres"), `DROP DATABASE IF EXISTS `+database+` WITH (FORCE)`)
	r.link(t)
}

func regularFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}
