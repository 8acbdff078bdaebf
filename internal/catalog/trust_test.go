package catalog_test

import (
	"context"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/twinspan/twinspan/internal/catalog"
	"github.com/twinspan/twinspan/internal/pg"
	"github.com/twinspan/twinspan/internal/pgtest"
	"github.com/twinspan/twinspan/internal/problem"
)

var key = catalog.Key("a key of the test, thirty-two byt")

// discover looks into a database as an agent does.
func discover(t testing.TB, dsn, agent string, key catalog.Key) (catalog.Found, error) {
	t.Helper()
	d, err := pg.ParseDSN(dsn)
	if err != nil {
		t.Fatal(err)
	}
	session := catalog.DiscoverSession()
	session.Settings["lock_timeout"] = "200"
	conn, err := d.Connect(testContext(t), session)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	return catalog.Discover(testContext(t), conn, agent, key)
}

func names(links []*catalog.Link) []string {
	list := []string{}
	for _, l := range links {
		list = append(list, l.ID)
	}
	return list
}

func expectFound(t testing.TB, what, dsn, agent string, key catalog.Key, proved, unproved, strange []string) {
	t.Helper()
	found, err := discover(t, dsn, agent, key)
	got := [][]string{names(found.Proved), names(found.Unproved), names(found.Strange)}
	if want := [][]string{proved, unproved, strange}; err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%s: found %v, want %v; %v", what, got, want, err)
	}
}

func TestRecordsAreProved(t *testing.T) {
	none, one := []string{}, []string{linkID}
	conn, dsn, l := seeded(t)
	ctx := testContext(t)
	expectFound(t, "of an earlier release's form", dsn, agentA, key, none, one, none)
	expectFound(t, "to another agent", dsn, agentB, key, none, none, none)
	pgtest.Exec(t, dsn, `DROP TABLE twinspan.proof`) // which that release has not
	expectFound(t, "of an earlier release", dsn, agentA, key, none, one, none)
	if err := catalog.ProveStored(ctx, conn, l, key); err != nil {
		t.Fatal(err)
	}
	expectFound(t, "proved", dsn, agentA, key, one, none, none)
	expectFound(t, "with another key", dsn, agentA, append(catalog.Key("x"), key...), none, none, one)
	// A copy of the database is another one.
	copied := pgtest.Query(t, dsn, `SELECT current_database() || '_copy'`)[0][0]
	pgtest.Exec(t, dsn, `ALTER SCHEMA twinspan RENAME TO twinspan_away; ALTER SCHEMA twinspan_away RENAME TO twinspan`)
	conn.Close(ctx)
	s := pgtest.Shared(t)
	pgtest.Exec(t, s.DSN("postgres"), fmt.Sprintf(`CREATE DATABASE %q TEMPLATE %q`, copied, strings.TrimSuffix(copied, "_copy")))
	t.Cleanup(func() { pgtest.Exec(t, s.DSN("postgres"), fmt.Sprintf(`DROP DATABASE %q`, copied)) })
	expectFound(t, "copied", s.DSN(copied), agentA, key, none, none, one)
	// With the record goes its proof.
	conn = connect(t, dsn)
	if err := pg.InTx(ctx, conn, func(tx pgx.Tx) error { return catalog.Delete(ctx, tx, linkID) }); err != nil {
		t.Fatal(err)
	}
	if got := pgtest.Table(t, dsn, "twinspan.proof"); got != "" {
		t.Errorf("proofs left: %s", got)
	}
}

// Whatever the owner of another database prepares under the agent's name is named, and
// runs nothing of his with the agent's rights.
func TestPreparedSchemasAreNotBelieved(t *testing.T) {
	s := pgtest.Shared(t)
	owner := "mallory_" + s.Database(t)
	admin := s.DSN("postgres")
	pgtest.Exec(t, admin, fmt.Sprintf(`CREATE ROLE %q LOGIN PASSWORD 'x'`, owner))
	var databases []string
	t.Cleanup(func() {
		for _, d := range databases {
			pgtest.Exec(t, admin, fmt.Sprintf(`DROP DATABASE %q WITH (FORCE)`, d))
		}
		pgtest.Exec(t, admin, fmt.Sprintf(`DROP ROLE %q`, owner))
	})
	const act = `CREATE TABLE public.ran (who text); GRANT INSERT ON public.ran TO PUBLIC;
		CREATE FUNCTION public.act() RETURNS int LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.ran VALUES (current_user); RETURN 1; END $$;
		CREATE FUNCTION public.pure() RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN PERFORM public.act(); RETURN 1; END $$;
		CREATE SCHEMA twinspan;`
	tables := strings.Replace(tablesOf(t), "CREATE SCHEMA twinspan;", "", 1)
	for name, sql := range map[string]string{
		"view":            `CREATE VIEW twinspan.version AS SELECT public.act() AS version; CREATE VIEW twinspan.link AS SELECT public.act() AS id`,
		"tables":          tables,
		"newer":           `CREATE TABLE twinspan.version (version int PRIMARY KEY); INSERT INTO twinspan.version VALUES (99)`,
		"policy":          tables + `; ALTER TABLE twinspan.version ENABLE ROW LEVEL SECURITY; ALTER TABLE twinspan.version FORCE ROW LEVEL SECURITY; CREATE POLICY p ON twinspan.version USING (public.act() = 1)`,
		"index predicate": tables + `; CREATE INDEX ON twinspan.version (version) WHERE public.pure() = 1`,
		"check":           tables + `; ALTER TABLE twinspan.version ADD CHECK (public.pure() = 1)`,
		"foreign type":    `CREATE DOMAIN public.int4 AS int CHECK (public.act() = 1); CREATE TABLE twinspan.version (version public.int4)`,
		"sequence":        `CREATE SEQUENCE twinspan.version`,
		"materialized":    `CREATE MATERIALIZED VIEW twinspan.version AS SELECT 1 AS version`,
		"child":           tables + `; CREATE TABLE twinspan.more () INHERITS (twinspan.version)`,
		"nothing":         ``,
	} {
		database := s.Database(t) + "_" + strings.ReplaceAll(name, " ", "_")
		databases = append(databases, database)
		pgtest.Exec(t, admin, fmt.Sprintf(`CREATE DATABASE %q OWNER %q`, database, owner))
		dsn := s.DSN(database)
		pgtest.Exec(t, dsn, fmt.Sprintf(`SET SESSION AUTHORIZATION %q; `, owner)+act+sql)
		before := pgtest.Table(t, dsn, "public.ran")
		_, err := discover(t, dsn, agentA, key)
		if problem.CodeOf(err) != "schema_taken" || problem.As(err).Hint == "" {
			t.Errorf("%s: got %v", name, err)
		}
		if err := install(t, connect(t, dsn)); problem.CodeOf(err) != "schema_taken" {
			t.Errorf("%s: a link was made on it: %v", name, err)
		}
		if got := pgtest.Table(t, dsn, "public.ran"); got != before {
			t.Errorf("%s: something ran: %s", name, got)
		}
	}
	if len(databases) != 11 {
		t.Fatalf("%d tries", len(databases))
	}
}

