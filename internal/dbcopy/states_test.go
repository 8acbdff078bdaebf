package dbcopy_test

import (
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/dbcopy"
	"github.com/twinspan/twinspan/internal/pgtest"
	"github.com/twinspan/twinspan/internal/problem"
	"github.com/twinspan/twinspan/internal/seed"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// stopped is a source that fails, or waits, when rows are asked for.
type stopped struct {
	dbcopy.Source
	copy func(ctx context.Context) error
}

func (s stopped) Copy(ctx context.Context, r seed.CopyRequest, w io.Writer) (int64, error) {
	if err := s.copy(ctx); err != nil {
		return 0, err
	}
	return s.Source.Copy(ctx, r, w)
}

// try is pgtest.Exec for goroutines that are not the test's.
func try(ctx context.Context, dsn string, statements ...string) error {
	for _, sql := range statements {
		if _, err := pgtest.Try(ctx, dsn, sql); err != nil {
			return err
		}
	}
	return nil
}

func databases(t testing.TB, s *pgtest.Server) string {
	t.Helper()
	var names []string
	for _, row := range pgtest.Query(t, s.DSN("postgres"), `SELECT datname FROM pg_database WHERE datname LIKE 'twinspan copy%' OR datname LIKE 'copy of%' ORDER BY 1`) {
		names = append(names, row[0])
	}
	return strings.Join(names, ",")
}

// small makes a database of one table.
func small(t testing.TB, s *pgtest.Server) string {
	t.Helper()
	dsn := s.DSN(s.Database(t))
	pgtest.Exec(t, dsn, `CREATE TABLE t (a int PRIMARY KEY, b text)`, `INSERT INTO t SELECT n, 'row ' || n FROM generate_series(1, 1000) n`)
	return dsn
}

func TestCancelledCopyLeavesNothing(t *testing.T) {
	s := pgtest.Shared(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	why := problem.New(problem.Cancelled, "copy_cancelled", "somebody ended it")
	source := stopped{open(t, small(t, s)), func(context.Context) error {
		if err := try(t.Context(), s.DSN(dbcopy.Draft(agent, id)), `SELECT 1`); err != nil {
			t.Errorf("while it is copied: %v", err)
		}
		cancel(why)
		<-ctx.Done()
		return context.Cause(ctx)
	}}
	_, err := target(t, s, "copy of small").Copy(ctx, source)
	if problem.CodeOf(err) != "copy_cancelled" {
		t.Errorf("the error is %v", err)
	}
	if left := databases(t, s); left != "" {
		t.Errorf("there are %s", left)
	}
}

func TestCopyGoesOnAfterWhatPasses(t *testing.T) {
	s := pgtest.Shared(t)
	from := small(t, s)
	failed := 0
	source := stopped{open(t, from), func(context.Context) error {
		if failed++; failed < 3 {
			return problem.New(problem.Transient, "connection_lost", "the network is away")
		}
		return nil
	}}
	_, dsn := must(t, s, source, "copy of small")
	pgtest.Equal(t, from, dsn)
	if failed < 3 {
		t.Errorf("it was tried %d times", failed)
	}
}

func TestPatienceEnds(t *testing.T) {
	s := pgtest.Shared(t)
	source := stopped{open(t, small(t, s)), func(context.Context) error {
		return problem.New(problem.Transient, "connection_lost", "the network is away")
	}}
	to := target(t, s, "copy of small")
	to.Patience = time.Millisecond
	if _, err := to.Copy(t.Context(), source); problem.CodeOf(err) != "connection_lost" {
		t.Errorf("the error is %v", err)
	}
	if left := databases(t, s); left != "" {
		t.Errorf("there are %s", left)
	}
}

// TestMomentThatIsGone copies a table whose rows are gone, and one whose session is.
func TestMomentThatIsGone(t *testing.T) {
	s := pgtest.Shared(t)
	from := small(t, s)
	source := open(t, from)
	pgtest.Exec(t, from, `TRUNCATE t`)
	_, err := target(t, s, "copy of small").Copy(t.Context(), source)
	if problem.CodeOf(err) != "table_changed" || !strings.Contains(problem.As(err).Hint, "copy") {
		t.Errorf("of a truncated table: %v (hint: %s)", err, problem.As(err).Hint)
	}
	source = open(t, from)
	pgtest.Exec(t, from, `SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'twinspan/copy/snapshot'`)
	_, err = target(t, s, "copy of small").Copy(t.Context(), source)
	if problem.CodeOf(err) != "session_lost" {
		t.Errorf("of a session that is gone: %v", err)
	}
	if left := databases(t, s); left != "" {
		t.Errorf("there are %s", left)
	}
}

func TestNamesThatAreRefused(t *testing.T) {
	s := pgtest.Shared(t)
	source := open(t, small(t, s))
	for name, code := range map[string]string{
		"": "database_name_invalid", strings.Repeat("é", 32): "database_name_invalid", "a\nb": "database_name_invalid", "twinspan copy x": "database_name_invalid",
		"postgres": "database_exists", "template1": "database_exists",
	} {
		to := target(t, s, "copy of small")
		to.Name = name
		if _, err := to.Copy(t.Context(), source); problem.CodeOf(err) != code {
			t.Errorf("%q: %v, want %s", name, err, code)
		}
	}
	// Somebody takes the name while it is copied.
	taken := stopped{source, func(context.Context) error {
		return try(t.Context(), s.DSN("postgres"), `CREATE DATABASE "copy of small"`)
	}}
	if _, err := target(t, s, "copy of small").Copy(t.Context(), taken); problem.CodeOf(err) != "database_exists" {
		t.Errorf("a name that was taken meanwhile: %v", err)
	}
	if left := databases(t, s); left != "copy of small" {
		t.Errorf("there are %s", left)
	}
}

// vast is a source that is larger than any disk.
type vast struct{ dbcopy.Source }

func (v vast) Origin() dbcopy.Origin {
	o := v.Source.Origin()
	o.Bytes = 1 << 60
	return o
}

func TestNoRoom(t *testing.T) {
	s := pgtest.Shared(t)
	_, err := target(t, s, "copy of vast").Copy(t.Context(), vast{open(t, small(t, s))})
	if problem.CodeOf(err) != "space_short" || !strings.Contains(problem.As(err).Error(), "1048576 TB") {
		t.Errorf("the error is %v", err)
	}
	if left := databases(t, s); left != "" {
		t.Errorf("there are %s", left)
	}
}

// TestNobodyIsLetIn has somebody look at the unfinished copy, and a superuser sit in it.
func TestNobodyIsLetIn(t *testing.T) {
	s := pgtest.Shared(t)
	roles(t, s)
	draft := dbcopy.Draft(agent, id)
	source := stopped{open(t, small(t, s)), func(context.Context) error {
		if err := try(t.Context(), s.DSNOf("copy_owner", "x", draft), `SELECT 1`); err == nil {
			t.Error("a role without rights can connect to the unfinished copy")
		}
		sitting, err := pgx.Connect(t.Context(), s.DSN(draft))
		if err == nil {
			t.Cleanup(func() { sitting.Close(context.Background()) })
		}
		return err
	}}
	_, dsn := must(t, s, source, "copy of small")
	if rows := pgtest.Query(t, s.DSNOf("copy_owner", "x", "copy of small"), `SELECT current_database()`); rows[0][0] != "copy of small" {
		t.Errorf("the role is in %v", rows)
	}
	nothingOfOurs(t, dsn)
}

// TestSweep drops what a killed agent has left, with the roles that were made for it, and
// nothing else.
func TestSweep(t *testing.T) {
	s := pgtest.Shared(t)
	other, busy := "9c9c9c9c-0000-4000-8000-000000000000", "7d7d7d7d-0000-4000-8000-000000000000"
	keep := []string{dbcopy.Draft(other, id), dbcopy.Draft(agent, busy), "copy of small"}
	for _, name := range keep {
		s.CreateDatabase(t, name)
	}
	pgtest.Exec(t, s.DSN("postgres"), `CREATE ROLE copy_useful`)
	t.Cleanup(func() {
		conn := pgtest.Conn(t, s.DSN("postgres"))
		for _, name := range append(keep, "copy of role", dbcopy.Draft(agent, id)) {
			if _, err := conn.Exec(context.Background(), `DROP DATABASE IF EXISTS `+sqlname.Quote(name)); err != nil {
				t.Error(err)
			}
		}
		for _, sql := range []string{`DROP ROLE copy_useful`, `DROP ROLE IF EXISTS copy_made, copy_made_login`} {
			if _, err := conn.Exec(context.Background(), sql); err != nil {
				t.Error(err)
			}
		}
	})
	from := small(t, s)
	pgtest.Exec(t, from, `ALTER TABLE t OWNER TO copy_useful`)
	ended := make(chan struct{})
	source := stopped{open(t, from), func(ctx context.Context) error {
		defer close(ended)
		err := try(ctx, s.DSN("postgres"), `CREATE ROLE copy_made`, `CREATE ROLE copy_made_login LOGIN`)
		if err == nil {
			err = try(ctx, s.DSN(dbcopy.Draft(agent, id)), `INSERT INTO twinspan.seed_entry (link, number, section, kind, schema_name, name, spec, sql, done)
				SELECT l.id, 9000 + x.n, 'pre-data', 'ROLE', '', x.name, '{}', '', true FROM twinspan.link l, unnest('{copy_made,copy_made_login,copy_useful}'::text[]) WITH ORDINALITY AS x (name, n)`)
		}
		if err != nil {
			t.Error(err)
			return problem.New(problem.Internal, "internal", "the test failed")
		}
		err = dbcopy.Sweep(t.Context(), parse(t, s.DSN("postgres")), agent, func() []string { return []string{busy} }, quiet)
		if err != nil {
			t.Error(err)
		}
		return problem.New(problem.Internal, "internal", "the agent is dead")
	}}
	if _, err := target(t, s, "copy of role").Copy(t.Context(), source); problem.CodeOf(err) != "database_missing" {
		t.Errorf("the copy ends with %v", err)
	}
	<-ended
	if got := databases(t, s); got != fmt.Sprintf("%s,%s,%s", keep[2], keep[1], keep[0]) && got != fmt.Sprintf("%s,%s,%s", keep[2], keep[0], keep[1]) {
		t.Errorf("after the sweep there are %s", got)
	}
	rows := pgtest.Query(t, s.DSN("postgres"), `SELECT rolname FROM pg_roles WHERE rolname IN ('copy_made', 'copy_made_login', 'copy_useful') ORDER BY 1`)
	if fmt.Sprint(rows) != "[[copy_made_login] [copy_useful]]" {
		t.Errorf("after the sweep there are the roles %v", rows)
	}
}

// What an owner puts at a table of his while it is copied does not run with the agent's rights, however large the table is.
func TestCodeThatComesBehindTheMoment(t *testing.T) {
	s := pgtest.Shared(t)
	from := s.DSN(s.Database(t))
	pgtest.Exec(t, from, `DO $$ BEGIN CREATE ROLE copy_eve; EXCEPTION WHEN duplicate_object THEN NULL; END $$`, `CREATE SCHEMA eve AUTHORIZATION copy_eve`, `SET ROLE copy_eve`,
		`CREATE FUNCTION eve.f(int) RETURNS bool LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN IF current_user <> 'copy_eve' THEN RAISE 'it ran as %', current_user; END IF; RETURN true; END $$`,
		`CREATE TABLE eve.t (i int PRIMARY KEY, v text); ALTER TABLE eve.t ALTER v SET STORAGE PLAIN`, `INSERT INTO eve.t SELECT i, repeat('x', 6000) FROM generate_series(1, 20000) i`) // two chunks and more
	source := open(t, from)
	pgtest.Exec(t, from, `SET ROLE copy_eve`, `CREATE INDEX late ON eve.t (i) WHERE i < 10 AND eve.f(1)`)
	_, made := must(t, s, source, "copy of eve")
	pgtest.Exec(t, from, `DROP INDEX eve.late`) // or it would run in the queries of this test
	if a, b := pgtest.Table(t, from, "eve.t"), pgtest.Table(t, made, "eve.t"); a != b {
		t.Error("the copy's rows are others")
	}
}
