package test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/instance"
	"github.com/twinspan/twinspan/internal/linktest"
	"github.com/twinspan/twinspan/internal/pgtest"
	"github.com/twinspan/twinspan/internal/sqlname"
)

// own matches what a link puts into a database besides its schema, as pg_dump
// writes it: triggers, event triggers, and the replica identities of the primary.
var own = regexp.MustCompile(`(?m)^(CREATE TRIGGER twinspan_\w+ .*;|CREATE EVENT TRIGGER "?!?twinspan_[^;]*;|ALTER EVENT TRIGGER "?!?twinspan_.*;|ALTER (FOREIGN )?TABLE .* ENABLE ALWAYS TRIGGER twinspan_\w+;|ALTER TABLE ONLY .* REPLICA IDENTITY .*;)\n`)

// structure is the schema of a database, but for what the link put there.
func structure(ctx context.Context, s *linktest.Side, database string) (string, error) {
	path, _, err := instance.FindClient("pg_dump", s.Server.Major)
	if err != nil {
		return "", err
	}
	out, err := exec.CommandContext(ctx, path, "--schema-only", "--exclude-schema=twinspan",
		"--no-publications", "--no-subscriptions", "--no-tablespaces", "--dbname="+s.Server.DSN(database)).Output()
	if err != nil {
		return "", fmt.Errorf("pg_dump: %w", err)
	}
	text := own.ReplaceAllString(string(out), "")
	var lines []string
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "--") && !strings.HasPrefix(line, `\`) && strings.TrimSpace(line) != "" {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, ""), nil
}

// brokenLink is the error of a link that is broken.
type brokenLink struct{ problems []api.Problem }

func (e brokenLink) Error() string { return fmt.Sprintf("the link is broken: %+v", e.problems) }

// arrive waits until everything written before has been applied: a row that is
// written now is. It returns a brokenLink when the link breaks meanwhile.
func arrive(ctx context.Context, p *linktest.Pair, name, database string) error {
	return reach(ctx, p.A, p.B, name, database)
}

// reach is arrive from a side that is primary now.
func reach(ctx context.Context, from, to *linktest.Side, name, database string) error {
	a, b := from.Server.DSN(database), to.Server.DSN(database)
	if _, err := pgtest.Try(ctx, a, `CREATE TABLE IF NOT EXISTS arrived (n int PRIMARY KEY)`); err != nil {
		return err
	}
	// The other side's sessions may have another path.
	table, err := pgtest.Try(ctx, a, `SELECT concat(relnamespace::regnamespace, '.arrived') FROM pg_class WHERE oid = 'arrived'::regclass`)
	if err != nil {
		return err
	}
	n, err := pgtest.Try(ctx, a, fmt.Sprintf(`INSERT INTO %[1]s SELECT count(*) FROM %[1]s RETURNING n`, table[0][0]))
	if err != nil {
		return err
	}
	twin, err := pgx.Connect(ctx, b)
	if err != nil {
		return err
	}
	defer twin.Close(context.Background())
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		var there bool
		// Before the first time there is no such table.
		if err := twin.QueryRow(ctx, `SELECT EXISTS (SELECT FROM `+table[0][0]+` WHERE n = $1::text::int)`, n[0][0]).Scan(&there); err == nil && there {
			return nil
		}
		l, err := to.Client.Link(ctx, name)
		if err == nil && l.Phase == api.Broken {
			return brokenLink{l.Problems}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the row has not come: %w, problems %+v, %v", ctx.Err(), l.Problems, err)
		case <-tick.C:
		}
	}
}

func arrived(t *testing.T, p *linktest.Pair, name, database string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), linktest.Patience)
	defer cancel()
	if err := arrive(ctx, p, name, database); err != nil {
		t.Fatal(err)
	}
}

// sameStructure fails the test unless both sides have the same schema and rows.
func sameStructure(t *testing.T, p *linktest.Pair, name, database string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), linktest.Patience)
	defer cancel()
	if err := compareSides(ctx, p, name, database); err != nil {
		t.Fatal(err)
	}
}

// compareSides waits until everything has been applied, and returns an error unless
// both sides have the same schema and rows.
func compareSides(ctx context.Context, p *linktest.Pair, name, database string) error {
	if err := arrive(ctx, p, name, database); err != nil {
		return err
	}
	diff, err := pgtest.Diff(ctx, p.A.Server.DSN(database), p.B.Server.DSN(database))
	if err != nil {
		return err
	}
	if diff != "" {
		return fmt.Errorf("the databases differ (- primary, + twin)\n%s", diff)
	}
	if p.A.Server.Major == p.B.Server.Major { // else their dumps say the same in other words
		if err := compareDumps(ctx, p, database); err != nil {
			return err
		}
	}
	open, err := pgtest.Try(ctx, p.B.Server.DSN(database), withoutGate)
	if err == nil && len(open) > 0 {
		err = fmt.Errorf("tables of the twin without a gate: %v", open)
	}
	return err
}

// withoutGate lists the tables of a twin that anybody may write to.
const withoutGate = `SELECT c.oid::regclass FROM pg_class c WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
	AND c.relnamespace::regnamespace::text NOT IN ('pg_catalog', 'information_schema', 'twinspan')
	AND NOT EXISTS (SELECT FROM pg_trigger g WHERE g.tgrelid = c.oid AND g.tgname = 'twinspan_gate' AND g.tgenabled = 'A')`

func compareDumps(ctx context.Context, p *linktest.Pair, database string) error {
	textA, err := structure(ctx, p.A, database)
	if err != nil {
		return err
	}
	textB, err := structure(ctx, p.B, database)
	if err != nil {
		return err
	}
	a, b := strings.SplitAfter(textA, "\n"), strings.SplitAfter(textB, "\n")
	inA, inB := map[string]int{}, map[string]int{}
	for _, l := range a {
		inA[l]++
	}
	for _, l := range b {
		inB[l]++
	}
	var diff strings.Builder
	for _, l := range a {
		if inA[l] > inB[l] {
			diff.WriteString("- " + l)
		}
	}
	for _, l := range b {
		if inB[l] > inA[l] {
			diff.WriteString("+ " + l)
		}
	}
	if diff.Len() > 0 {
		return fmt.Errorf("the schemas differ (- primary, + twin)\n%s", diff.String())
	}
	return nil
}

// run executes each text as a client sends it: one simple query.
func run(t *testing.T, dsn string, sql ...string) error {
	t.Helper()
	conn := pgtest.Conn(t, dsn)
	defer conn.Close(context.Background())
	for _, text := range sql {
		if _, err := conn.PgConn().Exec(context.Background(), text).ReadAll(); err != nil {
			return err
		}
	}
	return nil
}

// form is a way in which people change a schema.
type form struct {
	name  string
	steps []string
}

func TestSchemaChangesCross(t *testing.T) {
	t.Parallel()
	crossing(t, 0)
}

// Every version that can be a primary captures what its own commands change. A
// form that a version does not know is passed over there.
func TestMatrixOfSchemaChanges(t *testing.T) {
	t.Parallel()
	if os.Getenv(matrixVariable) != "all" {
		return // the installed version is TestSchemaChangesCross
	}
	for _, primary := range primaries {
		t.Run(strconv.Itoa(primary), func(t *testing.T) { crossing(t, primary) })
	}
}

func crossing(t *testing.T, primary int) { crossingOf(t, primary, beforeForms, forms) }

// crossingOf makes a link of a database in which before has been run, and runs forms in it.
func crossingOf(t *testing.T, primary int, before []string, forms []form) {
	secondary := primary
	if primary != 0 {
		secondary = max(primary, secondaries[0])
	}
	p := linktest.New(t, linktest.Options{ServerA: version(primary), ServerB: version(secondary)})
	p.A.Server.CreateDatabase(t, "forms")
	a := p.A.Server.DSN("forms")
	pgtest.Exec(t, a, before...)
	p.Create(t, "forms", "forms")
	p.WaitPhase(t, "forms", api.Replicating)
	for _, f := range forms {
		ok := t.Run(f.name, func(t *testing.T) {
			conn := pgtest.Conn(t, a)
			defer conn.Close(context.Background())
			for _, sql := range f.steps {
				_, err := conn.PgConn().Exec(t.Context(), sql).ReadAll()
				var e *pgconn.PgError
				switch {
				case err == nil:
				case primary != 0 && errors.As(err, &e) && !strings.Contains(e.Detail, "Twinspan"):
					t.Logf("version %d: %v", primary, err)
				default:
					t.Fatal(err)
				}
			}
			sameStructure(t, p, "forms", "forms")
		})
		if !ok {
			l, err := p.B.Client.Link(t.Context(), "forms")
			t.Fatalf("link: %+v, %v", l.Problems, err)
		}
	}
}

func TestSchemaChangesRefused(t *testing.T) {
	t.Parallel()
	p := linktest.New(t, linktest.Options{})
	p.A.Server.CreateDatabase(t, "refused")
	a := p.A.Server.DSN("refused")
	pgtest.Exec(t, a, `CREATE TABLE t (id int PRIMARY KEY)`)
	p.Create(t, "refusing", "refused")
	p.WaitPhase(t, "refusing", api.Replicating)
	for _, f := range refusals {
		t.Run(f.code, func(t *testing.T) {
			err := run(t, a, f.steps...)
			e, ok := err.(*pgconn.PgError)
			if !ok || e.Code != "0A000" || !strings.Contains(e.Detail, f.code) || !strings.Contains(e.Message, `link "refusing"`) || e.Hint == "" {
				t.Fatalf("the error is %#v", err)
			}
		})
	}
	// The extended protocol, too, is understood.
	conn := pgtest.Conn(t, a)
	if _, err := conn.Exec(t.Context(), `CREATE TABLE after (id int PRIMARY KEY);`, pgx.QueryExecModeExec); err != nil {
		t.Fatal(err)
	}
	sameStructure(t, p, "refusing", "refused")
}

// makesTables makes functions that change the schema, one under a promise not to.
const makesTables = `DROP TABLE IF EXISTS e1, made_1; CREATE OR REPLACE FUNCTION makes(n int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN EXECUTE format('CREATE TABLE made_%s (a int)', n); RETURN n; END $$;
	CREATE OR REPLACE FUNCTION makes_too(n int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN makes(n); END'; INSERT INTO t VALUES (1) ON CONFLICT DO NOTHING`

var refusals = []struct {
	code  string
	steps []string
}{
	{"ddl_c_function", []string{`CREATE FUNCTION c(internal) RETURNS internal LANGUAGE c STRICT AS '$libdir/dict_snowball', 'dsnowball_init'`}},
	{"ddl_temporary", []string{`CREATE TEMP TABLE model (a int)`, `SELECT 1; CREATE TABLE made (a int, m model)`}},
	{"ddl_effects", []string{makesTables, `CREATE SCHEMA effects CREATE TABLE p (a int) PARTITION BY RANGE (a) CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (makes(1)) TO (100)`}},
	{"ddl_effects", []string{makesTables, `CREATE INDEX ON t (makes_too(id))`}},
	{"ddl_effects", []string{makesTables, `DO $$ BEGIN CREATE TABLE e1 (a int); EXECUTE 'ALTER TABLE t ADD CHECK (makes(id) > 0)'; END $$`}},
	{"ddl_effects", []string{makesTables, `CREATE DOMAIN d AS int; CREATE TABLE e1 (d d); INSERT INTO e1 VALUES (1)`, `ALTER DOMAIN d ADD CHECK (makes(VALUE) > 0)`}},
	{"ddl_effects", []string{makesTables, `CREATE TABLE e1 (id int REFERENCES t)`, `ALTER TABLE t ADD n int DEFAULT makes(1)`}},
	{"ddl_effects", []string{`DROP TABLE e1; CREATE TABLE e1 (a int); CREATE FUNCTION writes() RETURNS int LANGUAGE plpgsql AS 'BEGIN INSERT INTO e1 VALUES (1); RETURN 1; END'`, `CREATE MATERIALIZED VIEW e2 AS SELECT writes()`}},
	{"ddl_effects", []string{`CREATE FUNCTION once() RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE MATERIALIZED VIEW e3 AS SELECT once(); CREATE OR REPLACE FUNCTION once() RETURNS int LANGUAGE plpgsql AS 'BEGIN UPDATE t SET id = id; RETURN 1; END'`, `REFRESH MATERIALIZED VIEW e3`}},
	{"ddl_effects", []string{`CREATE TABLE e4 (id int REFERENCES t)`, `ALTER TABLE t ADD n int DEFAULT writes()`}},
	{"ddl_effects", []string{`CREATE FUNCTION vouches(int) RETURNS bool LANGUAGE plpgsql AS 'BEGIN INSERT INTO e1 VALUES (2); RETURN true; END'`, `ALTER TABLE t ADD CHECK (vouches(id))`}},
	{"ddl_effects", []string{`DO $$ BEGIN EXECUTE 'ALTER TABLE t ADD CHECK (vouches(id))'; END $$`}},
	{"ddl_effects", []string{`CREATE FUNCTION hides() RETURNS void LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'ALTER TABLE t ADD CHECK (vouches(id))'; END $$`, `ALTER TABLE e1 ADD z int; SELECT hides()`}},
	{"ddl_effects", []string{`CREATE FUNCTION keyed(n int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN writes(); END'`, `CREATE INDEX ON t (keyed(id))`}},
	{"ddl_type_unwritable", []string{`CREATE TABLE snap AS SELECT * FROM pg_class`}},
	{"ddl_text_unknown", []string{`CREATE FUNCTION twofold(int) RETURNS void LANGUAGE sql AS 'CREATE TABLE a1 (id int)'`,
		`CREATE FUNCTION twofold(text) RETURNS void LANGUAGE sql AS 'CREATE TABLE a2 (id int)'`, `SELECT twofold(1)`}},
	{"ddl_while_seeding", []string{`BEGIN; UPDATE twinspan.link SET seeded = false, phase = 'seeding'; ALTER TABLE t ADD x int`}},
	{"ddl_extension_missing", []string{`DELETE FROM twinspan.twin_extension WHERE name = 'hstore'`, `CREATE EXTENSION hstore`}},
	{"ddl_import_foreign_schema", []string{`CREATE EXTENSION postgres_fdw`, `CREATE SCHEMA imported`,
		`DO $$ BEGIN EXECUTE format('CREATE SERVER loop FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host ''127.0.0.1'', port %L, dbname %L)', current_setting('port'), current_database()); END $$`,
		`CREATE USER MAPPING FOR CURRENT_USER SERVER loop OPTIONS (user 'postgres', password ` + sqlname.Literal(pgtest.Password) + `)`, `IMPORT FOREIGN SCHEMA public LIMIT TO (t) FROM SERVER loop INTO imported`}},
}