// tablesOf is schema.sql as whoever can read it would run it.
func tablesOf(t testing.TB) string {
	conn, _ := open(t)
	if err := install(t, conn); err != nil {
		t.Fatal(err)
	}
	return catalog.SchemaSQL()
}

// Tables of a trusted owner that are not what agents make are not read either: a
// superuser may have made them in error, and to read them may run code of others.
func TestOddTablesAreNotRead(t *testing.T) {
	for name, sql := range map[string]string{
		"row security":   `ALTER TABLE twinspan.link ENABLE ROW LEVEL SECURITY`,
		"view":           `ALTER TABLE twinspan.link RENAME TO was; CREATE VIEW twinspan.link AS SELECT * FROM twinspan.was`,
		"rule":           `CREATE RULE r AS ON DELETE TO twinspan.link DO INSTEAD NOTHING`,
		"child":          `CREATE TABLE twinspan.more () INHERITS (twinspan.link)`,
		"type":           `ALTER TABLE twinspan.link ALTER COLUMN phase TYPE varchar`,
		"column missing": `ALTER TABLE twinspan.link DROP COLUMN phase`,
		"proof":          `ALTER TABLE twinspan.proof ALTER proof TYPE char(64)`,
		"proof a view":   `ALTER TABLE twinspan.proof RENAME TO was; CREATE VIEW twinspan.proof AS SELECT * FROM twinspan.was`,
		"no link":        `DROP TABLE twinspan.link CASCADE`,
	} {
		_, dsn, _ := seeded(t)
		pgtest.Exec(t, dsn, sql)
		_, err := discover(t, dsn, agentA, key)
		if problem.CodeOf(err) != "schema_taken" && pg.SQLState(err) != "42P01" {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// A lock that somebody holds is waited for a moment only.
func TestLockedTablesAreNotWaitedFor(t *testing.T) {
	_, dsn, _ := seeded(t)
	holder := connect(t, dsn)
	ctx := testContext(t)
	if _, err := holder.Exec(ctx, `BEGIN; LOCK TABLE twinspan.link`); err != nil {
		t.Fatal(err)
	}
	_, err := discover(t, dsn, agentA, key)
	if problem.CodeOf(err) != "lock_not_available" {
		t.Errorf("got %v", err)
	}
	if _, err := holder.Exec(ctx, `ROLLBACK`); err != nil {
		t.Fatal(err)
	}
	expectFound(t, "afterwards", dsn, agentA, key, []string{}, []string{linkID}, []string{})
}

// A role that may not look into another agent's schema is told so, and not refused
// with an error of the server.
func TestClosedSchemaIsToldApart(t *testing.T) {
	_, dsn, _ := seeded(t)
	role := pgtest.Query(t, dsn, `SELECT 'weak_' || current_database()`)[0][0]
	pgtest.Exec(t, dsn, fmt.Sprintf(`CREATE ROLE %q LOGIN PASSWORD 'x'`, role))
	t.Cleanup(func() { pgtest.Exec(t, dsn, fmt.Sprintf(`DROP ROLE %q`, role)) })
	conn := connect(t, dsn)
	ctx := testContext(t)
	if _, err := conn.Exec(ctx, fmt.Sprintf(`SET SESSION AUTHORIZATION %q`, role)); err != nil {
		t.Fatal(err)
	}
	_, err := catalog.Discover(ctx, conn, agentA, key)
	if problem.CodeOf(err) != "schema_closed" || problem.KindOf(err) != problem.Unauthorised {
		t.Errorf("got %v", err)
	}
}
